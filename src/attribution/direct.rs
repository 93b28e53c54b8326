//! Policies that have their own jump in an endpoint's chain → what may be credited to them by differencing. Pure state.
//!
//! A difference between counters that are read one after the other can be off by the packets that go by meanwhile: too low, and
//! the next one makes up for it; or too high, by a packet that is inside the policy's chain just then. So a difference below zero
//! is carried on, and one above what the policy's own rules counted on the whole node waits until they have.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ruleset::TableId;

use super::totals::Verdict;

/// One policy on one endpoint: table, the endpoint's chain, the policy's chain, and what it decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The table.
    pub table: TableId,
    /// The endpoint's chain.
    pub endpoint: Arc<str>,
    /// The policy's chain.
    pub policy: Arc<str>,
    /// What it decided.
    pub verdict: Verdict,
}

/// What could not be credited yet.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Differences that wait since the last read, positive or negative; nothing for most sources.
    before: HashMap<Source, i64>,
    now: HashMap<Source, i64>,
}

impl Waiting {
    /// Credits a difference as far as `budget` goes. A source whose difference is unknown starts again.
    pub fn credit(&mut self, source: impl FnOnce() -> Source, difference: Option<i64>, budget: &mut i64) -> u64 {
        if self.before.is_empty() && matches!(difference, None | Some(0)) {
            return 0;
        }
        let source = source();
        let Some(difference) = difference else { return 0 };
        let wanted = self.before.get(&source).unwrap_or(&0) + difference;
        let credited = wanted.clamp(0, (*budget).max(0));
        *budget -= credited;
        if wanted != credited {
            self.now.insert(source, wanted - credited);
        }
        u64::try_from(credited).unwrap_or(0)
    }

    /// Ends a read: sources that it did not meet are forgotten.
    pub fn end_read(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let table = TableId { family: crate::ruleset::Family::V4, table: "filter" };
        Source { table, endpoint: "cali-tw-cali1".into(), policy: "cali-pi-p".into(), verdict: Verdict::Deny }
    }

    /// One read with one source.
    fn credit(waiting: &mut Waiting, difference: Option<i64>, budget: &mut i64) -> u64 {
        let credited = waiting.credit(source, difference, budget);
        waiting.end_read();
        credited
    }

    #[test]
    fn a_difference_below_zero_is_made_up_for() {
        let mut waiting = Waiting::default();
        assert_eq!(credit(&mut waiting, Some(-2), &mut 9), 0);
        assert_eq!(credit(&mut waiting, Some(5), &mut 9), 3);
        assert!(waiting.before.is_empty());
    }

    #[test]
    fn what_the_policy_has_not_counted_waits() {
        let mut waiting = Waiting::default();
        assert_eq!(credit(&mut waiting, Some(1), &mut 0), 0);
        assert_eq!(credit(&mut waiting, Some(0), &mut 1), 1);
        assert_eq!(credit(&mut waiting, Some(1), &mut 0), 0);
        assert_eq!(credit(&mut waiting, Some(-1), &mut 0), 0);
        assert!(waiting.before.is_empty());
    }

    #[test]
    fn an_unknown_interval_starts_again() {
        let mut waiting = Waiting::default();
        credit(&mut waiting, Some(-2), &mut 9);
        assert_eq!(credit(&mut waiting, None, &mut 9), 0);
        assert_eq!(credit(&mut waiting, Some(5), &mut 9), 5);
    }
}
