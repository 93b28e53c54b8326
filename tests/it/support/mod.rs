//! What several test modules need.

pub mod bpf;
pub mod certificates;
pub mod dump;
pub mod etcd;
pub mod fakes;
pub mod fixture;
pub mod kube;
pub mod kubectl;
pub mod netns;
pub mod proxy;
pub mod scrape;

use std::io::Write;
use std::time::{Duration, Instant};

/// Polls until `condition` holds; fails with `what` after `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a test can run here; if not, says so past the test runner's capture, and fails under CI.
pub fn can_run(test: &str, able: bool, needs: &str) -> bool {
    if !able {
        assert!(std::env::var_os("CI").is_none(), "{test} needs {needs}");
        _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs {needs}");
    }
    able
}
