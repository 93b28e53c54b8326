//! What was counted, as people ask for it: each endpoint's way through tiers and policies, the policies with those who use them, and
//! what is dropped. Pure: the tables and totals of one read → plain structs; the API, `explain` and `top` all show this same tree.
//!
//! Where a count is `None`, it cannot be told, or the rules cannot do it.

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

/// All that is known after one read. What each field says, and in which order lists are, is in docs/api.md: only the rest is said here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    pub status: Status,
    pub workloads: Vec<WorkloadEndpoint>,
    pub policies: Vec<Policy>,
    pub host_endpoints: Vec<HostEndpoint>,
    pub unknown_interfaces: UnknownInterfaces,
}

/// Packets refused because their interface has no endpoint (yet).
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

/// A workload. All names are empty where nothing knows it.
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

/// One direction of an endpoint in three numbers. Exact: there cannot have been more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub accepted: u64,
    pub accepted_exact: bool,
    pub established: Option<u64>,
    pub dropped: u64,
    /// Of `dropped`.
    pub exact: bool,
}

/// A host endpoint at one of its stages, which has its own pipelines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostEndpoint {
    pub interface: Arc<str>,
    pub stage: Cow<'static, str>,
    pub directions: Vec<Pipeline>,
}

/// The way of packets in one direction, seen from the endpoint. Everything is in the order of evaluation.
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

/// Packets of an interface in one direction. Exact: there cannot have been more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct All {
    pub accepted: u64,
    pub accepted_exact: bool,
    pub refused: u64,
    pub refused_exact: bool,
}

/// Packets refused for another reason than policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// `invalid`, `encapsulation`, …
    pub reason: Cow<'static, str>,
    pub packets: Option<u64>,
    /// Whether it takes two moments to tell.
    #[serde(skip)]
    is_derived: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    pub tier: Arc<str>,
    pub default_action: DefaultAction,
    pub targets: Vec<Target>,
    /// Refused because no policy decided; `None` where they are passed on.
    pub no_policy: Option<u64>,
}

/// For packets that no policy of a tier decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAction {
    Deny,
    /// They go on to the next tier, or the profiles.
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
    /// As the metrics label it; `name` is what people write.
    pub policy: Arc<str>,
    /// `NetworkPolicy`, …; empty if nothing is known of it.
    pub kind: Arc<str>,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
    /// What its rules can do with a packet. Logging does not count.
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
    /// `ipv4`, `ipv6`, or `any` where both count together.
    pub family: Cow<'static, str>,
    pub rule: u32,
    pub action: Decision,
    pub packets: u64,
    /// What it matches on, in words; only where one policy is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
}
