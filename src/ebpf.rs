//! Calico's eBPF dataplane: what its programs count and which rules they contain → [`Snapshot`].
//!
//! There are no chains here. Felix compiles the policies of each interface and direction into a program. All programs count in one map of
//! the node, by rule ID: how often a rule decided, but not for which endpoint ([`reader`]). Felix writes the rules of each program into
//! files meant for humans ([`folder`], [`dump`]). If the policies' names are known, the meaning of an ID can also be computed ([`ids`]).
//! Another map counts for each interface how many packets its policies accepted and refused in total.

pub mod dump;
mod folder;
pub mod ids;
pub mod reader;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::felix::{Decision, Direction, PolicyName};
use crate::ruleset::Family;

pub use reader::{Error, Reader};

/// The name of this dataplane in metrics and messages.
pub const BACKEND: &str = "ebpf";

pub type RuleId = u64;

pub type IdMap<T> = HashMap<RuleId, T, foldhash::fast::RandomState>;

/// The ID that Calico up to 3.29 gives to everything that is not a rule of a policy or profile: the ends of all tiers, whatever they do.
pub const UNNUMBERED: RuleId = 0;

#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Packets that each rule has decided since its entry was created. A rule that never decided has no entry.
    pub rules: Arc<IdMap<u64>>,
    /// The kernel's ID of the rule map.
    pub rule_map: u32,
    /// What the programs of each interface accepted and refused. An interface that has seen no packet has no entry.
    pub interfaces: BTreeMap<(Arc<str>, Direction), Verdicts>,
    /// The kernel's IDs of the interface maps. Empty if they are unknown or unreadable. Counts in different maps are not comparable.
    pub interface_maps: Vec<u32>,
    pub programs: Vec<Shown>,
    pub unlisted: Option<std::io::ErrorKind>,
    /// Whether the programs are unchanged since the last read. Then these programs counted everything since.
    pub unchanged: bool,
    /// Whether the programs of all interfaces with a workload's name are shown.
    pub complete: bool,
    /// The number of unreadable files about programs of existing interfaces.
    pub unreadable: usize,
}

#[derive(Debug, Clone)]
pub struct Shown {
    pub program: Arc<Program>,
    /// Whether the interface exists. Calico 3.25 leaves the files of deleted interfaces.
    pub is_live: bool,
    pub unchanged: bool,
}

/// What an interface's program decided, before and after the rules' counters were read, because they are not read at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    pub accepted: (u64, u64),
    pub refused: (u64, u64),
    /// The interface's index. The same name with another index is another interface.
    pub number: u32,
}

/// The policies of one interface in one direction and address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub interface: Arc<str>,
    /// As seen from the workload. For a host's own interface, as seen from the host.
    pub direction: Direction,
    pub family: Family,
    pub is_workload: bool,
    /// Whether its rules' hits are counted. XDP programs, which enforce untracked policies, count none.
    pub is_counted: bool,
    /// Its policies in the order of evaluation, including those without rules, and whether each is the workload's own.
    pub policies: Vec<(Arc<Policy>, bool)>,
    pub rules: Vec<Rule>,
    pub unrecognised: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    /// The direction is the policy's. For a host endpoint's rules in a workload's program it is the opposite of the program's.
    pub known: Known,
    pub is_workloads: bool,
    /// Whether this program counts its hits. It does not if the rule logs, is for the other address family, or is unreachable.
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
    /// The policy's name in metrics.
    pub label: Arc<str>,
}

impl Policy {
    pub fn new(name: PolicyName, tier: &Arc<str>) -> Self {
        Policy { label: name.label(tier).into(), name, tier: Arc::clone(tier) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A policy, and the rule's index in it, from 0.
    Policy(Arc<Policy>, u32),
    /// A profile. Up to 3.31, Felix does not say which.
    Profile(Option<Arc<str>>),
    /// The end of a tier: none of its policies decided.
    EndOfTier(Arc<str>),
    NoProfile,
}
