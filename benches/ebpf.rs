//! The cost of a scrape on the eBPF dataplane with a full map of rules. Uses maps in the kernel.

use std::time::Duration;

use crate::support::bpf::{Map, PER_CPU_HASH, own_mounts};
use crate::support::dump::Writer;
use crate::support::netns::sh;
use crate::{ROUNDS, cpu_seconds, median, ms, peak_rss, program, scrape, stage, time};

/// The maximum number of entries of Felix's map.
const RULES: u64 = 10_000;
const RULES_OF_A_POLICY: u64 = 5;
const WORKLOADS: u64 = 100;
const POLICIES_OF_A_WORKLOAD: u64 = 20;
/// Younger files are read again, because they may have changed without a visible sign.
const SETTLED: Duration = Duration::from_secs(4);

/// Prints one line.
pub fn run() {
    own_mounts();
    let rules = Map::pin("/sys/fs/bpf/tc/globals/cali_rule_ctrs2", PER_CPU_HASH, 1);
    let interfaces = Map::pin("/sys/fs/bpf/tc/globals/cali_counters6", PER_CPU_HASH, 27);
    let mut numbers = Vec::new();
    for workload in 0..WORKLOADS {
        let name = format!("cali{workload:011x}");
        sh(&format!("ip link add {name} type veth peer name p{workload}"));
        let number = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap();
        numbers.push(number.trim().parse::<u64>().unwrap());
        ["ingress", "egress"].iter().for_each(|direction| dump(&name, workload, direction));
    }
    let mut command = program::command();
    command.env("SOURCE", "auto").env("DATASTORE_TYPE", "none").env_remove("ETCD_ENDPOINTS");
    let program = program::Program::start(command);
    let (mut times, mut answer) = ([const { Vec::new() }; 3], Vec::new());
    scrape(program.port(), &mut answer);
    std::thread::sleep(SETTLED);
    scrape(program.port(), &mut answer);
    let cpu = cpu_seconds(&program);
    for round in 1..=ROUNDS as u64 {
        (1..=RULES).for_each(|id| rules.set(id, &[round * id], &[round]));
        for (key, round) in numbers.iter().flat_map(|number| [(*number, round), (*number | 1 << 32, round)]) {
            interfaces.set(key, &[0, 0, round * 1000, 0, round], &[]);
        }
        let whole = time(|| scrape(program.port(), &mut answer));
        let text = String::from_utf8_lossy(&answer);
        let all = [whole, stage(&text, "read"), stage(&text, "attribute")];
        times.iter_mut().zip(all).for_each(|(times, took)| times.push(took));
    }
    let cpu = Duration::from_secs_f64((cpu_seconds(&program) - cpu) / ROUNDS as f64);
    let fastest = times[0].iter().min().copied().unwrap_or_default();
    let [whole, read, attribute] = times.map(median);
    println!(
        "\neBPF, {WORKLOADS} workloads × {POLICIES_OF_A_WORKLOAD} policies, {RULES} rules: scrape {} (at best {}), of which read {}, \
         attribute {}; CPU {}, peak RSS {:.1} MB, text {:.1} MB",
        ms(whole),
        ms(fastest),
        ms(read),
        ms(attribute),
        ms(cpu),
        peak_rss(program.pid()),
        answer.len() as f64 / 1e6
    );
}

/// Each workload has its share of the policies, some of which others have too.
fn dump(interface: &str, workload: u64, direction: &str) {
    let policies = RULES / RULES_OF_A_POLICY;
    let half = if direction == "ingress" { 0 } else { policies / 2 };
    let mut writer = Writer::default().label("allowed_by_host_policy").comment("Start of tier default");
    for place in 0..POLICIES_OF_A_WORKLOAD {
        let policy = half + (workload * (policies / 2) / WORKLOADS + place) % (policies / 2);
        writer = writer.comment(&format!("Start of policy shop/knp.default.p{policy}"));
        for rule in 0..RULES_OF_A_POLICY {
            writer = writer.rule(r#"action:"allow" protocol:{number:6}"#, policy * RULES_OF_A_POLICY + rule + 1);
        }
        writer = writer.comment(&format!("End of policy shop/knp.default.p{policy}"));
    }
    let file = writer.comment("End of tier default: deny").record(RULES + half + 1).file(interface);
    std::fs::write(format!("/run/calico/bpf/policy/{interface}_{direction}_v4.json"), file).unwrap();
}
