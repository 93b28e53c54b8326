//! Witnesses of one endpoint as text: from where packets came, and to which port. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::terminal::{LONGEST, columns, safe};
use crate::report::{Line, WitnessesAnswer};

/// Rows that are shown.
const MOST: usize = 20;

/// Empty where nothing is traced.
pub fn text(answer: &WitnessesAnswer, interface: &str) -> String {
    let WitnessesAnswer { mode, seen, traced, problem, .. } = answer;
    if let Some(problem) = problem {
        return format!("\nFrom where: {}\n", safe(problem, 2 * LONGEST));
    }
    let mut rows: BTreeMap<Vec<String>, (u64, &str)> = BTreeMap::new();
    for line in answer.witnesses.iter().filter(|line| line.interface == interface) {
        let (packets, last) = rows.entry(row(line)).or_default();
        *packets += 1;
        *last = &line.time;
    }
    if rows.is_empty() {
        return if mode == "off" {
            String::new()
        } else {
            format!("\nFrom where: no packet was traced yet ({traced} of {seen} on this node)\n")
        };
    }
    let mut rows: Vec<(Vec<String>, (u64, &str))> = rows.into_iter().collect();
    rows.sort_by_key(|(_, (packets, _))| std::cmp::Reverse(*packets));
    let more = rows.len().saturating_sub(MOST);
    let rows = rows.into_iter().take(MOST).map(|(row, (packets, last))| [vec![packets.to_string()], row, vec![time(last)]].concat());
    let table = columns(&rows.collect::<Vec<_>>(), 0..1).join("\n  ");
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    format!("\nFrom where, of the last packets that were traced ({traced} of {seen} on this node)\n  {table}{more}\n")
}

/// The other side, protocol and port, what became of it, and what decided.
fn row(line: &Arc<Line>) -> Vec<String> {
    let [_, arrow, peer, port] = line.way();
    [format!("{arrow} {peer}"), port, line.verdict.to_string(), line.because()].map(|text| safe(&text, LONGEST)).to_vec()
}

/// The date is that of now, as a rule.
fn time(time: &str) -> String {
    let time = time.split_once('T').map_or(time, |(_, time)| time);
    format!("last {}", safe(time.split('.').next().unwrap_or(time), LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_most_often_is_first() {
        let line = |interface: &str, source: &str, second: u32| -> Arc<Line> {
            serde_json::from_value(serde_json::json!({
                "time": format!("2026-01-31T23:59:{second}.000Z"), "direction": "ingress", "interface": interface, "stage": null,
                "workload": null, "app": null, "peer": null, "peer_app": null, "source": source, "destination": "10.0.0.1",
                "protocol": "tcp", "source_port": 1, "destination_port": 80, "verdict": "drop", "reason": "no_policy", "tier": "default",
                "policy": null, "rule": null, "elsewhere": null, "passed": []
            }))
            .unwrap()
        };
        let lines =
            [line("cali1", "192.0.2.1", 1), line("cali1", "192.0.2.22", 2), line("cali1", "192.0.2.22", 3), line("cali2", "::1", 4)];
        let answer = WitnessesAnswer { mode: "drops".into(), seen: 9, traced: 4, witnesses: lines.to_vec(), ..WitnessesAnswer::default() };
        let expected = "\nFrom where, of the last packets that were traced (4 of 9 on this node)\n  \
                        2  <- 192.0.2.22  tcp/80  drop  no policy matched (tier default)  last 23:59:3\n  \
                        1  <- 192.0.2.1   tcp/80  drop  no policy matched (tier default)  last 23:59:1\n";
        assert_eq!(text(&answer, "cali1"), expected);
        assert_eq!(text(&answer, "cali3"), "\nFrom where: no packet was traced yet (4 of 9 on this node)\n");
        assert_eq!(text(&WitnessesAnswer { mode: "off".into(), ..WitnessesAnswer::default() }, "cali1"), "");
    }
}
