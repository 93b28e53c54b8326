//! What totals are kept for.

use std::sync::Arc;

use crate::felix::{Decision, DropReason};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Deny,
    Pass,
    /// Denied or passed: the counters do not show which.
    DenyOrPass,
}

impl Verdict {
    pub const ALL: PerVerdict<Verdict> = [Verdict::Accept, Verdict::Deny, Verdict::Pass, Verdict::DenyOrPass];

    pub fn decisions(self) -> &'static [Decision] {
        match self {
            Verdict::Accept => &[Decision::Accept],
            Verdict::Deny => &[Decision::Deny],
            Verdict::Pass => &[Decision::Pass],
            Verdict::DenyOrPass => &[Decision::Deny, Decision::Pass],
        }
    }

    /// `None` for rules that only log, because they decide nothing.
    pub fn of(decision: Decision) -> Option<Self> {
        match decision {
            Decision::Accept => Some(Verdict::Accept),
            Decision::Deny => Some(Verdict::Deny),
            Decision::Pass => Some(Verdict::Pass),
            Decision::Log => None,
        }
    }
}

/// Indexed by `verdict as usize`.
pub type PerVerdict<T> = [T; 4];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    Established,
    /// Packets dropped other than by a policy.
    Drop {
        reason: DropReason,
        /// The tier, for [`DropReason::NoPolicy`]; else empty.
        tier: Arc<str>,
    },
    PolicyDrop {
        tier: Arc<str>,
    },
    /// All packets accepted, including those by policies that no longer apply. Only if interfaces count them.
    Accepted,
    Refused,
    Profile(Arc<str>),
    /// Packets that a policy decided, or one of several policies: then their names are joined by commas.
    Policy {
        tier: Arc<str>,
        policy: Arc<str>,
        verdict: Verdict,
    },
}

impl Item {
    pub fn decided(&mut self, decided: Verdict) {
        if let Item::Policy { verdict, .. } = self {
            *verdict = decided;
        }
    }

    pub(super) fn is_no_policy(&self) -> bool {
        matches!(self, Item::Drop { reason: DropReason::NoPolicy, .. })
    }

    pub(super) fn is_of(&self, name: &str) -> bool {
        matches!(self, Item::Policy { policy, .. } if **policy == *name)
    }

    pub(super) fn rename(&mut self, name: &Arc<str>) {
        if let Item::Policy { policy, .. } = self {
            *policy = Arc::clone(name);
        }
    }
}
