//! Puts the parts together and runs them: logging, signals, the datastore's follower, the HTTP server.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::{process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::config::{Config, Remark};
use crate::inventory::Inventory;
use crate::logging;
use crate::process::Process;
use crate::server::{Application, Limits, Listener};
use crate::singleflight::SingleFlight;

/// Why the program stopped: what failed, and the error.
#[derive(Debug)]
pub struct Failure {
    doing: String,
    error: Box<dyn std::error::Error + Send + Sync>,
}

impl Failure {
    /// `doing`: the operation that failed and its object.
    fn new(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |error| Self { doing, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.doing, self.error)
    }
}

impl std::error::Error for Failure {}

/// Runs until a signal ends the process, or something fails for good.
pub fn run(config: Config, remarks: &[Remark]) -> Failure {
    match start(config, remarks) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn start(config: Config, remarks: &[Remark]) -> Result<Infallible, Failure> {
    logging::start(config.log_level, config.log_format);
    logging::report_panics();
    exit_on_signals().map_err(Failure::new("installing signal handlers"))?;
    log::info!("calico-accountant {}", env!("CARGO_PKG_VERSION"));
    for remark in remarks {
        log::log!(remark.level, "{}", remark.text);
    }

    let inventory = Arc::new(Inventory::new());
    // SEAM: start the datastore's follower here; it writes `inventory`.

    let (address, port) = (config.listen_address, config.port);
    let listener =
        Listener::bind(address, port, Limits::default()).map_err(Failure::new(format!("listening on {address}, port {port},")))?;
    if let Ok(address) = listener.address() {
        log::info!("listening on {address}");
    }
    // SEAM: replace `Placeholder` by the scraper.
    let app = Placeholder { node_name: config.node_name, inventory, flight: SingleFlight::new() };
    listener.serve(Arc::new(app)).map_err(Failure::new("serving HTTP"))
}

/// As process 1 of a container, a process without handlers is immune to SIGTERM. There is nothing to save: exit at once.
fn exit_on_signals() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            log::info!("ended by {}", signal_name(signal).unwrap_or("a signal"));
            process::exit(0);
        }
    })?;
    Ok(())
}

/// Stands in for the scraper: says only what the program knows about itself.
struct Placeholder {
    node_name: String,
    inventory: Arc<Inventory>,
    flight: SingleFlight<Arc<Vec<u8>>>,
}

impl Application for Placeholder {
    fn metrics(&self) -> Arc<Vec<u8>> {
        self.flight.run(|| Arc::new(own_metrics(&Process::read(Path::new("/proc"))).into_bytes()))
    }

    fn ready(&self) -> Result<(), String> {
        if self.inventory.synced() { Ok(()) } else { Err("the datastore has not been read yet".into()) }
    }

    fn node_name(&self) -> &str {
        &self.node_name
    }
}

/// Version and resources of this process.
fn own_metrics(process: &Process) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, labels: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n");
        }
    };
    let labels = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    metric("calico_accountant_build_info", "gauge", "The version of this program.", &labels, Some(1.0));
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    let p = process;
    metric("process_cpu_seconds_total", "counter", "User and system CPU time, in seconds.", "", p.cpu_seconds);
    metric("process_max_fds", "gauge", "Limit of open file descriptors.", "", whole(p.max_fds));
    metric("process_open_fds", "gauge", "Open file descriptors.", "", whole(p.open_fds));
    metric("process_resident_memory_bytes", "gauge", "Resident memory.", "", whole(p.resident_memory_bytes));
    metric("process_start_time_seconds", "gauge", "Start of the process, in seconds since the epoch.", "", p.start_time_seconds);
    metric("process_threads", "gauge", "Threads.", "", whole(p.threads));
    metric("process_virtual_memory_bytes", "gauge", "Virtual memory.", "", whole(p.virtual_memory_bytes));
    text
}
