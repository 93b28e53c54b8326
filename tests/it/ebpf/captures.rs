//! Captured maps of nodes with real Felix builds and known traffic, read by the exporter as it runs on a node: no count is too high, every
//! sum is right, and a series that is 0 counted nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::support::fixture;
use crate::support::scrape::labels;

/// A capture, loaded into the kernel.
struct Capture {
    name: &'static str,
    moments: Vec<Value>,
    rules: Map,
    /// One map for each pinned version of the map of interfaces.
    interfaces: Vec<Map>,
}

fn json(path: &str) -> Value {
    serde_json::from_str(&fixture::text(&format!("captures-ebpf/{path}.json.gz"))).unwrap()
}

impl Capture {
    fn new(name: &'static str) -> Self {
        let moments: Vec<Value> = json(&format!("{name}/maps")).as_array().unwrap().clone();
        for (interface, number) in moments[0]["ifindex"].as_object().unwrap().iter().filter(|(interface, _)| *interface != "lo") {
            sh(&format!("ip link add {interface} index {number} type veth peer name p{number} index 10{number}"));
        }
        for (file, content) in json(&format!("{name}/policy")).as_object().unwrap() {
            fs::write(format!("{POLICY}/{file}"), content.as_str().unwrap()).unwrap();
        }
        let pin = |map: &Value| {
            let number = |field| u32::try_from(map[field].as_u64().unwrap()).unwrap();
            let path = format!("{GLOBALS}/{}", map["pin"].as_str().unwrap());
            Map::with(&path, PER_CPU_HASH, number("key"), number("value"), number("max_entries"))
        };
        let rules = pin(&moments[0]["rule_counters"]);
        let interfaces = versions(&moments[0]).iter().map(pin).collect();
        let capture = Capture { name, moments, rules, interfaces };
        capture.at(0);
        capture
    }

    /// Sets the maps to their content at a moment.
    fn at(&self, moment: usize) {
        let moment = &self.moments[moment];
        set(&self.rules, &moment["rule_counters"]);
        self.interfaces.iter().zip(versions(moment)).for_each(|(map, captured)| set(map, captured));
    }

    fn truth(&self) -> Vec<Value> {
        json(&format!("{}/truth", self.name)).as_array().unwrap().clone()
    }
}

fn versions(moment: &Value) -> &[Value] {
    let maps = &moment["interface_counters"];
    maps.as_array().map_or(std::slice::from_ref(maps), Vec::as_slice)
}

/// Parses hexadecimal digits as 64-bit numbers in the kernel's byte order (little-endian).
fn numbers(hexadecimal: &str) -> Vec<u64> {
    let digit = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = hexadecimal.as_bytes().chunks(2).map(digit).collect();
    bytes.chunks(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect()
}

fn set(map: &Map, captured: &Value) {
    for (key, cpus) in captured["entries"].as_object().unwrap() {
        let cpus: Vec<Vec<u64>> = cpus.as_array().unwrap().iter().map(|cpu| numbers(cpu.as_str().unwrap())).collect();
        assert_eq!(cpus.len(), 2);
        map.set(numbers(key)[0], &cpus[0], &cpus[1]);
    }
}

/// Packets by labels. The last label is the decision.
type Cells = BTreeMap<Vec<String>, f64>;

/// A list of the ground truth. Its first field, the name of a workload, is replaced by its interface.
fn truth(truth: &Value, list: &str) -> Cells {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut cells = Cells::new();
    for line in truth[list].as_array().unwrap() {
        let (packets, fields) = line.as_array().unwrap().split_last().unwrap();
        let mut fields: Vec<String> = fields.iter().map(text).collect();
        if let Some(interface) = truth["interfaces"][&fields[0]].as_str() {
            fields[0] = interface.to_owned();
        }
        cells.insert(fields, packets.as_f64().unwrap());
    }
    cells
}

/// The samples of a metric, by these labels.
fn cells(samples: &Samples, metric: &str, names: &[&str]) -> Cells {
    let metric = format!("calico_accountant_{metric}");
    with(samples, &metric, &[])
        .map(|(series, packets)| (names.iter().map(|name| labels(series)[name].to_owned()).collect(), packets))
        .collect()
}

/// How many of the `of` cells with packets are shown exactly.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    exact: usize,
    of: usize,
}

/// Asserts that no cell is too high, and that no cell is 0 that counted packets.
fn compare(shown: &Cells, truth: &Cells, what: &str) -> Found {
    for (cell, packets) in shown {
        let most = truth.get(cell).copied().unwrap_or(0.0);
        assert!(*packets <= most && (*packets > 0.0 || most == 0.0), "{what}: {cell:?} is {packets}, and was {most}");
    }
    let exact = truth.iter().filter(|(cell, packets)| shown.get(*cell) == Some(packets)).count();
    Found { exact, of: truth.len() }
}

fn counted(cells: Cells) -> Cells {
    cells.into_iter().filter(|(_, packets)| *packets > 0.0).collect()
}

fn of_workloads(cells: Cells) -> Cells {
    cells.into_iter().filter(|(cell, _)| !cell[0].starts_with("hep:")).collect()
}

/// Adds cells to sums by interface and direction, which are their first two labels.
fn sums(cells: &Cells, to: &mut BTreeMap<(String, String), f64>) {
    cells.iter().for_each(|(cell, packets)| *to.entry((cell[0].clone(), cell[1].clone())).or_default() += packets);
}

const WORKLOAD: [&str; 2] = ["interface", "direction"];

/// Compares all that is shown with the ground truth. Returns what was found of policies, and of packets denied by the policies of a tier.
fn check(before: &Samples, samples: &Samples, happened: &Value) -> [Found; 2] {
    let with_base = |more: &[&'static str]| [&WORKLOAD, more].concat();
    assert_eq!((unrecognised(samples), unknown(samples)), (0.0, 0.0));
    // Counts for the node are exact. Only what XDP programs do is not counted.
    let untracked = |cells: Cells| -> Cells { cells.into_iter().filter(|(cell, _)| cell[0] != "default.hep-untracked").collect() };
    // They start with what the kernel had counted.
    let since = |metric, names: &[&str]| -> Cells {
        let before = cells(before, metric, names);
        let now = cells(samples, metric, names).into_iter();
        now.map(|(cell, packets)| (cell.clone(), packets - before.get(&cell).unwrap_or(&0.0)))
            .filter(|(_, packets)| *packets > 0.0)
            .collect()
    };
    let rules = since("policy_rule_packets_total", &["policy", "direction", "rule", "action"]);
    let happened_rules = untracked(truth(happened, "rules"));
    assert_eq!(rules, happened_rules);
    assert!(!samples.keys().any(|series| series.contains("_packets_total") && series.contains("hep-untracked")));
    let node = since("node_policy_packets_total", &["policy", "tier", "direction", "verdict"]);
    let ends = since("node_drop_packets_total", &["tier", "direction", "reason"]);
    let ends = ends.into_iter().map(|(cell, packets)| ([vec![String::new()], cell].concat(), packets));
    let node: Cells = node.into_iter().chain(ends).collect();
    let found = compare(&node, &untracked(truth(happened, "node")), "node");
    assert!(found.exact == node.len(), "{found:?}");

    // For workloads, only what is certain is counted.
    let policies = cells(samples, "policy_packets_total", &with_base(&["policy", "verdict"]));
    let (joined, policies): (Cells, Cells) = policies.into_iter().partition(|(cell, _)| cell[2].contains(','));
    let profiles = cells(samples, "profile_packets_total", &with_base(&["profile"]));
    let drops: Cells = with(samples, "calico_accountant_drop_packets_total", &[])
        .map(|(series, packets)| {
            let labels = labels(series);
            let fields = [labels["interface"], labels["direction"], labels["reason"], labels.get("tier").unwrap_or(&"")];
            (fields.map(str::to_owned).to_vec(), packets)
        })
        .collect();
    let (by_policy, drops): (Cells, Cells) = drops.into_iter().partition(|(cell, _)| cell[2] == "policy");
    let (either, drops): (Cells, Cells) = drops.into_iter().partition(|(cell, _)| cell[2] == "policy_or_none");
    let happened_policies = of_workloads(truth(happened, "cells"));
    let found = compare(&policies, &happened_policies, "policies");
    let named = |cell: &Vec<String>| !cell[2].is_empty();
    let (profiles_named, nameless): (Cells, Cells) = profiles.clone().into_iter().partition(|(cell, _)| named(cell));
    compare(&profiles_named, &of_workloads(truth(happened, "profiles")), "profiles");
    compare(&drops, &of_workloads(truth(happened, "drops")), "drops");
    // Each policy of the captures is in one tier.
    let tiers: BTreeMap<String, String> =
        truth(happened, "node").keys().filter(|cell| !cell[0].is_empty()).map(|cell| (cell[0].clone(), cell[1].clone())).collect();
    let mut denied = Cells::new();
    for (cell, packets) in happened_policies.iter().filter(|(cell, _)| cell[3] == "deny") {
        let tier = tiers[&cell[2]].clone();
        *denied.entry(vec![cell[0].clone(), cell[1].clone(), "policy".into(), tier]).or_default() += packets;
    }
    let found_denied = compare(&by_policy, &denied, "refused by policies");

    let of = |verdict: &str, cells: &Cells| -> Cells { cells.clone().into_iter().filter(|(cell, _)| cell[3] == verdict).collect() };
    for (accepted, list) in [(true, "accepted"), (false, "refused")] {
        let mut shown = BTreeMap::new();
        match accepted {
            true => [of("accept", &policies), of("accept", &joined), profiles_named.clone(), nameless.clone()]
                .iter()
                .for_each(|c| sums(c, &mut shown)),
            false => [by_policy.clone(), drops.clone(), either.clone()].iter().for_each(|c| sums(c, &mut shown)),
        }
        let mut happened_sums = BTreeMap::new();
        sums(&of_workloads(truth(happened, list)), &mut happened_sums);
        shown.retain(|_, packets| *packets > 0.0);
        assert_eq!(shown, happened_sums, "{list}");
    }
    let workloads: BTreeSet<&str> = happened["interfaces"].as_object().unwrap().values().map(|name| name.as_str().unwrap()).collect();
    let all = [&policies, &profiles, &drops, &either].into_iter().flat_map(|cells| cells.keys().map(|cell| cell[0].as_str()));
    assert_eq!(all.collect::<BTreeSet<_>>(), workloads);
    [found, found_denied]
}

/// Runs through a capture. Returns what was found at its end.
fn run(name: &'static str) -> Option<[Found; 2]> {
    let mut found = None;
    on_a_node(name, || {
        let capture = Capture::new(name);
        let program = Program::start(command());
        let before = scrape(program.port());
        for (moment, happened) in capture.truth().iter().enumerate() {
            capture.at(moment + 1);
            let samples = scrape(program.port());
            found = Some(check(&before, &samples, happened));
        }
    });
    found
}

/// Asserts that at least `cells` cells are exact, and `tiers` sums of what the policies of a tier denied.
fn finds(name: &'static str, cells: usize, tiers: usize) {
    let Some([found, denied]) = run(name) else { return };
    assert!(found.exact >= cells && denied.exact >= tiers, "{found:?} {denied:?}");
}

#[test]
fn calico_3_32_with_a_host_endpoint_staged_policies_and_an_untracked_one() {
    finds("v3.32.1", 23, 5);
}

#[test]
fn calico_3_29() {
    finds("v3.29.7", 23, 5);
}

/// After a rollback, two versions of the map of interface counters are pinned. The older one counts. Files about IPv6 are left over.
#[test]
fn calico_3_29_that_was_3_32_before() {
    finds("rollback-v3.32.1-to-v3.29.7", 23, 5);
}

/// The policy is in the programs of all interfaces of the host, which belong to no workload.
#[test]
fn a_host_endpoint_of_all_interfaces() {
    let name = "v3.32.1-hostendpoint-star";
    on_a_node(name, || {
        let capture = Capture::new(name);
        let program = Program::start(command());
        scrape(program.port());
        capture.at(1);
        let samples = scrape(program.port());
        // The entry of a deleted policy's rule is still in the map.
        assert_eq!((unrecognised(&samples), unknown(&samples)), (1.0, 28.0));
        // Between the two moments there were exactly nine flows.
        let names = [&WORKLOAD[..], &["policy", "verdict"]].concat();
        let policies: Cells = counted(cells(&samples, "policy_packets_total", &names));
        let expected = [
            ("cali4f48742b541", "egress", "platform.guard", "accept", 5.0),
            ("cali751425ce827", "egress", "shop/default.web-allow", "accept", 6.0),
            ("cali43878a68a0a", "ingress", "shop/default.db-policy", "accept", 6.0),
            ("cali751425ce827", "ingress", "shop/default.web-allow", "accept", 3.0),
            ("cali751425ce827", "ingress", "shop/default.web-allow", "deny", 2.0),
            ("cali751425ce827", "ingress", "shop/default.web-deny", "deny", 4.0),
        ];
        let expected = expected.map(|(a, b, c, d, packets)| ([a, b, c, d].map(str::to_owned).to_vec(), packets));
        assert_eq!(policies, Cells::from(expected));
        let profiles = counted(cells(&samples, "profile_packets_total", &[&WORKLOAD[..], &["profile"]].concat()));
        assert_eq!(profiles, Cells::from([(["calied49c38c025", "egress", "kns.infra"].map(str::to_owned).to_vec(), 6.0)]));
        let drops = counted(cells(&samples, "drop_packets_total", &[&WORKLOAD[..], &["reason"]].concat()));
        let expected = [("cali751425ce827", "policy", 6.0), ("calic3c0b23f676", "no_profile", 3.0)];
        let expected = expected.map(|(interface, reason, packets)| ([interface, "ingress", reason].map(str::to_owned).to_vec(), packets));
        assert_eq!(drops, Cells::from(expected));
        // The host's own interfaces and this policy belong to no workload.
        let hosts = ["lo", "eth0", "eth1", "bpfout.cali"].map(|interface| format!("interface=\"{interface}\""));
        let of_workloads = |series: &&String| series.contains("interface=");
        let wrong = samples
            .keys()
            .filter(of_workloads)
            .find(|series| series.contains("default.wild") || hosts.iter().any(|host| series.contains(host)));
        assert_eq!(wrong, None);
        assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "unknown")]), 9.0);
    });
}
