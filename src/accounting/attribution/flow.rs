//! Checks the counters of one table against each other: the packets that reach a rule are those that entered its chain and did not leave
//! it before. Pure.
//!
//! This finds rules that were rewritten without a sign of it. It also bounds how many packets can have reached a rule if its own count
//! does not show it. There are three cases, the strongest evidence first:
//!
//! * More packets left a chain than entered it, or some entered and no rule counted them, or a counter went back. Then counters have begun
//!   again somewhere in the table, and no rule in it is known to have counted on.
//! * Felix wrote something in the table. It may have written a chain twice, the second time as it was before. If rules have no handles,
//!   or keep them, a rule has surely counted on only if its count is more than can have reached it since the last read.
//! * Neither. Then all rules have counted on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::accounting::ledger::Deltas;
use crate::felix::{Direction, EndpointKind, Pipelines};
use crate::ruleset::{Chain, ChainId, Rule, RuleHash, RuleId, Ruleset, Snapshot, Verdict};

use super::motion::Motion;

/// What rules counted while a table was read, by chain and hash.
pub type Moved = HashMap<(Arc<str>, RuleHash), u64>;

/// How many packets can have reached each rule since the last read. Known only if something was written in the table. Otherwise every
/// rule's own count shows it.
#[derive(Debug, Default)]
pub struct Reach {
    rules: Vec<Option<u64>>,
    chains: Vec<Option<u64>>,
}

impl Reach {
    /// Returns the most packets that can have entered a chain that has rules; `None` if nothing limits them.
    pub fn inflow(&self, chain: ChainId) -> Option<u64> {
        self.chains.get(chain.0 as usize).copied().flatten()
    }

    pub fn of(&self, rule: RuleId) -> Option<u64> {
        self.rules.get(rule.0 as usize).copied().flatten()
    }
}

pub fn moved(read: &Snapshot, motion: &Motion) -> Moved {
    let rules = read.ruleset.chains().iter().flat_map(|chain| chain.rule_ids().map(move |rule| (chain, rule)));
    let moved = rules.map(|(chain, rule)| (chain, rule, motion.of(rule))).filter(|(.., packets)| *packets > 0);
    moved.map(|(chain, rule, packets)| ((Arc::clone(&chain.name), read.ruleset.hash(rule)), packets)).collect()
}

/// The most packets that may be held up for longer than two reads take, each on a CPU that a hypervisor has stopped.
const MOST_HELD_UP: u64 = 8;

#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub read: &'a Snapshot,
    pub pipelines: &'a Pipelines,
    pub motion: &'a Motion,
    /// What rules counted while the table was read the last time.
    pub moved: Option<&'a Moved>,
    pub cpus: u64,
}

impl<'a> Context<'a> {
    /// Records in `deltas` which rules may have been rewritten. Returns how many packets can have reached each rule.
    pub fn settle_ages(self, deltas: &mut Deltas) -> Reach {
        if deltas.restarted || self.is_broken(deltas) {
            deltas.rewritten = true;
            for (id, chain) in self.ruleset().chain_ids() {
                deltas.forget_ages(id, chain, chain.rules.start);
            }
        }
        if !deltas.rewritten {
            return Reach::default();
        }
        let reach = Reach { rules: vec![None; self.ruleset().rule_count()], chains: vec![None; self.ruleset().chains().len()] };
        let mut walk = Walk { context: self, endpoints: self.pipelines.endpoint_chains(), deltas, reach };
        walk.all();
        walk.reach
    }

    fn ruleset(&self) -> &'a Ruleset {
        &self.read.ruleset
    }

    /// Returns packets that the rule counted during this read and the last one. Its count may be out of step with others by as many.
    fn motion_of(&self, chain: &Chain, rule: RuleId) -> u64 {
        let moved = self.moved.filter(|moved| !moved.is_empty());
        let before = moved.and_then(|moved| moved.get(&(Arc::clone(&chain.name), self.ruleset().hash(rule))).copied());
        self.motion.of(rule).saturating_add(before.unwrap_or(0))
    }

    fn motion_in(&self, chain: &Chain) -> u64 {
        chain.rule_ids().map(|rule| self.motion_of(chain, rule)).fold(0, u64::saturating_add)
    }

    fn counted(&self, deltas: &Deltas, rule: RuleId) -> Option<u64> {
        deltas.count_since_last_read(rule).filter(|_| !self.ruleset().rule(rule).uncounted)
    }

    /// Whether nothing follows from what a rule counted: it has no counter, or it is not Felix's, and it is unknown how long it has
    /// existed.
    fn proves_nothing(&self, rule: RuleId) -> bool {
        self.ruleset().rule(rule).uncounted || self.ruleset().hash(rule).is_none()
    }

    fn jumps(&self) -> impl Iterator<Item = (&'a Chain, RuleId, ChainId)> + use<'a> {
        let ruleset = self.ruleset();
        let rules = ruleset.chains().iter().flat_map(|chain| chain.rule_ids().map(move |rule| (chain, rule)));
        rules.filter_map(|(chain, rule)| Some((chain, rule, ruleset.rule(rule).verdict.target()?)))
    }

    /// Whether any chain contradicts itself or the jumps to it.
    pub fn is_broken(&self, deltas: &Deltas) -> bool {
        let mut entries = vec![Some((0u64, 0u64)); self.ruleset().chains().len()];
        let mut is_called = vec![false; entries.len()];
        for (chain, rule, to) in self.jumps() {
            let (entry, packets) = (&mut entries[to.0 as usize], self.counted(deltas, rule));
            is_called[to.0 as usize] = true;
            *entry = entry.zip(packets).map(|((sum, slack), packets)| (sum + packets, slack.saturating_add(self.motion_of(chain, rule))));
        }
        self.ruleset().chain_ids().any(|(id, chain)| {
            let entry = entries[id.0 as usize].filter(|_| is_called[id.0 as usize]);
            self.contradicts(chain, entry, deltas)
        })
    }

    /// Whether a rule of the chain counted more packets than can have reached it, or a rule without conditions fewer than must have.
    /// `entry` is how many packets entered, and by how many that may be out of step.
    fn contradicts(&self, chain: &Chain, entry: Option<(u64, u64)>, deltas: &Deltas) -> bool {
        let slack = self.motion_in(chain).saturating_add(entry.map_or(0, |(_, slack)| slack)).saturating_add(self.cpus.min(MOST_HELD_UP));
        if !Motion::is_known(slack) {
            return false;
        }
        let mut here = Here { most: entry.map(|(packets, _)| packets), all_are_counted: entry.is_some() };
        for id in chain.rule_ids() {
            let (rule, counted) = (self.ruleset().rule(id), deltas.count_since_last_read(id));
            if self.proves_nothing(id) {
                here.pass_unproven(rule, counted);
                continue;
            }
            let Some(packets) = counted else { return false };
            let too_few = rule.is_unconditional() && here.all_are_counted;
            if here.most.is_some_and(|most| packets > most.saturating_add(slack) || (too_few && packets.saturating_add(slack) < most)) {
                return true;
            }
            here.pass(rule, Some(packets), packets);
        }
        false
    }
}

struct Here {
    most: Option<u64>,
    /// Whether no packet can have left the chain before this rule without being counted in it.
    all_are_counted: bool,
}

impl Here {
    /// Moves past a rule that matched at least `least` packets and at most `most`.
    fn pass(&mut self, rule: &Rule, most: Option<u64>, least: u64) {
        if rule.is_unconditional() {
            self.most = most;
            self.all_are_counted = true;
        }
        match rule.verdict {
            _ if rule.counts_before_match => self.all_are_counted &= most == Some(0),
            Verdict::Accept | Verdict::Drop | Verdict::Reject | Verdict::Return | Verdict::Goto(_) => {
                self.most = self.most.map(|most| most.saturating_sub(least));
            }
            Verdict::None | Verdict::SetMark { .. } | Verdict::Log | Verdict::Nflog(_) => {}
            Verdict::Jump(_) | Verdict::Other | Verdict::Unreadable => self.all_are_counted &= most == Some(0),
        }
    }

    /// Moves past a rule that proves nothing, but may have taken some packets away.
    fn pass_unproven(&mut self, rule: &Rule, packets: Option<u64>) {
        let goes_on = matches!(rule.verdict, Verdict::None | Verdict::SetMark { .. } | Verdict::Log | Verdict::Nflog(_));
        let is_idle = packets == Some(0) && !rule.uncounted;
        self.all_are_counted &= goes_on || is_idle || self.most == Some(0);
    }
}

struct Walk<'a, 'b> {
    context: Context<'a>,
    endpoints: HashSet<ChainId>,
    deltas: &'b mut Deltas,
    reach: Reach,
}

impl Walk<'_, '_> {
    fn all(&mut self) {
        let ruleset = self.context.ruleset();
        let mut callers: Vec<Vec<RuleId>> = vec![vec![]; ruleset.chains().len()];
        self.context.jumps().for_each(|(_, rule, to)| callers[to.0 as usize].push(rule));
        let order = callers_first(ruleset);
        // In Calico's own tables a map leads to workloads. It counts nothing, so the only limit is all packets of the table.
        let (mapped, called): (Vec<ChainId>, Vec<ChainId>) =
            order.into_iter().partition(|id| self.endpoints.contains(id) && callers[id.0 as usize].is_empty());
        let total = self.total(&called, &callers);
        let (last, first): (Vec<ChainId>, Vec<ChainId>) = called.into_iter().partition(|id| self.is_rewritable(*id));
        first.iter().for_each(|id| self.chain(*id, self.inflow(&callers[id.0 as usize])));
        self.mapped(&mapped, total);
        last.iter().for_each(|id| self.chain(*id, self.inflow(&callers[id.0 as usize])));
    }

    /// Whether Felix writes the chain when policies change. Other chains change only with endpoints, or never.
    fn is_rewritable(&self, id: ChainId) -> bool {
        let pipelines = self.context.pipelines;
        pipelines.policy(id).is_some() || pipelines.group(id).is_some() || self.endpoints.contains(&id)
    }

    /// Returns the most packets that can have come by these jumps; `None` if nothing limits them.
    fn inflow(&self, jumps: &[RuleId]) -> Option<u64> {
        jumps.first()?;
        jumps.iter().map(|rule| self.reach.of(*rule)).sum()
    }

    /// Returns the most packets that there were: the sum of the highest counts in the chains that no rule leads to, except endpoints'.
    fn total(&self, called: &[ChainId], callers: &[Vec<RuleId>]) -> Option<u64> {
        let entries: Vec<ChainId> = called.iter().copied().filter(|id| callers[id.0 as usize].is_empty()).collect();
        let most = |id: &ChainId| {
            let rules = self.context.ruleset().chain(*id).rule_ids();
            rules.map(|rule| self.deltas.count_since_last_read(rule)).try_fold(0, |most: u64, packets| Some(most.max(packets?)))
        };
        if entries.is_empty() { None } else { entries.iter().map(most).sum() }
    }

    /// Bounds the endpoints that a map leads to. In each direction, each got at most the total less what the others surely got.
    fn mapped(&mut self, mapped: &[ChainId], total: Option<u64>) {
        let pipelines = self.context.pipelines;
        let endpoint = |id: ChainId| pipelines.endpoints.iter().find(|endpoint| endpoint.chain == id);
        let (workloads, others): (Vec<ChainId>, Vec<ChainId>) =
            mapped.iter().partition(|id| endpoint(**id).is_some_and(|endpoint| endpoint.kind == EndpointKind::Workload));
        for direction in Direction::ALL {
            let of_direction = |id: &&ChainId| endpoint(**id).is_some_and(|endpoint| endpoint.direction == direction);
            let sure: Vec<(ChainId, u64)> =
                workloads.iter().filter(of_direction).map(|id| (*id, self.surely_entered(*id, total))).collect();
            let all: u64 = sure.iter().map(|(_, sure)| sure).sum();
            sure.iter().for_each(|(id, sure)| self.chain(*id, total.map(|total| total.saturating_sub(all - sure))));
        }
        others.iter().for_each(|id| self.chain(*id, total));
    }

    /// Returns what the first rule without conditions has surely counted since the last read.
    fn surely_entered(&self, id: ChainId, total: Option<u64>) -> u64 {
        let (ruleset, slack) = (self.context.ruleset(), self.context.motion_in(self.context.ruleset().chain(id)));
        let first = ruleset.chain(id).rule_ids().find(|rule| ruleset.rule(*rule).is_unconditional());
        let is_sure = |rule: &RuleId| total.is_some_and(|total| self.context.read.packets(*rule) > total.saturating_add(slack));
        first.filter(is_sure).and_then(|rule| self.deltas.count_since_last_read(rule)).unwrap_or(0)
    }

    /// Bounds the rules of a chain that `inflow` packets can have entered. Records which rules at its end may have been rewritten: Felix
    /// replaces all rules after the first difference.
    fn chain(&mut self, id: ChainId, inflow: Option<u64>) {
        let chain = self.context.ruleset().chain(id);
        let rules: Vec<RuleId> = chain.rule_ids().collect();
        if self.is_rewritable(id) && !self.deltas.handles_prove_ages {
            let slack = self.context.motion_in(chain);
            let before = self.bound(&rules, inflow);
            let is_sure = |rule: &RuleId| match before[(rule.0 - chain.rules.start) as usize] {
                Some(0) if slack == 0 => true,
                Some(most) => self.context.read.packets(*rule) > most.saturating_add(slack),
                None => false,
            };
            let doubtful = rules.iter().rposition(is_sure).map_or(0, |last| last + 1);
            self.deltas.forget_ages(id, chain, chain.rules.start + doubtful as u32);
        }
        self.reach.chains[id.0 as usize] = inflow;
        let bounds = self.bound(&rules, inflow);
        for (rule, most) in rules.iter().zip(bounds) {
            let sure = self.context.counted(self.deltas, *rule);
            let most = most.map_or(sure, |most| Some(sure.map_or(most, |sure| sure.min(most))));
            self.reach.rules[rule.0 as usize] = most.map(|most| most.saturating_add(self.context.motion_of(chain, *rule)));
        }
    }

    fn bound(&self, rules: &[RuleId], inflow: Option<u64>) -> Vec<Option<u64>> {
        let mut here = Here { most: inflow, all_are_counted: false };
        let bound = |id: &RuleId| {
            let most = here.most;
            let (rule, counted) = (self.context.ruleset().rule(*id), self.deltas.count_since_last_read(*id));
            match self.context.proves_nothing(*id) {
                true => here.pass_unproven(rule, counted),
                false => here.pass(rule, counted.or(most), counted.unwrap_or(0)),
            }
            most
        };
        rules.iter().map(bound).collect()
    }
}

/// Returns all chains, each after those that lead to it. The kernel allows no loops, but a text may contain one.
fn callers_first(ruleset: &Ruleset) -> Vec<ChainId> {
    let mut waiting = vec![0usize; ruleset.chains().len()];
    let targets = |id: ChainId| ruleset.chain(id).rule_ids().filter_map(|rule| ruleset.rule(rule).verdict.target());
    let all = || ruleset.chain_ids().map(|(id, _)| id);
    all().flat_map(targets).for_each(|to| waiting[to.0 as usize] += 1);
    let mut order: Vec<ChainId> = all().filter(|id| waiting[id.0 as usize] == 0).collect();
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for to in targets(id) {
            waiting[to.0 as usize] -= 1;
            if waiting[to.0 as usize] == 0 {
                order.push(to);
            }
        }
    }
    order
}
