//! The group chains of a read → margins for [`group`](super::group), and what it credits → totals.

use std::collections::HashMap;
use std::sync::Arc;

use crate::felix::{Decision, Direction, EndpointKind, GroupChain, PolicyChain};
use crate::ruleset::{ChainId, RuleId, TableId};

use super::foreign::{Disturbance, Doubts};
use super::group::{Carry, Credits, Margin, Margins, credit, credit_undivided};
use super::table::TableView;
use super::tier::{Can, Decided, Split};
use super::totals::{Item, Recorder, Totals, Verdict};

/// An endpoint that uses a group.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it is.
    pub kind: EndpointKind,
    /// Its interface.
    pub interface: Arc<str>,
    /// Its direction.
    pub direction: Direction,
    /// The tier in which it uses the group.
    pub tier: Arc<str>,
    /// Its chain.
    pub chain: ChainId,
    /// Its jump to the group.
    pub jump: RuleId,
    /// The return of what the group accepted.
    pub accepted: Option<RuleId>,
    /// The rule that counts what the group left undecided.
    pub undecided: Option<RuleId>,
    /// What the group's policies have rules for.
    pub can: Can,
    /// How refusals and passes of the group can be told apart.
    pub split: Split,
    /// What it refused and passed on since the last read.
    pub decided: Decided,
    /// The same, if its rules were written later than that.
    pub since_written: Decided,
    /// By how many packets that may be too high.
    pub doubt: u64,
    /// How many packets the next difference may have too many, if it begins at this read.
    pub entering: u64,
    /// What foreign rules made unknown of it.
    pub doubts: Doubts,
    /// Whether all that the tier's policies refused is known, so that it can be shown as a sum.
    pub refusals_are_known: bool,
}

/// What is carried from read to read for one group chain.
#[derive(Debug, Default)]
struct GroupState {
    /// The workloads that the carried numbers belong to.
    members: Vec<(EndpointKind, Arc<str>, Direction)>,
    carries: [Carry; 4],
    /// Per verdict and member: a difference below zero, to be made up for; or what was in doubt, and is not credited yet.
    waiting: [Vec<i64>; 4],
    /// How far the jumps of all members together are ahead of the group's first rule.
    entries_ahead: i64,
    /// What each policy could decide since the oldest packet that is not credited yet.
    could: Vec<Can>,
    seen: bool,
}

impl GroupState {
    fn nothing_waits(&self) -> bool {
        self.waiting.iter().flatten().all(|packets| *packets <= 0) && self.carries.iter().all(Carry::is_empty)
    }
}

/// The groups of all tables.
#[derive(Debug, Default)]
pub struct Groups {
    states: HashMap<(TableId, Arc<str>), GroupState>,
    /// Of the table that is being read.
    members: Vec<(ChainId, Vec<Member>)>,
}

impl Groups {
    /// Notes a workload that uses a group.
    pub fn add(&mut self, group: ChainId, member: Member) {
        match self.members.iter_mut().rev().find(|(chain, _)| *chain == group) {
            Some((_, members)) => members.push(member),
            None => self.members.push((group, vec![member])),
        }
    }

    /// Credits all groups of a table.
    pub fn credit(&mut self, view: &TableView, totals: &mut Totals) {
        for (chain, members) in std::mem::take(&mut self.members) {
            let Some(group) = view.table.pipelines.group(chain) else { continue };
            let key = (view.table.ruleset.id(), Arc::clone(&view.table.ruleset.chain(chain).name));
            let state = self.states.entry(key).or_default();
            GroupRead { view, group, members: &members }.credit(state, totals);
        }
    }

    /// Forgets groups that the read did not meet: a changed group has a new name.
    pub fn end_read(&mut self) {
        self.states.retain(|_, state| std::mem::take(&mut state.seen));
    }
}

/// One group in one read.
struct GroupRead<'a> {
    view: &'a TableView<'a>,
    group: &'a GroupChain,
    members: &'a [Member],
}

/// As what packets are credited that no single policy of a group can be shown to have decided.
struct Together {
    label: Arc<str>,
    verdict: Verdict,
}

impl GroupRead<'_> {
    fn credit(&self, state: &mut GroupState, totals: &mut Totals) {
        state.seen = true;
        let members: Vec<_> = self.members.iter().map(|m| (m.kind, Arc::clone(&m.interface), m.direction)).collect();
        let moved = state.members != members;
        if moved {
            // Numbers of other workloads mean nothing here.
            *state = GroupState { members, seen: true, could: std::mem::take(&mut state.could), ..GroupState::default() };
        }
        if !self.counts_on() {
            // What was out of step before means nothing now.
            (state.carries, state.entries_ahead) = Default::default();
        }
        let in_step = self.in_step(state) && !self.is_disturbed();
        let can: Vec<Can> = self.group.policies.iter().map(|(_, policy)| self.view.can(*policy)).collect();
        let could = self.could(&can, &state.could);
        for verdict in [Verdict::Accept, Verdict::Deny, Verdict::Pass, Verdict::DenyOrPass] {
            if self.members.iter().any(|member| counts(member, verdict)) {
                let carry = &mut state.carries[verdict as usize];
                let margins = self.margins(verdict, in_step, &mut state.waiting[verdict as usize], carry);
                let one_alone_can = !self.may_have_differed() && could.iter().filter(|can| decides(**can, verdict)).count() == 1;
                // Where nothing moves, rows and columns together tell more.
                let mut credits =
                    if one_alone_can && margins.hidden > 0 { credit_undivided(&margins, carry) } else { credit(&margins, carry) };
                if self.is_disturbed() && margins.hidden == 0 {
                    credits.release(carry);
                }
                self.record(verdict, &credits, (&can, &could), totals);
            }
        }
        state.could = if state.nothing_waits() { can } else { could };
        self.keep(totals);
        if self.is_disturbed() {
            // Rows and columns of such an interval need not balance, ever.
            let GroupState { members, could, .. } = std::mem::take(state);
            *state = GroupState { members, could, seen: true, ..GroupState::default() };
        }
    }

    /// Whether foreign rules matched since the last read, on the way to the group or in it.
    fn is_disturbed(&self) -> bool {
        self.view.disturbance(self.group.chain) > Disturbance::None || self.members.iter().any(|member| member.doubts.any())
    }

    /// Whether all rules that tell of the group have counted on since the last read.
    fn counts_on(&self) -> bool {
        let deltas = self.view.table.deltas;
        let of_member = |member: &Member| [Some(member.jump), member.accepted, member.undecided].into_iter().flatten();
        deltas.unchanged(self.group.chain)
            && self.group.policies.iter().all(|(_, policy)| deltas.unchanged(*policy))
            && self.members.iter().flat_map(of_member).all(|rule| deltas.since_last_read(rule).is_some())
    }

    /// Whether as many packets entered the group as left for it, at this read and the one before.
    fn in_step(&self, state: &mut GroupState) -> bool {
        let deltas = self.view.table.deltas;
        let left: Option<i64> = self.members.iter().map(|member| deltas.since_last_read(member.jump)).sum();
        let entered = self.group.policies.first().and_then(|(jump, _)| deltas.since_last_read(*jump));
        let before = state.entries_ahead;
        let Some((left, entered)) = left.zip(entered) else {
            state.entries_ahead = 0;
            return false;
        };
        state.entries_ahead = if (left, entered) == (0, 0) { 0 } else { before + left - entered };
        before == 0 && state.entries_ahead == 0
    }

    fn margins(&self, verdict: Verdict, in_step: bool, waiting: &mut Vec<i64>, carry: &mut Carry) -> Margins {
        waiting.resize(self.members.len(), 0);
        let mut rows: Vec<Margin> =
            self.members.iter().zip(waiting.iter_mut()).map(|(member, waiting)| self.row(member, verdict, waiting)).collect();
        for (row, waiting) in waiting.iter_mut().enumerate().filter(|(_, waiting)| **waiting < 0) {
            let withdrawn = carry.withdraw(row, waiting.unsigned_abs());
            // A debt is no larger than what is on its way now.
            *waiting = (*waiting + signed(withdrawn)).max(-signed(self.members[row].entering));
        }
        let columns: Vec<Margin> = (0..self.group.policies.len()).map(|index| self.column(index, verdict)).collect();
        let (hidden, held_up) = (self.on_their_way(verdict), self.view.table.motion.held_up());
        let was_still = self.group.policies.iter().all(|(_, policy)| self.view.was_still(*policy));
        if hidden == 0 && was_still && self.users_are_known() {
            complete(&mut rows, &columns, held_up);
        }
        // Accepts are counted as they are; a difference of zero can be a packet on its way at the last read and another one now.
        let derived = verdict != Verdict::Accept;
        Margins { rows, columns, in_step, quiet: !derived || self.nothing_entered(), hidden, held_up, derived }
    }

    /// How many packets may be counted in a row and not in its column at this read; or as many the other way round. The first have moved in
    /// columns, the second in rows. One that stood still in between, and moved nowhere, makes rows and columns differ in all, unless it
    /// is hidden by others of the second kind.
    fn on_their_way(&self, verdict: Verdict) -> u64 {
        let motion = self.view.table.motion;
        let row = |member: &Member| {
            let ways = [Some(member.jump), member.undecided].into_iter().flatten().filter(|_| verdict != Verdict::Accept);
            motion.sum(member.accepted.into_iter().chain(ways))
        };
        let column = |index: usize| {
            let policy = self.group.policies[index].1;
            let decisions = self.view.table.pipelines.policy(policy).into_iter().flat_map(|policy| decisions(policy, verdict));
            let jumps = (index..index + 2).filter_map(|index| Some(self.group.policies.get(index)?.0));
            // What is used elsewhere too is counted by the jumps around it.
            let jumps = jumps.filter(|_| self.view.references(policy) > 1);
            motion.sum(decisions.chain(jumps))
        };
        let sum = |packets: &mut dyn Iterator<Item = u64>| packets.fold(0, u64::saturating_add);
        sum(&mut self.members.iter().map(row)).max(sum(&mut (0..self.group.policies.len()).map(column)))
    }

    fn nothing_entered(&self) -> bool {
        self.members.iter().all(|member| self.view.table.deltas.since_last_read(member.jump) == Some(0))
    }

    fn row(&self, member: &Member, verdict: Verdict, waiting: &mut i64) -> Margin {
        let deltas = self.view.table.deltas;
        if verdict == Verdict::Accept {
            let Some(accepted) = member.accepted.filter(|_| !member.doubts.accepted) else { return Margin::default() };
            let least = deltas.packets(accepted);
            return Margin { least, most: deltas.since_last_read(accepted).map(|_| least) };
        }
        if !may_count(member, verdict) && !self.view.can(self.group.chain).changed {
            return Margin::exact(0);
        }
        let Some(difference) = member.decided.of(verdict) else {
            let seen = member.since_written.of(verdict);
            let (least, rest) = certain(seen.unwrap_or_else(|| -signed(member.entering)), member);
            *waiting = rest;
            return Margin { least, most: None };
        };
        let doubt = member.doubt.max(member.decided.excess(*waiting));
        let (certain, rest) = certain(*waiting + difference, &Member { doubt, ..member.clone() });
        *waiting = rest;
        Margin::exact(certain)
    }

    /// What the policy at `index` decided in this group. Its own rules count for everything that refers to it; if that is more than
    /// this group, the group's own jumps tell how many packets stayed with the policy.
    fn column(&self, index: usize, verdict: Verdict) -> Margin {
        let chain = self.group.policies[index].1;
        let Some(policy) = self.view.table.pipelines.policy(chain) else { return Margin::default() };
        let counted = self.counted(policy, verdict);
        if counted == Margin::exact(0) || (self.view.references(chain) <= 1 && self.view.is_steady(chain) && self.users_are_known()) {
            return counted;
        }
        let Some(stayed) = self.stayed(index) else { return Margin { least: 0, ..counted } };
        let all = [Decision::Accept, Decision::Deny, Decision::Pass].map(|d| self.view.margin(policy, d));
        let elsewhere = all.iter().try_fold(0u64, |sum, margin| Some(sum + margin.most?)).zip(counted.most).map(|(all, own)| all - own);
        let least = elsewhere.map_or(0, |others| stayed.saturating_sub(others));
        Margin { least, most: Some(counted.most.map_or(stayed, |most| most.min(stayed))) }
    }

    /// Whether the members, and nobody else, used the group since the last read.
    fn users_are_known(&self) -> bool {
        let steady = self.view.is_steady(self.group.chain) && self.view.references(self.group.chain) as usize == self.members.len();
        steady && (!self.view.table.deltas.rewritten || self.had_no_others())
    }

    /// Whether no endpoint that was written anew, and is no member now, can have been one since the last read.
    fn had_no_others(&self) -> bool {
        let Some(first) = self.members.first() else { return false };
        self.view.strangers(first.direction, |chain| self.members.iter().any(|member| member.chain == chain)) == Some(0)
    }

    fn counted(&self, policy: &PolicyChain, verdict: Verdict) -> Margin {
        match verdict {
            Verdict::Accept => self.view.margin(policy, Decision::Accept),
            Verdict::Deny => self.view.margin(policy, Decision::Deny),
            Verdict::Pass => self.view.margin(policy, Decision::Pass),
            Verdict::DenyOrPass => {
                let (deny, pass) = (self.view.margin(policy, Decision::Deny), self.view.margin(policy, Decision::Pass));
                Margin { least: deny.least + pass.least, most: deny.most.zip(pass.most).map(|(a, b)| a + b) }
            }
        }
    }

    /// Packets that went to the policy at `index` and not on to the next one.
    fn stayed(&self, index: usize) -> Option<u64> {
        if self.is_disturbed() || !self.users_are_known() {
            return None;
        }
        let deltas = self.view.table.deltas;
        let went_in = deltas.since_last_read(self.group.policies[index].0)?;
        let went_on = match self.group.policies.get(index + 1) {
            Some((next, _)) => deltas.since_last_read(*next)?,
            None => self.members.iter().map(|member| deltas.since_last_read(member.undecided?)).sum::<Option<i64>>()?,
        };
        u64::try_from(went_in - went_on).ok()
    }

    fn record(&self, verdict: Verdict, credits: &Credits, (can, could): (&[Can], &[Can]), totals: &mut Totals) {
        let labels: Vec<Option<(Arc<str>, Can)>> = self.group.policies.iter().map(|(_, policy)| self.label(*policy)).collect();
        let group = self.view.table.labels.get(self.group.chain).map(|label| Arc::clone(&label.label));
        let (now, since) = (self.together(can, verdict), self.together(could, verdict));
        let several = can.iter().filter(|can| decides(**can, verdict)).count() > 1;
        for ((member, cells), rest) in self.members.iter().zip(&credits.cells).zip(&credits.group) {
            let mut recorder = totals.endpoint(member.kind, &member.interface, member.direction);
            let unknown = if verdict == Verdict::Accept { member.doubts.accepted } else { member.doubts.decided };
            if unknown && verdict != Verdict::Accept {
                let names = labels.iter().flatten().map(|(label, _)| label).chain(&group);
                names.for_each(|name| recorder.unknown_decisions(&mut policy_item(member, name, verdict)));
            }
            if unknown {
                // The other family may show another share of the group.
                group.iter().for_each(|group| recorder.unknown(&policy_item(member, group, verdict)));
            }
            for (label, packets) in labels.iter().zip(cells) {
                let Some((policy, can)) = label else { continue };
                if verdict == Verdict::Accept || (counts(member, verdict) && decides(*can, verdict)) {
                    recorder.add_unless(unknown, &policy_item(member, policy, single(verdict, *can)), *packets);
                }
            }
            if counts(member, verdict) && several {
                recorder.add_unless(unknown, &policy_item(member, &now.label, now.verdict), 0);
            }
            if counts(member, verdict) && *rest > 0 {
                recorder.add_unless(unknown, &policy_item(member, &since.label, since.verdict), *rest);
            }
            record_refusals(&mut recorder, member, verdict, cells.iter().sum::<u64>() + rest);
        }
    }

    /// Shows again what was credited to several policies together, when others of them could decide.
    fn keep(&self, totals: &mut Totals) {
        let labels: Vec<Arc<str>> = self.group.policies.iter().filter_map(|(_, policy)| Some(self.label(*policy)?.0)).collect();
        for member in self.members {
            totals.endpoint(member.kind, &member.interface, member.direction).keep_joined(&member.tier, &labels);
        }
    }

    /// What each policy can have decided of all that is credited now: what it can, and what it could before, if any of that waited.
    fn could(&self, can: &[Can], before: &[Can]) -> Vec<Can> {
        let anything = Can { accept: true, deny: true, pass: true, ..Can::default() };
        let deltas = self.view.table.deltas;
        // Rules may have been others for a while, and be as they were.
        let may_differ =
            (deltas.rewritten && !deltas.handles_prove_ages()) || self.view.can(self.group.chain).changed || self.is_disturbed();
        let could = |(place, can): (usize, &Can)| match before.get(place) {
            _ if can.changed || may_differ => anything,
            Some(before) => can.or(*before),
            None => anything,
        };
        can.iter().enumerate().map(could).collect()
    }

    /// Whether the group's rules may have been others for a while since the last read, though they are as they were.
    fn may_have_differed(&self) -> bool {
        let deltas = self.view.table.deltas;
        (deltas.rewritten && !deltas.handles_prove_ages()) || self.view.can(self.group.chain).changed || self.is_disturbed()
    }

    /// As what to credit what one of the policies that can do this has decided so.
    fn together(&self, can: &[Can], verdict: Verdict) -> Together {
        let policies = || self.group.policies.iter().map(|(_, policy)| *policy).zip(can).filter(|(_, can)| decides(**can, verdict));
        let mut deciding = policies();
        match (deciding.next(), deciding.next()) {
            (Some((_, can)), None) => Together { label: self.joined(policies().map(|(policy, _)| policy)), verdict: single(verdict, *can) },
            (Some(_), Some(_)) => Together { label: self.joined(policies().map(|(policy, _)| policy)), verdict },
            (None, _) => Together { label: self.joined(self.group.policies.iter().map(|(_, policy)| *policy)), verdict },
        }
    }

    fn joined(&self, policies: impl Iterator<Item = ChainId>) -> Arc<str> {
        self.view.table.labels.joined(policies).into()
    }

    fn label(&self, policy: ChainId) -> Option<(Arc<str>, Can)> {
        Some((Arc::clone(&self.view.table.labels.get(policy)?.label), self.view.can(policy)))
    }
}

fn policy_item(member: &Member, policy: &Arc<str>, verdict: Verdict) -> Item {
    Item::Policy { tier: Arc::clone(&member.tier), policy: Arc::clone(policy), verdict }
}

fn record_refusals(recorder: &mut Recorder, member: &Member, verdict: Verdict, packets: u64) {
    if verdict == Verdict::Deny && counts(member, verdict) && member.refusals_are_known {
        recorder.add_unless(member.doubts.decided, &Item::PolicyDrop { tier: Arc::clone(&member.tier) }, packets);
    }
}

/// The one row that is not known, because its rules were written anew, got what the policies decided and no other row got.
fn complete(rows: &mut [Margin], columns: &[Margin], held_up: u64) {
    let decided = columns.iter().map(|column| column.most.filter(|most| *most == column.least)).sum::<Option<u64>>();
    let others = rows.iter().filter_map(|row| row.most).sum::<u64>();
    let mut unknown = rows.iter_mut().filter(|row| row.most.is_none());
    if let (Some(decided), Some(row), None) = (decided, unknown.next(), unknown.next())
        && let Some(packets) = decided.checked_sub(others).filter(|packets| *packets >= row.least)
    {
        *row = match held_up == 0 || packets == row.least {
            true => Margin::exact(packets),
            false => Margin { least: packets.saturating_sub(held_up).max(row.least), most: None },
        };
    }
}

/// What is beyond doubt of a difference, and what is left of it.
fn certain(difference: i64, member: &Member) -> (u64, i64) {
    let certain = difference.saturating_sub(signed(member.doubt)).max(0);
    (u64::try_from(certain).unwrap_or(0), difference - certain)
}

fn signed(packets: u64) -> i64 {
    i64::try_from(packets).unwrap_or(i64::MAX)
}

/// The policy's rules that decide so.
fn decisions(policy: &PolicyChain, verdict: Verdict) -> impl Iterator<Item = RuleId> {
    verdict.decisions().iter().flat_map(|decision| policy.rules_that(*decision))
}

/// Whether the member's counters give this verdict by itself.
fn counts(member: &Member, verdict: Verdict) -> bool {
    verdict == Verdict::Accept || member.split.verdicts(member.can).any(|v| v == verdict)
}

/// Whether packets of this verdict can be among what the member got, known or not.
fn may_count(member: &Member, verdict: Verdict) -> bool {
    match member.split {
        // Its passes mix with what nobody decided.
        Split::Nothing => member.can.pass && matches!(verdict, Verdict::Pass | Verdict::DenyOrPass),
        Split::Deny => verdict == Verdict::Deny || verdict == Verdict::DenyOrPass,
        Split::Pass => verdict == Verdict::Pass || verdict == Verdict::DenyOrPass,
        Split::Own | Split::ByTotal | Split::Sum | Split::DenyOnly | Split::Open => true,
    }
}

/// Whether a policy that can do this can be behind the verdict.
fn decides(can: Can, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Accept => can.accept,
        Verdict::Deny => can.deny,
        Verdict::Pass => can.pass,
        Verdict::DenyOrPass => can.deny || can.pass,
    }
}

/// What `DenyOrPass` means for a single policy.
fn single(verdict: Verdict, can: Can) -> Verdict {
    match (verdict, can.deny, can.pass) {
        (Verdict::DenyOrPass, true, false) => Verdict::Deny,
        (Verdict::DenyOrPass, false, true) => Verdict::Pass,
        _ => verdict,
    }
}
