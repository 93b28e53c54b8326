//! Small tables by hand, read twice or three times: one rule of attribution each.

use super::*;
use crate::accounting::attribution::{Item, Verdict};
use crate::felix::{Direction, DropReason};
use crate::iptables::text::Parser;
use crate::ruleset::{Builder, Chain, Count, Family, RuleHash, RuleParts, Ruleset, Verdict as RuleVerdict};

/// What a rule counted, its chain, its hash, and the rest of it.
type Line = (u64, &'static str, &'static str, &'static str);

fn legacy(lines: &[Line]) -> Snapshot {
    let rule = |(packets, chain, hash, rest): &Line| {
        format!("[{packets}:{packets}] -A {chain} -m comment --comment \"cali:{hash:a<16}\" {rest}\n")
    };
    let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
    parser.push(format!("*filter\n{}COMMIT\n", lines.iter().map(rule).collect::<String>()).as_bytes());
    parser.finish().unwrap()
}

const START: &str = "-m comment --comment \"Start of policies\" -j MARK --set-xmark 0x0/0x20000";
const TO_P: &str = "-m mark --mark 0x0/0x20000 -j cali-pi-_p";
const TO_Q: &str = "-m mark --mark 0x0/0x20000 -j cali-pi-_q";
const ACCEPTED: &str = "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN";
const END: &str = "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP";
const ACCEPTS: &str = "-m comment --comment \"Policy default/default.p ingress\" -s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000";
const Q_ACCEPTS: &str = "-m comment --comment \"Policy default/default.q ingress\" -s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000";
const P_DENIES: &str = "-m comment --comment \"Policy default/default.p ingress\" -s 10.0.0.2 -j DROP";
const RETURN: &str = "-m mark --mark 0x10000/0x10000 -j RETURN";

/// An endpoint with one policy that accepts and refuses: packets at the jump, at the return of what was accepted, at the policy's two
/// rules, and at the end of the tier.
fn table([jump, accepted, accepts, denies, end]: [u64; 5]) -> Snapshot {
    legacy(&[
        (accepts, "cali-pi-_p", "1", ACCEPTS),
        (accepts, "cali-pi-_p", "2", RETURN),
        (denies, "cali-pi-_p", "3", "-s 10.0.0.2 -j DROP"),
        (jump, "cali-tw-cali1", "4", START),
        (jump, "cali-tw-cali1", "5", TO_P),
        (accepted, "cali-tw-cali1", "6", ACCEPTED),
        (end, "cali-tw-cali1", "7", END),
    ])
}

/// Two endpoints with policy p, which refuses, before q, which accepts: packets of each at the jump to p, and at that to q and behind
/// it. And the hash of the second one's rules from the jump to q on, which changes with anything before.
fn two([(a, a_q), (b, b_q)]: [(u64, u64); 2], denies: u64, accepts: u64, hash: &'static str) -> Snapshot {
    legacy(&[
        (denies, "cali-pi-_p", "1", P_DENIES),
        (accepts, "cali-pi-_q", "2", Q_ACCEPTS),
        (accepts, "cali-pi-_q", "3", RETURN),
        (a, "cali-tw-cali1", "4", START),
        (a, "cali-tw-cali1", "5", TO_P),
        (0, "cali-tw-cali1", "6", ACCEPTED),
        (a_q, "cali-tw-cali1", "7", TO_Q),
        (a_q, "cali-tw-cali1", "8", ACCEPTED),
        (0, "cali-tw-cali1", "9", END),
        (b, "cali-tw-cali2", "b1", START),
        (b, "cali-tw-cali2", "b2", TO_P),
        (0, "cali-tw-cali2", "b3", ACCEPTED),
        (b_q, "cali-tw-cali2", hash, TO_Q),
        (b_q, "cali-tw-cali2", "b5", ACCEPTED),
        (0, "cali-tw-cali2", "b6", END),
    ])
}

fn read(accounting: &mut Accounting, first: [u64; 5], second: Option<[u64; 5]>) -> u64 {
    let look_again = |_: &[Snapshot]| second.map(|second| vec![table(second)]).ok_or("no answer");
    accounting.advance(&[table(first)], look_again);
    denied(accounting)
}

/// Reads tables one after the other, each with a second look in which nothing has moved.
fn read_all(tables: impl IntoIterator<Item = Snapshot>) -> Accounting {
    let mut accounting = Accounting::new(2);
    tables.into_iter().for_each(|table| accounting.advance(&[table], |read| Ok::<_, &str>(read.to_vec())));
    accounting
}

/// The same of tables that are those of one instant.
fn read_saved(tables: impl IntoIterator<Item = Snapshot>) -> Accounting {
    let mut accounting = Accounting::new(2);
    tables.into_iter().for_each(|table| accounting.advance(&[table], |_| Ok::<_, &str>(vec![])));
    accounting
}

/// What is shown of the first endpoint's packets.
fn shown(accounting: &Accounting) -> Vec<(Item, u64)> {
    let (_, endpoint) = accounting.totals().workloads().next().unwrap();
    accounting.totals().shown(endpoint, Direction::Ingress).map(|total| (total.item.clone(), total.packets)).collect()
}

/// What the first endpoint's packets were refused by policies.
fn denied(accounting: &Accounting) -> u64 {
    let is_deny = |item: &Item| matches!(item, Item::Policy { verdict: Verdict::Deny, .. });
    shown(accounting).into_iter().find(|(item, _)| is_deny(item)).map_or(0, |(_, packets)| packets)
}

fn dropped(accounting: &Accounting, wanted: DropReason) -> Option<u64> {
    let is_wanted = |item: &Item| matches!(item, Item::Drop { reason, .. } if *reason == wanted);
    shown(accounting).into_iter().find(|(item, _)| is_wanted(item)).map(|(_, packets)| packets)
}

/// A policy that only refuses, of two workloads without a rule behind it: packets of each that go in, and what it refused in all.
fn without_end([a, b]: [u64; 2], denies: u64) -> Snapshot {
    legacy(&[
        (denies, "cali-pi-_p", "1", P_DENIES),
        (a, "cali-tw-cali1", "4", START),
        (a, "cali-tw-cali1", "5", TO_P),
        (0, "cali-tw-cali1", "6", ACCEPTED),
        (b, "cali-tw-cali2", "b1", START),
        (b, "cali-tw-cali2", "b2", TO_P),
        (0, "cali-tw-cali2", "b3", ACCEPTED),
    ])
}

#[test]
fn what_one_workload_or_another_was_refused_goes_by_no_name() {
    // Of 9, at least 4 and 2 are theirs; 3 are either's.
    for (refused, of_each) in [(12, [7, 5]), (9, [0, 0])] {
        let accounting = read_all([without_end([0, 0], 0), without_end([7, 5], refused)]);
        let totals = accounting.totals();
        let denied = |endpoint| totals.shown(endpoint, Direction::Ingress).map(|total| total.packets).max().unwrap_or(0);
        let shown: Vec<(&str, u64)> = totals.workloads().map(|(interface, endpoint)| (&**interface, denied(endpoint))).collect();
        assert_eq!(shown, [("cali1", of_each[0]), ("cali2", of_each[1])], "{refused}");
    }
}

/// An endpoint without policies whose profile accepts and refuses: packets that go in, that it accepted and refused, and that are left.
fn profile([jump, accepted, refused, left]: [u64; 4]) -> Snapshot {
    const PROFILE_ACCEPTED: &str = "-m comment --comment \"Return if profile accepted\" -m mark --mark 0x10000/0x10000 -j RETURN";
    legacy(&[
        (refused, "cali-pri-p", "1", "-s 10.0.0.2 -j DROP"),
        (accepted, "cali-pri-p", "2", "-s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000"),
        (accepted, "cali-pri-p", "3", RETURN),
        (jump, "cali-tw-cali1", "4", "-j cali-pri-p"),
        (accepted, "cali-tw-cali1", "5", PROFILE_ACCEPTED),
        (left, "cali-tw-cali1", "6", "-m comment --comment \"Drop if no profiles matched\" -j DROP"),
    ])
}

#[test]
fn what_profiles_refused_is_what_they_neither_accepted_nor_left() {
    let accounting = read_all([profile([0; 4]), profile([10, 3, 5, 2])]);
    assert_eq!([DropReason::Profile, DropReason::NoProfile].map(|reason| dropped(&accounting, reason)), [Some(5), Some(2)]);
}

/// Two packets went in, and nothing came out yet.
const INSIDE: [u64; 5] = [2, 0, 0, 2, 0];

#[test]
fn what_the_second_look_shows_to_be_on_its_way_is_not_refused_yet() {
    let counted = |second| {
        let mut accounting = Accounting::new(2);
        read(&mut accounting, [0; 5], Some([0; 5]));
        read(&mut accounting, INSIDE, second)
    };
    assert_eq!(counted(Some(INSIDE)), 2, "nothing moved");
    assert_eq!(counted(Some([2, 1, 1, 2, 0])), 1, "one was on its way, and was accepted");
    assert_eq!(counted(None), 0, "nobody looked");
    assert_eq!(counted(Some([2, 5, 5, 2, 0])), 0, "no more than the CPUs are at work on");
}

#[test]
fn a_packet_that_only_the_ways_out_have_counted_is_looked_for() {
    let looks = |second: [u64; 5]| {
        let (mut accounting, mut looks) = (Accounting::new(2), 0);
        for read in [[0; 5], second] {
            accounting.advance(&[table(read)], |_| {
                looks += 1;
                Ok::<_, &str>(vec![])
            });
        }
        looks
    };
    assert_eq!([looks([0; 5]), looks([0, 0, 0, 0, 1]), looks([1, 0, 0, 1, 0])], [0, 1, 1]);
}

#[test]
fn what_was_on_its_way_is_credited_by_the_next_read() {
    let mut accounting = Accounting::new(2);
    read(&mut accounting, [0; 5], Some([0; 5]));
    assert_eq!(read(&mut accounting, INSIDE, None), 0);
    assert_eq!(read(&mut accounting, INSIDE, Some(INSIDE)), 2);
}

#[test]
fn a_debt_ends_with_the_first_look_in_which_nothing_moves() {
    let mut accounting = Accounting::new(2);
    // Seven packets go by while the first read is made: as many too few may the next difference show.
    read(&mut accounting, [7, 7, 7, 0, 0], Some([14, 14, 14, 0, 0]));
    let quiet = [20, 20, 20, 0, 0];
    assert_eq!(read(&mut accounting, quiet, Some(quiet)), 0);
    let refused = [25, 20, 20, 5, 0];
    assert_eq!(read(&mut accounting, refused, Some(refused)), 5);
}

#[test]
fn counters_that_contradict_one_another_prove_nothing() {
    let refused = |second: [u64; 5]| {
        let mut accounting = Accounting::new(2);
        let first = [40, 20, 20, 20, 0];
        read(&mut accounting, first, Some(first));
        read(&mut accounting, second, Some(second))
    };
    assert_eq!(refused([60, 20, 20, 40, 0]), 20);
    // More packets were refused in the policy's chain than came into it: some counters have begun again meanwhile.
    assert_eq!(refused([60, 20, 20, 80, 0]), 0);
}

#[test]
fn a_policy_that_goes_and_comes_back_shifts_no_refusals() {
    // 10 of the first are accepted by q, 15 of the second refused by p; q goes and comes back, so that all from its jump on begins
    // again; 6 more are accepted. 16 went in at the first and 1 more to q than before: it looks as if p had refused 15 there.
    let (before, after) = (two([(5, 5), (50, 50)], 0, 55, "b4"), two([(21, 6), (65, 0)], 15, 6, "b4"));
    assert_eq!(denied(&read_all([before, after])), 0);
    let calm = [two([(5, 5), (50, 50)], 0, 55, "b4"), two([(21, 6), (65, 65)], 15, 71, "b4")];
    assert_eq!(denied(&read_all(calm)), 15, "and without any trace of it, they are the first one's");
}

/// The same table as iptables-nft has it: every rule and chain keeps its handle.
fn with_handles(table: Snapshot) -> Snapshot {
    let mut ruleset = Ruleset::clone(&table.ruleset);
    ruleset.backend = Backend::Nft;
    let counts = (0..).zip(table.ruleset.chains().iter().flat_map(Chain::rule_ids));
    let counts = counts.map(|(handle, rule)| Count { handle: 100 + handle, ..table.count(rule) }).collect();
    let chain_handles = (1..=ruleset.chains().len() as u64).collect();
    Snapshot::new(ruleset.into(), counts, chain_handles)
}

#[test]
fn counters_that_were_reset_prove_nothing() {
    // As above, but somebody reset counters (`nft reset rules`): the rules are still the same.
    let (before, after) = (two([(5, 5), (50, 50)], 0, 55, "b4"), two([(21, 6), (65, 0)], 15, 1, "b4"));
    assert_eq!(denied(&read_all([with_handles(before), with_handles(after)])), 0);
}

#[test]
fn an_endpoint_gets_no_more_than_the_policys_own_rules_counted() {
    let mut accounting = Accounting::new(2);
    read(&mut accounting, [0; 5], Some([0; 5]));
    // A packet is held up behind the jump for longer than two looks take.
    let held_up = [2, 0, 0, 1, 0];
    assert_eq!(read(&mut accounting, held_up, Some(held_up)), 1);
}

/// A limit of Calico's own tables counts what reaches it: what it refused takes two moments, and no rule of others may end the sum.
#[test]
fn what_a_limit_refused_takes_two_moments() {
    let table = |reached: u64, went_on: u64| {
        let mut builder = Builder::new(Family::V4, Backend::Native, "filter");
        let chain = builder.chain("cali-tw-cali1");
        let mut push = |hash: &[u8], comment: &str, packets: u64, is_limit: bool, verdict| {
            let comments = if comment.is_empty() { vec![] } else { vec![builder.comment(comment)] };
            let (hash, count) = (RuleHash::new(hash), Count { packets, ..Count::default() });
            let parts = RuleParts { hash, comments, count, counts_before_match: is_limit, other_matches: is_limit, ..RuleParts::default() };
            builder.push(chain, &parts, verdict);
        };
        push(b"a", "Drop packets over ingress packet rate limit", reached, true, RuleVerdict::Drop);
        push(b"", "", 0, false, RuleVerdict::Return);
        push(b"b", "", went_on, false, RuleVerdict::SetMark { value: 0, mask: 0x10000 });
        push(b"c", "Drop if no profiles matched", went_on, false, RuleVerdict::Drop);
        builder.finish()
    };
    let mut accounting = read_saved([table(10, 7)]);
    accounting.forget_derived();
    assert_eq!(dropped(&accounting, DropReason::RateLimit), None);
    accounting.advance(&[table(30, 20)], |_| Ok::<_, &str>(vec![]));
    assert_eq!(dropped(&accounting, DropReason::RateLimit), Some(7));
}

#[test]
fn rules_that_may_have_been_written_twice_prove_nothing() {
    // The same before anything was counted, so that nothing goes back; but the second endpoint's rules are others.
    let (before, after) = (two([(0, 0), (0, 0)], 0, 0, "b4"), two([(16, 6), (10, 0)], 10, 6, "c4"));
    assert_eq!(denied(&read_all([before, after])), 0);
}

/// What the first endpoint's packets were decided so, by the policies' names.
fn decided(accounting: &Accounting, wanted: Verdict) -> Vec<(String, u64)> {
    let policies = shown(accounting).into_iter().filter_map(|(item, packets)| match item {
        Item::Policy { policy, verdict, .. } if verdict == wanted => Some((policy.to_string(), packets)),
        _ => None,
    });
    policies.collect()
}

#[test]
fn what_one_policy_of_a_group_alone_can_decide_is_its_own() {
    // p refuses, q and r accept. Packets that went in, were accepted by q and r, and were refused.
    let table = |packets: u64, accepted: [u64; 2], refused: u64| {
        legacy(&[
            (packets, "cali-gi-group", "1", "-j cali-pi-_p"),
            (packets - refused, "cali-gi-group", "2", "-m mark --mark 0x0/0x30000 -j cali-pi-_q"),
            (packets - refused - accepted[0], "cali-gi-group", "3", "-m mark --mark 0x0/0x30000 -j cali-pi-_r"),
            (refused, "cali-pi-_p", "4", P_DENIES),
            (accepted[0], "cali-pi-_q", "5", Q_ACCEPTS),
            (accepted[0], "cali-pi-_q", "6", RETURN),
            (
                accepted[1],
                "cali-pi-_r",
                "7",
                "-m comment --comment \"Policy default/default.r ingress\" -s 10.0.0.5 -j MARK --set-xmark 0x10000/0x10000",
            ),
            (accepted[1], "cali-pi-_r", "8", RETURN),
            (packets, "cali-tw-cali1", "9", START),
            (packets, "cali-tw-cali1", "10", "-m mark --mark 0x0/0x20000 -j cali-gi-group"),
            (accepted[0] + accepted[1], "cali-tw-cali1", "11", ACCEPTED),
            (packets - accepted[0] - accepted[1] - refused, "cali-tw-cali1", "12", END),
        ])
    };
    let mut accounting = read_saved([table(0, [0, 0], 0)]);
    // While the table was read, five more packets were accepted and one was refused.
    for packets in [1, 2] {
        let now = table(20 * packets, [4 * packets, 6 * packets], 8 * packets);
        let again = table(20 * packets + 6, [4 * packets + 3, 6 * packets + 2], 8 * packets + 1);
        accounting.advance(&[now], |_| Ok::<_, &str>(vec![again]));
    }
    let of = |policy: &str, packets| (format!("default/default.{policy}"), packets);
    assert_eq!(decided(&accounting, Verdict::Deny), [of("p", 13)], "two were on their way, one may be held up");
    let accepted = decided(&accounting, Verdict::Accept);
    assert!(accepted.iter().all(|(policies, packets)| *packets == 0 || !policies.contains("default.p")), "{accepted:?}");
    assert_eq!(accepted.iter().map(|(_, packets)| packets).sum::<u64>(), 20, "{accepted:?}");
}

#[test]
fn what_is_told_apart_is_not_counted_again_in_a_sum() {
    // A group of p, which refuses, and q, which passes on. The first endpoint tells one from the other; the second one does not, because
    // it uses r as well, which does both.
    let table = |packets: u64| {
        legacy(&[
            (20 * packets, "cali-gi-group", "1", "-j cali-pi-_p"),
            (17 * packets, "cali-gi-group", "2", "-m mark --mark 0x0/0x30000 -j cali-pi-_q"),
            (3 * packets, "cali-pi-_p", "3", P_DENIES),
            (
                4 * packets,
                "cali-pi-_q",
                "4",
                "-m comment --comment \"Policy default/default.q ingress\" -s 10.0.0.3 -j MARK --set-xmark 0x20000/0x20000",
            ),
            (2 * packets, "cali-pi-_r", "5", "-m comment --comment \"Policy default/default.r ingress\" -s 10.0.0.2 -j DROP"),
            (packets, "cali-pi-_r", "6", "-s 10.0.0.3 -j MARK --set-xmark 0x20000/0x20000"),
            (10 * packets, "cali-tw-cali1", "7", START),
            (10 * packets, "cali-tw-cali1", "8", "-m mark --mark 0x0/0x20000 -j cali-gi-group"),
            (0, "cali-tw-cali1", "9", ACCEPTED),
            (5 * packets, "cali-tw-cali1", "10", END),
            (3 * packets, "cali-tw-cali1", "11", "-j cali-pri-kns.a"),
            (10 * packets, "cali-tw-cali2", "12", START),
            (10 * packets, "cali-tw-cali2", "13", "-m mark --mark 0x0/0x20000 -j cali-gi-group"),
            (0, "cali-tw-cali2", "14", ACCEPTED),
            (8 * packets, "cali-tw-cali2", "15", "-m mark --mark 0x0/0x20000 -j cali-pi-_r"),
            (0, "cali-tw-cali2", "16", ACCEPTED),
            (5 * packets, "cali-tw-cali2", "17", END),
            (2 * packets, "cali-tw-cali2", "18", "-j cali-pri-kns.a"),
            (0, "cali-tw-cali3", "19", START),
            (0, "cali-tw-cali3", "20", "-m mark --mark 0x0/0x20000 -j cali-pi-_r"),
            (0, "cali-tw-cali3", "21", ACCEPTED),
            (0, "cali-tw-cali3", "22", END),
            (0, "cali-tw-cali3", "23", "-j cali-pri-kns.a"),
        ])
    };
    let accounting = read_saved([table(0), table(1)]);
    let decided = |verdict| decided(&accounting, verdict).iter().map(|(_, packets)| packets).sum::<u64>();
    assert_eq!([Verdict::Deny, Verdict::Pass, Verdict::DenyOrPass].map(decided), [2, 3, 0]);
}

#[test]
fn refusals_are_recovered_only_if_nobody_else_can_have_got_them() {
    // Packets that p refused, packets to each endpoint, and a hash of each one's rules. The second endpoint does not use p.
    let table = |refused: u64, first: u64, second: u64, hashes: [&'static str; 2]| {
        legacy(&[
            (first + second, "cali-FORWARD", "f1", "-j cali-to-wl-dispatch"),
            (first, "cali-to-wl-dispatch", "d1", "-o cali1 -g cali-tw-cali1"),
            (second, "cali-to-wl-dispatch", "d2", "-o cali2 -g cali-tw-cali2"),
            (refused, "cali-pi-_p", "1", P_DENIES),
            (0, "cali-pi-_q", "2", Q_ACCEPTS),
            (first, "cali-tw-cali1", "4", START),
            (if hashes[0] == "5" { first } else { 0 }, "cali-tw-cali1", hashes[0], TO_P),
            (0, "cali-tw-cali1", "6", ACCEPTED),
            (0, "cali-tw-cali1", "7", END),
            (second, "cali-tw-cali2", "b1", START),
            (second, "cali-tw-cali2", hashes[1], TO_Q),
            (0, "cali-tw-cali2", "b3", ACCEPTED),
            (0, "cali-tw-cali2", "b4", END),
        ])
    };
    let refused = |second: Snapshot| denied(&read_saved([table(1000, 1000, 1000, ["5", "b2"]), second]));
    assert_eq!(refused(table(1010, 1016, 1000, ["x5", "b2"])), 10, "the first one's rules were written anew after that");
    assert_eq!(refused(table(1010, 1016, 1012, ["x5", "x2"])), 0, "the second one's too: it may have used p meanwhile");
}
