//! A real Prometheus scrapes a real exporter as each of the chart's monitors says. Debian's Prometheus is built without the discovery of
//! pods, so a static target has the labels that discovery would give.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fakes::Fakes;
use crate::support::helm::{Helm, chart};
use crate::support::prometheus::{self, Prometheus};
use crate::support::{can_run, within};

use super::super::scraped::captured;
use super::of_kind;

const POD: &str = "calico-accountant-b2f7x";

#[test]
fn a_real_prometheus_knows_the_node_by_either_monitor() {
    let name = "the chart's monitors in a real Prometheus";
    if !can_run(name, prometheus::is_installed(), "prometheus") {
        return;
    }
    let Some(helm) = Helm::built(name) else { return };
    let fakes = Fakes::nft("");
    let exporter = captured(&fakes);
    let monitors = [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")];
    let jobs = monitors.map(|(value, kind, endpoints)| {
        let objects = helm.template(&chart(), &["--set", &format!("{value}.enabled=true")]);
        job(value, &of_kind(&objects, kind)["spec"][endpoints][0], exporter.port())
    });
    let prometheus = Prometheus::start(&json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}));
    for (job, ..) in monitors {
        let count = |series: &str| prometheus.value(&format!("count({series})")).unwrap_or_default();
        within(Duration::from_secs(30), job, || count(&format!(r#"up{{job="{job}",node="node1"}} == 1"#)) == 1.0);
        // The exporter's own metrics have the labels of its pod. Counts have those of workloads, which have no names here.
        let own = format!(r#"calico_accountant_up{{job="{job}",node="node1",namespace="kube-system",pod="{POD}"}}"#);
        within(Duration::from_secs(10), &own, || count(&own) == 1.0);
        let all = count(&format!(r#"calico_accountant_policy_packets_total{{job="{job}"}}"#));
        let right = count(&format!(r#"calico_accountant_policy_packets_total{{job="{job}",node="node1",namespace="",pod=""}}"#));
        assert!(all > 0.0 && all == right, "{job}: {right} of {all}");
    }
}

/// A monitor's endpoint as a job, with the labels that the operator gives a target from discovery.
fn job(name: &str, endpoint: &Value, port: u16) -> Value {
    let from = |source: &str, target: &str| json!({"source_labels": [source], "target_label": target});
    let mut relabelings = vec![from("__meta_kubernetes_namespace", "namespace"), from("__meta_kubernetes_pod_name", "pod")];
    relabelings.extend(endpoint["relabelings"].as_array().unwrap().iter().map(|relabeling| {
        let name = |key: &String| key.replace("sourceLabels", "source_labels").replace("targetLabel", "target_label");
        relabeling.as_object().unwrap().iter().map(|(key, value)| (name(key), value.clone())).collect()
    }));
    let labels = json!({"__meta_kubernetes_namespace": "kube-system", "__meta_kubernetes_pod_name": POD, "__meta_kubernetes_pod_node_name": "node1"});
    json!({
        "job_name": name, "metrics_path": endpoint["path"], "honor_labels": endpoint["honorLabels"], "relabel_configs": relabelings,
        "static_configs": [{"targets": [format!("127.0.0.1:{port}")], "labels": labels}],
    })
}
