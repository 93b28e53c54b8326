//! `check` on real tables: its result, its exit code, and what it says of hooks and of names.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::captures::CAPTURED_PODS;
use crate::kernel::{filter_table, load};
use crate::program::command;
use crate::support::etcd::{Etcd, Scratch};
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};

/// The parsed answer of `check --json`, and the exit code of both forms, which must be the same.
#[track_caller]
fn check(program: impl Fn() -> Command) -> (Value, i32) {
    let run = |args: &[&str]| program().args(args).stdin(Stdio::null()).output().unwrap();
    let (text, json) = (run(&["check"]), run(&["check", "--json"]));
    assert_eq!(text.status, json.status, "{text:?}");
    let answer: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:?}"));
    for finding in answer["findings"].as_array().unwrap() {
        let line = format!("{}: {}", finding["subject"].as_str().unwrap(), finding["text"].as_str().unwrap());
        // How long a lock was waited for differs.
        let start = line.split(" was taken").next().unwrap();
        assert!(String::from_utf8_lossy(&text.stdout).contains(start), "{line} in {}", String::from_utf8_lossy(&text.stdout));
    }
    (answer, json.status.code().unwrap())
}

/// The findings about something, each as its level and text.
fn about<'a>(answer: &'a Value, subject: &str) -> Vec<(&'a str, &'a str)> {
    let findings = answer["findings"].as_array().unwrap().iter().filter(|finding| finding["subject"] == subject);
    findings.map(|finding| (finding["level"].as_str().unwrap(), finding["text"].as_str().unwrap())).collect()
}

/// Folders as the kubelet makes them for the captured pods.
fn pod_logs(folder: &Path, pods: &[(&str, &str)]) {
    pods.iter().for_each(|(namespace, pod)| std::fs::create_dir_all(folder.join(format!("{namespace}_{pod}_uid"))).unwrap());
}

fn without_datastore(scratch: &Scratch) -> Command {
    let (lock, pods) = (scratch.path().join("lock"), scratch.path().join("pods"));
    std::fs::write(&lock, "").unwrap();
    pod_logs(&pods, &CAPTURED_PODS);
    let mut program = command();
    program.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", lock);
    program.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", pods);
    program
}

#[test]
fn without_a_jump_to_calicos_chains_something_is_wrong() {
    let flushes = |backend: &str, chain: &str| match backend {
        "nftables" => format!("nft flush chain ip calico filter-{chain}"),
        _ => format!("iptables-{backend} -F {chain}"),
    };
    for backend in ["legacy", "nft", "nftables"] {
        let Some(namespace) = Namespace::new("check without hooks") else { return };
        let scratch = Scratch::new();
        namespace.run(|| {
            match backend {
                "nftables" => feed("nft -f -", &fixture::text("captures/v3.32.1-native/t2/nft-ip.txt.gz")),
                _ => load(backend, &filter_table(&format!("v3.32.1-{backend}"))),
            }
            let (answer, code) = check(|| without_datastore(&scratch));
            assert_eq!((&answer["result"], code), (&"ok".into(), 0), "{backend}: {answer:#}");
            assert_eq!(about(&answer, "hooks")[0].0, "ok", "{backend}: {answer:#}");
            let mut missing = String::new();
            for chain in ["FORWARD", "INPUT", "OUTPUT"] {
                sh(&flushes(backend, chain));
                missing = if missing.is_empty() { chain.to_owned() } else { format!("{missing}, {chain}") };
                let (answer, code) = check(|| without_datastore(&scratch));
                let hooks = about(&answer, "hooks");
                assert_eq!((&answer["result"], code, hooks[0].0), (&"wrong".into(), 1, "wrong"), "{backend} {chain}: {answer:#}");
                assert!(hooks[0].1.starts_with(&format!("no rule of {missing} leads to Calico's chains (ipv4)")), "{backend}: {hooks:?}");
            }
        });
    }
}

#[test]
fn names_are_looked_for_where_the_settings_say() {
    let Some(namespace) = Namespace::new("check and names") else { return };
    let scratch = Scratch::new();
    namespace.run(|| {
        load("legacy", &filter_table("v3.32.1-legacy"));
        let Some(etcd) = Etcd::plain() else { return };
        let stored = |pod: &str| {
            let key = format!("/calico/resources/v3/projectcalico.org/workloadendpoints/shop/node--1-k8s-{}-eth0", pod.replace('-', "--"));
            let hash = calico_accountant::datastore::inventory::Interface::suffix_of("shop", pod);
            let spec = serde_json::json!({"node": "node-1", "pod": pod, "orchestrator": "k8s", "interfaceName": format!("cali{hash}")});
            etcd.put(&(key, serde_json::json!({"metadata": {"namespace": "shop"}, "spec": spec}).to_string()));
        };
        stored("web-1");
        let with = |pod_logs: &Path| {
            let mut program = without_datastore(&scratch);
            program.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url()).env("POD_LOGS_DIR", pod_logs);
            program
        };
        let (answer, code) = check(|| with(&scratch.path().join("pods")));
        assert_eq!((&answer["result"], code), (&"ok".into(), 0), "{answer:#}");
        assert_eq!(about(&answer, "workloads"), [("ok", "all 9 that have rules are known by name, 8 by the node's own files")]);

        let (answer, code) = check(|| with(Path::new("/nonexistent")));
        assert_eq!((&answer["result"], code), (&"warn".into(), 0), "{answer:#}");
        assert_eq!(about(&answer, "pod logs")[0].0, "warn", "{answer:#}");
        assert!(about(&answer, "pod logs")[0].1.contains("/nonexistent"), "{answer:#}");
        let nameless = "9 have rules: the datastore names 1 of them, the node's own files name 0, and 8 have no name";
        assert_eq!(about(&answer, "workloads"), [("warn", nameless)]);

        stored("nobody");
        let (answer, code) = check(|| with(&scratch.path().join("pods")));
        assert_eq!((&answer["result"], code), (&"warn".into(), 0), "{answer:#}");
        assert!(about(&answer, "workloads").contains(&("warn", "1 that the datastore knows have no rules here")), "{answer:#}");
        drop(etcd);
        let mut none = without_datastore(&scratch);
        none.env("POD_LOGS_DIR", "/nonexistent");
        assert_eq!(none.arg("check").output().unwrap().status.code(), Some(1), "nothing else names pods without a datastore");
    });
}
