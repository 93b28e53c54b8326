//! Environment and flags, resolved into one [`Config`]: nothing here touches the network or the kernel.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the program was told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The node whose workloads are reported, as Calico names it.
    pub node_name: String,
    /// Address to listen on.
    pub listen_address: IpAddr,
    /// TCP port of `/metrics`.
    pub port: u16,
    /// Scrapes in which every counter is below this are dropped; 0 never drops.
    pub minimum_counter: u64,
    /// Where the workloads come from.
    pub datastore: Datastore,
    /// Which iptables back end holds Calico's rules.
    pub backend: BackendChoice,
    /// The xtables lock file.
    pub lock_path: PathBuf,
    /// How long to wait for the xtables lock.
    pub lock_wait: Duration,
    /// Which metric names to write.
    pub metric_names: MetricNames,
    /// Least severe level that is logged.
    pub log_level: log::LevelFilter,
    /// Form of the log lines.
    pub log_format: LogFormat,
}

/// Where the workloads come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Datastore {
    /// etcd v3 over its JSON gateway.
    Etcd(EtcdConfig),
}

/// How to reach etcd. `Debug` never shows the password.
#[derive(Clone, PartialEq)]
pub struct EtcdConfig {
    /// `ETCD_ENDPOINTS`: each with its scheme (`http://` or `https://`), no trailing slash.
    pub endpoints: Vec<String>,
    /// `ETCD_USERNAME` and `ETCD_PASSWORD`, when both are set.
    pub credentials: Option<(String, String)>,
    /// `ETCD_CA_CERT_FILE`; without it, the system's certificate bundle.
    pub ca_file: Option<PathBuf>,
    /// `ETCD_CERT_FILE` and `ETCD_KEY_FILE`.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("ca_file", &self.ca_file)
            .field("client_cert", &self.client_cert)
            .finish()
    }
}

/// Which iptables back end to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// Where Calico's chains are.
    Auto,
    /// `iptables-legacy-save`.
    Legacy,
    /// `iptables-nft-save`.
    Nft,
}

/// Which metric names to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricNames {
    /// Both families.
    All,
    /// The names of the Go exporter only.
    Legacy,
    /// The `calico_accountant_` names only.
    Standard,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}
