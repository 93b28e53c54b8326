//! The names of the Go exporter (v0.1.6): same metrics, same labels in the same order, same help.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::accounting::attribution::{EndpointTotals, Item, Totals, Verdict};
use crate::felix::{Direction, DropReason};

use super::text::{Labels, Metric, Text};
use super::{Endpoint, View};

fn chain_type(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "tw",
        Direction::Egress => "fw",
    }
}

/// Workloads with the same labels. Their counts are summed, because a series must not occur twice.
type Groups<'a> = BTreeMap<Labels, Vec<&'a EndpointTotals>>;

/// Writes the metrics. Workloads without names are left out, as by the Go exporter, because they could not be distinguished.
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
    each(&groups, |group| no_policy_drops(&mut metric, totals, group));
    let mut shared = Shared::default();
    let help = "Number of packets accepted by a policy on a workload";
    let mut metric = text.metric("policy_accept_counter", "counter", help);
    each(&groups, |group| policies(&mut metric, view, group, Verdict::Accept, &mut shared));
    let help = "Number of packets denied by a policy on a workload";
    let mut metric = text.metric("policy_accept_drop_counter", "counter", help);
    each(&groups, |group| policies(&mut metric, view, group, Verdict::Deny, &mut shared));
}

type Group<'a> = (&'a Labels, &'a [&'a EndpointTotals], Direction);

fn each<'a>(groups: &'a Groups, mut write: impl FnMut(Group<'a>)) {
    for (labels, totals) in groups {
        for direction in [Direction::Egress, Direction::Ingress] {
            write((labels, totals, direction));
        }
    }
}

fn no_policy_drops(metric: &mut Metric, all: &Totals, (labels, endpoints, direction): Group) {
    let drops = endpoints.iter().filter_map(|endpoint| all.no_policy_drops(endpoint, direction));
    if let Some(packets) = drops.reduce(u64::saturating_add) {
        metric.parts(&[labels.as_str(), ",type=\"", chain_type(direction), "\""], packets);
    }
}

/// Memory that all workloads use.
#[derive(Default)]
struct Shared<'a> {
    suffixes: HashMap<(&'a str, Direction), String, RandomState>,
    /// Policy, tier and count. Empty between workloads: only its memory is used again.
    policies: Vec<(&'a str, &'a str, u64)>,
}

fn policies<'a>(metric: &mut Metric, view: &View<'a>, (labels, endpoints, direction): Group<'a>, wanted: Verdict, shared: &mut Shared<'a>) {
    let Shared { suffixes, policies } = shared;
    let counts = endpoints.iter().flat_map(|endpoint| view.counts(endpoint, direction));
    policies.extend(counts.filter_map(|(item, packets)| match item {
        Item::Policy { policy, tier, verdict } if *verdict == wanted => Some((&**policy, &**tier, packets)),
        _ => None,
    }));
    // Within one tier of one endpoint every policy has one total.
    if endpoints.len() > 1 || policies.iter().any(|policy| policy.1 != policies[0].1) {
        policies.sort_unstable();
        policies.dedup_by(|next, first| {
            let is_same = next.0 == first.0;
            if is_same {
                first.2 = first.2.saturating_add(next.2);
            }
            is_same
        });
    }
    for (policy, _, packets) in policies.drain(..) {
        let labels_of = || format!(",{}", Labels::default().with("policy", policy).with("type", chain_type(direction)).as_str());
        let suffix = suffixes.entry((policy, direction)).or_insert_with(labels_of);
        metric.parts(&[labels.as_str(), suffix], packets);
    }
}

/// Returns the largest of the counters that the Go exporter compares with `MINIMUM_COUNTER`.
pub fn largest_counter(totals: &Totals) -> u64 {
    let shown = totals.workloads().flat_map(|(_, endpoint)| Direction::ALL.into_iter().flat_map(|d| totals.shown(endpoint, d)));
    let compared = shown.filter(|total| matches!(*total.item, Item::Policy { .. } | Item::Drop { reason: DropReason::NoPolicy, .. }));
    compared.map(|total| total.packets).max().unwrap_or(0)
}
