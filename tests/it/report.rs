//! What the API answers for captures: every count as it was sent, and names of any kind as data.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_accountant::config::Exposition;
use calico_accountant::dataplane::saved;
use calico_accountant::dataplane::{ReadError, Reader, Reading};
use calico_accountant::datastore::inventory::{Interface, Inventory, StoredPolicy, Workload};
use calico_accountant::exporter::{Options, Scraper};
use calico_accountant::report::{Drop, Report};
use calico_accountant::ruleset::{Family, Snapshot};
use calico_accountant::server::{Application, Limits, Listener};
use serde_json::Value;

use crate::captures::{self, Key};
use crate::http;
use crate::support::fixture;

/// Every capture with moments t0, t1 and t2. Those of nftables are in nft's JSON.
pub const CAPTURES: [&str; 14] = [
    "v3.25.2-nft",
    "v3.27.5-legacy",
    "v3.28.5-legacy",
    "v3.28.5-nft",
    "v3.29.7-legacy",
    "v3.29.7-native",
    "v3.31.7-native",
    "v3.31.7-nft-flowlogs",
    "v3.32.1-legacy",
    "v3.32.1-legacy-flowlogs",
    "v3.32.1-native",
    "v3.32.1-native-reject",
    "v3.32.1-nft",
    "v3.32.1-olddata-legacy",
];

/// The files of a moment, for both families.
pub fn files(capture: &str, at: &str) -> [String; 2] {
    let names =
        if capture.contains("native") { ["nft-ip.json.gz", "nft-ip6.json.gz"] } else { ["iptables-save.txt.gz", "ip6tables-save.txt.gz"] };
    names.map(|name| fixture::path(&format!("captures/{capture}/{at}/{name}")).display().to_string())
}

/// Moments, read one after the other. Reading an empty one fails.
struct Moments(VecDeque<Vec<Snapshot>>);

impl Reader for Moments {
    fn read(&mut self, _: Instant) -> Result<Reading, ReadError> {
        let tables = if self.0.len() > 1 { self.0.pop_front() } else { self.0.front().cloned() };
        if tables.as_ref().is_none_or(Vec::is_empty) {
            return Err(ReadError::NoProgram("/nowhere".into()));
        }
        Ok(Reading { tables: tables.unwrap(), source: "file", ..Reading::default() })
    }
}

fn moment(capture: &str, at: &str) -> Vec<Snapshot> {
    let files = files(capture, at).map(|file| (file.clone(), std::fs::read(&file).unwrap()));
    saved::moment(&files).unwrap()
}

fn scraper(moments: Vec<Vec<Snapshot>>, inventory: Inventory) -> Scraper {
    let options = Options {
        node_name: "node-1".into(),
        grafana_url: None,
        minimum_counter: 0,
        exposition: Exposition::default(),
        first_zero: Duration::ZERO,
        pod_logs: "/nonexistent".into(),
        datastore: Some("etcd"),
        process_metrics: true,
        one_moment: false,
        witnesses: None,
        began_anew: false,
        resumed: false,
    };
    Scraper::new(options, Box::new(Moments(moments.into())), Arc::new(inventory))
}

/// Adds the counts of a pipeline as the API shows them, under the keys of [`captures`].
fn counts(interface: &str, pipeline: &Value, into: &mut BTreeMap<Key, u64>) {
    let direction = if pipeline["direction"] == "ingress" { "ingress" } else { "egress" };
    let mut add = |item: String, packets: &Value| {
        if let Some(packets) = packets.as_u64() {
            *into.entry((interface.to_owned(), direction, item)).or_default() += packets;
        }
    };
    add("established".into(), &pipeline["established"]);
    add("noprofile".into(), &pipeline["no_profile"]);
    let list = |value: &Value| value.as_array().unwrap().clone();
    for refused in list(&pipeline["before"]) {
        add(refused["reason"].as_str().unwrap().replace('_', ""), &refused["packets"]);
    }
    for profile in list(&pipeline["profiles"]) {
        add(format!("profile {}", profile["profile"].as_str().unwrap()), &profile["accept"]);
    }
    for tier in list(&pipeline["tiers"]) {
        let name = tier["tier"].as_str().unwrap();
        add(format!("no policy {name}"), &tier["no_policy"]);
        let mut refusals = 0;
        let mut decided = |label: &str, counts: &Value| {
            for (verdict, field) in [("Accept", "accept"), ("Deny", "deny"), ("Pass", "pass"), ("DenyOrPass", "deny_or_pass")] {
                add(format!("{verdict} {label}"), &counts[field]);
            }
            refusals += counts["deny"].as_u64().unwrap_or(0);
        };
        for target in list(&tier["targets"]) {
            if target["type"] == "policy" {
                decided(target["policy"].as_str().unwrap(), &target);
                continue;
            }
            let policies = list(&target["policies"]);
            let labels: Vec<&str> = policies.iter().map(|policy| policy["policy"].as_str().unwrap()).collect();
            policies.iter().for_each(|policy| decided(policy["policy"].as_str().unwrap(), policy));
            decided(&labels.join(","), &target["undivided"]);
        }
        add(format!("refused {name}"), &refusals.into());
    }
}

#[test]
fn the_api_answers_what_was_sent() {
    for capture in CAPTURES {
        for at in ["t1", "t2"].into_iter().filter(|at| *at == "t2" || !capture.contains("native")) {
            let inventory = Inventory::new();
            // Calico 3.29's own nftables tables shorten long names. Only the datastore knows them.
            let policies = captures::stored_policies(capture).into_iter().enumerate().map(|(i, policy)| (i.to_string(), policy));
            inventory.replace::<StoredPolicy>("", policies.collect::<Vec<_>>().try_into().unwrap()).unwrap();
            let scraper = scraper(vec![moment(capture, "t0"), moment(capture, at)], inventory);
            scraper.begin_counting();
            let (mut found, report) = (BTreeMap::new(), scraper.report());
            for endpoint in &report.workloads {
                let answer = serde_json::to_value(report.workload(&endpoint.workload.interface).unwrap()).unwrap();
                for pipeline in answer["directions"].as_array().unwrap() {
                    counts(&endpoint.workload.interface, pipeline, &mut found);
                }
            }
            for host in serde_json::to_value(report.host_endpoints()).unwrap()["host_endpoints"].as_array().unwrap() {
                for pipeline in host["directions"].as_array().unwrap() {
                    counts(host["interface"].as_str().unwrap(), pipeline, &mut found);
                }
            }
            captures::compare(&format!("{capture} {at}"), &found, &captures::ground_truth(capture, at, &Family::ALL));
            sums_agree(&report);
        }
    }
}

/// Reads within five seconds are merged, so the test waits longer.
#[test]
fn an_hour_of_drops_says_what_was_dropped_between_reads() {
    let scraper = scraper(vec![moment("v3.32.1-legacy", "t0"), moment("v3.32.1-legacy", "t2")], Inventory::new());
    let before = scraper.report().workloads().drops;
    assert_eq!(scraper.past().reads, []);
    std::thread::sleep(std::time::Duration::from_millis(5100));
    let (after, past) = (scraper.report().workloads().drops, scraper.past());
    assert_eq!(past.reads.len(), 1);
    assert!(after.len() > 3 && past.drops.len() == after.len(), "{past:?}");
    for drop in after {
        let same = |other: &Drop| Drop { packets: 0, ..other.clone() } == Drop { packets: 0, ..drop.clone() };
        let kept = past.drops.iter().find(|kept| same(&kept.drop)).unwrap();
        let more = drop.packets - before.iter().find(|drop| same(drop)).map_or(0, |drop| drop.packets);
        assert_eq!((kept.drop.packets, kept.counted.iter().map(|(_, packets)| packets).sum::<u64>()), (drop.packets, more), "{kept:?}");
    }
}

#[test]
fn while_the_kernel_is_away_the_last_counts_stay_and_the_reason_is_said() {
    let scraper = scraper(vec![moment("v3.32.1-legacy", "t2"), vec![]], Inventory::new());
    let good = scraper.report();
    assert!(good.status.up && good.status.problem.is_none() && good.status.time.is_some());
    // The kernel is read again for a request only after a second.
    assert!(Arc::ptr_eq(&good, &scraper.report()));
    std::thread::sleep(Duration::from_millis(1100));
    let bad = scraper.report();
    assert!(!bad.status.up && bad.status.problem.as_ref().unwrap().contains("/nowhere"), "{:?}", bad.status);
    assert_eq!((&bad.workloads, bad.status.time, bad.status.workloads), (&good.workloads, good.status.time, good.status.workloads));
}

/// Asserts that the lists agree with the pipelines.
fn sums_agree(report: &Report) {
    let answer = report.workloads();
    for workload in &answer.workloads {
        let dropped: u64 = [workload.ingress, workload.egress].iter().flatten().map(|sums| sums.dropped).sum();
        let listed: u64 = answer.drops.iter().filter(|drop| drop.interface == workload.interface).map(|drop| drop.packets).sum();
        assert_eq!(listed, dropped, "{}", workload.interface);
    }
    for policy in &report.policies {
        assert!(!policy.workloads.is_empty() || !policy.host_endpoints.is_empty(), "{policy:?} applies to nothing");
        assert_eq!(policy.hit, policy.rules.iter().any(|rule| rule.packets > 0));
        assert!(policy.since.is_some_and(|since| since <= report.status.time.unwrap()), "{policy:?}");
        let of_policy = serde_json::to_value(report.policy(&policy.policy).unwrap()).unwrap();
        let endpoints = of_policy["endpoints"].as_array().unwrap();
        let users: usize = policy.workloads.iter().map(|user| user.directions.len()).sum();
        assert_eq!(endpoints.iter().filter(|endpoint| endpoint["stage"].is_null()).count(), users, "{of_policy}");
        // For all endpoints together, no more than the policy's own rules counted.
        for (verdict, most) in [("accept", policy.accept), ("deny", policy.deny), ("pass", policy.pass)] {
            let sum: u64 = endpoints.iter().filter_map(|endpoint| endpoint[verdict].as_u64()).sum();
            assert!(sum <= most.unwrap_or(0), "{verdict} of {of_policy}");
        }
    }
}

/// The report of an exporter on a node with these tables.
pub fn of_capture(capture: &str) -> Arc<Report> {
    scraper(vec![moment(capture, "t2")], Inventory::new()).report()
}

/// Text that would do harm if it were interpreted.
pub const HOSTILE: [&str; 5] = [
    "<img src=x onerror=alert(1)>",
    "\"quotes' and \\backslashes\\",
    "line\nfeed\r\n",
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m",
    "\u{202e}gnp",
];

/// Serves an application with hostile names for a capture. Returns the port.
pub fn serve_hostile() -> u16 {
    let tables = moment("v3.32.1-legacy", "t2");
    let interfaces = ["cali148a39f1805", "cali43878a68a0a", "cali4f48742b541", "cali571d22ceb1d", "cali751425ce827"];
    let names = HOSTILE.into_iter().map(str::to_owned).chain(["x".repeat(10_000)]);
    let inventory = Inventory::new();
    let workload = |(interface, name): (&str, String)| {
        let interface = Interface::Name(interface.to_owned());
        (
            name.clone(),
            Workload { interface, namespace: name.clone(), pod: name.clone(), app: name.clone(), ip: name, ..Workload::default() },
        )
    };
    let workloads: Vec<_> = interfaces.into_iter().chain(["calib8419a605df"]).zip(names).map(workload).collect();
    inventory.replace::<Workload>("", workloads.try_into().unwrap()).unwrap();
    let listener = Listener::bind("127.0.0.1".parse().unwrap(), 0, Limits::default()).unwrap();
    let port = listener.address().unwrap().port();
    let app: Arc<dyn Application> = Arc::new(scraper(vec![tables], inventory));
    std::thread::spawn(move || listener.serve(app));
    port
}

#[test]
fn names_are_data_in_the_api() {
    let port = serve_hostile();
    let answer = http::get(port, "/api/v1/workloads").unwrap();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), (Some("no-store"), Some("nosniff")));
    assert!(!answer.text().chars().any(|c| c.is_ascii_control()), "control characters in JSON");
    let json: Value = serde_json::from_str(answer.text()).unwrap();
    let pods: Vec<&str> = json["workloads"].as_array().unwrap().iter().map(|workload| workload["pod"].as_str().unwrap()).collect();
    for name in HOSTILE {
        assert!(pods.contains(&name), "{name:?} in {pods:?}");
    }
    for (path, error) in [
        (
            "/api/v1/nothing",
            "not found; there are status, workloads, workloads/{interface}, drops, policies, policies/{policy}, host-endpoints, witnesses, flows and allow",
        ),
        ("/api/v1/workloads/%3Cimg%3E", "no workload has rules on interface \"<img>\""),
        ("/api/v1/policies/a%2Fb", "no policy here is called \"a/b\""),
        ("/api/v1/workloads/%", "this is not well encoded: \"%\""),
    ] {
        let answer = http::get(port, path).unwrap();
        let json: Value = serde_json::from_str(answer.text()).unwrap();
        assert_eq!((answer.status, json["error"].as_str()), (404, Some(error)), "{path}");
    }
}
