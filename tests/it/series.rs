//! Fewer series: families that are left out, zeros, and how many series remain on nodes of three sizes. A real Prometheus must still count
//! the first packets.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

use calico_accountant::config::FAMILIES;

use crate::http;
use crate::program::{self, Program};
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::prometheus::{self, Prometheus};
use crate::support::scrape::scrape;
use crate::support::{can_run, fixture, is_long, within};
use crate::table::{self, Size};

fn shows(fakes: &Fakes, moment: &str) {
    for (family, name) in [("iptables", "iptables-nft-save"), ("ip6tables", "ip6tables-nft-save")] {
        fakes.prints(name, &fixture::text(&format!("captures/v3.28.5-legacy/{moment}/{family}-save.txt.gz")));
    }
}

fn start(fakes: &Fakes, settings: &[(&str, &str)]) -> Program {
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("DATASTORE_TYPE", "none").envs(settings.iter().copied());
    Program::start(command)
}

/// The metrics of the text, by their `# TYPE` lines, except the exporter's own.
fn families(settings: &[(&str, &str)]) -> BTreeSet<String> {
    let fakes = Fakes::nft("");
    shows(&fakes, "t1");
    let text = http::get(start(&fakes, settings).port(), "/metrics").unwrap().text().to_owned();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE calico_accountant_")?.split(' ').next());
    names.map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).filter(|name| FAMILIES.contains(&name.as_str())).collect()
}

#[test]
fn families_are_left_out_by_name() {
    let all = families(&[]);
    assert!(all.len() > 9, "{all:?}");
    let some: BTreeSet<String> = ["drop_packets", "policy_rule_packets"].map(str::to_owned).into();
    assert_eq!(families(&[("METRIC_FAMILIES", "policy_rule_packets, drop_packets")]), some);
    assert_eq!(families(&[("METRIC_FAMILIES", "-policy_rule_packets,-drop_packets")]), &all - &some);
    assert_eq!(families(&[("METRIC_FAMILIES", "ALL")]), all);
}

/// Whether a series counts for a workload or a host endpoint, by either name.
pub fn is_cell(series: &str) -> bool {
    let name = series.split('{').next().unwrap();
    ["_policy_packets_total", "_drop_packets_total", "_profile_packets_total", "_established_packets_total"]
        .iter()
        .any(|end| name.ends_with(end))
        && !name.contains("unknown_interface")
        || name.starts_with("policy_accept")
}

#[test]
fn zeros_are_left_out_and_nothing_else() {
    let fakes = Fakes::nft("");
    shows(&fakes, "t2");
    let kept = scrape(start(&fakes, &[]).port());
    let omitted = scrape(start(&fakes, &[("ZERO_SERIES", "omit")]).port());
    // What was counted before the start is shown immediately.
    let is_counted = |series: &&String| series.contains("_packets_total") || series.contains("_counter");
    let expected: Vec<_> = kept.keys().filter(is_counted).filter(|series| !is_cell(series) || kept[*series] > 0.0).collect();
    assert!(expected.len() + 20 < kept.len(), "{} of {}", expected.len(), kept.len());
    assert_eq!(omitted.keys().filter(is_counted).collect::<Vec<_>>(), expected);
    assert!(expected.iter().all(|series| omitted[*series] == kept[*series]));
    // The rules of a policy that was never hit are shown.
    assert!(omitted.iter().any(|(series, value)| series.starts_with("calico_accountant_policy_rule_packets_total") && *value == 0.0));
}

#[test]
fn each_of_two_prometheis_counts_the_first_packets() {
    if !can_run("first packets in a real Prometheus", prometheus::is_installed(), "prometheus") {
        return;
    }
    let fakes = Fakes::nft("");
    shows(&fakes, "t1");
    let program = start(&fakes, &[("ZERO_SERIES", "omit")]);
    let second = Duration::from_secs(1);
    let scrapers = [1, 5].map(|interval| Prometheus::scraping(program.port(), interval * second, second));
    let before = scrape(program.port());
    shows(&fakes, "t2");
    let begins = "calico_accountant_policy_packets_total{verdict=\"deny\"}";
    within(10 * second, "denies are shown as 0", || scrapers[0].value(&format!("count({begins} == 0)")).is_some_and(|count| count > 10.0));
    // No more packets come.
    let after = || {
        let samples = scrape(program.port());
        let is_over = samples.iter().all(|(series, value)| !is_cell(series) || *value > 0.0);
        is_over.then_some(samples)
    };
    within(80 * second, "they are shown as they are", || after().is_some());
    let after = after().unwrap();
    std::thread::sleep(7 * second);
    for (series, value) in after.iter().filter(|(series, _)| is_cell(series)) {
        let counted = value - before.get(series).unwrap_or(&0.0);
        for prometheus in &scrapers {
            let increase = prometheus.value(&format!("increase({series}[5m])")).unwrap();
            // Prometheus extrapolates by up to half an interval at either end.
            assert!((increase - counted).abs() <= 0.2 * counted, "{series}: {counted} came, {increase} are seen");
        }
    }
}

const STANDARD: (&str, &str) = ("METRIC_NAMES", "standard");
const OMIT: (&str, &str) = ("ZERO_SERIES", "omit");

/// The lines of the table in docs/cardinality.md.
const LINES: [(&str, &[(&str, &str)]); 6] = [
    ("as it comes (`METRIC_NAMES=all`)", &[]),
    ("`METRIC_NAMES=standard`", &[STANDARD]),
    ("… and `ZERO_SERIES=omit`", &[STANDARD, OMIT]),
    ("`standard`, `METRIC_FAMILIES=-policy_packets`", &[STANDARD, ("METRIC_FAMILIES", "-policy_packets")]),
    (
        "… and `ZERO_SERIES=omit`, without `profile_packets`, `established_packets`, `workload_info`",
        &[STANDARD, OMIT, ("METRIC_FAMILIES", "-policy_packets,-profile_packets,-established_packets,-workload_info")],
    ),
    ("`standard`, `METRIC_FAMILIES=policy_rule_packets,policy_info`", &[STANDARD, ("METRIC_FAMILIES", "policy_rule_packets,policy_info")]),
];

/// A table in which nineteen of twenty counters are 0.
fn quiet_table(size: Size) -> String {
    let mut text = String::new();
    for (number, line) in table::table(size).lines().enumerate() {
        let counted = line.split_once("] ").filter(|_| number % 20 != 0);
        _ = match counted {
            Some((_, rule)) => writeln!(text, "[0:0] {rule}"),
            None => writeln!(text, "{line}"),
        };
    }
    text
}

/// The number of series, and the size of the text.
fn cell(fakes: &Fakes, etcd: &Etcd, size: Size, settings: &[(&str, &str)]) -> String {
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("ETCD_ENDPOINTS", etcd.url()).env("NODENAME", "node-1").envs(settings.iter().copied());
    let program = Program::start(command);
    let mut text = String::new();
    within(Duration::from_secs(60), "the workloads are known", || {
        text = http::get(program.port(), "/metrics").unwrap().text().to_owned();
        text.contains(&format!("calico_accountant_workloads{{state=\"known\"}} {}\n", size.workloads))
    });
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    // Some digits of the text are times, so the size is rounded.
    let bytes = match text.len() {
        million @ 1_000_000.. => format!("{:.1} MB", million as f64 / 1e6),
        less => format!("{:.0} kB", less as f64 / 1e3),
    };
    let series = if series < 1000 { series.to_string() } else { format!("{},{:03}", series / 1000, series % 1000) };
    format!(" {series}, {bytes} |")
}

/// Generates the table. Its last column, of 54,000 rules, takes a minute and is compared only with `WITHSTAND=1`.
#[test]
fn what_each_setting_leaves() {
    let Some(etcd) = Etcd::plain() else { return };
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cardinality.md")).unwrap();
    let sizes = [(30, 5), (100, 20), (250, 50)];
    let mut lines = LINES.map(|(name, _)| format!("| {name} |"));
    for (workloads, policies) in &sizes[..if is_long() { 3 } else { 2 }] {
        let size = Size { workloads: *workloads, policies: *policies, group: 1 };
        (0..size.workloads).for_each(|workload| etcd.put(&table::workload(workload)));
        let fakes = Fakes::tables(&quiet_table(size), "");
        lines.iter_mut().zip(LINES).for_each(|(line, (_, settings))| *line += &cell(&fakes, &etcd, size, settings));
    }
    for line in &lines {
        assert!(page.lines().any(|other| other.starts_with(&**line)), "docs/cardinality.md says otherwise: {lines:#?}");
    }
}
