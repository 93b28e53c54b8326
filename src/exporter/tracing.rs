//! Witnesses while the exporter runs (`WITNESSES`): has the kernel trace packets of endpoints that need it, and adds what it reports of
//! them to each read. Touches one table of its own, and the socket that its messages come by; see [`Tracer`].
//!
//! A packet that began and ended between two reads is in all counters of that interval, and of no other. So all messages that have come
//! are taken before tables are read, and again after.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::accounting::attribution::{Totals, Witnessed};
use crate::config::Witnesses;
use crate::datastore::addresses::Addresses;
use crate::datastore::inventory::Inventory;
use crate::felix::{Decision, Direction, EndpointKind, Structure, Tier};
use crate::kernel::trace::{Marked, Marking, Received, Tracer};
use crate::report::{Line, Milliseconds, Recent, TracingStatus, WitnessesAnswer};
use crate::ruleset::{Backend, RuleId, Snapshot};
use crate::witness::meanings::{Meanings, witnesses};
use crate::witness::traces::{Trace, Traces};

/// How long an endpoint is watched after its last drop.
const REST: Duration = Duration::from_secs(5 * 60);
/// The most whole traces that wait for the next read.
const MOST_WAITING: usize = 20_000;
/// How long messages are taken before and after a read. The kernel sends no more than the rate allows, so this is more than enough.
const CATCHING_UP: Duration = Duration::from_millis(200);

pub struct Tracing {
    options: Witnesses,
    hearing: Arc<Mutex<Hearing>>,
    /// The meanings of the last read's rules.
    meanings: Meanings,
    /// Shows whether rules have changed since.
    fingerprint: Vec<u64>,
    addresses: Addresses,
    recent: Recent,
    unclear: u64,
    /// Packets refused so far, and when the last one was noticed.
    drops: HashMap<(EndpointKind, Arc<str>), (u64, Option<Instant>)>,
    /// The interfaces that are marked; `None` for all.
    marked: Option<BTreeSet<Arc<str>>>,
    problem: Option<String>,
}

/// What is shared with the thread that receives messages.
#[derive(Default)]
struct Hearing {
    tracer: Option<Tracer>,
    traces: Traces,
    whole: Vec<Trace>,
    /// Traces that were whole before the current tables were read.
    before_read: Vec<Trace>,
    /// Packets marked by earlier tracers.
    marked: Marked,
    /// Traces dropped for lack of room.
    let_go: u64,
}

impl Hearing {
    /// Takes all messages that have come, or as many as there is time for.
    fn catch_up(&mut self) -> io::Result<()> {
        let Some(tracer) = &mut self.tracer else { return Ok(()) };
        let begun = Instant::now();
        loop {
            match tracer.receive(begun)? {
                Received::Events(events) => {
                    for trace in events.into_iter().filter_map(|event| self.traces.take(event)) {
                        match self.whole.len() < MOST_WAITING {
                            true => self.whole.push(trace),
                            false => self.let_go += 1,
                        }
                    }
                }
                Received::Lost => self.traces.lost(),
                Received::Nothing => {
                    self.traces.forget_old(begun);
                    return Ok(());
                }
            }
            if begun.elapsed() > CATCHING_UP {
                self.traces.lost();
                return tracer.skip();
            }
        }
    }

    fn end(&mut self) {
        self.marked = self.marked_so_far();
        self.tracer = None;
    }

    fn marked_so_far(&mut self) -> Marked {
        let now = self.tracer.as_mut().and_then(|tracer| tracer.marked().ok());
        self.marked.and(now.unwrap_or_default())
    }
}

impl Tracing {
    pub fn start(options: Witnesses, inventory: Arc<Inventory>) -> io::Result<Self> {
        let hearing = Arc::new(Mutex::new(Hearing::default()));
        let heard = Arc::clone(&hearing);
        thread::Builder::new().name("witnesses".into()).spawn(move || hear(&heard))?;
        Ok(Tracing {
            options,
            hearing,
            meanings: Meanings::default(),
            fingerprint: Vec::new(),
            addresses: Addresses::new(inventory),
            recent: Recent::default(),
            unclear: 0,
            drops: HashMap::new(),
            marked: Some(BTreeSet::new()),
            problem: None,
        })
    }

    /// Takes messages before tables are read.
    pub fn before_read(&mut self) {
        let mut hearing = lock(&self.hearing);
        let result = hearing.catch_up();
        hearing.traces.reading(true);
        let whole = std::mem::take(&mut hearing.whole);
        // Some are left if the last reads failed.
        let room = MOST_WAITING.saturating_sub(hearing.before_read.len());
        hearing.let_go += whole.len().saturating_sub(room) as u64;
        hearing.before_read.extend(whole.into_iter().take(room));
        drop(hearing);
        self.check(result);
    }

    /// Takes messages after tables were read.
    pub fn behind_read(&mut self) {
        let mut hearing = lock(&self.hearing);
        let result = hearing.catch_up();
        hearing.traces.reading(false);
        drop(hearing);
        self.check(result);
    }

    fn check(&mut self, heard: io::Result<()>) {
        if let Err(error) = heard {
            self.fail(&format!("reading the kernel's trace failed: {error}"));
        }
    }

    /// Ends tracing because of a problem, which is logged once.
    pub fn fail(&mut self, problem: &str) {
        if self.problem.as_deref() != Some(problem) {
            warn!("WITNESSES: {problem}");
            self.problem = Some(problem.to_owned());
        }
        let mut hearing = lock(&self.hearing);
        hearing.end();
        hearing.before_read.clear();
        self.marked = Some(BTreeSet::new());
    }

    /// Returns what was traced before this read. `structures` are those of the tables, in their order.
    pub fn take_in(&mut self, tables: &[Snapshot], structures: &[Structure]) -> Witnessed {
        let traces = std::mem::take(&mut lock(&self.hearing).before_read);
        let fingerprint = fingerprint(tables);
        let before = match fingerprint == self.fingerprint {
            true => None,
            false => Some(std::mem::replace(&mut self.meanings, Meanings::new(tables, structures))),
        };
        self.fingerprint = fingerprint;
        let before = before.as_ref().unwrap_or(&self.meanings);
        let addresses = self.addresses.now();
        self.recent.read(SystemTime::now());
        let mut witnessed = Witnessed::default();
        for trace in traces {
            let Some(found) = witnesses(&trace, before, &self.meanings) else {
                self.unclear += 1;
                continue;
            };
            for witness in found {
                if trace.is_certain {
                    witnessed.add(&witness);
                }
                let line = Arc::new(Line::new(&witness, addresses));
                if self.options.log {
                    info!("witness: {}", line.text());
                }
                self.recent.add(line);
            }
        }
        witnessed
    }

    /// Has the packets of the endpoints marked that need it from now on.
    pub fn mark(&mut self, tables: &[Snapshot], structures: &[Structure], totals: &Totals) {
        if let Some(problem) = cannot(tables) {
            return self.fail(problem);
        }
        let wanted = self.wanted(structures, totals);
        let is_idle = wanted.as_ref().is_some_and(BTreeSet::is_empty);
        if wanted == self.marked && lock(&self.hearing).tracer.is_none() == is_idle {
            return;
        }
        match self.have_marked(wanted.as_ref()) {
            Ok(()) => {
                if self.problem.take().is_some() {
                    info!("WITNESSES: packets are traced again");
                }
                self.marked = wanted;
            }
            Err(error) => self.fail(&format!("packets cannot be traced: {error}")),
        }
    }

    fn have_marked(&self, wanted: Option<&BTreeSet<Arc<str>>>) -> io::Result<()> {
        let interfaces: Option<Vec<String>> = wanted.map(|wanted| wanted.iter().map(|name| name.to_string()).collect());
        let marking = Marking { interfaces: interfaces.as_deref(), rate: self.options.rate };
        let mut hearing = lock(&self.hearing);
        match &mut hearing.tracer {
            Some(_) if interfaces.as_ref().is_some_and(Vec::is_empty) => hearing.end(),
            Some(tracer) => tracer.mark(&marking)?,
            None if interfaces.as_ref().is_some_and(Vec::is_empty) => {}
            None => hearing.tracer = Some(Tracer::start(&marking)?),
        }
        Ok(())
    }

    /// Returns the interfaces of endpoints whose counters leave something open; `None` for all interfaces.
    fn wanted(&mut self, structures: &[Structure], totals: &Totals) -> Option<BTreeSet<Arc<str>>> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.drops);
        for (kind, interface, endpoint) in totals.endpoints() {
            let refused = Direction::ALL.map(|direction| totals.sums(endpoint, direction).refused).iter().sum();
            let key = (kind, Arc::clone(interface));
            let last = match before.get(&key) {
                Some((known, _)) if *known < refused => Some(now),
                Some((_, last)) => last.filter(|last| now.duration_since(*last) < REST),
                // What was refused before this process began is old.
                None => None,
            };
            self.drops.insert(key, (refused, last));
        }
        let dropping = self.drops.iter().filter(|(_, (_, last))| last.is_some()).map(|((_, interface), _)| Arc::clone(interface));
        let mut wanted: BTreeSet<Arc<str>> = dropping.collect();
        if self.options.groups {
            wanted.extend(structures.iter().flat_map(open_endpoints));
        }
        // `*` is the host endpoint of all interfaces.
        (!wanted.contains("*")).then_some(wanted)
    }

    pub fn answer(&self, since: Option<Milliseconds>) -> WitnessesAnswer {
        let mut hearing = lock(&self.hearing);
        let Marked { seen, marked: traced } = hearing.marked_so_far();
        let tracing = TracingStatus {
            mode: if self.options.groups { "groups" } else { "drops" }.into(),
            rate: self.options.rate,
            time: self.recent.last_read(),
            problem: self.problem.clone(),
            seen,
            traced,
            lost: traced.saturating_sub(hearing.traces.whole) + hearing.let_go,
            unclear: self.unclear,
        };
        WitnessesAnswer { tracing, witnesses: self.recent.since(since) }
    }
}

/// Returns endpoints for which counters may not show which policy decided.
fn open_endpoints(structure: &Structure) -> impl Iterator<Item = Arc<str>> {
    let pipelines = &structure.pipelines;
    let decides = |policy| pipelines.policy(policy).is_some_and(|policy| !policy.rules.is_empty());
    let refuses_and_passes = |policy| pipelines.policy(policy).is_some_and(|p| p.can(Decision::Deny) && p.can(Decision::Pass));
    let is_open = move |tier: &Tier| {
        let is_open_group = |chain| pipelines.policies_in(chain).filter(|policy| decides(*policy)).count() > 1;
        let both = tier.targets.iter().filter(|target| pipelines.policies_in(target.chain).any(refuses_and_passes));
        tier.targets.iter().any(|target| is_open_group(target.chain)) || both.count() > 1
    };
    let open = pipelines.endpoints.iter().filter(move |pipeline| pipeline.tiers.iter().any(is_open));
    open.map(|pipeline| Arc::clone(&pipeline.interface))
}

/// Returns why packets that meet these tables cannot be traced; `None` if they can.
fn cannot(tables: &[Snapshot]) -> Option<&'static str> {
    if tables.iter().any(|table| table.ruleset.backend == Backend::Legacy) {
        return Some(
            "Felix writes legacy tables here: the kernel reports single packets only for nftables (traces of legacy tables go to the \
             kernel's log)",
        );
    }
    let has_handles = tables.iter().any(|table| table.ruleset.rule_count() > 0 && table.count(RuleId(0)).handle > 0);
    (!has_handles).then_some("rules are known again by their handles, which only SOURCE=kernel tells")
}

/// Returns a value that changes with the rules and with their handles.
fn fingerprint(tables: &[Snapshot]) -> Vec<u64> {
    let rules =
        |table: &Snapshot| (0..table.ruleset.rule_count() as u32).map(RuleId).map(|rule| table.count(rule).handle).collect::<Vec<_>>();
    tables.iter().flat_map(|table| [Arc::as_ptr(&table.ruleset).addr() as u64].into_iter().chain(rules(table))).collect()
}

/// A panic between two assignments can only have lost traces, so this continues after one.
fn lock(hearing: &Mutex<Hearing>) -> MutexGuard<'_, Hearing> {
    hearing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long to sleep if nothing is marked.
const IDLE: Duration = Duration::from_millis(200);

/// Takes messages as they come, so that the kernel does not have to keep them until the next read.
fn hear(hearing: &Mutex<Hearing>) {
    loop {
        let socket = lock(hearing).tracer.as_ref().map(Tracer::socket);
        match socket {
            Some(socket) if has_come(&socket) => {
                // The next read meets this failure again and reports it.
                if lock(hearing).catch_up().is_err() {
                    thread::sleep(IDLE);
                }
            }
            Some(_) => {}
            None => thread::sleep(IDLE),
        }
    }
}

/// Waits for a message for a while.
fn has_come(socket: &OwnedFd) -> bool {
    const WHILE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&WHILE)).is_ok_and(|ready| ready > 0)
}
