//! Shows packets one on each line as they arrive, and a summary at the end. Touches standard output and error.

use std::io::{self, Write};

use serde::Serialize;

use super::text;
use crate::cli::terminal::{LONGEST, safe};
use crate::config::Watch;
use crate::report::{Flows, Line};

pub struct Shown<'a> {
    watch: &'a Watch,
    seen: Flows,
}

/// The output of `--json` for a packet on one of several nodes.
#[derive(Serialize)]
struct OfNode<'a> {
    node: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

impl<'a> Shown<'a> {
    pub fn new(watch: &'a Watch) -> Self {
        Shown { watch, seen: Flows::default() }
    }

    pub fn packets(&self) -> u64 {
        self.seen.packets
    }

    /// Shows a packet if it is wanted. Reports whether standard output is still open. `node` is set if there are several.
    pub fn add(&mut self, line: &Line, node: Option<&str>) -> Result<bool, String> {
        let Watch { only_refused, policy, json, .. } = self.watch;
        if (*only_refused && line.flow.verdict == "accept") || policy.as_ref().is_some_and(|policy| !line.met(policy)) {
            return Ok(true);
        }
        let text = match (json, node) {
            (true, None) => serde_json::to_string(line).map_err(|error| error.to_string())?,
            (true, Some(node)) => serde_json::to_string(&OfNode { node, line }).map_err(|error| error.to_string())?,
            (false, None) => safe(&line.text(), 4 * LONGEST),
            (false, Some(node)) => safe(&format!("{node} {}", line.text()), 5 * LONGEST),
        };
        self.seen.add(line);
        match writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(format!("writing to standard output failed: {error}")),
        }
    }

    pub fn finish(self) -> Result<(), String> {
        match self.watch.json {
            true => Ok(()),
            false => crate::cli::print(&text::seen(self.seen, self.watch.policy.as_deref())),
        }
    }
}

/// Prints to standard error, because a script may read the packets.
pub fn eprint(text: &str) {
    _ = writeln!(io::stderr(), "{text}");
}
