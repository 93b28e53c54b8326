//! What was seen in all, and what is said beside it. Pure.

use std::collections::BTreeMap;

use super::super::terminal::{LONGEST, columns, safe};
use super::rules::Endpoints;
use crate::config::Watch;
use crate::kernel::trace::Marked;
use crate::report::{Line, network_policies};

/// Rows of what was seen in all.
const MOST_ROWS: usize = 30;
/// Different rows that are counted.
const MOST_COUNTED: usize = 10_000;

/// What was shown, counted by everything but time and source port.
#[derive(Debug, Default)]
pub struct Seen {
    rows: BTreeMap<Vec<String>, u64>,
    /// One of each row.
    lines: Vec<Line>,
    pub packets: u64,
}

impl Seen {
    pub fn add(&mut self, line: Line) {
        self.packets += 1;
        let row: Vec<String> =
            line.way().into_iter().chain([line.verdict.to_string(), line.because()]).map(|text| safe(&text, LONGEST)).collect();
        if self.rows.len() < MOST_COUNTED || self.rows.contains_key(&row) {
            let packets = self.rows.entry(row).or_default();
            *packets += 1;
            if *packets == 1 {
                self.lines.push(line);
            }
        }
    }

    /// What would accept the packets that this policy accepted, as YAML.
    pub fn allowing(&self, policy: &str) -> String {
        let accepted = |line: &&Line| line.policy.as_deref() == Some(policy) && line.verdict == "accept";
        let yaml = network_policies(self.lines.iter().filter(accepted));
        match yaml.is_empty() {
            true => String::new(),
            false => format!("\n# These would accept what was seen of {}:\n{yaml}", safe(policy, LONGEST)),
        }
    }

    /// A table, the most frequent first.
    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut rows: Vec<(&Vec<String>, &u64)> = self.rows.iter().collect();
        rows.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
        let more = rows.len().saturating_sub(MOST_ROWS);
        let table: Vec<Vec<String>> =
            rows.iter().take(MOST_ROWS).map(|(row, packets)| [vec![packets.to_string()], row.to_vec()].concat()).collect();
        let mut text = format!("\n{}\n", columns(&table, 0..1).join("\n"));
        if more > 0 {
            text.push_str(&format!("and {more} more\n"));
        }
        text
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

pub fn summary(seen: &Seen, marked: Marked, lost: u64, unclear: u64, rate: u32) -> String {
    let Marked { seen: all, marked } = marked;
    let sample = match all > marked {
        true => format!("{marked} of {all} packets were traced (at most {rate} a second)"),
        false => format!("all {all} packets were traced"),
    };
    let mut text = format!("{sample}; {} shown", seen.packets);
    if lost > 0 {
        text.push_str(&format!("; {lost} were lost"));
    }
    if unclear > 0 {
        text.push_str(&format!("; {unclear} hit rules that were being changed"));
    }
    text
}
