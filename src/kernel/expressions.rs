//! Parses the expressions of an nf_tables rule from netlink. Pure. iptables-nft wraps `xt` matches and targets. Its newer releases, and
//! Calico's own tables, use native nf_tables expressions. Both kinds occur in one rule.
//!
//! Layouts: `include/uapi/linux/netfilter/nf_tables.h`. Numbers of netlink are big-endian; data in registers is in host byte order.

use super::draft::{Bits, Draft};
use super::netlink::Attributes;
use super::tables::Tables;
use super::xt::{self, be32, be64, string, u32_at};
use crate::ruleset::{Builder, CtState, MarkMatch, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Mark(Bits),
    /// The conntrack state, with some bits kept.
    CtState {
        mask: u32,
    },
    /// A value that does not affect Calico's verdicts.
    Other,
}

/// Expressions that only load or match. Others may send the packet anywhere: to a queue, to another address.
const ONLY_MATCH: [&[u8]; 12] =
    [b"payload", b"exthdr", b"lookup", b"range", b"limit", b"connlimit", b"quota", b"fib", b"socket", b"osf", b"rt", b"hash"];

pub struct Rule<'a> {
    pub draft: Draft<'a>,
    tables: Tables,
    registers: [Option<(u32, Loaded)>; 4],
}

/// Returns the first four bytes of `NFTA_DATA_VALUE`, in host byte order.
fn value(data: &[u8]) -> Option<u32> {
    u32_at(Attributes(data).get(1)?, 0)
}

#[derive(Debug, Clone, Copy)]
pub struct Counter<'a> {
    /// The bytes that change while the counter counts.
    pub values: &'a [u8],
    pub packets: u64,
    pub bytes: u64,
}

impl<'a> Counter<'a> {
    /// `NFTA_COUNTER_BYTES` and `NFTA_COUNTER_PACKETS`.
    fn new(values: &'a [u8]) -> Option<Self> {
        let attributes = Attributes(values);
        Some(Counter { values, packets: be64(attributes.get(2)?)?, bytes: attributes.get(1).and_then(be64)? })
    }
}

pub fn counter(list: &[u8]) -> Option<Counter<'_>> {
    let is_counter = |element: &Attributes| element.get(1).is_some_and(|name| string(name) == b"counter");
    let values = Attributes(list).map(|(_, element)| Attributes(element)).find(is_counter)?.get(2)?;
    Counter::new(values)
}

impl<'a> Rule<'a> {
    pub fn new(builder: &'a mut Builder, tables: Tables, handle: u64) -> Self {
        Rule { draft: Draft::new(builder, handle), tables, registers: [None; 4] }
    }

    /// Adds the comment in a rule's user data, which is a list of type (1 byte, 0 is the comment), length (1 byte) and value.
    pub fn user_data(&mut self, mut data: &[u8]) {
        while let [kind, length, rest @ ..] = data {
            let length = usize::from(*length).min(rest.len());
            if *kind == 0 {
                xt::add_comment(string(&rest[..length]), &mut self.draft.parts, self.draft.builder);
            }
            data = &rest[length..];
        }
    }

    /// Parses the list of expressions. Returns `None` if one is malformed.
    pub fn expressions(&mut self, list: &[u8]) -> Option<()> {
        for (_, element) in Attributes(list) {
            let name = string(Attributes(element).get(1)?);
            let data = Attributes(element).get(2).unwrap_or_default();
            self.expression(name, Attributes(data))?;
        }
        Some(())
    }

    fn expression(&mut self, name: &[u8], data: Attributes) -> Option<()> {
        match name {
            b"counter" => {
                // The first of several counters is taken. Calico's rules have one.
                if !std::mem::replace(&mut self.draft.counted, true) {
                    let Counter { packets, bytes, .. } = Counter::new(data.0)?;
                    self.draft.count(packets, bytes);
                }
            }
            b"match" | b"target" => return self.xt(name, data),
            b"meta" => return self.meta(data),
            b"ct" => self.ct(data)?,
            b"bitwise" => return self.bitwise(data),
            b"cmp" => return self.cmp(data),
            b"immediate" => return self.immediate(data),
            b"reject" => self.draft.verdict = Verdict::Reject,
            b"log" => self.draft.log(data.get(1).is_some(), data.get(2).map(string).unwrap_or_default()),
            b"notrack" => self.draft.verdict = Verdict::Other,
            _ => {
                // It may have loaded something into a register that held the mark.
                self.registers = [None; 4];
                self.draft.other();
                let gives_verdict = name == b"lookup" && data.get(3).and_then(be32) == Some(0);
                if gives_verdict || !ONLY_MATCH.contains(&name) {
                    self.draft.verdict = Verdict::Other;
                }
            }
        }
        Some(())
    }

    fn xt(&mut self, kind: &[u8], data: Attributes) -> Option<()> {
        let (name, revision, info) = (string(data.get(1)?), be32(data.get(2)?)?, data.get(3).unwrap_or_default());
        match kind {
            b"match" => xt::add_match(name, revision, info, &mut self.draft.parts, self.draft.builder),
            _ => {
                self.draft.verdict = xt::target(name, revision, info, self.draft.builder)?;
                Some(())
            }
        }
    }

    fn register(&self, number: &[u8]) -> Option<Loaded> {
        let number = be32(number)?;
        self.registers.iter().flatten().find(|(n, _)| *n == number).map(|(_, loaded)| *loaded)
    }

    fn load(&mut self, number: &[u8], loaded: Loaded) -> Option<()> {
        let number = be32(number)?;
        let known = self.registers.iter().position(|slot| slot.is_some_and(|(n, _)| n == number));
        let place = known.or_else(|| self.registers.iter().position(Option::is_none)).unwrap_or(0);
        self.registers[place] = Some((number, loaded));
        Some(())
    }

    /// Loads the mark or something else, or sets the mark.
    fn meta(&mut self, data: Attributes) -> Option<()> {
        const MARK: u32 = 3;
        let is_mark = be32(data.get(2)?)? == MARK;
        match (data.get(1), data.get(3)) {
            (Some(to), _) => self.load(to, if is_mark { Loaded::Mark(Bits::ALL) } else { Loaded::Other }),
            (None, Some(from)) => {
                match self.register(from) {
                    Some(Loaded::Mark(bits)) if is_mark => self.draft.mark(Some(bits)),
                    _ => self.draft.mark(None),
                }
                Some(())
            }
            (None, None) => None,
        }
    }

    fn ct(&mut self, data: Attributes) -> Option<()> {
        const STATE: u32 = 0;
        let is_state = be32(data.get(2)?)? == STATE;
        match data.get(1) {
            Some(to) => self.load(to, if is_state { Loaded::CtState { mask: u32::MAX } } else { Loaded::Other }),
            None => Some(()),
        }
    }

    fn bitwise(&mut self, data: Attributes) -> Option<()> {
        let loaded = self.register(data.get(1)?);
        let operands = data.get(4).and_then(value).zip(data.get(5).and_then(value));
        let plain = data.get(6).is_none_or(|operation| be32(operation) == Some(0));
        let result = match (loaded, operands) {
            (Some(Loaded::Mark(Bits { mask, xor })), Some((and, turned))) if plain => {
                Loaded::Mark(Bits { mask: mask & and, xor: (xor & and) ^ turned })
            }
            (Some(Loaded::CtState { mask }), Some((and, 0))) if plain => Loaded::CtState { mask: mask & and },
            _ => Loaded::Other,
        };
        self.load(data.get(2)?, result)
    }

    fn cmp(&mut self, data: Attributes) -> Option<()> {
        const EQUAL: u32 = 0;
        let loaded = self.register(data.get(1)?);
        let (operation, wanted) = (be32(data.get(2)?)?, data.get(3).and_then(value));
        let negated = operation != EQUAL;
        match (loaded, wanted) {
            (Some(Loaded::Mark(Bits { mask, xor: 0 })), Some(value)) if operation <= 1 => {
                self.draft.parts.mark = Some(MarkMatch { value, mask, negated })
            }
            // nft writes "has one of these states" as "the bits are not all 0".
            (Some(Loaded::CtState { mask }), Some(0)) if operation <= 1 => self.draft.parts.ctstate = xt::ct_state(mask, !negated),
            (Some(Loaded::CtState { mask: u32::MAX }), Some(state)) if operation <= 1 => {
                self.draft.parts.ctstate = xt::ct_state(state, negated)
            }
            (Some(Loaded::CtState { .. }), _) => self.draft.parts.ctstate = CtState::Other,
            _ => self.draft.other(),
        }
        Some(())
    }

    /// A verdict, or a constant loaded into a register.
    fn immediate(&mut self, data: Attributes) -> Option<()> {
        let Some(verdict) = Attributes(data.get(2)?).get(2).map(Attributes) else {
            return self.load(data.get(1)?, Loaded::Other);
        };
        let chain = || std::str::from_utf8(string(verdict.get(2)?)).ok();
        self.draft.verdict = match be32(verdict.get(1)?)? as i32 {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -1 => Verdict::None,
            -3 => self.draft.jump(self.tables, chain()?, Verdict::Jump),
            -4 => self.draft.jump(self.tables, chain()?, Verdict::Goto),
            -5 => Verdict::Return,
            _ => Verdict::Other,
        };
        Some(())
    }
}
