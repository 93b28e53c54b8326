//! The one way from tables to totals: a read, and a second look where something must be derived from it → [`Attribution`]. Pure state;
//! the second look is the caller's.
//!
//! The words of this module and of those below it:
//!
//! * *read*: all tables, or programs, at one scrape; the time since the last read is an *interval*. *Look*: a second read, at once.
//! * *delta*: what a rule counted in an interval. A rule that is not the last read's was *written anew*, and began at 0.
//! * *deciding rule*: it carries the match of a policy's rule, so it counts what the policy decided, but for all endpoints together.
//! * *target*: what an endpoint's tier jumps to: a policy, a group or a profile. The tier's *end* refuses what no target decided.
//! * *difference*: between an endpoint's counters around a target: what the target refused or passed on of that endpoint's packets.
//! * *motion*: what moved between a read and the look after it: packets that were on their way while counters were read.
//! * *doubt*: by how many packets a difference may be too high for that; *entering*: by how many the next one may be.
//! * *held up*: on its way for longer than read and look take, so that nothing moves: on a CPU that a hypervisor has stopped.
//! * *claim*: a difference for which an endpoint is to be credited; *budget*: what the policy's deciding rules have left for claims.
//! * *waiting*: what a claim could not get yet. Below zero it is a *debt*: the next difference is too high by as much.
//! * *group*: policies in one chain. A *row* is what it decided for one endpoint, a *column* what one of its policies decided, a *cell*
//!   what one decided for one. *Margin*: least and most of a row or column. *Carry*: by how much rows and columns were out of step.
//! * *open*: a policy behind which no rule counts what it left undecided.
//! * *foreign*: not Felix's, or not understood. A target is *disturbed* if a foreign rule may have changed what its counters say.

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
    /// `cpus`: how many CPUs the node has; each works on one packet at a time.
    pub fn new(cpus: usize) -> Self {
        Accounting { cpus: cpus as u64, ..Accounting::default() }
    }

    pub fn rename(&mut self, chain_names: ChainNames) {
        self.structures.rename(chain_names);
    }

    /// Whether any rule counts less than at the last read, though it seems to be the same: a reason to read again.
    pub fn went_back(&self, tables: &[Snapshot]) -> bool {
        self.ledger.went_back(tables)
    }

    /// Whoever watches the endpoints knows of none that has come or gone since the last read. This holds for the next read only.
    pub fn note_that_endpoints_stayed(&mut self) {
        self.endpoints_stayed = true;
    }

    /// Takes in one read: all tables of it, both families. `look_again` reads the same tables once more, at once, where packets may
    /// have been on their way; it gives none if the tables are those of one instant.
    pub fn advance<E: std::fmt::Display>(&mut self, read: &[Snapshot], look_again: impl FnOnce(&[Snapshot]) -> Result<Vec<Snapshot>, E>) {
        self.advance_witnessed(read, |_| Witnessed::default(), look_again);
    }

    /// The same. `witnessed` gives the packets that were traced since the last read, by what the tables mean.
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

    /// Takes the second look where something must be derived, and where counters contradict each other: a read that packets overtook
    /// looks like rules that were written anew.
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
        // Nothing moves in rules that are not this kernel's.
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
        // So that tables, should Calico go back to them, are not compared with what they held before.
        self.ledger.leave();
        self.structures.update(std::iter::empty());
        self.attribution.advance_programs(read, datastore);
    }

    /// Whether counts since the last read may be lost when a policy changes: where Felix flushes whole chains, and leads to endpoints by a
    /// map, which counts nothing that could stand in for them.
    pub fn may_lose_what_is_rewritten(&self) -> bool {
        self.ledger.may_flush(Backend::Native)
    }

    /// Notes that there is nothing of Calico's any more: what comes back there will have counted from 0.
    pub fn vanished(&mut self) {
        self.ledger.advance(&[]);
    }

    pub fn restart(&mut self) {
        self.attribution.restart();
    }

    pub fn forget_derived(&mut self) {
        self.attribution.forget_derived();
    }

    /// From now on, every total is a lower bound.
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
