//! What is kept from scrape to scrape, and how a read begins. Touches the kernel only through its reader.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use log::{error, info};

use super::matches::Known;
use super::tracing::Tracing;
use crate::accounting::Accounting;
use crate::dataplane::{ReadError, Reader, Reading};
use crate::datastore::inventory::Workload;
use crate::felix::HashedName;
use crate::metrics::About;
use crate::os::sys;
use crate::report::Report;
use crate::report::past::Past;

pub struct State {
    pub reader: Box<dyn Reader>,
    pub accounting: Accounting,
    /// The policies' names, for rules of the eBPF dataplane that are in no file.
    pub hashed_names: Vec<HashedName>,
    pub policies_version: u64,
    /// The version of the inventory's workloads at the last read.
    pub workloads_version: u64,
    pub dropped_scrapes: u64,
    pub last_read: Option<LastRead>,
    /// When the last successful read was.
    pub read_at: Option<SystemTime>,
    /// The last report, as long as somebody asks for it.
    pub report: Option<(Instant, Arc<Report>)>,
    /// Workloads that are named on the node, but not in the datastore.
    pub found: Arc<HashMap<String, Arc<Workload>>>,
    /// What was dropped in the last hour.
    pub past: Past,
    /// The length of the last text in bytes. The text itself belongs to its readers, because the next read needs the memory.
    pub text_length: usize,
    pub text: Weak<Vec<u8>>,
    pub matches: Known,
    /// `None` if packets are not traced.
    pub tracing: Option<Tracing>,
    pub complaint: Complaint,
    pub complaint_of_names: Complaint,
}

pub struct LastRead {
    pub begun: Instant,
    pub ended: Instant,
    pub about: About,
}

/// A read that took longer than this also answers callers that asked during it. Another one after it would take longer than Prometheus
/// waits.
const LONG: Duration = Duration::from_secs(2);

/// Logs a failure once, and again when it is over.
#[derive(Debug, Default)]
pub struct Complaint(Option<String>);

impl Complaint {
    pub fn failed(&mut self, doing: &str, error: &dyn fmt::Display) {
        let text = error.to_string();
        if self.0.as_ref() != Some(&text) {
            error!("{doing} failed: {text}");
            self.0 = Some(text);
        }
    }

    pub fn last(&self) -> Option<String> {
        self.0.clone()
    }

    pub fn went_well(&mut self, again: &str) {
        if self.0.take().is_some() {
            info!("{again} again");
        }
    }
}

/// The time limit for reading the kernel in all. Prometheus waits for 10 s.
const READ_LIMIT: Duration = Duration::from_secs(8);

/// How often tables are read again before counters that went back are believed.
const RETRIES: usize = 3;

impl State {
    pub fn new(reader: Box<dyn Reader>) -> Self {
        State {
            reader,
            // As many as can work on packets at the same time.
            accounting: Accounting::new(sys::cpus::possible().unwrap_or(usize::MAX)),
            hashed_names: Vec::new(),
            policies_version: 0,
            workloads_version: 0,
            dropped_scrapes: 0,
            last_read: None,
            read_at: None,
            report: None,
            found: Arc::default(),
            past: Past::default(),
            text_length: 0,
            text: Weak::new(),
            matches: Known::default(),
            tracing: None,
            complaint: Complaint::default(),
            complaint_of_names: Complaint::default(),
        }
    }

    /// Returns the interfaces of all workloads that have rules.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.accounting.totals().workloads().map(|(interface, _)| &**interface)
    }

    /// Returns the last read if it answers what was asked at this moment: it began later, or it took long and ended later.
    pub fn answer_to(&self, asked: Instant) -> Option<&About> {
        let is_answer = |last: &&LastRead| last.begun > asked || (last.ended > asked && last.ended - last.begun > LONG);
        self.last_read.as_ref().filter(is_answer).map(|last| &last.about)
    }

    /// Reads again if counters went back. That may only be the moment of a commit, because nothing proves that writers use the lock that
    /// was taken.
    pub fn read(&mut self) -> Result<Reading, ReadError> {
        let deadline = Instant::now() + READ_LIMIT;
        let mut reading = self.reader.read(deadline)?;
        for _ in 0..RETRIES {
            if !self.accounting.went_back(&reading.tables) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            reading = self.reader.read(deadline)?;
        }
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::text::Parser;
    use crate::ruleset::{Backend, Family, RuleId};

    /// A reader of tables in which one rule has counted this many packets.
    struct Scripted(std::vec::IntoIter<u64>);

    impl Reader for Scripted {
        fn read(&mut self, _: Instant) -> Result<Reading, ReadError> {
            let packets = self.0.next().unwrap_or_default();
            let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
            let rule = "-A cali-pi-x -m comment --comment \"cali:aaaaaaaaaaaaaaaa\" -j DROP";
            parser.push(format!("*filter\n:cali-pi-x - [0:0]\n[{packets}:1] {rule}\nCOMMIT\n").as_bytes());
            Ok(Reading { tables: vec![parser.finish().unwrap()], ..Reading::default() })
        }
    }

    /// Returns what the second read gives, after one in which 100 packets were counted.
    fn second(packets: &[u64]) -> u64 {
        let script = [&[100], packets].concat();
        let mut state = State::new(Box::new(Scripted(script.into_iter())));
        let first = state.read().unwrap();
        state.accounting.advance(&first.tables, |_| Ok::<_, ReadError>(vec![]));
        let tables = state.read().unwrap().tables;
        tables[0].packets(RuleId(0))
    }

    #[test]
    fn counts_that_went_back_are_looked_at_again() {
        assert_eq!(second(&[101]), 101);
        assert_eq!(second(&[0, 101]), 101, "a commit's moment");
        assert_eq!(second(&[0, 0, 0, 102]), 102);
        assert_eq!(second(&[1, 2, 3, 4, 5]), 4, "they are others now");
    }
}
