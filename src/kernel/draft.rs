//! A rule of nf_tables while it is taken apart, be it out of netlink's expressions or of nft's JSON. Pure.

use super::tables::Tables;
use super::xt;
use crate::ruleset::{Builder, ChainId, Count, RuleParts, Verdict};

/// The packet's mark, with some bits kept and some turned: `mark & mask ^ xor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    pub mask: u32,
    pub xor: u32,
}

impl Bits {
    pub const ALL: Bits = Bits { mask: u32::MAX, xor: 0 };

    /// With another operation behind, as nft writes it; `None` if it is none of bits.
    pub fn then(self, operation: &str, bits: u32) -> Option<Bits> {
        let Bits { mask, xor } = self;
        match operation {
            "&" => Some(Bits { mask: mask & bits, xor: xor & bits }),
            "|" => Some(Bits { mask: mask & !bits, xor: xor & !bits | bits }),
            "^" => Some(Bits { mask, xor: xor ^ bits }),
            _ => None,
        }
    }
}

pub struct Draft<'a> {
    pub parts: RuleParts,
    pub verdict: Verdict,
    pub counted: bool,
    pub builder: &'a mut Builder,
}

impl<'a> Draft<'a> {
    pub fn new(builder: &'a mut Builder, handle: u64) -> Self {
        let parts = RuleParts { count: Count { handle, ..Count::default() }, ..RuleParts::default() };
        Draft { parts, verdict: Verdict::None, counted: false, builder }
    }

    pub fn count(&mut self, packets: u64, bytes: u64) {
        self.parts.count = Count { packets, bytes, ..self.parts.count };
        self.counted = true;
    }

    /// Something else that is matched on. Behind the counter, it has counted packets that did not match.
    pub fn other(&mut self) {
        self.parts.other_matches = true;
        self.parts.counts_before_match |= self.counted;
    }

    /// Sets the mark to these bits of it, or to something else.
    pub fn mark(&mut self, bits: Option<Bits>) {
        self.verdict = match bits {
            // Bits that are not kept are set to what they are turned to; kept ones that are turned cannot be said so.
            Some(Bits { mask, xor }) if mask & xor == 0 => Verdict::SetMark { value: xor, mask: !mask },
            _ => Verdict::Other,
        };
    }

    /// With a group it goes to Felix, else to the kernel's log.
    pub fn log(&mut self, has_group: bool, prefix: &[u8]) {
        self.verdict = if has_group { xt::nflog(prefix, self.builder) } else { Verdict::Log };
    }

    /// What leads to a chain that is none of Calico's is something else.
    pub fn jump(&mut self, tables: Tables, chain: &str, to: fn(ChainId) -> Verdict) -> Verdict {
        tables.place(chain).map_or(Verdict::Other, |(_, name)| to(self.builder.chain(name)))
    }

    pub fn finish(mut self) -> (RuleParts, Verdict) {
        self.parts.uncounted = !self.counted;
        (self.parts, self.verdict)
    }
}
