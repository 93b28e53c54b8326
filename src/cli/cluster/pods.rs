//! Finds the pods that a command for all nodes means. Kubernetes' API knows their nodes, and those nodes' exporters know their interfaces.
//! Without that API, all named nodes are asked for the pods.

use std::collections::BTreeSet;

use super::{Answers, Node, Silent, ask, exporters, lookup};
use crate::config::{Nodes, Tool};
use crate::datastore::inventory::Interface;
use crate::kubernetes::{Lookup, Pod, Query};
use crate::report::{Workload, WorkloadsAnswer};

/// The maximum number of pods that are shown together.
const MOST: usize = 20;

/// The kinds of pods' owners, and their common names.
const KINDS: [(&str, &[&str]); 5] = [
    ("deployment", &["deploy", "deployment", "deployments", "deployment.apps"]),
    ("statefulset", &["sts", "statefulset", "statefulsets", "statefulset.apps"]),
    ("daemonset", &["ds", "daemonset", "daemonsets", "daemonset.apps"]),
    ("replicaset", &["rs", "replicaset", "replicasets", "replicaset.apps"]),
    ("job", &["job", "jobs", "job.batch"]),
];

#[derive(Debug, PartialEq, Eq)]
enum Whose<'a> {
    Pod { namespace: Option<&'a str>, name: &'a str },
    Owned { namespace: &'a str, kind: &'static str, name: &'a str },
    Labelled { namespace: Option<&'a str>, labels: &'a str },
}

fn whose<'a>(operand: &'a str, namespace: Option<&'a str>) -> Result<Whose<'a>, String> {
    if operand.contains('=') {
        return Ok(Whose::Labelled { namespace, labels: operand });
    }
    let Some((before, name)) = operand.split_once('/') else { return Ok(Whose::Pod { namespace, name: operand }) };
    let kind = KINDS.iter().find(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(before)));
    // A namespace may have the same name as a kind, so `job/x` without --namespace is ambiguous.
    match (kind, namespace) {
        (Some((kind, _)), Some(namespace)) => Ok(Whose::Owned { namespace, kind, name }),
        (Some(_), None) => Err(format!("{operand}: say its namespace, too: --namespace NAMESPACE")),
        (None, Some(namespace)) if namespace != before => {
            Err(format!("{operand}: this is in namespace {before}, and --namespace says {namespace}"))
        }
        (None, _) => Ok(Whose::Pod { namespace: Some(before), name }),
    }
}

/// A workload on a node.
pub struct Place {
    pub node: Node,
    pub interface: String,
}

pub struct Found {
    pub places: Vec<Place>,
    /// Nodes that could not give a pod's data, and why.
    pub silent: Vec<Silent>,
    /// The number of pods beyond the maximum.
    pub more: usize,
}

pub fn find(tool: &Tool, meant: &Nodes, operand: &str) -> Result<Found, String> {
    let whose = whose(operand, tool.namespace.as_deref())?;
    let pods = match (lookup(&tool.config), meant) {
        (Some(mut lookup), Nodes::WithPods(_)) => Some(pods(&mut lookup, &whose).map_err(|error| error.to_string())?),
        _ => None,
    };
    if pods.as_ref().is_some_and(Vec::is_empty) {
        return Err(format!("the cluster has no pod {}", said(&whose)));
    }
    let nodes = asked(tool, meant, pods.as_deref())?;
    let all = ask(&nodes, "workloads", |answer: WorkloadsAnswer| answer);
    let (mut places, silent) = match &pods {
        Some(pods) => places_of(pods, &nodes, &all),
        None => (matching(&whose, &nodes, &all)?, all.silent),
    };
    let more = places.len().saturating_sub(MOST);
    places.truncate(MOST);
    if places.is_empty() && silent.is_empty() {
        return Err(format!("no node has rules for {}", said(&whose)));
    }
    Ok(Found { places, silent, more })
}

fn pods(lookup: &mut Lookup, whose: &Whose) -> Result<Vec<Pod>, crate::kubernetes::Error> {
    let query = match *whose {
        Whose::Pod { namespace, name } => Query { namespace, name: Some(name), ..Query::default() },
        Whose::Owned { namespace, .. } => Query { namespace: Some(namespace), ..Query::default() },
        Whose::Labelled { namespace, labels } => Query { namespace, labels: Some(labels), ..Query::default() },
    };
    let mut pods = lookup.pods(query)?;
    if let Whose::Owned { kind, name, .. } = whose {
        pods.retain(|pod| pod.belongs_to(kind, name));
    }
    // If there are several, ended ones are left out.
    if pods.len() > 1 {
        pods.retain(|pod| !pod.is_finished);
    }
    Ok(pods)
}

/// Returns the exporters to ask: those of the pods' nodes, or all.
fn asked(tool: &Tool, meant: &Nodes, pods: Option<&[Pod]>) -> Result<Vec<Node>, String> {
    let Some(pods) = pods else { return exporters(&tool.config, meant, None) };
    let wanted: BTreeSet<&str> =
        pods.iter().filter(|pod| !pod.host_network).map(|pod| &*pod.node).filter(|node| !node.is_empty()).collect();
    let only = wanted.first().copied().filter(|_| wanted.len() == 1);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut nodes = exporters(&tool.config, meant, only)?;
    nodes.retain(|node| wanted.contains(&*node.name));
    Ok(nodes)
}

/// Returns the places of the pods, and why some could not be found.
fn places_of(pods: &[Pod], nodes: &[Node], all: &Answers<WorkloadsAnswer>) -> (Vec<Place>, Vec<Silent>) {
    let (mut places, mut missing) = (Vec::new(), Vec::<Silent>::new());
    for pod in pods {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let node = nodes.iter().find(|node| node.name == pod.node);
        let answer = all.answered.iter().find(|(node, _)| *node == pod.node).map(|(_, answer)| answer);
        // Also if the exporter does not know the name.
        let suffix = Interface::suffix_of(&pod.namespace, &pod.name);
        let is_meant =
            |w: &&Workload| (*w.namespace == *pod.namespace && *w.pod == *pod.name) || (!w.known && w.interface.ends_with(&suffix));
        let workload = answer.and_then(|answer| answer.workloads.iter().find(is_meant));
        if let (Some(node), Some(workload)) = (node, workload) {
            places.push(Place { node: node.clone(), interface: workload.interface.to_string() });
            continue;
        }
        let silent = all.silent.iter().find(|silent| silent.node == pod.node);
        let problem = match (silent, answer) {
            _ if pod.node.is_empty() => format!("pod {name} has no node yet"),
            _ if pod.host_network => format!("pod {name} is in its node's own network: only policies of host endpoints reach it"),
            (Some(silent), _) => silent.problem.clone(),
            (None, None) => format!("it has no exporter to tell of pod {name}"),
            (None, Some(answer)) if !answer.status.up => {
                format!("the exporter cannot read its rules: {}", answer.status.problem.as_deref().unwrap_or_default())
            }
            (None, Some(_)) if pod.is_finished => format!("pod {name} has ended, and has no rules any more"),
            (None, Some(_)) => format!("it has no rules for pod {name}"),
        };
        let hint = silent.map_or("", |silent| silent.hint);
        let silent = Silent { node: pod.node.clone(), problem, hint };
        if !missing.contains(&silent) {
            missing.push(silent);
        }
    }
    (places, missing)
}

/// Returns the nodes' workloads that match.
fn matching(whose: &Whose, nodes: &[Node], all: &Answers<WorkloadsAnswer>) -> Result<Vec<Place>, String> {
    let (namespace, pod, app) = match *whose {
        Whose::Pod { namespace, name } => (namespace, Some(name), None),
        Whose::Labelled { namespace, labels } => match labels.trim_start_matches("app=") {
            app if app.len() + 4 == labels.len() => (namespace, None, Some(app)),
            _ => {
                return Err(format!(
                    "{labels}: exporters know the label app alone, as in app=web; Kubernetes' API knows others: --cluster"
                ));
            }
        },
        Whose::Owned { kind, .. } => return Err(format!("only Kubernetes' API tells which pods are a {kind}'s: --cluster")),
    };
    let is_meant = |workload: &Workload| {
        namespace.is_none_or(|namespace| *workload.namespace == *namespace)
            && pod.is_none_or(|pod| *workload.pod == *pod || *workload.interface == *pod)
            && app.is_none_or(|app| *workload.app == *app)
    };
    let mut places = Vec::new();
    for (name, answer) in &all.answered {
        let Some(node) = nodes.iter().find(|node| node.name == *name) else { continue };
        places.extend(
            answer
                .workloads
                .iter()
                .filter(|workload| is_meant(workload))
                .map(|workload| Place { node: node.clone(), interface: workload.interface.to_string() }),
        );
    }
    Ok(places)
}

fn said(whose: &Whose) -> String {
    match whose {
        Whose::Pod { namespace: Some(namespace), name } => format!("{namespace}/{name}"),
        Whose::Pod { namespace: None, name } => (*name).to_owned(),
        Whose::Owned { namespace, kind, name } => format!("of {kind} {namespace}/{name}"),
        Whose::Labelled { namespace: Some(namespace), labels } => format!("with the labels {labels} in namespace {namespace}"),
        Whose::Labelled { namespace: None, labels } => format!("with the labels {labels}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_pods_are_meant() {
        let pod = |namespace, name| Ok(Whose::Pod { namespace, name });
        for (operand, namespace, expected) in [
            ("shop/web-1", None, pod(Some("shop"), "web-1")),
            ("shop/web-1", Some("shop"), pod(Some("shop"), "web-1")),
            ("web-1", Some("shop"), pod(Some("shop"), "web-1")),
            ("web-1", None, pod(None, "web-1")),
            ("Deploy/web", Some("shop"), Ok(Whose::Owned { namespace: "shop", kind: "deployment", name: "web" })),
            ("app=web", None, Ok(Whose::Labelled { namespace: None, labels: "app=web" })),
            ("deploy/web", None, Err("deploy/web: say its namespace, too: --namespace NAMESPACE".into())),
            ("shop/web-1", Some("infra"), Err("shop/web-1: this is in namespace shop, and --namespace says infra".into())),
        ] {
            assert_eq!(whose(operand, namespace), expected, "{operand} {namespace:?}");
        }
    }
}
