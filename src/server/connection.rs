//! One connection: its requests one after the other, each in bounded time and memory. Nothing here waits for the client. Reads and writes
//! transfer what is possible, and [`Connection::interest`] says what to wait for.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Limits;
use super::reply::Reply;
use super::request::{LONGEST_HEAD, Request};
use super::routes::Resource;

/// The number of bytes written at a time, so that other connections get their turn.
const PIECE: usize = 64 << 10;
/// After the last answer, the client's remaining input is read for at most this time and this many bytes. Closing a socket with unread
/// bytes sends a reset, which may overtake the answer.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 1 << 20;
/// The time for a client to send its first request, or to read some of an answer, before it counts as idle.
const GRACE: Duration = Duration::from_millis(50);

pub(super) struct Connection {
    pub socket: TcpStream,
    /// The address that places are counted for, from [`network`].
    pub client: IpAddr,
    pub doing: Doing,
    /// When the current state began. While an answer is sent, when the client last took some of it.
    pub since: Instant,
    deadline: Option<Instant>,
    received: Vec<u8>,
    /// Whether bytes that may be another request followed the last one.
    unseen: bool,
}

/// A connection asks, waits for an answer to be made, and takes it. Then it asks again or leaves. While leaving, at most this many bytes
/// are still read.
pub(super) enum Doing {
    Asking { first: bool },
    Waiting(Request, Resource),
    Taking(Answer),
    Leaving(usize),
    Over,
}

/// What would be lost by ending a connection.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    Nothing,
    /// The request of a client that has just connected.
    Question,
    Answer,
}

pub(super) struct Answer {
    head: Vec<u8>,
    /// Shared with other connections that take it.
    body: Arc<Vec<u8>>,
    /// The length that is sent of the body: 0 for `HEAD`.
    length: usize,
    /// The number of bytes of head and body that the kernel has taken.
    taken: usize,
    keep_alive: bool,
}

impl Connection {
    pub fn new(socket: TcpStream, client: IpAddr, limits: Limits) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (since, doing) = (Instant::now(), Doing::Asking { first: true });
        let deadline = Some(since + limits.head);
        Ok(Self { socket, client, doing, since, deadline, received: Vec::new(), unseen: false })
    }

    /// poll(2) always reports errors and that the client has closed the connection.
    pub fn interest(&self) -> PollFlags {
        match self.doing {
            Doing::Asking { .. } | Doing::Leaving(_) => PollFlags::IN,
            Doing::Taking(_) => PollFlags::OUT,
            Doing::Waiting(..) | Doing::Over => PollFlags::empty(),
        }
    }

    pub fn due(&self) -> Option<Instant> {
        if self.unseen() { Some(self.since) } else { self.deadline }
    }

    /// Reports whether it has received what may be a request that has not been parsed yet.
    pub fn unseen(&self) -> bool {
        self.unseen && matches!(self.doing, Doing::Asking { .. })
    }

    pub fn waits(&self) -> Option<(&Request, &Resource, Instant)> {
        if let Doing::Waiting(request, resource) = &self.doing { Some((request, resource, self.since)) } else { None }
    }

    pub fn text(&self) -> Option<&Arc<Vec<u8>>> {
        if let Doing::Taking(answer) = &self.doing { Some(&answer.body) } else { None }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.doing, Doing::Over)
    }

    pub fn worth(&self, now: Instant) -> Worth {
        match self.doing {
            Doing::Waiting(..) => Worth::Answer,
            Doing::Taking(_) if now < self.since + GRACE => Worth::Answer,
            Doing::Asking { first: true } if now < self.since + GRACE => Worth::Question,
            _ => Worth::Nothing,
        }
    }

    /// Continues as far as possible without waiting. Returns a complete request, if there is one.
    pub fn go_on(&mut self, ready: PollFlags, limits: Limits) -> Option<Request> {
        let result = match self.doing {
            Doing::Asking { .. } => self.ask(limits),
            Doing::Taking(_) => self.take(limits).map(|()| None),
            Doing::Leaving(unread) => self.leave(unread).map(|()| None),
            // In this state an event can only mean that the client has closed the connection.
            Doing::Waiting(..) if !ready.is_empty() => Err(ErrorKind::ConnectionReset.into()),
            Doing::Waiting(..) | Doing::Over => Ok(None),
        };
        result.unwrap_or_else(|error| {
            log::debug!("a connection from {} ends: {error}", self.client);
            self.doing = Doing::Over;
            None
        })
    }

    pub fn wait(&mut self, request: Request, resource: Resource) {
        (self.doing, self.since, self.deadline) = (Doing::Waiting(request, resource), Instant::now(), None);
    }

    /// Answers its request. Without a request, the answer is the last one.
    pub fn give(&mut self, reply: &Reply, request: Option<&Request>, limits: Limits) {
        let keep_alive = request.is_some_and(|request| request.keep_alive);
        let option = if !keep_alive { Some("close") } else { request.filter(|request| request.old).map(|_| "keep-alive") };
        let length = if request.is_some_and(|request| request.is_head) { 0 } else { reply.body.len() };
        let answer = Answer { head: reply.head(option), body: Arc::clone(&reply.body), length, taken: 0, keep_alive };
        self.since = Instant::now();
        (self.doing, self.deadline) = (Doing::Taking(answer), Some(self.since + limits.answer));
        self.go_on(PollFlags::OUT, limits);
    }

    pub fn check_time(&mut self, now: Instant, limits: Limits) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.doing {
            Doing::Asking { .. } if !self.received.is_empty() => {
                self.give(&Reply::text(408, "the request took too long to arrive"), None, limits);
            }
            _ => self.doing = Doing::Over,
        }
    }

    fn ask(&mut self, limits: Limits) -> io::Result<Option<Request>> {
        if !std::mem::take(&mut self.unseen) && !self.read(limits)? {
            return Ok(None);
        }
        match Request::parse(&self.received) {
            Ok(None) => Ok(None),
            Ok(Some((length, request))) => {
                self.received.drain(..length);
                // If the client has closed the connection, its request is not worth a read of the kernel.
                self.socket.take_error()?.map_or(Ok(Some(request)), Err)
            }
            Err(refusal) => {
                self.give(&refusal, None, limits);
                Ok(None)
            }
        }
    }

    /// Reads up to the length of the longest head. Reports whether anything was received.
    fn read(&mut self, limits: Limits) -> io::Result<bool> {
        let mut piece = [0; 4096];
        let most = piece.len().min(LONGEST_HEAD - self.received.len());
        let Some(read) = at_once(self.socket.read(&mut piece[..most]))? else { return Ok(false) };
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if self.received.is_empty() {
            self.deadline = Some(Instant::now() + limits.head);
        }
        self.received.extend_from_slice(&piece[..read]);
        Ok(true)
    }

    fn take(&mut self, limits: Limits) -> io::Result<()> {
        let Doing::Taking(answer) = &mut self.doing else { return Ok(()) };
        let Some(taken) = at_once(self.socket.write_vectored(&answer.rest()))? else { return Ok(()) };
        answer.taken += taken;
        self.since = Instant::now();
        if answer.taken < answer.head.len() + answer.length {
            return Ok(());
        }
        if answer.keep_alive {
            self.unseen = !self.received.is_empty();
            let patience = if self.unseen { limits.head } else { limits.idle };
            (self.doing, self.deadline) = (Doing::Asking { first: false }, Some(self.since + patience));
        } else {
            self.socket.shutdown(Shutdown::Write)?;
            (self.doing, self.deadline) = (Doing::Leaving(FAREWELL_BYTES), Some(self.since + FAREWELL));
        }
        Ok(())
    }

    fn leave(&mut self, unread: usize) -> io::Result<()> {
        if let Some(read) = at_once(self.socket.read(&mut [0; 16 << 10]))? {
            self.doing = if read == 0 || read >= unread { Doing::Over } else { Doing::Leaving(unread - read) };
        }
        Ok(())
    }
}

impl Answer {
    fn rest(&self) -> [IoSlice<'_>; 2] {
        let of_head = self.taken.min(self.head.len());
        let begin = self.taken - of_head;
        let end = self.length.min(begin + PIECE);
        [IoSlice::new(&self.head[of_head..]), IoSlice::new(&self.body[begin..end])]
    }
}

/// Returns `None` if the operation would have to wait.
fn at_once(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => Ok(None),
        result => result.map(Some),
    }
}

/// Returns the address that connections are counted for. With IPv6, a client can choose among the addresses of at least a /64.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}
