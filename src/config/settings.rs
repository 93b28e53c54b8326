//! The table of every setting: what it is called, how it is looked up, what `--help` says about it.

/// How a setting is found in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// The exporter's own: the exact name; empty means unset.
    Own,
    /// Calico's: `CALICO_<NAME>`, and only where that is not set at all, `<NAME>` (as its envconfig library does).
    Calico,
}

/// The type Calico's client gives a variable that this program does not use itself; a bad value stops Calico too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalicoType {
    /// Go's `strconv.ParseBool`.
    Bool,
    /// Go's `strconv.ParseInt` with base 0.
    Int,
    /// Go's `strconv.ParseFloat` with 32 bits.
    Float,
}

/// The headings of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// What is measured and shown.
    Exporter,
    /// Reading the kernel's tables.
    Kernel,
    /// Where the workloads' names come from.
    Datastore,
    /// Read, checked and otherwise unused.
    Unused,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// The environment variable; its flag is the same in kebab-case.
    pub name: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// How it is looked up.
    pub spelling: Spelling,
    /// Its heading in `--help`.
    pub group: Group,
    /// The default as `--help` shows it; empty for none.
    pub default: &'static str,
    /// One sentence for `--help`.
    pub help: &'static str,
    /// Set for variables that only need to be well-formed.
    pub calico_type: Option<CalicoType>,
}

impl Setting {
    /// The flag without its dashes.
    pub fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }

    /// Whether its value must never be shown, nor be given where other processes can see it.
    pub fn is_secret(&self) -> bool {
        ["ETCD_PASSWORD", "K8S_API_TOKEN", "CALICO_K8SAPITOKEN"].contains(&self.name)
    }
}

/// The environment variables that hold a password or token, in all their spellings.
pub fn secret_variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().filter(|setting| setting.is_secret()).flat_map(|setting| [setting.name.to_owned(), format!("CALICO_{}", setting.name)])
}

const fn own(name: &'static str, value: &'static str, group: Group, default: &'static str, help: &'static str) -> Setting {
    Setting { name, value, spelling: Spelling::Own, group, default, help, calico_type: None }
}

const fn calico(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, value, spelling: Spelling::Calico, group: Group::Datastore, default, help, calico_type: None }
}

const fn unused(name: &'static str, value: &'static str, calico_type: CalicoType) -> Setting {
    let (spelling, group) = (Spelling::Calico, Group::Unused);
    Setting { name, value, spelling, group, default: "", help: "", calico_type: Some(calico_type) }
}

/// Every setting, in the order of `--help`.
pub(super) const SETTINGS: &[Setting] = &[
    own("NODENAME", "name", Group::Exporter, "the nodename file, else $NODE_NAME, else the host's name", "The node, as Calico names it."),
    own(
        "CALICO_NODENAME_FILE",
        "path",
        Group::Exporter,
        "/var/lib/calico/nodename",
        "The file in which calico-node keeps the node's name.",
    ),
    own("METRICS_SERVER_PORT", "port", Group::Exporter, "9009", "TCP port of the HTTP server; 0 picks a free one."),
    own("LISTEN_ADDRESS", "ip", Group::Exporter, "::, all addresses, IPv4 too", "Address of the HTTP server."),
    own(
        "ALLOWED_HOSTS",
        "names",
        Group::Exporter,
        "localhost and the node's",
        "Host names, separated by commas, by which the page and API may be asked for; *: any.",
    ),
    own("MINIMUM_COUNTER", "packets", Group::Exporter, "0, never", "Drop scrapes in which every counter is below this."),
    own(
        "METRIC_NAMES",
        "all|legacy|standard",
        Group::Exporter,
        "all",
        "Packet counts under the Go exporter's names, the standard ones, both.",
    ),
    own(
        "POD_LOGS_DIR",
        "path",
        Group::Exporter,
        "/var/log/pods",
        "Where the kubelet keeps pods' logs: names for what the datastore does not know.",
    ),
    own("LOG_LEVEL", "error|warn|info|debug|trace", Group::Exporter, "info", "Least severe level that is logged."),
    own("LOG_FORMAT", "logfmt|json", Group::Exporter, "logfmt", "Form of the log lines on standard error."),
    own(
        "BACKEND",
        "auto|legacy|nft|nftables|ebpf",
        Group::Kernel,
        "auto, where Calico's chains are, else its eBPF programs",
        "Which dataplane to read; nftables: Calico's own.",
    ),
    own(
        "SOURCE",
        "auto|save|kernel",
        Group::Kernel,
        "auto, the kernel if it shows Calico's chains",
        "How: by iptables-save, or straight from the kernel.",
    ),
    own("XTABLES_LOCKFILE", "path", Group::Kernel, "/run/xtables.lock", "The lock that iptables and Calico share."),
    own("XTABLES_LOCK_WAIT", "time", Group::Kernel, "2s", "How long to wait for that lock: 2s, 500ms, 2 (seconds)."),
    own("BPFFS_DIR", "path", Group::Kernel, "/sys/fs/bpf", "Where the host's bpffs is mounted, for the eBPF dataplane."),
    own("CALICO_RUN_DIR", "path", Group::Kernel, "/var/run/calico", "Where Felix shows its eBPF programs (bpf/policy)."),
    own(
        "SAMPLE_INTERVAL",
        "time",
        Group::Kernel,
        "1s where rewritten rules lose their counts, else never",
        "Read the kernel this often between scrapes: policy groups are told apart better. 0: never.",
    ),
    calico(
        "DATASTORE_TYPE",
        "etcdv3|kubernetes|none",
        "etcdv3 with ETCD_ENDPOINTS, else kubernetes",
        "none: names from POD_LOGS_DIR alone.",
    ),
    calico("ETCD_ENDPOINTS", "urls", "", "etcd's client URLs, separated by commas."),
    calico("ETCD_DISCOVERY_SRV", "domain", "", "DNS domain to find etcd by (SRV records); not together with ETCD_ENDPOINTS."),
    calico("ETCD_CA_CERT_FILE", "path", "the system's certificates", "Certificates that etcd's one must be signed by (PEM)."),
    calico("ETCD_CERT_FILE", "path", "", "The client certificate (PEM); needs ETCD_KEY_FILE."),
    calico("ETCD_KEY_FILE", "path", "", "The client certificate's private key (PEM)."),
    calico("ETCD_USERNAME", "name", "", "etcd user; used only together with ETCD_PASSWORD."),
    calico("ETCD_PASSWORD", "password", "", "etcd password. No flag: every process of the host can read command lines."),
    calico(
        "KUBECONFIG",
        "paths",
        "~/.kube/config, else the pod's service account",
        "Kubeconfig files, separated by colons; the first wins.",
    ),
    calico("K8S_CURRENT_CONTEXT", "name", "the kubeconfig's current-context", "The kubeconfig's context to use."),
    calico("K8S_API_ENDPOINT", "url", "", "The API server. Like those below, it goes over the kubeconfig."),
    calico("K8S_CA_FILE", "path", "", "Certificates that the API server's must be signed by (PEM)."),
    calico("K8S_CERT_FILE", "path", "", "The client certificate (PEM)."),
    calico("K8S_KEY_FILE", "path", "", "The client certificate's private key (PEM)."),
    calico("K8S_API_TOKEN", "token", "", "Bearer token. No flag: every process of the host can read command lines."),
    own("CALICO_K8SAPITOKEN", "token", Group::Datastore, "", "The same, as Calico from 3.6 on calls it; it goes first."),
    Setting {
        calico_type: Some(CalicoType::Bool),
        ..calico("K8S_INSECURE_SKIP_TLS_VERIFY", "bool", "false", "Do not check the API server's certificate.")
    },
    calico(
        "CALICO_API_GROUP",
        "group",
        "asks the API server",
        "projectcalico.org/v3 or crd.projectcalico.org/v1: where Calico's objects are.",
    ),
    unused("K8S_DISABLE_NODE_POLL", "bool", CalicoType::Bool),
    unused("USE_POD_CIDR", "bool", CalicoType::Bool),
    unused("K8S_CLIENT_QPS", "number", CalicoType::Float),
    unused("K8S_CLIENT_BURST", "number", CalicoType::Int),
];

/// The setting of this name. The callers' names are constants; a name that is not in the table is unknown to `--help`, so
/// the tests of each resolver catch it.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
