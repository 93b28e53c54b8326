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
        about: "Read once and print the metrics.",
        more: "Use it for node_exporter's textfile collector, and for saved tables. Counts that need two moments (what policies denied \
            and passed on) are left out without --before or --state.",
        options: &["output", "state", "ruleset", "before"],
        examples: &[
            ("For node_exporter", "metrics --output=/var/lib/node_exporter/calico.prom"),
            ("What was counted between two moments", "metrics --before=then.txt --ruleset=now.txt"),
        ],
    },
    Subcommand {
        name: "top",
        operand: None,
        about: "Show what is being dropped now, and by which policy.",
        more: "Prints a live table in a terminal (q ends it), and plain lines elsewhere. It asks the exporter on this node, which has \
            counted for longer. Without an exporter it reads the kernel itself. In a terminal, s sorts by another column, / filters, \
            arrows and page keys scroll, and ? lists the keys. Rates are means of 10 seconds.",
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
        about: "Show a workload's tiers and policies in their order, with counts.",
        more: "The argument may also be an interface, of a workload or of a host endpoint. It asks the exporter on this node, which has \
            counted for longer. Without an exporter it reads the kernel itself. In the output, ? is unknown, <=7 is at most 7, and - \
            means that no rule can do it. With --cluster, it takes any pod of any node: POD, LABEL=VALUE, or deploy/NAME, sts/NAME, \
            ds/NAME, rs/NAME or job/NAME with --namespace.",
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
        about: "List policies with what their rules counted, and those never hit.",
        more: "Lists policies that apply to an endpoint of this node, or with --cluster of any node. A policy was never hit if none of \
            its rules has counted a packet since Felix wrote it.",
        options: &["never-hit", "cluster", "nodes", "selector", "namespace", "json", "url", "ruleset", "before"],
        examples: &[("What no node uses", "policies --cluster --never-hit")],
    },
    Subcommand {
        name: "workloads",
        operand: None,
        about: "List workloads with what was accepted and dropped.",
        more: "Lists workloads that have rules on this node, or with --cluster on any node. The most drops come first.",
        options: &["cluster", "nodes", "selector", "namespace", "json", "url", "ruleset", "before"],
        examples: &[("Of one namespace, on all nodes", "workloads --cluster -n shop")],
    },
    Subcommand {
        name: "watch",
        operand: Some("[NAMESPACE/POD]"),
        about: "Show packets as they arrive: peer, port and deciding policy.",
        more: "Shows packets of a workload, of a host endpoint (an interface), or of all. It works where Felix writes nftables rules, \
            its own or those of iptables-nft, and needs CAP_NET_ADMIN. While it runs, its table inet calico-accountant marks a sample \
            of the packets that open a connection, and the kernel reports the rules that these packets hit. The table is removed with \
            the process. Ctrl-C ends it. With --cluster, it shows what the exporters of the pods' nodes trace, if WITNESSES is set \
            there: first the packets that they have kept, then new ones. The argument may then be that of explain --cluster.",
        options: &["dropped", "policy", "rate", "for", "cluster", "nodes", "selector", "namespace", "json"],
        examples: &[
            ("The dropped packets of a pod, for a minute", "watch shop/web-1 --dropped --for=60s"),
            ("A pod of the cluster", "watch --cluster shop/web-1"),
        ],
    },
    Subcommand {
        name: "check",
        operand: None,
        about: "Report what the exporter needs here, what is missing, and what to do.",
        more: "The result is ok, warn or wrong. The exit code is 1 if something is wrong, else 0. With --cluster, it reports nodes \
            without an exporter, exporters that do not answer, and the problems that the other exporters report.",
        options: &["cluster", "nodes", "selector", "json"],
        examples: &[("This node", "check"), ("All nodes", "check --cluster")],
    },
];

pub const OPTIONS: &[CommandOption] = &[
    CommandOption {
        name: "cluster",
        short: None,
        value: None,
        help: "Ask the exporters of all nodes, found by Kubernetes' API with the exporter's own rights. Needs the datastore kubernetes.",
    },
    CommandOption {
        name: "nodes",
        short: None,
        value: Some("names|file"),
        help: "Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.",
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
        help: "Show only workloads or policies of this namespace.",
    },
    CommandOption { name: "never-hit", short: None, value: None, help: "Show only policies of which no rule has counted a packet." },
    CommandOption { name: "json", short: None, value: None, help: "Print JSON; see docs/api.md." },
    CommandOption { name: "dropped", short: None, value: None, help: "Show only dropped packets." },
    CommandOption {
        name: "policy",
        short: None,
        value: Some("name"),
        help: "Show only packets that this policy decides. The name is that of the metrics.",
    },
    CommandOption {
        name: "rate",
        short: None,
        value: Some("number"),
        help: "Trace at most this many packets a second, 1 to 10000. Default: 100. Not with --cluster: there, WITNESS_RATE limits each exporter.",
    },
    CommandOption { name: "for", short: None, value: Some("duration"), help: "End after this time, such as 30s." },
    CommandOption { name: "once", short: None, value: None, help: "Print once and end, even in a terminal." },
    CommandOption { name: "output", short: None, value: Some("file"), help: "Write to this file. It is replaced in one step." },
    CommandOption {
        name: "state",
        short: None,
        value: Some("file"),
        help: "Keep tables and counters in this file, so that the next run continues from them and counts denies. Not on eBPF.",
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
        help: "Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset. - is standard input. Repeatable.",
    },
    CommandOption {
        name: "before",
        short: None,
        value: Some("file"),
        help: "Saved tables of an earlier moment. Counts are then exact differences. Repeatable.",
    },
];

pub(super) fn subcommand(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name)
}

pub(super) fn option(is_meant: impl Fn(&CommandOption) -> bool) -> Option<&'static CommandOption> {
    OPTIONS.iter().find(|option| is_meant(option))
}
