//! Decides which clients may be connected. For a new connection another one is closed: first one of the client that has the most
//! connections, and among these the one that has been inactive longest, so that hoarders, slow senders and slow readers displace each
//! other. A connection that waits for an answer is closed only for a client with fewer connections. Otherwise none of a crowd would ever be
//! answered.
//!
//! So a client with fewer connections than another always gets in, and no client holds more than half while another one wants in. Some
//! places are reserved for requests for `/metrics` and the probes, so that even the client with the most connections can still scrape.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Limits;
use super::connection::{Connection, Doing, Worth};

/// Limits a message to once a minute.
#[derive(Default)]
pub(super) struct Rarely(Option<Instant>);

impl Rarely {
    pub fn again(&mut self) -> bool {
        let is_time = self.0.is_none_or(|last| last.elapsed() > Duration::from_secs(60));
        if is_time {
            self.0 = Some(Instant::now());
        }
        is_time
    }
}

pub(super) struct Seats {
    /// Each keeps its index until [`Seats::clear`].
    pub all: Vec<Connection>,
    limits: Limits,
    /// Clients for which no other connection could be closed in this turn.
    full: Vec<IpAddr>,
    said: Rarely,
}

impl Seats {
    pub fn new(limits: Limits) -> Self {
        Self { all: Vec::new(), limits, full: Vec::new(), said: Rarely::default() }
    }

    /// Removes ended connections, which closes their sockets.
    pub fn clear(&mut self) {
        self.all.retain(|connection| !connection.is_over());
    }

    /// Begins a turn, in which other connections may be closed.
    pub fn begin(&mut self) {
        self.clear();
        self.full.clear();
    }

    pub fn is_full_for(&self, client: IpAddr) -> bool {
        self.full.contains(&client)
    }

    fn living(&self) -> impl Iterator<Item = &Connection> {
        self.all.iter().filter(|connection| !connection.is_over())
    }

    /// Keeps a new connection, or ends it if there is no room.
    pub fn admit(&mut self, newcomer: usize) {
        if !self.has_room(newcomer) && self.living().count() > self.limits.connections.max(1) {
            self.end(newcomer, "no other may be closed for it");
        }
    }

    /// Reports whether there is room, apart from the places reserved for metrics. Another connection may be closed for it.
    pub fn has_room(&mut self, asking: usize) -> bool {
        let (most, client) = (self.limits.connections, self.all[asking].client);
        if self.living().count() <= most - (most / 8).min(8) {
            return true;
        }
        if self.is_full_for(client) {
            return false;
        }
        let has_room = self.make_room(Some(asking));
        if !has_room {
            self.full.push(client);
        }
        has_room
    }

    /// Ends the connection that should be closed first, for the one at index `asking`, or because descriptors have run out. Reports whether
    /// one was ended.
    pub fn make_room(&mut self, asking: Option<usize>) -> bool {
        let (held, now) = (self.held(), Instant::now());
        let holds = |connection: &Connection| held.get(&connection.client).copied().unwrap_or_default();
        let others = self.all.iter().enumerate().filter(|(place, connection)| Some(*place) != asking && !connection.is_over());
        let Some((place, connection)) =
            others.min_by_key(|(_, connection)| (Reverse(holds(connection)), connection.worth(now), connection.since))
        else {
            return false;
        };
        let gives_way = connection.worth(now) < Worth::Answer || asking.is_some_and(|asking| holds(connection) > holds(&self.all[asking]));
        if gives_way {
            self.end(place, "to make room");
        }
        gives_way
    }

    fn held(&self) -> HashMap<IpAddr, usize> {
        let mut held = HashMap::new();
        self.living().for_each(|connection| *held.entry(connection.client).or_default() += 1);
        held
    }

    fn end(&mut self, place: usize, why: &str) {
        self.all[place].doing = Doing::Over;
        if self.said.again() {
            let client = self.all[place].client;
            let held = self.living().filter(|connection| connection.client == client).count();
            log::warn!("too many HTTP connections: some are closed, {why} ({held} from {client})");
        }
    }

    /// Ends connections while more bytes are being sent than allowed, but not those that are being sent one of these texts.
    pub fn bound(&mut self, given: &[&Arc<Vec<u8>>]) {
        let is_other = |text: &Arc<Vec<u8>>| !given.iter().any(|given| Arc::ptr_eq(given, text));
        while self.bytes() > self.limits.bytes {
            let held = self.held();
            let others = self.all.iter_mut().filter(|other| other.text().is_some_and(is_other));
            let Some(other) = others.min_by_key(|other| (Reverse(held.get(&other.client).copied()), other.since)) else { return };
            other.doing = Doing::Over;
        }
    }

    /// Returns the size of all texts, each counted once.
    fn bytes(&self) -> usize {
        let texts = self.living().filter_map(Connection::text).map(|text| (Arc::as_ptr(text), text.len()));
        texts.collect::<HashMap<_, _>>().values().sum()
    }
}
