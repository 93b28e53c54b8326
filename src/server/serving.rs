//! Runs tiny_http so that its defects (0.12, unmaintained since 2023) stay inside: each is named where it is met.
//!
//! *Rounds.* tiny_http ends its accept thread on the first error, and the thread dies silently if duplicating a
//! descriptor fails right after an accept. So the listener is ours; when a round of serving ends, the next begins on the
//! same listener, and connections of the round before are served until none can be left.

use std::convert::Infallible;
use std::io::{self, Cursor, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tiny_http::{Header, Request, Response, Server, StatusCode};

use super::routes::{self, Ask, Reply};
use super::{Application, Limits};

/// Responses are written on these threads, so a slow reader occupies one until [`Limits`] end it.
const HANDLERS: usize = 4;
/// How often to look whether the accept thread is still there.
const CHECK: Duration = Duration::from_secs(1);
/// So many rounds in a row that end at once (about two minutes), and the process gives up: a restart may help.
const FAILURES: u32 = 120;
/// So many connections lost to requests that cannot be dropped (see [`Lost`]), and the process gives up.
const LOSSES: usize = 64;

/// See [`super::Listener::serve`].
pub(super) fn serve(listener: &TcpListener, app: Arc<dyn Application>, limits: Limits) -> io::Result<Infallible> {
    let lost = Arc::new(Lost::default());
    let jobs = start_handlers(&app, limits, &lost)?;
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let end = match Round::begin(listener, &jobs, limits) {
            Ok(round) => round.wait(&lost)?,
            Err(error) => error,
        };
        // The listener's read timeout, which connections are to inherit, also ends an accept: not a failure.
        if end.kind() == io::ErrorKind::WouldBlock {
            continue;
        }
        failures = if begun.elapsed() > Duration::from_secs(10) { 1 } else { failures + 1 };
        let level = if failures == 1 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "accepting connections failed, trying again: {end}");
        if failures >= FAILURES {
            return Err(end);
        }
        thread::sleep(Duration::from_millis(100 * u64::from(failures.min(10))));
    }
}

/// One life of tiny_http's accept thread.
struct Round {
    /// The duplicate of the listener that only the accept thread owns: closed means it ended, by whatever path.
    accepting: RawFd,
    /// What `accepting` is while it is open.
    listener: Option<PathBuf>,
    /// The error with which the accept thread ended, if it said one.
    ended: Receiver<io::Error>,
    over: Arc<AtomicBool>,
}

impl Round {
    fn begin(listener: &TcpListener, jobs: &SyncSender<Request>, limits: Limits) -> io::Result<Self> {
        let duplicate = listener.try_clone()?;
        let accepting = duplicate.as_raw_fd();
        // tiny_http starts threads in a way that panics where no more are allowed.
        let server = catch_unwind(AssertUnwindSafe(|| Server::from_listener(duplicate, None)))
            .map_err(|_| io::Error::other("no more threads"))?
            .map_err(|error| io::Error::other(error.to_string()))?;
        let (end, ended) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let receiving = receive(server, jobs.clone(), limits, end, Arc::clone(&over));
        thread::Builder::new().name("http-receive".into()).spawn(receiving)?;
        Ok(Self { accepting, listener: target(listener.as_raw_fd()), ended, over })
    }

    /// Waits for the end of the round, and says why it ended.
    ///
    /// # Errors
    /// Too many connections are lost for a further round.
    fn wait(self, lost: &Lost) -> io::Result<io::Error> {
        loop {
            if lost.connections.load(Ordering::Relaxed) >= LOSSES {
                return Err(io::Error::other("too many requests announced a body that cannot be read"));
            }
            let end = match self.ended.recv_timeout(CHECK) {
                Ok(error) => error,
                Err(RecvTimeoutError::Timeout) if self.is_accepting() => continue,
                Err(_) => io::Error::other("the accept thread is gone"),
            };
            self.over.store(true, Ordering::Relaxed);
            return Ok(end);
        }
    }

    /// Whether the accept thread still holds the listener. Without `/proc` nobody can tell.
    fn is_accepting(&self) -> bool {
        self.listener.is_none() || target(self.accepting) == self.listener
    }
}

/// What a descriptor of this process refers to: `socket:[4711]`.
fn target(descriptor: RawFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()
}

/// Passes requests on to the handlers. After the round is over it goes on until no connection of the round can be alive:
/// each would have been closed after so much silence.
fn receive(server: Server, jobs: SyncSender<Request>, limits: Limits, end: Sender<io::Error>, over: Arc<AtomicBool>) -> impl FnOnce() {
    move || loop {
        match server.recv_timeout(limits.silence + limits.response) {
            Ok(Some(request)) => {
                if jobs.send(request).is_err() {
                    return;
                }
            }
            Ok(None) if over.load(Ordering::Relaxed) => return,
            Ok(None) => {}
            Err(error) => {
                // Nobody listens any more only when the process is about to end.
                let _ = end.send(error);
            }
        }
    }
}

fn start_handlers(app: &Arc<dyn Application>, limits: Limits, lost: &Arc<Lost>) -> io::Result<SyncSender<Request>> {
    let (jobs, receiver) = sync_channel::<Request>(HANDLERS);
    let receiver = Arc::new(Mutex::new(receiver));
    let reaper = start_reaper()?;
    for number in 0..HANDLERS {
        let (app, receiver, lost, reaper) = (Arc::clone(app), Arc::clone(&receiver), Arc::clone(lost), reaper.clone());
        thread::Builder::new().name(format!("http-{number}")).spawn(move || {
            loop {
                let request = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(request) = request else { return };
                // A panic costs this request an error 500, not the thread.
                let _ = catch_unwind(AssertUnwindSafe(|| handle(request, &*app, limits, &lost, &reaper)));
            }
        })?;
    }
    Ok(jobs)
}

fn handle(request: Request, app: &dyn Application, limits: Limits, lost: &Lost, reaper: &SyncSender<Request>) {
    match unread_body(&request) {
        0 => {
            let accept_encoding = request.headers().iter().filter(|header| header.field.equiv("Accept-Encoding"));
            let accept_encoding = accept_encoding.map(|header| header.value.as_str()).collect();
            let ask = Ask { method: request.method().as_str(), target: request.url(), accept_encoding };
            let reply = routes::answer(app, &ask);
            respond(request, &reply, limits.response);
        }
        1..=LARGEST_BODY => {
            if let Err(rejected) = reaper.try_send(request) {
                let (std::sync::mpsc::TrySendError::Full(request) | std::sync::mpsc::TrySendError::Disconnected(request)) = rejected;
                lost.keep(request);
            }
        }
        _ => lost.keep(request),
    }
}

/// How much of the body tiny_http has not read itself and would read when the request is dropped.
fn unread_body(request: &Request) -> usize {
    // It reads up to 1024 bytes ahead, unless the client waits for a `100 Continue`.
    let is_waiting = request.headers().iter().any(|header| header.field.equiv("Expect"));
    request.body_length().filter(|length| *length > 1024 || is_waiting).unwrap_or(0)
}

/// A body that may be read and thrown away.
const LARGEST_BODY: usize = 1 << 20;

/// Dropping a request waits for the rest of its body: that must not hold up the handlers.
fn start_reaper() -> io::Result<SyncSender<Request>> {
    let (sender, requests) = sync_channel::<Request>(16);
    thread::Builder::new().name("http-reaper".into()).spawn(move || {
        for request in requests {
            let _ = catch_unwind(AssertUnwindSafe(|| respond(request, &routes::too_large(), Duration::from_secs(1))));
        }
    })?;
    Ok(sender)
}

/// Connections that can only be abandoned. Dropping a request makes tiny_http allocate its announced `Content-Length` at
/// once, and a failing allocation aborts the process, which no code can catch: one such request would end the exporter.
/// It is forgotten instead, with its connection, and after [`LOSSES`] of them the process restarts in good order.
#[derive(Default)]
struct Lost {
    connections: AtomicUsize,
}

impl Lost {
    fn keep(&self, request: Request) {
        let length = request.body_length().unwrap_or(0);
        std::mem::forget(request);
        let lost = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        log::warn!("a request announced a body of {length} bytes; its connection is abandoned ({lost} so far, {LOSSES} end the process)");
    }
}

/// Writes the reply, and lets go of the connection's reader if it takes too long.
fn respond(request: Request, reply: &Reply, patience: Duration) {
    let headers = reply.headers.iter().filter_map(|(field, value)| Header::from_bytes(*field, *value).ok()).collect();
    let length = reply.body.len();
    // Always with a Content-Length: a broken-off response must not look complete.
    let response = Response::new(StatusCode(reply.status), headers, Cursor::new(reply.body.as_slice()), Some(length), None)
        .with_chunked_threshold(usize::MAX);
    let (version, is_head) = (request.http_version().clone(), *request.method() == tiny_http::Method::Head);
    let asked: Vec<Header> = request.headers().iter().filter(|header| !header.field.equiv("TE")).cloned().collect();
    let mut writer = Deadline { inner: request.into_writer(), end: Instant::now() + patience };
    let result = response.raw_print(&mut writer, version, &asked, is_head, None).and_then(|()| writer.flush());
    if let Err(error) = result {
        log::debug!("a response was broken off: {error}");
    }
}

/// Fails once its time is over. The socket's own timeout only ends a reader that takes nothing at all.
struct Deadline<W> {
    inner: W,
    end: Instant,
}

impl<W: Write> Write for Deadline<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() > self.end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
