//! Policies after which no rule counts what they leave undecided, such as preDNAT policies of host endpoints: what they denied of each
//! endpoint's packets. Pure state.
//!
//! The policy's own rules count for all endpoints together. Of what entered and was not accepted, they denied all but a few packets, which
//! may be any endpoint's. So of each endpoint they denied at least what it sent in beyond those few. If only one endpoint sent anything, or
//! nothing was left undecided, that is exact.
//!
//! Example: 7 packets of A and 5 of B went to P, which accepted none and denied 9. 3 were left. So P denied 4 to 7 of A's and 2 to 5 of
//! B's. Nothing more is known, so neither is shown for workloads. Had P denied 12, it would be 7 and 5.

use std::collections::HashMap;

use crate::felix::{Decision, EndpointKind, Pipeline, Target};
use crate::ruleset::ChainId;

use super::ChainKey;
use super::foreign::Disturbance;
use super::table::{ByChain, TableView};
use super::totals::{Item, Recorder, Totals};

pub struct User<'a> {
    pub pipeline: &'a Pipeline,
    pub target: &'a Target,
    /// What its denies are counted as.
    pub items: Vec<Item>,
    pub is_disturbed: bool,
}

/// What was counted since the policy was last read without motion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interval {
    unaccepted: Vec<i64>,
    refused: i64,
}

#[derive(Debug, PartialEq, Eq)]
struct Certain {
    /// Per endpoint: how many of its packets were denied at least, and whether that is all.
    users: Vec<(u64, bool)>,
    /// How many more were denied, without proof of which endpoint.
    rest: u64,
}

impl Interval {
    fn add(&mut self, other: &Interval) {
        self.unaccepted.resize(other.unaccepted.len(), 0);
        self.unaccepted.iter_mut().zip(&other.unaccepted).for_each(|(sum, more)| *sum += more);
        self.refused += other.refused;
    }

    fn certain(&self) -> Certain {
        let left = self.unaccepted.iter().sum::<i64>() - self.refused;
        // If negative, the policy counted packets that no endpoint shows. Then the endpoints' numbers are reduced by as many.
        let user = |unaccepted: &i64| {
            let least = (unaccepted - left.abs()).clamp(0, self.refused.max(0));
            let most = (*unaccepted).min(self.refused).max(0);
            (u64::try_from(least).unwrap_or(0), least == most && left >= 0)
        };
        let users: Vec<(u64, bool)> = self.unaccepted.iter().map(user).collect();
        let told: u64 = users.iter().map(|(least, _)| least).sum();
        Certain { users, rest: u64::try_from(self.refused).unwrap_or(0).saturating_sub(told) }
    }
}

/// Intervals that have not ended.
pub type Open = HashMap<ChainKey, Interval>;

/// Credits what is certain in a table. If packets were in flight during the read, the interval continues until the next one.
pub fn settle(view: &TableView, users: ByChain<User>, before: &mut Open, now: &mut Open, totals: &mut Totals) {
    for (chain, users) in users.0 {
        let key = view.table.key(chain);
        let mut interval = before.remove(&key).unwrap_or_default();
        let counted = Counted { view, chain, users: &users };
        let Some(more) = counted.interval() else {
            record(&users, totals, |recorder, item, _| recorder.unknown(item));
            continue;
        };
        interval.add(&more);
        if counted.is_moving() {
            now.insert(key, interval);
            record(&users, totals, |recorder, item, _| recorder.add_counted(item, 0, false));
            continue;
        }
        let Certain { users: least, rest } = interval.certain();
        record(&users, totals, |recorder, item, user| {
            let (packets, is_all) = least[user];
            recorder.add_counted(item, packets, is_all);
            if rest > 0 && !is_all && !have_common_name(&users) {
                recorder.unknown(item);
            }
        });
        record_rest(&users, rest, totals);
    }
}

fn record(users: &[User], totals: &mut Totals, mut add: impl FnMut(&mut Recorder, &Item, usize)) {
    for (place, user) in users.iter().enumerate() {
        let mut recorder = totals.of(user.pipeline);
        user.items.iter().for_each(|item| add(&mut recorder, item, place));
    }
}

/// Whether packets that were denied of one endpoint or another can be shown under the names of all. Only host endpoints have such
/// series, because no pod has an interface of that name.
fn have_common_name(users: &[User]) -> bool {
    users.len() > 1 && users.iter().all(|user| user.pipeline.kind != EndpointKind::Workload)
}

fn record_rest(users: &[User], rest: u64, totals: &mut Totals) {
    let Some(first) = users.first().filter(|_| have_common_name(users)) else { return };
    let mut interfaces: Vec<&str> = users.iter().map(|user| &*user.pipeline.interface).collect();
    interfaces.sort_unstable();
    let mut recorder = totals.endpoint(first.pipeline.kind, &interfaces.join(",").into(), first.pipeline.direction);
    for item in &first.items {
        match rest {
            0 => recorder.keep_if_counted(item),
            _ => recorder.add(item, rest),
        }
    }
}

struct Counted<'a> {
    view: &'a TableView<'a>,
    chain: ChainId,
    users: &'a [User<'a>],
}

impl Counted<'_> {
    fn policies(&self) -> impl Iterator<Item = ChainId> {
        self.view.table.pipelines.policies_in(self.chain)
    }

    /// `None` if the counts may include packets of anything but these endpoints.
    fn interval(&self) -> Option<Interval> {
        let Counted { view, chain, users } = *self;
        let is_known = |chain: ChainId, users: usize| {
            view.references(chain) as usize == users && view.is_steady(chain) && view.disturbance(chain) == Disturbance::None
        };
        let mut in_group = self.policies().filter(|policy| *policy != chain);
        if !is_known(chain, users.len()) || !in_group.all(|policy| is_known(policy, 1)) || users.iter().any(|u| u.is_disturbed) {
            return None;
        }
        let deltas = view.table.deltas;
        let unaccepted = |user: &User| Some(deltas.since_last_read(user.target.jump)? - deltas.since_last_read(user.target.accepted?)?);
        let refused = self.policies().map(|policy| view.margin(view.table.pipelines.policy(policy)?, Decision::Deny).most);
        let refused: u64 = refused.sum::<Option<u64>>()?;
        Some(Interval { unaccepted: users.iter().map(unaccepted).collect::<Option<_>>()?, refused: i64::try_from(refused).ok()? })
    }

    /// Whether any of the counters that are compared moved while the table was read.
    fn is_moving(&self) -> bool {
        let table = &self.view.table;
        let refusals = self.policies().filter_map(|policy| table.pipelines.policy(policy));
        let refusals = refusals.flat_map(|policy| policy.rules_that(Decision::Deny));
        let ways = self.users.iter().flat_map(|user| [Some(user.target.jump), user.target.accepted]).flatten();
        table.motion.sum(ways.chain(refusals)) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certain(unaccepted: &[i64], refused: i64) -> (Vec<(u64, bool)>, u64) {
        let Certain { users, rest } = Interval { unaccepted: unaccepted.to_vec(), refused }.certain();
        (users, rest)
    }

    #[test]
    fn what_cannot_be_another_endpoints_is_certain() {
        assert_eq!(certain(&[7, 5], 9), (vec![(4, false), (2, false)], 3));
        assert_eq!(certain(&[7, 5], 12), (vec![(7, true), (5, true)], 0));
        assert_eq!(certain(&[7, 0], 4), (vec![(4, true), (0, true)], 0));
        assert_eq!(certain(&[7, 5], 0), (vec![(0, true), (0, true)], 0));
        assert_eq!(certain(&[7, 5], 4), (vec![(0, false), (0, false)], 4));
    }

    #[test]
    fn what_the_policy_counted_of_nobody_is_nobodys() {
        assert_eq!(certain(&[3, 0], 5), (vec![(1, false), (0, false)], 4));
    }
}
