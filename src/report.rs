//! What was counted, as people ask for it: each endpoint's way through tiers and policies, the policies with those who use them, and
//! what is dropped. Pure: the tables and totals of one read → plain structs; the API, `explain` and `top` all show this same tree.
//!
//! Where a count is `None`, it cannot be told, or the rules cannot do it.

mod answers;
mod build;
mod policies;
mod programs;
mod shape;
mod status;

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use answers::{Drop, HostEndpointsAnswer, PoliciesAnswer, WorkloadAnswer, WorkloadsAnswer};
pub use build::Sources;
pub use shape::Shape;
pub use status::{DatastoreStatus, OtherBackend, Status, TableStatus, WorkloadStates};

use crate::felix::Direction;

/// All that is known after one read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// How the exporter and what it depends on are.
    pub status: Status,
    /// Workloads that have rules: by namespace, pod and interface, the unknown ones last.
    pub workloads: Vec<WorkloadEndpoint>,
    /// Policies that apply on this node, by their labels.
    pub policies: Vec<Policy>,
    /// Host endpoints, by interface and stage.
    pub host_endpoints: Vec<HostEndpoint>,
    /// Packets refused because their interface has no endpoint (yet).
    pub unknown_interfaces: UnknownInterfaces,
}

/// Packets of interfaces that have no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnknownInterfaces {
    /// To them.
    pub ingress: u64,
    /// From them.
    pub egress: u64,
}

/// A workload with its pipelines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadEndpoint {
    /// Who it is, and its sums.
    pub workload: Workload,
    /// Its pipelines: ingress, egress, or one of the two.
    pub directions: Vec<Pipeline>,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The node's end of its veth pair.
    pub interface: Arc<str>,
    /// Its namespace; like all names empty if it is unknown.
    pub namespace: Arc<str>,
    /// Its pod.
    pub pod: Arc<str>,
    /// Its label `app`.
    pub app: Arc<str>,
    /// Its addresses.
    pub ip: Vec<Arc<str>>,
    /// Its node, as the datastore says it.
    pub node: Arc<str>,
    /// `k8s`, `cni`, `openstack`, …
    pub orchestrator: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// Whether anything knows its name.
    pub known: bool,
    /// Sums of what went to it.
    pub ingress: Option<Sums>,
    /// Sums of what came from it.
    pub egress: Option<Sums>,
}

/// One direction of an endpoint in three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Packets opening a connection that policies and profiles accepted.
    pub accepted: u64,
    /// Whether these are all; else there may have been more, which cannot be told (eBPF dataplane).
    pub accepted_exact: bool,
    /// Packets of connections that were open; not counted on the eBPF dataplane.
    pub established: Option<u64>,
    /// Packets refused.
    pub dropped: u64,
    /// Whether these are all refusals; else policies may have refused more, which cannot be told.
    pub exact: bool,
}

/// A host endpoint at one of its stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostEndpoint {
    /// Its interface; `*` for all.
    pub interface: Arc<str>,
    /// `normal`, `forward`, `untracked` or `pre_dnat`.
    pub stage: Cow<'static, str>,
    /// Its pipelines.
    pub directions: Vec<Pipeline>,
}

/// The way of packets in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Seen from the endpoint.
    pub direction: Direction,
    /// Packets of connections that are open already, which pass before any policy is asked.
    pub established: Option<u64>,
    /// What is refused whatever the policies say.
    pub before: Vec<Refused>,
    /// Tiers in the order of evaluation.
    pub tiers: Vec<Tier>,
    /// Profiles in order.
    pub profiles: Vec<Profile>,
    /// Refused by a profile; `None` if no profile can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_profile: Option<u64>,
    /// Whether a profile has a rule that refuses.
    #[serde(skip)]
    profiles_refuse: bool,
    /// Refused because no profile accepted.
    pub no_profile: Option<u64>,
    /// Accepted by one of several tiers' policies or of the profiles: which one the counters do not tell (eBPF dataplane).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undivided: Option<u64>,
    /// What was accepted and refused in all, also by policies that do not apply any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<All>,
}

/// What was counted of an interface in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct All {
    /// Packets accepted.
    pub accepted: u64,
    /// Whether there cannot have been more.
    pub accepted_exact: bool,
    /// Packets refused.
    pub refused: u64,
    /// Whether there cannot have been more.
    pub refused_exact: bool,
}

/// Packets refused for another reason than policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// `invalid`, `encapsulation`, …
    pub reason: Cow<'static, str>,
    /// How many.
    pub packets: Option<u64>,
    /// Whether it takes two moments to tell.
    #[serde(skip)]
    is_derived: bool,
}

/// One tier of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    /// Its name.
    pub tier: Arc<str>,
    /// What becomes of packets that nobody decided.
    pub default_action: DefaultAction,
    /// Policies and groups in the order of evaluation.
    pub targets: Vec<Target>,
    /// Refused because no policy decided; `None` where they are passed on.
    pub no_policy: Option<u64>,
}

/// What becomes of packets that no policy of a tier decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAction {
    /// They are refused.
    Deny,
    /// They go on to the next tier, or the profiles.
    Pass,
}

/// What a tier asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Target {
    /// A policy.
    Policy(PolicyCounts),
    /// Policies that the kernel counts together.
    Group(Group),
}

/// A policy and what it decided for this endpoint and direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyCounts {
    /// Its label in the metrics.
    pub policy: Arc<str>,
    /// `NetworkPolicy`, …; empty if nothing is known of it.
    pub kind: Arc<str>,
    /// Its namespace, if it has one.
    pub namespace: Option<Arc<str>>,
    /// Its name as people write it.
    pub name: Arc<str>,
    /// What its rules can do.
    pub can: Vec<Can>,
    /// What it did.
    #[serde(flatten)]
    pub counts: Counts,
    /// Where one moment alone is known: what its own rules counted, for all endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Counts>,
}

/// What rules can do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Can {
    /// Accept it.
    Accept,
    /// Refuse it.
    Deny,
    /// Pass it on to the next tier or the profiles.
    Pass,
}

/// Packets by verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Accepted.
    pub accept: Option<u64>,
    /// Refused.
    pub deny: Option<u64>,
    /// Passed on.
    pub pass: Option<u64>,
    /// Refused or passed on: which of the two the counters do not tell.
    pub deny_or_pass: Option<u64>,
}

/// Policies that share a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The chain; `ebpf` where there are none.
    pub group: Arc<str>,
    /// Its policies in the order of evaluation, with what is certainly theirs.
    pub policies: Vec<PolicyCounts>,
    /// What one of them did: which one the counters do not tell.
    pub undivided: Counts,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub profile: Arc<str>,
    /// Packets that it accepted.
    pub accept: Option<u64>,
}

/// A policy on the whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its label in the metrics.
    pub policy: Arc<str>,
    /// `NetworkPolicy`, …; empty if nothing is known of it.
    pub kind: Arc<str>,
    /// Its namespace, if it has one.
    pub namespace: Option<Arc<str>>,
    /// Its name as people write it.
    pub name: Arc<str>,
    /// Its tier.
    pub tier: Arc<str>,
    /// Whether any of its rules has counted a packet.
    pub hit: bool,
    /// Packets that its rules accepted.
    pub accept: Option<u64>,
    /// Packets that its rules refused.
    pub deny: Option<u64>,
    /// Packets that its rules passed on.
    pub pass: Option<u64>,
    /// Workloads that it applies to.
    pub workloads: Vec<User>,
    /// Interfaces of host endpoints that it applies to.
    pub host_endpoints: Vec<Arc<str>>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A workload that a policy applies to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Its interface.
    pub interface: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its pod.
    pub pod: Arc<str>,
    /// The directions in which it does.
    pub directions: Vec<Direction>,
}

/// A rule of a policy on the whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The direction it is for.
    pub direction: Direction,
    /// `ipv4`, `ipv6`, or `any` where both count together.
    pub family: Cow<'static, str>,
    /// Its place in the policy, from 0.
    pub rule: u32,
    /// `allow`, `deny`, `pass` or `log`.
    pub action: Cow<'static, str>,
    /// Packets that matched it.
    pub packets: u64,
}
