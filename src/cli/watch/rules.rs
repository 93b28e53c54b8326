//! The rules that packets may meet while they are watched, read again when they change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, SourceChoice};
use crate::dataplane::{Dataplane, Reader};
use crate::datastore::inventory::Inventory;
use crate::exporter::start;
use crate::felix::{ChainNames, Structures};
use crate::kernel::netlink::Socket;
use crate::kernel::nft;
use crate::ruleset::Backend;
use crate::witness::Witness;
use crate::witness::meanings::Meanings;

/// A read may take so long.
const LIMIT: Duration = Duration::from_secs(10);
/// How often rules are read again, at most.
const REST: Duration = Duration::from_secs(1);

pub struct Rules {
    reader: Dataplane,
    inventory: Arc<Inventory>,
    policies_version: u64,
    structures: Structures,
    pub meanings: Meanings,
    socket: Socket,
    /// `NFTA_GEN_ID` when the rules were read.
    generation: Vec<u8>,
    tried_at: Instant,
    /// How often they were read.
    pub reads: u64,
}

/// Whose packets are watched.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The interfaces by which their packets come and go; `None` for all.
    pub interfaces: Option<Vec<String>>,
    /// The one that was asked for.
    pub only: Option<String>,
}

impl Endpoints {
    pub fn includes(&self, witness: &Witness) -> bool {
        self.only.as_ref().is_none_or(|only| *witness.endpoint.interface == **only)
    }
}

impl Rules {
    pub fn read(config: &Config, inventory: Arc<Inventory>) -> Result<Self, String> {
        // Only the kernel tells handles.
        let config = Config { source: SourceChoice::Kernel, ..config.clone() };
        let socket = Socket::open(Instant::now() + LIMIT).map_err(|error| {
            format!(
                "opening a netlink socket to nf_tables failed: \
            {error}"
            )
        })?;
        let mut rules = Rules {
            reader: start::dataplane(&config, &inventory),
            inventory,
            policies_version: 0,
            structures: Structures::default(),
            meanings: Meanings::default(),
            socket,
            generation: Vec::new(),
            tried_at: Instant::now(),
            reads: 0,
        };
        rules.read_again()?;
        Ok(rules)
    }

    /// Reads the rules of now; what those of before meant.
    pub fn read_again(&mut self) -> Result<Meanings, String> {
        self.tried_at = Instant::now();
        // Before the rules: what changes meanwhile is noticed next time.
        let generation = self.generation()?;
        let reading = self.reader.read(Instant::now() + LIMIT).map_err(|error| format!("Calico's rules cannot be read: {error}"))?;
        if reading.programs.is_some() {
            return Err("Calico's eBPF dataplane decides in programs, which cannot be traced".into());
        }
        if reading.tables.iter().any(|table| table.ruleset.backend == Backend::Legacy) {
            return Err(
                "Felix writes legacy tables here: the kernel reports single packets only for nftables (traces of legacy tables go to \
                 the kernel's log)"
                    .into(),
            );
        }
        let version = self.inventory.policies_version();
        if version != self.policies_version {
            self.structures.rename(ChainNames::new(&self.inventory.policies()));
            self.policies_version = version;
        }
        self.structures.update(reading.tables.iter().map(|table| &table.ruleset));
        (self.generation, self.tried_at) = (generation, Instant::now());
        self.reads += 1;
        Ok(std::mem::replace(&mut self.meanings, Meanings::new(&reading.tables, &self.structures.tables)))
    }

    /// Whether no table has changed since.
    pub fn are_current(&mut self) -> Result<bool, String> {
        Ok(self.generation()? == self.generation)
    }

    fn generation(&mut self) -> Result<Vec<u8>, String> {
        self.socket.set_deadline(Instant::now() + LIMIT);
        nft::generation(&mut self.socket).map_err(|error| format!("opening a netlink socket to nf_tables failed: {error:?}"))
    }

    /// Whether they were read, or tried to be, a moment ago.
    pub fn is_young(&self) -> bool {
        self.tried_at.elapsed() < REST
    }

    /// `wanted`: `NAMESPACE/POD`, or an interface; else all that have rules.
    pub fn endpoints(&self, wanted: Option<&str>, inventory: &Inventory) -> Result<Endpoints, String> {
        let pipelines = self.structures.tables.iter().flat_map(|table| &table.pipelines.endpoints);
        let mut all: BTreeSet<&str> = pipelines.map(|pipeline| &*pipeline.interface).collect();
        // The host endpoint of all interfaces.
        let has_any = all.remove("*");
        let Some(wanted) = wanted else {
            let interfaces = (!has_any).then(|| all.into_iter().map(str::to_owned).collect());
            return Ok(Endpoints { interfaces, only: None });
        };
        if wanted == "*" && has_any {
            return Ok(Endpoints { interfaces: None, only: Some(wanted.to_owned()) });
        }
        let is_meant = |interface: &&str| {
            let named = |namespace: &str, pod: &str| {
                inventory.workload(interface).is_some_and(|workload| workload.namespace == namespace && workload.pod == pod)
            };
            *interface == wanted || wanted.split_once('/').is_some_and(|(namespace, pod)| named(namespace, pod))
        };
        match all.into_iter().find(is_meant) {
            Some(found) => Ok(Endpoints { interfaces: Some(vec![found.to_owned()]), only: Some(found.to_owned()) }),
            None => Err(format!("no endpoint {wanted:?} has rules here: NAMESPACE/POD or an interface (see top)")),
        }
    }
}
