//! The table of commands, and of the flags that are theirs and no settings: what the command line takes, and `--help` says.

#[derive(Debug)]
pub struct Subcommand {
    pub name: &'static str,
    /// What stands for its argument, if it takes one.
    pub operand: Option<&'static str>,
    /// One line for `--help`.
    pub about: &'static str,
    pub more: &'static str,
    pub options: &'static [&'static str],
}

#[derive(Debug, PartialEq)]
pub struct CommandOption {
    pub name: &'static str,
    /// What stands for its value, if it takes one.
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
    },
    Subcommand {
        name: "metrics",
        operand: None,
        about: "Read once, and print the metrics.",
        more: "For node_exporter's textfile collector, and for saved tables. Counts that need two moments (what policies denied and \
            passed on) are left out without --before.",
        options: &["output", "ruleset", "before"],
    },
    Subcommand {
        name: "top",
        operand: None,
        about: "What is being dropped now, and by which policy.",
        more: "A live table in a terminal (q ends it), plain lines elsewhere. Asks the exporter on this node, because it has counted \
            longer; without one, reads the kernel itself.",
        options: &["json", "once", "url", "ruleset", "before"],
    },
    Subcommand {
        name: "explain",
        operand: Some("NAMESPACE/POD"),
        about: "A workload's way through tiers and policies, with counts.",
        more: "The argument may also be an interface, of a workload or of a host endpoint. Asks the exporter on this node, because it \
            has counted longer; without one, reads the kernel itself. ?: unknown. <=7: at most 7. -: no rule does it.",
        options: &["json", "url", "ruleset", "before"],
    },
    Subcommand {
        name: "watch",
        operand: Some("[NAMESPACE/POD]"),
        about: "Packets as they arrive: peer, port, and the policy that decided.",
        more: "Of a workload, of a host endpoint (an interface), or of all. Works where Felix writes nftables rules, its own or those \
            of iptables-nft. While it runs, its table inet calico-accountant marks a sample of the packets that open a connection, and the kernel reports the rules that these packets hit. The table is removed with the process. Needs CAP_NET_ADMIN. Ends with Ctrl-C.",
        options: &["dropped", "policy", "rate", "for", "json"],
    },
    Subcommand {
        name: "check",
        operand: None,
        about: "What the exporter needs on this node, what is missing, and what to do.",
        more: "The result is ok, warn or wrong. Exit code 1 if something is wrong, else 0.",
        options: &["json"],
    },
];

pub const OPTIONS: &[CommandOption] = &[
    CommandOption { name: "json", value: None, help: "Print JSON; see docs/api.md." },
    CommandOption { name: "dropped", value: None, help: "Show only dropped packets." },
    CommandOption {
        name: "policy",
        value: Some("name"),
        help: "Show only packets that this policy decides. The name is that of the \
        metrics.",
    },
    CommandOption { name: "rate", value: Some("number"), help: "Trace at most this many packets a second, 1 to 10000. Default: 100." },
    CommandOption { name: "for", value: Some("duration"), help: "End after this time, such as 30s." },
    CommandOption { name: "once", value: None, help: "Print once and end, also in a terminal." },
    CommandOption { name: "output", value: Some("file"), help: "Write to this file. It is replaced in one step." },
    CommandOption { name: "url", value: Some("url"), help: "The exporter to ask. Default: http://127.0.0.1 and METRICS_SERVER_PORT." },
    CommandOption {
        name: "ruleset",
        value: Some("file"),
        help: "Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft -j list ruleset; - is standard input. \
            Repeatable.",
    },
    CommandOption {
        name: "before",
        value: Some("file"),
        help: "Saved tables of an earlier moment: counts are then exact differences. Repeatable.",
    },
];

pub(super) fn subcommand(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name)
}

pub(super) fn option(name: &str) -> Option<&'static CommandOption> {
    OPTIONS.iter().find(|option| option.name == name)
}
