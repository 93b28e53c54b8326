//! Describes in words what rules match on, from the kernel's bytes. One chain is read at a time, when a user looks at its policy. Nothing
//! is kept between reads. A match that is not understood is reported as such.
//!
//! Layouts: `include/uapi/linux/netfilter/xt_*.h`, `include/uapi/linux/netfilter/ipset/ip_set.h`.

mod nft;
mod sets;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::tables::Tables;
use super::xt::{string, u16_at};
use super::{legacy, nft as reader};
use crate::ruleset::{Backend, Family, RuleHash, protocol_name};
pub use nft::rule as of_expressions;

/// The matches of a chain's rules, by Felix's hash of each rule.
pub type Matches = HashMap<RuleHash, String>;

/// Returns the matches of a chain, by its name in this iptables table.
pub fn matches(backend: Backend, family: Family, table: &'static str, chain: &str, deadline: Instant) -> io::Result<Matches> {
    match backend {
        Backend::Legacy => legacy::matches(family, table, chain),
        Backend::Nft => reader::matches(family, Tables::Iptables(table), chain, deadline),
        Backend::Native => reader::matches(family, Tables::Calico, &format!("{table}-{chain}"), deadline),
    }
}

/// The matches of one rule.
#[derive(Debug, Default)]
pub struct Words {
    said: Vec<String>,
    has_more: bool,
}

impl Words {
    pub fn say(&mut self, negated: bool, what: &str) {
        let text = if negated { format!("not {what}") } else { what.to_owned() };
        // iptables-nft matches on the protocol twice, for example.
        if !self.said.contains(&text) {
            self.said.push(text);
        }
    }

    /// Records a match that is not shown.
    pub fn more(&mut self) {
        self.has_more = true;
    }

    pub fn finish(self) -> String {
        match (self.said.is_empty(), self.has_more) {
            (true, false) => "all packets".to_owned(),
            (true, true) => "a match that is not shown".to_owned(),
            (false, false) => self.said.join(", "),
            (false, true) => format!("{}, and a match that is not shown", self.said.join(", ")),
        }
    }

    /// Adds an iptables match.
    pub fn xt(&mut self, name: &[u8], revision: u32, data: &[u8]) {
        let understood = match (name, revision) {
            (b"comment", _) => Some(()),
            (b"udp", 0) => self.ports_of_protocol(data, 8),
            // TCP options and flags are between the ports and the inversion flags.
            (b"tcp", 0) if data.get(8..11).is_some_and(|more| more == [0; 3]) => self.ports_of_protocol(data, 11),
            (b"multiport", 1) => self.multiport(data),
            (b"icmp" | b"icmp6", 0) => self.icmp(data),
            (b"set", 1..=4) => self.set(data),
            _ => None,
        };
        if understood.is_none() {
            self.more();
        }
    }

    /// struct xt_udp, xt_tcp { __u16 spts[2], dpts[2]; …; __u8 invflags; }
    fn ports_of_protocol(&mut self, data: &[u8], flags: usize) -> Option<()> {
        let flags = *data.get(flags)?;
        for (at, what, inverted) in [(0, "source port", 1), (4, "destination port", 2)] {
            let (from, to) = (u16_at(data, at)?, u16_at(data, at + 2)?);
            if (from, to) != (0, u16::MAX) || flags & inverted != 0 {
                self.say(flags & inverted != 0, &format!("{what} {}", range(from, to)));
            }
        }
        (flags & !3 == 0).then_some(())
    }

    /// struct xt_multiport_v1 { __u8 flags, count; __u16 ports[15]; __u8 pflags[15]; __u8 invert; }
    fn multiport(&mut self, data: &[u8]) -> Option<()> {
        let what = ["source port", "destination port", "port"][usize::from(*data.first()?).min(2)];
        let (count, negated) = (usize::from(*data.get(1)?), *data.get(47)? != 0);
        let (mut ports, mut place) = (Vec::new(), 0);
        while place < count {
            let port = |place: usize| u16_at(data, 2 + 2 * place);
            let begins_range = *data.get(32..47)?.get(place)? != 0;
            ports.push(range(port(place)?, port(place + usize::from(begins_range))?));
            place += 1 + usize::from(begins_range);
        }
        self.say(negated, &format!("{what} {}", ports.join(",")));
        Some(())
    }

    /// struct ipt_icmp { __u8 type, code[2], invflags; }
    fn icmp(&mut self, data: &[u8]) -> Option<()> {
        let &[kind, from, to, flags, ..] = data else { return None };
        match (kind, from, to) {
            (u8::MAX, ..) => {}
            (_, 0, u8::MAX) => self.say(flags != 0, &format!("ICMP type {kind}")),
            _ if from == to => self.say(flags != 0, &format!("ICMP type {kind} code {from}")),
            _ => self.say(flags != 0, &format!("ICMP type {kind} codes {from}-{to}")),
        }
        Some(())
    }

    /// struct xt_set_info { __u16 index; __u8 dim, flags; }; options for counters follow.
    fn set(&mut self, data: &[u8]) -> Option<()> {
        const INVERTED: u8 = 1;
        let (index, dimensions, flags) = (u16_at(data, 0)?, *data.get(2)?, *data.get(3)?);
        let name = sets::name(index)?;
        let side = |dimension: u8| if flags & (1 << dimension) != 0 { "source" } else { "destination" };
        let sides: Vec<&str> = (1..=dimensions).map(side).collect();
        self.say(flags & INVERTED != 0, &format!("{} in set {name}", sides.join(",")));
        data.get(4..)?.iter().all(|byte| *byte == 0).then_some(())
    }

    /// Adds the protocol. It is always shown first.
    pub fn protocol(&mut self, negated: bool, number: u8) {
        let before = self.said.len();
        self.say(negated, &protocol_name(number));
        let added = self.said.len() - before;
        self.said.rotate_right(added);
    }

    pub fn address(&mut self, negated: bool, side: &str, address: IpAddr, length: u32) {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let network = if length == most { address.to_string() } else { format!("{address}/{length}") };
        self.say(negated, &format!("{side} {network}"));
    }
}

pub fn range(from: u16, to: u16) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

/// Returns the length of a network's prefix, or `None` if the mask is not a prefix.
pub fn prefix(mask: &[u8]) -> Option<u32> {
    let length: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let is_prefix = mask.iter().enumerate().all(|(at, byte)| {
        let here = length.saturating_sub(8 * at as u32).min(8);
        u32::from(*byte) == (0xff00 >> here) & 0xff
    });
    (is_prefix && length == ones).then_some(length)
}

/// Parses an address of 4 or 16 bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// Converts a name in the kernel's form to text.
pub fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(string(name)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        for (mask, expected) in [
            (&[255, 255, 255, 0][..], Some(24)),
            (&[255, 254, 0, 0], Some(15)),
            (&[0; 4], Some(0)),
            (&[255; 16], Some(128)),
            (&[255, 0, 255, 0], None),
            (&[0, 255, 0, 0], None),
            (&[0b1101_0000, 0, 0, 0], None),
        ] {
            assert_eq!(prefix(mask), expected, "{mask:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let said = |name: &[u8], revision: u32, data: &[u8]| {
            let mut words = Words::default();
            words.xt(name, revision, data);
            words.finish()
        };
        for (name, data, expected) in [
            (&b"comment"[..], &[][..], "all packets"),
            (b"mark", &[0; 12], "a match that is not shown"),
            (b"udp", &[0], "a match that is not shown"),
            (b"tcp", &[0, 0, 255, 255, 0, 0, 255, 255, 0, 2, 2, 0], "a match that is not shown"),
            (b"multiport", &[1, 200, 1], "a match that is not shown"),
            (b"icmp", &[8, 0, 255, 0], "ICMP type 8"),
            (b"icmp", &[3, 4, 4, 1], "not ICMP type 3 code 4"),
            (b"icmp", &[255, 0, 255, 0], "all packets"),
        ] {
            assert_eq!(said(name, u32::from(name == b"multiport"), data), expected, "{:?}", String::from_utf8_lossy(name));
        }
    }
}
