//! Totals and names → the text of `/metrics`. Pure.

mod about;
mod legacy;
mod node;
mod standard;
mod text;

use std::sync::Arc;

pub use about::{About, Chains};

use crate::accounting::attribution::{Attribution, EndpointTotals, Totals};
use crate::config::MetricNames;
use crate::datastore::inventory::Workload;
use crate::felix::Catalog;
use text::Text;

/// Everything that one scrape shows.
pub struct View<'a> {
    pub attribution: &'a Attribution,
    pub catalog: &'a Catalog,
    pub workload: &'a dyn Fn(&str) -> Option<Arc<Workload>>,
    pub about: &'a About,
    /// Whether the counters are shown: not if they could not be read.
    pub counters: bool,
    pub names: MetricNames,
}

struct Endpoint<'a> {
    interface: &'a str,
    workload: Option<Arc<Workload>>,
    totals: &'a EndpointTotals,
}

/// The largest of the counters that the Go exporter compares with `MINIMUM_COUNTER`.
pub fn largest_counter(totals: &Totals) -> u64 {
    legacy::counters(totals).max().unwrap_or(0)
}

/// Writes the text into `memory`, whatever it holds.
pub fn render(view: &View, memory: Vec<u8>) -> Vec<u8> {
    let mut text = Text::within(memory);
    let shown = view.attribution.totals().workloads().filter(|_| view.counters);
    let endpoints: Vec<_> = shown.map(|(interface, totals)| Endpoint { interface, workload: (view.workload)(interface), totals }).collect();
    about::render_common(view.about, &mut text);
    if view.counters && view.names != MetricNames::Standard {
        legacy::render(view, &endpoints, &mut text);
    }
    if view.counters && view.names != MetricNames::Legacy {
        standard::render(view, &endpoints, &mut text);
        node::render(view, &mut text);
    }
    about::render(view.about, &endpoints, &mut text);
    text.finish()
}
