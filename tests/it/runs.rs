//! `metrics --state`: runs one after the other count the same as one exporter that keeps running.

use std::fs;
use std::path::Path;

use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::fakes::Fakes;
use crate::support::fixture;
use crate::support::scrape::{Samples, labels, parse, scrape};

fn shows(fakes: &Fakes, moment: &str) {
    for (family, name) in [("iptables", "iptables-nft-save"), ("ip6tables", "ip6tables-nft-save")] {
        fakes.prints(name, &fixture::text(&format!("captures/v3.28.5-legacy/{moment}/{family}-save.txt.gz")));
    }
}

/// The exit code, standard output and standard error.
fn run(fakes: &Fakes, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/").arg("metrics").args(args);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn kept(fakes: &Fakes, state: &Path) -> Samples {
    let (code, out, err) = run(fakes, &["--state", state.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    counted(parse(&out))
}

fn counted(samples: Samples) -> Samples {
    samples.into_iter().filter(|(series, _)| series.contains("_packets_total")).collect()
}

#[test]
fn run_after_run_counts_as_one_that_stays() {
    let (fakes, scratch) = (Fakes::nft(""), Scratch::new());
    let state = scratch.path().join("state");
    let mut command = program::command();
    command.env("PATH", fakes.path()).env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/").env("SAMPLE_INTERVAL", "0");
    shows(&fakes, "t1");
    let stays = Program::start(command);
    for moment in ["t1", "t2", "t2"] {
        shows(&fakes, moment);
        let (runs, one) = (kept(&fakes, &state), counted(scrape(stays.port())));
        // A joint count of several policies may be missing until it increases.
        let may_be_away = |series: &String| labels(series).get("policy").is_some_and(|policy| policy.contains(','));
        let differ = |(series, value): &(&String, &f64)| runs.get(*series).map_or(!may_be_away(series), |found| found != *value);
        assert_eq!(one.iter().filter(differ).collect::<Vec<_>>(), [], "{moment}");
        assert_eq!(runs.keys().filter(|series| !one.contains_key(*series)).collect::<Vec<_>>(), [] as [&String; 0], "{moment}");
        let denied: f64 = runs.iter().filter(|(series, _)| series.contains("verdict=\"deny\"")).map(|(_, value)| value).sum();
        assert_eq!(denied > 0.0, moment == "t2");
    }
    // A run that cannot read leaves the state as it was.
    let before = fs::read(&state).unwrap();
    fakes.set("iptables-nft-save", "exit 1");
    assert_eq!(run(&fakes, &["--state", state.to_str().unwrap()]).0, Some(1));
    assert!(fs::read(&state).unwrap() == before);
}

#[test]
fn what_is_no_state_is_said() {
    let (fakes, scratch) = (Fakes::nft(""), Scratch::new());
    shows(&fakes, "t1");
    let state = scratch.path().join("state");
    let named = state.to_str().unwrap().to_owned();
    kept(&fakes, &state);
    let whole = fs::read(&state).unwrap();
    for (content, complaint) in [(&whole[..whole.len() / 2], "remove it to start again"), (b"{}", "remove it to start again")] {
        fs::write(&state, content).unwrap();
        let (code, out, err) = run(&fakes, &["--state", &named]);
        assert!(code == Some(1) && out.is_empty() && err.contains(&named) && err.contains(complaint), "{err}");
    }
    let (code, _, err) = run(&fakes, &["--state", &named, "--ruleset", "x"]);
    assert!(code.is_some_and(|code| code > 0) && err.contains("--state: reads the kernel, so not with --ruleset"), "{err}");
    let (_, _, err) = run(&fakes, &["--state", "/nonexistent/state"]);
    assert!(err.contains("--state: writing /nonexistent/state failed"), "{err}");
}
