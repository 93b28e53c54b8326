//! The dashboards on a node with the eBPF dataplane: the description of a panel that is empty there says so.

use std::time::{Duration, Instant};

use super::told::{Node, WEB_1};
use super::*;
use crate::deploy::dashboards::NOT_EBPF;
use crate::deploy::path;
use crate::deploy::rules::RULES;
use crate::deploy::scraped::{Chosen, wrong};
use crate::support::can_run;
use crate::support::prometheus::{self, Prometheus};

const CHOSEN: Chosen = [("namespace", "shop"), ("pod", "web-1"), ("strict", "platform.guard"), ("fallback", "default.all")];

#[test]
fn a_panel_that_has_nothing_to_show_on_this_dataplane_says_so() {
    let test = "the dashboards on the eBPF dataplane";
    if !can_run(test, prometheus::is_installed(), "prometheus") {
        return;
    }
    on_a_node(test, || {
        let node = Node::new();
        fs::create_dir("/run/pods/shop_web-1_uid").unwrap();
        (INGRESS..).step_by(10).zip(["ingress", "egress"]).for_each(|(first, direction)| own_policy(direction, first));
        let program = Program::start(command());
        let target = format!("127.0.0.1:{}", program.port());
        let prometheus = Prometheus::with_rules("calico-accountant", &[&target], &path(RULES));
        let deadline = Instant::now() + Duration::from_secs(60);
        for moment in 1.. {
            node.count(moment);
            for (id, packets) in [(INGRESS, 3), (INGRESS + 1, 1), (INGRESS + 10, 3), (INGRESS + 11, 1)] {
                node.map.set(id, &[moment * packets], &[]);
            }
            let wrong = wrong(&prometheus, &CHOSEN, NOT_EBPF);
            if wrong.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{wrong:#?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(prometheus.query("ALERTS{alertstate=\"firing\"}").len(), 0);
    });
}

const INGRESS: u64 = 40;

/// The programs of a workload with its own policy, one that it shares with others, one that never decides, and its profile. Its rule ids
/// start at `first`.
fn own_policy(direction: &str, first: u64) {
    // A rule has one direction, so the shared policy has another id for egress.
    let all = if direction == "ingress" { ACCEPT_ALL } else { ACCEPT_ALL + 100 };
    let mut writer = Writer::default().label("allowed_by_host_policy").comment("Start of tier default");
    writer = writer.comment(&format!("Start of policy shop/default.{direction}")).rule("action:\"allow\"", first);
    writer = writer.rule("action:\"deny\"", first + 1).comment(&format!("End of policy shop/default.{direction}"));
    writer = writer.comment("Start of policy default.all").rule("action:\"allow\"", all).comment("End of policy default.all");
    writer = writer.comment("Start of policy default.never").rule("action:\"pass\"", first + 2).comment("End of policy default.never");
    writer = writer.comment("End of tier default: deny").record(first + 3).rule("kns.shop action:\"allow\"", first + 4).record(first + 5);
    fs::write(format!("{POLICY}/{WEB_1}_{direction}_v4.json"), writer.file(WEB_1)).unwrap();
}
