//! Passes the drops of each read to the [`Past`](crate::report::past::Past). Pure, except for names, which are the inventory's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use super::state::State;
use super::{Scraper, seconds};
use crate::accounting::Accounting;
use crate::felix::EndpointKind;
use crate::report::{self, Outline, Sources};

impl Scraper {
    /// Keeps what was dropped up to now. Workloads without drops cost almost nothing.
    pub(super) fn keep(&self, state: &mut State, now: SystemTime) {
        let now = seconds(now);
        if self.options.one_moment || !state.past.wants(now) {
            return;
        }
        let State { accounting, past, found, .. } = state;
        let (attribution, catalog) = (accounting.attribution(), accounting.catalog());
        let dropping: HashSet<&Arc<str>> = accounting.totals().dropping().collect();
        let outline = outline(accounting, |kind, interface| kind == EndpointKind::Workload && dropping.contains(interface));
        // A workload that came with this read is looked for after it, and named by the next one.
        let workload = |interface: &str| self.inventory.workload(interface).or_else(|| found.get(interface).cloned());
        let drops = report::drops(Sources { outline: &outline, attribution, catalog, workload: &workload, one_moment: false });
        past.record(now, accounting.totals().workloads().map(|(interface, _)| Arc::clone(interface)), &drops);
        past.see(now, catalog.policies.iter().map(|policy| Arc::clone(&policy.policy)));
    }
}

/// Returns the pipelines of the endpoints that are wanted.
pub(super) fn outline(accounting: &Accounting, wanted: impl Fn(EndpointKind, &Arc<str>) -> bool) -> Outline {
    match accounting.attribution().programs() {
        Some(programs) => Outline::of_programs(programs),
        None => Outline::of_tables(accounting.tables(), wanted),
    }
}
