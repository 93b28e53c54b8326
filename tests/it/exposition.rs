//! What the built program prints: for the table of the Go exporter, the same series and values; for every captured table, text that
//! Prometheus accepts.

use std::process::{Command, Stdio};

use crate::http;
use crate::program::{self, Program, await_some};
use crate::support::documented;
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::scrape::{Samples, parse, scrape};
use crate::support::{can_run, fixture};

/// Names of the Go exporter, which promtool criticises.
const INHERITED: [&str; 4] =
    ["no_policy_drop_counter", "policy_accept_counter", "policy_accept_drop_counter", "calico_accountant_dropped_scrape"];

#[test]
fn the_series_and_values_of_the_go_exporter() {
    let Some(etcd) = Etcd::plain() else { return };
    for line in fixture::text("captures/go-exporter-v0.1.6/etcd.jsonl").lines() {
        etcd.put(&serde_json::from_str(line).unwrap());
    }
    let fakes = Fakes::tables(&fixture::text("captures/go-exporter-v0.1.6/iptables-save.txt"), "");
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("ETCD_ENDPOINTS", etcd.url()).env("NODENAME", "node-1");
    let program = Program::start(command);
    let ready = || http::get(program.port(), "/readyz").ok().filter(|answer| answer.status == 200);
    await_some(ready, || format!("readiness: {:#?}", program.log()));

    let ours = scrape(program.port());
    let theirs = parse(&fixture::text("captures/go-exporter-v0.1.6/metrics.txt"));
    let is_inherited = |series: &str| INHERITED.iter().any(|name| series.split('{').next() == Some(name));
    let differ = |a: &Samples, b: &Samples| -> Vec<String> {
        a.iter().filter(|(series, value)| is_inherited(series) && b.get(*series) != Some(value)).map(|(s, v)| format!("{s} {v}")).collect()
    };
    assert_eq!((differ(&ours, &theirs), differ(&theirs, &ours)), (vec![], vec![]), "only ours, only theirs; {:#?}", program.log());
}

/// With only some of the policies' names, the other policies would be shown under wrong names.
#[test]
fn not_ready_before_all_policies_are_known() {
    let Some(etcd) = Etcd::plain() else { return };
    for line in fixture::text("captures/go-exporter-v0.1.6/etcd.jsonl").lines() {
        etcd.put(&serde_json::from_str(line).unwrap());
    }
    let root = "/calico/resources/v3/projectcalico.org/";
    etcd.enable_auth("reader", "secret", &format!("{root}workloadendpoints/"));
    let grant = |range: &str| {
        let range = format!("{root}{range}/");
        etcd.etcdctl(&["--user", "root:root", "role", "grant-permission", "reader", "--prefix=true", "read", &range]);
    };
    grant("networkpolicies");
    let fakes = Fakes::tables(&fixture::text("captures/go-exporter-v0.1.6/iptables-save.txt"), "");
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("ETCD_ENDPOINTS", etcd.url()).env("NODENAME", "node-1");
    command.env("ETCD_USERNAME", "reader").env("ETCD_PASSWORD", "secret");
    let program = Program::start(command);
    let port = program.port();
    program.await_log(&format!("read {root}globalnetworkpolicies/"));
    // By now, the other list must have ended.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let answer = http::get(port, "/readyz").unwrap();
    assert_eq!((answer.status, answer.text()), (503, "the datastore's policies have not been read yet\n"));
    grant("globalnetworkpolicies");
    let ready = || http::get(port, "/readyz").ok().filter(|answer| answer.status == 200);
    await_some(ready, || format!("readiness: {:#?}", program.log()));
}

#[test]
fn every_captured_table_gives_a_text_that_promtool_accepts() {
    if !has_promtool() {
        return;
    }
    let fakes = Fakes::nft("");
    let mut command = program::command();
    command.env("PATH", fakes.path());
    let program = Program::start(command);
    for capture in ["v3.27.5-legacy", "v3.28.5-legacy", "v3.31.7-nft-flowlogs", "v3.32.1-legacy-flowlogs", "v3.32.1-olddata-legacy"] {
        for (family, name) in [("iptables", "iptables-nft-save"), ("ip6tables", "ip6tables-nft-save")] {
            fakes.prints(name, &fixture::text(&format!("captures/{capture}/t2/{family}-save.txt.gz")));
        }
        let text = http::get(program.port(), "/metrics").unwrap();
        assert!(parse(text.text()).len() > 200, "{capture}");
        assert_eq!(complaints(text.text()), Vec::<String>::new(), "{capture}");
    }
}

#[test]
fn every_captured_table_gives_what_is_documented() {
    let fakes = Fakes::nft("");
    let mut command = program::command();
    command.env("PATH", fakes.path());
    let program = Program::start(command);
    for capture in ["v3.21.6-legacy", "v3.28.5-legacy", "v3.31.7-nft-flowlogs", "v3.32.1-nft-clean-hep", "v3.32.1-olddata-legacy"] {
        for (family, name) in [("iptables", "iptables-nft-save"), ("ip6tables", "ip6tables-nft-save")] {
            fakes.prints(name, &fixture::text(&format!("captures/{capture}/t2/{family}-save.txt.gz")));
        }
        let text = http::get(program.port(), "/metrics").unwrap();
        documented::compare(text.text());
        assert_eq!(documented::declared(text.text()), documented::metrics(false), "{capture}");
    }
}

/// Reports whether promtool is installed. If not, prints that.
pub fn has_promtool() -> bool {
    let promtool = Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    can_run("promtool check metrics", promtool.is_ok(), "promtool")
}

/// Promtool's complaints, except about the inherited names.
pub fn complaints(text: &str) -> Vec<String> {
    let all = check(text);
    all.lines().filter(|line| !INHERITED.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

/// Runs `promtool check metrics`. Returns its complaints.
fn check(text: &str) -> String {
    use std::io::Write;
    let mut promtool = Command::new("promtool");
    let mut child =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_minimum_drops_scrapes_in_which_everything_is_small() {
    let fakes = Fakes::tables(&fixture::text("captures/v3.28.5-legacy/t1/iptables-save.txt.gz"), "");
    let counters = |minimum: &str| {
        let mut command = program::command();
        command.env("PATH", fakes.path()).env("MINIMUM_COUNTER", minimum);
        let program = Program::start(command);
        let samples = scrape(program.port());
        let dropped = samples["calico_accountant_dropped_scrape"];
        (samples.keys().any(|series| series.starts_with("calico_accountant_policy_packets_total")), dropped)
    };
    assert_eq!(counters("1"), (true, 0.0));
    assert_eq!(counters("1000000"), (false, 1.0));
}

#[test]
fn metric_names_choose_a_family() {
    let fakes = Fakes::tables(&fixture::text("captures/v3.28.5-legacy/t1/iptables-save.txt.gz"), "");
    let names = |names: &str| {
        let mut command = program::command();
        command.env("PATH", fakes.path()).env("METRIC_NAMES", names);
        let text = http::get(Program::start(command).port(), "/metrics").unwrap().text().to_owned();
        (text.contains("# TYPE policy_accept_counter"), text.contains("# TYPE calico_accountant_policy_packets_total"))
    };
    assert_eq!([names("all"), names("legacy"), names("standard")], [(true, true), (true, false), (false, true)]);
}
