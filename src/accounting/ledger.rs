//! Compares the counters of a read with those of the last one: what each rule has counted since, and how far that can be trusted.
//! Pure state.
//!
//! Felix rewrites rules while they count. A rewritten rule starts at 0, even if it has the same hash as before:
//!
//! * iptables-legacy replaces the rules from the first difference on and keeps the others. Only its hash identifies a rule.
//! * iptables-nft flushes the whole chain. nf_tables gives every new rule and every new chain a new handle.
//! * Calico's own tables: up to 3.32, rules are replaced one by one and keep their handles. From 3.33 on, whole chains are flushed.
//!
//! So a new handle means a new rule. The same handle (on legacy: the same hash) means the same rule only if nothing else shows that it
//! was rewritten. [`Deltas::forget_ages`] records that it may have been. In doubt the ledger counts too little, never too much.

mod comparison;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ruleset::{Backend, Chain, ChainId, Count, Family, RuleId, Snapshot};
use comparison::{Comparison, first, is_less, pair};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The same rule was there at the last read and has counted on.
    LastRead,
    /// The rule was written since the last read, together with all rules of its chain.
    Written,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deltas {
    packets: Vec<u64>,
    /// `None` at the first read, if the rule may have been rewritten, or if it was written, but perhaps not together with its chain.
    ages: Vec<Option<Since>>,
    chains: Vec<ChainDelta>,
    /// Whether anything in the table was written since the last read, or set to zero.
    pub rewritten: bool,
    /// Whether rules that seem to be the same have begun again at 0.
    pub restarted: bool,
    pub vanished: Vec<Arc<str>>,
    /// Whether an unchanged handle proves that a rule was not rewritten.
    pub handles_prove_ages: bool,
}

/// A chain, compared with the last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainDelta {
    /// It has the same rules as at the last read.
    pub has_same_rules: bool,
    /// It has, and they have counted on.
    pub unchanged: bool,
    /// It did not exist at the last read: all that its rules have counted belongs to this interval.
    pub appeared: bool,
}

impl Deltas {
    pub fn chain(&self, chain: ChainId) -> ChainDelta {
        self.chains[chain.0 as usize]
    }

    pub fn unchanged(&self, chain: ChainId) -> bool {
        self.chain(chain).unchanged
    }

    /// Returns packets since the last read; at the first read, all that the kernel still knows of. It is a lower bound if the rule was
    /// rewritten in between.
    pub fn packets(&self, rule: RuleId) -> u64 {
        self.packets[rule.0 as usize]
    }

    /// Returns packets since the last read, for calculations with several rules; `None` if the rule did not exist all the time.
    pub fn since_last_read(&self, rule: RuleId) -> Option<i64> {
        self.since(Since::LastRead, rule)
    }

    pub fn count_since_last_read(&self, rule: RuleId) -> Option<u64> {
        self.since_last_read(rule).and_then(|packets| u64::try_from(packets).ok())
    }

    /// Returns packets for calculations with several rules of one chain; `None` if the count does not begin at `since`.
    pub fn since(&self, since: Since, rule: RuleId) -> Option<i64> {
        let place = rule.0 as usize;
        (self.ages[place] == Some(since)).then(|| i64::try_from(self.packets[place]).unwrap_or(i64::MAX))
    }

    /// Records that the chain's rules from `from` on may have been rewritten. What they have counted since the last read remains certain.
    pub fn forget_ages(&mut self, id: ChainId, chain: &Chain, from: u32) {
        for rule in chain.rules.clone().filter(|rule| *rule >= from) {
            let rule = rule as usize;
            if self.ages[rule] == Some(Since::LastRead) {
                self.ages[rule] = None;
                self.chains[id.0 as usize].unchanged = false;
            }
        }
    }
}

type Place = (Family, Backend, &'static str);

#[derive(Debug, Default)]
pub struct Ledger {
    tables: HashMap<Place, Last>,
    started: bool,
    /// The back end of the last read that had tables.
    backend: Option<Backend>,
}

#[derive(Debug)]
struct Last {
    read: Snapshot,
    /// Whether Felix flushes whole chains there; `None` if that was not seen yet.
    flushes: Option<bool>,
}

impl Ledger {
    /// Whether any rule that seems to be the same counts less than at the last read. Then it was set to zero, or a legacy table was read
    /// without its lock while a commit had zeroed all counters.
    pub fn went_back(&self, tables: &[Snapshot]) -> bool {
        self.anew(tables, |now, last| now.handle == last.handle && is_less(now, last)).next().is_some()
    }

    /// Returns the first chain with a rule that has the same text as at the last read but has begun again at 0.
    pub fn began_anew<'a>(&'a self, tables: &'a [Snapshot]) -> Option<(&'a Snapshot, &'a Chain)> {
        self.anew(tables, |now, last| now.handle != last.handle || is_less(now, last)).next()
    }

    /// Returns chains with a rule that has the same text as at the last read, if `is` holds for its counts now and then.
    fn anew<'a>(&'a self, tables: &'a [Snapshot], is: fn(Count, Count) -> bool) -> impl Iterator<Item = (&'a Snapshot, &'a Chain)> {
        tables.iter().filter_map(|now| Some((now, self.tables.get(&place_of(now))?))).flat_map(move |(now, last)| {
            let chains = pair(now, &last.read).filter(move |(_, chain, before)| {
                let before = before.iter().flat_map(|before| before.rules());
                let counts = chain.rule_ids().map(|id| (now.ruleset.hash(id), now.count(id)));
                counts.zip(before).any(|((hash, count), (then, last))| hash == then && is(count, last))
            });
            chains.map(move |(_, chain, _)| (now, chain))
        })
    }

    pub fn advance(&mut self, tables: &[Snapshot]) -> Vec<Deltas> {
        let mut before = std::mem::take(&mut self.tables);
        let mut deltas = Vec::with_capacity(tables.len());
        for now in tables {
            let backend = now.ruleset.backend;
            let (of_table, flushes) = match before.remove(&place_of(now)) {
                Some(last) => Comparison::new(now, &last).deltas(),
                None => (first(now, !self.started || self.backend == Some(backend)), (backend == Backend::Nft).then_some(true)),
            };
            deltas.push(of_table);
            self.tables.insert(place_of(now), Last { read: now.clone(), flushes });
        }
        self.started = true;
        self.backend = tables.first().map(|table| table.ruleset.backend).or(self.backend);
        deltas
    }

    /// Whether Felix may flush whole chains in a table of this back end, because it was not seen to replace single rules.
    pub fn may_flush(&self, backend: Backend) -> bool {
        self.tables.iter().any(|((_, of, _), last)| *of == backend && last.flushes != Some(false))
    }

    /// Forgets all tables, because Calico's rules are elsewhere. If they come back, the counters there may hold old counts.
    pub fn leave(&mut self) {
        *self = Ledger { started: true, ..Ledger::default() };
    }
}

fn place_of(table: &Snapshot) -> Place {
    (table.ruleset.family, table.ruleset.backend, table.ruleset.table)
}

#[cfg(test)]
mod tests;
