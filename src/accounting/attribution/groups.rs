//! Turns the group chains of a read into margins for [`group`](super::group), and what it credits into totals.

use std::collections::HashMap;
use std::sync::Arc;

use crate::felix::{Decision, Direction, EndpointKind, GroupChain, Pipeline, PolicyChain, Target};
use crate::ruleset::RuleId;

use super::ChainKey;
use super::foreign::Disturbance;
use super::group::{Carry, Credits, Margin, Margins, credit, credit_undivided, signed};
use super::table::{ByChain, TableView};
use super::tier::{Can, Split};
use super::totals::{Item, PerVerdict, Totals, Verdict};
use super::walk::TargetRead;
use super::witnessed::Cells;

pub struct Member<'a> {
    pub pipeline: &'a Pipeline,
    pub tier: &'a Arc<str>,
    /// The member's jump to the group, and the return of what the group accepted.
    pub target: &'a Target,
    /// The rule that counts what the group left undecided.
    pub undecided: Option<RuleId>,
    pub read: TargetRead,
}

impl Member<'_> {
    /// Whether its counters give this verdict alone.
    fn counts(&self, verdict: Verdict) -> bool {
        verdict == Verdict::Accept || self.read.split.verdicts(self.read.can).any(|v| v == verdict)
    }

    /// Whether its row can contain packets of this verdict, even if their number is unknown.
    fn may_count(&self, verdict: Verdict) -> bool {
        match self.read.split {
            // Its passes mix with what no policy decided.
            Split::Nothing => self.read.can.pass && matches!(verdict, Verdict::Pass | Verdict::DenyOrPass),
            Split::Deny => verdict == Verdict::Deny || verdict == Verdict::DenyOrPass,
            Split::Pass => verdict == Verdict::Pass || verdict == Verdict::DenyOrPass,
            Split::Own | Split::ByTotal | Split::Sum | Split::DenyOnly | Split::Open => true,
        }
    }

    fn item(&self, policy: &Arc<str>, verdict: Verdict) -> Item {
        Item::Policy { tier: Arc::clone(self.tier), policy: Arc::clone(policy), verdict }
    }
}

/// What is carried from read to read for one group chain.
#[derive(Debug, Default)]
pub struct GroupState {
    members: Vec<(EndpointKind, Arc<str>, Direction)>,
    carries: PerVerdict<Carry>,
    /// Per member: a debt below zero, or a difference that is in doubt and not credited yet.
    waiting: PerVerdict<Vec<i64>>,
    /// How far the jumps of all members together are ahead of the group's first rule.
    entries_ahead: i64,
    /// What each policy could decide since the oldest packet that is not credited yet.
    could: Vec<Can>,
}

impl GroupState {
    fn nothing_waits(&self) -> bool {
        self.waiting.iter().flatten().all(|packets| *packets <= 0) && self.carries.iter().all(Carry::is_empty)
    }
}

/// What is carried, by group chain. A group that changes gets a new name.
pub type Groups = HashMap<ChainKey, GroupState>;

pub fn credit_all(view: &TableView, members: ByChain<Member>, before: &mut Groups, now: &mut Groups, totals: &mut Totals) {
    for (chain, members) in members.0 {
        let Some(group) = view.table.pipelines.group(chain) else { continue };
        let can = group.policy_chains().map(|policy| view.can(policy)).collect();
        let names = group.policy_chains().map(|policy| Some(&view.table.labels.get(policy)?.label)).collect();
        let key = view.table.key(chain);
        let mut state = before.remove(&key).unwrap_or_default();
        GroupRead { view, group, can, names, members: &members }.credit(&mut state, totals);
        now.insert(key, state);
    }
}

struct GroupRead<'a> {
    view: &'a TableView<'a>,
    group: &'a GroupChain,
    can: Vec<Can>,
    names: Vec<Option<&'a Arc<str>>>,
    members: &'a [Member<'a>],
}

impl GroupRead<'_> {
    fn credit(&self, state: &mut GroupState, totals: &mut Totals) {
        let members = self.members.iter().map(|member| member.pipeline);
        let members: Vec<_> = members.map(|p| (p.kind, Arc::clone(&p.interface), p.direction)).collect();
        if state.members != members {
            // The numbers of other members mean nothing for these.
            *state = GroupState { members, could: std::mem::take(&mut state.could), ..GroupState::default() };
        }
        if !self.counts_on() {
            // What was out of step before means nothing now.
            (state.carries, state.entries_ahead) = Default::default();
        }
        let in_step = self.in_step(state) && !self.is_disturbed();
        let (could, witnessed) = (self.could(&state.could), self.witnessed());
        for verdict in Verdict::ALL {
            if self.members.iter().any(|member| member.counts(verdict)) {
                let carry = &mut state.carries[verdict as usize];
                let margins = self.margins(verdict, in_step, &witnessed, &mut state.waiting[verdict as usize], carry);
                let one_alone_can = !self.may_have_differed() && could.iter().filter(|can| decides(**can, verdict)).count() == 1;
                // If nothing moves, rows and columns together show more.
                let mut credits =
                    if one_alone_can && margins.hidden > 0 { credit_undivided(&margins, carry) } else { credit(&margins, carry) };
                if self.is_disturbed() && margins.hidden == 0 {
                    credits.release(carry);
                }
                self.record(verdict, &credits, &witnessed, &could, totals);
            }
        }
        state.could = if state.nothing_waits() { self.can.clone() } else { could };
        // What was credited to several policies together is shown again, even if other policies can decide now.
        let names: Vec<&Arc<str>> = self.names.iter().copied().flatten().collect();
        self.members.iter().for_each(|member| totals.of(member.pipeline).keep_joined(member.tier, &names));
        if self.is_disturbed() {
            // Rows and columns of such an interval may never balance.
            let GroupState { members, could, .. } = std::mem::take(state);
            *state = GroupState { members, could, ..GroupState::default() };
        }
    }

    /// Whether foreign rules matched since the last read, in the group or on the way to it.
    fn is_disturbed(&self) -> bool {
        self.view.disturbance(self.group.chain) > Disturbance::None || self.members.iter().any(|member| member.read.disturbed.any())
    }

    /// Whether all rules that count for the group have counted on since the last read.
    fn counts_on(&self) -> bool {
        let deltas = self.view.table.deltas;
        let of_member = |member: &Member| [Some(member.target.jump), member.target.accepted, member.undecided].into_iter().flatten();
        deltas.unchanged(self.group.chain)
            && self.group.policy_chains().all(|policy| deltas.unchanged(policy))
            && self.members.iter().flat_map(of_member).all(|rule| deltas.since_last_read(rule).is_some())
    }

    /// Whether as many packets entered the group as were sent to it, at this read and at the one before.
    fn in_step(&self, state: &mut GroupState) -> bool {
        let deltas = self.view.table.deltas;
        let left: Option<i64> = self.members.iter().map(|member| deltas.since_last_read(member.target.jump)).sum();
        let entered = self.group.policies.first().and_then(|(jump, _)| deltas.since_last_read(*jump));
        let before = state.entries_ahead;
        let Some((left, entered)) = left.zip(entered) else {
            state.entries_ahead = 0;
            return false;
        };
        state.entries_ahead = if (left, entered) == (0, 0) { 0 } else { before + left - entered };
        before == 0 && state.entries_ahead == 0
    }

    fn witnessed(&self) -> Cells {
        let of_member = |member: &Member| self.group.policy_chains().map(|policy| self.view.witnessed(member.pipeline, policy)).collect();
        Cells(self.members.iter().map(of_member).collect())
    }

    /// Returns rows and columns without traced packets.
    fn margins(&self, verdict: Verdict, in_step: bool, witnessed: &Cells, waiting: &mut Vec<i64>, carry: &mut Carry) -> Margins {
        waiting.resize(self.members.len(), 0);
        let row = |((place, member), waiting)| self.row(member, verdict, witnessed.row(place, verdict), waiting);
        let mut rows: Vec<Margin> = self.members.iter().enumerate().zip(waiting.iter_mut()).map(row).collect();
        for (row, waiting) in waiting.iter_mut().enumerate().filter(|(_, waiting)| **waiting < 0) {
            let withdrawn = carry.withdraw(row, waiting.unsigned_abs());
            // A debt is at most what is in flight now.
            *waiting = (*waiting + signed(withdrawn)).max(-signed(self.members[row].read.entering));
        }
        let column = |index| self.column(index, verdict).less(witnessed.column(index, verdict));
        let columns: Vec<Margin> = (0..self.group.policies.len()).map(column).collect();
        let (hidden, held_up) = (self.on_their_way(verdict), self.view.table.motion.held_up());
        let was_still = self.group.policy_chains().all(|policy| self.view.was_still(policy));
        if hidden == 0 && was_still && self.users_are_known() {
            complete(&mut rows, &columns, held_up);
        }
        // Accepts are counted directly. A difference of zero may hide one packet in flight at the last read and another one now.
        let derived = verdict != Verdict::Accept;
        Margins { rows, columns, in_step, quiet: !derived || self.nothing_entered(), hidden, held_up, derived }
    }

    /// Returns how many packets may be counted in a row and not in its column at this read, or the other way round. The first have moved in
    /// columns, the second in rows. A packet that stood still in between has moved in neither. It makes the sums of rows and columns
    /// differ, unless others of the second kind hide it.
    fn on_their_way(&self, verdict: Verdict) -> u64 {
        let motion = self.view.table.motion;
        let row = |member: &Member| {
            let ways = [Some(member.target.jump), member.undecided].into_iter().flatten().filter(|_| verdict != Verdict::Accept);
            motion.sum(member.target.accepted.into_iter().chain(ways))
        };
        let column = |index: usize| {
            let policy = self.group.policies[index].1;
            let rules = self.view.table.pipelines.policy(policy).into_iter();
            let decisions = rules.flat_map(|rules| verdict.decisions().iter().flat_map(move |decision| rules.rules_that(*decision)));
            let jumps = (index..index + 2).filter_map(|index| Some(self.group.policies.get(index)?.0));
            // A policy that is used elsewhere too is counted by the jumps around it.
            let jumps = jumps.filter(|_| self.view.references(policy) > 1);
            motion.sum(decisions.chain(jumps))
        };
        let rows = self.members.iter().map(row).fold(0, u64::saturating_add);
        rows.max((0..self.group.policies.len()).map(column).fold(0, u64::saturating_add))
    }

    fn nothing_entered(&self) -> bool {
        self.members.iter().all(|member| self.view.table.deltas.since_last_read(member.target.jump) == Some(0))
    }

    fn row(&self, member: &Member, verdict: Verdict, witnessed: u64, waiting: &mut i64) -> Margin {
        let deltas = self.view.table.deltas;
        if verdict == Verdict::Accept {
            let Some(accepted) = member.target.accepted.filter(|_| !member.read.disturbed.accepted) else { return Margin::default() };
            let least = deltas.packets(accepted);
            return Margin { least, most: deltas.since_last_read(accepted).map(|_| least) }.less(witnessed);
        }
        if !member.may_count(verdict) && !self.view.can(self.group.chain).changed {
            return Margin::exact(0);
        }
        let TargetRead { since_last_read, since_written, doubt, entering, .. } = member.read;
        let Some(difference) = since_last_read.of(verdict) else {
            let seen = since_written.of(verdict).unwrap_or_else(|| -signed(entering));
            // Traced packets may have come before the rules were written.
            let seen = seen.min(0).max(seen - signed(witnessed));
            return Margin { least: certain(seen, doubt, waiting), most: None };
        };
        let difference = difference - signed(witnessed);
        let doubt = doubt.max(since_last_read.excess(*waiting));
        Margin::exact(certain(*waiting + difference, doubt, waiting))
    }

    /// Returns what the policy at `index` decided in this group. Its own rules count for everything that refers to it. If not only this
    /// group does, the group's own jumps show how many packets stayed with the policy.
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

    /// Whether only the members used the group since the last read.
    fn users_are_known(&self) -> bool {
        let steady = self.view.is_steady(self.group.chain) && self.view.references(self.group.chain) as usize == self.members.len();
        let is_member = |chain| self.members.iter().any(|member| member.pipeline.chain == chain);
        // An endpoint that was rewritten, and is no member now, may have been one.
        let had_no_others = |direction| self.view.inflow_of_others(direction, is_member) == Some(0);
        let direction = self.members.first().map(|first| first.pipeline.direction);
        steady && (!self.view.table.deltas.rewritten || direction.is_some_and(had_no_others))
    }

    fn counted(&self, policy: &PolicyChain, verdict: Verdict) -> Margin {
        verdict.decisions().iter().map(|decision| self.view.margin(policy, *decision)).fold(Margin::exact(0), Margin::plus)
    }

    /// Returns packets that went to the policy at `index` and not on to the next one.
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

    fn record(&self, verdict: Verdict, credits: &Credits, witnessed: &Cells, could: &[Can], totals: &mut Totals) {
        let group = self.view.table.labels.get(self.group.chain).map(|label| &label.label);
        let (now, since) = (self.together(&self.can, verdict), self.together(could, verdict));
        let several = self.can.iter().filter(|can| decides(**can, verdict)).count() > 1;
        for (((member, cells), traced), rest) in self.members.iter().zip(&credits.cells).zip(&witnessed.0).zip(&credits.group) {
            let mut recorder = totals.of(member.pipeline);
            let disturbed = member.read.disturbed;
            let unknown = if verdict == Verdict::Accept { disturbed.accepted } else { disturbed.decided };
            if unknown && verdict != Verdict::Accept {
                let names = self.names.iter().copied().flatten().chain(group);
                names.for_each(|name| recorder.unknown_decisions(&mut member.item(name, verdict)));
            }
            if unknown {
                // The other family may show another share of the group.
                group.into_iter().for_each(|group| recorder.unknown(&member.item(group, verdict)));
            }
            for (((name, can), packets), traced) in self.names.iter().zip(&self.can).zip(cells).zip(traced) {
                let Some(policy) = name else { continue };
                if verdict == Verdict::Accept || (member.counts(verdict) && decides(*can, verdict)) {
                    recorder.add_unless(unknown, &member.item(policy, single(verdict, *can)), *packets);
                }
                if member.counts(verdict) {
                    for told in verdict.decisions().iter().filter_map(|decision| Verdict::of(*decision)) {
                        match traced.of(told) {
                            0 if verdict == Verdict::DenyOrPass => recorder.keep_if_counted(&member.item(policy, told)),
                            0 => {}
                            packets => recorder.add_unless(unknown, &member.item(policy, told), packets),
                        }
                    }
                }
            }
            if member.counts(verdict) && several {
                recorder.add_unless(unknown, &member.item(&now.name, now.verdict), 0);
            }
            if member.counts(verdict) && *rest > 0 {
                recorder.add_unless(unknown, &member.item(&since.name, since.verdict), *rest);
            }
            if verdict == Verdict::Deny && member.counts(verdict) && member.read.refusals_are_known {
                let item = Item::PolicyDrop { tier: Arc::clone(member.tier) };
                let traced = traced.iter().map(|cell| cell.of(verdict)).sum::<u64>();
                recorder.add_unless(unknown, &item, cells.iter().sum::<u64>() + traced + rest);
            }
        }
    }

    /// Returns what each policy can have decided of all that is credited now. If anything waited, this includes what it could before.
    fn could(&self, before: &[Can]) -> Vec<Can> {
        let anything = Can { accept: true, deny: true, pass: true, ..Can::default() };
        let may_have_differed = self.may_have_differed();
        let could = |(place, can): (usize, &Can)| match before.get(place) {
            Some(before) if !can.changed && !may_have_differed => can.or(*before),
            _ => anything,
        };
        self.can.iter().enumerate().map(could).collect()
    }

    /// Whether the group's rules may have been different for a while since the last read, though they are the same again.
    fn may_have_differed(&self) -> bool {
        let deltas = self.view.table.deltas;
        (deltas.rewritten && !deltas.handles_prove_ages) || self.view.can(self.group.chain).changed || self.is_disturbed()
    }

    /// Returns what packets are credited to if one of several policies decided so, and it is unknown which. `can` is what each can decide.
    fn together(&self, can: &[Can], verdict: Verdict) -> Together {
        let deciding = || self.names.iter().zip(can).filter(|(_, can)| decides(**can, verdict));
        let joined = |names: &mut dyn Iterator<Item = &Option<&Arc<str>>>| {
            names.copied().flatten().map(|name| &**name).collect::<Vec<_>>().join(",").into()
        };
        let mut all = deciding().map(|(_, can)| *can);
        match (all.next(), all.next()) {
            (None, _) => Together { name: joined(&mut self.names.iter()), verdict },
            (Some(can), None) => Together { name: joined(&mut deciding().map(|(name, _)| name)), verdict: single(verdict, can) },
            (Some(_), Some(_)) => Together { name: joined(&mut deciding().map(|(name, _)| name)), verdict },
        }
    }
}

/// What packets are credited to if no single policy of a group can be shown to have decided them.
struct Together {
    name: Arc<str>,
    verdict: Verdict,
}

/// Fills in the only row that is unknown because its rules were rewritten: what the policies decided and no other row got.
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

/// Returns what is beyond doubt of a difference. The rest waits.
fn certain(difference: i64, doubt: u64, waiting: &mut i64) -> u64 {
    let certain = difference.saturating_sub(signed(doubt)).max(0);
    *waiting = difference - certain;
    u64::try_from(certain).unwrap_or(0)
}

/// Whether a policy with these abilities can cause the verdict.
fn decides(can: Can, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Accept => can.accept,
        Verdict::Deny => can.deny,
        Verdict::Pass => can.pass,
        Verdict::DenyOrPass => can.deny || can.pass,
    }
}

/// Returns what `DenyOrPass` means for a single policy.
fn single(verdict: Verdict, can: Can) -> Verdict {
    match (verdict, can.deny, can.pass) {
        (Verdict::DenyOrPass, true, false) => Verdict::Deny,
        (Verdict::DenyOrPass, false, true) => Verdict::Pass,
        _ => verdict,
    }
}
