//! The metrics of the node as a whole: its host endpoints, its policies and their rules.

use crate::accounting::attribution::Item;
use crate::felix::{Direction, EndpointKind};
use crate::ruleset::Family;

use super::View;
use super::standard::{drop_reason, verdict_name};
use super::text::{Labels, Metric, Text};

pub fn render(view: &View, text: &mut Text) {
    host_endpoints(view, text);
    catalog(view, text);
    let help = "Packets opening a connection that matched a rule of a policy, on the whole node. Rules count from 0, as in the policy; \
                without flow logs, those of the other address family are left out.";
    let mut metric = text.metric("calico_accountant_policy_rule_packets_total", "counter", help);
    for (rule, packets) in view.attribution.node().rules() {
        let labels = Labels::default().with("action", rule.decision.as_str()).with("direction", rule.direction.as_str());
        let labels = labels.with("family", Family::name(rule.family)).with("policy", &rule.policy);
        metric.sample(labels.with("rule", &rule.index.to_string()).as_str(), packets);
    }
    match view.attribution.programs() {
        Some(_) => decided(view, text),
        None => unknown_interfaces(view, text),
    }
}

/// Writes what the eBPF dataplane does not count.
fn unknown_interfaces(view: &View, text: &mut Text) {
    let help = "Packets refused because their interface has no endpoint (yet).";
    let mut metric = text.metric("calico_accountant_unknown_interface_drop_packets_total", "counter", help);
    for direction in Direction::ALL {
        let labels = Labels::default().with("direction", direction.as_str());
        metric.sample(labels.as_str(), view.attribution.node().unknown_interface(direction));
    }
}

/// Writes what the eBPF dataplane counts for the node only.
fn decided(view: &View, text: &mut Text) {
    let node = view.attribution.node();
    let mut policies = Vec::new();
    let mut drops = Vec::new();
    for (direction, item, packets) in node.decided() {
        let labels = Labels::default().with("direction", direction.as_str());
        match item {
            Item::Policy { tier, policy, verdict } => {
                let labels = labels.with("policy", policy).with("tier", tier);
                policies.push((labels.with("verdict", verdict_name(*verdict)), packets));
            }
            item => drops.extend(drop_reason(item).map(|(reason, tier)| (labels.with("reason", reason).with("tier", tier), packets))),
        }
    }
    let help = "Packets opening a connection that a policy decided, on the whole node (eBPF dataplane).";
    sorted(text.metric("calico_accountant_node_policy_packets_total", "counter", help), policies);
    let help =
        "Packets refused because no policy of a tier, or no profile, decided, on the whole node (eBPF dataplane, Calico 3.30 and later).";
    sorted(text.metric("calico_accountant_node_drop_packets_total", "counter", help), drops);
    let help = "Packets that matched rules without a known name (eBPF dataplane).";
    text.single("calico_accountant_unknown_rule_packets_total", "counter", help, node.unknown_rules());
}

fn sorted(mut metric: Metric, mut samples: Vec<(Labels, u64)>) {
    samples.sort_unstable();
    samples.iter().for_each(|(labels, packets)| metric.sample(labels.as_str(), *packets));
}

fn host_endpoints(view: &View, text: &mut Text) {
    let totals = view.attribution.totals();
    let each = |write: &mut dyn FnMut(Labels, &str, &Item, u64)| {
        for (kind, interface, endpoint) in totals.endpoints() {
            let EndpointKind::Host(stage) = kind else { continue };
            for direction in Direction::ALL {
                let labels = Labels::default().with("direction", direction.as_str()).with("interface", interface);
                view.counts(endpoint, direction).for_each(|(item, packets)| write(labels.clone(), stage.as_str(), item, packets));
            }
        }
    };
    let help = "Packets that a policy decided for a host endpoint. Stage \"normal\": to or from the host itself.";
    let mut metric = text.metric("calico_accountant_host_endpoint_policy_packets_total", "counter", help);
    each(&mut |labels, stage, item, packets| {
        if let Item::Policy { tier, policy, verdict } = item {
            let labels = labels.with("policy", policy).with("stage", stage).with("tier", tier);
            metric.sample(labels.with("verdict", verdict_name(*verdict)).as_str(), packets);
        }
    });
    let help = "Packets of a host endpoint that were refused, by reason.";
    let mut metric = text.metric("calico_accountant_host_endpoint_drop_packets_total", "counter", help);
    each(&mut |labels, stage, item, packets| {
        if let Some((reason, tier)) = drop_reason(item) {
            metric.sample(labels.with("reason", reason).with("stage", stage).with_if("tier", tier).as_str(), packets);
        }
    });
}

fn catalog(view: &View, text: &mut Text) {
    let help = "A policy that applies on this node, as people write it. Value 1.";
    let mut metric = text.metric("calico_accountant_policy_info", "gauge", help);
    for info in &view.catalog.policies {
        let labels = Labels::default().with("kind", &info.kind).with("policy", &info.policy).with("policy_name", &info.name);
        metric.sample(labels.with("policy_namespace", &info.namespace).with("tier", &info.tier).as_str(), true);
    }
    let help = "A policy's place in a group: policies that share a selector and that the kernel counts together. Value 1.";
    let mut metric = text.metric("calico_accountant_policy_group_info", "gauge", help);
    for place in &view.catalog.groups {
        let labels = Labels::default().with("direction", place.direction.as_str()).with("group", &place.group);
        let labels = labels.with("policy", &place.policy).with("position", &place.position.to_string());
        metric.sample(labels.with("tier", &place.tier).as_str(), true);
    }
}
