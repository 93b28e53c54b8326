//! A real Prometheus scrapes the real exporter of the demo while packets pass. It is asked every expression of every dashboard and every
//! recording rule: each must have an answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::program::{self, Program};
use crate::support::demo::Demo;
use crate::support::fakes::Fakes;
use crate::support::prometheus::{self, Prometheus};
use crate::support::scrape::scrape;
use crate::support::{can_run, fixture, within};

use super::dashboards::{Dashboard, ONLY_EBPF, Panel, Target, dashboards};
use super::promql::selectors;
use super::rules::{RULES, rules};

/// The job's name, as the Prometheus operator builds it for a PodMonitor in kube-system.
pub const JOB: &str = "kube-system/calico-accountant";

/// The values of a dashboard's variables, if it shows one thing.
pub type Chosen = [(&'static str, &'static str); 4];
const CHOSEN: Chosen =
    [("namespace", "shop"), ("pod", "web-1"), ("strict", "shop/default.web-deny"), ("fallback", "shop/default.web-allow")];

#[test]
fn every_expression_of_dashboards_and_rules_has_data_in_a_real_prometheus() {
    let name = "a real Prometheus on the demo";
    if !can_run(name, prometheus::is_installed(), "prometheus") {
        return;
    }
    let Some(mut demo) = Demo::start(name) else { return };
    let fakes = Fakes::nft("");
    let captured = captured(&fakes);
    let targets = [demo.address.as_str(), &format!("127.0.0.1:{}", captured.port())];
    let prometheus = Prometheus::with_rules(JOB, &targets, &super::path(RULES));

    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let missing = missing(&prometheus);
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "without data: {missing:#?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    for group in prometheus.call("/api/v1/rules", &[])["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
    alarms(&prometheus, &mut demo);
}

/// Drops on a real node and its end raise these alerts and no others.
fn alarms(prometheus: &Prometheus, demo: &mut Demo) {
    let raised = |labels: &str| prometheus.query(&format!("ALERTS{{{labels}}}")).len();
    let dropped = r#"alertname="CalicoSustainedDrops",namespace="shop",pod="db-0",reason="no_policy",alertstate="pending""#;
    within(Duration::from_secs(40), dropped, || raised(dropped) > 0);
    let of_demo = format!("instance=\"{}\"", demo.address);
    let others = format!("ALERTS{{alertname!=\"CalicoSustainedDrops\",{of_demo}}}");
    assert_eq!(prometheus.query(&others), []);
    demo.end();
    let down = format!("alertname=\"CalicoAccountantDown\",{of_demo}");
    within(Duration::from_secs(20), &down, || raised(&down) > 0);
}

/// Starts an exporter for what the demo does not have: host endpoints, and workloads between which a group's packets cannot be divided.
pub fn captured(fakes: &Fakes) -> Program {
    let set = |moment: &str| {
        for (family, name) in [("iptables", "iptables-nft-save"), ("ip6tables", "ip6tables-nft-save")] {
            fakes.prints(name, &fixture::text(&format!("captures/v3.28.5-legacy/{moment}/{family}-save.txt.gz")));
        }
    };
    set("t1");
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("DATASTORE_TYPE", "none");
    let program = Program::start(command);
    scrape(program.port());
    set("t2");
    program
}

/// All expressions that have no answer, and why.
fn missing(prometheus: &Prometheus) -> Vec<String> {
    let mut missing = wrong(prometheus, &CHOSEN, ONLY_EBPF);
    // firing.rs sees alerts fire.
    let records = rules().into_iter().map(|rule| rule.record).filter(|record| !record.is_empty());
    missing.extend(records.filter_map(|record| complaint(prometheus, &record, "")));
    missing
}

/// Panels that are empty without reason. Also panels that are not empty although their description contains `empty`.
pub fn wrong(prometheus: &Prometheus, chosen: &Chosen, empty: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for dashboard in dashboards() {
        let complaints = complaints(prometheus, &dashboard, chosen, &mut wrong);
        for panel in dashboard.panels.iter().filter(|panel| !panel.targets.is_empty()) {
            let complaint = complaints.iter().find(|(complained, _)| std::ptr::eq(*complained, panel));
            if complaint.is_some() != panel.description.contains(empty) {
                wrong.push(format!("{}, {}: {:?}", dashboard.title, panel.title, complaint.map(|(_, why)| why)));
            }
        }
    }
    wrong
}

/// The panels of a dashboard that have no answer, and why. Adds variables without a value to choose to `missing`.
fn complaints<'a>(
    prometheus: &Prometheus,
    dashboard: &'a Dashboard,
    chosen: &Chosen,
    missing: &mut Vec<String>,
) -> Vec<(&'a Panel, String)> {
    let values = values(prometheus, dashboard, chosen, missing);
    let targets = dashboard.panels.iter().flat_map(|panel| panel.targets.iter().map(move |target| (panel, target)));
    let complaint = |(panel, target): (&'a Panel, &Target)| {
        Some((panel, complaint(prometheus, &substitute(&target.expr, &values), &target.legend_format)?))
    };
    targets.filter_map(complaint).collect()
}

/// The values of a dashboard's variables. Each must have something to choose from.
pub fn values(prometheus: &Prometheus, dashboard: &Dashboard, chosen: &Chosen, missing: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for variable in dashboard.queried() {
        let (series, label) = variable.asks();
        let series = substitute(series, &values);
        let choice = prometheus.call(&format!("/api/v1/label/{label}/values"), &[("match[]", &series)]);
        let choice: Vec<_> = choice.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect();
        let chosen = chosen.iter().find(|(name, _)| *name == variable.name).map(|(_, value)| (*value).to_owned());
        let found = chosen.as_ref().map_or(!choice.is_empty(), |chosen| choice.contains(chosen));
        if !found {
            missing.push(format!("{}: ${} may be {choice:?}", dashboard.title, variable.name));
        }
        values.insert(variable.name.clone(), variable.all_value.clone().or(chosen).unwrap());
    }
    values
}

/// Replaces variables as Grafana does, as far as our dashboards need it.
pub fn substitute(expression: &str, values: &BTreeMap<String, String>) -> String {
    let mut text = expression.replace("$__rate_interval", "15s").replace("$__range", "1m");
    for (name, value) in values {
        let escape = |c: char| if r"\^$*+?.()|[]{}/".contains(c) { format!("\\{c}") } else { c.to_string() };
        text = text.replace(&format!("${{{name}:regex}}"), &value.chars().map(escape).collect::<String>());
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// Why an expression is wrong: a metric or label does not exist, the answer is not a number, or the legend would be empty.
fn complaint(prometheus: &Prometheus, expression: &str, legend: &str) -> Option<String> {
    for selector in selectors(expression) {
        let matchers = selector.labels.iter().map(|label| format!("{{{label}!=\"\"}}")).chain(Some(String::new()));
        for series in matchers.map(|matcher| selector.metric.clone() + &matcher) {
            if prometheus.query(&format!("group({series})")).is_empty() {
                return Some(format!("there is no {series} for {expression}"));
            }
        }
    }
    let samples = prometheus.query(expression);
    if !samples.iter().any(|(_, value)| value.is_finite()) {
        return Some(format!("{expression} gives {samples:?}"));
    }
    let mut labels = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
    let unknown = labels.find(|label| !samples.iter().any(|(labels, _)| labels[*label].is_string()));
    unknown.map(|label| format!("{expression} has no {label} for its legend"))
}
