//! What a command other than `serve` is told: its flags and argument, and as many of the settings as it needs. Touches what the
//! settings touch.

use std::ffi::OsString;
use std::path::PathBuf;

use super::flags::Typed;
use super::{Config, ConfigError, Datastore, Remark, Values, World, datastore, node_name};

/// A command other than `serve`, checked.
#[derive(Debug, PartialEq)]
pub struct Tool {
    /// What to do.
    pub task: Task,
    /// Where the rules come from.
    pub input: Input,
    /// The settings.
    pub config: Config,
    /// Which settings are wrong, where the command can do without them.
    pub problems: Vec<String>,
    /// What was decided on the way.
    pub remarks: Vec<Remark>,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Task {
    /// Print the metrics once.
    Metrics {
        /// Where to, if not to standard output.
        output: Option<PathBuf>,
    },
    /// Show what is being dropped.
    Top {
        /// As the API answers.
        json: bool,
        /// Not again and again, also in a terminal.
        once: bool,
    },
    /// Show an endpoint's pipelines.
    Explain {
        /// `NAMESPACE/POD`, or an interface.
        endpoint: String,
        /// As the API answers.
        json: bool,
    },
    /// Say what is right and what is wrong.
    Check {
        /// For programs.
        json: bool,
    },
}

/// Where the rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// From the exporter that runs here, or else from the kernel.
    Here,
    /// From this exporter.
    Exporter(String),
    /// From files: an earlier moment's, if there are any, and a moment's.
    Files {
        /// Of an earlier moment.
        before: Vec<PathBuf>,
        /// Of the moment.
        now: Vec<PathBuf>,
    },
}

/// How much of the settings there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// All.
    All,
    /// Where something is wrong, the command says so and goes on.
    WhatWorks,
    /// Neither datastore nor node: all is in files.
    Offline,
}

/// Checks the command.
pub(super) fn resolve(name: &str, typed: &Typed, world: &World<'_>) -> Result<Tool, ConfigError> {
    let has = |option: &str| typed.options.iter().any(|(name, _)| *name == option);
    let paths = |option: &str| typed.options.iter().filter(|(name, _)| *name == option).map(|(_, value)| PathBuf::from(value)).collect();
    let last = |option: &str| typed.options.iter().rev().find(|(name, _)| *name == option).map(|(_, value)| value.clone());
    let task = match name {
        "metrics" => Task::Metrics { output: last("output").map(PathBuf::from) },
        "top" => Task::Top { json: has("json"), once: has("once") },
        "explain" => Task::Explain { endpoint: endpoint(typed)?, json: has("json") },
        _ => Task::Check { json: has("json") },
    };
    let (before, now): (Vec<PathBuf>, Vec<PathBuf>) = (paths("before"), paths("ruleset"));
    let input = match (now.is_empty(), before.is_empty(), last("url")) {
        (false, _, None) => Input::Files { before, now },
        (true, true, None) => Input::Here,
        (true, true, Some(url)) => Input::Exporter(exporter(&url)?),
        (true, false, _) => return Err(ConfigError("--before: needs --ruleset, with the tables of a later moment (see --help)".into())),
        (false, _, Some(_)) => return Err(ConfigError("--url and --ruleset: only one of the two can be asked".into())),
    };
    let needs = match (&task, &input) {
        (_, Input::Files { .. }) => Needs::Offline,
        (Task::Metrics { .. }, _) => Needs::All,
        (_, Input::Exporter(_)) => Needs::Offline,
        _ => Needs::WhatWorks,
    };
    let (mut remarks, mut problems) = (Vec::new(), Vec::new());
    let values = Values::new(typed, world);
    let mut tolerate = |error: ConfigError| match needs {
        Needs::All => Err(error),
        Needs::WhatWorks | Needs::Offline => {
            problems.push(error.to_string());
            Ok(())
        }
    };
    let datastore = match needs {
        Needs::Offline => Datastore::None,
        _ => datastore::resolve(&values, world, &mut remarks).or_else(|error| tolerate(error).map(|()| Datastore::None))?,
    };
    let node = match needs {
        Needs::Offline => String::new(),
        _ => node_name::resolve(&values, world, &mut remarks).or_else(|error| tolerate(error).map(|()| String::new()))?,
    };
    let mut config = super::resolve(&values, typed.verbosity, datastore, node, &mut remarks)?;
    if values.get("LOG_LEVEL").is_none() && typed.verbosity.is_none() {
        // What it found out is its output, not its log.
        config.log_level = log::LevelFilter::Warn;
    }
    Ok(Tool { task, input, config, problems, remarks })
}

fn endpoint(typed: &Typed) -> Result<String, ConfigError> {
    let missing = || ConfigError("explain: say whose: NAMESPACE/POD, or an interface (see explain --help)".into());
    typed.operand.clone().filter(|operand| !operand.is_empty()).ok_or_else(missing)
}

/// The exporter's address without what stands behind host and port.
fn exporter(url: &OsString) -> Result<String, ConfigError> {
    let refused = || ConfigError(format!("--url: {:?} is not allowed: http://HOST:PORT", url.to_string_lossy()));
    let text = url.to_str().ok_or_else(refused)?;
    let rest = text.strip_prefix("http://").ok_or_else(refused)?.trim_end_matches('/');
    let good = datastore::is_authority(rest);
    if good { Ok(format!("http://{rest}")) } else { Err(refused()) }
}
