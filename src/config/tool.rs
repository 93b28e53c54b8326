//! What a command other than `serve` is told: its flags and argument, and as many of the settings as it needs. Touches what the
//! settings touch.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::flags::Typed;
use super::syntax::{RATES, duration, is_authority, rate};
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
    Watch(Watch),
    Check {
        json: bool,
    },
}

#[derive(Debug, PartialEq)]
pub struct Watch {
    /// `NAMESPACE/POD`, or an interface; else all.
    pub endpoint: Option<String>,
    pub only_refused: bool,
    pub policy: Option<String>,
    /// Packets a second.
    pub rate: u32,
    pub limit: Option<Duration>,
    pub json: bool,
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
        "watch" => Task::Watch(Watch {
            endpoint: typed.operand.clone(),
            only_refused: has("dropped"),
            policy: last("policy").map(|policy| policy.to_string_lossy().into_owned()),
            rate: option("rate", last("rate"), RATES, rate)?.unwrap_or(100),
            limit: option("for", last("for"), "a duration such as 30s or 5m", limit)?,
            json: has("json"),
        }),
        _ => Task::Check { json: has("json") },
    };
    let (before, now): (Vec<PathBuf>, Vec<PathBuf>) = (paths("before"), paths("ruleset"));
    let input = match (now.is_empty(), before.is_empty(), last("url")) {
        (false, _, None) => Input::Files { before, now },
        (true, true, None) => Input::Here,
        (true, true, Some(url)) => Input::Exporter(exporter(&url)?),
        (true, false, _) => return Err(ConfigError("--before: needs --ruleset, with the tables of a later moment (see --help)".into())),
        (false, _, Some(_)) => return Err(ConfigError("--url and --ruleset: only one of the two may be set".into())),
    };
    let (mut remarks, mut problems) = (Vec::new(), Vec::new());
    let values = Values::new(typed, world);
    let mut tolerate = |error: ConfigError| match task {
        Task::Metrics { .. } => Err(error),
        Task::Top { .. } | Task::Explain { .. } | Task::Watch(_) | Task::Check { .. } => {
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
    let missing = || ConfigError("explain: NAMESPACE/POD or an interface is missing (see explain --help)".into());
    typed.operand.clone().filter(|operand| !operand.is_empty()).ok_or_else(missing)
}

/// The value of a command's own flag, if it was given.
fn option<T>(name: &str, value: Option<OsString>, allowed: &str, read: fn(&str) -> Option<T>) -> Result<Option<T>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let refused = || ConfigError(format!("--{name}: {:?} is not allowed: {allowed}", value.to_string_lossy()));
    value.to_str().and_then(read).map(Some).ok_or_else(refused)
}

fn limit(text: &str) -> Option<Duration> {
    let limit = match text.strip_suffix('m') {
        Some(minutes) => minutes.parse::<u32>().ok().map(|minutes| 60 * Duration::from_secs(minutes.into())),
        None => duration(text),
    };
    limit.filter(|limit| !limit.is_zero())
}

/// The exporter's address without what stands behind host and port.
fn exporter(url: &OsString) -> Result<String, ConfigError> {
    let refused = || ConfigError(format!("--url: {:?} is not allowed: http://HOST:PORT", url.to_string_lossy()));
    let text = url.to_str().ok_or_else(refused)?;
    let rest = text.strip_prefix("http://").ok_or_else(refused)?.trim_end_matches('/');
    if is_authority(rest) { Ok(format!("http://{rest}")) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(args: &[&str]) -> Result<Watch, String> {
        let args = ["watch"].iter().chain(args).map(OsString::from);
        let world = World { variable: &|_| None, read_file: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        match super::super::parse(args, &world) {
            Ok(super::super::Command::Tool(tool)) => match tool.task {
                Task::Watch(watch) => Ok(watch),
                other => Err(format!("{other:?}")),
            },
            Ok(_) => Err("another command".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_watched() {
        let all = Watch { endpoint: None, only_refused: false, policy: None, rate: 100, limit: None, json: false };
        assert_eq!(watch(&[]), Ok(all));
        let some = watch(&["shop/web-1", "--dropped", "--policy", "default.p", "--rate=7", "--for", "2m", "--json"]).unwrap();
        let (policy, limit) = (Some("default.p".into()), Some(Duration::from_secs(120)));
        assert_eq!(some, Watch { endpoint: Some("shop/web-1".into()), only_refused: true, policy, rate: 7, limit, json: true });
        for wrong in [["--rate", "0"], ["--rate", "10001"], ["--rate", "x"], ["--for", "0s"], ["--for", "-1s"], ["--for", "99999999999m"]] {
            let error = watch(&wrong).unwrap_err();
            assert!(error.starts_with(wrong[0]) && error.contains(wrong[1]) && error.contains(" is not allowed: a "), "{error}");
        }
    }
}
