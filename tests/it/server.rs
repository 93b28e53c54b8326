//! The HTTP server with good and bad clients: the program itself, and the library for tests that need short limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use calico_accountant::server::{Application, Limits, Listener};
use flate2::read::GzDecoder;

use crate::http::{answer, connect, get, request, request_on};
use crate::program::{Program, await_some, command, command_after};
use crate::support::status;

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
    // If HEAD had sent a body, this answer would begin with it.
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
    let page = get(port, "/").unwrap();
    assert!(page.text().contains("page/app.js") && page.text().contains("href=\"metrics\""));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
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

/// Closes with a reset.
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

/// The client is gone, so its request must not cause a read of the kernel.
#[test]
fn nothing_is_read_for_connections_reset_before_they_are_accepted() {
    struct Counting(AtomicUsize);
    impl Application for Counting {
        fn metrics(&self) -> Arc<Vec<u8>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Arc::default()
        }
        fn report(&self) -> Arc<calico_accountant::report::Report> {
            Arc::default()
        }
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }
    }
    let listener = Listener::bind("127.0.0.1".parse().unwrap(), 0, limits()).unwrap();
    let port = listener.address().unwrap().port();
    (0..200).for_each(|_| reset(asked(port)));
    let app = Arc::new(Counting(AtomicUsize::new(0)));
    let serving = Arc::clone(&app);
    thread::spawn(move || listener.serve(serving));
    assert_eq!(get(port, "/metrics").unwrap().status, 200);
    assert_eq!(app.0.load(Ordering::SeqCst), 1);
}

#[test]
fn nonsense_is_refused_at_once() {
    let mut program = Program::start(command());
    let port = program.port();
    let (many, long) = ("A: b\r\n".repeat(200), "A".repeat(64 << 10));
    let many = format!("GET /metrics HTTP/1.1\r\n{many}\r\n");
    let long = format!("GET /metrics HTTP/1.1\r\nCookie: {long}\r\n\r\n");
    for (nonsense, status) in [
        (&b"\xff\xfe\r\n\r\n"[..], "400"),
        (b"GET\r\n\r\n", "400"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (many.as_bytes(), "431"),
        (long.as_bytes(), "431"),
        (b"GET /metrics HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "413"),
        (b"GET /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 9000000000000000000\r\n\r\n", "413"),
        (b"GET /metrics HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "413"),
        (b"HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 24\r\n\r\nGET /inner HTTP/1.1\r\n\r\n", "413"),
        (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nGET /", "405"),
        (b"POST / HTTP/1.1\r\nHost: test\r\n\r\n", "405"),
        (b"CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n", "404"),
        (b"GET /metrics HTTP/1.1\r\nHost: test", ""),
        (b"\r\n\r\n", ""),
    ] {
        let begun = Instant::now();
        let mut stream = connect(port).unwrap();
        stream.write_all(nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut answer, shown) = (Vec::new(), String::from_utf8_lossy(&nonsense[..nonsense.len().min(60)]));
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{shown:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), usize::from(!status.is_empty()), "{shown:?}: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{shown:?} took {:?}", begun.elapsed());
    }
    assert!(program.is_running());
    assert!(program.log().iter().all(|line| line.starts_with("time=")), "{:#?}", program.log());
}

#[test]
fn a_connection_carries_several_requests_also_pipelined_and_of_old_clients() {
    let program = Program::start(command());
    let mut stream = connect(program.port()).unwrap();
    let (one, last) = ("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n", "HEAD http://test/healthz?x HTTP/1.0\r\n\r\n");
    stream.write_all([one, one, last].concat().as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answers}");
    assert_eq!(answers.matches("\r\n\r\nok\n").count(), 2, "{answers}");
    assert_eq!(answers.to_ascii_lowercase().matches("\r\ndate: ").count(), 3, "{answers}");
}

/// The answer must arrive although the client continues to send the refused request.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let program = Program::start(command());
    let mut stream = connect(program.port()).unwrap();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 500000\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 500_000]).unwrap();
    assert_eq!(answer(&stream, false).unwrap().status, 405);
}

/// How many files the program has open.
fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.pid().as_raw_nonzero())).unwrap().count()
}

/// Limits how many files the program may open.
fn limit_files(program: &Program, files: u64) {
    use rustix::process::{Resource, Rlimit, prlimit};
    prlimit(Some(program.pid()), Resource::Nofile, Rlimit { current: Some(files), maximum: Some(4096) }).unwrap();
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let mut program = Program::start(command_after("ulimit -n 4096"));
    let port = program.port();
    let mut hoard: Vec<_> = (0..20).map(|_| connect(port).unwrap()).collect();
    await_some(|| (descriptors(&program) > 20).then_some(()), || "the connections".into());
    limit_files(&program, descriptors(&program) as u64);
    // For the next connection, the kernel has already reserved a descriptor: accept(2) does that before it waits. Some recently used ones
    // may be free.
    hoard.extend((0..10).map(|_| connect(port).unwrap()));
    program.await_log("accepting connections failed");
    let begun = Instant::now();
    assert_eq!(get(port, "/healthz").unwrap().status, 200, "one of the others gave way");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}: only when the others had been silent for long enough", begun.elapsed());
    drop(hoard);
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
    assert!(program.is_running());
    assert!(program.log().iter().all(|line| line.starts_with("time=")), "{:#?}", program.log());
}

#[test]
fn few_descriptors_mean_few_connections() {
    let program = Program::start(command_after("ulimit -n 32"));
    let port = program.port();
    let hoard: Vec<_> = (0..100).map(|_| connect(port).unwrap()).collect();
    assert_eq!(get(port, "/metrics").unwrap().status, 200);
    assert!(descriptors(&program) <= 16 + 12, "{}", descriptors(&program));
    assert!(!program.log().iter().any(|line| line.contains("accepting connections failed")), "{:#?}", program.log());
    drop(hoard);
}

/// A client with many connections loses its own.
#[test]
fn connections_are_bounded_and_a_newcomer_is_served() {
    let program = Program::start(command_after("ulimit -n 4096"));
    let port = program.port();
    let before = descriptors(&program);
    let hoard: Vec<_> = (0..600).map(|_| connect(port).unwrap()).collect();
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
    program.await_log("too many HTTP connections");
    assert!((200..=256 + before).contains(&descriptors(&program)), "{}", descriptors(&program));
    let threads = status(program.pid(), "Threads");
    assert!(threads < 20, "{threads} threads: no more for any client");
    drop(hoard);
    await_some(|| (descriptors(&program) <= before).then_some(()), || "the connections' end".into());
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
}

/// Serves `size` bytes of metrics in this process. The thread runs until the tests end.
fn start_server(size: usize, limits: Limits) -> u16 {
    start(Arc::new(Fake(Arc::new(vec![b'x'; size]))), limits)
}

/// Serves an application in this process.
pub fn start(app: Arc<dyn Application>, limits: Limits) -> u16 {
    let listener = Listener::bind("127.0.0.1".parse().unwrap(), 0, limits).unwrap();
    let port = listener.address().unwrap().port();
    thread::spawn(move || listener.serve(app));
    port
}

pub fn limits() -> Limits {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    Limits { head: second, idle: 3 * second, answer: minute, connections: 8, bytes: 1 << 30 }
}

/// A connection that has asked for metrics, and reads nothing yet.
fn asked(port: u16) -> TcpStream {
    let mut stream = connect(port).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream
}

/// Whether the server has closed a connection.
pub fn is_over(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_request_must_arrive_in_time_however_it_trickles() {
    let port = start_server(10, limits());
    let (begun, mut stream) = (Instant::now(), connect(port).unwrap());
    let trickle = stream.try_clone().unwrap();
    thread::spawn(move || {
        for piece in b"GET /metrics HTTP/1.1\r\nCookie: a very long one".chunks(1) {
            thread::sleep(Duration::from_millis(100));
            if (&trickle).write_all(piece).is_err() {
                return;
            }
        }
    });
    assert_eq!(answer(&stream, false).unwrap().status, 408);
    assert!((0.9..2.5).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    assert!(stream.read(&mut [0; 16]).unwrap_or(0) == 0);
}

#[test]
fn silent_connections_are_closed_and_talking_ones_are_not() {
    let port = start_server(10, limits());
    let (begun, mut silent, mut talking) = (Instant::now(), connect(port).unwrap(), connect(port).unwrap());
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "closed");
    assert!((0.9..2.5).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    drop(talking);
    talking = connect(port).unwrap();
    for _ in 0..20 {
        assert_eq!(request_on(&mut talking, "GET", "/healthz", "").unwrap().status, 200);
        thread::sleep(Duration::from_millis(200));
    }
    let begun = Instant::now();
    assert_eq!(talking.read(&mut [0]).unwrap(), 0, "closed");
    assert!((2.5..5.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
}

#[test]
fn readers_that_trickle_are_broken_off() {
    let port = start_server(32 << 20, Limits { answer: Duration::from_secs(2), ..limits() });
    let (begun, mut slow) = (Instant::now(), asked(port));
    let mut read = 0;
    while let Ok(n @ 1..) = slow.read(&mut [0; 65536]) {
        read += n;
        thread::sleep(Duration::from_millis(20));
    }
    assert!((1.9..8.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    assert!(read < 32 << 20);
    assert_eq!(get(port, "/metrics").unwrap().body.len(), 32 << 20);
}

#[test]
fn the_connection_that_did_nothing_for_longest_gives_way() {
    let port = start_server(10, limits());
    let mut first = connect(port).unwrap();
    thread::sleep(Duration::from_millis(50));
    // One of the eight places is reserved.
    let mut others: Vec<_> = (0..6).map(|_| connect(port).unwrap()).collect();
    assert_eq!(request_on(&mut others[0], "GET", "/healthz", "").unwrap().status, 200);
    assert!(!is_over(&mut first));
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
    await_some(|| is_over(&mut first).then_some(()), || "the end of the first one".into());
    assert!(!is_over(&mut others[5]));
}

/// A connection from one of the loopback addresses.
pub fn connect_from(address: &str, port: u16) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    rustix::net::connect(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    TcpStream::from(socket)
}

/// The older connection is kept, because its address has fewer connections.
#[test]
fn who_holds_most_gives_way_first() {
    let port = start_server(10, limits());
    let mut modest = connect_from("127.0.0.2", port);
    let _hoard: Vec<_> = (0..40).map(|_| connect_from("127.0.0.3", port)).collect();
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
    assert!(!is_over(&mut modest));
}

/// Every answer is another text. Slow readers must not keep all of them in memory.
#[test]
fn answers_on_their_way_are_bounded_in_memory() {
    struct Fresh(Mutex<Vec<Weak<Vec<u8>>>>);
    impl Application for Fresh {
        fn metrics(&self) -> Arc<Vec<u8>> {
            let text = Arc::new(vec![b'x'; 8 << 20]);
            self.0.lock().unwrap().push(Arc::downgrade(&text));
            text
        }
        fn report(&self) -> Arc<calico_accountant::report::Report> {
            Arc::default()
        }
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }
    }
    let listener = Listener::bind("127.0.0.1".parse().unwrap(), 0, Limits { connections: 64, bytes: 24 << 20, ..limits() }).unwrap();
    let (port, app) = (listener.address().unwrap().port(), Arc::new(Fresh(Mutex::default())));
    let serving = Arc::clone(&app);
    thread::spawn(move || listener.serve(serving));
    let made = || app.0.lock().unwrap().len();
    let ask = |number: usize| {
        let slow = asked(port);
        await_some(|| (made() > number).then_some(()), || format!("text {number}"));
        // While an answer is being made, another request would share it.
        slow.peek(&mut [0]).unwrap();
        slow
    };
    let _slow: Vec<_> = (0..20).map(ask).collect();
    let held = || app.0.lock().unwrap().iter().filter(|text| text.strong_count() > 0).count();
    await_some(|| (held() <= 3).then_some(()), || format!("{} texts are held", held()));
    assert_eq!(get(port, "/metrics").unwrap().body.len(), 8 << 20, "a quick reader gets its own");
}
