//! Legacy tables straight from the kernel: the entries that `IPT_SO_GET_ENTRIES` gives → [`Snapshot`]. What takes them is pure; the
//! reader opens a raw socket (CAP_NET_RAW, CAP_NET_ADMIN). Looking for a table that is not there would load it: ask `/proc` first.
//!
//! Entries that are the same in every byte but their counters are the same rules: then only the counters are picked up, else the kernel
//! is asked once more. So an entry is needed only once, and a large table never is in memory as a whole ([`records`]).
//!
//! Layouts: `include/uapi/linux/netfilter_ipv4/ip_tables.h` and `netfilter_ipv6/ip6_tables.h`.

mod decoder;
mod hooks;

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use foldhash::quality::{FoldHasher, RandomState};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::xt::{u16_at, u32_at, u64_at};
use crate::ruleset::{Count, Family, Ruleset, Snapshot};
use crate::sys::getsockopt;
use crate::sys::records::{self, getsockopt_records};
use decoder::Decoder;
pub use hooks::hooks;

/// Length of a table's name.
const NAME: usize = 32;
/// `struct ipt_getinfo`
const INFO: usize = 84;
/// Where the entries begin in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
/// Length of `struct xt_counters`: packets and bytes.
const COUNTERS: usize = 16;
/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, which IPv6 shares.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// A table may grow between the question for its size and the one for its entries.
const TRIES: usize = 20;

/// Where things are in an entry: `struct ipt_entry`, `struct ip6t_entry`.
struct Layout {
    /// Address, interface and protocol matches end here.
    addresses: usize,
    flags: usize,
    goto: u8,
    target_offset: usize,
    counters: usize,
    matches: usize,
}

const V4: Layout = Layout { addresses: 84, flags: 82, goto: 2, target_offset: 88, counters: 96, matches: 112 };
const V6: Layout = Layout { addresses: 136, flags: 131, goto: 4, target_offset: 140, counters: 152, matches: 168 };

impl Layout {
    fn of(family: Family) -> &'static Self {
        match family {
            Family::V4 => &V4,
            Family::V6 => &V6,
        }
    }

    /// Where the length of an entry is.
    fn length(&self) -> usize {
        self.target_offset + 2
    }

    /// The first entry, and what comes after it.
    fn entry<'a>(&self, entries: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (entry, rest) = entries.split_at_checked(u16_at(entries, self.length())?.into())?;
        (entry.len() >= self.matches).then_some((entry, rest))
    }
}

/// Reads the same table again and again.
#[derive(Debug)]
pub struct Reader {
    family: Family,
    table: &'static str,
    known: Option<Known>,
    hasher: RandomState,
}

/// What the last read found.
#[derive(Debug)]
struct Known {
    ruleset: Arc<Ruleset>,
    /// Where the counters of each rule are, in their order.
    counters: Vec<u32>,
    /// Of everything but the counters.
    fingerprint: u64,
}

/// Takes pieces of a table, in order; each of them is whole entries.
type Take<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

impl Reader {
    /// A reader of this table.
    pub fn new(family: Family, table: &'static str) -> Self {
        Reader { family, table, known: None, hasher: RandomState::default() }
    }

    /// Reads the table.
    ///
    /// # Errors
    /// What the kernel answers: no rights, no such table.
    pub fn read(&mut self) -> io::Result<Snapshot> {
        let (family, table) = (self.family, self.table);
        for _ in 0..TRIES {
            match self.take_from(|take| fetch(family, table, take).map(|_| ())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        Err(io::Error::other("the table changed its size again and again"))
    }

    /// Takes all entries of a table.
    pub fn take(&mut self, entries: &[u8]) -> Snapshot {
        let read = |take: Take| {
            take(entries);
            Ok::<_, Infallible>(())
        };
        let Ok(snapshot) = self.take_from(read);
        snapshot
    }

    fn take_from<E>(&mut self, read: impl Fn(Take) -> Result<(), E>) -> Result<Snapshot, E> {
        let entries = || Entries::new(self.family, self.hasher.build_hasher());
        if let Some(known) = &self.known {
            let mut counts = Counts::new(entries(), &known.counters);
            read(&mut |piece| counts.take(piece))?;
            if counts.entries.fingerprint() == known.fingerprint {
                return Ok(Snapshot::new(Arc::clone(&known.ruleset), counts.counts, Vec::new()));
            }
        }
        let mut decoder = Decoder::new(self.family, self.table, entries());
        read(&mut |piece| decoder.take(piece))?;
        let (snapshot, known) = decoder.finish();
        self.known = Some(known);
        Ok(snapshot)
    }
}

/// Takes all entries of a table apart.
pub fn decode(family: Family, table: &'static str, entries: &[u8]) -> Snapshot {
    Reader::new(family, table).take(entries)
}

/// Asks the kernel for the entries of a table; returns what it says about the table first.
fn fetch(family: Family, table: &str, take: Take) -> io::Result<[u8; INFO]> {
    let (domain, protocol, level) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::RAW, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::INET6, ipproto::RAW, libc::IPPROTO_IPV6),
    };
    let socket = socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    let mut info = [0; INFO];
    info[..table.len()].copy_from_slice(table.as_bytes());
    getsockopt(socket.as_fd(), level, GET_INFO, &mut info)?;
    let size = u32_at(&info, INFO - 4).unwrap_or(0);
    let mut head = [0; ENTRIES];
    head[..table.len()].copy_from_slice(table.as_bytes());
    head[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    let layout = records::Layout { first: ENTRIES, length: Layout::of(family).length() };
    getsockopt_records(socket.as_fd(), (level, GET_ENTRIES), (&head, ENTRIES + size as usize), layout, take)?;
    Ok(info)
}

/// Goes through a table's entries.
struct Entries {
    layout: &'static Layout,
    /// Where the next one begins.
    at: usize,
    hasher: FoldHasher<'static>,
    /// Whether all were well formed. Nothing behind one that is not can be found.
    are_whole: bool,
}

impl Entries {
    /// The hasher's key is chosen at random, for names of policies are other people's.
    fn new(family: Family, hasher: FoldHasher<'static>) -> Self {
        Entries { layout: Layout::of(family), at: 0, hasher, are_whole: true }
    }

    /// Hands each entry to `each`, with its place.
    fn walk(&mut self, mut piece: &[u8], mut each: impl FnMut(usize, &[u8])) {
        while let Some((entry, rest)) = self.layout.entry(piece) {
            let counters = self.layout.counters;
            self.hasher.write(&entry[..counters]);
            self.hasher.write(&entry[counters + COUNTERS..]);
            each(self.at, entry);
            self.at += entry.len();
            piece = rest;
        }
        if !piece.is_empty() {
            self.are_whole = false;
            self.hasher.write(piece);
        }
    }

    /// A hash over everything but the counters.
    fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }
}

/// `struct xt_counters` at this place.
fn count_at(entry: &[u8], place: usize) -> Option<Count> {
    Some(Count { packets: u64_at(entry, place)?, bytes: u64_at(entry, place + 8)?, handle: 0 })
}

/// Picks up what rules have counted whose places are known.
struct Counts<'a> {
    entries: Entries,
    places: &'a [u32],
    counts: Vec<Count>,
}

impl<'a> Counts<'a> {
    fn new(entries: Entries, places: &'a [u32]) -> Self {
        Counts { entries, places, counts: Vec::with_capacity(places.len()) }
    }

    fn take(&mut self, piece: &[u8]) {
        let Counts { entries, places, counts } = self;
        let counters = entries.layout.counters;
        entries.walk(piece, |at, entry| {
            if places.get(counts.len()).is_some_and(|place| *place as usize == at + counters) {
                counts.push(count_at(entry, counters).unwrap_or_default());
            }
        });
    }
}
