//! Every alert fires and ends in a real Prometheus, for real exporters on nodes that break and recover. The rules are as shipped, except
//! for shorter times and two lower thresholds.

mod nodes;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::etcd::{Etcd, Scratch};
use crate::support::netns::{Namespace, sh};
use crate::support::prometheus::{self, Prometheus};
use crate::support::{can_run, fixture, within};

use super::rules::{RULES, alerts};
use super::scraped::JOB;
use nodes::{Node, Nodes};

/// How long to wait for an alert to fire or to end.
const LIMIT: Duration = Duration::from_secs(90);

/// Replacements for the times in the rules, and for the thresholds of slow and stale.
const SHORTER: &[(&str, &str)] = &[
    ("[5m]", "[20s]"),
    ("[2m]", "[20s]"),
    ("[30m]", "[40s]"),
    ("[1h]", "[40s]"),
    ("offset 1d", "offset 45s"),
    ("offset 1h", "offset 20s"),
    (">= 5", ">= 2"),
    ("> 50", "> 1"),
    ("> 900", "> 10"),
    ("stage=\"total\"} > 5", "stage=\"total\"} > 1.5"),
];

fn shorter(rules: &str) -> String {
    let short = |line: &str| match line.trim_start().starts_with("for: ") {
        true => line[..line.len() - line.trim_start().len()].to_owned() + "for: 2s\n",
        false => SHORTER.iter().fold(line.to_owned(), |line, (long, short)| line.replace(long, short)) + "\n",
    };
    rules.lines().map(short).collect()
}

/// Prometheus, and which alerts have fired.
struct Watch {
    prometheus: Prometheus,
    targets: PathBuf,
    seen: BTreeSet<&'static str>,
    _scratch: Scratch,
}

impl Watch {
    fn start(nodes: &Nodes, targets: &[String]) -> Self {
        let scratch = Scratch::new();
        let (rules, file) = (scratch.path().join("rules.yaml"), scratch.path().join("targets.json"));
        fs::write(&rules, shorter(&super::text(RULES))).unwrap();
        fs::write(&file, json!([{"targets": targets}]).to_string()).unwrap();
        let prometheus = Prometheus::start(&json!({
            "global": {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [
                {"job_name": JOB, "honor_labels": true, "file_sd_configs": [{"files": [file], "refresh_interval": "1s"}]},
                {"job_name": "kube-state-metrics", "static_configs": [{"targets": [format!("127.0.0.1:{}", nodes.port)]}]},
            ],
        }));
        Watch { prometheus, targets: file, seen: BTreeSet::new(), _scratch: scratch }
    }

    fn scrapes(&self, targets: &[String]) {
        fs::write(&self.targets, json!([{"targets": targets}]).to_string()).unwrap();
    }

    fn is_firing(&self, alert: &str, labels: &str) -> bool {
        !self.prometheus.query(&format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",{labels}}}")).is_empty()
    }

    /// Waits until all of these fire, with these labels.
    fn fire(&mut self, alerts: &[(&'static str, String)]) {
        self.fire_while(alerts, || ());
    }

    /// Calls `meanwhile` again and again until they have fired.
    fn fire_while(&mut self, alerts: &[(&'static str, String)], mut meanwhile: impl FnMut()) {
        let (begun, mut missing) = (Instant::now(), alerts.to_vec());
        while !missing.is_empty() {
            let firing = || self.prometheus.query("{__name__=~\"workload.*|ALERTS\"}");
            assert!(begun.elapsed() < LIMIT, "do not fire: {missing:?}; {:?} {:?}", firing(), self.unhealthy());
            std::thread::sleep(Duration::from_millis(500));
            meanwhile();
            missing.retain(|(alert, labels)| !self.is_firing(alert, labels));
        }
        self.seen.extend(alerts.iter().map(|(alert, _)| alert));
    }

    fn end(&self, alerts: &[(&'static str, String)]) {
        let (begun, mut firing) = (Instant::now(), alerts.to_vec());
        while !firing.is_empty() {
            assert!(begun.elapsed() < LIMIT, "do not end: {firing:?}");
            std::thread::sleep(Duration::from_millis(500));
            firing.retain(|(alert, labels)| self.is_firing(alert, labels));
        }
    }

    /// Rules that could not be evaluated.
    fn unhealthy(&self) -> Vec<Value> {
        let groups = self.prometheus.call("/api/v1/rules", &[])["groups"].take();
        let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
        rules.filter(|rule| rule["health"] != "ok").collect()
    }

    /// The runbook links of the alerts that fire.
    fn links(&self) -> Vec<String> {
        let alerts = self.prometheus.call("/api/v1/alerts", &[])["alerts"].take();
        alerts.as_array().unwrap().iter().map(|alert| alert["annotations"]["runbook_url"].as_str().unwrap().to_owned()).collect()
    }
}

fn on(node: &Node) -> String {
    format!("instance=\"{}\"", node.address())
}

/// The tables with `factor` times as many packets.
fn times(factor: u64) -> impl Fn(String) -> String {
    move |text| {
        let line = |line: &str| {
            let parts = line.strip_prefix('[').and_then(|rest| rest.split_once(':')?.0.parse::<u64>().ok().zip(rest.split_once(']')));
            let Some((packets, (_, rest))) = parts else { return line.to_owned() + "\n" };
            format!("[{}:{}]{rest}\n", factor * packets, factor * packets * 60)
        };
        text.lines().map(line).collect()
    }
}

/// This number of packets at interfaces without an endpoint.
fn strays(packets: u64) -> impl Fn(String) -> String {
    let (none, some) = ("[0:0] -A cali-from-wl-dispatch ", format!("[{packets}:1] -A cali-from-wl-dispatch "));
    move |text| {
        let line = |line: &str| if line.contains("Unknown interface") { line.replace(none, &some) } else { line.to_owned() };
        text.lines().map(|text| line(text) + "\n").collect()
    }
}

/// What the datastore for these tables held, as keys and values.
fn stored() -> Vec<(String, String)> {
    let text = fixture::text("captures/v3.28.5-legacy/etcd.jsonl.gz");
    let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    objects.map(|object| (object["key"].as_str().unwrap().to_owned(), object["value"].to_string())).collect()
}

fn none() -> String {
    String::new()
}

#[test]
fn every_alert_fires_and_ends_in_a_real_prometheus() {
    let test = "every alert in a real Prometheus";
    let Some(namespace) = Namespace::new(test) else { return };
    if can_run(test, prometheus::is_installed(), "prometheus") {
        namespace.run(|| {
            // The legacy tables exist, so the exporter reads them too.
            sh("XTABLES_LOCKFILE=/dev/null iptables-legacy -A INPUT -s 192.0.2.1 -j DROP");
            Etcd::plain().into_iter().for_each(nodes_break_and_recover);
        });
    }
}

fn nodes_break_and_recover(mut etcd: Etcd) {
    stored().iter().for_each(|pair| etcd.put(pair));
    let named = [("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", &etcd.url()), ("NODENAME", "node1")];
    let plain = Node::start(&[("NODENAME", "plain")], "nft", "t2");
    let pods = Node::start(&named, "nft", "t2");
    let legacy = Node::start(&[("BACKEND", "legacy"), ("NODENAME", "legacy")], "legacy", "t1");
    let mut restarts = Node::start(&[("NODENAME", "restarts")], "nft", "t1");
    let nodes = Nodes::serve();
    nodes.are(&["plain", "node1", "legacy", "restarts"]);
    let targets = [&plain, &pods, &legacy, &restarts].map(Node::address);
    let mut watch = Watch::start(&nodes, &targets);
    within(Duration::from_secs(30), "all are scraped", || watch.prometheus.value("count(calico_accountant_up == 1)") == Some(4.0));
    std::thread::sleep(Duration::from_secs(5));
    let unexpected = watch.prometheus.query(r#"ALERTS{alertstate="firing",alertname!="CalicoAccountantDatastoreStale"}"#);
    // About workloads without a name.
    assert!(unexpected.iter().all(|(alert, _)| alert["alertname"] == "CalicoAccountantUnknownWorkloads"), "{unexpected:?}");

    traffic(&mut watch, &plain, &pods, &legacy, &mut restarts, &nodes);
    tables(&mut watch, &mut etcd, &plain, &pods, &legacy, &restarts);
    names(&mut watch, &etcd, &pods, &named);
    targets_go(&mut watch, &nodes, &targets, &plain, &mut restarts);
    assert_eq!(watch.seen, alerts().iter().map(|rule| rule.alert.as_str()).collect::<BTreeSet<_>>());
}

/// Packets are dropped for some seconds. Meanwhile a lock is held, an exporter ends again and again, and one node has none.
fn traffic(watch: &mut Watch, plain: &Node, pods: &Node, legacy: &Node, restarts: &mut Node, nodes: &Nodes) {
    let held = File::open(legacy.lock()).unwrap();
    held.lock().unwrap();
    nodes.are(&["plain", "node1", "lonely"]);
    let drops = [
        ("CalicoPolicyDenies", none()),
        ("CalicoNamespaceDrops", "namespace=\"shop\",reason=\"no_policy\"".to_owned()),
        ("CalicoSustainedDrops", "pod!=\"\"".to_owned()),
        ("CalicoSustainedDrops", format!("pod=\"\",interface!=\"\",{}", on(plain))),
        ("CalicoDropBurst", "namespace=\"shop\"".to_owned()),
        ("CalicoDropBurst", format!("interface!=\"\",{}", on(plain))),
        ("CalicoHostEndpointDrops", format!("interface=\"eth1\",{}", on(plain))),
        ("CalicoDropsWithoutEndpoint", on(restarts)),
    ];
    let (mut factor, mut last) = (1, Instant::now());
    // Not often: what comes while a table is read is held back until the next read.
    let packets_come = || {
        if factor == 1 || last.elapsed() > Duration::from_secs(5) {
            (factor, last) = (factor + 1, Instant::now());
            [plain, pods].iter().for_each(|node| node.shows("nft", "t2", times(factor)));
            restarts.shows("nft", "t1", strays(factor));
        }
    };
    watch.fire_while(&drops, packets_come);
    let rest = [
        ("CalicoAccountantLockTimeouts", on(legacy)),
        ("CalicoAccountantCannotRead", on(legacy)),
        ("CalicoAccountantMissing", "node=\"lonely\"".to_owned()),
    ];
    watch.fire(&rest);
    for link in watch.links() {
        assert!(link.starts_with("http://127.0.0.1:") && link.contains("/runbook#calico"), "{link}");
    }
    drop(held);
    nodes.are(&["plain", "node1"]);
    watch.end(&rest);
    watch.end(&drops);
    for _ in 0..6 {
        restarts.start_again();
        std::thread::sleep(Duration::from_secs(4));
    }
    let later = [("CalicoAccountantRestarts", on(restarts)), ("CalicoPolicySeesLess", "policy=\"shop/default.web-allow\"".to_owned())];
    watch.fire(&later);
    watch.end(&later);
}

/// Tables that disappear, that never existed, that are not understood, that are read slowly or without the lock, and a datastore that is
/// gone.
fn tables(watch: &mut Watch, etcd: &mut Etcd, plain: &Node, pods: &Node, legacy: &Node, restarts: &Node) {
    let begun = Node::start(&[("NODENAME", "begun")], "nft", "t1");
    begun.shows("nft", "t1", |_| none());
    let mut begun = begun;
    begun.start_again();
    watch.scrapes(&[plain, pods, legacy, restarts, &begun].map(Node::address));
    plain.shows("nft", "t2", |_| none());
    restarts.shows("nft", "t2", |text| text.replace("-j DROP", "-m cluster --cluster-total-nodes 2 -j SHRUG"));
    fs::remove_file(legacy.lock()).unwrap();
    restarts.fakes.set("ip6tables-nft-save", "sleep 1.8");
    etcd.kill();
    let troubles = [
        ("CalicoRulesVanished", on(plain)),
        ("CalicoRulesAbsent", on(&begun)),
        ("CalicoAccountantUnrecognisedRules", on(restarts)),
        ("CalicoAccountantReadsWithoutLock", on(legacy)),
        ("CalicoAccountantSlow", on(restarts)),
        ("CalicoAccountantDatastoreDown", on(pods)),
        ("CalicoAccountantDatastoreStale", on(pods)),
    ];
    watch.fire(&troubles);
    [plain, restarts, &begun].iter().for_each(|node| node.shows("nft", "t2", |text| text));
    fs::write(legacy.lock(), "").unwrap();
    restarts.fakes.set("ip6tables-nft-save", "");
    etcd.start_again();
    let (stale, others) = troubles.split_last().unwrap();
    watch.end(others);
    let put = (format!("{WORKLOADS}other/x"), "{}".to_owned());
    within(Duration::from_secs(30), "what the datastore tells is news again", || {
        etcd.put(&put);
        !watch.is_firing(stale.0, &stale.1)
    });
    watch.scrapes(&[plain, pods, legacy, restarts].map(Node::address));
}

const WORKLOADS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";

/// Names without rules, rules without names, and rules in two back ends.
fn names(watch: &mut Watch, etcd: &Etcd, pods: &Node, named: &[(&'static str, &str)]) {
    let empty = |text: String| {
        text.lines().filter(|line| !line.contains("cali-tw-") && !line.contains("cali-fw-")).fold(none(), |all, line| all + line + "\n")
    };
    let mut without = Node::start(named, "nft", "t1");
    without.shows("nft", "t1", empty);
    without.start_again();
    let stored: Vec<_> = stored().into_iter().filter(|(key, _)| key.contains("/workloadendpoints/infra/")).collect();
    stored.iter().for_each(|(key, _)| etcd.delete(key));
    let mut doubled = Node::start(&[("NODENAME", "doubled")], "nft", "t2");
    doubled.shows("legacy", "t2", |text| text);
    doubled.start_again();
    watch.scrapes(&[pods, &without, &doubled].map(Node::address));
    let troubles = [
        ("CalicoWorkloadsWithoutRules", on(&without)),
        ("CalicoAccountantUnknownWorkloads", on(pods)),
        ("CalicoAccountantInDoubt", on(&doubled)),
    ];
    watch.fire(&troubles);
    without.shows("nft", "t1", |text| text);
    stored.iter().for_each(|pair| etcd.put(pair));
    doubled.fakes.set("iptables-legacy-save", "");
    watch.end(&troubles);
}

/// One exporter ends, is removed from the targets, and comes back. Then all of them do.
fn targets_go(watch: &mut Watch, nodes: &Nodes, targets: &[String; 4], plain: &Node, restarts: &mut Node) {
    watch.scrapes(targets);
    let (down, gone) = (("CalicoAccountantDown", on(restarts)), ("CalicoAccountantTargetGone", on(restarts)));
    restarts.program = None;
    watch.fire(std::slice::from_ref(&down));
    watch.scrapes(&targets[..3]);
    nodes.are(&[]);
    watch.fire(std::slice::from_ref(&gone));
    watch.end(std::slice::from_ref(&down));
    restarts.start_again();
    watch.scrapes(targets);
    watch.end(&[gone]);
    let absent = [("CalicoAccountantAbsent", none())];
    watch.scrapes(&[]);
    watch.fire(&absent);
    watch.scrapes(&[plain.address()]);
    watch.end(&absent);
}
