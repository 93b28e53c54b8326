//! The objects of the inventory: workloads and the names of policies, the same for every datastore.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The node's end of a workload's veth pair, as far as the datastore knows its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Interface {
    Name(String),
    /// The last [`Interface::SUFFIX`] characters: a hash of namespace and pod. Each node configures the prefix (`cali`, `eni`, …).
    Suffix(String),
}

impl Interface {
    pub const SUFFIX: usize = 11;

    /// Returns the hash in the name of a pod's interface: `VethNameForWorkload` in `libcalico-go/lib/backend/k8s/conversion`, any release.
    pub fn suffix_of(namespace: &str, pod: &str) -> String {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{namespace}.{pod}").as_bytes());
        let digits = hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.take(Self::SUFFIX).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }

    /// Splits the name of a workload's interface into its prefix (`cali`, on AWS `eni` or `vlan`) and the hash.
    pub fn split(name: &str) -> Option<(&str, &str)> {
        let start = name.len().checked_sub(Self::SUFFIX).filter(|start| *start > 0)?;
        name.split_at_checked(start).filter(|(_, hash)| hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    }

    pub(super) fn text(&mut self) -> &mut String {
        match self {
            Interface::Name(text) | Interface::Suffix(text) => text,
        }
    }
}

impl Default for Interface {
    fn default() -> Self {
        Interface::Name(String::new())
    }
}

/// A workload endpoint of this node, with the fields that metrics use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    pub interface: Interface,
    pub namespace: String,
    /// `spec.pod`. Empty for workloads that are not Kubernetes pods.
    pub pod: String,
    /// The label `app`. Empty without one.
    pub app: String,
    /// `spec.ipNetworks` as shown in the `ip` label (see [`ip_label`]).
    pub ip: String,
    pub node: String,
    /// `spec.orchestrator`: `k8s`, `cni`, `openstack`, …
    pub orchestrator: String,
    /// `spec.serviceAccountName`, else the label `projectcalico.org/serviceaccount`.
    pub service_account: String,
    /// Whether it has ended and only its name is kept. Felix usually removes its rules before the object is deleted.
    pub is_finished: bool,
}

/// Returns the value of the `ip` label: the networks sorted as text, without `/32`, joined by commas.
pub fn ip_label<'a>(networks: impl IntoIterator<Item = &'a str>) -> String {
    let mut addresses: Vec<&str> = networks.into_iter().map(|n| n.strip_suffix("/32").unwrap_or(n)).collect();
    addresses.sort_unstable();
    addresses.join(",")
}

/// The kinds of policies for which Felix creates chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Calico's own, and in etcd the copies of Kubernetes' (`knp.default.…`).
    NetworkPolicy,
    GlobalNetworkPolicy,
    /// Kubernetes' own, as the Kubernetes datastore has it.
    KubernetesNetworkPolicy,
    /// Kubernetes' own; Calico 3.29 to 3.31.
    AdminNetworkPolicy,
    /// Kubernetes' own; Calico 3.30 and 3.31.
    BaselineAdminNetworkPolicy,
    /// Kubernetes' own; Calico ≥ 3.32.
    ClusterNetworkPolicy,
}

/// A policy by its name in the datastore (etcd key, or `metadata.name`), which Felix hashes into chain names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredPolicy {
    pub kind: PolicyKind,
    pub namespace: Option<String>,
    /// The stored name, e.g. `default.foo`, `knp.default.foo`.
    pub name: String,
}

impl StoredPolicy {
    /// Returns one of Calico's own policies: a NetworkPolicy if it has a namespace, otherwise a GlobalNetworkPolicy.
    pub fn calico(namespace: Option<String>, name: String) -> Self {
        let kind = if namespace.is_some() { PolicyKind::NetworkPolicy } else { PolicyKind::GlobalNetworkPolicy };
        StoredPolicy { kind, namespace, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors from libcalico-go's `conversion_test.go`.
    #[test]
    fn hashes_of_pods() {
        assert_eq!(Interface::suffix_of("namespace", "podname"), "82111e10a96");
        assert_eq!(Interface::suffix_of("default", "podA"), "7f94ce7c295");
        assert_eq!(Interface::suffix_of("default", "podB"), "92cf1f5e9f6");
    }

    #[test]
    fn hashes_in_names() {
        for (interface, hash) in [
            ("cali7f94ce7c295", Some("7f94ce7c295")),
            ("eni7f94ce7c295", Some("7f94ce7c295")),
            ("vlan7f94ce7c295", Some("7f94ce7c295")),
            ("tapDEADBEEF-12", None),
            ("7f94ce7c295", None),
            ("cali7F94CE7C295", None),
            ("caliééééééé", None),
            ("eth0", None),
            ("", None),
        ] {
            assert_eq!(Interface::split(interface).map(|(_, hash)| hash), hash, "{interface}");
        }
    }

    #[test]
    fn ip_label_sorts_as_text_and_cuts_only_slash_32() {
        assert_eq!(ip_label(["10.0.0.9/32", "10.0.0.10/32"]), "10.0.0.10,10.0.0.9");
        assert_eq!(ip_label(["fd00::1/128", "10.0.0.0/24"]), "10.0.0.0/24,fd00::1/128");
        assert_eq!(ip_label([]), "");
    }
}
