//! Many nodes scraped by a real Prometheus: how long its rules and the dashboards' panels take.
//!
//! `WITHSTAND=1` (`make withstand`) uses 500 nodes, takes a quarter of an hour for each test, and prints the figures of
//! docs/cardinality.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::deploy::dashboards::{Panel, Target, dashboards};
use crate::deploy::rules::RULES;
use crate::deploy::scraped::{Chosen, substitute, values};
use crate::series::is_cell;
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::prometheus::{self, Prometheus};
use crate::support::{can_run, is_long};
use crate::table::{self, Size};
use crate::{http, program};

const NODE: Size = Size { workloads: 30, policies: 5, group: 1 };
const NAMESPACES: usize = 20;
/// One cell in 20 counts packets that pass, and one in 200 packets that are lost.
const PASSES: usize = 20;
const LOSES: usize = 200;
const CHOSEN: Chosen = [
    ("namespace", "team-0"),
    ("pod", "app-0-0"),
    ("strict", "bench/knp.default.policy-number-000"),
    ("fallback", "bench/knp.default.policy-number-001"),
];

/// The size of a fleet, and times in seconds.
struct Fleet {
    nodes: usize,
    /// The interval of scrapes and of rules.
    interval: u64,
    /// How long Prometheus scrapes before anything is measured. Dashboards show all of this time.
    fills: u64,
    /// How long rules are measured then.
    looks: u64,
}

const SHORT: Fleet = Fleet { nodes: 20, interval: 5, fills: 40, looks: 10 };
const LONG: Fleet = Fleet { nodes: 500, interval: 30, fills: 600, looks: 180 };

#[test]
fn with_zeros() {
    measure("keep");
}

#[test]
fn without_zeros() {
    measure("omit");
}

fn measure(zeros: &str) {
    let name = format!("fleet::measure({zeros})");
    if !can_run(&name, prometheus::is_installed(), "prometheus") {
        return;
    }
    let fleet @ Fleet { nodes, interval, .. } = if is_long() { LONG } else { SHORT };
    let text = node_text();
    let texts = (0..nodes).map(|node| samples(&text, node, zeros == "omit")).collect();
    let port = serve(texts);
    let targets: Vec<Value> = (0..nodes)
        .map(|node| {
            let labels =
                json!({"__metrics_path__": format!("/{node}"), "instance": format!("node-{node}:9009"), "node": format!("node-{node}")});
            json!({"targets": [format!("127.0.0.1:{port}")], "labels": labels})
        })
        .collect();
    let every = format!("{interval}s");
    let prometheus = Prometheus::start(&json!({
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [crate::deploy::path(RULES)],
        "scrape_configs": [{"job_name": "kube-system/calico-accountant", "honor_labels": true, "static_configs": targets}],
    }));
    thread::sleep(Duration::from_secs(fleet.fills));
    let (groups, rules) = evaluations(&prometheus, &fleet);
    let head = &prometheus.call("/api/v1/status/tsdb", &[])["headStats"]["numSeries"];
    let samples = prometheus.value("sum(scrape_samples_post_metric_relabeling)").unwrap();
    let memory = |field| crate::support::status(prometheus.pid(), field) / 1024;
    println!(
        "\nZERO_SERIES={zeros}, {nodes} nodes: {samples} samples each {every}, {:.0} a second; {head} series",
        samples / interval as f64
    );
    println!("memory {} MB, at most {} MB", memory("VmRSS"), memory("VmHWM"));
    println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap().trim());
    let down = prometheus.value("count(up == 0) or vector(0)");
    let panels = panels(&prometheus, &fleet);
    let (group, panel) = (print("groups of rules", groups), print("panels", panels));
    print("rules", rules);
    assert_eq!(down, Some(0.0), "targets that are down");
    if is_long() {
        assert!(group < 1.0, "a group takes {group} s");
        assert!(panel < 2.0, "a panel takes {panel} s");
    }
}

/// How long something took each time, in seconds, by name.
type Took = BTreeMap<String, Vec<f64>>;

/// Prints the slowest ones, by their medians. Returns the largest median.
fn print(what: &str, took: Took) -> f64 {
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() - 1])
    };
    let mut all: Vec<_> = took.into_iter().map(|(name, times)| (median(times), name)).collect();
    all.sort_by(|a, b| b.0.0.total_cmp(&a.0.0));
    println!("{what}, median and most:");
    all.iter().take(12).for_each(|((median, most), name)| println!("  {median:.3} s  {most:.3} s  {name}"));
    all[0].0.0
}

/// The text of the real exporter for a node of this size.
fn node_text() -> String {
    let etcd = Etcd::plain().expect("etcd");
    (0..NODE.workloads).map(table::workload).chain((0..NODE.policies).map(table::policy)).for_each(|object| etcd.put(&object));
    let fakes = Fakes::tables(&table::table(NODE), "");
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("ETCD_ENDPOINTS", etcd.url()).env("METRIC_NAMES", "standard");
    let program = program::Program::start(command);
    let port = program.port();
    program::await_some(|| http::get(port, "/readyz").ok().filter(|answer| answer.status == 200), || "readiness".into());
    http::get(port, "/metrics").unwrap().text().to_owned()
}

/// A line of the text. For a counter of packets, also how much it increases each second.
type Sample = (String, Option<usize>);

/// The lines of another node, with other pods. With `omit`, only those cells that count.
fn samples(text: &str, node: usize, omit: bool) -> Vec<Sample> {
    let mut cells = 0;
    let sample = |line: &str| {
        let (series, _) = line.rsplit_once(' ')?;
        if line.starts_with('#') || !series.contains("_packets_total") {
            return Some((renamed(line, node), None));
        }
        cells += usize::from(is_cell(series));
        let one_in = if series.contains("_drop_") || series.contains("\"deny\"") { LOSES } else { PASSES };
        let counts = (cells + node * 7).is_multiple_of(one_in) && is_cell(series) || series.contains("_rule_");
        (counts || !omit || !is_cell(series)).then(|| (renamed(series, node), Some(usize::from(counts) * (1 + cells % 3))))
    };
    text.lines().filter_map(sample).collect()
}

fn renamed(line: &str, node: usize) -> String {
    let line = line.replace("node=\"node-1\"", &format!("node=\"node-{node}\"")).replace("ip=\"10.0.", &format!("ip=\"10.{node}."));
    let line = line.replace("interface=\"cali00000", &format!("interface=\"cali{node:05}"));
    let Some((before, pod)) = line.split_once("pod=\"app-") else { return line };
    let ((_, after), workload) = (pod.split_once('"').unwrap(), pod.split('-').next().unwrap());
    let namespace = format!("team-{}", (workload.parse::<usize>().unwrap() + node) % NAMESPACES);
    format!("{}pod=\"app-{workload}-{node}\"{after}", before.replace("namespace=\"bench\"", &format!("namespace=\"{namespace}\"")))
}

/// Answers `GET /17` with the present text of node 17.
fn serve(nodes: Vec<Vec<Sample>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (nodes, began) = (Arc::new(nodes), Instant::now());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let nodes = Arc::clone(&nodes);
            thread::spawn(move || answer(&connection.unwrap(), &nodes, began));
        }
    });
    port
}

/// Answers requests until the connection ends.
fn answer(mut connection: &TcpStream, nodes: &[Vec<Sample>], began: Instant) -> Option<()> {
    let mut lines = BufReader::new(connection).lines();
    loop {
        let request = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let node: usize = request.split(['/', ' ']).nth(2)?.parse().ok()?;
        let seconds = began.elapsed().as_secs() as usize;
        let line = |(text, rate): &Sample| rate.map_or_else(|| format!("{text}\n"), |rate| format!("{text} {}\n", rate * seconds));
        let body: String = nodes[node].iter().map(line).collect();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length:";
        write!(connection, "{head} {}\r\n\r\n{body}", body.len()).ok()?;
    }
}

/// How long each evaluation of each group and each rule took.
fn evaluations(prometheus: &Prometheus, fleet: &Fleet) -> (Took, Took) {
    let (mut groups, mut rules, mut seen) = (Took::new(), Took::new(), BTreeSet::new());
    let note = |took: &mut Took, of: &Value| {
        took.entry(of["name"].as_str().unwrap().to_owned()).or_default().push(of["evaluationTime"].as_f64().unwrap());
    };
    let began = Instant::now();
    while began.elapsed().as_secs() < fleet.looks {
        for group in prometheus.call("/api/v1/rules", &[])["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                assert_eq!(rule["health"], "ok", "{rule}");
            }
            if seen.insert((group["name"].to_string(), group["lastEvaluation"].to_string())) {
                note(&mut groups, group);
                group["rules"].as_array().unwrap().iter().for_each(|rule| note(&mut rules, rule));
            }
        }
        thread::sleep(Duration::from_secs(fleet.interval / 3));
    }
    (groups, rules)
}

/// How long each panel takes if its queries run one after the other. Measures five times.
fn panels(prometheus: &Prometheus, fleet: &Fleet) -> Took {
    let mut took = Took::new();
    let mut note = |name: String, began: Instant| took.entry(name).or_default().push(began.elapsed().as_secs_f64());
    for dashboard in (0..5).flat_map(|_| dashboards()) {
        let began = Instant::now();
        let values = values(prometheus, &dashboard, &CHOSEN, &mut Vec::new());
        note(format!("{}: variables", dashboard.title), began);
        for Panel { title, targets, .. } in &dashboard.panels {
            let began = Instant::now();
            targets.iter().for_each(|target| ask(prometheus, target, &values, fleet));
            note(format!("{}: {title}", dashboard.title), began);
        }
    }
    took
}

fn ask(prometheus: &Prometheus, target: &Target, values: &BTreeMap<String, String>, &Fleet { interval, fills: range, .. }: &Fleet) {
    let expression = target.expr.replace("$__rate_interval", &format!("{}s", 4 * interval)).replace("$__range", &format!("{range}s"));
    let expression = substitute(&expression, values);
    if target.instant {
        return drop(prometheus.query(&expression));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (start, end, step) = ((now - range).to_string(), now.to_string(), interval.to_string());
    prometheus.call("/api/v1/query_range", &[("query", &expression), ("start", &start), ("end", &end), ("step", &step)]);
}
