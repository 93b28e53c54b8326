//! Parses keys and values as Calico stores them in etcd, and returns workloads and policy names. Pure.

use serde::Deserialize;

use crate::datastore::bounds::at_most;
use crate::datastore::inventory::{Interface, StoredPolicy, Workload, ip_label};

/// Followed by `<namespace>/<node>-<orchestrator>-<workload>-<endpoint>`.
pub const WORKLOAD_ENDPOINTS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";
/// Followed by `<node>`.
pub const NODES: &str = "/calico/resources/v3/projectcalico.org/nodes/";
/// Followed by `<namespace>/<name>`. Kubernetes' own policies are here too: kube-controllers copies them as `knp.default.<name>`.
pub const NETWORK_POLICIES: &str = "/calico/resources/v3/projectcalico.org/networkpolicies/";
/// Followed by `<name>`.
pub const GLOBAL_NETWORK_POLICIES: &str = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/";

const MOST_NETWORKS: usize = 1000;

/// Returns the node in the key of a workload endpoint: the text before the first single hyphen.
pub fn node_of(key: &str) -> Option<String> {
    let (_namespace, name) = key.strip_prefix(WORKLOAD_ENDPOINTS)?.split_once('/')?;
    let (mut node, mut rest) = (String::new(), name);
    loop {
        let (part, after) = rest.split_once('-')?;
        node.push_str(part);
        let Some(next) = after.strip_prefix('-') else { return Some(node).filter(|node| !node.is_empty()) };
        node.push('-');
        rest = next;
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WorkloadEndpoint {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize, Default)]
struct Metadata {
    namespace: Option<String>,
    labels: Option<Labels>,
}

#[derive(Deserialize, Default)]
struct Labels {
    app: Option<String>,
    #[serde(rename = "projectcalico.org/serviceaccount")]
    service_account: Option<String>,
}

/// Every field may be missing, because Go omits empty ones, and plain CNI has no pod.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec {
    interface_name: Option<String>,
    pod: Option<String>,
    node: Option<String>,
    orchestrator: Option<String>,
    /// Calico ≥ 3.19. Older releases have it in a label.
    service_account_name: Option<String>,
    #[serde(default, deserialize_with = "at_most::<_, _, MOST_NETWORKS>")]
    ip_networks: Vec<String>,
}

/// Parses the workload in `value`, the JSON under `key`. Returns `None` if it is not on `node` or has no interface yet.
pub fn workload(key: &str, value: &[u8], node: &str) -> serde_json::Result<Option<Workload>> {
    let WorkloadEndpoint { metadata, spec } = serde_json::from_slice(value)?;
    let interface = spec.interface_name.unwrap_or_default();
    if spec.node.as_deref() != Some(node) || interface.is_empty() {
        return Ok(None);
    }
    let in_key = || key.strip_prefix(WORKLOAD_ENDPOINTS).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let labels = metadata.labels.unwrap_or_default();
    Ok(Some(Workload {
        interface: Interface::Name(interface),
        namespace: metadata.namespace.unwrap_or_else(|| in_key().to_owned()),
        pod: spec.pod.unwrap_or_default(),
        app: labels.app.unwrap_or_default(),
        ip: ip_label(spec.ip_networks.iter().map(String::as_str)),
        node: node.to_owned(),
        orchestrator: spec.orchestrator.unwrap_or_default(),
        service_account: spec.service_account_name.filter(|name| !name.is_empty()).or(labels.service_account).unwrap_or_default(),
        // The CNI plugin deletes the object when it removes the interface.
        is_finished: false,
    }))
}

/// Returns the policy stored under `key`. The key alone determines its name, which Felix hashes, whatever the value contains.
pub fn policy(key: &str) -> Option<StoredPolicy> {
    let (namespace, name) = match key.strip_prefix(GLOBAL_NETWORK_POLICIES) {
        Some(name) => (None, name),
        None => {
            let (namespace, name) = key.strip_prefix(NETWORK_POLICIES)?.split_once('/')?;
            (Some(namespace.to_owned()), name)
        }
    };
    let plain = !name.is_empty() && !name.contains('/');
    plain.then(|| StoredPolicy::calico(namespace, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{Kind, Workloads};
    use super::*;

    fn key(rest: &str) -> String {
        format!("{WORKLOAD_ENDPOINTS}{rest}")
    }

    #[test]
    fn a_key_names_its_node() {
        for (rest, node) in [
            ("shop/worker--02.mydomain.com-k8s-web--1-eth0", Some("worker-02.mydomain.com")),
            ("shop/n-k8s-web-eth0", Some("n")),
            ("shop/a----b-cni-x-eth0", Some("a--b")),
            ("shop/-k8s-web-eth0", None),
            ("shop/noseparator", None),
            ("shop/only--doubled", None),
            ("noslash-k8s", None),
        ] {
            assert_eq!(node_of(&key(rest)).as_deref(), node, "{rest}");
        }
    }

    #[test]
    fn a_key_belongs_to_the_node_it_starts_with() {
        let own = |node: &str, rest: &str| Workloads::new(node.into()).wants(&key(rest));
        assert!(own("node-1", "default/node--1-k8s-pod--name-eth0"));
        assert!(own("node-1", "default/node--1-cni-abcdefa0123456-eth0"));
        assert!(own("node-1", "default/node--1-libnetwork-libnetwork-abcdefgh"));
        assert!(own("gyliu-ubuntu-1", "kube-system/gyliu--ubuntu--1-k8s-logstash--5c8c4954d9--wtz8c-eth0"));
        assert!(!own("node", "default/node--1-k8s-pod--name-eth0"));
        assert!(!own("node-1", "default/node--12-k8s-pod--name-eth0"));
        assert!(!own("node-1", "default/node-1-k8s-pod-eth0"));
        assert!(!own("node-1", "node--1-k8s-pod-eth0"));
        assert!(!Workloads::new("node".into()).wants("/calico/resources/v3/projectcalico.org/profiles/a/node-k8s-pod-eth0"));
    }

    #[test]
    fn a_kubernetes_workload() {
        let value = br#"{"kind":"WorkloadEndpoint","metadata":{"name":"n","namespace":"test","creationTimestamp":null,
            "labels":{"app":"web","projectcalico.org/serviceaccount":"from-label"}},
            "spec":{"orchestrator":"k8s","node":"node-1","pod":"web-7c9d-abcde","endpoint":"eth0","serviceAccountName":"default",
            "ipNetworks":["192.168.20.129/32","fd00::1/128"],"interfaceName":"cali1a2b3c4d5e6","ports":[{"protocol":6}]}}"#;
        let workload = workload(&key("test/node--1-k8s-web--7c9d--abcde-eth0"), value, "node-1").unwrap().unwrap();
        let expected = Workload {
            interface: Interface::Name("cali1a2b3c4d5e6".into()),
            namespace: "test".into(),
            pod: "web-7c9d-abcde".into(),
            app: "web".into(),
            ip: "192.168.20.129,fd00::1/128".into(),
            node: "node-1".into(),
            orchestrator: "k8s".into(),
            service_account: "default".into(),
            is_finished: false,
        };
        assert_eq!(workload, expected);
    }

    #[test]
    fn an_openstack_workload_written_by_python() {
        let value = br#"{"spec": {"node": "felix-host-1", "workload": "instance-1", "endpoint": "DEADBEEF-1234-5678",
            "interfaceName": "tapDEADBEEF-12", "ipNetworks": ["10.65.0.2/32", "23.23.23.2/32"], "allowedIps": ["23.23.23.2/32"],
            "orchestrator": "openstack"}, "metadata": {"labels": {"sg.projectcalico.org/openstack-SGID-default": "My_default_SG"}}}"#;
        let key = key("openstack/felix--host--1-openstack-instance--1-DEADBEEF--1234--5678");
        let workload = workload(&key, value, "felix-host-1").unwrap().unwrap();
        assert_eq!(workload.namespace, "openstack");
        assert_eq!((workload.pod.as_str(), workload.app.as_str()), ("", ""));
        assert_eq!(workload.ip, "10.65.0.2,23.23.23.2");
    }

    #[test]
    fn the_service_account_of_old_releases_is_a_label() {
        let value = br#"{"metadata":{"labels":{"projectcalico.org/serviceaccount":"sa"}},"spec":{"node":"n","interfaceName":"cali1"}}"#;
        assert_eq!(workload(&key("a/n-k8s-p-eth0"), value, "n").unwrap().unwrap().service_account, "sa");
    }

    #[test]
    fn another_node_or_no_interface_is_no_workload_and_junk_is_an_error() {
        let other = br#"{"spec":{"node":"other","interfaceName":"cali1"}}"#;
        assert_eq!(workload(&key("a/n-k8s-p-eth0"), other, "n").unwrap(), None);
        let bare = br#"{"metadata":{"labels":null},"spec":{"node":"n"}}"#;
        assert_eq!(workload(&key("a/n-k8s-p-eth0"), bare, "n").unwrap(), None);
        assert!(workload(&key("a/n-k8s-p-eth0"), b"junk", "n").is_err());
        assert!(workload(&key("a/n-k8s-p-eth0"), b"", "n").is_err());
    }

    #[test]
    fn policies_are_named_by_their_keys() {
        let policy = |kind: &str, rest: &str| policy(&format!("{kind}{rest}"));
        let stored = |namespace: Option<&str>, name: &str| Some(StoredPolicy::calico(namespace.map(str::to_owned), name.to_owned()));
        assert_eq!(policy(GLOBAL_NETWORK_POLICIES, "default.deny-all"), stored(None, "default.deny-all"));
        assert_eq!(policy(NETWORK_POLICIES, "prod/knp.default.web"), stored(Some("prod"), "knp.default.web"));
        assert_eq!(policy(NETWORK_POLICIES, "prod"), None);
        assert_eq!(policy(WORKLOAD_ENDPOINTS, "a/b"), None);
    }
}
