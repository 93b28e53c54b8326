//! The names of the Go exporter (v0.1.6): same metrics, same labels in the same order, same help.

use std::collections::BTreeMap;

use crate::attribution::{EndpointTotals, Item, Totals, Verdict};
use crate::felix::{Direction, DropReason};

use super::text::{Labels, Metric, Text, escape};
use super::{Endpoint, View};

/// The `type` label.
fn chain_type(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "tw",
        Direction::Egress => "fw",
    }
}

/// Workloads whose labels are the same: their counts are summed, for a series must not come twice.
type Groups<'a> = BTreeMap<Labels, Vec<&'a EndpointTotals>>;

/// Writes the workload metrics. Workloads that the datastore does not know are left out, as the Go exporter did: without names
/// they could not be told apart.
pub fn render(view: &View, endpoints: &[Endpoint], text: &mut Text) {
    let mut groups = Groups::new();
    for endpoint in endpoints {
        let Some(workload) = &endpoint.workload else { continue };
        let labels = Labels::default().with("app", &workload.app).with("ip", &workload.ip);
        groups.entry(labels.with("pod", &workload.pod).with("pod_namespace", &workload.namespace)).or_default().push(endpoint.totals);
    }
    let totals = view.attribution.totals();
    let help = "Number of packets dropped to/from a workload because no policies matched them";
    let mut metric = text.metric("no_policy_drop_counter", "counter", help);
    each(&groups, |labels, endpoints, direction| no_policy_drops(&mut metric, totals, labels, endpoints, direction));
    let help = "Number of packets accepted by a policy on a workload";
    let mut metric = text.metric("policy_accept_counter", "counter", help);
    each(&groups, |labels, endpoints, direction| policies(&mut metric, totals, labels, endpoints, direction, Verdict::Accept));
    let help = "Number of packets denied by a policy on a workload";
    let mut metric = text.metric("policy_accept_drop_counter", "counter", help);
    each(&groups, |labels, endpoints, direction| policies(&mut metric, totals, labels, endpoints, direction, Verdict::Deny));
}

fn each(groups: &Groups, mut write: impl FnMut(&Labels, &[&EndpointTotals], Direction)) {
    for (labels, totals) in groups {
        for direction in [Direction::Egress, Direction::Ingress] {
            write(labels, totals, direction);
        }
    }
}

fn no_policy_drops(metric: &mut Metric, all: &Totals, labels: &Labels, endpoints: &[&EndpointTotals], direction: Direction) {
    let shown = endpoints.iter().flat_map(|endpoint| all.shown(endpoint, direction));
    let drops = shown.filter(|total| matches!(total.item, Item::Drop { reason: DropReason::NoPolicy, .. })).map(|total| total.packets);
    if let Some(packets) = drops.reduce(u64::saturating_add) {
        metric.parts(&[labels.as_str(), ",type=\"", chain_type(direction), "\""], packets);
    }
}

fn policies(metric: &mut Metric, all: &Totals, labels: &Labels, endpoints: &[&EndpointTotals], direction: Direction, wanted: Verdict) {
    let shown = endpoints.iter().flat_map(|endpoint| all.shown(endpoint, direction));
    let mut policies: Vec<(&str, &str, u64)> = shown
        .filter_map(|total| match &total.item {
            Item::Policy { policy, tier, verdict } if *verdict == wanted => Some((&**policy, &**tier, total.packets)),
            _ => None,
        })
        .collect();
    // Within one tier of one endpoint every policy has one total.
    if endpoints.len() > 1 || policies.iter().any(|policy| policy.1 != policies[0].1) {
        policies.sort_unstable();
    }
    let mut escaped = String::new();
    for same in policies.chunk_by(|a, b| a.0 == b.0) {
        escaped.clear();
        escape(same[0].0, &mut escaped);
        let packets = same.iter().fold(0u64, |sum, (_, _, packets)| sum.saturating_add(*packets));
        metric.parts(&[labels.as_str(), ",policy=\"", &escaped, "\",type=\"", chain_type(direction), "\""], packets);
    }
}

/// Every counter that the Go exporter compares with its minimum.
pub fn counters<'a>(totals: &'a Totals) -> impl Iterator<Item = u64> + use<'a> {
    let shown = totals.workloads().flat_map(|(_, endpoint)| Direction::ALL.into_iter().flat_map(|d| totals.shown(endpoint, d)));
    shown.filter(|total| matches!(total.item, Item::Policy { .. } | Item::Drop { reason: DropReason::NoPolicy, .. })).map(|t| t.packets)
}
