//! Renders totals and names as the text of `/metrics`. Pure.

mod about;
mod legacy;
mod node;
mod standard;
mod text;

use std::sync::Arc;

pub use about::About;
pub use legacy::largest_counter;

use crate::accounting::attribution::{Attribution, EndpointTotals, Item};
use crate::config::{Exposition, MetricNames, ZeroSeries};
use crate::datastore::inventory::Workload;
use crate::felix::{Catalog, Direction};
use text::Text;

/// Everything that one scrape shows.
pub struct View<'a> {
    pub attribution: &'a Attribution,
    pub catalog: &'a Catalog,
    pub workload: &'a dyn Fn(&str) -> Option<Arc<Workload>>,
    pub about: &'a About,
    /// Whether to show the counters. False if they could not be read.
    pub counters: bool,
    pub exposition: &'a Exposition,
}

impl<'a> View<'a> {
    /// Returns the counts of an endpoint that are shown.
    fn counts(&self, endpoint: &'a EndpointTotals, direction: Direction) -> impl Iterator<Item = (&'a Item, u64)> + use<'a> {
        let omit = self.exposition.zeros == ZeroSeries::Omit;
        let shown = self.attribution.totals().shown(endpoint, direction).filter(move |total| !omit || total.packets > 0);
        shown.map(move |total| (&*total.item, if omit { total.introduced_packets() } else { total.packets }))
    }
}

struct Endpoint<'a> {
    interface: &'a str,
    workload: Option<Arc<Workload>>,
    totals: &'a EndpointTotals,
}

/// Writes the text into `memory`, whose content is replaced.
pub fn render(view: &View, memory: Vec<u8>) -> Vec<u8> {
    let mut text = Text::within(memory, &view.exposition.families);
    let shown = view.attribution.totals().workloads().filter(|_| view.counters);
    let endpoints: Vec<_> = shown.map(|(interface, totals)| Endpoint { interface, workload: (view.workload)(interface), totals }).collect();
    let help = "Number of scrapes that were ignored because all counter values were below a minimum";
    text.single("calico_accountant_dropped_scrape", "counter", help, view.about.dropped_scrapes);
    if view.counters && view.exposition.names != MetricNames::Standard {
        legacy::render(view, &endpoints, &mut text);
    }
    if view.counters && view.exposition.names != MetricNames::Legacy {
        standard::render(view, &endpoints, &mut text);
        node::render(view, &mut text);
    }
    about::render(view.about, &endpoints, &mut text);
    text.finish()
}
