//! Attacks on the port: clients that do their worst, while a real Prometheus must not miss a scrape.
//!
//! `WITHSTAND=1` (`make withstand`) runs each attack for a minute and scrapes every 15 s, which is Prometheus' usual interval.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::http;
use crate::program::{self, Program, await_some};
use crate::server::connect_from;
use crate::support::fakes::Fakes;
use crate::support::prometheus::{self, Prometheus};
use crate::support::{can_run, fixture, is_long, status};

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";
/// How many clients an attack with many clients has.
const MANY: usize = 1000;
/// How much memory the program may use, in kB.
const MEMORY: usize = 64 << 10;
/// How long the answer to a probe may take. The machine may be busy with other tests; `busy` is stricter.
const PROBE: Duration = Duration::from_secs(2);

/// Attacks a port until its time is over.
type Attack = fn(u16, Instant);

const ATTACKS: [(&str, Attack); 14] = [
    ("connections reset before they are accepted", resets),
    ("clients that send a byte a second", slow_senders),
    ("clients that read a byte a second", slow_readers),
    ("heads of a megabyte", large_heads),
    ("a head without end", endless_head),
    ("random bytes", garbage),
    ("requests pipelined without reading an answer", pipelining),
    ("connections kept alive by the thousand", hoarding),
    ("HTTP/2", http2),
    ("bodies announced in exabytes", giant_bodies),
    ("bodies without end", endless_bodies),
    ("silent connections by the thousand", silence),
    ("scrapes without pause", scrapes),
    ("requests to the API without pause", api),
];

#[test]
fn a_prometheus_beside_attackers_keeps_its_rhythm() {
    let name = "a_prometheus_beside_attackers_keeps_its_rhythm";
    if !can_run(name, prometheus::is_installed(), "prometheus") || !can_run(name, may_open(2 * MANY), "more file descriptors") {
        return;
    }
    let (interval, attack_time) = if is_long() { (15, 60) } else { (3, 3) };
    let fakes = Fakes::tables(&fixture::text("captures/v3.28.5-legacy/t1/iptables-save.txt.gz"), "");
    let mut program = Program::start({
        let mut command = program::command();
        command.env("PATH", fakes.path());
        command
    });
    let port = program.port();
    let timeout = if is_long() { 10 } else { 3 };
    let prometheus = Prometheus::scraping(port, Duration::from_secs(interval), Duration::from_secs(timeout));
    let calm = status(program.pid(), "Threads");
    let probe = Probe::start(port);

    for (what, attack) in ATTACKS {
        let begun = Instant::now();
        let end = begun + Duration::from_secs(attack_time);
        let attackers: Vec<_> = (0..2).map(|_| thread::spawn(move || attack(port, end))).collect();
        attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
        assert!(program.is_running(), "{what}: {:#?}", program.log());
        // A scrape may be in progress.
        thread::sleep(Duration::from_secs(1));
        let seconds = begun.elapsed().as_secs();
        let missed = prometheus.value(&format!("count_over_time(up[{seconds}s])-sum_over_time(up[{seconds}s])"));
        let scrapes = prometheus.value(&format!("sum_over_time(up[{seconds}s])")).unwrap_or_default();
        let longest = prometheus.value(&format!("max_over_time(scrape_duration_seconds[{seconds}s])")).unwrap_or_default();
        let (threads, memory) = (status(program.pid(), "Threads"), status(program.pid(), "VmHWM"));
        println!("{what}: {scrapes} scrapes, the longest took {longest:.3} s; {threads} threads left, at most {memory} kB so far");
        assert_eq!(missed, Some(0.0), "{what}: scrapes failed");
        assert!(scrapes >= (seconds / interval) as f64 - 1.0, "{what}: {scrapes} scrapes in {seconds} s");
        assert!(memory < MEMORY, "{what}: {memory} kB");
        probe.check(what);
    }
    drop(probe);
    await_some(
        || (status(program.pid(), "Threads") <= calm + 1).then_some(()),
        || format!("{calm} threads again, not {}", status(program.pid(), "Threads")),
    );
    assert!(program.log().iter().all(|line| line.starts_with("time=")), "{:#?}", program.log());
    assert!(program.log().len() < 100, "attackers fill the log: {:#?}", program.log());
}

/// Asks for `/healthz` four times a second, each time on a new connection, and waits for the answer as long as a kubelet's probe may. It
/// has another address than the attackers: they use up all ports of theirs within seconds, and leftovers of one connection can reset the
/// next.
struct Probe {
    running: Arc<AtomicBool>,
    /// How often it has asked, and what failed.
    seen: Arc<Mutex<(usize, Vec<String>)>>,
}

impl Probe {
    fn start(port: u16) -> Self {
        let probe = Self { running: Arc::new(AtomicBool::new(true)), seen: Arc::default() };
        let (running, seen) = (Arc::clone(&probe.running), Arc::clone(&probe.seen));
        thread::spawn(move || {
            while running.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let mut stream = connect_from("127.0.0.2", port);
                stream.set_read_timeout(Some(PROBE)).unwrap();
                let answer = http::request_on(&mut stream, "GET", "/healthz", "Connection: close\r\n");
                let mut seen = seen.lock().unwrap();
                seen.0 += 1;
                match answer {
                    Ok(answer) if answer.status == 200 && begun.elapsed() < PROBE => {}
                    Ok(answer) => seen.1.push(format!("{} after {:?}", answer.status, begun.elapsed())),
                    Err(error) => seen.1.push(format!("{error} after {:?}", begun.elapsed())),
                }
                drop(seen);
                thread::sleep(Duration::from_millis(250));
            }
        });
        probe
    }

    /// Asserts that all answers since the last check came in time.
    fn check(&self, what: &str) {
        let (asked, failed) = std::mem::take(&mut *self.seen.lock().unwrap());
        assert!(asked > 1 && failed.is_empty(), "{what}: of {asked} probes, these failed: {failed:?}");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

/// Raises this process' limit of open files if that is needed and permitted. Returns whether the limit is high enough.
fn may_open(files: usize) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let (limit, files) = (getrlimit(Resource::Nofile), files as u64 + 500);
    let enough = |current: Option<u64>| current.is_none_or(|current| current >= files);
    enough(limit.current) || setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok() && enough(limit.maximum)
}

/// Connects, with timeouts for reads and writes.
fn open(port: u16) -> Option<TcpStream> {
    let stream = http::connect(port).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
    Some(stream)
}

fn is_over(end: Instant) -> bool {
    Instant::now() >= end
}

/// Sends these bytes on one connection after another, and reads what may be answered.
fn send_each_time(port: u16, end: Instant, bytes: &[u8]) {
    while !is_over(end) {
        let Some(mut stream) = open(port) else { continue };
        _ = stream.write_all(bytes);
        _ = stream.read(&mut [0; 1024]);
    }
}

/// Sends these bytes again and again on one connection without reading. Connects again when that is closed.
fn send_on(port: u16, end: Instant, first: &[u8], bytes: &[u8]) {
    while !is_over(end) {
        let Some(mut stream) = open(port) else { continue };
        let mut result = stream.write_all(first);
        while !is_over(end) && (result.is_ok() || result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)) {
            result = stream.write_all(bytes);
        }
    }
}

/// Keeps many connections on which `first` was sent, replaces those that are closed, and calls `again` for each every second.
fn keep_many(port: u16, end: Instant, first: &[u8], again: impl Fn(&mut TcpStream) -> std::io::Result<()>) {
    let begin = || {
        let mut stream = open(port)?;
        stream.write_all(first).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    let mut streams: Vec<Option<TcpStream>> = (0..MANY / 2).map(|_| None).collect();
    while !is_over(end) {
        let begun = Instant::now();
        for stream in &mut streams {
            let is_alive = stream.as_mut().is_some_and(|stream| match again(stream) {
                Ok(()) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            if !is_alive && !is_over(end) {
                *stream = begin();
            }
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
}

fn read_byte(stream: &mut TcpStream) -> std::io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn resets(port: u16, end: Instant) {
    while !is_over(end) {
        let Some(mut stream) = open(port) else { continue };
        _ = stream.write_all(GET);
        _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    }
}

fn slow_senders(port: u16, end: Instant) {
    keep_many(port, end, b"GET /metrics HTTP/1.1\r\nHost: test\r\nCookie: ", |stream| stream.write_all(b"a"));
}

fn slow_readers(port: u16, end: Instant) {
    keep_many(port, end, GET, read_byte);
}

fn large_heads(port: u16, end: Instant) {
    let head = format!("GET /metrics HTTP/1.1\r\nHost: test\r\nCookie: {}\r\n\r\n", "a".repeat(1 << 20));
    send_each_time(port, end, head.as_bytes());
}

fn endless_head(port: u16, end: Instant) {
    send_on(port, end, b"GET /metrics HTTP/1.1\r\nHost: test\r\n", &b"Cookie: a\r\n".repeat(6000));
}

/// Sends the bytes of a linear congruential generator, the same ones in every run.
fn garbage(port: u16, end: Instant) {
    let mut state = 1_u32;
    while !is_over(end) {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(4096)
        .collect();
        let Some(mut stream) = open(port) else { continue };
        _ = stream.write_all(&bytes);
        _ = stream.read(&mut [0; 1024]);
    }
}

fn pipelining(port: u16, end: Instant) {
    send_on(port, end, b"", &GET.repeat(1000));
}

fn hoarding(port: u16, end: Instant) {
    keep_many(port, end, b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n", read_byte);
}

fn http2(port: u16, end: Instant) {
    send_each_time(port, end, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
}

fn giant_bodies(port: u16, end: Instant) {
    send_each_time(port, end, b"GET /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 9000000000000000000\r\n\r\n");
}

fn endless_bodies(port: u16, end: Instant) {
    let head = b"POST /metrics HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    send_on(port, end, head, format!("10000\r\n{}\r\n", "a".repeat(1 << 16)).as_bytes());
}

fn silence(port: u16, end: Instant) {
    keep_many(port, end, b"", read_byte);
}

fn scrapes(port: u16, end: Instant) {
    ask_without_pause(port, end, "/metrics");
}

fn api(port: u16, end: Instant) {
    ask_without_pause(port, end, "/api/v1/workloads");
}

fn ask_without_pause(port: u16, end: Instant, path: &str) {
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !is_over(end) {
                    _ = http::request(port, "GET", path, "Accept-Encoding: gzip\r\n");
                }
            });
        }
    });
}
