//! The text of `nft list ruleset` without `-j` → the same rules as from JSON. Handles (`-a`) and numbers (`-n`) are optional. Pure.
//! `calicoctl cluster diags` keeps this text.

use super::Collector;
use super::rule::state_bit;
use crate::kernel::nft::Tables;
use crate::kernel::{Bits, Draft, add_comment, ct_state};
use crate::ruleset::{Builder, CtState, MarkMatch, RuleParts, Snapshot, Verdict};

/// The first words of matches. An unknown statement that begins with another word may send the packet anywhere.
const MATCHES: [&str; 39] = [
    "meta", "ct", "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "th", "icmp", "icmpv6", "igmp", "ether", "arp", "vlan", "ah",
    "esp", "comp", "iif", "iifname", "oif", "oifname", "fib", "rt", "socket", "osf", "exthdr", "frag", "dst", "hbh", "mh", "srh", "ipsec",
    "numgen", "jhash", "symhash", "pkttype", "cgroup",
];

/// The words that end a part of unknown length.
const BEGINNINGS: [&str; 14] =
    ["meta", "ct", "counter", "accept", "drop", "return", "continue", "reject", "notrack", "jump", "goto", "log", "limit", "comment"];

/// Returns the tables in a text, as [`parse`](super::parse) does.
pub fn parse(text: &[u8]) -> Result<Vec<Snapshot>, String> {
    let text = String::from_utf8_lossy(text);
    let mut tables = Collector::default();
    let (mut table, mut chain): (Option<(&str, &str)>, Option<&str>) = (None, None);
    // The line's depth in a set or map. Sets and maps are skipped.
    let mut inside = 0;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let head: Vec<&str> = line.split_once('{').map_or(vec![], |(head, _)| head.split_whitespace().collect());
        match (table, chain, head.as_slice()) {
            _ if inside > 0 => inside += depth(line),
            (None, _, ["table", family, name]) => table = Some((family, name)),
            (None, ..) => return Err(format!("not what nft list ruleset prints: no table begins in line {number}")),
            (Some(_), None, _) if line == "}" => table = None,
            (Some((family, table)), None, ["chain", name]) => {
                chain = Some(name);
                if let Some((builder, id)) = tables.chain(family, table, name) {
                    builder.chain_handle(id, handle(line));
                }
            }
            (Some(_), None, _) => inside = depth(line),
            (Some(_), Some(_), _) if line == "}" => chain = None,
            // The type of a base chain, or the comment of a chain.
            (Some(_), Some(_), _) if line.starts_with("type ") || line.starts_with("comment ") => {}
            (Some((family, table)), Some(name), _) => {
                let words = words(line);
                tables.has_no_counters |= words.as_deref().is_some_and(is_stateless) && table == "calico";
                let Some((builder, id)) = tables.chain(family, table, name) else { continue };
                match words.and_then(|words| read(&words, builder)) {
                    Some((parts, verdict)) => builder.push(id, &parts, verdict),
                    None => builder.push_unreadable(id, None),
                }
            }
        }
    }
    match table {
        Some((family, name)) => Err(format!("the output ends within table {family} {name}")),
        None => tables.finish(),
    }
}

fn handle(line: &str) -> u64 {
    line.rsplit_once("# handle ").and_then(|(_, handle)| handle.parse().ok()).unwrap_or(0)
}

/// Returns the change of brace depth in a line.
fn depth(line: &str) -> i64 {
    let outside = line.split('"').step_by(2).flat_map(str::chars);
    outside.map(|character| i64::from(character == '{') - i64::from(character == '}')).sum()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    Plain(&'a str),
    Quoted(&'a str),
    /// The text between braces.
    Set(&'a str),
}

/// Returns a rule's words, or `None` if a quote or brace is not closed.
fn words(line: &str) -> Option<Vec<Word<'_>>> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (word, behind) = match rest.as_bytes()[0] {
            b'"' => rest[1..].split_once('"').map(|(text, behind)| (Word::Quoted(text), behind))?,
            b'{' => rest[1..].split_once('}').map(|(text, behind)| (Word::Set(text), behind))?,
            _ => {
                let (word, behind) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
                (Word::Plain(word), behind)
            }
        };
        words.push(word);
        rest = behind.trim_start();
    }
    Some(words)
}

/// Reports whether a rule was written without its counter's values, as `nft -s` does.
fn is_stateless(words: &[Word]) -> bool {
    let counter = words.iter().position(|word| *word == Word::Plain("counter"));
    counter.is_some_and(|at| !matches!(words.get(at + 1), Some(Word::Plain("packets" | "name"))))
}

fn read(words: &[Word], builder: &mut Builder) -> Option<(RuleParts, Verdict)> {
    use Word::{Plain, Quoted};
    let (words, handle) = match words {
        [rule @ .., Plain("#"), Plain("handle"), Plain(handle)] => (rule, handle.parse().ok()?),
        rule => (rule, 0),
    };
    let (mut rule, mut rest) = (Draft::new(builder, handle), words);
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(length(rest));
        match part {
            [Plain("counter"), Plain("packets"), Plain(packets), Plain("bytes"), Plain(bytes)] => {
                rule.count(packets.parse().ok()?, bytes.parse().ok()?);
            }
            [Plain("counter"), ..] => return None,
            [Plain("comment"), Quoted(text)] => add_comment(text.as_bytes(), &mut rule.parts, rule.builder),
            [Plain("accept")] => rule.verdict = Verdict::Accept,
            [Plain("drop")] => rule.verdict = Verdict::Drop,
            [Plain("return")] => rule.verdict = Verdict::Return,
            [Plain("continue")] => rule.verdict = Verdict::None,
            [Plain("notrack")] => rule.verdict = Verdict::Other,
            [Plain("reject"), ..] => rule.verdict = Verdict::Reject,
            [Plain("jump"), Plain(to)] => rule.verdict = rule.jump(Tables::Calico, to, Verdict::Jump),
            [Plain("goto"), Plain(to)] => rule.verdict = rule.jump(Tables::Calico, to, Verdict::Goto),
            [Plain("log"), options @ ..] => {
                let prefix = options.iter().find_map(|word| if let Quoted(text) = word { Some(*text) } else { None });
                rule.log(options.contains(&Plain("group")), prefix.unwrap_or_default().as_bytes());
            }
            [Plain("meta"), Plain("mark"), Plain("set"), value @ ..] => rule.mark(arithmetic(value)),
            [Plain("meta"), Plain(_), Plain("set"), ..] => rule.verdict = Verdict::Other,
            [Plain("ct"), Plain(_), Plain("set"), ..] => {}
            [Plain("limit"), ..] => rule.other(),
            [Plain(first), ..] if MATCHES.contains(first) && !part.contains(&Plain("vmap")) => matches(&mut rule, part),
            _ => {
                rule.other();
                rule.verdict = Verdict::Other;
            }
        }
        rest = behind;
    }
    Some(rule.finish())
}

/// Returns the number of words in the match or statement that these words begin with.
fn length(words: &[Word]) -> usize {
    match words[0] {
        Word::Plain("counter") => 5.min(words.len()),
        Word::Plain("jump" | "goto" | "comment") => 2.min(words.len()),
        Word::Plain("accept" | "drop" | "return" | "continue" | "notrack") => 1,
        _ => {
            // `meta mark set meta mark | 0x1`, `ip daddr . meta l4proto`
            let goes_on = |word| matches!(word, Word::Plain("set" | "&" | "|" | "^" | "."));
            // `reject with icmp type …` contains the first word of a match.
            let is_match = matches!(words[0], Word::Plain(first) if MATCHES.contains(&first));
            let begins = |word: &str| BEGINNINGS.contains(&word) || (is_match && MATCHES.contains(&word));
            let ends = |at: &usize| matches!(words[*at], Word::Plain(word) if begins(word)) && !goes_on(words[*at - 1]);
            (1..words.len()).find(ends).unwrap_or(words.len())
        }
    }
}

fn matches(rule: &mut Draft, part: &[Word]) {
    use Word::Plain;
    let is_operation = |word: &Word| matches!(word, Plain("==" | "!="));
    let (left, right, negated) = match part.iter().position(is_operation) {
        Some(at) => (&part[..at], &part[at + 1..], part[at] == Plain("!=")),
        None => (&part[..2.min(part.len())], part.get(2..).unwrap_or_default(), false),
    };
    if left == [Plain("ct"), Plain("state")] {
        let states = if negated { None } else { states(right) };
        rule.parts.ctstate = states.map_or(CtState::Other, |states| ct_state(states, false));
        return;
    }
    match (left, arithmetic(left), right) {
        ([Plain("meta"), ..], Some(Bits { mask, xor: 0 }), [Plain(value)]) if mask != 0 && number(value).is_some() => {
            rule.parts.mark = number(value).map(|value| MarkMatch { value, mask, negated });
        }
        _ => rule.other(),
    }
}

/// Returns the effect of `&`, `|` and `^` on the mark, or `None` if the expression contains something else.
fn arithmetic(words: &[Word]) -> Option<Bits> {
    use Word::Plain;
    let (first, rest) = match words {
        [Plain("meta"), Plain("mark"), rest @ ..] => (Bits::ALL, rest),
        [Plain(value), rest @ ..] => (Bits { mask: 0, xor: number(value)? }, rest),
        _ => return None,
    };
    rest.chunks(2).try_fold(first, |bits, pair| match pair {
        [Plain(operation), Plain(value)] => bits.then(operation, number(value)?),
        _ => None,
    })
}

/// `established,related`, `{ established, related }`, or numbers
fn states(words: &[Word]) -> Option<u32> {
    let [Word::Plain(states) | Word::Set(states)] = words else { return None };
    let bit = |state: &str| state_bit(state).or_else(|| number(state));
    states.split(',').map(str::trim).try_fold(0, |bits, state| Some(bits | bit(state)?))
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NO_COUNTERS;
    use super::*;
    use crate::ruleset::RuleId;

    fn of_rule(rule: &str) -> Result<Vec<Snapshot>, String> {
        parse(format!("table ip calico {{\n\tchain filter-cali-pi-x {{\n\t\t{rule}\n\t}}\n}}\n").as_bytes())
    }

    /// Real tables are compared with the kernel's own answer and with JSON in `direct::the_kernel_and_nft_say_the_same`.
    #[test]
    fn what_real_tables_do_not_hold_is_never_less_than_it_is() {
        let verdict = |rule: &str| {
            let tables = of_rule(rule).unwrap();
            let read = tables[0].ruleset.rule(RuleId(0));
            (read.verdict, read.other_matches)
        };
        for (rule, expected) in [
            ("counter packets 1 bytes 1 dnat to 10.0.0.1", (Verdict::Other, true)),
            (r#"iifname vmap { "a" : drop, "b" : accept } counter packets 1 bytes 1"#, (Verdict::Other, true)),
            ("ct state vmap { established : accept } counter packets 1 bytes 1", (Verdict::Other, true)),
            ("counter packets 1 bytes 1 queue to 3", (Verdict::Other, true)),
            ("counter packets 1 bytes 1 meta priority set 1:2", (Verdict::Other, false)),
            ("counter packets 1 bytes 1 meta mark set ct mark", (Verdict::Other, false)),
            ("counter packets 1 bytes 1 meta mark set meta mark & 0xf ^ 0x10", (Verdict::SetMark { value: 0x10, mask: !0xf }, false)),
            ("counter packets 1 bytes 1 ct mark set meta mark & 0xf", (Verdict::None, false)),
            (r#"iifname "drop" counter packets 1 bytes 1 accept comment "return""#, (Verdict::Accept, true)),
            ("meta mark 0x5 counter packets 1 bytes 1 drop", (Verdict::Drop, false)),
            ("meta mark & 0x5 == { 0x1, 0x4 } counter packets 1 bytes 1 drop", (Verdict::Drop, true)),
            ("ct state { new, untracked } counter packets 1 bytes 1 drop", (Verdict::Drop, false)),
        ] {
            assert_eq!(verdict(rule), expected, "{rule}");
        }
        for rule in ["counter packets x bytes 1", "counter name \"c\"", "accept comment \"", "ip saddr { 1.2.3.4"] {
            let read = of_rule(rule).unwrap();
            assert_eq!((read[0].ruleset.rule_count(), read[0].ruleset.unreadable), (1, 1), "{rule}");
        }
    }

    #[test]
    fn what_is_no_ruleset_is_said_so() {
        let iptables = "table ip filter {\n\tset s { # handle 1\n\t\telements = { \"}\",\n\t\t\t}\n\t}\n\tchain cali-INPUT {\n\t}\n}";
        for (text, expected) in [
            ("x", "not what nft list ruleset prints: no table begins in line 1"),
            ("table ip x {\n}\n}\n", "not what nft list ruleset prints: no table begins in line 3"),
            ("table ip calico {\n\tchain filter-cali-pi-x {\n\t}\n", "the output ends within table ip calico"),
            (iptables, "Calico's rules are in iptables-nft's tables"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert_eq!(of_rule("counter drop").unwrap_err(), NO_COUNTERS);
        assert!(parse(b"table inet x {\n\tflowtable f {\n\t}\n}\n").unwrap().is_empty());
    }
}
