//! The chart's alerts: the file for `rule_files` is generated from them, and each value has its effect on them, in promtool too.

use std::fs;

use serde_json::{Value, json};

use crate::support::helm::{Helm, IMAGE, chart, complaints};

use super::super::rules::{RULES, alerts, promtool};
use super::super::text;
use super::of_kind;

/// The rules that the chart renders with these values set.
#[track_caller]
fn rules(helm: &Helm, set: &[&str]) -> Value {
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let objects = helm.template(&chart(), &[&["--set", "prometheusRule.enabled=true"], &set[..]].concat());
    of_kind(&objects, "PrometheusRule")["spec"].clone()
}

/// The alert of this name.
fn alert<'a>(rules: &'a Value, name: &str) -> Option<&'a Value> {
    let groups = rules["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap()).find(|rule| rule["alert"] == name)
}

#[test]
fn the_plain_file_is_made_of_the_chart() {
    let Some(helm) = Helm::built("the chart's alerts beside the plain file") else { return };
    let plain: Value = yaml_serde::from_str(&text(RULES)).unwrap();
    assert_eq!(rules(&helm, &[]), plain, "scripts/manifests makes {RULES} anew");
    let left = plain.to_string().replace("$labels", "").replace("$value", "");
    assert!(!left.contains('$'), "a word that no value stands for: {left}");
}

#[test]
fn each_value_has_its_effect_on_the_alerts() {
    let Some(helm) = Helm::built("the chart's values for alerts") else { return };
    const HOST: &str = "CalicoHostEndpointDrops";
    for (set, name, field, expected) in [
        ("alerts.CalicoHostEndpointDrops.threshold=2.5", HOST, "/expr", r#"{reason!="invalid"}[5m])) > 2.5"#),
        ("alerts.CalicoPolicySeesLess.fraction=0.5", "CalicoPolicySeesLess", "/expr", ">= 0.5 * policy:"),
        ("alerts.CalicoPolicySeesLess.fraction=0.5", "CalicoPolicySeesLess", "/annotations/summary", "less than 0.5 of"),
        ("alerts.CalicoHostEndpointDrops.for=1h30m", HOST, "/for", "1h30m"),
        ("alerts.CalicoHostEndpointDrops.for=1h30m", HOST, "/annotations/description", "For 1h30m, packets"),
        ("alerts.CalicoHostEndpointDrops.keepFiringFor=5m", HOST, "/keep_firing_for", "5m"),
        ("alerts.CalicoHostEndpointDrops.severity=info", HOST, "/labels/severity", "info"),
        ("alertLabels.team=net", HOST, "/labels/team", "net"),
        ("alertAnnotations.wiki=here", HOST, "/annotations/wiki", "here"),
        ("exclude.node=lab", HOST, "/expr", r#"{reason!="invalid",node!~"lab"}"#),
        ("exclude.node=a.*", "CalicoAccountantCannotRead", "/expr", r#"calico_accountant_up{node!~"a.*"} == 0"#),
        ("alerts.CalicoHostEndpointDrops.exclude.interface=a|b", HOST, "/expr", r#"{reason!="invalid",interface!~"a|b"}"#),
        ("runbookUrl=https://example.org/a", HOST, "/annotations/runbook_url", "https://example.org/a#calicohostendpointdrops"),
    ] {
        let rules = rules(&helm, &[&format!("prometheusRule.{set}")]);
        let found = alert(&rules, name).unwrap().pointer(field).and_then(Value::as_str).unwrap_or_default();
        assert!(found.contains(expected), "{set}: {found}");
    }
    let fewer = rules(&helm, &["prometheusRule.alerts.CalicoHostEndpointDrops.enabled=false,prometheusRule.interval=2m"]);
    assert_eq!((alert(&fewer, HOST), &fewer["groups"][0]["interval"]), (None, &json!("2m")));
    let named = rules(&helm, &["fullnameOverride=drops"]).to_string();
    assert!(named.contains(r#"up{job=~\".*drops.*\"} == 0"#) && !named.contains(".*calico-accountant.*"), "{named}");
}

/// Checks all alerts with exclusions: promtool accepts them, and they are silent about what is excluded and about nothing else. The
/// namespace of a workload is the one in its labels. On other series the label is the exporter's namespace, as here, and excludes nothing.
#[test]
fn promtool_sees_what_is_excluded() {
    let Some(helm) = Helm::built("the chart's exclusions in promtool") else { return };
    let excluding = rules(&helm, &[r"prometheusRule.exclude.interface=eth\\..|bond.*,prometheusRule.exclude.namespace=kube-.*"]);
    for name in alerts() {
        let expr = alert(&excluding, &name.alert).unwrap()["expr"].as_str().unwrap().to_owned();
        assert!(expr.contains("interface!~") || name.alert == "CalicoAccountantAbsent", "{expr}");
    }
    let file = |name: &str| helm.file(name).to_str().unwrap().to_owned();
    fs::write(file("rules.yaml"), excluding.to_string()).unwrap();
    promtool(&["check", "rules", "--lint-fatal", &file("rules.yaml")]);
    let series = |series: String, values: &str| json!({"series": format!("calico_accountant_{series}"), "values": values});
    let host = |interface: &str| {
        let labels =
            format!(r#"instance="a",namespace="kube-system",pod="exporter",interface="{interface}",direction="ingress",stage="normal""#);
        series(format!(r#"host_endpoint_drop_packets_total{{{labels},reason="no_policy"}}"#), "0+6000x30")
    };
    let workload = |namespace: &str| {
        let labels = format!(r#"instance="a",namespace="{namespace}",pod="web",interface="cali1",direction="ingress",reason="no_policy""#);
        series(format!("drop_packets_total{{{labels}}}"), "0+6000x30")
    };
    let up = series(r#"up{instance="a",namespace="kube-system",pod="exporter"}"#.to_owned(), "0x30");
    let input = [host("eth0"), host("eth.1"), host("bond0"), workload("kube-system"), workload("shop"), up];
    let firing = r#"count by (alertname, interface, namespace) (ALERTS{alertname!="CalicoAccountantAbsent",alertstate="firing"})"#;
    let sample = |labels: &str| json!({"labels": labels, "value": 1});
    let expected = [
        sample(r#"{alertname="CalicoHostEndpointDrops",interface="eth0"}"#),
        sample(r#"{alertname="CalicoSustainedDrops",interface="cali1",namespace="shop"}"#),
        sample(r#"{alertname="CalicoDropBurst",namespace="shop"}"#),
        sample(r#"{alertname="CalicoAccountantCannotRead",namespace="kube-system"}"#),
    ];
    let test = json!({
        "rule_files": ["rules.yaml"], "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": input, "promql_expr_test": [
            {"expr": firing, "eval_time": "25m", "exp_samples": expected},
        ]}],
    });
    fs::write(file("test.yaml"), test.to_string()).unwrap();
    promtool(&["test", "rules", &file("test.yaml")]);
}

#[test]
fn what_no_alert_has_is_refused_by_name() {
    let Some(helm) = Helm::built("the chart's alerts that there are not") else { return };
    for (set, complaint) in [
        (
            "CalicoDropBurts.enabled=false,prometheusRule.alerts.CalicoDropBurts.for=1m,prometheusRule.alerts.CalicoDropBurts.severity=x",
            "prometheusRule.alerts.CalicoDropBurts: there is no such alert; there are Calico",
        ),
        ("CalicoRulesVanished.threshold=3", "prometheusRule.alerts.CalicoRulesVanished.threshold: this alert has none"),
        ("CalicoDropBurst.treshold=3", "at '/prometheusRule/alerts/CalicoDropBurst': additional properties 'treshold' not allowed"),
        ("CalicoDropBurst.for=soon", "at '/prometheusRule/alerts/CalicoDropBurst/for'"),
        ("CalicoDropBurst=null", "prometheusRule.alerts.CalicoDropBurst: missing; to leave the alert out, set enabled: false"),
    ] {
        let set = format!("prometheusRule.enabled=true,prometheusRule.alerts.{set}");
        let output = helm.try_run(&["template", "x", chart().to_str().unwrap(), IMAGE[0], IMAGE[1], "--set", &set]);
        let said = complaints(&output);
        assert!(!output.status.success() && said.contains(complaint), "{set}: {said}");
    }
}
