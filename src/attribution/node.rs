//! What is counted for the node as a whole: every rule of every policy, and packets of interfaces that have no endpoint.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::felix::{Decision, Direction};
use crate::ruleset::Family;

use super::Table;
use super::totals::{Item, REMEMBERED_READS};

/// A rule of a policy. IPv4 and IPv6 count apart, because a policy may have other rules for each, but on the eBPF dataplane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    /// The policy's label.
    pub policy: Arc<str>,
    /// The direction it is for.
    pub direction: Direction,
    /// The address family; `None` for both together.
    pub family: Option<Family>,
    /// Its place in the policy.
    pub index: u32,
    /// What it does.
    pub decision: Decision,
}

#[derive(Debug, Default)]
struct Total {
    packets: u64,
    seen: u64,
}

impl Total {
    fn add(&mut self, packets: u64, read: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.seen = read;
    }
}

/// Totals of the node.
#[derive(Debug, Default)]
pub struct NodeTotals {
    rules: BTreeMap<RuleKey, Total>,
    /// What policies, and ends of tiers, decided on the whole node: only where rules are not counted per workload.
    decided: HashMap<(Direction, Item), Total>,
    unknown_rules: u64,
    unknown_interfaces: [u64; 2],
    read: u64,
}

impl NodeTotals {
    /// Takes in one read.
    pub fn advance(&mut self, tables: &[Table]) {
        self.begin_read();
        for table in tables {
            self.policies(table);
            for &(direction, rule) in &table.pipelines.unknown_interfaces {
                self.unknown_interfaces[direction as usize] += table.deltas.packets(rule);
            }
        }
    }

    /// Begins the next read: only what is met from now on is shown.
    pub(super) fn begin_read(&mut self) {
        self.read += 1;
        let oldest = self.read.saturating_sub(REMEMBERED_READS);
        self.rules.retain(|_, total| total.seen >= oldest);
        self.decided.retain(|_, total| total.seen >= oldest);
    }

    /// Whether nothing was read yet.
    pub(super) fn is_new(&self) -> bool {
        self.read == 0
    }

    /// Adds packets that a rule matched.
    pub(super) fn rule(&mut self, key: RuleKey, packets: u64) {
        self.rules.entry(key).or_default().add(packets, self.read);
    }

    /// Adds packets that a policy, or the end of a tier, decided.
    pub(super) fn decide(&mut self, direction: Direction, item: Item, packets: u64) {
        self.decided.entry((direction, item)).or_default().add(packets, self.read);
    }

    /// Adds packets of rules that nothing names.
    pub(super) fn count_unknown_rules(&mut self, packets: u64) {
        self.unknown_rules = self.unknown_rules.saturating_add(packets);
    }

    /// Sets all totals to 0.
    pub fn restart(&mut self) {
        self.rules.values_mut().for_each(|total| total.packets = 0);
        self.unknown_interfaces = [0; 2];
    }

    fn policies(&mut self, table: &Table) {
        for policy in table.pipelines.policies() {
            let Some(label) = table.labels.get(policy.chain).filter(|label| !label.is_profile) else { continue };
            let outwards = table.ruleset.chain(policy.chain).name.starts_with("cali-po-");
            let direction = if outwards { Direction::Egress } else { Direction::Ingress };
            for rule in &policy.rules {
                let (policy, family) = (Arc::clone(&label.label), table.ruleset.family);
                let key = RuleKey { policy, direction, family: Some(family), index: rule.index, decision: rule.decision };
                self.rule(key, table.deltas.packets(rule.rule));
            }
        }
    }

    /// Every rule that the last read met.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, u64)> {
        self.rules.iter().filter(|(_, total)| total.seen == self.read).map(|(key, total)| (key, total.packets))
    }

    /// What policies, and ends of tiers, decided on the whole node, as far as the last read met them.
    pub fn decided(&self) -> impl Iterator<Item = (Direction, &Item, u64)> {
        let shown = self.decided.iter().filter(|(_, total)| total.seen == self.read);
        shown.map(|((direction, item), total)| (*direction, item, total.packets))
    }

    /// Packets of rules that nothing named when they were counted.
    pub fn unknown_rules(&self) -> u64 {
        self.unknown_rules
    }

    /// Packets to or from interfaces that have no endpoint.
    pub fn unknown_interface(&self, direction: Direction) -> u64 {
        self.unknown_interfaces[direction as usize]
    }
}
