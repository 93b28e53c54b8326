//! Policies behind which no rule counts what they leave undecided, as preDNAT policies of host endpoints → what each endpoint's packets
//! they refused. Pure state.
//!
//! The policy's own rules count for all endpoints together. Of what went in and was not accepted, they refused all but a few, wherever
//! it came from; so each endpoint had refused at least what it sent in beyond those few. Where only one endpoint sent anything, or none
//! was left undecided, that is exact.
//!
//! Example: 7 packets of A and 5 of B went to P, which accepted none and refused 9. 3 were left. So P refused 4 to 7 of A's and 2 to 5
//! of B's. Nobody knows more, so neither is shown; had P refused 12, it would be 7 and 5.

use std::collections::HashMap;
use std::sync::Arc;

use crate::felix::{Decision, Direction, EndpointKind, Target};
use crate::ruleset::{ChainId, RuleId, TableId};

use super::foreign::Disturbance;
use super::table::TableView;
use super::totals::{Item, Recorder, Totals};

/// An endpoint that uses such a policy, or a group of some.
#[derive(Debug)]
pub struct User {
    /// What it is.
    pub kind: EndpointKind,
    /// Its interface.
    pub interface: Arc<str>,
    /// Its direction.
    pub direction: Direction,
    /// Its jump.
    pub target: Target,
    /// As what refusals count.
    pub items: Vec<Item>,
    /// Whether foreign rules made them unknown.
    pub is_disturbed: bool,
}

/// What was counted since the policy was last seen at rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Interval {
    /// Packets that went in and were not accepted, by endpoint.
    unaccepted: Vec<i64>,
    /// Packets that were refused.
    refused: i64,
}

/// What is certain of an interval.
#[derive(Debug, PartialEq, Eq)]
struct Certain {
    /// By endpoint: at least so many of its packets were refused, and whether it is all of them.
    users: Vec<(u64, bool)>,
    /// So many more, of one endpoint or the other.
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
        // Below zero, the policy counted packets that no endpoint shows: then the endpoints' numbers give way by as many.
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

/// All such policies.
#[derive(Debug, Default)]
pub struct Open {
    before: HashMap<(TableId, Arc<str>), Interval>,
    now: HashMap<(TableId, Arc<str>), Interval>,
    /// Of the table that is being read.
    users: Vec<(ChainId, Vec<User>)>,
}

impl Open {
    /// Notes an endpoint that uses a policy or group.
    pub fn add(&mut self, chain: ChainId, user: User) {
        match self.users.iter_mut().find(|(known, _)| *known == chain) {
            Some((_, users)) => users.push(user),
            None => self.users.push((chain, vec![user])),
        }
    }

    /// Credits what is certain of a table; what was on its way while it was read waits for the next read.
    pub fn settle(&mut self, view: &TableView, totals: &mut Totals) {
        for (chain, users) in std::mem::take(&mut self.users) {
            let key = (view.table.ruleset.id(), Arc::clone(&view.table.ruleset.chain(chain).name));
            let mut interval = self.before.remove(&key).unwrap_or_default();
            let Some(now) = Counted { view, chain, users: &users }.interval() else {
                record(&users, totals, |recorder, item, _| recorder.unknown(item));
                continue;
            };
            interval.add(&now);
            if (Counted { view, chain, users: &users }).is_moving() {
                self.now.insert(key, interval);
                record(&users, totals, |recorder, item, _| recorder.add_at_least(item, 0));
                continue;
            }
            let Certain { users: least, rest } = interval.certain();
            record(&users, totals, |recorder, item, user| match least[user] {
                (packets, true) => recorder.add(item, packets),
                (packets, false) => recorder.add_at_least(item, packets),
            });
            record_rest(&users, rest, totals);
        }
    }

    /// Ends a read.
    pub fn end_read(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

fn record(users: &[User], totals: &mut Totals, mut add: impl FnMut(&mut Recorder, &Item, usize)) {
    for (place, user) in users.iter().enumerate() {
        let mut recorder = totals.endpoint(user.kind, &user.interface, user.direction);
        user.items.iter().for_each(|item| add(&mut recorder, item, place));
    }
}

/// What one host endpoint or the other was refused goes by the names of both. Not so of workloads: no pod has such an interface.
fn record_rest(users: &[User], rest: u64, totals: &mut Totals) {
    let [first, _, ..] = users else { return };
    if users.iter().any(|user| user.kind == EndpointKind::Workload) {
        return;
    }
    let mut interfaces: Vec<&str> = users.iter().map(|user| &*user.interface).collect();
    interfaces.sort_unstable();
    let mut recorder = totals.endpoint(first.kind, &interfaces.join(",").into(), first.direction);
    for item in &first.items {
        match rest {
            0 => recorder.keep_if_counted(item),
            _ => recorder.add(item, rest),
        }
    }
}

/// One policy or group in one read.
struct Counted<'a> {
    view: &'a TableView<'a>,
    chain: ChainId,
    users: &'a [User],
}

impl Counted<'_> {
    /// The policy, or those of the group.
    fn policies(&self) -> Vec<ChainId> {
        let group = self.view.table.pipelines.group(self.chain);
        group.map_or_else(|| vec![self.chain], |group| group.policies.iter().map(|(_, policy)| *policy).collect())
    }

    /// `None` if something else than these endpoints' packets may be in the counts.
    fn interval(&self) -> Option<Interval> {
        let Counted { view, chain, users } = *self;
        let is_known = |chain: ChainId, users: usize| {
            view.references(chain) as usize == users && view.is_steady(chain) && view.disturbance(chain) == Disturbance::None
        };
        let policies = self.policies();
        let in_group = policies.iter().filter(|policy| **policy != chain);
        if !is_known(chain, users.len()) || !in_group.copied().all(|policy| is_known(policy, 1)) || users.iter().any(|u| u.is_disturbed) {
            return None;
        }
        let deltas = view.table.deltas;
        let unaccepted = |user: &User| Some(deltas.since_last_read(user.target.jump)? - deltas.since_last_read(user.target.accepted?)?);
        let refused = policies.iter().map(|policy| view.margin(view.table.pipelines.policy(*policy)?, Decision::Deny).most);
        let refused: u64 = refused.sum::<Option<u64>>()?;
        Some(Interval { unaccepted: users.iter().map(unaccepted).collect::<Option<_>>()?, refused: i64::try_from(refused).ok()? })
    }

    /// Whether any of what is compared has moved while the table was read.
    fn is_moving(&self) -> bool {
        let table = &self.view.table;
        let refusals = self.policies().into_iter().filter_map(|policy| table.pipelines.policy(policy));
        let refusals: Vec<RuleId> = refusals.flat_map(|policy| policy.rules_that(Decision::Deny)).collect();
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
