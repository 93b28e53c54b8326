//! Where Calico's rules are, and how they are read: finds the dataplane that holds them, reads it by `iptables-save` or straight from
//! the kernel (legacy tables under the xtables lock) → one [`Snapshot`] a table; where no table has any, the eBPF programs.
//! Touches the lock file, `/proc` and `/sys/class/net`.

mod family;
mod lock;
mod selection;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::config::{BackendChoice, SourceChoice};
use crate::ebpf;
use crate::iptables::{Programs, SaveError};
use crate::ruleset::{Backend, Family, Snapshot};
use family::{FamilyReader, kernel_has};
use lock::{Lock, LockError};
use selection::{Finding, LOOK_AROUND, Selection};

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
    /// How they were read, as metrics name it; empty if no dataplane has any of Calico's chains.
    pub source: &'static str,
    /// How long the xtables lock was waited for.
    pub lock_waited: Duration,
    /// Whether the tables were read under the lock that they need.
    pub locked: bool,
}

/// Why the tables could not be read. One line for the user.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// `iptables-save` was asked for, and there is none.
    NoProgram(String),
    /// Another process held the xtables lock.
    Lock(LockError),
    /// `iptables-save` failed.
    Save(SaveError),
    /// The kernel did not let itself be read.
    Kernel(Backend, Family, io::Error),
    /// The eBPF dataplane did not.
    Ebpf(ebpf::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NoProgram(path) => {
                write!(f, "neither iptables-nft-save, iptables-legacy-save nor iptables-save is on the search path ({path})")
            }
            ReadError::Lock(error) => error.fmt(f),
            ReadError::Save(error) => error.fmt(f),
            ReadError::Ebpf(error) => error.fmt(f),
            ReadError::Kernel(backend, family, error) => {
                write!(f, "reading the kernel's {} tables ({}) failed: {error}", backend.as_str(), family.as_str())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => write!(f, "; it takes the capabilities NET_ADMIN and NET_RAW"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for ReadError {}

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
    selection: Selection,
    /// Where `iptables-save` shows Calico's chains, while the kernel itself does not.
    saved_selection: Selection,
    families: [FamilyReader; 2],
    /// Of the read that is going on.
    deadline: Instant,
    lock_missing: bool,
    lock_timeouts: u64,
    ebpf: ebpf::Reader,
    /// When it was last certain that no table holds Calico's chains, while the eBPF dataplane is what is read.
    only_ebpf: Option<Instant>,
}

impl Reader for Dataplane {
    fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError> {
        self.deadline = deadline;
        if self.options.backend == BackendChoice::Ebpf || self.only_ebpf_lately() {
            return self.read_ebpf();
        }
        let reading = match self.read_tables() {
            Err(ReadError::NoProgram(path)) => self.without_program(path)?,
            reading => reading?,
        };
        match self.is_ebpf(&reading) {
            true => self.read_ebpf(),
            false => Ok(reading),
        }
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
    /// A reader; nothing is looked for yet.
    pub fn new(options: Options) -> Self {
        Dataplane {
            options,
            selection: Selection::default(),
            saved_selection: Selection::default(),
            families: Family::ALL.map(FamilyReader::new),
            ebpf: ebpf::Reader::default(),
            only_ebpf: None,
            deadline: Instant::now(),
            lock_missing: false,
            lock_timeouts: 0,
        }
    }

    /// Whether the eBPF programs count, and it is not long since no table held any of Calico's chains.
    fn only_ebpf_lately(&self) -> bool {
        self.only_ebpf.is_some_and(|since| since.elapsed() < LOOK_AROUND) && ebpf::reader::is_present(&self.options.bpffs)
    }

    /// Whether no table holds any of Calico's chains, and the eBPF programs count.
    fn is_ebpf(&mut self, tables: &Reading) -> bool {
        let is_ebpf =
            tables.source.is_empty() && self.options.backend == BackendChoice::Auto && ebpf::reader::is_present(&self.options.bpffs);
        let before = std::mem::replace(&mut self.only_ebpf, is_ebpf.then(Instant::now));
        if is_ebpf && before.is_none() {
            info!("Calico's rules are in the {} dataplane", ebpf::BACKEND);
        }
        is_ebpf
    }

    /// `iptables-save` was asked for, and there is none. On the eBPF dataplane it is not missed: the kernel itself says that no table
    /// holds any of Calico's chains.
    fn without_program(&mut self, path: String) -> Result<Reading, ReadError> {
        let missing = ReadError::NoProgram(path);
        if self.options.backend != BackendChoice::Auto || !ebpf::reader::is_present(&self.options.bpffs) {
            return Err(missing);
        }
        match self.read_tables_by(Source::Kernel) {
            Ok(reading) if reading.source.is_empty() => Ok(reading),
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
    fn read_tables(&mut self) -> Result<Reading, ReadError> {
        let source = if self.options.source == SourceChoice::Save { Source::Save } else { Source::Kernel };
        let reading = self.read_tables_by(source)?;
        if !reading.source.is_empty() || self.options.source != SourceChoice::Auto || !self.options.programs.any() {
            return Ok(reading);
        }
        std::mem::swap(&mut self.selection, &mut self.saved_selection);
        let saved = self.read_tables_by(Source::Save);
        std::mem::swap(&mut self.selection, &mut self.saved_selection);
        saved
    }

    fn read_tables_by(&mut self, source: Source) -> Result<Reading, ReadError> {
        let candidates = self.candidates(source)?;
        if let Some(chosen) = self.selection.chosen().filter(|chosen| candidates.contains(chosen)) {
            let reading = self.read_backend(chosen, source)?;
            let (chains, packets) = workload_chains(&reading);
            if self.selection.stays(chosen, chains, packets, Instant::now()) {
                return Ok(reading);
            }
            return self.look_around(&candidates, source, Some((chosen, reading)));
        }
        self.look_around(&candidates, source, None)
    }

    /// The dataplanes that were asked for and that the kernel has, as far as they can be read.
    fn candidates(&mut self, source: Source) -> Result<Vec<Backend>, ReadError> {
        if source == Source::Save && self.options.backend != BackendChoice::Native && !self.options.programs.any() {
            return Err(ReadError::NoProgram(self.options.programs.search_path()));
        }
        let wanted = |backend| match self.options.backend {
            BackendChoice::Auto => true,
            BackendChoice::Legacy => backend == Backend::Legacy,
            BackendChoice::Nft => backend == Backend::Nft,
            BackendChoice::Native => backend == Backend::Native,
            BackendChoice::Ebpf => false,
        };
        let all = [Backend::Native, Backend::Nft, Backend::Legacy].into_iter();
        Ok(all
            .filter(|backend| {
                wanted(*backend) && Family::ALL.into_iter().any(|family| kernel_has(&self.options, *backend, family, "filter"))
            })
            .collect())
    }

    /// Reads all dataplanes (but the one that was read already) and chooses.
    fn look_around(&mut self, candidates: &[Backend], source: Source, read: Option<(Backend, Reading)>) -> Result<Reading, ReadError> {
        let mut readings: Vec<(Backend, Reading)> = Vec::new();
        let mut failure = None;
        let already = read.as_ref().map(|(backend, _)| *backend);
        for &backend in candidates.iter().filter(|backend| already != Some(**backend)) {
            match self.read_backend(backend, source) {
                Ok(reading) => readings.push((backend, reading)),
                Err(error) => failure = Some(error),
            }
        }
        readings.extend(read);
        let findings: Vec<Finding> = readings.iter().map(|(backend, reading)| self.finding(reading, *backend)).collect();
        let before = self.selection.chosen();
        let chosen = self.selection.choose(&findings, Instant::now());
        if let Some(chosen) = chosen.filter(|_| chosen != before) {
            info!("Calico's rules are in the {} dataplane", chosen.as_str());
        }
        self.families.iter_mut().for_each(|family| family.forget_all_but(chosen));
        let reading = readings.into_iter().find(|(backend, _)| Some(*backend) == chosen).map(|(_, reading)| reading);
        match (reading, failure) {
            (Some(reading), _) => Ok(reading),
            // Calico may be where the failure hides it.
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Reading { locked: true, ..Reading::default() }),
        }
    }

    fn finding(&self, reading: &Reading, backend: Backend) -> Finding {
        let (chains, packets) = workload_chains(reading);
        let names = reading.tables.iter().flat_map(|table| table.ruleset.chains()).filter_map(|chain| workload_interface(&chain.name));
        let live = names.filter(|interface| self.options.sys.join("class/net").join(interface).exists()).count();
        Finding { backend, chains, live, packets }
    }

    /// Reads one dataplane, both families at the same time. Calico's own tables are only in the kernel.
    fn read_backend(&mut self, backend: Backend, source: Source) -> Result<Reading, ReadError> {
        let source = if backend == Backend::Native { Source::Kernel } else { source };
        let (lock, lock_waited) = self.lock(backend)?;
        let (options, deadline) = (&self.options, self.deadline);
        let read = |reader: &mut FamilyReader| reader.read(backend, source, options, deadline);
        let mut families = self.families.iter_mut().filter(|reader| kernel_has(options, backend, reader.family(), "filter"));
        let (one, other) = (families.next(), families.next());
        let results = std::thread::scope(|scope| {
            let other = other.map(|reader| scope.spawn(|| read(reader)));
            let one = one.map(read);
            // A panic ends this read, not the table of a family.
            let other = other.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            one.into_iter().chain(other).collect::<Result<Vec<_>, _>>()
        });
        let locked = lock.is_some() || backend != Backend::Legacy;
        drop(lock);
        let tables = results?.into_iter().flatten().collect();
        Ok(Reading { tables, source: source.as_str(), lock_waited, locked, ..Reading::default() })
    }

    /// Without the lock a legacy table may be read while all its counters are zero. A file that is not there is said once.
    fn lock(&mut self, backend: Backend) -> Result<(Option<Lock>, Duration), ReadError> {
        if backend != Backend::Legacy {
            return Ok((None, Duration::ZERO));
        }
        let wait = self.options.lock_wait.min(self.deadline.saturating_duration_since(Instant::now()));
        match Lock::shared(&self.options.lock_path, wait) {
            Ok((lock, waited)) => Ok((Some(lock), waited)),
            Err(error @ LockError::Open(..)) => {
                if !std::mem::replace(&mut self.lock_missing, true) {
                    warn!(
                        "{error}; reading without it, so counters may be wrong while rules are being written: mount it (XTABLES_LOCKFILE)"
                    );
                }
                Ok((None, Duration::ZERO))
            }
            Err(error) => {
                self.lock_timeouts += 1;
                Err(ReadError::Lock(error))
            }
        }
    }
}

/// The interface whose packets a chain is for, if it is a workload's.
fn workload_interface(chain: &str) -> Option<&str> {
    chain.strip_prefix("cali-tw-").or_else(|| chain.strip_prefix("cali-fw-"))
}

/// How many workload chains there are, and what their rules have counted.
fn workload_chains(reading: &Reading) -> (usize, u64) {
    let (mut count, mut packets) = (0, 0u64);
    for table in &reading.tables {
        for chain in table.ruleset.chains().iter().filter(|chain| workload_interface(&chain.name).is_some()) {
            count += 1;
            packets = table.counts_of(chain).iter().fold(packets, |sum, count| sum.wrapping_add(count.packets));
        }
    }
    (count, packets)
}
