//! Foreign rules, as each reader sees them.

use std::time::{Duration, Instant};

use calico_accountant::kernel::nft;
use calico_accountant::nftables;
use calico_accountant::ruleset::{Backend, Family, Snapshot};

use super::walk::Fate;
use crate::captures;
use crate::support::netns::{Namespace, feed};

/// A rule, alone in a table.
pub struct Foreign {
    pub text: String,
    pub table: Snapshot,
    /// What may happen to packets that match.
    pub fates: &'static [Fate],
}

const GONE: &[Fate] = &[Fate::Gone];
const UNKNOWN: &[Fate] = &[Fate::On, Fate::Gone, Fate::Back, Fate::Marked(0x10000, 0x10000), Fate::Marked(0x20000, 0x20000)];

/// The rules as `iptables-save` prints them.
const IPTABLES: [(&str, &[Fate]); 17] = [
    ("-p udp -m udp --dport 65333 -j DROP", GONE),
    ("-j REJECT --reject-with icmp-port-unreachable", GONE),
    ("-p udp -m udp --dport 65333 -j ACCEPT", GONE),
    ("-p udp -m udp --dport 65333 -j RETURN", &[Fate::Back]),
    ("-p udp -m udp --dport 65333 -j foreign", UNKNOWN),
    ("-p udp -m udp --dport 65333 -g foreign", &[Fate::Gone, Fate::Back]),
    ("-p udp -m udp --dport 65333 -j LOG", &[Fate::On]),
    ("-m limit --limit 5/min -j NFLOG --nflog-group 7", &[Fate::On]),
    ("-p udp -m udp --dport 65333", &[Fate::On]),
    ("-p udp -j NFQUEUE --queue-num 0", GONE),
    ("-j CONNMARK --restore-mark", UNKNOWN),
    ("-j MARK --set-xmark 0x1/0x1", &[Fate::Marked(1, 1)]),
    ("-m comment --comment \"somebody else\" -j MARK --set-xmark 0x0/0xffffffff", &[Fate::Marked(0, u32::MAX)]),
    ("-j MARK --set-xmark 0x10000/0x10000", &[Fate::Marked(0x10000, 0x10000)]),
    ("-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP", GONE),
    ("-m comment --comment \"Return if policy accepted\" -p udp -j RETURN", &[Fate::Back]),
    ("-m comment --comment \"Start of tier default\" -j MARK --set-xmark 0x0/0x20000", &[Fate::Marked(0, 0x20000)]),
];

/// The rules as `nft -j` prints them.
const NFT: [(&str, &str, &[Fate]); 8] = [
    ("udp dport 65333 counter drop", r#"{"counter": {"packets": 0, "bytes": 0}}, {"drop": null}"#, GONE),
    ("counter accept", r#"{"counter": {"packets": 0, "bytes": 0}}, {"accept": null}"#, GONE),
    ("counter return", r#"{"counter": {"packets": 0, "bytes": 0}}, {"return": null}"#, &[Fate::Back]),
    ("counter log", r#"{"counter": {"packets": 0, "bytes": 0}}, {"log": null}"#, &[Fate::On]),
    ("counter queue", r#"{"counter": {"packets": 0, "bytes": 0}}, {"queue": null}"#, GONE),
    ("counter jump foreign", r#"{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "foreign"}}"#, UNKNOWN),
    (
        "counter meta mark set 0x0",
        r#"{"counter": {"packets": 0, "bytes": 0}}, {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 0}}"#,
        &[Fate::Marked(0, u32::MAX)],
    ),
    (
        "counter meta l4proto vmap { tcp : drop }",
        r#"{"counter": {"packets": 0, "bytes": 0}}, {"vmap": {"key": {"meta": {"key": "l4proto"}}, "data": {"set": [["tcp", {"drop": null}]]}}}"#,
        &[Fate::On, Fate::Gone],
    ),
];

/// The rules as the reader of iptables' text parses them.
pub fn by_iptables(backend: Backend) -> Vec<Foreign> {
    let foreign = |(rule, fates): &(&str, &'static [Fate])| {
        let text = format!("*filter\n:cali-foreign - [0:0]\n[0:0] -A cali-foreign {rule}\nCOMMIT\n");
        Foreign { text: (*rule).into(), table: captures::parse(&text, Family::V4, backend, "filter"), fates }
    };
    IPTABLES.iter().map(foreign).collect()
}

/// The rules as the readers of Calico's own tables parse them: from nft's text and, if possible, from the kernel.
pub fn by_nft() -> Vec<Foreign> {
    let by_json = |(rule, json, fates): &(&str, &str, &'static [Fate])| {
        let text = format!(
            r#"{{"nftables": [{{"rule": {{"family": "ip", "table": "calico", "chain": "filter-cali-foreign", "expr": [{json}]}}}}]}}"#
        );
        Foreign { text: format!("{rule} (JSON)"), table: nftables::parse(text.as_bytes()).unwrap().remove(0), fates }
    };
    let mut all: Vec<Foreign> = NFT.iter().map(by_json).collect();
    if let Some(namespace) = Namespace::new("foreign rules in the kernel") {
        // Not every kernel supports queues.
        let known = NFT.iter().filter(|(rule, ..)| !rule.contains("queue"));
        all.extend(known.map(|(rule, _, fates)| {
            let table = namespace.run(|| {
                let chains = "chain foreign {\n}\n";
                feed("nft -f -", &format!("flush ruleset\ntable ip calico {{\n{chains}chain filter-cali-foreign {{\n{rule}\n}}\n}}\n"));
                let deadline = Instant::now() + Duration::from_secs(5);
                nft::Reader::new(Family::V4, nft::Tables::Calico).read(deadline).unwrap().remove(0)
            });
            Foreign { text: format!("{rule} (kernel)"), table, fates }
        }));
    }
    all
}
