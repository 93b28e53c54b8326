//! `check`: whether this node has what the exporter needs, one line each, and what to do if not. Touches what the exporter touches, and
//! changes nothing.

mod cluster;
mod ebpf;
mod findings;
mod names;
mod rules;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::print;
use crate::config::{BackendChoice, Config, Input, SourceChoice, Tool};
use crate::dataplane::{Elsewhere, NoChains, ReadError, Reader, Reading};
use crate::datastore::inventory::Inventory;
use crate::ebpf::reader;
use crate::exporter::start;
use crate::felix::names::workload_in;
use crate::iptables::Programs;
use crate::ruleset::{Backend, Family};
use findings::{Findings, Level};

/// The time limit for the kernel, and for the datastore.
const PATIENCE: Duration = Duration::from_secs(8);

pub fn run(tool: &Tool, as_json: bool) -> Result<ExitCode, String> {
    let (findings, node) = match &tool.input {
        Input::Cluster(nodes) => (cluster::findings(tool, nodes)?, ""),
        _ => (here(tool), &*tool.config.node_name),
    };
    print(&if as_json { findings.json(node)? } else { findings.text() })?;
    Ok(if findings.result() == Level::Wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn here(tool: &Tool) -> Findings {
    let mut findings = Findings::default();
    settings(tool, &mut findings);
    capabilities(&mut findings);
    let inventory = names::datastore(tool, &mut findings);
    names::pod_logs(tool, &mut findings);
    if let Some(reading) = kernel(&tool.config, &inventory, &mut findings) {
        match &reading.programs {
            Some(read) => ebpf::programs(&tool.config, read, &mut findings),
            None => rules::rules(&tool.config, &reading, &mut findings),
        }
        names::workloads(&tool.config, &interfaces(&reading), &inventory, &mut findings);
    }
    exporter(&tool.config, &mut findings);
    findings
}

fn settings(tool: &Tool, findings: &mut Findings) {
    const NODE: &str = "node name ";
    for remark in &tool.remarks {
        if let Some(name) = remark.text.strip_prefix(NODE) {
            findings.ok("node name", name);
        } else if remark.text.contains("service link") {
            findings.note("settings", &remark.text);
        }
    }
    for problem in &tool.problems {
        findings.wrong("settings", problem).hint("see calico-accountant --help for what may be set");
    }
}

fn capabilities(findings: &mut Findings) {
    const NEEDED: [(u32, &str); 2] = [(12, "NET_ADMIN"), (13, "NET_RAW")];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) else {
        findings.warn("capabilities", "they cannot be read from /proc");
        return;
    };
    let missing: Vec<&str> = NEEDED.into_iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| name).collect();
    match missing.is_empty() {
        true => findings.ok("capabilities", "NET_ADMIN and NET_RAW"),
        false => findings
            .wrong("capabilities", format!("without {}", missing.join(" and ")))
            .hint("run it as root with capabilities NET_ADMIN and NET_RAW (securityContext.capabilities.add)"),
    };
}

fn kernel(config: &Config, inventory: &Arc<Inventory>, findings: &mut Findings) -> Option<Reading> {
    programs(config, findings);
    match start::dataplane(config, inventory).read(Instant::now() + PATIENCE) {
        Err(error) => {
            findings.wrong("rules", error.to_string()).hint(remedy(&error));
            None
        }
        Ok(reading) => Some(reading),
    }
}

/// Returns what else to check, if the error leaves it open.
fn remedy(error: &ReadError) -> &'static str {
    match error.no_chains() {
        Some(NoChains { elsewhere: Elsewhere::Nowhere, .. }) => {
            "run it in the host's network namespace (hostNetwork: true), on a node where calico-node runs; the eBPF dataplane also \
             needs the host's /sys/fs/bpf"
        }
        _ => "",
    }
}

fn programs(config: &Config, findings: &mut Findings) {
    const SUBJECT: &str = "iptables-save";
    let programs = Programs::on_search_path();
    let found = [Backend::Nft, Backend::Legacy].into_iter().filter_map(|backend| programs.find(backend, Family::V4));
    let found: Vec<String> = found.map(|program| program.display().to_string()).collect();
    match (found.is_empty(), config.source, config.backend) {
        (true, SourceChoice::Save, BackendChoice::Auto) if reader::is_present(&config.bpffs).unwrap_or(false) => {
            findings.note(SUBJECT, "there is none, but SOURCE=save needs it").hint("the eBPF dataplane does not need it")
        }
        (true, SourceChoice::Save, backend) if backend != BackendChoice::Native && backend != BackendChoice::Ebpf => {
            findings.wrong(SUBJECT, "there is none, but SOURCE=save needs it").hint("install it, or leave SOURCE to auto or kernel")
        }
        (true, ..) => findings.ok(SUBJECT, "not installed, and not needed: the kernel is read directly"),
        (false, ..) => findings.ok(SUBJECT, found.join(", ")),
    };
}

/// Returns the interfaces of all workloads that have rules.
fn interfaces(reading: &Reading) -> Vec<&str> {
    let chains = reading.tables.iter().flat_map(|table| table.ruleset.chains());
    let programs = reading.programs.iter().flat_map(ebpf::workloads);
    let mut interfaces: Vec<&str> = chains.filter_map(|chain| workload_in(&chain.name)).chain(programs).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

fn exporter(config: &Config, findings: &mut Findings) {
    let url = Client::url_of(config);
    match Client::find(&url) {
        Ok(_) => findings.ok("exporter", format!("one answers at {url}")),
        Err(error) => findings.note("exporter", format!("none answers at {url}")).hint(error),
    };
}
