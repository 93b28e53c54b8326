//! `metrics --state FILE`: the state that a run keeps for the next run. It contains the tables that were read, from which the next run
//! continues to count, and every printed counter, to which it adds. Touches only that file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::dataplane::{ReadError, Reader, Reading};
use crate::ruleset::Snapshot;

/// How long a counter that no longer exists is remembered, in seconds.
const REMEMBERED: u64 = 24 * 60 * 60;

#[derive(Default, Serialize, Deserialize)]
struct Left {
    tables: Vec<Snapshot>,
    /// By the printed series: its value, and when it last existed, in seconds since the epoch.
    counters: BTreeMap<String, (u64, u64)>,
}

pub struct State {
    file: PathBuf,
    left: Left,
    read: Arc<Mutex<Vec<Snapshot>>>,
}

impl State {
    /// Returns the last run's state. It is empty if there is no such file.
    pub fn open(file: &Path) -> Result<Self, String> {
        let no_state =
            |why: String| format!("--state: {} is not a state of an earlier run ({why}): remove it to start again", file.display());
        let left: Left = match File::open(file) {
            Ok(opened) => {
                serde_json::from_reader(BufReader::new(GzDecoder::new(BufReader::new(opened)))).map_err(|e| no_state(e.to_string()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Left::default(),
            Err(error) => return Err(format!("--state: {} cannot be read: {error}", file.display())),
        };
        if !left.tables.iter().all(Snapshot::is_whole) {
            return Err(no_state("its tables are not whole".into()));
        }
        Ok(State { file: file.to_owned(), left, read: Arc::default() })
    }

    pub fn has_tables(&self) -> bool {
        !self.left.tables.is_empty()
    }

    /// Returns a reader that gives the earlier tables first, and then those of `reader`.
    pub fn reader(&mut self, reader: Box<dyn Reader>) -> Box<dyn Reader> {
        let earlier = Some(std::mem::take(&mut self.left.tables)).filter(|tables| !tables.is_empty());
        Box::new(Resumed { earlier, is_earlier: false, reader, read: Arc::clone(&self.read) })
    }

    /// Adds the earlier counts to the text of a scrape that counted from the earlier tables. Saves the state for the next run.
    pub fn go_on(mut self, text: &str) -> Result<String, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
        let text = self.left.add(text, now);
        self.left.counters.retain(|_, (_, seen)| now.saturating_sub(*seen) < REMEMBERED);
        self.left.tables = std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner));
        if self.left.tables.is_empty() {
            return Err("--state: only for tables of rules; the eBPF dataplane has none (let the exporter run instead)".into());
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let written = serde_json::to_writer(&mut packed, &self.left).map_err(io::Error::from);
        let written = written.and_then(|()| packed.finish()).and_then(|packed| super::write(&self.file, &packed, 0o600));
        written.map_err(|error| format!("--state: writing {} failed: {error}", self.file.display()))?;
        Ok(text)
    }
}

impl Left {
    fn add(&mut self, text: &str, now: u64) -> String {
        let mut is_counter = false;
        let line = |line: &str| {
            if let Some(of) = line.strip_prefix("# TYPE ") {
                is_counter = of.ends_with(" counter");
            }
            let sample = line.rsplit_once(' ').filter(|_| is_counter && !line.starts_with('#'));
            let Some((series, counted)) = sample.and_then(|(series, value)| Some((series, value.parse::<u64>().ok()?))) else {
                return format!("{line}\n");
            };
            let (value, seen) = self.counters.entry(series.to_owned()).or_default();
            (*value, *seen) = (value.saturating_add(counted), now);
            format!("{series} {value}\n")
        };
        text.lines().map(line).collect()
    }
}

struct Resumed {
    earlier: Option<Vec<Snapshot>>,
    is_earlier: bool,
    reader: Box<dyn Reader>,
    /// The tables of the last read.
    read: Arc<Mutex<Vec<Snapshot>>>,
}

impl Reader for Resumed {
    fn read(&mut self, deadline: Instant) -> Result<Reading, ReadError> {
        self.is_earlier = self.earlier.is_some();
        if let Some(tables) = self.earlier.take() {
            return Ok(Reading { tables, source: "file", ..Reading::default() });
        }
        let reading = self.reader.read(deadline)?;
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = reading.tables.clone();
        Ok(reading)
    }

    fn look_again(&mut self, read: &[Snapshot], deadline: Instant) -> Result<Vec<Snapshot>, ReadError> {
        if self.is_earlier { Ok(vec![]) } else { self.reader.look_again(read, deadline) }
    }

    fn lock_timeouts(&self) -> u64 {
        self.reader.lock_timeouts()
    }
}
