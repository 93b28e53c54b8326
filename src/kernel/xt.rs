//! Parses the payloads of `xt` matches and targets in legacy tables and iptables-nft rules. Pure.
//!
//! Layouts: `include/uapi/linux/netfilter/xt_*.h`. Numbers are in host byte order.

use crate::ruleset::{Builder, CtState, MarkMatch, RuleHash, RuleParts, Verdict};

pub fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

pub fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

/// Returns the first 32 bits in big-endian order, as netlink uses it.
pub fn be32(data: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(..4)?.try_into().ok()?))
}

/// Returns the first 64 bits in big-endian order, as netlink uses it.
pub fn be64(data: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(data.get(..8)?.try_into().ok()?))
}

pub fn string(data: &[u8]) -> &[u8] {
    data.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Adds a comment to a rule: Felix's hash if it is one, otherwise a comment. Calico's own nftables tables have one comment for each rule:
/// `cali:<hash>; <comment> <comment>`.
pub fn add_comment(text: &[u8], parts: &mut RuleParts, builder: &mut Builder) {
    let hash = text.strip_prefix(b"cali:").filter(|_| parts.hash.is_none());
    let comment = match hash {
        None => text,
        Some(hash) => {
            let mut halves = hash.splitn(2, |&byte| byte == b';');
            parts.hash = RuleHash::new(halves.next().unwrap_or_default());
            halves.next().unwrap_or_default().trim_ascii()
        }
    };
    if hash.is_none() || !comment.is_empty() {
        parts.comments.push(builder.comment(&String::from_utf8_lossy(comment)));
    }
}

/// Adds a match to a rule. Returns `None` if its payload is too short.
pub fn add_match(name: &[u8], revision: u32, data: &[u8], parts: &mut RuleParts, builder: &mut Builder) -> Option<()> {
    match (name, revision) {
        (b"comment", _) => add_comment(string(data), parts, builder),
        // struct xt_mark_mtinfo1 { __u32 mark, mask; __u8 invert; }
        (b"mark", 1) => {
            let (value, mask, negated) = (u32_at(data, 0)?, u32_at(data, 4)?, *data.get(8)? != 0);
            parts.mark = Some(MarkMatch { value, mask, negated });
        }
        (b"conntrack", 1..=3) => conntrack(revision, data, parts)?,
        _ => parts.other_matches = true,
    }
    Some(())
}

/// struct xt_conntrack_mtinfo3: the flags follow eight addresses, two expiries, a protocol and four ports.
fn conntrack(revision: u32, data: &[u8], parts: &mut RuleParts) -> Option<()> {
    const STATE: u16 = 1;
    let (matched, inverted) = (u16_at(data, 146)?, u16_at(data, 148)?);
    let states = if revision == 1 { u16::from(*data.get(150)?) } else { u16_at(data, 150)? };
    if matched & STATE != 0 {
        parts.ctstate = ct_state(states.into(), inverted & STATE != 0);
    }
    if matched & !STATE != 0 {
        parts.other_matches = true;
    }
    Some(())
}

/// Converts the states of `--ctstate`, or of nft's `ct state`, which has the same bits.
pub fn ct_state(states: u32, negated: bool) -> CtState {
    const INVALID: u32 = 1;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    match states {
        _ if negated => CtState::Other,
        INVALID => CtState::Invalid,
        ESTABLISHED_OR_RELATED => CtState::Established,
        _ => CtState::Other,
    }
}

/// Returns the verdict of a target other than the standard one, or `None` if its payload is too short.
pub fn target(name: &[u8], revision: u32, data: &[u8], builder: &mut Builder) -> Option<Verdict> {
    Some(match (name, revision) {
        // struct xt_mark_tginfo2 { __u32 mark, mask; }
        (b"MARK", 2) => Verdict::SetMark { value: u32_at(data, 0)?, mask: u32_at(data, 4)? },
        (b"REJECT", _) => Verdict::Reject,
        (b"LOG", _) => Verdict::Log,
        // struct xt_nflog_info { __u32 len; __u16 group, threshold, flags, pad; char prefix[64]; }
        (b"NFLOG", _) => nflog(string(data.get(12..76)?), builder),
        _ => Verdict::Other,
    })
}

pub fn nflog(prefix: &[u8], builder: &mut Builder) -> Verdict {
    Verdict::Nflog((!prefix.is_empty()).then(|| builder.comment(&String::from_utf8_lossy(prefix))))
}
