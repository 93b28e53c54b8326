//! Scrapes a node on which pods come and go and policies are rewritten. The program's memory, descriptors and threads must not grow, and it
//! must forget what is gone.
//!
//! `WITHSTAND=1` makes 50,000 scrapes.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::program::{self, Program, await_some};
use crate::support::etcd::{Etcd, Scratch};
use crate::support::follower::Cost;
use crate::support::is_long;
use crate::support::netns::{Namespace, feed};
use crate::support::scrape::{Samples, one, scrape, with};
use crate::table;

const SIZE: table::Size = table::Size { workloads: 10, policies: 10, group: 1 };
/// Scrapes between two changes.
const EVERY: usize = 10;
/// How many workloads a change replaces by new ones.
const REPLACED: usize = 5;

/// The first of the workloads that exist after `changes`. None has a number of those in [`table::table`].
fn first(changes: usize) -> usize {
    SIZE.workloads + changes * REPLACED
}

/// The table after `changes`.
fn rules(changes: usize) -> String {
    let text = table::table_at(SIZE, changes as u64);
    (0..SIZE.workloads).fold(text, |text, n| text.replace(&table::interface(n), &table::interface(first(changes) + n)))
}

/// Puts and deletes workloads, in one transaction.
fn store(agent: &ureq::Agent, etcd: &Etcd, put: std::ops::Range<usize>, delete: std::ops::Range<usize>) {
    let code = |text: String| BASE64_STANDARD.encode(text);
    let puts =
        put.map(table::workload).map(|(key, value)| format!(r#"{{"request_put":{{"key":"{}","value":"{}"}}}}"#, code(key), code(value)));
    let deletes = delete.map(table::workload).map(|(key, _)| format!(r#"{{"request_delete_range":{{"key":"{}"}}}}"#, code(key)));
    let body = format!(r#"{{"success":[{}]}}"#, puts.chain(deletes).collect::<Vec<_>>().join(","));
    agent.post(format!("{}/v3/kv/txn", etcd.url())).send(body).unwrap();
}

/// The interfaces that a scrape names.
fn interfaces(samples: &Samples) -> Vec<String> {
    let named = with(samples, "calico_accountant_workload_info", &[]);
    let mut interfaces: Vec<_> = named.map(|(series, _)| crate::support::scrape::labels(series)["interface"].to_owned()).collect();
    interfaces.sort_unstable();
    interfaces
}

/// Asserts that exactly the workloads after `changes` are shown. Returns the number of series.
#[track_caller]
fn shows(program: &Program, changes: usize) -> f64 {
    let expected: Vec<_> = (first(changes)..first(changes) + SIZE.workloads).map(table::interface).collect();
    let states = [("known", SIZE.workloads), ("unknown", 0), ("without_rules", 0)];
    let mut last = Samples::new();
    await_some(
        || {
            last = scrape(program.port());
            let counted = |(state, number)| one(&last, "calico_accountant_workloads", &[("state", state)]) == number as f64;
            (interfaces(&last) == expected && states.into_iter().all(counted)).then_some(())
        },
        || format!("{expected:?} and nothing else: {:#?}", program.log()),
    );
    one(&last, "calico_accountant_series", &[])
}

/// A cost that must not grow, computed from those of several scrapes.
type Figure = (&'static str, fn(&[Cost]) -> f64);

const FIGURES: [Figure; 3] = [
    ("kB of memory", |costs| costs.iter().map(|cost| cost.memory as f64).sum::<f64>() / costs.len() as f64),
    // A scrape takes one of each briefly, so the minimum counts.
    ("descriptors", |costs| costs.iter().map(|cost| cost.descriptors as f64).fold(f64::MAX, f64::min)),
    ("threads", |costs| costs.iter().map(|cost| cost.threads as f64).fold(f64::MAX, f64::min)),
];

#[test]
fn nothing_grows() {
    let Some(namespace) = Namespace::new("soak") else { return };
    // An allocator needs some thousand scrapes to settle.
    let (scrapes, growth) = if is_long() { (50_000, 0.02) } else { (2_000, 0.25) };
    namespace.run(|| {
        let Some(etcd) = Etcd::plain() else { return };
        let agent = ureq::Agent::new_with_defaults();
        let scratch = Scratch::new();
        let lock = scratch.path().join("lock");
        std::fs::write(&lock, "").unwrap();
        let restore = format!("XTABLES_LOCKFILE={} iptables-legacy-restore -c --wait 20", lock.display());
        feed(&restore, &rules(0));
        store(&agent, &etcd, first(0)..first(0) + SIZE.workloads, 0..0);
        let mut command = program::command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock).env("ETCD_ENDPOINTS", etcd.url());
        let program = Program::start(command);
        let series = shows(&program, 0);

        let (mut costs, mut changes) = (Vec::new(), 0);
        for n in 1..=scrapes {
            let samples = scrape(program.port());
            assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0, "{:#?}", program.log());
            if n % EVERY == 0 {
                changes += 1;
                feed(&restore, &rules(changes));
                let gone = first(changes - 1)..first(changes);
                store(&agent, &etcd, gone.start + SIZE.workloads..gone.end + SIZE.workloads, gone);
            }
            if n % (scrapes / 2_000) == 0 {
                costs.push(Cost::of(program.pid()));
            }
        }
        // There may be fewer series: if rules were replaced, a zero that is not proven is not shown.
        let now = shows(&program, changes);
        assert!(now <= series, "series are those of what is there: {series} became {now}");

        let tenth = costs.len() / 10;
        let (second, last) = (&costs[tenth..2 * tenth], &costs[costs.len() - tenth..]);
        for (what, of) in FIGURES {
            let (second, last) = (of(second), of(last));
            println!("{scrapes} scrapes, {changes} changes, {} workloads in all: {second:.2} {what}, in the end {last:.2}", first(changes));
            assert!(last <= second * (1.0 + growth), "{second} {what}, in the end {last}");
        }
        assert!(program.log().len() < 50, "{:#?}", program.log());
    });
}
