//! What a scrape costs, beside what `iptables-save` alone costs on the same table in the same run, on both back ends.
//! Needs root (network namespaces), iptables and etcd. `cargo bench --bench scrape`, or `make bench`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod ebpf;
#[path = "../tests/it/http.rs"]
mod http;
#[path = "../tests/it/program.rs"]
mod program;
#[path = "../tests/it/support/mod.rs"]
mod support;
mod table;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_accountant::attribution::{Attribution, Motion, Table};
use calico_accountant::config::MetricNames;
use calico_accountant::felix::Structures;
use calico_accountant::inventory::{Interface, Workload};
use calico_accountant::iptables::text::Parser;
use calico_accountant::ledger::Ledger;
use calico_accountant::metrics::{self, About, View};
use calico_accountant::ruleset::{Backend, Family};

use program::Program;
use support::etcd::{Etcd, Scratch};
use support::netns::{Namespace, feed};
use table::Size;

const ROUNDS: usize = 15;
const fn size(workloads: usize, policies: usize, group: usize) -> Size {
    Size { workloads, policies, group }
}

const SIZES: [Size; 4] = [size(10, 5, 1), size(50, 50, 1), size(250, 50, 1), size(250, 50, 10)];

fn main() {
    // `cargo test` runs benches too, with another argument.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    stages(SIZES[2]);
    stages(SIZES[3]);
    println!("\n| workloads × policies | rules | back end | iptables-save | scrape | ratio | CPU a scrape | peak RSS | text |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        for backend in ["legacy", "nft"] {
            if let Some(namespace) = Namespace::new("bench") {
                namespace.run(|| whole(size, backend));
            }
        }
    }
    if let Some(namespace) = Namespace::new("bench") {
        namespace.run(ebpf::run);
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The part that is ours alone, in process: the text in memory → the text of the answer.
fn stages(size: Size) {
    // Counters move from round to round, else groups would have nothing to do.
    let (mut ledger, mut attribution) = (Ledger::new(), Attribution::default());
    let (about, mut structures) = (About::default(), Structures::default());
    let mut times = [vec![], vec![], vec![], vec![]];
    let mut memory = Vec::new();
    for round in 0..ROUNDS as u64 {
        let text = table::table_at(size, round);
        let begun = Instant::now();
        let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
        text.as_bytes().chunks(1 << 16).for_each(|piece| parser.push(piece));
        let rulesets = [parser.finish().unwrap()];
        let parsed = Instant::now();
        let deltas = ledger.advance(&rulesets);
        structures.update(rulesets.iter().map(|table| &table.ruleset));
        attribution.advance(&[Table::new(&structures.tables()[0], &deltas[0], &Motion::still())]);
        let attributed = Instant::now();
        let view = View::new((&attribution, structures.catalog()), &workload, &about, true, MetricNames::All);
        memory = metrics::render(&view, memory);
        let rendered = Instant::now();
        for (times, took) in times.iter_mut().zip([parsed - begun, attributed - parsed, rendered - attributed, rendered - begun]) {
            times.push(took);
        }
    }
    let [parse, attribute, render, all] = times.map(|times| ms(median(times)));
    println!(
        "{} × {} in groups of {}, in process: parse {parse}, attribute {attribute}, render {render}; together {all}",
        size.workloads, size.policies, size.group
    );
}

fn workload(interface: &str) -> Option<Arc<Workload>> {
    let pod = format!("app-{interface}-7d9c5bb7f6");
    let interface = Interface::Name(interface.to_owned());
    Some(Arc::new(Workload { interface, namespace: "bench".into(), pod, app: "app".into(), ip: "10.0.0.1".into(), ..Workload::default() }))
}

/// A whole scrape over HTTP and the bare program, by turns.
fn whole(size: Size, backend: &str) {
    let text = table::table(size);
    let rules = text.lines().filter(|line| line.starts_with('[')).count();
    feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore -c"), &text);
    let etcd = Etcd::plain().expect("etcd");
    (0..size.workloads).for_each(|workload| etcd.put(&table::workload(workload)));
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    let mut command = program::command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock).env("ETCD_ENDPOINTS", etcd.url());
    let program = Program::start(command);
    let port = program.port();
    program::await_some(|| http::get(port, "/readyz").ok().filter(|a| a.status == 200), || "readiness".into());

    let (mut bare, mut scrape, mut ratios, mut length) = (vec![], vec![], vec![], 0);
    let cpu = cpu_seconds(&program);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let save = Command::new(format!("/usr/sbin/iptables-{backend}-save")).args(["-t", "filter", "-c"]).stdout(Stdio::piped()).spawn();
        let mut save = save.unwrap();
        std::io::copy(&mut save.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        save.wait().unwrap();
        bare.push(begun.elapsed());
        let begun = Instant::now();
        length = http::get(port, "/metrics").unwrap().body.len();
        scrape.push(begun.elapsed());
        ratios.push(scrape[scrape.len() - 1].div_duration_f64(bare[bare.len() - 1]));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let cpu = Duration::from_secs_f64((cpu_seconds(&program) - cpu) / ROUNDS as f64);
    println!(
        "| {} × {}, groups of {} | {rules} | {backend} | {} | {} | {:.2} | {} | {:.1} MB | {:.1} MB |",
        size.workloads,
        size.policies,
        size.group,
        ms(median(bare)),
        ms(median(scrape)),
        ratios[ratios.len() / 2],
        ms(cpu),
        peak_rss(&program),
        length as f64 / 1e6
    );
}

/// Our own CPU time, without the children's.
fn cpu_seconds(program: &Program) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid().as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / rustix::param::clock_ticks_per_second() as f64
}

fn peak_rss(program: &Program) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1e3
}
