//! The metrics with today's naming conventions, under `calico_accountant_`.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::accounting::attribution::{Item, Verdict};
use crate::felix::Direction;

use super::text::{Labels, Text};
use super::{Endpoint, View};

/// An endpoint's base labels for each direction, escaped once.
type Base = [String; 2];

fn base_labels(endpoint: &Endpoint) -> Base {
    let (namespace, pod) = endpoint.workload.as_ref().map_or(("", ""), |w| (&w.namespace, &w.pod));
    Direction::ALL.map(|direction| {
        let labels = Labels::default().with("direction", direction.as_str()).with("interface", endpoint.interface);
        labels.with("namespace", namespace).with("pod", pod).as_str().to_owned()
    })
}

pub fn render<'a>(view: &'a View, endpoints: &[Endpoint<'a>], text: &mut Text) {
    let bases: Vec<Base> = endpoints.iter().map(base_labels).collect();
    let each = |write: &mut dyn FnMut(&str, &'a Item, u64)| {
        for (endpoint, base) in endpoints.iter().zip(&bases) {
            for direction in Direction::ALL {
                view.counts(endpoint.totals, direction).for_each(|(item, packets)| write(&base[direction as usize], item, packets));
            }
        }
    };
    let help = "Packets opening a connection (conntrack state NEW) that a policy decided for a workload. \
                Several policies joined by commas: one of them did; which one is unknown.";
    let mut metric = text.metric("calico_accountant_policy_packets_total", "counter", help);
    // The labels of a policy, which all its endpoints share.
    let mut suffixes = HashMap::<(&str, &str, Verdict), String, RandomState>::default();
    each(&mut |base, item, packets| {
        if let Item::Policy { tier, policy, verdict } = item {
            let labels = || Labels::default().with("policy", policy).with("tier", tier).with("verdict", verdict_name(*verdict));
            let suffix = suffixes.entry((tier, policy, *verdict)).or_insert_with(|| format!(",{}", labels().as_str()));
            metric.parts(&[base, suffix], packets);
        }
    });

    let help = "Packets opening a connection that no policy decided and a profile accepted.";
    let mut metric = text.metric("calico_accountant_profile_packets_total", "counter", help);
    each(&mut |base, item, packets| {
        if let Item::Profile(profile) = item {
            metric.parts(&[base, ",", Labels::default().with("profile", profile).as_str()], packets);
        }
    });

    let help = "Packets of a workload that were refused, by reason. For reason \"policy\" and \"no_policy\" per tier.";
    let mut metric = text.metric("calico_accountant_drop_packets_total", "counter", help);
    each(&mut |base, item, packets| {
        if let Some((reason, tier)) = drop_reason(item) {
            metric.parts(&[base, ",", Labels::default().with("reason", reason).with_if("tier", tier).as_str()], packets);
        }
    });

    let help = "Packets of a workload that belong to a known connection; they never reach the policies.";
    let mut metric = text.metric("calico_accountant_established_packets_total", "counter", help);
    each(&mut |base, item, packets| {
        if *item == Item::Established {
            metric.sample(base, packets);
        }
    });
    workload_info(endpoints, text);
    if view.attribution.programs().is_some() {
        workload_policies(view, endpoints, &bases, text);
    }
}

/// Writes which policies each workload has, on the dataplane where counts alone do not show it.
fn workload_policies(view: &View, endpoints: &[Endpoint], bases: &[Base], text: &mut Text) {
    let help = "A policy that applies to a workload, and its place in the order of evaluation (eBPF dataplane). Value 1.";
    let mut metric = text.metric("calico_accountant_workload_policy_info", "gauge", help);
    let Some(programs) = view.attribution.programs() else { return };
    for (endpoint, base) in endpoints.iter().zip(bases) {
        for direction in Direction::ALL {
            for (position, policy) in programs.applied(endpoint.interface, direction).iter().enumerate() {
                let labels = Labels::default().with("policy", &policy.label).with("position", &position.to_string());
                metric.parts(&[&base[direction as usize], ",", labels.with("tier", &policy.tier).as_str()], true);
            }
        }
    }
}

pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "accept",
        Verdict::Deny => "deny",
        Verdict::Pass => "pass",
        Verdict::DenyOrPass => "deny_or_pass",
    }
}

/// Returns the `reason` and `tier` labels of a total that counts refused packets.
pub fn drop_reason(item: &Item) -> Option<(&'static str, &str)> {
    match item {
        Item::Drop { reason, tier } => Some((reason.as_str(), tier)),
        Item::PolicyDrop { tier } => Some(("policy", tier)),
        _ => None,
    }
}

fn workload_info(endpoints: &[Endpoint], text: &mut Text) {
    let help = "What the datastore says of the workload on an interface. Value 1.";
    let mut metric = text.metric("calico_accountant_workload_info", "gauge", help);
    for endpoint in endpoints {
        let Some(w) = &endpoint.workload else { continue };
        let labels = Labels::default().with("app", &w.app).with("interface", endpoint.interface).with("ip", &w.ip);
        let labels = labels.with("namespace", &w.namespace).with("node", &w.node).with("orchestrator", &w.orchestrator);
        metric.sample(labels.with("pod", &w.pod).with("service_account", &w.service_account).as_str(), true);
    }
}
