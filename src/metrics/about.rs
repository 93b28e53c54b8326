//! What the exporter says about itself.

use std::time::Duration;

use crate::os::process::Process;
use crate::report::{Chains, Status};

use super::Endpoint;
use super::text::{Labels, Text};

#[derive(Debug, Clone, Default)]
pub struct About {
    pub status: Status,
    pub stages: Vec<(&'static str, Duration)>,
    pub lock_waited: Duration,
    pub lock_timeouts: u64,
    pub dropped_scrapes: u64,
    pub datastore_resyncs: u64,
    pub process: Option<Process>,
}

pub fn render(about: &About, endpoints: &[Endpoint], text: &mut Text) {
    let labels = Labels::default().with_if("node", &about.status.node).with("version", env!("CARGO_PKG_VERSION"));
    text.metric("calico_accountant_build_info", "gauge", "The version of this program, and its node. Value 1.")
        .sample(labels.as_str(), true);
    tables(about, text);
    if about.status.up {
        let help = "Whether the tables were read under the lock that writers take; 0 only for legacy tables without it.";
        text.single("calico_accountant_lock_held", "gauge", help, about.status.lock_held);
        let help = "Time that this scrape waited for the xtables lock.";
        text.single("calico_accountant_lock_wait_seconds", "gauge", help, about.lock_waited.as_secs_f64());
    }
    let help = "Whether Calico's chains or programs have rules: present; absent (none since the start); vanished (some before).";
    let mut metric = text.metric("calico_accountant_chains", "gauge", help);
    for state in [Chains::Absent, Chains::Present, Chains::Vanished] {
        metric.sample(Labels::default().with("state", state.as_str()).as_str(), about.status.chains == state);
    }
    let help = "Reads given up because the xtables lock was held for too long.";
    text.single("calico_accountant_lock_timeouts_total", "counter", help, about.lock_timeouts);
    let help = "Rules that are not understood or have no name, and lines that are not rules; what depends on them is left out.";
    text.single("calico_accountant_unrecognised_rules", "gauge", help, about.status.unrecognised_rules);
    datastore(about, text);
    workloads(about, endpoints, text);
    let mut metric = text.metric("calico_accountant_scrape_duration_seconds", "gauge", "Time that each stage of this scrape took.");
    for (stage, took) in &about.stages {
        metric.sample(Labels::default().with("stage", stage).as_str(), took.as_secs_f64());
    }
    let help = "Whether the kernel's counters could be read; if not, this scrape has none.";
    text.single("calico_accountant_up", "gauge", help, about.status.up);
    process(about, text);
    let series = text.series() + 1;
    text.single("calico_accountant_series", "gauge", "Series in this scrape.", series);
}

fn tables(about: &About, text: &mut Text) {
    let mut metric = text.metric("calico_accountant_backend_info", "gauge", "Where Calico's rules are, and how they are read. Value 1.");
    for table in &about.status.tables {
        let labels = Labels::default().with("backend", &table.backend).with("family", &table.family);
        metric.sample(labels.with("source", &table.source).as_str(), true);
    }
    let help = "Another back end that holds chains of endpoints, and the evidence that it is not the live one. Value 1.";
    let mut metric = text.metric("calico_accountant_other_backend_info", "gauge", help);
    for other in &about.status.other_backends {
        let labels = Labels::default().with("backend", &other.backend);
        metric.sample(labels.with("evidence", other.evidence.as_deref().unwrap_or("none")).as_str(), true);
    }
    let mut metric = text.metric("calico_accountant_rules", "gauge", "Rules in Calico's chains or programs.");
    for table in &about.status.tables {
        metric.sample(Labels::default().with("family", &table.family).as_str(), table.rules);
    }
}

fn datastore(about: &About, text: &mut Text) {
    text.single("calico_accountant_datastore_up", "gauge", "Whether the datastore answers.", about.status.datastore.up);
    let help = "When the datastore last sent something, in seconds since the epoch; 0 for never.";
    text.single("calico_accountant_datastore_last_event_timestamp_seconds", "gauge", help, about.status.datastore.last_event.unwrap_or(0));
    let help = "Times that everything was read from the datastore again.";
    text.single("calico_accountant_datastore_resyncs_total", "counter", help, about.datastore_resyncs);
}

fn workloads(about: &About, endpoints: &[Endpoint], text: &mut Text) {
    // While the rules cannot be read, it is unknown which workloads have some.
    if !about.status.up && about.status.chains == Chains::Unknown {
        return;
    }
    let known = endpoints.iter().filter(|endpoint| endpoint.workload.is_some()).count();
    let unknown = endpoints.len() - known;
    let help = "Workloads of this node: with rules and known to the datastore, with rules but unknown to it, known to it and running but without rules.";
    let mut metric = text.metric("calico_accountant_workloads", "gauge", help);
    for (state, count) in [("known", known), ("unknown", unknown), ("without_rules", about.status.workloads.without_rules)] {
        metric.sample(Labels::default().with("state", state).as_str(), count as u64);
    }
}

fn process(about: &About, text: &mut Text) {
    let Some(process) = about.process else { return };
    let mut single = |name, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            text.single(name, kind, help, value);
        }
    };
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    single("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", process.cpu_seconds);
    single("process_max_fds", "gauge", "Maximum number of open file descriptors.", whole(process.max_fds));
    single("process_open_fds", "gauge", "Number of open file descriptors.", whole(process.open_fds));
    single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", whole(process.resident_memory_bytes));
    single("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", Some(about.status.started));
    single("process_threads", "gauge", "Number of OS threads in the process.", whole(process.threads));
    single("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", whole(process.virtual_memory_bytes));
}
