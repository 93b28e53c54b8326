//! What several test modules need.

pub mod certificates;
pub mod etcd;
pub mod fixture;
pub mod proxy;

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
