//! Legacy tables straight from the kernel: the entries that `IPT_SO_GET_ENTRIES` gives → [`Ruleset`]. The decoder is pure; the
//! reader opens a raw socket (CAP_NET_RAW, CAP_NET_ADMIN). Looking for a table that is not there would load it: ask `/proc` first.
//!
//! Layouts: `include/uapi/linux/netfilter_ipv4/ip_tables.h` and `netfilter_ipv6/ip6_tables.h`.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::sys::getsockopt;
use super::xt::{self, string, u16_at, u32_at, u64_at};
use crate::ruleset::{Backend, Builder, ChainId, Family, RuleParts, Ruleset, Verdict};

/// Length of a table's name.
const NAME: usize = 32;
/// `struct ipt_getinfo`
const INFO: usize = 84;
/// Where the entries begin in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
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

/// Reads a table.
///
/// # Errors
/// What the kernel answers: no rights, no such table.
pub fn read(family: Family, table: &'static str) -> io::Result<Ruleset> {
    let (domain, protocol, level) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::RAW, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::INET6, ipproto::RAW, libc::IPPROTO_IPV6),
    };
    let socket = socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    let name = |buffer: &mut [u8]| buffer[..table.len()].copy_from_slice(table.as_bytes());
    let mut entries = Vec::new();
    for _ in 0..TRIES {
        let mut info = [0; INFO];
        name(&mut info);
        getsockopt(socket.as_fd(), level, GET_INFO, &mut info)?;
        let size = u32_at(&info, INFO - 4).unwrap_or(0);
        entries.clear();
        entries.resize(ENTRIES + size as usize, 0);
        name(&mut entries);
        entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        match getsockopt(socket.as_fd(), level, GET_ENTRIES, &mut entries) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(decode(family, table, &entries[ENTRIES..])),
        }
    }
    Err(io::Error::other("the table changed its size again and again"))
}

/// Takes the entries of a table apart. What is not well formed is counted as unreadable; nothing behind it can be found.
pub fn decode(family: Family, table: &'static str, entries: &[u8]) -> Ruleset {
    let layout = if family == Family::V4 { &V4 } else { &V6 };
    let mut decoder = Decoder { builder: Builder::new(family, Backend::Legacy, table), layout, entries, starts: HashMap::new() };
    if decoder.find_chains().and_then(|()| decoder.rules()).is_none() {
        decoder.builder.unreadable();
    }
    decoder.builder.finish()
}

struct Decoder<'a> {
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
    /// The entry at `at`, and where the next one is.
    fn entry(&self, at: usize) -> Option<(&'a [u8], usize)> {
        let size = usize::from(u16_at(self.entries.get(at..)?, self.layout.target_offset + 2)?);
        let entry = self.entries.get(at..at + size)?;
        (size >= self.layout.matches).then_some((entry, at + size))
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
                self.rule(entry, &target, next, chain)?;
            }
            at = next;
        }
        Some(())
    }

    fn rule(&mut self, entry: &[u8], target: &Extension, next: usize, chain: ChainId) -> Option<()> {
        let mut parts = RuleParts { packets: u64_at(entry, self.layout.counters)?, ..RuleParts::default() };
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
