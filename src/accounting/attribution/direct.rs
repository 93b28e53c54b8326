//! Credits policies that have their own jump in an endpoint's chain, by differences. Pure state.
//!
//! A difference between counters that are read one after the other can be off by the packets that pass in between. It can be too low, and
//! the next one makes up for it. It can be too high, by a packet that is in the policy's chain just then. So a negative difference is
//! carried to the next read. If all endpoints together claim more than the policy's own rules counted on the whole node, any of them may
//! claim too much. Then only what is beyond doubt is credited, and the rest waits for the next read.
//!
//! If an endpoint's rules were rewritten, its counters show only what came later. What came before is recovered from the policy's own
//! rules, as far as no other endpoint can have got it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::felix::Pipeline;
use crate::ruleset::{ChainId, TableId};

use super::group::signed;
use super::table::TableView;
use super::totals::{Item, Totals, Verdict};

pub struct Claim<'a> {
    pub source: Source,
    pub pipeline: &'a Pipeline,
    pub item: Item,
    /// The second item to add it to: all denies of the tier.
    pub sum: Option<Item>,
    /// Packets that the endpoint's counters show. Below zero it is a debt.
    pub packets: i64,
    /// How many of them may have been in flight, so that they may end otherwise.
    pub doubt: u64,
    /// How many may be missing, because they were in flight.
    pub entering: u64,
    pub coverage: Coverage,
}

/// Whether an endpoint's counters show all packets since the last read. They do not if its rules were rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    All,
    /// There may have been more: at most this many in all, or `None` if nothing limits them.
    Part(Option<u64>),
}

impl Claim<'_> {
    fn is_partial(&self) -> bool {
        self.coverage != Coverage::All
    }

    /// Returns the most that this endpoint can have got of the policy's decisions since the last read.
    fn most(&self) -> Option<u64> {
        match self.coverage {
            Coverage::All => Some(u64::try_from(self.packets).unwrap_or(0).saturating_add(self.doubt).saturating_add(self.entering)),
            Coverage::Part(most) => most,
        }
    }
}

#[derive(Default)]
pub struct Claims<'a>(BTreeMap<(ChainId, Verdict), Vec<Claim<'a>>>);

impl<'a> Claims<'a> {
    pub fn add(&mut self, policy: ChainId, claim: Claim<'a>) {
        self.0.entry((policy, claim.source.verdict)).or_default().push(claim);
    }

    /// Credits what is certain. The rest waits.
    pub fn settle(self, view: &mut TableView, waiting: &mut Waiting, totals: &mut Totals) {
        for ((policy, verdict), claims) in self.0 {
            let claimed: i64 = claims.iter().map(|claim| claim.packets.max(0)).sum();
            // If some claims do not show all, their sum proves nothing: one of them may contain a packet that is held up.
            let claims_are_partial = claims.iter().any(Claim::is_partial);
            let least_doubt = if claims_are_partial { signed(view.table.motion.held_up()) } else { 0 };
            let excess = view.budget(policy, verdict).map_or(0, |budget| claimed - budget).max(least_doubt);
            let certain = |claim: &Claim| u64::try_from(claim.packets.saturating_sub(excess.max(signed(claim.doubt)))).unwrap_or(0);
            let certain: Vec<u64> = claims.iter().map(certain).collect();
            let recovered = recovered(&claims, &certain, policy, view);
            let found = certain.iter().chain(&recovered).sum();
            let all_are_found = view.surely_decided(policy, verdict).is_some_and(|decided| decided <= found);
            for ((claim, certain), recovered) in claims.into_iter().zip(certain).zip(recovered) {
                let credited = signed(certain + recovered);
                let rest = claim.packets - signed(certain);
                // What was recovered may have been in doubt before. A debt is at most what is in flight now.
                let rest = if rest > 0 { (rest - signed(recovered)).max(0) } else { rest.max(-signed(claim.entering)) };
                view.spend(policy, verdict, credited, rest);
                waiting.extend((rest != 0).then_some((claim.source, rest)));
                let mut recorder = totals.of(claim.pipeline);
                let is_known = claim.coverage == Coverage::All || all_are_found;
                for item in std::iter::once(&claim.item).chain(&claim.sum).filter(|_| credited > 0 || !is_known) {
                    recorder.add_counted(item, certain + recovered, is_known);
                }
            }
            if claims_are_partial {
                view.forget_unclaimed(policy, verdict);
            }
        }
    }
}

/// Returns what endpoints with rewritten rules must have got in addition to what their counters show: what the policy's own rules counted
/// and no other endpoint can have got.
fn recovered(claims: &[Claim], certain: &[u64], policy: ChainId, view: &TableView) -> Vec<u64> {
    let nothing = || vec![0; claims.len()];
    let Some(first) = claims.iter().find(|claim| claim.is_partial()) else { return nothing() };
    if view.references(policy) as usize != claims.len() {
        return nothing();
    }
    let is_user = |chain: ChainId| claims.iter().any(|claim| claim.pipeline.chain == chain);
    let inflow = view.inflow_of_others(first.pipeline.direction, is_user);
    let Some((decided, inflow)) = view.surely_decided(policy, first.source.verdict).zip(inflow) else { return nothing() };
    let most =
        |but: usize| claims.iter().enumerate().filter(|(place, _)| *place != but).map(|(_, claim)| claim.most()).sum::<Option<u64>>();
    let of = |(place, claim): (usize, &Claim)| match most(place).filter(|_| claim.is_partial()) {
        Some(others) => decided.saturating_sub(others).saturating_sub(inflow).saturating_sub(certain[place] + view.table.motion.held_up()),
        None => 0,
    };
    claims.iter().enumerate().map(of).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    pub table: TableId,
    pub endpoint: Arc<str>,
    pub policy: Arc<str>,
    pub verdict: Verdict,
}

/// Differences that wait for the next read, positive or negative. Most sources have none.
pub type Waiting = HashMap<Source, i64>;
