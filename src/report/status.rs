//! The state of the exporter and of what it depends on, for the page's banner: see docs/api.md. Times are in seconds since the epoch.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::dataplane::Rival;
use crate::ebpf;
use crate::ruleset::Family;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    pub version: Cow<'static, str>,
    pub node: String,
    pub time: Option<f64>,
    pub started: f64,
    pub up: bool,
    pub problem: Option<String>,
    pub tables: Vec<TableStatus>,
    pub unrecognised_rules: u64,
    pub lock_held: bool,
    #[serde(default)]
    pub grafana: Option<String>,
    #[serde(default)]
    pub chains: Chains,
    #[serde(default)]
    pub other_backends: Vec<OtherBackend>,
    #[serde(default)]
    pub node_problem: Option<String>,
    pub datastore: DatastoreStatus,
    pub workloads: WorkloadStates,
}

impl Status {
    pub fn has_no_rules(&self) -> bool {
        matches!(self.chains, Chains::Absent | Chains::Vanished)
    }

    pub fn is_ebpf(&self) -> bool {
        self.tables.iter().any(|table| table.backend == ebpf::BACKEND)
    }
}

/// Whether any of Calico's chains, or its programs, have rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chains {
    #[default]
    Unknown,
    Present,
    /// None has, and none had since this process began.
    Absent,
    /// None has any more.
    Vanished,
}

impl Chains {
    pub fn as_str(self) -> &'static str {
        match self {
            Chains::Unknown => "unknown",
            Chains::Present => "present",
            Chains::Absent => "absent",
            Chains::Vanished => "vanished",
        }
    }
}

/// A back end that is not read, though it holds chains of endpoints too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherBackend {
    pub backend: Cow<'static, str>,
    /// What shows that it is not the live one: `workloads`, `hooks`, `written`, `gone`, `format` or `packets`; `None` if nothing does.
    pub evidence: Option<Cow<'static, str>>,
}

impl From<&Rival> for OtherBackend {
    fn from(rival: &Rival) -> Self {
        let evidence = rival.evidence.map(|evidence| evidence.as_str().into());
        OtherBackend { backend: rival.backend.as_str().into(), evidence }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    /// `ipv4` or `ipv6`; `any` on the eBPF dataplane.
    pub family: Cow<'static, str>,
    pub backend: Cow<'static, str>,
    pub source: Cow<'static, str>,
    pub rules: u64,
}

impl TableStatus {
    /// Without a family, the status is of both together.
    pub fn new(family: Option<Family>, backend: &'static str, source: &'static str, rules: usize) -> Self {
        TableStatus { family: Family::name(family).into(), backend: backend.into(), source: source.into(), rules: rules as u64 }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DatastoreStatus {
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    pub up: bool,
    pub synced: bool,
    pub last_event: Option<u64>,
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkloadStates {
    pub known: usize,
    pub unknown: usize,
    pub without_rules: usize,
}
