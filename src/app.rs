//! Puts the parts together and runs them: logging, signals, the datastore's follower, the HTTP server.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::{process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::config::{ApiGroup, Config, Datastore, Remark};
use crate::dataplane::{self, Dataplane};
use crate::etcd;
use crate::inventory::Inventory;
use crate::kubernetes::{self, CalicoApi, Configured};
use crate::logging;
use crate::scraper::{self, Scraper};
use crate::server::{Limits, Listener};

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
    bound_descriptors();
    for remark in remarks {
        log::log!(remark.level, "{}", remark.text);
    }

    let inventory = Arc::new(Inventory::new());
    follow(&config, &inventory).map_err(Failure::new("starting the datastore's follower"))?;

    let (address, port) = (config.listen_address, config.port);
    let listener =
        Listener::bind(address, port, Limits::default()).map_err(Failure::new(format!("listening on {address}, port {port},")))?;
    if let Ok(address) = listener.address() {
        log::info!("listening on {address}");
    }
    let sample_interval = config.sample_interval;
    let scraper = Arc::new(scraper(config, inventory));
    read_early(Arc::clone(&scraper), sample_interval).map_err(Failure::new("starting a thread"))?;
    listener.serve(scraper).map_err(Failure::new("serving HTTP"))
}

/// So many descriptors, and no more, even where the system allows a million: tiny_http takes two and a thread for each connection, so
/// this is what bounds them (to some 240). All else that is open at a time takes a few dozen.
const DESCRIPTORS: u64 = 512;

fn bound_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = Some(limit.current.map_or(DESCRIPTORS, |current| current.min(DESCRIPTORS)));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, ..limit }) {
        log::warn!("the number of connections is not bounded: {error}");
    }
}

/// Starts to fill the inventory.
fn follow(config: &Config, inventory: &Arc<Inventory>) -> std::io::Result<()> {
    match &config.datastore {
        Datastore::Etcd(etcd) => etcd::follow(etcd.clone(), config.node_name.clone(), Arc::clone(inventory)),
        Datastore::Kubernetes(kubernetes) => {
            let api = match kubernetes.api_group {
                ApiGroup::Discover => CalicoApi::Discover,
                ApiGroup::Crd => CalicoApi::Crd,
                ApiGroup::V3 => CalicoApi::V3,
            };
            let access = Arc::new(Configured::new((**kubernetes).clone()));
            kubernetes::follow(access, config.node_name.clone(), api, Arc::clone(inventory))
        }
        Datastore::None => {
            stand_alone(inventory);
            Ok(())
        }
    }
}

/// Without a datastore there is nothing to wait for, and no policy has another name than its rules say.
fn stand_alone(inventory: &Inventory) {
    inventory.replace_policies([]);
    inventory.mark_synced();
    inventory.set_up(true);
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

/// Reads the kernel now: derived counts begin with the first read, and names that only the datastore has are asked for early. A
/// scrape that comes meanwhile shares this one. Then reads on, if that was asked for.
fn read_early(scraper: Arc<Scraper>, sample_interval: Option<Duration>) -> std::io::Result<()> {
    let reads = move || {
        scraper.scrape();
        while let Some(interval) = sample_interval {
            thread::sleep(interval);
            scraper.sample();
        }
    };
    thread::Builder::new().name("reads".into()).spawn(reads).map(|_| ())
}

fn scraper(config: Config, inventory: Arc<Inventory>) -> Scraper {
    let reader = dataplane::Options {
        backend: config.backend,
        source: config.source,
        lock_path: config.lock_path,
        lock_wait: config.lock_wait,
        bpffs: config.bpffs,
        calico_run: config.calico_run,
        ..dataplane::Options::default()
    };
    let options = scraper::Options {
        node_name: config.node_name,
        minimum_counter: config.minimum_counter,
        metric_names: config.metric_names,
        proc: "/proc".into(),
        pod_logs: config.pod_logs,
        datastore: match config.datastore {
            Datastore::Etcd(_) => Some("etcd"),
            Datastore::Kubernetes(_) => Some("kubernetes"),
            Datastore::None => None,
        },
    };
    Scraper::new(options, Dataplane::new(reader), inventory)
}
