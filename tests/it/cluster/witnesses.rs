//! Another node asks for the packets that one node's exporter has the kernel trace: real packets, `watch --cluster` and `explain
//! --cluster`.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use calico_accountant::datastore::inventory::Interface;
use serde_json::{Value, json};

use super::{CAPTURE, forward, pod, running, text};
use crate::commands::all_fields_are_documented;
use crate::kernel::{filter_table, load};
use crate::live::{self, Net, WORKLOADS, mac};
use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::kube::{ADMIN, Kube};
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::scrape;
use crate::support::within;
use crate::watch::{counted, expected, send};

const NODE1: &str = "10.9.3.1";
const NODE2: &str = "10.9.3.2";

/// Gives a workload's interface the name that belongs to pod `shop/web-1`.
fn named(net: &Net) -> String {
    let ((interface, address), name) = (WORKLOADS[0], format!("cali{}", Interface::suffix_of("shop", "web-1")));
    sh(&format!("ip link set {interface} down; ip link set {interface} name {name}; ip link set {name} up"));
    sh(&format!("ip route add {address}/32 dev {name}; ip neighbour replace {address} dev {name} lladdr {}", mac(&net.workloads[0])));
    feed("XTABLES_LOCKFILE=/dev/null iptables-nft-restore", &live::table().replace(interface, &name));
    name
}

fn command(config: &str, node: &str) -> Command {
    let mut command = program::command();
    command.env_remove("ETCD_ENDPOINTS").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", "/dev/null");
    command
        .env("LISTEN_ADDRESS", "0.0.0.0")
        .env("DATASTORE_TYPE", "kubernetes")
        .env("KUBECONFIG", config)
        .env("NODENAME", node)
        .env("METRICS_SERVER_PORT", "9009");
    command
}

#[test]
fn another_nodes_packets() {
    let test = "another node's packets";
    let (Some(hub), Some(net)) = (Namespace::new(test), Net::new(test)) else { return };
    hub.run(|| {
        let Some(kube) = Kube::start() else { return };
        sh(&format!("ip link add n2 type veth peer name up0 netns {}; ip addr add {NODE1}/24 dev n2; ip link set n2 up", net.node.name()));
        let interface = net.node.run(|| {
            sh(&format!("ip addr add {NODE2}/24 dev up0; ip link set up0 up"));
            named(&net)
        });
        forward(&net.node, kube.port);
        load("legacy", &filter_table(CAPTURE));
        ["shop", "infra"].iter().for_each(|namespace| kube.namespace(namespace));
        kube.service_account("kube-system", "default");
        for (node, address) in [("node1", NODE1), ("node2", NODE2)] {
            let labels = json!({"metadata": {"labels": {"app.kubernetes.io/name": "calico-accountant"}}});
            pod(&kube, "kube-system", &format!("exporter-{node}"), node, &labels, &running(address));
        }
        for (name, node) in [("web-1", "node2"), ("db-0", "node1")] {
            pod(&kube, "shop", name, node, &json!({"metadata": {"labels": {"app": "shop"}}}), &json!({"phase": "Running"}));
        }
        let scratch = Scratch::new();
        let config = scratch.path().join("kubeconfig").display().to_string();
        std::fs::write(&config, kube.kubeconfig(ADMIN)).unwrap();
        let first = command(&config, "node1");
        let mut second = command(&config, "node2");
        second.env("WITNESSES", "drops");
        let _first = Program::start(first);
        let second = net.node.run(|| Program::start(second));
        let run = |args: &[&str]| command(&config, "node1").args(args).output().unwrap();
        within(Duration::from_secs(20), "the name is known", || text(&run(&["workloads", "--cluster"])).contains("shop/web-1 "));
        net.node.run(|| {
            net.client.run(|| send(1));
            scrape(second.port());
            net.client.run(|| send(2));
        });
        followed(&net, &interface, &|args| {
            command(&config, "node1").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        said(&run);
    });
}

/// `watch` shows each packet once, those that were kept and those that follow.
fn followed(net: &Net, interface: &str, start: &dyn Fn(&[&str]) -> std::process::Child) {
    let watch = start(&["watch", "--cluster", "shop/web-1", "--for=9s", "--json"]);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(2));
        net.client.run(|| send(1));
    }
    let output = watch.wait_with_output().unwrap();
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut all = expected(5, &[WORKLOADS[0].0]);
    all = all.into_iter().map(|(cell, times)| (cell.replace(WORKLOADS[0].0, interface), times)).collect();
    assert_eq!(counted(&lines), all, "{}", text(&output));
    assert!(lines.iter().all(|line| line["workload"] == "shop/web-1" && line.get("node").is_none()), "{lines:#?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("Watching packets of shop/web-1 that are traced on node2. Ctrl-C ends it.\n35 shown;"), "{said}");
    assert_eq!(output.status.code(), Some(0));
}

fn said(run: &dyn Fn(&[&str]) -> Output) {
    let off = "node node1: its exporter traces no packets (set WITNESSES=drops there; settings.witnesses of the chart)\n";
    let both = format!("{NODE1},{NODE2}");
    for (args, code, expected) in [
        (
            &["watch", "--cluster", "shop/web-1", "--for=1s", "--dropped"][..],
            0,
            &["drop   default.p2 rule 1 (tier default)", "20 shown"][..],
        ),
        (
            &["watch", "--cluster", "-n", "shop", "--for=1s", "--policy=default.p4", "app=shop"],
            1,
            &["node2 ", " shop/web-1 <- 10.66.1.2", off],
        ),
        (&["watch", "--cluster", "shop/db-0"], 1, &[off]),
        (&["watch", "--cluster", "shop/nobody"], 1, &["calico-accountant: the cluster has no pod shop/nobody\n"]),
        (
            &["watch", "--nodes", &both, "--for=1s", "-n", "shop"],
            1,
            &["node 10.9.3.1: its exporter traces no packets", "10.9.3.2 ", "\n5  shop/web-1  <- 10.66.1.2  udp/1012  drop"],
        ),
        (&["watch", "--nodes", &both, "--for=1s", "-n", "infra"], 1, &["\n0 shown"]),
        (
            &["explain", "--cluster", "shop/web-1"],
            0,
            &["From where, of the last packets that were traced", "5  <- 10.66.1.2  udp/1012  drop    default.p2 rule 1"],
        ),
        (&["explain", "--cluster", "shop/db-0"], 0, &["of node node1 at"]),
    ] {
        let output = run(args);
        let found = text(&output);
        assert!(output.status.code() == Some(code) && expected.iter().all(|part| found.contains(part)), "{args:?} {expected:?}: {found}");
    }
    let json = |args: &[&str]| serde_json::from_slice::<Value>(&run(args).stdout).unwrap();
    let of_all = json(&["explain", "--cluster", "-n", "shop", "app=shop", "--json"]);
    all_fields_are_documented(&of_all);
    let [on_first, on_second] = [0, 1].map(|place| &of_all["answers"][place]["witnesses"]);
    assert_eq!((&on_first["mode"], &on_first["flows"]), (&json!("off"), &json!([])), "{of_all:#}");
    let flow = |port: u16| on_second["flows"].as_array().unwrap().iter().find(|flow| flow["destination_port"] == port).unwrap();
    assert_eq!((&flow(1012)["packets"], &flow(1012)["verdict"], &flow(1001)["policy"]), (&json!(5), &json!("drop"), &json!("default.p1")));
    // One exporter, asked directly, gives the same.
    let direct = json(&["explain", "--url", &format!("http://{NODE2}:9009"), "shop/web-1", "--json"]);
    assert_eq!(direct["witnesses"]["flows"], on_second["flows"]);
}
