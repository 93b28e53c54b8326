//! A large cluster: how many bytes and how much memory the first list takes.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::etcd::{LIMITS, follow};

use super::{NODE, config, endpoint};
use crate::support::etcd::Etcd;
use crate::support::proxy::Proxy;
use crate::support::within;

/// How many endpoints are on this node.
const OWN: usize = 100;

/// Writes `count` endpoints of 500 nodes and `namespaces` namespaces, through the gateway, in transactions.
fn fill(etcd: &Etcd, count: usize, namespaces: usize) {
    let agent = ureq::Agent::new_with_defaults();
    let objects = (0..count).map(|n| {
        let node = if n % (count / OWN) == 0 { NODE.to_owned() } else { format!("node-{}", 2 + n % 500) };
        endpoint(&node, &format!("namespace-{}", n / 7 % namespaces), &format!("deployment-{}-7c9d5b6f48-{n:05}", n % 700), "deployment")
    });
    let puts: Vec<_> = objects
        .map(|(key, value)| {
            format!(r#"{{"request_put":{{"key":"{}","value":"{}"}}}}"#, BASE64_STANDARD.encode(key), BASE64_STANDARD.encode(value))
        })
        .collect();
    for batch in puts.chunks(128) {
        let body = format!(r#"{{"success":[{}]}}"#, batch.join(","));
        agent.post(format!("{}/v3/kv/txn", etcd.url())).send(body).unwrap();
    }
}

/// Reads everything as the Go client does. Returns the number of bytes of the answer.
fn full_read(url: &str) -> u64 {
    let [key, end] = ["workloadendpoints/", "workloadendpoints0"].map(|key| BASE64_STANDARD.encode(format!("{}{key}", super::ROOT)));
    let body = format!(r#"{{"key":"{key}","range_end":"{end}"}}"#);
    let answer = ureq::post(format!("{url}/v3/kv/range")).send(body).unwrap();
    std::io::copy(&mut answer.into_body().into_reader(), &mut std::io::sink()).unwrap()
}

/// Runs [`child_follows`] in a process of its own. Returns its peak memory in kB, and how long the list took.
fn follow_in_a_process(url: &str) -> (u64, Duration) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "etcd::scale::child_follows", "--nocapture"]).env("FOLLOW_URL", url);
    // Proxies of the environment are not for etcd. If the program used this one, nothing would work.
    command.env("HTTP_PROXY", "http://127.0.0.1:1").env("http_proxy", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = |name: &str| -> u64 {
        let rest = text.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (figure("VmHWM:"), Duration::from_millis(figure("milliseconds:")))
}

/// The tests below start it in a process of its own, to measure its memory. Without them it does nothing.
#[test]
fn child_follows() {
    let Some(url) = std::env::var_os("FOLLOW_URL") else { return };
    let inventory = Arc::new(Inventory::new());
    let began = Instant::now();
    follow(config(url.to_str().unwrap()), NODE.into(), Arc::clone(&inventory), LIMITS).unwrap();
    within(Duration::from_secs(60), "the first list", || inventory.synced());
    println!("milliseconds: {}", began.elapsed().as_millis());
    assert_eq!(inventory.workload_count(), OWN);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

/// Asserts that the first list of `count` endpoints takes less than 1/`part` of the bytes of a full read.
fn list_is_frugal(count: usize, namespaces: usize, part: u64) {
    let Some(etcd) = Etcd::plain() else { return };
    fill(&etcd, count, namespaces);
    let proxy = Proxy::to(etcd.port);
    let (peak, took) = follow_in_a_process(&proxy.url());
    let bytes = proxy.received();
    let full = full_read(&etcd.url());
    let percent = bytes as f64 * 100.0 / full as f64;
    println!("{count} endpoints, {namespaces} namespaces: {bytes} bytes of {full} ({percent:.1} %), {peak} kB at most, {took:?}");
    assert!(bytes * part < full, "{bytes} of {full} bytes");
    assert!(peak < 25_000, "{peak} kB");
}

#[test]
fn five_thousand_endpoints() {
    list_is_frugal(5_000, 20, 10);
}

#[test]
fn fifty_thousand_endpoints() {
    list_is_frugal(50_000, 50, 20);
    // The worst case: only values can be left out.
    list_is_frugal(50_000, 1_000, 5);
}
