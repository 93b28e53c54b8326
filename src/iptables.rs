//! `iptables-save` and `ip6tables-save`: find them, run one of each per read (under the xtables lock for legacy tables), take their
//! text apart → one [`Ruleset`] a family. Touches: child processes, the lock file, `/proc` and `/sys/class/net`.

mod backend;
mod lock;
pub mod text;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{Level, info, warn};

use crate::child::{self, ChildError};
use crate::config::BackendChoice;
use crate::logging;
use crate::ruleset::{Backend, Family, Ruleset};
use backend::{Finding, Selection};
use lock::{Lock, LockError};

/// How long one child may take.
const CHILD_LIMIT: Duration = Duration::from_secs(6);
/// More rules than this are refused; the largest nodes have some 100,000.
const MOST_RULES: usize = 2_000_000;
/// More text than this is refused, in bytes.
const MOST_TEXT: usize = 1 << 30;

/// Where to look for what; [`Options::default`] is the running system.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which back end to read.
    pub backend: BackendChoice,
    /// The xtables lock file.
    pub lock_path: PathBuf,
    /// How long to wait for the lock.
    pub lock_wait: Duration,
    /// The programs are looked for here.
    pub search_path: OsString,
    /// Defaults to `/proc`.
    pub proc: PathBuf,
    /// Defaults to `/sys`.
    pub sys: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            backend: BackendChoice::Auto,
            lock_path: "/run/xtables.lock".into(),
            lock_wait: Duration::from_secs(2),
            search_path: std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/sbin:/usr/bin:/bin".into()),
            proc: "/proc".into(),
            sys: "/sys".into(),
        }
    }
}

/// One read of all tables that hold Calico's rules.
#[derive(Debug, Default)]
pub struct Reading {
    /// A ruleset per family that has one.
    pub rulesets: Vec<Ruleset>,
    /// Where they were read; `None` if no back end has any of Calico's chains.
    pub backend: Option<Backend>,
    /// How long the xtables lock was waited for.
    pub lock_waited: Duration,
    /// Whether the tables were read under the lock that they need.
    pub locked: bool,
}

/// Why the tables could not be read. One line for the user.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// No `iptables-save` of any kind is on the search path.
    NoProgram(OsString),
    /// Another process held the xtables lock.
    Lock(LockError),
    /// A program failed.
    Child(PathBuf, ChildError),
    /// A program's text is no table.
    Text(PathBuf, text::TextError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NoProgram(path) => {
                write!(f, "neither iptables-nft-save, iptables-legacy-save nor iptables-save is on the search path ({})", path.display())
            }
            ReadError::Lock(error) => error.fmt(f),
            ReadError::Child(program, error) => write!(f, "{} {error}", program.display()),
            ReadError::Text(program, error) => write!(f, "{}: {error}", program.display()),
        }
    }
}

impl std::error::Error for ReadError {}

/// A save program of one back end and family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    backend: Backend,
    family: Family,
    path: PathBuf,
}

/// Reads Calico's tables, each time from where they are.
#[derive(Debug)]
pub struct Iptables {
    options: Options,
    selection: Selection,
    /// Of the read that is going on.
    deadline: Instant,
    /// What plain `iptables-save` programs said they are, so that they are asked once.
    kinds: HashMap<PathBuf, Backend>,
    lock_missing: bool,
    lock_timeouts: u64,
}

impl Iptables {
    /// A reader; nothing is looked for yet.
    pub fn new(options: Options) -> Self {
        Iptables {
            options,
            selection: Selection::default(),
            deadline: Instant::now(),
            kinds: HashMap::new(),
            lock_missing: false,
            lock_timeouts: 0,
        }
    }

    /// How often the lock was waited for in vain.
    pub fn lock_timeouts(&self) -> u64 {
        self.lock_timeouts
    }

    /// Reads the `filter` tables of both families once, and is done by `deadline`, well or not.
    pub fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError> {
        self.deadline = deadline;
        let programs = self.programs()?;
        if let Some(chosen) = self.selection.chosen().filter(|chosen| programs.iter().any(|p| p.backend == *chosen)) {
            let reading = self.read_backend(chosen, &programs)?;
            if self.selection.stays(self.finding(&reading, chosen), Instant::now()) {
                return Ok(reading);
            }
            return self.look_around(&programs, Some((chosen, reading)));
        }
        self.look_around(&programs, None)
    }

    /// Reads all back ends (but the one that was read already) and chooses.
    fn look_around(&mut self, programs: &[Program], read: Option<(Backend, Reading)>) -> Result<Reading, ReadError> {
        let mut readings: Vec<(Backend, Reading)> = Vec::new();
        let mut failure = None;
        let already = read.as_ref().map(|(backend, _)| *backend);
        for backend in [Backend::Nft, Backend::Legacy] {
            if already == Some(backend) || !programs.iter().any(|program| program.backend == backend) {
                continue;
            }
            match self.read_backend(backend, programs) {
                Ok(reading) => readings.push((backend, reading)),
                Err(error) => failure = Some(error),
            }
        }
        readings.extend(read);
        let findings: Vec<Finding> = readings.iter().map(|(backend, reading)| self.finding(reading, *backend)).collect();
        let before = self.selection.chosen();
        let chosen = self.selection.choose(&findings, Instant::now());
        if chosen.is_some() && chosen != before {
            info!("Calico's rules are in iptables-{}", chosen.map_or("", Backend::as_str));
        }
        let reading = readings.into_iter().find(|(backend, _)| Some(*backend) == chosen).map(|(_, reading)| reading);
        match (reading, failure) {
            (Some(reading), _) => Ok(reading),
            // Calico may be where the failure hides it.
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Reading { locked: true, ..Reading::default() }),
        }
    }

    fn finding(&self, reading: &Reading, backend: Backend) -> Finding {
        let mut finding = Finding { backend, chains: 0, live: 0, packets: 0 };
        for ruleset in &reading.rulesets {
            for chain in ruleset.chains() {
                let interface = chain.name.strip_prefix("cali-tw-").or_else(|| chain.name.strip_prefix("cali-fw-"));
                let Some(interface) = interface else { continue };
                finding.chains += 1;
                finding.live += usize::from(self.options.sys.join("class/net").join(interface).exists());
                finding.packets += chain.rule_ids().map(|rule| ruleset.packets(rule)).sum::<u64>();
            }
        }
        finding
    }

    /// The programs to run, of back ends that the kernel has.
    fn programs(&mut self) -> Result<Vec<Program>, ReadError> {
        let mut programs = Vec::new();
        let mut any = false;
        for backend in [Backend::Nft, Backend::Legacy] {
            match (self.options.backend, backend) {
                (BackendChoice::Legacy, Backend::Nft) | (BackendChoice::Nft, Backend::Legacy) => continue,
                _ => {}
            }
            for family in Family::ALL {
                let Some(path) = self.program(backend, family) else { continue };
                any = true;
                if self.kernel_has(backend, family) {
                    programs.push(Program { backend, family, path });
                }
            }
        }
        if any { Ok(programs) } else { Err(ReadError::NoProgram(self.options.search_path.clone())) }
    }

    /// `iptables-nft-save`, `iptables-legacy-save`, or a plain `iptables-save` that is of that kind. So does Felix (`FindBestBinary`).
    fn program(&mut self, backend: Backend, family: Family) -> Option<PathBuf> {
        let stem = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        child::find(&format!("{stem}-{}-save", backend.as_str()), &self.options.search_path).or_else(|| {
            let plain = child::find(&format!("{stem}-save"), &self.options.search_path)?;
            let kind = *self.kinds.entry(plain.clone()).or_insert_with(|| backend_of(&plain));
            (kind == backend).then_some(plain)
        })
    }

    fn kernel_has(&self, backend: Backend, family: Family) -> bool {
        match backend {
            Backend::Legacy => backend::has_legacy_table(&self.options.proc, family),
            Backend::Nft => backend::has_nf_tables(&self.options.proc),
        }
    }

    /// Reads both families of one back end at the same time.
    fn read_backend(&mut self, backend: Backend, programs: &[Program]) -> Result<Reading, ReadError> {
        let (lock, lock_waited) = self.lock(backend)?;
        let limit = CHILD_LIMIT.min(self.deadline.saturating_duration_since(Instant::now()));
        let mut programs = programs.iter().filter(|program| program.backend == backend);
        let (first, second) = (programs.next(), programs.next());
        let (first, second) = std::thread::scope(|scope| {
            let second = second.map(|program| scope.spawn(|| save(program, limit)));
            (first.map(|program| save(program, limit)), second.map(|thread| thread.join()))
        });
        let locked = lock.is_some() || backend == Backend::Nft;
        drop(lock);
        let mut reading = Reading { rulesets: Vec::new(), backend: Some(backend), lock_waited, locked };
        reading.rulesets.extend(first.transpose()?);
        if let Some(Ok(second)) = second {
            reading.rulesets.push(second?);
        }
        Ok(reading)
    }

    /// Without the lock a legacy table may be read while all its counters are zero. A file that is not there is said once.
    fn lock(&mut self, backend: Backend) -> Result<(Option<Lock>, Duration), ReadError> {
        if backend == Backend::Nft {
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

/// Asks a plain `iptables-save` what it is. `v1.8.9 (nf_tables)`, `v1.8.9 (legacy)`; before 1.8 there was only legacy.
fn backend_of(program: &Path) -> Backend {
    let mut version = Vec::new();
    let asked = child::run(program, &["--version"], CHILD_LIMIT, &mut |piece| {
        version.extend_from_slice(&piece[..piece.len().min(200)]);
        Ok(())
    });
    match asked.is_ok() && version.windows(9).any(|word| word == b"nf_tables") {
        true => Backend::Nft,
        false => Backend::Legacy,
    }
}

/// Runs one program and takes its text apart while it writes.
fn save(program: &Program, limit: Duration) -> Result<Ruleset, ReadError> {
    let mut parser = text::Parser::new(program.family, program.backend, "filter");
    let mut bytes = 0;
    let result = child::run(&program.path, &["-t", "filter", "-c"], limit, &mut |piece| {
        bytes += piece.len();
        parser.push(piece);
        match bytes > MOST_TEXT || parser.rule_count() > MOST_RULES {
            true => Err(format!("it printed more than {MOST_RULES} rules or {MOST_TEXT} bytes")),
            false => Ok(()),
        }
    });
    result.map_err(|error| ReadError::Child(program.path.clone(), error))?;
    if let Some(line) = parser.first_unreadable() {
        let message = format_args!("{}: a line that is no rule is skipped: {line:?}", program.path.display());
        logging::once(Level::Warn, &format!("unreadable {}", program.path.display()), message);
    }
    parser.finish().map_err(|error| ReadError::Text(program.path.clone(), error))
}
