//! The commands other than `serve`: each prints one answer to standard output and ends. `source` chooses where the numbers come from: the
//! exporter on this node (`client`), those of all nodes (`cluster`), or a scraper of this process (`scraper`) over the kernel or saved
//! tables. `watch` asks the kernel for packets instead.

mod check;
mod client;
mod cluster;
mod explain;
mod flows;
mod metrics;
mod policies;
mod scraper;
mod source;
mod terminal;
mod top;
mod watch;
mod workloads;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Remark, Task, Tool};
use crate::os::{logging, plain};

/// The text above the output of a node with that dataplane.
const EBPF: &str = "The eBPF dataplane counts a policy's packets for the node, not for each workload: numbers are what is certain.";

pub fn run(tool: &Tool) -> ExitCode {
    logging::start(tool.config.log_level, tool.config.log_format);
    tool.remarks.iter().for_each(Remark::log);
    let result = match &tool.task {
        Task::Metrics { output, state } => metrics::run(tool, output.as_deref(), state.as_deref()),
        Task::Top { json, once } => top::run(tool, *json, *once),
        Task::Explain { endpoint, json } => explain::run(tool, endpoint, *json),
        Task::Policies { only_never_hit, json } => policies::run(tool, *only_never_hit, *json),
        Task::Workloads { json } => workloads::run(tool, *json),
        Task::Watch(watch) => watch::run(tool, watch),
        Task::Check { json } => check::run(tool, *json),
    };
    result.unwrap_or_else(|error| {
        _ = writeln!(io::stderr(), "calico-accountant: {}", plain(&error));
        ExitCode::FAILURE
    })
}

/// Prints to standard output. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<(), String> {
    match terminal::write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing to standard output failed: {error}")),
        _ => Ok(()),
    }
}

fn json(answer: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(answer).map(|json| json + "\n").map_err(|error| error.to_string())
}

/// Waits until `holds` returns true. Returns false after `limit`.
fn wait_until(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
