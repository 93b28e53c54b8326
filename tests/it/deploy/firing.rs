//! Every alert fires and ends in a real Prometheus, over real exporters whose nodes break and recover. Only times and two thresholds are
//! shorter than in the shipped rules.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{self, Program};
use crate::support::etcd::{Etcd, Scratch, free_port};
use crate::support::fakes::Fakes;
use crate::support::prometheus::{self, Prometheus};
use crate::support::{can_run, fixture, within};

use super::rules::{RULES, alerts};
use super::scraped::JOB;

/// Every time in the rules, and what is slow or stale.
const SHORTER: &[(&str, &str)] = &[
    ("[5m]", "[10s]"),
    ("[2m]", "[10s]"),
    ("[30m]", "[20s]"),
    ("[1h]", "[20s]"),
    ("offset 1d", "offset 25s"),
    ("offset 1h", "offset 15s"),
    (">= 5", ">= 2"),
    ("> 50", "> 1"),
    ("> 900", "> 3"),
    ("stage=\"total\"} > 5", "stage=\"total\"} > 0.5"),
];

fn shorter(rules: &str) -> String {
    let short = |line: &str| match line.trim_start().starts_with("for: ") {
        true => line[..line.len() - line.trim_start().len()].to_owned() + "for: 2s\n",
        false => SHORTER.iter().fold(line.to_owned(), |line, (long, short)| line.replace(long, short)) + "\n",
    };
    rules.lines().map(short).collect()
}

/// A node with an exporter, whose tables are what programs print.
struct Node {
    fakes: Fakes,
    scratch: Scratch,
    port: u16,
    settings: Vec<(&'static str, String)>,
    program: Option<Program>,
}

impl Node {
    fn start(settings: &[(&'static str, &str)], backend: &str, moment: &str) -> Self {
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut node = Node { fakes: Fakes::new(), scratch: Scratch::new(), port: free_port(), settings, program: None };
        node.shows(backend, moment, |text| text);
        node.fakes.set(&format!("ip6tables-{backend}-save"), "");
        fs::write(node.lock(), "").unwrap();
        node.start_again();
        node
    }

    fn lock(&self) -> PathBuf {
        self.scratch.path().join("lock")
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on its tables are these.
    fn shows(&self, backend: &str, moment: &str, change: impl Fn(String) -> String) {
        let text = fixture::text(&format!("captures/v3.28.5-legacy/{moment}/iptables-save.txt.gz"));
        self.fakes.prints(&format!("iptables-{backend}-save"), &change(text));
    }

    fn start_again(&mut self) {
        self.program = None;
        let mut command = program::command();
        command.env("PATH", self.fakes.path()).env("DATASTORE_TYPE", "none").env("SAMPLE_INTERVAL", "0").env("SOURCE", "save");
        command.env("METRICS_SERVER_PORT", self.port.to_string()).env("XTABLES_LOCKFILE", self.lock()).env("XTABLES_LOCK_WAIT", "50ms");
        command.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        let program = Program::start(command);
        program.port();
        self.program = Some(program);
    }
}

/// As kube-state-metrics: which nodes there are.
struct Nodes {
    port: u16,
    text: Arc<Mutex<String>>,
}

impl Nodes {
    fn serve() -> Self {
        let (port, text) = (free_port(), Arc::new(Mutex::new(String::new())));
        let (listener, shown) = (TcpListener::bind(("127.0.0.1", port)).unwrap(), Arc::clone(&text));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                _ = stream.read(&mut [0; 4096]);
                let body = shown.lock().unwrap().clone();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: ";
                _ = write!(stream, "{head}{}\r\n\r\n{body}", body.len());
            }
        });
        Nodes { port, text }
    }

    fn are(&self, names: &[&str]) {
        let series = names.iter().map(|name| format!("kube_node_info{{node=\"{name}\"}} 1\n"));
        *self.text.lock().unwrap() = "# TYPE kube_node_info gauge\n".to_owned() + &series.collect::<String>();
    }
}

/// Prometheus, and which alerts were seen to fire and to end.
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
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
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

    /// Waits until all of them fire, by their labels.
    fn fire(&mut self, alerts: &[(&'static str, String)]) {
        for (alert, labels) in alerts {
            within(Duration::from_secs(60), &format!("{alert} {labels} fires"), || self.is_firing(alert, labels));
            self.seen.insert(alert);
        }
    }

    fn end(&self, alerts: &[(&'static str, String)]) {
        for (alert, labels) in alerts {
            within(Duration::from_secs(60), &format!("{alert} {labels} ends"), || !self.is_firing(alert, labels));
        }
    }

    /// The links of what fires lead to a runbook.
    fn links(&self) -> Vec<String> {
        let alerts = self.prometheus.call("/api/v1/alerts", &[])["alerts"].take();
        alerts.as_array().unwrap().iter().map(|alert| alert["annotations"]["runbook_url"].as_str().unwrap().to_owned()).collect()
    }
}

fn on(node: &Node) -> String {
    format!("instance=\"{}\"", node.address())
}

/// Packets at interfaces without an endpoint, too.
fn with_strays(text: String) -> String {
    let (known, stray) = ("[0:0] -A cali-from-wl-dispatch ", "[300:18000] -A cali-from-wl-dispatch ");
    text.lines().map(|line| if line.contains("Unknown interface") { line.replace(known, stray) } else { line.to_owned() } + "\n").collect()
}

/// What the datastore of these tables held, by key.
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
    if !can_run("every alert in a real Prometheus", prometheus::is_installed(), "prometheus") {
        return;
    }
    let Some(mut etcd) = Etcd::plain() else { return };
    stored().iter().for_each(|pair| etcd.put(pair));
    let named = [("DATASTORE_TYPE", "etcdv3"), ("ETCD_ENDPOINTS", &etcd.url()), ("NODENAME", "node1")];
    let plain = Node::start(&[("NODENAME", "plain")], "nft", "t1");
    let pods = Node::start(&named, "nft", "t1");
    let legacy = Node::start(&[("BACKEND", "legacy"), ("NODENAME", "legacy")], "legacy", "t1");
    let mut restarts = Node::start(&[("NODENAME", "restarts")], "nft", "t1");
    let nodes = Nodes::serve();
    nodes.are(&["plain", "node1", "legacy", "restarts"]);
    let targets = [&plain, &pods, &legacy, &restarts].map(Node::address);
    let mut watch = Watch::start(&nodes, &targets);
    within(Duration::from_secs(30), "all are scraped", || watch.prometheus.value("count(calico_accountant_up == 1)") == Some(4.0));
    std::thread::sleep(Duration::from_secs(5));
    let unexpected = watch.prometheus.query(r#"ALERTS{alertstate="firing",alertname!="CalicoAccountantDatastoreStale"}"#);
    // Of workloads that nobody names.
    assert!(unexpected.iter().all(|(alert, _)| alert["alertname"] == "CalicoAccountantUnknownWorkloads"), "{unexpected:?}");

    traffic(&mut watch, &plain, &pods, &legacy, &mut restarts, &nodes);
    tables(&mut watch, &mut etcd, &plain, &pods, &legacy, &restarts);
    names(&mut watch, &etcd, &plain, &pods, &named);
    targets_go(&mut watch, &nodes, &targets, &plain, &mut restarts);
    assert_eq!(watch.seen, alerts().iter().map(|rule| rule.alert.as_str()).collect::<BTreeSet<_>>());
}

/// Packets that are dropped for some seconds; beside that a lock that is held, an exporter that ends again and again, a node without one.
fn traffic(watch: &mut Watch, plain: &Node, pods: &Node, legacy: &Node, restarts: &mut Node, nodes: &Nodes) {
    plain.shows("nft", "t2", with_strays);
    pods.shows("nft", "t2", with_strays);
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
        ("CalicoDropsWithoutEndpoint", on(plain)),
    ];
    watch.fire(&drops);
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
        std::thread::sleep(Duration::from_millis(1500));
    }
    let later = [("CalicoAccountantRestarts", on(restarts)), ("CalicoPolicySeesLess", "policy=\"shop/default.web-allow\"".to_owned())];
    watch.fire(&later);
    watch.end(&later);
}

/// Tables that are gone, that were never there, that are not understood, that are read slowly or without the lock; a datastore that is gone.
fn tables(watch: &mut Watch, etcd: &mut Etcd, plain: &Node, pods: &Node, legacy: &Node, restarts: &Node) {
    let begun = Node::start(&[("NODENAME", "begun")], "nft", "t1");
    begun.shows("nft", "t1", |_| none());
    let mut begun = begun;
    begun.start_again();
    watch.scrapes(&[plain, pods, legacy, restarts, &begun].map(Node::address));
    plain.shows("nft", "t2", |_| none());
    restarts.shows("nft", "t2", |text| text.replace("-j DROP", "-m cluster --cluster-total-nodes 2 -j SHRUG"));
    fs::remove_file(legacy.lock()).unwrap();
    legacy.fakes.set("ip6tables-legacy-save", "sleep 0.7");
    etcd.kill();
    let troubles = [
        ("CalicoRulesVanished", on(plain)),
        ("CalicoRulesAbsent", on(&begun)),
        ("CalicoAccountantUnrecognisedRules", on(restarts)),
        ("CalicoAccountantReadsWithoutLock", on(legacy)),
        ("CalicoAccountantSlow", on(legacy)),
        ("CalicoAccountantDatastoreDown", on(pods)),
        ("CalicoAccountantDatastoreStale", on(pods)),
    ];
    watch.fire(&troubles);
    [plain, restarts, &begun].iter().for_each(|node| node.shows("nft", "t2", |text| text));
    fs::write(legacy.lock(), "").unwrap();
    legacy.fakes.set("ip6tables-legacy-save", "");
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

/// Names without rules, rules without names, and rules in two places.
fn names(watch: &mut Watch, etcd: &Etcd, plain: &Node, pods: &Node, named: &[(&'static str, &str)]) {
    let empty = |text: String| {
        text.lines().filter(|line| !line.contains("cali-tw-") && !line.contains("cali-fw-")).fold(none(), |all, line| all + line + "\n")
    };
    let mut without = Node::start(named, "nft", "t1");
    without.shows("nft", "t1", empty);
    without.start_again();
    watch.scrapes(&[plain, pods, &without].map(Node::address));
    let stored: Vec<_> = stored().into_iter().filter(|(key, _)| key.contains("/workloadendpoints/infra/")).collect();
    stored.iter().for_each(|(key, _)| etcd.delete(key));
    plain.shows("legacy", "t2", |text| text);
    plain.fakes.set("ip6tables-legacy-save", "");
    let troubles = [
        ("CalicoWorkloadsWithoutRules", on(&without)),
        ("CalicoAccountantUnknownWorkloads", on(pods)),
        ("CalicoAccountantInDoubt", on(plain)),
    ];
    watch.fire(&troubles);
    without.shows("nft", "t1", |text| text);
    stored.iter().for_each(|pair| etcd.put(pair));
    plain.fakes.set("iptables-legacy-save", "");
    watch.end(&troubles);
}

/// One exporter ends, is no target any more, and is back; and then all of them.
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
