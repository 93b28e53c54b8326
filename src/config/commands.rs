//! The table of commands, and of the flags that are not settings. The command line and `--help` use it.

#[derive(Debug)]
pub struct Subcommand {
    pub name: &'static str,
    /// The placeholder of its argument, if it takes one.
    pub operand: Option<&'static str>,
    /// One line for `--help`.
    pub about: &'static str,
    pub more: &'static str,
    pub options: &'static [&'static str],
    /// The purpose of each example, and its command line without the program's name.
    pub examples: &'static [(&'static str, &'static str)],
}

#[derive(Debug, PartialEq)]
pub struct CommandOption {
    pub name: &'static str,
    pub short: Option<char>,
    /// The placeholder of its value, if it takes one.
    pub value: Option<&'static str>,
    /// One sentence for `--help`.
    pub help: &'static str,
}

/// All commands, in the order of `--help`.
pub const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "serve",
        operand: None,
        about: "Serve metrics, page and API until stopped. The default command.",
        more: "",
        options: &[],
        examples: &[("On a node whose Calico keeps its objects in etcd", "serve --etcd-endpoints=http://127.0.0.1:2379")],
    },
    Subcommand {
        name: "metrics",
        operand: None,
        about: "Read once, and print the metrics.",
        more: "For node_exporter's textfile collector, and for saved tables. Counts that need two moments (what policies denied and \
            passed on) are left out without --before or --state.",
        options: &["output", "state", "ruleset", "before"],
        examples: &[
            ("For node_exporter", "metrics --output=/var/lib/node_exporter/calico.prom"),
            ("What was counted between two moments", "metrics --before=then.txt --ruleset=now.txt"),
        ],
    },
    Subcommand {
        name: "top",
        operand: None,
        about: "What is being dropped now, and by which policy.",
        more: "A live table in a terminal (q ends it), plain lines elsewhere. Asks the exporter on this node, because it has counted \
            longer; without one, reads the kernel itself. In a terminal: s sorts by another column, / filters, \
               arrows and page keys scroll, ? lists the keys. Rates are means of 10 seconds.",
        options: &["cluster", "nodes", "selector", "namespace", "json", "once", "url", "ruleset", "before"],
        examples: &[
            ("This node", "top"),
            ("One namespace on all nodes", "top --cluster -n shop"),
            ("Two nodes without Kubernetes' API", "top --nodes=10.0.0.1,10.0.0.2"),
        ],
    },
    Subcommand {
        name: "explain",
        operand: Some("NAMESPACE/POD"),
        about: "A workload's way through tiers and policies, with counts.",
        more: "The argument may also be an interface, of a workload or of a host endpoint. Asks the exporter on this node, because it \
            has counted longer; without one, reads the kernel itself. ?: unknown. <=7: at most 7. -: no rule does it. With --cluster, from any node for any pod: POD, LABEL=VALUE, or deploy/NAME, sts/NAME, ds/NAME, \
               rs/NAME or job/NAME with --namespace.",
        options: &["cluster", "nodes", "selector", "namespace", "json", "url", "ruleset", "before"],
        examples: &[
            ("A pod of this node", "explain shop/web-1"),
            ("A pod of the cluster", "explain --cluster shop/web-1"),
            ("All pods of a Deployment", "explain --cluster -n shop deploy/web"),
        ],
    },
    Subcommand {
        name: "policies",
        operand: None,
        about: "What each policy's rules counted, and which policies were never hit.",
        more: "Policies that apply to an endpoint of the node, or with --cluster of any node. A policy was never hit if none of its \
               rules has counted a packet since Felix wrote it.",
        options: &["never-hit", "cluster", "nodes", "selector", "namespace", "json", "url", "ruleset", "before"],
        examples: &[("What no node uses", "policies --cluster --never-hit")],
    },
    Subcommand {
        name: "workloads",
        operand: None,
        about: "The workloads with what was accepted and dropped.",
        more: "Those that have rules on this node, or with --cluster on any node; the ones with the most drops first.",
        options: &["cluster", "nodes", "selector", "namespace", "json", "url", "ruleset", "before"],
        examples: &[("Of one namespace, on all nodes", "workloads --cluster -n shop")],
    },
    Subcommand {
        name: "watch",
        operand: Some("[NAMESPACE/POD]"),
        about: "Packets as they arrive: peer, port, and the policy that decided.",
        more: "Of a workload, of a host endpoint (an interface), or of all. Works where Felix writes nftables rules, its own or those \
            of iptables-nft. While it runs, its table inet calico-accountant marks a sample of the packets that open a connection, and the kernel reports the rules that these packets hit. The table is removed with the process. Needs CAP_NET_ADMIN. Ends with Ctrl-C. \
            With --cluster, from any node: what the exporters of the pods' nodes trace, if WITNESSES is set there; first what they have \
            kept. The argument may then be what explain --cluster takes.",
        options: &["dropped", "policy", "rate", "for", "cluster", "nodes", "selector", "namespace", "json"],
        examples: &[
            ("What a pod is refused, for a minute", "watch shop/web-1 --dropped --for=60s"),
            ("A pod of the cluster", "watch --cluster shop/web-1"),
        ],
    },
    Subcommand {
        name: "check",
        operand: None,
        about: "What the exporter needs on this node, what is missing, and what to do.",
        more: "The result is ok, warn or wrong. Exit code 1 if something is wrong, else 0. With --cluster: nodes without an exporter, \
            exporters that do not answer, and what the others report of themselves.",
        options: &["cluster", "nodes", "selector", "json"],
        examples: &[("This node", "check"), ("All nodes", "check --cluster")],
    },
];

pub const OPTIONS: &[CommandOption] = &[
    CommandOption {
        name: "cluster",
        short: None,
        value: None,
        help: "Ask the exporters of all nodes, found by Kubernetes' API. On that datastore, with the exporter's own rights.",
    },
    CommandOption {
        name: "nodes",
        short: None,
        value: Some("names|file"),
        help: "Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas; or a file of such lines, if there is a / in it.",
    },
    CommandOption {
        name: "selector",
        short: None,
        value: Some("labels"),
        help: "The labels of the exporters' pods. Default: app.kubernetes.io/name=calico-accountant.",
    },
    CommandOption {
        name: "namespace",
        short: Some('n'),
        value: Some("namespace"),
        help: "Of workloads, or policies: only those of this namespace.",
    },
    CommandOption { name: "never-hit", short: None, value: None, help: "Only policies of which no rule has counted a packet." },
    CommandOption { name: "json", short: None, value: None, help: "Print JSON; see docs/api.md." },
    CommandOption { name: "dropped", short: None, value: None, help: "Show only dropped packets." },
    CommandOption {
        name: "policy",
        short: None,
        value: Some("name"),
        help: "Show only packets that this policy decides. The name is \
        that of the metrics.",
    },
    CommandOption {
        name: "rate",
        short: None,
        value: Some("number"),
        help: "Trace at most this many packets a second, 1 to 10000. Default: 100. Not with --cluster: exporters have WITNESS_RATE.",
    },
    CommandOption { name: "for", short: None, value: Some("duration"), help: "End after this time, such as 30s." },
    CommandOption { name: "once", short: None, value: None, help: "Print once and end, also in a terminal." },
    CommandOption { name: "output", short: None, value: Some("file"), help: "Write to this file. It is replaced in one step." },
    CommandOption {
        name: "state",
        short: None,
        value: Some("file"),
        help: "Keep tables and counters there from run to run, so that a timer's runs count denies too. Not on eBPF.",
    },
    CommandOption {
        name: "url",
        short: None,
        value: Some("url"),
        help: "The exporter to ask. Default: http://127.0.0.1 and METRICS_SERVER_PORT.",
    },
    CommandOption {
        name: "ruleset",
        short: None,
        value: Some("file"),
        help: "Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset; - is standard input. \
            Repeatable.",
    },
    CommandOption {
        name: "before",
        short: None,
        value: Some("file"),
        help: "Saved tables of an earlier moment: counts are then exact differences. Repeatable.",
    },
];

pub(super) fn subcommand(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name)
}

pub(super) fn option(is_meant: impl Fn(&CommandOption) -> bool) -> Option<&'static CommandOption> {
    OPTIONS.iter().find(|option| is_meant(option))
}
