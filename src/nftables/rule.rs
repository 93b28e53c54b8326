//! A rule as `nft -j` writes it → its parts. Pure. Says of each expression what [`kernel`](crate::kernel) says of the same one.

use serde_json::Value;

use crate::kernel::nft::Tables;
use crate::kernel::{add_comment, ct_state};
use crate::ruleset::{Builder, Count, CtState, MarkMatch, RuleParts, Verdict};

/// The parts of a rule; `None` if they are not what nft writes.
pub fn read(rule: &Value, builder: &mut Builder) -> Option<(RuleParts, Verdict)> {
    let mut reader = Reader { parts: RuleParts::default(), verdict: Verdict::None, counted: false, builder };
    if let Some(comment) = rule.get("comment").and_then(Value::as_str) {
        add_comment(comment.as_bytes(), &mut reader.parts, reader.builder);
    }
    reader.parts.count.handle = rule.get("handle").and_then(Value::as_u64).unwrap_or(0);
    for statement in rule.get("expr")?.as_array()? {
        let (kind, what) = statement.as_object()?.iter().next()?;
        reader.statement(kind, what)?;
    }
    Some((reader.parts, reader.verdict))
}

struct Reader<'a> {
    parts: RuleParts,
    verdict: Verdict,
    counted: bool,
    builder: &'a mut Builder,
}

impl Reader<'_> {
    fn statement(&mut self, kind: &str, what: &Value) -> Option<()> {
        match kind {
            "counter" => {
                let number = |key| what.get(key)?.as_u64();
                self.parts.count = Count { packets: number("packets")?, bytes: number("bytes")?, ..self.parts.count };
                self.counted = true;
            }
            "match" => return self.matches(what),
            "mangle" => return self.mangle(what),
            "accept" => self.verdict = Verdict::Accept,
            "drop" => self.verdict = Verdict::Drop,
            "return" => self.verdict = Verdict::Return,
            "continue" => self.verdict = Verdict::None,
            "reject" => self.verdict = Verdict::Reject,
            "notrack" => self.verdict = Verdict::Other,
            "jump" => self.verdict = self.chain(what)?.map_or(Verdict::Other, Verdict::Jump),
            "goto" => self.verdict = self.chain(what)?.map_or(Verdict::Other, Verdict::Goto),
            "log" => self.log(what),
            _ => self.other(),
        }
        Some(())
    }

    /// Something else that is matched on. Behind the counter, it has counted packets that did not match.
    fn other(&mut self) {
        self.parts.other_matches = true;
        self.parts.counts_before_match |= self.counted;
    }

    /// Where a jump leads, if that is one of Calico's chains.
    fn chain(&mut self, what: &Value) -> Option<Option<crate::ruleset::ChainId>> {
        let target = what.get("target")?.as_str()?;
        Some(Tables::Calico.place(target).map(|(_, name)| self.builder.chain(name)))
    }

    /// With a group it goes to Felix, else to the kernel's log.
    fn log(&mut self, what: &Value) {
        let prefix = what.get("prefix").and_then(Value::as_str).filter(|prefix| !prefix.is_empty());
        self.verdict = match what.get("group") {
            Some(_) => Verdict::Nflog(prefix.map(|prefix| self.builder.comment(prefix))),
            None => Verdict::Log,
        };
    }

    fn matches(&mut self, what: &Value) -> Option<()> {
        let (operation, left, right) = (what.get("op")?.as_str()?, what.get("left")?, what.get("right")?);
        if key(left, "ct") == Some("state") {
            self.parts.ctstate = match operation {
                "in" | "==" => ct_states(right).map_or(CtState::Other, |states| ct_state(states, false)),
                _ => CtState::Other,
            };
            return Some(());
        }
        match (arithmetic(left), number(right), operation) {
            (Some(Bits { mask, xor: 0 }), Some(value), "==" | "!=") if mask != 0 => {
                self.parts.mark = Some(MarkMatch { value, mask, negated: operation == "!=" });
            }
            _ => self.other(),
        }
        Some(())
    }

    /// `meta mark set …`
    fn mangle(&mut self, what: &Value) -> Option<()> {
        let (target, value) = (what.get("key")?, what.get("value")?);
        match (key(target, "meta"), target.get("ct")) {
            (Some("mark"), _) => {
                self.verdict = match arithmetic(value) {
                    // Bits that are not kept are set to what they are turned to; kept ones that are turned cannot be said so.
                    Some(Bits { mask, xor }) if mask & xor == 0 => Verdict::SetMark { value: xor, mask: !mask },
                    _ => Verdict::Other,
                };
            }
            (Some(_), _) => self.verdict = Verdict::Other,
            (None, Some(_)) => {}
            (None, None) => self.other(),
        }
        Some(())
    }
}

/// `{"meta": {"key": "mark"}}` → `mark`
fn key<'a>(value: &'a Value, kind: &str) -> Option<&'a str> {
    value.get(kind)?.get("key")?.as_str()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// The packet's mark, with some bits kept and some turned: `mark & mask ^ xor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bits {
    mask: u32,
    xor: u32,
}

/// What becomes of the mark by `&`, `|` and `^`; `None` if something else is in it.
fn arithmetic(value: &Value) -> Option<Bits> {
    if key(value, "meta") == Some("mark") {
        return Some(Bits { mask: u32::MAX, xor: 0 });
    }
    if let Some(number) = number(value) {
        return Some(Bits { mask: 0, xor: number });
    }
    let (operation, operands) = value.as_object()?.iter().next()?;
    let [first, rest @ ..] = operands.as_array()?.as_slice() else { return None };
    rest.iter().try_fold(arithmetic(first)?, |Bits { mask, xor }, operand| {
        let bits = number(operand)?;
        match operation.as_str() {
            "&" => Some(Bits { mask: mask & bits, xor: xor & bits }),
            "|" => Some(Bits { mask: mask & !bits, xor: xor & !bits | bits }),
            "^" => Some(Bits { mask, xor: xor ^ bits }),
            _ => None,
        }
    })
}

/// `"invalid"`, `["established", "related"]`, or the same as a set → nft's bits.
fn ct_states(value: &Value) -> Option<u32> {
    let bit = |state: &Value| match state.as_str()? {
        "invalid" => Some(1),
        "established" => Some(2),
        "related" => Some(4),
        "new" => Some(8),
        "untracked" => Some(64),
        _ => None,
    };
    match value.get("set").unwrap_or(value) {
        Value::Array(states) => states.iter().try_fold(0, |bits, state| Some(bits | bit(state)?)),
        state => bit(state),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_are_reckoned() {
        let mark = json!({"meta": {"key": "mark"}});
        for (value, expected) in [
            (json!({"&": [mark, 0xf]}), Some(Bits { mask: 0xf, xor: 0 })),
            (json!({"|": [mark, 0x10]}), Some(Bits { mask: !0x10, xor: 0x10 })),
            (json!({"^": [{"&": [mark, 0xff]}, 0x11]}), Some(Bits { mask: 0xff, xor: 0x11 })),
            (json!({"|": [{"&": [mark, 0xff]}, 0x11, 0x20]}), Some(Bits { mask: 0xce, xor: 0x31 })),
            (json!(7), Some(Bits { mask: 0, xor: 7 })),
            (json!({"&": [{"ct": {"key": "mark"}}, 7]}), None),
            (json!({"<<": [mark, 1]}), None),
            (json!({"&": []}), None),
            (json!("lo"), None),
        ] {
            assert_eq!(arithmetic(&value), expected, "{value}");
        }
    }
}
