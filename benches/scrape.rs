//! The cost of a scrape, compared with the minimum for reading the table and with the program that prints it, on the same table in the same
//! run, on all three dataplanes. Needs root (network namespaces), iptables and etcd. `cargo bench --bench scrape`, or `make bench`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod bare;
mod baseline;
mod ebpf;
#[path = "../tests/it/http.rs"]
mod http;
mod plot;
#[path = "../tests/it/program.rs"]
mod program;
#[path = "../tests/it/support/mod.rs"]
mod support;
mod table;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_accountant::accounting::Accounting;
use calico_accountant::config::Exposition;
use calico_accountant::datastore::inventory::{Interface, Workload};
use calico_accountant::iptables::text::Parser;
use calico_accountant::metrics::{self, About, View};
use calico_accountant::ruleset::{Backend, Family};

use baseline::Baseline;
use program::Program;
use rustix::process::Pid;
use support::etcd::{Etcd, Scratch};
use support::netns::{Namespace, feed};
use table::Size;

const ROUNDS: usize = 15;
const fn size(workloads: usize, policies: usize, group: usize) -> Size {
    Size { workloads, policies, group }
}

const SIZES: [Size; 7] =
    [size(10, 5, 1), size(30, 5, 1), size(10, 50, 1), size(50, 5, 1), size(50, 50, 1), size(250, 5, 1), size(250, 50, 1)];
/// Only measures the eBPF dataplane.
const EBPF: &str = "--ebpf";
/// `--plot FILE` plots the measurements.
const PLOT: &str = "--plot";
/// `--size 250x50` measures only that size.
const ONLY: &str = "--size";

fn main() {
    // `cargo test` also runs benches, with another argument.
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    if args.iter().any(|arg| arg == EBPF) {
        return Namespace::new("bench").into_iter().for_each(|namespace| namespace.run(ebpf::run));
    }
    let value = |option: &str| args.iter().position(|arg| arg == option).and_then(|place| args.get(place + 1));
    stages(size(250, 50, 1));
    stages(size(250, 50, 10));
    println!(
        "\n| workloads × policies | rules | dataplane | bare read | its program, its peak RSS | scrape | × bare | read | attribute | render, send | by `iptables-save` | CPU a scrape | peak RSS | text | `BASELINE` | its peak RSS |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut results = Vec::new();
    for size in SIZES {
        if value(ONLY).is_some_and(|only| *only != format!("{}x{}", size.workloads, size.policies)) {
            continue;
        }
        for backend in [Backend::Legacy, Backend::Nft, Backend::Native] {
            if let Some(namespace) = Namespace::new("bench") {
                results.push(namespace.run(|| whole(size, backend)));
            }
        }
    }
    if let Some(namespace) = Namespace::new("bench") {
        namespace.run(ebpf::run);
    }
    if let Some(file) = value(PLOT) {
        std::fs::write(file, plot::svg(&series(&results))).unwrap();
    }
}

/// The cost of one size on one dataplane, in milliseconds.
struct Cost {
    backend: Backend,
    rules: f64,
    bare: f64,
    program: f64,
    scrape: f64,
}

fn series(results: &[Cost]) -> Vec<plot::Series> {
    let mut all = Vec::new();
    for (backend, colour) in [(Backend::Legacy, "#1b6ca8"), (Backend::Nft, "#c8553d"), (Backend::Native, "#3c8d40")] {
        let program = if backend == Backend::Native { "nft -j list" } else { "iptables-save" };
        let mut add = |what: &str, dashed, cost: fn(&Cost) -> f64| {
            let mut points: Vec<_> = results.iter().filter(|c| c.backend == backend).map(|c| (c.rules, cost(c))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            all.push(plot::Series { name: format!("{}: {what}", backend.as_str()), colour, dashed, points });
        };
        add("scrape", false, |cost| cost.scrape);
        add(program, true, |cost| cost.program);
    }
    all
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Measures only the exporter's own part, in process: from the text in memory to the text of the answer.
fn stages(size: Size) {
    // Counters increase from round to round. Otherwise groups would have nothing to do.
    let (about, mut accounting) = (About::default(), Accounting::new(2));
    let mut times = [vec![], vec![], vec![], vec![]];
    let mut memory = Vec::new();
    for round in 0..ROUNDS as u64 {
        let text = table::table_at(size, round);
        let begun = Instant::now();
        let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
        text.as_bytes().chunks(1 << 16).for_each(|piece| parser.push(piece));
        let rulesets = [parser.finish().unwrap()];
        let parsed = Instant::now();
        accounting.advance(&rulesets, |_| Ok::<_, String>(vec![]));
        let attributed = Instant::now();
        let (attribution, catalog) = (accounting.attribution(), accounting.catalog());
        let view = View { attribution, catalog, workload: &workload, about: &about, counters: true, exposition: &Exposition::default() };
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

/// Starts the exporter on an existing table.
fn exporter(etcd: &Etcd, lock: &std::path::Path, backend: Backend, source: &str) -> Program {
    let mut command = program::command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", lock).env("ETCD_ENDPOINTS", etcd.url());
    command.env("SOURCE", source).env("BACKEND", backend.as_str());
    let program = Program::start(command);
    let port = program.port();
    program::await_some(|| http::get(port, "/readyz").ok().filter(|a| a.status == 200), || "readiness".into());
    program
}

/// Returns how long `doing` takes.
fn time(doing: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    doing();
    begun.elapsed()
}

/// Reads a whole answer, including its head, into reused memory, so that the client's page faults do not count as the exporter's cost.
fn scrape(port: u16, answer: &mut Vec<u8>) {
    answer.clear();
    let mut connection = http::connect(port).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
    connection.read_to_end(answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\n"));
}

/// Runs a program that prints much.
fn print(command: &str) {
    let mut child = Command::new("sh").args(["-c", &format!("exec /usr/sbin/{command}")]).stdout(Stdio::piped()).spawn().unwrap();
    std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
    child.wait().unwrap();
}

/// Returns the peak memory of a program that prints much. It has read everything when it begins to print.
fn peak_of(command: &str) -> f64 {
    let mut child = Command::new("sh").args(["-c", &format!("exec /usr/sbin/{command}")]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0]).unwrap();
    let peak = peak_rss(Pid::from_child(&child));
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    child.wait().unwrap();
    peak
}

/// Returns a stage's time, as reported by the exporter.
fn stage(text: &str, stage: &str) -> Duration {
    let series = format!("calico_accountant_scrape_duration_seconds{{stage=\"{stage}\"}} ");
    Duration::from_secs_f64(text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap())
}

/// Alternates between the bare read, the program that prints the table, a scrape of the kernel, one by iptables-save, and one of
/// `BASELINE`.
fn whole(size: Size, backend: Backend) -> Cost {
    let text = table::table(size);
    let rules = text.lines().filter(|line| line.starts_with('[')).count();
    let (load, printer, mut bare): (String, String, Box<dyn FnMut()>) = match backend {
        Backend::Native => {
            let mut bare = bare::Bare::nft();
            ("nft -f -".into(), "nft -j list table ip calico".into(), Box::new(move || bare.read_nft("calico")))
        }
        _ => {
            let name = backend.as_str();
            let bare: Box<dyn FnMut()> = if backend == Backend::Legacy {
                let mut bare = bare::Bare::legacy();
                Box::new(move || bare.read_legacy())
            } else {
                let mut bare = bare::Bare::nft();
                Box::new(move || bare.read_nft("filter"))
            };
            (format!("XTABLES_LOCKFILE=/dev/null iptables-{name}-restore -c"), format!("iptables-{name}-save -t filter -c"), bare)
        }
    };
    feed(&load, &if backend == Backend::Native { table::native(size) } else { text });
    let etcd = Etcd::plain().expect("etcd");
    (0..size.workloads).for_each(|workload| etcd.put(&table::workload(workload)));
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    let kernel = exporter(&etcd, &lock, backend, "kernel");
    let save = (backend != Backend::Native).then(|| exporter(&etcd, &lock, backend, "save"));
    let baseline = Baseline::start(&etcd, size.policies, &lock, backend);

    let mut times: [Vec<Duration>; 8] = Default::default();
    let (mut ratios, mut answer, mut other) = (vec![], vec![], vec![]);
    bare();
    for _ in 0..ROUNDS {
        let took = time(&mut bare);
        let printing = time(|| print(&printer));
        let whole = time(|| scrape(kernel.port(), &mut answer));
        let by_save = save.as_ref().map_or(Duration::ZERO, |save| time(|| scrape(save.port(), &mut other)));
        let by_baseline = baseline.as_ref().map_or(Duration::ZERO, |baseline| time(|| scrape(baseline.port(), &mut other)));
        let text = String::from_utf8_lossy(&answer);
        let (read, attribute) = (stage(&text, "read"), stage(&text, "attribute"));
        ratios.push(whole.div_duration_f64(took));
        let all = [took, printing, whole, read, attribute, whole.saturating_sub(read + attribute), by_save, by_baseline];
        times.iter_mut().zip(all).for_each(|(times, took)| times.push(took));
    }
    ratios.sort_unstable_by(f64::total_cmp);
    // CPU time has ticks of 10 ms, so it is averaged over many scrapes.
    let many = if rules > 10_000 { ROUNDS } else { 10 * ROUNDS };
    let before = cpu_seconds(&kernel);
    (0..many).for_each(|_| scrape(kernel.port(), &mut answer));
    let cpu = Duration::from_secs_f64((cpu_seconds(&kernel) - before) / many as f64);
    let [bare, program, scrape, read, attribute, rest, by_save, by_baseline] = times.map(median);
    println!(
        "| {} × {} | {rules} | {} | {} | {}, {:.1} MB | {} | {:.2} | {} | {} | {} | {} | {} | {:.1} MB | {:.1} MB | {} | {} |",
        size.workloads,
        size.policies,
        backend.as_str(),
        ms(bare),
        ms(program),
        peak_of(&printer),
        ms(scrape),
        ratios[ratios.len() / 2],
        ms(read),
        ms(attribute),
        ms(rest),
        save.map_or("".into(), |_| ms(by_save)),
        ms(cpu),
        peak_rss(kernel.pid()),
        answer.len() as f64 / 1e6,
        baseline.as_ref().map_or("".into(), |_| ms(by_baseline)),
        baseline.as_ref().map_or("".into(), |baseline| format!("{:.1} MB", peak_rss(baseline.pid()))),
    );
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Cost { backend, rules: rules as f64, bare: ms(bare), program: ms(program), scrape: ms(scrape) }
}

/// Returns the exporter's own CPU time, without its children's.
fn cpu_seconds(program: &Program) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.pid().as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / rustix::param::clock_ticks_per_second() as f64
}

fn peak_rss(process: Pid) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
}
