//! `check` on real tables: its result, its exit code, and what it says about hooks and names.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::captures::CAPTURED_PODS;
use crate::kernel::{filter_table, load};
use crate::program::command;
use crate::support::etcd::{Etcd, Scratch};
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::within;

/// The parsed answer of `check --json`, and the exit code. With and without `--json` it must be the same.
#[track_caller]
fn check(program: impl Fn() -> Command) -> (Value, i32) {
    let run = |args: &[&str]| program().args(args).stdin(Stdio::null()).output().unwrap();
    let (text, json) = (run(&["check"]), run(&["check", "--json"]));
    assert_eq!(text.status, json.status, "{text:?}");
    let answer: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:?}"));
    for finding in answer["findings"].as_array().unwrap() {
        let line = format!("{}: {}", finding["subject"].as_str().unwrap(), finding["text"].as_str().unwrap());
        // The time that was waited for a lock differs.
        let start = line.split(" was taken").next().unwrap();
        assert!(String::from_utf8_lossy(&text.stdout).contains(start), "{line} in {}", String::from_utf8_lossy(&text.stdout));
    }
    (answer, json.status.code().unwrap())
}

/// The findings about a subject, as levels and texts.
fn about<'a>(answer: &'a Value, subject: &str) -> Vec<(&'a str, &'a str)> {
    let findings = answer["findings"].as_array().unwrap().iter().filter(|finding| finding["subject"] == subject);
    findings.map(|finding| (finding["level"].as_str().unwrap(), finding["text"].as_str().unwrap())).collect()
}

/// Makes the folders that the kubelet makes for the captured pods.
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

/// Uses real keys, and a real server for keys that are not the client's.
#[test]
fn keys_of_unsupported_kinds_are_named_with_those_that_are_supported() {
    const SUPPORTED: &str = "supported are RSA keys of 2048 to 8192 bits, ECDSA keys of the curves P-256 and P-384, and Ed25519 keys";
    let scratch = Scratch::new();
    let folder = scratch.path().display().to_string();
    let port = crate::support::etcd::free_port();
    // NAME.key is of the unsupported kind, and NAME.pem is its certificate, signed by a good CA. by-NAME.pem has a good key, and is signed
    // with NAME.key.
    let sign = |name: &str, request: &str, ca: &str, ca_key: &str| {
        format!("openssl x509 -req -in {request} -CA {ca} -CAkey {ca_key} -CAcreateserial -days 2 -copy_extensions copy -out {name}.pem")
    };
    let request = "-nodes -subj /CN=a -addext subjectAltName=IP:127.0.0.1";
    let good = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    sh(&format!("cd {folder}; exec 2>&1; openssl req -x509 {good} -nodes -subj /CN=ca -days 2 -keyout ca.key -out ca.pem"));
    for (name, kind) in [("P-521", "ec -pkeyopt ec_paramgen_curve:P-521"), ("RSA-1024", "rsa:1024")] {
        sh(&format!(
            "cd {folder}; exec 2>&1; openssl req -new -newkey {kind} {request} -keyout {name}.key -out {name}.csr; {}",
            sign(name, &format!("{name}.csr"), "ca.pem", "ca.key")
        ));
        sh(&format!(
            "cd {folder}; exec 2>&1; openssl req -x509 -key {name}.key -subj /CN=other -days 2 -out {name}-ca.pem; openssl req -new {good} {request} -keyout by-{name}.key -out by.csr; {}",
            sign(&format!("by-{name}"), "by.csr", &format!("{name}-ca.pem"), &format!("{name}.key"))
        ));
    }
    let datastore = |ca: &str, client: Option<&str>| {
        let mut program = command();
        program
            .args(["check", "--json"])
            .current_dir(&folder)
            .env("ETCD_ENDPOINTS", format!("https://127.0.0.1:{port}"))
            .env("ETCD_CA_CERT_FILE", ca);
        if let Some(name) = client {
            program.env("ETCD_CERT_FILE", format!("{name}.pem")).env("ETCD_KEY_FILE", format!("{name}.key"));
        }
        let answer: Value = serde_json::from_slice(&program.output().unwrap().stdout).unwrap();
        about(&answer, "datastore")[0].1.to_owned()
    };
    for name in ["P-521", "RSA-1024"] {
        assert_eq!(datastore("ca.pem", Some(name)), format!("ETCD_KEY_FILE: {name}.key: a key of this kind cannot be used: {SUPPORTED}"));
    }
    for (server, ca, expected) in [
        ("P-521", "ca.pem", "it has no key or cipher that we can use, too: "),
        ("by-P-521", "P-521-ca.pem", "its certificate was issued with a key of a kind that cannot be checked: "),
        ("by-RSA-1024", "RSA-1024-ca.pem", "or with a key of a kind that cannot be checked: "),
    ] {
        let mut program = Command::new("openssl");
        program.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]).current_dir(&folder);
        program.args(["-cert", &format!("{server}.pem"), "-key", &format!("{server}.key")]).stderr(Stdio::null()).stdout(Stdio::null());
        let mut program = program.spawn().unwrap();
        within(std::time::Duration::from_secs(10), "the server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let found = datastore(ca, None);
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(
            found.contains(expected) && found.ends_with(SUPPORTED) || found.contains(&format!("{expected}{SUPPORTED}")),
            "{server}: {found}"
        );
    }
}
