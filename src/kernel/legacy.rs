//! Legacy tables straight from the kernel: the entries that `IPT_SO_GET_ENTRIES` gives → [`Snapshot`]. The decoder is pure; the
//! reader opens a raw socket (CAP_NET_RAW, CAP_NET_ADMIN). Looking for a table that is not there would load it: ask `/proc` first.
//!
//! Entries that are the same in every byte but their counters are the same rules: then only the counters are picked up.
//!
//! Layouts: `include/uapi/linux/netfilter_ipv4/ip_tables.h` and `netfilter_ipv6/ip6_tables.h`.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use foldhash::quality::RandomState;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::xt::{self, string, u16_at, u32_at, u64_at};
use crate::ruleset::{Backend, Builder, ChainId, Family, RuleParts, Ruleset, Snapshot, Verdict};
use crate::sys::{self, getsockopt};

/// Length of a table's name.
const NAME: usize = 32;
/// `struct ipt_getinfo`
const INFO: usize = 84;
/// Where the entries begin in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
/// Length of `struct xt_counters`: packets and bytes.
const COUNTERS: usize = 16;
/// Header of a match or target: size, name, revision.
const HEADER: usize = 32;
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

    /// The entry at `at`, and where the next one is.
    fn entry<'a>(&self, entries: &'a [u8], at: usize) -> Option<(&'a [u8], usize)> {
        let size = usize::from(u16_at(entries.get(at..)?, self.target_offset + 2)?);
        let entry = entries.get(at..at + size)?;
        (size >= self.matches).then_some((entry, at + size))
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
    /// Of everything but the counters.
    fingerprint: u64,
    /// Where the counters of all entries are.
    counters: Vec<u32>,
    decoded: Decoded,
}

/// A table without its counters.
#[derive(Debug)]
pub struct Decoded {
    /// The rules.
    pub ruleset: Arc<Ruleset>,
    /// Where the counters of each rule are.
    counters: Vec<u32>,
}

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
        let answer = fetch(self.family, self.table)?;
        Ok(self.take(&answer[ENTRIES..]))
    }

    /// Takes the entries of a read.
    pub fn take(&mut self, entries: &[u8]) -> Snapshot {
        let known = self.known.take().filter(|known| fingerprint(entries, &known.counters, &self.hasher) == Some(known.fingerprint));
        let known = self.known.insert(known.unwrap_or_else(|| {
            let (counters, decoded) = (counters(self.family, entries), decode(self.family, self.table, entries));
            Known { fingerprint: fingerprint(entries, &counters, &self.hasher).unwrap_or_default(), counters, decoded }
        }));
        known.decoded.count(entries)
    }
}

impl Decoded {
    /// These rules with the counters of such entries.
    pub fn count(&self, entries: &[u8]) -> Snapshot {
        let packets = self.counters.iter().map(|&at| u64_at(entries, at as usize).unwrap_or(0)).collect();
        Snapshot::new(Arc::clone(&self.ruleset), packets)
    }
}

/// The entries of a table as the kernel gives them, behind a header.
fn fetch(family: Family, table: &str) -> io::Result<Vec<u8>> {
    let (domain, protocol, level) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::RAW, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::INET6, ipproto::RAW, libc::IPPROTO_IPV6),
    };
    let socket = socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    let name = |buffer: &mut [u8]| buffer[..table.len()].copy_from_slice(table.as_bytes());
    for _ in 0..TRIES {
        let mut info = [0; INFO];
        name(&mut info);
        getsockopt(socket.as_fd(), level, GET_INFO, &mut info)?;
        let size = u32_at(&info, INFO - 4).unwrap_or(0);
        let mut entries = sys::large(ENTRIES + size as usize);
        name(&mut entries);
        entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        match getsockopt(socket.as_fd(), level, GET_ENTRIES, &mut entries) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(entries),
        }
    }
    Err(io::Error::other("the table changed its size again and again"))
}

/// A hash over everything but the counters at these places. Its key is chosen at random, for names of policies are other people's.
fn fingerprint(entries: &[u8], counters: &[u32], hasher: &RandomState) -> Option<u64> {
    let (mut hasher, mut begin) = (hasher.build_hasher(), 0);
    for &at in counters {
        hasher.write(entries.get(begin..at as usize)?);
        begin = at as usize + COUNTERS;
    }
    hasher.write(entries.get(begin..)?);
    Some(hasher.finish())
}

/// Where the counters of all well-formed entries are.
fn counters(family: Family, entries: &[u8]) -> Vec<u32> {
    let (layout, mut at, mut counters) = (Layout::of(family), 0, Vec::new());
    while let Some((_, next)) = layout.entry(entries, at) {
        counters.push((at + layout.counters) as u32);
        at = next;
    }
    counters
}

/// Takes the entries of a table apart. What is not well formed is counted as unreadable; nothing behind it can be found.
pub fn decode(family: Family, table: &'static str, entries: &[u8]) -> Decoded {
    let layout = Layout::of(family);
    let mut decoder = Decoder { builder: Builder::new(family, Backend::Legacy, table), layout, entries, starts: HashMap::new() };
    if decoder.find_chains().and_then(|()| decoder.rules()).is_none() {
        decoder.builder.unreadable();
    }
    let places = decoder.builder.finish();
    let counters = places.ruleset.chains().iter().flat_map(|chain| places.packets_of(chain)).map(|&at| at as u32).collect();
    Decoded { ruleset: places.ruleset, counters }
}

struct Decoder<'a> {
    /// In place of what a rule has counted it is given the place of its counter.
    builder: Builder,
    layout: &'a Layout,
    entries: &'a [u8],
    /// Calico's chains by the place of their first rule, which jumps name.
    starts: HashMap<usize, ChainId>,
}

/// A match or a target.
struct Extension<'a> {
    name: &'a [u8],
    revision: u32,
    data: &'a [u8],
    size: usize,
}

fn extension(entry: &[u8], at: usize) -> Option<Extension<'_>> {
    let size = usize::from(u16_at(entry, at)?);
    let whole = entry.get(at..at + size.max(HEADER))?;
    Some(Extension { name: string(&whole[2..31]), revision: whole[31].into(), data: &whole[HEADER..], size: size.max(HEADER) })
}

impl<'a> Decoder<'a> {
    fn entry(&self, at: usize) -> Option<(&'a [u8], usize)> {
        self.layout.entry(self.entries, at)
    }

    fn target(&self, entry: &'a [u8]) -> Option<Extension<'a>> {
        extension(entry, usize::from(u16_at(entry, self.layout.target_offset)?))
    }

    /// A chain begins behind an entry whose target is `ERROR` and carries its name.
    fn find_chains(&mut self) -> Option<()> {
        let mut at = 0;
        while at < self.entries.len() {
            let (entry, next) = self.entry(at)?;
            let target = self.target(entry)?;
            if target.name == b"ERROR" && target.data.starts_with(b"cali-") {
                let name = std::str::from_utf8(string(target.data)).ok()?;
                let chain = self.builder.chain(name);
                self.starts.insert(next, chain);
            }
            at = next;
        }
        Some(())
    }

    fn rules(&mut self) -> Option<()> {
        let (mut at, mut chain) = (0, None);
        while at < self.entries.len() {
            let (entry, next) = self.entry(at)?;
            let target = self.target(entry)?;
            if let Some(&begun) = self.starts.get(&at) {
                chain = Some(begun);
            }
            if target.name == b"ERROR" {
                chain = None;
            }
            // Every chain ends with a return that is not one of its rules.
            let is_end = || self.entry(next).and_then(|(entry, _)| self.target(entry)).is_none_or(|target| target.name == b"ERROR");
            if let Some(chain) = chain.filter(|_| !is_end()) {
                self.rule((at, entry), &target, next, chain)?;
            }
            at = next;
        }
        Some(())
    }

    fn rule(&mut self, (at, entry): (usize, &[u8]), target: &Extension, next: usize, chain: ChainId) -> Option<()> {
        let mut parts = RuleParts { packets: (at + self.layout.counters) as u64, ..RuleParts::default() };
        parts.other_matches = self.matches_addresses(entry);
        let (mut at, end) = (self.layout.matches, usize::from(u16_at(entry, self.layout.target_offset)?));
        while at < end {
            let found = extension(entry, at)?;
            xt::add_match(found.name, found.revision, found.data, &mut parts, &mut self.builder)?;
            at += found.size;
        }
        let verdict = match target.name {
            b"" => self.standard(entry, u32_at(target.data, 0)? as i32, next)?,
            name => xt::target(name, target.revision, target.data, &mut self.builder)?,
        };
        self.builder.push(chain, &parts, verdict);
        Some(())
    }

    /// Whether anything about addresses, interfaces or the protocol is asked for; only flags that say otherwise are left out.
    fn matches_addresses(&self, entry: &[u8]) -> bool {
        let matches = &entry[..self.layout.addresses];
        matches.iter().enumerate().any(|(at, &byte)| if at == self.layout.flags { byte & !self.layout.goto & !1 != 0 } else { byte != 0 })
    }

    /// The standard target: below zero a verdict, else the place to go on at.
    fn standard(&self, entry: &[u8], verdict: i32, next: usize) -> Option<Verdict> {
        Some(match verdict {
            -1 => Verdict::Drop,
            -2 => Verdict::Accept,
            -5 => Verdict::Return,
            ..0 => Verdict::Other,
            place => match (self.starts.get(&(place as usize)), entry[self.layout.flags] & self.layout.goto != 0) {
                // A rule without a target goes on with the next one.
                _ if place as usize == next => Verdict::None,
                (Some(&chain), true) => Verdict::Goto(chain),
                (Some(&chain), false) => Verdict::Jump(chain),
                (None, _) => Verdict::Other,
            },
        })
    }
}
