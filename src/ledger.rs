//! Raw rule counters → how much each rule has counted since the last read, and what may be concluded from that. Pure state.
//!
//! Felix rewrites rules while they count. Which ones depends on the back end: iptables-legacy replaces the rules from the first
//! difference on and keeps the others, iptables-nft flushes the whole chain, also rules whose text and hash stay the same. A rule
//! is therefore known by (family, back end, table, chain, `cali:` hash), and one that was rewritten counts on from what it had.
//! In doubt the ledger counts too little, never too much.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ruleset::{Backend, Chain, ChainId, Family, RuleHash, RuleId, Ruleset};

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

/// The rules of every chain with what they had counted.
type Counters = HashMap<Arc<str>, Vec<(RuleHash, u64)>>;

/// The counters of the last read.
#[derive(Debug, Default)]
pub struct Ledger {
    tables: HashMap<Place, Counters>,
    started: bool,
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
    pub fn went_back(&self, rulesets: &[Ruleset]) -> bool {
        rulesets.iter().any(|ruleset| {
            let Some(table) = self.tables.get(&place_of(ruleset)) else { return false };
            ruleset.chains().iter().any(|chain| {
                let before = table.get(&chain.name).map_or(&[][..], Vec::as_slice);
                chain.rule_ids().zip(before).any(|(id, (hash, last))| ruleset.rule(id).hash == *hash && ruleset.packets(id) < *last)
            })
        })
    }

    /// Compares the tables of one read with those of the last one, and takes them over.
    pub fn advance(&mut self, rulesets: &[Ruleset]) -> Vec<Deltas> {
        let first_sight = if self.started { FirstSight::Baseline } else { FirstSight::Count };
        self.started = true;
        // A back end that is not read any more must not be compared with what it holds much later.
        self.tables.retain(|place, _| rulesets.iter().any(|ruleset| place_of(ruleset) == *place));
        rulesets.iter().map(|ruleset| self.advance_table(ruleset, first_sight)).collect()
    }

    fn advance_table(&mut self, ruleset: &Ruleset, first_sight: FirstSight) -> Deltas {
        let mut deltas =
            Deltas { packets: vec![0; ruleset.rule_count()], ages: vec![Age::Unknown; ruleset.rule_count()], unchanged: vec![] };
        let last = self.tables.get(&place_of(ruleset));
        for chain in ruleset.chains() {
            let unchanged = match (last.map(|table| table.get(&chain.name)), first_sight) {
                (Some(Some(before)), _) => compare(ruleset, chain, before, &mut deltas),
                // A chain that has appeared since the last read was empty then.
                (Some(None), _) | (None, FirstSight::Count) => {
                    count_all(ruleset, chain, &mut deltas);
                    false
                }
                (None, FirstSight::Baseline) => false,
            };
            deltas.unchanged.push(unchanged);
        }
        self.take_over(ruleset);
        deltas
    }

    fn take_over(&mut self, ruleset: &Ruleset) {
        let table = self.tables.entry(place_of(ruleset)).or_default();
        let mut before = std::mem::take(table);
        for chain in ruleset.chains() {
            let (name, mut rules) = before.remove_entry(&chain.name).unwrap_or_else(|| (Arc::clone(&chain.name), Vec::new()));
            rules.clear();
            rules.extend(chain.rule_ids().map(|id| (ruleset.rule(id).hash, ruleset.packets(id))));
            rules.shrink_to_fit();
            table.insert(name, rules);
        }
    }
}

fn place_of(ruleset: &Ruleset) -> Place {
    (ruleset.family, ruleset.backend, ruleset.table)
}

fn count_all(ruleset: &Ruleset, chain: &Chain, deltas: &mut Deltas) {
    for id in chain.rule_ids() {
        deltas.packets[id.0 as usize] = ruleset.packets(id);
    }
}

/// Compares a chain with what it was at the last read; whether it is the same and was not flushed.
fn compare(ruleset: &Ruleset, chain: &Chain, before: &[(RuleHash, u64)], deltas: &mut Deltas) -> bool {
    let same_rules = chain.rules.len() == before.len()
        && chain.rule_ids().zip(before).all(|(id, (hash, _))| !hash.is_none() && ruleset.rule(id).hash == *hash);
    match same_rules {
        true => compare_unchanged(ruleset, chain, before, deltas),
        false => {
            compare_rewritten(ruleset, chain, before, deltas);
            false
        }
    }
}

/// No rule has come or gone. If one counts less than before, the chain was flushed and written again.
fn compare_unchanged(ruleset: &Ruleset, chain: &Chain, before: &[(RuleHash, u64)], deltas: &mut Deltas) -> bool {
    let mut flushed = false;
    for (id, &(_, last)) in chain.rule_ids().zip(before) {
        let now = ruleset.packets(id);
        flushed |= now < last;
        deltas.packets[id.0 as usize] = now.checked_sub(last).unwrap_or(now);
        deltas.ages[id.0 as usize] = Age::Continued;
    }
    if flushed {
        let rules = chain.rules.start as usize..chain.rules.end as usize;
        deltas.ages[rules].fill(Age::Unknown);
        if ruleset.backend == Backend::Nft {
            count_all(ruleset, chain, deltas);
        }
    }
    !flushed
}

/// Rules have come or gone.
fn compare_rewritten(ruleset: &Ruleset, chain: &Chain, before: &[(RuleHash, u64)], deltas: &mut Deltas) {
    let last_of: HashMap<RuleHash, u64> = before.iter().filter(|(hash, _)| !hash.is_none()).copied().collect();
    let last = |id: RuleId| last_of.get(&ruleset.rule(id).hash).copied();
    let flushed = chain.rule_ids().any(|id| last(id).is_some_and(|last| ruleset.packets(id) < last));
    let partial = ruleset.backend == Backend::Legacy && !flushed;
    for id in chain.rule_ids() {
        let (place, now) = (id.0 as usize, ruleset.packets(id));
        // A chain of iptables-nft was flushed, for that is how Felix writes there. But as long as no count proves it, a rule that
        // was there before might have kept its own: then all of it must not be counted again.
        deltas.packets[place] = match last(id) {
            Some(last) if !(flushed && ruleset.backend == Backend::Nft) => now.checked_sub(last).unwrap_or(now),
            _ if ruleset.rule(id).hash.is_none() => 0,
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

    fn table(backend: Backend, chains: &[(&str, &[(&str, u64)])]) -> [Ruleset; 1] {
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

    fn chain(backend: Backend, rules: &[(&str, u64)]) -> [Ruleset; 1] {
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
    fn rules_without_a_hash_never_prove_anything() {
        assert_eq!(second(Backend::Legacy, &[("a", 7), ("", 5)], &[("a", 9), ("", 6)]), [(2, true), (0, false)]);
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
        assert_eq!(ledger.tables.values().map(HashMap::len).sum::<usize>(), 1);
    }
}
