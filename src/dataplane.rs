//! Finds the dataplane that holds Calico's rules and reads it, with `iptables-save` or straight from the kernel (legacy tables under the
//! xtables lock) → one [`Snapshot`] for each table. If no table has any of Calico's rules, reads the eBPF programs. Touches the lock file,
//! `/proc` and `/sys/class/net`.
//!
//! Tables that may not be read are an error, and so is a node without any of Calico's chains. Neither is taken for an empty table.

mod backends;
mod error;
mod evidence;
mod family;
mod lock;
mod presence;
pub mod saved;
mod selection;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;

use crate::config::{BackendChoice, SourceChoice};
use crate::datastore::inventory::Inventory;
use crate::ebpf;
use crate::kernel::{self, Matches};
use crate::ruleset::{Backend, Ruleset, Snapshot};
use backends::Backends;
pub use error::{Elsewhere, NoChains, ReadError};
use selection::LOOK_AROUND;
pub use selection::{Evidence, Rival};

/// Which back end and source to use, and paths. [`Options::default`] is the running system.
#[derive(Debug, Clone)]
pub struct Options {
    pub backend: BackendChoice,
    pub source: SourceChoice,
    pub lock_path: PathBuf,
    pub lock_wait: Duration,
    pub proc: PathBuf,
    pub bpffs: PathBuf,
    pub calico_run: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            backend: BackendChoice::Auto,
            source: SourceChoice::Auto,
            lock_path: "/run/xtables.lock".into(),
            lock_wait: Duration::from_secs(2),
            proc: "/proc".into(),
            bpffs: "/sys/fs/bpf".into(),
            calico_run: "/var/run/calico".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Save,
    Kernel,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Save => "save",
            Source::Kernel => "kernel",
        }
    }
}

#[derive(Debug, Default)]
pub struct Reading {
    pub tables: Vec<Snapshot>,
    pub programs: Option<ebpf::Snapshot>,
    pub rivals: Vec<Rival>,
    /// The source's name in metrics.
    pub source: &'static str,
    pub lock_waited: Duration,
    /// Why the tables were read without the lock that they need.
    pub lock_problem: Option<String>,
}

/// Provides the tables at one moment, from the running system or from files.
pub trait Reader: Send {
    /// Reads the tables of both families once. Returns by `deadline`, also if it fails.
    fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError>;

    /// Reads the same tables once more, straight from the kernel. Empty if the tables are not the kernel's and so cannot change.
    fn look_again(&mut self, read: &[Snapshot], deadline: Instant) -> Result<Vec<Snapshot>, ReadError> {
        _ = (read, deadline);
        Ok(vec![])
    }

    /// Returns what the rules of a chain match on. Empty for saved tables.
    fn matches(&mut self, ruleset: &Ruleset, chain: &str, deadline: Instant) -> io::Result<Matches> {
        _ = (ruleset, chain, deadline);
        Ok(Matches::new())
    }

    fn lock_timeouts(&self) -> u64 {
        0
    }
}

#[derive(Debug)]
pub struct Dataplane {
    options: Options,
    backends: Backends,
    ebpf: ebpf::Reader,
    /// When it was last certain that no table holds chains of endpoints, while the eBPF dataplane is read.
    only_ebpf: Option<Instant>,
    found: bool,
    /// Where else Calico's rules were found when the requested place had none, and when.
    elsewhere: Option<(Instant, Elsewhere)>,
}

impl Reader for Dataplane {
    fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError> {
        let reading = self.read_rules(deadline)?;
        self.found = true;
        self.elsewhere = None;
        self.backends.say_lock(reading.lock_problem.as_deref());
        Ok(reading)
    }

    fn look_again(&mut self, read: &[Snapshot], deadline: Instant) -> Result<Vec<Snapshot>, ReadError> {
        let Some(backend) = read.first().map(|table| table.ruleset.backend) else { return Ok(vec![]) };
        self.backends.read_backend(backend, Source::Kernel, deadline).map(|reading| reading.tables)
    }

    fn matches(&mut self, ruleset: &Ruleset, chain: &str, deadline: Instant) -> io::Result<Matches> {
        kernel::matches(ruleset.backend, ruleset.family, ruleset.table, chain, deadline)
    }

    fn lock_timeouts(&self) -> u64 {
        self.backends.lock_timeouts
    }
}

impl Dataplane {
    /// Creates a reader without reading anything. `inventory` holds the datastore's workloads.
    pub fn new(options: Options, inventory: Option<Arc<Inventory>>) -> Self {
        let backends = Backends::new(options.clone(), inventory);
        Dataplane { options, backends, ebpf: ebpf::Reader::default(), only_ebpf: None, found: false, elsewhere: None }
    }

    fn read_rules(&mut self, deadline: Instant) -> Result<Reading, ReadError> {
        if self.options.backend == BackendChoice::Ebpf || self.only_ebpf_lately() {
            return self.read_ebpf();
        }
        let reading = match self.backends.read(deadline) {
            Err(ReadError::NoProgram(path)) => self.without_program(path, deadline)?,
            reading => reading?,
        };
        match reading {
            Some(reading) if self.options.backend != BackendChoice::Auto || !evidence::endpoints(&reading).is_empty() => Ok(reading),
            reading => self.without_endpoints(reading, deadline),
        }
    }

    /// Reports whether eBPF programs count and no table held any endpoint's chains at a recent look.
    fn only_ebpf_lately(&self) -> bool {
        let lately = self.only_ebpf.is_some_and(|since| since.elapsed() < LOOK_AROUND);
        lately && ebpf::reader::is_present(&self.options.bpffs).unwrap_or(false)
    }

    /// No table holds an endpoint's chains. Reads the eBPF programs, if there are any, otherwise the static chains of an empty node.
    fn without_endpoints(&mut self, reading: Option<Reading>, deadline: Instant) -> Result<Reading, ReadError> {
        let before = self.only_ebpf.take();
        let is_auto = self.options.backend == BackendChoice::Auto;
        // This chain exists only on a dataplane with tables. On the eBPF dataplane Felix writes other chains.
        let with_tables = reading.as_ref().is_some_and(evidence::is_of_tables);
        match ebpf::reader::is_present(&self.options.bpffs) {
            Ok(true) if is_auto => {
                if before.is_none() {
                    info!("Calico's rules are in the {} dataplane", ebpf::BACKEND);
                }
                self.only_ebpf = Some(Instant::now());
                return self.read_ebpf();
            }
            Err(error) if is_auto && !with_tables && !self.found => return Err(ReadError::Ebpf(error)),
            _ => {}
        }
        match reading {
            Some(reading) if with_tables || !is_auto => Ok(reading),
            Some(_) => Err(self.no_chains(Elsewhere::Ebpf)),
            None => {
                let elsewhere = self.look_elsewhere(deadline);
                Err(self.no_chains(elsewhere))
            }
        }
    }

    fn no_chains(&self, elsewhere: Elsewhere) -> ReadError {
        ReadError::NoChains(NoChains { vanished: self.found, elsewhere })
    }

    /// Looks for Calico's chains in back ends that were not requested, at most once in `LOOK_AROUND`.
    fn look_elsewhere(&mut self, deadline: Instant) -> Elsewhere {
        if let Some((_, elsewhere)) = self.elsewhere.filter(|(since, _)| since.elapsed() < LOOK_AROUND) {
            return elsewhere;
        }
        let asked = self.options.backend;
        let mut found = Elsewhere::Nowhere;
        for backend in [Backend::Native, Backend::Nft, Backend::Legacy] {
            let is_there = asked != BackendChoice::Auto && self.backends.has(backend).unwrap_or(false);
            let reading = is_there.then(|| self.backends.read_backend(backend, Source::Kernel, deadline)).and_then(Result::ok);
            if reading.is_some_and(|reading| evidence::chains(&reading).next().is_some()) {
                found = Elsewhere::Backend(asked, backend);
                break;
            }
        }
        self.elsewhere = Some((Instant::now(), found));
        found
    }

    /// `iptables-save` is missing. On the eBPF dataplane it is not needed if the kernel shows that no table holds endpoints' chains.
    fn without_program(&mut self, path: String, deadline: Instant) -> Result<Option<Reading>, ReadError> {
        let missing = ReadError::NoProgram(path);
        let is_ebpf = self.options.backend == BackendChoice::Auto && ebpf::reader::is_present(&self.options.bpffs).unwrap_or(false);
        let has_endpoints = |reading: &Option<Reading>| reading.as_ref().is_some_and(|reading| !evidence::endpoints(reading).is_empty());
        match is_ebpf.then(|| self.backends.read_by(Source::Kernel, deadline)) {
            Some(Ok(reading)) if !has_endpoints(&reading) => Ok(reading),
            _ => Err(missing),
        }
    }

    fn read_ebpf(&mut self) -> Result<Reading, ReadError> {
        let programs = self.ebpf.read(&self.options.bpffs, &self.options.calico_run).map_err(ReadError::Ebpf)?;
        Ok(Reading { programs: Some(programs), source: Source::Kernel.as_str(), ..Reading::default() })
    }
}
