//! What is counted for the node as a whole: every rule of every policy, and packets of interfaces that have no endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::felix::{Decision, Direction};
use crate::ruleset::Family;

use super::Table;
use super::totals::REMEMBERED_READS;

/// A rule of a policy. IPv4 and IPv6 count apart, because a policy may have other rules for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    /// The policy's label.
    pub policy: Arc<str>,
    /// The direction it is for.
    pub direction: Direction,
    /// The address family.
    pub family: Family,
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

/// Totals of the node.
#[derive(Debug, Default)]
pub struct NodeTotals {
    rules: BTreeMap<RuleKey, Total>,
    unknown_interfaces: [u64; 2],
    read: u64,
}

impl NodeTotals {
    /// Takes in one read.
    pub fn advance(&mut self, tables: &[Table]) {
        self.read += 1;
        for table in tables {
            self.policies(table);
            for &(direction, rule) in &table.pipelines.unknown_interfaces {
                self.unknown_interfaces[direction as usize] += table.deltas.packets(rule);
            }
        }
        let oldest = self.read.saturating_sub(REMEMBERED_READS);
        self.rules.retain(|_, total| total.seen >= oldest);
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
                let key = RuleKey { policy, direction, family, index: rule.index, decision: rule.decision };
                let total = self.rules.entry(key).or_default();
                total.packets = total.packets.saturating_add(table.deltas.packets(rule.rule));
                total.seen = self.read;
            }
        }
    }

    /// Every rule that the last read met.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, u64)> {
        self.rules.iter().filter(|(_, total)| total.seen == self.read).map(|(key, total)| (key, total.packets))
    }

    /// Packets to or from interfaces that have no endpoint.
    pub fn unknown_interface(&self, direction: Direction) -> u64 {
        self.unknown_interfaces[direction as usize]
    }
}
