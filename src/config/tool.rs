//! What a command other than `serve` is told: its flags and argument, and as many of the settings as it needs. Touches what the
//! settings touch.

use std::ffi::OsString;
use std::path::PathBuf;

use super::flags::Typed;
use super::syntax::is_authority;
use super::{Config, ConfigError, Datastore, Remark, Values, World, datastore, node_name};

/// A command other than `serve`, checked.
#[derive(Debug, PartialEq)]
pub struct Tool {
    pub task: Task,
    pub input: Input,
    pub config: Config,
    /// Which settings are wrong, where the command can do without them.
    pub problems: Vec<String>,
    pub remarks: Vec<Remark>,
}

#[derive(Debug, PartialEq)]
pub enum Task {
    /// To this file, or to standard output.
    Metrics {
        output: Option<PathBuf>,
    },
    /// `once`: not again and again, also in a terminal.
    Top {
        json: bool,
        once: bool,
    },
    /// `endpoint`: `NAMESPACE/POD`, or an interface.
    Explain {
        endpoint: String,
        json: bool,
    },
    Check {
        json: bool,
    },
}

/// Where the rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The exporter that runs here, or else the kernel.
    Here,
    /// The one at this URL.
    Exporter(String),
    /// Saved tables; `before`, if there are any, are of an earlier moment.
    Files { before: Vec<PathBuf>, now: Vec<PathBuf> },
}

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
    let (mut remarks, mut problems) = (Vec::new(), Vec::new());
    let values = Values::new(typed, world);
    let mut tolerate = |error: ConfigError| match task {
        Task::Metrics { .. } => Err(error),
        Task::Top { .. } | Task::Explain { .. } | Task::Check { .. } => {
            problems.push(error.to_string());
            Ok(())
        }
    };
    let (datastore, node) = match input {
        Input::Here => (
            datastore::resolve(&values, world, &mut remarks).or_else(|error| tolerate(error).map(|()| Datastore::None))?,
            node_name::resolve(&values, world, &mut remarks).or_else(|error| tolerate(error).map(|()| String::new()))?,
        ),
        // Files, or the exporter that is asked, tell everything.
        Input::Exporter(_) | Input::Files { .. } => (Datastore::None, String::new()),
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
    if is_authority(rest) { Ok(format!("http://{rest}")) } else { Err(refused()) }
}
