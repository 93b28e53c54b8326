//! Helpers for several test modules.

pub mod bpf;
pub mod browser;
pub mod built;
pub mod certificates;
pub mod container;
pub mod demo;
pub mod documented;
pub mod dump;
pub mod etcd;
pub mod fakes;
pub mod fixture;
pub mod follower;
pub mod helm;
pub mod kernel;
pub mod kube;
pub mod kubectl;
pub mod measured;
pub mod netns;
pub mod prometheus;
pub mod proxy;
pub mod relay;
pub mod scrape;

use std::io::Write;
use std::time::{Duration, Instant};

/// Polls until `condition` is true. Fails with `what` after `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reports whether a test can run here. If not, prints a message past the test runner's capture, and fails under CI.
pub fn can_run(test: &str, able: bool, needs: &str) -> bool {
    if !able {
        assert!(std::env::var_os("CI").is_none(), "{test} needs {needs}");
        _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs {needs}");
    }
    able
}

/// Reports whether tests with a short and a long form must take the long one.
pub fn is_long() -> bool {
    std::env::var_os("WITHSTAND").is_some()
}

/// Returns a number from another process's `/proc/PID/status`.
pub fn status(process: rustix::process::Pid, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}
