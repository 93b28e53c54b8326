//! Raw rule counters → how much each rule has counted since the last read, and what may be concluded from that. Pure state.
//!
//! Felix rewrites rules while they count, and a rule that was written anew starts at 0, also if it has the hash that it had before:
//!
//! * iptables-legacy replaces the rules from the first difference on and keeps the others. Rules have no identity there but their hash.
//! * iptables-nft flushes the whole chain. nf_tables gives every new rule a new handle, and every new chain.
//! * Calico's own tables: up to 3.32 rules are replaced one by one and keep their handles; from 3.33 on whole chains are flushed.
//!
//! So a new handle is a new rule, while the same handle, or the same hash on legacy, is the same rule only as long as nothing else says
//! that it was written anew; [`Deltas::forget_ages`] takes that back. In doubt the ledger counts too little, never too much.

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
    /// `None`: this is the first read, or the rule was written since the last one, but not surely together with its neighbours.
    ages: Vec<Option<Since>>,
    chains: Vec<ChainDelta>,
    /// Whether anything in the table was written since the last read, or set to zero.
    pub rewritten: bool,
    /// Whether rules that seem to be the same have begun again.
    pub restarted: bool,
    pub vanished: Vec<Arc<str>>,
    /// Whether a rule that has kept its handle was surely not written anew.
    pub handles_prove_ages: bool,
}

/// A chain, compared with the last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainDelta {
    /// It holds the rules that it held then.
    pub has_same_rules: bool,
    /// And they have counted on.
    pub unchanged: bool,
    /// It was not there: all that its rules have counted is of this interval.
    pub appeared: bool,
}

impl Deltas {
    pub fn chain(&self, chain: ChainId) -> ChainDelta {
        self.chains[chain.0 as usize]
    }

    pub fn unchanged(&self, chain: ChainId) -> bool {
        self.chain(chain).unchanged
    }

    /// Packets since the last read; from the first read on, all that the kernel still knows of. A lower bound where the rule
    /// was rewritten meanwhile.
    pub fn packets(&self, rule: RuleId) -> u64 {
        self.packets[rule.0 as usize]
    }

    /// Packets since the last read, for calculations with several rules; `None` if the rule was not there all the time.
    pub fn since_last_read(&self, rule: RuleId) -> Option<i64> {
        self.since(Since::LastRead, rule)
    }

    pub fn count_since_last_read(&self, rule: RuleId) -> Option<u64> {
        self.since_last_read(rule).and_then(|packets| u64::try_from(packets).ok())
    }

    /// Packets for calculations with several rules of one chain; `None` if the rule's count does not hold since then.
    pub fn since(&self, since: Since, rule: RuleId) -> Option<i64> {
        let place = rule.0 as usize;
        (self.ages[place] == Some(since)).then(|| i64::try_from(self.packets[place]).unwrap_or(i64::MAX))
    }

    /// Takes back that the chain's rules from this one on have counted on. What they have counted more is still certain.
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
    /// Where Calico's rules were, or were missed, at the last read.
    backend: Option<Backend>,
}

#[derive(Debug)]
struct Last {
    read: Snapshot,
    /// Whether Felix flushes whole chains there, as far as could be seen.
    flushes: Option<bool>,
}

impl Ledger {
    /// Whether any rule that seems to be the same counts less than at the last read. It was set to zero, or a legacy table was read
    /// without its lock while a commit had zeroed all its counters.
    pub fn went_back(&self, tables: &[Snapshot]) -> bool {
        self.anew(tables, |now, last| now.handle == last.handle && is_less(now, last)).next().is_some()
    }

    /// The first chain in which rules have the text that they had at the last read and have begun to count anew since.
    pub fn began_anew<'a>(&'a self, tables: &'a [Snapshot]) -> Option<(&'a Snapshot, &'a Chain)> {
        self.anew(tables, |now, last| now.handle != last.handle || is_less(now, last)).next()
    }

    /// Chains with a rule that has the text it had at the last read, and for whose counts now and then `is` holds.
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

    /// Whether there are tables there in which Felix may flush whole chains: it was not seen to write otherwise.
    pub fn may_flush(&self, backend: Backend) -> bool {
        self.tables.iter().any(|((_, of, _), last)| *of == backend && last.flushes != Some(false))
    }

    /// Notes that Calico's rules are somewhere else. If they come back to where they were, old counts may have stayed there.
    pub fn leave(&mut self) {
        *self = Ledger { started: true, ..Ledger::default() };
    }
}

fn place_of(table: &Snapshot) -> Place {
    (table.ruleset.family, table.ruleset.backend, table.ruleset.table)
}

#[cfg(test)]
mod tests;
