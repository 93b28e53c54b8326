//! Whether the exporter does its work, and if not, why: what `/readyz` says. Pure.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::dataplane::ReadError;
use crate::datastore::inventory::Inventory;

/// How long a successful read is believed, if nobody scrapes.
const BELIEVED: Duration = Duration::from_secs(30);
/// After this time, a failed read is repeated.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Readiness(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    read: bool,
    /// When the last read ended, and why it showed nothing, if the reason lasts.
    last: Option<(Instant, Option<String>)>,
    names: Names,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Names {
    #[default]
    Unknown,
    /// The datastore has known a workload that has rules, so the node's name is right from then on.
    Right,
    Doubtful,
}

impl Readiness {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn took(&self, result: Result<(), &ReadError>) {
        let mut inner = self.inner();
        inner.read |= result.is_ok();
        inner.last = Some((Instant::now(), result.err().filter(|error| error.is_blind()).map(ToString::to_string)));
    }

    /// Takes the number of workloads that have rules, and how many of them the datastore, which was read, knows. Returns whether the node's
    /// name is in doubt.
    pub fn named(&self, workloads: usize, known: usize) -> bool {
        let mut inner = self.inner();
        inner.names = match (inner.names, workloads, known) {
            (Names::Right, ..) | (_, _, 1..) => Names::Right,
            (_, 0, 0) => Names::Unknown,
            _ => Names::Doubtful,
        };
        inner.names == Names::Doubtful
    }

    /// Whether the last read is too old, or showed nothing.
    pub fn wants_read(&self) -> bool {
        let inner = self.inner();
        let after = |problem: &Option<String>| if problem.is_some() { AGAIN } else { BELIEVED };
        !inner.read || inner.last.as_ref().is_none_or(|(at, problem)| at.elapsed() > after(problem))
    }

    /// Returns an error, in one line, if the counters cannot be read or have no names.
    pub fn reason(&self, node: &str, inventory: &Inventory) -> Result<(), String> {
        let inner = self.inner();
        if let Some((_, Some(problem))) = &inner.last {
            return Err(problem.clone());
        }
        if !inner.read {
            return Err("the kernel's counters could not be read yet; the log says why".into());
        }
        drop(inner);
        self.node_problem(node, inventory).map_or(Ok(()), Err)
    }

    pub fn node_problem(&self, node: &str, inventory: &Inventory) -> Option<String> {
        (self.inner().names == Names::Doubtful).then(|| inventory.nodes().problem(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_right_once_stays_right() {
        let readiness = Readiness::default();
        readiness.took(Ok(()));
        let inventory = Inventory::new();
        assert!(!readiness.named(0, 0));
        assert!(readiness.named(2, 0));
        assert!(readiness.reason("n", &inventory).unwrap_err().contains("under the node name \"n\""));
        assert!(!readiness.named(0, 0), "the workloads are gone, and so is what would tell");
        assert!(readiness.named(1, 0) && !readiness.named(2, 1));
        assert!(!readiness.named(1, 0), "the last pod has left the datastore before its rules");
        assert_eq!(readiness.reason("n", &inventory), Ok(()));
    }
}
