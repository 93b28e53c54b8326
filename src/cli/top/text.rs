//! Formats drops and workloads as tables. Pure.

use std::time::Duration;

use super::keys::{HELP, Sort, View};
use super::rates::Rates;
use crate::cli::EBPF;
use crate::cli::cluster::{Answered, few};
use crate::cli::terminal::{LONGEST, at_least, columns, fit, not_understood, safe, time};
use crate::felix::Direction;
use crate::report::{Drop, Status, Sums, Workload, WorkloadsAnswer};

/// The content of a page or screen.
pub struct Shown<'a> {
    /// The source of the numbers, and for several nodes, which did not answer.
    pub about: &'a [String],
    pub answers: &'a [Answered<WorkloadsAnswer>],
    /// Whether there are several nodes. Then rows name their node, and another command shows workloads.
    pub is_cluster: bool,
    /// How long they were watched, if it is known.
    pub watched: Option<Duration>,
    pub rates: Option<&'a Rates>,
}

/// Formats the content for a file, or for printing once.
pub fn page(shown: &Shown) -> Vec<String> {
    [head(shown), vec![String::new()], tables(shown, &View::default(), None)].concat()
}

/// Formats the content for a terminal of this size. An offset that is too large is reduced.
pub fn screen(shown: &Shown, view: &mut View, (width, rows): (usize, usize)) -> Vec<String> {
    if view.is_help {
        return HELP.map(str::to_owned).to_vec();
    }
    let mut lines = [head(shown), vec![String::new()]].concat();
    let body = tables(shown, view, Some(width));
    lines.truncate(rows.saturating_sub(6));
    let room = rows.saturating_sub(lines.len() + 1);
    view.offset = view.offset.min(body.len().saturating_sub(room));
    let end = (view.offset + room).min(body.len());
    let position = if room < body.len() { format!("  lines {} to {end} of {}", view.offset + 1, body.len()) } else { String::new() };
    lines.extend(body[view.offset..end].iter().cloned());
    lines.extend(std::iter::repeat_n(String::new(), rows.saturating_sub(lines.len() + 1)));
    let filter = match (view.is_typing, view.filter.is_empty()) {
        (true, _) => format!("  filter: {}_", safe(&view.filter, LONGEST)),
        (false, false) => format!("  filter: {}", safe(&view.filter, LONGEST)),
        (false, true) => String::new(),
    };
    lines.push(format!("? help  q end  sorted by {}{filter}{position}", view.sort.as_str()));
    lines
}

/// The lines above the tables.
fn head(shown: &Shown) -> Vec<String> {
    let about = shown.about.iter().map(|line| safe(line, LONGEST * 5));
    match shown.answers {
        [(_, answer)] if !shown.is_cluster => {
            let status = &answer.status;
            let node = if status.node.is_empty() { String::new() } else { format!("  node {}", safe(&status.node, LONGEST)) };
            let mut lines = vec![format!("calico-accountant {}{node}", safe(&status.version, LONGEST))];
            lines.extend(problems(status));
            lines.extend(about);
            lines.extend(status.is_ebpf().then(|| EBPF.to_owned()));
            lines
        }
        answers => {
            const MOST: usize = 5;
            let problem = |(node, answer): &Answered<WorkloadsAnswer>| Some((node.clone(), problems(&answer.status).into_iter().next()?));
            let all: Vec<(String, String)> = answers.iter().filter_map(problem).collect();
            let mut lines: Vec<String> = about.collect();
            lines.extend(all.iter().take(MOST).map(|(node, problem)| format!("Node {}: {problem}", safe(node, LONGEST))));
            let more: Vec<&str> = all.iter().skip(MOST).map(|(node, _)| &**node).collect();
            lines.extend((!more.is_empty()).then(|| format!("Problems of {}, too: see check --cluster", few(&more))));
            lines
        }
    }
}

fn problems(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
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
        lines.push(not_understood(status.unrecognised_rules));
    }
    lines
}

fn tables(shown: &Shown, view: &View, width: Option<usize>) -> Vec<String> {
    let drops = drops(shown, view, width);
    match shown.answers {
        [(_, answer)] if !shown.is_cluster => [drops, vec![String::new()], workloads(&[(String::new(), answer)], view, width)].concat(),
        _ => drops,
    }
}

fn drops(shown: &Shown, view: &View, width: Option<usize>) -> Vec<String> {
    let of_node = |(node, answer): &'_ Answered<WorkloadsAnswer>| -> Vec<(Option<f64>, u64, Vec<String>)> {
        let row = |drop: &Drop| {
            let rate = shown.rates.and_then(|rates| rates.of(node, drop));
            (rate, drop.packets, row(node, answer, drop))
        };
        answer.drops.iter().map(row).collect()
    };
    let mut drops: Vec<(Option<f64>, u64, Vec<String>)> = shown.answers.iter().flat_map(of_node).collect();
    if drops.is_empty() {
        return vec![nothing(shown)];
    }
    drops.retain(|(_, _, row)| view.shows(row));
    drops.sort_by(|(a_now, a_total, a), (b_now, b_total, b)| {
        let usual = || b_now.unwrap_or_default().total_cmp(&a_now.unwrap_or_default()).then(b_total.cmp(a_total));
        match view.sort {
            Sort::Rate => usual(),
            Sort::Total => b_total.cmp(a_total),
            Sort::Workload => (&a[0], &a[1]).cmp(&(&b[0], &b[1])).then_with(usual),
            Sort::Reason => (&a[3], &a[4]).cmp(&(&b[3], &b[4])).then_with(usual),
        }
    });
    let mut rows = vec![["DROPS/s", "DROPS", "WORKLOAD", "NODE", "", "REASON", "BY"].map(str::to_owned).to_vec()];
    rows.extend(drops.into_iter().map(|(rate, total, row)| {
        [vec![rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")), total.to_string()], row].concat()
    }));
    let has_rates = shown.rates.is_some();
    for row in &mut rows {
        if !shown.is_cluster {
            row.remove(3);
        }
        if !has_rates {
            row.remove(0);
        }
    }
    table(rows, 0..if has_rates { 2 } else { 1 }, width)
}

fn table(mut rows: Vec<Vec<String>>, numbers: std::ops::Range<usize>, width: Option<usize>) -> Vec<String> {
    if let Some(width) = width {
        fit(&mut rows, numbers.clone(), width);
    }
    columns(&rows, numbers)
}

/// Returns a row: workload, node, direction, reason, by whom.
fn row(node: &str, answer: &WorkloadsAnswer, drop: &Drop) -> Vec<String> {
    let workload = answer.workloads.iter().find(|workload| workload.interface == drop.interface);
    let workload = workload.map_or_else(|| safe(&drop.interface, LONGEST), name);
    let by = match (&drop.policy, &drop.tier) {
        (Some(policy), _) => policy.to_string(),
        (None, Some(tier)) => format!("tier {tier}"),
        (None, None) => String::new(),
    };
    let arrow = match drop.direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    vec![workload, safe(node, LONGEST), arrow.to_owned(), safe(&drop.reason, LONGEST), safe(&by, LONGEST)]
}

/// Returns the text if no drop was counted. It claims no more than was watched.
fn nothing(shown: &Shown) -> String {
    let all = |holds: fn(&WorkloadsAnswer) -> bool| shown.answers.iter().all(|(_, answer)| holds(answer));
    let is_told = |answer: &WorkloadsAnswer| {
        answer.workloads.is_empty() || answer.workloads.iter().any(|w| w.ingress.is_some() || w.egress.is_some())
    };
    match shown.watched.map(|watched| watched.as_secs()) {
        _ if shown.answers.is_empty() || (!shown.is_cluster && !all(|answer| answer.status.up)) => {
            "Whether packets are dropped is not known.".to_owned()
        }
        _ if !all(|answer| answer.status.up) => "No drops are known. Those of nodes whose counters cannot be read are not.".to_owned(),
        _ if !all(is_told) => "One moment does not show whether anything was dropped: ask a running exporter.".to_owned(),
        Some(0) => "Watching…".to_owned(),
        _ if !all(|answer| answer.status.unrecognised_rules == 0) => {
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

/// Formats the workloads. If space is limited, omits interfaces and packets of open connections rather than cut a number.
pub fn workloads(answers: &[(String, &WorkloadsAnswer)], view: &View, width: Option<usize>) -> Vec<String> {
    const NAME: usize = 24;
    let mut workloads: Vec<(&str, &Workload)> =
        answers.iter().flat_map(|(node, answer)| answer.workloads.iter().map(move |workload| (&**node, workload))).collect();
    let dropped = |workload: &Workload| [workload.ingress, workload.egress].iter().flatten().map(|sums| sums.dropped).sum::<u64>();
    workloads.sort_by_key(|(_, workload)| std::cmp::Reverse(dropped(workload)));
    let heading = ["WORKLOAD", "NODE", "INTERFACE", "IN: OPEN", "ACCEPTED", "DROPPED", "OUT: OPEN", "ACCEPTED", "DROPPED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (node, workload) in workloads {
        let interface = if workload.known { safe(&workload.interface, LONGEST) } else { "-".to_owned() };
        let texts = [name(workload), safe(node, LONGEST), interface];
        let row: Vec<String> = texts.into_iter().chain(sums(workload.ingress)).chain(sums(workload.egress)).collect();
        rows.extend(view.shows(&row).then_some(row));
    }
    let mut texts = 3;
    let mut without = |rows: &mut Vec<Vec<String>>, column: usize| {
        rows.iter_mut().for_each(|row| _ = row.remove(column));
        texts -= usize::from(column < 3);
    };
    if answers.iter().all(|(node, _)| node.is_empty()) {
        without(&mut rows, 1);
    }
    let needed = |rows: &[Vec<String>], from: usize| {
        let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (from..rows[0].len()).map(|column| widest(column) + 2).sum::<usize>() + NAME * from
    };
    if width.is_some_and(|width| needed(&rows, 2) > width) {
        let interface = rows[0].iter().position(|heading| heading == "INTERFACE").unwrap_or_default();
        without(&mut rows, interface);
    }
    let first = texts;
    if width.is_some_and(|width| needed(&rows, first) > width) {
        for row in &mut rows {
            row.remove(first + 3);
            row.remove(first);
        }
        (rows[0][first], rows[0][first + 2]) = ("IN: ACCEPTED".into(), "OUT: ACCEPTED".into());
    }
    let last = rows[0].len();
    table(rows, first..last, width)
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
    use std::time::Instant;

    type Answer = Answered<WorkloadsAnswer>;

    fn answer(drops: &[(&str, u64)]) -> Answer {
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
        let answer = WorkloadsAnswer { status: Status::default(), workloads: vec![], drops, unknown_interfaces };
        (String::new(), answer)
    }

    fn shown(answers: &[Answer]) -> Shown<'_> {
        Shown { about: &[], answers, is_cluster: false, watched: None, rates: None }
    }

    /// Returns the first and the last word of each row.
    fn ends(lines: &[String]) -> Vec<(&str, &str)> {
        let words = lines.iter().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.map(|words| (words[0], words[words.len() - 1])).collect()
    }

    #[test]
    fn what_is_dropped_now_comes_first_and_a_burst_shows_for_ten_seconds() {
        let mut rates = Rates::default();
        let (began, at) = (Instant::now(), Duration::from_secs);
        rates.add(began, &[answer(&[("quiet", 900), ("busy", 10), ("restarted", 500)])]);
        let now = [answer(&[("quiet", 900), ("busy", 14), ("restarted", 3), ("new", 1)])];
        rates.add(began + at(2), &now);
        let sorted = |rates: &Rates, sort| drops(&Shown { rates: Some(rates), ..shown(&now) }, &View { sort, ..View::default() }, None);
        let rows = sorted(&rates, Sort::Rate);
        assert_eq!(ends(&rows), [("2.0", "busy"), ("1.5", "restarted"), ("0.5", "new"), ("0.0", "quiet")]);
        assert_eq!(ends(&sorted(&rates, Sort::Total))[0], ("0.0", "quiet"));
        // No more drops arrive.
        for (second, mean) in [(4, "1.0"), (10, "0.4"), (12, "0.0")] {
            rates.add(began + at(second), &now);
            assert!(ends(&sorted(&rates, Sort::Workload)).contains(&(mean, "busy")), "after {second} s: {rates:?}");
        }
        // A node that misses an answer has no burst when it answers again.
        rates.add(began + at(14), &[]);
        rates.add(began + at(16), &now);
        assert!(ends(&sorted(&rates, Sort::Rate)).iter().all(|(rate, _)| *rate == "0.0"));
    }

    #[test]
    fn a_terminal_gets_as_many_lines_as_it_has_and_scrolls() {
        let many: Vec<(String, u64)> = (1..100).map(|i| (format!("policy-{i}"), i)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, packets)| (name.as_str(), *packets)).collect();
        let answers = [answer(&many)];
        for rows in [1, 5, 10, 24, 60, 500] {
            assert!(screen(&shown(&answers), &mut View::default(), (80, rows)).len() <= rows, "{rows}");
        }
        let mut view = View { offset: 1000, ..View::default() };
        let lines = screen(&shown(&answers), &mut view, (80, 24));
        // The policies, their heading, a blank, and the heading of the workloads.
        assert_eq!((lines[23].split("  ").last().unwrap(), view.offset), ("lines 82 to 102 of 102", 81));
        view.filter = "POLICY-77".into();
        let lines = screen(&shown(&answers), &mut view, (80, 24));
        assert!(lines[3].ends_with("policy-77") && lines[4].is_empty() && view.offset == 0, "{lines:?}");
    }

    #[test]
    fn no_number_is_cut_in_80_columns() {
        let sums =
            |packets| Some(Sums { accepted: packets, accepted_exact: true, established: Some(packets), dropped: packets, exact: false });
        let mut answer = answer(&[("default.a-policy-with-a-name-that-is-rather-long", 1_234_567_890_123)]);
        let [interface, namespace, pod]: [std::sync::Arc<str>; 3] =
            ["cali1".into(), "a-long-namespace".into(), "checkout-7d4b9c5f6d-x2k4j".into()];
        let none: std::sync::Arc<str> = "".into();
        for packets in [12, 123_456, 1_234_567_890_123] {
            let [app, node, orchestrator, service_account] = [(); 4].map(|()| none.clone());
            let [interface, namespace, pod] = [&interface, &namespace, &pod].map(std::sync::Arc::clone);
            let (ip, ingress, egress) = (vec![], sums(packets), sums(packets));
            answer.1.workloads.push(Workload {
                interface,
                namespace,
                pod,
                app,
                ip,
                node,
                orchestrator,
                service_account,
                known: true,
                ingress,
                egress,
            });
            let lines = tables(
                &shown(&[(
                    String::new(),
                    WorkloadsAnswer {
                        workloads: answer.1.workloads.clone(),
                        drops: answer.1.drops.clone(),
                        status: Status::default(),
                        unknown_interfaces: UnknownInterfaces::default(),
                    },
                )]),
                &View::default(),
                Some(80),
            );
            assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
            assert!(
                lines.iter().any(|line| line.contains(&format!(" {packets} ")) && line.ends_with(&format!(">={packets}"))),
                "{lines:#?}"
            );
            assert!(lines[1].contains("1234567890123") && lines[1].contains("x2k4j"), "{lines:#?}");
        }
    }

    #[test]
    fn nothing_is_claimed_that_was_not_watched() {
        let said = |watched: Option<u64>, up: bool| {
            let mut answers = [answer(&[])];
            answers[0].1.status.up = up;
            nothing(&Shown { watched: watched.map(Duration::from_secs), ..shown(&answers) })
        };
        assert_eq!(said(None, true), "Nothing was dropped.");
        assert_eq!(said(Some(0), true), "Watching…");
        assert_eq!(said(Some(12), true), "Nothing was dropped in 12 seconds of watching.");
        assert_eq!(said(Some(12), false), "Whether packets are dropped is not known.");
    }

    #[test]
    fn rules_that_are_gone_are_no_quiet_node() {
        let mut answer = answer(&[]);
        (answer.1.status.problem, answer.1.status.chains) = (Some("they have vanished".into()), Chains::Vanished);
        let lines = page(&shown(&[answer]));
        assert!(lines.iter().any(|line| line == "NO RULES OF CALICO'S: they have vanished"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("Nothing was dropped")), "{lines:?}");
    }
}
