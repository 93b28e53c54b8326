//! `policies`: what each policy's own rules counted, on this node or on all nodes, and which were never hit.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::cluster::{self, Answers, Silent};
use super::source::Source;
use super::terminal::{LONGEST, columns, safe};
use super::top::exit_code;
use super::{json, print};
use crate::config::{Input, Tool};
use crate::report::{PoliciesAnswer, Policy};

/// The sum of one policy over all nodes. See docs/api.md.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Sum {
    policy: Arc<str>,
    kind: Arc<str>,
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    tier: Arc<str>,
    hit: bool,
    accept: Option<u64>,
    deny: Option<u64>,
    pass: Option<u64>,
    /// The number of workloads it applies to. The next fields: of host endpoints, and of nodes.
    workloads: usize,
    host_endpoints: usize,
    nodes: usize,
}

#[derive(Serialize)]
struct Answer<'a> {
    policies: &'a [Sum],
    /// The number of nodes that answered with current counts.
    nodes: usize,
    silent: &'a [Silent],
}

pub fn run(tool: &Tool, only_never_hit: bool, as_json: bool) -> Result<ExitCode, String> {
    let since = if matches!(&tool.input, Input::Files { before, .. } if !before.is_empty()) { BETWEEN } else { EVER };
    let (mut answers, mut about, is_cluster) = match &tool.input {
        Input::Cluster(nodes) => {
            let answers =
                cluster::ask(&cluster::exporters(&tool.config, nodes, None)?, "policies", |answer: PoliciesAnswer<'static>| answer);
            let about = answers.about();
            (answers, about, true)
        }
        _ => {
            let source = Source::find(tool, true)?;
            let answer = source.policies()?;
            let about = vec![source.about(&answer.status)];
            (Answers { answered: vec![(String::new(), answer)], silent: vec![] }, about, false)
        }
    };
    // Counts that are not current prove nothing.
    let stale: Vec<(String, PoliciesAnswer)> = answers.answered.extract_if(.., |(_, answer)| !answer.status.up).collect();
    for (node, answer) in stale {
        let problem = format!("its counters cannot be read: {}", answer.status.problem.as_deref().unwrap_or_default());
        about.push(if is_cluster { format!("Node {}: {problem}", safe(&node, LONGEST)) } else { problem.clone() });
        answers.silent.push(Silent { node, problem, hint: "" });
    }
    let is_meant = |policy: &Policy| tool.namespace.as_ref().is_none_or(|namespace| policy.namespace.as_deref() == Some(namespace));
    if as_json && !is_cluster && answers.silent.is_empty() {
        let answer = &mut answers.answered[0].1;
        answer.policies.to_mut().retain(|policy| is_meant(policy) && !(only_never_hit && policy.hit));
        print(&json(answer)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut sums = sums(&answers, is_meant);
    sums.retain(|sum| !(only_never_hit && sum.hit));
    let (nodes, silent) = (answers.answered.len(), &answers.silent);
    print(&if as_json { json(&Answer { policies: &sums, nodes, silent })? } else { text(&about, &sums, is_cluster, silent.len(), since) })?;
    Ok(exit_code(silent.is_empty()))
}

fn sums(answers: &Answers<PoliciesAnswer>, is_meant: impl Fn(&Policy) -> bool) -> Vec<Sum> {
    let mut sums = BTreeMap::<(Arc<str>, Arc<str>), Sum>::new();
    for policy in answers.answered.iter().flat_map(|(_, answer)| answer.policies.iter()).filter(|policy| is_meant(policy)) {
        let sum = sums.entry((Arc::clone(&policy.policy), Arc::clone(&policy.tier))).or_insert_with(|| Sum {
            policy: Arc::clone(&policy.policy),
            kind: Arc::clone(&policy.kind),
            namespace: policy.namespace.clone(),
            name: Arc::clone(&policy.name),
            tier: Arc::clone(&policy.tier),
            hit: false,
            accept: None,
            deny: None,
            pass: None,
            workloads: 0,
            host_endpoints: 0,
            nodes: 0,
        });
        let add = |to: &mut Option<u64>, more: Option<u64>| *to = more.map(|more| to.unwrap_or(0).saturating_add(more)).or(*to);
        sum.hit |= policy.hit;
        add(&mut sum.accept, policy.accept);
        add(&mut sum.deny, policy.deny);
        add(&mut sum.pass, policy.pass);
        sum.workloads += policy.workloads.len();
        sum.host_endpoints += policy.host_endpoints.len();
        sum.nodes += 1;
    }
    let mut sums: Vec<Sum> = sums.into_values().collect();
    let total = |sum: &Sum| [sum.accept, sum.deny, sum.pass].into_iter().flatten().fold(0_u64, u64::saturating_add);
    sums.sort_by_key(|sum| std::cmp::Reverse((sum.hit, total(sum))));
    sums
}

/// The meaning of a policy that was not hit.
const EVER: &str = "Never hit: no rule of theirs has counted a packet since Felix wrote it.";
const BETWEEN: &str = "Not hit between the two moments.";

fn text(about: &[String], sums: &[Sum], is_cluster: bool, silent: usize, since: &str) -> String {
    let heading = ["ACCEPTED", "DENIED", "PASSED", "WORKLOADS", "NODES", "POLICY", "TIER"].map(str::to_owned).to_vec();
    let row = |sum: &Sum| {
        let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let namespace = sum.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let kind = if sum.kind.is_empty() { String::new() } else { format!("{} ", sum.kind) };
        let hosts =
            if sum.host_endpoints > 0 { format!("{}+{} host", sum.workloads, sum.host_endpoints) } else { sum.workloads.to_string() };
        let name = safe(&format!("{kind}{namespace}{}", sum.name), LONGEST);
        vec![number(sum.accept), number(sum.deny), number(sum.pass), hosts, sum.nodes.to_string(), name, safe(&sum.tier, LONGEST)]
    };
    let mut rows: Vec<Vec<String>> = std::iter::once(heading).chain(sums.iter().map(row)).collect();
    if !is_cluster {
        rows.iter_mut().for_each(|row| _ = row.remove(4));
    }
    let mut table = columns(&rows, 0..if is_cluster { 5 } else { 4 });
    let hit = sums.iter().filter(|sum| sum.hit).count();
    let never = match (sums.len() - hit, silent) {
        (0, 0) => "Each was hit.".to_owned(),
        (0, _) => "Each was hit; there may be more on the nodes that are missing.".to_owned(),
        (_, 0) => since.to_owned(),
        _ => "Never hit on the nodes that answered; what the others count is not known.".to_owned(),
    };
    if sums.is_empty() {
        table = vec![if silent == 0 { "None.".to_owned() } else { "None is known.".to_owned() }];
    } else if hit == sums.len() {
        table.extend([String::new(), never]);
    } else {
        table.splice(hit + 1..hit + 1, [String::new(), never]);
    }
    [about.to_vec(), vec![String::new()], table].concat().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;
    use std::borrow::Cow;

    fn node(policies: &[(&str, Option<u64>, Option<u64>)]) -> (String, PoliciesAnswer<'static>) {
        let policy = |(name, accept, deny): &(&str, Option<u64>, Option<u64>)| Policy {
            policy: format!("default.{name}").into(),
            kind: "NetworkPolicy".into(),
            namespace: Some("shop".into()),
            name: (*name).into(),
            tier: "default".into(),
            since: None,
            hit: accept.or(*deny) > Some(0),
            accept: *accept,
            deny: *deny,
            pass: None,
            workloads: vec![],
            host_endpoints: vec![],
            rules: vec![],
        };
        let status = Cow::Owned(Status { up: true, ..Status::default() });
        (String::new(), PoliciesAnswer { status, policies: policies.iter().map(policy).collect() })
    }

    #[test]
    fn what_one_node_hits_is_hit() {
        let answered = vec![node(&[("a", Some(0), None), ("b", Some(0), Some(0))]), node(&[("a", Some(7), None), ("c", None, Some(9))])];
        let sums = sums(&Answers { answered, silent: vec![] }, |_| true);
        let found: Vec<_> = sums.iter().map(|sum| (&*sum.name, sum.hit, sum.accept, sum.deny, sum.nodes)).collect();
        assert_eq!(found, [("c", true, None, Some(9), 1), ("a", true, Some(7), None, 2), ("b", false, Some(0), Some(0), 1)]);
        let text = |silent| text(&["about".into()], &sums, true, silent, EVER);
        let found = text(0);
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines[6], EVER, "{lines:#?}");
        assert!(lines[4].contains("shop/a") && lines[7].contains("shop/b"), "{lines:#?}");
        // A policy may have been hit on a node that did not answer.
        assert!(text(1).contains("Never hit on the nodes that answered"));
    }
}
