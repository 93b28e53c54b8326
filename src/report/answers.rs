//! The API's answers, which `top` and `explain` show too: parts of the [`Report`]. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Counts, Group, HostEndpoint, Pipeline, Policy, Report, Status, Target, UnknownInterfaces, Workload, WorkloadEndpoint};
use crate::felix::{Decision, Direction};

/// `GET /api/v1/workloads`
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadsAnswer {
    pub status: Status,
    pub workloads: Vec<Workload>,
    pub drops: Vec<Drop>,
    pub unknown_interfaces: UnknownInterfaces,
}

/// Packets of one workload and direction that were dropped or denied for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    pub interface: Arc<str>,
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    pub direction: Direction,
    /// `policy`, `no_policy`, `profile`, `no_profile`, …
    pub reason: Cow<'static, str>,
    pub tier: Option<Arc<str>>,
    pub policy: Option<Arc<str>>,
    pub packets: u64,
}

/// `GET /api/v1/workloads/{interface}`
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadAnswer {
    pub status: Status,
    pub workload: Workload,
    pub directions: Vec<Pipeline>,
}

/// `GET /api/v1/policies`
#[derive(Debug, Serialize, Deserialize)]
pub struct PoliciesAnswer<'a> {
    pub status: Cow<'a, Status>,
    pub policies: Cow<'a, [Policy]>,
}

impl PoliciesAnswer<'_> {
    pub fn into_owned(self) -> PoliciesAnswer<'static> {
        PoliciesAnswer { status: Cow::Owned(self.status.into_owned()), policies: Cow::Owned(self.policies.into_owned()) }
    }
}

/// `GET /api/v1/policies/{policy}`
#[derive(Debug, Serialize, Deserialize)]
pub struct PolicyAnswer {
    pub status: Status,
    pub policy: Policy,
    pub endpoints: Vec<EndpointCounts>,
}

/// What a policy decided for one endpoint and direction.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndpointCounts {
    pub interface: Arc<str>,
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    /// Only for a host endpoint.
    pub stage: Option<Cow<'static, str>>,
    pub direction: Direction,
    #[serde(flatten)]
    pub counts: Counts,
    pub can: Vec<Decision>,
    /// Whether there cannot have been more: no packets remain of which it is unknown which policy decided.
    pub exact: bool,
}

/// `GET /api/v1/host-endpoints`
#[derive(Debug, Serialize, Deserialize)]
pub struct HostEndpointsAnswer {
    pub status: Status,
    pub host_endpoints: Vec<HostEndpoint>,
}

impl Report {
    pub fn workloads(&self) -> WorkloadsAnswer {
        WorkloadsAnswer {
            status: self.status.clone(),
            workloads: self.workloads.iter().map(|endpoint| endpoint.workload.clone()).collect(),
            drops: self.workloads.iter().flat_map(WorkloadEndpoint::drops).collect(),
            unknown_interfaces: self.unknown_interfaces,
        }
    }

    pub fn workload(&self, interface: &str) -> Option<WorkloadAnswer> {
        let WorkloadEndpoint { workload, directions } =
            self.workloads.iter().find(|endpoint| &*endpoint.workload.interface == interface)?.clone();
        Some(WorkloadAnswer { status: self.status.clone(), workload, directions })
    }

    pub fn policies(&self) -> PoliciesAnswer<'_> {
        PoliciesAnswer { status: Cow::Borrowed(&self.status), policies: Cow::Borrowed(&self.policies) }
    }

    pub fn policy(&self, label: &str) -> Option<PolicyAnswer> {
        let policy = self.policies.iter().find(|policy| &*policy.policy == label)?.clone();
        let none: Arc<str> = "".into();
        let mut endpoints = Vec::new();
        for WorkloadEndpoint { workload: w, directions } in &self.workloads {
            let names = [&w.interface, &w.namespace, &w.pod];
            endpoints.extend(directions.iter().flat_map(|pipeline| pipeline.of_policy(label, names, None)));
        }
        for host in &self.host_endpoints {
            let names = [&host.interface, &none, &none];
            endpoints.extend(host.directions.iter().flat_map(|pipeline| pipeline.of_policy(label, names, Some(&host.stage))));
        }
        Some(PolicyAnswer { status: self.status.clone(), policy, endpoints })
    }

    pub fn host_endpoints(&self) -> HostEndpointsAnswer {
        HostEndpointsAnswer { status: self.status.clone(), host_endpoints: self.host_endpoints.clone() }
    }
}

impl WorkloadEndpoint {
    /// Returns the drops in the order of evaluation.
    pub(super) fn drops(&self) -> Vec<Drop> {
        let mut drops = Vec::new();
        for pipeline in &self.directions {
            let mut add = |reason: &Cow<'static, str>, tier: Option<&Arc<str>>, policy: Option<Arc<str>>, packets: Option<u64>| {
                let Some(packets) = packets.filter(|packets| *packets > 0) else { return };
                let [interface, namespace, pod] = [&self.workload.interface, &self.workload.namespace, &self.workload.pod].map(Arc::clone);
                let (direction, reason, tier) = (pipeline.direction, reason.clone(), tier.cloned());
                drops.push(Drop { interface, namespace, pod, direction, reason, tier, policy, packets });
            };
            for refused in &pipeline.before {
                add(&refused.reason, None, None, refused.packets);
            }
            for tier in &pipeline.tiers {
                for (policy, packets) in tier.targets.iter().flat_map(Target::refusals) {
                    add(&"policy".into(), Some(&tier.tier), Some(policy), packets);
                }
                add(&"no_policy".into(), Some(&tier.tier), None, tier.no_policy);
            }
            add(&"profile".into(), None, None, pipeline.by_profile);
            add(&"no_profile".into(), None, None, pipeline.no_profile);
        }
        drops
    }
}

impl Pipeline {
    fn of_policy(&self, label: &str, names: [&Arc<str>; 3], stage: Option<&Cow<'static, str>>) -> Vec<EndpointCounts> {
        let targets = self.tiers.iter().flat_map(|tier| &tier.targets);
        let of_target = |target: &Target| {
            let policy = target.policies().iter().find(|policy| &*policy.policy == label)?;
            let [interface, namespace, pod] = names.map(Arc::clone);
            let exact = target.is_divided() && self.undivided.unwrap_or(0) == 0;
            let (counts, can) = (policy.counts, policy.can.clone());
            Some(EndpointCounts { interface, namespace, pod, stage: stage.cloned(), direction: self.direction, counts, can, exact })
        };
        targets.filter_map(of_target).collect()
    }
}

impl Target {
    /// Whether no packets remain that one of several policies decided.
    fn is_divided(&self) -> bool {
        let Target::Group(Group { undivided, .. }) = self else { return true };
        [undivided.accept, undivided.deny, undivided.pass, undivided.deny_or_pass].iter().all(|rest| rest.unwrap_or(0) == 0)
    }

    /// Returns what each policy denied, and what one of several denied, under their joined names.
    fn refusals(&self) -> Vec<(Arc<str>, Option<u64>)> {
        let mut refusals: Vec<_> = self.policies().iter().map(|policy| (Arc::clone(&policy.policy), policy.counts.deny)).collect();
        if let Target::Group(group) = self {
            let names: Vec<&str> = group.policies.iter().map(|policy| &*policy.policy).collect();
            refusals.push((names.join(",").into(), group.undivided.deny));
        }
        refusals
    }
}
