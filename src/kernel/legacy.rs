//! Legacy tables straight from the kernel: the entries of `IPT_SO_GET_ENTRIES` → [`Snapshot`]. Decoding is pure. The reader opens a raw
//! socket (CAP_NET_RAW, CAP_NET_ADMIN). A request for a table that does not exist would create it, so look into `/proc` first.
//!
//! If all entries are unchanged in every byte except their counters, then the rules are unchanged and only the counters are read. The
//! kernel returns all entries in one answer, 0.6 kB each. Their memory is held only while they are decoded.
//!
//! Layouts: `include/uapi/linux/netfilter_ipv4/ip_tables.h` and `netfilter_ipv6/ip6_tables.h`.

mod decoder;
mod hooks;

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use foldhash::quality::RandomState;
use memmap2::{Advice, MmapMut};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::matches::Matches;
use super::xt::{u16_at, u32_at, u64_at};
use crate::os::sys::{getsockopt, getsockopt_large};
use crate::ruleset::{Count, Family, Ruleset, Snapshot};
pub(super) use hooks::hooks;

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
/// The size in bytes from which a second thread is worth its start.
const LARGE: usize = 4 << 20;
/// A table may grow between the request for its size and the one for its entries.
const TRIES: usize = 20;

/// Offsets within an entry: `struct ipt_entry`, `struct ip6t_entry`.
struct Layout {
    /// The end of the address, interface and protocol matches.
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

    /// Returns the entries with their offsets, in order. Stops at an entry that is malformed.
    fn entries<'a>(&self, all: &'a [u8]) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut rest = all;
        std::iter::from_fn(move || {
            // `next_offset` follows `target_offset`.
            let length = u16_at(rest, self.target_offset + 2)?;
            let (entry, behind) = rest.split_at_checked(length.into())?;
            let place = all.len() - rest.len();
            rest = behind;
            (entry.len() >= self.matches).then_some((place, entry))
        })
    }
}

#[derive(Debug)]
pub struct Reader {
    family: Family,
    table: &'static str,
    known: Option<Known>,
    /// Has a random key, because users choose the names of policies.
    hasher: RandomState,
}

#[derive(Debug)]
struct Known {
    ruleset: Arc<Ruleset>,
    /// The offset of each rule's counters, in the rules' order.
    counters: Vec<u32>,
    fingerprint: u64,
}

impl Reader {
    pub fn new(family: Family, table: &'static str) -> Self {
        Reader { family, table, known: None, hasher: RandomState::default() }
    }

    pub fn read(&mut self) -> io::Result<Snapshot> {
        for _ in 0..TRIES {
            match fetch(self.family, self.table) {
                Ok((_, answer)) => return Ok(self.take(answer.get(ENTRIES..).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the table changed its size during every one of many reads"))
    }

    /// Decodes all entries of a table, or reuses the rules of the last read if they are unchanged.
    pub fn take(&mut self, entries: &[u8]) -> Snapshot {
        let places = self.known.as_ref().map_or(&[][..], |known| &known.counters);
        let (fingerprint, counts) = self.count(entries, places);
        if let Some(known) = self.known.as_ref().filter(|known| known.fingerprint == fingerprint) {
            return Snapshot::new(Arc::clone(&known.ruleset), counts, Vec::new());
        }
        let (snapshot, counters) = decoder::decode(self.family, self.table, entries);
        self.known = Some(Known { ruleset: Arc::clone(&snapshot.ruleset), counters, fingerprint });
        snapshot
    }

    /// Returns a hash over everything except the counters, and the counts of the rules whose counters are at these offsets.
    fn count(&self, entries: &[u8], places: &[u32]) -> (u64, Vec<Count>) {
        let layout = Layout::of(self.family);
        let (mut hasher, mut counts, mut end) = (self.hasher.build_hasher(), Vec::with_capacity(places.len()), 0);
        for (place, entry) in layout.entries(entries) {
            hasher.write(&entry[..layout.counters]);
            hasher.write(&entry[layout.counters + COUNTERS..]);
            if places.get(counts.len()).is_some_and(|counters| *counters as usize == place + layout.counters) {
                counts.push(count_at(entry, layout.counters).unwrap_or_default());
            }
            end = place + entry.len();
        }
        hasher.write(&entries[end..]);
        (hasher.finish(), counts)
    }
}

/// Returns what a chain's rules match on.
pub(super) fn matches(family: Family, table: &'static str, chain: &str) -> io::Result<Matches> {
    let (_, answer) = fetch(family, table)?;
    Ok(decoder::matches(family, answer.get(ENTRIES..).unwrap_or_default(), chain))
}

fn count_at(entry: &[u8], place: usize) -> Option<Count> {
    Some(Count { packets: u64_at(entry, place)?, bytes: u64_at(entry, place + 8)?, handle: 0 })
}

/// Requests a table from the kernel: `struct ipt_getinfo`, `struct ipt_get_entries`.
fn fetch(family: Family, table: &str) -> io::Result<([u8; INFO], MmapMut)> {
    let (domain, protocol, level) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::RAW, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::INET6, ipproto::RAW, libc::IPPROTO_IPV6),
    };
    let socket = socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    let mut info = [0; INFO];
    info[..table.len()].copy_from_slice(table.as_bytes());
    getsockopt(socket.as_fd(), level, GET_INFO, &mut info)?;
    let size = u32_at(&info, INFO - 4).unwrap_or(0);
    let mut answer = MmapMut::map_anon(ENTRIES + size as usize)?;
    // Page faults for small pages would add a quarter to the time for a large table. Not all kernels have huge pages.
    _ = answer.advise(Advice::HugePage);
    answer[..table.len()].copy_from_slice(table.as_bytes());
    answer[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    let ask = if answer.len() >= LARGE { getsockopt_large } else { getsockopt };
    ask(socket.as_fd(), level, GET_ENTRIES, &mut answer)?;
    Ok((info, answer))
}
