//! The commands beside `serve`: one answer on standard output, then the end. Each takes its numbers from a [`Source`](source::Source):
//! the exporter that runs here, the kernel, or saved tables.

mod check;
mod explain;
mod exporter;
mod metrics;
mod own;
mod source;
mod terminal;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{Task, Tool};
use crate::os::logging;

/// Said above what is shown of a node with that dataplane.
const EBPF: &str = "The eBPF dataplane counts a policy's packets for the node, not for each workload: numbers are what is certain.";

/// Does what the command line asks for.
pub fn run(tool: Tool) -> ExitCode {
    logging::start(tool.config.log_level, tool.config.log_format);
    for remark in &tool.remarks {
        log::log!(remark.level, "{}", remark.text);
    }
    let result = match &tool.task {
        Task::Metrics { .. } => metrics::run(tool),
        Task::Top { .. } => top::run(tool),
        Task::Explain { .. } => explain::run(tool),
        Task::Check { .. } => check::run(tool),
    };
    result.unwrap_or_else(|error| {
        _ = writeln!(io::stderr(), "calico-accountant: {error}");
        ExitCode::FAILURE
    })
}

/// Prints a text. Nobody reading on (`| head`) is no error.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing to standard output failed: {error}")),
        _ => Ok(()),
    }
}

/// An answer of the API, for eyes and programs.
fn json(answer: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(answer).map(|json| json + "\n").map_err(|error| error.to_string())
}
