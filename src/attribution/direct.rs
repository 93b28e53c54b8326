//! Policies that have their own jump in an endpoint's chain → what may be credited to them by differencing. Pure state.
//!
//! A difference between counters that are read one after the other can be off by the packets that go by meanwhile: too low, and
//! the next one makes up for it; or too high, by a packet that is inside the policy's chain just then. So a difference below zero
//! is carried on. And if all endpoints together claim more than the policy's own rules counted on the whole node, each of them may
//! be the one that claims too much: then every claim but what is beyond doubt waits for the next read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::felix::{Direction, EndpointKind};
use crate::ruleset::{ChainId, TableId};

use super::table::TableView;
use super::totals::{Item, Totals, Verdict};

/// What an endpoint claims of a policy's decisions.
#[derive(Debug)]
pub struct Claim {
    /// Where it comes from.
    pub source: Source,
    /// The endpoint.
    pub endpoint: (EndpointKind, Arc<str>, Direction),
    /// What it is to be credited as.
    pub item: Item,
    /// What it is to be added to besides: the tier's refusals.
    pub sum: Option<Item>,
    /// Packets; below zero: to be made up for.
    pub packets: i64,
    /// So many of them may have been on their way, and become something else.
    pub doubt: u64,
}

/// The claims of one table, by policy and verdict.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<(ChainId, Verdict), Vec<Claim>>);

impl Claims {
    /// Notes a claim.
    pub fn add(&mut self, policy: ChainId, claim: Claim) {
        self.0.entry((policy, claim.source.verdict)).or_default().push(claim);
    }

    /// Credits what is certain; the rest waits.
    pub fn settle(self, view: &mut TableView, waiting: &mut Waiting, totals: &mut Totals) {
        for ((policy, verdict), claims) in self.0 {
            let claimed: i64 = claims.iter().map(|claim| claim.packets.max(0)).sum();
            // What the policy counted for packets that are not claimed yet must not stand for others that are claimed wrongly.
            let unclaimed = i64::try_from(view.arriving(policy)).unwrap_or(i64::MAX);
            let excess = (claimed - view.budget(policy, verdict).saturating_sub(unclaimed)).max(0);
            for claim in claims {
                let doubt = excess.max(i64::try_from(claim.doubt).unwrap_or(i64::MAX));
                let credited = claim.packets.saturating_sub(doubt).max(0);
                view.spend(policy, verdict, credited, claim.packets - credited);
                waiting.keep(claim.source, claim.packets - credited);
                let (kind, interface, direction) = claim.endpoint;
                let mut recorder = totals.endpoint(kind, &interface, direction);
                for item in std::iter::once(&claim.item).chain(&claim.sum).filter(|_| credited > 0) {
                    recorder.add(item, u64::try_from(credited).unwrap_or(0));
                }
            }
        }
    }
}

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
    /// What a source claims: its difference, and what has waited. A source whose difference is unknown starts again, without what was
    /// `entering` then.
    pub fn claim(&self, source: impl FnOnce() -> Source, difference: Option<i64>, entering: u64) -> Option<(Source, i64)> {
        if (self.before.is_empty() && difference == Some(0)) || (difference.is_none() && entering == 0) {
            return None;
        }
        let source = source();
        let claim = match difference {
            Some(difference) => self.before.get(&source).unwrap_or(&0) + difference,
            None => -i64::try_from(entering).unwrap_or(0),
        };
        (claim != 0).then_some((source, claim))
    }

    fn keep(&mut self, source: Source, packets: i64) {
        if packets != 0 {
            self.now.insert(source, packets);
        }
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

    #[test]
    fn what_was_not_credited_is_claimed_again_by_the_next_read_only() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.claim(source, Some(0), 0), None);
        waiting.keep(source(), -2);
        waiting.end_read();
        assert_eq!(waiting.claim(source, Some(5), 0), Some((source(), 3)));
        assert_eq!(waiting.claim(source, Some(2), 0), None);
        waiting.end_read();
        assert_eq!(waiting.claim(source, Some(5), 0), Some((source(), 5)));
    }

    #[test]
    fn an_unknown_interval_starts_again() {
        let mut waiting = Waiting::default();
        waiting.keep(source(), 4);
        waiting.end_read();
        assert_eq!(waiting.claim(source, None, 0), None);
        waiting.end_read();
        assert!(waiting.before.is_empty());
    }
}
