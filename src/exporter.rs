//! One scrape from kernel to text, or to a report: reads the tables, takes them through pipelines, ledger and attribution, and renders the
//! result. Touches the outside world only through its reader and the inventory.

mod drops;
mod matches;
mod names;
mod readiness;
pub mod start;
mod state;
mod tracing;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::warn;

use crate::accounting::attribution::Datastore;
use crate::config::{Exposition, Witnesses, ZeroSeries};
use crate::dataplane::{Reader, Reading};
use crate::datastore::inventory::Inventory;
use crate::datastore::podlogs::PodLogs;
use crate::ebpf;
use crate::felix::{ChainNames, Structure, hashed_names};
use crate::metrics::{self, About, View};
use crate::os::plain;
use crate::os::process::Process;
use crate::os::sys;
use crate::report::{
    Chains, DatastoreStatus, DropsAnswer, Milliseconds, OtherBackend, PolicyAnswer, Report, Sources, Status, TableStatus, WitnessesAnswer,
    WorkloadStates,
};
use crate::ruleset::Family;
use crate::server::Application;
use readiness::Readiness;
use state::{LastRead, State};
use tracing::Tracing;

#[derive(Debug, Clone)]
pub struct Options {
    pub node_name: String,
    pub grafana_url: Option<String>,
    pub minimum_counter: u64,
    pub exposition: Exposition,
    /// For output that leaves zeros out: how long a new series is shown as 0.
    pub first_zero: Duration,
    pub pod_logs: PathBuf,
    /// `etcd` or `kubernetes`.
    pub datastore: Option<&'static str>,
    /// Whether to write `process_*`. The process of a command has ended when its text is read, and the reader has its own such series.
    pub process_metrics: bool,
    /// Whether there will be only one read. Then what takes two reads to derive is left out, instead of being 0.
    pub one_moment: bool,
    pub witnesses: Option<Witnesses>,
    /// Whether counters are known to have begun again between the reads, so that there may have been more of everything.
    pub began_anew: bool,
    /// Whether the first tables are of an earlier process, so that nobody watched the datastore in between.
    pub resumed: bool,
}

pub struct Scraper {
    options: Options,
    inventory: Arc<Inventory>,
    pod_logs: PodLogs,
    started: SystemTime,
    state: Mutex<State>,
    readiness: Readiness,
}

/// The time limit of the second look at the tables.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// A report that is younger than this is used again.
const FRESH: Duration = Duration::from_secs(1);

/// A report that was not renewed for this long is dropped.
const FORGOTTEN: Duration = Duration::from_secs(60);

impl Scraper {
    pub fn new(options: Options, reader: Box<dyn Reader>, inventory: Arc<Inventory>) -> Self {
        let mut state = State::new(reader);
        if let Some(witnesses) = options.witnesses {
            match Tracing::start(witnesses, Arc::clone(&inventory)) {
                Ok(tracing) => state.tracing = Some(tracing),
                Err(error) => warn!("WITNESSES: starting a thread failed: {error}"),
            }
        }
        let pod_logs = PodLogs::new(options.pod_logs.clone(), "/proc".into(), options.node_name.clone());
        Scraper { options, inventory, pod_logs, started: SystemTime::now(), state: Mutex::new(state), readiness: Readiness::default() }
    }

    /// Reads the kernel without showing the result. Shorter intervals prove more about policy groups.
    pub fn sample(&self) {
        self.advance(&mut self.state(), Instant::now());
    }

    pub fn may_lose_what_is_rewritten(&self) -> bool {
        self.state().accounting.may_lose_what_is_rewritten()
    }

    /// Reads, and counts from there on. For tables of an earlier moment.
    pub fn begin_counting(&self) {
        self.sample();
        self.state().accounting.restart();
    }

    /// A panic between two assignments can only have left counts out, so this continues after one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is known up to now, or up to a second ago.
    pub fn report(&self) -> Arc<Report> {
        let asked = Instant::now();
        let mut state = self.state();
        match &state.report {
            Some((made, report)) if made.elapsed() < FRESH => Arc::clone(report),
            _ => self.read_and_report(&mut state, asked),
        }
    }

    fn read_and_report(&self, state: &mut State, asked: Instant) -> Arc<Report> {
        let about = self.advance(state, asked);
        let found = self.name_the_unknown(state);
        let status = self.complete(state, about.status);
        let workload = |interface: &str| self.inventory.workload(interface).or_else(|| found.get(interface).cloned());
        let report = match (status.up, state.report.take()) {
            (true, _) => {
                let (attribution, catalog) = (state.accounting.attribution(), state.accounting.catalog());
                let outline = drops::outline(&state.accounting, |_, _| true);
                let one_moment = self.options.one_moment;
                let mut report = Report::new(Sources { outline: &outline, attribution, catalog, workload: &workload, one_moment }, status);
                report.policies.iter_mut().for_each(|policy| policy.since = state.past.seen(&policy.policy));
                report
            }
            // The kernel could not be read, so what is known is kept.
            (false, Some((_, last))) => Report { status: Status { workloads: last.status.workloads, ..status }, ..Report::clone(&last) },
            (false, None) => Report { status, ..Report::default() },
        };
        let report = Arc::new(report);
        state.report = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    /// Adds to a status all that is not known from a read.
    fn complete(&self, state: &State, read: Status) -> Status {
        let (inventory, troubles) = (&self.inventory, self.inventory.troubles());
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.options.node_name.clone(),
            time: state.read_at.map(seconds),
            started: seconds(self.started),
            grafana: self.options.grafana_url.clone(),
            problem: state.complaint.last().filter(|_| !read.up).map(|problem| plain(&problem)),
            node_problem: self.readiness.node_problem(&self.options.node_name, inventory),
            datastore: DatastoreStatus {
                kind: self.options.datastore.unwrap_or("none").into(),
                up: inventory.up(),
                synced: inventory.synced(),
                last_event: Some(inventory.last_event()).filter(|last| *last > 0),
                problem: (!troubles.is_empty()).then(|| plain(&troubles.join("; "))),
            },
            // If the rules could not be read, what was read before does not count.
            workloads: WorkloadStates { without_rules: inventory.without_rules(state.interfaces().filter(|_| read.up)), ..read.workloads },
            ..read
        }
    }

    /// Makes one scrape. Callers that had to wait share what was read in between, and its text as long as any of them holds it.
    pub fn scrape(&self) -> Arc<Vec<u8>> {
        let asked = Instant::now();
        let mut state = self.state();
        if let Some(text) = state.answer_to(asked).and_then(|_| state.text.upgrade()) {
            return text;
        }
        let text = Arc::new(self.read_and_render(&mut state, asked));
        state.text = Arc::downgrade(&text);
        text
    }

    fn read_and_render(&self, state: &mut State, asked: Instant) -> Vec<u8> {
        let mut about = self.advance(state, asked);
        state.report.take_if(|(made, _)| made.elapsed() > FORGOTTEN);
        let found = self.name_the_unknown(state);
        if self.options.exposition.zeros == ZeroSeries::Omit && about.status.up {
            state.accounting.introduce(self.options.first_zero);
        }
        let totals = state.accounting.totals();
        let too_small = about.status.up && metrics::largest_counter(totals) < self.options.minimum_counter;
        if too_small {
            state.dropped_scrapes += 1;
            warn!("dropping a scrape: all counters are below MINIMUM_COUNTER ({})", self.options.minimum_counter);
        }
        about.dropped_scrapes = state.dropped_scrapes;
        about.stages.push(("total", asked.elapsed()));
        about.status = self.complete(state, about.status);
        about.datastore_resyncs = self.inventory.resyncs();
        about.process = self.options.process_metrics.then(|| Process::read(Path::new("/proc")));
        let workload = |interface: &str| self.inventory.workload(interface).or_else(|| found.get(interface).cloned());
        let view = View {
            attribution: state.accounting.attribution(),
            catalog: state.accounting.catalog(),
            workload: &workload,
            about: &about,
            counters: about.status.up && !too_small,
            exposition: &self.options.exposition,
        };
        // Counters that gain a digit hardly ever make it longer than this.
        let text = metrics::render(&view, sys::large(state.text_length + state.text_length / 64));
        state.text_length = text.len();
        text
    }

    /// Reads the kernel and updates the totals, unless another caller's read answers this request too.
    fn advance(&self, state: &mut State, asked: Instant) -> About {
        if let Some(about) = state.answer_to(asked) {
            return about.clone();
        }
        let begun = Instant::now();
        let mut about = About::default();
        about.status.up = self.read(state, &mut about);
        state.last_read = Some(LastRead { begun, ended: Instant::now(), about: about.clone() });
        state.text = Weak::new();
        about
    }

    fn read(&self, state: &mut State, about: &mut About) -> bool {
        let begun = Instant::now();
        state.tracing.iter_mut().for_each(Tracing::before_read);
        let result = state.read();
        state.tracing.iter_mut().for_each(Tracing::behind_read);
        about.stages.push(("read", begun.elapsed()));
        about.lock_timeouts = state.reader.lock_timeouts();
        match result {
            Ok(reading) => {
                let begun = Instant::now();
                self.take_in(state, &reading, about);
                state.read_at = Some(SystemTime::now());
                self.keep(state, SystemTime::now());
                about.stages.push(("attribute", begun.elapsed()));
                state.complaint.went_well("the kernel's counters can be read");
                self.readiness.took(Ok(()));
                self.watch_names(state);
                true
            }
            Err(error) => {
                match error.no_chains().map(|no_chains| no_chains.vanished) {
                    // What comes later has counted from 0.
                    Some(true) => {
                        about.status.chains = Chains::Vanished;
                        state.past.interrupt();
                        state.accounting.vanished();
                    }
                    Some(false) => about.status.chains = Chains::Absent,
                    None => {}
                }
                state.complaint.failed("reading the kernel's counters", &error);
                self.readiness.took(Err(&error));
                false
            }
        }
    }

    /// Asks for the names of nodes if workloads have rules and the datastore knows none of them.
    fn watch_names(&self, state: &State) {
        if self.options.datastore.is_none() || !self.inventory.synced() || !self.inventory.up() {
            return;
        }
        let known = state.interfaces().filter(|interface| self.inventory.workload(interface).is_some()).count();
        if self.readiness.named(state.interfaces().count(), known) {
            self.inventory.nodes().want();
        }
    }

    fn take_in(&self, state: &mut State, reading: &Reading, about: &mut About) {
        about.lock_waited = reading.lock_waited;
        about.status.lock_held = reading.lock_problem.is_none();
        about.status.chains = Chains::Present;
        about.status.other_backends = reading.rivals.iter().map(OtherBackend::from).collect();
        self.refresh_names(state);
        match &reading.programs {
            Some(programs) => self.take_in_programs(state, programs, reading.source, about),
            None => self.take_in_tables(state, reading, about),
        }
    }

    fn take_in_programs(&self, state: &mut State, read: &ebpf::Snapshot, source: &'static str, about: &mut About) {
        let datastore = Datastore { names: &state.hashed_names, version: state.policies_version };
        state.accounting.advance_programs(read, datastore);
        if let Some(tracing) = &mut state.tracing {
            tracing.fail("Calico's eBPF dataplane decides in programs, which cannot be traced");
        }
        if self.options.one_moment {
            state.accounting.forget_derived();
        }
        let Some(programs) = state.accounting.programs() else { return };
        about.status.tables = vec![TableStatus::new(None, ebpf::BACKEND, source, programs.rules())];
        let in_programs: usize = read.programs.iter().filter(|shown| shown.is_live).map(|shown| shown.program.unrecognised).sum();
        about.status.unrecognised_rules = (programs.unknown + read.unreadable + in_programs) as u64;
        if programs.unknown > 0 && read.programs.is_empty() {
            // Only names can show what the ids stand for then.
            self.inventory.want_policies();
        }
    }

    fn take_in_tables(&self, state: &mut State, reading: &Reading, about: &mut About) {
        let version = self.inventory.workloads_version();
        let State { accounting, reader, workloads_version, tracing, .. } = state;
        let is_watched = !self.options.resumed && self.options.datastore.is_some() && self.inventory.synced() && self.inventory.up();
        if std::mem::replace(workloads_version, version) == version && is_watched {
            accounting.note_that_endpoints_stayed();
        }
        let witnessed =
            |structures: &[Structure]| tracing.as_mut().map(|tracing| tracing.take_in(&reading.tables, structures)).unwrap_or_default();
        accounting.advance_witnessed(&reading.tables, witnessed, |read| reader.look_again(read, Instant::now() + LOOK_LIMIT));
        if let Some(tracing) = tracing {
            tracing.mark(&reading.tables, accounting.tables(), accounting.totals());
        }
        if accounting.unnamed() > 0 {
            if self.options.datastore.is_none() && !self.inventory.policies_wanted() {
                warn!(
                    "these rules do not name their policies (Calico before 3.22), and there is no datastore to ask: chain names are shown"
                );
            }
            self.inventory.want_policies();
        }
        if self.options.one_moment {
            accounting.forget_derived();
        }
        if self.options.began_anew {
            accounting.note_that_there_may_have_been_more();
        }
        about.status.tables = Family::ALL.into_iter().filter_map(|family| table_of(family, reading.source, accounting.tables())).collect();
        about.status.unrecognised_rules = accounting.unrecognised();
    }

    fn refresh_names(&self, state: &mut State) {
        let version = self.inventory.policies_version();
        if state.policies_version != version {
            let policies = self.inventory.policies();
            state.accounting.rename(ChainNames::new(&policies));
            state.hashed_names = policies.iter().flat_map(hashed_names).collect();
            state.policies_version = version;
        }
    }
}

/// Returns seconds since the epoch.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64 / 1000.0
}

fn table_of(family: Family, source: &'static str, tables: &[Structure]) -> Option<TableStatus> {
    let of_family = || tables.iter().map(|table| &table.ruleset).filter(|ruleset| ruleset.family == family);
    let (backend, rules) = (of_family().next()?.backend.as_str(), of_family().map(|ruleset| ruleset.rule_count()).sum());
    Some(TableStatus::new(Some(family), backend, source, rules))
}

impl Application for Scraper {
    fn metrics(&self) -> Arc<Vec<u8>> {
        self.scrape()
    }

    fn report(&self) -> Arc<Report> {
        self.report()
    }

    fn policy(&self, label: &str) -> Option<PolicyAnswer> {
        let mut answer = self.report().policy(label)?;
        matches::add(&mut self.state(), &mut answer);
        Some(answer)
    }

    fn past(&self) -> DropsAnswer {
        let status = self.report().status.clone();
        self.state().past.answer(status)
    }

    fn witnesses(&self, since: Option<Milliseconds>) -> WitnessesAnswer {
        // Traces are evaluated when tables are read.
        self.report();
        let state = self.state();
        state.tracing.as_ref().map_or_else(WitnessesAnswer::default, |tracing| tracing.answer(since))
    }

    fn ready(&self) -> Result<(), String> {
        let inventory = &self.inventory;
        if !inventory.synced() {
            return Err("the datastore has not been read yet".into());
        }
        if self.readiness.wants_read() {
            self.scrape();
        }
        self.readiness.reason(&self.options.node_name, inventory)?;
        if inventory.policies_wanted() && (inventory.policies_version() == 0 || !inventory.complete()) {
            return Err("the datastore's policies have not been read yet".into());
        }
        Ok(())
    }
}
