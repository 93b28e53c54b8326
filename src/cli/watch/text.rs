//! Texts printed besides the packets. Pure.

use super::super::flows::table;
use super::super::terminal::{LONGEST, safe};
use super::rules::Endpoints;
use crate::config::Watch;
use crate::kernel::trace::Marked;
use crate::report::{Flows, network_policies};

/// Summarises all shown packets, the most frequent first. For one policy, adds policies as YAML that would accept what it accepted.
pub fn seen(flows: Flows, policy: Option<&str>) -> String {
    if flows.packets == 0 {
        return String::new();
    }
    let yaml = policy.map(|policy| (policy, network_policies(flows.iter().filter(|flow| flow.is_accepted_by(policy)))));
    let table = table(&flows.into_sorted(), true).join("\n");
    match yaml.filter(|(_, yaml)| !yaml.is_empty()) {
        None => format!("\n{table}\n"),
        Some((policy, yaml)) => format!("\n{table}\n\n# These would accept what was seen of {}:\n{yaml}", safe(policy, LONGEST)),
    }
}

pub fn heading(watch: &Watch, endpoints: &Endpoints) -> String {
    let whose = match (&watch.endpoint, &endpoints.interfaces) {
        (Some(endpoint), _) => safe(endpoint, LONGEST),
        (None, Some(interfaces)) => format!("{} endpoints", interfaces.len()),
        (None, None) => "all interfaces".to_owned(),
    };
    let rate = watch.rate;
    format!("Watching packets of {whose} that open a connection or belong to none, at most {rate} a second. Ctrl-C ends it.")
}

pub fn summary(shown: u64, marked: Marked, lost: u64, unclear: u64, rate: u32) -> String {
    let Marked { seen: all, marked } = marked;
    let sample = match all > marked {
        true => format!("{marked} of {all} packets were traced (at most {rate} a second)"),
        false => format!("all {all} packets were traced"),
    };
    let mut text = format!("{sample}; {shown} shown");
    if lost > 0 {
        text.push_str(&format!("; {lost} were lost"));
    }
    if unclear > 0 {
        text.push_str(&format!("; {unclear} hit rules that were being changed"));
    }
    text
}
