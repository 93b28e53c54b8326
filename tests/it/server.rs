//! The HTTP server under good and bad clients: the program itself, and the library where limits must be short.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use calico_accountant::server::{Application, Limits, Listener};
use flate2::read::GzDecoder;

use crate::http::{answer, connect, get, request, request_on};
use crate::program::{Program, await_some, command, command_after};

#[test]
fn metrics_plain_compressed_and_head() {
    let program = Program::start(command());
    let port = program.port();
    let plain = get(port, "/metrics").unwrap();
    assert_eq!(plain.status, 200);
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    assert!(plain.text().contains("\ncalico_accountant_build_info{"), "{}", plain.text());
    assert!(plain.text().contains("\nprocess_open_fds "));

    let packed = request(port, "GET", "/metrics", "Accept-Encoding: gzip\r\n").unwrap();
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(packed.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains("\nprocess_open_fds "));
    assert_eq!(request(port, "GET", "/metrics", "Accept-Encoding: gzip;q=0\r\n").unwrap().header("content-encoding"), None);

    let mut connection = connect(port).unwrap();
    let head = request_on(&mut connection, "HEAD", "/metrics", "").unwrap();
    assert!(head.status == 200 && head.header("content-length") > Some("0"));
    // Had HEAD sent a body, this answer would begin with it.
    assert_eq!(request_on(&mut connection, "GET", "/healthz", "").unwrap().text(), "ok\n");
}

#[test]
fn paths_and_methods() {
    let program = Program::start(command());
    let port = program.port();
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
    assert_eq!(get(port, "/readyz").unwrap().status, 503, "nothing is in sync here");
    assert_eq!(get(port, "/nope").unwrap().status, 404);
    let post = request(port, "POST", "/metrics", "Content-Length: 0\r\n").unwrap();
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    let landing = get(port, "/").unwrap();
    assert!(landing.text().contains("node-1") && landing.text().contains("href=\"/metrics\""));
    assert!(landing.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[test]
fn a_signal_ends_the_program_with_0() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut program = Program::start(command());
        program.port();
        rustix::process::kill_process(program.pid(), signal).unwrap();
        assert_eq!(program.exit_code(), Some(0));
    }
}

#[test]
fn a_port_in_use_is_a_failure_that_names_it() {
    let taken = Listener::bind("127.0.0.1".parse().unwrap(), 0, Limits::default()).unwrap();
    let port = taken.address().unwrap().port().to_string();
    let mut program = Program::start({
        let mut command = command();
        command.env("METRICS_SERVER_PORT", &port);
        command
    });
    assert_eq!(program.exit_code(), Some(1));
    let line = program.await_log("level=error");
    assert!(line.contains(&port) && line.contains("127.0.0.1"), "{line}");
}

#[test]
fn the_default_address_is_both_families() {
    let listener = Listener::bind("::".parse().unwrap(), 0, Limits::default()).unwrap();
    TcpStream::connect(("127.0.0.1", listener.address().unwrap().port())).unwrap();
}

/// Closes with a reset instead of a farewell.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn connections_reset_before_they_are_accepted_do_no_harm() {
    let mut program = Program::start(command());
    let port = program.port();
    for _ in 0..500 {
        let mut stream = connect(port).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        reset(stream);
    }
    assert_eq!(get(port, "/metrics").unwrap().status, 200);
    assert!(program.is_running());
    assert!(program.log().iter().all(|line| line.starts_with("time=")), "{:#?}", program.log());
}

#[test]
fn nonsense_does_no_harm() {
    let mut program = Program::start(command());
    let port = program.port();
    for nonsense in [
        &b"\r\n\r\n"[..],
        b"\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nExpect: the-unexpected\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /metrics HTTP/1.1\r\nConnection: upgrade\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        let mut stream = connect(port).unwrap();
        stream.write_all(nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(get(port, "/healthz").unwrap().status, 200, "after {:?}", String::from_utf8_lossy(nonsense));
    }
    assert!(program.is_running());
}

#[test]
fn a_body_nobody_wants_is_refused_and_an_impossible_one_survived() {
    let mut program = Program::start(command());
    let port = program.port();
    let mut stream = connect(port).unwrap();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nContent-Length: 5000\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 5000]).unwrap();
    assert_eq!(answer(&stream, false).unwrap().status, 413);

    // Dropped in the ordinary way, each of these would abort the process.
    let huge = b"GET /metrics HTTP/1.1\r\nContent-Length: 9000000000000000000\r\n\r\n";
    connect(port).unwrap().write_all(huge).unwrap();
    program.await_log("its connection is abandoned (1 so far");
    assert_eq!(get(port, "/metrics").unwrap().status, 200);
    // In a burst some wait for a free thread, so that it takes more than the 64 that end the process.
    let flood = || drop(connect(port).and_then(|mut stream| stream.write_all(huge)));
    await_some(
        || {
            (!program.is_running()).then_some(()).or_else(|| {
                flood();
                None
            })
        },
        || "the end of the process".into(),
    );
    assert_eq!(program.exit_code(), Some(1), "in good order, to be started again");
    program.await_log("level=error");
}

/// Without descriptors either accepting fails or, with one left, duplicating does: two ways for accepting to end.
#[test]
fn running_out_of_descriptors_is_survived() {
    for limit in [24, 25] {
        let mut program = Program::start(command_after(&format!("ulimit -n {limit}")));
        let port = program.port();
        let hoard: Vec<_> = (0..40).map(|_| connect(port).unwrap()).collect();
        program.await_log("accepting connections failed");
        drop(hoard);
        await_some(|| get(port, "/healthz").ok().filter(|answer| answer.status == 200), || format!("an answer, limit {limit}"));
        assert!(program.is_running());
        assert!(program.log().iter().all(|line| line.starts_with("time=")), "{:#?}", program.log());
    }
}

/// Each connection is a thread; whoever opens many gets no more of them than a bound of our own allows.
#[test]
fn connections_are_bounded() {
    let mut program = Program::start(command_after("ulimit -n 4096 2>/dev/null || true"));
    let port = program.port();
    let threads = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    // Those in excess wait to be accepted.
    let hoard: Vec<_> = (0..350).map(|_| connect(port).unwrap()).collect();
    program.await_log("accepting connections failed");
    assert!((100..300).contains(&threads()), "{}", threads());
    drop(hoard);
    await_some(|| get(port, "/healthz").ok().filter(|answer| answer.status == 200), || "an answer".into());
    assert!(program.is_running());
}

/// An application with a body of any size.
struct Fake(Arc<Vec<u8>>);

impl Application for Fake {
    fn metrics(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.0)
    }

    fn report(&self) -> Arc<calico_accountant::report::Report> {
        Arc::default()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn node_name(&self) -> &str {
        "fake"
    }
}

/// Serves `size` bytes of metrics within this process; threads are left to the end of the tests.
fn start_server(size: usize, limits: Limits) -> u16 {
    let listener = Listener::bind("127.0.0.1".parse().unwrap(), 0, limits).unwrap();
    let port = listener.address().unwrap().port();
    let app = Arc::new(Fake(Arc::new(vec![b'x'; size])));
    thread::spawn(move || listener.serve(app));
    port
}

#[test]
fn readers_that_stall_are_dropped() {
    let limits = Limits { silence: Duration::from_secs(2), stall: Duration::from_millis(300), response: Duration::from_secs(30) };
    let port = start_server(32 << 20, limits);
    assert_eq!(get(port, "/metrics").unwrap().body.len(), 32 << 20);
    let stalled: Vec<_> = (0..8).map(|_| asked(port)).collect();
    let begun = Instant::now();
    assert_eq!(get(port, "/readyz").unwrap().status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(stalled);
}

#[test]
fn readers_that_trickle_are_dropped() {
    let limits = Limits { silence: Duration::from_secs(2), stall: Duration::from_secs(5), response: Duration::from_millis(500) };
    let port = start_server(32 << 20, limits);
    let mut slow: Vec<_> = (0..4).map(|_| asked(port)).collect();
    let trickle = thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            for stream in &mut slow {
                let _ = stream.read(&mut [0; 65536]);
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let begun = Instant::now();
    assert_eq!(get(port, "/readyz").unwrap().status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    trickle.join().unwrap();
}

/// A connection that asked for metrics and reads nothing yet.
fn asked(port: u16) -> TcpStream {
    let mut stream = connect(port).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream
}

#[test]
fn silent_connections_are_closed_and_talking_ones_outlive_rounds() {
    let limits = Limits { silence: Duration::from_secs(1), stall: Duration::from_secs(5), response: Duration::from_secs(5) };
    let port = start_server(10, limits);
    let (mut talking, mut silent) = (connect(port).unwrap(), connect(port).unwrap());
    // Nobody else connects, so that accepting times out several times meanwhile.
    for _ in 0..20 {
        assert_eq!(request_on(&mut talking, "GET", "/healthz", "").unwrap().status, 200);
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "closed");
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
}
