//! The commands other than `serve`, as users type them: golden outputs for every capture, saved tables, and errors.
//!
//! `GOLDEN=write cargo test --test it commands::golden` writes the golden outputs again.

mod kept;

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::captures::CAPTURED_PODS;
use crate::program::{Program, binary, command};
use crate::report::{CAPTURES, HOSTILE, files, serve_hostile};
use crate::support::etcd::Scratch;
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape;

fn run(args: &[&str]) -> Output {
    command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// The output of a command that succeeds and prints nothing on standard error.
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

/// Compares a text with the golden one, or writes that.
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
            ("policies", &["policies"], &two),
            ("workloads", &["workloads"], &two),
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
    // Denies cannot be derived from one moment. They are left out, not 0.
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

/// After a reboot, a counter that is at least as high as before may have started at 0 and counted more.
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
    // There is only one moment: the counters of the policy's own rules give the most that it can have been.
    let policy = &explained["directions"][0]["tiers"][0]["targets"][2];
    assert_eq!((policy["policy"].as_str(), &policy["deny"]), (Some("default.cluster-baseline"), &Value::Null));
    assert!(policy["at_most"]["deny"].as_u64() > Some(0), "{policy}");
    assert_eq!(json(&["explain", "eth1", "--json"])["host_endpoints"].as_array().unwrap().len(), 4);
    // The other two give what the API answers.
    assert_eq!(json(&["workloads", "--json"])["workloads"], json(&["top", "--json"])["workloads"]);
    let policies = |args: &[&str]| json(args)["policies"].as_array().unwrap().clone();
    let (all, unused) = (policies(&["policies", "--json"]), policies(&["policies", "--never-hit", "--json"]));
    assert_eq!(unused, all.iter().filter(|policy| policy["hit"] == false).cloned().collect::<Vec<_>>());
    assert!(!unused.is_empty() && unused.len() < all.len());
    let of_shop = policies(&["policies", "-n", "shop", "--json"]);
    assert!(!of_shop.is_empty() && of_shop.iter().all(|policy| policy["namespace"] == "shop"), "{of_shop:#?}");
    for args in [&["top", "--json"][..], &["explain", "cali751425ce827", "--json"], &["explain", "eth1", "--json"], &["policies", "--json"]]
    {
        all_fields_are_documented(&json(args));
    }
    all_fields_are_documented(&serde_json::from_slice(&run(&["check", "--json"]).stdout).unwrap());
}

/// Asserts that docs/api.md names each field.
pub fn all_fields_are_documented(json: &Value) {
    let documented = std::fs::read_to_string(crate::deploy::path("docs/api.md")).unwrap();
    let mut rest = vec![json];
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(values) => rest.extend(values),
            Value::Object(fields) => {
                fields.keys().for_each(|field| assert!(documented.contains(&format!("`{field}`")), "{field} is not in docs/api.md"));
                rest.extend(fields.values());
            }
            _ => {}
        }
    }
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
    fails(&["top", "--ruleset=/nonexistent"], 1, "/nonexistent: cannot be read: No such file or directory");
    fails(
        &["top", &format!("--ruleset={truth}")],
        1,
        &format!("{truth}: not what nft -j prints: there is no \"nftables\" in it at line {}", end_of(&truth)),
    );
    fails(&["explain", "a/b", "--ruleset", &v4], 1, UNKNOWN);
    let twice = format!("{v4}: the table raw (ipv4) is also in {v4}; one moment has each table once");
    fails(&["top", "--ruleset", &v4, "--ruleset", &v4], 1, &twice);
    fails(&["explain"], 2, "explain: NAMESPACE/POD or an interface is missing (see explain --help)");
    let nobody = "http://127.0.0.1:1 refuses the connection: nothing listens there";
    fails(&["top", "--url=http://127.0.0.1:1/"], 1, nobody);
}

const UNKNOWN: &str = "no endpoint \"a/b\" has rules here; there is cali148a39f1805, cali43878a68a0a, cali4f48742b541, cali571d22ceb1d, \
                       cali751425ce827, calib8419a605df, calibf5f795964c, calic3c0b23f676, calied49c38c025, eth1";

/// The position at which a file's text ends, as serde_json writes it.
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
    // A name is found as it is, whatever characters it has.
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
        // The lock file is gone first, then the table too.
        std::fs::remove_file(&lock).unwrap();
        let (code, checked) = ask(&["check"]);
        assert!(code == Some(1) && checked.contains("WRONG xtables lock") && checked.contains("1 thing is wrong."), "{checked}");
        sh("iptables-legacy -F; iptables-legacy -X");
        let (code, checked) = ask(&["check"]);
        assert!(code == Some(1) && checked.contains("WRONG rules: none of Calico's chains is here"), "{checked}");
    });
}

/// iptables-nft-save prints nothing of a table if iptables has no form for one of its rules.
#[test]
fn rules_of_another_program_are_named_where_iptables_cannot_show_them() {
    let Some(namespace) = Namespace::new("rules of nft's in iptables' table") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        crate::kernel::load("nft", &crate::kernel::filter_table("v3.32.1-nft"));
        sh("nft add rule ip filter FORWARD ct state vmap '{ invalid : drop }'");
        let checked = |source: &str| {
            let mut command = command();
            command.arg("check").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &lock).env("DATASTORE_TYPE", "none");
            let output = command.env("BACKEND", "nft").env("SOURCE", source).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let (by_program, by_kernel) = (checked("save"), checked("kernel"));
        let reason = "another program wrote some by nft, or a newer iptables wrote Calico's. SOURCE=kernel reads them";
        assert!(by_program.contains("WRONG rules: ") && by_program.contains(reason), "{by_program}");
        assert!(by_kernel.contains("ok    rules: "), "{by_kernel}");
    });
}

/// What a command writes in a terminal of this size while a user types.
fn in_terminal(size: &str, keys: &str, command: &str) -> String {
    let scratch = Scratch::new();
    let seen = scratch.path().join("seen");
    sh(&format!("({keys}) | script -qec 'stty {size}; exec {command}' {} >/dev/null", seen.display()));
    String::from_utf8_lossy(&std::fs::read(seen).unwrap()).into_owned()
}

/// What `top` draws in a terminal, as a list of screens without the codes that move the cursor.
pub fn drawn(size: &str, keys: &str, command: &str) -> Vec<String> {
    let seen = in_terminal(size, keys, command);
    let (_, screen) = seen.split_once("\x1b[?1049h\x1b[?25l").expect("a screen of its own");
    let (screens, _) = screen.split_once("\x1b[?25h\x1b[?1049l").expect("the old screen back");
    screens.replace("\x1b[K", "").replace("\x1b[J", "").split("\x1b[H").skip(1).map(str::to_owned).collect()
}

fn top_of_hostile() -> String {
    format!("{} top --url=http://127.0.0.1:{}", binary(), serve_hostile())
}

#[test]
fn pipelines_fit_into_narrow_terminals() {
    let args: String = saved("v3.32.1-legacy", &[("before", "t0"), ("ruleset", "t2")]).join(" ");
    let shown = in_terminal("cols 50 rows 50", "true", &format!("{} explain cali751425ce827 {args}", binary()));
    let pipelines = shown.split_once("INGRESS").and_then(|(_, rest)| rest.split_once("\nScript done")).unwrap().0;
    assert!(pipelines.lines().all(|line| line.trim_end().chars().count() <= 50), "{shown}");
    let whole: String = pipelines.split_whitespace().filter(|word| word.parse::<u64>().is_err() && *word != "-").collect();
    assert!(
        pipelines.contains("\n  1. group of 2, not         42      21          -")
            && whole.contains("KubernetesNetworkPolicyshop/allow-metrics"),
        "{shown}"
    );
}

#[test]
fn top_lives_in_a_terminal_and_gives_it_back() {
    let top = top_of_hostile();
    for (size, width) in [("cols 60 rows 12", 60), ("cols 80 rows 60", 80)] {
        let screens = drawn(size, "sleep 3; printf q", &top);
        assert!(screens.len() > 1 && screens.iter().all(|screen| screen.contains("DROPS/s") && !screen.contains('\x1b')), "{screens:?}");
        let lines = || screens.iter().flat_map(|screen| screen.lines());
        assert!(lines().all(|line| line.trim_end().chars().count() <= width), "{screens:#?}");
        // The last column is a number and is not cut.
        let counts = lines().filter(|line| line.contains("cali") && !line.contains("calico-")).count();
        assert!(width < 80 || counts > 3, "{screens:#?}");
    }
}

#[test]
fn top_sorts_filters_scrolls_and_helps() {
    let top = top_of_hostile();
    let screens =
        drawn("cols 100 rows 12", "sleep 1; for keys in s '?' x /NO_POL '\\r' j; do printf \"$keys\"; sleep 0.4; done; printf q", &top);
    let last = |screen: &String| screen.trim_end().lines().last().unwrap_or_default().to_owned();
    let ends = [
        "? help  q end  sorted by rate  lines 1 to ",
        "? help  q end  sorted by total  lines 1 to ",
        "q, Ctrl-C    end",
        "filter: /NO_POL_",
        "filter: NO_POL  lines 1 to ",
        "filter: NO_POL  lines 2 to ",
    ];
    let mut screens = screens.iter();
    for end in ends {
        let end = end.replace("filter: /", "filter: ");
        assert!(screens.any(|screen| last(screen).contains(&end)), "no {end:?}, or not in this order");
    }
    let shown: Vec<String> = drawn("cols 100 rows 40", "sleep 1; printf /no_policy; sleep 0.5; printf '\\rq'", &top)
        .pop()
        .unwrap()
        .lines()
        .skip(4)
        .map(str::to_owned)
        .collect();
    let drops: Vec<&String> = shown.iter().take_while(|line| !line.trim().is_empty()).collect();
    assert!(drops.len() > 5 && drops.iter().all(|line| line.contains("no_policy")), "{shown:#?}");
}
