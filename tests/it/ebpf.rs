//! The eBPF dataplane: real maps in a bpffs, filled on several CPUs, and the files that Felix writes about its programs.

mod captures;
mod dashboards;
mod maps;
mod page;
mod reading;
mod rights;
mod told;

use std::fs;
use std::process::Command;

use crate::exposition::{complaints, has_promtool};
use crate::http;
use crate::program::{self, PATIENCE, Program};
use crate::support::bpf::{Map, PER_CPU_HASH, felix_folders, own_mounts};
use crate::support::documented;
use crate::support::dump::Writer;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::{Samples, one, scrape, with};
use crate::support::within;

const GLOBALS: &str = "/sys/fs/bpf/tc/globals";
const POLICY: &str = "/run/calico/bpf/policy";

const ACCEPT_WEB: u64 = 11;
const DENY_WEB: u64 = 12;
const ACCEPT_ALL: u64 = 13;
const END: u64 = 14;

/// Runs a test in its own network namespace with its own mounts.
fn on_a_node(test: &str, inside: impl FnOnce() + Send) {
    let Some(namespace) = Namespace::new(test) else { return };
    namespace.run(|| {
        own_mounts();
        fs::create_dir("/run/pods").unwrap();
        inside();
    });
}

fn rules() -> Map {
    Map::pin(&format!("{GLOBALS}/cali_rule_ctrs2"), PER_CPU_HASH, 1)
}

/// The key of an interface's counters. Hook 0 is what it sends, 1 what it receives.
fn counters_of(interface: &str, hook: u64) -> u64 {
    let number: u64 = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).unwrap().trim().parse().unwrap();
    number | hook << 32
}

/// Writes a workload's program for one direction, as Calico 3.30 and later dumps it.
fn dump(interface: &str, direction: &str, policies: &[(&str, &[(&str, u64)])]) {
    let mut writer = Writer::default().label("allowed_by_host_policy").comment("Start of tier default");
    for (policy, rules) in policies {
        writer = writer.comment(&format!("Start of policy {policy}"));
        for (action, id) in *rules {
            writer = writer.rule(&format!("action:\"{action}\""), *id);
        }
        writer = writer.comment(&format!("End of policy {policy}"));
    }
    let end = if direction.eq_ignore_ascii_case("ingress") { END } else { END + 100 };
    let file = writer.comment("End of tier default: deny").record(end).file(interface);
    fs::write(format!("{POLICY}/{interface}_{direction}_v4.json"), file).unwrap();
}

const WEB: (&str, &[(&str, u64)]) = ("shop/knp.default.web", &[("allow", ACCEPT_WEB), ("deny", DENY_WEB)]);
const ALL: (&str, &[(&str, u64)]) = ("default.all", &[("allow", ACCEPT_ALL)]);

fn link(interface: &str) {
    sh(&format!("ip link add {interface} type veth peer name {}", interface.replace("cali", "p")));
}

/// A workload's programs for both directions. The policies apply to ingress.
fn workload(interface: &str, policies: &[(&str, &[(&str, u64)])]) {
    link(interface);
    dump(interface, "ingress", policies);
    dump(interface, "egress", &[]);
}

fn command() -> Command {
    let mut command = program::command();
    command.env("SOURCE", "auto").env("DATASTORE_TYPE", "none").env_remove("ETCD_ENDPOINTS").env("POD_LOGS_DIR", "/run/pods");
    command
}

fn rule(samples: &Samples, policy: &str, place: &str) -> f64 {
    one(samples, "calico_accountant_policy_rule_packets_total", &[("policy", policy), ("rule", place), ("family", "any")])
}

fn of_workload(samples: &Samples, interface: &str, policy: &str) -> Option<f64> {
    let labels = [("interface", interface), ("direction", "ingress"), ("policy", policy), ("verdict", "accept")];
    with(samples, "calico_accountant_policy_packets_total", &labels).next().map(|(_, packets)| packets)
}

fn refused(samples: &Samples, interface: &str, reason: &str) -> f64 {
    let labels = [("interface", interface), ("direction", "ingress"), ("reason", reason)];
    one(samples, "calico_accountant_drop_packets_total", &labels)
}

fn unrecognised(samples: &Samples) -> f64 {
    one(samples, "calico_accountant_unrecognised_rules", &[])
}

fn unknown(samples: &Samples) -> f64 {
    one(samples, "calico_accountant_unknown_rule_packets_total", &[])
}

#[test]
fn counts_of_all_cpus_are_exact_and_monotone_while_entries_come_and_go() {
    on_a_node("counts_of_all_cpus_are_exact_and_monotone_while_entries_come_and_go", || {
        let map = rules();
        workload("cali1", &[WEB]);
        let program = Program::start(command());
        let port = program.port();
        // The entry disappears and comes back, counting from 0. Then it does so once more between two reads.
        for (counted, expected) in [
            (Some((1000, 7)), 1007.0),
            (Some((1500, 8)), 1508.0),
            (None, 1508.0),
            (Some((3, 4)), 1515.0),
            (Some((1, 0)), 1516.0),
            (Some((1, 5)), 1521.0),
        ] {
            match counted {
                Some((first, last)) => map.set(ACCEPT_WEB, &[first], &[last]),
                None => map.remove(ACCEPT_WEB),
            }
            let samples = scrape(port);
            assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0, "{:?}", program.log());
            assert_eq!(rule(&samples, "shop/knp.default.web", "0"), expected, "{counted:?}");
            let labels = [("policy", "shop/knp.default.web"), ("verdict", "accept"), ("direction", "ingress"), ("tier", "default")];
            assert_eq!(one(&samples, "calico_accountant_node_policy_packets_total", &labels), expected, "{counted:?}");
        }
        let text = http::get(port, "/metrics").unwrap();
        assert!(documented::declared(text.text()).is_superset(&documented::metrics(true)), "{}", text.text());
        let samples = scrape(port);
        let backend = [("backend", "ebpf"), ("family", "any"), ("source", "kernel")];
        assert_eq!(one(&samples, "calico_accountant_backend_info", &backend), 1.0);
        assert_eq!((unrecognised(&samples), unknown(&samples)), (0.0, 0.0));
        let info = [("policy", "shop/knp.default.web"), ("kind", "KubernetesNetworkPolicy"), ("policy_name", "web")];
        assert_eq!(one(&samples, "calico_accountant_policy_info", &info), 1.0);
        let info = [("interface", "cali1"), ("direction", "ingress"), ("policy", "shop/knp.default.web"), ("position", "0")];
        assert_eq!(one(&samples, "calico_accountant_workload_policy_info", &info), 1.0);
    });
}

#[test]
fn workloads_get_what_is_certainly_theirs() {
    on_a_node("workloads_get_what_is_certainly_theirs", || {
        let map = rules();
        let interfaces = Map::pin(&format!("{GLOBALS}/cali_counters6"), PER_CPU_HASH, 27);
        workload("cali1", &[WEB, ALL]);
        workload("cali2", &[ALL]);
        let count = |interface: &str, accepted: u64, refused: u64| {
            let (first, last) = ([0, 0, 2, 9, 1], [accepted + refused, 0, accepted.wrapping_sub(2), 0, refused.wrapping_sub(1)]);
            interfaces.set(counters_of(interface, 1), &first, &last);
        };
        count("cali1", 100, 50);
        count("cali2", 200, 60);
        map.set(ACCEPT_ALL, &[250], &[]);
        let program = Program::start(command());
        let port = program.port();
        let samples = scrape(port);
        assert_eq!((of_workload(&samples, "cali1", "default.all"), of_workload(&samples, "cali2", "default.all")), (Some(0.0), Some(0.0)));
        assert_eq!(rule(&samples, "default.all", "0"), 250.0);
        map.set(ACCEPT_WEB, &[4], &[3]);
        map.set(ACCEPT_ALL, &[250], &[9]);
        map.set(DENY_WEB, &[2], &[]);
        map.set(END, &[], &[6]);
        count("cali1", 112, 53);
        count("cali2", 204, 65);
        let samples = scrape(port);
        // Only cali1 has the first policy, so it gets 7. The second policy accepted the other 5, and all of cali2's.
        let of = |interface, policy| of_workload(&samples, interface, policy);
        assert_eq!(
            (of("cali1", "shop/knp.default.web"), of("cali1", "default.all"), of("cali2", "default.all")),
            (Some(7.0), Some(5.0), Some(4.0))
        );
        assert_eq!(of("cali1", "shop/knp.default.web,default.all"), None);
        assert_eq!((refused(&samples, "cali1", "no_policy"), refused(&samples, "cali1", "policy_or_none")), (1.0, 0.0));
        assert_eq!(refused(&samples, "cali2", "no_policy"), 5.0);
        let node = [("reason", "no_policy"), ("direction", "ingress"), ("tier", "default")];
        assert_eq!(one(&samples, "calico_accountant_node_drop_packets_total", &node), 6.0);
        let report = http::get(port, "/api/v1/workloads").unwrap();
        let report: serde_json::Value = serde_json::from_str(report.text()).unwrap();
        assert_eq!(report["workloads"].as_array().unwrap().len(), 2, "{report}");
        assert_eq!(report["workloads"][0]["ingress"]["accepted"], 12, "{report}");
        assert_eq!(report["workloads"][0]["ingress"]["dropped"], 3, "{report}");
        // A policy is added. The packets of the time between are credited to no workload; those that follow are.
        dump("cali2", "ingress", &[WEB, ALL]);
        map.set(ACCEPT_WEB, &[14], &[3]);
        count("cali2", 214, 65);
        let samples = scrape(port);
        assert_eq!(of_workload(&samples, "cali2", "shop/knp.default.web"), None);
        map.set(ACCEPT_WEB, &[15], &[3]);
        count("cali2", 215, 65);
        let samples = scrape(port);
        assert_eq!(of_workload(&samples, "cali2", "shop/knp.default.web"), Some(1.0));
        assert_eq!(rule(&samples, "shop/knp.default.web", "0"), 18.0);
        if has_promtool() {
            assert_eq!(complaints(http::get(port, "/metrics").unwrap().text()), Vec::<String>::new());
        }
    });
}

/// Scrapes twice. Both must fail, with this line once in the log.
fn refuses(test: &str, command: Command, line: &str) {
    let program = Program::start(command);
    let port = program.port();
    for _ in 0..2 {
        assert_eq!(one(&scrape(port), "calico_accountant_up", &[]), 0.0, "{test}");
    }
    let errors = || program.log().into_iter().filter(|line| line.contains("level=error")).collect::<Vec<_>>();
    within(PATIENCE, "an error is logged", || !errors().is_empty());
    assert!(errors().len() == 1 && errors()[0].contains(line), "{test}: {:?}", errors());
}

#[test]
fn maps_that_are_not_known_are_refused_with_one_clear_line() {
    on_a_node("maps_that_are_not_known_are_refused_with_one_clear_line", || {
        let ebpf = || {
            let mut command = command();
            command.env("BACKEND", "ebpf");
            command
        };
        refuses(
            "no map",
            ebpf(),
            "there is no map cali_rule_ctrs2 in /sys/fs/bpf/tc/globals: this needs Calico's eBPF dataplane, 3.25 or later",
        );
        let path = format!("{GLOBALS}/cali_rule_ctrs");
        let first = Map::pin(&path, PER_CPU_HASH, 2);
        refuses(
            "first version",
            command(),
            "the map /sys/fs/bpf/tc/globals/cali_rule_ctrs has an unknown version; known is cali_rule_ctrs2",
        );
        for (kind, key, value) in [(1, 8, 8), (PER_CPU_HASH, 4, 8), (PER_CPU_HASH, 8, 16), (PER_CPU_HASH, 8, 4)] {
            let map = Map::with(&format!("{path}2"), kind, key, value, 100);
            let line = format!("unknown layout: type {kind}, keys of {key} and values of {value} bytes");
            refuses("layout", command(), &line);
            drop(map);
            fs::remove_file(format!("{path}2")).unwrap();
        }
        // An older map may remain, and Felix keeps one while it replaces it.
        let (second, _old) = (rules(), Map::pin(&format!("{path}3_old"), PER_CPU_HASH, 1));
        second.set(ACCEPT_WEB, &[1], &[]);
        let program = Program::start(command());
        assert_eq!(unknown(&scrape(program.port())), 1.0);
        drop(first);
        let third = Map::pin(&format!("{path}3"), PER_CPU_HASH, 1);
        assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 0.0, "Calico was upgraded");
        refuses("third version", command(), "cali_rule_ctrs3 has an unknown version; known is cali_rule_ctrs2");
        drop(third);
    });
}

/// If the map of interface counters has an unknown format, only totals are missing.
#[test]
fn an_unknown_map_of_interface_counters_is_left_out() {
    on_a_node("an_unknown_map_of_interface_counters_is_left_out", || {
        let map = rules();
        workload("cali1", &[ALL]);
        workload("cali2", &[ALL]);
        for (version, counters) in [("7", 27), ("6", 3), ("", 27)] {
            let interfaces = Map::pin(&format!("{GLOBALS}/cali_counters{version}"), PER_CPU_HASH, counters);
            interfaces.set(counters_of("cali1", 1), &[5; 3], &[]);
            let program = Program::start(command());
            scrape(program.port());
            map.set(ACCEPT_ALL, &[3], &[version.len() as u64]);
            interfaces.set(counters_of("cali1", 1), &[9; 3], &[]);
            let samples = scrape(program.port());
            assert_eq!(of_workload(&samples, "cali1", "default.all"), None, "version {version:?}");
            assert!(rule(&samples, "default.all", "0") >= 3.0);
            let said = || program.log().iter().any(|line| line.contains("is not known: totals of workloads are left out"));
            within(PATIENCE, "it is said", said);
            map.remove(ACCEPT_ALL);
            fs::remove_file(format!("{GLOBALS}/cali_counters{version}")).unwrap();
        }
    });
}

#[test]
fn files_about_programs_in_both_cases_missing_truncated_and_stale() {
    on_a_node("files_about_programs_in_both_cases_missing_truncated_and_stale", || {
        let map = rules();
        map.set(ACCEPT_WEB, &[5], &[]);
        map.set(ACCEPT_ALL, &[7], &[]);
        fs::remove_dir(POLICY).unwrap();
        let program = Program::start(command());
        let port = program.port();
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), unknown(&samples)), (2.0, 12.0), "nothing says what they are");
        assert_eq!(with(&samples, "calico_accountant_policy_rule_packets_total", &[]).count(), 0);
        felix_folders();
        // As Calico 3.25 writes it.
        link("cali1");
        link("cali2");
        dump("cali1", "Ingress", &[WEB]);
        dump("cali1", "Egress", &[]);
        map.set(ACCEPT_WEB, &[6], &[]);
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), rule(&samples, "shop/knp.default.web", "0")), (1.0, 1.0));
        assert_eq!(unknown(&samples), 12.0);
        // The other workload comes. Its file is incomplete at first.
        dump("cali2", "ingress", &[ALL]);
        dump("cali2", "egress", &[]);
        let path = format!("{POLICY}/cali2_ingress_v4.json");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        map.set(ACCEPT_ALL, &[8], &[]);
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), unknown(&samples)), (2.0, 13.0), "the id, and the file");
        fs::write(&path, &whole).unwrap();
        map.set(ACCEPT_ALL, &[10], &[]);
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), unknown(&samples), rule(&samples, "default.all", "0")), (0.0, 13.0, 2.0));
        // The file is incomplete again. Its last content is known, but not to which workload packets belong.
        fs::write(&path, &whole[..1]).unwrap();
        map.set(ACCEPT_ALL, &[11], &[]);
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), rule(&samples, "default.all", "0")), (1.0, 3.0));
        assert_eq!(of_workload(&samples, "cali2", "default.all"), None);
        let applies = [("interface", "cali2"), ("policy", "default.all"), ("tier", "default")];
        assert_eq!(one(&samples, "calico_accountant_workload_policy_info", &applies), 1.0, "what it said");
        // The file is complete, and unchanged since the last read. Now packets can be credited.
        fs::write(&path, &whole).unwrap();
        scrape(port);
        map.set(ACCEPT_ALL, &[15], &[]);
        assert_eq!(of_workload(&scrape(port), "cali2", "default.all"), Some(4.0));
        // Its interface is removed, but its file remains, as with 3.25. The rule keeps its name, and the workload is gone.
        sh("ip link delete cali2");
        map.set(ACCEPT_ALL, &[16], &[]);
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), rule(&samples, "default.all", "0")), (0.0, 8.0));
        assert_eq!(of_workload(&samples, "cali2", "default.all"), None);
        // The file is older than the rules: what is new in the map is unknown.
        map.set(99, &[2], &[]);
        let samples = scrape(port);
        assert_eq!((unrecognised(&samples), unknown(&samples)), (1.0, 15.0));
    });
}

/// Chains of workloads have precedence, because the maps remain when Calico leaves this dataplane. When the chains are gone, the programs
/// are read.
#[test]
fn tables_with_chains_go_first_and_counting_begins_where_calico_moves() {
    on_a_node("tables_with_chains_go_first_and_counting_begins_where_calico_moves", || {
        let map = rules();
        workload("cali1", &[WEB]);
        map.set(ACCEPT_WEB, &[100], &[]);
        let chain = "*filter\n:cali-tw-cali1 - [0:0]\n-A cali-tw-cali1 -j DROP\nCOMMIT\n";
        feed("iptables-nft-restore", chain);
        let program = Program::start(command());
        let port = program.port();
        let backend = |samples: &Samples, name| with(samples, "calico_accountant_backend_info", &[("backend", name)]).count();
        let samples = scrape(port);
        assert_eq!((backend(&samples, "nft"), backend(&samples, "ebpf")), (1, 0), "{:?}", program.log());
        sh("iptables-nft -F cali-tw-cali1 && iptables-nft -X cali-tw-cali1");
        let samples = scrape(port);
        assert_eq!((backend(&samples, "nft"), backend(&samples, "ebpf")), (0, 1), "{:?}", program.log());
        assert_eq!(rule(&samples, "shop/knp.default.web", "0"), 0.0, "what was counted before is not the exporter's");
        map.set(ACCEPT_WEB, &[103], &[]);
        assert_eq!(rule(&scrape(port), "shop/knp.default.web", "0"), 3.0);
    });
}
