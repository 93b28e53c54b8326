//! Small tables written by hand, read two or three times. Each tests one rule of attribution.

use super::*;
use crate::accounting::attribution::{Item, Verdict};
use crate::felix::{Direction, DropReason};
use crate::iptables::text::Parser;
use crate::ruleset::{Builder, Chain, Count, Family, RuleHash, RuleParts, Ruleset, Verdict as RuleVerdict};

/// Neighbouring rules of a chain: the chain, the prefix of their hashes, and of each rule its count and its text.
type Rules<'a> = (&'a str, &'a str, &'a [(u64, &'a str)]);

fn legacy(chains: &[Rules]) -> Snapshot {
    let rules = chains.iter().flat_map(|(chain, hash, rules)| rules.iter().map(move |rule| (chain, hash, rule)));
    let line = |(place, (chain, hash, (packets, rule))): (usize, (&&str, &&str, &(u64, &str)))| {
        let hash = format!("{hash}{place}");
        format!("[{packets}:{packets}] -A {chain} -m comment --comment \"cali:{hash:a<16}\" {rule}\n")
    };
    let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
    parser.push(format!("*filter\n{}COMMIT\n", rules.enumerate().map(line).collect::<String>()).as_bytes());
    parser.finish().unwrap()
}

const START: &str = "-m comment --comment \"Start of policies\" -j MARK --set-xmark 0x0/0x20000";
const TO_P: &str = "-m mark --mark 0x0/0x20000 -j cali-pi-_p";
const TO_Q: &str = "-m mark --mark 0x0/0x20000 -j cali-pi-_q";
const TO_R: &str = "-m mark --mark 0x0/0x20000 -j cali-pi-_r";
const TO_GROUP: &str = "-m mark --mark 0x0/0x20000 -j cali-gi-group";
const ON_TO_Q: &str = "-m mark --mark 0x0/0x30000 -j cali-pi-_q";
const ON_TO_R: &str = "-m mark --mark 0x0/0x30000 -j cali-pi-_r";
const TO_PROFILE: &str = "-j cali-pri-kns.a";
const ACCEPTED: &str = "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN";
const END: &str = "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP";
const P_ACCEPTS: &str = "-m comment --comment \"Policy default/default.p ingress\" -s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000";
const P_DENIES: &str = "-m comment --comment \"Policy default/default.p ingress\" -s 10.0.0.2 -j DROP";
const Q_ACCEPTS: &str = "-m comment --comment \"Policy default/default.q ingress\" -s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000";
const Q_PASSES: &str = "-m comment --comment \"Policy default/default.q ingress\" -s 10.0.0.3 -j MARK --set-xmark 0x20000/0x20000";
const R_ACCEPTS: &str = "-m comment --comment \"Policy default/default.r ingress\" -s 10.0.0.5 -j MARK --set-xmark 0x10000/0x10000";
const R_DENIES: &str = "-m comment --comment \"Policy default/default.r ingress\" -s 10.0.0.2 -j DROP";
const DENIES: &str = "-s 10.0.0.2 -j DROP";
const RETURN: &str = "-m mark --mark 0x10000/0x10000 -j RETURN";

/// An endpoint with one policy that accepts and denies: packets at the jump, at the return of what was accepted, at the policy's two
/// rules, and at the end of the tier.
fn table([jump, accepted, accepts, denies, end]: [u64; 5]) -> Snapshot {
    legacy(&[
        ("cali-pi-_p", "p", &[(accepts, P_ACCEPTS), (accepts, RETURN), (denies, DENIES)]),
        ("cali-tw-cali1", "a", &[(jump, START), (jump, TO_P), (accepted, ACCEPTED), (end, END)]),
    ])
}

/// Two endpoints with policy p, which denies, before q, which accepts. Of each: packets at the jump to p, at the jump to q, and after it.
/// Also the hash of the second endpoint's jump to q, which changes with anything before it.
fn two([(a, a_q), (b, b_q)]: [(u64, u64); 2], denies: u64, accepts: u64, hash: &str) -> Snapshot {
    legacy(&[
        ("cali-pi-_p", "p", &[(denies, P_DENIES)]),
        ("cali-pi-_q", "q", &[(accepts, Q_ACCEPTS), (accepts, RETURN)]),
        ("cali-tw-cali1", "a", &[(a, START), (a, TO_P), (0, ACCEPTED), (a_q, TO_Q), (a_q, ACCEPTED), (0, END)]),
        ("cali-tw-cali2", "b", &[(b, START), (b, TO_P), (0, ACCEPTED)]),
        ("cali-tw-cali2", hash, &[(b_q, TO_Q)]),
        ("cali-tw-cali2", "b", &[(b_q, ACCEPTED), (0, END)]),
    ])
}

fn read(accounting: &mut Accounting, first: [u64; 5], second: Option<[u64; 5]>) -> u64 {
    let look_again = |_: &[Snapshot]| second.map(|second| vec![table(second)]).ok_or("no answer");
    accounting.advance(&[table(first)], look_again);
    denied(accounting)
}

/// Reads tables one after the other. Each read has a second look in which nothing has moved.
fn read_all(tables: impl IntoIterator<Item = Snapshot>) -> Accounting {
    let mut accounting = Accounting::new(2);
    tables.into_iter().for_each(|table| accounting.advance(&[table], |read| Ok::<_, &str>(read.to_vec())));
    accounting
}

/// The same for tables that are of one instant.
fn read_saved(tables: impl IntoIterator<Item = Snapshot>) -> Accounting {
    let mut accounting = Accounting::new(2);
    tables.into_iter().for_each(|table| accounting.advance(&[table], |_| Ok::<_, &str>(vec![])));
    accounting
}

/// Returns what is shown for the first endpoint.
fn shown(accounting: &Accounting) -> Vec<(Item, u64)> {
    let (_, endpoint) = accounting.totals().workloads().next().unwrap();
    accounting.totals().shown(endpoint, Direction::Ingress).map(|total| (Item::clone(&total.item), total.packets)).collect()
}

/// Returns how many of the first endpoint's packets policies denied.
fn denied(accounting: &Accounting) -> u64 {
    let is_deny = |item: &Item| matches!(item, Item::Policy { verdict: Verdict::Deny, .. });
    shown(accounting).into_iter().find(|(item, _)| is_deny(item)).map_or(0, |(_, packets)| packets)
}

fn dropped(accounting: &Accounting, wanted: DropReason) -> Option<u64> {
    let is_wanted = |item: &Item| matches!(item, Item::Drop { reason, .. } if *reason == wanted);
    shown(accounting).into_iter().find(|(item, _)| is_wanted(item)).map(|(_, packets)| packets)
}

/// A policy that only denies, of two workloads, without a rule after it: packets of each that enter, and what it denied in all.
fn without_end([a, b]: [u64; 2], denies: u64) -> Snapshot {
    legacy(&[
        ("cali-pi-_p", "p", &[(denies, P_DENIES)]),
        ("cali-tw-cali1", "a", &[(a, START), (a, TO_P), (0, ACCEPTED)]),
        ("cali-tw-cali2", "b", &[(b, START), (b, TO_P), (0, ACCEPTED)]),
    ])
}

#[test]
fn what_one_workload_or_another_was_refused_goes_by_no_name() {
    // Of 9, at least 4 and 2 are theirs. 3 may be of either.
    for (refused, of_each) in [(12, [7, 5]), (9, [0, 0])] {
        let accounting = read_all([without_end([0, 0], 0), without_end([7, 5], refused)]);
        let totals = accounting.totals();
        let denied = |endpoint| totals.shown(endpoint, Direction::Ingress).map(|total| total.packets).max().unwrap_or(0);
        let shown: Vec<(&str, u64)> = totals.workloads().map(|(interface, endpoint)| (&**interface, denied(endpoint))).collect();
        assert_eq!(shown, [("cali1", of_each[0]), ("cali2", of_each[1])], "{refused}");
    }
}

/// An endpoint without policies and with a profile that accepts and denies: packets that enter, that it accepted and denied, and the rest.
fn profile([jump, accepted, refused, left]: [u64; 4]) -> Snapshot {
    const PROFILE_ACCEPTED: &str = "-m comment --comment \"Return if profile accepted\" -m mark --mark 0x10000/0x10000 -j RETURN";
    const NO_PROFILE: &str = "-m comment --comment \"Drop if no profiles matched\" -j DROP";
    const ACCEPTS: &str = "-s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000";
    legacy(&[
        ("cali-pri-p", "p", &[(refused, DENIES), (accepted, ACCEPTS), (accepted, RETURN)]),
        ("cali-tw-cali1", "a", &[(jump, "-j cali-pri-p"), (accepted, PROFILE_ACCEPTED), (left, NO_PROFILE)]),
    ])
}

#[test]
fn what_profiles_refused_is_what_they_neither_accepted_nor_left() {
    let accounting = read_all([profile([0; 4]), profile([10, 3, 5, 2])]);
    assert_eq!([DropReason::Profile, DropReason::NoProfile].map(|reason| dropped(&accounting, reason)), [Some(5), Some(2)]);
}

/// Two packets entered, and none has come out yet.
const INSIDE: [u64; 5] = [2, 0, 0, 2, 0];

#[test]
fn what_the_second_look_shows_to_be_on_its_way_is_not_refused_yet() {
    // What the next read shows.
    let counted = |second| {
        let mut accounting = Accounting::new(2);
        read(&mut accounting, [0; 5], Some([0; 5]));
        [read(&mut accounting, INSIDE, second), read(&mut accounting, INSIDE, Some(INSIDE))]
    };
    assert_eq!(counted(Some(INSIDE)), [2, 2], "nothing moved");
    assert_eq!(counted(Some([2, 1, 1, 2, 0]))[0], 1, "one was on its way, and was accepted");
    assert_eq!(counted(None), [0, 2], "nobody looked, at first");
    assert_eq!(counted(Some([2, 5, 5, 2, 0]))[0], 0, "no more than the CPUs are at work on");
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
    assert_eq!([looks([0; 5]), looks([0, 0, 0, 0, 1]), looks([1, 0, 0, 1, 0]), looks([0, 0, 0, 1, 0])], [0, 1, 1, 1]);
}

#[test]
fn packets_that_overtook_a_read_are_not_taken_for_rules_written_anew() {
    // The endpoint was read, then the first packets came, then the policies were read.
    let group = |[jump, p, r, looked]: [u64; 4]| {
        let table = |jump, [p, r]: [u64; 2]| {
            legacy(&[
                ("cali-gi-group", "g", &[(p + r, "-j cali-pi-_p"), (r, ON_TO_R)]),
                ("cali-pi-_p", "p", &[(p, P_DENIES)]),
                ("cali-pi-_r", "r", &[(r, R_DENIES)]),
                ("cali-tw-cali1", "a", &[(jump, START), (jump, TO_GROUP), (0, ACCEPTED), (0, END)]),
            ])
        };
        (table(jump, [p, r]), table(looked, [p, r]))
    };
    let mut accounting = Accounting::new(2);
    for (read, look) in [group([0; 4]), group([0, 5, 3, 8]), group([20, 12, 8, 20]), group([20, 12, 8, 20])] {
        accounting.advance(&[read], |_| Ok::<_, &str>(vec![look]));
    }
    assert_eq!(decided(&accounting, Verdict::Deny).iter().map(|(_, packets)| packets).sum::<u64>(), 20);
    let policies = [[0; 5], [0, 0, 0, 8, 0], [20, 0, 0, 20, 0]];
    let looks = [[0; 5], [8, 0, 0, 8, 0], [20, 0, 0, 20, 0]];
    let mut accounting = Accounting::new(2);
    let counted = policies.into_iter().zip(looks).map(|(first, second)| read(&mut accounting, first, Some(second)));
    assert_eq!(counted.last(), Some(20));
}

#[test]
fn a_debt_ends_with_the_first_look_in_which_nothing_moves() {
    let mut accounting = Accounting::new(2);
    // Seven packets pass during the first read, so the next difference may be too high by as many.
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
    // More packets were denied in the policy's chain than entered it, so some counters have begun again in between.
    assert_eq!(refused([60, 20, 20, 80, 0]), 0);
}

/// The same table as in iptables-nft, where every rule and chain keeps its handle.
fn with_handles(table: Snapshot) -> Snapshot {
    let mut ruleset = Ruleset::clone(&table.ruleset);
    ruleset.backend = Backend::Nft;
    let counts = (0..).zip(table.ruleset.chains().iter().flat_map(Chain::rule_ids));
    let counts = counts.map(|(handle, rule)| Count { handle: 100 + handle, ..table.count(rule) }).collect();
    let chain_handles = (1..=ruleset.chains().len() as u64).collect();
    Snapshot::new(ruleset.into(), counts, chain_handles)
}

#[test]
fn rules_that_may_have_begun_again_shift_no_refusals() {
    let before = || two([(5, 5), (50, 50)], 0, 55, "b");
    // q accepts 10 packets of the first endpoint, p denies 15 of the second. Then q is removed and comes back, so that everything from its
    // jump on begins again, and 6 more packets are accepted. 16 entered at the first endpoint, and its jump to q shows only one more than
    // before: it looks as if p had denied 15 there.
    assert_eq!(denied(&read_all([before(), two([(21, 6), (65, 0)], 15, 6, "b")])), 0);
    let calm = two([(21, 6), (65, 65)], 15, 71, "b");
    assert_eq!(denied(&read_all([before(), calm])), 15, "without any trace of it, they are the first one's");
    // Counters were reset (`nft reset rules`). The rules are still the same.
    let reset = two([(21, 6), (65, 0)], 15, 1, "b");
    assert_eq!(denied(&read_all([with_handles(before()), with_handles(reset)])), 0);
    // Nothing goes back, because nothing was counted before. But the second endpoint has other rules.
    let anew = [two([(0, 0), (0, 0)], 0, 0, "b"), two([(16, 6), (10, 0)], 10, 6, "c")];
    assert_eq!(denied(&read_all(anew)), 0);
}

#[test]
fn an_endpoint_gets_no_more_than_the_policys_own_rules_counted() {
    let mut accounting = Accounting::new(2);
    read(&mut accounting, [0; 5], Some([0; 5]));
    // A packet is held up after the jump for longer than two looks take.
    let held_up = [2, 0, 0, 1, 0];
    assert_eq!(read(&mut accounting, held_up, Some(held_up)), 1);
}

/// A limit in Calico's own tables counts what reaches it. What it denied takes two reads, and foreign rules must not end the sum.
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

/// Returns how many of the first endpoint's packets were decided so, by the policies' names.
fn decided(accounting: &Accounting, wanted: Verdict) -> Vec<(String, u64)> {
    let policies = shown(accounting).into_iter().filter_map(|(item, packets)| match item {
        Item::Policy { policy, verdict, .. } if verdict == wanted => Some((policy.to_string(), packets)),
        _ => None,
    });
    policies.collect()
}

#[test]
fn what_one_policy_of_a_group_alone_can_decide_is_its_own() {
    // p denies, q and r accept. Packets that entered, that q and r accepted, and that were denied.
    let table = |packets: u64, [q, r]: [u64; 2], refused: u64| {
        legacy(&[
            ("cali-gi-group", "g", &[(packets, "-j cali-pi-_p"), (packets - refused, ON_TO_Q), (packets - refused - q, ON_TO_R)]),
            ("cali-pi-_p", "p", &[(refused, P_DENIES)]),
            ("cali-pi-_q", "q", &[(q, Q_ACCEPTS), (q, RETURN)]),
            ("cali-pi-_r", "r", &[(r, R_ACCEPTS), (r, RETURN)]),
            ("cali-tw-cali1", "a", &[(packets, START), (packets, TO_GROUP), (q + r, ACCEPTED), (packets - q - r - refused, END)]),
        ])
    };
    let mut accounting = read_saved([table(0, [0, 0], 0)]);
    // While the table was read, five more packets were accepted and one was denied.
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
    // A group of p, which denies, and q, which passes. The first endpoint distinguishes the two. The second does not, because it also uses
    // r, which does both.
    let table = |n: u64| {
        legacy(&[
            ("cali-gi-group", "g", &[(20 * n, "-j cali-pi-_p"), (17 * n, ON_TO_Q)]),
            ("cali-pi-_p", "p", &[(3 * n, P_DENIES)]),
            ("cali-pi-_q", "q", &[(4 * n, Q_PASSES)]),
            ("cali-pi-_r", "r", &[(2 * n, R_DENIES), (n, "-s 10.0.0.3 -j MARK --set-xmark 0x20000/0x20000")]),
            ("cali-tw-cali1", "a", &[(10 * n, START), (10 * n, TO_GROUP), (0, ACCEPTED), (5 * n, END), (3 * n, TO_PROFILE)]),
            ("cali-tw-cali2", "b", &[(10 * n, START), (10 * n, TO_GROUP), (0, ACCEPTED), (8 * n, TO_R), (0, ACCEPTED)]),
            ("cali-tw-cali2", "b", &[(5 * n, END), (2 * n, TO_PROFILE)]),
            ("cali-tw-cali3", "c", &[(0, START), (0, TO_R), (0, ACCEPTED), (0, END), (0, TO_PROFILE)]),
        ])
    };
    let accounting = read_saved([table(0), table(1)]);
    let decided = |verdict| decided(&accounting, verdict).iter().map(|(_, packets)| packets).sum::<u64>();
    assert_eq!([Verdict::Deny, Verdict::Pass, Verdict::DenyOrPass].map(decided), [2, 3, 0]);
}

#[test]
fn refusals_are_recovered_only_if_nobody_else_can_have_got_them() {
    // Packets that p denied, packets to each endpoint, and a hash of each endpoint's rules. The second endpoint does not use p.
    let table = |refused: u64, first: u64, second: u64, [a, b]: [&str; 2]| {
        legacy(&[
            ("cali-FORWARD", "f", &[(first + second, "-j cali-to-wl-dispatch")]),
            ("cali-to-wl-dispatch", "d", &[(first, "-o cali1 -g cali-tw-cali1"), (second, "-o cali2 -g cali-tw-cali2")]),
            ("cali-pi-_p", "p", &[(refused, P_DENIES)]),
            ("cali-pi-_q", "q", &[(0, Q_ACCEPTS)]),
            ("cali-tw-cali1", "a", &[(first, START)]),
            ("cali-tw-cali1", a, &[(if a == "a" { first } else { 0 }, TO_P)]),
            ("cali-tw-cali1", "a", &[(0, ACCEPTED), (0, END)]),
            ("cali-tw-cali2", "b", &[(second, START)]),
            ("cali-tw-cali2", b, &[(second, TO_Q)]),
            ("cali-tw-cali2", "b", &[(0, ACCEPTED), (0, END)]),
        ])
    };
    let refused = |second: Snapshot| denied(&read_saved([table(1000, 1000, 1000, ["a", "b"]), second]));
    assert_eq!(refused(table(1010, 1016, 1000, ["x", "b"])), 10, "the first one's rules were written anew after that");
    assert_eq!(refused(table(1010, 1016, 1012, ["x", "x"])), 0, "the second one's too: it may have used p meanwhile");
}
