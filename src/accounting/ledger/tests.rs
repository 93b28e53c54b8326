use super::*;
use crate::ruleset::{Builder, RuleHash, RuleParts, Verdict, test};

fn table(backend: Backend, chains: &[(&str, &[(&str, u64)])]) -> [Snapshot; 1] {
    [test::table(backend, chains)]
}

fn chain(backend: Backend, rules: &[(&str, u64)]) -> [Snapshot; 1] {
    table(backend, &[("c", rules)])
}

/// Reads two tables; what the second read gives: packets, and whether the rule continued.
fn second(backend: Backend, first: &[(&str, u64)], second: &[(&str, u64)]) -> Vec<(u64, bool)> {
    let mut ledger = Ledger::default();
    ledger.advance(&chain(backend, first));
    let deltas = &ledger.advance(&chain(backend, second))[0];
    (0..second.len() as u32).map(|i| (deltas.packets(RuleId(i)), deltas.since_last_read(RuleId(i)).is_some())).collect()
}

#[test]
fn the_first_read_counts_what_the_kernel_shows_but_proves_no_age() {
    let deltas = &Ledger::default().advance(&chain(Backend::Legacy, &[("a", 7)]))[0];
    assert_eq!((deltas.packets(RuleId(0)), deltas.since_last_read(RuleId(0))), (7, None));
}

#[test]
fn unchanged_rules_count_on() {
    assert_eq!(second(Backend::Nft, &[("a", 7), ("b", 1)], &[("a", 9), ("b", 1)]), [(2, true), (0, true)]);
}

#[test]
fn legacy_keeps_the_rules_before_the_first_difference() {
    let rules = second(Backend::Legacy, &[("a", 7), ("b", 5)], &[("a", 9), ("x", 3), ("b2", 1)]);
    assert_eq!(rules, [(2, true), (3, false), (1, false)]);
}

#[test]
fn nft_flushes_the_whole_chain() {
    // b counts less than before, so a, too, has started again, although it counts more than before.
    let rules = second(Backend::Nft, &[("a", 7), ("b", 5)], &[("a", 9), ("b", 2), ("x", 3)]);
    assert_eq!(rules, [(9, false), (2, false), (3, false)]);
    // Nothing proves it here: count what is certain.
    let rules = second(Backend::Nft, &[("a", 7)], &[("a", 9), ("x", 3)]);
    assert_eq!(rules, [(2, false), (3, false)]);
}

#[test]
fn a_flush_under_unchanged_hashes_is_seen_by_any_rule_that_went_back() {
    assert_eq!(second(Backend::Nft, &[("a", 70), ("b", 50)], &[("a", 9), ("b", 2)]), [(9, false), (2, false)]);
    // On legacy a single rule can be zeroed (iptables -Z chain rule): the other counted on.
    assert_eq!(second(Backend::Legacy, &[("a", 7), ("b", 50)], &[("a", 9), ("b", 2)]), [(2, false), (2, false)]);
}

/// Whatever share of all packets it had counted.
#[test]
fn one_rule_that_was_zeroed_says_nothing_of_the_others() {
    for backend in [Backend::Legacy, Backend::Nft] {
        let rules = second(backend, &[("a", 1000), ("b", 50), ("c", 5)], &[("a", 3), ("b", 52), ("c", 5)]);
        assert_eq!(rules, [(3, false), (2, false), (0, false)], "{backend:?}");
        // Together with the rule behind it, which returns what it accepts, it was written anew.
        let rules = second(backend, &[("a", 1000), ("b", 1000), ("c", 5)], &[("a", 300), ("b", 300), ("c", 6)]);
        assert_eq!(rules, [(300, false), (300, false), (6, false)], "{backend:?}");
    }
}

#[test]
fn a_new_chain_began_at_zero() {
    let mut ledger = Ledger::default();
    ledger.advance(&chain(Backend::Legacy, &[("a", 1)]));
    let both = table(Backend::Legacy, &[("c", &[("a", 1)]), ("d", &[("b", 4)])]);
    let deltas = &ledger.advance(&both)[0];
    assert_eq!((deltas.packets(RuleId(1)), deltas.since_last_read(RuleId(1))), (4, None));
}

#[test]
fn a_chain_that_lost_its_last_rule_is_changed_although_all_others_counted_on() {
    let mut ledger = Ledger::default();
    ledger.advance(&table(Backend::Legacy, &[("c", &[("a", 1), ("b", 1)]), ("d", &[("e", 4)])]));
    let deltas = &ledger.advance(&table(Backend::Legacy, &[("c", &[("a", 2)]), ("d", &[("e", 5)])]))[0];
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
fn counts_that_were_restored_are_no_news() {
    for backend in [Backend::Nft, Backend::Legacy] {
        assert_eq!(second(backend, &[("a", 105), ("b", 5)], &[("a", 101), ("b", 5)])[0], (0, false), "{backend:?}");
    }
    let table = |first: u64, packets: u64| {
        let mut builder = Builder::new(Family::V4, Backend::Native, "filter");
        let chain = builder.chain("c");
        builder.chain_handle(chain, first);
        let count = Count { packets, bytes: packets, handle: first + 1 };
        builder.push(chain, &RuleParts { hash: RuleHash::new(b"a"), count, ..RuleParts::default() }, Verdict::Return);
        [builder.finish()]
    };
    for (packets, news) in [(105, 0), (101, 0), (3, 3)] {
        let mut ledger = Ledger::default();
        ledger.advance(&table(1, 105));
        assert_eq!(ledger.advance(&table(9, packets))[0].packets(RuleId(0)), news);
    }
}

#[test]
fn rules_without_a_hash_are_known_by_what_they_do() {
    assert_eq!(second(Backend::Legacy, &[("a", 7), ("", 5)], &[("a", 9), ("", 6)]), [(2, true), (1, true)]);
    assert_eq!(second(Backend::Legacy, &[("a", 7), ("", 5)], &[("a", 9), ("", 6), ("b", 1)])[1], (1, true));
    assert_eq!(second(Backend::Legacy, &[("a", 7)], &[("", 3), ("a", 9)]), [(3, false), (2, true)]);
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

/// A chain of nf_tables: its handle, the first rule's handle, and what each rule has counted.
fn with_handles(backend: Backend, chain_handle: u64, first: u64, packets: &[u64]) -> [Snapshot; 1] {
    let mut builder = Builder::new(Family::V4, backend, "filter");
    let lasting = builder.chain("cali-FORWARD");
    builder.chain_handle(lasting, 1);
    let chain = builder.chain("c");
    builder.chain_handle(chain, chain_handle);
    for (place, packets) in packets.iter().enumerate() {
        let count = Count { packets: *packets, bytes: *packets, handle: first + place as u64 };
        let hash = RuleHash::new(format!("{place}").as_bytes());
        builder.push(chain, &RuleParts { hash, count, ..RuleParts::default() }, Verdict::Return);
    }
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
    let second = |backend, chain_handle, first| {
        let mut ledger = Ledger::default();
        ledger.advance(&with_handles(backend, 2, 3, &[7, 5]));
        let deltas = ledger.advance(&with_handles(backend, chain_handle, first, &[9, 6])).remove(0);
        let rule = RuleId(0);
        (deltas.packets(rule), deltas.since_last_read(rule), deltas.since(Since::Written, rule), deltas.unchanged(ChainId(1)))
    };
    assert_eq!(second(Backend::Nft, 2, 3), (2, Some(2), None, true), "the same rules");
    assert_eq!(second(Backend::Nft, 2, 10), (9, None, Some(9), false), "flushed and written again");
    assert_eq!(second(Backend::Nft, 9, 10), (9, None, Some(9), false), "deleted and made again");
    assert_eq!(second(Backend::Nft, 9, 3), (9, None, Some(9), false), "the chain's handle tells it alone");
    assert_eq!(second(Backend::Native, 9, 10), (9, None, None, false), "rules of one age only where whole chains are flushed");
}
