//! Makes one pipeline for each endpoint and direction of the pipelines of a read's tables, without counts. Pure. The families of an
//! interface are joined, and so are the tables that share a host endpoint: in the order of the first, with what only others have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Counts, DefaultAction, Group, Pipeline, PolicyCounts, Profile, Refused, Target, Tier};
use crate::felix::{self, Decision, DropReason, EndpointKind, Structure};
use crate::ruleset::ChainId;

#[derive(Debug, Clone, Default)]
pub struct Outline {
    pub(super) endpoints: BTreeMap<(EndpointKind, Arc<str>), Vec<Pipeline>>,
}

impl Outline {
    /// Takes only the endpoints that are wanted.
    pub fn of_tables(tables: &[Structure], wanted: impl Fn(EndpointKind, &Arc<str>) -> bool) -> Self {
        let mut outline = Outline::default();
        for table in tables {
            for pipeline in table.pipelines.endpoints.iter().filter(|pipeline| wanted(pipeline.kind, &pipeline.interface)) {
                let pipelines = outline.endpoints.entry((pipeline.kind, Arc::clone(&pipeline.interface))).or_default();
                let same = |a: &Pipeline, b: &Pipeline| a.direction == b.direction;
                merge(pipelines, [self::pipeline(table, pipeline)], same, join_pipelines);
            }
        }
        outline.sort();
        outline
    }

    pub(super) fn sort(&mut self) {
        for pipelines in self.endpoints.values_mut() {
            pipelines.sort_by_key(|pipeline| pipeline.direction);
        }
    }
}

/// Merges `from` into `into`. What both have is joined. The rest is inserted at its place among its neighbours.
pub(super) fn merge<T>(into: &mut Vec<T>, from: impl IntoIterator<Item = T>, same: impl Fn(&T, &T) -> bool, join: impl Fn(&mut T, T)) {
    let mut place = 0;
    for item in from {
        match into.iter().position(|known| same(known, &item)) {
            Some(found) => {
                join(&mut into[found], item);
                place = found + 1;
            }
            None => {
                into.insert(place, item);
                place += 1;
            }
        }
    }
}

pub(super) fn join_pipelines(into: &mut Pipeline, from: Pipeline) {
    into.profiles_refuse |= from.profiles_refuse;
    merge(&mut into.before, from.before, |a, b| a.reason == b.reason, |_, _| {});
    merge(&mut into.tiers, from.tiers, |a, b| a.tier == b.tier, join_tiers);
    merge(&mut into.profiles, from.profiles, |a, b| a.profile == b.profile, |_, _| {});
}

fn join_tiers(into: &mut Tier, from: Tier) {
    if from.default_action == DefaultAction::Deny {
        into.default_action = DefaultAction::Deny;
    }
    merge(&mut into.targets, from.targets, same_targets, join_targets);
}

fn same_targets(a: &Target, b: &Target) -> bool {
    match (a, b) {
        (Target::Policy(a), Target::Policy(b)) => a.policy == b.policy,
        (Target::Group(a), Target::Group(b)) => a.group == b.group,
        _ => false,
    }
}

fn join_targets(into: &mut Target, from: Target) {
    match (into, from) {
        (Target::Policy(into), Target::Policy(from)) => join_policies(into, from),
        (Target::Group(into), Target::Group(from)) => {
            merge(&mut into.policies, from.policies, |a, b| a.policy == b.policy, join_policies);
        }
        _ => {}
    }
}

/// A policy may have rules for one family only.
fn join_policies(into: &mut PolicyCounts, from: PolicyCounts) {
    into.can.extend(from.can);
    into.can.sort();
    into.can.dedup();
}

fn pipeline(table: &Structure, pipeline: &felix::Pipeline) -> Pipeline {
    let drops = pipeline.drops.iter().filter(|drop| drop.reason != DropReason::NoProfile);
    let mut before = Vec::new();
    let refused =
        drops.map(|drop| Refused { reason: drop.reason.as_str().into(), packets: None, is_derived: !drop.let_through.is_empty() });
    merge(&mut before, refused, |a, b| a.reason == b.reason, |_, _| {});
    Pipeline {
        direction: pipeline.direction,
        established: None,
        before,
        tiers: pipeline.tiers.iter().map(|tier| self::tier(table, tier)).collect(),
        profiles: pipeline.profiles.targets.iter().filter_map(|profile| self::profile(table, profile.chain)).collect(),
        by_profile: None,
        profiles_refuse: pipeline.profiles.targets.iter().any(|profile| refuses(table, profile.chain)),
        no_profile: None,
        undivided: None,
        all: None,
    }
}

fn tier(table: &Structure, tier: &felix::Tier) -> Tier {
    let default_action = if tier.end.is_some() { DefaultAction::Deny } else { DefaultAction::Pass };
    let targets = tier.targets.iter().filter_map(|target| self::target(table, target.chain)).collect();
    Tier { tier: Arc::clone(&tier.name), default_action, targets, no_policy: None }
}

fn target(table: &Structure, chain: ChainId) -> Option<Target> {
    let Some(group) = table.pipelines.group(chain) else { return policy(table, chain).map(Target::Policy) };
    let policies = group.policies.iter().filter_map(|(_, policy)| self::policy(table, *policy)).collect();
    let group = Arc::clone(&table.ruleset.chain(chain).name);
    Some(Target::Group(Group { group, policies, undivided: Counts::default() }))
}

fn policy(table: &Structure, chain: ChainId) -> Option<PolicyCounts> {
    let label = table.labels.get(chain)?;
    let policy = table.pipelines.policy(chain)?;
    let can = [Decision::Accept, Decision::Deny, Decision::Pass].into_iter().filter(|decision| policy.can(*decision)).collect();
    Some(PolicyCounts { policy: Arc::clone(&label.label), name: Arc::clone(&label.label), can, ..PolicyCounts::default() })
}

fn refuses(table: &Structure, profile: ChainId) -> bool {
    table.pipelines.policy(profile).is_some_and(|profile| profile.can(Decision::Deny))
}

fn profile(table: &Structure, chain: ChainId) -> Option<Profile> {
    Some(Profile { profile: Arc::clone(&table.labels.get(chain)?.label), accept: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_family_lacks_comes_where_the_other_has_it() {
        let mut into = vec!["a", "b", "e"];
        merge(&mut into, ["a", "c", "e", "f"], |a, b| a == b, |_, _| {});
        assert_eq!(into, ["a", "c", "b", "e", "f"]);
        merge(&mut into, ["x", "b"], |a, b| a == b, |_, _| {});
        assert_eq!(into, ["x", "a", "c", "b", "e", "f"]);
    }
}
