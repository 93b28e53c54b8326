//! What each policy and group of one tier of one endpoint denied and passed, from the differences between neighbouring counters. Pure.
//!
//! A policy denies in its own chain, which all endpoints share, so no rule of the endpoint counts it. But what entered a target, less what
//! came back accepted, less what continued to the next rule, was denied or passed there:
//!
//! ```text
//! [21] jump to policy P          21 entered
//! [ 5] return if accepted         5 were accepted
//! [ 9] jump to policy Q           9 were left undecided  →  21 − 5 − 9 = 7 were denied or passed by P
//! ```
//!
//! If the tier drops the rest, the rule after it counts all that the tier passed. So denies and passes can be distinguished as long as at
//! most one of the tier's targets has rules for both. Targets that no other endpoint uses may have both as well, because their own rules
//! count for this endpoint alone.

use crate::accounting::ledger::{Deltas, Since};
use crate::felix::{Target, Tier};
use crate::ruleset::RuleId;

use super::motion::Motion;
use super::totals::Verdict;

/// Which decisions a policy, or any policy of a group, has rules for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Can {
    pub accept: bool,
    pub deny: bool,
    pub pass: bool,
    /// No other endpoint uses it.
    pub alone: bool,
    /// It was not the same all the time since the last read, so what it can decide now does not show what it decided.
    pub changed: bool,
}

impl Can {
    pub fn or(self, other: Can) -> Can {
        Can {
            accept: self.accept || other.accept,
            deny: self.deny || other.deny,
            pass: self.pass || other.pass,
            alone: self.alone && other.alone,
            changed: self.changed || other.changed,
        }
    }
}

/// How a target's denies and passes can be distinguished. This depends on the rules alone, not on their counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    Nothing,
    Deny,
    Pass,
    /// Differences do not give them, but no other endpoint uses it, so its own rules do.
    Own,
    /// It does both. What the tier passed, less what its other targets passed, is its own.
    ByTotal,
    /// It does both, and so does another target, so only the sum is known.
    Sum,
    /// It is the last target of a tier that drops nothing at its end. What it denied never reached the rule after the tier, but what it
    /// passed is counted together with what no policy decided.
    DenyOnly,
    /// It is the last target of a tier, and no rule counts what it left undecided. See [`open`](super::open).
    Open,
}

impl Split {
    /// Returns the verdicts, other than accept, that can be credited to a target with these abilities.
    pub fn verdicts(self, can: Can) -> impl Iterator<Item = Verdict> {
        let verdicts: &[Verdict] = match self {
            Split::Nothing | Split::Open => &[],
            Split::Deny | Split::DenyOnly => &[Verdict::Deny],
            Split::Pass => &[Verdict::Pass],
            Split::Own | Split::ByTotal => &[Verdict::Deny, Verdict::Pass],
            Split::Sum => &[Verdict::DenyOrPass],
        };
        verdicts.iter().copied().filter(move |verdict| match verdict {
            Verdict::Deny => can.deny,
            Verdict::Pass => can.pass,
            Verdict::Accept | Verdict::DenyOrPass => true,
        })
    }
}

/// What a target decided since the last read, other than accept. `None`: unknown for this interval, or always. Small negative numbers
/// occur, because counters are read one after the other while packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decided {
    pub deny: Option<i64>,
    pub pass: Option<i64>,
    /// Denied or passed, if the two cannot be distinguished.
    pub deny_or_pass: Option<i64>,
    /// The most that was denied and passed together, if that is known from other counters.
    pub limit: Option<i64>,
}

impl Decided {
    /// Returns by how much denies, passes and what has waited exceed `limit`.
    pub fn excess(&self, waiting: i64) -> u64 {
        let both = self.deny.zip(self.pass).zip(self.limit).map(|((deny, pass), limit)| deny + pass + waiting.max(0) - limit);
        both.map_or(0, |excess| u64::try_from(excess).unwrap_or(0))
    }

    pub fn of(&self, verdict: Verdict) -> Option<i64> {
        match verdict {
            Verdict::Accept => None,
            Verdict::Deny => self.deny,
            Verdict::Pass => self.pass,
            Verdict::DenyOrPass => self.deny_or_pass,
        }
    }
}

pub struct SplitTier<'a> {
    pub tier: &'a Tier,
    pub can: Vec<Can>,
    pub splits: Vec<Split>,
}

impl<'a> SplitTier<'a> {
    pub fn new(tier: &'a Tier, can: Vec<Can>) -> Self {
        let has_end = tier.end.is_some() || tier.end_log.is_some();
        let both = can.iter().filter(|can| can.deny && can.pass && !can.alone).count();
        let last = can.len().saturating_sub(1);
        let split = |(index, can): (usize, &Can)| match (can.deny, can.pass) {
            (false, false) => Split::Nothing,
            (true, true) if can.alone => Split::Own,
            _ if can.alone && index == last && !has_end => Split::Own,
            // Its passes mix with what no policy decided.
            (false, true) if index == last && !has_end => Split::Nothing,
            (true, pass) if index == last && !has_end => match tier.after.is_some() && both == usize::from(pass) {
                true => Split::DenyOnly,
                false => Split::Open,
            },
            (true, false) => Split::Deny,
            (false, true) => Split::Pass,
            (true, true) if both == 1 && has_end && tier.after.is_some() => Split::ByTotal,
            (true, true) => Split::Sum,
        };
        let splits = can.iter().enumerate().map(split).collect();
        SplitTier { tier, can, splits }
    }

    pub fn can_deny(&self) -> bool {
        self.can.iter().any(|can| can.deny)
    }

    /// Whether all denies of the targets can be credited, and any target can deny.
    pub fn refusals_are_known(&self) -> bool {
        !self.splits.contains(&Split::Sum) && self.can_deny()
    }

    /// Returns what the target at an index decided since `since`. `own` returns what the rules of a target with [`Split::Own`] counted
    /// since the last read. The result is lazy, because an endpoint may have many targets.
    pub fn decided<'b>(
        &'b self,
        deltas: &'b Deltas,
        since: Since,
        own: impl Fn(&Target) -> Decided + 'b,
    ) -> impl Fn(usize) -> Decided + 'b {
        let SplitTier { tier, can, splits } = self;
        let own = move |index: usize| if since == Since::LastRead { own(&tier.targets[index]) } else { Decided::default() };
        let counts = Counts { tier, deltas, since };
        let passed = |(index, split): (usize, &Split)| match split {
            _ if can[index].changed => None,
            Split::Pass => counts.refused_or_passed(index),
            Split::Own => own(index).pass,
            _ => Some(0),
        };
        let is_asked_for = splits.iter().any(|split| matches!(split, Split::Own | Split::ByTotal | Split::DenyOnly));
        let passed_by_others = is_asked_for.then(|| splits.iter().enumerate().map(passed).sum::<Option<i64>>()).flatten();
        move |index| match splits[index] {
            _ if can[index].changed => Decided::default(),
            Split::Nothing | Split::Open => Decided::default(),
            Split::Deny => Decided { deny: counts.refused_or_passed(index), ..Decided::default() },
            Split::Pass => Decided { pass: counts.refused_or_passed(index), ..Decided::default() },
            Split::Own => counts.limited(own(index), index, passed_by_others),
            Split::Sum => Decided { deny_or_pass: counts.refused_or_passed(index), ..Decided::default() },
            Split::ByTotal => {
                let pass = difference(counts.passed_in_all(), passed_by_others);
                Decided { deny: difference(counts.refused_or_passed(index), pass), pass, ..Decided::default() }
            }
            Split::DenyOnly => Decided { deny: counts.refused_by_last(passed_by_others), ..Decided::default() },
        }
    }

    /// Returns by how many packets a target's differences may be too high. These packets were in flight while counters were read: the
    /// jump has counted them already, the rule by which they leave has not. If no rule by which they leave has moved, there is no doubt. A
    /// jump is read before the rules after it, so only packets that one of the `cpus` works on can be between the two.
    pub fn doubt(&self, index: usize, motion: &Motion, cpus: u64) -> u64 {
        match self.splits[index] {
            Split::Nothing | Split::Open | Split::Own => 0,
            Split::Deny | Split::Pass | Split::Sum => match motion.sum(ways_out(self.tier, index)) {
                packets if Motion::is_known(packets) => packets.min(cpus),
                unknown => unknown,
            },
            Split::ByTotal | Split::DenyOnly => motion.sum(all_rules(self.tier)),
        }
    }

    /// Returns by how many packets a difference that begins at this read will be too high. These packets were in flight: the rule by
    /// which they leave has counted them already, the jump has not.
    pub fn entering(&self, index: usize, motion: &Motion) -> u64 {
        match self.splits[index] {
            Split::Nothing | Split::Open | Split::Own => 0,
            Split::Deny | Split::Pass | Split::Sum => motion.of(self.tier.targets[index].jump),
            Split::ByTotal | Split::DenyOnly => motion.sum(all_rules(self.tier)),
        }
    }
}

fn ways_out(tier: &Tier, index: usize) -> impl Iterator<Item = RuleId> {
    tier.targets[index].accepted.into_iter().chain(tier.undecided_after(index))
}

pub fn all_rules(tier: &Tier) -> impl Iterator<Item = RuleId> {
    let targets = (0..tier.targets.len()).flat_map(|index| ways_out(tier, index).chain([tier.targets[index].jump]));
    targets.chain(tier.end).chain(tier.after)
}

fn difference(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    Some(a? - b?)
}

pub struct Counts<'a> {
    pub tier: &'a Tier,
    pub deltas: &'a Deltas,
    pub since: Since,
}

impl Counts<'_> {
    fn of(&self, rule: RuleId) -> Option<i64> {
        self.deltas.since(self.since, rule)
    }

    /// Returns what all policies together denied: what entered, less what was accepted, dropped at the end, or came out. It is known even
    /// if several of them deny and pass.
    pub fn refused_in_all(&self) -> Option<i64> {
        let accepted = self.tier.targets.iter().map(|target| self.of(target.accepted?)).sum::<Option<i64>>()?;
        let dropped = self.tier.end.map_or(Some(0), |end| self.of(end))?;
        Some(self.of(self.tier.targets.first()?.jump)? - accepted - dropped - self.of(self.tier.after?)?)
    }

    /// Returns what entered the target and came back neither accepted nor undecided.
    fn refused_or_passed(&self, index: usize) -> Option<i64> {
        let went_on = self.of(self.tier.undecided_after(index)?)?;
        Some(self.not_accepted(&self.tier.targets[index])? - went_on)
    }

    /// Returns what a target's own rules counted, and as the limit what the endpoint's counters confirm: another endpoint may have used it
    /// too.
    fn limited(&self, own: Decided, index: usize, passed_by_others: Option<i64>) -> Decided {
        let limit = match self.tier.undecided_after(index) {
            Some(_) => self.refused_or_passed(index),
            None => self.refused_by_last(passed_by_others).zip(own.pass).map(|(refused, passed)| refused + passed),
        };
        Decided { limit, ..own }
    }

    fn not_accepted(&self, target: &Target) -> Option<i64> {
        difference(self.of(target.jump), self.of(target.accepted?))
    }

    /// Returns what the tier passed: all that came out, if the rest was dropped at its end. If the rest was only logged, less that.
    fn passed_in_all(&self) -> Option<i64> {
        let came_out = self.of(self.tier.after?)?;
        match (self.tier.end, self.tier.end_log) {
            (Some(_), _) => Some(came_out),
            (None, Some(log)) => Some(came_out - self.of(log)?),
            (None, None) => None,
        }
    }

    /// Returns what the last target denied: what it did not accept, less what came out of the tier that others had not passed.
    fn refused_by_last(&self, passed_by_others: Option<i64>) -> Option<i64> {
        let not_refused = difference(Some(self.of(self.tier.after?)?), passed_by_others)?;
        Some(self.not_accepted(self.tier.targets.last()?)? - not_refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::ledger::Ledger;
    use crate::ruleset::{Backend, ChainId, test::table};

    const DENY: Can = Can { accept: true, deny: true, pass: false, alone: false, changed: false };
    const PASS: Can = Can { deny: false, pass: true, ..DENY };
    const BOTH: Can = Can { pass: true, ..DENY };
    const ALONE: Can = Can { alone: true, ..BOTH };
    const CHANGED: Can = Can { changed: true, ..PASS };

    /// Returns deltas of rules 0, 1, …, as if all had been at zero before.
    fn deltas(packets: &[u64]) -> Deltas {
        let hashes: Vec<String> = (0..packets.len()).map(|place| place.to_string()).collect();
        let read = |packets: &dyn Fn(usize) -> u64| {
            let rules: Vec<_> = hashes.iter().enumerate().map(|(place, hash)| (&**hash, packets(place))).collect();
            table(Backend::Legacy, &[("c", &rules)])
        };
        let mut ledger = Ledger::default();
        ledger.advance(&[read(&|_| 0)]);
        ledger.advance(&[read(&|place| packets[place])]).remove(0)
    }

    /// jump 0, return 1, jump 2, return 3, end 4, after 5.
    fn two_targets() -> Tier {
        let target = |n| Target { jump: RuleId(n), chain: ChainId(0), accepted: Some(RuleId(n + 1)) };
        let targets = vec![target(0), target(2)];
        Tier { name: "t".into(), is_named_at_end: true, targets, end: Some(RuleId(4)), end_log: None, after: Some(RuleId(5)) }
    }

    /// Returns what each target denied and passed, or both together. The own rules of a target that is alone denied 6 and passed 1.
    fn decided(tier: &Tier, can: &[Can], packets: &[u64]) -> Vec<String> {
        let own = Decided { deny: Some(6), pass: Some(1), ..Decided::default() };
        let (split, deltas) = (SplitTier::new(tier, can.to_vec()), deltas(packets));
        let decided = split.decided(&deltas, Since::LastRead, |_| own);
        let text = |Decided { deny, pass, deny_or_pass, .. }| {
            let parts = [("deny", deny), ("pass", pass), ("sum", deny_or_pass)];
            parts.iter().filter_map(|(what, packets)| Some(format!("{what} {}", (*packets)?))).collect::<Vec<_>>().join(", ")
        };
        (0..can.len()).map(decided).map(text).collect()
    }

    #[test]
    fn what_targets_decided_follows_from_differences() {
        let full = two_targets();
        let endless = Tier { end: None, ..two_targets() };
        let logged = Tier { end: None, end_log: Some(RuleId(4)), ..two_targets() };
        for (why, tier, can, packets, expected) in [
            // 21 in, 5 accepted, 9 on; 9 in, none accepted, 4 at the end.
            ("refusals are what goes missing", &full, [DENY, DENY], [21, 5, 9, 0, 4, 0], ["deny 7", "deny 5"]),
            ("one that does both is split by what came out", &full, [DENY, BOTH], [21, 5, 9, 0, 4, 2], ["deny 7", "deny 3, pass 2"]),
            ("also behind one that passes on", &full, [PASS, BOTH], [21, 5, 9, 0, 4, 9], ["pass 7", "deny 3, pass 2"]),
            ("two that do both are not split", &full, [BOTH, BOTH], [21, 5, 9, 0, 4, 2], ["sum 7", "sum 5"]),
            ("one that is alone tells by its own rules", &full, [ALONE, BOTH], [21, 5, 9, 0, 4, 2], ["deny 6, pass 1", "deny 4, pass 1"]),
            // The second: 9 in, 1 accepted, 3 denied, 5 passed or undecided. The first passed 2, so 7 come out.
            ("without an end, the last one's refusals are still exact", &endless, [PASS, BOTH], [16, 5, 9, 1, 0, 7], ["pass 2", "deny 3"]),
            ("but not if another one does both", &endless, [BOTH, DENY], [16, 5, 9, 1, 0, 7], ["sum 2", ""]),
            // The second: 9 in, 1 accepted, 3 denied, 1 passed, 4 undecided, so 5 come out.
            ("a log tells passes from undecided", &logged, [DENY, BOTH], [16, 5, 9, 1, 4, 5], ["deny 2", "deny 3, pass 1"]),
            ("one that was rewritten may have done what it cannot now", &full, [CHANGED, BOTH], [21, 5, 9, 0, 4, 9], ["", ""]),
            ("which matters not for one that refuses", &full, [CHANGED, DENY], [21, 5, 9, 0, 4, 9], ["", "deny 5"]),
        ] {
            assert_eq!(decided(tier, &can, &packets), expected, "{why}");
        }
    }
}
