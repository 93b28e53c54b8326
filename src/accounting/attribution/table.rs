//! What attribution asks again and again of one table: what each policy can decide, what it has decided on the whole node, and how
//! many chains refer to it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::felix::{Decision, Direction, Pipeline, PolicyChain, is_endpoint_chain};
use crate::ruleset::{ChainId, RuleId, TableId, Verdict as Target};

use super::Table;
use super::foreign::Disturbance;
use super::group::Margin;
use super::tier::{Can, Decided};
use super::totals::Verdict;

/// Room that policies have left from the last read, by table and chain.
pub type Leftovers = HashMap<(TableId, Arc<str>), Budget>;

/// What was seen of each policy and group at the last read, by table and chain.
pub type Users = HashMap<(TableId, Arc<str>), Seen>;

/// What was seen of a policy or group at one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// A fingerprint of the chains that referred to it.
    users: u64,
    /// Packets that it decided while the table was read.
    deciding: u64,
}

/// The jumps that lead to a chain.
#[derive(Debug, Clone, Copy, Default)]
struct References {
    count: u32,
    /// How many of them may have let packets through since the last read, or while the table was read.
    busy: u32,
    /// The sum of hashes over the chains they stand in.
    users: u64,
    /// Whether it was the same at the last read.
    steady: bool,
    /// Packets that the policy decided while the table was read the last time.
    deciding_before: u64,
}

/// How many refusals and passes of a policy's own rules have not been credited to an endpoint yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    deny: i64,
    pass: i64,
    deny_or_pass: i64,
}

/// More than any counter: where the policy's own count is not known.
const UNLIMITED: i64 = i64::MAX / 1024;

impl Budget {
    /// The room for one verdict.
    pub fn of(&mut self, verdict: Verdict) -> &mut i64 {
        match verdict {
            Verdict::Deny => &mut self.deny,
            Verdict::Pass => &mut self.pass,
            Verdict::DenyOrPass | Verdict::Accept => &mut self.deny_or_pass,
        }
    }

    fn plus(self, other: Budget) -> Budget {
        let add = |a: i64, b: i64| (a + b).min(UNLIMITED);
        Budget {
            deny: add(self.deny, other.deny),
            pass: add(self.pass, other.pass),
            deny_or_pass: add(self.deny_or_pass, other.deny_or_pass),
        }
    }

    fn is_empty(self) -> bool {
        self == Budget::default()
    }

    fn is_limited(self) -> bool {
        self.deny < UNLIMITED && self.pass < UNLIMITED
    }
}

/// An endpoint whose chain was written anew since the last read.
struct Written {
    chain: ChainId,
    direction: Direction,
    /// How many packets can have entered it since then; `None` if nothing limits them.
    inflow: Option<u64>,
}

impl Written {
    /// All of a table; `None` if there may have been others, which came and went.
    fn all(table: &Table) -> Option<Vec<Written>> {
        let Table { ruleset, pipelines, deltas, reach, .. } = table;
        let have_gone = deltas.vanished.iter().any(|chain| is_endpoint_chain(ruleset.table, chain));
        if have_gone || !(table.endpoints_stayed || dispatch_is_unchanged(table)) {
            return None;
        }
        let inflow = |chain| ruleset.chain(chain).rule_ids().next().map_or(Some(0), |first| reach.inflow(first));
        let written = pipelines.endpoints.iter().filter(|endpoint| !deltas.unchanged(endpoint.chain));
        Some(written.map(|e| Written { chain: e.chain, direction: e.direction, inflow: inflow(e.chain) }).collect())
    }
}

/// Whether the rules that lead to endpoints are those of the last read, so that no endpoint has come and gone. Calico's own tables have
/// maps for that.
fn dispatch_is_unchanged(table: &Table) -> bool {
    let mut is_endpoint = vec![false; table.ruleset.chains().len()];
    table.pipelines.endpoints.iter().for_each(|endpoint| is_endpoint[endpoint.chain.0 as usize] = true);
    let leads = |rule: RuleId| matches!(table.ruleset.rule(rule).verdict, Target::Goto(to) if is_endpoint[to.0 as usize]);
    let mut dispatch = table.ruleset.chain_ids().filter(|(_, chain)| chain.rule_ids().any(leads)).peekable();
    dispatch.peek().is_some() && dispatch.all(|(id, _)| table.deltas.unchanged(id))
}

/// One table with what is worked out of it once a read.
pub struct TableView<'a> {
    /// The table.
    pub table: Table<'a>,
    can: Vec<Can>,
    budgets: Vec<Budget>,
    /// What endpoints claim of each policy and wait for.
    claimed: Vec<Budget>,
    references: Vec<References>,
    disturbances: Vec<Disturbance>,
    /// Where anything was written since the last read.
    written: Option<Vec<Written>>,
}

impl<'a> TableView<'a> {
    /// Looks through all policies and jumps.
    pub fn new(table: Table<'a>, leftovers: &mut Leftovers, users: &Users) -> Self {
        let chains = table.ruleset.chains().len();
        let mut view = TableView {
            table,
            can: vec![Can::default(); chains],
            budgets: vec![Budget::default(); chains],
            claimed: vec![Budget::default(); chains],
            references: vec![References::default(); chains],
            disturbances: vec![Disturbance::None; chains],
            written: if table.deltas.rewritten { Written::all(&table) } else { None },
        };
        view.count_references();
        view.compare_users(users);
        for policy in table.pipelines.policies() {
            let place = policy.chain.0 as usize;
            view.can[place] = Can {
                accept: policy.can(Decision::Accept),
                deny: policy.can(Decision::Deny),
                pass: policy.can(Decision::Pass),
                alone: view.references[place].count == 1,
                changed: !(table.deltas.unchanged(policy.chain) || table.deltas.appeared(policy.chain)),
            };
            view.disturbances[place] = Disturbance::by(&policy.foreign, table.ruleset, table.deltas);
            let left = leftovers.remove(&(table.ruleset.id(), Arc::clone(&table.ruleset.chain(policy.chain).name)));
            view.budgets[place] = view.counted(policy).plus(left.unwrap_or_default());
        }
        view.look_at_groups();
        view
    }

    fn look_at_groups(&mut self) {
        for (id, _) in self.table.ruleset.chain_ids() {
            if let Some(group) = self.table.pipelines.group(id) {
                let policies = group.policies.iter().map(|(_, policy)| self.can(*policy));
                let (alone, changed) = (self.references(id) == 1, !(self.table.deltas.unchanged(id) || self.table.deltas.appeared(id)));
                let nothing = Can { alone, changed, ..Can::default() };
                self.can[id.0 as usize] = policies.fold(nothing, Can::or);
                let own = Disturbance::by(&group.foreign, self.table.ruleset, self.table.deltas);
                let inside = group.policies.iter().map(|(_, policy)| self.disturbance(*policy));
                self.disturbances[id.0 as usize] = inside.fold(own, Ord::max);
            }
        }
    }

    /// Any jump counts, also one from a chain of another kind: host endpoints use the same policies.
    fn count_references(&mut self) {
        for chain in self.table.ruleset.chains() {
            let mut hasher = DefaultHasher::new();
            chain.name.hash(&mut hasher);
            let user = hasher.finish();
            for rule in chain.rule_ids() {
                if let Target::Jump(to) = self.table.ruleset.rule(rule).verdict {
                    let references = &mut self.references[to.0 as usize];
                    references.count += 1;
                    let is_idle = self.table.deltas.since_last_read(rule) == Some(0) && self.table.motion.of(rule) == 0;
                    references.busy += u32::from(!is_idle);
                    references.users = references.users.wrapping_add(user);
                }
            }
        }
    }

    fn compare_users(&mut self, before: &Users) {
        for (references, chain) in self.references.iter_mut().zip(self.table.ruleset.chains()) {
            let key = (self.table.ruleset.id(), Arc::clone(&chain.name));
            references.deciding_before = before.get(&key).map_or(0, |seen| seen.deciding);
            references.steady = before.get(&key).is_some_and(|seen| seen.users == references.users);
        }
    }

    /// What the policy's rules counted since the last read.
    fn counted(&self, policy: &PolicyChain) -> Budget {
        let sum = |decision| match self.margin(policy, decision).most {
            Some(packets) => i64::try_from(packets).unwrap_or(UNLIMITED).min(UNLIMITED),
            None => UNLIMITED,
        };
        let (deny, pass) = (sum(Decision::Deny), sum(Decision::Pass));
        Budget { deny, pass, deny_or_pass: (deny + pass).min(UNLIMITED) }
    }

    /// How often the policy decided so since the last read, over everything that refers to it.
    pub fn margin(&self, policy: &PolicyChain, decision: Decision) -> Margin {
        let deltas = self.table.deltas;
        let least = policy.rules_that(decision).map(|rule| deltas.packets(rule)).sum();
        let counts_on = || policy.rules_that(decision).all(|rule| deltas.since_last_read(rule).is_some());
        let known = deltas.appeared(policy.chain) || (deltas.has_same_rules(policy.chain) && counts_on());
        if self.disturbance(policy.chain) > Disturbance::None {
            // Not all that it decided took effect.
            return Margin { least: 0, most: known.then_some(least) };
        }
        Margin { least, most: known.then_some(least) }
    }

    /// What the policy, or any policy of the group, has rules for.
    pub fn can(&self, chain: ChainId) -> Can {
        self.can[chain.0 as usize]
    }

    /// What foreign rules did since the last read in the policy, or in the group and its policies.
    pub fn disturbance(&self, chain: ChainId) -> Disturbance {
        self.disturbances[chain.0 as usize]
    }

    /// What the same rules counted while the table was read.
    pub fn moved_by_foreign_rules(&self, chain: ChainId) -> u64 {
        let pipelines = self.table.pipelines;
        let group = pipelines.group(chain);
        let policies = group.into_iter().flat_map(|group| &group.policies).map(|(_, policy)| *policy).chain([chain]);
        let in_policies = policies.filter_map(|policy| pipelines.policy(policy)).flat_map(|policy| &policy.foreign);
        let foreign = group.into_iter().flat_map(|group| &group.foreign).chain(in_policies);
        self.table.motion.sum(foreign.map(|foreign| foreign.rule))
    }

    /// What the policy's, or the group's policies', own rules refused and passed on since the last read, if `endpoint` alone uses it.
    pub fn own(&self, chain: ChainId, endpoint: &Pipeline) -> Decided {
        if self.table.deltas.rewritten && self.strangers(endpoint.direction, |chain| chain == endpoint.chain) != Some(0) {
            return Decided::default();
        }
        let group = self.table.pipelines.group(chain).into_iter().flat_map(|group| &group.policies).map(|(_, policy)| *policy);
        let chains: Vec<ChainId> = std::iter::once(chain).chain(group).collect();
        if !chains.iter().all(|chain| self.is_steady(*chain)) {
            return Decided::default();
        }
        let sum = |decision| {
            let policies = chains.iter().filter_map(|chain| self.table.pipelines.policy(*chain));
            policies.map(|policy| self.margin(policy, decision).most.and_then(|most| i64::try_from(most).ok())).sum::<Option<i64>>()
        };
        Decided { deny: sum(Decision::Deny), pass: sum(Decision::Pass), ..Decided::default() }
    }

    /// What may still be credited to the policy.
    pub fn budget(&mut self, policy: ChainId, verdict: Verdict) -> i64 {
        *self.budgets[policy.0 as usize].of(verdict)
    }

    /// Packets that the policy decided while the table was read, so that some of them may count for this interval or the next.
    fn deciding(&self, policy: ChainId) -> u64 {
        let rules = self.table.pipelines.policy(policy).into_iter().flat_map(|policy| &policy.rules);
        self.table.motion.sum(rules.map(|rule| rule.rule))
    }

    /// The same of a policy, or of all of a group's.
    pub fn deciding_within(&self, chain: ChainId) -> u64 {
        let group = self.table.pipelines.group(chain).into_iter().flat_map(|group| &group.policies).map(|(_, policy)| *policy);
        std::iter::once(chain).chain(group).map(|policy| self.deciding(policy)).fold(0, u64::saturating_add)
    }

    /// How many packets endpoints may have had, at most, that were written anew since the last read and are no users of a policy or group
    /// now: they may have used it meanwhile. `None` if nothing limits that.
    pub fn strangers(&self, direction: Direction, is_user: impl Fn(ChainId) -> bool) -> Option<u64> {
        let written = self.written.as_ref()?.iter().filter(|written| written.direction == direction && !is_user(written.chain));
        written.map(|written| written.inflow).sum()
    }

    /// Whether the policy decided nothing while the table was read the last time.
    pub fn was_still(&self, policy: ChainId) -> bool {
        self.references[policy.0 as usize].deciding_before == 0
    }

    /// How often the policy surely decided so since the last read, over everything that refers to it. `None` if that is not known.
    pub fn surely_decided(&self, policy: ChainId, verdict: Verdict) -> Option<u64> {
        let chain = self.table.pipelines.policy(policy).filter(|_| self.is_steady(policy) || self.table.deltas.appeared(policy))?;
        let sum = verdict.decisions().iter().map(|decision| self.margin(chain, *decision).most).sum::<Option<u64>>();
        sum.map(|packets| packets.saturating_sub(self.references[policy.0 as usize].deciding_before))
    }

    /// Takes from the policy's budget what an endpoint is credited with, and notes what it waits for.
    pub fn spend(&mut self, policy: ChainId, verdict: Verdict, credited: i64, waiting: i64) {
        *self.budgets[policy.0 as usize].of(verdict) -= credited;
        *self.claimed[policy.0 as usize].of(verdict) += waiting.max(0);
    }

    /// Leaves room for no more than what endpoints wait for: what else the policy counted may have been decided for others.
    pub fn forget_unclaimed(&mut self, policy: ChainId, verdict: Verdict) {
        let claimed = *self.claimed[policy.0 as usize].of(verdict);
        let left = self.budgets[policy.0 as usize].of(verdict);
        *left = (*left).min(claimed);
    }

    /// What the policy's own rules refused and passed on since the last read, if nothing else than this endpoint's jump can have led any
    /// packets to it.
    pub fn own_if_others_were_quiet(&self, policy: ChainId, jump: RuleId) -> Option<(i64, i64)> {
        let References { busy, .. } = self.references[policy.0 as usize];
        let is_busy = u32::from(self.table.deltas.since_last_read(jump) != Some(0) || self.table.motion.of(jump) != 0);
        let is_sure = busy == is_busy && self.is_steady(policy) && self.was_still(policy) && self.deciding(policy) == 0;
        let chain = self.table.pipelines.policy(policy).filter(|_| is_sure && !self.table.deltas.rewritten)?;
        let of = |decision| self.margin(chain, decision).most.and_then(|most| i64::try_from(most).ok());
        of(Decision::Deny).zip(of(Decision::Pass))
    }

    /// How many jumps lead to the chain.
    pub fn references(&self, chain: ChainId) -> u32 {
        self.references[chain.0 as usize].count
    }

    /// Whether the same chains refer to this one as at the last read: else its rules have counted for others, too.
    pub fn is_steady(&self, chain: ChainId) -> bool {
        self.references[chain.0 as usize].steady
    }

    /// What policies counted and nobody was credited with: an endpoint's counters, read earlier, may show it at the next read.
    /// And who uses them.
    pub fn leave(&self, leftovers: &mut Leftovers, users: &mut Users) {
        let chains = self.references.iter().zip(self.table.ruleset.chains()).zip((0..).map(ChainId));
        let used = chains.filter(|((references, _), _)| references.count > 0);
        users.extend(used.map(|((references, chain), id)| {
            let seen = Seen { users: references.users, deciding: self.deciding(id) };
            ((self.table.ruleset.id(), Arc::clone(&chain.name)), seen)
        }));
        for policy in self.table.pipelines.policies() {
            let left = self.budgets[policy.chain.0 as usize];
            // Only of this interval, or claimed: what is older never had to do with a workload (host endpoints use policies too).
            let left = Budget { deny: left.deny.max(0), pass: left.pass.max(0), deny_or_pass: left.deny_or_pass.max(0) };
            let counted = self.counted(policy).plus(self.claimed[policy.chain.0 as usize]);
            let left = Budget {
                deny: left.deny.min(counted.deny),
                pass: left.pass.min(counted.pass),
                deny_or_pass: left.deny_or_pass.min(counted.deny_or_pass),
            };
            if !left.is_empty() && left.is_limited() {
                let chain = Arc::clone(&self.table.ruleset.chain(policy.chain).name);
                leftovers.insert((self.table.ruleset.id(), chain), left);
            }
        }
    }
}
