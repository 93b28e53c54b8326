//! Calico's eBPF dataplane: what its programs count, and what they hold → [`Snapshot`].
//!
//! There are no chains here. Felix compiles the policies of every interface, for each direction, into a program. All programs count in
//! one map of the node, by the rule's id: how often a rule decided, not for whom ([`reader`]). Which program holds which rules, Felix
//! writes into files meant for people ([`folder`], [`dump`]); what an id stands for can also be computed where the policies' names are known
//! ([`ids`]). Another map counts for each interface what its policies accepted and refused in all.

pub mod dump;
mod folder;
pub mod ids;
pub mod reader;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::felix::{Decision, Direction, PolicyName};
use crate::ruleset::Family;

pub use reader::{Error, Reader};

/// As metrics and messages name this dataplane.
pub const BACKEND: &str = "ebpf";

pub type RuleId = u64;

pub type IdMap<T> = HashMap<RuleId, T, foldhash::fast::RandomState>;

/// The id that Calico up to 3.29 gives to everything that is no rule of a policy or profile: the ends of all tiers, whatever they do.
pub const UNNUMBERED: RuleId = 0;

#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Packets that every rule has decided since its entry was made. Rules that never did have none.
    pub rules: Arc<IdMap<u64>>,
    /// The map in which they count, by the kernel's id.
    pub rule_map: u32,
    /// What the programs of every interface accepted and refused; none of an interface that has seen no packet.
    pub interfaces: BTreeMap<(Arc<str>, Direction), Verdicts>,
    /// The maps that count interfaces, by the kernel's ids; none if unknown or unreadable. In others, counts have no common beginning.
    pub interface_maps: Vec<u32>,
    pub programs: Vec<Shown>,
    pub unlisted: Option<std::io::ErrorKind>,
    /// Whether no program has come, gone or changed since the last read: then what the rules counted since happened in these programs.
    pub unchanged: bool,
    /// Whether all interfaces that are named like workloads' have their programs shown.
    pub complete: bool,
    /// Files about programs of interfaces that are there, which could not be read or understood.
    pub unreadable: usize,
}

#[derive(Debug, Clone)]
pub struct Shown {
    pub program: Arc<Program>,
    /// Whether the interface exists. Calico 3.25 leaves the files of those that have gone.
    pub is_live: bool,
    pub unchanged: bool,
}

/// What an interface's program decided, before and after the rules' counters were read: they are not read at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    pub accepted: (u64, u64),
    pub refused: (u64, u64),
    /// The interface's number: under the same name, another number is another interface.
    pub number: u32,
}

/// The policies of one interface in one direction and address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub interface: Arc<str>,
    /// Seen from the workload; for a host's own interface, from the host.
    pub direction: Direction,
    pub family: Family,
    pub is_workload: bool,
    /// Whether its rules' hits are counted. XDP programs, which enforce untracked policies, count none.
    pub is_counted: bool,
    /// Its policies, in the order of evaluation, also those without rules; and whether they are the workload's own.
    pub policies: Vec<(Arc<Policy>, bool)>,
    pub rules: Vec<Rule>,
    pub unrecognised: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    /// What it is. The direction is the policy's: for a host endpoint's rules in a workload's program, the other one.
    pub known: Known,
    pub is_workloads: bool,
    /// Whether this program counts its hits: not those of a rule that logs, is for the other address family, or is never reached.
    pub counts: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub owner: Owner,
    pub decision: Decision,
    pub direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    pub name: PolicyName,
    pub tier: Arc<str>,
    /// As metrics name it.
    pub label: Arc<str>,
}

impl Policy {
    pub fn new(name: PolicyName, tier: &Arc<str>) -> Self {
        Policy { label: name.label(tier).into(), name, tier: Arc::clone(tier) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A policy, and the rule's place in it, from 0.
    Policy(Arc<Policy>, u32),
    /// A profile; up to 3.31, Felix does not say which.
    Profile(Option<Arc<str>>),
    /// The end of a tier: none of its policies decided.
    EndOfTier(Arc<str>),
    NoProfile,
}
