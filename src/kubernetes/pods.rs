//! Converts a pod's JSON to a workload, as Calico's own conversion does (`libcalico-go/lib/backend/k8s/conversion`). Pure.

use std::net::IpAddr;

use serde::Deserialize;

use crate::datastore::bounds::at_most;
use crate::datastore::inventory::{Interface, Workload, ip_label};

const MOST_ADDRESSES: usize = 100;

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    deletion_timestamp: Option<String>,
    labels: Option<Labels>,
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
struct Labels {
    app: Option<String>,
}

/// Annotations of CNI plugins. They are empty once the addresses have been released.
#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "cni.projectcalico.org/podIP")]
    pod_ip: Option<String>,
    /// Calico ≥ 3.11.
    #[serde(rename = "cni.projectcalico.org/podIPs")]
    pod_ips: Option<String>,
    /// Calico ≥ 3.21.
    #[serde(rename = "vpc.amazonaws.com/pod-ips")]
    aws: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: bool,
    service_account_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    /// Kubernetes ≥ 1.16.
    #[serde(rename = "podIPs", deserialize_with = "at_most::<_, _, MOST_ADDRESSES>")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

/// Returns the pod as a workload, or `None` if it is on another node or uses the host network.
pub(super) fn workload(object: &str, node: &str) -> serde_json::Result<Option<Workload>> {
    let pod: Pod = serde_json::from_str(object)?;
    if pod.spec.host_network || pod.spec.node_name.as_deref() != Some(node) {
        return Ok(None);
    }
    // Kept so that its last packets have a name. Felix only removes its addresses.
    let is_finished = finished(&pod);
    let networks = if is_finished { Vec::new() } else { networks(&pod) };
    let Metadata { name, namespace, labels, .. } = pod.metadata;
    Ok(Some(Workload {
        interface: Interface::Suffix(Interface::suffix_of(&namespace, &name)),
        app: labels.and_then(|labels| labels.app).unwrap_or_default(),
        ip: ip_label(networks.iter().map(String::as_str)),
        node: node.to_owned(),
        orchestrator: "k8s".into(),
        service_account: pod.spec.service_account_name.unwrap_or_default(),
        pod: name,
        namespace,
        is_finished,
    }))
}

/// Upstream: `IsFinished`. A pod that is being deleted is finished when a CNI plugin has released its addresses.
fn finished(pod: &Pod) -> bool {
    let gone = |annotation: &Option<String>| annotation.as_deref() == Some("");
    let released = pod.metadata.annotations.as_ref().is_some_and(|annotations| gone(&annotations.pod_ip) || gone(&annotations.aws));
    matches!(pod.status.phase.as_deref(), Some("Failed" | "Succeeded" | "Completed"))
        || (pod.metadata.deletion_timestamp.is_some() && released)
}

/// Returns the pod's addresses as networks, from the first field that has any. Upstream: `getPodIPs`.
fn networks(pod: &Pod) -> Vec<String> {
    let none = Annotations::default();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let status = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    let status: Vec<_> = status.filter(|ip| !ip.is_empty()).collect();
    if !status.is_empty() {
        return status.into_iter().map(network).collect();
    }
    let places = [&pod.status.pod_ip, &annotations.pod_ips, &annotations.pod_ip, &annotations.aws];
    let found = places.into_iter().flatten().find(|ips| !ips.is_empty());
    found
        .map(|ips| ips.split(',').map(str::trim).filter(|ip| !ip.is_empty()).take(MOST_ADDRESSES).map(network).collect())
        .unwrap_or_default()
}

/// Formats an address as a network. Annotations may contain networks already.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(v4)) => format!("{v4}/32"),
        Ok(IpAddr::V6(v6)) => format!("{v6}/128"),
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod: &Value) -> Option<Workload> {
        workload(&pod.to_string(), "node1").unwrap()
    }

    fn pod(status: Value, annotations: Value) -> Value {
        json!({
            "metadata": {"name": "web-0", "namespace": "prod", "labels": {"app": "web"}, "annotations": annotations},
            "spec": {"nodeName": "node1", "serviceAccountName": "sa", "containers": null},
            "status": status,
        })
    }

    #[track_caller]
    fn ip(status: Value, annotations: Value) -> String {
        of(&pod(status, annotations)).unwrap().ip
    }

    #[test]
    fn a_pod_becomes_a_workload() {
        let expected = Workload {
            interface: Interface::Suffix(Interface::suffix_of("prod", "web-0")),
            namespace: "prod".into(),
            pod: "web-0".into(),
            app: "web".into(),
            ip: "10.65.1.2,fd00:65::1:2/128".into(),
            node: "node1".into(),
            orchestrator: "k8s".into(),
            service_account: "sa".into(),
            is_finished: false,
        };
        let status = json!({"phase": "Running", "podIP": "10.65.1.2", "podIPs": [{"ip": "10.65.1.2"}, {"ip": "fd00:65::1:2"}]});
        assert_eq!(of(&pod(status, Value::Null)), Some(expected));
    }

    #[test]
    fn the_first_place_with_addresses_counts() {
        let all = json!({"cni.projectcalico.org/podIPs": "10.0.0.3/32,fd00::3/128", "cni.projectcalico.org/podIP": "10.0.0.4/32",
            "vpc.amazonaws.com/pod-ips": "10.0.0.5"});
        assert_eq!(ip(json!({"podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.2"}), all.clone()), "10.0.0.1");
        assert_eq!(ip(json!({"podIPs": [], "podIP": "10.0.0.2"}), all.clone()), "10.0.0.2");
        assert_eq!(ip(json!({"podIPs": null}), all), "10.0.0.3,fd00::3/128");
        assert_eq!(
            ip(json!({}), json!({"cni.projectcalico.org/podIP": "10.0.0.4/32", "vpc.amazonaws.com/pod-ips": "10.0.0.5"})),
            "10.0.0.4"
        );
        assert_eq!(ip(json!({}), json!({"vpc.amazonaws.com/pod-ips": "10.0.0.6, 10.0.0.5"})), "10.0.0.5,10.0.0.6");
        assert_eq!(ip(json!({"phase": "Pending"}), json!({})), "");
    }

    #[test]
    fn finished_pods_keep_their_name_and_lose_their_addresses() {
        for phase in ["Failed", "Succeeded", "Completed"] {
            let pod = of(&pod(json!({"phase": phase, "podIP": "10.0.0.1"}), json!({}))).unwrap();
            assert_eq!((pod.ip.as_str(), pod.is_finished), ("", true), "{phase}");
        }
        let status = json!({"phase": "Running", "podIP": "10.0.0.1"});
        for released in ["cni.projectcalico.org/podIP", "vpc.amazonaws.com/pod-ips"] {
            let mut pod = pod(status.clone(), json!({released: ""}));
            assert_eq!(of(&pod).unwrap().ip, "10.0.0.1", "not being deleted");
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-23T11:08:02Z");
            assert_eq!(of(&pod).unwrap().ip, "");
        }
    }

    #[test]
    fn other_nodes_and_the_nodes_own_network_are_not_workloads() {
        let with = |field: &str, value: Value| {
            let mut pod = pod(json!({}), Value::Null);
            pod["spec"][field] = value;
            of(&pod)
        };
        assert!(with("containers", json!([])).is_some());
        assert_eq!(with("hostNetwork", json!(true)), None);
        assert_eq!(with("nodeName", json!("node2")), None);
        assert_eq!(with("nodeName", Value::Null), None);
        assert_eq!(with("nodeName", json!("")), None);
    }

    #[test]
    fn junk_is_an_error() {
        for junk in ["", "{}", "[]", r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":7}"#] {
            assert!(workload(junk, "node1").is_err(), "{junk}");
        }
    }
}
