//! Goes through the rules of one endpoint in the order in which packets meet them: what each counted, and what policies are to be credited
//! with. Adds to totals, claims and groups.

use std::sync::Arc;

use super::Table;
use super::direct::{Claim, Claims, Coverage, Source, Waiting};
use super::foreign::{Disturbed, DisturbedTier, Passage};
use super::group::signed;
use super::groups::Member;
use super::open::User;
use super::table::{ByChain, TableView};
use super::tier::{Can, Counts, Decided, Split, SplitTier, all_rules};
use super::totals::{Item, Recorder, Verdict};
use crate::accounting::ledger::{Deltas, Since};
use crate::felix::{DropReason, DropRule, Label, Pipeline, Target, Tier};

pub struct Walk<'a, 'b> {
    pub view: &'b TableView<'a>,
    /// Differences that wait from the last read.
    pub waited: &'b Waiting,
    pub waiting: &'b mut Waiting,
    pub claims: Claims<'a>,
    pub members: ByChain<Member<'a>>,
    /// Endpoints that use policies or groups after which no rule counts what they left undecided.
    pub open: ByChain<User<'a>>,
}

impl<'a> Walk<'a, '_> {
    pub fn pipeline(&mut self, pipeline: &'a Pipeline, recorder: &mut Recorder) {
        let deltas = self.view.table.deltas;
        if let Some(rule) = pipeline.established {
            recorder.add(&Item::Established, deltas.packets(rule));
        }
        let mut passage = Passage::new(&pipeline.foreign, self.view.table.ruleset, deltas);
        for tier in &pipeline.tiers {
            self.tier(pipeline, tier, &mut passage, recorder);
        }
        self.profiles(pipeline, &mut passage, recorder);
        for drop in &pipeline.drops {
            let item = Item::Drop { reason: drop.reason, tier: Arc::clone(&pipeline.profiles.name) };
            let last = drop.let_through.last().filter(|last| passage.is_disturbed_between(drop.rule, Some(**last)));
            let unknown = last.is_some() || (drop.reason == DropReason::NoProfile && passage.is_marked_at(drop.rule));
            recorder.add_unless(unknown, &item, dropped(drop, deltas));
        }
    }

    fn tier(&mut self, pipeline: &'a Pipeline, tier: &'a Tier, passage: &mut Passage, recorder: &mut Recorder) {
        let split = SplitTier::new(tier, tier.targets.iter().map(|target| self.view.can(target.chain)).collect());
        let disturbed = passage.through(&split, |chain| self.view.disturbance(chain));
        for (index, (target, read)) in tier.targets.iter().zip(targets(self.view, pipeline, &split, &disturbed)).enumerate() {
            if read.split == Split::Open {
                self.open(pipeline, tier, target, &read);
            }
            match self.view.table.pipelines.group(target.chain) {
                Some(_) => {
                    let member = Member { pipeline, tier: &tier.name, target, undecided: tier.undecided_after(index), read };
                    self.members.add(target.chain, member);
                }
                None => self.policy(pipeline, target, &read, recorder),
            }
        }
        if let Some(end) = tier.end {
            let item = Item::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(&tier.name) };
            recorder.add_unless(disturbed.end, &item, self.view.table.deltas.packets(end));
        }
        let item = Item::PolicyDrop { tier: Arc::clone(&tier.name) };
        if split.refusals_are_known() {
            let unknown = disturbed.targets.iter().zip(&split.can).any(|(disturbed, can)| disturbed.decided && can.deny);
            recorder.add_unless(unknown, &item, 0);
        } else if split.can_deny() {
            let is_disturbed = disturbed.targets.iter().any(|disturbed| disturbed.any()) || passage.is_disturbed_in(tier);
            match is_disturbed || tier.after.is_none() {
                true => recorder.unknown(&item),
                false => self.refused_in_all(pipeline, tier, &item, recorder),
            }
        }
    }

    /// Records what the policies of a tier denied together, if it is unknown how much each of them denied.
    fn refused_in_all(&mut self, pipeline: &Pipeline, tier: &Tier, item: &Item, recorder: &mut Recorder) {
        let Table { ruleset, deltas, motion, .. } = self.view.table;
        let endpoint = Arc::clone(&ruleset.chain(pipeline.chain).name);
        let source = Source { table: ruleset.id(), endpoint, policy: Arc::clone(&tier.name), verdict: Verdict::Deny };
        let refused = |since| Counts { tier, deltas, since }.refused_in_all();
        let since_last_read = refused(Since::LastRead);
        let packets = match since_last_read {
            Some(packets) => packets + self.waited(&source),
            None => refused(Since::Written).unwrap_or(0),
        };
        let moving = signed(motion.sum(all_rules(tier)));
        let certain = packets.saturating_sub(moving).max(0);
        let rest = (packets - certain).max(-moving);
        self.waiting.extend((rest != 0).then_some((source, rest)));
        recorder.add_counted(item, u64::try_from(certain).unwrap_or(0), since_last_read.is_some());
    }

    /// Notes the use of a policy or group after which no rule counts what it left undecided.
    fn open(&mut self, pipeline: &'a Pipeline, tier: &Tier, target: &'a Target, read: &TargetRead) {
        let mut refusing = self.view.table.pipelines.policies_in(target.chain).filter(|policy| self.view.can(*policy).deny);
        let chain = match (refusing.next(), refusing.next()) {
            (Some(only), None) => only,
            _ => target.chain,
        };
        let Some(Label { label, .. }) = self.view.table.labels.get(chain).filter(|_| self.view.can(chain).deny) else { return };
        let tier = Arc::clone(&tier.name);
        let mut items = vec![Item::Policy { tier: Arc::clone(&tier), policy: Arc::clone(label), verdict: Verdict::Deny }];
        items.extend(read.refusals_are_known.then_some(Item::PolicyDrop { tier }));
        self.open.add(target.chain, User { pipeline, target, items, is_disturbed: read.disturbed.decided });
    }

    /// Records what profiles accepted, which their rules count, and claims what they denied for all of them together.
    fn profiles(&mut self, pipeline: &'a Pipeline, passage: &mut Passage, recorder: &mut Recorder) {
        let profiles = &pipeline.profiles;
        // What a profile passes goes to the next profile, undecided.
        let can = profiles.targets.iter().map(|profile| Can { pass: false, ..self.view.can(profile.chain) });
        let split = SplitTier::new(profiles, can.collect());
        let disturbed = passage.through(&split, |chain| self.view.disturbance(chain));
        for (profile, read) in profiles.targets.iter().zip(targets(self.view, pipeline, &split, &disturbed)) {
            if let (Some(label), Some(accepted)) = (self.view.table.labels.get(profile.chain), profile.accepted) {
                let item = Item::Profile(Arc::clone(&label.label));
                recorder.add_unless(read.disturbed.accepted, &item, self.view.table.deltas.packets(accepted));
            }
            if !read.can.deny {
                continue;
            }
            let item = Item::Drop { reason: DropReason::Profile, tier: Arc::clone(&pipeline.profiles.name) };
            let traced = self.view.witnessed(pipeline, profile.chain).of(Verdict::Deny);
            recorder.add_unless(read.disturbed.decided, &item, traced);
            if let Some(claim) = self.claim(pipeline, profile, Verdict::Deny, &item, &read) {
                self.claims.add(profile.chain, claim);
            }
        }
    }

    /// Records a policy with its own jump: what it accepted is counted, what it denied and passed is claimed.
    fn policy(&mut self, pipeline: &'a Pipeline, target: &Target, read: &TargetRead, recorder: &mut Recorder) {
        let disturbed = read.disturbed;
        let Some(Label { label, tier, .. }) = self.view.table.labels.get(target.chain) else { return };
        let mut item = Item::Policy { tier: Arc::clone(tier), policy: Arc::clone(label), verdict: Verdict::Accept };
        let witnessed = self.view.witnessed(pipeline, target.chain);
        if let Some(accepted) = target.accepted {
            // If the rule was rewritten, its earlier count is lost, but traced packets are not.
            let packets = self.view.table.deltas.packets(accepted).max(witnessed.of(Verdict::Accept));
            recorder.add_unless(disturbed.accepted, &item, packets);
        }
        if disturbed.decided && read.split != Split::Nothing {
            recorder.unknown_decisions(&mut item.clone());
        }
        if read.split == Split::Sum {
            let own = self.own(target, read);
            let traced = [Verdict::Deny, Verdict::Pass].map(|verdict| signed(witnessed.of(verdict)));
            self.parts(read, own.unwrap_or(traced.into()), &item, recorder);
            if own.is_some() {
                item.decided(Verdict::DenyOrPass);
                return recorder.add(&item, 0);
            }
        }
        // Its passes are unknown if they mix with what no policy decided, even if the other family's rules show them.
        let is_told = read.split == Split::Sum || read.split.verdicts(read.can).any(|verdict| verdict == Verdict::Pass);
        if read.can.pass && !is_told {
            item.decided(Verdict::Pass);
            recorder.unknown(&item);
        }
        for verdict in read.split.verdicts(read.can) {
            item.decided(verdict);
            // The parts of a sum have their own totals.
            let traced = if verdict == Verdict::DenyOrPass { 0 } else { witnessed.of(verdict) };
            recorder.add_unless(disturbed.decided, &item, traced);
            let in_sum = read.refusals_are_known && verdict == Verdict::Deny;
            let sum = in_sum.then(|| Item::PolicyDrop { tier: Arc::clone(tier) });
            sum.iter().filter(|_| traced > 0).for_each(|sum| recorder.add_unless(disturbed.decided, sum, traced));
            if let Some(claim) = self.claim(pipeline, target, verdict, &item, read) {
                let doubt = claim.doubt.max(read.since_last_read.excess(self.waited(&claim.source)));
                self.claims.add(target.chain, Claim { sum, doubt, ..claim });
            }
        }
    }

    fn waited(&self, source: &Source) -> i64 {
        self.waited.get(source).copied().unwrap_or(0)
    }

    /// Returns what the policy denied and passed. If only this endpoint used it since the last read, its own rules say what the endpoint's
    /// rules do not.
    fn own(&self, target: &Target, read: &TargetRead) -> Option<(i64, i64)> {
        let own =
            self.view.own_if_others_were_quiet(target.chain, target.jump).filter(|_| !read.disturbed.decided && self.waited.is_empty());
        own.filter(|(deny, pass)| read.since_last_read.deny_or_pass == Some(deny + pass))
    }

    /// Records what a policy denied and what it passed, if the endpoint's rules give only the sum.
    fn parts(&self, read: &TargetRead, (deny, pass): (i64, i64), item: &Item, recorder: &mut Recorder) {
        let is_known = read.since_last_read.deny_or_pass.is_some() || !self.view.table.deltas.rewritten;
        let mut item = item.clone();
        for (verdict, packets) in [(Verdict::Deny, deny), (Verdict::Pass, pass)] {
            item.decided(verdict);
            match read.disturbed.decided {
                true => recorder.unknown(&item),
                false => recorder.add_counted(&item, u64::try_from(packets).unwrap_or(0), is_known),
            }
        }
    }

    /// Returns what an endpoint claims of a policy's decisions. Usually this is nothing.
    fn claim(&self, pipeline: &'a Pipeline, target: &Target, verdict: Verdict, item: &Item, read: &TargetRead) -> Option<Claim<'a>> {
        let Table { ruleset, deltas, reach, .. } = self.view.table;
        // If rules were rewritten, all endpoints that use a policy have to claim.
        let is_wanted = deltas.rewritten || !self.waited.is_empty();
        let traced = signed(self.view.witnessed(pipeline, target.chain).of(verdict));
        let since_last_read = read.since_last_read.of(verdict).map(|packets| packets - traced);
        // Traced packets may have come before the rules were written.
        let since_written = read.since_written.of(verdict).map(|packets| packets.min(0).max(packets - traced));
        let is_idle = match (since_last_read, since_written) {
            (Some(packets), _) => packets == 0,
            (None, Some(_)) => false,
            (None, None) => read.entering == 0,
        };
        if is_idle && !is_wanted {
            return None;
        }
        let name = |chain| Arc::clone(&ruleset.chain(chain).name);
        let source = Source { table: ruleset.id(), endpoint: name(pipeline.chain), policy: name(target.chain), verdict };
        let (packets, coverage) = match since_last_read {
            Some(packets) => (packets + self.waited(&source), Coverage::All),
            None => (since_written.unwrap_or_else(|| -signed(read.entering)), Coverage::Part(reach.of(target.jump))),
        };
        let TargetRead { doubt, entering, .. } = *read;
        Some(Claim { source, pipeline, item: item.clone(), sum: None, packets, doubt, entering, coverage })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct TargetRead {
    pub can: Can,
    pub split: Split,
    pub since_last_read: Decided,
    /// The same since its rules were written, if that is later.
    pub since_written: Decided,
    pub disturbed: Disturbed,
    /// By how many packets these may be too high.
    pub doubt: u64,
    /// By how many packets the next difference may be too high, if it begins at this read.
    pub entering: u64,
    /// Whether all that the tier's policies denied is known, so that it can be shown as a sum.
    pub refusals_are_known: bool,
}

fn targets<'b>(
    view: &'b TableView<'b>,
    pipeline: &'b Pipeline,
    tier: &'b SplitTier<'b>,
    disturbed: &'b DisturbedTier,
) -> impl Iterator<Item = TargetRead> + 'b {
    let deltas = view.table.deltas;
    let decided = move |since| tier.decided(deltas, since, move |target| view.own(target.chain, pipeline));
    let since_last_read = decided(Since::LastRead);
    let since_written = (!deltas.unchanged(pipeline.chain)).then(|| decided(Since::Written));
    (0..tier.can.len()).map(move |index| {
        let disturbed = disturbed.targets[index];
        let known = |decided: Decided| if disturbed.decided { Decided::default() } else { decided };
        let deciding = deciding_in(view, tier, index);
        TargetRead {
            can: tier.can[index],
            split: tier.splits[index],
            since_last_read: known(since_last_read(index)),
            since_written: known(since_written.as_ref().map_or_else(Decided::default, |decided| decided(index))),
            disturbed,
            doubt: doubt(view, pipeline, tier, index).saturating_add(deciding),
            entering: tier.entering(index, view.table.motion).saturating_add(deciding),
            refusals_are_known: tier.refusals_are_known(),
        }
    })
}

/// Returns by how many packets a target's differences may be too high. This includes packets that a foreign rule took in between.
fn doubt(view: &TableView, pipeline: &Pipeline, split: &SplitTier, index: usize) -> u64 {
    let motion = view.table.motion;
    let target = &split.tier.targets[index];
    let next = split.tier.undecided_after(index).or(split.tier.after);
    let foreign = pipeline.foreign.iter().map(|foreign| foreign.rule);
    let here = motion.sum(foreign.filter(|rule| target.jump < *rule && next.is_none_or(|next| *rule < next)));
    let taken = here.saturating_add(view.moved_by_foreign_rules(target.chain));
    split.doubt(index, motion, view.table.cpus).saturating_add(taken)
}

/// Returns how many packets the own rules of a tier's targets counted while the table was read, if a difference depends on them too.
fn deciding_in(view: &TableView, SplitTier { tier, splits, .. }: &SplitTier, index: usize) -> u64 {
    if !matches!(splits[index], Split::ByTotal | Split::DenyOnly) {
        return 0;
    }
    let own = tier.targets.iter().zip(splits).filter(|(_, split)| **split == Split::Own);
    own.map(|(target, _)| view.deciding_within(target.chain)).fold(0, u64::saturating_add)
}

fn dropped(drop: &DropRule, deltas: &Deltas) -> u64 {
    if drop.let_through.is_empty() {
        return deltas.packets(drop.rule);
    }
    let let_through: Option<i64> = drop.let_through.iter().map(|rule| deltas.since_last_read(*rule)).sum();
    let refused = deltas.since_last_read(drop.rule).zip(let_through).map_or(0, |(reached, let_through)| reached - let_through);
    u64::try_from(refused).unwrap_or(0)
}
