//! `check`: what the exporter needs on this node, one line each: whether it is there, and what to do if not. Touches what the exporter
//! touches, and changes nothing.

mod ebpf;

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exporter::Exporter;
use super::{own, print};
use crate::app;
use crate::config::{BackendChoice, Config, Datastore, SourceChoice, Tool};
use crate::dataplane::{Elsewhere, NoChains, ReadError, Reader, Reading};
use crate::ebpf::reader;
use crate::felix::Structures;
use crate::inventory::Inventory;
use crate::iptables::Programs;
use crate::podlogs::PodLogs;
use crate::ruleset::{Backend, Family};

/// How long the kernel and the datastore may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// What was found.
#[derive(Default)]
struct Findings {
    text: String,
    wrong: usize,
}

impl Findings {
    fn right(&mut self, what: &str) {
        self.line("ok", what, "");
    }

    fn note(&mut self, what: &str, hint: &str) {
        self.line("note", what, hint);
    }

    fn wrong(&mut self, what: &str, remedy: &str) {
        self.wrong += 1;
        self.line("WRONG", what, remedy);
    }

    fn line(&mut self, mark: &str, what: &str, more: &str) {
        let harmless = |text: &str| super::terminal::safe(text, 1000);
        _ = writeln!(self.text, "{mark:<6}{}", harmless(what));
        if !more.is_empty() {
            _ = writeln!(self.text, "      {}", harmless(more));
        }
    }
}

/// Looks at everything.
pub fn run(tool: Tool) -> Result<ExitCode, String> {
    let mut findings = Findings::default();
    node(&tool, &mut findings);
    capabilities(&mut findings);
    let inventory = datastore(&tool, &mut findings);
    if let Some(reading) = kernel(&tool.config, &inventory, &mut findings) {
        match &reading.programs {
            Some(read) => ebpf::programs(&tool.config, read, &mut findings),
            None => rules(&tool.config, &reading, &mut findings),
        }
        names(&tool.config, &interfaces(&reading), &inventory, &mut findings);
    }
    exporter(&tool.config, &mut findings);
    let verdict = match findings.wrong {
        0 => "All is well.".to_owned(),
        1 => "1 thing is wrong.".to_owned(),
        wrong => format!("{wrong} things are wrong."),
    };
    print(&format!("{}\n{verdict}\n", findings.text))?;
    Ok(if findings.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn node(tool: &Tool, findings: &mut Findings) {
    if let Some(remark) = tool.remarks.iter().find(|remark| remark.text.starts_with("node name")) {
        findings.right(&remark.text);
    }
    for problem in &tool.problems {
        findings.wrong(problem, "see calico-accountant --help for what may be set");
    }
}

fn capabilities(findings: &mut Findings) {
    const NEEDED: [(u32, &str); 2] = [(12, "NET_ADMIN"), (13, "NET_RAW")];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) else {
        return findings.note("capabilities: /proc does not tell them", "");
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| name).collect();
    match missing.is_empty() {
        true => findings.right("capabilities NET_ADMIN and NET_RAW"),
        false => findings.wrong(
            &format!("capabilities: without {}", missing.join(" and ")),
            "run it as root with capabilities NET_ADMIN and NET_RAW (securityContext.capabilities.add)",
        ),
    }
}

fn datastore(tool: &Tool, findings: &mut Findings) -> Arc<Inventory> {
    let (config, inventory) = (&tool.config, Arc::new(Inventory::new()));
    let name = match &config.datastore {
        Datastore::None => {
            pod_logs(config, &tool.problems, findings);
            return inventory;
        }
        Datastore::Etcd(_) => "etcd",
        Datastore::Kubernetes(_) => "the Kubernetes API server",
    };
    if let Err(error) = app::follow(config, &inventory) {
        findings.wrong(&format!("datastore: its follower cannot be started: {error}"), "");
        return inventory;
    }
    own::wait_until(PATIENCE, || inventory.synced() || (!inventory.troubles().is_empty()));
    // The first trouble may be over soon: a leader that is being elected, a connection that was too slow.
    own::wait_until(Duration::from_secs(2), || inventory.synced() && inventory.troubles().is_empty());
    let troubles = inventory.troubles().join("; ");
    match (inventory.synced() && inventory.up(), inventory.workload_count()) {
        (false, _) if troubles.is_empty() => findings.wrong(
            &format!("datastore: {name} did not answer within {} s", PATIENCE.as_secs()),
            "is its address right, and can it be reached from here?",
        ),
        (false, _) => findings.wrong(&format!("datastore: {troubles}"), "names come from there; until it answers, /readyz says 503"),
        (true, 0) => findings.note(
            &format!("datastore: {name} answers, and has no workload of node {:?}", config.node_name),
            "if pods run here, is the node's name the one that Calico uses? (NODENAME)",
        ),
        (true, count) => findings.right(&format!("datastore: {name} answers, {count} workloads of this node")),
    }
    inventory
}

fn pod_logs(config: &Config, problems: &[String], findings: &mut Findings) {
    let found = PodLogs::new(config.pod_logs.clone(), "/proc".into(), config.node_name.clone()).workloads(&["cali00000000000"]);
    match found {
        Ok(_) => findings.right(&format!("names of pods: {} can be read", config.pod_logs.display())),
        Err(error) if problems.is_empty() => findings.wrong(&format!("names of pods: {error}"), ""),
        Err(error) => findings.note(&format!("names of pods, without a datastore: {error}"), ""),
    }
}

fn kernel(config: &Config, inventory: &Arc<Inventory>, findings: &mut Findings) -> Option<Reading> {
    programs(config, findings);
    match app::dataplane(config, inventory).read(Instant::now() + PATIENCE) {
        Err(error) => {
            findings.wrong(&format!("rules: {error}"), remedy(&error));
            None
        }
        Ok(reading) => Some(reading),
    }
}

/// What else to look at, where the reason leaves that open.
fn remedy(error: &ReadError) -> &'static str {
    match error.no_chains() {
        Some(NoChains { elsewhere: Elsewhere::Nowhere, .. }) => {
            "does the exporter run in the host's network namespace (hostNetwork: true), on a node of Calico's, and is calico-node up? \
             Of its eBPF dataplane, the host's /sys/fs/bpf has to be there, too"
        }
        _ => "",
    }
}

/// How rules are going to be read.
fn programs(config: &Config, findings: &mut Findings) {
    let programs = Programs::on_search_path();
    let found = [Backend::Nft, Backend::Legacy].into_iter().filter_map(|backend| programs.find(backend, Family::V4));
    let found: Vec<String> = found.map(|program| program.display().to_string()).collect();
    match (found.is_empty(), config.source, config.backend) {
        (true, SourceChoice::Save, BackendChoice::Auto) if reader::is_present(&config.bpffs).unwrap_or(false) => {
            findings.note("iptables-save: there is none, but SOURCE is save", "the eBPF dataplane does without");
        }
        (true, SourceChoice::Save, backend) if backend != BackendChoice::Native && backend != BackendChoice::Ebpf => {
            findings.wrong("iptables-save: there is none, but SOURCE is save", "install it, or leave SOURCE to auto or kernel");
        }
        (true, ..) => findings.right("iptables-save: there is none, and none is needed: the kernel is read directly"),
        (false, ..) => findings.right(&format!("iptables-save: {}", found.join(", "))),
    }
}

fn rules(config: &Config, reading: &Reading, findings: &mut Findings) {
    for family in Family::ALL {
        let tables: Vec<_> = reading.tables.iter().filter(|table| table.ruleset.family == family).collect();
        let Some(first) = tables.first() else { continue };
        let count: usize = tables.iter().map(|table| table.ruleset.rule_count()).sum();
        let (family, backend) = (family.as_str(), first.ruleset.backend.as_str());
        findings.right(&format!("rules: {count} of {family} in the {backend} dataplane, read by {}", reading.source));
    }
    let backend = reading.tables.first().map(|table| table.ruleset.backend);
    for (backend, rival) in backend.into_iter().flat_map(|backend| reading.rivals.iter().map(move |rival| (backend, rival))) {
        let text = format!("rules: {}", rival.of(backend));
        if rival.evidence.is_some() { findings.note(&text, "") } else { findings.wrong(&text, "") }
    }
    if let Some(problem) = &reading.lock_problem {
        findings.wrong(
            &format!("xtables lock: {problem}"),
            "mount the host's /run/xtables.lock (read-only is enough), or reads may meet counters at zero",
        );
    } else if reading.tables.iter().any(|table| table.ruleset.backend == Backend::Legacy) {
        findings.right(&format!("xtables lock: {} was taken in {} ms", config.lock_path.display(), reading.lock_waited.as_millis()));
    }
    let mut structures = Structures::default();
    structures.update(reading.tables.iter().map(|table| &table.ruleset));
    if structures.unrecognised() > 0 {
        findings.note(
            &format!("rules: {} are not understood", structures.unrecognised()),
            "what depends on them is left out; please report them, with the output of iptables-save -c or nft -j list ruleset",
        );
    }
    if structures.unnamed() > 0 && config.datastore == Datastore::None {
        findings.note("policies: these rules do not name them (Calico before 3.22)", "only the datastore can; chain names are shown");
    }
}

fn names(config: &Config, interfaces: &[&str], inventory: &Inventory, findings: &mut Findings) {
    match config.datastore {
        Datastore::None => workloads_of_node(config, interfaces, findings),
        _ => workloads(config, interfaces, inventory, findings),
    }
}

/// Of all workloads that have rules.
fn interfaces(reading: &Reading) -> Vec<&str> {
    let chains = reading.tables.iter().flat_map(|table| table.ruleset.chains());
    let programs = reading.programs.iter().flat_map(ebpf::workloads);
    let mut interfaces: Vec<&str> = chains.filter_map(|chain| chain.name.strip_prefix("cali-tw-")).chain(programs).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

/// Whether the node itself knows the workloads that have rules.
fn workloads_of_node(config: &Config, interfaces: &[&str], findings: &mut Findings) {
    let pod_logs = PodLogs::new(config.pod_logs.clone(), "/proc".into(), config.node_name.clone());
    let Ok(known) = pod_logs.workloads(interfaces) else { return };
    findings.note(&format!("workloads: {} have rules, {} are named by the node's own files", interfaces.len(), known.len()), "");
}

/// Whether the datastore knows the workloads that have rules.
fn workloads(config: &Config, interfaces: &[&str], inventory: &Inventory, findings: &mut Findings) {
    let known = interfaces.iter().filter(|interface| inventory.workload(interface).is_some()).count();
    let is_mounted = Path::new("/var/log/pods").is_dir();
    match (interfaces.len(), known) {
        (0, _) => findings.note("workloads: none has rules here", ""),
        (all, known) if all == known => findings.right(&format!("workloads: all {all} that have rules are known by name")),
        (all, 0) if inventory.synced() && inventory.up() => {
            inventory.nodes().want();
            own::wait_until(PATIENCE, || inventory.nodes().stored().is_some());
            findings.wrong(&format!("workloads: {all} have rules, and {}", inventory.nodes().problem(&config.node_name)), "");
        }
        (all, known) if is_mounted || !inventory.synced() => {
            findings.note(&format!("workloads: {all} have rules, the datastore knows {known} of them"), "");
        }
        (all, known) => findings.note(
            &format!("workloads: {all} have rules, the datastore knows {known} of them"),
            "with /var/log/pods of the host mounted, the others may be named by the node itself",
        ),
    }
}

fn exporter(config: &Config, findings: &mut Findings) {
    let url = Exporter::url_of(config);
    match Exporter::find(&url) {
        Ok(_) => findings.right(&format!("exporter: one answers at {url}")),
        Err(error) => findings.note(&format!("exporter: none answers at {url}"), &error),
    }
}
