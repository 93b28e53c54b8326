//! The table of every setting: what it is called, how it is looked up, what `--help` says about it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The exporter's own: the exact name; empty means unset.
    Own,
    /// Calico's: `CALICO_<NAME>`, and only where that is not set at all, `<NAME>` (as its envconfig library does).
    Calico,
}

/// As Calico's client reads a variable (see `syntax`); a bad value stops it, too.
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
    /// The environment variable; its flag is the same in kebab-case.
    pub name: &'static str,
    pub value: &'static str,
    pub spelling: Spelling,
    pub group: Group,
    /// As `--help` shows it.
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

    /// The flag without its dashes.
    pub fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }

    /// Never to be shown, nor given where other processes can see it.
    pub fn is_secret(&self) -> bool {
        ["ETCD_PASSWORD", "K8S_API_TOKEN", "CALICO_K8SAPITOKEN"].contains(&self.name)
    }
}

/// The environment variables that hold a password or token, in all their spellings.
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
    exporter("NODENAME", "name", "The node, as Calico names it.").default("the nodename file, else $NODE_NAME, else the host's name"),
    exporter("CALICO_NODENAME_FILE", "path", "The file in which calico-node keeps the node's name.").default("/var/lib/calico/nodename"),
    exporter("METRICS_SERVER_PORT", "port", "TCP port of the HTTP server; 0 picks a free one.").default("9009"),
    exporter("LISTEN_ADDRESS", "ip", "Address of the HTTP server.").default("::, all addresses, IPv4 too"),
    exporter("ALLOWED_HOSTS", "names", "Host names, separated by commas, by which the page and API may be asked for; *: any.")
        .default("localhost and the node's"),
    exporter("MINIMUM_COUNTER", "packets", "Drop scrapes in which every counter is below this.").default("0, never"),
    exporter("METRIC_NAMES", "all|legacy|standard", "Packet counts under the Go exporter's names, the standard ones, both.").default("all"),
    exporter("ZERO_SERIES", "keep|omit", "Endpoints' counts that are 0; omit: each begins with its first packet.").default("keep"),
    exporter("METRIC_FAMILIES", "names", "Metrics to write, or with - not to (-policy_packets); see docs/cardinality.md.").default("all"),
    exporter("POD_LOGS_DIR", "path", "Where the kubelet keeps pods' logs: names for what the datastore does not know.")
        .default("/var/log/pods"),
    exporter("LOG_LEVEL", "error|warn|info|debug|trace", "Least severe level that is logged.").default("info"),
    exporter("LOG_FORMAT", "logfmt|json", "Form of the log lines on standard error.").default("logfmt"),
    kernel("BACKEND", "auto|legacy|nft|nftables|ebpf", "Which dataplane to read; nftables: Calico's own.")
        .default("auto, where Calico's chains are, else its eBPF programs"),
    kernel("SOURCE", "auto|save|kernel", "How: by iptables-save, or straight from the kernel.")
        .default("auto, the kernel if it shows Calico's chains"),
    kernel("XTABLES_LOCKFILE", "path", "The lock that iptables and Calico share.").default("/run/xtables.lock"),
    kernel("XTABLES_LOCK_WAIT", "time", "How long to wait for that lock: 2s, 500ms, 2 (seconds).").default("2s"),
    kernel("BPFFS_DIR", "path", "Where the host's bpffs is mounted, for the eBPF dataplane.").default("/sys/fs/bpf"),
    kernel("CALICO_RUN_DIR", "path", "Where Felix shows its eBPF programs (bpf/policy).").default("/var/run/calico"),
    kernel("SAMPLE_INTERVAL", "time", "Read the kernel this often between scrapes: policy groups are told apart better. 0: never.")
        .default("1s where rewritten rules lose their counts, else never"),
    calico("DATASTORE_TYPE", "etcdv3|kubernetes|none", "none: names from POD_LOGS_DIR alone.")
        .default("etcdv3 with ETCD_ENDPOINTS, else kubernetes"),
    calico("ETCD_ENDPOINTS", "urls", "etcd's client URLs, separated by commas."),
    calico("ETCD_DISCOVERY_SRV", "domain", "DNS domain to find etcd by (SRV records); not together with ETCD_ENDPOINTS."),
    calico("ETCD_CA_CERT_FILE", "path", "Certificates that etcd's one must be signed by (PEM).").default("the system's certificates"),
    calico("ETCD_CERT_FILE", "path", "The client certificate (PEM); needs ETCD_KEY_FILE."),
    calico("ETCD_KEY_FILE", "path", "The client certificate's private key (PEM)."),
    calico("ETCD_USERNAME", "name", "etcd user; used only together with ETCD_PASSWORD."),
    calico("ETCD_PASSWORD", "password", "etcd password. No flag: every process of the host can read command lines."),
    calico("KUBECONFIG", "paths", "Kubeconfig files, separated by colons; the first wins.")
        .default("~/.kube/config, else the pod's service account"),
    calico("K8S_CURRENT_CONTEXT", "name", "The kubeconfig's context to use.").default("the kubeconfig's current-context"),
    calico("K8S_API_ENDPOINT", "url", "The API server. Like those below, it goes over the kubeconfig."),
    calico("K8S_CA_FILE", "path", "Certificates that the API server's must be signed by (PEM)."),
    calico("K8S_CERT_FILE", "path", "The client certificate (PEM)."),
    calico("K8S_KEY_FILE", "path", "The client certificate's private key (PEM)."),
    calico("K8S_API_TOKEN", "token", "Bearer token. No flag: every process of the host can read command lines."),
    Setting {
        spelling: Spelling::Own,
        ..calico("CALICO_K8SAPITOKEN", "token", "The same, as Calico from 3.6 on calls it; it goes first.")
    },
    calico("K8S_INSECURE_SKIP_TLS_VERIFY", "bool", "Do not check the API server's certificate.").default("false").of_type(CalicoType::Bool),
    calico("CALICO_API_GROUP", "group", "projectcalico.org/v3 or crd.projectcalico.org/v1: where Calico's objects are.")
        .default("asks the API server"),
    unused("K8S_DISABLE_NODE_POLL", "bool", CalicoType::Bool),
    unused("USE_POD_CIDR", "bool", CalicoType::Bool),
    unused("K8S_CLIENT_QPS", "number", CalicoType::Float),
    unused("K8S_CLIENT_BURST", "number", CalicoType::Int),
];

/// The callers' names are constants; the tests of each resolver catch one that is not in the table.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
