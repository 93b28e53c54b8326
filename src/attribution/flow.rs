//! What counters of one table say about each other: as many packets reach a rule as came into its chain and did not leave it before.
//! Pure.
//!
//! This bounds what can have gone to a rule that was written anew, and finds rules that were written anew without a trace in
//! themselves: where more packets left a chain than came in, or came in and stayed nowhere, some of its counters began again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ledger::Deltas;
use crate::ruleset::{Chain, ChainId, RuleHash, RuleId, Ruleset, Snapshot, Verdict};

use super::motion::Motion;

/// Rules that counted while a table was read, by chain and hash.
pub type Moved = HashMap<(Arc<str>, RuleHash), u64>;

/// The flow of packets through one table since the last read.
pub struct Flow<'a> {
    ruleset: &'a Ruleset,
    deltas: &'a Deltas,
    motion: &'a Motion,
    /// What came into each chain by jumps; `None` where that is not known, or where packets come from chains that are not Calico's.
    inflow: Vec<Option<u64>>,
}

impl<'a> Flow<'a> {
    /// Adds up what came into each chain.
    pub fn new(ruleset: &'a Ruleset, deltas: &'a Deltas, motion: &'a Motion) -> Self {
        let mut inflow: Vec<Option<Option<u64>>> = vec![None; ruleset.chains().len()];
        for (rule, to) in jumps(ruleset) {
            let came = deltas.since_last_read(rule).and_then(|packets| u64::try_from(packets).ok());
            let sum = &mut inflow[to.0 as usize];
            *sum = Some(sum.unwrap_or(Some(0)).zip(came).map(|(sum, came)| sum.saturating_add(came)));
        }
        Flow { ruleset, deltas, motion, inflow: inflow.into_iter().map(Option::flatten).collect() }
    }

    /// How many packets can have reached this rule since the last read, at most; `None` if nothing tells.
    pub fn reach(&self, chain: ChainId, rule: RuleId) -> Option<u64> {
        let mut most = self.inflow[chain.0 as usize].map(|packets| packets.saturating_add(self.entering(chain)));
        for id in self.ruleset.chain(chain).rule_ids().filter(|id| *id <= rule) {
            let counts_all = self.ruleset.rule(id).is_unconditional() || id == rule;
            let Some(packets) = self.deltas.since_last_read(id).filter(|_| counts_all) else { continue };
            let packets = u64::try_from(packets).unwrap_or(0).saturating_add(self.motion.of(id));
            most = Some(most.map_or(packets, |most| most.min(packets)));
        }
        most
    }

    /// Packets that came into the chain while the table was read.
    fn entering(&self, chain: ChainId) -> u64 {
        let motions = jumps(self.ruleset).filter(|(_, to)| *to == chain).map(|(rule, _)| self.motion.of(rule));
        motions.fold(0, u64::saturating_add)
    }
}

/// All jumps of a table, and where they lead.
fn jumps(ruleset: &Ruleset) -> impl Iterator<Item = (RuleId, ChainId)> {
    let rules = ruleset.chains().iter().flat_map(Chain::rule_ids);
    rules.filter_map(|rule| match ruleset.rule(rule).verdict {
        Verdict::Jump(to) | Verdict::Goto(to) => Some((rule, to)),
        _ => None,
    })
}

/// Looks for rules that may have been written anew without a trace in themselves, and takes back that they have counted on. `moved`: what
/// counted while the table was read the last time.
pub fn doubt_what_may_have_restarted(read: &Snapshot, deltas: &mut Deltas, motion: &Motion, moved: &Moved) {
    if deltas.handles_prove_ages() {
        return;
    }
    let check = Check::new(read, deltas, motion, moved);
    let is_broken = check.is_broken();
    let is_doubtful = |id: ChainId, chain: &Chain| is_broken || (deltas.rewritten && check.may_have_restarted(id, chain));
    let doubtful: Vec<ChainId> = read.ruleset.chain_ids().filter(|(id, chain)| is_doubtful(*id, chain)).map(|(id, _)| id).collect();
    for id in doubtful {
        deltas.doubt(id, read.ruleset.chain(id));
    }
}

/// What moved while the table was read.
pub fn moved(read: &Snapshot, motion: &Motion) -> impl Iterator<Item = ((Arc<str>, RuleHash), u64)> {
    let rules = read.ruleset.chains().iter().flat_map(|chain| chain.rule_ids().map(move |rule| (chain, rule)));
    let moved = rules.map(|(chain, rule)| (chain, rule, motion.of(rule))).filter(|(.., packets)| *packets > 0);
    moved.map(|(chain, rule, packets)| ((Arc::clone(&chain.name), read.ruleset.rule(rule).hash), packets))
}

/// A look for counters that contradict one another.
struct Check<'a> {
    read: &'a Snapshot,
    deltas: &'a Deltas,
    motion: &'a Motion,
    moved: &'a Moved,
    inflow: Vec<Option<u64>>,
    /// By how much that may be wrong, for packets were on their way.
    slack: Vec<u64>,
    /// What all chains together that no rule of Calico's leads to have counted at most.
    total: Option<u64>,
}

impl<'a> Check<'a> {
    fn new(read: &'a Snapshot, deltas: &'a Deltas, motion: &'a Motion, moved: &'a Moved) -> Self {
        let ruleset = &*read.ruleset;
        let inflow = Flow::new(ruleset, deltas, motion).inflow;
        let mut check = Check { read, deltas, motion, moved, inflow, slack: vec![0; ruleset.chains().len()], total: None };
        let mut is_called = vec![false; ruleset.chains().len()];
        for chain in ruleset.chains() {
            for rule in chain.rule_ids() {
                if let Verdict::Jump(to) | Verdict::Goto(to) = ruleset.rule(rule).verdict {
                    is_called[to.0 as usize] = true;
                    check.slack[to.0 as usize] = check.slack[to.0 as usize].saturating_add(check.motion_of(chain, rule));
                }
            }
        }
        let most =
            |chain: &Chain| chain.rule_ids().map(|rule| deltas.since_last_read(rule)).try_fold(0, |most, packets| Some(most.max(packets?)));
        let entries = ruleset.chain_ids().filter(|(id, _)| !is_called[id.0 as usize]);
        let sum = entries.map(|(_, chain)| most(chain)).sum::<Option<i64>>();
        check.total = sum.and_then(|sum| u64::try_from(sum).ok());
        check
    }

    /// Packets that the rule counted during this read and the last one.
    fn motion_of(&self, chain: &Chain, rule: RuleId) -> u64 {
        let before = match self.moved.is_empty() {
            true => 0,
            false => self.moved.get(&(Arc::clone(&chain.name), self.read.ruleset.rule(rule).hash)).copied().unwrap_or(0),
        };
        self.motion.of(rule).saturating_add(before)
    }

    fn slack(&self, id: ChainId, chain: &Chain) -> u64 {
        chain.rule_ids().map(|rule| self.motion_of(chain, rule)).fold(self.slack[id.0 as usize], u64::saturating_add)
    }

    fn is_broken(&self) -> bool {
        self.read.ruleset.chain_ids().any(|(id, chain)| self.contradicts(id, chain))
    }

    /// Whether a rule of the chain counted more packets than can have reached it, or one that all packets reach fewer.
    fn contradicts(&self, id: ChainId, chain: &Chain) -> bool {
        let Some(slack) = Some(self.slack(id, chain)).filter(|slack| Motion::is_known(*slack)) else { return false };
        let mut here = Here { most: self.inflow[id.0 as usize], all_are_counted: self.inflow[id.0 as usize].is_some() };
        for rule in chain.rule_ids() {
            let Some(packets) = self.deltas.since_last_read(rule).and_then(|packets| u64::try_from(packets).ok()) else { return false };
            let counts_all = self.read.ruleset.rule(rule).is_unconditional();
            if let Some(most) = here.most
                && (packets > most.saturating_add(slack) || (counts_all && here.all_are_counted && packets.saturating_add(slack) < most))
            {
                return true;
            }
            here.pass(self.read.ruleset.rule(rule), packets, counts_all);
        }
        false
    }

    /// Whether the chain's counters could be the same if some of its rules had been written anew since the last read.
    fn may_have_restarted(&self, id: ChainId, chain: &Chain) -> bool {
        let slack = self.slack(id, chain);
        let mut here = Here { most: self.inflow[id.0 as usize].or(self.total), all_are_counted: false };
        for rule in chain.rule_ids() {
            let Some(packets) = self.deltas.since_last_read(rule).and_then(|packets| u64::try_from(packets).ok()) else { continue };
            let now = self.read.packets(rule);
            if now > packets && here.most.is_none_or(|most| now <= most.saturating_add(slack)) {
                return true;
            }
            here.pass(self.read.ruleset.rule(rule), packets, self.read.ruleset.rule(rule).is_unconditional());
        }
        false
    }
}

/// Packets at one place of a chain.
struct Here {
    /// So many at most.
    most: Option<u64>,
    /// Whether none of them can have ended in a chain before without a count here.
    all_are_counted: bool,
}

impl Here {
    /// Goes on behind a rule that matched so many.
    fn pass(&mut self, rule: &crate::ruleset::Rule, packets: u64, counts_all: bool) {
        if counts_all {
            self.most = Some(packets);
            self.all_are_counted = true;
        }
        match rule.verdict {
            Verdict::Accept | Verdict::Drop | Verdict::Reject | Verdict::Return | Verdict::Goto(_) if !rule.counts_before_match => {
                self.most = self.most.map(|most| most.saturating_sub(packets));
            }
            Verdict::None | Verdict::SetMark { .. } | Verdict::Log | Verdict::Nflog(_) if !rule.counts_before_match => {}
            _ => self.all_are_counted &= packets == 0,
        }
    }
}
