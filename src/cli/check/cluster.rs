//! `check --cluster`: reports Calico's nodes without an exporter, exporters that do not answer, and problems that the others report. Asks
//! Kubernetes' API and the exporters.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::{Findings, Level};
use crate::cli::cluster::{self, few};
use crate::config::{Config, Nodes, Tool};
use crate::kubernetes::Query;
use crate::report::Status;

/// The pods that Calico's manifests and its operator create on each node.
const CALICO: &str = "k8s-app=calico-node";

type Reasons = BTreeMap<(Level, &'static str, String, String), Vec<String>>;

pub fn findings(tool: &Tool, meant: &Nodes) -> Result<Findings, String> {
    let mut findings = Findings::default();
    let exporters = cluster::exporters(&tool.config, meant, None)?;
    if let Nodes::WithPods(_) = meant {
        let have: BTreeSet<&str> = exporters.iter().map(|node| &*node.name).collect();
        without_exporter(&tool.config, &have, &mut findings)?;
    }
    let answers = cluster::ask(&exporters, "status", |status: Status| status);
    let mut reasons = Reasons::new();
    for silent in &answers.silent {
        let reason = (Level::Wrong, "exporter", silent.why().to_owned(), silent.hint.to_owned());
        reasons.entry(reason).or_default().push(silent.node.clone());
    }
    for (node, status) in &answers.answered {
        for reason in of(status) {
            reasons.entry(reason).or_default().push(node.clone());
        }
    }
    versions(&answers.answered, &mut reasons);
    let well = answers.answered.iter().filter(|(node, _)| !reasons.values().flatten().any(|bad| bad == node)).count();
    if well > 0 {
        findings.ok(
            "exporter",
            format!(
                "{} well",
                match well {
                    1 => "1 answers, and is".to_owned(),
                    _ => format!("{well} answer, and are"),
                }
            ),
        );
    }
    for ((level, subject, text, hint), names) in reasons {
        findings.of_nodes(level, subject, text, hint, names);
    }
    Ok(findings)
}

fn without_exporter(config: &Config, have: &BTreeSet<&str>, findings: &mut Findings) -> Result<(), String> {
    let Some(mut lookup) = cluster::lookup(config) else { return Ok(()) };
    let pods = lookup.pods(Query { labels: Some(CALICO), ..Query::default() }).map_err(|error| error.to_string())?;
    let nodes: BTreeSet<String> = pods.into_iter().map(|pod| pod.node).filter(|node| !node.is_empty()).collect();
    let missing: Vec<String> = nodes.iter().filter(|node| !have.contains(&***node)).cloned().collect();
    match (nodes.len(), missing.is_empty()) {
        (0, _) => findings.note("nodes", format!("no pod has the label {CALICO}: whether a node lacks an exporter is not known")),
        (all, true) => findings.ok("nodes", format!("each of the {} that run Calico has an exporter", cluster::nodes(all))),
        (_, false) => {
            let hint = "does the DaemonSet tolerate their taints, and select them?";
            findings.of_nodes(Level::Wrong, "nodes", "without an exporter".to_owned(), hint.to_owned(), missing)
        }
    };
    Ok(())
}

/// Returns the problems that an exporter reports.
fn of(status: &Status) -> Vec<(Level, &'static str, String, String)> {
    let mut found = Vec::new();
    let mut add = |level, subject, text: String| found.push((level, subject, text, String::new()));
    if !status.up {
        add(Level::Wrong, "rules", status.problem.clone().unwrap_or_else(|| "were not read yet".into()));
    }
    if let Some(problem) = &status.datastore.problem {
        add(Level::Warn, "datastore", problem.clone());
    }
    if let Some(problem) = &status.node_problem {
        add(Level::Warn, "node name", problem.clone());
    }
    if status.unrecognised_rules > 0 {
        add(Level::Warn, "rules", crate::cli::terminal::not_understood(status.unrecognised_rules));
    }
    if let Some(other) = status.other_backends.iter().find(|other| other.evidence.is_none()) {
        add(
            Level::Warn,
            "rules",
            format!("the back end {} holds chains of endpoints, too, and nothing tells which is live", other.backend),
        );
    }
    if status.workloads.unknown > 0 {
        add(Level::Warn, "workloads", "some have rules and no name".into());
    }
    found
}

/// Reports different versions, as during an upgrade, or after an incomplete one.
fn versions(answers: &[(String, Status)], reasons: &mut Reasons) {
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    answers.iter().for_each(|(node, status)| versions.entry(&status.version).or_default().push(node));
    let Some(usual) = versions.iter().max_by_key(|(_, nodes)| nodes.len()).map(|(version, _)| (*version).to_owned()) else { return };
    for (version, nodes) in versions.into_iter().filter(|(version, _)| **version != *usual) {
        let text = format!("is version {version}, and most are {usual}");
        reasons.insert((Level::Warn, "exporter", text, String::new()), nodes.into_iter().map(str::to_owned).collect());
    }
}

/// Lists some of the nodes for a finding.
pub fn named(nodes: &[String]) -> String {
    few(&nodes.iter().map(|node| &**node).collect::<Vec<_>>())
}
