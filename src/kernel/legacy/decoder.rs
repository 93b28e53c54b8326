//! Decodes the entries of a legacy table. Pure.

use std::collections::HashMap;

use super::super::matches::{self, Matches, Words};
use super::super::xt::{self, string, u16_at, u32_at};
use super::{Layout, count_at};
use crate::felix::names::CHAIN_PREFIX;
use crate::ruleset::{Backend, Builder, ChainId, Family, RuleId, RuleParts, Snapshot, Verdict};

/// Header of a match or target: size, name, revision.
const HEADER: usize = 32;

/// Decodes all entries of a table. Returns the snapshot and the offset of each rule's counters.
pub fn decode(family: Family, table: &'static str, entries: &[u8]) -> (Snapshot, Vec<u32>) {
    let (layout, builder) = (Layout::of(family), Builder::new(family, Backend::Legacy, table));
    let mut rules = Rules { layout, builder, starts: HashMap::new(), jumps: Vec::new(), chain: None, counters: Vec::new() };
    let end = layout.entries(entries).map_while(|(place, entry)| rules.entry(place, entry).map(|()| place + entry.len())).last();
    // Entries that follow a malformed one cannot be located.
    if end.unwrap_or(0) < entries.len() {
        rules.builder.unreadable();
    }
    rules.finish()
}

struct Rules {
    layout: &'static Layout,
    builder: Builder,
    /// Calico's chains by the offset of their first rule.
    starts: HashMap<u32, ChainId>,
    /// The jumps in the order of their rules. A chain may begin after the jumps to it.
    jumps: Vec<Jump>,
    /// The current chain, if it is Calico's, and the number of rules before it.
    chain: Option<(ChainId, usize)>,
    counters: Vec<u32>,
}

/// A rule that continues elsewhere, and the offset of the entry there.
struct Jump {
    rule: RuleId,
    place: u32,
    is_goto: bool,
}

pub struct Extension<'a> {
    pub name: &'a [u8],
    revision: u32,
    pub data: &'a [u8],
    size: usize,
}

pub fn extension(entry: &[u8], at: usize) -> Option<Extension<'_>> {
    let size = usize::from(u16_at(entry, at)?);
    let whole = entry.get(at..at + size.max(HEADER))?;
    Some(Extension { name: string(&whole[2..31]), revision: whole[31].into(), data: &whole[HEADER..], size: size.max(HEADER) })
}

impl Rules {
    fn entry(&mut self, at: usize, entry: &[u8]) -> Option<()> {
        let target = extension(entry, usize::from(u16_at(entry, self.layout.target_offset)?))?;
        match (target.name, self.chain) {
            (b"ERROR", _) => self.begin_chain(at + entry.len(), target.data),
            (_, Some((chain, _))) => self.rule(at, entry, &target, chain),
            (_, None) => Some(()),
        }
    }

    /// Begins a chain after an entry whose target is `ERROR`, which carries the chain's name.
    fn begin_chain(&mut self, start: usize, name: &[u8]) -> Option<()> {
        self.end_chain();
        if !name.starts_with(CHAIN_PREFIX.as_bytes()) {
            return Some(());
        }
        let name = std::str::from_utf8(string(name)).ok()?;
        // The order of the rules is that of their counters, so no chain may occur twice.
        let is_new = self.builder.known_chain(name).is_none();
        let chain = is_new.then(|| self.builder.chain(name))?;
        self.starts.insert(start as u32, chain);
        self.chain = Some((chain, self.builder.rule_count()));
        Some(())
    }

    /// Ends the chain. Every chain ends with a return that is not one of its rules.
    fn end_chain(&mut self) {
        let Some((_, before)) = self.chain.take() else { return };
        let count = self.builder.rule_count().saturating_sub(1).max(before);
        self.builder.truncate(count);
        self.counters.truncate(count);
        while self.jumps.pop_if(|jump| jump.rule.0 as usize >= count).is_some() {}
    }

    fn finish(mut self) -> (Snapshot, Vec<u32>) {
        self.end_chain();
        self.counters.shrink_to_fit();
        for Jump { rule, place, is_goto } in self.jumps {
            if let Some(&chain) = self.starts.get(&place) {
                self.builder.set_verdict(rule, if is_goto { Verdict::Goto(chain) } else { Verdict::Jump(chain) });
            }
        }
        (self.builder.finish(), self.counters)
    }

    fn rule(&mut self, place: usize, entry: &[u8], target: &Extension, chain: ChainId) -> Option<()> {
        let mut parts = RuleParts { count: count_at(entry, self.layout.counters)?, ..RuleParts::default() };
        parts.other_matches = self.matches_addresses(entry);
        let (mut at, end) = (self.layout.matches, usize::from(u16_at(entry, self.layout.target_offset)?));
        while at < end {
            let found = extension(entry, at)?;
            xt::add_match(found.name, found.revision, found.data, &mut parts, &mut self.builder)?;
            at += found.size;
        }
        let verdict = match target.name {
            b"" => self.standard(entry, u32_at(target.data, 0)? as i32, place + entry.len())?,
            name => xt::target(name, target.revision, target.data, &mut self.builder)?,
        };
        self.builder.push(chain, &parts, verdict);
        self.counters.push((place + self.layout.counters) as u32);
        Some(())
    }

    /// Reports whether the entry matches on addresses, interfaces or the protocol. Ignores flags that do not match on anything.
    fn matches_addresses(&self, entry: &[u8]) -> bool {
        let matches = &entry[..self.layout.addresses];
        matches.iter().enumerate().any(|(at, &byte)| if at == self.layout.flags { byte & !self.layout.goto & !1 != 0 } else { byte != 0 })
    }

    /// Returns the verdict of the standard target: a verdict if negative, otherwise the offset to continue at.
    fn standard(&mut self, entry: &[u8], verdict: i32, next: usize) -> Option<Verdict> {
        Some(match verdict {
            -1 => Verdict::Drop,
            -2 => Verdict::Accept,
            -5 => Verdict::Return,
            ..0 => Verdict::Other,
            // A rule without a target continues with the next one.
            place if place as usize == next => Verdict::None,
            place => {
                let is_goto = *entry.get(self.layout.flags)? & self.layout.goto != 0;
                self.jumps.push(Jump { rule: RuleId(self.builder.rule_count() as u32), place: place as u32, is_goto });
                // `finish` changes this if the jump leads to a chain of Calico's.
                Verdict::Other
            }
        })
    }
}

/// Returns what the rules of a chain match on, by Felix's hash of each.
pub fn matches(family: Family, entries: &[u8], chain: &str) -> Matches {
    let layout = Layout::of(family);
    let (mut matches, mut is_meant) = (Matches::new(), false);
    let mut builder = Builder::new(family, Backend::Legacy, "filter");
    for (_, entry) in layout.entries(entries) {
        let Some(target) = u16_at(entry, layout.target_offset).and_then(|at| extension(entry, at.into())) else { break };
        if target.name == b"ERROR" {
            is_meant = string(target.data) == chain.as_bytes();
        } else if is_meant {
            let (mut words, mut parts) = (Words::default(), RuleParts::default());
            if addresses(family, entry, &mut words).is_none() {
                words.more();
            }
            let (mut at, end) = (layout.matches, usize::from(u16_at(entry, layout.target_offset).unwrap_or(0)));
            while let Some(found) = (at < end).then(|| extension(entry, at)).flatten() {
                words.xt(found.name, found.revision, found.data);
                _ = xt::add_match(found.name, found.revision, found.data, &mut parts, &mut builder);
                at += found.size;
            }
            matches.insert(parts.hash, words.finish());
        }
    }
    matches
}

/// Adds the matches of struct ipt_ip or struct ip6t_ip6: addresses and masks, interfaces and masks, protocol, flags. Returns `None` if some
/// of them are not shown.
fn addresses(family: Family, entry: &[u8], words: &mut Words) -> Option<()> {
    const SOURCE: u8 = 0x08;
    const DESTINATION: u8 = 0x10;
    const PROTOCOL: u8 = 0x40;
    let (size, interfaces, end, inverted) = match family {
        Family::V4 => (4, 16, 80, *entry.get(83)?),
        Family::V6 => (16, 64, 128, *entry.get(132)?),
    };
    for (place, side, flag) in [(0, "source", SOURCE), (1, "destination", DESTINATION)] {
        let (address, mask) = (entry.get(place * size..)?.get(..size)?, entry.get((place + 2) * size..)?.get(..size)?);
        if mask.iter().any(|byte| *byte != 0) {
            words.address(inverted & flag != 0, side, matches::address(address)?, matches::prefix(mask)?);
        }
    }
    let number = u16_at(entry, end)?;
    if number != 0 {
        words.protocol(inverted & PROTOCOL != 0, number as u8);
    }
    let has_interface = entry.get(interfaces..end)?.iter().any(|byte| *byte != 0);
    // Fragments, and a traffic class.
    let has_more = inverted & !(SOURCE | DESTINATION | PROTOCOL) != 0 || (family == Family::V4 && *entry.get(82)? & 1 != 0);
    (!has_interface && !has_more).then_some(())
}
