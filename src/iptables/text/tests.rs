//! Valid and invalid texts of `iptables-save`.

use super::*;
use crate::ruleset::{CommentId, RuleHash, RuleId, Ruleset};

fn parse(text: &str) -> Result<Snapshot, TextError> {
    let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
    parser.push(text.as_bytes());
    parser.finish()
}

fn one_rule(rule: &str) -> Snapshot {
    parse(&format!("*filter\n:cali-pi-x - [0:0]\n{rule}\nCOMMIT\n")).unwrap()
}

fn comments(ruleset: &Ruleset, rule: u32) -> Vec<&str> {
    ruleset.comments_of(RuleId(rule)).iter().map(|id| &*ruleset.comments()[id.0 as usize]).collect()
}

#[test]
fn a_rule_is_taken_apart() {
    let table = one_rule(
        r#"[12:720] -A cali-tw-cali1 -m comment --comment "cali:HqDZuW76n3mdpCix" -m comment --comment "Return if policy accepted" -m mark --mark 0x10000/0x10000 -j RETURN"#,
    );
    let rule = table.ruleset.rule(RuleId(0));
    assert_eq!(table.packets(RuleId(0)), 12);
    assert_eq!(table.ruleset.hash(RuleId(0)), RuleHash::new(b"HqDZuW76n3mdpCix"));
    assert_eq!(rule.mark.unwrap().set_bit(), Some(0x10000));
    assert_eq!(rule.verdict, Verdict::Return);
    assert!(!rule.other_matches);
    assert_eq!(comments(&table.ruleset, 0), ["Return if policy accepted"]);
}

#[test]
fn jumps_gotos_and_marks() {
    for (text, verdict) in [
        ("-j cali-pi-x", Verdict::Jump(ChainId(0))),
        ("-g cali-pi-x", Verdict::Goto(ChainId(0))),
        ("-j MARK --set-xmark 0x0/0x30000", Verdict::SetMark { value: 0, mask: 0x30000 }),
        ("-j REJECT --reject-with icmp-port-unreachable", Verdict::Reject),
        ("-j NFLOG --nflog-prefix  DRI --nflog-group 1", Verdict::Nflog(Some(CommentId(0)))),
        ("-j LOG --log-prefix \"calico-packet: \" --log-level 5", Verdict::Log),
        ("-j CT --notrack", Verdict::Other),
        ("", Verdict::None),
    ] {
        let table = one_rule(&format!("[0:0] -A cali-pi-y -s 10.0.0.0/8 {text}"));
        assert_eq!(table.ruleset.rule(RuleId(0)).verdict, verdict, "{text}");
        assert!(table.ruleset.rule(RuleId(0)).other_matches);
    }
}

#[test]
fn negation_belongs_to_the_match_that_follows() {
    let table = one_rule("[0:0] -A cali-gi-x -m mark ! --mark 0x0/0x30000 -j RETURN");
    assert_eq!(table.ruleset.rule(RuleId(0)).mark, Some(MarkMatch { value: 0, mask: 0x30000, negated: true }));
    let table = one_rule("[0:0] -A cali-gi-x ! -s 10.0.0.0/8 -m mark --mark 0x0/0x30000 -j RETURN");
    assert!(table.ruleset.rule(RuleId(0)).mark.unwrap().is_clear());
}

#[test]
fn quotes_escapes_and_bare_comments() {
    let table =
        one_rule(r#"[0:0] -A cali-pi-x -m comment --comment cali-bare -m comment --comment "a \"b\" \\ c" -m comment --comment """#);
    assert_eq!(comments(&table.ruleset, 0), ["cali-bare", r#"a "b" \ c"#, ""]);
}

#[test]
fn pieces_of_any_size_give_the_same_table() {
    let text = include_str!("../../../tests/fixtures/samples/iptables-save-v3.32.txt");
    let whole = parse(text).unwrap();
    for size in [1, 7, 64, 4096] {
        let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
        text.as_bytes().chunks(size).for_each(|piece| parser.push(piece));
        assert_eq!(parser.finish().unwrap(), whole);
    }
}

#[test]
fn garbage_is_counted_and_the_rest_works() {
    let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
    for line in [
        "*filter",
        "what is this",
        "[1:x] -A cali-pi-x",
        "[99999999999999999999:0] -A cali-pi-x",
        "[1:2] -A cali-pi-x -m comment --comment \"no end",
        "[1:2] -A cali-pi-x -m mark --mark 0xzz -j RETURN",
        "[1:2] -A cali-pi-x -j MARK",
        "[7:9] -A cali-pi-x -j DROP",
        "COMMIT",
    ] {
        parser.push(line.as_bytes());
        parser.push(b"\n");
    }
    assert_eq!(parser.first_unreadable(), Some("what is this"));
    let table = parser.finish().unwrap();
    assert_eq!((table.ruleset.unreadable, table.ruleset.rule_count()), (6, 6));
    let unreadable = |rule| table.ruleset.rule(RuleId(rule)).verdict == Verdict::Unreadable;
    assert!((0..5).all(unreadable) && !unreadable(5));
    assert_eq!(
        [0, 2, 5].map(|rule| (table.packets(RuleId(rule)), table.ruleset.rule(RuleId(rule)).uncounted)),
        [(0, true), (1, false), (7, false)]
    );
}

#[test]
fn text_without_any_table_is_an_error_and_no_text_is_none() {
    let html = "<html>\n<h1>503</h1>\n</html>\n";
    for text in [html, "no rights", "*\n", "*\u{1}\u{2}\nx\n", "# a remark\nand more\n", "COMMIT\n"] {
        assert_eq!(parse(text), Err(TextError::NoTable), "{text:?}");
    }
    for text in ["", "\n", "# a remark\n", "*nat\nCOMMIT\n", "a warning\n*filter\nCOMMIT\n"] {
        assert_eq!(parse(text).unwrap().ruleset.rule_count(), 0, "{text:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, byte by byte: too slow there")]
fn a_long_line_is_the_same_in_any_pieces() {
    let text = |length: usize| format!("*filter\n[1:2] -A cali-pi-x {} -j DROP\n[3:4] -A cali-pi-x -j DROP\nCOMMIT\n", "x".repeat(length));
    for (length, rules) in [(100, 2), (LONGEST_LINE, 1), (3 * LONGEST_LINE, 1)] {
        let (text, whole) = (text(length), parse(&text(length)).unwrap());
        assert_eq!(whole.ruleset.rule_count(), rules);
        for size in [1000, LONGEST_LINE, LONGEST_LINE + 1] {
            let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
            text.as_bytes().chunks(size).for_each(|piece| parser.push(piece));
            assert_eq!(parser.first_unreadable().is_some(), rules == 1);
            assert_eq!(parser.finish().unwrap(), whole);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, byte by byte: too slow there")]
fn a_line_without_end_is_not_kept() {
    let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
    parser.push(b"*filter\n[1:2] -A cali-pi-x ");
    for _ in 0..1000 {
        parser.push(&[b'x'; 4096]);
    }
    assert!(parser.partial.capacity() <= 2 * LONGEST_LINE);
    parser.push(b"\n[7:9] -A cali-pi-x -j DROP\nCOMMIT\n");
    let table = parser.finish().unwrap();
    assert_eq!((table.ruleset.unreadable, table.ruleset.rule_count()), (1, 1));
}

#[test]
fn a_table_without_its_commit_is_an_error() {
    assert_eq!(parse("*filter\n[1:2] -A cali-pi-x -j DROP\n"), Err(TextError::CutOff("filter")));
    assert_eq!(parse("").unwrap().ruleset.rule_count(), 0);
}

#[test]
fn only_the_wanted_table_counts() {
    let text =
        "*raw\n[1:2] -A cali-pi-x -j DROP\nCOMMIT\n*filter\n[3:4] -A cali-pi-x -j DROP\nCOMMIT\n*nat\n[5:6] -A cali-pi-x -j DROP\nCOMMIT\n";
    let table = parse(text).unwrap();
    assert_eq!((table.ruleset.rule_count(), table.packets(RuleId(0))), (1, 3));
}

#[test]
fn an_iptables_that_is_too_old_is_recognised() {
    let error = parse("# Table `filter' is incompatible, use 'nft' tool.\n").unwrap_err();
    assert!(matches!(error, TextError::Incompatible(_)), "{error}");
    assert!(parse("# Table `nat' is incompatible, use 'nft' tool.\n*filter\nCOMMIT\n").is_ok());
}
