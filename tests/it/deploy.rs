//! What is deployed with the program: unit, alerts, dashboards, chart. Each is tried with the program that will read it.

mod chart;
pub mod dashboards;
pub mod promql;
pub mod rules;
pub mod scraped;
mod systemd;

use std::path::{Path, PathBuf};

/// A file or folder of the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of a file of the repository.
#[track_caller]
fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
