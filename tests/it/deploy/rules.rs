//! Alerts and recording rules, as the chart renders them with its default values. promtool accepts them, its unit tests pass and cover each
//! alert, and the runbook has a section for each.

use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::support::can_run;

/// The generated file of rules.
pub const RULES: &str = "deploy/prometheus/calico-accountant.rules.yaml";
const TESTS: &str = "deploy/prometheus/tests.yaml";

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

/// A recording rule or an alert.
#[derive(Deserialize)]
pub struct Rule {
    #[serde(default)]
    pub alert: String,
    #[serde(default)]
    pub record: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

pub fn rules() -> Vec<Rule> {
    groups().into_iter().flat_map(|group| group.rules).collect()
}

fn groups() -> Vec<Group> {
    yaml_serde::from_str::<Rules>(&super::text(RULES)).unwrap().groups
}

pub fn alerts() -> Vec<Rule> {
    rules().into_iter().filter(|rule| !rule.alert.is_empty()).collect()
}

pub fn promtool(args: &[&str]) {
    let installed = Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if can_run("promtool on rules", installed, "promtool") {
        let output = Command::new("promtool").args(args).current_dir(super::path("")).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "--lint-fatal", RULES]);
}

#[test]
fn the_rules_pass_their_unit_tests() {
    promtool(&["test", "rules", TESTS]);
}

/// In the unit tests, each alert fires at one time and does not at another.
#[test]
fn the_unit_tests_leave_no_rule_out() {
    let tests: serde_json::Value = yaml_serde::from_str(&super::text(TESTS)).unwrap();
    let (tests, order) = (tests["tests"].as_array().unwrap(), tests["group_eval_order"].as_array().unwrap());
    assert_eq!(*order, groups().into_iter().map(|group| group.name).collect::<Vec<_>>());
    let expectations = |name: &str| -> Vec<usize> {
        let of = |test: &serde_json::Value| test["alert_rule_test"].as_array().cloned().unwrap_or_default();
        let all = tests.iter().flat_map(of).filter(|expected| expected["alertname"] == name);
        all.map(|expected| expected["exp_alerts"].as_array().unwrap().len()).collect()
    };
    for alert in alerts() {
        let expected = expectations(&alert.alert);
        assert!(expected.iter().any(|&firing| firing > 0), "{} is never seen to fire", alert.alert);
        assert!(expected.contains(&0), "{} is always seen to fire", alert.alert);
    }
    for record in rules().iter().filter(|rule| !rule.record.is_empty()) {
        let asked = |line: &str| line.trim_start().starts_with("- expr: ") && line.contains(&record.record);
        assert!(super::text(TESTS).lines().any(asked), "{} is not tested", record.record);
    }
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_no_others() {
    let runbook = super::text("docs/alerts.md");
    let sections: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## Calico")).map(|rest| format!("Calico{rest}")).collect();
    assert_eq!(sections, alerts().into_iter().map(|rule| rule.alert).collect::<Vec<_>>());
    for Rule { alert, labels, annotations, .. } in alerts() {
        assert!(annotations["runbook_url"].ends_with(&format!("#{}", alert.to_lowercase())), "{alert}");
        assert!(["warning", "critical"].contains(&labels["severity"].as_str()), "{alert}");
        assert!(!annotations["summary"].is_empty() && !annotations["description"].is_empty(), "{alert}");
    }
}
