//! Maps and policies that are added and removed while the exporter runs.

use std::time::Duration;

use super::*;

/// How long a report is kept before it is made again.
const FRESH: Duration = Duration::from_millis(1100);

fn ingress(port: u16, interface: &str) -> serde_json::Value {
    std::thread::sleep(FRESH);
    let report: serde_json::Value = serde_json::from_str(http::get(port, "/api/v1/workloads").unwrap().text()).unwrap();
    let found = report["workloads"].as_array().unwrap().iter().find(|workload| workload["interface"] == interface);
    found.unwrap()["ingress"].clone()
}

fn map_of_interfaces(version: u32) -> Map {
    Map::pin(&format!("{GLOBALS}/cali_counters{version}"), PER_CPU_HASH, if version == 2 { 14 } else { 27 })
}

fn count(map: &Map, interface: &str, accepted: u64, refused: u64) {
    map.set(counters_of(interface, 1), &[accepted + refused, 0, accepted, 0, refused], &[]);
}

/// Programs count in the map of their own release. A rollback leaves a newer map, an upgrade an older one.
#[test]
fn of_several_pinned_maps_of_interfaces_the_one_that_moves_counts() {
    on_a_node("of_several_pinned_maps_of_interfaces_the_one_that_moves_counts", || {
        let rules = rules();
        workload("cali1", &[WEB, ALL]);
        workload("cali2", &[ALL]);
        let (old, new) = (map_of_interfaces(2), map_of_interfaces(6));
        for (map, interface) in [(&old, "cali1"), (&new, "cali1"), (&old, "cali2"), (&new, "cali2")] {
            count(map, interface, 100, 50);
        }
        let program = Program::start(command());
        let port = program.port();
        scrape(port);
        rules.set(ACCEPT_ALL, &[9], &[]);
        rules.set(DENY_WEB, &[4], &[]);
        count(&old, "cali1", 107, 54);
        count(&old, "cali2", 102, 50);
        let samples = scrape(port);
        let of = |samples: &Samples| ["cali1", "cali2"].map(|interface| of_workload(samples, interface, "default.all"));
        assert_eq!(of(&samples), [Some(7.0), Some(2.0)]);
        assert_eq!(refused(&samples, "cali1", "policy"), 4.0);
        // The node is upgraded. From now on, programs count in the other map.
        rules.set(ACCEPT_ALL, &[12], &[]);
        count(&new, "cali1", 101, 50);
        count(&new, "cali2", 102, 50);
        assert_eq!(of(&scrape(port)), [Some(8.0), Some(4.0)]);
        // The older map is removed with its counts. What happened in between is unknown; what follows is counted.
        fs::remove_file(format!("{GLOBALS}/cali_counters2")).unwrap();
        drop(old);
        rules.set(ACCEPT_ALL, &[512], &[]);
        count(&new, "cali1", 401, 50);
        count(&new, "cali2", 302, 150);
        let samples = scrape(port);
        assert_eq!(of(&samples), [Some(8.0), Some(4.0)]);
        assert_eq!(
            with(&samples, "calico_accountant_drop_packets_total", &[("interface", "cali2"), ("reason", "policy_or_none")]).count(),
            0
        );
        let sums = ingress(port, "cali2");
        assert_eq!((&sums["accepted"], &sums["accepted_exact"], &sums["exact"]), (&4.into(), &false.into(), &false.into()), "{sums}");
        rules.set(ACCEPT_ALL, &[515], &[]);
        count(&new, "cali1", 403, 50);
        count(&new, "cali2", 303, 150);
        assert_eq!(of(&scrape(port)), [Some(10.0), Some(5.0)]);
        // An unknown version appears. Programs may count there.
        let unknown = Map::pin(&format!("{GLOBALS}/cali_counters7"), PER_CPU_HASH, 27);
        rules.set(ACCEPT_ALL, &[600], &[]);
        assert_eq!(of(&scrape(port)), [Some(10.0), Some(5.0)]);
        assert_eq!(ingress(port, "cali1")["accepted_exact"], false);
        drop(unknown);
    });
}

/// The workload's sums keep what a policy accepted and denied after the policy is deleted.
#[test]
fn sums_of_a_workload_keep_what_policies_did_that_are_gone() {
    on_a_node("sums_of_a_workload_keep_what_policies_did_that_are_gone", || {
        let rules = rules();
        let interfaces = map_of_interfaces(6);
        workload("cali1", &[WEB, ALL]);
        count(&interfaces, "cali1", 0, 0);
        let program = Program::start(command());
        let port = program.port();
        scrape(port);
        rules.set(ACCEPT_WEB, &[36], &[]);
        rules.set(DENY_WEB, &[5], &[]);
        rules.set(ACCEPT_ALL, &[3], &[]);
        count(&interfaces, "cali1", 39, 5);
        scrape(port);
        let sums = |port| {
            let sums = ingress(port, "cali1");
            (sums["accepted"].as_u64().unwrap(), sums["dropped"].as_u64().unwrap(), sums["accepted_exact"] == true && sums["exact"] == true)
        };
        assert_eq!(sums(port), (39, 5, true));
        dump("cali1", "ingress", &[ALL]);
        rules.remove(ACCEPT_WEB);
        rules.remove(DENY_WEB);
        count(&interfaces, "cali1", 41, 6);
        for _ in 0..2 {
            let samples = scrape(port);
            assert_eq!(of_workload(&samples, "cali1", "shop/knp.default.web"), None);
            assert_eq!(sums(port), (41, 6, true), "also what happened during the change");
        }
        // The policy comes back. Its counts continue where they were.
        dump("cali1", "ingress", &[WEB, ALL]);
        scrape(port);
        rules.set(ACCEPT_WEB, &[1], &[]);
        count(&interfaces, "cali1", 42, 6);
        assert_eq!(of_workload(&scrape(port), "cali1", "shop/knp.default.web"), Some(37.0));
        assert_eq!(sums(port), (42, 6, true));
    });
}

/// Felix makes a new map when the size changes, and copies the entries. Counts continue, but only a lower bound is certain.
#[test]
fn another_map_of_rules_makes_nothing_go_back_or_jump() {
    on_a_node("another_map_of_rules_makes_nothing_go_back_or_jump", || {
        let first = rules();
        workload("cali1", &[WEB]);
        first.set(ACCEPT_WEB, &[100], &[]);
        let program = Program::start(command());
        let port = program.port();
        scrape(port);
        fs::remove_file(format!("{GLOBALS}/cali_rule_ctrs2")).unwrap();
        let second = rules();
        second.set(ACCEPT_WEB, &[103], &[]);
        let samples = scrape(port);
        assert_eq!(rule(&samples, "shop/knp.default.web", "0"), 103.0);
        second.set(ACCEPT_WEB, &[104], &[]);
        assert_eq!(rule(&scrape(port), "shop/knp.default.web", "0"), 104.0);
    });
}
