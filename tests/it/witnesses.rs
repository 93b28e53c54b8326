//! `WITNESSES`: real packets through real rules while the exporter runs. What the kernel says about them is credited and shown, and never
//! more than was sent.

use std::time::Duration;

use calico_accountant::report::{Flow, network_policies};
use serde_json::{Value, json};

use crate::http::get;
use crate::live::{self, Net, WORKLOADS};
use crate::program::{self, PATIENCE, Program};
use crate::support::kube::Kube;
use crate::support::netns::{feed, sh};
use crate::support::scrape::scrape;
use crate::support::within;
use crate::watch::{expected, restore_iptables, restore_native, send};

const GROUPS: [(&str, &str); 2] = [("WITNESSES", "groups"), ("WITNESS_RATE", "10000")];

#[test]
fn groups_are_told_apart_with_iptables_nft() {
    if let Some(share) = live::live("witnesses of iptables-nft", |_| restore_iptables(), &GROUPS) {
        assert!(share > 95.0, "{share}");
    }
}

#[test]
fn groups_are_told_apart_with_calicos_own_tables() {
    if let Some(share) = live::live("witnesses of nftables", |_| restore_native(), &GROUPS) {
        assert!(share > 95.0, "{share}");
    }
}

/// The answer of `/api/v1/witnesses`.
fn told(program: &Program, query: &str) -> Value {
    serde_json::from_slice(&get(program.port(), &format!("/api/v1/witnesses{query}")).unwrap().body).unwrap()
}

fn has_table() -> bool {
    sh("nft list tables").contains("calico-accountant")
}

fn exporter(mode: &str) -> Program {
    let mut command = program::command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DATASTORE_TYPE", "none").env("XTABLES_LOCKFILE", "/dev/null");
    command.env("WITNESSES", mode).env("WITNESS_LOG", "true");
    Program::start(command)
}

#[test]
fn drops_are_told_of_while_there_are_any() {
    let Some(net) = Net::new("witnesses of drops") else { return };
    net.node.run(|| {
        restore_iptables();
        let program = exporter("drops");
        scrape(program.port());
        assert!(!has_table(), "nothing was dropped yet");
        net.client.run(|| send(1));
        scrape(program.port());
        assert!(has_table(), "{:#?}", program.log());
        net.client.run(|| send(3));
        let answer = told(&program, "");
        let lines = answer["witnesses"].as_array().unwrap();
        let mut counts = std::collections::BTreeMap::new();
        for line in lines {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            assert_eq!((text("source"), text("protocol")), ("10.66.1.2".into(), "udp".into()));
            let key =
                format!("{} {} {} {} {}", text("interface"), line["destination_port"], text("verdict"), text("reason"), text("policy"));
            *counts.entry(key).or_default() += 1;
        }
        let all = WORKLOADS.map(|(interface, _)| interface);
        assert_eq!(counts, expected(3, &all), "{answer}");
        assert_eq!(
            (&answer["mode"], &answer["seen"], &answer["lost"], &answer["unclear"]),
            (&"drops".into(), &42.into(), &0.into(), &0.into())
        );
        let mut explain = program::command();
        explain.args(["explain", all[0], "--url", &format!("http://127.0.0.1:{}", program.port())]).env("DATASTORE_TYPE", "none");
        let explained = String::from_utf8(explain.output().unwrap().stdout).unwrap();
        assert!(explained.contains("<- 10.66.1.2  udp/1012  drop    default.p2 rule 1 (tier default)"), "{explained}");
        program.await_log("witness: ");
        let last = lines.last().unwrap()["time"].as_str().unwrap().to_owned();
        assert_eq!(told(&program, "?since=4000000000")["witnesses"].as_array().unwrap().len(), 0, "{last}");
        assert_eq!(get(program.port(), "/api/v1/witnesses?since=now").unwrap().status, 400);
        rustix::process::kill_process(program.pid(), rustix::process::Signal::KILL).unwrap();
        within(PATIENCE, "the table goes with the process", || !has_table());
    });
}

#[test]
fn what_cannot_be_traced_is_said_and_all_else_goes_on() {
    let Some(net) = Net::new("what cannot be traced") else { return };
    net.node.run(|| {
        feed("XTABLES_LOCKFILE=/dev/null iptables-legacy-restore", &live::table());
        let program = exporter("groups");
        scrape(program.port());
        let answer = told(&program, "");
        assert!(answer["problem"].as_str().unwrap().contains("Felix writes legacy tables here"), "{answer}");
        program.await_log("Felix writes legacy tables here");
        // Felix moves to nftables.
        sh("iptables-legacy -F; iptables-legacy -X");
        restore_iptables();
        scrape(program.port());
        program.await_log("packets are traced again");
        // Another process' table prevents tracing.
        assert!(has_table());
        drop(program);
        within(PATIENCE, "the table goes with the process", || !has_table());
        let watch = program::command().arg("watch").env("DATASTORE_TYPE", "none").env("PATH", "/usr/sbin:/usr/bin").spawn();
        let mut watch = watch.unwrap();
        within(PATIENCE, "the table of watch", has_table);
        let program = exporter("groups");
        scrape(program.port());
        program.await_log("another process traces packets on this node");
        watch.kill().unwrap();
        watch.wait().unwrap();
        within(Duration::from_secs(10), "it is traced again", || {
            scrape(program.port());
            has_table()
        });
    });
}

#[test]
fn drafts_are_taken_by_a_real_api_server() {
    let Some(kube) = Kube::start() else { return };
    let flow = |peer: Value, other: &str, app: Value, protocol: &str, port: Value| -> Flow {
        serde_json::from_value(json!({
            "direction": if port == 443 { "egress" } else { "ingress" }, "interface": "cali1", "stage": null,
            "workload": "shop/web-1", "app": app, "peer": peer, "peer_app": if peer.is_null() { Value::Null } else { json!("api") },
            "source": other, "destination": other, "protocol": protocol, "destination_port": port, "verdict": "accept",
            "reason": "policy", "tier": "default", "policy": "default.allow-all", "rule": 0, "elsewhere": null
        }))
        .unwrap()
    };
    let flows = [
        flow(Value::Null, "192.0.2.1", json!("web"), "tcp", json!(80)),
        flow(json!("shop/api-1"), "10.0.0.2", json!("web"), "udp", json!(53)),
        flow(Value::Null, "2001:db8::1", json!("Web_2.x"), "sctp", json!(443)),
        flow(Value::Null, "192.0.2.3", Value::Null, "icmp", Value::Null),
    ];
    kube.namespace("shop");
    let file = kube.file("drafts.yaml");
    std::fs::write(&file, network_policies(&flows)).unwrap();
    let said = kube.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", file.to_str().unwrap()]);
    assert_eq!((said.lines().count(), said.lines().all(|line| line.ends_with("created (server dry run)"))), (3, true), "{said}");
}
