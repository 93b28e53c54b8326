//! Rules that are not Felix's: which counts of an endpoint may be wrong because of them. Pure.
//!
//! A foreign rule that matched nothing since the last read changed nothing. One that matched may have taken packets away between two
//! counters, whose difference then shows denies that did not happen. Or it may have changed the marks that tell all later rules whether a
//! packet was accepted or passed. What a rule of Felix counts by itself is true as long as the marks are Felix's.

use crate::accounting::ledger::Deltas;
use crate::felix::{Foreign, Tier, Way};
use crate::ruleset::{ChainId, RuleId, Ruleset};

use super::tier::{Split, SplitTier};

/// What foreign rules did to packets in a policy, group or profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Disturbance {
    #[default]
    None,
    /// They sent some back, perhaps before a decision of the policy's own rules took effect.
    SentBack,
    Taken,
    Marked,
}

impl Disturbance {
    /// Returns what the foreign rules of one chain did since the last read.
    pub fn by(foreign: &[Foreign], ruleset: &Ruleset, deltas: &Deltas) -> Self {
        let disturbance = |foreign: &Foreign| match foreign {
            Foreign { changes_marks: true, .. } => Disturbance::Marked,
            Foreign { way: Way::Away, .. } => Disturbance::Taken,
            Foreign { way: Way::Back, .. } => Disturbance::SentBack,
            Foreign { way: Way::On, .. } => Disturbance::None,
        };
        matched(foreign, ruleset, deltas).map(disturbance).max().unwrap_or_default()
    }
}

/// Returns the rules that matched since the last read, or may have.
fn matched<'a>(foreign: &'a [Foreign], ruleset: &Ruleset, deltas: &Deltas) -> impl Iterator<Item = &'a Foreign> {
    foreign.iter().filter(|foreign| deltas.packets(foreign.rule) > 0 || ruleset.rule(foreign.rule).uncounted)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disturbed {
    pub accepted: bool,
    pub decided: bool,
}

impl Disturbed {
    pub fn any(self) -> bool {
        self.accepted || self.decided
    }
}

#[derive(Debug, Default)]
pub struct DisturbedTier {
    pub targets: Vec<Disturbed>,
    pub end: bool,
}

#[derive(Debug)]
pub struct Passage {
    matched: Vec<Foreign>,
    /// Whether marks may have been changed in the chain of an earlier target.
    marked: bool,
}

impl Passage {
    pub fn new(foreign: &[Foreign], ruleset: &Ruleset, deltas: &Deltas) -> Self {
        Passage { matched: matched(foreign, ruleset, deltas).copied().collect(), marked: false }
    }

    pub fn is_marked_at(&self, rule: RuleId) -> bool {
        self.marked || self.matched.iter().any(|foreign| foreign.changes_marks && foreign.rule < rule)
    }

    /// Whether packets may have been taken away, or given other marks, between two rules. `None` is the end of the chain.
    pub fn is_disturbed_between(&self, from: RuleId, to: Option<RuleId>) -> bool {
        self.matched.iter().any(|foreign| from < foreign.rule && to.is_none_or(|to| foreign.rule < to))
    }

    /// Like [`Passage::is_disturbed_between`], for the first jump of a tier and the rule after it.
    pub fn is_disturbed_in(&self, tier: &Tier) -> bool {
        tier.targets.first().is_some_and(|first| self.is_disturbed_between(first.jump, tier.after))
    }

    /// Moves past a tier. `inside` returns what foreign rules did in the chain of a target.
    pub fn through(&mut self, split: &SplitTier, inside: impl Fn(ChainId) -> Disturbance) -> DisturbedTier {
        let SplitTier { tier, can, splits } = split;
        let mut disturbed = DisturbedTier::default();
        for (index, target) in tier.targets.iter().enumerate() {
            let inside = inside(target.chain);
            let next = tier.undecided_after(index).or(tier.after);
            let is_own = matches!(splits[index], Split::Own) && inside > Disturbance::None;
            let decided = inside >= Disturbance::Taken || is_own || self.is_disturbed_between(target.jump, next);
            let marked = self.is_marked_at(target.accepted.unwrap_or(target.jump)) || inside == Disturbance::Marked;
            let decided = decided || marked || self.is_marked_at(next.unwrap_or(target.jump));
            disturbed.targets.push(Disturbed { accepted: marked, decided });
            self.marked |= inside == Disturbance::Marked;
        }
        // What is derived from all packets that came out of the tier is wrong if any were taken in it, or if another target's passes are
        // wrong.
        let passes = |index: usize| can[index].pass && disturbed.targets[index].decided;
        let wrong = self.is_disturbed_in(tier) || (0..splits.len()).any(passes);
        for (split, disturbed) in splits.iter().zip(&mut disturbed.targets) {
            disturbed.decided |= wrong && matches!(split, Split::ByTotal | Split::DenyOnly);
        }
        disturbed.end = tier.end.is_some_and(|end| self.is_marked_at(end));
        disturbed
    }
}
