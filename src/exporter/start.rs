//! Puts the parts together and runs them: logging, signals, the datastore's follower, the HTTP server. Touches all of these.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::config::{Authentication, BackendChoice, Config, Datastore, KubernetesConfig, Remark, Sampling};
use crate::dataplane::{self, Dataplane};
use crate::datastore::inventory::{Inventory, StoredPolicy, Table};
use crate::ebpf;
use crate::etcd;
use crate::exporter::{self, Scraper};
use crate::kubernetes::{self, Configured};
use crate::os::logging;
use crate::os::privileges::{self, Kept};
use crate::os::process::cpu_time;
use crate::server::{Limits, Listener};

/// `doing` is the operation and its object.
fn failed(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{doing} failed: {error}")
}

/// Runs until a signal ends the process, or something fails for good. Returns what failed.
pub fn run(config: Config, remarks: &[Remark]) -> Result<Infallible, String> {
    logging::start(config.log_level, config.log_format);
    logging::report_panics();
    log::info!("calico-accountant {}", env!("CARGO_PKG_VERSION"));
    remarks.iter().for_each(Remark::log);
    let (address, port) = (config.listen_address, config.port);
    let mut listener = Listener::bind(address, port, Limits::default()).map_err(failed(format!("listening on {address}, port {port},")))?;
    let service_manager = Arc::new(ServiceManager::of_environment());
    listener.names = [&[config.node_name.clone()][..], &config.allowed_hosts].concat();
    // This comes before any other thread: each has its own rights, and begins with those of the thread that starts it.
    privileges::for_good(kept(&config));

    exit_on_signals(Arc::clone(&service_manager)).map_err(failed("installing signal handlers"))?;
    if let Ok(address) = listener.address() {
        log::info!("listening on {address}");
    }
    let inventory = Arc::new(Inventory::new());
    follow(&config, &inventory).map_err(failed("starting the datastore's follower"))?;

    let (sampling, reader) = (config.sampling, Box::new(dataplane(&config, &inventory)));
    let options = exporter::Options { witnesses: config.witnesses, ..scraper_options(config) };
    let scraper = Arc::new(Scraper::new(options, reader, Arc::clone(&inventory)));
    read_early(Arc::clone(&scraper), inventory, sampling).map_err(failed("starting a thread"))?;
    service_manager.tell("READY=1\n");
    listener.serve(scraper).map_err(failed("serving HTTP"))
}

/// Returns which rights to keep. A credential plugin may have to write, because many keep their tokens in files.
fn kept(config: &Config) -> Kept {
    let plugin = |kubernetes: &KubernetesConfig| matches!(kubernetes.authentication, Authentication::Exec(_));
    let files = matches!(&config.datastore, Datastore::Kubernetes(kubernetes) if plugin(kubernetes));
    let ebpf = match config.backend {
        BackendChoice::Ebpf => true,
        // Rights that may not be needed are not kept.
        BackendChoice::Auto => ebpf::reader::is_present(&config.bpffs).unwrap_or(false),
        BackendChoice::Legacy | BackendChoice::Nft | BackendChoice::Native => false,
    };
    Kept { files, ebpf }
}

pub fn follow(config: &Config, inventory: &Arc<Inventory>) -> io::Result<()> {
    match &config.datastore {
        Datastore::Etcd(etcd) => etcd::follow(etcd.clone(), config.node_name.clone(), Arc::clone(inventory), etcd::LIMITS),
        Datastore::Kubernetes(kubernetes) => {
            let access = Arc::new(Configured::new((**kubernetes).clone()));
            kubernetes::follow(access, config.node_name.clone(), kubernetes.api_group, Arc::clone(inventory), kubernetes::Limits::default())
        }
        // There is nothing to wait for, and policies have no other names than in their rules.
        Datastore::None => {
            _ = inventory.replace::<StoredPolicy>("", Table::default());
            inventory.mark_synced();
            inventory.set_up(true);
            Ok(())
        }
    }
}

/// As process 1 of a container, a process without handlers is immune to SIGTERM. There is nothing to save, so it exits immediately.
fn exit_on_signals(service_manager: Arc<ServiceManager>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            log::info!("ended by {}", signal_name(signal).unwrap_or("a signal"));
            service_manager.tell("STOPPING=1\n");
            process::exit(0);
        }
    })?;
    Ok(())
}

/// systemd, if it started the program and asks for messages (`Type=notify`); see sd_notify(3). Connected while that is still allowed.
struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    fn of_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return ServiceManager(None) };
        let connect = || {
            let address = match path.as_encoded_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                _ => SocketAddr::from_pathname(&path)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            io::Result::Ok(socket)
        };
        let socket = connect().inspect_err(|error| log::warn!("connecting to the service manager (NOTIFY_SOCKET) failed: {error}"));
        ServiceManager(socket.ok())
    }

    fn tell(&self, state: &str) {
        if let Some(Err(error)) = self.0.as_ref().map(|socket| socket.send(state.as_bytes())) {
            log::warn!("notifying the service manager (NOTIFY_SOCKET) failed: {error}");
        }
    }
}

/// For output that leaves zeros out: how long a new series is shown as 0. A scraper that comes once a minute sees it.
const FIRST_ZERO: Duration = Duration::from_secs(65);

/// How long the first read waits for the datastore.
const LIST: Duration = Duration::from_secs(1);

/// Reads the kernel soon: derived counts begin with the first read, and it shows early whether the datastore must be asked for names.
/// The read waits for the datastore's list if that is quick, because both together would take more memory and time than either ever does
/// later. A scrape that comes in between does not wait, or shares this read. Reads then continue if that is configured or pays.
fn read_early(scraper: Arc<Scraper>, inventory: Arc<Inventory>, sampling: Sampling) -> io::Result<()> {
    let reads = move || {
        let begun = Instant::now();
        while !inventory.synced() && begun.elapsed() < LIST {
            thread::sleep(Duration::from_millis(10));
        }
        scraper.scrape();
        let cpu_time = || cpu_time(Path::new("/proc"));
        let mut took = Duration::ZERO;
        loop {
            thread::sleep(match sampling {
                Sampling::Never => return,
                Sampling::Every(interval) => interval,
                // At most 1 % of a CPU.
                Sampling::WhereItPays => Duration::from_secs(1).max(100 * took),
            });
            if sampling != Sampling::WhereItPays || scraper.may_lose_what_is_rewritten() {
                // This is CPU time. If other programs kept the CPUs busy, reads would become rare by elapsed time.
                let (begun, before) = (Instant::now(), cpu_time());
                scraper.sample();
                took = cpu_time().zip(before).map_or(begun.elapsed(), |(now, before)| now.saturating_sub(before));
            }
        }
    };
    thread::Builder::new().name("reads".into()).spawn(reads).map(|_| ())
}

/// Returns the configured reader of the kernel, which looks at other back ends if workloads of the inventory have no rules.
pub fn dataplane(config: &Config, inventory: &Arc<Inventory>) -> Dataplane {
    let options = dataplane::Options {
        backend: config.backend,
        source: config.source,
        lock_path: config.lock_path.clone(),
        lock_wait: config.lock_wait,
        bpffs: config.bpffs.clone(),
        calico_run: config.calico_run.clone(),
        ..dataplane::Options::default()
    };
    Dataplane::new(options, Some(Arc::clone(inventory)))
}

pub fn scraper_options(config: Config) -> exporter::Options {
    exporter::Options {
        node_name: config.node_name,
        grafana_url: config.grafana_url,
        minimum_counter: config.minimum_counter,
        exposition: config.exposition,
        first_zero: FIRST_ZERO,
        pod_logs: config.pod_logs,
        datastore: match config.datastore {
            Datastore::Etcd(_) => Some("etcd"),
            Datastore::Kubernetes(_) => Some("kubernetes"),
            Datastore::None => None,
        },
        process_metrics: true,
        witnesses: None,
        one_moment: false,
        began_anew: false,
        resumed: false,
    }
}
