//! `watch --cluster`: the packets that exporters of other nodes have kept from tracing (`WITNESSES`), and then those that they trace.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::TICK;
use super::shown::{Shown, eprint};
use crate::cli::cluster::pods::{self, Found};
use crate::cli::cluster::{Answers, Node, Silent, ask_each, complain, exporters, few};
use crate::cli::terminal::{LONGEST, safe};
use crate::config::{Nodes, Tool, Watch};
use crate::report::{Line, WitnessesAnswer};

/// Each request makes a node read its kernel.
const INTERVAL: Duration = Duration::from_secs(2);

pub fn run(tool: &Tool, watch: &Watch, meant: &Nodes, ended: &AtomicBool) -> Result<ExitCode, String> {
    let deadline = watch.limit.map(|limit| Instant::now() + limit);
    let mut watching = Watching::find(tool, watch, meant)?;
    let has_several = watching.nodes.len() > 1;
    let (mut shown, mut said) = (Shown::new(watch), None);
    let mut is_read = true;
    while is_read && !ended.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let next = Instant::now() + INTERVAL;
        let Answers { answered, silent } = watching.ask();
        if said.as_ref() != Some(&silent) {
            complain(&silent);
        }
        if said.is_none() {
            if answered.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            let names: Vec<&str> = answered.iter().map(|(node, _)| &**node).collect();
            let whose = watch.endpoint.as_ref().or(tool.namespace.as_ref()).map_or("all pods", |whose| whose);
            eprint(&format!("Watching packets of {} that are traced on {}. Ctrl-C ends it.", safe(whose, LONGEST), few(&names)));
        }
        said = Some(silent);
        for (node, line) in answered.iter().flat_map(|(node, lines)| lines.iter().map(move |line| (node, line))) {
            is_read = is_read && shown.add(line, has_several.then_some(node))?;
        }
        let next = deadline.map_or(next, |deadline| deadline.min(next));
        while is_read && !ended.load(Ordering::Relaxed) && Instant::now() < next {
            thread::sleep(TICK);
        }
    }
    let packets = shown.packets();
    shown.finish()?;
    eprint(&format!("{packets} shown; an exporter keeps the last 20 packets of each endpoint and policy, so others may be missing"));
    Ok(if said.is_none_or(|silent| silent.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Watching {
    nodes: Vec<Node>,
    /// The watched interfaces of each node. `None` means all.
    interfaces: Option<BTreeMap<String, Vec<String>>>,
    namespace: Option<String>,
    /// The time of each node's last answer.
    since: BTreeMap<String, f64>,
    /// What was missing from the beginning.
    missing: Vec<Silent>,
}

impl Watching {
    fn find(tool: &Tool, watch: &Watch, meant: &Nodes) -> Result<Self, String> {
        let (nodes, interfaces, namespace, missing) = match &watch.endpoint {
            None => (exporters(&tool.config, meant, None)?, None, tool.namespace.clone(), Vec::new()),
            Some(operand) => {
                let Found { places, silent, more } = pods::find(tool, meant, operand)?;
                if more > 0 {
                    eprint(&format!("calico-accountant: {more} more pods are not watched: name one"));
                }
                let (mut nodes, mut interfaces) = (Vec::<Node>::new(), BTreeMap::<String, Vec<String>>::new());
                for place in places {
                    let of_node = interfaces.entry(place.node.name.clone()).or_default();
                    if of_node.is_empty() {
                        nodes.push(place.node);
                    }
                    of_node.push(place.interface);
                }
                (nodes, Some(interfaces), None, silent)
            }
        };
        Ok(Watching { nodes, interfaces, namespace, since: BTreeMap::new(), missing })
    }

    /// Requests new packets. A node that traces nothing counts as missing.
    fn ask(&mut self) -> Answers<Vec<Line>> {
        let path = |node: &Node| match self.since.get(&node.name) {
            Some(since) => format!("witnesses?since={since}"),
            None => "witnesses".to_owned(),
        };
        let Answers { answered, mut silent } = ask_each(&self.nodes, path, |answer: WitnessesAnswer| answer);
        silent.extend(self.missing.iter().cloned());
        let mut traced = Vec::new();
        for (node, WitnessesAnswer { tracing, witnesses }) in answered {
            let (problem, hint) = match (&*tracing.mode, &tracing.problem) {
                ("off", _) => ("its exporter traces no packets".to_owned(), "set WITNESSES=drops there; settings.witnesses of the chart"),
                (_, Some(problem)) => (format!("its exporter cannot trace packets: {problem}"), ""),
                (_, None) => {
                    self.since.extend(tracing.time.map(|time| (node.clone(), time)));
                    let lines = witnesses.into_iter().filter(|line| self.is_meant(&node, line)).map(|line| (*line).clone()).collect();
                    traced.push((node, lines));
                    continue;
                }
            };
            silent.push(Silent { node, problem, hint });
        }
        Answers { answered: traced, silent }
    }

    fn is_meant(&self, node: &str, line: &Line) -> bool {
        let of_namespace = |namespace: &String| {
            line.flow.workload.as_deref().and_then(|name| name.split_once('/')).is_some_and(|(of, _)| of == *namespace)
        };
        let is_place = |all: &BTreeMap<String, Vec<String>>| all.get(node).is_some_and(|here| here.contains(&line.flow.interface));
        self.interfaces.as_ref().is_none_or(is_place) && self.namespace.as_ref().is_none_or(of_namespace)
    }
}
