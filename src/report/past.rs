//! An hour of drops, as reads found them: what the page begins with. Pure. It is bounded in time and memory, whatever is dropped: if there
//! is too much, reads are joined, and drops without their own series are counted as the rest.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::size_of;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Drop, Status};
use crate::felix::Direction;

/// How long a read is kept, in seconds.
const KEPT: f64 = 3600.0;
/// Reads within this many seconds are joined.
const APART: f64 = 10.0;
/// The most series of drops.
const MOST_SERIES: usize = 1_700;
/// The most counts that are kept, of all reads.
const MOST_COUNTS: usize = 25_000;
/// The most bytes of names that are kept.
const MOST_NAMES: usize = 128 << 10;

#[derive(Debug)]
pub struct Past {
    reads: VecDeque<Read>,
    series: HashMap<Key, Series>,
    /// Each name once.
    names: HashSet<Arc<str>>,
    /// The workloads of the last read.
    endpoints: HashSet<Arc<str>>,
    /// When policies were first seen.
    policies: HashMap<Arc<str>, f64>,
    /// When the last read was.
    last: Option<f64>,
    /// The least time between reads, in seconds.
    apart: f64,
    next: u32,
    /// The total of all drops without a series.
    rest: u64,
}

#[derive(Debug)]
struct Read {
    from: f64,
    to: f64,
    /// By id of the series.
    counts: Vec<(u32, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    interface: Arc<str>,
    direction: Direction,
    reason: Cow<'static, str>,
    tier: Option<Arc<str>>,
    policy: Option<Arc<str>>,
}

#[derive(Debug)]
struct Series {
    id: u32,
    namespace: Arc<str>,
    pod: Arc<str>,
    packets: u64,
}

/// The id of drops without their own series.
const REST: u32 = 0;

/// `GET /api/v1/drops`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DropsAnswer {
    pub status: Status,
    /// When it was last read; `None` while nothing is counted.
    pub last: Option<f64>,
    pub reads: Vec<Span>,
    pub drops: Vec<PastDrop>,
    pub rest: Vec<(usize, u64)>,
}

/// Between two reads, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Span {
    pub from: f64,
    pub to: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PastDrop {
    #[serde(flatten)]
    pub drop: Drop,
    /// The index of a read and the packets that it found, for reads that found some.
    pub counted: Vec<(usize, u64)>,
}

impl Default for Past {
    fn default() -> Self {
        Past {
            reads: VecDeque::new(),
            series: HashMap::new(),
            names: HashSet::new(),
            endpoints: HashSet::new(),
            policies: HashMap::new(),
            last: None,
            apart: APART,
            next: REST + 1,
            rest: 0,
        }
    }
}

impl Past {
    /// Whether a read at this moment would show more than the last one.
    pub fn wants(&self, time: f64) -> bool {
        self.last.is_none_or(|last| time >= last + APART / 2.0 || time < last)
    }

    /// Notes that counting was interrupted. The next read only shows where it continues.
    pub fn interrupt(&mut self) {
        self.last = None;
        self.policies.clear();
    }

    /// Returns since when a policy has existed, as far as that is known.
    pub fn seen(&self, policy: &str) -> Option<f64> {
        self.policies.get(policy).copied()
    }

    pub fn see(&mut self, time: f64, policies: impl Iterator<Item = Arc<str>>) {
        let before = std::mem::take(&mut self.policies);
        self.policies = policies.map(|policy| (Arc::clone(&policy), before.get(&policy).copied().unwrap_or(time))).collect();
    }

    /// Takes in a read: its workloads, and how many packets of each were dropped in all.
    pub fn record(&mut self, time: f64, endpoints: impl Iterator<Item = Arc<str>>, drops: &[Drop]) {
        let last = self.last.replace(time).filter(|last| *last < time);
        let mut counts = Vec::new();
        let mut rest: u64 = 0;
        for drop in drops {
            let key = Key::of(drop);
            if let Some(series) = self.series.get_mut(&key) {
                if series.pod.is_empty() {
                    (series.namespace, series.pod) = (Arc::clone(&drop.namespace), Arc::clone(&drop.pod));
                }
                let before = std::mem::replace(&mut series.packets, drop.packets);
                counts.push((series.id, drop.packets.saturating_sub(before)));
            } else if let Some(id) = self.begin(key, drop) {
                // A drop is listed from its first packet on.
                let was_there = self.endpoints.contains(&drop.interface);
                counts.push((id, if was_there { drop.packets } else { 0 }));
            } else {
                rest = rest.saturating_add(drop.packets);
            }
        }
        let more = rest.saturating_sub(std::mem::replace(&mut self.rest, rest));
        counts.push((REST, more));
        counts.retain(|(_, packets)| *packets > 0);
        self.endpoints = endpoints.collect();
        if let Some(from) = last {
            self.push(Read { from, to: time, counts });
        }
        self.bound(time);
    }

    /// Begins a new series, if there is room.
    fn begin(&mut self, mut key: Key, drop: &Drop) -> Option<u32> {
        let names = || -> usize { self.names.iter().map(|name| name.len()).chain(key.names().map(str::len)).sum() };
        if self.series.len() >= MOST_SERIES || names() > MOST_NAMES {
            return None;
        }
        key.interface = self.name(&key.interface);
        key.tier = key.tier.map(|tier| self.name(&tier));
        key.policy = key.policy.map(|policy| self.name(&policy));
        let (namespace, pod) = (self.name(&drop.namespace), self.name(&drop.pod));
        let id = self.next;
        self.next = id.checked_add(1)?;
        self.series.insert(key, Series { id, namespace, pod, packets: drop.packets });
        Some(id)
    }

    fn name(&mut self, name: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        self.names.insert(Arc::clone(name));
        Arc::clone(name)
    }

    /// Joins the read to the one before if that is recent enough.
    fn push(&mut self, read: Read) {
        match self.reads.back_mut() {
            Some(before) if before.to == read.from && read.to - before.from <= self.apart => before.join(read),
            _ => self.reads.push_back(read),
        }
    }

    fn bound(&mut self, now: f64) {
        while self.reads.front().is_some_and(|read| read.to < now - KEPT) {
            self.reads.pop_front();
        }
        if self.counts() < MOST_COUNTS / 4 && self.apart > APART {
            self.apart /= 2.0;
        }
        while self.counts() > MOST_COUNTS && self.reads.len() > 1 {
            self.apart *= 2.0;
            let reads = std::mem::take(&mut self.reads);
            reads.into_iter().for_each(|read| self.push(read));
            if self.apart > KEPT {
                // Not even one read per hour fits, so the oldest one is removed.
                self.reads.pop_front();
            }
        }
        self.reads.shrink_to_fit();
        if let Some(read) = self.reads.back_mut() {
            read.counts.shrink_to_fit();
        }
        let counted: HashSet<u32> = self.reads.iter().flat_map(|read| &read.counts).map(|(id, _)| *id).collect();
        let Past { series, endpoints, names, .. } = self;
        series.retain(|key, series| endpoints.contains(&key.interface) || counted.contains(&series.id));
        let used: HashSet<&str> = series.iter().flat_map(|(key, series)| key.names().chain([&*series.namespace, &*series.pod])).collect();
        names.retain(|name| used.contains(&**name));
    }

    fn counts(&self) -> usize {
        self.reads.iter().map(|read| read.counts.len()).sum()
    }

    /// Returns the memory that it takes, in bytes, without the allocator's own.
    pub fn size(&self) -> usize {
        let reads: usize = self.reads.iter().map(|read| size_of::<Read>() + read.counts.capacity() * size_of::<(u32, u64)>()).sum();
        // A hash table is filled to seven eighths at most, and has one more byte for each place.
        let table = |places: usize, of: usize| places * 8 / 7 * (of + 1);
        let names: usize = self.names.iter().map(|name| name.len() + 2 * size_of::<usize>()).sum();
        reads
            + table(self.series.capacity(), size_of::<(Key, Series)>())
            + table(self.names.capacity() + self.endpoints.capacity(), size_of::<Arc<str>>())
            + table(self.policies.capacity(), size_of::<(Arc<str>, f64)>())
            + names
    }

    pub fn answer(&self, status: Status) -> DropsAnswer {
        let mut counted = HashMap::<u32, Vec<(usize, u64)>>::new();
        for (place, read) in self.reads.iter().enumerate() {
            for &(id, packets) in &read.counts {
                counted.entry(id).or_default().push((place, packets));
            }
        }
        let drop = |(key, series): (&Key, &Series)| {
            let Key { interface, direction, reason, tier, policy } = key.clone();
            let [namespace, pod] = [&series.namespace, &series.pod].map(Arc::clone);
            let drop = Drop { interface, namespace, pod, direction, reason, tier, policy, packets: series.packets };
            (series.id, PastDrop { drop, counted: counted.get(&series.id).cloned().unwrap_or_default() })
        };
        let mut drops: Vec<_> = self.series.iter().map(drop).collect();
        drops.sort_by_key(|(id, _)| *id);
        DropsAnswer {
            status,
            last: self.last,
            reads: self.reads.iter().map(|read| Span { from: read.from, to: read.to }).collect(),
            drops: drops.into_iter().map(|(_, drop)| drop).collect(),
            rest: counted.remove(&REST).unwrap_or_default(),
        }
    }
}

impl Key {
    fn of(drop: &Drop) -> Self {
        let Drop { interface, direction, reason, tier, policy, .. } = drop.clone();
        Key { interface, direction, reason, tier, policy }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        [Some(&self.interface), self.tier.as_ref(), self.policy.as_ref()].into_iter().flatten().map(|name| &**name)
    }
}

impl Read {
    fn join(&mut self, later: Read) {
        self.to = later.to;
        let places: HashMap<u32, usize> = self.counts.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
        for (id, packets) in later.counts {
            match places.get(&id) {
                Some(place) => self.counts[*place].1 = self.counts[*place].1.saturating_add(packets),
                None => self.counts.push((id, packets)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(workload: usize, policy: usize, packets: u64) -> Drop {
        let [interface, pod, policy] =
            [format!("cali{workload:011}"), format!("web-{workload}"), format!("default/knp.default.policy-{policy}")].map(Arc::from);
        let (direction, reason, tier) = (Direction::Ingress, "policy".into(), Some("default".into()));
        Drop { interface, namespace: "shop".into(), pod, direction, reason, tier, policy: Some(policy), packets }
    }

    fn read(past: &mut Past, time: f64, drops: &[Drop]) {
        past.record(time, drops.iter().map(|drop| Arc::clone(&drop.interface)), drops);
    }

    #[test]
    fn reads_are_told_apart_and_what_is_not_known_is_not_counted() {
        let mut past = Past::default();
        // What was counted before the first read belongs to no read.
        read(&mut past, 1000.0, &[drop(0, 0, 500)]);
        assert_eq!(past.answer(Status::default()).drops[0].counted, []);
        read(&mut past, 1015.0, &[drop(0, 0, 507), drop(0, 1, 3)]);
        // For a workload that did not exist before, it is unknown since when packets were dropped.
        read(&mut past, 1030.0, &[drop(0, 0, 507), drop(0, 1, 4), drop(1, 0, 9)]);
        let all = past.answer(Status::default()).drops;
        assert_eq!(all.iter().map(|drop| &*drop.counted).collect::<Vec<_>>(), [&[(0, 7)][..], &[(0, 3), (1, 1)], &[]]);
        // Counting was interrupted, so there is a gap.
        past.interrupt();
        read(&mut past, 1090.0, &[drop(0, 0, 600), drop(0, 1, 8)]);
        read(&mut past, 1105.0, &[drop(0, 0, 601), drop(0, 1, 8)]);
        let answer = past.answer(Status::default());
        let spans: Vec<_> = answer.reads.iter().map(|span| (span.from, span.to)).collect();
        assert_eq!(spans, [(1000.0, 1015.0), (1015.0, 1030.0), (1090.0, 1105.0)]);
        assert_eq!(answer.drops[0].counted, [(0, 7), (2, 1)]);
        assert_eq!((answer.drops[0].drop.packets, &*answer.drops[1].drop.pod), (601, "web-0"));
    }

    #[test]
    fn an_hour_is_kept_and_quick_reads_are_put_together() {
        let mut past = Past::default();
        for second in 0..5000 {
            if past.wants(f64::from(second)) {
                read(&mut past, f64::from(second), &[drop(0, 0, second as u64)]);
            }
        }
        let answer = past.answer(Status::default());
        assert!(answer.reads.iter().all(|span| span.to - span.from <= APART), "{:?}", answer.reads);
        let (first, last) = (answer.reads[0], answer.reads[answer.reads.len() - 1]);
        assert!(last.to > 4990.0 && last.to - first.from >= KEPT && last.to - first.to <= KEPT, "{first:?} {last:?}");
        let sum: u64 = answer.drops[0].counted.iter().map(|(_, packets)| packets).sum();
        assert_eq!(sum as f64, last.to - first.from);
        // What has gone is forgotten with its last packets.
        past.record(9000.0, std::iter::empty(), &[]);
        assert_eq!((past.series.len(), past.names.len(), past.reads.len()), (0, 0, 1));
    }

    /// 250 workloads and 50 policies. Each policy drops packets of each workload all the time.
    #[test]
    fn the_largest_node_takes_less_than_a_megabyte_and_no_packet_is_lost() {
        let mut past = Past::default();
        let mut largest = 0;
        let mut drops: Vec<Drop> = (0..250 * 50).map(|i| drop(i / 50, i % 50, 0)).collect();
        for round in 0..=60_u64 {
            drops.iter_mut().enumerate().for_each(|(i, drop)| drop.packets = round * (1 + i as u64 % 3));
            read(&mut past, round as f64 * 60.0, &drops);
            largest = largest.max(past.size());
        }
        println!("{largest} bytes");
        assert!(largest < 1 << 20, "{largest}");
        let answer = past.answer(Status::default());
        let rounds = ((answer.reads[answer.reads.len() - 1].to - answer.reads[0].from) / 60.0) as u64;
        assert!(rounds > 30, "{:?}", answer.reads);
        assert_eq!(answer.drops.len(), MOST_SERIES);
        let sum: u64 = answer.drops.iter().flat_map(|drop| &drop.counted).chain(&answer.rest).map(|(_, packets)| packets).sum();
        assert_eq!(sum, (0..250 * 50).map(|i| rounds * (1 + i % 3)).sum::<u64>());
    }

    #[test]
    fn policies_are_known_since_they_were_first_seen() {
        let mut past = Past::default();
        past.see(10.0, ["a".into()].into_iter());
        past.see(20.0, ["a".into(), "b".into()].into_iter());
        assert_eq!(["a", "b", "c"].map(|policy| past.seen(policy)), [Some(10.0), Some(20.0), None]);
        past.see(30.0, ["b".into()].into_iter());
        past.see(40.0, ["a".into(), "b".into()].into_iter());
        assert_eq!(["a", "b"].map(|policy| past.seen(policy)), [Some(40.0), Some(20.0)]);
    }
}
