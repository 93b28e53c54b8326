//! Who is connected, what each connection is doing, and who gives way when there are too many, or too much is on its way to them.
//!
//! Whoever holds most connections gives way first, and with the one on which nothing has changed for longest. So a newcomer, which is
//! what the next scrape is, always gets in, and hoarders, slow senders and slow readers displace each other. Whoever has asked is
//! answered: only who has not yet, or does not take the answer, gives way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Limits;

/// A connection has so much time to get its request across before it may be displaced: in a flood, a newcomer could not ask otherwise.
const GRACE: Duration = Duration::from_millis(50);
/// How often to look whether one may be displaced, while none may.
const LOOK: Duration = Duration::from_millis(10);
/// How often it is said that connections are displaced.
const SAID: Duration = Duration::from_secs(60);

/// All connections.
pub(super) struct Connections {
    limits: Limits,
    all: Mutex<All>,
    left: Condvar,
}

#[derive(Default)]
struct All {
    seats: Vec<Entry>,
    last: u64,
    said: Option<Instant>,
}

struct Entry {
    number: u64,
    client: IpAddr,
    socket: Arc<TcpStream>,
    doing: Doing,
    since: Instant,
    displaced: bool,
}

/// What a connection is doing.
enum Doing {
    /// Sending a request, or about to.
    Asking,
    /// Waiting for its answer, which takes no longer for being unwanted.
    Waiting,
    /// Taking the answer: its address, as other connections may be taking the same, and its length.
    Taking(usize, usize),
}

/// One connection's place, free again when dropped.
pub(super) struct Seat {
    of: Arc<Connections>,
    number: u64,
    /// The connection.
    pub socket: Arc<TcpStream>,
}

impl Connections {
    /// Nobody yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, all: Mutex::default(), left: Condvar::new() })
    }

    /// Gives a newcomer a place. Where there is none left, another gives way.
    pub fn admit(self: &Arc<Self>, socket: TcpStream, client: IpAddr) -> Seat {
        let mut all = self.lock();
        while all.seats.len() >= self.limits.connections.max(1) {
            all.displace(GRACE, |_| true);
            all = self.left.wait_timeout(all, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        all.last += 1;
        let (number, socket) = (all.last, Arc::new(socket));
        let entry = Entry {
            number,
            client: network(client),
            socket: Arc::clone(&socket),
            doing: Doing::Asking,
            since: Instant::now(),
            displaced: false,
        };
        all.seats.push(entry);
        Seat { of: Arc::clone(self), number, socket }
    }

    /// Ends a connection, for what it holds is short: descriptors, threads.
    pub fn make_room(&self) {
        self.lock().displace(GRACE, |_| true);
    }

    /// Nothing in there can be left half done.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Ends the connection that should give way first, of those that may, unless it is so young; whether it did.
    fn displace(&mut self, grace: Duration, may: impl Fn(&Entry) -> bool) -> bool {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for seat in self.seats.iter().filter(|seat| !seat.displaced) {
            *held.entry(seat.client).or_default() += 1;
        }
        let candidates = self.seats.iter_mut().filter(|seat| !seat.displaced && !matches!(seat.doing, Doing::Waiting) && may(seat));
        let holds = |seat: &Entry| held.get(&seat.client).copied().unwrap_or_default();
        let Some(seat) = candidates.min_by_key(|seat| (std::cmp::Reverse(holds(seat)), seat.since)) else { return false };
        if seat.since.elapsed() < grace {
            return false;
        }
        seat.displaced = true;
        // Its thread finds the end of the connection and goes.
        _ = seat.socket.shutdown(Shutdown::Both);
        if self.said.is_none_or(|said| said.elapsed() > SAID) {
            self.said = Some(Instant::now());
            log::warn!("too many HTTP connections: some are closed to make room (now {} from {})", held[&seat.client], seat.client);
        }
        true
    }

    /// How much is on its way, each text counted once.
    fn bytes(&self) -> usize {
        let texts = self.seats.iter().filter(|seat| !seat.displaced).filter_map(|seat| match seat.doing {
            Doing::Taking(address, length) => Some((address, length)),
            Doing::Asking | Doing::Waiting => None,
        });
        texts.collect::<HashMap<_, _>>().values().sum()
    }
}

impl Seat {
    /// The connection may ask for something.
    pub fn asks(&self) {
        self.does(&mut self.of.lock(), Doing::Asking);
    }

    /// The connection has asked for something.
    pub fn waits(&self) {
        self.does(&mut self.of.lock(), Doing::Waiting);
    }

    /// The connection is given this. If it is too much together with the others', some of them give way.
    pub fn takes(&self, text: &Arc<Vec<u8>>) {
        let mut all = self.of.lock();
        self.does(&mut all, Doing::Taking(Arc::as_ptr(text).addr(), text.len()));
        while all.bytes() > self.of.limits.bytes
            && all.displace(Duration::ZERO, |seat| seat.number != self.number && matches!(seat.doing, Doing::Taking(..)))
        {}
    }

    fn does(&self, all: &mut All, doing: Doing) {
        if let Some(seat) = all.seats.iter_mut().find(|seat| seat.number == self.number) {
            (seat.doing, seat.since) = (doing, Instant::now());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.lock().seats.retain(|seat| seat.number != self.number);
        self.of.left.notify_one();
    }
}

/// Whom an address stands for: with IPv6, a client has at least a /64 to choose from.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}
