//! Whether the exporter does what it is there for, and if not, why: what `/readyz` says. Pure.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::dataplane::ReadError;
use crate::datastore::inventory::Inventory;

/// A read that went well is believed for so long, if nobody scrapes.
const BELIEVED: Duration = Duration::from_secs(30);
/// One that did not is taken again after this.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Readiness(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    read: bool,
    /// When the last read ended, and why it showed nothing, if that lasts.
    last: Option<(Instant, Option<String>)>,
    names: Names,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Names {
    #[default]
    Unknown,
    /// The datastore has known a workload that has rules: the name is right, for good.
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

    /// `workloads`: that have rules; `known`: those of them that the datastore, which was read, knows. Whether the node's name is in doubt.
    pub fn named(&self, workloads: usize, known: usize) -> bool {
        let mut inner = self.inner();
        inner.names = match (inner.names, workloads, known) {
            (Names::Right, ..) | (_, _, 1..) => Names::Right,
            (_, 0, 0) => Names::Unknown,
            _ => Names::Doubtful,
        };
        inner.names == Names::Doubtful
    }

    /// Whether the last read is too old to go by, or showed nothing.
    pub fn wants_read(&self) -> bool {
        let inner = self.inner();
        let after = |problem: &Option<String>| if problem.is_some() { AGAIN } else { BELIEVED };
        !inner.read || inner.last.as_ref().is_none_or(|(at, problem)| at.elapsed() > after(problem))
    }

    /// Whether the counters can be read, and have names; else why not, in one line.
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
