//! One endpoint's rules, in the order in which packets meet them → what each of them counted, and what its policies are to be credited
//! with. Adds to totals, claims and groups.

use std::sync::Arc;

use lazy_static::lazy_static;

use super::Table;
use super::direct::{Claim, Claims, Source, Unseen, Waiting};
use super::foreign::{Doubts, Passage, TierDoubts};
use super::groups::{Groups, Member};
use super::open::{Open, User};
use super::table::TableView;
use super::tier::{self, Can, Decided, Split, refusals_are_known};
use super::totals::{Item, Recorder, Verdict};
use crate::accounting::ledger::{Deltas, Since};
use crate::felix::{DropReason, DropRule, Label, Pipeline, Target, Tier};
use crate::ruleset::ChainId;

lazy_static! {
    static ref NO_TIER: Arc<str> = "".into();
}

/// The walk through the pipelines of one table.
pub struct Walk<'a, 'b> {
    pub view: TableView<'a>,
    pub waiting: &'b mut Waiting,
    pub claims: Claims,
    pub groups: &'b mut Groups,
    pub open: &'b mut Open,
}

impl Walk<'_, '_> {
    /// Takes in what one endpoint's rules counted.
    pub fn pipeline(&mut self, pipeline: &Pipeline, recorder: &mut Recorder) {
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
            let item = Item::Drop { reason: drop.reason, tier: Arc::clone(&NO_TIER) };
            let last = drop.let_through.last().filter(|last| passage.is_disturbed_between(drop.rule, Some(**last)));
            match last.is_some() || (drop.reason == DropReason::NoProfile && passage.is_marked_at(drop.rule)) {
                true => recorder.unknown(&item),
                false => recorder.add(&item, dropped(drop, deltas)),
            }
        }
    }

    fn tier(&mut self, pipeline: &Pipeline, tier: &Tier, passage: &mut Passage, recorder: &mut Recorder) {
        let deltas = self.view.table.deltas;
        let can: Vec<_> = tier.targets.iter().map(|target| self.view.can(target.chain)).collect();
        let splits = tier::splits(tier, &can);
        let refusals_are_known = refusals_are_known(&splits, &can);
        let doubts = passage.through(tier, (&can, &splits), |chain| self.view.disturbance(chain));
        for (index, (target, here)) in tier.targets.iter().zip(self.looks(pipeline, tier, (&can, &splits), &doubts)).enumerate() {
            let here = Here { refusals_are_known, ..here };
            if here.split == Split::Open {
                self.open(pipeline, tier, index, &here);
            }
            match self.view.table.pipelines.group(target.chain) {
                Some(_) => self.groups.add(target.chain, member(pipeline, tier, index, can[index], &here)),
                None => self.policy(pipeline, target, &here, recorder),
            }
        }
        if let Some(end) = tier.end {
            recorder.add_unless(
                doubts.end,
                &Item::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(&tier.name) },
                deltas.packets(end),
            );
        }
        let item = Item::PolicyDrop { tier: Arc::clone(&tier.name) };
        if refusals_are_known {
            let unknown = doubts.targets.iter().zip(&can).any(|(doubts, can)| doubts.decided && can.deny);
            recorder.add_unless(unknown, &item, 0);
        } else if can.iter().any(|can| can.deny) {
            let is_disturbed = doubts.targets.iter().any(|doubts| doubts.any()) || passage.is_disturbed_in(tier);
            match is_disturbed || tier.after.is_none() {
                true => recorder.unknown(&item),
                false => self.refused_in_all(pipeline, tier, &item, recorder),
            }
        }
    }

    /// What a tier refused where it is not known which of its policies refused how many.
    fn refused_in_all(&mut self, pipeline: &Pipeline, tier: &Tier, item: &Item, recorder: &mut Recorder) {
        let Table { ruleset, deltas, motion, .. } = self.view.table;
        let endpoint = Arc::clone(&ruleset.chain(pipeline.chain).name);
        let source = Source { table: ruleset.id(), endpoint, policy: Arc::clone(&tier.name), verdict: Verdict::Deny };
        let refused = tier::refused_in_all(tier, deltas, Since::LastRead);
        let packets = match refused {
            Some(packets) => packets + self.waiting.of(&source),
            None => tier::refused_in_all(tier, deltas, Since::Written).unwrap_or(0),
        };
        let moving = i64::try_from(motion.sum(tier::all_rules(tier))).unwrap_or(i64::MAX);
        let certain = packets.saturating_sub(moving).max(0);
        self.waiting.keep(source, (packets - certain).max(-moving));
        let certain = u64::try_from(certain).unwrap_or(0);
        match refused {
            Some(_) => recorder.add(item, certain),
            None => recorder.add_at_least(item, certain),
        }
    }

    /// A policy, or a group, behind which nothing counts what it left undecided.
    fn open(&mut self, pipeline: &Pipeline, tier: &Tier, index: usize, here: &Here) {
        let target = &tier.targets[index];
        let group = self.view.table.pipelines.group(target.chain).into_iter().flat_map(|group| &group.policies);
        let mut refusing = group.map(|(_, policy)| *policy).filter(|policy| self.view.can(*policy).deny);
        let chain = match (refusing.next(), refusing.next()) {
            (Some(only), None) => only,
            _ => target.chain,
        };
        let Some(Label { label, .. }) = self.view.table.labels.get(chain).filter(|_| self.view.can(chain).deny) else { return };
        let tier = Arc::clone(&tier.name);
        let mut items = vec![Item::Policy { tier: Arc::clone(&tier), policy: Arc::clone(label), verdict: Verdict::Deny }];
        items.extend(here.refusals_are_known.then_some(Item::PolicyDrop { tier }));
        let Pipeline { kind, direction, .. } = *pipeline;
        let interface = Arc::clone(&pipeline.interface);
        self.open.add(target.chain, User { kind, interface, direction, target: target.clone(), items, is_disturbed: here.doubts.decided });
    }

    /// By how many packets a target's differences may be too high, also by some that a foreign rule has taken meanwhile.
    fn doubt(&self, pipeline: &Pipeline, tier: &Tier, index: usize, split: Split) -> u64 {
        let motion = self.view.table.motion;
        let target = &tier.targets[index];
        let next = tier.undecided_after(index).or(tier.after);
        let foreign = pipeline.foreign.iter().map(|foreign| foreign.rule);
        let here = motion.sum(foreign.filter(|rule| target.jump < *rule && next.is_none_or(|next| *rule < next)));
        let taken = here.saturating_add(self.view.moved_by_foreign_rules(target.chain));
        tier::doubt(tier, index, split, motion, self.view.table.cpus).saturating_add(taken)
    }

    /// How many packets the own rules of a tier's targets counted while the table was read, where a difference depends on these, too.
    fn deciding_in(&self, tier: &Tier, splits: &[Split], split: Split) -> u64 {
        if !matches!(split, Split::ByTotal | Split::DenyOnly) {
            return 0;
        }
        let own = tier.targets.iter().zip(splits).filter(|(_, split)| **split == Split::Own);
        own.map(|(target, _)| self.view.deciding_within(target.chain)).fold(0, u64::saturating_add)
    }

    /// What profiles accepted is counted; what they refused, that is less, is claimed of all together.
    fn profiles(&mut self, pipeline: &Pipeline, passage: &mut Passage, recorder: &mut Recorder) {
        let profiles = &pipeline.profiles;
        // What a profile passes on goes to the next one, undecided.
        let can: Vec<_> = profiles.targets.iter().map(|profile| Can { pass: false, ..self.view.can(profile.chain) }).collect();
        let splits = tier::splits(profiles, &can);
        let doubts = passage.through(profiles, (&can, &splits), |chain| self.view.disturbance(chain));
        let looks = self.looks(pipeline, profiles, (&can, &splits), &doubts);
        for (index, (profile, here)) in profiles.targets.iter().zip(looks).enumerate() {
            if let (Some(label), Some(accepted)) = (self.view.table.labels.get(profile.chain), profile.accepted) {
                let item = Item::Profile(Arc::clone(&label.label));
                recorder.add_unless(here.doubts.accepted, &item, self.view.table.deltas.packets(accepted));
            }
            if !can[index].deny {
                continue;
            }
            let item = Item::Drop { reason: DropReason::Profile, tier: Arc::clone(&NO_TIER) };
            recorder.add_unless(here.doubts.decided, &item, 0);
            if let Some((source, packets, unseen)) = self.claim(pipeline.chain, profile, Verdict::Deny, &here) {
                let endpoint = (pipeline.kind, Arc::clone(&pipeline.interface), pipeline.direction);
                let Here { doubt, entering, .. } = here;
                let chain = pipeline.chain;
                self.claims.add(profile.chain, Claim { source, chain, endpoint, item, sum: None, packets, doubt, entering, unseen });
            }
        }
    }

    /// What is known of each target of a tier.
    fn looks(&self, pipeline: &Pipeline, tier: &Tier, (can, splits): (&[Can], &[Split]), doubts: &TierDoubts) -> Vec<Here> {
        let deltas = self.view.table.deltas;
        let decided = |since| tier::decided(tier, (can, splits), (deltas, since), |target| self.view.own(target.chain, pipeline));
        let since_last_read = decided(Since::LastRead);
        let since_written = if deltas.unchanged(pipeline.chain) { vec![Decided::default(); can.len()] } else { decided(Since::Written) };
        let look = |index: usize| {
            let (split, doubts) = (splits[index], doubts.targets[index]);
            let known = |decided: Decided| if doubts.decided { Decided::default() } else { decided };
            let deciding = self.deciding_in(tier, splits, split);
            Here {
                split,
                since_last_read: known(since_last_read[index]),
                since_written: known(since_written[index]),
                doubts,
                doubt: self.doubt(pipeline, tier, index, split).saturating_add(deciding),
                entering: tier::entering(tier, index, split, self.view.table.motion).saturating_add(deciding),
                refusals_are_known: false,
            }
        };
        (0..tier.targets.len()).map(look).collect()
    }

    /// A policy with its own jump: what it accepted is counted, what it refused and passed on is claimed.
    fn policy(&mut self, pipeline: &Pipeline, target: &Target, here: &Here, recorder: &mut Recorder) {
        let doubts = here.doubts;
        let Some(Label { label, tier, .. }) = self.view.table.labels.get(target.chain) else { return };
        let mut item = Item::Policy { tier: Arc::clone(tier), policy: Arc::clone(label), verdict: Verdict::Accept };
        if let Some(accepted) = target.accepted {
            recorder.add_unless(doubts.accepted, &item, self.view.table.deltas.packets(accepted));
        }
        if doubts.decided && here.split != Split::Nothing {
            recorder.unknown_decisions(&mut item.clone());
        }
        if here.split == Split::Sum {
            let own = self.own(target, here);
            self.parts(here, own, &item, recorder);
            if own.is_some() {
                item.decided(Verdict::DenyOrPass);
                return recorder.add(&item, 0);
            }
        }
        self.leave_out_passes(target, here, &item, recorder);
        for verdict in here.split.verdicts(self.view.can(target.chain)) {
            item.decided(verdict);
            recorder.add_unless(doubts.decided, &item, 0);
            let in_sum = here.refusals_are_known && verdict == Verdict::Deny;
            let sum = in_sum.then(|| Item::PolicyDrop { tier: Arc::clone(tier) });
            if let Some((source, packets, unseen)) = self.claim(pipeline.chain, target, verdict, here) {
                let endpoint = (pipeline.kind, Arc::clone(&pipeline.interface), pipeline.direction);
                let entering = here.entering;
                let doubt = here.doubt.max(here.since_last_read.excess(self.waiting.of(&source)));
                let (chain, item) = (pipeline.chain, item.clone());
                self.claims.add(target.chain, Claim { source, chain, endpoint, item, sum, packets, doubt, entering, unseen });
            }
        }
    }

    /// Where nobody else used the policy since the last read, its own rules tell what the endpoint's do not.
    fn own(&self, target: &Target, here: &Here) -> Option<(i64, i64)> {
        let own = self.view.own_if_others_were_quiet(target.chain, target.jump).filter(|_| !here.doubts.decided && self.waiting.is_empty());
        own.filter(|(deny, pass)| here.since_last_read.deny_or_pass == Some(deny + pass))
    }

    /// What a policy refused and what it passed on, where the endpoint's rules tell only the sum.
    fn parts(&self, here: &Here, own: Option<(i64, i64)>, item: &Item, recorder: &mut Recorder) {
        let (deny, pass) = own.unwrap_or_default();
        let is_known = here.since_last_read.deny_or_pass.is_some() || !self.view.table.deltas.rewritten;
        let mut item = item.clone();
        for (verdict, packets) in [(Verdict::Deny, deny), (Verdict::Pass, pass)] {
            item.decided(verdict);
            let packets = u64::try_from(packets).unwrap_or(0);
            match (here.doubts.decided, is_known) {
                (true, _) => recorder.unknown(&item),
                (false, true) => recorder.add(&item, packets),
                (false, false) => recorder.add_at_least(&item, packets),
            }
        }
    }

    /// What a policy passed on is unknown if it mixes with what nobody decided, whatever the other family's rules tell.
    fn leave_out_passes(&self, target: &Target, here: &Here, item: &Item, recorder: &mut Recorder) {
        let is_told = matches!(here.split, Split::Sum) || here.split.verdicts(self.view.can(target.chain)).any(|v| v == Verdict::Pass);
        if self.view.can(target.chain).pass && !is_told {
            let mut item = item.clone();
            item.decided(Verdict::Pass);
            recorder.unknown(&item);
        }
    }

    /// What an endpoint claims of a policy's decisions, and whether there may be more that its counters do not show. Nothing, as a rule.
    fn claim(&self, chain: ChainId, target: &Target, verdict: Verdict, here: &Here) -> Option<(Source, i64, Option<Unseen>)> {
        let deltas = self.view.table.deltas;
        // Where rules were written anew, all that use a policy are asked for.
        let is_wanted = deltas.rewritten || !self.waiting.is_empty();
        let source = || self.source(chain, target.chain, verdict);
        if let Some(packets) = here.since_last_read.of(verdict) {
            return (packets != 0 || is_wanted).then(|| {
                let source = source();
                let packets = packets + self.waiting.of(&source);
                (source, packets, None)
            });
        }
        let unseen = self.view.table.reach.of(target.jump).map_or(Unseen::Unlimited, Unseen::AtMost);
        match here.since_written.of(verdict) {
            Some(packets) => Some((source(), packets, Some(unseen))),
            None if here.entering == 0 && !is_wanted => None,
            None => Some((source(), -i64::try_from(here.entering).unwrap_or(0), Some(unseen))),
        }
    }

    fn source(&self, endpoint: ChainId, policy: ChainId, verdict: Verdict) -> Source {
        let ruleset = self.view.table.ruleset;
        let name = |chain| Arc::clone(&ruleset.chain(chain).name);
        Source { table: ruleset.id(), endpoint: name(endpoint), policy: name(policy), verdict }
    }
}

/// What is known of one target of a tier.
struct Here {
    split: Split,
    since_last_read: Decided,
    /// If its rules were written later than that.
    since_written: Decided,
    doubts: Doubts,
    doubt: u64,
    entering: u64,
    refusals_are_known: bool,
}

/// What a rule refused since the last read.
fn dropped(drop: &DropRule, deltas: &Deltas) -> u64 {
    if drop.let_through.is_empty() {
        return deltas.packets(drop.rule);
    }
    let let_through: Option<i64> = drop.let_through.iter().map(|rule| deltas.since_last_read(*rule)).sum();
    let refused = deltas.since_last_read(drop.rule).zip(let_through).map_or(0, |(reached, let_through)| reached - let_through);
    u64::try_from(refused).unwrap_or(0)
}

fn member(pipeline: &Pipeline, tier: &Tier, index: usize, can: Can, here: &Here) -> Member {
    let target = &tier.targets[index];
    Member {
        kind: pipeline.kind,
        interface: Arc::clone(&pipeline.interface),
        direction: pipeline.direction,
        tier: Arc::clone(&tier.name),
        chain: pipeline.chain,
        jump: target.jump,
        accepted: target.accepted,
        undecided: tier.undecided_after(index),
        can,
        split: here.split,
        decided: here.since_last_read,
        since_written: here.since_written,
        doubts: here.doubts,
        doubt: here.doubt,
        entering: here.entering,
        refusals_are_known: here.refusals_are_known,
    }
}
