//! Collects the kernel's messages into traces: all that was reported of one packet. Pure state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::felix::names::tells_decisions;
use crate::kernel::trace::{Event, Fate, Packet, Step};

/// The most packets in flight at a time. More are ignored.
const MOST_TRACES: usize = 10_000;
/// The most rules of Calico that one packet meets. A node's longest way through groups and policies is far shorter.
const MOST_STEPS: usize = 2_000;
/// If a packet's end was not reported after this time, it will not be: another program has kept the packet.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a rule is, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// `NFPROTO_…`
    pub family: u8,
    pub table: &'static str,
    pub handle: u64,
}

/// All that was reported of one packet.
#[derive(Debug, Clone)]
pub struct Trace {
    pub time: SystemTime,
    pub packet: Packet,
    begun: Instant,
    /// The interval in which it began.
    interval: u64,
    /// The rules it met that may show what was decided, and whether it ended there.
    pub steps: Vec<(Place, bool)>,
    /// The table and chain of another program that dropped it.
    pub refused_by: Option<(Arc<str>, Arc<str>)>,
    /// Whether it began and ended in one interval, between two reads.
    pub is_certain: bool,
}

/// Collects messages by packet.
#[derive(Debug, Default)]
pub struct Traces {
    open: HashMap<u32, Trace>,
    /// The number of packets with a whole trace.
    pub whole: u64,
    interval: u64,
    /// Whether tables are being read.
    is_reading: bool,
}

/// The tables in which Calico's rules may be.
const TABLES: [&str; 4] = ["calico", "filter", "mangle", "raw"];

impl Traces {
    /// Takes one message. Returns the whole trace if it was the last one of its packet.
    pub fn take(&mut self, event: Event) -> Option<Trace> {
        let id = event.id;
        if event.marks() {
            // Packets that other programs trace do not begin here.
            if let (Step::Rule { .. }, Some(packet)) = (event.step, event.packet)
                && (self.open.len() < MOST_TRACES || self.open.contains_key(&id))
            {
                self.open.insert(id, Trace::new(packet, self.interval));
            }
            return None;
        }
        let Entry::Occupied(mut trace) = self.open.entry(id) else { return None };
        let is_last = event.fate == Fate::Dropped || event.is_behind();
        trace.get_mut().add(event);
        let mut trace = is_last.then(|| trace.remove())?;
        if trace.steps.len() > MOST_STEPS {
            return None;
        }
        self.whole += 1;
        trace.is_certain = trace.interval == self.interval && !self.is_reading;
        Some(trace)
    }

    /// Notes that messages were lost, so that no open trace is whole.
    pub fn lost(&mut self) {
        self.open.clear();
    }

    pub fn forget_old(&mut self, now: Instant) {
        self.open.retain(|_, trace| now.duration_since(trace.begun) < PATIENCE);
    }

    /// Notes that reading tables begins or ends. If a trace continues across that, some rules may be read before they count it, others
    /// after.
    pub fn reading(&mut self, is_reading: bool) {
        self.interval += 1;
        self.is_reading = is_reading;
    }
}

impl Trace {
    fn new(packet: Packet, interval: u64) -> Self {
        let (time, begun) = (SystemTime::now(), Instant::now());
        Trace { time, packet, begun, interval, steps: Vec::new(), refused_by: None, is_certain: false }
    }

    fn add(&mut self, Event { family, table, chain, step, fate, .. }: Event) {
        let is_dropped = fate == Fate::Dropped;
        match step {
            Step::Rule { handle } if tells_decisions("filter", chain.strip_prefix("filter-").unwrap_or(&chain)) => {
                let table = TABLES.into_iter().find(|name| **name == *table).unwrap_or_default();
                if self.steps.len() <= MOST_STEPS {
                    self.steps.push((Place { family, table, handle }, is_dropped));
                }
            }
            Step::Rule { .. } | Step::Policy if is_dropped => self.refused_by = Some((table.into(), chain.into())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::trace::TABLE;

    const PACKET: Packet = Packet {
        protocol: 17,
        source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        destination: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        ports: None,
    };

    pub fn event(id: u32, table: &str, chain: &str, fate: Fate) -> Event {
        let (step, packet) = (Step::Rule { handle: 1 }, Some(PACKET));
        Event { id, family: 2, table: table.into(), chain: chain.into(), step, fate, packet }
    }

    fn mark(id: u32) -> Event {
        event(id, TABLE, "mark", Fate::GoesOn)
    }

    fn rule(id: u32) -> Event {
        event(id, "filter", "cali-tw-cali1", Fate::GoesOn)
    }

    fn end(id: u32) -> Event {
        event(id, TABLE, "forward-end", Fate::GoesOn)
    }

    #[test]
    fn a_trace_begins_with_our_mark_and_ends_with_its_packet() {
        let mut traces = Traces::default();
        // Another program's trace.
        assert!(traces.take(rule(7)).is_none() && traces.take(event(7, "filter", "x", Fate::Dropped)).is_none());
        // Two at the same time.
        for id in [1, 2] {
            assert!(traces.take(mark(id)).is_none() && traces.take(rule(id)).is_none());
        }
        assert_eq!(traces.take(event(1, "filter", "cali-tw-cali1", Fate::Dropped)).unwrap().steps.len(), 2);
        assert_eq!(traces.take(end(2)).unwrap().steps.len(), 1);
        assert!(traces.take(rule(1)).is_none());
        // A packet without a reported end, and another one that has its number now.
        for _ in 0..2 {
            assert!(traces.take(mark(3)).is_none() && traces.take(rule(3)).is_none());
        }
        assert_eq!(traces.take(event(3, "filter", "FORWARD", Fate::Dropped)).unwrap().refused_by.unwrap().1, "FORWARD".into());
        assert_eq!(traces.whole, 3);
    }

    #[test]
    fn what_never_ends_is_let_go() {
        let mut traces = Traces::default();
        for id in 0..2 * MOST_TRACES as u32 {
            traces.take(mark(id));
        }
        for _ in 0..2 * MOST_STEPS {
            traces.take(rule(5));
        }
        assert_eq!((traces.open.len(), traces.open[&5].steps.len()), (MOST_TRACES, MOST_STEPS + 1));
        assert!(traces.take(end(5)).is_none(), "not all of it is known");
        traces.forget_old(Instant::now() + PATIENCE);
        assert!(traces.open.is_empty());
    }

    #[test]
    fn no_trace_is_taken_for_whole_whose_middle_was_lost() {
        let mut traces = Traces::default();
        traces.take(mark(1));
        traces.lost();
        assert!(traces.take(rule(1)).is_none() && traces.take(end(1)).is_none());
    }

    #[test]
    fn what_was_under_way_while_tables_were_read_is_of_no_interval() {
        let mut traces = Traces::default();
        let is_certain = |traces: &mut Traces, id| traces.take(end(id)).unwrap().is_certain;
        (1..=4).for_each(|id| _ = traces.take(mark(id)));
        assert!(is_certain(&mut traces, 1));
        traces.reading(true);
        assert!(!is_certain(&mut traces, 2), "it ended while tables were read");
        (5..=6).for_each(|id| _ = traces.take(mark(id)));
        assert!(!is_certain(&mut traces, 5), "all of it was while tables were read");
        traces.reading(false);
        assert!(!is_certain(&mut traces, 3) && !is_certain(&mut traces, 6), "it began before, or while tables were read");
        traces.take(mark(7));
        assert!(is_certain(&mut traces, 7));
    }
}
