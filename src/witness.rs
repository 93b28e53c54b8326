//! What the kernel told of single packets → witnesses: past which endpoints a packet went, and what decided there. Pure.
//!
//! [`traces`] puts the kernel's messages together, packet by packet; [`meanings`] knows what each rule tells. The rule that carries a policy's match tells the decision, as it does where counters are read: see
//! [`felix`](crate::felix).

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
    /// What policies and profiles decided, in the order of evaluation. All but the last one passed the packet on.
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
    /// As metrics name it.
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
    /// A policy or profile refused it: the last decision.
    Denied,
    /// Refused, though no policy did; with the tier, for [`DropReason::NoPolicy`].
    Dropped { reason: DropReason, tier: Arc<str> },
    /// It was let through here, and refused by somebody else's rule, of this table and chain.
    DroppedElsewhere { table: Arc<str>, chain: Arc<str> },
}

impl End {
    pub fn is_accepted(&self) -> bool {
        *self == End::Accepted
    }
}
