//! The table of every setting: what it is called, how it is looked up, what `--help` says about it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The exporter's own: the exact name; empty means unset.
    Own,
    /// Calico's: `CALICO_<NAME>`, and only where that is not set at all, `<NAME>` (as its envconfig library does).
    Calico,
}

/// As Calico's client reads a variable; a bad value stops it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalicoType {
    /// Go's `strconv.ParseBool`.
    Bool,
    /// Go's `strconv.ParseInt` with base 0.
    Int,
    /// Go's `strconv.ParseFloat` with 32 bits.
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
    /// The default as `--help` shows it; empty for none.
    pub default: &'static str,
    pub help: &'static str,
    pub calico_type: Option<CalicoType>,
}

impl Setting {
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

const fn own(group: Group, name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, value, spelling: Spelling::Own, group, default, help, calico_type: None }
}

const fn exporter(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    own(Group::Exporter, name, value, default, help)
}

const fn kernel(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    own(Group::Kernel, name, value, default, help)
}

const fn calico(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, value, spelling: Spelling::Calico, group: Group::Datastore, default, help, calico_type: None }
}

const fn unused(name: &'static str, value: &'static str, calico_type: CalicoType) -> Setting {
    let (spelling, group) = (Spelling::Calico, Group::Unused);
    Setting { name, value, spelling, group, default: "", help: "", calico_type: Some(calico_type) }
}

/// In the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    exporter("NODENAME", "name", "the nodename file, else $NODE_NAME, else the host's name", "The node, as Calico names it."),
    exporter("CALICO_NODENAME_FILE", "path", "/var/lib/calico/nodename", "The file in which calico-node keeps the node's name."),
    exporter("METRICS_SERVER_PORT", "port", "9009", "TCP port of the HTTP server; 0 picks a free one."),
    exporter("LISTEN_ADDRESS", "ip", "::, all addresses, IPv4 too", "Address of the HTTP server."),
    exporter(
        "ALLOWED_HOSTS",
        "names",
        "localhost and the node's",
        "Host names, separated by commas, by which the page and API may be asked for; *: any.",
    ),
    exporter("MINIMUM_COUNTER", "packets", "0, never", "Drop scrapes in which every counter is below this."),
    exporter("METRIC_NAMES", "all|legacy|standard", "all", "Packet counts under the Go exporter's names, the standard ones, both."),
    exporter("POD_LOGS_DIR", "path", "/var/log/pods", "Where the kubelet keeps pods' logs: names for what the datastore does not know."),
    exporter("LOG_LEVEL", "error|warn|info|debug|trace", "info", "Least severe level that is logged."),
    exporter("LOG_FORMAT", "logfmt|json", "logfmt", "Form of the log lines on standard error."),
    kernel(
        "BACKEND",
        "auto|legacy|nft|nftables|ebpf",
        "auto, where Calico's chains are, else its eBPF programs",
        "Which dataplane to read; nftables: Calico's own.",
    ),
    kernel(
        "SOURCE",
        "auto|save|kernel",
        "auto, the kernel if it shows Calico's chains",
        "How: by iptables-save, or straight from the kernel.",
    ),
    kernel("XTABLES_LOCKFILE", "path", "/run/xtables.lock", "The lock that iptables and Calico share."),
    kernel("XTABLES_LOCK_WAIT", "time", "2s", "How long to wait for that lock: 2s, 500ms, 2 (seconds)."),
    kernel("BPFFS_DIR", "path", "/sys/fs/bpf", "Where the host's bpffs is mounted, for the eBPF dataplane."),
    kernel("CALICO_RUN_DIR", "path", "/var/run/calico", "Where Felix shows its eBPF programs (bpf/policy)."),
    kernel(
        "SAMPLE_INTERVAL",
        "time",
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
    own(Group::Datastore, "CALICO_K8SAPITOKEN", "token", "", "The same, as Calico from 3.6 on calls it; it goes first."),
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

/// The callers' names are constants; the tests of each resolver catch one that is not in the table.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}
