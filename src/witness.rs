//! Witnesses: which endpoints a single packet passed, and what decided there, from what the kernel reported. Pure.
//!
//! [`traces`] collects the kernel's messages by packet. [`meanings`] knows what each rule shows. The rule with a policy's match shows the
//! decision, as it does where counters are read: see [`felix`](crate::felix).

pub mod meanings;
pub mod traces;

use std::sync::Arc;
use std::time::SystemTime;

use crate::felix::{Decision, Direction, DropReason, EndpointKind};
use crate::kernel::trace::Packet;
use crate::ruleset::TableId;

/// What one packet met at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    pub time: SystemTime,
    pub packet: Packet,
    pub endpoint: Arc<Endpoint>,
    /// What policies and profiles decided, in the order of evaluation. All except the last one passed the packet.
    pub decisions: Vec<Arc<PolicyDecision>>,
    pub end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub table: TableId,
    pub chain: Arc<str>,
    pub kind: EndpointKind,
    pub interface: Arc<str>,
    pub direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDecision {
    pub chain: Arc<str>,
    /// Empty for profiles.
    pub tier: Arc<str>,
    /// The policy's label in metrics.
    pub policy: Arc<str>,
    pub is_profile: bool,
    pub decision: Decision,
    /// The rule's place in the policy, from 0.
    pub rule: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The endpoint let it through.
    Accepted,
    /// A policy or profile denied it. This is the last decision.
    Denied,
    /// Dropped, but not by a policy. The tier is set for [`DropReason::NoPolicy`].
    Dropped { reason: DropReason, tier: Arc<str> },
    /// It was let through here and dropped by another program's rule, in this table and chain.
    DroppedElsewhere { table: Arc<str>, chain: Arc<str> },
}

impl End {
    pub fn is_accepted(&self) -> bool {
        *self == End::Accepted
    }
}
