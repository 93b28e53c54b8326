//! The counts as users ask for them: the way of packets through each endpoint's tiers and policies, the policies with their users, and
//! what is dropped. Pure: makes plain structs of the tables and totals of one read. The API, `explain` and `top` all show this tree.
//!
//! A count is `None` if it is unknown, or if the rules cannot decide so.

mod allow;
mod answers;
mod build;
mod flows;
mod outline;
pub mod past;
mod policies;
mod programs;
mod status;
mod witnesses;

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use allow::network_policies;
pub use answers::{Drop, HostEndpointsAnswer, PoliciesAnswer, PolicyAnswer, WorkloadAnswer, WorkloadsAnswer};
pub use build::{Sources, drops};
pub use flows::{FlowCount, Flows, FlowsAnswer};
pub use outline::Outline;
pub use past::DropsAnswer;
pub use status::{Chains, DatastoreStatus, OtherBackend, Status, TableStatus, WorkloadStates};
pub use witnesses::{Flow, Line, Milliseconds, Recent, TracingStatus, WitnessesAnswer};

use crate::felix::{Decision, Direction};

/// All that is known after one read. docs/api.md explains the fields and the order of lists. Comments here add only what it leaves out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    pub status: Status,
    pub workloads: Vec<WorkloadEndpoint>,
    pub policies: Vec<Policy>,
    pub host_endpoints: Vec<HostEndpoint>,
    pub unknown_interfaces: UnknownInterfaces,
}

/// Packets dropped because their interface has no endpoint, or none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnknownInterfaces {
    pub ingress: u64,
    pub egress: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadEndpoint {
    pub workload: Workload,
    pub directions: Vec<Pipeline>,
}

/// A workload. All names are empty if it is unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The node's end of its veth pair.
    pub interface: Arc<str>,
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    pub app: Arc<str>,
    pub ip: Vec<Arc<str>>,
    pub node: Arc<str>,
    /// `k8s`, `cni`, `openstack`, …
    pub orchestrator: Arc<str>,
    pub service_account: Arc<str>,
    pub known: bool,
    pub ingress: Option<Sums>,
    pub egress: Option<Sums>,
}

/// One direction of an endpoint in three numbers. Exact means that there cannot have been more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub accepted: u64,
    pub accepted_exact: bool,
    pub established: Option<u64>,
    pub dropped: u64,
    /// Whether `dropped` is exact.
    pub exact: bool,
}

/// A host endpoint at one of its stages. Each stage has its own pipelines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostEndpoint {
    pub interface: Arc<str>,
    pub stage: Cow<'static, str>,
    pub directions: Vec<Pipeline>,
}

/// The way of packets in one direction, as the endpoint sees it. Everything is in the order of evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    pub direction: Direction,
    pub established: Option<u64>,
    pub before: Vec<Refused>,
    pub tiers: Vec<Tier>,
    pub profiles: Vec<Profile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_profile: Option<u64>,
    #[serde(skip)]
    profiles_refuse: bool,
    pub no_profile: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undivided: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<All>,
}

/// Packets of an interface in one direction. Exact means that there cannot have been more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct All {
    pub accepted: u64,
    pub accepted_exact: bool,
    pub refused: u64,
    pub refused_exact: bool,
}

/// Packets dropped for another reason than a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// `invalid`, `encapsulation`, …
    pub reason: Cow<'static, str>,
    pub packets: Option<u64>,
    /// Whether it takes two reads to derive.
    #[serde(skip)]
    is_derived: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    pub tier: Arc<str>,
    pub default_action: DefaultAction,
    pub targets: Vec<Target>,
    /// Dropped because no policy decided; `None` if such packets are passed.
    pub no_policy: Option<u64>,
}

/// For packets that no policy of a tier decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAction {
    Deny,
    /// They continue with the next tier, or the profiles.
    Pass,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Target {
    Policy(PolicyCounts),
    Group(Group),
}

/// What a policy decided for this endpoint and direction.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PolicyCounts {
    /// The label in metrics. `name` is what users write.
    pub policy: Arc<str>,
    /// `NetworkPolicy`, …; empty if unknown.
    pub kind: Arc<str>,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
    /// What its rules can do with a packet, except logging.
    pub can: Vec<Decision>,
    #[serde(flatten)]
    pub counts: Counts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Counts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub accept: Option<u64>,
    pub deny: Option<u64>,
    pub pass: Option<u64>,
    pub deny_or_pass: Option<u64>,
}

/// Policies that share a chain, and that the kernel counts together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub group: Arc<str>,
    pub policies: Vec<PolicyCounts>,
    pub undivided: Counts,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub profile: Arc<str>,
    pub accept: Option<u64>,
}

/// A policy on the whole node, named as in [`PolicyCounts`]. Its counts are packets that its own rules matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub policy: Arc<str>,
    pub kind: Arc<str>,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
    pub tier: Arc<str>,
    pub hit: bool,
    /// When it was first seen.
    #[serde(default)]
    pub since: Option<f64>,
    pub accept: Option<u64>,
    pub deny: Option<u64>,
    pub pass: Option<u64>,
    pub workloads: Vec<User>,
    pub host_endpoints: Vec<Arc<str>>,
    pub rules: Vec<Rule>,
}

/// A workload that has the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub interface: Arc<str>,
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    pub directions: Vec<Direction>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub direction: Direction,
    /// `ipv4`, `ipv6`, or `any` if both count together.
    pub family: Cow<'static, str>,
    pub rule: u32,
    pub action: Decision,
    pub packets: u64,
    /// What it matches on, in words. Only in the answer for one policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}
