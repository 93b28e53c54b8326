//! Real tables in network namespaces: no read is torn, reading changes nothing, and the exporter follows when Calico moves to another back
//! end. The demo, which `make test` runs on both back ends, sends real packets through such tables.

use std::sync::atomic::{AtomicBool, Ordering};

use calico_accountant::ruleset::Family;

use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::{Samples, one, scrape, with};

/// Commands that make the sets which a table's rules match on. They must exist before the rules.
pub fn sets(table: &str, family: Family) -> String {
    let inet = if family == Family::V4 { "inet" } else { "inet6" };
    let mut commands = String::new();
    for rule in table.lines().filter(|line| line.contains("--match-set")) {
        let words: Vec<&str> = rule.split(' ').collect();
        for place in (0..words.len()).filter(|&i| words[i] == "--match-set") {
            let kind = if words[place + 2].contains(',') { "hash:ip,port" } else { "hash:net" };
            commands += &format!("create {} {kind} family {inet} -exist\n", words[place + 1]);
        }
    }
    commands
}

/// The filter table of a capture.
pub fn filter_table(capture: &str) -> String {
    let all = fixture::text(&format!("captures/{capture}/t2/iptables-save.txt.gz"));
    let start = all.find("*filter").unwrap();
    let end = start + all[start..].find("COMMIT").unwrap();
    format!("{}COMMIT\n", &all[start..end])
}

/// Loads a table with its counters.
pub fn load(backend: &str, table: &str) {
    feed("ipset restore", &sets(table, Family::V4));
    feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore -c"), table);
}

fn start(lock: &std::path::Path) -> Program {
    let mut command = program::command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", lock).env("SOURCE", "save");
    Program::start(command)
}

fn counters(samples: &Samples) -> Samples {
    let is_counter = |series: &str| series.split('{').next().is_some_and(|name| name.ends_with("_packets_total"));
    samples.iter().filter(|(series, _)| is_counter(series)).map(|(s, v)| (s.clone(), *v)).collect()
}

fn backends(samples: &Samples) -> Vec<String> {
    with(samples, "calico_accountant_backend_info", &[]).map(|(series, _)| series.clone()).collect()
}

/// Scrapes while a writer commits without pause. Returns how many scrapes showed other counts than the first. No packet is sent, so none
/// should.
fn torn_scrapes(scrapes: usize, lock_of_writer: &std::path::Path, lock_of_reader: &std::path::Path) -> usize {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let program = start(lock_of_reader);
        let before = counters(&scrape(program.port()));
        assert!(before.values().any(|count| *count > 5.0));
        let (here, done) = (Namespace::here(), &done);
        scope.spawn(move || {
            here.enter();
            let command = format!("XTABLES_LOCKFILE={} iptables-legacy-restore --noflush --wait 20", lock_of_writer.display());
            while !done.load(Ordering::Relaxed) {
                feed(&command, "*filter\n-A cali-cidr-block -s 192.0.2.1/32 -j DROP\nCOMMIT\n");
                feed(&command, "*filter\n-D cali-cidr-block -s 192.0.2.1/32 -j DROP\nCOMMIT\n");
            }
        });
        let torn = (0..scrapes).filter(|_| {
            let samples = scrape(program.port());
            assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0, "{:#?}", program.log());
            counters(&samples) != before
        });
        let torn = torn.count();
        done.store(true, Ordering::Relaxed);
        torn
    })
}

#[test]
fn a_thousand_scrapes_beside_a_writer_are_never_torn_and_hardly_ever_without_the_common_lock() {
    let Some(namespace) = Namespace::new("torn reads") else { return };
    let scratch = Scratch::new();
    let (lock, other_lock) = (scratch.path().join("lock"), scratch.path().join("other"));
    std::fs::write(&lock, "").unwrap();
    std::fs::write(&other_lock, "").unwrap();
    namespace.run(|| {
        load("legacy", &filter_table("v3.32.1-legacy"));
        assert_eq!(torn_scrapes(1000, &lock, &lock), 0);
        // If the writer does not take the same lock, counters that went back are read again. In rare cases that is not enough.
        let torn = torn_scrapes(1000, &lock, &other_lock);
        assert!(torn <= 10, "{torn} torn");
    });
}

#[test]
fn without_a_lock_file_torn_reads_are_taken_again() {
    let Some(namespace) = Namespace::new("no lock file") else { return };
    let scratch = Scratch::new();
    namespace.run(|| {
        load("legacy", &filter_table("v3.32.1-legacy"));
        let program = start(&scratch.path().join("missing"));
        let samples = scrape(program.port());
        assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0);
        assert_eq!(one(&samples, "calico_accountant_lock_held", &[]), 0.0);
        program.await_log("missing cannot be opened: No such file or directory");
        assert!(!scratch.path().join("missing").exists());
    });
}

#[test]
fn a_lock_that_is_held_too_long_gives_no_numbers() {
    let Some(namespace) = Namespace::new("lock held") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        load("legacy", &filter_table("v3.32.1-legacy"));
        let holder = std::fs::File::open(&lock).unwrap();
        holder.lock().unwrap();
        let program = start(&lock);
        let samples = scrape(program.port());
        assert_eq!(one(&samples, "calico_accountant_up", &[]), 0.0);
        assert!(counters(&samples).is_empty());
        assert!(one(&samples, "calico_accountant_lock_timeouts_total", &[]) >= 1.0);
        holder.unlock().unwrap();
        assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 1.0);
    });
}

#[test]
fn looking_changes_nothing() {
    let Some(namespace) = Namespace::new("looking changes nothing") else { return };
    namespace.run(|| {
        let tables = || sh("nft list ruleset; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names");
        let modules = || {
            std::fs::read_to_string("/proc/modules")
                .unwrap_or_default()
                .lines()
                .map(|m| m.split(' ').next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(tables(), "");
        let before = modules();
        for source in ["auto", "save", "kernel"] {
            for backend in ["auto", "legacy", "nft", "nftables"] {
                let mut command = program::command();
                command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SOURCE", source).env("BACKEND", backend);
                let program = Program::start(command);
                let samples = scrape(program.port());
                assert_eq!(one(&samples, "calico_accountant_up", &[]), 0.0, "{source} {backend}");
                assert_eq!(backends(&samples), Vec::<String>::new(), "{source} {backend}");
                assert_eq!((tables(), modules()), (String::new(), before.clone()), "{source} {backend}");
            }
        }
    });
}

#[test]
fn calico_is_followed_to_another_back_end() {
    let Some(namespace) = Namespace::new("back ends") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        load("nft", &filter_table("v3.32.1-nft"));
        let program = start(&lock);
        let before = scrape(program.port());
        assert!(backends(&before).iter().all(|b| b.contains("backend=\"nft\"")) && !backends(&before).is_empty());
        // Calico moves: the new rules appear, and the old ones are removed.
        load("legacy", &filter_table("v3.32.1-legacy"));
        sh("nft flush ruleset");
        let after = scrape(program.port());
        assert!(backends(&after).iter().any(|b| b.contains("backend=\"legacy\"")), "{:?}", backends(&after));
        let (before, after) = (counters(&before), counters(&after));
        assert!(before.len() > 100);
        for (series, count) in &before {
            assert!(after.get(series).is_none_or(|now| now >= count), "{series}: {count} → {:?}", after.get(series));
        }
    });
}

#[test]
fn without_iptables_save_the_kernel_is_read_and_calicos_own_tables_are_followed_to_others() {
    let Some(namespace) = Namespace::new("no iptables-save") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        feed("nft -f -", &fixture::text("captures/v3.32.1-native/t2/nft-ip.txt.gz"));
        let mut command = program::command();
        command.env("PATH", scratch.path()).env("XTABLES_LOCKFILE", &lock).env("SOURCE", "auto");
        let program = Program::start(command);
        let before = scrape(program.port());
        assert_eq!(one(&before, "calico_accountant_up", &[]), 1.0, "{:#?}", program.log());
        let native = r#"calico_accountant_backend_info{backend="nftables",family="ipv4",source="kernel"}"#;
        assert!(before.contains_key(native), "{:?}", backends(&before));
        load("legacy", &filter_table("v3.32.1-legacy"));
        sh("nft flush ruleset");
        let after = scrape(program.port());
        let legacy = r#"calico_accountant_backend_info{backend="legacy",family="ipv4",source="kernel"}"#;
        assert!(after.contains_key(legacy), "{:?}", backends(&after));
        let (before, after) = (counters(&before), counters(&after));
        assert!(before.len() > 100);
        for (series, count) in &before {
            assert!(after.get(series).is_none_or(|now| now >= count), "{series}: {count} → {:?}", after.get(series));
        }
    });
}

/// Replaces all tables by one of this back end.
fn move_to(backend: &str) {
    match backend {
        "nftables" => feed("nft -f -", &format!("flush ruleset\n{}", fixture::text("captures/v3.32.1-native/t2/nft-ip.txt.gz"))),
        "nft" => {
            sh("nft flush ruleset");
            load("nft", &filter_table("v3.32.1-nft"));
        }
        _ => load("legacy", &filter_table("v3.32.1-legacy")),
    }
    if backend != "legacy" {
        sh("if grep -q filter /proc/net/ip_tables_names; then iptables-legacy -F && iptables-legacy -X; fi");
    }
}

#[test]
fn calico_is_followed_to_its_own_tables_and_back() {
    let Some(namespace) = Namespace::new("there and back") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        move_to("nft");
        let mut command = program::command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock).env("SOURCE", "kernel");
        let program = Program::start(command);
        let mut before = scrape(program.port());
        for backend in ["nftables", "nft", "nftables", "legacy"] {
            move_to(backend);
            if backend == "legacy" {
                sh("nft flush ruleset");
            }
            let after = scrape(program.port());
            let info = format!(r#"calico_accountant_backend_info{{backend="{backend}",family="ipv4",source="kernel"}}"#);
            assert!(after.contains_key(&info), "{:?}", backends(&after));
            let (was, is) = (counters(&before), counters(&after));
            assert!(was.len() > 100);
            for (series, count) in &was {
                assert!(is.get(series).is_none_or(|now| now >= count), "{backend}: {series}: {count} → {:?}", is.get(series));
            }
            before = after;
        }
    });
}

#[test]
fn two_capabilities_are_enough_and_without_them_one_line_says_so() {
    let Some(namespace) = Namespace::new("capabilities") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    for backend in ["legacy", "nft", "nftables"] {
        namespace.run(|| {
            move_to(backend);
            let run = |capabilities: &str| {
                let mut command = program::command_under("setpriv", &[&format!("--bounding-set=-all{capabilities}")]);
                command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock);
                command.env("SOURCE", "kernel").env("BACKEND", backend);
                let program = Program::start(command);
                let samples = scrape(program.port());
                (samples, program)
            };
            let (samples, program) = run(",+net_admin,+net_raw");
            assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0, "{backend}: {:#?}", program.log());
            assert!(counters(&samples).len() > 100, "{backend}");
            let (samples, program) = run("");
            assert_eq!((one(&samples, "calico_accountant_up", &[]), counters(&samples).len()), (0.0, 0), "{backend}");
            program.await_log("NET_ADMIN and NET_RAW");
            let errors: Vec<_> = program.log().into_iter().filter(|line| line.contains("NET_ADMIN and NET_RAW")).collect();
            assert_eq!(errors.len(), 1, "{backend}: {:#?}", program.log());
        });
    }
}
