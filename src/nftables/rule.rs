//! Reads a rule from the JSON of `nft -j`. Pure. Treats each expression as [`kernel`](crate::kernel) does.

use serde_json::Value;

use crate::kernel::nft::Tables;
use crate::kernel::{Bits, Draft, add_comment, ct_state};
use crate::ruleset::{Builder, CtState, MarkMatch, RuleParts, Verdict};

pub fn read(rule: &Value, builder: &mut Builder) -> Option<(RuleParts, Verdict)> {
    let mut draft = Draft::new(builder, rule.get("handle").and_then(Value::as_u64).unwrap_or(0));
    if let Some(comment) = rule.get("comment").and_then(Value::as_str) {
        add_comment(comment.as_bytes(), &mut draft.parts, draft.builder);
    }
    for part in rule.get("expr")?.as_array()? {
        let (kind, what) = part.as_object()?.iter().next()?;
        statement(&mut draft, kind, what)?;
    }
    Some(draft.finish())
}

/// Reports whether a rule was written without its counter's values, as `nft -s` does.
pub fn is_stateless(rule: &Value) -> bool {
    let statements = rule.get("expr").and_then(Value::as_array);
    statements.is_some_and(|statements| statements.iter().any(|statement| statement.get("counter").is_some_and(Value::is_null)))
}

fn statement(rule: &mut Draft, kind: &str, what: &Value) -> Option<()> {
    match kind {
        "counter" => {
            let number = |key| what.get(key)?.as_u64();
            rule.count(number("packets")?, number("bytes")?);
        }
        "match" => return matches(rule, what),
        "mangle" => return mangle(rule, what),
        "accept" => rule.verdict = Verdict::Accept,
        "drop" => rule.verdict = Verdict::Drop,
        "return" => rule.verdict = Verdict::Return,
        "continue" => rule.verdict = Verdict::None,
        "reject" => rule.verdict = Verdict::Reject,
        "notrack" => rule.verdict = Verdict::Other,
        "jump" => rule.verdict = rule.jump(Tables::Calico, what.get("target")?.as_str()?, Verdict::Jump),
        "goto" => rule.verdict = rule.jump(Tables::Calico, what.get("target")?.as_str()?, Verdict::Goto),
        "log" => {
            let prefix = what.get("prefix").and_then(Value::as_str).unwrap_or_default();
            rule.log(what.get("group").is_some(), prefix.as_bytes());
        }
        "limit" | "ct count" => rule.other(),
        // A verdict map, a queue or a NAT statement may send the packet anywhere.
        _ => {
            rule.other();
            rule.verdict = Verdict::Other;
        }
    }
    Some(())
}

fn matches(rule: &mut Draft, what: &Value) -> Option<()> {
    let (operation, left, right) = (what.get("op")?.as_str()?, what.get("left")?, what.get("right")?);
    if key(left, "ct") == Some("state") {
        rule.parts.ctstate = match operation {
            "in" | "==" => ct_states(right).map_or(CtState::Other, |states| ct_state(states, false)),
            _ => CtState::Other,
        };
        return Some(());
    }
    match (arithmetic(left), number(right), operation) {
        (Some(Bits { mask, xor: 0 }), Some(value), "==" | "!=") if mask != 0 => {
            rule.parts.mark = Some(MarkMatch { value, mask, negated: operation == "!=" });
        }
        _ => rule.other(),
    }
    Some(())
}

/// `meta mark set …`
fn mangle(rule: &mut Draft, what: &Value) -> Option<()> {
    let (target, value) = (what.get("key")?, what.get("value")?);
    match (key(target, "meta"), target.get("ct")) {
        (Some("mark"), _) => rule.mark(arithmetic(value)),
        (Some(_), _) => rule.verdict = Verdict::Other,
        (None, Some(_)) => {}
        (None, None) => rule.other(),
    }
    Some(())
}

/// `{"meta": {"key": "mark"}}` → `mark`
fn key<'a>(value: &'a Value, kind: &str) -> Option<&'a str> {
    value.get(kind)?.get("key")?.as_str()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// Returns the effect of `&`, `|` and `^` on the mark, or `None` if the expression contains something else.
fn arithmetic(value: &Value) -> Option<Bits> {
    if key(value, "meta") == Some("mark") {
        return Some(Bits::ALL);
    }
    if let Some(number) = number(value) {
        return Some(Bits { mask: 0, xor: number });
    }
    let (operation, operands) = value.as_object()?.iter().next()?;
    let [first, rest @ ..] = operands.as_array()?.as_slice() else { return None };
    rest.iter().try_fold(arithmetic(first)?, |bits, operand| bits.then(operation, number(operand)?))
}

/// `"invalid"`, `["established", "related"]`, or the same as a set → nft's bits.
fn ct_states(value: &Value) -> Option<u32> {
    let bit = |state: &Value| state_bit(state.as_str()?);
    match value.get("set").unwrap_or(value) {
        Value::Array(states) => states.iter().try_fold(0, |bits, state| Some(bits | bit(state)?)),
        state => bit(state),
    }
}

/// Returns the bit of a connection state by nft's name.
pub fn state_bit(state: &str) -> Option<u32> {
    match state {
        "invalid" => Some(1),
        "established" => Some(2),
        "related" => Some(4),
        "new" => Some(8),
        "untracked" => Some(64),
        _ => None,
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
