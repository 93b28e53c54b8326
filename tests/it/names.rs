//! Names from the folders of pods' logs, without a datastore and while it is unavailable.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::captures::CAPTURED_PODS;
use crate::http;
use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::fakes::Fakes;
use crate::support::fixture;
use crate::support::netns::{Namespace, sh};
use crate::support::scrape::{Samples, one, scrape, with};

/// The capture of the tables.
const CAPTURE: &str = "captures/v3.28.5-legacy/t2";

/// Fake programs that print the capture, and a folder for the pods' folders.
struct Node {
    fakes: Fakes,
    scratch: Scratch,
}

impl Node {
    fn new() -> Self {
        let table = |family: &str| fixture::text(&format!("{CAPTURE}/{family}-save.txt.gz"));
        let (fakes, scratch) = (Fakes::tables(&table("iptables"), &table("ip6tables")), Scratch::new());
        Node { fakes, scratch }
    }

    fn pod_logs(&self) -> PathBuf {
        self.scratch.path().join("pods")
    }

    fn add(&self, pods: &[(&str, &str)]) {
        for (namespace, pod) in pods {
            fs::create_dir_all(self.pod_logs().join(format!("{namespace}_{pod}_0f6c2e0e-7d0c-4f0f-9f5e-2d1f2a0c7a11"))).unwrap();
        }
    }

    fn command(&self) -> Command {
        let mut command = program::command();
        command.env("PATH", self.fakes.path()).env("POD_LOGS_DIR", self.pod_logs());
        command
    }

    /// The program without a datastore.
    fn alone(&self) -> Command {
        let mut command = self.command();
        command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none");
        command
    }
}

/// The series of `workload_info`.
fn named(samples: &Samples) -> Vec<String> {
    with(samples, "calico_accountant_workload_info", &[]).map(|(series, _)| series.clone()).collect()
}

#[test]
fn without_a_datastore_every_pod_has_its_name() {
    let node = Node::new();
    node.add(&CAPTURED_PODS);
    let program = Program::start(node.alone());
    let samples = scrape(program.port());
    assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "unknown")]), 0.0);
    assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "known")]), 9.0);
    assert_eq!(one(&samples, "calico_accountant_datastore_up", &[]), 1.0);
    for (namespace, pod) in CAPTURED_PODS {
        let labels = [("namespace", namespace), ("pod", pod), ("orchestrator", "k8s"), ("node", "node-1"), ("app", "")];
        assert_eq!(with(&samples, "calico_accountant_workload_info", &labels).count(), 1, "{namespace}/{pod}: {:#?}", named(&samples));
    }
    let labels = [("pod", "web-1"), ("policy", "shop/default.web-allow"), ("verdict", "accept"), ("direction", "ingress")];
    assert_eq!(with(&samples, "calico_accountant_policy_packets_total", &labels).count(), 1);
    let labels = [("pod_namespace", "shop"), ("pod", "web-1"), ("type", "tw"), ("app", "")];
    assert!(with(&samples, "no_policy_drop_counter", &labels).count() == 1);
    assert_eq!(http::get(program.port(), "/readyz").unwrap().status, 200);
}

#[test]
fn addresses_come_from_the_routes_to_the_interfaces() {
    let Some(namespace) = Namespace::new("addresses from routes") else { return };
    let node = Node::new();
    node.add(&CAPTURED_PODS);
    namespace.run(|| {
        sh("ip link add cali751425ce827 type veth peer name pod0 && ip link set cali751425ce827 up && ip link set pod0 up");
        sh("ip route add 10.65.0.11/32 dev cali751425ce827 && ip route add 10.65.0.0/24 dev cali751425ce827");
        let v6 = "ip -6 route add fd00:65::11/128 dev cali751425ce827 2>/dev/null || true";
        sh(v6);
        let has_v6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default().contains("fd000065");
        let samples = scrape(Program::start(node.alone()).port());
        let ip = if has_v6 { "10.65.0.11,fd00:65::11/128" } else { "10.65.0.11" };
        let labels = [("pod", "web-1"), ("ip", ip)];
        assert_eq!(with(&samples, "calico_accountant_workload_info", &labels).count(), 1, "{:#?}", named(&samples));
    });
}

#[test]
fn a_missing_folder_is_said_once_and_looked_for_again() {
    let node = Node::new();
    let program = Program::start(node.alone());
    for _ in 0..3 {
        let samples = scrape(program.port());
        assert_eq!(one(&samples, "calico_accountant_datastore_up", &[]), 0.0);
        assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "unknown")]), 9.0);
        assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0);
    }
    let complaints = program.log().into_iter().filter(|line| line.contains("naming pods failed")).collect::<Vec<_>>();
    assert!(complaints.len() == 1 && complaints[0].contains("POD_LOGS_DIR"), "{complaints:?}");
    node.add(&CAPTURED_PODS[..1]);
    let samples = scrape(program.port());
    assert_eq!(one(&samples, "calico_accountant_datastore_up", &[]), 1.0);
    assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "known")]), 1.0);
    // A later pod has its name at the next scrape.
    node.add(&CAPTURED_PODS);
    assert_eq!(one(&scrape(program.port()), "calico_accountant_workloads", &[("state", "known")]), 9.0);
    program.await_log("pods can be named again");
}

#[test]
fn until_the_datastore_answers_the_folders_name_the_pods() {
    let node = Node::new();
    node.add(&CAPTURED_PODS);
    let program = Program::start(node.command());
    let samples = scrape(program.port());
    assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "known")]), 9.0);
    assert_eq!(one(&samples, "calico_accountant_datastore_up", &[]), 0.0);
    assert_eq!(http::get(program.port(), "/readyz").unwrap().status, 503);
    // If the folder is not mounted, nothing is logged: the datastore should name the pods.
    let without = Program::start({
        let mut command = node.command();
        command.env("POD_LOGS_DIR", "/no/such/folder");
        command
    });
    assert_eq!(one(&scrape(without.port()), "calico_accountant_workloads", &[("state", "unknown")]), 9.0);
    assert!(!without.log().iter().any(|line| line.contains("/no/such/folder")), "{:#?}", without.log());
}
