//! Nodes with host endpoints only, without any endpoint, and without any of Calico's rules.

use std::fmt::Write;
use std::time::Duration;

use super::{BACKENDS, Lock, WEB_1, alone, backend, logged, ready, run, up, write};
use crate::program::Program;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::prometheus::{self, Prometheus};
use crate::support::scrape::{one, scrape, with};
use crate::support::{can_run, within};

/// Writes chains of host endpoints, and the static chains, but no workload.
fn host_endpoints(backend: &str) {
    let rules = [
        ("cali-FORWARD", "-j MARK --set-xmark 0x0/0xe0000", "meta mark set mark and 0xfff1ffff counter"),
        ("cali-from-host-endpoint", "-i eth0 -g cali-fh-eth0", "iifname \"eth0\" counter goto filter-cali-fh-eth0"),
        ("cali-fh-eth0", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "ct state established,related counter accept"),
        ("cali-fh-eth0", "-m conntrack --ctstate INVALID -j DROP", "ct state invalid counter drop"),
    ];
    if backend == "nftables" {
        let mut text = String::from("table ip calico {\nchain filter-cali-fh-eth0 {}\n");
        for (number, (chain, _, rule)) in rules.iter().enumerate() {
            _ = writeln!(text, "chain filter-{chain} {{ {rule} comment \"cali:{number:016};\"; }}");
        }
        return feed("nft -f -", &(text + "}\n"));
    }
    let mut text = String::from("*filter\n:cali-FORWARD - [0:0]\n:cali-from-host-endpoint - [0:0]\n:cali-fh-eth0 - [0:0]\n");
    for (number, (chain, rule, _)) in rules.iter().enumerate() {
        _ = writeln!(text, "[3:180] -A {chain} -m comment --comment \"cali:{number:016}\" {rule}");
    }
    feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore -c"), &(text + "COMMIT\n"));
}

#[test]
fn host_endpoints_alone_are_reported() {
    for of in BACKENDS {
        let Some(namespace) = Namespace::new("host endpoints only") else { return };
        let lock = Lock::new();
        namespace.run(|| {
            host_endpoints(of);
            let program = Program::start(alone(&lock.path()));
            let samples = scrape(program.port());
            assert_eq!((backend(&samples), one(&samples, "calico_accountant_up", &[])), (vec![of], 1.0), "{:#?}", program.log());
            let drops = [("interface", "eth0"), ("direction", "egress"), ("reason", "invalid")];
            let drops = with(&samples, "calico_accountant_host_endpoint_drop_packets_total", &drops[..1]).count();
            assert!(drops > 0, "{of}");
            assert_eq!(ready(&program).0, 200);
        });
    }
}

/// The last pod is gone. Calico's static chains remain.
#[test]
fn a_node_without_endpoints_is_no_node_without_rules() {
    for of in BACKENDS {
        let Some(namespace) = Namespace::new("no endpoints") else { return };
        let lock = Lock::new();
        namespace.run(|| {
            write(of, &[], true);
            let program = Program::start(alone(&lock.path()));
            let samples = scrape(program.port());
            assert_eq!((backend(&samples), one(&samples, "calico_accountant_up", &[])), (vec![of], 1.0), "{:#?}", program.log());
            assert_eq!(one(&samples, "calico_accountant_chains", &[("state", "present")]), 1.0);
        });
    }
}

/// A firewall's reload removes the whole table, or only the rules in its chains.
#[test]
fn rules_that_vanish_are_missed() {
    for (of, flush) in [
        ("nft", "nft flush ruleset"),
        ("nft", "iptables-nft -F"),
        ("legacy", "iptables-legacy -F; iptables-legacy -X"),
        ("legacy", "iptables-legacy -F"),
        ("nftables", "nft flush ruleset"),
    ] {
        let Some(namespace) = Namespace::new("rules that vanish") else { return };
        let lock = Lock::new();
        namespace.run(|| {
            write(of, &[WEB_1], true);
            let program = Program::start(alone(&lock.path()));
            assert_eq!((up(&program), ready(&program).0), (1.0, 200), "{flush}");
            sh(flush);
            for _ in 0..3 {
                let samples = scrape(program.port());
                assert_eq!(one(&samples, "calico_accountant_up", &[]), 0.0, "{flush}");
                assert_eq!(one(&samples, "calico_accountant_chains", &[("state", "vanished")]), 1.0, "{flush}");
                assert_eq!(with(&samples, "calico_accountant_established_packets_total", &[]).count(), 0, "{flush}");
            }
            let (status, text) = ready(&program);
            assert!(status == 503 && text.contains("have vanished"), "{flush}: {status} {text}");
            assert_eq!(logged(&program, &["have vanished"]), 1, "{flush}: {:#?}", program.log());
            let url = format!("--url=http://127.0.0.1:{}", program.port());
            let (code, said) = run(alone(&lock.path()), &["top", "--once", &url]);
            assert!(code == Some(1) && said.contains("NO RULES OF CALICO'S") && !said.contains("Nothing was dropped"), "{flush}: {said}");
            write(of, &[WEB_1], true);
            assert_eq!((up(&program), ready(&program).0), (1.0, 200), "{flush}");
        });
    }
}

/// `/readyz` does not wait for a scrape to notice it.
#[test]
fn readiness_looks_for_itself() {
    let Some(namespace) = Namespace::new("readiness by itself") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        let program = Program::start(alone(&lock.path()));
        assert!(ready(&program).1.contains("none of Calico's chains is here"));
        write("nft", &[WEB_1], true);
        within(Duration::from_secs(5), "ready by itself", || ready(&program).0 == 200);
    });
}

/// Rules that come back have counted from 0, even if they show more than before.
#[test]
fn rules_that_come_back_begin_anew() {
    let Some(namespace) = Namespace::new("rules that come back") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        let rule = format!("-A cali-tw-{WEB_1} -m comment --comment");
        let load = |packets: u64| {
            let table = super::table(&[WEB_1], true).replacen(&rule, &format!("[{packets}:1] {rule}"), 1);
            feed("XTABLES_LOCKFILE=/dev/null iptables-legacy-restore -c", &table);
        };
        let count = |program: &Program| {
            let samples = scrape(program.port());
            one(&samples, "calico_accountant_established_packets_total", &[("interface", WEB_1)])
        };
        load(5);
        let program = Program::start(alone(&lock.path()));
        assert_eq!(count(&program), 5.0);
        sh("iptables-legacy -F; iptables-legacy -X");
        assert_eq!(up(&program), 0.0);
        load(7);
        assert_eq!(count(&program), 12.0);
        load(9);
        assert_eq!(count(&program), 14.0);
    });
}

/// Felix has not written anything yet, or the exporter reads the wrong back end.
#[test]
fn rules_that_never_were_are_told_from_those_that_vanished() {
    let Some(namespace) = Namespace::new("no rules yet") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        let program = Program::start(alone(&lock.path()));
        let samples = scrape(program.port());
        let chains = |state| one(&samples, "calico_accountant_chains", &[("state", state)]);
        assert_eq!((one(&samples, "calico_accountant_up", &[]), chains("absent"), chains("vanished")), (0.0, 1.0, 0.0));
        assert_eq!(logged(&program, &["Felix has not written any yet"]), 1, "{:#?}", program.log());
        write("nft", &[WEB_1], true);
        assert_eq!(up(&program), 1.0);
        // With the wrong back end, the text says where the rules are.
        let mut wrong = alone(&lock.path());
        wrong.env("BACKEND", "nftables");
        let program = Program::start(wrong);
        assert_eq!(up(&program), 0.0);
        let (status, text) = ready(&program);
        assert!(status == 503 && text.contains("which BACKEND asks for: they are in nft"), "{text}");
    });
}

/// With the shipped rules, in a real Prometheus.
#[test]
fn an_alert_fires_within_a_minute() {
    let test = "alerts of rules that are not there";
    let Some(namespace) = Namespace::new(test) else { return };
    if !can_run(test, prometheus::is_installed(), "prometheus") {
        return;
    }
    let lock = Lock::new();
    namespace.run(|| {
        let empty = Program::start(alone(&lock.path()));
        let target = format!("127.0.0.1:{}", empty.port());
        let rules = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/calico-accountant.rules.yaml");
        let prometheus = Prometheus::with_rules("calico-accountant", &[&target], &rules);
        let firing = |alert: &str| prometheus.value(&format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}")) == Some(1.0);
        within(Duration::from_secs(60), "none was ever there", || firing("CalicoRulesAbsent"));
        write("nft", &[WEB_1], true);
        within(Duration::from_secs(20), "they have come", || !firing("CalicoRulesAbsent"));
        sh("nft flush ruleset");
        within(Duration::from_secs(20), "they have vanished", || firing("CalicoRulesVanished"));
        assert!(!firing("CalicoRulesAbsent"));
    });
}
