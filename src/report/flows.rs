//! Witnesses grouped by what they have in common: source, destination, port and decision. `watch`, `explain`, the page and drafts of
//! policies all show these. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::witnesses::{Flow, Line, TracingStatus, WitnessesAnswer};

/// The most flows that are counted.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub struct Flows {
    /// How many packets, and when the last one came.
    counts: BTreeMap<Flow, (u64, String)>,
    /// Of all flows, including those that are not counted separately.
    pub packets: u64,
}

/// A flow, and how many of its packets were witnessed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowCount {
    pub packets: u64,
    pub last: String,
    #[serde(flatten)]
    pub flow: Flow,
}

/// The answer of `/api/v1/flows`: see docs/api.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowsAnswer {
    #[serde(flatten)]
    pub tracing: TracingStatus,
    pub flows: Vec<FlowCount>,
}

impl Flows {
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut flows = Flows::default();
        lines.into_iter().for_each(|line| flows.add(line));
        flows
    }

    pub fn add(&mut self, line: &Line) {
        self.packets += 1;
        if let Some((packets, last)) = self.counts.get_mut(&line.flow) {
            *packets += 1;
            if line.time > *last {
                last.clone_from(&line.time);
            }
        } else if self.counts.len() < MOST {
            self.counts.insert(line.flow.clone(), (1, line.time.clone()));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.counts.keys()
    }

    /// Returns the flows, the most frequent first.
    pub fn into_sorted(self) -> Vec<FlowCount> {
        let mut flows: Vec<FlowCount> = self.counts.into_iter().map(|(flow, (packets, last))| FlowCount { packets, last, flow }).collect();
        flows.sort_by_key(|flow| Reverse(flow.packets));
        flows
    }
}

impl WitnessesAnswer {
    /// Returns the flows of one endpoint, of one policy, or all.
    pub fn flows(&self, interface: Option<&str>, policy: Option<&str>) -> FlowsAnswer {
        let is_meant = |line: &&Line| {
            interface.is_none_or(|interface| line.flow.interface == interface) && policy.is_none_or(|policy| line.met(policy))
        };
        let flows = Flows::of(self.witnesses.iter().map(|line| &**line).filter(is_meant)).into_sorted();
        FlowsAnswer { tracing: self.tracing.clone(), flows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_came_most_often_is_first() {
        let line = |interface: &str, source: &str, passed: &[&str], second: u32| -> Arc<Line> {
            let passed: Vec<_> = passed.iter().map(|policy| ("default", policy, 0)).collect();
            serde_json::from_value(serde_json::json!({
                "time": format!("2026-01-31T23:59:0{second}.000Z"), "direction": "ingress", "interface": interface, "stage": null,
                "workload": null, "app": null, "peer": null, "peer_app": null, "source": source, "destination": "10.0.0.1",
                "protocol": "tcp", "source_port": second, "destination_port": 80, "verdict": "drop", "reason": "policy",
                "tier": "default", "policy": "default.deny", "rule": 1, "elsewhere": null, "passed": passed
            }))
            .unwrap()
        };
        let witnesses = vec![
            line("cali1", "192.0.2.1", &[], 4),
            line("cali1", "192.0.2.2", &["default.pass"], 3),
            line("cali1", "192.0.2.2", &[], 2),
            line("cali2", "::1", &["default.pass"], 1),
        ];
        let answer = WitnessesAnswer { witnesses, ..WitnessesAnswer::default() };
        for (interface, policy, expected) in [
            (None, None, &["2 cali1 192.0.2.2 03", "1 cali1 192.0.2.1 04", "1 cali2 ::1 01"][..]),
            (Some("cali2"), None, &["1 cali2 ::1 01"]),
            (Some("cali3"), None, &[]),
            (None, Some("default.pass"), &["1 cali1 192.0.2.2 03", "1 cali2 ::1 01"]),
            (Some("cali1"), Some("default.pass"), &["1 cali1 192.0.2.2 03"]),
        ] {
            let said = |of: FlowCount| format!("{} {} {} {}", of.packets, of.flow.interface, of.flow.source, &of.last[17..19]);
            let found: Vec<String> = answer.flows(interface, policy).flows.into_iter().map(said).collect();
            assert_eq!(found, expected, "{interface:?} {policy:?}");
        }
        // The API's text can be read back.
        let all = answer.flows(None, None);
        assert_eq!(serde_json::from_value::<FlowsAnswer>(serde_json::to_value(&all).unwrap()).unwrap(), all);
    }
}
