//! Compares a table with the last read of it: what its rules have counted since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{ChainDelta, Deltas, Last, Since};
use crate::ruleset::{Backend, Chain, ChainId, Count, RuleHash, RuleId, Ruleset, Snapshot};

#[derive(Clone, Copy)]
pub struct Before<'a> {
    ruleset: &'a Ruleset,
    chain: &'a Chain,
    counts: &'a [Count],
    handle: Option<u64>,
}

impl<'a> Before<'a> {
    fn new(last: &'a Snapshot, id: ChainId) -> Self {
        let chain = last.ruleset.chain(id);
        Before { ruleset: &last.ruleset, chain, counts: last.counts_of(chain), handle: last.chain_handle(id) }
    }

    fn rule_at(self, place: usize) -> Option<(RuleHash, Count)> {
        let rule = RuleId(self.chain.rules.start + place as u32);
        Some((self.ruleset.hash(rule), *self.counts.get(place)?))
    }

    pub fn rules(self) -> impl Iterator<Item = (RuleHash, Count)> {
        self.chain.rule_ids().map(move |id| self.ruleset.hash(id)).zip(self.counts.iter().copied())
    }
}

/// Pairs each chain with its state at the last read: by index if the rules are the same, else by name.
pub fn pair<'a>(now: &'a Snapshot, last: &'a Snapshot) -> impl Iterator<Item = (ChainId, &'a Chain, Option<Before<'a>>)> {
    let same = now.shares_rules_with(last);
    let by_name: HashMap<&str, ChainId> = match same {
        true => HashMap::new(),
        false => last.ruleset.chain_ids().map(|(id, chain)| (&*chain.name, id)).collect(),
    };
    now.ruleset.chain_ids().map(move |(id, chain)| {
        let before = if same { Some(id) } else { by_name.get(&*chain.name).copied() };
        (id, chain, before.map(|before| Before::new(last, before)))
    })
}

/// Whether `now` is less than `last`, so that the counter must have begun again.
pub fn is_less(now: Count, last: Count) -> bool {
    now.packets < last.packets || now.bytes < last.bytes
}

/// Returns the deltas of a table that was not read before. If `counts`, all that its rules counted is new. Else counting begins here.
pub fn first(now: &Snapshot, counts: bool) -> Deltas {
    let rules = now.ruleset.rule_count();
    Deltas {
        packets: (0..rules as u32).map(|rule| if counts { now.packets(RuleId(rule)) } else { 0 }).collect(),
        ages: vec![None; rules],
        chains: vec![ChainDelta::default(); now.ruleset.chains().len()],
        rewritten: false,
        restarted: false,
        vanished: vec![],
        handles_prove_ages: false,
    }
}

pub struct Comparison<'a> {
    now: &'a Snapshot,
    last: &'a Last,
    pairs: Vec<(ChainId, &'a Chain, Option<Before<'a>>)>,
    /// Whether most counts are those of the last read, although the table was replaced as a whole, or may have been. Then it was
    /// restored with saved counts (`iptables-restore -c`), which are no new packets.
    restored: bool,
    had_counted: bool,
    /// Whether exactly one rule went back. `iptables -Z` can zero one rule. If rules are rewritten, nearly always more than one goes back.
    is_one_zeroed: bool,
    deltas: Deltas,
    zeroed: bool,
}

impl<'a> Comparison<'a> {
    pub fn new(now: &'a Snapshot, last: &'a Last) -> Self {
        let mut comparison = Comparison {
            now,
            last,
            pairs: pair(now, &last.read).collect(),
            restored: false,
            had_counted: true,
            is_one_zeroed: false,
            deltas: Deltas { rewritten: now.ruleset != last.read.ruleset, ..first(now, false) },
            zeroed: false,
        };
        comparison.restored = comparison.was_restored();
        comparison
    }

    /// Returns the deltas, and whether Felix flushes whole chains, if that could be seen.
    pub fn deltas(mut self) -> (Deltas, Option<bool>) {
        let seen = self.flushes();
        let flushes = seen == Some(true);
        if self.deltas.rewritten {
            let names: HashSet<&str> = self.now.ruleset.chains().iter().map(|chain| &*chain.name).collect();
            let gone = self.last.read.ruleset.chains().iter().filter(|chain| !names.contains(&*chain.name));
            self.deltas.vanished = gone.map(|chain| Arc::clone(&chain.name)).collect();
        }
        for (id, chain, before) in std::mem::take(&mut self.pairs) {
            let unchanged = match before {
                // The chain is new since the last read, so its rules began at 0.
                None => self.written(id, chain, flushes),
                // The table was replaced with its counts, so they are compared as if they had counted on.
                Some(before) if self.is_replaced() => self.by_hash(chain, before),
                Some(before) => match self.now.chain_handle(id).zip(before.handle) {
                    // The chain was deleted and created again.
                    Some((handle, then)) if handle != then => {
                        self.deltas.restarted |= !flushes;
                        self.written(id, chain, flushes)
                    }
                    Some(_) => self.by_handle(id, chain, before, flushes),
                    None => self.by_hash(chain, before),
                },
            };
            let appeared = before.is_none() && !self.is_replaced();
            self.deltas.chains[id.0 as usize] = ChainDelta { has_same_rules: unchanged, unchanged, appeared };
            self.deltas.rewritten |= !unchanged;
        }
        self.deltas.restarted |= self.zeroed;
        self.deltas.handles_prove_ages = flushes && !self.zeroed && self.has_handles() && !self.restored;
        (self.deltas, seen)
    }

    fn has_handles(&self) -> bool {
        !self.now.ruleset.chains().is_empty() && self.now.chain_handle(ChainId(0)).is_some()
    }

    /// Whether Felix flushes a chain to change it (iptables-nft, Calico ≥ 3.33) or replaces its rules one by one. If it replaces them, a
    /// rule keeps its handle and gets another hash.
    fn flushes(&self) -> Option<bool> {
        let mut flushes = self.last.flushes;
        for (id, chain, before) in &self.pairs {
            let Some(before) = before.filter(|before| self.now.chain_handle(*id).is_some_and(|handle| before.handle == Some(handle)))
            else {
                continue;
            };
            let rules = || chain.rule_ids().map(|id| (self.now.ruleset.hash(id), self.now.count(id).handle));
            let same_place = || rules().zip(before.rules().map(|(hash, count)| (hash, count.handle)));
            if same_place().any(|(now, last)| now.1 == last.1 && now.0 != last.0) {
                return Some(false);
            }
            if same_place().next().is_some() && same_place().all(|(now, last)| now.1 != last.1) {
                flushes = Some(true);
            }
        }
        flushes
    }

    /// Whether a table that was replaced as a whole, or that has no handles to show it, mostly has the counts of the last read. Rules that
    /// Felix rewrote have counted less. In a young table they may not have, and then too little is counted.
    fn was_restored(&mut self) -> bool {
        let survives = |(id, _, before): &(ChainId, &Chain, Option<Before>)| {
            before.is_some_and(|before| before.handle.is_some() && before.handle == self.now.chain_handle(*id))
        };
        if self.has_handles() && self.pairs.iter().any(survives) {
            return false;
        }
        let (mut kept, mut all, mut less) = (0u64, 0u64, 0);
        for (_, chain, before) in &self.pairs {
            let Some(before) = before else { continue };
            for (id, (hash, last)) in chain.rule_ids().zip(before.rules()) {
                if self.now.ruleset.hash(id) == hash {
                    kept = kept.saturating_add(last.packets.min(self.now.packets(id)));
                    all = all.saturating_add(last.packets);
                    less += usize::from(is_less(self.now.count(id), last));
                }
            }
        }
        self.had_counted = all > 0;
        self.is_one_zeroed = less == 1;
        kept >= all - kept
    }

    fn set(&mut self, rule: RuleId, packets: u64, age: Option<Since>) {
        self.deltas.packets[rule.0 as usize] = packets;
        self.deltas.ages[rule.0 as usize] = age;
    }

    fn since_written(&self, rule: RuleId) -> u64 {
        if self.is_replaced() && self.had_counted { 0 } else { self.now.packets(rule) }
    }

    /// Whether handles show that the whole table was replaced together with its counts.
    fn is_replaced(&self) -> bool {
        self.restored && self.has_handles()
    }

    fn written(&mut self, id: ChainId, chain: &Chain, flushes: bool) -> bool {
        let together = flushes && !self.is_replaced() && self.now.chain_handle(id).is_some() && self.are_consecutive(chain);
        for rule in chain.rule_ids() {
            self.set(rule, self.since_written(rule), together.then_some(Since::Written));
        }
        false
    }

    /// Whether Felix wrote the rules of the chain in one go. Then their handles are consecutive.
    fn are_consecutive(&self, chain: &Chain) -> bool {
        let rules = chain.rule_ids().filter(|id| !self.now.ruleset.hash(*id).is_none());
        let handles: Vec<u64> = rules.map(|id| self.now.count(id).handle).collect();
        handles.windows(2).all(|pair| pair[1] == pair[0] + 1)
    }

    /// Compares a chain of nf_tables that existed at the last read.
    fn by_handle(&mut self, id: ChainId, chain: &Chain, before: Before, flushes: bool) -> bool {
        let same_place = chain.rules.len() == before.counts.len()
            && chain.rule_ids().zip(before.counts).all(|(id, last)| self.now.count(id).handle == last.handle);
        let handles: HashMap<u64, (RuleHash, Count)> = match same_place {
            true => HashMap::new(),
            false => before.rules().map(|(hash, count)| (count.handle, (hash, count))).collect(),
        };
        if !same_place && chain.rule_ids().all(|id| !handles.contains_key(&self.now.count(id).handle)) {
            return self.written(id, chain, flushes);
        }
        let mut unchanged = chain.rules.len() == before.counts.len();
        for (place, rule) in chain.rule_ids().enumerate() {
            let now = self.now.count(rule);
            let then = if same_place { before.rule_at(place) } else { handles.get(&now.handle).copied() };
            match then {
                Some((then, last)) if self.now.ruleset.hash(rule) == then && !is_less(now, last) => {
                    self.set(rule, now.packets - last.packets, Some(Since::LastRead));
                }
                then => {
                    self.zeroed |= then.is_some_and(|(then, _)| self.now.ruleset.hash(rule) == then);
                    self.set(rule, self.since_written(rule), None);
                    unchanged = false;
                }
            }
        }
        unchanged
    }

    /// Compares a chain by the hashes of its rules only.
    fn by_hash(&mut self, chain: &Chain, before: Before) -> bool {
        let ruleset = &self.now.ruleset;
        let same_rules = chain.rules.len() == before.counts.len()
            && chain.rule_ids().zip(before.rules()).all(|(id, (hash, _))| ruleset.hash(id) == hash);
        let by_hash: HashMap<RuleHash, Count> = match same_rules {
            true => HashMap::new(),
            false => before.rules().collect(),
        };
        let last = |place: usize, id: RuleId| match same_rules {
            true => before.counts.get(place).copied(),
            false => by_hash.get(&ruleset.hash(id)).copied(),
        };
        let has_restarted = |(place, id)| last(place, id).is_some_and(|last| is_less(self.now.count(id), last));
        let restarted = chain.rule_ids().enumerate().any(has_restarted);
        self.deltas.restarted |= restarted;
        let flushed = restarted && ruleset.backend == Backend::Nft && !(same_rules && self.is_one_zeroed);
        // iptables-nft flushes a chain to change it, so all rules of a chain with other rules have begun again.
        let counts_on = !restarted && (same_rules || ruleset.backend == Backend::Legacy);
        let mut anew = flushed;
        for (place, rule) in chain.rule_ids().enumerate() {
            let (now, last) = (self.now.count(rule), last(place, rule));
            // The hash of a rule includes the rules before it, so all rules after a rewritten one were rewritten too.
            anew |= !self.restored && !self.is_one_zeroed && last.is_some_and(|last| is_less(now, last));
            match last.filter(|last| !anew && !is_less(now, *last)) {
                Some(last) => self.set(rule, now.packets - last.packets, counts_on.then_some(Since::LastRead)),
                None => self.set(rule, if same_rules && self.restored { 0 } else { now.packets }, None),
            }
        }
        same_rules && !restarted
    }
}
