//! Calico's tables in all back ends: reads the one that holds them, looks for others, and chooses. Touches what the readers touch, the lock
//! file, `/proc` and `/sys/class/net`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use log::{Level, info, warn};

use super::evidence::{self, Expected};
use super::family::{FamilyReader, How};
use super::lock::{Lock, LockError};
use super::presence::Presence;
use super::selection::{Rival, Selection};
use super::{Options, ReadError, Reading, Source};
use crate::config::{BackendChoice, SourceChoice};
use crate::datastore::inventory::Inventory;
use crate::iptables::Programs;
use crate::kernel;
use crate::os::logging;
use crate::ruleset::{Backend, Family};

#[derive(Debug)]
pub struct Backends {
    options: Options,
    programs: Programs,
    presence: Presence,
    /// The datastore's workloads. Workloads without chains are a reason to look at other back ends.
    inventory: Option<Arc<Inventory>>,
    selection: Selection,
    /// The choice among what `iptables-save` shows, used if the kernel shows none of Calico's chains.
    saved_selection: Selection,
    families: [FamilyReader; 2],
    said: Said,
    /// The number of times that waiting for the lock timed out.
    pub lock_timeouts: u64,
}

/// What has been logged, so that it is logged once.
#[derive(Debug, Default)]
struct Said {
    lock: Option<String>,
    /// Pairs of back ends that both hold chains of endpoints.
    rivals: BTreeSet<BTreeSet<Backend>>,
}

impl Backends {
    pub fn new(options: Options, inventory: Option<Arc<Inventory>>) -> Self {
        Backends {
            presence: Presence::new(options.proc.clone()),
            programs: Programs::on_search_path(),
            options,
            inventory,
            selection: Selection::default(),
            saved_selection: Selection::default(),
            families: Family::ALL.map(FamilyReader::new),
            said: Said::default(),
            lock_timeouts: 0,
        }
    }

    /// Reads straight from the kernel by default. This takes half the time of `iptables-save` and no child process, shows rules that an
    /// older iptables cannot show, and is the only way to read Calico's own nftables tables. `iptables-save` runs if requested, or if the
    /// kernel shows none of Calico's chains: a wrapper in its place may read another place.
    pub fn read(&mut self, deadline: Instant) -> Result<Option<Reading>, ReadError> {
        let source = if self.options.source == SourceChoice::Save { Source::Save } else { Source::Kernel };
        let reading = self.read_by(source, deadline)?;
        if reading.is_some() || self.options.source != SourceChoice::Auto || !self.programs.any() {
            return Ok(reading);
        }
        std::mem::swap(&mut self.selection, &mut self.saved_selection);
        let saved = self.read_by(Source::Save, deadline);
        std::mem::swap(&mut self.selection, &mut self.saved_selection);
        saved
    }

    /// Reads the back end that was chosen last, or all of them and chooses. Returns `None` if no table has any of Calico's rules.
    pub fn read_by(&mut self, source: Source, deadline: Instant) -> Result<Option<Reading>, ReadError> {
        let (candidates, mut failure) = self.candidates(source)?;
        let expected = Expected::here(self.inventory.clone(), &self.options.proc);
        let mut first = None;
        if let Some(chosen) = self.selection.settled().filter(|chosen| candidates.contains(chosen)) {
            let reading = self.read_backend(chosen, source, deadline)?;
            let missing = expected.missing(&evidence::endpoints(&reading));
            if self.selection.stays(evidence::chains(&reading).count(), missing, Instant::now()) {
                return Ok(Some(Reading { rivals: self.selection.rivals.clone(), ..reading }));
            }
            first = Some((chosen, reading));
        }
        let mut readings: Vec<(Backend, Reading)> = Vec::new();
        let already = first.as_ref().map(|(backend, _)| *backend);
        for backend in candidates.into_iter().filter(|backend| already != Some(*backend)) {
            match self.read_backend(backend, source, deadline) {
                Ok(reading) => readings.push((backend, reading)),
                Err(error) => failure = Some(error),
            }
        }
        readings.extend(first);
        let before = self.selection.chosen;
        let chosen = self.choose(&readings, &expected, deadline);
        self.families.iter_mut().for_each(|family| family.forget_all_but(chosen));
        match (readings.into_iter().find(|(backend, _)| Some(*backend) == chosen), failure) {
            // Calico's rules may be where the failure hides them.
            (None, failure) => failure.map_or(Ok(None), Err),
            (Some((_, reading)), failure) => {
                self.say_choice(before, failure);
                Ok(Some(Reading { rivals: self.selection.rivals.clone(), ..reading }))
            }
        }
    }

    /// Returns the requested back ends that the kernel has, as far as they can be read, and the error that hides one.
    fn candidates(&self, source: Source) -> Result<(Vec<Backend>, Option<ReadError>), ReadError> {
        if source == Source::Save && self.options.backend != BackendChoice::Native && !self.programs.any() {
            return Err(ReadError::NoProgram(self.programs.search_path()));
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

    pub fn has(&self, backend: Backend) -> Result<bool, ReadError> {
        for family in Family::ALL {
            if self.presence.has(backend, family, "filter").map_err(|error| ReadError::Hidden(backend, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn choose(&mut self, readings: &[(Backend, Reading)], expected: &Expected, deadline: Instant) -> Option<Backend> {
        let are_several = readings.iter().filter(|(_, reading)| !evidence::endpoints(reading).is_empty()).count() > 1;
        let finding = |(backend, reading): &(Backend, Reading)| {
            let hooked = are_several.then(|| is_hooked(*backend, reading, deadline)).flatten();
            evidence::finding(*backend, reading, expected, hooked)
        };
        let findings = readings.iter().map(finding).collect();
        self.selection.choose(findings, |finding| expected.missing(&finding.endpoints), Instant::now())
    }

    /// Logs where the rules are, once for each change, and once for each pair of back ends that both hold chains.
    fn say_choice(&mut self, before: Option<Backend>, failure: Option<ReadError>) {
        let Some(chosen) = self.selection.chosen else { return };
        if before != Some(chosen) {
            info!("Calico's rules are in the {} dataplane", chosen.as_str());
        }
        let pair = |rival: &Rival| BTreeSet::from([chosen, rival.backend]);
        for rival in self.selection.rivals.iter().filter(|rival| !self.said.rivals.contains(&pair(rival))) {
            warn!("{}", rival.of(chosen));
        }
        self.said.rivals = self.selection.rivals.iter().map(pair).collect();
        if let Some(failure) = failure {
            let message = format_args!("looking for Calico's chains outside of {} failed: {failure}", chosen.as_str());
            logging::once(Level::Warn, "hidden dataplane", message);
        }
    }

    /// Reads one back end, both families in parallel. Calico's own tables are only read from the kernel.
    pub fn read_backend(&mut self, backend: Backend, source: Source, deadline: Instant) -> Result<Reading, ReadError> {
        let source = if backend == Backend::Native { Source::Kernel } else { source };
        let hidden = |error| ReadError::Hidden(backend, error);
        let mut present = Vec::new();
        for family in Family::ALL {
            if self.presence.has(backend, family, "filter").map_err(hidden)? {
                present.push(family);
            }
        }
        let mut reading = Reading { source: source.as_str(), ..Reading::default() };
        let lock = if backend == Backend::Legacy { self.lock(&mut reading, deadline)? } else { None };
        let how = How { backend, source, programs: &self.programs, presence: &self.presence, deadline };
        let read = |reader: &mut FamilyReader| reader.read(&how);
        let mut families = self.families.iter_mut().filter(|reader| present.contains(&reader.family));
        let (one, other) = (families.next(), families.next());
        let results = std::thread::scope(|scope| {
            let other = other.map(|reader| scope.spawn(|| read(reader)));
            let one = one.map(read);
            // A panic ends this read. It must not lose one family's table.
            let other = other.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            one.into_iter().chain(other).collect::<Result<Vec<_>, _>>()
        });
        drop(lock);
        reading.tables = results?.into_iter().flatten().collect();
        Ok(reading)
    }

    /// Takes the lock, or returns `None` if it is missing. Without it a legacy table may be read while all its counters are zero.
    fn lock(&mut self, reading: &mut Reading, deadline: Instant) -> Result<Option<Lock>, ReadError> {
        let wait = self.options.lock_wait.min(deadline.saturating_duration_since(Instant::now()));
        match Lock::shared(&self.options.lock_path, wait) {
            Ok((lock, waited)) => {
                reading.lock_waited = waited;
                Ok(Some(lock))
            }
            Err(LockError::Missing(problem)) => {
                reading.lock_problem = Some(problem);
                Ok(None)
            }
            Err(LockError::Unavailable(problem)) => {
                self.lock_timeouts += 1;
                Err(ReadError::Lock(problem))
            }
        }
    }

    /// Logs that the tables in use were read without their lock, once for each change. Does not log it for other tables.
    pub fn say_lock(&mut self, problem: Option<&str>) {
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

/// Reports whether the built-in chains lead into Calico's in any family. Returns `None` if the kernel cannot be asked, or if the rules are
/// not from the kernel.
fn is_hooked(backend: Backend, reading: &Reading, deadline: Instant) -> Option<bool> {
    if reading.source != Source::Kernel.as_str() {
        return None;
    }
    let mut families: Vec<Family> = reading.tables.iter().map(|table| table.ruleset.family).collect();
    families.dedup();
    let hooks: Result<Vec<_>, _> = families.into_iter().map(|family| kernel::hooks(backend, family, deadline)).collect();
    hooks.ok().map(|hooks| hooks.iter().any(|hooks| !hooks.is_empty()))
}
