//! Formats groups of traced packets as text: who, to which port, and what decided. Pure.

use super::terminal::{LONGEST, columns, safe};
use crate::report::{FlowCount, FlowsAnswer, TracingStatus};

/// The maximum number of rows.
const MOST: usize = 30;

/// Formats where one endpoint's packets came from. Returns an empty text if nothing is traced.
pub fn from_where(FlowsAnswer { tracing, flows }: &FlowsAnswer) -> String {
    let TracingStatus { mode, seen, traced, problem, .. } = tracing;
    match problem {
        Some(problem) => format!("\nFrom where: {}\n", safe(problem, 2 * LONGEST)),
        None if mode == "off" => String::new(),
        None if flows.is_empty() => format!("\nFrom where: no packet was traced yet ({traced} of {seen} on this node)\n"),
        None => {
            let table = table(flows, false).join("\n  ");
            format!("\nFrom where, of the last packets that were traced ({traced} of {seen} on this node)\n  {table}\n")
        }
    }
}

/// Formats each flow with its packets and the time of the last one.
pub fn table(flows: &[FlowCount], names_endpoints: bool) -> Vec<String> {
    let row = |FlowCount { packets, last, flow }: &FlowCount| {
        let [endpoint, arrow, peer, port] = flow.way();
        // The date is usually today.
        let last = last.split_once('T').map_or(&**last, |(_, time)| time);
        let last = format!("last {}", last.split('.').next().unwrap_or(last));
        let endpoint = names_endpoints.then_some(endpoint);
        let all = [packets.to_string()].into_iter().chain(endpoint);
        let all = all.chain([format!("{arrow} {peer}"), port, flow.verdict.to_string(), flow.because(), last]);
        all.map(|text| safe(&text, LONGEST)).collect()
    };
    let mut lines = columns(&flows.iter().take(MOST).map(row).collect::<Vec<_>>(), 0..1);
    lines.extend(flows.len().checked_sub(MOST).filter(|more| *more > 0).map(|more| format!("and {more} more")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Flows;

    #[test]
    fn from_where_packets_came() {
        let line = |source: &str, second: u32| {
            serde_json::from_value(serde_json::json!({
                "time": format!("2026-01-31T23:59:0{second}.000Z"), "direction": "ingress", "interface": "cali1", "stage": null,
                "workload": null, "app": null, "peer": null, "peer_app": null, "source": source, "destination": "10.0.0.1",
                "protocol": "tcp", "source_port": 1, "destination_port": 80, "verdict": "drop", "reason": "no_policy", "tier": "default",
                "policy": null, "rule": null, "elsewhere": null, "passed": []
            }))
            .unwrap()
        };
        let all = [line("192.0.2.1", 1), line("192.0.2.22", 2), line("192.0.2.22", 3)];
        let tracing = TracingStatus { mode: "drops".into(), seen: 9, traced: 4, ..TracingStatus::default() };
        let answer = FlowsAnswer { tracing, flows: Flows::of(&all).into_sorted() };
        let expected = "\nFrom where, of the last packets that were traced (4 of 9 on this node)\n  \
                        2  <- 192.0.2.22  tcp/80  drop  no policy matched (tier default)  last 23:59:03\n  \
                        1  <- 192.0.2.1   tcp/80  drop  no policy matched (tier default)  last 23:59:01\n";
        assert_eq!(from_where(&answer), expected);
        assert_eq!(table(&answer.flows, true)[1], "1  cali1  <- 192.0.2.1   tcp/80  drop  no policy matched (tier default)  last 23:59:01");
        let many: Vec<FlowCount> = answer.flows.iter().cycle().take(MOST + 2).cloned().collect();
        assert_eq!(table(&many, false)[MOST..], ["and 2 more"]);
        assert_eq!(from_where(&FlowsAnswer { flows: vec![], ..answer }), "\nFrom where: no packet was traced yet (4 of 9 on this node)\n");
        assert_eq!(from_where(&FlowsAnswer { tracing: TracingStatus::default(), flows: vec![] }), "");
    }
}
