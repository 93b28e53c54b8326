//! The dashboards as files: required fields are present, panels do not overlap, variables that are used are defined. scripts/dashboards
//! checks them against Grafana's own types.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// What a panel's description says if the panel is empty on eBPF nodes, and if it is empty on all others.
pub const NOT_EBPF: &str = "Not counted on the eBPF dataplane.";
pub const ONLY_EBPF: &str = "Only on the eBPF dataplane.";

/// A Grafana dashboard. Fields that Grafana requires are not optional here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    pub uid: String,
    pub title: String,
    description: String,
    schema_version: u32,
    tags: Vec<String>,
    links: Vec<Link>,
    templating: Templating,
    pub panels: Vec<Panel>,
}

/// A link to the other dashboards.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Link {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(rename = "icon")]
    _icon: String,
    #[serde(rename = "tooltip")]
    _tooltip: String,
    tags: Vec<String>,
    as_dropdown: bool,
    #[serde(rename = "targetBlank")]
    _target_blank: bool,
    keep_time: bool,
    include_vars: bool,
}

#[derive(Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    pub name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    query: serde_json::Value,
    #[serde(default)]
    pub all_value: Option<String>,
    #[serde(default)]
    datasource: serde_json::Value,
}

/// A panel, or the title of a row of panels.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    pub title: String,
    #[serde(default)]
    pub description: String,
    grid_pos: Place,
    #[serde(default)]
    datasource: serde_json::Value,
    #[serde(default)]
    field_config: serde_json::Value,
    #[serde(default)]
    pub targets: Vec<Target>,
    #[serde(default)]
    transformations: serde_json::Value,
}

#[derive(Deserialize)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    ref_id: String,
    pub expr: String,
    #[serde(default)]
    pub legend_format: String,
    /// Whether there is one answer for the whole time range.
    #[serde(default)]
    pub instant: bool,
}

impl Dashboard {
    /// The variables whose values come from Prometheus.
    pub fn queried(&self) -> impl Iterator<Item = &Variable> {
        self.templating.list.iter().filter(|variable| variable.kind == "query")
    }
}

impl Variable {
    /// The series and the label of a variable's `label_values(SERIES, LABEL)`.
    pub fn asks(&self) -> (&str, &str) {
        let inside = self.query["query"].as_str().and_then(|query| query.strip_prefix("label_values(")?.strip_suffix(')'));
        inside.and_then(|inside| inside.rsplit_once(", ")).unwrap_or_else(|| panic!("{}", self.query))
    }
}

/// All dashboards, in the order of their file names.
pub fn dashboards() -> Vec<Dashboard> {
    let mut files: Vec<_> = std::fs::read_dir(super::path("deploy/grafana")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap_or_else(|e| panic!("{file:?}: {e}"))).collect()
}

/// The names of `$name` and `${name:format}` in a text. Grafana's own begin with `__`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()
    })
}

#[test]
fn dashboards_are_whole() {
    let all = dashboards();
    let uids: Vec<_> = all.iter().map(|dashboard| dashboard.uid.as_str()).collect();
    assert_eq!(uids, ["exporter", "fleet", "policies", "workload"].map(|name| format!("calico-accountant-{name}")));
    for dashboard in &all {
        assert!(dashboard.schema_version >= 36 && dashboard.tags == ["calico-accountant"] && !dashboard.description.is_empty());
        let list = &dashboard.templating.list;
        assert_eq!((list[0].name.as_str(), list[0].kind.as_str()), ("datasource", "datasource"), "{}", dashboard.title);
        for Link { kind, title, tags, as_dropdown, keep_time, include_vars, .. } in &dashboard.links {
            assert!(kind == "dashboards" && tags == &dashboard.tags && *as_dropdown && *keep_time && *include_vars, "{title}");
        }
        for variable in dashboard.queried() {
            assert_eq!(variable.datasource["uid"], "${datasource}", "{}", variable.name);
            // These have a series for each workload and policy, which is too many for a variable.
            assert!(!variable.asks().0.ends_with("_packets_total"), "{}", variable.name);
        }
        let defined: BTreeSet<_> = list.iter().map(|variable| variable.name.as_str()).collect();
        let ids: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), dashboard.panels.len(), "{}: panels with the same id", dashboard.title);
        let mut row = "";
        for panel in &dashboard.panels {
            if panel.kind == "row" {
                row = &panel.title;
                continue;
            }
            check_panel(panel, &defined);
            let said = (panel.description.contains(ONLY_EBPF), panel.title.contains("host endpoint"));
            assert_eq!((row == "eBPF nodes", row == "Host endpoints"), said, "{} in row {row}", panel.title);
        }
    }
}

fn check_panel(panel: &Panel, defined: &BTreeSet<&str>) {
    let title = &panel.title;
    assert!(!title.is_empty() && panel.description.ends_with('.'), "{title}: {}", panel.description);
    assert_eq!(panel.datasource["uid"], "${datasource}", "{title}");
    assert!(panel.field_config["defaults"]["unit"].is_string(), "{title} has no unit");
    assert!(!panel.targets.is_empty(), "{title} asks for nothing");
    let refs: BTreeMap<_, _> = panel.targets.iter().map(|target| (&target.ref_id, ())).collect();
    assert_eq!(refs.len(), panel.targets.len(), "{title}");
    for target in &panel.targets {
        for variable in variables(&target.expr) {
            assert!(variable.starts_with("__") || defined.contains(variable), "{title}: ${variable} is not defined");
        }
    }
    assert_eq!(panel.kind == "table", panel.transformations.is_array(), "{title}: a table hides its times");
}

#[test]
fn panels_do_not_overlap() {
    for dashboard in dashboards() {
        let mut taken = BTreeSet::new();
        for Panel { grid_pos: Place { x, y, w, h }, title, .. } in &dashboard.panels {
            assert!(x + w <= 24, "{title} reaches out of the page");
            for cell in (*y..y + h).flat_map(|row| (*x..x + w).map(move |column| (row, column))) {
                assert!(taken.insert(cell), "{}: {title} lies over another panel", dashboard.title);
            }
        }
    }
}
