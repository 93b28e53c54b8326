//! What rules match on, in words: rules of all kinds in a real kernel, and what the API says about them for one policy.

use serde_json::Value;

use crate::commands::all_fields_are_documented;
use crate::http::get;
use crate::live;
use crate::program::{self, Program};
use crate::support::netns::{Namespace, feed, sh};
use crate::watch::native;

const HIDDEN: &str = "a match that is not shown";

/// iptables options and their words, for both families or for one.
const IPTABLES: [(&str, &str); 15] = [
    ("-p udp -m multiport --dports 8101", "udp, destination port 8101"),
    ("-p tcp -m multiport --dports 80,443:445", "tcp, destination port 80,443-445"),
    ("-p udp -m multiport ! --sports 53", "udp, not source port 53"),
    ("-p sctp -m multiport --ports 5,6", "sctp, port 5,6"),
    ("-p tcp -m tcp --dport 22", "tcp, destination port 22"),
    ("-p tcp -m tcp ! --sport 1024:65535", "tcp, not source port 1024-65535"),
    ("! -p tcp", "not tcp"),
    ("-m mark --mark 0x80000/0x80000", HIDDEN),
    ("-p tcp -m tcp --tcp-flags SYN,ACK SYN", "tcp, and a match that is not shown"),
    ("-p udp -m length --length 100:200", "udp, and a match that is not shown"),
    ("", "all packets"),
    ("-m set --match-set PEERS src", "source in set PEERS"),
    ("-p tcp -m set ! --match-set PORTS dst,dst", "tcp, not destination,destination in set PORTS"),
    ("-m set --match-set PEERS src -m multiport -p udp --dports 1,2", "udp, source in set PEERS, destination port 1,2"),
    ("-m set --match-set PEERS src --packets-gt 5", "source in set PEERS, and a match that is not shown"),
];
const IPTABLES_V4: [(&str, &str); 6] = [
    ("-s 10.0.0.0/8", "source 10.0.0.0/8"),
    ("! -d 192.0.2.1/32", "not destination 192.0.2.1"),
    ("-s 10.1.128.0/17 -d 10.2.0.0/16 -p udp", "udp, source 10.1.128.0/17, destination 10.2.0.0/16"),
    ("-p icmp -m icmp --icmp-type 8/0", "icmp, ICMP type 8 code 0"),
    ("-p icmp -m icmp ! --icmp-type 3", "icmp, not ICMP type 3"),
    ("-o eth+", HIDDEN),
];
const IPTABLES_V6: [(&str, &str); 3] = [
    ("-s fd00::/64", "source fd00::/64"),
    ("! -d 2001:db8::1/128 -p tcp", "tcp, not destination 2001:db8::1"),
    ("-p icmpv6 -m icmp6 --icmpv6-type 128", "icmpv6, ICMP type 128"),
];
const NATIVE: [(&str, &str); 18] = [
    ("udp dport 8101", "udp, destination port 8101"),
    ("tcp dport { 80, 443-445 }", "tcp, destination port 80,443-445"),
    ("tcp dport { 80, 443 }", "tcp, destination port 80,443"),
    ("udp dport 8103-8107", "udp, destination port 8103-8107"),
    ("udp sport != 53", "udp, not source port 53"),
    ("udp dport != 8103-8107", "udp, not destination port 8103-8107"),
    ("tcp sport != { 80, 443 }", "tcp, not source port 80,443"),
    ("ip saddr 10.0.0.0/8", "source 10.0.0.0/8"),
    ("ip daddr != 192.0.2.1", "not destination 192.0.2.1"),
    ("ip saddr 10.1.128.0/17 ip daddr { 192.0.2.1, 192.0.2.2 }", "source 10.1.128.0/17, destination 192.0.2.1,192.0.2.2"),
    ("ip saddr @cali40s-peers udp dport 1", "udp, source in set cali40s-peers, destination port 1"),
    ("ip daddr . tcp dport != @cali40n-ports", "tcp, not destination and destination port in set cali40n-ports"),
    ("icmp type echo-request icmp code 0", "icmp, ICMP type 8, ICMP code 0"),
    ("icmp type { echo-request, echo-reply }", "icmp, and a match that is not shown"),
    ("ip saddr 192.0.2.1 ip daddr 192.0.2.2", "source 192.0.2.1, destination 192.0.2.2"),
    ("udp sport 53 udp dport 5353", "udp, source port 53, destination port 5353"),
    ("tcp flags syn", "tcp, and a match that is not shown"),
    ("meta mark & 0x00080000 == 0x00080000", HIDDEN),
];

fn hash(place: usize) -> String {
    format!("m{place:015}")
}

fn iptables(family: &str, more: &[(&str, &str)]) -> (String, Vec<String>) {
    let (mut table, mut expected) = (live::table().replace("COMMIT\n", ""), vec!["udp, destination port 1001".to_owned()]);
    for (place, (options, words)) in IPTABLES.iter().chain(more).enumerate() {
        let named = |text: &str| text.replace("PEERS", &format!("cali{family}0s:peers")).replace("PORTS", &format!("cali{family}0n:ports"));
        let (options, hash) = (named(options), hash(place));
        table += &format!("-A cali-pi-default.p1 -m comment --comment cali:{hash} {options} -j MARK --set-xmark 0x10000/0x10000\n");
        expected.push(named(words));
    }
    (table + "COMMIT\n", expected)
}

/// The words for each rule of the policy, by family.
fn said(program: &Program) -> Vec<Vec<String>> {
    let answer: Value = serde_json::from_slice(&get(program.port(), "/api/v1/policies/default.p1").unwrap().body).unwrap();
    all_fields_are_documented(&answer);
    let rules = answer["policy"]["rules"].as_array().unwrap();
    let of = |family: &str| {
        let rules = rules.iter().filter(|rule| rule["family"] == family);
        rules.map(|rule| rule["matches"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    ["ipv4", "ipv6"].map(of).to_vec()
}

fn start() -> Program {
    let mut command = program::command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DATASTORE_TYPE", "none").env("XTABLES_LOCKFILE", "/dev/null");
    Program::start(command)
}

fn with_iptables(backend: &str) {
    let Some(node) = Namespace::new(&format!("matches of {backend} rules")) else { return };
    node.run(|| {
        for (family, name) in [("4", "inet"), ("6", "inet6")] {
            sh(&format!(
                "ipset create cali{family}0s:peers hash:net family {name} && ipset create cali{family}0n:ports hash:ip,port family {name}"
            ));
        }
        let ((v4, of_v4), (v6, of_v6)) = (iptables("4", &IPTABLES_V4), iptables("6", &IPTABLES_V6));
        feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore"), &v4);
        feed(&format!("XTABLES_LOCKFILE=/dev/null ip6tables-{backend}-restore"), &v6);
        let program = start();
        let found = said(&program);
        assert_eq!((&found[0], &found[1]), (&of_v4, &of_v6));
        // The policy changes between two requests.
        let other = v4.replace("--dports 8101", "--dports 8102").replace(&hash(0), "changed000000000");
        feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore"), &other);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(said(&program)[0][1], "udp, destination port 8102");
    });
}

#[test]
fn of_legacy_rules() {
    with_iptables("legacy");
}

#[test]
fn of_iptables_nft_rules() {
    with_iptables("nft");
}

#[test]
fn of_calicos_own_nft_rules() {
    let Some(node) = Namespace::new("matches of nftables' rules") else { return };
    node.run(|| {
        let rule = |(place, (matches, _)): (usize, &(&str, &str))| {
            format!("{matches} counter meta mark set meta mark | 0x00010000 comment \"cali:{}; \"\n", hash(place))
        };
        let rules: String = NATIVE.iter().enumerate().map(rule).collect();
        let sets = "set cali40s-peers { type ipv4_addr; flags interval; }\nset cali40n-ports { type ipv4_addr . inet_service; }\n";
        let chain = "chain filter-cali-pi-gnp/default.p2 {";
        let table =
            native().replacen("table ip calico {\n", &format!("table ip calico {{\n{sets}"), 1).replacen(chain, &format!("#\n{chain}"), 1);
        // After the policy's own rules.
        let (before, behind) = table.split_once("}\n#\n").unwrap();
        feed("nft -f -", &format!("{before}{rules}}}\n{behind}"));
        let mut expected = vec!["udp, destination port 1001"];
        expected.extend(NATIVE.iter().map(|(_, words)| *words));
        assert_eq!(said(&start())[0], expected);
    });
}
