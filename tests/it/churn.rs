//! Real tables that are flushed, replaced and made a thousand times larger while they are read. A scrape must show correct counts or none.
//!
//! `WITHSTAND=1` makes them grow to 200,000 rules.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::kernel::{filter_table, load};
use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::is_long;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::{Samples, one, scrape, with};

/// Prometheus' timeout.
const LONGEST: Duration = Duration::from_secs(10);

fn counters(samples: &Samples) -> Samples {
    with(samples, "calico_accountant_policy_packets_total", &[]).map(|(series, value)| (series.clone(), value)).collect()
}

/// Scrapes until `end`, and longer if nothing was read by then. Each scrape must end in time. Returns the counters of the scrapes that
/// could read.
fn scrapes(port: u16, end: Instant) -> Vec<Samples> {
    let mut seen = Vec::new();
    while Instant::now() < end || seen.is_empty() {
        assert!(Instant::now() < end + Duration::from_secs(60), "nothing could be read");
        let begun = Instant::now();
        let samples = scrape(port);
        assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        match one(&samples, "calico_accountant_up", &[]) {
            0.0 => assert!(counters(&samples).is_empty(), "what was not read is not shown"),
            _ => seen.push(counters(&samples)),
        }
    }
    seen
}

fn churn(backend: &str, source: &str) {
    let Some(namespace) = Namespace::new("churn") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    let (rules, seconds) = if is_long() { (200_000, 60) } else { (20_000, 4) };
    namespace.run(|| {
        load(backend, &filter_table("v3.32.1-legacy"));
        let mut command = program::command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock).env("SOURCE", source).env("BACKEND", backend);
        let program = Program::start(command);
        let before = counters(&scrape(program.port()));
        assert!(before.values().any(|count| *count > 5.0));

        let restore = format!("XTABLES_LOCKFILE={} iptables-{backend}-restore --noflush --wait 60", lock.display());
        let done = AtomicBool::new(false);
        let big: String = (0..rules).map(|n| format!("-A big -s 10.{}.{}.{}/32 -j RETURN\n", n >> 16, n >> 8 & 255, n & 255)).collect();
        std::thread::scope(|scope| {
            let (here, done, restore, big) = (Namespace::here(), &done, &restore, &big);
            scope.spawn(move || {
                here.enter();
                while !done.load(Ordering::Relaxed) {
                    feed(restore, &format!("*filter\n:big - [0:0]\n{big}COMMIT\n"));
                    feed(restore, "*filter\n:big - [0:0]\nCOMMIT\n");
                }
            });
            let seen = scrapes(program.port(), Instant::now() + Duration::from_secs(seconds));
            done.store(true, Ordering::Relaxed);
            for counters in seen {
                assert_eq!(counters, before, "{backend} by {source}");
            }
        });

        // After a flush, Calico's chains are gone. That is a failure, and no counter is shown.
        sh(&format!("iptables-{backend} -F; iptables-{backend} -X"));
        let gone = scrape(program.port());
        assert_eq!(one(&gone, "calico_accountant_up", &[]), 0.0, "{backend} by {source}");
        assert!(counters(&gone).is_empty(), "{backend} by {source}");
        // The same rules come back with the same counters. That adds nothing, or all counts once more if the rules are taken as new.
        load(backend, &filter_table("v3.32.1-legacy"));
        for counters in scrapes(program.port(), Instant::now()) {
            for (series, count) in &before {
                let now = counters.get(series).copied().unwrap_or_default();
                assert!(now == *count || now == 2.0 * count, "{backend} by {source}: {series} was {count} and is {now}");
            }
        }
    });
}

#[test]
fn legacy_tables_by_iptables_save() {
    churn("legacy", "save");
}

#[test]
fn legacy_tables_from_the_kernel() {
    churn("legacy", "kernel");
}

#[test]
fn nft_tables_by_iptables_save() {
    churn("nft", "save");
}

#[test]
fn nft_tables_from_the_kernel() {
    churn("nft", "kernel");
}
