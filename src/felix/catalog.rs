//! All policies and groups that endpoints use, as people write them. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Decision, Direction, Labels, Pipelines, PolicyName};
use crate::ruleset::{ChainId, Ruleset};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyInfo {
    pub policy: Arc<str>,
    /// `NetworkPolicy`, `GlobalNetworkPolicy`, `KubernetesNetworkPolicy`, …; empty if nothing is known of it.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub tier: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupPlace {
    /// The group's label: the names of its policies joined by commas; or of those among them that can decide in one way.
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
    pub fn add_policy(&mut self, name: &PolicyName, policy: &Arc<str>, tier: &Arc<str>) {
        let (kind, namespace, name) = as_written(name, tier);
        self.policies.insert(PolicyInfo { policy: Arc::clone(policy), kind, namespace, name, tier: Arc::clone(tier) });
    }

    pub fn add(&mut self, ruleset: &Ruleset, pipelines: &Pipelines, labels: &Labels) {
        for policy in pipelines.policies() {
            let Some(label) = labels.get(policy.chain).filter(|label| !label.is_profile) else { continue };
            let (kind, namespace, name) = label.name.as_ref().map(|name| as_written(name, &label.tier)).unwrap_or_default();
            let (policy, tier) = (Arc::clone(&label.label), Arc::clone(&label.tier));
            self.policies.insert(PolicyInfo { policy, kind, namespace, name, tier });
        }
        for group in pipelines.groups() {
            let Some(label) = labels.get(group.chain) else { continue };
            let inwards = ruleset.chain(group.chain).name.starts_with("cali-gi-");
            let direction = if inwards { Direction::Ingress } else { Direction::Egress };
            let all: Vec<(usize, ChainId)> = group.policy_chains().enumerate().collect();
            let that_can = |decisions: &[Decision]| {
                let can = |policy: ChainId| pipelines.policy(policy).is_some_and(|policy| decisions.iter().any(|d| policy.can(*d)));
                all.iter().copied().filter(|(_, policy)| can(*policy)).collect::<Vec<_>>()
            };
            let some = COUNTED_TOGETHER.iter().map(|decisions| that_can(decisions)).filter(|policies| policies.len() > 1);
            for policies in some.chain([all.clone()]) {
                let joined: Arc<str> = labels.joined(policies.iter().map(|(_, policy)| *policy)).into();
                let places = policies.iter().filter_map(|(position, policy)| Some((*position, labels.get(*policy)?)));
                self.groups.extend(places.map(|(position, policy)| GroupPlace {
                    group: Arc::clone(&joined),
                    direction,
                    tier: Arc::clone(&label.tier),
                    position,
                    policy: Arc::clone(&policy.label),
                }));
            }
        }
    }
}

/// What is counted together of those policies of a group that can decide so.
const COUNTED_TOGETHER: [&[Decision]; 4] = [&[Decision::Accept], &[Decision::Deny], &[Decision::Pass], &[Decision::Deny, Decision::Pass]];

/// Kind, namespace and name. Calico stores Kubernetes' policies under names of its own, and up to 3.31 its own with their tier.
fn as_written(policy: &PolicyName, tier: &str) -> (String, String, String) {
    let namespace = policy.namespace.as_deref().unwrap_or_default().to_owned();
    for (prefix, kind) in [
        ("knp.default.", "KubernetesNetworkPolicy"),
        ("kanp.adminnetworkpolicy.", "AdminNetworkPolicy"),
        ("kbanp.baselineadminnetworkpolicy.", "BaselineAdminNetworkPolicy"),
    ] {
        if let Some(name) = policy.name.strip_prefix(prefix) {
            return (kind.to_owned(), namespace, name.to_owned());
        }
    }
    let kind = match (&*policy.kind, namespace.is_empty()) {
        ("Policy", true) => "GlobalNetworkPolicy",
        ("Policy", false) => "NetworkPolicy",
        (kind, _) => kind,
    };
    let name = policy.name.strip_prefix("default.").filter(|_| tier == "default").unwrap_or(&policy.name);
    (kind.to_owned(), namespace, name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_people_write_them() {
        for (comment, tier, written) in [
            ("Policy default/knp.default.foo ingress", "default", ("KubernetesNetworkPolicy", "default", "foo")),
            ("KubernetesNetworkPolicy default/foo ingress", "default", ("KubernetesNetworkPolicy", "default", "foo")),
            ("NetworkPolicy shop/knp.default.foo ingress", "default", ("KubernetesNetworkPolicy", "shop", "foo")),
            ("Policy shop/default.web ingress", "default", ("NetworkPolicy", "shop", "web")),
            ("Policy default.deny-all egress", "default", ("GlobalNetworkPolicy", "", "deny-all")),
            ("GlobalNetworkPolicy platform.guard ingress", "platform", ("GlobalNetworkPolicy", "", "platform.guard")),
            ("Policy kanp.adminnetworkpolicy.x ingress", "adminnetworkpolicy", ("AdminNetworkPolicy", "", "x")),
        ] {
            let (kind, namespace, name) = as_written(&PolicyName::from_comment(comment).unwrap(), tier);
            assert_eq!((&*kind, &*namespace, &*name), written, "{comment}");
        }
    }
}
