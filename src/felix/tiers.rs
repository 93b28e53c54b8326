//! Which tier is which, in Calico's own nftables tables. Pure.
//!
//! Up to 3.32 Felix leaves comments out when it tells whether a rule is still the right one. So where a tier comes to apply in front of
//! another, or in its place, the old `Start of tier …` can stay. The tier's last rules know better, and up to 3.31 so do its policies'
//! names. What still contradicts itself has no name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Pipeline, Pipelines, Tier};
use crate::ruleset::ChainId;

/// Names the tiers of all endpoints.
pub fn settle(pipelines: &mut Pipelines) {
    let mut endpoints = std::mem::take(&mut pipelines.endpoints);
    let certain = endpoints.iter().flat_map(|pipeline| &pipeline.tiers).filter(|tier| tier.is_named_at_end);
    // A policy is in one tier only.
    let certain: HashMap<ChainId, Arc<str>> =
        certain.flat_map(|tier| policies(tier, pipelines).into_iter().map(|policy| (policy, Arc::clone(&tier.name)))).collect();
    for tier in endpoints.iter_mut().flat_map(|pipeline| &mut pipeline.tiers).filter(|tier| !tier.is_named_at_end) {
        let by_name = |policy: &ChainId| Some(pipelines.policy(*policy)?.name.as_ref()?.tier()?.into());
        let known = policies(tier, pipelines);
        if let Some(name) = known.iter().find_map(|policy| certain.get(policy).cloned().or_else(|| by_name(policy))) {
            (tier.name, tier.is_named_at_end) = (name, true);
        }
    }
    endpoints.iter_mut().for_each(forget_doubles);
    pipelines.endpoints = endpoints;
}

/// The policies of a tier, also those in groups.
fn policies(tier: &Tier, pipelines: &Pipelines) -> Vec<ChainId> {
    let grouped = |target| pipelines.group(target).into_iter().flat_map(|group| &group.policies).map(|(_, policy)| *policy);
    tier.targets.iter().flat_map(|target| grouped(target.chain).chain([target.chain])).collect()
}

/// No endpoint has a tier twice: of two that go by one name, one is wrong.
fn forget_doubles(pipeline: &mut Pipeline) {
    let certain: HashSet<Arc<str>> = pipeline.tiers.iter().filter(|tier| tier.is_named_at_end).map(|tier| Arc::clone(&tier.name)).collect();
    let names: Vec<Arc<str>> = pipeline.tiers.iter().map(|tier| Arc::clone(&tier.name)).collect();
    for tier in pipeline.tiers.iter_mut().filter(|tier| !tier.is_named_at_end) {
        let others = names.iter().filter(|name| **name == tier.name).count() > 1;
        if others || certain.contains(&tier.name) {
            tier.name = "".into();
        }
    }
}
