//! Parses `docs/metrics.md`: the metrics, their types and labels. Everything that a test scrapes is compared with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

#[derive(Debug)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    optional: BTreeSet<String>,
    /// Whether only the eBPF dataplane has it.
    is_ebpf: bool,
}

static METRICS: LazyLock<BTreeMap<String, Metric>> = LazyLock::new(|| {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    parse(&page)
});

/// Parses rows that begin with a metric: its name, its type and unit, its labels. A `?` follows an optional label. The common labels of a
/// section's metrics are on a separate line.
fn parse(page: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    let mut common = BTreeSet::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let Some(labels) = line.strip_prefix("Common labels:") {
            common = names(labels, false);
        } else if let ["", name, kind, labels, _, absent, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`')
        {
            let kind = kind.split(',').next().unwrap().to_owned();
            let (labels, optional) = (&common | &names(labels, false), names(labels, true));
            let metric = Metric { kind, labels, optional, is_ebpf: absent.starts_with("except on eBPF") };
            assert!(metrics.insert(name.trim_matches('`').to_owned(), metric).is_none(), "{name} comes twice");
        } else if line.starts_with('#') {
            common.clear();
        }
    }
    metrics
}

fn names(cell: &str, is_optional: bool) -> BTreeSet<String> {
    let words = cell.split(',').map(str::trim).filter(|word| !word.is_empty() && word.ends_with('?') == is_optional);
    words.map(|word| word.trim_matches(['`', '?']).to_owned()).collect()
}

/// Checks that every scraped metric is documented, with its type and labels.
#[track_caller]
pub fn compare(text: &str) {
    let mut compared = BTreeSet::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let metric = METRICS.get(name).unwrap_or_else(|| panic!("docs/metrics.md lacks {name}"));
            assert_eq!(metric.kind, kind, "docs/metrics.md: {name}");
        } else if !line.starts_with('#') {
            let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
            let labels = label_names(labels);
            if !compared.contains(&(name, labels.clone())) {
                let (metric, found) = (&METRICS[name], labels.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<_>>());
                let is_documented = found.is_superset(&metric.labels) && found.is_subset(&(&metric.labels | &metric.optional));
                assert!(is_documented, "{name} has the labels {found:?}, in docs/metrics.md {metric:?}");
                compared.insert((name, labels));
            }
        }
    }
}

/// Returns the names of the documented metrics, either those that only eBPF has, or the others.
pub fn metrics(is_ebpf: bool) -> BTreeSet<&'static str> {
    METRICS.iter().filter(|(_, metric)| metric.is_ebpf == is_ebpf).map(|(name, _)| name.as_str()).collect()
}

/// Returns the names of the metrics that a text declares.
pub fn declared(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// Parses the labels after the opening brace.
fn label_names(mut rest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((name, value)) = rest.split_once("=\"") {
        names.push(name.trim_start_matches(','));
        let is_escaped = |at: usize| value[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        let end = value.match_indices('"').map(|(at, _)| at).find(|at| !is_escaped(*at)).unwrap();
        rest = &value[end + 1..];
    }
    names
}

#[test]
fn another_label_type_or_metric_is_noticed() {
    let caught = |text: &str| std::panic::catch_unwind(|| compare(text)).is_err();
    let good =
        "# HELP calico_accountant_rules Rules.\n# TYPE calico_accountant_rules gauge\ncalico_accountant_rules{family=\"a\\\"b=\\\\\"} 1\n";
    compare(good);
    for (from, to) in [("gauge", "counter"), ("_rules", "_rulez"), ("{family", "{x=\"1\",family"), ("{family=\"a\\\"b=\\\\\"}", "")] {
        assert!(caught(&good.replace(from, to)), "{to}");
    }
    // An optional label may be missing, but a common one may not.
    let drops = "calico_accountant_drop_packets_total{namespace=\"\",pod=\"\",interface=\"\",direction=\"\",reason=\"\"} 1\n";
    compare(drops);
    assert!(caught(&drops.replace("pod=\"\",", "")));
}
