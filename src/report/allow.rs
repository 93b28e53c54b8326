//! Drafts Kubernetes NetworkPolicies that would accept the packets that one policy still accepts, for users who want to remove that
//! policy. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Flow;
use crate::felix::Direction;

/// A pod's namespace and label `app`.
type Pods = (String, Option<String>);

/// The other side: pods, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Pods(String, String),
    Address(IpAddr),
}

/// Returns YAML documents, one for each set of pods that these packets belong to. Empty if none belongs to a named pod.
pub fn network_policies<'a>(flows: impl IntoIterator<Item = &'a Flow>) -> String {
    let mut all: BTreeMap<Pods, BTreeMap<Direction, BTreeMap<Peer, BTreeSet<Port>>>> = BTreeMap::new();
    for flow in flows {
        let Some((namespace, _)) = flow.workload.as_deref().and_then(|name| name.split_once('/')) else { continue };
        let of_pods = all.entry((namespace.to_owned(), flow.app.clone())).or_default();
        of_pods.entry(flow.direction).or_default().entry(peer(flow)).or_default().insert(Port::of(flow));
    }
    all.iter().map(|((namespace, app), rules)| network_policy(namespace, app.as_deref(), rules)).collect::<Vec<_>>().join("---\n")
}

/// Returns pods if labels are sure to select them, otherwise the address.
fn peer(flow: &Flow) -> Peer {
    let namespace = flow.peer.as_deref().and_then(|peer| peer.split_once('/')).map(|(namespace, _)| namespace);
    match (namespace, &flow.peer_app, flow.direction) {
        (Some(namespace), Some(app), _) => Peer::Pods(namespace.to_owned(), app.clone()),
        (_, _, Direction::Ingress) => Peer::Address(flow.source),
        (_, _, Direction::Egress) => Peer::Address(flow.destination),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Of(String, u16),
    /// NetworkPolicies have no ports of this protocol.
    Unknown(String),
}

impl Port {
    fn of(flow: &Flow) -> Self {
        match flow.destination_port {
            Some(port) => Port::Of(flow.protocol.to_ascii_uppercase(), port),
            None => Port::Unknown(flow.protocol.clone()),
        }
    }
}

fn network_policy(namespace: &str, app: Option<&str>, rules: &BTreeMap<Direction, BTreeMap<Peer, BTreeSet<Port>>>) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n",
        quoted(&format!("seen-{}", app.map_or_else(|| "pods".to_owned(), object_name))),
        quoted(namespace)
    );
    match app {
        Some(app) => text += &format!("  podSelector:\n    matchLabels:\n      app: {}\n", quoted(app)),
        None => text += "  # These pods have no label app: select them by another one.\n  podSelector: {}\n",
    }
    let (types, sections): (Vec<&str>, Vec<String>) = rules
        .iter()
        .map(|(direction, peers)| match direction {
            Direction::Ingress => ("Ingress", section("ingress", "from", peers)),
            Direction::Egress => ("Egress", section("egress", "to", peers)),
        })
        .unzip();
    text + &format!("  policyTypes: [{}]\n{}", types.join(", "), sections.concat())
}

fn section(name: &str, side: &str, peers: &BTreeMap<Peer, BTreeSet<Port>>) -> String {
    // Peers with the same ports are one rule.
    let mut rules: BTreeMap<&BTreeSet<Port>, Vec<&Peer>> = BTreeMap::new();
    peers.iter().for_each(|(peer, ports)| rules.entry(ports).or_default().push(peer));
    let rules: Vec<String> = rules.iter().map(|(ports, peers)| rule(side, peers, ports)).collect();
    match rules.iter().all(|rule| rule.trim_start().starts_with('#')) {
        true => format!("  {name}: []\n{}", rules.concat()),
        false => format!("  {name}:\n{}", rules.concat()),
    }
}

fn rule(side: &str, peers: &[&Peer], ports: &BTreeSet<Port>) -> String {
    let (mut allowed, mut text) = (String::new(), String::new());
    for port in ports {
        match port {
            Port::Of(protocol, port) => allowed += &format!("        - protocol: {protocol}\n          port: {port}\n"),
            Port::Unknown(protocol) => {
                let of = peers.iter().map(|peer| peer.plain()).collect::<Vec<_>>().join(", ");
                text += &format!("    # NetworkPolicies cannot name {protocol}, seen with {of}.\n");
            }
        }
    }
    if !allowed.is_empty() {
        let peers: String = peers.iter().map(|peer| peer.yaml()).collect();
        text += &format!("    - {side}:\n{peers}      ports:\n{allowed}");
    }
    text
}

impl Peer {
    fn plain(&self) -> String {
        match self {
            Peer::Pods(namespace, app) => format!("app {app:?} in {namespace}"),
            Peer::Address(address) => address.to_string(),
        }
    }

    fn yaml(&self) -> String {
        match self {
            Peer::Pods(namespace, app) => format!(
                "        - namespaceSelector:\n            matchLabels:\n              kubernetes.io/metadata.name: {}\n          \
                 podSelector:\n            matchLabels:\n              app: {}\n",
                quoted(namespace),
                quoted(app)
            ),
            Peer::Address(address) => {
                let length = if address.is_ipv4() { 32 } else { 128 };
                format!("        - ipBlock:\n            cidr: {}\n", quoted(&format!("{address}/{length}")))
            }
        }
    }
}

/// Returns a YAML string, whatever the text contains. JSON strings are YAML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Makes an object's name of a label's value, which may contain characters that no name may.
fn object_name(label: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    label.chars().map(valid).collect::<String>().trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_what_would_be_allowed() {
        let flow = |json: serde_json::Value| -> Flow {
            let mut flow = serde_json::json!({
                "direction": "ingress", "interface": "cali1", "stage": null, "workload": "shop/web-1", "app": "Web_1",
                "peer": null, "peer_app": null, "source": "192.0.2.1", "destination": "10.0.0.1", "protocol": "tcp",
                "destination_port": 80, "verdict": "accept", "reason": "policy", "tier": "default", "policy": "default.allow-all",
                "rule": 0, "elsewhere": null
            });
            flow.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
            serde_json::from_value(flow).unwrap()
        };
        let flows = [
            flow(serde_json::json!({})),
            flow(serde_json::json!({"source": "192.0.2.2"})),
            flow(serde_json::json!({"source": "192.0.2.2"})),
            flow(serde_json::json!({"peer": "db/a-1", "peer_app": "no", "protocol": "udp", "destination_port": 53})),
            flow(serde_json::json!({"source": "2001:db8::1", "protocol": "icmpv6", "destination_port": null})),
            flow(serde_json::json!({"direction": "egress", "app": null, "workload": "shop/job"})),
            flow(serde_json::json!({"workload": null})),
        ];
        let expected = include_str!("../../tests/fixtures/networkpolicies-of-witnesses.yaml");
        assert_eq!(network_policies(&flows), expected);
    }
}
