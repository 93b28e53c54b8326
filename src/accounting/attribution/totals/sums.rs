//! One interface and direction in three numbers.

use super::{Item, Total, Verdict};

/// What was counted for one interface and direction in all, including policies and tiers that no longer apply. It never goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub accepted: u64,
    pub refused: u64,
    /// The part of `refused` that no policy of a tier decided.
    pub no_policy: u64,
}

impl Sums {
    pub(super) fn add(&mut self, total: &Total) {
        let packets = total.packets;
        match &*total.item {
            Item::Policy { verdict: Verdict::Accept, .. } | Item::Profile(_) => self.accepted = self.accepted.saturating_add(packets),
            Item::Drop { .. } | Item::PolicyDrop { .. } => self.refused = self.refused.saturating_add(packets),
            // The eBPF dataplane has its own sums.
            Item::Policy { .. } | Item::Established | Item::Accepted | Item::Refused => {}
        }
        if total.item.is_no_policy() {
            self.no_policy = self.no_policy.saturating_add(packets);
        }
    }
}
