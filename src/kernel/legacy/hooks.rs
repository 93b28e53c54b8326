//! Finds the built-in chains of a legacy table that lead into Calico's: see [`hooks`](crate::kernel::hooks).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::super::xt::{u16_at, u32_at};
use super::decoder::extension;
use super::{ENTRIES, INFO, Layout, NAME, fetch};
use crate::felix::names::CHAIN_PREFIX;
use crate::ruleset::Family;

/// The filter table's built-in chains, and their numbers in `enum nf_inet_hooks`.
const CHAINS: [(&str, usize); 3] = [("INPUT", 1), ("FORWARD", 2), ("OUTPUT", 3)];

pub fn hooks(family: Family) -> io::Result<BTreeSet<&'static str>> {
    let (info, answer) = fetch(family, "filter")?;
    let (layout, mut found) = (Layout::of(family), Found::default());
    for (at, entry) in layout.entries(answer.get(ENTRIES..).unwrap_or_default()) {
        found.entry(layout, at, entry);
    }
    Ok(found.among(&info))
}

/// Jumps and chains, by their offsets in the table.
#[derive(Default)]
struct Found {
    jumps: BTreeMap<usize, usize>,
    calico: BTreeSet<usize>,
}

impl Found {
    fn entry(&mut self, layout: &Layout, at: usize, entry: &[u8]) -> Option<()> {
        let target = extension(entry, usize::from(u16_at(entry, layout.target_offset)?))?;
        match target.name {
            // The entry before the first rule of a chain carries the chain's name.
            b"ERROR" if target.data.starts_with(CHAIN_PREFIX.as_bytes()) => _ = self.calico.insert(at + entry.len()),
            b"" => _ = self.jumps.insert(at, usize::try_from(u32_at(target.data, 0)? as i32).ok()?),
            _ => {}
        }
        Some(())
    }

    /// `struct ipt_getinfo`: name, valid hooks, the start of each hook's chain, and the end of each.
    fn among(&self, info: &[u8; INFO]) -> BTreeSet<&'static str> {
        const HOOKS: usize = 5;
        let place = |index: usize| u32_at(info, NAME + 4 + 4 * index).unwrap_or(0) as usize;
        let leads = |hook: usize| {
            let (begin, end) = (place(hook), place(HOOKS + hook));
            begin <= end && self.jumps.range(begin..=end).any(|(_, to)| self.calico.contains(to))
        };
        CHAINS.into_iter().filter(|(_, hook)| leads(*hook)).map(|(chain, _)| chain).collect()
    }
}
