//! Totals and names → the text of `/metrics`. Pure.

mod about;
mod legacy;
mod node;
mod standard;
mod text;

use std::sync::{Arc, OnceLock};

pub use about::{About, Chains};

use crate::accounting::attribution::{Attribution, EndpointTotals, Totals};
use crate::config::MetricNames;
use crate::datastore::inventory::Workload;
use crate::felix::Catalog;
use text::Text;

/// Everything that one scrape shows.
pub struct View<'a> {
    /// What was counted.
    pub attribution: &'a Attribution,
    /// The policies and groups that there are.
    pub catalog: &'a Catalog,
    /// The workload on an interface.
    pub workload: &'a dyn Fn(&str) -> Option<Arc<Workload>>,
    /// What the exporter says about itself.
    pub about: &'a About,
    /// Whether the counters are shown: not if they could not be read.
    pub counters: bool,
    /// Which names to write.
    pub names: MetricNames,
    endpoints: OnceLock<Vec<Endpoint<'a>>>,
}

/// A workload endpoint with its name and counts.
struct Endpoint<'a> {
    interface: &'a str,
    workload: Option<Arc<Workload>>,
    totals: &'a EndpointTotals,
}

impl<'a> View<'a> {
    /// A view of the last read.
    pub fn new(
        (attribution, catalog): (&'a Attribution, &'a Catalog),
        workload: &'a dyn Fn(&str) -> Option<Arc<Workload>>,
        about: &'a About,
        counters: bool,
        names: MetricNames,
    ) -> Self {
        View { attribution, catalog, workload, about, counters, names, endpoints: OnceLock::new() }
    }

    /// The endpoints to show, each looked up once.
    fn endpoints(&self) -> &[Endpoint<'a>] {
        self.endpoints.get_or_init(|| {
            let all = self.attribution.totals().workloads().filter(|_| self.counters);
            all.map(|(interface, totals)| Endpoint { interface, workload: (self.workload)(interface), totals }).collect()
        })
    }
}

/// The largest of the counters that the Go exporter compares with `MINIMUM_COUNTER`.
pub fn largest_counter(totals: &Totals) -> u64 {
    legacy::counters(totals).max().unwrap_or(0)
}

/// Writes the text into `memory`, whatever it holds.
pub fn render(view: &View, memory: Vec<u8>) -> Vec<u8> {
    let mut text = Text::within(memory);
    about::render_common(view.about, &mut text);
    if view.counters && view.names != MetricNames::Standard {
        legacy::render(view, view.endpoints(), &mut text);
    }
    if view.counters && view.names != MetricNames::Legacy {
        standard::render(view, view.endpoints(), &mut text);
        node::render(view, &mut text);
    }
    about::render(view, &mut text);
    text.finish()
}
