//! What the API answers, `top` and `explain` show: cuts out of the [`Report`]. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{HostEndpoint, Pipeline, Policy, Report, Status, Target, UnknownInterfaces, Workload, WorkloadEndpoint};
use crate::felix::Direction;

/// `GET /api/v1/workloads`
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadsAnswer {
    pub status: Status,
    pub workloads: Vec<Workload>,
    pub drops: Vec<Drop>,
    pub unknown_interfaces: UnknownInterfaces,
}

/// Packets of one workload and direction that were refused for one reason.
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

    pub fn host_endpoints(&self) -> HostEndpointsAnswer {
        HostEndpointsAnswer { status: self.status.clone(), host_endpoints: self.host_endpoints.clone() }
    }
}

impl WorkloadEndpoint {
    /// In the order of evaluation.
    fn drops(&self) -> Vec<Drop> {
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

impl Target {
    /// What each policy refused; what one of several did, under their joined names.
    fn refusals(&self) -> Vec<(Arc<str>, Option<u64>)> {
        let mut refusals: Vec<_> = self.policies().iter().map(|policy| (Arc::clone(&policy.policy), policy.counts.deny)).collect();
        if let Target::Group(group) = self {
            let names: Vec<&str> = group.policies.iter().map(|policy| &*policy.policy).collect();
            refusals.push((names.join(",").into(), group.undivided.deny));
        }
        refusals
    }
}
