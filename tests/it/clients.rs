//! What clients of the server share, how much each may use, and by which host names they may ask.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use calico_accountant::report::Report;
use calico_accountant::server::{Application, Limits};

use crate::http::{answer, connect, request_on};
use crate::program::{Program, await_some, command};
use crate::server::{connect_from, is_over, limits, start};
use crate::support::can_run;

/// Makes an answer only when the test lets it.
#[derive(Default)]
struct Gated {
    begun: AtomicUsize,
    let_go: Mutex<usize>,
    changed: Condvar,
}

impl Gated {
    fn make(&self) {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        drop(self.changed.wait_while(self.let_go.lock().unwrap(), |let_go| *let_go < number).unwrap());
    }

    fn let_go(&self, answers: usize) {
        *self.let_go.lock().unwrap() += answers;
        self.changed.notify_all();
    }

    fn await_begun(&self, number: usize) {
        await_some(|| (self.begun.load(Ordering::SeqCst) == number).then_some(()), || format!("the start of answer {number}"));
    }
}

impl Application for Gated {
    fn metrics(&self) -> Arc<Vec<u8>> {
        self.make();
        Arc::new(b"up 1\n".to_vec())
    }

    fn report(&self) -> Arc<Report> {
        self.make();
        Arc::default()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

fn ask(mut stream: TcpStream, path: &str, encoding: &str) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {encoding}\r\n\r\n").as_bytes()).unwrap();
    stream
}

/// Twenty clients that ask at the same time, some of them for compressed text, share the answer that is made for the first.
#[test]
fn who_asks_the_same_shares_what_is_made() {
    for path in ["/metrics", "/api/v1/policies"] {
        let app = Arc::new(Gated::default());
        let port = start(Arc::clone(&app) as Arc<dyn Application>, Limits { connections: 64, ..limits() });
        let first = ask(connect(port).unwrap(), path, "identity");
        app.await_begun(1);
        let others = (0..19).map(|number| ask(connect(port).unwrap(), path, if number % 2 == 0 { "gzip" } else { "identity" }));
        let all: Vec<_> = [first].into_iter().chain(others).collect();
        // When another client has been answered twice, all of them have arrived. One answer is not enough: it may belong to the turn
        // before.
        let mut probe = connect(port).unwrap();
        for _ in 0..2 {
            assert_eq!(request_on(&mut probe, "GET", "/healthz", "").unwrap().status, 200);
        }
        app.let_go(1);
        for stream in &all {
            assert_eq!(answer(stream, false).unwrap().status, 200, "{path}");
        }
        assert_eq!(app.begun.load(Ordering::SeqCst), 1, "{path}");
        // A client that asks now gets an answer that is made now.
        app.let_go(1);
        assert_eq!(answer(&ask(connect(port).unwrap(), path, "gzip"), false).unwrap().status, 200);
        assert_eq!(app.begun.load(Ordering::SeqCst), 2, "{path}");
    }
}

/// All places wait for an answer that does not come. Probes are still answered, and requests to the API do not block others.
#[test]
fn a_slow_answer_keeps_nobody_else_waiting() {
    let app = Arc::new(Gated::default());
    let port = start(Arc::clone(&app) as Arc<dyn Application>, limits());
    let _crowd: Vec<_> = (0..40).map(|_| ask(connect_from("127.0.0.3", port), "/api/v1/policies", "gzip")).collect();
    app.await_begun(1);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request_on(&mut connect_from("127.0.0.2", port), "GET", path, "").unwrap().status, 200, "{path}");
        // A client with the crowd's address may have to ask again.
        let ask = || request_on(&mut connect_from("127.0.0.3", port), "GET", path, "").ok().filter(|answer| answer.status == 200);
        await_some(ask, || format!("{path} beside the crowd"));
    }
    let scrape = ask(connect_from("127.0.0.2", port), "/metrics", "gzip");
    app.await_begun(2);
    app.let_go(2);
    assert_eq!(answer(&scrape, false).unwrap().status, 200);
}

/// Two addresses want all eight places: each has half, even while all wait for an answer. The API has seven of the eight.
#[test]
fn nobody_holds_more_than_half_while_another_waits() {
    for (path, wanted) in [("/metrics", 4), ("/api/v1/policies", 3)] {
        let app = Arc::new(Gated::default());
        let port = start(Arc::clone(&app) as Arc<dyn Application>, limits());
        let crowd: Vec<_> = (0..8).map(|_| ask(connect_from("127.0.0.3", port), path, "gzip")).collect();
        app.await_begun(1);
        let others: Vec<_> = (0..wanted).map(|_| ask(connect_from("127.0.0.2", port), path, "gzip")).collect();
        let crowd = Mutex::new(crowd);
        let kept = || crowd.lock().unwrap().iter_mut().map(is_over).filter(|is_over| !is_over).count();
        await_some(|| (kept() <= 4).then_some(()), || format!("{path}: {} places are the crowd's", kept()));
        app.let_go(2);
        for other in &others {
            assert_eq!(answer(other, false).unwrap().status, 200, "{path}");
        }
    }
}

/// `ab` speaks HTTP/1.0. It waits forever if the server keeps the connection but does not say so.
#[test]
fn old_clients_that_keep_their_connection_are_told_so() {
    let test = "old_clients_that_keep_their_connection_are_told_so";
    let program = Program::start(command());
    let port = program.port();
    let mut stream = connect(port).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap();
    assert_eq!(answer(&stream, false).unwrap().header("connection"), Some("keep-alive"));
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(answer(&stream, false).unwrap().header("connection"), Some("close"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    if !can_run(test, Command::new("ab").arg("-V").output().is_ok(), "ab (apache2-utils)") {
        return;
    }
    for path in ["/healthz", "/metrics", "/nope"] {
        let run = Command::new("timeout")
            .args(["20", "ab", "-k", "-q", "-n", "100", "-c", "4", &format!("http://127.0.0.1:{port}{path}")])
            .output();
        let output = String::from_utf8(run.unwrap().stdout).unwrap();
        let said = |line: &str| output.lines().find_map(|text| text.strip_prefix(line)).map(str::trim).map(str::to_owned);
        assert_eq!(said("Complete requests:").as_deref(), Some("100"), "{path}: {output}");
        assert_eq!(said("Keep-Alive requests:").as_deref(), Some("100"), "{path}: {output}");
    }
}

/// A page whose host name leads here reads nothing, unless that name is one of the server's.
#[test]
fn the_page_and_the_api_are_asked_for_by_an_own_name() {
    let program = Program::start({
        let mut command = command();
        command.env("ALLOWED_HOSTS", "accountant.example.org, other.example.org");
        command
    });
    let port = program.port();
    let status = |path: &str, host: &str| {
        let mut stream = connect(port).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes()).unwrap();
        answer(&stream, false).unwrap()
    };
    for host in ["localhost:1", "127.0.0.1", "[::1]", "node-1", "Other.Example.Org:443"] {
        assert_eq!(status("/api/v1/status", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for path in ["/", "/page/app.js", "/api/v1/status", "/api/v1/workloads"] {
        let refused = status(path, "Host: evil.example\r\n");
        assert_eq!(refused.status, 421, "{path}");
        assert!(refused.text().contains("ALLOWED_HOSTS") && refused.text().lines().count() == 1, "{path}: {}", refused.text());
    }
    for path in ["/metrics", "/healthz"] {
        assert_eq!(status(path, "Host: evil.example\r\n").status, 200, "{path}");
    }
    for host in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: a b\r\n"] {
        assert_eq!(status("/metrics", host).status, 400, "{host:?}");
    }
}
