//! The labels of the policies, profiles and groups of a table in metrics. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::profile_name;
use super::{ChainNames, Pipelines, PolicyName};
use crate::ruleset::{ChainId, Interned, Ruleset};

#[derive(Debug, Clone, Default)]
pub struct Labels {
    chains: Vec<Option<Label>>,
    /// The number of policy chains that endpoints use and that have no name. Only the datastore can give it (Calico ≤ 3.21).
    pub unnamed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub label: Arc<str>,
    /// The tier that refers to it; empty for profiles.
    pub tier: Arc<str>,
    pub name: Option<PolicyName>,
    pub is_profile: bool,
    /// Whether the label is a chain's name because the policy's is unknown. The datastore may still give it.
    pub provisional: bool,
}

impl Labels {
    /// Labels all policies, profiles and groups that endpoints use. If one has no name, its label is the name of its chain.
    pub fn new(ruleset: &Ruleset, pipelines: &Pipelines, chain_names: &ChainNames, names: &mut Interned<str>) -> Self {
        let tiers = tiers(ruleset, pipelines, names);
        let used = |chain: ChainId| tiers[chain.0 as usize].as_ref();
        let nameless = pipelines.policies().filter(|policy| policy.name.is_none() && used(policy.chain).is_some());
        let (nameless, chains): (Vec<ChainId>, Vec<&str>) =
            nameless.map(|policy| (policy.chain, &*ruleset.chain(policy.chain).name)).unzip();
        // If no chain has a name in a comment (≤ 3.21), names of chains that are not hashed are the policies'.
        let are_names = pipelines.policies().all(|policy| policy.name.is_none());
        let resolved = chain_names.resolve(&chains).into_iter().zip(chains);
        let resolved = resolved.map(|(name, chain)| name.or_else(|| PolicyName::from_chain(chain).filter(|_| are_names)));
        let resolved: HashMap<ChainId, PolicyName> =
            nameless.iter().copied().zip(resolved).filter_map(|(id, name)| Some((id, name?))).collect();
        let mut labels = Labels { chains: vec![None; tiers.len()], unnamed: nameless.len() - resolved.len() };
        for policy in pipelines.policies() {
            let Some(tier) = used(policy.chain) else { continue };
            let name = policy.name.as_ref().or_else(|| resolved.get(&policy.chain)).cloned();
            let label = match &name {
                Some(name) => names.get(&name.label(tier)),
                None => names.get(&ruleset.chain(policy.chain).name),
            };
            let (tier, provisional) = (Arc::clone(tier), name.is_none());
            labels.chains[policy.chain.0 as usize] = Some(Label { label, tier, name, is_profile: false, provisional });
        }
        for pipeline in &pipelines.endpoints {
            for profile in &pipeline.profiles.targets {
                labels.profile(profile.chain, ruleset, pipelines, names);
            }
        }
        labels.groups(pipelines, &tiers, names);
        labels
    }

    /// Labels a profile. Its name is in its comment, or in its chain's name if it was short enough.
    fn profile(&mut self, chain: ChainId, ruleset: &Ruleset, pipelines: &Pipelines, names: &mut Interned<str>) {
        if self.chains[chain.0 as usize].is_some() {
            return;
        }
        let name = pipelines.policy(chain).and_then(|profile| profile.name.clone());
        let chain_name = &ruleset.chain(chain).name;
        let label = name.as_ref().map(|name| &*name.name).or_else(|| profile_name(chain_name)).unwrap_or(chain_name);
        self.chains[chain.0 as usize] =
            Some(Label { label: names.get(label), tier: names.get(""), name, is_profile: true, provisional: false });
    }

    /// Labels groups with the names of their policies in the order of evaluation, joined by commas.
    fn groups(&mut self, pipelines: &Pipelines, tiers: &[Option<Arc<str>>], names: &mut Interned<str>) {
        for (place, tier) in tiers.iter().enumerate() {
            let (Some(tier), Some(group)) = (tier, pipelines.group(ChainId(place as u32))) else { continue };
            let provisional = group.policy_chains().filter_map(|policy| self.get(policy)).any(|policy| policy.provisional);
            let label = names.get(&self.joined(group.policy_chains()));
            self.chains[place] = Some(Label { label, tier: Arc::clone(tier), name: None, is_profile: false, provisional });
        }
    }

    pub fn joined(&self, policies: impl Iterator<Item = ChainId>) -> String {
        policies.filter_map(|policy| self.get(policy)).map(|policy| &*policy.label).collect::<Vec<_>>().join(",")
    }

    pub fn iter(&self) -> impl Iterator<Item = (ChainId, &Label)> {
        self.chains.iter().enumerate().filter_map(|(place, label)| Some((ChainId(place as u32), label.as_ref()?)))
    }

    pub fn get(&self, chain: ChainId) -> Option<&Label> {
        self.chains[chain.0 as usize].as_ref()
    }
}

/// Returns the tier that refers to each policy or group chain. A policy is in one tier only.
fn tiers(ruleset: &Ruleset, pipelines: &Pipelines, names: &mut Interned<str>) -> Vec<Option<Arc<str>>> {
    let mut tiers: Vec<Option<Arc<str>>> = vec![None; ruleset.chains().len()];
    let all = || pipelines.endpoints.iter().flat_map(|pipeline| &pipeline.tiers);
    // If a policy is in tiers of two names, the name that is certain is taken.
    for tier in all().filter(|tier| tier.is_named_at_end).chain(all()) {
        for target in &tier.targets {
            let place = target.chain.0 as usize;
            if tiers[place].is_some() {
                continue;
            }
            let name = names.get(&tier.name);
            tiers[place] = Some(Arc::clone(&name));
            pipelines.policies_in(target.chain).for_each(|policy| tiers[policy.0 as usize] = Some(Arc::clone(&name)));
        }
    }
    tiers
}
