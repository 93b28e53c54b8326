//! `explain`: finds the requested endpoint, and shows its pipelines.

mod cluster;
mod text;

use std::borrow::Cow;
use std::process::ExitCode;

use serde::Serialize;

use super::flows::from_where;
use super::source::Source;
use super::terminal::{LONGEST, safe};
use super::{json, print};
use crate::config::{Input, Tool};
use crate::report::{FlowsAnswer, HostEndpoint, HostEndpointsAnswer, WorkloadAnswer, WorkloadsAnswer};

/// The output of `--json`: the API's answer, and the exporter's traced packets. See docs/api.md.
#[derive(Serialize)]
struct Explained<T> {
    #[serde(flatten)]
    answer: T,
    witnesses: Option<FlowsAnswer>,
}

impl Explained<WorkloadAnswer> {
    fn text(&self, about: &str) -> String {
        text::workload(&self.answer, about) + &self.where_from()
    }
}

impl Explained<HostEndpointsAnswer> {
    fn text(&self, about: &str) -> String {
        text::host_endpoints(&self.answer.host_endpoints, &self.answer.status, about) + &self.where_from()
    }
}

impl<T> Explained<T> {
    fn where_from(&self) -> String {
        self.witnesses.as_ref().map(from_where).unwrap_or_default()
    }
}

pub fn run(tool: &Tool, endpoint: &str, as_json: bool) -> Result<ExitCode, String> {
    if let Input::Cluster(nodes) = &tool.input {
        return cluster::run(tool, nodes, endpoint, as_json);
    }
    let endpoint = &*with_namespace(tool, endpoint);
    let source = Source::find(tool, true)?;
    let all = source.workloads()?;
    let candidates = all.workloads.iter().map(|w| Candidate { interface: &w.interface, namespace: &w.namespace, pod: &w.pod });
    let output = match find(&candidates.collect::<Vec<_>>(), endpoint)? {
        Some(interface) => {
            let answer = source.workload(interface)?;
            let about = source.about(&answer.status);
            let explained = Explained { answer, witnesses: source.flows(interface)? };
            if as_json { json(&explained)? } else { explained.text(&about) }
        }
        None => {
            let mut answer = source.host_endpoints()?;
            answer.host_endpoints.retain(|host| *host.interface == *endpoint);
            if answer.host_endpoints.is_empty() {
                return Err(unknown(&all, &source.host_endpoints()?.host_endpoints, endpoint));
            }
            let about = source.about(&answer.status);
            let explained = Explained { answer, witnesses: source.flows(endpoint)? };
            if as_json { json(&explained)? } else { explained.text(&about) }
        }
    };
    print(&output)?;
    Ok(ExitCode::SUCCESS)
}

/// An endpoint that may be meant. Both names are empty if they are unknown.
pub struct Candidate<'a> {
    pub interface: &'a str,
    pub namespace: &'a str,
    pub pod: &'a str,
}

/// Finds the endpoint with this interface or name. A pod's name alone is sufficient if it is unique.
pub fn find<'a>(all: &[Candidate<'a>], endpoint: &str) -> Result<Option<&'a str>, String> {
    if let Some(found) = all.iter().find(|candidate| candidate.interface == endpoint) {
        return Ok(Some(found.interface));
    }
    let is_meant = |candidate: &&Candidate| match endpoint.split_once('/') {
        Some((namespace, pod)) => candidate.namespace == namespace && candidate.pod == pod,
        None => candidate.pod == endpoint,
    };
    let found: Vec<&Candidate> = all.iter().filter(is_meant).collect();
    match found[..] {
        [] => Ok(None),
        [found] => Ok(Some(found.interface)),
        _ => {
            let said =
                |Candidate { interface, namespace, pod }: &&Candidate| safe(&format!("{interface} ({namespace}/{pod})"), 2 * LONGEST);
            let interfaces: Vec<String> = found.iter().map(said).collect();
            Err(format!("{endpoint:?} is not one workload but several; name the interface: {}", interfaces.join(", ")))
        }
    }
}

/// Returns a pod's name with the namespace from the flag.
pub fn with_namespace<'a>(tool: &Tool, endpoint: &'a str) -> Cow<'a, str> {
    match &tool.namespace {
        Some(namespace) if !endpoint.contains('/') => format!("{namespace}/{endpoint}").into(),
        _ => endpoint.into(),
    }
}

fn unknown(all: &WorkloadsAnswer, hosts: &[HostEndpoint], endpoint: &str) -> String {
    const MOST: usize = 12;
    let workloads = all.workloads.iter().map(|workload| text::name(workload, LONGEST));
    let mut names: Vec<String> = workloads.chain(hosts.iter().map(|host| safe(&host.interface, LONGEST))).collect();
    names.dedup();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    let list = if names.is_empty() { "no endpoint at all".to_owned() } else { names.join(", ") };
    let more = if more > 0 { format!(" and {more} more (see top)") } else { String::new() };
    let node = &all.status.node;
    let here = if node.is_empty() { "here".to_owned() } else { format!("on node {} (--cluster asks all nodes)", safe(node, LONGEST)) };
    format!("no endpoint {endpoint:?} has rules {here}; there is {list}{more}")
}
