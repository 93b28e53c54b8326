//! Load generators of other projects keep the port busy from one network. From another address, answers must stay fast.
//!
//! `WITHSTAND=1` (`make withstand`) uses a node of 54,000 rules, runs each attack for half a minute, and compares the answers with the
//! times of a release build.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http;
use crate::program::{self, Program, await_some};
use crate::support::netns::{Namespace, feed, sh};
use crate::support::{can_run, is_long, status};
use crate::table::{Size, table};

/// The node, and two network namespaces that reach it.
struct Network {
    node: Namespace,
    crowd: Namespace,
    calm: Namespace,
}

const PORT: u16 = 9009;
/// The port of a server that has nothing else to do.
const IDLE: u16 = 9010;
/// The node's address, as each of the two sees it.
const FROM_CROWD: &str = "10.77.1.1";
const FROM_CALM: &str = "10.77.2.1";

impl Network {
    fn new(test: &str) -> Option<Self> {
        let [node, crowd, calm] = [Namespace::new(test)?, Namespace::new(test)?, Namespace::new(test)?];
        for (other, number) in [(&crowd, 1), (&calm, 2)] {
            node.run(|| {
                sh(&format!(
                    "ip link add to{number} type veth peer name eth0 netns {other}
                     ip address add 10.77.{number}.1/24 dev to{number}; ip link set to{number} up
                     ip -n {other} address add 10.77.{number}.2/24 dev eth0; ip -n {other} link set eth0 up",
                    other = other.name()
                ));
            });
        }
        Some(Network { node, crowd, calm })
    }

    /// Starts the program on a node with many rules.
    fn serve(&self, size: Size, limits: &str) -> Program {
        self.node.run(|| feed("iptables-legacy-restore", &table(size)));
        let mut command = program::command_after(limits);
        command.env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/nonexistent").env_remove("ETCD_ENDPOINTS");
        command.env("LISTEN_ADDRESS", "0.0.0.0").env("METRICS_SERVER_PORT", PORT.to_string()).env("BACKEND", "legacy");
        let program = self.node.run(|| Program::start(command));
        program.port();
        self.node.run(answer_all);
        await_some(
            || self.ask(&self.calm, FROM_CALM, PORT, "/metrics").0.ok().filter(|status| *status == 200),
            || "the first scrape".into(),
        );
        program
    }

    /// Sends a request on a new connection. Returns the status, and how long it took.
    fn ask(&self, from: &Namespace, address: &str, port: u16, path: &str) -> (std::io::Result<u16>, Duration) {
        from.run(|| {
            let begun = Instant::now();
            let ask = || {
                let address = SocketAddr::new(address.parse().unwrap(), port);
                let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(20))?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                stream.write_all(
                    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").as_bytes(),
                )?;
                http::answer(&stream, false).map(|answer| answer.status)
            };
            (ask(), begun.elapsed())
        })
    }

    /// The longest time of some answers to a client that is not part of the crowd. If the machine itself is busy, every answer takes
    /// longer. So an idle server is asked as often, and its longest time is subtracted.
    fn longest(&self, path: &str, times: usize, pause: Duration, what: &str) -> Duration {
        let ask = |_| {
            let idle = self.ask(&self.calm, FROM_CALM, IDLE, path).1;
            let (answer, took) = self.ask(&self.calm, FROM_CALM, PORT, path);
            assert_eq!(answer.as_ref().ok(), Some(&200), "{what}: {path} after {took:?}: {answer:?}");
            thread::sleep(pause);
            (took, idle)
        };
        let (took, idle): (Vec<_>, Vec<_>) = (0..times).map(ask).unzip();
        took.into_iter().max().unwrap().saturating_sub(idle.into_iter().max().unwrap())
    }
}

/// Answers every request immediately.
fn answer_all() {
    let listener = TcpListener::bind(("0.0.0.0", IDLE)).unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            _ = client.read(&mut [0; 1024]);
            _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
}

/// A load generator. It ends when dropped.
struct Load(Child);

impl Load {
    fn start(from: &Namespace, command: &str) -> Self {
        let mut words = command.split(' ');
        let mut load = Command::new(words.next().unwrap());
        load.args(words).stdout(Stdio::null()).stderr(Stdio::null());
        Load(from.run(|| load.spawn().unwrap()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// What is attacked, and the load generator's command, which says how many clients there are.
const LOADS: [(&str, &str); 8] = [
    ("300 clients of the API", "wrk -t1 -c300 -d600s -H Accept-Encoding:gzip URL/api/v1/policies"),
    ("1000 clients of the API", "wrk -t1 -c1000 -d600s -H Accept-Encoding:gzip URL/api/v1/policies"),
    ("300 clients that scrape", "wrk -t1 -c300 -d600s -H Accept-Encoding:gzip URL/metrics"),
    ("1000 clients that scrape and take it plain", "wrk -t1 -c1000 -d600s URL/metrics"),
    ("300 clients of the page", "wrk -t1 -c300 -d600s -H Accept-Encoding:gzip URL/page/app.js"),
    ("1000 clients that probe", "wrk -t1 -c1000 -d600s URL/healthz"),
    ("300 clients that connect anew each time", "wrk -t1 -c300 -d600s -H Connection:close URL/api/v1/workloads"),
    ("200 clients of h2load", "h2load --h1 -t1 -c200 -m8 -D600 URL/api/v1/workloads"),
];

#[test]
fn a_crowd_does_not_keep_others_waiting() {
    let test = "a_crowd_does_not_keep_others_waiting";
    if !can_run(test, has("wrk") && has("h2load"), "wrk and h2load") {
        return;
    }
    let Some(network) = Network::new(test) else { return };
    let size = if is_long() { Size { workloads: 250, policies: 50, group: 1 } } else { Size { workloads: 50, policies: 20, group: 1 } };
    // An unoptimised build on a busy machine may be slower by this factor. A server that serves a crowd first would never answer.
    let (slow, seconds) = if is_long() { (1, 20) } else { (20, 3) };
    let program = network.serve(size, "ulimit -n 4096");
    let read = network.longest("/metrics", 5, Duration::ZERO, "a calm port");
    let (health, scrape) = (Duration::from_millis(200) * slow, Duration::from_secs(1) * slow + read);
    let threads = status(program.pid(), "Threads");
    for (what, command) in LOADS {
        let load = Load::start(&network.crowd, &command.replace("URL", &format!("http://{FROM_CROWD}:{PORT}")));
        thread::sleep(Duration::from_millis(500));
        let [probes, scrapes] = thread::scope(|scope| {
            let probes = scope.spawn(|| network.longest("/healthz", seconds * 5, Duration::from_millis(200), what));
            let scrapes = scope.spawn(|| network.longest("/metrics", seconds, Duration::from_secs(1), what));
            [probes, scrapes].map(|asking| asking.join().unwrap())
        });
        drop(load);
        println!(
            "{what}: a probe took {probes:?} at most, a scrape {scrapes:?}, on a calm port {read:?}; {} kB",
            status(program.pid(), "VmHWM")
        );
        assert!(probes <= health, "{what}: a probe took {probes:?}");
        assert!(scrapes <= scrape, "{what}: a scrape took {scrapes:?}, on a calm port {read:?}");
        assert!(status(program.pid(), "Threads") <= threads + 1, "{what}: {} threads", status(program.pid(), "Threads"));
    }
    assert!(program.log().len() < 40, "{:#?}", program.log());
}

/// The server has sixteen places. One address has more clients than that, which never pause. A client at another address must not wait.
#[test]
fn few_places_are_shared() {
    let test = "few_places_are_shared";
    if !can_run(test, has("wrk"), "wrk") {
        return;
    }
    let Some(network) = Network::new(test) else { return };
    let program = network.serve(Size { workloads: 5, policies: 5, group: 1 }, "ulimit -n 32");
    let slow = if is_long() { 1 } else { 5 };
    for (path, clients) in [("/healthz", 24), ("/metrics", 24), ("/api/v1/workloads", 24), ("/api/v1/workloads", 100)] {
        let what = format!("{clients} clients of {path}");
        let _load = Load::start(&network.crowd, &format!("wrk -t1 -c{clients} -d600s http://{FROM_CROWD}:{PORT}{path}"));
        thread::sleep(Duration::from_millis(500));
        for (path, limit) in [("/healthz", 200), ("/metrics", 1000), ("/api/v1/workloads", 1000)] {
            let longest = network.longest(path, 20, Duration::from_millis(20), &what);
            println!("{what}: others wait {longest:?} for {path}");
            assert!(longest <= Duration::from_millis(limit) * slow, "{what}: others wait {longest:?} for {path}");
        }
        // Probes from the crowd's own address are still answered: a kubelet may share an address with the crowd.
        let same: Vec<_> = (0..20).map(|_| network.ask(&network.crowd, FROM_CROWD, PORT, "/healthz")).collect();
        let answered =
            same.iter().filter(|(answer, took)| answer.as_ref().is_ok_and(|status| *status == 200) && *took < Duration::from_secs(1));
        assert!(answered.count() >= 10, "{what}: {same:?}");
    }
    assert!(program.log().len() < 40, "{:#?}", program.log());
}
