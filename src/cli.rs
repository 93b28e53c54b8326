//! The commands beside `serve`: one answer on standard output, then the end. `source` is where each takes its numbers from: the exporter
//! that runs here (`client`), those of all nodes (`cluster`), or a scraper of this process (`scraper`) over the kernel or saved tables. `watch` asks the
//! kernel for packets instead.

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

/// Said above what is shown of a node with that dataplane.
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

/// Nobody reading on (`| head`) is no error.
fn print(text: &str) -> Result<(), String> {
    match terminal::write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing to standard output failed: {error}")),
        _ => Ok(()),
    }
}

fn json(answer: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(answer).map(|json| json + "\n").map_err(|error| error.to_string())
}

/// Whether something holds in time.
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
