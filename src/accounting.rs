//! Accounting: from the tables of a read to totals. [`Accounting::advance`] is the entry point, and [`Accounting::advance_programs`] for
//! the eBPF dataplane. Pure state; the caller makes the second look. ARCHITECTURE.md follows one packet through these steps.
//!
//! A read of tables goes through these steps:
//!
//! 1. `ledger` compares every counter with the last read. The difference is the rule's delta.
//! 2. [`Structures`] says what each chain means.
//! 3. If a count has to be derived, the caller looks at the same tables again. What counted in between is the motion.
//! 4. `flow` checks the counters against each other. It finds rules that were rewritten without a sign of it.
//! 5. [`Attribution`] adds to the totals. `walk` goes through the chain of an endpoint. `tier` derives what each policy denied or passed.
//!    `direct`, `groups` and `open` check that against the policies' own counters and credit what is certain.
//!
//! Terms of this module and of those below it:
//!
//! * *read*: all tables, or eBPF programs, at one scrape. The time between two reads is an *interval*. *Look*: a second read right after.
//! * *delta*: what a rule counted in an interval. A rule that was *rewritten* since the last read began at 0.
//! * *deciding rule*: a rule with the match of a policy's rule. It counts what the policy decided, for all endpoints together.
//! * *target*: what a tier of an endpoint jumps to: a policy, a group or a profile. The *end* of the tier drops what no target decided.
//! * *difference*: of an endpoint's counters before and after a target: how many of its packets the target denied or passed.
//! * *motion*: what moved between a read and the look after it: packets that were in flight while counters were read.
//! * *doubt*: by how many packets motion may make a difference too high. *Entering*: by how many it may make the next difference too high.
//! * *held up*: in flight for longer than read and look take, so that nothing moves. It is on a CPU that a hypervisor has stopped.
//! * *claim*: a difference that is to be credited to an endpoint. *Budget*: what the policy's deciding rules have left for claims.
//! * *waiting*: the part of a claim that was not credited yet. A negative one is a *debt*: the next difference is too high by as much.
//! * *group*: policies in one chain. A *row* is what it decided for one endpoint, a *column* what one of its policies decided, a *cell*
//!   what one policy decided for one endpoint. *Margin*: least and most of a row or column. *Carry*: by how much rows and columns were
//!   out of step.
//! * *open*: of a policy: no rule counts what it left undecided.
//! * *foreign*: of a rule: not Felix's, or not understood. A target is *disturbed* if one may have changed what its counters say.

pub mod attribution;
pub mod ledger;

use std::time::Duration;

use log::debug;

use crate::accounting::attribution::{Attribution, Datastore, Motion, Programs, Table, Totals, Witnessed, flow, has_to_be_derived};
use crate::accounting::ledger::{Deltas, Ledger};
use crate::ebpf;
use crate::felix::{Catalog, ChainNames, Structure, Structures};
use crate::ruleset::{Backend, Snapshot};

#[derive(Debug, Default)]
pub struct Accounting {
    ledger: Ledger,
    structures: Structures,
    attribution: Attribution,
    cpus: u64,
    endpoints_stayed: bool,
    /// What counted while the tables were read the last time.
    moved: Vec<flow::Moved>,
}

impl Accounting {
    /// `cpus` is the number of CPUs of the node. Each works on one packet at a time.
    pub fn new(cpus: usize) -> Self {
        Accounting { cpus: cpus as u64, ..Accounting::default() }
    }

    pub fn rename(&mut self, chain_names: ChainNames) {
        self.structures.rename(chain_names);
    }

    /// Whether any rule counts less than at the last read, though it seems to be the same. This is a reason to read again.
    pub fn went_back(&self, tables: &[Snapshot]) -> bool {
        self.ledger.went_back(tables)
    }

    /// Notes that a watch saw no endpoint come or go since the last read. This holds for the next read only.
    pub fn note_that_endpoints_stayed(&mut self) {
        self.endpoints_stayed = true;
    }

    /// Takes in one read: all of its tables, both families. `look_again` reads the same tables again immediately, in case packets were in
    /// flight. It returns no tables if those of the read are of one instant.
    pub fn advance<E: std::fmt::Display>(&mut self, read: &[Snapshot], look_again: impl FnOnce(&[Snapshot]) -> Result<Vec<Snapshot>, E>) {
        self.advance_witnessed(read, |_| Witnessed::default(), look_again);
    }

    /// Like [`Accounting::advance`]. `witnessed` gets what the tables mean, and returns the packets that were traced since the last read.
    pub fn advance_witnessed<E: std::fmt::Display>(
        &mut self,
        read: &[Snapshot],
        witnessed: impl FnOnce(&[Structure]) -> Witnessed,
        look_again: impl FnOnce(&[Snapshot]) -> Result<Vec<Snapshot>, E>,
    ) {
        let mut deltas = self.ledger.advance(read);
        self.structures.update(read.iter().map(|table| &table.ruleset));
        let witnessed = witnessed(&self.structures.tables);
        let motions = self.motions(read, &deltas, look_again);
        let contexts = self.contexts(read, motions.iter());
        let reach: Vec<_> = contexts.zip(&mut deltas).map(|(context, deltas)| context.settle_ages(deltas)).collect();
        self.moved = read.iter().zip(&motions).map(|(read, motion)| flow::moved(read, motion)).collect();
        let (cpus, endpoints_stayed) = (self.cpus, std::mem::take(&mut self.endpoints_stayed));
        let tables = self.structures.tables.iter().zip(&deltas).zip(&motions).zip(&reach);
        let tables = tables.map(|(((structure, deltas), motion), reach)| {
            let Structure { ruleset, pipelines, labels } = structure;
            Table { ruleset, pipelines, labels, deltas, motion, reach, witnessed: &witnessed, cpus, endpoints_stayed }
        });
        self.attribution.advance(&tables.collect::<Vec<_>>());
    }

    fn contexts<'a>(&'a self, read: &'a [Snapshot], motions: impl Iterator<Item = &'a Motion>) -> impl Iterator<Item = flow::Context<'a>> {
        let moved = self.moved.iter().map(Some).chain(std::iter::repeat(None));
        let tables = self.structures.tables.iter().zip(read).zip(motions).zip(moved);
        tables.map(|(((structure, read), motion), moved)| flow::Context {
            read,
            pipelines: &structure.pipelines,
            motion,
            moved,
            cpus: self.cpus,
        })
    }

    /// Takes the second look if something must be derived, or if counters contradict each other: a read that packets overtook looks like
    /// rules that were rewritten.
    fn motions<E: std::fmt::Display>(
        &self,
        read: &[Snapshot],
        deltas: &[Deltas],
        look_again: impl FnOnce(&[Snapshot]) -> Result<Vec<Snapshot>, E>,
    ) -> Vec<Motion> {
        let still = vec![Motion::still(); read.len()];
        let needs_look =
            |(context, deltas): (flow::Context, &Deltas)| has_to_be_derived(context.pipelines, deltas) || context.is_broken(deltas);
        if !self.contexts(read, still.iter()).zip(deltas).any(needs_look) {
            return still;
        }
        let again = match look_again(read) {
            Ok(again) => again,
            Err(error) => {
                debug!("the second read of the kernel's counters failed, so derived counts wait for the next one: {error}");
                return vec![Motion::unknown(); read.len()];
            }
        };
        // The look is empty if the rules are not this kernel's. Nothing moves in them.
        if again.iter().all(|table| table.ruleset.chains().is_empty()) {
            return still;
        }
        let motion = |first: &Snapshot| {
            let second = again.iter().find(|second| second.ruleset.id() == first.ruleset.id());
            second.map_or_else(Motion::unknown, |second| Motion::between(first, second))
        };
        read.iter().map(motion).collect()
    }

    pub fn advance_programs(&mut self, read: &ebpf::Snapshot, datastore: Datastore) {
        // If Calico goes back to tables, they must not be compared with what they held before.
        self.ledger.leave();
        self.structures.update(std::iter::empty());
        self.attribution.advance_programs(read, datastore);
    }

    /// Whether counts since the last read may be lost when a policy changes. That is so if Felix flushes whole chains and a map leads to
    /// endpoints: a map counts nothing that could replace the lost counts.
    pub fn may_lose_what_is_rewritten(&self) -> bool {
        self.ledger.may_flush(Backend::Native)
    }

    /// Notes that Calico has no rules any more. Rules that come back in the same place begin at 0.
    pub fn vanished(&mut self) {
        self.ledger.advance(&[]);
    }

    pub fn restart(&mut self) {
        self.attribution.restart();
    }

    pub fn forget_derived(&mut self) {
        self.attribution.forget_derived();
    }

    /// Makes every total a lower bound from now on.
    pub fn note_that_there_may_have_been_more(&mut self) {
        self.attribution.note_that_there_may_have_been_more();
    }

    /// See [`Totals::introduce`].
    pub fn introduce(&mut self, hold: Duration) {
        self.attribution.introduce(hold);
    }

    pub fn totals(&self) -> &Totals {
        self.attribution.totals()
    }

    pub fn attribution(&self) -> &Attribution {
        &self.attribution
    }

    pub fn programs(&self) -> Option<&Programs> {
        self.attribution.programs()
    }

    pub fn tables(&self) -> &[Structure] {
        &self.structures.tables
    }

    pub fn unnamed(&self) -> usize {
        self.structures.unnamed()
    }

    pub fn unrecognised(&self) -> u64 {
        self.structures.unrecognised()
    }

    pub fn catalog(&self) -> &Catalog {
        match self.programs() {
            Some(programs) => &programs.catalog,
            None => &self.structures.catalog,
        }
    }
}

#[cfg(test)]
mod tests;
