//! A scraper of our own, for where no exporter runs: over the kernel, with names from the datastore; or over saved tables. Touches those.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::accounting::ledger::Ledger;
use crate::config::Config;
use crate::dataplane::saved;
use crate::dataplane::{ReadError, Reader, Reading};
use crate::datastore::inventory::Inventory;
use crate::exporter::start;
use crate::exporter::{self, Scraper};
use crate::ruleset::Snapshot;

/// How long the datastore may take to tell its names.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A scraper over the kernel.
///
/// # Errors
/// Threads cannot be started.
pub fn of_kernel(config: Config, one_moment: bool) -> Result<Scraper, String> {
    let inventory = Arc::new(Inventory::new());
    start::follow(&config, &inventory).map_err(|error| format!("starting the datastore's follower failed: {error}"))?;
    if !wait_until(PATIENCE, || inventory.synced()) {
        let why = inventory.troubles().join("; ");
        log::warn!("the datastore's names are missing: {}", if why.is_empty() { "it does not answer in time" } else { &why });
    }
    let reader = Box::new(start::dataplane(&config, &inventory));
    let options = exporter::Options { process_metrics: false, one_moment, ..start::scraper_options(config) };
    let scraper = Scraper::new(options, reader, Arc::clone(&inventory));
    scraper.sample();
    // Only the datastore knows what these rules are called (Calico ≤ 3.21).
    if inventory.policies_wanted() && !wait_until(PATIENCE, || inventory.policies_version() > 0 && inventory.complete()) {
        log::warn!("the policies' names are missing: the datastore does not tell them in time");
    }
    Ok(scraper)
}

/// Whether something holds in time.
pub fn wait_until(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// A scraper over saved tables; with tables of an earlier moment, what it counts are the differences.
///
/// # Errors
/// A file cannot be read, or is not what it should be.
pub fn of_files(config: Config, before: &[PathBuf], now: &[PathBuf]) -> Result<Scraper, String> {
    let mut moments = VecDeque::new();
    for files in [before, now].into_iter().filter(|files| !files.is_empty()) {
        let files = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        moments.push_back(saved::moment(&files).map_err(|error| error.to_string())?);
    }
    let began_anew = matches!(moments.make_contiguous(), [before, now] if began_anew(before, now));
    let one_moment = moments.len() == 1;
    let options = exporter::Options {
        node_name: config.node_name,
        minimum_counter: config.minimum_counter,
        metric_names: config.metric_names,
        proc: "/proc".into(),
        // The pods of this machine have nothing to do with the files.
        pod_logs: PathBuf::new(),
        datastore: Some("none"),
        process_metrics: false,
        one_moment,
        began_anew,
    };
    let scraper = Scraper::new(options, Box::new(Saved(moments)), Arc::new(Inventory::new()));
    if !one_moment {
        scraper.begin_counting();
    }
    Ok(scraper)
}

/// Whether counters do not tell of the whole time between the moments; says where.
fn began_anew(before: &[Snapshot], now: &[Snapshot]) -> bool {
    let mut ledger = Ledger::default();
    ledger.advance(before);
    let found = ledger.began_anew(now);
    if let Some((table, chain)) = found {
        let (family, table) = (table.ruleset.family.as_str(), table.ruleset.table);
        log::warn!(
            "counters went back in chain {} (table {table}, {family}): the node was rebooted or the rules were rewritten between --before \
             and --ruleset, or the two are swapped; what was counted before that is missing",
            chain.name
        );
    }
    found.is_some()
}

/// A file's name and content; `-` is standard input.
fn read(file: &Path) -> Result<(String, Vec<u8>), String> {
    let (name, opened): (String, io::Result<Box<dyn Read>>) = match file == Path::new("-") {
        true => ("standard input".to_owned(), Ok(Box::new(io::stdin().lock()))),
        false => (file.display().to_string(), File::open(file).map(|file| Box::new(file) as Box<dyn Read>)),
    };
    let mut content = Vec::new();
    let size = opened.and_then(|opened| opened.take(saved::LARGEST + 1).read_to_end(&mut content));
    match size {
        Err(error) => Err(format!("{name}: cannot be read: {error}")),
        Ok(size) if size as u64 > saved::LARGEST => Err(format!("{name}: it is larger than {} MiB", saved::LARGEST >> 20)),
        Ok(_) => Ok((name, content)),
    }
}

/// Moments one after the other; the last one stays.
struct Saved(VecDeque<Vec<Snapshot>>);

impl Reader for Saved {
    fn read(&mut self, _: Instant) -> Result<Reading, ReadError> {
        let tables = if self.0.len() > 1 { self.0.pop_front() } else { self.0.front().cloned() };
        Ok(Reading { tables: tables.unwrap_or_default(), source: "file", locked: true, ..Reading::default() })
    }
}
