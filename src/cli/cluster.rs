//! Asks several exporters in parallel and in bounded time: those in Kubernetes' API, or those of `--nodes`. Reports which did not answer,
//! and why.

pub mod pods;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::{Client, Failure, Patience};
use super::terminal::{LONGEST, safe};
use crate::config::{Config, Datastore, Nodes};
use crate::kubernetes::{Lookup, Pod, Query};
use crate::os::plain;

/// A connection takes a millisecond. A lost first packet is repeated after a second.
const PATIENCE: Patience = Patience(Duration::from_millis(1500), Duration::from_secs(6));
/// For all nodes together, so that a large cluster whose nodes do not answer is not waited for node by node.
const LIMIT: Duration = Duration::from_secs(15);
/// The maximum number of parallel requests.
const MOST_AT_ONCE: usize = 64;
/// The maximum number of nodes that a message names.
const MOST_NAMED: usize = 5;

#[derive(Clone)]
pub struct Node {
    pub name: String,
    /// `http://ADDRESS:PORT`, or why the node cannot be asked.
    url: Result<String, Failure>,
}

/// A node's name and its answer.
pub type Answered<T> = (String, T);

/// The answers, and the nodes without one.
pub struct Answers<T> {
    pub answered: Vec<Answered<T>>,
    pub silent: Vec<Silent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    pub node: String,
    pub problem: String,
    pub hint: &'static str,
}

/// The output of `--json` for several nodes. See docs/api.md.
#[derive(Serialize)]
pub struct Envelope<'a, T> {
    pub answers: Vec<&'a T>,
    pub silent: &'a [Silent],
}

impl Silent {
    /// Returns the problem without the address, so that equal problems of several nodes can be grouped.
    pub fn why(&self) -> &str {
        self.problem.strip_prefix("http://").and_then(|text| Some(text.split_once(' ')?.1)).unwrap_or(&self.problem)
    }
}

impl<T> Answers<T> {
    pub fn envelope(&self) -> Envelope<'_, T> {
        Envelope { answers: self.answered.iter().map(|(_, answer)| answer).collect(), silent: &self.silent }
    }

    /// Returns a summary of which nodes answered, for humans.
    pub fn about(&self) -> Vec<String> {
        let (answered, silent) = (self.answered.len(), self.silent.len());
        let mut lines = vec![match silent {
            0 => format!("{} answered.", nodes(answered)),
            _ => format!("{answered} of {} answered.", nodes(answered + silent)),
        }];
        for (names, silent) in reasons(&self.silent) {
            lines.push(format!("No answer of {names}: {}", with_hint(silent.why(), silent.hint)));
        }
        lines
    }
}

/// Groups nodes with the same problem. Returns each group's names and its first element.
fn reasons(all: &[Silent]) -> Vec<(String, &Silent)> {
    let mut reasons = BTreeMap::<(&str, &str), Vec<&Silent>>::new();
    for silent in all {
        reasons.entry((silent.why(), silent.hint)).or_default().push(silent);
    }
    let names = |silent: Vec<&Silent>| few(&silent.iter().map(|silent| &*silent.node).collect::<Vec<_>>());
    reasons.into_values().filter_map(|silent| Some((*silent.first()?, silent))).map(|(first, silent)| (names(silent), first)).collect()
}

fn with_hint(why: &str, hint: &str) -> String {
    let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
    format!("{}{hint}", safe(why, LONGEST * 3))
}

/// Prints which answers are missing to standard error.
pub fn complain(silent: &[Silent]) {
    for (names, first) in reasons(silent) {
        // A single node's problem includes its address.
        let why = if first.node == names { &first.problem } else { first.why() };
        _ = writeln!(io::stderr(), "calico-accountant: node {names}: {}", with_hint(why, first.hint));
    }
}

pub fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

/// Lists some of the names.
pub fn few(names: &[&str]) -> String {
    let named = names.iter().take(MOST_NAMED).map(|name| safe(name, LONGEST)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Returns a lookup of pods if Kubernetes is the datastore.
pub fn lookup(config: &Config) -> Option<Lookup> {
    match &config.datastore {
        Datastore::Kubernetes(kubernetes) => Some(Lookup::new(kubernetes)),
        Datastore::Etcd(_) | Datastore::None => None,
    }
}

/// Returns the cluster's exporters, or only that of node `only`, if that is sufficient.
pub fn exporters(config: &Config, meant: &Nodes, only: Option<&str>) -> Result<Vec<Node>, String> {
    let found = match meant {
        Nodes::Named(names) => each(names, |name| named(name, config.port)),
        Nodes::WithPods(labels) => {
            let mut lookup = lookup(config).ok_or("--cluster: no Kubernetes API is configured")?;
            let query = Query { labels: Some(labels), node: only, ..Query::default() };
            let mut pods = lookup.pods(query).map_err(|error| error.to_string())?;
            pods.retain(|pod| !pod.node.is_empty() && !pod.is_finished);
            // If a node has several, the one that runs.
            pods.sort_by(|a, b| (&a.node, a.problem.is_some(), &a.name).cmp(&(&b.node, b.problem.is_some(), &b.name)));
            pods.dedup_by(|b, a| a.node == b.node);
            pods.into_iter().map(|pod| with_pod(pod, config)).collect::<Vec<_>>()
        }
    };
    match (meant, found.is_empty()) {
        (Nodes::WithPods(labels), true) => Err(format!(
            "no pod with the labels {labels}{}: is that how the exporters are labelled? See --selector",
            only.map_or_else(String::new, |node| format!(" is on node {node}"))
        )),
        _ => Ok(found),
    }
}

/// Returns a node by its address, because an exporter accepts no host names except its node's.
fn named(name: &str, port: u16) -> Node {
    let address = match name.parse::<IpAddr>() {
        Ok(address) => Ok(SocketAddr::new(address, port)),
        Err(_) => {
            let has_port = name.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
            let found = if has_port { name.to_socket_addrs() } else { (name.trim_matches(['[', ']']), port).to_socket_addrs() };
            found.map_err(|error| error.to_string()).and_then(|mut found| found.next().ok_or_else(|| "no address".to_owned()))
        }
    };
    let failure = |error: String| Failure { text: format!("its address is not found: {}", plain(&error)), hint: "" };
    Node { name: name.to_owned(), url: address.map(|address| format!("http://{address}")).map_err(failure) }
}

fn with_pod(pod: Pod, config: &Config) -> Node {
    let is_here = pod.node == config.node_name;
    let url = match (&pod.problem, pod.listen_address.filter(|address| !address.is_unspecified()), pod.address) {
        (Some(problem), ..) => Err(Failure { text: format!("its pod {}/{} does not run: {problem}", pod.namespace, pod.name), hint: "" }),
        (None, Some(address), _) if address.is_loopback() && !is_here => {
            Err(Failure { text: format!("LISTEN_ADDRESS is {address}: only its own node can ask it"), hint: "" })
        }
        (None, Some(address), _) | (None, None, Some(address)) => {
            Ok(format!("http://{}", SocketAddr::new(address, pod.port.unwrap_or(config.port))))
        }
        (None, None, None) => Err(Failure { text: format!("its pod {}/{} has no address", pod.namespace, pod.name), hint: "" }),
    };
    Node { name: pod.node, url }
}

/// Sends the same request to all nodes, and keeps the needed part of each answer.
pub fn ask<T: DeserializeOwned, U: Send>(nodes: &[Node], path: &str, keep: impl Fn(T) -> U + Sync) -> Answers<U> {
    ask_each(nodes, |_| path.to_owned(), keep)
}

pub fn ask_each<T: DeserializeOwned, U: Send>(
    nodes: &[Node],
    path: impl Fn(&Node) -> String + Sync,
    keep: impl Fn(T) -> U + Sync,
) -> Answers<U> {
    let began = Instant::now();
    let results = each(nodes, |node| match began.elapsed() < LIMIT {
        true => node.ask(&path(node)).map(&keep),
        false => Err(Failure { text: format!("not asked: {} s had passed", LIMIT.as_secs()), hint: "" }),
    });
    let (mut answered, mut silent) = (Vec::new(), Vec::new());
    for (node, result) in nodes.iter().map(|node| node.name.clone()).zip(results) {
        match result {
            Ok(answer) => answered.push((node, answer)),
            Err(Failure { text: problem, hint }) => silent.push(Silent { node, problem, hint }),
        }
    }
    Answers { answered, silent }
}

/// Calls `work` for each item, several in parallel. Returns the results in the same order.
fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some((place, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|place| Some((place, items.get(place)?))) {
            let result = work(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..MOST_AT_ONCE.min(items.len()) {
            // With fewer threads it takes longer.
            if thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

impl Node {
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        match &self.url {
            Ok(url) => Client::new(url, PATIENCE).ask(path),
            Err(Failure { text, hint }) => Err(Failure { text: text.clone(), hint }),
        }
    }

    pub fn url(&self) -> &str {
        self.url.as_deref().unwrap_or_default()
    }
}
