//! Felix moves to another back end and leaves its old rules, which continue to count.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{BACKENDS, Lock, WEB_1, WEB_2, alone, backend, logged, run, send, write};
use crate::program::Program;
use crate::support::etcd::Etcd;
use crate::support::netns::{Namespace, sh};
use crate::support::scrape::{Samples, one, scrape, with};
use crate::support::within;

/// Every move from one back end to another.
fn moves() -> impl Iterator<Item = (&'static str, &'static str)> {
    BACKENDS.into_iter().flat_map(|from| BACKENDS.into_iter().map(move |to| (from, to))).filter(|(from, to)| from != to)
}

/// Stores a workload endpoint of `node-1`.
fn store(etcd: &Etcd, pod: &str, interface: &str) {
    let name = format!("node--1-k8s-{pod}-eth0");
    let spec = json!({"orchestrator": "k8s", "node": "node-1", "pod": pod, "interfaceName": interface});
    let endpoint = json!({"kind": "WorkloadEndpoint", "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    etcd.put(&(format!("/calico/resources/v3/projectcalico.org/workloadendpoints/shop/{name}"), endpoint.to_string()));
}

fn reads(samples: &Samples, expected: &str) -> bool {
    let found = backend(samples);
    !found.is_empty() && found.iter().all(|backend| *backend == expected)
}

/// The move is noticed within seconds, because the datastore knows a workload that the old rules do not have. Packets pass through both
/// tables all the time.
#[test]
fn a_workload_that_the_table_lacks_is_looked_for_elsewhere() {
    for (from, to) in moves() {
        let Some(namespace) = Namespace::new("a move that leaves rules") else { return };
        let lock = Lock::new();
        namespace.run(|| {
            let Some(etcd) = Etcd::plain() else { return };
            store(&etcd, "web1", WEB_1);
            write(from, &[WEB_1], true);
            let mut command = alone(&lock.path());
            command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url());
            let program = Program::start(command);
            within(Duration::from_secs(10), "the first workload is known", || {
                with(&scrape(program.port()), "calico_accountant_workload_info", &[("pod", "web1")]).count() == 1
            });
            assert!(reads(&scrape(program.port()), from), "{from} → {to}");
            write(to, &[WEB_1, WEB_2], true);
            store(&etcd, "web2", WEB_2);
            within(Duration::from_secs(10), &format!("{from} → {to}"), || {
                send();
                reads(&scrape(program.port()), to)
            });
            for _ in 0..3 {
                send();
                let samples = scrape(program.port());
                assert!(reads(&samples, to), "{from} → {to}: {:#?}", program.log());
                let labels = [("backend", from), ("evidence", "workloads")];
                assert_eq!(one(&samples, "calico_accountant_other_backend_info", &labels), 1.0);
                assert_eq!(with(&samples, "calico_accountant_workload_info", &[("interface", WEB_2)]).count(), 1);
            }
            assert_eq!(logged(&program, &["both the", from, to]), 1, "{:#?}", program.log());
        });
    }
}

/// The same without a datastore. The node has an interface and a route.
#[test]
fn a_route_that_the_table_lacks_is_looked_for_elsewhere() {
    let Some(namespace) = Namespace::new("a route without rules") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        write("legacy", &[WEB_1], true);
        let program = Program::start(alone(&lock.path()));
        assert!(reads(&scrape(program.port()), "legacy"));
        write("nft", &[WEB_1, WEB_2], true);
        send();
        assert!(reads(&scrape(program.port()), "legacy"), "nothing tells yet");
        sh(&format!("ip link add {WEB_2} type veth peer name peer && ip link set {WEB_2} up && ip route add 10.65.0.2/32 dev {WEB_2}"));
        send();
        assert!(reads(&scrape(program.port()), "nft"), "{:#?}", program.log());
    });
}

/// Nothing is missing, and packets pass through both. The next search for other tables shows that Felix has written the others recently.
#[test]
fn rules_that_appear_elsewhere_are_found_within_a_minute() {
    let Some(namespace) = Namespace::new("rules elsewhere") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        write("legacy", &[WEB_1], true);
        let program = Program::start(alone(&lock.path()));
        assert!(reads(&scrape(program.port()), "legacy"));
        write("nft", &[WEB_1], true);
        let begun = Instant::now();
        while !reads(&scrape(program.port()), "nft") {
            assert!(begun.elapsed() < Duration::from_secs(75), "{:#?}", program.log());
            send();
            thread::sleep(Duration::from_millis(500));
        }
        let labels = [("backend", "legacy"), ("evidence", "written")];
        assert_eq!(one(&scrape(program.port()), "calico_accountant_other_backend_info", &labels), 1.0);
    });
}

/// At the start, the kernel's own chains lead only into the live rules.
#[test]
fn rules_without_hooks_are_not_live() {
    for (live, stale) in moves() {
        let Some(namespace) = Namespace::new("hooks") else { return };
        let lock = Lock::new();
        namespace.run(|| {
            write(stale, &[WEB_1], false);
            write(live, &[WEB_1], true);
            let program = Program::start(alone(&lock.path()));
            let samples = scrape(program.port());
            assert!(reads(&samples, live), "{live}, not {stale}: {:#?}", program.log());
            assert_eq!(one(&samples, "calico_accountant_other_backend_info", &[("backend", stale), ("evidence", "hooks")]), 1.0);
            let (code, said) = run(alone(&lock.path()), &["check"]);
            assert!(code == Some(0) && said.contains("warn  rules: both the"), "{said}");
        });
    }
}

/// Nothing distinguishes the two. The message names both, and the setting that decides.
#[test]
fn a_doubt_is_said() {
    let Some(namespace) = Namespace::new("a doubt") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        ["legacy", "nft"].into_iter().for_each(|backend| write(backend, &[WEB_1], true));
        let program = Program::start(alone(&lock.path()));
        for _ in 0..3 {
            send();
            let samples = scrape(program.port());
            assert!(reads(&samples, "nft"));
            assert_eq!(one(&samples, "calico_accountant_other_backend_info", &[("backend", "legacy"), ("evidence", "none")]), 1.0);
        }
        assert_eq!(logged(&program, &["it is unknown which", "BACKEND=nft", "BACKEND=legacy"]), 1, "{:#?}", program.log());
        let (code, said) = run(alone(&lock.path()), &["check"]);
        assert!(code == Some(1) && said.contains("WRONG rules: both the nft and the legacy dataplane"), "{said}");
        let mut settled = alone(&lock.path());
        settled.env("BACKEND", "legacy");
        let program = Program::start(settled);
        let samples = scrape(program.port());
        assert!(reads(&samples, "legacy") && with(&samples, "calico_accountant_other_backend_info", &[]).count() == 0);
    });
}
