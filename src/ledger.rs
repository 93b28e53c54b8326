//! Raw rule counters → how much each rule has counted since the last read, and what may be concluded from that. Pure state.
//!
//! Felix rewrites rules while they count. Which ones depends on the back end: iptables-legacy replaces the rules from the first
//! difference on and keeps the others, iptables-nft flushes the whole chain, also rules whose text and hash stay the same. A rule
//! is therefore known by (family, back end, table, chain, `cali:` hash), and one that was rewritten counts on from what it had.
//! In doubt the ledger counts too little, never too much.

use std::collections::HashMap;

use crate::ruleset::{Backend, Chain, ChainId, Family, RuleHash, RuleId, Ruleset, Snapshot};

/// What the ledger knows of a rule's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// The same rule was there at the last read and has counted on: differences between such rules mean something.
    Continued,
    /// Its age is not known: it is new, was rewritten, or this is the first read.
    Unknown,
}

/// What every rule of a table has counted since the last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deltas {
    packets: Vec<u64>,
    ages: Vec<Age>,
    unchanged: Vec<bool>,
}

impl Deltas {
    /// Whether the chain holds the rules that it held at the last read, and they have counted on.
    pub fn unchanged(&self, chain: ChainId) -> bool {
        self.unchanged[chain.0 as usize]
    }

    /// Packets since the last read; from the first read on, all that the kernel still knows of. A lower bound where the rule
    /// was rewritten meanwhile.
    pub fn packets(&self, rule: RuleId) -> u64 {
        self.packets[rule.0 as usize]
    }

    /// Packets since the last read, for calculations with several rules; `None` if the rule was not there all the time.
    pub fn since_last_read(&self, rule: RuleId) -> Option<i64> {
        let place = rule.0 as usize;
        (self.ages[place] == Age::Continued).then(|| i64::try_from(self.packets[place]).unwrap_or(i64::MAX))
    }
}

/// Where a rule set was read.
type Place = (Family, Backend, &'static str);

/// The last read.
#[derive(Debug, Default)]
pub struct Ledger {
    tables: HashMap<Place, Snapshot>,
    started: bool,
}

/// A chain at the last read.
#[derive(Clone, Copy)]
struct Before<'a> {
    ruleset: &'a Ruleset,
    chain: &'a Chain,
    packets: &'a [u64],
}

impl<'a> Before<'a> {
    fn new(last: &'a Snapshot, chain: &'a Chain) -> Self {
        Before { ruleset: &last.ruleset, chain, packets: last.packets_of(chain) }
    }

    /// Every rule's hash and what it had counted.
    fn rules(self) -> impl Iterator<Item = (RuleHash, u64)> {
        self.chain.rule_ids().map(|id| self.ruleset.rule(id).hash).zip(self.packets.iter().copied())
    }
}

/// Pairs every chain with what it was at the last read: by place where the rules are the very same, else by name.
fn pair<'a>(now: &'a Snapshot, last: &'a Snapshot) -> impl Iterator<Item = (&'a Chain, Option<Before<'a>>)> {
    let same = now.shares_rules_with(last);
    let by_name: HashMap<&str, &Chain> = match same {
        true => HashMap::new(),
        false => last.ruleset.chains().iter().map(|chain| (&*chain.name, chain)).collect(),
    };
    now.ruleset.chains().iter().map(move |chain| {
        let before = if same { Some(chain) } else { by_name.get(&*chain.name).copied() };
        (chain, before.map(|before| Before::new(last, before)))
    })
}

/// How to take the counters of a table that was not read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstSight {
    /// The process starts: show what the kernel shows.
    Count,
    /// Calico has moved to another back end, whose counters may be old: they are where counting begins.
    Baseline,
}

impl Ledger {
    /// An empty ledger: the next reads are the first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether any rule counts less than at the last read. Either it was rewritten, or a legacy table was read without its lock in
    /// the moment in which all its counters are zero.
    pub fn went_back(&self, tables: &[Snapshot]) -> bool {
        tables.iter().any(|now| {
            let Some(last) = self.tables.get(&place_of(now)) else { return false };
            pair(now, last).any(|(chain, before)| {
                let before = before.into_iter().flat_map(Before::rules);
                let now = chain.rule_ids().map(|id| (now.ruleset.rule(id).hash, now.packets(id)));
                now.zip(before).any(|((hash, packets), (hash_before, last))| hash == hash_before && packets < last)
            })
        })
    }

    /// Compares the tables of one read with those of the last one, and takes them over.
    pub fn advance(&mut self, tables: &[Snapshot]) -> Vec<Deltas> {
        let first_sight = if self.started { FirstSight::Baseline } else { FirstSight::Count };
        self.started = true;
        let deltas = tables.iter().map(|now| self.deltas(now, first_sight)).collect();
        // A back end that is not read any more must not be compared with what it holds much later.
        self.tables.retain(|place, _| tables.iter().any(|now| place_of(now) == *place));
        self.tables.extend(tables.iter().map(|now| (place_of(now), now.clone())));
        deltas
    }

    fn deltas(&self, now: &Snapshot, first_sight: FirstSight) -> Deltas {
        let rules = now.ruleset.rule_count();
        let mut deltas = Deltas { packets: vec![0; rules], ages: vec![Age::Unknown; rules], unchanged: vec![] };
        match (self.tables.get(&place_of(now)), first_sight) {
            (Some(last), _) => {
                for (chain, before) in pair(now, last) {
                    let unchanged = before.is_some_and(|before| compare(now, chain, before, &mut deltas));
                    deltas.unchanged.push(unchanged);
                    if before.is_none() {
                        // A chain that has appeared since the last read was empty then.
                        count_all(now, chain, &mut deltas);
                    }
                }
            }
            (None, FirstSight::Count) => now.ruleset.chains().iter().for_each(|chain| count_all(now, chain, &mut deltas)),
            (None, FirstSight::Baseline) => {}
        }
        deltas.unchanged.resize(now.ruleset.chains().len(), false);
        deltas
    }
}

fn place_of(table: &Snapshot) -> Place {
    (table.ruleset.family, table.ruleset.backend, table.ruleset.table)
}

fn count_all(now: &Snapshot, chain: &Chain, deltas: &mut Deltas) {
    for id in chain.rule_ids() {
        deltas.packets[id.0 as usize] = now.packets(id);
    }
}

/// Compares a chain with what it was at the last read; whether it is the same and was not flushed.
fn compare(now: &Snapshot, chain: &Chain, before: Before, deltas: &mut Deltas) -> bool {
    let same_rules = chain.rules.len() == before.packets.len()
        && chain.rule_ids().zip(before.rules()).all(|(id, (hash, _))| now.ruleset.rule(id).hash == hash);
    match same_rules {
        true => compare_unchanged(now, chain, before.packets, deltas),
        false => {
            compare_rewritten(now, chain, before, deltas);
            false
        }
    }
}

/// No rule has come or gone. If one counts less than before, the chain was flushed and written again.
fn compare_unchanged(table: &Snapshot, chain: &Chain, before: &[u64], deltas: &mut Deltas) -> bool {
    let mut flushed = false;
    for (id, &last) in chain.rule_ids().zip(before) {
        let now = table.packets(id);
        flushed |= now < last;
        deltas.packets[id.0 as usize] = now.checked_sub(last).unwrap_or(now);
        deltas.ages[id.0 as usize] = Age::Continued;
    }
    if flushed {
        let rules = chain.rules.start as usize..chain.rules.end as usize;
        deltas.ages[rules].fill(Age::Unknown);
        if table.ruleset.backend == Backend::Nft {
            count_all(table, chain, deltas);
        }
    }
    !flushed
}

/// Rules have come or gone.
fn compare_rewritten(table: &Snapshot, chain: &Chain, before: Before, deltas: &mut Deltas) {
    let backend = table.ruleset.backend;
    let hash = |id: RuleId| table.ruleset.rule(id).hash;
    let last_of: HashMap<RuleHash, u64> = before.rules().collect();
    let last = |id: RuleId| last_of.get(&hash(id)).copied();
    let flushed = chain.rule_ids().any(|id| last(id).is_some_and(|last| table.packets(id) < last));
    let partial = backend == Backend::Legacy && !flushed;
    for id in chain.rule_ids() {
        let (place, now) = (id.0 as usize, table.packets(id));
        // A chain of iptables-nft was flushed, for that is how Felix writes there. But as long as no count proves it, a rule that
        // was there before might have kept its own: then all of it must not be counted again.
        deltas.packets[place] = match last(id) {
            Some(last) if !(flushed && backend == Backend::Nft) => now.checked_sub(last).unwrap_or(now),
            _ => now,
        };
        if partial && last(id).is_some() {
            deltas.ages[place] = Age::Continued;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Builder, RuleParts, Verdict};

    fn table(backend: Backend, chains: &[(&str, &[(&str, u64)])]) -> [Snapshot; 1] {
        let mut builder = Builder::new(Family::V4, backend, "filter");
        for (chain, rules) in chains {
            let chain = builder.chain(chain);
            for (hash, packets) in *rules {
                let parts = RuleParts { hash: RuleHash::new(hash.as_bytes()), packets: *packets, ..RuleParts::default() };
                builder.push(chain, &parts, Verdict::Return);
            }
        }
        [builder.finish()]
    }

    fn chain(backend: Backend, rules: &[(&str, u64)]) -> [Snapshot; 1] {
        table(backend, &[("c", rules)])
    }

    /// Reads two tables; what the second read gives: packets, and whether the rule continued.
    fn second(backend: Backend, first: &[(&str, u64)], second: &[(&str, u64)]) -> Vec<(u64, bool)> {
        let mut ledger = Ledger::new();
        ledger.advance(&chain(backend, first));
        let deltas = &ledger.advance(&chain(backend, second))[0];
        (0..second.len() as u32).map(|i| (deltas.packets(RuleId(i)), deltas.since_last_read(RuleId(i)).is_some())).collect()
    }

    #[test]
    fn the_first_read_counts_what_the_kernel_shows_but_proves_no_age() {
        let deltas = &Ledger::new().advance(&chain(Backend::Legacy, &[("a", 7)]))[0];
        assert_eq!((deltas.packets(RuleId(0)), deltas.since_last_read(RuleId(0))), (7, None));
    }

    #[test]
    fn unchanged_rules_count_on() {
        assert_eq!(second(Backend::Nft, &[("a", 7), ("b", 1)], &[("a", 9), ("b", 1)]), [(2, true), (0, true)]);
    }

    #[test]
    fn legacy_keeps_the_rules_before_the_first_difference() {
        let rules = second(Backend::Legacy, &[("a", 7), ("b", 5)], &[("a", 9), ("x", 3), ("b2", 1)]);
        assert_eq!(rules, [(2, true), (3, false), (1, false)]);
    }

    #[test]
    fn nft_flushes_the_whole_chain() {
        // b counts less than before, so a, too, has started again, although it counts more than before.
        let rules = second(Backend::Nft, &[("a", 7), ("b", 5)], &[("a", 9), ("b", 2), ("x", 3)]);
        assert_eq!(rules, [(9, false), (2, false), (3, false)]);
        // Nothing proves it here: count what is certain.
        let rules = second(Backend::Nft, &[("a", 7)], &[("a", 9), ("x", 3)]);
        assert_eq!(rules, [(2, false), (3, false)]);
    }

    #[test]
    fn a_flush_under_unchanged_hashes_is_seen_by_any_rule_that_went_back() {
        assert_eq!(second(Backend::Nft, &[("a", 7), ("b", 5)], &[("a", 9), ("b", 2)]), [(9, false), (2, false)]);
        // On legacy a single rule can be zeroed (iptables -Z chain rule): the other counted on.
        assert_eq!(second(Backend::Legacy, &[("a", 7), ("b", 5)], &[("a", 9), ("b", 2)]), [(2, false), (2, false)]);
    }

    #[test]
    fn a_new_chain_began_at_zero() {
        let mut ledger = Ledger::new();
        ledger.advance(&chain(Backend::Legacy, &[("a", 1)]));
        let both = table(Backend::Legacy, &[("c", &[("a", 1)]), ("d", &[("b", 4)])]);
        let deltas = &ledger.advance(&both)[0];
        assert_eq!((deltas.packets(RuleId(1)), deltas.since_last_read(RuleId(1))), (4, None));
    }

    #[test]
    fn a_chain_that_lost_its_last_rule_is_changed_although_all_others_counted_on() {
        let mut ledger = Ledger::new();
        ledger.advance(&table(Backend::Legacy, &[("c", &[("a", 1), ("b", 1)]), ("d", &[("e", 4)])]));
        let deltas = &ledger.advance(&table(Backend::Legacy, &[("c", &[("a", 2)]), ("d", &[("e", 5)])]))[0];
        assert_eq!(deltas.since_last_read(RuleId(0)), Some(1));
        assert_eq!((deltas.unchanged(ChainId(0)), deltas.unchanged(ChainId(1))), (false, true));
    }

    #[test]
    fn another_back_end_starts_where_it_stands() {
        let mut ledger = Ledger::new();
        ledger.advance(&chain(Backend::Legacy, &[("a", 1)]));
        assert_eq!(ledger.advance(&chain(Backend::Nft, &[("a", 100)]))[0].packets(RuleId(0)), 0);
        assert_eq!(ledger.advance(&chain(Backend::Nft, &[("a", 103)]))[0].packets(RuleId(0)), 3);
        assert_eq!(ledger.advance(&chain(Backend::Legacy, &[("a", 500)]))[0].packets(RuleId(0)), 0);
    }

    #[test]
    fn rules_without_a_hash_are_known_by_what_they_do() {
        assert_eq!(second(Backend::Legacy, &[("a", 7), ("", 5)], &[("a", 9), ("", 6)]), [(2, true), (1, true)]);
        assert_eq!(second(Backend::Legacy, &[("a", 7)], &[("", 0), ("a", 9)]), [(0, false), (2, true)]);
    }

    #[test]
    fn a_count_that_went_back_is_noticed() {
        let mut ledger = Ledger::new();
        ledger.advance(&chain(Backend::Legacy, &[("a", 7), ("b", 5)]));
        assert!(!ledger.went_back(&chain(Backend::Legacy, &[("a", 7), ("x", 0)])));
        assert!(ledger.went_back(&chain(Backend::Legacy, &[("a", 6), ("b", 5)])));
    }

    #[test]
    fn vanished_chains_are_forgotten() {
        let mut ledger = Ledger::new();
        ledger.advance(&table(Backend::Legacy, &[("c", &[("a", 1)]), ("d", &[("b", 4)])]));
        ledger.advance(&chain(Backend::Legacy, &[("a", 1)]));
        assert_eq!(ledger.tables.values().map(|table| table.ruleset.chains().len()).sum::<usize>(), 1);
    }
}
