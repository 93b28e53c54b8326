//! The policies of the node: their names as users write them, what their own rules counted, and which endpoints use them. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Counts, Pipeline, Policy, PolicyCounts, Report, Rule, User};
use crate::accounting::attribution::NodeTotals;
use crate::felix::{Catalog, Decision, Direction};
use crate::ruleset::Family;

/// By label and tier.
pub struct Infos(BTreeMap<(Arc<str>, Arc<str>), Info>);

#[derive(Clone)]
struct Info {
    kind: Arc<str>,
    namespace: Option<Arc<str>>,
    name: Arc<str>,
}

impl Infos {
    /// One of two tables may have a name that was cut off, so the one that says more is taken.
    pub fn new(catalog: &Catalog) -> Self {
        let mut infos = BTreeMap::new();
        for info in &catalog.policies {
            let name = if info.name.is_empty() { Arc::clone(&info.policy) } else { info.name.as_str().into() };
            let namespace = Some(info.namespace.as_str()).filter(|namespace| !namespace.is_empty()).map(Arc::from);
            let new = Info { kind: info.kind.as_str().into(), namespace, name };
            let known = infos.entry((Arc::clone(&info.policy), Arc::clone(&info.tier))).or_insert_with(|| new.clone());
            if known.kind.is_empty() {
                *known = new;
            }
        }
        Infos(infos)
    }

    pub fn name(&self, policy: &mut PolicyCounts, tier: &Arc<str>) {
        if let Some(info) = self.0.get(&(Arc::clone(&policy.policy), Arc::clone(tier))) {
            policy.kind = Arc::clone(&info.kind);
            policy.namespace = info.namespace.clone();
            policy.name = Arc::clone(&info.name);
        }
    }
}

pub fn policies(infos: &Infos, node: &NodeTotals, report: &Report) -> Vec<Policy> {
    let mut rules = rules(node);
    let mut users = users(report);
    let policy = |((label, tier), info): (&(Arc<str>, Arc<str>), &Info)| {
        let rules = rules.remove(label).unwrap_or_default();
        let (workloads, host_endpoints) = users.remove(label).unwrap_or_default();
        // `None` if there is nothing to sum up.
        let sum = |action| rules.iter().filter(|rule| rule.action == action).map(|rule| rule.packets).reduce(u64::saturating_add);
        Policy {
            policy: Arc::clone(label),
            kind: Arc::clone(&info.kind),
            namespace: info.namespace.clone(),
            name: Arc::clone(&info.name),
            tier: Arc::clone(tier),
            hit: rules.iter().any(|rule| rule.packets > 0),
            accept: sum(Decision::Accept),
            deny: sum(Decision::Deny),
            pass: sum(Decision::Pass),
            since: None,
            workloads,
            host_endpoints,
            rules,
        }
    };
    infos.0.iter().map(policy).collect()
}

fn rules(node: &NodeTotals) -> HashMap<Arc<str>, Vec<Rule>> {
    let mut rules = HashMap::<Arc<str>, Vec<Rule>>::new();
    for (key, packets) in node.rules() {
        let (family, action) = (Family::name(key.family).into(), key.decision);
        let rule = Rule { direction: key.direction, family, rule: key.index, action, packets, matches: None };
        rules.entry(Arc::clone(&key.policy)).or_default().push(rule);
    }
    rules
}

type Users = (Vec<User>, Vec<Arc<str>>);

fn users(report: &Report) -> HashMap<Arc<str>, Users> {
    let mut users = HashMap::<Arc<str>, Users>::new();
    for endpoint in &report.workloads {
        for (policy, directions) in directions(&endpoint.directions) {
            let w = &endpoint.workload;
            let [interface, namespace, pod] = [&w.interface, &w.namespace, &w.pod].map(Arc::clone);
            users.entry(policy).or_default().0.push(User { interface, namespace, pod, directions });
        }
    }
    for endpoint in &report.host_endpoints {
        for (policy, _) in directions(&endpoint.directions) {
            let interfaces = &mut users.entry(policy).or_default().1;
            // The stages of an endpoint are next to each other.
            if interfaces.last() != Some(&endpoint.interface) {
                interfaces.push(Arc::clone(&endpoint.interface));
            }
        }
    }
    users
}

/// Returns the policies of an endpoint, with the directions in which they apply.
fn directions(pipelines: &[Pipeline]) -> BTreeMap<Arc<str>, Vec<Direction>> {
    let mut directions = BTreeMap::<Arc<str>, Vec<Direction>>::new();
    for pipeline in pipelines {
        for policy in pipeline.policies() {
            let known = directions.entry(Arc::clone(&policy.policy)).or_default();
            if !known.contains(&pipeline.direction) {
                known.push(pipeline.direction);
            }
        }
    }
    directions
}

/// What the own rules of policies counted for all endpoints together. It is the most that each endpoint can have got.
pub struct Bounds(HashMap<(Arc<str>, Direction, Decision), u64>);

impl Bounds {
    /// Adds up both families.
    pub fn new(node: &NodeTotals) -> Self {
        let mut bounds = HashMap::<_, u64>::new();
        for (key, packets) in node.rules() {
            let bound = bounds.entry((Arc::clone(&key.policy), key.direction, key.decision)).or_default();
            *bound = bound.saturating_add(packets);
        }
        Bounds(bounds)
    }

    /// Removes what only two reads can show, and sets the most that it can be. `accepted` is the most that a group accepted, if the policy
    /// is in one. What other policies accepted is counted.
    pub fn apply(&self, policy: &mut PolicyCounts, direction: Direction, accepted: Option<u64>) {
        let most = |can| self.0.get(&(Arc::clone(&policy.policy), direction, can)).copied().filter(|_| policy.can.contains(&can));
        let (deny, pass) = (most(Decision::Deny), most(Decision::Pass));
        let zero = |most: Option<u64>| most.filter(|most| *most == 0);
        let mut at_most = Counts { deny, pass, ..Counts::default() };
        policy.counts = Counts { accept: policy.counts.accept, deny: zero(deny), pass: zero(pass), deny_or_pass: None };
        if let Some(accepted) = accepted {
            at_most.accept = most(Decision::Accept).map(|most| most.min(accepted));
            policy.counts.accept = zero(at_most.accept);
        }
        let open = |most: Option<u64>| most.filter(|most| *most > 0);
        at_most = Counts { accept: open(at_most.accept), deny: open(at_most.deny), pass: open(at_most.pass), deny_or_pass: None };
        policy.at_most = Some(at_most).filter(|at_most| *at_most != Counts::default());
    }
}
