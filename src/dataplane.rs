//! Where Calico's rules are, and how they are read: finds the dataplane that holds them, reads it by `iptables-save` or straight from
//! the kernel (legacy tables under the xtables lock) → one [`Snapshot`] a table; where no table has any, the eBPF programs.
//! Touches the lock file, `/proc` and `/sys/class/net`.
//!
//! What may not be read is an error, and so is to find none of Calico's chains: neither is an empty table.

mod error;
mod evidence;
mod family;
mod lock;
mod presence;
mod selection;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, info, warn};

use crate::config::{BackendChoice, SourceChoice};
use crate::ebpf;
use crate::inventory::Inventory;
use crate::iptables::Programs;
use crate::kernel::{legacy, nft};
use crate::logging;
use crate::ruleset::{Backend, Family, Snapshot};
pub use error::{Elsewhere, NoChains, ReadError};
use evidence::Expected;
use family::FamilyReader;
use lock::{Lock, LockError};
use presence::Presence;
pub use selection::{Evidence, Rival};
use selection::{LOOK_AROUND, Selection};

/// Where to look for what; [`Options::default`] is the running system.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which dataplane to read.
    pub backend: BackendChoice,
    /// How to read it.
    pub source: SourceChoice,
    /// The xtables lock file.
    pub lock_path: PathBuf,
    /// How long to wait for the lock.
    pub lock_wait: Duration,
    /// `iptables-save` is looked for here.
    pub programs: Programs,
    /// Defaults to `/proc`.
    pub proc: PathBuf,
    /// Defaults to `/sys`.
    pub sys: PathBuf,
    /// Where bpffs is mounted. Defaults to `/sys/fs/bpf`.
    pub bpffs: PathBuf,
    /// Calico's own folder. Defaults to `/var/run/calico`.
    pub calico_run: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            backend: BackendChoice::Auto,
            source: SourceChoice::Auto,
            lock_path: "/run/xtables.lock".into(),
            lock_wait: Duration::from_secs(2),
            programs: Programs::on_search_path(),
            proc: "/proc".into(),
            sys: "/sys".into(),
            bpffs: "/sys/fs/bpf".into(),
            calico_run: "/var/run/calico".into(),
        }
    }
}

/// How rules were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// By `iptables-save`.
    Save,
    /// From the kernel.
    Kernel,
}

impl Source {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Save => "save",
            Source::Kernel => "kernel",
        }
    }
}

/// One read of all tables that hold Calico's rules.
#[derive(Debug, Default)]
pub struct Reading {
    /// The tables, one family after the other.
    pub tables: Vec<Snapshot>,
    /// Calico's eBPF programs, which have no tables.
    pub programs: Option<ebpf::Snapshot>,
    /// Other back ends that hold chains of endpoints too.
    pub rivals: Vec<Rival>,
    /// How they were read, as metrics name it.
    pub source: &'static str,
    /// How long the xtables lock was waited for.
    pub lock_waited: Duration,
    /// Whether the tables were read under the lock that they need.
    pub locked: bool,
    /// Why not.
    pub lock_problem: Option<String>,
}

/// What gives the tables of a moment: the running system, or files.
pub trait Reader: Send {
    /// Reads the tables of both families once, and is done by `deadline`, well or not.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError>;

    /// Reads the same tables once more, straight from the kernel: what has moved since the read before. Empty if the rules are not in
    /// the kernel; then nothing moves.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn look_again(&mut self, read: &[Snapshot], deadline: Instant) -> Result<Vec<Snapshot>, ReadError> {
        _ = (read, deadline);
        Ok(vec![])
    }

    /// How often the lock was waited for in vain.
    fn lock_timeouts(&self) -> u64 {
        0
    }
}

/// Reads Calico's tables, each time from where they are.
#[derive(Debug)]
pub struct Dataplane {
    options: Options,
    presence: Presence,
    /// What the datastore knows: workloads without chains are a reason to look around.
    inventory: Option<Arc<Inventory>>,
    selection: Selection,
    /// Where `iptables-save` shows Calico's chains, while the kernel itself does not.
    saved_selection: Selection,
    families: [FamilyReader; 2],
    /// Of the read that is going on.
    deadline: Instant,
    said: Said,
    lock_timeouts: u64,
    ebpf: ebpf::Reader,
    /// When it was last certain that no table holds chains of endpoints, while the eBPF dataplane is what is read.
    only_ebpf: Option<Instant>,
    /// Whether any of Calico's rules were ever found.
    found: bool,
    /// Where else Calico's rules were, when none was where they were asked for, and when that was looked at.
    elsewhere: Option<(Instant, Elsewhere)>,
}

/// What the log has been told, so that it is told once.
#[derive(Debug, Default)]
struct Said {
    lock: Option<String>,
    /// Back ends that both hold chains of endpoints.
    rivals: BTreeSet<BTreeSet<Backend>>,
}

impl Reader for Dataplane {
    fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError> {
        self.deadline = deadline;
        let result = self.read_rules();
        match &result {
            Ok(reading) => {
                self.found = true;
                self.elsewhere = None;
                self.say_lock(reading.lock_problem.as_deref());
            }
            Err(_) => {}
        }
        result
    }

    fn look_again(&mut self, read: &[Snapshot], deadline: Instant) -> Result<Vec<Snapshot>, ReadError> {
        self.deadline = deadline;
        let Some(backend) = read.first().map(|table| table.ruleset.backend) else { return Ok(vec![]) };
        self.read_backend(backend, Source::Kernel).map(|reading| reading.tables)
    }

    fn lock_timeouts(&self) -> u64 {
        self.lock_timeouts
    }
}

impl Dataplane {
    /// A reader; nothing is looked for yet. `inventory` is what the datastore knows.
    pub fn new(options: Options, inventory: Option<Arc<Inventory>>) -> Self {
        Dataplane {
            presence: Presence::new(options.proc.clone()),
            options,
            inventory,
            selection: Selection::default(),
            saved_selection: Selection::default(),
            families: Family::ALL.map(FamilyReader::new),
            ebpf: ebpf::Reader::default(),
            only_ebpf: None,
            deadline: Instant::now(),
            said: Said::default(),
            lock_timeouts: 0,
            found: false,
            elsewhere: None,
        }
    }

    fn read_rules(&mut self) -> Result<Reading, ReadError> {
        if self.options.backend == BackendChoice::Ebpf || self.only_ebpf_lately() {
            return self.read_ebpf();
        }
        let reading = match self.read_tables() {
            Err(ReadError::NoProgram(path)) => self.without_program(path)?,
            reading => reading?,
        };
        match reading {
            Some(reading) if self.options.backend != BackendChoice::Auto || !evidence::endpoints(&reading).is_empty() => Ok(reading),
            reading => self.without_endpoints(reading),
        }
    }

    /// Whether the eBPF programs count, and it is not long since no table held any endpoint's chains.
    fn only_ebpf_lately(&self) -> bool {
        let lately = self.only_ebpf.is_some_and(|since| since.elapsed() < LOOK_AROUND);
        lately && ebpf::reader::is_present(&self.options.bpffs).unwrap_or(false)
    }

    /// No table holds chains of an endpoint: then the eBPF programs count, if there are any. Else the static chains of a node without
    /// endpoints are all there is.
    fn without_endpoints(&mut self, reading: Option<Reading>) -> Result<Reading, ReadError> {
        let before = self.only_ebpf.take();
        let is_auto = self.options.backend == BackendChoice::Auto;
        // Whoever sees this chain is on a dataplane with tables; on the eBPF dataplane Felix writes others, and not this one.
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
                let elsewhere = self.look_elsewhere();
                Err(self.no_chains(elsewhere))
            }
        }
    }

    fn no_chains(&self, elsewhere: Elsewhere) -> ReadError {
        ReadError::NoChains(NoChains { vanished: self.found, elsewhere })
    }

    /// Whether a back end that was not asked for holds Calico's chains. Looked at once in a while.
    fn look_elsewhere(&mut self) -> Elsewhere {
        if let Some((_, elsewhere)) = self.elsewhere.filter(|(since, _)| since.elapsed() < LOOK_AROUND) {
            return elsewhere;
        }
        let asked = self.options.backend;
        let mut found = Elsewhere::Nowhere;
        for backend in [Backend::Native, Backend::Nft, Backend::Legacy] {
            let is_there = asked != BackendChoice::Auto && self.has(backend).unwrap_or(false);
            let reading = is_there.then(|| self.read_backend(backend, Source::Kernel)).and_then(Result::ok);
            if reading.is_some_and(|reading| evidence::chains(&reading).next().is_some()) {
                found = Elsewhere::Backend(asked, backend);
                break;
            }
        }
        self.elsewhere = Some((Instant::now(), found));
        found
    }

    /// `iptables-save` was asked for, and there is none. On the eBPF dataplane it is not missed: the kernel itself says that no table
    /// holds any endpoint's chains.
    fn without_program(&mut self, path: String) -> Result<Option<Reading>, ReadError> {
        let missing = ReadError::NoProgram(path);
        let is_ebpf = self.options.backend == BackendChoice::Auto && ebpf::reader::is_present(&self.options.bpffs).unwrap_or(false);
        let has_endpoints = |reading: &Option<Reading>| reading.as_ref().is_some_and(|reading| !evidence::endpoints(reading).is_empty());
        match is_ebpf.then(|| self.read_tables_by(Source::Kernel)) {
            Some(Ok(reading)) if !has_endpoints(&reading) => Ok(reading),
            _ => Err(missing),
        }
    }

    fn read_ebpf(&mut self) -> Result<Reading, ReadError> {
        let Options { bpffs, sys, calico_run, .. } = &self.options;
        let programs = self.ebpf.read(bpffs, sys, calico_run).map_err(ReadError::Ebpf)?;
        Ok(Reading { programs: Some(programs), source: Source::Kernel.as_str(), locked: true, ..Reading::default() })
    }

    /// By itself, straight from the kernel: it costs half of what `iptables-save` takes and no child, shows rules that an older iptables
    /// cannot, and nothing else shows Calico's own nftables tables. The program is run where it is asked for, or where it shows
    /// Calico's chains and the kernel does not: one that is put in front may look elsewhere.
    fn read_tables(&mut self) -> Result<Option<Reading>, ReadError> {
        let source = if self.options.source == SourceChoice::Save { Source::Save } else { Source::Kernel };
        let reading = self.read_tables_by(source)?;
        if reading.is_some() || self.options.source != SourceChoice::Auto || !self.options.programs.any() {
            return Ok(reading);
        }
        std::mem::swap(&mut self.selection, &mut self.saved_selection);
        let saved = self.read_tables_by(Source::Save);
        std::mem::swap(&mut self.selection, &mut self.saved_selection);
        saved
    }

    /// `None` if no table has any of Calico's rules.
    fn read_tables_by(&mut self, source: Source) -> Result<Option<Reading>, ReadError> {
        let (candidates, hidden) = self.candidates(source)?;
        let expected = Expected::here(self.inventory.clone(), &self.options.proc, &self.options.sys);
        let mut read = None;
        if let Some(chosen) = self.selection.settled().filter(|chosen| candidates.contains(chosen)) {
            let reading = self.read_backend(chosen, source)?;
            let missing = expected.missing(&evidence::endpoints(&reading));
            if self.selection.stays(evidence::chains(&reading).count(), missing, Instant::now()) {
                return Ok(Some(Reading { rivals: self.selection.rivals().to_vec(), ..reading }));
            }
            read = Some((chosen, reading));
        }
        self.look_around(Look { candidates, hidden, source, expected }, read)
    }

    /// The dataplanes that were asked for and that the kernel has, as far as they can be read; and what hides one.
    fn candidates(&self, source: Source) -> Result<(Vec<Backend>, Option<ReadError>), ReadError> {
        if source == Source::Save && self.options.backend != BackendChoice::Native && !self.options.programs.any() {
            return Err(ReadError::NoProgram(self.options.programs.search_path()));
        }
        let wanted = |backend: &Backend| match self.options.backend {
            BackendChoice::Auto => true,
            BackendChoice::Legacy => *backend == Backend::Legacy,
            BackendChoice::Nft => *backend == Backend::Nft,
            BackendChoice::Native => *backend == Backend::Native,
            BackendChoice::Ebpf => false,
        };
        let (mut candidates, mut hidden) = (Vec::new(), None);
        for backend in [Backend::Native, Backend::Nft, Backend::Legacy].into_iter().filter(wanted) {
            match self.has(backend) {
                Ok(true) => candidates.push(backend),
                Ok(false) => {}
                Err(error) => hidden = Some(error),
            }
        }
        Ok((candidates, hidden))
    }

    /// Whether the kernel has this back end.
    fn has(&self, backend: Backend) -> Result<bool, ReadError> {
        for family in Family::ALL {
            if self.presence.has(backend, family, "filter").map_err(|error| ReadError::Hidden(backend, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads all dataplanes (but the one that was read already) and chooses.
    fn look_around(&mut self, look: Look, read: Option<(Backend, Reading)>) -> Result<Option<Reading>, ReadError> {
        let mut readings: Vec<(Backend, Reading)> = Vec::new();
        let mut failure = look.hidden;
        let already = read.as_ref().map(|(backend, _)| *backend);
        for &backend in look.candidates.iter().filter(|backend| already != Some(**backend)) {
            match self.read_backend(backend, look.source) {
                Ok(reading) => readings.push((backend, reading)),
                Err(error) => failure = Some(error),
            }
        }
        readings.extend(read);
        let before = self.selection.chosen();
        let chosen = self.choose(&readings, &look.expected);
        self.families.iter_mut().for_each(|family| family.forget_all_but(chosen));
        let reading = readings.into_iter().find(|(backend, _)| Some(*backend) == chosen).map(|(_, reading)| reading);
        match (reading, failure) {
            // Calico may be where the failure hides it.
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
            (Some(reading), failure) => {
                self.say_choice(before, failure);
                Ok(Some(Reading { rivals: self.selection.rivals().to_vec(), ..reading }))
            }
        }
    }

    fn choose(&mut self, readings: &[(Backend, Reading)], expected: &Expected) -> Option<Backend> {
        let are_several = readings.iter().filter(|(_, reading)| !evidence::endpoints(reading).is_empty()).count() > 1;
        let finding = |(backend, reading): &(Backend, Reading)| {
            let hooked = are_several.then(|| self.is_hooked(*backend, reading)).flatten();
            evidence::finding(*backend, reading, expected, hooked)
        };
        let findings = readings.iter().map(finding).collect();
        self.selection.choose(findings, |finding| expected.missing(&finding.endpoints), Instant::now())
    }

    /// Whether the kernel's own chains lead into Calico's, in any family; `None` if the kernel does not tell, or the rules are not its.
    fn is_hooked(&self, backend: Backend, reading: &Reading) -> Option<bool> {
        if reading.source != Source::Kernel.as_str() {
            return None;
        }
        let mut families: Vec<Family> = reading.tables.iter().map(|table| table.ruleset.family).collect();
        families.dedup();
        let hooks = |family| match backend {
            Backend::Legacy => legacy::hooks(family),
            Backend::Nft => nft::hooks(family, nft::Tables::Iptables("filter"), self.deadline),
            Backend::Native => nft::hooks(family, nft::Tables::Calico, self.deadline),
        };
        let hooks: Result<Vec<_>, _> = families.into_iter().map(hooks).collect();
        hooks.ok().map(|hooks| hooks.iter().any(|hooks| !hooks.is_empty()))
    }

    /// Says where the rules are, once for each change; and once of two back ends that both hold chains.
    fn say_choice(&mut self, before: Option<Backend>, failure: Option<ReadError>) {
        let Some(chosen) = self.selection.chosen() else { return };
        if before != Some(chosen) {
            info!("Calico's rules are in the {} dataplane", chosen.as_str());
        }
        let pair = |rival: &Rival| BTreeSet::from([chosen, rival.backend]);
        for rival in self.selection.rivals().iter().filter(|rival| !self.said.rivals.contains(&pair(rival))) {
            warn!("{}", rival.of(chosen));
        }
        self.said.rivals = self.selection.rivals().iter().map(pair).collect();
        if let Some(failure) = failure {
            let message = format_args!("another dataplane than {} could not be looked at: {failure}", chosen.as_str());
            logging::once(Level::Warn, "hidden dataplane", message);
        }
    }

    /// Reads one dataplane, both families at the same time. Calico's own tables are only in the kernel.
    fn read_backend(&mut self, backend: Backend, source: Source) -> Result<Reading, ReadError> {
        let source = if backend == Backend::Native { Source::Kernel } else { source };
        let hidden = |error| ReadError::Hidden(backend, error);
        let mut present = Vec::new();
        for family in Family::ALL {
            if self.presence.has(backend, family, "filter").map_err(hidden)? {
                present.push(family);
            }
        }
        let (lock, lock_waited) = self.lock(backend)?;
        let (lock, lock_problem) = lock.map_or_else(|error| (None, Some(error.to_string())), |lock| (lock, None));
        let (options, presence, deadline) = (&self.options, &self.presence, self.deadline);
        let families = self.families.iter_mut().filter(|reader| present.contains(&reader.family()));
        let results = std::thread::scope(|scope| {
            let read = |reader: &mut FamilyReader| reader.read((backend, source), options, presence, deadline);
            let threads: Vec<_> = families.map(|reader| scope.spawn(move || read(reader))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<Vec<_>, _>>()
        });
        drop(lock);
        let tables = results?.into_iter().flatten().collect();
        let locked = lock_problem.is_none();
        Ok(Reading { tables, source: source.as_str(), lock_waited, locked, lock_problem, ..Reading::default() })
    }

    /// Without the lock a legacy table may be read while all its counters are zero. The inner error: there is none to take.
    fn lock(&mut self, backend: Backend) -> Result<(Result<Option<Lock>, LockError>, Duration), ReadError> {
        if backend != Backend::Legacy {
            return Ok((Ok(None), Duration::ZERO));
        }
        let wait = self.options.lock_wait.min(self.deadline.saturating_duration_since(Instant::now()));
        match Lock::shared(&self.options.lock_path, wait) {
            Ok((lock, waited)) => Ok((Ok(Some(lock)), waited)),
            Err(error) if error.is_missing() => Ok((Err(error), Duration::ZERO)),
            Err(error) => {
                self.lock_timeouts += 1;
                Err(ReadError::Lock(error))
            }
        }
    }

    /// Says of the tables that count, and of no others, that they were read without their lock; once for each change.
    fn say_lock(&mut self, problem: Option<&str>) {
        if self.said.lock.as_deref() == problem {
            return;
        }
        match problem {
            Some(problem) => {
                warn!("{problem}; reading without it, so counters may be wrong while rules are being written: mount it (XTABLES_LOCKFILE)")
            }
            None => info!("the xtables lock can be taken again"),
        }
        self.said.lock = problem.map(str::to_owned);
    }
}

/// What is looked at to choose a dataplane.
struct Look {
    candidates: Vec<Backend>,
    /// What could not be looked at.
    hidden: Option<ReadError>,
    source: Source,
    expected: Expected,
}
