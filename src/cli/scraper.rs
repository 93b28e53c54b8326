//! A scraper of this process, used if no exporter runs. Reads the kernel, with names from the datastore, or saved tables.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::wait_until;
use crate::accounting::ledger::Ledger;
use crate::config::Config;
use crate::dataplane::{ReadError, Reader, Reading, saved};
use crate::datastore::inventory::Inventory;
use crate::exporter::{self, Scraper, start};
use crate::ruleset::Snapshot;

/// How long to wait for the datastore.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns an inventory with what the datastore has sent in time.
pub fn inventory(config: &Config) -> Result<Arc<Inventory>, String> {
    let inventory = Arc::new(Inventory::new());
    start::follow(config, &inventory).map_err(|error| format!("starting the datastore's follower failed: {error}"))?;
    if !wait_until(PATIENCE, || inventory.synced()) {
        let why = inventory.troubles().join("; ");
        log::warn!("the names of workloads are missing: {}", if why.is_empty() { "it does not answer in time" } else { &why });
    }
    Ok(inventory)
}

pub fn of_kernel(config: Config, one_moment: bool) -> Result<Scraper, String> {
    begun(config, one_moment, false, |reader| reader)
}

/// Creates a scraper that continues counting from an earlier run if `has_tables`. Then its reader returns that run's tables first.
pub fn resumed(config: Config, has_tables: bool, wrap: impl FnOnce(Box<dyn Reader>) -> Box<dyn Reader>) -> Result<Scraper, String> {
    begun(config, false, has_tables, wrap)
}

fn begun(
    config: Config,
    one_moment: bool,
    resumed: bool,
    wrap: impl FnOnce(Box<dyn Reader>) -> Box<dyn Reader>,
) -> Result<Scraper, String> {
    let inventory = inventory(&config)?;
    let reader = wrap(Box::new(start::dataplane(&config, &inventory)));
    let options =
        exporter::Options { process_metrics: false, first_zero: Duration::ZERO, one_moment, resumed, ..start::scraper_options(config) };
    let scraper = Scraper::new(options, reader, Arc::clone(&inventory));
    match resumed {
        true => scraper.begin_counting(),
        false => scraper.sample(),
    }
    // Only the datastore knows the names of these policies (Calico ≤ 3.21).
    if inventory.policies_wanted() && !wait_until(PATIENCE, || inventory.policies_version() > 0 && inventory.complete()) {
        log::warn!("the names of policies are missing: the datastore did not answer in time");
    }
    Ok(scraper)
}

/// Creates a scraper of saved tables. With tables of an earlier moment, it counts the differences.
pub fn of_files(config: Config, before: &[PathBuf], now: &[PathBuf]) -> Result<Scraper, String> {
    let mut moments = VecDeque::new();
    for files in [before, now].into_iter().filter(|files| !files.is_empty()) {
        let files = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        moments.push_back(saved::moment(&files)?);
    }
    let began_anew = matches!(moments.make_contiguous(), [before, now] if began_anew(before, now));
    let one_moment = moments.len() == 1;
    // The pods of this machine are unrelated to the files.
    let (pod_logs, datastore) = (PathBuf::new(), Some("none"));
    let options = exporter::Options {
        pod_logs,
        datastore,
        process_metrics: false,
        first_zero: Duration::ZERO,
        one_moment,
        began_anew,
        ..start::scraper_options(config)
    };
    let scraper = Scraper::new(options, Box::new(Saved(moments)), Arc::new(Inventory::new()));
    if !one_moment {
        scraper.begin_counting();
    }
    Ok(scraper)
}

/// Reports whether the counters do not cover the whole time between the moments, and logs where.
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

/// Returns a file's name and content. `-` is standard input.
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

/// Returns the saved moments in order. The last one is repeated.
struct Saved(VecDeque<Vec<Snapshot>>);

impl Reader for Saved {
    fn read(&mut self, _: Instant) -> Result<Reading, ReadError> {
        let tables = if self.0.len() > 1 { self.0.pop_front() } else { self.0.front().cloned() };
        Ok(Reading { tables: tables.unwrap_or_default(), source: "file", ..Reading::default() })
    }
}
