//! The configuration of a command other than `serve`: its flags and argument, and the settings that it needs. Touches what the settings
//! touch.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::flags::Typed;
use super::syntax::{RATES, duration, is_authority, rate};
use super::{Config, ConfigError, Datastore, Remark, Values, World, ZeroSeries, datastore, node_name};

/// A command other than `serve`, checked.
#[derive(Debug, PartialEq)]
pub struct Tool {
    pub task: Task,
    pub input: Input,
    /// Limits output to workloads and policies of this namespace.
    pub namespace: Option<String>,
    pub config: Config,
    /// Invalid settings that the command can do without.
    pub problems: Vec<String>,
    pub remarks: Vec<Remark>,
}

#[derive(Debug, PartialEq)]
pub enum Task {
    /// Writes to this file, or to standard output.
    Metrics {
        output: Option<PathBuf>,
        /// The file that keeps a run's state for the next run.
        state: Option<PathBuf>,
    },
    /// `once`: prints once, even in a terminal.
    Top {
        json: bool,
        once: bool,
    },
    /// `endpoint` is `NAMESPACE/POD` or an interface. For the other forms that a cluster allows see `cli::cluster::whose`.
    Explain {
        endpoint: String,
        json: bool,
    },
    Policies {
        only_never_hit: bool,
        json: bool,
    },
    Workloads {
        json: bool,
    },
    Watch(Watch),
    Check {
        json: bool,
    },
}

#[derive(Debug, PartialEq)]
pub struct Watch {
    /// `NAMESPACE/POD`, or an interface. `None` means all.
    pub endpoint: Option<String>,
    pub only_refused: bool,
    pub policy: Option<String>,
    /// Packets a second.
    pub rate: u32,
    pub limit: Option<Duration>,
    pub json: bool,
}

/// The source of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The exporter on this node, otherwise the kernel.
    Here,
    /// The exporter at this URL.
    Exporter(String),
    /// Saved tables. Those in `before`, if there are any, are of an earlier moment.
    Files { before: Vec<PathBuf>, now: Vec<PathBuf> },
    /// The exporters of several nodes.
    Cluster(Nodes),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// The nodes on which Kubernetes' API has pods with these labels.
    WithPods(String),
    /// `HOST` or `HOST:PORT`.
    Named(Vec<String>),
}

pub(super) fn resolve(name: &str, typed: &Typed, world: &World<'_>) -> Result<Tool, ConfigError> {
    let has = |option: &str| typed.options.iter().any(|(name, _)| *name == option);
    let task = match name {
        "metrics" => Task::Metrics { output: last(typed, "output").map(PathBuf::from), state: last(typed, "state").map(PathBuf::from) },
        "top" => Task::Top { json: has("json"), once: has("once") },
        "explain" => Task::Explain { endpoint: endpoint(typed)?, json: has("json") },
        "policies" => Task::Policies { only_never_hit: has("never-hit"), json: has("json") },
        "workloads" => Task::Workloads { json: has("json") },
        "watch" => Task::Watch(Watch {
            endpoint: typed.operand.clone(),
            only_refused: has("dropped"),
            policy: last(typed, "policy").map(|policy| policy.to_string_lossy().into_owned()),
            rate: option("rate", last(typed, "rate"), RATES, rate)?.unwrap_or(100),
            limit: option("for", last(typed, "for"), "a duration such as 30s or 5m", limit)?,
            json: has("json"),
        }),
        _ => Task::Check { json: has("json") },
    };
    let input = input(typed, world)?;
    let has_state = matches!(task, Task::Metrics { state: Some(_), .. });
    if has_state && input != Input::Here {
        return Err(ConfigError("--state: reads the kernel, so not with --ruleset (see --help)".into()));
    }
    if name == "watch" && has("rate") && matches!(input, Input::Cluster(_)) {
        return Err(ConfigError("--rate: not with --cluster or --nodes: the exporters there have WITNESS_RATE".into()));
    }
    let (mut remarks, mut problems) = (Vec::new(), Vec::new());
    let values = Values::new(typed, world);
    let mut tolerate = |error: ConfigError| match task {
        Task::Metrics { .. } => Err(error),
        _ => {
            problems.push(error.to_string());
            Ok(())
        }
    };
    let (datastore, node) = match input {
        Input::Here => (
            datastore::resolve(&values, world, &mut remarks).or_else(|error| tolerate(error).map(|()| Datastore::None))?,
            node_name::resolve(&values, world, &mut remarks).or_else(|error| tolerate(error).map(|()| String::new()))?,
        ),
        // The name is only needed to recognise this node among the others.
        Input::Cluster(Nodes::WithPods(_)) => {
            (kubernetes(&values, world, &mut remarks)?, node_name::resolve(&values, world, &mut Vec::new()).unwrap_or_default())
        }
        // Files, or the requested exporters, contain all names.
        Input::Exporter(_) | Input::Files { .. } | Input::Cluster(Nodes::Named(_)) => (Datastore::None, String::new()),
    };
    let mut config = super::resolve(&values, typed.verbosity, datastore, node, &mut remarks)?;
    if values.get("LOG_LEVEL").is_none() && typed.verbosity.is_none() {
        // The command's results are its output, not its log.
        config.log_level = log::LevelFilter::Warn;
    }
    if has_state {
        // A series that counted nothing since the last run may have counted before.
        config.exposition.zeros = ZeroSeries::Keep;
    }
    let namespace = last(typed, "namespace").map(|namespace| namespace.to_string_lossy().into_owned());
    Ok(Tool { task, input, namespace, config, problems, remarks })
}

/// Returns the value of a command's own flag, the last one if it is repeated.
fn last(typed: &Typed, option: &str) -> Option<OsString> {
    typed.options.iter().rev().find(|(name, _)| *name == option).map(|(_, value)| value.clone())
}

fn input(typed: &Typed, world: &World<'_>) -> Result<Input, ConfigError> {
    let has = |option: &str| typed.options.iter().any(|(name, _)| *name == option);
    let paths = |option: &str| typed.options.iter().filter(|(name, _)| *name == option).map(|(_, value)| PathBuf::from(value)).collect();
    let (before, now): (Vec<PathBuf>, Vec<PathBuf>) = (paths("before"), paths("ruleset"));
    let ways = [("--cluster or --nodes", has("cluster") || has("nodes")), ("--url", has("url")), ("--ruleset", has("ruleset"))];
    let given: Vec<&str> = ways.into_iter().filter(|(_, is_given)| *is_given).map(|(way, _)| way).collect();
    match given[..] {
        ["--ruleset"] => Ok(Input::Files { before, now }),
        [] | [_] if !before.is_empty() => {
            Err(ConfigError("--before: needs --ruleset, with the tables of a later moment (see --help)".into()))
        }
        [] => Ok(Input::Here),
        ["--url"] => exporter(&last(typed, "url").unwrap_or_default()).map(Input::Exporter),
        [_] => match last(typed, "nodes") {
            Some(nodes) => named(&nodes.to_string_lossy(), world).map(|nodes| Input::Cluster(Nodes::Named(nodes))),
            None => {
                let labels = last(typed, "selector").map(|labels| labels.to_string_lossy().into_owned());
                Ok(Input::Cluster(Nodes::WithPods(labels.unwrap_or_else(|| "app.kubernetes.io/name=calico-accountant".into()))))
            }
        },
        [..] => Err(ConfigError(format!("{}: only one of them can be asked", given.join(" and ")))),
    }
}

/// Returns names that are separated by commas, or in a file with one on each line.
fn named(text: &str, world: &World<'_>) -> Result<Vec<String>, ConfigError> {
    let content = match text.contains('/') {
        true => (world.read_file)(text.as_ref()).map_err(|error| ConfigError(format!("--nodes: cannot read {text:?}: {error}")))?,
        false => text.replace(',', "\n").into_bytes(),
    };
    let content = String::from_utf8_lossy(&content);
    let names: Vec<&str> =
        content.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|name| !name.is_empty()).collect();
    let is_name = |name: &str| is_authority(name) || name.parse::<IpAddr>().is_ok();
    match names.iter().find(|name| !is_name(name)) {
        Some(bad) => Err(ConfigError(format!("--nodes: {bad:?} is not allowed: HOST or HOST:PORT"))),
        None if names.is_empty() => Err(ConfigError(format!("--nodes: {text:?} names no node"))),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

/// Returns the only datastore that knows where the other exporters are.
fn kubernetes(values: &Values<'_>, world: &World<'_>, remarks: &mut Vec<Remark>) -> Result<Datastore, ConfigError> {
    match datastore::resolve(values, world, remarks)? {
        found @ Datastore::Kubernetes(_) => Ok(found),
        _ => Err(ConfigError(
            "--cluster: only Kubernetes' API tells where the other exporters are; name the nodes: --nodes \
            a,b,c"
                .into(),
        )),
    }
}

fn endpoint(typed: &Typed) -> Result<String, ConfigError> {
    let missing = || ConfigError("explain: NAMESPACE/POD or an interface is missing (see explain --help)".into());
    typed.operand.clone().filter(|operand| !operand.is_empty()).ok_or_else(missing)
}

/// Parses the value of a command's own flag, if it was given.
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

/// Returns the exporter's address, with host and port only.
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
        match parsed(&[&["watch"], args].concat(), &[])?.task {
            Task::Watch(watch) => Ok(watch),
            other => Err(format!("{other:?}")),
        }
    }

    fn parsed(args: &[&str], files: &[(&str, &str)]) -> Result<Tool, String> {
        let read = |path: &std::path::Path| {
            let found = files.iter().find(|(name, _)| path == std::path::Path::new(name));
            found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        };
        let world = World { variable: &|name| (name == "DATASTORE_TYPE").then(|| "none".into()), read_file: &read };
        match super::super::parse(args.iter().map(OsString::from), &world) {
            Ok(super::super::Command::Tool(tool)) => Ok(*tool),
            Ok(_) => Err("another command".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn which_nodes_are_asked() {
        let files = [("./nodes", "# all\n10.0.0.1\n\n[fd00::1]:9010 # the other\nfd00::2\n"), ("./none", "# nobody\n")];
        let nodes = |value: &str| match parsed(&["top", "--nodes", value], &files) {
            Ok(Tool { input: Input::Cluster(Nodes::Named(names)), .. }) => names.join(" "),
            Ok(tool) => format!("{:?}", tool.input),
            Err(error) => error,
        };
        for (value, expected) in [
            ("a,b.example:9010", "a b.example:9010"),
            ("./nodes", "10.0.0.1 [fd00::1]:9010 fd00::2"),
            ("a b", "--nodes: \"a b\" is not allowed: HOST or HOST:PORT"),
            (",", "--nodes: \",\" names no node"),
            ("./none", "--nodes: \"./none\" names no node"),
            ("./missing", "--nodes: cannot read \"./missing\": entity not found"),
        ] {
            assert_eq!(nodes(value), expected);
        }
        for (args, expected) in [
            (
                &["top", "--cluster"][..],
                "--cluster: only Kubernetes' API tells where the other exporters are; name the nodes: --nodes a,b,c",
            ),
            (&["top", "--cluster", "--url=http://a"], "--cluster or --nodes and --url: only one of them can be asked"),
            (&["top", "--url=http://a", "--ruleset=f"], "--url and --ruleset: only one of them can be asked"),
            (&["top", "--nodes=a", "--before=f"], "--before: needs --ruleset, with the tables of a later moment (see --help)"),
            (&["check", "-n", "shop"], "--namespace: a flag of top, explain, policies, workloads, watch (see --help)"),
            (&["watch", "--nodes=a", "--rate=7"], "--rate: not with --cluster or --nodes: the exporters there have WITNESS_RATE"),
        ] {
            assert_eq!(parsed(args, &[]).unwrap_err(), expected);
        }
        assert_eq!(parsed(&["workloads", "-n", "shop", "--json"], &[]).unwrap().namespace.as_deref(), Some("shop"));
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
