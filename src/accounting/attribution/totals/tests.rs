use super::*;
use crate::felix::DropReason;

fn cali1(totals: &mut Totals) -> Recorder<'_> {
    totals.endpoint(EndpointKind::Workload, &"cali1".into(), Direction::Ingress)
}

/// Begins the next read for the same endpoint.
fn next_read(totals: &mut Totals) -> Recorder<'_> {
    totals.begin_read(Instant::now());
    cali1(totals)
}

/// Returns how many interfaces and totals are remembered, shown or not.
fn size(totals: &Totals) -> (usize, usize) {
    (totals.endpoints.len(), totals.endpoints.values().flat_map(|e| &e.directions).map(Vec::len).sum())
}

fn shown(totals: &Totals) -> Vec<(String, u64)> {
    let all = totals.workloads().flat_map(|(name, e)| totals.shown(e, Direction::Ingress).map(move |t| (name.to_string(), t.packets)));
    all.collect()
}

#[test]
fn what_a_read_does_not_meet_is_not_shown_but_goes_on_when_it_returns() {
    let mut totals = Totals::default();
    let item = || Item::Profile("kns.a".into());
    next_read(&mut totals).add(&item(), 5);
    assert_eq!(shown(&totals), [("cali1".into(), 5)]);
    totals.begin_read(Instant::now());
    assert_eq!(shown(&totals), []);
    next_read(&mut totals).add(&item(), 1);
    assert_eq!(shown(&totals), [("cali1".into(), 6)]);
}

#[test]
fn a_policy_that_gets_its_name_keeps_its_count() {
    let mut totals = Totals::default();
    let item = |policy: &str| Item::Policy { tier: "default".into(), policy: policy.into(), verdict: Verdict::Accept };
    next_read(&mut totals).add(&item("cali-pi-_x"), 5);
    totals.rename_policy("cali-pi-_x", &"default.foo".into());
    next_read(&mut totals).add(&item("default.foo"), 2);
    assert_eq!(shown(&totals), [("cali1".into(), 7)]);
    // The name was lost for a while, and is known again.
    cali1(&mut totals).add(&item("cali-pi-_x"), 4);
    totals.rename_policy("cali-pi-_x", &"default.foo".into());
    assert_eq!(shown(&totals), [("cali1".into(), 11)]);
}

#[test]
fn a_zero_that_is_not_certain_is_not_shown() {
    let mut totals = Totals::default();
    for (packets, expected) in [(0, vec![]), (2, vec![("cali1".into(), 2)]), (0, vec![("cali1".into(), 2)])] {
        next_read(&mut totals).add_counted(&Item::Established, packets, false);
        assert_eq!(shown(&totals), expected);
    }
    // The count is certain from now on, but not what was before.
    totals.begin_read(Instant::now());
    totals.endpoint(EndpointKind::Workload, &"cali2".into(), Direction::Ingress).add_counted(&Item::Established, 0, false);
    totals.endpoint(EndpointKind::Workload, &"cali2".into(), Direction::Ingress).add(&Item::Established, 0);
    assert_eq!(shown(&totals), []);
}

#[test]
fn what_a_read_does_not_tell_is_not_shown_whatever_is_added() {
    let mut totals = Totals::default();
    for (unknown, packets, expected) in [(false, 5, Some(5)), (true, 1, None), (false, 1, Some(7))] {
        let mut recorder = next_read(&mut totals);
        if unknown {
            recorder.unknown(&Item::Established);
        }
        recorder.add(&Item::Established, packets);
        assert_eq!(shown(&totals), expected.map(|packets| ("cali1".into(), packets)).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn sums_keep_what_tiers_and_policies_counted_that_have_gone() {
    let mut totals = Totals::default();
    let drop = |tier: &str| Item::Drop { reason: DropReason::NoPolicy, tier: tier.into() };
    let policy = |verdict| Item::Policy { tier: "t".into(), policy: "t.p".into(), verdict };
    let sums = |totals: &Totals| {
        let (_, endpoint) = totals.workloads().next().unwrap();
        let Sums { accepted, refused, no_policy } = totals.sums(endpoint, Direction::Ingress);
        assert_eq!(totals.no_policy_drops(endpoint, Direction::Ingress), Some(no_policy));
        (accepted, refused, no_policy)
    };
    let mut read = |has_policy: bool| {
        let mut recorder = next_read(&mut totals);
        recorder.add(&drop("default"), 1);
        if has_policy {
            recorder.add(&drop("t"), 100);
            recorder.add(&policy(Verdict::Accept), 7);
            recorder.add(&policy(Verdict::Deny), 4);
            recorder.add(&Item::PolicyDrop { tier: "t".into() }, 4);
        }
        totals.end_read();
        sums(&totals)
    };
    assert_eq!(read(true), (7, 105, 101));
    // The tier is gone until its totals are forgotten, and then comes back.
    for n in 1..=35 {
        assert_eq!(read(false), (7, 105 + n, 101 + n));
    }
    assert_eq!(read(true), (14, 210 + 35, 202 + 35));
}

#[test]
fn sums_with_a_tier_that_does_not_tell_are_not_told() {
    let mut totals = Totals::default();
    let drop = |tier: &str| Item::Drop { reason: DropReason::NoPolicy, tier: tier.into() };
    let mut recorder = next_read(&mut totals);
    recorder.add(&drop("default"), 1);
    recorder.unknown(&drop("t"));
    let (_, endpoint) = totals.workloads().next().unwrap();
    assert_eq!(totals.no_policy_drops(endpoint, Direction::Ingress), None);
}

#[test]
fn what_cannot_be_told_apart_goes_by_the_sum() {
    let mut totals = Totals::default();
    let policy = |verdict| Item::Policy { tier: "t".into(), policy: "t.p".into(), verdict };
    let mut read = |deny, pass, together| {
        let mut recorder = next_read(&mut totals);
        for (verdict, packets) in [(Verdict::Deny, deny), (Verdict::Pass, pass), (Verdict::DenyOrPass, together)] {
            recorder.add(&policy(verdict), packets);
        }
        totals.end_read();
        shown(&totals).into_iter().map(|(_, packets)| packets).collect::<Vec<_>>()
    };
    assert_eq!(read(3, 0, 0), [3, 0, 0]);
    assert_eq!(read(0, 0, 7), [10]);
    assert_eq!(read(2, 1, 0), [13]);
}

#[test]
fn what_stays_away_is_forgotten() {
    let mut totals = Totals::default();
    let begun = Instant::now();
    totals.begin_read(begun);
    cali1(&mut totals).add(&Item::Established, 5);
    for seconds in 1..=REMEMBERED.as_secs() {
        totals.begin_read(begun + Duration::from_secs(seconds));
    }
    assert_eq!(size(&totals), (1, 1));
    totals.begin_read(begun + REMEMBERED + Duration::from_secs(1));
    assert_eq!(size(&totals), (0, 0));
    assert_eq!(totals.items.len(), 0);
}

#[test]
fn what_has_gone_is_remembered_within_bounds() {
    let (mut totals, begun) = (Totals::default(), Instant::now());
    for pod in 0..600 {
        totals.begin_read(begun + Duration::from_millis(pod));
        let interface = format!("cali{pod}").into();
        let mut recorder = totals.endpoint(EndpointKind::Workload, &interface, Direction::Ingress);
        (0..100).for_each(|profile| recorder.add(&Item::Profile(profile.to_string().into()), 1));
    }
    let (endpoints, size) = size(&totals);
    assert!((200..=202).contains(&endpoints) && size <= MOST_REMEMBERED + 200, "{endpoints} {size}");
    assert_eq!(totals.items.len(), 100, "what they have totals of is kept once");
    totals.begin_read(begun + Duration::from_secs(1));
    let mut recorder = totals.endpoint(EndpointKind::Workload, &"cali599".into(), Direction::Ingress);
    recorder.add(&Item::Profile("0".into()), 1);
    assert_eq!(shown(&totals), [("cali599".into(), 2)], "the last ones are remembered");
}

/// Returns what output shows that leaves zeros out.
fn introduced(totals: &Totals) -> Vec<u64> {
    totals.workloads().flat_map(|(_, e)| totals.shown(e, Direction::Ingress).map(Total::introduced_packets)).collect()
}

#[test]
fn what_begins_to_count_is_shown_as_0_first_and_what_was_counted_before_is_not() {
    const HOLD: Duration = Duration::from_secs(65);
    let (mut totals, begun) = (Totals::default(), Instant::now());
    let item = |policy: &str, verdict| Item::Policy { tier: "default".into(), policy: policy.into(), verdict };
    let mut read = |seconds: u64, old: u64, new: u64, rename: bool| {
        let mut recorder = next_read(&mut totals);
        recorder.add(&item("old", Verdict::Accept), old);
        recorder.add(&item("new", Verdict::Deny), new);
        if rename {
            totals.rename_policy("new", &"named".into());
        }
        totals.end_read();
        totals.introduce(begun + Duration::from_secs(seconds), HOLD);
        introduced(&totals)
    };
    for (seconds, old, new, expected) in
        [(0, 7, 0, [7, 0]), (10, 1, 3, [8, 0]), (20, 0, 2, [8, 0]), (74, 0, 0, [8, 0]), (75, 0, 1, [8, 6]), (76, 0, 1, [8, 7])]
    {
        assert_eq!(read(seconds, old, new, false), expected, "{seconds}");
    }
    assert_eq!(read(77, 0, 0, true), [8, 7], "another name for what was shown");
}

#[test]
fn what_was_shown_does_not_begin_again_as_part_of_a_sum() {
    let mut totals = Totals::default();
    let item = |verdict| Item::Policy { tier: "default".into(), policy: "p".into(), verdict };
    for (verdict, packets, expected) in [(Verdict::Deny, 5, vec![5]), (Verdict::DenyOrPass, 2, vec![7])] {
        next_read(&mut totals).add(&item(verdict), packets);
        totals.end_read();
        totals.introduce(Instant::now(), Duration::from_secs(65));
        assert_eq!(introduced(&totals).into_iter().filter(|packets| *packets > 0).collect::<Vec<_>>(), expected);
    }
}
