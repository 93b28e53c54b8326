//! The commands beside `serve`, as they are typed: golden outputs over every capture, saved tables, and what goes wrong.
//!
//! `GOLDEN=write cargo test --test it commands::golden` writes the golden outputs anew.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::captures::CAPTURED_PODS;
use crate::program::{Program, command};
use crate::report::{CAPTURES, HOSTILE, files, serve_hostile};
use crate::support::etcd::Scratch;
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape;

fn run(args: &[&str]) -> Output {
    command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// What a command prints that ends well and says nothing else.
#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(args: &[&str], code: i32, expected: &str) {
    let output = run(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.as_str()), (Some(code), format!("calico-accountant: {expected}\n").as_str()), "{args:?}");
}

fn saved(capture: &str, moments: &[(&str, &str)]) -> Vec<String> {
    moments.iter().flat_map(|(flag, at)| files(capture, at).map(|file| format!("--{flag}={file}"))).collect()
}

/// Compares a text with the one that is kept, or keeps it.
#[track_caller]
pub fn is_golden(name: &str, found: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&golden).unwrap_or_default(), "{name}");
}

#[test]
fn golden_outputs() {
    for capture in CAPTURES {
        let (two, one) = (saved(capture, &[("before", "t0"), ("ruleset", "t2")]), saved(capture, &[("ruleset", "t2")]));
        for (name, words, files) in [
            ("top", &["top"][..], &two),
            ("explain", &["explain", "cali751425ce827"], &two),
            ("explain-host", &["explain", "eth1"], &two),
            ("explain-one-moment", &["explain", "cali751425ce827"], &one),
        ] {
            if name == "explain-host" && capture == "v3.32.1-native-reject" {
                continue; // That node has no host endpoint.
            }
            let args: Vec<&str> = words.iter().copied().chain(files.iter().map(String::as_str)).collect();
            let found = stdout(&args).replace(env!("CARGO_PKG_VERSION"), "VERSION");
            is_golden(&format!("{capture}/{name}"), &found);
        }
    }
}

#[test]
fn metrics_of_saved_tables() {
    let args = |moments: &[(&str, &str)]| saved("v3.32.1-nft", moments);
    let metrics = |files: &[String]| {
        let words: Vec<&str> = std::iter::once("metrics").chain(files.iter().map(String::as_str)).collect();
        scrape::parse(&stdout(&words))
    };
    let (one, two) = (metrics(&args(&[("ruleset", "t2")])), metrics(&args(&[("before", "t0"), ("ruleset", "t2")])));
    let sum =
        |samples: &scrape::Samples, name: &str, labels: &[(&str, &str)]| scrape::with(samples, name, labels).map(|(_, n)| n).sum::<f64>();
    let policies = "calico_accountant_policy_packets_total";
    assert!(sum(&one, policies, &[("verdict", "accept")]) > 100.0);
    // One moment does not tell denies: no 0 stands for them.
    assert_eq!(scrape::with(&one, policies, &[("verdict", "deny")]).count(), 0);
    assert_eq!(scrape::with(&one, "calico_accountant_drop_packets_total", &[("reason", "policy")]).count(), 0);
    assert!(sum(&two, policies, &[("verdict", "deny")]) > 100.0);
    assert_eq!(sum(&two, "calico_accountant_backend_info", &[("source", "file")]), 2.0);

    let scratch = Scratch::new();
    let output = scratch.path().join("calico.prom");
    std::fs::write(&output, "old").unwrap();
    let flag = format!("--output={}", output.display());
    let words: Vec<String> = [vec!["metrics".to_owned(), flag], args(&[("ruleset", "t2")])].concat();
    assert_eq!(stdout(&words.iter().map(String::as_str).collect::<Vec<_>>()), "");
    assert_eq!(scrape::parse(&std::fs::read_to_string(&output).unwrap()).len(), one.len());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing is left beside it");
}

/// After a reboot a counter that is no lower than before may have counted on, or anew and more.
#[test]
fn counters_that_went_back_anywhere_prove_no_zero() {
    let scratch = Scratch::new();
    let text = fixture::text("captures/v3.32.1-legacy/t2/iptables-save.txt.gz");
    let counted = text.lines().find(|line| line.contains("-A cali-tw-") && !line.starts_with("[0:")).unwrap();
    let rebooted = text.replace(counted, &format!("[1:60{}", &counted[counted.find(']').unwrap()..]));
    let series = |now: &str| {
        let [before, now] = [("before", text.as_str()), ("now", now)].map(|(name, text)| {
            let file = scratch.path().join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        });
        let output = run(&["metrics", &format!("--before={before}"), &format!("--ruleset={now}")]);
        let metrics = scrape::parse(std::str::from_utf8(&output.stdout).unwrap());
        scrape::with(&metrics, "calico_accountant_policy_packets_total", &[]).count()
    };
    assert!(series(&text) > 10);
    assert_eq!(series(&rebooted), 0);
}

#[test]
fn json_is_what_the_api_answers() {
    let files = saved("v3.32.1-legacy", &[("ruleset", "t2")]);
    let json = |words: &[&str]| -> Value {
        let args: Vec<&str> = words.iter().copied().chain(files.iter().map(String::as_str)).collect();
        serde_json::from_str(&stdout(&args)).unwrap()
    };
    assert_eq!(json(&["top", "--json"])["workloads"].as_array().unwrap().len(), 9);
    let explained = json(&["explain", "cali751425ce827", "--json"]);
    assert_eq!(explained["workload"]["interface"], "cali751425ce827");
    // One moment: what the policy's own rules counted is the most that it can have been.
    let policy = &explained["directions"][0]["tiers"][0]["targets"][2];
    assert_eq!((policy["policy"].as_str(), &policy["deny"]), (Some("default.cluster-baseline"), &Value::Null));
    assert!(policy["at_most"]["deny"].as_u64() > Some(0), "{policy}");
    assert_eq!(json(&["explain", "eth1", "--json"])["host_endpoints"].as_array().unwrap().len(), 4);
}

#[test]
fn tables_come_through_standard_input_too() {
    let text = fixture::text("captures/v3.32.1-legacy/t2/iptables-save.txt.gz");
    let scratch = Scratch::new();
    let file = scratch.path().join("saved");
    std::fs::write(&file, text).unwrap();
    let mut piped = command();
    piped.args(["explain", "cali751425ce827", "--ruleset", "-"]).stdin(std::fs::File::open(&file).unwrap());
    let piped = piped.stdout(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), stdout(&["explain", "cali751425ce827", "--ruleset", file.to_str().unwrap()]));
}

#[test]
fn what_goes_wrong_is_one_line() {
    let [v4, _] = files("v3.32.1-legacy", "t2");
    let file = |name: &str| fixture::path(name).display().to_string();
    let truth = file("captures/v3.32.1-legacy/t2/ground-truth.json.gz");
    fails(&["top", "--ruleset=/nonexistent"], 1, "/nonexistent: cannot be read: No such file or directory (os error 2)");
    fails(
        &["top", &format!("--ruleset={truth}")],
        1,
        &format!("{truth}: not what nft -j prints: there is no \"nftables\" in it at line {}", end_of(&truth)),
    );
    fails(&["explain", "a/b", "--ruleset", &v4], 1, UNKNOWN);
    let twice = format!("{v4}: the table raw (ipv4) is also in {v4}; one moment has each table once");
    fails(&["top", "--ruleset", &v4, "--ruleset", &v4], 1, &twice);
    fails(&["explain"], 2, "explain: NAMESPACE/POD or an interface is missing (see explain --help)");
    let nobody = "asking http://127.0.0.1:1/api/v1/status failed: io: Connection refused (os error 111)";
    fails(&["top", "--url=http://127.0.0.1:1/"], 1, nobody);
}

const UNKNOWN: &str = "no endpoint \"a/b\" has rules here; there is cali148a39f1805, cali43878a68a0a, cali4f48742b541, cali571d22ceb1d, \
                       cali751425ce827, calib8419a605df, calibf5f795964c, calic3c0b23f676, calied49c38c025, eth1";

/// Where the text of a file ends, as serde_json says it.
fn end_of(path: &str) -> String {
    let text = fixture::text(path.split("fixtures/").nth(1).unwrap());
    let lines = text.trim_end().lines();
    format!("{} column {}", lines.clone().count(), lines.last().unwrap().len())
}

#[test]
fn names_are_harmless_in_the_terminal() {
    let url = format!("--url=http://127.0.0.1:{}", serve_hostile());
    let top = stdout(&["top", &url]);
    let explained = ["cali148a39f1805", "cali43878a68a0a", "cali4f48742b541", "cali571d22ceb1d", "cali751425ce827", "calib8419a605df"];
    let texts = explained.map(|interface| stdout(&["explain", interface, &url]));
    for text in texts.iter().chain([&top]) {
        let strange: Vec<char> = text.chars().filter(|c| !matches!(c, ' '..='~' | '\n' | '…')).collect();
        assert!(strange.is_empty(), "{strange:?} in {text}");
        assert!(text.lines().all(|line| line.chars().count() < 700), "{text}");
    }
    assert!(texts[3].contains("\\u{1b}[2J\\u{1b}]0;owned\\u{7}\\u{9b}31m"), "{}", texts[3]);
    // A name is found as it is, whatever is in it.
    let hostile = format!("{}/{}", HOSTILE[0], HOSTILE[0]);
    assert!(stdout(&["explain", &hostile, &url]).contains("cali148a39f1805"));
}

#[test]
fn the_exporter_that_runs_here_is_asked_and_without_it_the_kernel() {
    let Some(namespace) = Namespace::new("commands on a live table") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        let text = fixture::text("captures/v3.32.1-legacy/t2/iptables-save.txt.gz");
        feed("ipset restore", &crate::kernel::sets(&text, calico_accountant::ruleset::Family::V4));
        feed("iptables-legacy-restore -c", &text);
        let pods = scratch.path().join("pods");
        CAPTURED_PODS.iter().for_each(|(namespace, pod)| std::fs::create_dir_all(pods.join(format!("{namespace}_{pod}_uid"))).unwrap());
        let base = |args: &[&str]| {
            let mut command = command();
            command.args(args).env("PATH", "/usr/sbin:/usr/bin").env("XTABLES_LOCKFILE", &lock).env("METRICS_SERVER_PORT", "9009");
            command.env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", &pods);
            command
        };
        let ask = |args: &[&str]| {
            let output = base(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let (code, alone) = ask(&["explain", "cali751425ce827"]);
        assert!(code == Some(0) && alone.contains("Read from the kernel just now") && alone.contains("<="), "{alone}");
        let (code, checked) = ask(&["check"]);
        assert!(code == Some(0) && checked.contains("ok    xtables lock") && checked.contains("All is well."), "{checked}");
        assert!(checked.contains("note  exporter: none answers"), "{checked}");
        let (code, metrics) = ask(&["metrics"]);
        assert!(code == Some(0) && metrics.contains("\ncalico_accountant_up 1\n"));

        let program = Program::start(base(&[]));
        program.port();
        let (code, asked) = ask(&["explain", "cali751425ce827"]);
        assert!(code == Some(0) && asked.contains("Counted by the exporter at http://127.0.0.1:9009"), "{asked}");
        let (_, top) = ask(&["top"]);
        assert!(top.contains("no_policy") && top.contains("cali751425ce827"), "{top}");
        assert!(ask(&["check"]).1.contains("ok    exporter: one answers"));
        // Without its lock file, and then without the table.
        std::fs::remove_file(&lock).unwrap();
        let (code, checked) = ask(&["check"]);
        assert!(code == Some(1) && checked.contains("WRONG xtables lock") && checked.contains("1 thing is wrong."), "{checked}");
        sh("iptables-legacy -F; iptables-legacy -X");
        let (code, checked) = ask(&["check"]);
        assert!(code == Some(1) && checked.contains("WRONG rules: none of Calico's chains is here"), "{checked}");
    });
}

#[test]
fn top_lives_in_a_terminal_and_gives_it_back() {
    let url = format!("--url=http://127.0.0.1:{}", serve_hostile());
    let scratch = Scratch::new();
    let seen = scratch.path().join("seen");
    let top = format!("stty cols 60 rows 12; exec {} top {url}", env!("CARGO_BIN_EXE_calico-accountant"));
    sh(&format!("(sleep 3; printf q) | script -qec '{top}' {} >/dev/null", seen.display()));
    let seen = String::from_utf8_lossy(&std::fs::read(seen).unwrap()).into_owned();
    let (_, screen) = seen.split_once("\x1b[?1049h\x1b[?25l").expect("a screen of its own");
    let (screen, _) = screen.split_once("\x1b[?25h\x1b[?1049l").expect("the old screen back");
    assert!(screen.contains("DROPS/s"), "{screen}");
    let harmless = screen.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "");
    assert!(!harmless.contains('\x1b'), "{harmless}");
    assert!(harmless.lines().all(|line| line.trim_end().chars().count() <= 60), "{harmless}");
}
