//! Formats pipelines as text for the terminal. Pure.

use crate::cli::EBPF;
use crate::cli::terminal::{LONGEST, at_least, columns, not_understood, safe, width, wrapped};
use crate::felix::{Decision, Direction};
use crate::report::{Counts, DefaultAction, Group, HostEndpoint, Pipeline, PolicyCounts, Status, Target, Tier, Workload, WorkloadAnswer};

/// Returns a workload's name: its namespace and pod, otherwise its interface.
pub fn name(workload: &Workload, width: usize) -> String {
    match (&*workload.namespace, &*workload.pod) {
        ("", "") => safe(&workload.interface, width),
        (namespace, "") => safe(&format!("{namespace}/{}", workload.interface), width),
        (namespace, pod) => safe(&format!("{namespace}/{pod}"), width),
    }
}

/// Formats a workload's pipelines. `about` describes the source of the numbers.
pub fn workload(answer: &WorkloadAnswer, about: &str) -> String {
    let workload = &answer.workload;
    let mut title = vec![name(workload, LONGEST)];
    if workload.known {
        title.push(format!("interface {}", safe(&workload.interface, LONGEST)));
    }
    title.extend(workload.ip.iter().map(|ip| safe(ip, LONGEST)));
    if !workload.app.is_empty() {
        title.push(format!("app {}", safe(&workload.app, LONGEST)));
    }
    text(&title.join("  "), about, &answer.status, answer.directions.iter())
}

pub fn host_endpoints(hosts: &[HostEndpoint], status: &Status, about: &str) -> String {
    let texts = hosts.iter().map(|host| {
        let title = format!("Host endpoint {}  stage {}", safe(&host.interface, LONGEST), safe(&host.stage, LONGEST));
        text(&title, about, status, host.directions.iter())
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn text<'a>(title: &str, about: &str, status: &Status, pipelines: impl Iterator<Item = &'a Pipeline>) -> String {
    let mut text = format!("{title}\n{}\n", safe(about, 400));
    if let Some(problem) = status.problem.as_deref().filter(|_| !status.up) {
        text += &format!("The kernel cannot be read now: {}\n", safe(problem, 400));
    }
    if status.is_ebpf() {
        text += &format!("{EBPF}\n");
    }
    if status.unrecognised_rules > 0 {
        text += &format!("{}\n", not_understood(status.unrecognised_rules));
    }
    for pipeline in pipelines {
        text += "\n";
        let mut rows = rows(pipeline);
        if let Some(width) = width() {
            rows = wrapped(rows, width);
        }
        for line in columns(&rows, 1..4) {
            text += &line;
            text += "\n";
        }
    }
    text
}

/// Returns a row with three numbers: accepted, denied, passed on.
fn row(text: impl Into<String>, numbers: [&str; 3]) -> Vec<String> {
    [text.into()].into_iter().chain(numbers.map(str::to_owned)).collect()
}

fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

fn rows(pipeline: &Pipeline) -> Vec<Vec<String>> {
    let title = match pipeline.direction {
        Direction::Ingress => "INGRESS, to the endpoint",
        Direction::Egress => "EGRESS, from the endpoint",
    };
    let mut rows = vec![row(title, ["accepted", "denied", "passed on"])];
    if let Some(established) = pipeline.established {
        rows.push(row("connections that are open already", [&established.to_string(), "", ""]));
    }
    for refused in &pipeline.before {
        rows.push(row(reason(&refused.reason), ["", &known(refused.packets), ""]));
    }
    for tier in &pipeline.tiers {
        rows.extend(tier_rows(tier));
    }
    for profile in &pipeline.profiles {
        let name = if profile.profile.is_empty() { "profiles".to_owned() } else { format!("profile {}", safe(&profile.profile, LONGEST)) };
        rows.push(row(name, [&known(profile.accept), "", ""]));
    }
    if let Some(packets) = pipeline.by_profile {
        rows.push(row("denied by a profile", ["", &packets.to_string(), ""]));
    }
    if let Some(packets) = pipeline.no_profile {
        rows.push(row("no profile accepted", ["", &packets.to_string(), ""]));
    }
    if let Some(packets) = pipeline.undivided {
        rows.push(row("one of these policies and profiles; which one is unknown", [&packets.to_string(), "", ""]));
    }
    rows.push(sum(pipeline));
    rows
}

fn sum(pipeline: &Pipeline) -> Vec<String> {
    let sums = pipeline.sums();
    let (accepted, refused) = (at_least(sums.accepted, sums.accepted_exact), at_least(sums.dropped, sums.exact));
    row("sum, without open connections", [&accepted, &refused, ""])
}

/// Describes why packets are refused before policies are evaluated.
fn reason(reason: &str) -> String {
    match reason {
        "invalid" => "invalid to connection tracking".to_owned(),
        "encapsulation" => "VXLAN or IP-in-IP from a workload".to_owned(),
        "rate_limit" => "over the packet rate limit".to_owned(),
        "connection_limit" => "over the connection limit".to_owned(),
        "policy_or_none" => "denied by a policy, or by none: which is unknown".to_owned(),
        "admin_down" => "the endpoint is administratively down".to_owned(),
        other => safe(other, LONGEST),
    }
}

fn tier_rows(tier: &Tier) -> Vec<Vec<String>> {
    let mut rows = vec![row(format!("tier {}", safe(&tier.tier, LONGEST)), ["", "", ""])];
    for (number, target) in tier.targets.iter().enumerate() {
        match target {
            Target::Policy(policy) => rows.extend(policy_rows(&format!("  {}. ", number + 1), policy)),
            Target::Group(group) => rows.extend(group_rows(number + 1, group)),
        }
    }
    match (tier.default_action, tier.no_policy) {
        (DefaultAction::Deny, packets) => rows.push(row("  no policy decided", ["", &known(packets), ""])),
        (DefaultAction::Pass, _) => rows.push(row("  no policy decided: passed on", ["", "", ""])),
    }
    rows
}

fn policy_rows(lead: &str, policy: &PolicyCounts) -> Vec<Vec<String>> {
    let kind = if policy.kind.is_empty() { String::new() } else { format!("{} ", policy.kind) };
    let namespace = policy.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let name = format!("{lead}{}", safe(&format!("{kind}{namespace}{}", policy.name), LONGEST));
    let most = policy.at_most.unwrap_or_default();
    let number = |can: Decision, of: fn(&Counts) -> Option<u64>| match (of(&policy.counts), of(&most)) {
        (Some(packets), _) => packets.to_string(),
        (None, Some(most)) => format!("<={most}"),
        (None, None) if policy.can.contains(&can) => "?".to_owned(),
        (None, None) => "-".to_owned(),
    };
    let numbers = [number(Decision::Accept, |c| c.accept), number(Decision::Deny, |c| c.deny), number(Decision::Pass, |c| c.pass)];
    let mut rows = vec![row(name, numbers.each_ref().map(String::as_str))];
    rows.extend(policy.counts.deny_or_pass.map(|packets| denied_or_passed(lead.len(), packets)));
    rows
}

fn denied_or_passed(indent: usize, packets: u64) -> Vec<String> {
    row(format!("{:indent$}denied or passed on: {packets}", ""), ["", "", ""])
}

fn group_rows(number: usize, group: &Group) -> Vec<Vec<String>> {
    let rest = &group.undivided;
    let cell = |can: Decision, count: Option<u64>| match count {
        Some(packets) => packets.to_string(),
        None if group.policies.iter().any(|policy| policy.can.contains(&can)) => "?".to_owned(),
        None => "-".to_owned(),
    };
    let numbers = [cell(Decision::Accept, rest.accept), cell(Decision::Deny, rest.deny), cell(Decision::Pass, rest.pass)];
    let title = format!("  {number}. group of {}, not divisible", group.policies.len());
    let mut rows = vec![row(title, numbers.each_ref().map(String::as_str))];
    rows.extend(rest.deny_or_pass.filter(|packets| *packets > 0).map(|packets| denied_or_passed(5, packets)));
    for (place, policy) in group.policies.iter().enumerate() {
        rows.extend(policy_rows(&format!("     {number}.{} ", place + 1), policy));
    }
    rows
}
