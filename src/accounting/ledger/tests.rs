use super::*;
use crate::ruleset::{Builder, RuleHash, RuleParts, Verdict, test};

fn table(backend: Backend, chains: &[(&str, &[(&str, u64)])]) -> [Snapshot; 1] {
    [test::table(backend, chains)]
}

fn chain(backend: Backend, rules: &[(&str, u64)]) -> [Snapshot; 1] {
    table(backend, &[("c", rules)])
}

/// Returns the deltas of a second read.
fn second(first: &[Snapshot], second: &[Snapshot]) -> Deltas {
    let mut ledger = Ledger::default();
    ledger.advance(first);
    ledger.advance(second).remove(0)
}

#[test]
fn the_first_read_counts_what_the_kernel_shows_but_proves_no_age() {
    let deltas = &Ledger::default().advance(&chain(Backend::Legacy, &[("a", 7)]))[0];
    assert_eq!((deltas.packets(RuleId(0)), deltas.since_last_read(RuleId(0))), (7, None));
}

/// Rules of one chain as `hash packets`, twice, and the deltas: `+` of those that have counted on.
#[test]
fn what_a_rule_counted_depends_on_how_its_back_end_writes() {
    const BOTH: [Backend; 2] = [Backend::Legacy, Backend::Nft];
    const LEGACY: [Backend; 1] = [Backend::Legacy];
    const NFT: [Backend; 1] = [Backend::Nft];
    let rules = |text: &'static str| text.split(", ").map(|rule| rule.rsplit_once(' ').unwrap());
    let rules = |text| rules(text).map(|(hash, packets)| (hash, packets.parse().unwrap())).collect::<Vec<(&str, u64)>>();
    let cases: [(&str, &[Backend], &str, &str, &str); 12] = [
        ("unchanged rules count on", &NFT, "a 7, b 1", "a 9, b 1", "+2 +0"),
        ("legacy keeps the rules before the first difference", &LEGACY, "a 7, b 5", "a 9, x 3, b2 1", "+2 3 1"),
        ("nft flushes the chain: b has less, so a has begun again, though it has more", &NFT, "a 7, b 5", "a 9, b 2, x 3", "9 2 3"),
        ("nothing proves it here: count what is certain", &NFT, "a 7", "a 9, x 3", "2 3"),
        ("a flush under unchanged hashes is seen by any rule that went back", &NFT, "a 70, b 50", "a 9, b 2", "9 2"),
        ("`iptables -Z chain rule` can zero one alone: the other counted on", &LEGACY, "a 7, b 50", "a 9, b 2", "2 2"),
        ("one that was zeroed says nothing of others, whatever its share", &BOTH, "a 1000, b 50, c 5", "a 3, b 52, c 5", "3 2 0"),
        ("with the return behind it, it was written anew", &BOTH, "a 1000, b 1000, c 5", "a 300, b 300, c 6", "300 300 6"),
        ("counts that were restored are no news", &BOTH, "a 105, b 5", "a 101, b 5", "0 0"),
        ("without a hash, a rule is known by what it does", &LEGACY, "a 7,  5", "a 9,  6", "+2 +1"),
        ("also before another one", &LEGACY, "a 7,  5", "a 9,  6, b 1", "+2 +1 1"),
        ("but it is no other's", &LEGACY, "a 7", " 3, a 9", "3 +2"),
    ];
    for (why, backends, then, now, expected) in cases {
        for backend in backends {
            let deltas = second(&chain(*backend, &rules(then)), &chain(*backend, &rules(now)));
            let delta = |rule: u32| {
                let sign = if deltas.since_last_read(RuleId(rule)).is_some() { "+" } else { "" };
                format!("{sign}{}", deltas.packets(RuleId(rule)))
            };
            let all: Vec<String> = (0..rules(now).len() as u32).map(delta).collect();
            assert_eq!(all.join(" "), expected, "{backend:?}: {why}");
        }
    }
}

#[test]
fn a_new_chain_began_at_zero() {
    let both = table(Backend::Legacy, &[("c", &[("a", 1)]), ("d", &[("b", 4)])]);
    let deltas = second(&chain(Backend::Legacy, &[("a", 1)]), &both);
    assert_eq!((deltas.packets(RuleId(1)), deltas.since_last_read(RuleId(1))), (4, None));
}

#[test]
fn a_chain_that_lost_its_last_rule_is_changed_although_all_others_counted_on() {
    let first = table(Backend::Legacy, &[("c", &[("a", 1), ("b", 1)]), ("d", &[("e", 4)])]);
    let deltas = second(&first, &table(Backend::Legacy, &[("c", &[("a", 2)]), ("d", &[("e", 5)])]));
    assert_eq!(deltas.since_last_read(RuleId(0)), Some(1));
    assert_eq!((deltas.unchanged(ChainId(0)), deltas.unchanged(ChainId(1))), (false, true));
}

#[test]
fn another_back_end_starts_where_it_stands() {
    let mut ledger = Ledger::default();
    ledger.advance(&chain(Backend::Legacy, &[("a", 1)]));
    assert_eq!(ledger.advance(&chain(Backend::Nft, &[("a", 100)]))[0].packets(RuleId(0)), 0);
    assert_eq!(ledger.advance(&chain(Backend::Nft, &[("a", 103)]))[0].packets(RuleId(0)), 3);
    assert_eq!(ledger.advance(&chain(Backend::Legacy, &[("a", 500)]))[0].packets(RuleId(0)), 0);
}

#[test]
fn counts_that_were_restored_with_a_whole_table_are_no_news() {
    let table = |first: u64, packets: u64| {
        let mut builder = Builder::new(Family::V4, Backend::Native, "filter");
        push_with_handles(&mut builder, "c", first, first + 1, &[packets]);
        [builder.finish()]
    };
    for (packets, news) in [(105, 0), (101, 0), (3, 3)] {
        assert_eq!(second(&table(1, 105), &table(9, packets)).packets(RuleId(0)), news);
    }
}

#[test]
fn a_count_that_went_back_is_noticed() {
    let mut ledger = Ledger::default();
    ledger.advance(&chain(Backend::Legacy, &[("a", 7), ("b", 5)]));
    assert!(!ledger.went_back(&chain(Backend::Legacy, &[("a", 7), ("x", 0)])));
    assert!(ledger.went_back(&chain(Backend::Legacy, &[("a", 6), ("b", 5)])));
}

#[test]
fn vanished_chains_are_forgotten() {
    let mut ledger = Ledger::default();
    ledger.advance(&table(Backend::Legacy, &[("c", &[("a", 1)]), ("d", &[("b", 4)])]));
    ledger.advance(&chain(Backend::Legacy, &[("a", 1)]));
    assert_eq!(ledger.tables.values().map(|table| table.read.ruleset.chains().len()).sum::<usize>(), 1);
}

/// Adds a chain of nf_tables: its handle, the handle of its first rule, and the count of each rule.
fn push_with_handles(builder: &mut Builder, name: &str, chain_handle: u64, first: u64, packets: &[u64]) {
    let chain = builder.chain(name);
    builder.chain_handle(chain, chain_handle);
    for ((handle, place), packets) in (first..).zip('0'..).zip(packets) {
        let count = Count { packets: *packets, bytes: *packets, handle };
        let hash = RuleHash::new(place.to_string().as_bytes());
        builder.push(chain, &RuleParts { hash, count, ..RuleParts::default() }, Verdict::Return);
    }
}

/// The same chain, and one that does not change.
fn with_handles(backend: Backend, chain_handle: u64, first: u64, packets: &[u64]) -> [Snapshot; 1] {
    let mut builder = Builder::new(Family::V4, backend, "filter");
    push_with_handles(&mut builder, "cali-FORWARD", 1, 0, &[]);
    push_with_handles(&mut builder, "c", chain_handle, first, packets);
    [builder.finish()]
}

#[test]
fn who_replaces_rules_one_by_one_does_not_flush() {
    let may_flush = |second: [Snapshot; 1]| {
        let mut ledger = Ledger::default();
        ledger.advance(&with_handles(Backend::Native, 2, 3, &[7, 5]));
        ledger.advance(&second);
        ledger.may_flush(Backend::Native)
    };
    assert!(may_flush(with_handles(Backend::Native, 2, 3, &[9, 6])), "nothing was written");
    assert!(may_flush(with_handles(Backend::Native, 2, 10, &[9, 6])));
    let mut builder = Builder::new(Family::V4, Backend::Native, "filter");
    let chain = builder.chain("c");
    builder.chain_handle(chain, 2);
    let parts = RuleParts { hash: RuleHash::new(b"other"), count: Count { handle: 3, ..Count::default() }, ..RuleParts::default() };
    builder.push(chain, &parts, Verdict::Return);
    assert!(!may_flush([builder.finish()]), "another rule with the same handle");
}

#[test]
fn a_new_handle_is_a_new_rule_whatever_it_has_counted() {
    let deltas = |backend, chain_handle, first| {
        let deltas = second(&with_handles(backend, 2, 3, &[7, 5]), &with_handles(backend, chain_handle, first, &[9, 6]));
        let rule = RuleId(0);
        (deltas.packets(rule), deltas.since_last_read(rule), deltas.since(Since::Written, rule), deltas.unchanged(ChainId(1)))
    };
    assert_eq!(deltas(Backend::Nft, 2, 3), (2, Some(2), None, true), "the same rules");
    assert_eq!(deltas(Backend::Nft, 2, 10), (9, None, Some(9), false), "flushed and written again");
    assert_eq!(deltas(Backend::Nft, 9, 10), (9, None, Some(9), false), "deleted and made again");
    assert_eq!(deltas(Backend::Nft, 9, 3), (9, None, Some(9), false), "the chain's handle tells it alone");
    assert_eq!(deltas(Backend::Native, 9, 10), (9, None, None, false), "rules of one age only where whole chains are flushed");
}
