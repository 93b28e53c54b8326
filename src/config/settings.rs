//! The table of all settings: their names, how they are looked up, and their help.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The exporter's own: the exact name. Empty means unset.
    Own,
    /// Calico's: `CALICO_<NAME>`, and `<NAME>` only if that is not set at all (as its envconfig library does).
    Calico,
}

/// The type by which Calico's client parses a variable (see `syntax`). A bad value stops it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalicoType {
    Bool,
    Int,
    Float,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Exporter,
    Kernel,
    Datastore,
    Unused,
}

#[derive(Debug)]
pub struct Setting {
    /// The environment variable. Its flag is the same in kebab-case.
    pub name: &'static str,
    pub value: &'static str,
    pub spelling: Spelling,
    pub group: Group,
    /// The default as `--help` shows it.
    pub default: Option<&'static str>,
    pub help: &'static str,
    pub calico_type: Option<CalicoType>,
}

impl Setting {
    const fn default(self, default: &'static str) -> Self {
        Setting { default: Some(default), ..self }
    }

    const fn of_type(self, calico_type: CalicoType) -> Self {
        Setting { calico_type: Some(calico_type), ..self }
    }

    /// Returns the flag without its dashes.
    pub fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }

    /// Reports whether the value must never be shown, nor be given where other processes can see it.
    pub fn is_secret(&self) -> bool {
        ["ETCD_PASSWORD", "K8S_API_TOKEN", "CALICO_K8SAPITOKEN"].contains(&self.name)
    }
}

/// Returns the environment variables with passwords and tokens, in all their spellings.
pub fn secret_variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().filter(|setting| setting.is_secret()).flat_map(|setting| [setting.name.to_owned(), format!("CALICO_{}", setting.name)])
}

const fn exporter(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { name, value, spelling: Spelling::Own, group: Group::Exporter, default: None, help, calico_type: None }
}

const fn kernel(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { group: Group::Kernel, ..exporter(name, value, help) }
}

const fn calico(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { spelling: Spelling::Calico, group: Group::Datastore, ..exporter(name, value, help) }
}

const fn unused(name: &'static str, value: &'static str, calico_type: CalicoType) -> Setting {
    Setting { group: Group::Unused, ..calico(name, value, "") }.of_type(calico_type)
}

/// In the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    exporter("NODENAME", "name", "The node whose workloads are reported, as Calico names it.")
        .default("the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host's name"),
    exporter("CALICO_NODENAME_FILE", "path", "The file in which calico-node keeps the node's name.").default("/var/lib/calico/nodename"),
    exporter(
        "METRICS_SERVER_PORT",
        "port",
        "TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named \
         metrics-server, is ignored.",
    )
    .default("9009"),
    exporter("LISTEN_ADDRESS", "ip", "Address of the HTTP server.").default("::, all addresses, IPv4 too"),
    exporter(
        "ALLOWED_HOSTS",
        "names",
        "More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. \
         Addresses are always allowed. /metrics, /healthz and /readyz accept any name.",
    )
    .default("localhost and the node's name"),
    exporter(
        "GRAFANA_URL",
        "url",
        "The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links \
         to its views of pods and policies.",
    ),
    exporter("MINIMUM_COUNTER", "packets", "Drop scrapes in which every counter is below this number. 0: never.").default("0"),
    exporter(
        "METRIC_NAMES",
        "all|legacy|standard",
        "Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: \
         both.",
    )
    .default("all"),
    exporter(
        "ZERO_SERIES",
        "keep|omit",
        "Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 \
         seconds and then with its count. docs/cardinality.md has figures.",
    )
    .default("keep"),
    exporter(
        "METRIC_FAMILIES",
        "names",
        "Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front \
         of each, those to leave out. Names are without calico_accountant_ and _total.",
    )
    .default("all"),
    exporter(
        "POD_LOGS_DIR",
        "path",
        "The folder in which the kubelet keeps pods' logs. It names the workloads that the datastore does not know.",
    )
    .default("/var/log/pods"),
    exporter(
        "LOG_LEVEL",
        "error|warn|info|debug|trace",
        "Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted.",
    )
    .default("info"),
    exporter("LOG_FORMAT", "logfmt|json", "Format of the log lines on standard error.").default("logfmt"),
    kernel(
        "BACKEND",
        "auto|legacy|nft|nftables|ebpf",
        "The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico's own nftables tables, or its eBPF programs. Set \
         it if Calico left rules in two of them.",
    )
    .default("auto, the one with Calico's chains, else its eBPF programs"),
    kernel(
        "SOURCE",
        "auto|save|kernel",
        "How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico's own nftables tables are \
         always read from the kernel.",
    )
    .default("auto, the kernel; iptables-save if the kernel shows none of Calico's chains"),
    kernel("XTABLES_LOCKFILE", "path", "The lock file that iptables and Calico share.").default("/run/xtables.lock"),
    kernel("XTABLES_LOCK_WAIT", "time", "How long to wait for that lock: 2s, 500ms, or 2 (seconds).").default("2s"),
    kernel("BPFFS_DIR", "path", "Where the host's bpffs is mounted, for the eBPF dataplane.").default("/sys/fs/bpf"),
    kernel("CALICO_RUN_DIR", "path", "The folder in which Felix describes its eBPF programs (bpf/policy).").default("/var/run/calico"),
    kernel(
        "SAMPLE_INTERVAL",
        "time",
        "Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. \
         0: never.",
    )
    .default("1s where rewritten rules lose their counts, else never"),
    kernel(
        "WITNESSES",
        "off|drops|groups",
        "Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were \
         dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only \
         with nftables and iptables-nft. While there are such endpoints, a table of the exporter's own (inet calico-accountant) \
         marks the packets.",
    )
    .default("off"),
    kernel("WITNESS_RATE", "number", "Trace at most this many packets a second, 1 to 10000.").default("100"),
    kernel("WITNESS_LOG", "bool", "Log each traced packet, one line each.").default("false"),
    calico("DATASTORE_TYPE", "etcdv3|kubernetes|none", "Where the names of workloads come from. none: from POD_LOGS_DIR only.")
        .default("etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes"),
    calico("ETCD_ENDPOINTS", "urls", "etcd's client URLs, separated by commas."),
    calico(
        "ETCD_DISCOVERY_SRV",
        "domain",
        "DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd's members. Not together with ETCD_ENDPOINTS.",
    ),
    calico("ETCD_CA_CERT_FILE", "path", "CA certificates that must have signed etcd's certificate (PEM).").default("the system's certificates"),
    calico("ETCD_CERT_FILE", "path", "The client certificate (PEM). Needs ETCD_KEY_FILE."),
    calico("ETCD_KEY_FILE", "path", "The client certificate's private key (PEM)."),
    calico("ETCD_USERNAME", "name", "etcd user. Used only together with ETCD_PASSWORD."),
    calico("ETCD_PASSWORD", "password", "etcd password. There is no flag: every process of the host can read command lines."),
    calico("KUBECONFIG", "paths", "Kubeconfig files, separated by colons. The first file that sets a value wins.")
        .default("~/.kube/config, else the pod's service account"),
    calico("K8S_CURRENT_CONTEXT", "name", "The kubeconfig's context to use.").default("the kubeconfig's current-context"),
    calico(
        "K8S_API_ENDPOINT",
        "url",
        "The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the \
         service account is read.",
    ),
    calico("K8S_CA_FILE", "path", "CA certificates that must have signed the API server's certificate (PEM).")
        .default("the system's certificates"),
    calico("K8S_CERT_FILE", "path", "The client certificate (PEM). Needs K8S_KEY_FILE."),
    calico("K8S_KEY_FILE", "path", "The client certificate's private key (PEM)."),
    calico("K8S_API_TOKEN", "token", "Bearer token. There is no flag: every process of the host can read command lines."),
    Setting {
        spelling: Spelling::Own,
        ..calico("CALICO_K8SAPITOKEN", "token", "The same token under the name that Calico uses since 3.6. It wins over K8S_API_TOKEN.")
    },
    calico("K8S_INSECURE_SKIP_TLS_VERIFY", "bool", "Do not check the API server's certificate.").default("false").of_type(CalicoType::Bool),
    calico(
        "CALICO_API_GROUP",
        "group",
        "API group of Calico's objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later).",
    )
    .default("asks the API server"),
    unused("K8S_DISABLE_NODE_POLL", "bool", CalicoType::Bool),
    unused("USE_POD_CIDR", "bool", CalicoType::Bool),
    unused("K8S_CLIENT_QPS", "number", CalicoType::Float),
    unused("K8S_CLIENT_BURST", "number", CalicoType::Int),
];

/// Returns a setting. Callers use constant names, and the resolvers' tests detect one that is not in the table.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
