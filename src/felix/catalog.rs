//! All policies and groups that endpoints use, as users write them. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::names::direction_of;
use super::{Decision, Direction, Labels, Pipelines, PolicyName};
use crate::ruleset::{ChainId, Ruleset};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyInfo {
    pub policy: Arc<str>,
    /// `NetworkPolicy`, `GlobalNetworkPolicy`, `KubernetesNetworkPolicy`, …; empty if unknown.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub tier: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupPlace {
    /// The group's label: the names of its policies, or of those that can decide in one way, joined by commas.
    pub group: Arc<str>,
    pub direction: Direction,
    pub tier: Arc<str>,
    pub position: usize,
    pub policy: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    pub policies: BTreeSet<PolicyInfo>,
    pub groups: BTreeSet<GroupPlace>,
}

impl Catalog {
    pub fn add_policy(&mut self, name: Option<&PolicyName>, policy: &Arc<str>, tier: &Arc<str>) {
        let (kind, namespace, name) = name.map(|name| name.as_written(tier)).unwrap_or_default();
        self.policies.insert(PolicyInfo { policy: Arc::clone(policy), kind, namespace, name, tier: Arc::clone(tier) });
    }

    pub fn add(&mut self, ruleset: &Ruleset, pipelines: &Pipelines, labels: &Labels) {
        for policy in pipelines.policies() {
            let Some(label) = labels.get(policy.chain).filter(|label| !label.is_profile) else { continue };
            self.add_policy(label.name.as_ref(), &label.label, &label.tier);
        }
        for group in pipelines.groups() {
            let Some(label) = labels.get(group.chain) else { continue };
            let direction = direction_of(&ruleset.chain(group.chain).name);
            let all: Vec<(usize, ChainId)> = group.policy_chains().enumerate().collect();
            let some = COUNTED_TOGETHER.iter().map(|decisions| {
                let can = |policy: ChainId| pipelines.policy(policy).is_some_and(|policy| decisions.iter().any(|d| policy.can(*d)));
                all.iter().copied().filter(|(_, policy)| can(*policy)).collect::<Vec<_>>()
            });
            for policies in some.filter(|policies| policies.len() > 1).chain([all.clone()]) {
                let joined: Arc<str> = labels.joined(policies.iter().map(|(_, policy)| *policy)).into();
                let places = policies.iter().filter_map(|(position, policy)| Some((*position, labels.get(*policy)?)));
                self.groups.extend(places.map(|(position, policy)| {
                    let (group, tier, policy) = (Arc::clone(&joined), Arc::clone(&label.tier), Arc::clone(&policy.label));
                    GroupPlace { group, direction, tier, position, policy }
                }));
            }
        }
    }
}

/// The policies of a group that can make one of these decisions are counted together.
const COUNTED_TOGETHER: [&[Decision]; 4] = [&[Decision::Accept], &[Decision::Deny], &[Decision::Pass], &[Decision::Deny, Decision::Pass]];
