//! A rule of nf_tables while it is being parsed, from netlink expressions or from nft's JSON. Pure.

use super::tables::Tables;
use super::xt;
use crate::ruleset::{Builder, ChainId, Count, RuleParts, Verdict};

/// The packet's mark with some bits kept and some inverted: `mark & mask ^ xor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    pub mask: u32,
    pub xor: u32,
}

impl Bits {
    pub const ALL: Bits = Bits { mask: u32::MAX, xor: 0 };

    /// Appends another operation, by nft's symbol. Returns `None` if it is not a bit operation.
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

    /// Records a match on something else. If it follows the counter, the counter has counted packets that did not match.
    pub fn other(&mut self) {
        self.parts.other_matches = true;
        self.parts.counts_before_match |= self.counted;
    }

    /// Sets the mark to these bits of it, or to an unknown value if `None`.
    pub fn mark(&mut self, bits: Option<Bits>) {
        self.verdict = match bits {
            // Bits that are not kept are set to `xor`. `SetMark` cannot express kept bits that are inverted.
            Some(Bits { mask, xor }) if mask & xor == 0 => Verdict::SetMark { value: xor, mask: !mask },
            _ => Verdict::Other,
        };
    }

    /// Records a log statement. With a group it goes to Felix, otherwise to the kernel's log.
    pub fn log(&mut self, has_group: bool, prefix: &[u8]) {
        self.verdict = if has_group { xt::nflog(prefix, self.builder) } else { Verdict::Log };
    }

    /// Returns the verdict of a jump. A jump to a chain that is not Calico's is `Other`.
    pub fn jump(&mut self, tables: Tables, chain: &str, to: fn(ChainId) -> Verdict) -> Verdict {
        tables.place(chain).map_or(Verdict::Other, |(_, name)| to(self.builder.chain(name)))
    }

    pub fn finish(mut self) -> (RuleParts, Verdict) {
        self.parts.uncounted = !self.counted;
        (self.parts, self.verdict)
    }
}
