//! Whether the exporter sees Calico's rules, and says so if it does not: on real kernel tables, with real packets if those matter.

mod absent;
mod backends;
mod locks;
mod names;
mod rights;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::http;
use crate::program::{Program, command};
use crate::support::etcd::Scratch;
use crate::support::netns::{feed, sh};
use crate::support::scrape::{Samples, one, scrape, with};

/// The back ends that have Calico's rules in tables.
const BACKENDS: [&str; 3] = ["legacy", "nft", "nftables"];
/// The interfaces of pods shop/web-1 and shop/web-2.
pub const WEB_1: &str = "cali751425ce827";
const WEB_2: &str = "cali00000000002";
/// The port to which each workload's packets go.
const PORTS: [u16; 2] = [1001, 1002];

/// The test's own lock file.
struct Lock(Scratch);

impl Lock {
    fn new() -> Self {
        let lock = Lock(Scratch::new());
        std::fs::write(lock.path(), "").unwrap();
        lock
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lock")
    }
}

/// Rules as Calico writes them, one workload after the other. With `hooks`, packets that this host sends pass through them.
fn rules(workloads: &[&str], hooks: bool) -> Vec<(String, String)> {
    let mut rules: Vec<(String, String)> = Vec::new();
    let mut add = |chain: &str, rule: &str| rules.push((chain.to_owned(), rule.to_owned()));
    if hooks {
        add("FORWARD", "-j cali-FORWARD");
        add("OUTPUT", "-j cali-OUTPUT");
    }
    add("cali-FORWARD", "-j MARK --set-xmark 0x0/0xe0000");
    add("cali-OUTPUT", "-j MARK --set-xmark 0x0/0xf0000");
    for (workload, port) in workloads.iter().zip(PORTS) {
        add("cali-OUTPUT", &format!("-p udp -m udp --dport {port} -j cali-tw-{workload}"));
    }
    for workload in workloads {
        let chain = format!("cali-tw-{workload}");
        add(&chain, "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        add(&chain, "-j MARK --set-xmark 0x0/0x10000");
        add(&chain, "-m comment --comment \"Start of policies\" -j MARK --set-xmark 0x0/0x20000");
        add(&chain, "-m mark --mark 0x0/0x20000 -j cali-pi-default.p");
        add(&chain, "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN");
        add(&chain, "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP");
    }
    add("cali-pi-default.p", "-p udp -m comment --comment \"Policy default.p ingress\" -j MARK --set-xmark 0x10000/0x10000");
    rules
}

/// The rules as iptables-save writes them.
fn table(workloads: &[&str], hooks: bool) -> String {
    let rules = rules(workloads, hooks);
    let mut text = String::from("*filter\n");
    let mut chains: Vec<&str> = rules.iter().map(|(chain, _)| chain.as_str()).filter(|chain| chain.starts_with("cali-")).collect();
    chains.dedup();
    chains.iter().for_each(|chain| text += &format!(":{chain} - [0:0]\n"));
    for (number, (chain, rule)) in rules.iter().enumerate() {
        text += &format!("-A {chain} -m comment --comment \"cali:{number:016}\" {rule}\n");
    }
    text + "COMMIT\n"
}

/// Calico's own tables for the same workloads.
fn native(workloads: &[&str], hooks: bool) -> String {
    let mut text = String::from("table ip calico {\nchain filter-cali-FORWARD { counter comment \"cali:0000000000000000;\"; }\n");
    for workload in workloads {
        text += &format!(
            "chain filter-cali-tw-{workload} {{ ct state established,related counter accept comment \"cali:0000000000000001;\"; \
             counter return comment \"cali:0000000000000002;\"; }}\n"
        );
    }
    text += "chain filter-cali-OUTPUT {\n";
    for (workload, port) in workloads.iter().zip(PORTS) {
        text += &format!("udp dport {port} counter jump filter-cali-tw-{workload} comment \"cali:0000000000000003;\"\n");
    }
    let hook = if hooks { "type filter hook output priority 0; counter jump filter-cali-OUTPUT;" } else { "" };
    let forward = if hooks { "type filter hook forward priority 0; counter jump filter-cali-FORWARD;" } else { "" };
    text + &format!("}}\nchain filter-OUTPUT {{ {hook} }}\nchain filter-FORWARD {{ {forward} }}\n}}\n")
}

/// Writes the rules of these workloads, in place of the present ones.
pub fn write(backend: &str, workloads: &[&str], hooks: bool) {
    match backend {
        "nftables" => {
            let before = if sh("nft list tables").contains("table ip calico\n") { "delete table ip calico\n" } else { "" };
            feed("nft -f -", &format!("{before}{}", native(workloads, hooks)));
        }
        _ => feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore -c"), &table(workloads, hooks)),
    }
}

/// Sends one packet to each workload, through all tables with hooks.
fn send() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // The error may be the answer to an earlier packet.
    PORTS.into_iter().for_each(|port| _ = socket.send_to(b"x", ("127.0.0.1", port)));
}

/// The program with nothing but the kernel and this lock.
fn alone(lock: &Path) -> Command {
    let mut command = command();
    command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", lock).env("SOURCE", "kernel");
    command
}

/// Runs one of the program's commands. Returns its exit code and output.
fn run(mut command: Command, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

fn backend(samples: &Samples) -> Vec<&str> {
    let found = with(samples, "calico_accountant_backend_info", &[]).map(|(series, _)| crate::support::scrape::labels(series)["backend"]);
    found.collect()
}

fn up(program: &Program) -> f64 {
    one(&scrape(program.port()), "calico_accountant_up", &[])
}

/// Status and text of `/readyz`.
fn ready(program: &Program) -> (u16, String) {
    let answer = http::get(program.port(), "/readyz").unwrap();
    (answer.status, answer.text().to_owned())
}

fn logged(program: &Program, texts: &[&str]) -> usize {
    program.log().iter().filter(|line| texts.iter().all(|text| line.contains(text))).count()
}
