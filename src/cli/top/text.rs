//! Drops and workloads as tables. Pure.

use std::collections::HashMap;
use std::time::Duration;

use crate::cli::EBPF;
use crate::cli::terminal::{LONGEST, at_least, columns, safe, time};
use crate::felix::Direction;
use crate::report::{Drop, Status, Sums, Workload, WorkloadsAnswer};

type Key<'a> = (&'a str, Direction, &'a str, Option<&'a str>, Option<&'a str>);

fn key(drop: &Drop) -> Key<'_> {
    (&drop.interface, drop.direction, &drop.reason, drop.tier.as_deref(), drop.policy.as_deref())
}

/// Of each drop of `now`, packets a second since the answer before. A count that went back began again: what it shows now came since.
pub fn rates(before: &WorkloadsAnswer, now: &WorkloadsAnswer, between: Duration) -> Vec<f64> {
    let last: HashMap<Key, u64> = before.drops.iter().map(|drop| (key(drop), drop.packets)).collect();
    let seconds = between.as_secs_f64().max(0.001);
    let rate = |drop: &Drop| {
        let before = last.get(&key(drop)).copied().unwrap_or(0);
        drop.packets.checked_sub(before).unwrap_or(drop.packets) as f64 / seconds
    };
    now.drops.iter().map(rate).collect()
}

/// What the numbers are: in one line, and for how long they were watched, if that can be told.
pub struct About<'a> {
    pub line: &'a str,
    pub watched: Option<Duration>,
}

/// `rows`: of the terminal, where there is one.
pub fn page(answer: &WorkloadsAnswer, rates: Option<&[f64]>, about: &About, rows: Option<usize>) -> Vec<String> {
    let mut lines = head(&answer.status);
    lines.push(safe(about.line, LONGEST * 2));
    if answer.status.is_ebpf() {
        lines.push(EBPF.to_owned());
    }
    lines.push(String::new());
    let drops = drops(answer, rates, about.watched);
    // In a terminal drops may take what the workloads leave, but at least half.
    let room = rows.map(|rows| rows.saturating_sub(lines.len() + 3).max(6));
    let most = room.map_or(usize::MAX, |room| (room / 2).max(room.saturating_sub(answer.workloads.len() + 2)));
    lines.extend(shortened(drops, most));
    lines.push(String::new());
    let left = rows.map_or(usize::MAX, |rows| rows.saturating_sub(lines.len()));
    lines.extend(shortened(workloads(answer), left));
    lines
}

fn shortened(mut lines: Vec<String>, most: usize) -> Vec<String> {
    if lines.len() > most {
        let more = lines.len() - most.saturating_sub(1);
        lines.truncate(most.saturating_sub(1));
        lines.push(format!("… {more} more"));
    }
    lines
}

fn head(status: &Status) -> Vec<String> {
    let node = if status.node.is_empty() { String::new() } else { format!("  node {}", safe(&status.node, LONGEST)) };
    let mut lines = vec![format!("calico-accountant {}{node}", safe(&status.version, LONGEST))];
    if let Some(problem) = status.problem.as_deref().filter(|_| !status.up) {
        let what = if status.has_no_rules() { "NO RULES OF CALICO'S" } else { "The kernel cannot be read now" };
        lines.push(format!("{what}: {}", safe(problem, LONGEST * 2)));
    }
    if let Some(problem) = &status.node_problem {
        lines.push(format!("Names are missing: {}", safe(problem, LONGEST * 2)));
    }
    if let Some(problem) = &status.datastore.problem {
        lines.push(format!("Names may be missing: {}", safe(problem, LONGEST * 2)));
    }
    if status.unrecognised_rules > 0 {
        lines.push(format!("{} rules are not understood: what depends on them is left out.", status.unrecognised_rules));
    }
    lines
}

fn drops(answer: &WorkloadsAnswer, rates: Option<&[f64]>, watched: Option<Duration>) -> Vec<String> {
    if answer.drops.is_empty() {
        return vec![nothing(answer, watched)];
    }
    let names: HashMap<&str, &Workload> = answer.workloads.iter().map(|workload| (&*workload.interface, workload)).collect();
    let rates_or_none = rates.unwrap_or_default().iter().copied().chain(std::iter::repeat(0.0));
    let mut drops: Vec<(f64, &Drop)> = rates_or_none.zip(&answer.drops).collect();
    drops.sort_by(|(a_now, a), (b_now, b)| b_now.total_cmp(a_now).then(b.packets.cmp(&a.packets)));
    let mut rows = vec![["DROPS/s", "TOTAL", "WORKLOAD", "", "REASON", "BY"].map(str::to_owned).to_vec()];
    for (now, drop) in &drops {
        let workload = names.get(&*drop.interface).map_or_else(|| safe(&drop.interface, LONGEST), |workload| name(workload));
        let by = drop.policy.as_deref().or(drop.tier.as_deref()).unwrap_or_default();
        let by = if drop.policy.is_none() && drop.tier.is_some() { format!("tier {by}") } else { by.to_owned() };
        rows.push(vec![
            format!("{now:.1}"),
            drop.packets.to_string(),
            workload,
            arrow(drop.direction).to_owned(),
            safe(&drop.reason, LONGEST),
            safe(&by, LONGEST),
        ]);
    }
    if rates.is_some() {
        return columns(&rows, 0..2);
    }
    rows.iter_mut().for_each(|row| _ = row.remove(0));
    rows[0][0] = "DROPS".to_owned();
    columns(&rows, 0..1)
}

/// What can be said where no drop was counted: never more than was watched.
fn nothing(answer: &WorkloadsAnswer, watched: Option<Duration>) -> String {
    let is_told = answer.workloads.is_empty() || answer.workloads.iter().any(|w| w.ingress.is_some() || w.egress.is_some());
    match watched.map(|watched| watched.as_secs()) {
        _ if !answer.status.up => "Whether packets are dropped is not known.".to_owned(),
        _ if !is_told => "One moment does not show whether anything was dropped: ask a running exporter.".to_owned(),
        Some(0) => "Watching…".to_owned(),
        _ if answer.status.unrecognised_rules > 0 => {
            "No drops are known. The rules that are not understood may have dropped packets.".to_owned()
        }
        None => "Nothing was dropped.".to_owned(),
        Some(seconds) => format!("Nothing was dropped in {} of watching.", time(seconds)),
    }
}

fn name(workload: &Workload) -> String {
    match (&*workload.namespace, &*workload.pod) {
        ("", "") => safe(&workload.interface, LONGEST),
        (namespace, pod) => safe(&format!("{namespace}/{pod}"), LONGEST),
    }
}

fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

fn workloads(answer: &WorkloadsAnswer) -> Vec<String> {
    let mut workloads: Vec<&Workload> = answer.workloads.iter().collect();
    let dropped = |workload: &Workload| [workload.ingress, workload.egress].iter().flatten().map(|sums| sums.dropped).sum::<u64>();
    workloads.sort_by_key(|workload| std::cmp::Reverse(dropped(workload)));
    let mut rows =
        vec![["WORKLOAD", "INTERFACE", "IN: OPEN", "ACCEPTED", "DROPPED", "OUT: OPEN", "ACCEPTED", "DROPPED"].map(str::to_owned).to_vec()];
    for workload in workloads {
        let interface = if workload.known { safe(&workload.interface, LONGEST) } else { "-".to_owned() };
        rows.push([name(workload), interface].into_iter().chain(sums(workload.ingress)).chain(sums(workload.egress)).collect());
    }
    columns(&rows, 2..8)
}

fn sums(sums: Option<Sums>) -> [String; 3] {
    let Some(sums) = sums else { return [(); 3].map(|()| "-".to_owned()) };
    let established = sums.established.map_or_else(|| "-".to_owned(), |packets| packets.to_string());
    [established, at_least(sums.accepted, sums.accepted_exact), at_least(sums.dropped, sums.exact)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Chains, UnknownInterfaces};

    fn answer(drops: &[(&str, u64)]) -> WorkloadsAnswer {
        let drop = |(policy, packets): &(&str, u64)| Drop {
            interface: "cali1".into(),
            namespace: "shop".into(),
            pod: "web".into(),
            direction: Direction::Ingress,
            reason: "policy".into(),
            tier: Some("default".into()),
            policy: Some((*policy).into()),
            packets: *packets,
        };
        let (drops, unknown_interfaces) = (drops.iter().map(drop).collect(), UnknownInterfaces::default());
        WorkloadsAnswer { status: Status::default(), workloads: vec![], drops, unknown_interfaces }
    }

    fn table(before: &[(&str, u64)], now: &[(&str, u64)]) -> Vec<String> {
        let now = answer(now);
        drops(&now, Some(&rates(&answer(before), &now, Duration::from_secs(2))), None)
    }

    #[test]
    fn what_is_dropped_now_comes_first() {
        let before = [("quiet", 900), ("busy", 10), ("restarted", 500)];
        let now = [("quiet", 900), ("busy", 14), ("restarted", 3), ("new", 1)];
        let table = table(&before, &now);
        let rows = table[1..].iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows: Vec<_> = rows.map(|words| (words[0], words[words.len() - 1])).collect();
        assert_eq!(rows, [("2.0", "busy"), ("1.5", "restarted"), ("0.5", "new"), ("0.0", "quiet")]);
    }

    #[test]
    fn a_terminal_gets_as_many_lines_as_it_has() {
        let many: Vec<(String, u64)> = (1..100).map(|i| (format!("policy-{i}"), i)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, packets)| (name.as_str(), *packets)).collect();
        for rows in [1, 5, 10, 24, 60, 500] {
            let lines = page(&answer(&many), None, &ABOUT, Some(rows));
            assert!(lines.len() <= rows.max(12), "{} lines for {rows}", lines.len());
        }
        assert!(page(&answer(&many), None, &ABOUT, Some(24)).iter().any(|line| line.starts_with("… ")));
    }

    const ABOUT: About = About { line: "about", watched: None };

    #[test]
    fn nothing_is_claimed_that_was_not_watched() {
        let said = |watched: Option<u64>, up: bool| {
            let mut answer = answer(&[]);
            answer.status.up = up;
            page(&answer, None, &About { line: "about", watched: watched.map(Duration::from_secs) }, None)[3].clone()
        };
        assert_eq!(said(None, true), "Nothing was dropped.");
        assert_eq!(said(Some(0), true), "Watching…");
        assert_eq!(said(Some(12), true), "Nothing was dropped in 12 seconds of watching.");
        assert_eq!(said(Some(12), false), "Whether packets are dropped is not known.");
    }

    #[test]
    fn rules_that_are_gone_are_no_quiet_node() {
        let mut answer = answer(&[]);
        (answer.status.problem, answer.status.chains) = (Some("they have vanished".into()), Chains::Vanished);
        let lines = page(&answer, None, &ABOUT, None);
        assert!(lines.iter().any(|line| line == "NO RULES OF CALICO'S: they have vanished"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("Nothing was dropped")), "{lines:?}");
    }
}
