//! Turns environment and flags into a checked [`Config`]. Touches neither network nor kernel, and accesses the system only through
//! [`World`], so that tests need neither a process environment nor files.
//!
//! `flags` parses the command line, `values` looks up settings (`settings` has their table) and parses them (`syntax`). `datastore`,
//! `kubernetes` and `node_name` decide by Calico's own rules. `tool` is for the commands other than `serve`.

mod datastore;
mod exposition;
mod flags;
mod help;
mod kubernetes;
mod node_name;
mod syntax;
mod tool;
mod values;
// Public for tests/it/generated.rs, which generates the shell completions and man pages from them.
pub mod commands;
pub mod settings;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::plain;
pub use exposition::{Exposition, FAMILIES, Families, MetricNames, ZeroSeries};
pub use kubernetes::{ApiGroup, Authentication, ExecPlugin, KubernetesConfig, Pem, Secret};
pub use settings::secret_variables;
pub use tool::{Input, Nodes, Task, Tool, Watch};
use values::Values;

#[derive(Clone, Copy)]
pub struct World<'a> {
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    pub read_file: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

#[derive(Debug, PartialEq)]
pub enum Command {
    Help(String),
    Version(String),
    /// Serve. The remarks are logged once the logger has started.
    Run(Box<Config>, Vec<Remark>),
    Tool(Box<Tool>),
}

/// A message for the log about a decision that is not an error, but not obvious either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub level: log::Level,
    pub text: String,
}

impl Remark {
    fn info(text: impl Into<String>) -> Self {
        Remark { level: log::Level::Info, text: text.into() }
    }

    fn warn(text: impl Into<String>) -> Self {
        Remark { level: log::Level::Warn, text: text.into() }
    }

    pub fn log(&self) {
        log::log!(self.level, "{}", self.text);
    }
}

/// Why the program cannot start, in one line with the variable or flag, its value and what is allowed. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.0))
    }
}

/// `args` does not contain the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>, world: &World<'_>) -> Result<Command, ConfigError> {
    let typed = match flags::parse(args)? {
        flags::Asked::Help(None) => return Ok(Command::Help(help::text())),
        flags::Asked::Help(Some(command)) => return Ok(Command::Help(help::command(command))),
        flags::Asked::Version => return Ok(Command::Version(format!("calico-accountant {}", env!("CARGO_PKG_VERSION")))),
        flags::Asked::Run(typed) => typed,
    };
    if let Some(command) = typed.command.filter(|command| command.name != "serve") {
        return tool::resolve(command.name, &typed, world).map(|tool| Command::Tool(Box::new(tool)));
    }
    let (values, mut remarks) = (Values::new(&typed, world), Vec::new());
    let datastore = datastore::resolve(&values, world, &mut remarks)?;
    let node_name = node_name::resolve(&values, world, &mut remarks)?;
    let config = resolve(&values, typed.verbosity, datastore, node_name, &mut remarks)?;
    Ok(Command::Run(Box::new(config), remarks))
}

fn resolve(
    values: &Values<'_>,
    verbosity: Option<i32>,
    datastore: Datastore,
    node_name: String,
    remarks: &mut Vec<Remark>,
) -> Result<Config, ConfigError> {
    values.check_calicos_types()?;
    let log_level = values.choice("LOG_LEVEL", LOG_LEVELS)?.or(verbosity.map(flags::level_of_verbosity));
    Ok(Config {
        listen_address: values.address("LISTEN_ADDRESS")?.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        port: values.port("METRICS_SERVER_PORT", remarks)?.unwrap_or(9009),
        allowed_hosts: values.hosts("ALLOWED_HOSTS")?,
        grafana_url: values.link("GRAFANA_URL")?,
        minimum_counter: values.parse("MINIMUM_COUNTER", "a whole number of packets, 0 or more", |text| text.parse().ok())?.unwrap_or(0),
        backend: values.choice("BACKEND", BACKENDS)?.unwrap_or(BackendChoice::Auto),
        source: values.choice("SOURCE", SOURCES)?.unwrap_or(SourceChoice::Auto),
        lock_path: values.path("XTABLES_LOCKFILE")?.unwrap_or_else(|| PathBuf::from("/run/xtables.lock")),
        lock_wait: values.duration("XTABLES_LOCK_WAIT")?.unwrap_or(Duration::from_secs(2)),
        bpffs: values.path("BPFFS_DIR")?.unwrap_or_else(|| PathBuf::from("/sys/fs/bpf")),
        calico_run: values.path("CALICO_RUN_DIR")?.unwrap_or_else(|| PathBuf::from("/var/run/calico")),
        sampling: values.sampling("SAMPLE_INTERVAL")?,
        exposition: Exposition::resolve(values)?,
        witnesses: values.witnesses()?,
        log_level: log_level.unwrap_or(log::LevelFilter::Info),
        log_format: values.choice("LOG_FORMAT", LOG_FORMATS)?.unwrap_or(LogFormat::Logfmt),
        pod_logs: values.path("POD_LOGS_DIR")?.unwrap_or_else(|| PathBuf::from("/var/log/pods")),
        datastore,
        node_name,
    })
}

const BACKENDS: &[(&str, BackendChoice)] = &[
    ("auto", BackendChoice::Auto),
    ("legacy", BackendChoice::Legacy),
    ("nft", BackendChoice::Nft),
    ("nftables", BackendChoice::Native),
    ("ebpf", BackendChoice::Ebpf),
];
const SOURCES: &[(&str, SourceChoice)] = &[("auto", SourceChoice::Auto), ("save", SourceChoice::Save), ("kernel", SourceChoice::Kernel)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)];
const LOG_LEVELS: &[(&str, log::LevelFilter)] = &[
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
    ("trace", log::LevelFilter::Trace),
];

/// All settings, as described in their table.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub node_name: String,
    pub listen_address: IpAddr,
    pub port: u16,
    pub allowed_hosts: Vec<String>,
    /// Has no slash at the end.
    pub grafana_url: Option<String>,
    pub minimum_counter: u64,
    pub datastore: Datastore,
    pub pod_logs: PathBuf,
    pub backend: BackendChoice,
    pub source: SourceChoice,
    pub lock_path: PathBuf,
    pub lock_wait: Duration,
    pub bpffs: PathBuf,
    pub calico_run: PathBuf,
    pub sampling: Sampling,
    pub exposition: Exposition,
    pub witnesses: Option<Witnesses>,
    pub log_level: log::LevelFilter,
    pub log_format: LogFormat,
}

/// The source of the workloads' names.
#[derive(Debug, Clone, PartialEq)]
pub enum Datastore {
    Etcd(EtcdConfig),
    Kubernetes(Box<KubernetesConfig>),
    /// Only from the node itself.
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EtcdConfig {
    /// `ETCD_ENDPOINTS`: each with its scheme (`http://` or `https://`), without a trailing slash.
    pub endpoints: Vec<String>,
    /// `ETCD_DISCOVERY_SRV`: the domain to find endpoints in, if none are given. Has no trailing dot.
    pub discovery: Option<String>,
    pub credentials: Option<(String, Secret)>,
    pub ca_file: Option<PathBuf>,
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The tables with Calico's chains, otherwise its eBPF programs.
    Auto,
    Legacy,
    Nft,
    /// Calico's own nftables tables. `Nft` is iptables-nft's.
    Native,
    Ebpf,
}

impl BackendChoice {
    pub fn as_str(self) -> &'static str {
        BACKENDS.iter().find(|(_, choice)| *choice == self).map_or("auto", |(name, _)| name)
    }
}

/// When to read the kernel between scrapes. Shorter intervals determine more counts of policy groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    Never,
    Every(Duration),
    /// If rewritten rules lose their counts.
    WhereItPays,
}

/// Which packets the kernel traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnesses {
    /// Also those of endpoints whose policy groups the counters do not distinguish, not only of those with drops.
    pub groups: bool,
    /// Packets a second.
    pub rate: u32,
    /// Whether each packet is logged.
    pub log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChoice {
    /// From the kernel. By `iptables-save` if the kernel shows none of Calico's chains, because a wrapper may read another place.
    Auto,
    Save,
    Kernel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Logfmt,
    Json,
}

#[cfg(test)]
mod tests;
