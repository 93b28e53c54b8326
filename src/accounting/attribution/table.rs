//! What attribution asks of one table many times: what each policy can decide, what it has decided on the whole node, and how many chains
//! refer to it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::accounting::ledger::ChainDelta;
use crate::felix::names::{Role, role};
use crate::felix::{Decision, Direction, Pipeline, PolicyChain};
use crate::ruleset::{ChainId, RuleId, Verdict as Target};

use super::foreign::Disturbance;
use super::group::{Margin, signed, smaller};
use super::tier::{Can, Decided};
use super::totals::{PerVerdict, Verdict};
use super::witnessed::Decisions;
use super::{ChainKey, Table};

/// What is left of policies' budgets from the last read.
pub type Leftovers = HashMap<ChainKey, Budget>;

/// What was seen of each policy and group at the last read.
pub type Users = HashMap<ChainKey, Seen>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// A fingerprint of the chains that referred to it.
    users: u64,
    deciding: u64,
}

/// Endpoints that use a chain, by chain, in the order in which they were met.
pub struct ByChain<T>(pub Vec<(ChainId, Vec<T>)>);

impl<T> ByChain<T> {
    pub fn add(&mut self, chain: ChainId, user: T) {
        match self.0.iter_mut().rev().find(|(known, _)| *known == chain) {
            Some((_, users)) => users.push(user),
            None => self.0.push((chain, vec![user])),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct References {
    count: u32,
    /// How many of them may have let packets through since the last read, or while the table was read.
    busy: u32,
    /// The sum of the hashes of the chains that they are in.
    users: u64,
    steady: bool,
    /// Packets that the policy decided while the table was read the last time.
    deciding_before: u64,
}

/// How many denies and passes of a policy's own rules were not credited to an endpoint yet; `None` if nothing limits them.
pub type Budget = PerVerdict<Option<i64>>;

const NOTHING: Budget = [Some(0); 4];

fn plus(a: Budget, b: Budget) -> Budget {
    zip(a, b, |a, b| Some(a?.saturating_add(b?)))
}

fn zip(a: Budget, b: Budget, f: fn(Option<i64>, Option<i64>) -> Option<i64>) -> Budget {
    std::array::from_fn(|verdict| f(a[verdict], b[verdict]))
}

/// An endpoint whose chain was rewritten since the last read.
struct Written {
    chain: ChainId,
    direction: Direction,
    /// How many packets can have entered it since then; `None` if nothing limits them.
    inflow: Option<u64>,
}

impl Written {
    /// Returns all of a table; `None` if there may have been others, which came and went.
    fn all(table: &Table) -> Option<Vec<Written>> {
        let Table { ruleset, pipelines, deltas, reach, .. } = table;
        let have_gone = deltas.vanished.iter().any(|chain| matches!(role(ruleset.table, chain), Role::Endpoint(..)));
        if have_gone || !(table.endpoints_stayed || dispatch_is_unchanged(table)) {
            return None;
        }
        let inflow = |chain| if ruleset.chain(chain).rules.is_empty() { Some(0) } else { reach.inflow(chain) };
        let written = pipelines.endpoints.iter().filter(|endpoint| !deltas.unchanged(endpoint.chain));
        Some(written.map(|e| Written { chain: e.chain, direction: e.direction, inflow: inflow(e.chain) }).collect())
    }
}

/// Whether the rules that lead to endpoints are those of the last read, so that no endpoint has come and gone. Calico's own tables use
/// maps for that, which show nothing.
fn dispatch_is_unchanged(table: &Table) -> bool {
    let endpoints = table.pipelines.endpoint_chains();
    let leads = |rule: RuleId| matches!(table.ruleset.rule(rule).verdict, Target::Goto(to) if endpoints.contains(&to));
    let mut dispatch = table.ruleset.chain_ids().filter(|(_, chain)| chain.rule_ids().any(leads)).peekable();
    dispatch.peek().is_some() && dispatch.all(|(id, _)| table.deltas.unchanged(id))
}

pub struct TableView<'a> {
    pub table: Table<'a>,
    can: Vec<Can>,
    budgets: Vec<Budget>,
    /// What endpoints have claimed of each policy and still wait for.
    claimed: Vec<PerVerdict<i64>>,
    references: Vec<References>,
    disturbances: Vec<Disturbance>,
    /// Packets that were traced, by the policy's chain. Empty if none was traced.
    witnessed: Vec<Decisions>,
    /// Known only if something in the table was written since the last read.
    written: Option<Vec<Written>>,
}

impl<'a> TableView<'a> {
    pub fn new(table: Table<'a>, leftovers: &mut Leftovers, users: &Users) -> Self {
        let chains = table.ruleset.chains().len();
        let mut view = TableView {
            table,
            can: vec![Can::default(); chains],
            budgets: vec![NOTHING; chains],
            claimed: vec![[0; 4]; chains],
            references: vec![References::default(); chains],
            disturbances: vec![Disturbance::None; chains],
            witnessed: if table.witnessed.is_empty() { vec![] } else { vec![Decisions::default(); chains] },
            written: if table.deltas.rewritten { Written::all(&table) } else { None },
        };
        view.count_references();
        view.compare_users(users);
        for policy in table.pipelines.policies() {
            let place = policy.chain.0 as usize;
            let (accept, deny, pass) = (policy.can(Decision::Accept), policy.can(Decision::Deny), policy.can(Decision::Pass));
            view.can[place] = Can { accept, deny, pass, ..view.can_nothing(policy.chain) };
            view.disturbances[place] = Disturbance::by(&policy.foreign, table.ruleset, table.deltas);
            let left = leftovers.remove(&table.key(policy.chain));
            view.budgets[place] = plus(view.counted(policy), left.unwrap_or(NOTHING));
            view.take_out_witnessed(policy);
        }
        for group in table.pipelines.groups() {
            let place = group.chain.0 as usize;
            view.can[place] = group.policy_chains().map(|policy| view.can(policy)).fold(view.can_nothing(group.chain), Can::or);
            let own = Disturbance::by(&group.foreign, table.ruleset, table.deltas);
            view.disturbances[place] = group.policy_chains().map(|policy| view.disturbance(policy)).fold(own, Ord::max);
        }
        view
    }

    /// Takes traced packets out of a policy's budget. They are believed only as far as the policy's own rules confirm them, and if none of
    /// these rules can have been another one for a while: a rule that replaces another keeps its handle.
    fn take_out_witnessed(&mut self, policy: &PolicyChain) {
        let (place, deltas) = (policy.chain.0 as usize, self.table.deltas);
        let may_have_differed = deltas.rewritten && !deltas.handles_prove_ages && !deltas.unchanged(policy.chain);
        if self.witnessed.is_empty() || may_have_differed {
            return;
        }
        let witnessed = self.table.witnessed.of_policy(&self.table.key(policy.chain));
        let is_borne_out = |verdict: Verdict| {
            let rules = verdict.decisions().iter().flat_map(|decision| policy.rules_that(*decision));
            let most = rules.map(|rule| deltas.since_last_read(rule)).sum::<Option<i64>>();
            most.is_none_or(|most| signed(witnessed.of(verdict)) <= most)
        };
        if [Verdict::Accept, Verdict::Deny, Verdict::Pass].into_iter().all(is_borne_out) {
            self.witnessed[place] = witnessed;
            let taken = Verdict::ALL.map(|verdict| Some(-signed(witnessed.of(verdict))));
            self.budgets[place] = plus(self.budgets[place], taken);
        }
    }

    /// Returns what this policy decided of an endpoint's packets, as far as they were traced.
    pub fn witnessed(&self, endpoint: &Pipeline, policy: ChainId) -> Decisions {
        match self.witnessed.get(policy.0 as usize) {
            Some(of_all) if *of_all != Decisions::default() => {
                self.table.witnessed.of_endpoint(&self.table.key(endpoint.chain), &self.table.ruleset.chain(policy).name)
            }
            _ => Decisions::default(),
        }
    }

    fn can_nothing(&self, chain: ChainId) -> Can {
        let ChainDelta { unchanged, appeared, .. } = self.table.deltas.chain(chain);
        Can { alone: self.references(chain) == 1, changed: !(unchanged || appeared), ..Can::default() }
    }

    /// Counts every jump, also those from chains of another kind, because host endpoints use the same policies.
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
        for (id, references) in (0..).map(ChainId).zip(&mut self.references) {
            let seen = before.get(&self.table.key(id));
            references.deciding_before = seen.map_or(0, |seen| seen.deciding);
            references.steady = seen.is_some_and(|seen| seen.users == references.users);
        }
    }

    fn counted(&self, policy: &PolicyChain) -> Budget {
        let sum = |decision| self.margin(policy, decision).most.map(signed);
        let (deny, pass) = (sum(Decision::Deny), sum(Decision::Pass));
        Verdict::ALL.map(|verdict| match verdict {
            Verdict::Accept => Some(0),
            Verdict::Deny => deny,
            Verdict::Pass => pass,
            Verdict::DenyOrPass => Some(deny? + pass?),
        })
    }

    /// Returns how often the policy decided so since the last read, for everything that refers to it.
    pub fn margin(&self, policy: &PolicyChain, decision: Decision) -> Margin {
        let deltas = self.table.deltas;
        let least = policy.rules_that(decision).map(|rule| deltas.packets(rule)).sum();
        let counts_on = || policy.rules_that(decision).all(|rule| deltas.since_last_read(rule).is_some());
        let ChainDelta { appeared, has_same_rules, .. } = deltas.chain(policy.chain);
        let known = appeared || (has_same_rules && counts_on());
        let most = known.then_some(least);
        match self.disturbance(policy.chain) {
            Disturbance::None => Margin { least, most },
            // Not all of its decisions took effect.
            _ => Margin { least: 0, most },
        }
    }

    pub fn can(&self, chain: ChainId) -> Can {
        self.can[chain.0 as usize]
    }

    /// Returns what foreign rules did since the last read in the policy, or in the group and its policies.
    pub fn disturbance(&self, chain: ChainId) -> Disturbance {
        self.disturbances[chain.0 as usize]
    }

    /// Returns what these rules counted while the table was read.
    pub fn moved_by_foreign_rules(&self, chain: ChainId) -> u64 {
        let pipelines = self.table.pipelines;
        let in_policies = pipelines.policies_in(chain).filter_map(|policy| pipelines.policy(policy)).flat_map(|policy| &policy.foreign);
        let foreign = pipelines.group(chain).into_iter().flat_map(|group| &group.foreign).chain(in_policies);
        self.table.motion.sum(foreign.map(|foreign| foreign.rule))
    }

    /// Returns what the own rules of the policy, or of the group's policies, denied and passed since the last read, if only `endpoint` uses
    /// it.
    pub fn own(&self, chain: ChainId, endpoint: &Pipeline) -> Decided {
        let is_alone = || !self.table.deltas.rewritten || self.inflow_of_others(endpoint.direction, |c| c == endpoint.chain) == Some(0);
        let is_steady = self.table.pipelines.policies_in(chain).chain([chain]).all(|chain| self.is_steady(chain));
        if !is_steady || !is_alone() {
            return Decided::default();
        }
        Decided { deny: self.own_rules(chain, Decision::Deny), pass: self.own_rules(chain, Decision::Pass), ..Decided::default() }
    }

    fn own_rules(&self, chain: ChainId, decision: Decision) -> Option<i64> {
        let policies = self.table.pipelines.policies_in(chain).filter_map(|policy| self.table.pipelines.policy(policy));
        policies.map(|policy| self.margin(policy, decision).most.map(signed)).sum()
    }

    pub fn budget(&self, policy: ChainId, verdict: Verdict) -> Option<i64> {
        self.budgets[policy.0 as usize][verdict as usize]
    }

    /// Returns packets that the policy decided while the table was read. They may count for this interval or for the next.
    fn deciding(&self, policy: ChainId) -> u64 {
        let rules = self.table.pipelines.policy(policy).into_iter().flat_map(|policy| &policy.rules);
        self.table.motion.sum(rules.map(|rule| rule.rule))
    }

    pub fn deciding_within(&self, chain: ChainId) -> u64 {
        self.table.pipelines.policies_in(chain).map(|policy| self.deciding(policy)).fold(0, u64::saturating_add)
    }

    /// Returns the most packets of endpoints that were rewritten since the last read and do not use a policy or group now. They may have
    /// used it in between. `None` if nothing limits that.
    pub fn inflow_of_others(&self, direction: Direction, is_user: impl Fn(ChainId) -> bool) -> Option<u64> {
        let written = self.written.as_ref()?.iter().filter(|written| written.direction == direction && !is_user(written.chain));
        written.map(|written| written.inflow).sum()
    }

    pub fn was_still(&self, policy: ChainId) -> bool {
        self.references[policy.0 as usize].deciding_before == 0
    }

    /// Returns how often the policy surely decided so since the last read, for everything that refers to it, without traced packets.
    /// `None` if that is unknown.
    pub fn surely_decided(&self, policy: ChainId, verdict: Verdict) -> Option<u64> {
        let chain = self.table.pipelines.policy(policy).filter(|_| self.is_steady(policy) || self.table.deltas.chain(policy).appeared)?;
        let sum = verdict.decisions().iter().map(|decision| self.margin(chain, *decision).most).sum::<Option<u64>>();
        let witnessed = self.witnessed.get(policy.0 as usize).map_or(0, |witnessed| witnessed.of(verdict));
        sum.map(|packets| packets.saturating_sub(self.references[policy.0 as usize].deciding_before + witnessed))
    }

    /// Takes what is credited to an endpoint from the policy's budget, and notes what the endpoint waits for.
    pub fn spend(&mut self, policy: ChainId, verdict: Verdict, credited: i64, waiting: i64) {
        self.budgets[policy.0 as usize][verdict as usize].iter_mut().for_each(|left| *left -= credited);
        self.claimed[policy.0 as usize][verdict as usize] += waiting.max(0);
    }

    /// Leaves no more of the budget than endpoints wait for. What else the policy counted may have been decided for others.
    pub fn forget_unclaimed(&mut self, policy: ChainId, verdict: Verdict) {
        let (left, claimed) = (&mut self.budgets[policy.0 as usize][verdict as usize], self.claimed[policy.0 as usize][verdict as usize]);
        *left = Some(left.map_or(claimed, |left| left.min(claimed)));
    }

    /// Returns what the policy's own rules denied and passed since the last read, if no packets can have reached it except by this
    /// endpoint's jump.
    pub fn own_if_others_were_quiet(&self, policy: ChainId, jump: RuleId) -> Option<(i64, i64)> {
        let References { busy, .. } = self.references[policy.0 as usize];
        let is_busy = u32::from(self.table.deltas.since_last_read(jump) != Some(0) || self.table.motion.of(jump) != 0);
        let is_sure = busy == is_busy && self.is_steady(policy) && self.was_still(policy) && self.deciding(policy) == 0;
        let own = |decision| self.own_rules(policy, decision).filter(|_| is_sure && !self.table.deltas.rewritten);
        own(Decision::Deny).zip(own(Decision::Pass))
    }

    pub fn references(&self, chain: ChainId) -> u32 {
        self.references[chain.0 as usize].count
    }

    /// Whether the same chains refer to this one as at the last read. If not, its rules have counted for others, too.
    pub fn is_steady(&self, chain: ChainId) -> bool {
        self.references[chain.0 as usize].steady
    }

    /// Leaves what policies counted and no endpoint was credited with, because an endpoint's counters, which are read earlier, may show it
    /// at the next read. Also leaves which chains use the policies.
    pub fn leave(&self, leftovers: &mut Leftovers, users: &mut Users) {
        let used = (0..).map(ChainId).zip(&self.references).filter(|(_, references)| references.count > 0);
        let seen = |id, references: &References| Seen { users: references.users, deciding: self.deciding(id) };
        users.extend(used.map(|(id, references)| (self.table.key(id), seen(id, references))));
        for policy in self.table.pipelines.policies() {
            let place = policy.chain.0 as usize;
            let left = self.budgets[place].map(|left| left.map(|left| left.max(0)));
            // Only of this interval, or claimed. What is older did not belong to a workload, because host endpoints use policies too.
            let left = zip(left, plus(self.counted(policy), self.claimed[place].map(Some)), smaller);
            if left != NOTHING && left[Verdict::Deny as usize].is_some() && left[Verdict::Pass as usize].is_some() {
                leftovers.insert(self.table.key(policy.chain), left);
            }
        }
    }
}
