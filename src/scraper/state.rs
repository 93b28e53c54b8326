//! What lasts from scrape to scrape, and how a read begins: the tables, and a second look where something must be derived from them.
//! Touches the kernel only through its reader.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use log::{debug, error, info};

use crate::attribution::{Attribution, Motion, Table};
use crate::dataplane::{ReadError, Reader, Reading};
use crate::felix::{Catalog, HashedName, Structures};
use crate::ledger::{Deltas, Ledger};
use crate::report::Report;
use crate::ruleset::Snapshot;

/// What lasts from scrape to scrape.
pub struct State {
    /// Reads the kernel, or what stands for it.
    pub reader: Box<dyn Reader>,
    pub ledger: Ledger,
    pub attribution: Attribution,
    /// What the last read's rules mean.
    pub structures: Structures,
    /// The policies' names, for rules of the eBPF dataplane that no file shows.
    pub hashed_names: Vec<HashedName>,
    pub policies_version: u64,
    pub dropped_scrapes: u64,
    /// When the kernel was last read.
    pub read_at: Option<SystemTime>,
    /// The last report, for as long as somebody looks.
    pub report: Option<(Instant, Arc<Report>)>,
    /// Of the last text, in bytes. The text itself is its readers': the next read needs the memory.
    pub text_length: usize,
    /// The last text, and when it was ready.
    pub text: (Option<Instant>, Weak<Vec<u8>>),
    pub complaint: Complaint,
    pub complaint_of_names: Complaint,
}

/// Says a failure once, and that it is over.
#[derive(Debug, Default)]
pub struct Complaint(Option<String>);

impl Complaint {
    /// Says it, unless it was said last.
    pub fn failed(&mut self, doing: &str, error: &dyn fmt::Display) {
        let text = error.to_string();
        if self.0.as_ref() != Some(&text) {
            error!("{doing} failed: {text}");
            self.0 = Some(text);
        }
    }

    /// What is wrong now.
    pub fn last(&self) -> Option<String> {
        self.0.clone()
    }

    /// Says that it is over, if it was.
    pub fn went_well(&mut self, again: &str) {
        if self.0.take().is_some() {
            info!("{again} again");
        }
    }
}

/// How long reading the kernel may take in all: Prometheus waits for 10 s.
const READ_LIMIT: Duration = Duration::from_secs(8);

/// How long the second look may take, after that.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// How often a table that was read without its lock is read again before counters that went back are believed.
const UNLOCKED_RETRIES: usize = 3;

impl State {
    /// Of a process that has not read anything yet.
    pub fn new(reader: Box<dyn Reader>) -> Self {
        State {
            reader,
            ledger: Ledger::new(),
            attribution: Attribution::default(),
            structures: Structures::default(),
            hashed_names: Vec::new(),
            policies_version: 0,
            dropped_scrapes: 0,
            read_at: None,
            report: None,
            text_length: 0,
            text: (None, Weak::new()),
            complaint: Complaint::default(),
            complaint_of_names: Complaint::default(),
        }
    }

    /// The policies and groups of the dataplane that was read last.
    pub fn catalog(&self) -> &Catalog {
        match self.attribution.programs() {
            Some(programs) => programs.catalog(),
            None => self.structures.catalog(),
        }
    }

    /// Reads the kernel. Without the xtables lock, zeroed counters may only be a commit's moment: then another look is taken.
    pub fn read(&mut self) -> Result<Reading, ReadError> {
        let deadline = Instant::now() + READ_LIMIT;
        let mut reading = self.reader.read(deadline)?;
        for _ in 0..UNLOCKED_RETRIES {
            if reading.locked || !self.ledger.went_back(&reading.tables) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            reading = self.reader.read(deadline)?;
        }
        Ok(reading)
    }

    /// What has moved while the tables were read, where that matters: by a second look at them.
    pub fn motions(&mut self, read: &[Snapshot], deltas: &[Deltas]) -> Vec<Motion> {
        let still = Motion::still();
        let tables = self.structures.tables().iter().zip(deltas);
        if !tables.map(|(structure, deltas)| Table::new(structure, deltas, &still)).any(|table| table.has_to_be_derived()) {
            return vec![still; read.len()];
        }
        let again = match self.reader.look_again(read, Instant::now() + LOOK_LIMIT) {
            Ok(again) => again,
            Err(error) => {
                debug!("a second look at the kernel's counters failed, so what must be derived waits: {error}");
                return vec![Motion::unknown(); read.len()];
            }
        };
        // Nothing moves in rules that are not this kernel's.
        let is_there = again.iter().any(|table| !table.ruleset.chains().is_empty());
        let otherwise = if is_there { Motion::unknown() } else { still };
        let motion = |first: &Snapshot| {
            let second = again.iter().find(|second| second.ruleset.id() == first.ruleset.id());
            second.filter(|_| is_there).map_or_else(|| otherwise.clone(), |second| Motion::between(first, second))
        };
        read.iter().map(motion).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::text::Parser;
    use crate::ruleset::{Backend, Family};

    /// Gives tables in which one rule has counted this, each with or without the lock.
    struct Scripted(std::vec::IntoIter<u64>, bool);

    impl Reader for Scripted {
        fn read(&mut self, _: Instant) -> Result<Reading, ReadError> {
            let packets = self.0.next().unwrap_or_default();
            let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
            let rule = "-A cali-pi-x -m comment --comment \"cali:aaaaaaaaaaaaaaaa\" -j DROP";
            parser.push(format!("*filter\n:cali-pi-x - [0:0]\n[{packets}:1] {rule}\nCOMMIT\n").as_bytes());
            Ok(Reading { tables: vec![parser.finish().unwrap()], locked: self.1, ..Reading::default() })
        }
    }

    /// What the second read says, after one in which 100 packets were counted.
    fn second(packets: &[u64], locked: bool) -> u64 {
        let script = [&[100], packets].concat();
        let mut state = State::new(Box::new(Scripted(script.into_iter(), locked)));
        let first = state.read().unwrap();
        state.ledger.advance(&first.tables);
        let tables = state.read().unwrap().tables;
        tables[0].packets_of(&tables[0].ruleset.chains()[0])[0]
    }

    #[test]
    fn without_the_lock_counts_that_went_back_are_looked_at_again() {
        assert_eq!(second(&[101], false), 101);
        assert_eq!(second(&[0, 101], false), 101, "a commit's moment");
        assert_eq!(second(&[0, 0, 0, 102], false), 102);
        assert_eq!(second(&[1, 2, 3, 4, 5], false), 4, "they are others now");
        assert_eq!(second(&[0, 101], true), 0, "with it there is no doubt");
    }
}
