//! `watch`: shows packets as they arrive. Has the kernel trace a sample of those that open a connection, and shows which policy decided.

mod cluster;
mod rules;
mod shown;
mod text;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::explain::with_namespace;
use super::scraper;
use crate::config::{Input, Tool, Watch};
use crate::datastore::addresses::Addresses;
use crate::kernel::trace::{Marking, Received, Tracer};
use crate::report::Line;
use crate::witness::Witness;
use crate::witness::meanings::{Meanings, witnesses};
use crate::witness::traces::{Trace, Traces};
use rules::{Endpoints, Rules, Wanted};
use shown::{Shown, eprint};

/// The interval for checking the clock and signals.
const TICK: Duration = Duration::from_millis(100);
/// The maximum number of packets between two checks of whether rules have changed.
const AT_ONCE: usize = 100;
/// How long to read already reported packets at the end.
const DRAIN: Duration = Duration::from_secs(2);
/// The maximum number of traces that wait until changed rules are read.
const MOST_WAITING: usize = 10_000;

pub fn run(tool: &Tool, watch: &Watch) -> Result<ExitCode, String> {
    for problem in &tool.problems {
        log::warn!("continuing without: {problem}");
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(|error| format!("installing signal handlers failed: {error}"))?;
    }
    if let Input::Cluster(nodes) = &tool.input {
        return cluster::run(tool, watch, nodes, &ended);
    }
    let endpoint = watch.endpoint.as_deref().map(|endpoint| with_namespace(tool, endpoint));
    let wanted = Wanted { endpoint: endpoint.as_deref(), namespace: tool.namespace.as_deref() };
    let inventory = scraper::inventory(&tool.config)?;
    let mut rules = Rules::read(&tool.config, Arc::clone(&inventory))?;
    let endpoints = rules.endpoints(wanted, &inventory)?;
    let tracer = start(watch, &endpoints)?;
    // The tracer's table is also a change.
    rules.read_again()?;
    let began = Instant::now();
    eprint(&text::heading(watch, &endpoints));
    let mut session = Watching {
        watch,
        wanted,
        rules,
        endpoints,
        addresses: Addresses::new(inventory),
        tracer,
        traces: Traces::default(),
        waiting: VecDeque::new(),
        shown: Shown::new(watch),
        unclear: 0,
        followed: (0, 0),
        problem: None,
    };
    let deadline = watch.limit.map(|limit| began + limit);
    while !ended.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let until = Instant::now() + TICK;
        if !session.step(deadline.map_or(until, |deadline| deadline.min(until)))? {
            break;
        }
    }
    session.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn start(watch: &Watch, endpoints: &Endpoints) -> Result<Tracer, String> {
    let marking = Marking { interfaces: endpoints.interfaces.as_deref(), rate: watch.rate };
    Tracer::start(&marking).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => "packets cannot be traced: this needs CAP_NET_ADMIN".to_owned(),
        _ => format!("packets cannot be traced: {error}"),
    })
}

struct Watching<'a> {
    watch: &'a Watch,
    wanted: Wanted<'a>,
    rules: Rules,
    endpoints: Endpoints,
    addresses: Addresses,
    tracer: Tracer,
    traces: Traces,
    waiting: VecDeque<Trace>,
    shown: Shown<'a>,
    /// The number of packets that met rules which were being changed.
    unclear: u64,
    /// The number of reads and the version of the names that `endpoints` was computed from.
    followed: (u64, u64),
    /// Why the rules could not be read last time.
    problem: Option<String>,
}

impl Watching<'_> {
    /// Receives events until `until`. Reports whether there were any.
    fn receive(&mut self, until: Instant) -> Result<bool, String> {
        match self.tracer.receive(until).map_err(|error| format!("reading the kernel's trace failed: {error}"))? {
            Received::Events(events) => self.waiting.extend(events.into_iter().filter_map(|event| self.traces.take(event))),
            Received::Lost => self.traces.lost(),
            Received::Nothing => {
                self.traces.forget_old(Instant::now());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Receives all available events, and prints complete packets. Reports whether standard output is still open.
    fn step(&mut self, until: Instant) -> Result<bool, String> {
        let mut more = self.receive(until)?;
        while more && self.waiting.len() < AT_ONCE {
            more = self.receive(Instant::now())?;
        }
        while self.waiting.len() > MOST_WAITING {
            self.waiting.pop_front();
            self.unclear += 1;
        }
        // Also without packets, because those of a new endpoint are not marked yet.
        let are_current = self.rules.are_current()?;
        if (are_current || !self.rules.is_young()) && !self.settle(are_current)? {
            return Ok(false);
        }
        self.follow_endpoints()?;
        Ok(true)
    }

    /// Prints packets that met known rules, from before or after a change. If the rules cannot be read, for example while Felix starts,
    /// another attempt is made later.
    fn settle(&mut self, are_current: bool) -> Result<bool, String> {
        let before = match are_current {
            true => Meanings::default(),
            false => match self.rules.read_again() {
                Ok(before) => before,
                Err(problem) => {
                    if self.problem.as_ref() != Some(&problem) {
                        log::warn!("{problem}; trying again");
                    }
                    self.problem = Some(problem);
                    return Ok(true);
                }
            },
        };
        self.problem = None;
        for trace in std::mem::take(&mut self.waiting) {
            match witnesses(&trace, &before, &self.rules.meanings) {
                Some(found) => {
                    for witness in &found {
                        if !self.show(witness)? {
                            return Ok(false);
                        }
                    }
                }
                None => self.unclear += 1,
            }
        }
        Ok(true)
    }

    /// Marks packets of the current interfaces, if rules or names have changed.
    fn follow_endpoints(&mut self) -> Result<(), String> {
        let versions = (self.rules.reads, self.addresses.inventory().workloads_version());
        if std::mem::replace(&mut self.followed, versions) == versions {
            return Ok(());
        }
        // The requested endpoint may be missing for a while.
        let Ok(endpoints) = self.rules.endpoints(self.wanted, self.addresses.inventory()) else { return Ok(()) };
        if endpoints != self.endpoints {
            let marking = Marking { interfaces: endpoints.interfaces.as_deref(), rate: self.watch.rate };
            self.tracer.mark(&marking).map_err(|error| format!("packets cannot be traced any more: {error}"))?;
            self.endpoints = endpoints;
        }
        Ok(())
    }

    /// Reports whether standard output is still open.
    fn show(&mut self, witness: &Witness) -> Result<bool, String> {
        match self.endpoints.includes(witness) {
            true => self.shown.add(&Line::new(witness, self.addresses.now()), None),
            false => Ok(true),
        }
    }

    fn finish(mut self) -> Result<(), String> {
        // Packets that have already been reported.
        let limit = Instant::now() + DRAIN;
        while self.receive(Instant::now())? && Instant::now() < limit {}
        let are_current = self.rules.are_current()?;
        self.settle(are_current)?;
        self.unclear += self.waiting.len() as u64;
        let marked = self.tracer.marked().unwrap_or_default();
        let shown = self.shown.packets();
        self.shown.finish()?;
        eprint(&text::summary(shown, marked, marked.marked.saturating_sub(self.traces.whole), self.unclear, self.watch.rate));
        Ok(())
    }
}
