//! `explain`: finds the endpoint that is meant, and shows its pipelines.

mod cluster;
mod from_where;
mod text;

use std::process::ExitCode;

use super::source::Source;
use super::terminal::{LONGEST, safe};
use super::{json, print};
use crate::config::{Input, Tool};
use crate::report::{HostEndpoint, Workload, WorkloadsAnswer};

pub fn run(tool: &Tool, endpoint: &str, as_json: bool) -> Result<ExitCode, String> {
    if let Input::Cluster(nodes) = &tool.input {
        return cluster::run(tool, nodes, endpoint, as_json);
    }
    let with_namespace = tool.namespace.as_ref().filter(|_| !endpoint.contains('/')).map(|namespace| format!("{namespace}/{endpoint}"));
    let endpoint = with_namespace.as_deref().unwrap_or(endpoint);
    let source = Source::find(tool, true)?;
    let all = source.workloads()?;
    let output = match find(&all, endpoint)? {
        Some(workload) => {
            let answer = source.workload(&workload.interface)?;
            let about = source.about(&answer.status);
            match as_json {
                true => json(&answer)?,
                false => text::workload(&answer, &about) + &from_where::text(&source.witnesses(), &workload.interface),
            }
        }
        None => {
            let mut answer = source.host_endpoints()?;
            answer.host_endpoints.retain(|host| *host.interface == *endpoint);
            if answer.host_endpoints.is_empty() {
                return Err(unknown(&all, &source.host_endpoints()?.host_endpoints, endpoint));
            }
            let about = source.about(&answer.status);
            if as_json { json(&answer)? } else { text::host_endpoints(&answer.host_endpoints, &answer.status, &about) }
        }
    };
    print(&output)?;
    Ok(ExitCode::SUCCESS)
}

/// The workload on this interface, or of this name; a pod's name alone is enough if there is one such pod.
fn find<'a>(all: &'a WorkloadsAnswer, endpoint: &str) -> Result<Option<&'a Workload>, String> {
    if let Some(found) = all.workloads.iter().find(|workload| *workload.interface == *endpoint) {
        return Ok(Some(found));
    }
    let is_meant = |workload: &&Workload| match endpoint.split_once('/') {
        Some((namespace, pod)) => *workload.namespace == *namespace && *workload.pod == *pod,
        None => *workload.pod == *endpoint && workload.known,
    };
    let found: Vec<&Workload> = all.workloads.iter().filter(is_meant).collect();
    match found[..] {
        [] => Ok(None),
        [found] => Ok(Some(found)),
        _ => {
            let interfaces: Vec<String> =
                found.iter().map(|w| format!("{} ({})", safe(&w.interface, LONGEST), text::name(w, LONGEST))).collect();
            Err(format!("{:?} is not one workload but several; name the interface: {}", endpoint, interfaces.join(", ")))
        }
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
