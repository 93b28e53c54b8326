//! Failed reads of the kernel: the scrape still answers, reports the failure, and shows no doubtful count.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::fakes::Fakes;
use crate::support::scrape::{Samples, one, scrape, with};
use crate::support::{can_run, fixture, within};

fn table() -> String {
    fixture::text("captures/v3.28.5-legacy/t1/iptables-save.txt.gz")
}

fn start(fakes: &Fakes) -> Program {
    let mut command = program::command();
    command.env("PATH", fakes.path());
    Program::start(command)
}

fn has_counters(samples: &Samples) -> bool {
    with(samples, "calico_accountant_policy_packets_total", &[]).next().is_some()
}

/// Scrapes with this script in place of iptables-save. Asserts that `up` is 0, that there are no counters, and that one line in the log
/// says why.
fn fails_with(script: &str, line: &str) {
    fails_in_ways(script, line, 1);
}

/// Like [`fails_with`], for a script that may fail in several ways from read to read.
fn fails_in_ways(script: &str, line: &str, ways: usize) {
    let fakes = Fakes::nft(script);
    let program = start(&fakes);
    let port = program.port();
    for _ in 0..2 {
        let begun = Instant::now();
        let samples = scrape(port);
        assert!(begun.elapsed().as_secs() < 10, "a scrape must end before Prometheus gives up");
        assert_eq!(one(&samples, "calico_accountant_up", &[]), 0.0, "{script}");
        assert!(!has_counters(&samples), "{script}");
    }
    program.await_log(line);
    let lines = program.log().into_iter().filter(|l| l.contains("reading the kernel's counters failed")).count();
    assert!((1..=ways).contains(&lines), "{:#?}", program.log());
    // When the program works and a read in progress has ended, scrapes succeed.
    fakes.prints("iptables-nft-save", &table());
    within(Duration::from_secs(5), "counters", || {
        let samples = scrape(port);
        assert_eq!(one(&samples, "calico_accountant_up", &[]) == 1.0, has_counters(&samples));
        has_counters(&samples)
    });
    program.await_log("the kernel's counters can be read again");
}

#[test]
fn a_program_that_fails() {
    fails_with("echo 'Permission denied (you must be root)' >&2; exit 4", "ended with exit code 4: Permission denied (you must be root)");
}

#[test]
fn a_program_that_dies() {
    fails_with("echo '*filter'; kill -9 $$", "was ended by signal 9");
}

#[test]
fn a_program_that_hangs() {
    fails_with("echo '*filter'; sleep 1000", "was killed: it had not ended after 6.0 s");
}

/// The scrape shares the read in progress, although that fails: two reads would take longer than Prometheus waits.
#[test]
fn a_scrape_while_a_read_hangs() {
    let scratch = Scratch::new();
    let hangs = scratch.path().join("hangs");
    let fakes = Fakes::nft(&format!("[ -e {} ] && sleep 1000; exit 3", hangs.display()));
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("SAMPLE_INTERVAL", "1s");
    let program = Program::start(command);
    program.await_log("ended with exit code 3");
    std::fs::write(&hangs, "").unwrap();
    within(Duration::from_secs(5), "a read that nobody asked for", || children_of(program.pid()) > 0);
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 0.0);
    assert!(begun.elapsed() < Duration::from_secs(9), "a scrape must end before Prometheus gives up");
    assert_eq!(program.log().iter().filter(|line| line.contains("was killed")).count(), 1);
}

/// Children of a wrapper end with it, even one in its own session, or one that has lost its parent.
#[test]
fn a_wrapper_whose_children_leave_it() {
    let scratch = Scratch::new();
    let script = "setsid sleep 1000 >/dev/null 2>&1 & echo $! >&2; (setsid sleep 1000 >/dev/null 2>&1 & echo $! >&2); cat TABLE; exit 7";
    let table = scratch.path().join("table");
    std::fs::write(&table, self::table()).unwrap();
    let fakes = Fakes::nft(&script.replace("TABLE", &table.display().to_string()));
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("BACKEND", "nft").env("SOURCE", "save");
    let program = Program::start(command);
    for _ in 0..3 {
        assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 0.0);
    }
    let line = program.await_log("ended with exit code 7: ");
    let numbers: Vec<_> =
        line.split("exit code 7: ").nth(1).unwrap().split(['"', ';', ' ']).filter_map(|n| n.parse::<u32>().ok()).collect();
    assert_eq!(numbers.len(), 2, "{line}");
    within(Duration::from_secs(5), "the end of what the wrapper left", || children_of(program.pid()) == 0);
    assert!(numbers.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()), "{numbers:?}");
}

/// How many children a process has, including dead ones.
fn children_of(process: Pid) -> usize {
    let parent = process.as_raw_nonzero().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)) == Some(&parent)).count()
}

#[test]
fn a_program_that_floods() {
    fails_with("yes", "was killed: it");
    // On a fast machine the limit on rules applies, otherwise the limit on time.
    fails_in_ways("echo '*filter'; echo ':cali-tw-cali1 - [0:0]'; yes '[1:1] -A cali-tw-cali1 -j ACCEPT'", "was killed: it", 2);
    fails_with("echo '*filter'; echo ':cali-tw-cali1 - [0:0]'; yes >&2", "was killed: it had not ended after 6.0 s");
}

#[test]
fn a_program_that_prints_garbage() {
    let line = "iptables-nft-save: its output is not that of iptables-save: it contains no table";
    for script in ["head -c 200000 /dev/urandom", "echo '<html>502 Bad Gateway</html>'", "head -c 200000 /dev/zero", "echo COMMIT"] {
        fails_with(script, line);
    }
}

#[test]
fn a_table_that_is_cut_off() {
    fails_with("echo '*filter'; echo ':cali-tw-cali1 - [0:0]'", "the output ends within table filter");
}

#[test]
fn an_iptables_that_is_too_old() {
    let line = "echo \"# Table \\`filter' is incompatible, use 'nft' tool.\"";
    fails_with(line, "is incompatible, use 'nft' tool.");
}

#[test]
fn no_program_at_all() {
    let fakes = Fakes::new();
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("SOURCE", "save");
    let program = Program::start(command);
    assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 0.0);
    program.await_log("neither iptables-nft-save, iptables-legacy-save nor iptables-save is on the search path");
}

#[test]
fn garbage_between_the_rules() {
    let (before, after) = (table(), table().replace("\n:cali-FORWARD", "\nwhat is this?\n[1:x] -A cali-nothing\n:cali-FORWARD"));
    assert_ne!(before, after);
    let fakes = Fakes::tables(&before, "");
    let clean = scrape(start(&fakes).port());
    fakes.prints("iptables-nft-save", &after);
    let program = start(&fakes);
    let samples = scrape(program.port());
    assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0);
    assert_eq!(one(&samples, "calico_accountant_unrecognised_rules", &[]), 2.0);
    for name in ["policy_accept_counter", "calico_accountant_policy_packets_total", "calico_accountant_drop_packets_total"] {
        assert_eq!(with(&samples, name, &[]).collect::<Vec<_>>(), with(&clean, name, &[]).collect::<Vec<_>>());
    }
    program.await_log("skipping a line that is not a rule: \\\"what is this?\\\"");
}

#[test]
fn without_the_right_to_read() {
    let setpriv = Command::new("setpriv").args(["--bounding-set", "-net_admin", "true"]).status().is_ok_and(|s| s.success());
    if !can_run("without_the_right_to_read", setpriv, "root and setpriv") {
        return;
    }
    let Some(namespace) = crate::support::netns::Namespace::new("without_the_right_to_read") else { return };
    namespace.run(|| {
        let mut command = Command::new("setpriv");
        let caps = ["--bounding-set", "-net_admin,-net_raw", "--inh-caps", "-net_admin,-net_raw"];
        command.args(caps).arg(env!("CARGO_BIN_EXE_calico-accountant")).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("NODENAME", "n").env("ETCD_ENDPOINTS", "http://127.0.0.1:1").env("METRICS_SERVER_PORT", "0");
        command.env("LISTEN_ADDRESS", "127.0.0.1").env("BACKEND", "nft").env("SOURCE", "save");
        let program = Program::start(command);
        assert_eq!(one(&scrape(program.port()), "calico_accountant_up", &[]), 0.0);
        program.await_log("Permission denied");
    });
}
