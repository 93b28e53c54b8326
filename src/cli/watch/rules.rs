//! The rules that packets may meet while they are watched. They are read again when they change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::explain::{Candidate, find};
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

/// The time limit of a read.
const LIMIT: Duration = Duration::from_secs(10);
/// The minimum interval between reads.
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
    /// The number of reads.
    pub reads: u64,
}

/// The requested endpoints: one, or those of a namespace, otherwise all that have rules.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `NAMESPACE/POD`, or an interface.
    pub endpoint: Option<&'a str>,
    pub namespace: Option<&'a str>,
}

/// The endpoints whose packets are watched.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The interfaces of their packets. `None` means all.
    pub interfaces: Option<Vec<String>>,
    /// The requested ones.
    pub only: Option<Vec<String>>,
}

impl Endpoints {
    pub fn includes(&self, witness: &Witness) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|interface| **interface == *witness.endpoint.interface))
    }
}

impl Rules {
    pub fn read(config: &Config, inventory: Arc<Inventory>) -> Result<Self, String> {
        // Only the kernel has handles.
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

    /// Reads the current rules. Returns the meanings of the previous ones.
    pub fn read_again(&mut self) -> Result<Meanings, String> {
        self.tried_at = Instant::now();
        // Before the rules, so that a change during the read is noticed next time.
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

    /// Reports whether no table has changed since the read.
    pub fn are_current(&mut self) -> Result<bool, String> {
        Ok(self.generation()? == self.generation)
    }

    fn generation(&mut self) -> Result<Vec<u8>, String> {
        self.socket.set_deadline(Instant::now() + LIMIT);
        nft::generation(&mut self.socket).map_err(|error| format!("opening a netlink socket to nf_tables failed: {error:?}"))
    }

    /// Reports whether the rules were read, or a read was tried, a moment ago.
    pub fn is_young(&self) -> bool {
        self.tried_at.elapsed() < REST
    }

    pub fn endpoints(&self, wanted: Wanted, inventory: &Inventory) -> Result<Endpoints, String> {
        let pipelines = self.structures.tables.iter().flat_map(|table| &table.pipelines.endpoints);
        let mut all: BTreeSet<&str> = pipelines.map(|pipeline| &*pipeline.interface).collect();
        // The host endpoint of all interfaces.
        let has_any = all.remove("*");
        let only = |interfaces: Vec<String>| Endpoints { interfaces: Some(interfaces.clone()), only: Some(interfaces) };
        let workloads: Vec<_> = all.iter().map(|interface| (*interface, inventory.workload(interface))).collect();
        let candidates = workloads.iter().map(|(interface, workload)| {
            let (namespace, pod) = workload.as_ref().map_or(("", ""), |workload| (&*workload.namespace, &*workload.pod));
            Candidate { interface, namespace, pod }
        });
        match (wanted.endpoint, wanted.namespace) {
            (Some("*"), _) if has_any => Ok(Endpoints { interfaces: None, only: Some(vec!["*".to_owned()]) }),
            (Some(wanted), _) => match find(&candidates.collect::<Vec<_>>(), wanted)? {
                Some(interface) => Ok(only(vec![interface.to_owned()])),
                None => Err(format!("no endpoint {wanted:?} has rules here: NAMESPACE/POD or an interface (see top)")),
            },
            (None, Some(wanted)) => {
                Ok(only(candidates.filter(|each| each.namespace == wanted).map(|each| each.interface.to_owned()).collect()))
            }
            (None, None) => Ok(Endpoints { interfaces: (!has_any).then(|| all.into_iter().map(str::to_owned).collect()), only: None }),
        }
    }
}
