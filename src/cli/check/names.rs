//! Checks whether there are names for the workloads that have rules, in the datastore and in the node's own files. Touches both.

use std::sync::Arc;
use std::time::Duration;

use super::PATIENCE;
use super::findings::Findings;
use crate::cli::wait_until;
use crate::config::{Config, Datastore, Tool};
use crate::datastore::inventory::Inventory;
use crate::datastore::podlogs::PodLogs;
use crate::exporter::start;

pub fn datastore(tool: &Tool, findings: &mut Findings) -> Arc<Inventory> {
    const SUBJECT: &str = "datastore";
    let (config, inventory) = (&tool.config, Arc::new(Inventory::new()));
    let name = match &config.datastore {
        Datastore::None => return inventory,
        Datastore::Etcd(_) => "etcd",
        Datastore::Kubernetes(_) => "the Kubernetes API server",
    };
    if let Err(error) = start::follow(config, &inventory) {
        findings.wrong(SUBJECT, format!("its follower cannot be started: {error}"));
        return inventory;
    }
    wait_until(PATIENCE, || inventory.synced() || (!inventory.troubles().is_empty()));
    // The first problem may be temporary: an election of a leader, a slow connection.
    wait_until(Duration::from_secs(2), || inventory.synced() && inventory.troubles().is_empty());
    let troubles = inventory.troubles().join("; ");
    match (inventory.synced() && inventory.up(), inventory.workload_count()) {
        (false, _) if troubles.is_empty() => findings
            .wrong(SUBJECT, format!("{name} did not answer within {} s", PATIENCE.as_secs()))
            .hint("check its address, and whether this node can reach it"),
        (false, _) => findings.wrong(SUBJECT, troubles).hint("names come from there; until it answers, /readyz answers 503"),
        (true, 0) => findings
            .note(SUBJECT, format!("{name} answers, and has no workload of node {:?}", config.node_name))
            .hint("if pods run here, set NODENAME to the node's name in Calico"),
        (true, count) => findings.ok(SUBJECT, format!("{name} answers, {count} workloads of this node")),
    };
    inventory
}

/// Checks the folder of the pods' logs. Without a datastore all names come from there.
pub fn pod_logs(tool: &Tool, findings: &mut Findings) {
    const SUBJECT: &str = "pod logs";
    let config = &tool.config;
    let (is_needed, folder) = (config.datastore == Datastore::None && tool.problems.is_empty(), config.pod_logs.display());
    match of_node(config).workloads(&["cali00000000000"]) {
        Ok(_) => findings.ok(SUBJECT, format!("{folder} can be read")),
        Err(error) if is_needed => findings.wrong(SUBJECT, error.to_string()),
        Err(error) => findings.warn(SUBJECT, error.to_string()).hint("workloads that the datastore does not name have no name"),
    };
}

fn of_node(config: &Config) -> PodLogs {
    PodLogs::new(config.pod_logs.clone(), "/proc".into(), config.node_name.clone())
}

/// Checks whether workloads with rules have names, and workloads with names have rules.
pub fn workloads(config: &Config, interfaces: &[&str], inventory: &Inventory, findings: &mut Findings) {
    const SUBJECT: &str = "workloads";
    let all = interfaces.len();
    let unknown: Vec<&str> = interfaces.iter().copied().filter(|interface| inventory.workload(interface).is_none()).collect();
    let named = of_node(config).workloads(&unknown).map_or(0, |named| named.len());
    let (stored, nameless) = (all - unknown.len(), unknown.len() - named);
    let is_answering = config.datastore != Datastore::None && inventory.synced() && inventory.up();
    if all == 0 {
        findings.note(SUBJECT, "none has rules here");
    } else if is_answering && stored == 0 {
        inventory.nodes().want();
        wait_until(PATIENCE, || inventory.nodes().stored().is_some());
        findings.wrong(SUBJECT, format!("{all} have rules, and {}", inventory.nodes().problem(&config.node_name)));
    } else if nameless > 0 {
        let stored = if config.datastore == Datastore::None { String::new() } else { format!("the datastore names {stored} of them, ") };
        findings
            .warn(SUBJECT, format!("{all} have rules: {stored}the node's own files name {named}, and {nameless} have no name"))
            .hint("normal briefly, while pods start and end");
    } else {
        let by_node = if named > 0 { format!(", {named} by the node's own files") } else { String::new() };
        findings.ok(SUBJECT, format!("all {all} that have rules are known by name{by_node}"));
    }
    let without_rules = inventory.without_rules(interfaces.iter().copied());
    if is_answering && without_rules > 0 {
        findings
            .warn(SUBJECT, format!("{without_rules} that the datastore knows have no rules here"))
            .hint("normal briefly, while pods start; otherwise Felix writes to another dataplane, or not at all");
    }
}
