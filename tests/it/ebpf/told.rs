//! What the commands and the page say about a node with the eBPF dataplane.
//!
//! `GOLDEN=write cargo test --test it ebpf::told` writes the golden outputs again.

use std::process::Stdio;

use super::*;
use crate::commands::is_golden;

const GUARD_ALLOW: u64 = 21;
const GUARD_DENY: u64 = 22;
const GUARD_PASS: u64 = 23;
const PROFILE: u64 = 31;
/// Calico's name for the interface of shop/web-1.
pub const WEB_1: &str = "cali751425ce827";

/// Four workloads: two with two tiers and a profile, which share the policies, and two with a single tier, which share theirs.
pub struct Node {
    pub map: Map,
    interfaces: Map,
}

impl Node {
    pub fn new() -> Self {
        let node = Node { map: rules(), interfaces: Map::pin(&format!("{GLOBALS}/cali_counters6"), PER_CPU_HASH, 27) };
        for interface in [WEB_1, "cali2"] {
            link(interface);
            dump(interface, "egress", &[]);
            two_tiers(interface);
        }
        workload("cali3", &[WEB, ALL]);
        workload("cali4", &[WEB, ALL]);
        node.count(0);
        node
    }

    /// Sets the counters to those of a moment.
    pub fn count(&self, moment: u64) {
        for (id, packets) in
            [(GUARD_ALLOW, 5), (GUARD_DENY, 4), (GUARD_PASS, 20), (ACCEPT_WEB, 30), (DENY_WEB, 7), (ACCEPT_ALL, 9), (PROFILE, 2), (END, 6)]
        {
            self.map.set(id, &[100 + moment * packets], &[]);
        }
        for (interface, accepted, refused) in [(WEB_1, 8, 3), ("cali2", 4, 1), ("cali3", 20, 9), ("cali4", 14, 4)] {
            self.interfaces.set(counters_of(interface, 1), &[0, 0, 50 + moment * accepted, 0, 50 + moment * refused], &[]);
            self.interfaces.set(counters_of(interface, 0), &[0; 5], &[]);
        }
    }
}

/// Writes a program with a tier that passes on, one that denies, and a profile.
fn two_tiers(interface: &str) {
    let rules = [("allow", GUARD_ALLOW), ("deny", GUARD_DENY), ("pass", GUARD_PASS)];
    let mut writer = Writer::default().label("allowed_by_host_policy").comment("Start of tier platform");
    writer = writer.comment("Start of policy platform.guard");
    for (action, id) in rules {
        writer = writer.rule(&format!("action:\"{action}\""), id);
    }
    writer = writer.comment("End of policy platform.guard").comment("End of tier platform: pass").record(END + 50);
    writer = writer.comment("Start of tier default").comment("Start of policy default.all");
    writer = writer.rule("action:\"allow\"", ACCEPT_ALL).comment("End of policy default.all").comment("End of tier default: pass");
    writer = writer.record(END + 51).rule("action:\"allow\"", PROFILE).record(END + 52);
    fs::write(format!("{POLICY}/{interface}_ingress_v4.json"), writer.file(interface)).unwrap();
}

/// What a command prints, without what differs from run to run.
fn tells(args: &[&str]) -> String {
    let output = super::command().args(args).env("PATH", "/nowhere").stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let url = text.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:")).map(|url| url.trim_end_matches(','));
    let text = url.map_or(text.clone(), |url| text.replace(url, "URL"));
    match text.split_once("at URL for ").and_then(|(_, rest)| rest.split_once(" second")) {
        Some((seconds, _)) => text.replace(&format!("for {seconds} second"), "for N second").replace("N second.", "N seconds."),
        None => text,
    }
}

#[test]
fn commands() {
    on_a_node("commands on the eBPF dataplane", || {
        let node = Node::new();
        fs::create_dir("/run/pods/shop_web-1_uid").unwrap();
        let program = Program::start(command());
        let url = format!("--url=http://127.0.0.1:{}", program.port());
        scrape(program.port());
        node.count(1);
        is_golden("ebpf/explain-two-tiers", &tells(&["explain", "shop/web-1", &url]));
        is_golden("ebpf/explain-one-tier", &tells(&["explain", "cali3", &url]));
        is_golden("ebpf/top", &tells(&["top", &url]));
        is_golden("ebpf/explain-two-tiers-one-moment", &tells(&["explain", "shop/web-1"]));
        is_golden("ebpf/explain-one-tier-one-moment", &tells(&["explain", "cali3"]));
        is_golden("ebpf/top-one-moment", &tells(&["top"]));
        is_golden("ebpf/check", &tells(&["check"]));
        let metrics = tells(&["metrics"]);
        assert!(
            metrics.contains("calico_accountant_policy_rule_packets_total") && !metrics.contains("calico_accountant_policy_packets_total{")
        );
        // Without the files, it is unknown which rules belong to which policy.
        fs::remove_dir_all(POLICY).unwrap();
        is_golden("ebpf/check-without-files", &tells(&["check"]));
    });
}
