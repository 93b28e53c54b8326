//! What is counted for the node as a whole: each rule of each policy, and packets of interfaces that have no endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::felix::names::direction_of;
use crate::felix::{Decision, Direction};
use crate::ruleset::Family;

use super::Table;
use super::totals::{Item, Reads};

/// A rule of a policy. IPv4 and IPv6 count separately, because a policy may have different rules for each, except on the eBPF dataplane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    pub policy: Arc<str>,
    pub direction: Direction,
    pub family: Option<Family>,
    pub index: u32,
    pub decision: Decision,
}

#[derive(Debug, Default)]
struct Total {
    packets: u64,
    seen: u32,
}

impl Total {
    fn add(&mut self, packets: u64, read: u32) {
        self.packets = self.packets.saturating_add(packets);
        self.seen = read;
    }
}

/// Totals by key. A read usually meets the keys in the same order as the read before, so a total is expected at the place of the last
/// one or right after it.
#[derive(Debug)]
struct Ordered<K> {
    totals: Vec<(K, Total)>,
    places: BTreeMap<K, usize>,
    last: usize,
}

impl<K> Default for Ordered<K> {
    fn default() -> Self {
        Ordered { totals: Vec::new(), places: BTreeMap::new(), last: 0 }
    }
}

impl<K: Ord + Clone> Ordered<K> {
    fn begin_read(&mut self, oldest: u32) {
        self.last = 0;
        if self.totals.iter().any(|(_, total)| total.seen < oldest) {
            self.totals.retain(|(_, total)| total.seen >= oldest);
            self.places = self.totals.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
        }
    }

    fn add(&mut self, key: &K, packets: u64, read: u32) {
        let is_at = |place: &usize| self.totals.get(*place).is_some_and(|(at, _)| at == key);
        let place = [self.last, self.last + 1].into_iter().find(is_at);
        let place = place.or_else(|| self.places.get(key).copied()).unwrap_or_else(|| {
            self.places.insert(key.clone(), self.totals.len());
            self.totals.push((key.clone(), Total::default()));
            self.totals.len() - 1
        });
        self.totals[place].1.add(packets, read);
        self.last = place;
    }

    fn of_read(&self, read: u32) -> impl Iterator<Item = (&K, u64)> {
        let all = self.places.iter().map(|(key, place)| (key, &self.totals[*place].1));
        all.filter(move |(_, total)| total.seen == read).map(|(key, total)| (key, total.packets))
    }

    /// Moves totals to other keys, which may have some already.
    fn rename(&mut self, rename: impl Fn(&K) -> Option<K>) {
        let mut renamed = Ordered::default();
        for (key, total) in std::mem::take(&mut self.totals) {
            let key = rename(&key).unwrap_or(key);
            let place = *renamed.places.entry(key.clone()).or_insert(renamed.totals.len());
            match renamed.totals.get_mut(place) {
                Some((_, known)) => known.add(total.packets, known.seen.max(total.seen)),
                None => renamed.totals.push((key, total)),
            }
        }
        *self = renamed;
    }

    fn restart(&mut self) {
        self.totals.iter_mut().for_each(|(_, total)| total.packets = 0);
    }
}

#[derive(Debug, Default)]
pub struct NodeTotals {
    rules: Ordered<RuleKey>,
    /// What policies, and ends of tiers, decided on the whole node. Only if rules are not counted per workload.
    decided: Ordered<(Direction, Item)>,
    unknown_rules: u64,
    unknown_interfaces: [u64; 2],
    reads: Reads,
    read: u32,
}

impl NodeTotals {
    pub fn advance(&mut self, tables: &[Table], now: Instant) {
        self.begin_read(now);
        for table in tables {
            self.policies(table);
            for &(direction, rule) in &table.pipelines.unknown_interfaces {
                self.unknown_interfaces[direction as usize] += table.deltas.packets(rule);
            }
        }
    }

    pub(super) fn rename_policy(&mut self, old: &str, new: &Arc<str>) {
        self.rules.rename(|key| (*key.policy == *old).then(|| RuleKey { policy: Arc::clone(new), ..key.clone() }));
    }

    pub(super) fn begin_read(&mut self, now: Instant) {
        let oldest = self.reads.next(now);
        self.read = self.reads.last;
        self.rules.begin_read(oldest);
        self.decided.begin_read(oldest);
    }

    pub(super) fn is_new(&self) -> bool {
        self.read == 0
    }

    pub(super) fn rule(&mut self, key: &RuleKey, packets: u64) {
        self.rules.add(key, packets, self.read);
    }

    pub(super) fn decide(&mut self, decided: &(Direction, Item), packets: u64) {
        self.decided.add(decided, packets, self.read);
    }

    pub(super) fn count_unknown_rules(&mut self, packets: u64) {
        self.unknown_rules = self.unknown_rules.saturating_add(packets);
    }

    pub fn restart(&mut self) {
        self.rules.restart();
        self.decided.restart();
        (self.unknown_rules, self.unknown_interfaces) = (0, [0; 2]);
    }

    fn policies(&mut self, table: &Table) {
        for policy in table.pipelines.policies() {
            let Some(label) = table.labels.get(policy.chain).filter(|label| !label.is_profile) else { continue };
            let direction = direction_of(&table.ruleset.chain(policy.chain).name);
            for rule in &policy.rules {
                let (policy, family) = (Arc::clone(&label.label), table.ruleset.family);
                let key = RuleKey { policy, direction, family: Some(family), index: rule.index, decision: rule.decision };
                self.rule(&key, table.deltas.packets(rule.rule));
            }
        }
    }

    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, u64)> {
        self.rules.of_read(self.read)
    }

    pub fn decided(&self) -> impl Iterator<Item = (Direction, &Item, u64)> {
        self.decided.of_read(self.read).map(|((direction, item), packets)| (*direction, item, packets))
    }

    pub fn unknown_rules(&self) -> u64 {
        self.unknown_rules
    }

    /// Returns packets to or from interfaces that have no endpoint.
    pub fn unknown_interface(&self, direction: Direction) -> u64 {
        self.unknown_interfaces[direction as usize]
    }
}
