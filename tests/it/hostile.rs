//! Hostile datastores: endless lists and watches, names and reasons of megabytes, arrays of nothing. The exporter must not grow, must not
//! fill the log, and must still answer.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use crate::etcd::endpoint;
use crate::etcd::fake::{HEADER, gateway, head};
use crate::http;
use crate::program::{self, Program};
use crate::support::fakes::Fakes;
use crate::support::status;
use crate::table;

/// In kB. The manifests' limit is 256 MiB.
const MOST_MEMORY: usize = 64 << 10;
const MOST_LOG: usize = 2 << 20;
const MOST_ANSWER: usize = 1 << 20;
/// How long an attack may last.
const PATIENCE: Duration = Duration::from_secs(90);
const NODE: &str = "node-1";

/// Answers a request for a path with a body.
type Answer = Box<dyn Fn(&str, &str, &mut TcpStream) + Send + Sync>;

/// A datastore. `over` is a text in the exporter's log or metrics which shows that the attack is over.
struct Attack {
    name: &'static str,
    kubernetes: bool,
    answer: Answer,
    over: &'static str,
}

fn etcd(name: &'static str, over: &'static str, answer: Answer) -> Attack {
    Attack { name, kubernetes: false, answer, over }
}

fn kubernetes(name: &'static str, over: &'static str, answer: Answer) -> Attack {
    Attack { name, kubernetes: true, answer, over }
}

/// Attacks an exporter. Returns what is wrong with it then.
fn withstands(Attack { name, kubernetes, answer, over }: Attack) -> Option<String> {
    let url = gateway(answer);
    let fakes = Fakes::tables(&table::table(table::Size { workloads: 9, policies: 50, group: 1 }), "");
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("BACKEND", "nft").env("SOURCE", "save").env("POD_LOGS_DIR", "/nowhere");
    match kubernetes {
        true => command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "kubernetes").env("K8S_API_ENDPOINT", url),
        false => command.env("ETCD_ENDPOINTS", url),
    };
    let mut program = Program::start(command);
    let (port, began, mut largest, mut is_over) = (program.port(), Instant::now(), 0, false);
    while !is_over && began.elapsed() < PATIENCE && program.is_running() && status(program.pid(), "VmHWM") < 2 * MOST_MEMORY {
        thread::sleep(Duration::from_millis(300));
        let [metrics, status, health] = ["/metrics", "/api/v1/status", "/healthz"].map(|path| http::get(port, path).map_err(|_| ()));
        is_over = program.log().iter().any(|line| line.contains(over)) || metrics.as_ref().is_ok_and(|answer| answer.text().contains(over));
        let size = |answer: Result<http::Answer, ()>| answer.map_or(usize::MAX, |answer| answer.body.len());
        largest = [metrics, status, health].map(size).into_iter().fold(largest, usize::max);
    }
    let memory = if program.is_running() { status(program.pid(), "VmHWM") } else { usize::MAX };
    let log: usize = program.log().iter().map(String::len).sum();
    println!("{name}: {:?}, {} MB, {} kB of log, answers of up to {} kB", began.elapsed(), memory >> 10, log >> 10, largest >> 10);
    let bad = !is_over || memory > MOST_MEMORY || log > MOST_LOG || largest > MOST_ANSWER;
    bad.then(|| format!("{name}: {over:?} {is_over}, {memory} kB of memory, {log} bytes of log, an answer of {largest} bytes"))
}

/// Runs a few attacks at a time, because there are few processors.
fn all_withstand(attacks: Vec<Attack>) {
    let mut bad = Vec::new();
    let mut attacks = attacks.into_iter();
    loop {
        let some: Vec<_> = attacks.by_ref().take(4).collect();
        if some.is_empty() {
            break;
        }
        let threads: Vec<_> = some.into_iter().map(|attack| thread::spawn(move || withstands(attack))).collect();
        bad.extend(threads.into_iter().filter_map(|thread| thread.join().unwrap()));
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Repeats a piece as long as the client reads.
fn flood(stream: &mut TcpStream, piece: impl Fn(u64) -> String) {
    let mut n = 0;
    while stream.write_all(piece(n).as_bytes()).is_ok() {
        n += 1;
    }
}

/// Keeps a watch open.
fn silence() {
    thread::sleep(Duration::from_secs(600));
}

/// A number that was not used before.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn etcd_page(stream: &mut TcpStream, kvs: &str, more: bool) {
    head(stream, "200 OK");
    _ = write!(stream, "{{{HEADER},\"kvs\":[{kvs}],\"more\":{more},\"count\":\"7\"}}");
}

/// Accepts a watch of etcd.
fn etcd_watch(stream: &mut TcpStream) {
    head(stream, "200 OK");
    _ = writeln!(stream, "{{\"result\":{{{HEADER},\"created\":true}}}}");
}

/// The keys of a node's endpoints, in order, in base64. The number begins and ends at a multiple of three bytes, so only the number is
/// encoded for each key, and the rest once. This makes the flood faster than its reader.
struct Keys(String, String);

impl Keys {
    fn new(node: &str, pod: &str) -> Self {
        let (key, _) = endpoint(node, "NAMESPACE", pod, "");
        let (before, after) = key.split_once("NAMESPACE").unwrap();
        let before = format!("{before}{}", &"ns-"[..3 - before.len() % 3]);
        Keys(BASE64_STANDARD.encode(before), BASE64_STANDARD.encode(after))
    }

    fn of(&self, n: u64) -> String {
        format!("{}{}{}", self.0, BASE64_STANDARD.encode(format!("{n:09}")), self.1)
    }
}

fn events(events: &[String]) -> String {
    format!("{{\"result\":{{{HEADER},\"events\":[{}]}}}}\n", events.join(","))
}

/// Answers with page after page of keys.
fn endless(node: &str) -> Answer {
    let keys = Keys::new(node, "web");
    Box::new(move |path, body, stream| match path {
        // The rest of a namespace.
        "/v3/kv/range" if body.contains("\"limit\":0") => etcd_page(stream, "", false),
        "/v3/kv/range" => {
            let kvs: Vec<_> = (0..5000).map(|_| format!("{{\"key\":\"{}\"}}", keys.of(next()))).collect();
            etcd_page(stream, &kvs.join(","), true);
        }
        _ => silence(),
    })
}

/// Answers a list with nothing, and a watch with this piece again and again.
fn etcd_flood(piece: impl Fn(u64) -> String + Send + Sync + 'static) -> Answer {
    Box::new(move |path, _, stream| match path {
        "/v3/kv/range" => etcd_page(stream, "", false),
        _ => {
            etcd_watch(stream);
            flood(stream, &piece);
        }
    })
}

/// Answers with nine endpoints that have this text as their names.
fn nine(text: &str) -> Answer {
    let endpoints: Vec<_> = (0..9)
        .map(|n| {
            let spec = json!({"node": NODE, "interfaceName": table::interface(n), "pod": text});
            let value = json!({"metadata": {"labels": {"app": text}}, "spec": spec}).to_string();
            (BASE64_STANDARD.encode(endpoint(NODE, "prod", &format!("web-{n}"), "").0), BASE64_STANDARD.encode(value))
        })
        .collect();
    Box::new(move |path, body, stream| {
        let object = |(key, value): &(String, String)| format!("{{\"key\":\"{key}\",\"mod_revision\":\"5\",\"value\":\"{value}\"}}");
        let wanted = |(key, _): &&(String, String)| body.contains("range_end") || body.contains(key.as_str());
        match path {
            "/v3/kv/range" if body.contains("range_end") => {
                let keys: Vec<_> = endpoints.iter().map(|(key, _)| object(&(key.clone(), String::new()))).collect();
                etcd_page(stream, &keys.join(","), false);
            }
            "/v3/kv/range" => etcd_page(stream, &endpoints.iter().filter(wanted).map(object).collect::<String>(), false),
            _ => silence(),
        }
    })
}

#[test]
fn an_etcd_that_has_no_end() {
    let keys = Keys::new(NODE, "web");
    let value = BASE64_STANDARD.encode(endpoint(NODE, "prod", "web", "web").1);
    let event = move |n| format!("{{\"kv\":{{\"key\":\"{}\",\"value\":\"{value}\",\"mod_revision\":\"11\"}}}}", keys.of(n));
    let nothing = vec!["{}"; 2_000_000].join(",");
    let no_events = events(std::slice::from_ref(&nothing));
    let no_keys: Answer = Box::new(move |path, _, stream| match path {
        "/v3/kv/range" => etcd_page(stream, &nothing, false),
        _ => silence(),
    });
    let many = "more than 20000 workloads on this node";
    all_withstand(vec![
        etcd("keys of this node without end", many, endless(NODE)),
        etcd("a watch of ever new endpoints", many, etcd_flood(move |_| events(&(0..200).map(|_| event(next())).collect::<Vec<_>>()))),
        etcd("events of nothing", "more than 128000 elements", etcd_flood(move |_| no_events.clone())),
        etcd("keys of nothing", "more than 20000 elements", no_keys),
    ]);
}

#[test]
fn an_etcd_with_long_words() {
    let keys = Keys::new(NODE, &"long.".repeat(400_000));
    let event = move |_| format!("{{\"kv\":{{\"key\":\"{}\",\"value\":\"ew==\"}}}}", keys.of(next()));
    let reason = |words: &str| format!("{{\"result\":{{{HEADER},\"canceled\":true,\"cancel_reason\":\"{}\"}}}}\n", words.repeat(1 << 20));
    let [long, longest] = ["no ", "never ever again after this "].map(reason);
    let list: Answer = Box::new(|_, _, stream| {
        head(stream, "200 OK");
        _ = write!(stream, "{{{HEADER},\"kvs\":\"{}\"}}", "long ".repeat(800_000));
    });
    all_withstand(vec![
        etcd("names of 2 MB", "a frame of the watch is not", etcd_flood(move |n| if n < 10 { events(&[event(n)]) } else { "{]".into() })),
        etcd("labels of 1 MB", "app=\"xxx", nine(&"x".repeat(1 << 20))),
        etcd("a reason of 3 MB", "no no no", etcd_flood(move |_| long.clone())),
        etcd("a reason of 28 MB", "larger than 8388608 bytes", etcd_flood(move |_| longest.clone())),
        etcd("a list that is a text of 4 MB", "sent something unexpected", list),
    ]);
}

/// A pod as JSON: the text before its name and the text after it.
struct Pod(String, String);

impl Pod {
    fn new(spec: &serde_json::Value) -> Self {
        let metadata = json!({"name": "NAME", "namespace": "prod", "resourceVersion": "7", "labels": {"app": "web"}});
        let pod = json!({"metadata": metadata, "spec": spec}).to_string();
        let (before, after) = pod.split_once("NAME").unwrap();
        Pod(before.into(), after.into())
    }

    fn of(&self, name: &str) -> String {
        [&self.0, name, &self.1].concat()
    }

    /// This number of new pods, each formatted by `in_words`.
    fn some(&self, count: usize, in_words: impl Fn(&str) -> String) -> String {
        (0..count).map(|_| in_words(&self.of(&format!("web-{}", next())))).collect()
    }
}

fn pods(stream: &mut TcpStream, version: &str, next_page: &str, pods: &str) {
    head(stream, "200 OK");
    _ = write!(stream, "{{\"metadata\":{{\"resourceVersion\":\"{version}\",\"continue\":\"{next_page}\"}},\"items\":[{pods}]}}");
}

fn added(object: &str) -> String {
    format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n")
}

/// Answers a list with nothing, and a watch with what `answer` writes.
fn watch(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Answer {
    Box::new(move |path, _, stream| match path.contains("watch=true") {
        false => pods(stream, "7", "", ""),
        true => {
            head(stream, "200 OK");
            answer(stream);
        }
    })
}

/// Answers each list with what `answer` writes.
fn list(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Answer {
    Box::new(move |_, _, stream| answer(stream))
}

#[test]
fn an_api_server_that_has_no_end() {
    let [page, pages, watched] = [0; 3].map(|_| Pod::new(&json!({"nodeName": NODE})));
    let addresses = vec!["{}"; 2_000_000].join(",");
    let with_addresses =
        Pod::new(&json!({"nodeName": NODE})).of("web").replacen('{', &format!("{{\"status\":{{\"podIPs\":[{addresses}]}},"), 1);
    let many = "more than 20000 workloads on this node";
    let pages = list(move |stream| pods(stream, "7", "more", pages.some(500, |pod| format!("{pod},")).trim_end_matches(',')));
    let page = list(move |stream| {
        head(stream, "200 OK");
        _ = write!(stream, "{{\"metadata\":{{\"resourceVersion\":\"7\"}},\"items\":[");
        flood(stream, |_| page.some(500, |pod| format!("{pod},")));
    });
    all_withstand(vec![
        kubernetes("pages without end", many, pages),
        kubernetes("a page without end", many, page),
        kubernetes("a watch of ever new pods", many, watch(move |stream| flood(stream, |_| watched.some(500, added)))),
        kubernetes("addresses of nothing", "more than 100 elements", watch(move |stream| flood(stream, |_| added(&with_addresses)))),
    ]);
}

#[test]
fn an_api_server_with_long_words() {
    let long: Arc<str> = "long.".repeat(800_000).into();
    let [names, broken, version] = [0; 3].map(|_| Arc::clone(&long));
    let [good, bad] = [json!({"nodeName": NODE}), json!({"nodeName": 7})].map(|spec| Pod::new(&spec));
    let error = format!("{{\"type\":\"ERROR\",\"object\":{{\"message\":\"{long}\",\"code\":500}}}}\n");
    let names = move |n| if n < 8 { added(&good.of(&format!("{n}{names}"))) } else { "{]".into() };
    let broken = move |n| added(&bad.of(&format!("{n}{broken}")));
    all_withstand(vec![
        kubernetes("names of 4 MB", "a line of the watch is not", watch(move |stream| flood(stream, &names))),
        kubernetes("broken objects with names of 4 MB", "does not parse", watch(move |stream| flood(stream, &broken))),
        kubernetes("an error of 4 MB", "long.long", watch(move |stream| _ = stream.write_all(error.as_bytes()))),
        kubernetes("a version of 4 MB", "a list without a resource version", list(move |stream| pods(stream, &version, &version, ""))),
    ]);
}
