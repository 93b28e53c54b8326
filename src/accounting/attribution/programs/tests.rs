mod node;
mod random;

use super::super::totals::Total;
use super::*;
use crate::ebpf::{Owner, Rule};
use crate::felix::Decision;
use crate::ruleset::Family;
use node::*;

#[test]
fn the_node_counts_from_what_the_kernel_knows_workloads_from_zero() {
    let mut node = Node::new(vec![program("cali1", &[101, 102], 9)]);
    node.counts(&[(101, 5), (9, 2)], &[("cali1", 5, 2)]).advance();
    assert_eq!(node.rules(), [("p1#0 Accept".into(), 5), ("p1#1 Deny".into(), 0)]);
    node.shows("cali1: p1 Accept 0, p1 Deny 0, no_policy 0, policy_or_none 0");
    node.counts(&[(101, 8), (102, 1), (9, 4)], &[("cali1", 8, 5)]).advance();
    assert_eq!(node.rules(), [("p1#0 Accept".into(), 8), ("p1#1 Deny".into(), 1)]);
    node.shows("cali1: p1 Accept 3, p1 Deny 1, no_policy 2, policy_or_none 0");
    let decided: Vec<u64> = node.node.decided().map(|(_, _, packets)| packets).collect();
    assert_eq!((decided.len(), decided.iter().sum::<u64>()), (3, 13));
}

#[test]
fn the_only_holder_of_a_rule_gets_its_count_others_share() {
    let mut node = Node::begun(vec![program("cali1", &[101, 301], 9), program("cali2", &[201, 301], 9)], &[]);
    // No interface is counted, so what both hold belongs to neither.
    node.counts(&[(101, 3), (301, 7)], &[]).advance();
    node.shows("cali1: p1 Accept 3, no_policy 0; cali2: p2 Accept 0, no_policy 0");
}

#[test]
fn rows_decide_what_columns_leave_open_and_the_rest_goes_to_all_together() {
    let mut node = Node::begun(vec![program("cali1", &[101, 301], 9), program("cali2", &[201, 301], 9)], &AT_ZERO);
    // cali2 is quiet, so all is cali1's.
    node.counts(&[(101, 3), (301, 7), (9, 1)], &[("cali1", 10, 1), ("cali2", 0, 0)]).advance();
    node.shows(
        "cali1: p1 Accept 3, p3 Accept 7, no_policy 1, policy_or_none 0; cali2: p2 Accept 0, p3 Accept 0, no_policy 0, policy_or_none 0",
    );
    // Both accept. p1 and p2 have one holder each, so the rest is p3's.
    node.counts(&[(101, 4), (201, 2), (301, 12), (9, 1)], &[("cali1", 14, 1), ("cali2", 4, 0)]).advance();
    assert_eq!((node.shown()["cali1 p3 Accept"], node.shown()["cali2 p3 Accept"]), (10, 2));
    assert!(!node.shown().contains_key("cali1 p1,p3 Accept"));
}

#[test]
fn what_is_not_certain_is_said_to_be_one_of_several() {
    let both = |interface| program(interface, &[101, 201], 9);
    let mut node = Node::begun(vec![both("cali1"), both("cali2")], &AT_ZERO);
    node.counts(&[(101, 9), (201, 4)], &[("cali1", 10, 0), ("cali2", 3, 0)]).advance();
    // The lower bounds of the example in `group`. Zeros that are not certain are not shown.
    node.shows(
        "cali1: p1 Accept 6, p2 Accept 1, p1,p2 Accept 3, no_policy 0, policy_or_none 0; \
         cali2: p1,p2 Accept 3, no_policy 0, policy_or_none 0",
    );
    // Later certainty does not correct it.
    node.counts(&[(101, 10), (201, 4)], &[("cali1", 10, 0), ("cali2", 4, 0)]).advance();
    assert_eq!((node.shown()["cali2 p1 Accept"], node.shown()["cali2 p1,p2 Accept"]), (1, 3));
    assert!(!node.shown().contains_key("cali2 p2 Accept"));
}

/// If what is certain is the whole row, the rest is zero, and certain.
#[test]
fn a_row_that_is_divided_has_certain_zeros() {
    let read = || {
        let mut node = Node::begun(vec![program("cali1", &[101, 201], 9), program("cali2", &[201], 9)], &AT_ZERO);
        node.counts(&[(101, 10), (201, 2)], &[("cali1", 10, 0), ("cali2", 2, 0)]);
        node
    };
    let mut node = read();
    node.advance();
    assert_eq!((node.shown()["cali1 p1 Accept"], node.shown()["cali1 p2 Accept"]), (10, 0));
    // One more packet came while the columns were read. It may be of any policy.
    let mut node = read();
    node.also_accepted(11);
    node.advance();
    assert_eq!((node.shown()["cali1 p1 Accept"], node.shown().get("cali1 p2 Accept")), (10, None));
}

/// Up to 3.31, Felix does not say which profile a rule belongs to.
#[test]
fn a_profile_without_a_name_may_have_accepted_it_too() {
    let both = |interface: &str| {
        let profile = rule(501, Owner::Profile(None), Decision::Accept);
        shown(interface, vec![of_policy(101), profile, rule(9, Owner::NoProfile, Decision::Deny)])
    };
    let mut node = Node::begun(vec![both("cali1"), both("cali2")], &AT_ZERO);
    node.counts(&[(101, 5), (501, 5)], &[("cali1", 5, 0), ("cali2", 5, 0)]).advance();
    let shown = node.shown();
    assert_eq!((shown.get("cali1 p1 Accept"), shown["cali1 p1,(profile) Accept"]), (None, 5));
}

/// Up to 3.29, the ends of all tiers count under one id.
#[test]
fn a_single_column_is_its_row_even_if_its_id_is_shared() {
    let mut node = Node::new(vec![program("cali1", &[101], UNNUMBERED), program("cali2", &[101, 102], UNNUMBERED)]);
    node.counts(&[(0, 50)], &AT_ZERO).advance();
    node.counts(&[(0, 58), (101, 9), (102, 2)], &[("cali1", 4, 3), ("cali2", 5, 7)]).advance();
    let shown = node.shown();
    assert_eq!((shown["cali1 p1 Accept"], shown["cali2 p1 Accept"], shown["cali1 no_policy"]), (4, 5, 3));
    // Only cali2 can deny. What it refused beyond that, no policy decided.
    assert_eq!((shown["cali2 p1 Deny"], shown["cali2 no_policy"], shown["cali2 policy_or_none"]), (2, 5, 0));
    assert_eq!((node.programs.unknown, node.node.unknown_rules()), (0, 0));
}

#[test]
fn entries_vanish_and_return_without_a_jump() {
    let mut node = Node::new(vec![program("cali1", &[101], 9)]);
    let mut last = 0;
    for (entry, expected) in
        [(Some(10), 10), (Some(12), 12), (None, 12), (Some(3), 15), (Some(1), 16), (Some(1), 16), (None, 16), (None, 16)]
    {
        let rules: Vec<_> = entry.map(|packets| (101, packets)).into_iter().collect();
        node.counts(&rules, &[]).advance();
        let now = node.rules()[0].1;
        assert!(now == expected && now >= last, "{entry:?}: {now}");
        last = now;
    }
}

#[test]
fn unknown_ids_are_counted_once_and_named_from_then_on() {
    let mut node = Node::new(vec![program("cali1", &[101], 9)]);
    node.counts(&[(101, 1), (777, 10)], &[]).advance();
    assert_eq!((node.programs.unknown, node.node.unknown_rules()), (1, 10));
    node.programs(vec![program("cali1", &[101, 777], 9)]).counts(&[(101, 1), (777, 13)], &[]).advance();
    assert_eq!((node.programs.unknown, node.node.unknown_rules()), (0, 10));
    assert!(node.rules().contains(&("p7#76 Accept".into(), 3)));
    // The file goes, and the entry remains. The id keeps its meaning.
    node.programs(vec![program("cali1", &[101], 9)]).counts(&[(101, 1), (777, 20)], &[]).advance();
    assert!(node.rules().contains(&("p7#76 Accept".into(), 10)));
    // Its entry goes too: the id is forgotten, and unknown when it comes back.
    node.counts(&[(101, 1)], &[]).advance();
    node.counts(&[(101, 1), (777, 2)], &[]).advance();
    assert_eq!((node.programs.unknown, node.node.unknown_rules()), (1, 12));
}

#[test]
fn programs_that_contradict_each_other_name_nothing() {
    let other = |id| Rule { known: of_policy(id + 100).known, ..of_policy(id) };
    let mut node = Node::new(vec![program("cali1", &[101], 9), shown("cali2", vec![other(101)])]);
    node.counts(&[(101, 4)], &[]).advance();
    assert_eq!((node.programs.unknown, node.node.unknown_rules()), (1, 4));
    // One is rewritten. What was counted in between is still in doubt, what follows is not.
    node.programs(vec![shown("cali1", vec![other(101)]), shown("cali2", vec![other(101)])]).counts(&[(101, 6)], &[]).advance();
    assert_eq!((node.rules(), node.node.unknown_rules()), (vec![("p2#0 Accept".into(), 2)], 4));
}

#[test]
fn a_number_that_changes_its_meaning_counts_for_neither_meanwhile() {
    let mut node = Node::new(vec![program("cali1", &[101], 9)]);
    node.counts(&[(101, 4)], &[]).advance();
    node.programs(vec![shown("cali1", vec![Rule { known: of_policy(201).known, ..of_policy(101) }])]).counts(&[(101, 6)], &[]).advance();
    assert_eq!(node.node.unknown_rules(), 2);
    node.counts(&[(101, 9)], &[]).advance();
    assert_eq!((node.rules(), node.node.unknown_rules()), (vec![("p2#0 Accept".into(), 3)], 2));
}

#[test]
fn nothing_is_attributed_while_something_changes() {
    let mut changed = vec![program("cali1", &[101, 103], 9), program("cali2", &[201], 9)];
    changed[0].unchanged = false;
    let mut node = Node::begun(vec![program("cali1", &[101, 103], 9), program("cali2", &[201], 9)], &AT_ZERO);
    node.programs(changed).counts(&[(101, 3), (201, 4)], &[("cali1", 3, 2), ("cali2", 4, 0)]).advance();
    // cali2 has not changed, and has only one policy that accepts. That cali1 has refused two remains certain.
    node.shows("cali2: p2 Accept 4, no_policy 0, policy_or_none 0; cali1: policy_or_none 2");
    node.read.programs = vec![program("cali1", &[101, 103], 9), program("cali2", &[201], 9)];
    node.counts(&[(101, 5), (201, 4)], &[("cali1", 5, 2), ("cali2", 4, 0)]).advance();
    assert_eq!(node.shown()["cali1 p1 Accept"], 2);
}

#[test]
fn what_is_missing_or_not_understood_proves_nothing_about_columns() {
    type Spoil = fn(&mut Snapshot);
    let spoils: [Spoil; 4] = [
        |read| read.complete = false,
        |read| read.unreadable = 1,
        |read| read.unchanged = false,
        |read| {
            let mut strange = program("cali2", &[201, 203], 9);
            Arc::get_mut(&mut strange.program).unwrap().unrecognised = 1;
            read.programs[1] = strange;
        },
    ];
    for (index, spoil) in spoils.iter().enumerate() {
        let mut node = Node::new(vec![program("cali1", &[101, 201], 9), program("cali2", &[203], 9)]);
        if index == 3 {
            spoil(&mut node.read);
        }
        node.counts(&[], &[]).advance();
        spoil(&mut node.read);
        node.counts(&[(101, 3)], &[]).advance();
        assert!(!node.shown().contains_key("cali1 p1 Accept"), "{index}: {:?}", node.shown());
    }
}

#[test]
fn rules_of_host_endpoints_are_nobodys() {
    let mut host = program("eth0", &[101], 19);
    let program_of_host = Arc::get_mut(&mut host.program).unwrap();
    program_of_host.is_workload = false;
    program_of_host.rules.iter_mut().for_each(|rule| rule.is_workloads = false);
    let mut node = Node::begun(vec![program("cali1", &[101, 201], 9), host], &[]);
    node.counts(&[(101, 3), (201, 2)], &[]).advance();
    let shown = node.shown();
    assert_eq!((shown.get("cali1 p1 Accept"), shown["cali1 p2 Accept"]), (None, 2));
    assert!(!shown.keys().any(|key| key.starts_with("eth0")));
}

#[test]
fn both_families_of_an_interface_are_one_workload() {
    let mut six = program("cali1", &[101, 103], 9);
    Arc::get_mut(&mut six.program).unwrap().family = Family::V6;
    let mut node = Node::begun(vec![program("cali1", &[101], 9), six], &[("cali1", 0, 0)]);
    node.counts(&[(101, 3), (103, 4)], &[("cali1", 7, 0)]).advance();
    node.shows("cali1: p1 Accept 7, no_policy 0, policy_or_none 0");
}

#[test]
fn a_row_that_is_read_a_moment_before_its_columns_is_never_exceeded() {
    let mut node = Node::begun(vec![program("cali1", &[101, 301], 9), program("cali2", &[301], 9)], &AT_ZERO);
    node.counts(&[(101, 5)], &[("cali1", 4, 0), ("cali2", 0, 0)]);
    // A fifth packet came in between.
    node.also_accepted(5);
    node.advance();
    assert_eq!(node.shown()["cali1 p1 Accept"], 4);
    node.counts(&[(101, 5)], &[("cali1", 5, 0), ("cali2", 0, 0)]).advance();
    let shown = node.shown();
    assert_eq!(shown["cali1 p1 Accept"] + shown["cali1 p1,p3 Accept"], 5);
}

#[test]
fn a_workload_that_comes_has_its_refusals_from_the_start() {
    let mut node = Node::begun(vec![program("cali1", &[101], 9)], &[("cali1", 0, 0)]);
    node.added(program("cali2", &[101], 9)).counts(&[], &[("cali1", 0, 0), ("cali2", 0, 6)]).advance();
    assert_eq!(node.shown()["cali2 policy_or_none"], 6);
}

/// Its file was cut short when counting began. What it had refused by then is not counted.
#[test]
fn a_workload_whose_program_is_shown_late_begins_where_it_was() {
    let mut node = Node::begun(vec![program("cali1", &[101], 9)], &[("cali1", 0, 0), ("cali2", 30, 6)]);
    node.added(program("cali2", &[101], 9)).counts(&[], &[("cali1", 0, 0), ("cali2", 31, 8)]).advance();
    let all = node.all();
    assert_eq!((all["cali2 policy_or_none"], all["cali2 refused"], all["cali2 accepted"]), (2, 2, 1));
}

/// A pod of a StatefulSet comes back with the same name, and so does its interface.
#[test]
fn another_interface_of_the_same_name_counts_from_zero() {
    let mut node = Node::begun(vec![program("cali1", &[101], 9)], &[("cali1", 5, 6)]);
    node.counts(&[], &[("cali1", 9, 20)]);
    node.read.interfaces.values_mut().for_each(|verdicts| verdicts.number = 2);
    node.read.programs[0].unchanged = false;
    node.read.unchanged = false;
    node.advance();
    assert_eq!((node.all()["cali1 policy_or_none"], node.all()["cali1 accepted"]), (20, 9));
    let exact =
        |node: &Node| node.totals.workloads().all(|(_, endpoint)| node.totals.shown(endpoint, Direction::Ingress).all(Total::is_exact));
    assert!(!exact(&node), "what the first one counted at last is not known");
}

/// Calico was taken back to a release that counts interfaces elsewhere, and the map remains.
#[test]
fn interfaces_that_stand_still_while_rules_count_prove_no_zero() {
    let mut node =
        Node::begun(vec![program("cali1", &[101, 301, 302], 9), program("cali2", &[301, 302], 9)], &[("cali1", 7, 7), ("cali2", 7, 7)]);
    node.counts(&[(101, 2), (301, 4), (302, 1)], &[("cali1", 7, 7), ("cali2", 7, 7)]).advance();
    let all = node.all();
    // Only one of them has the policy. All else is unknown.
    assert_eq!(all["cali1 p1 Accept"], 2);
    for unknown in ["p3 Accept", "p3 Deny", "policy of default", "accepted", "refused", "policy_or_none"] {
        assert_eq!(all.get(&format!("cali2 {unknown}")), None, "{unknown}");
    }
}

#[test]
fn after_a_move_to_this_dataplane_counting_begins_there() {
    let mut node = Node::new(vec![program("cali1", &[101], 9)]);
    node.node.begin_read(Instant::now());
    node.counts(&[(101, 100)], &[]).advance();
    node.counts(&[(101, 103)], &[]).advance();
    assert_eq!(node.rules(), [("p1#0 Accept".into(), 3)]);
}
