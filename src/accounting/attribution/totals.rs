//! The totals that metrics show: what was counted for each workload. They never go down while the process lives.

mod item;
mod sums;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use item::{Item, PerVerdict, Verdict};
pub use sums::Sums;

use crate::felix::{Direction, EndpointKind, Pipeline};
use crate::ruleset::Interned;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    pub item: Arc<Item>,
    pub packets: u64,
    /// The last read that met it.
    seen: u32,
    /// Whether that read could not say how many packets there were.
    unknown: bool,
    at_least: bool,
    /// Whether its packets were shown already, for output that leaves zeros out.
    introduced: bool,
}

impl Total {
    /// Returns the packets to show in output that leaves zeros out.
    pub fn introduced_packets(&self) -> u64 {
        if self.introduced { self.packets } else { 0 }
    }

    pub fn is_exact(&self) -> bool {
        !self.at_least
    }

    /// Whether packets were counted that one policy denied or passed, and it is unknown which.
    fn is_sum(&self) -> bool {
        matches!(&*self.item, Item::Policy { verdict: Verdict::DenyOrPass, policy, .. } if self.packets > 0 && !policy.contains(','))
    }

    fn see(&mut self, read: u32) {
        self.unknown &= self.seen == read;
        self.seen = read;
    }

    /// A zero is shown only if it is certain.
    fn is_shown(&self, read: u32) -> bool {
        self.seen == read && !self.unknown && (self.packets > 0 || !self.at_least)
    }
}

/// Moves what a policy denied, and what it passed, to the sum of both.
fn add_up(totals: &mut [Total], sum: usize) {
    let mut item = Item::clone(&totals[sum].item);
    for verdict in [Verdict::Deny, Verdict::Pass] {
        item.decided(verdict);
        if let Some(part) = totals.iter_mut().find(|total| *total.item == item) {
            let (packets, seen) = (std::mem::take(&mut part.packets), part.seen);
            part.at_least = true;
            // What was shown already is not introduced again.
            let was_introduced = packets > 0 && part.introduced;
            totals[sum].introduced |= was_introduced;
            totals[sum].packets = totals[sum].packets.saturating_add(packets);
            if totals[sum].seen < seen {
                totals[sum].see(seen);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct EndpointTotals {
    directions: [Vec<Total>; 2],
    /// The sums of forgotten totals.
    forgotten: [Sums; 2],
    /// Where the next total is expected, because a read meets items in the same order as the read before.
    expected: [usize; 2],
    /// Totals that are shown as 0 at first, and since when.
    beginning: Vec<(Direction, Arc<Item>, Instant)>,
    seen: u32,
}

impl EndpointTotals {
    fn introduce(&mut self, read: u32, now: Instant, hold: Duration) {
        for direction in Direction::ALL {
            let totals = self.directions[direction as usize].iter_mut();
            for total in totals.filter(|total| total.packets > 0 && !total.introduced && total.is_shown(read)) {
                let begun = self.beginning.iter().find(|(of, item, _)| (*of, item) == (direction, &total.item)).map(|begun| begun.2);
                if begun.is_none() {
                    self.beginning.push((direction, Arc::clone(&total.item), now));
                }
                total.introduced = now.duration_since(begun.unwrap_or(now)) >= hold;
            }
        }
        self.beginning.retain(|(_, _, begun)| now.duration_since(*begun) < hold);
    }
}

#[derive(Debug, Default)]
pub struct Totals {
    endpoints: BTreeMap<(EndpointKind, Arc<str>), EndpointTotals>,
    /// What there are totals for. Most items are the same for all endpoints.
    items: Interned<Item>,
    reads: Reads,
    read: u32,
}

/// How long a total is remembered after its rules have gone, so that it continues if they come back.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// How many totals of endpoints that have gone are remembered. Pods that come and go quickly must not fill the memory.
const MOST_REMEMBERED: usize = 20_000;

/// The number of the last read, and when the remembered reads began.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads {
    pub last: u32,
    begun: VecDeque<Instant>,
}

impl Reads {
    /// Begins the next read. Returns the number of the oldest read that is remembered.
    pub fn next(&mut self, now: Instant) -> u32 {
        self.last += 1;
        self.begun.push_back(now);
        while self.begun.front().is_some_and(|begun| now.duration_since(*begun) > REMEMBERED) {
            self.begun.pop_front();
        }
        self.last + 1 - u32::try_from(self.begun.len()).unwrap_or(self.last)
    }
}

impl Totals {
    pub fn begin_read(&mut self, now: Instant) {
        let oldest = self.reads.next(now);
        self.read = self.reads.last;
        self.forget_most_of_the_gone();
        self.endpoints.retain(|_, endpoint| endpoint.seen >= oldest);
        for endpoint in self.endpoints.values_mut() {
            for (totals, forgotten) in endpoint.directions.iter_mut().zip(&mut endpoint.forgotten) {
                totals.iter().filter(|total| total.seen < oldest).for_each(|total| forgotten.add(total));
                totals.retain(|total| total.seen >= oldest);
            }
            endpoint.expected = [0; 2];
        }
        self.items.forget_unused();
    }

    fn forget_most_of_the_gone(&mut self) {
        let size = |endpoint: &EndpointTotals| endpoint.directions.iter().map(Vec::len).sum::<usize>();
        let mut gone: Vec<(u32, usize)> = self.endpoints.values().filter(|e| e.seen + 1 < self.read).map(|e| (e.seen, size(e))).collect();
        gone.sort_unstable_by_key(|(seen, _)| std::cmp::Reverse(*seen));
        let mut room = MOST_REMEMBERED;
        let too_many = gone.into_iter().find(|(_, size)| {
            let fits = *size <= room;
            room = room.saturating_sub(*size);
            !fits
        });
        if let Some((seen, _)) = too_many {
            self.endpoints.retain(|_, endpoint| endpoint.seen > seen);
        }
    }

    /// Ends a read. If it is unknown of some packets whether a policy denied or passed them, its counts of denies and of passes are not
    /// complete. Then all of its packets go to the sum.
    pub fn end_read(&mut self) {
        for totals in self.endpoints.values_mut().flat_map(|endpoint| &mut endpoint.directions) {
            let sums = (0..totals.len()).filter(|place| totals[*place].is_sum()).collect::<Vec<_>>();
            for sum in sums {
                add_up(totals, sum);
            }
            // A large node has 50,000 of them.
            totals.shrink_to_fit();
        }
        if self.read == 1 {
            // What was counted before this process began may have been shown by the process before it. If such a series began at 0 again,
            // it would be counted twice.
            self.all().for_each(|total| total.introduced = total.packets > 0);
        }
    }

    /// For output that leaves zeros out: shows a total that begins to count as 0 for `hold`, then with all that it has counted. A series
    /// that begins with a number does not show that it was 0 before.
    pub fn introduce(&mut self, now: Instant, hold: Duration) {
        let read = self.read;
        self.endpoints.values_mut().filter(|endpoint| endpoint.seen == read).for_each(|endpoint| endpoint.introduce(read, now, hold));
    }

    pub fn of(&mut self, pipeline: &Pipeline) -> Recorder<'_> {
        self.endpoint(pipeline.kind, &pipeline.interface, pipeline.direction)
    }

    pub fn endpoint(&mut self, kind: EndpointKind, interface: &Arc<str>, direction: Direction) -> Recorder<'_> {
        let endpoint = self.endpoints.entry((kind, Arc::clone(interface))).or_default();
        endpoint.seen = self.read;
        let EndpointTotals { directions, expected, .. } = endpoint;
        let place = direction as usize;
        Recorder { totals: &mut directions[place], items: &mut self.items, expected: &mut expected[place], read: self.read }
    }

    pub fn restart(&mut self) {
        self.all().for_each(|total| (total.packets, total.at_least) = (0, false));
        self.endpoints.values_mut().for_each(|endpoint| endpoint.forgotten = Default::default());
    }

    pub fn hide(&mut self, hidden: impl Fn(&Item) -> bool) {
        self.all().filter(|total| hidden(&total.item)).for_each(|total| total.seen = 0);
    }

    pub fn note_that_there_may_have_been_more(&mut self) {
        self.all().for_each(|total| total.at_least = true);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Total> {
        self.endpoints.values_mut().flat_map(|endpoint| &mut endpoint.directions).flatten()
    }

    /// Moves the totals of a policy to another name, which may have some already.
    pub fn rename_policy(&mut self, old: &str, new: &Arc<str>) {
        for totals in self.endpoints.values_mut().flat_map(|endpoint| &mut endpoint.directions) {
            while let Some(place) = totals.iter().position(|total| total.item.is_of(old)) {
                let mut renamed = Item::clone(&totals[place].item);
                renamed.rename(new);
                let renamed = self.items.get(&renamed);
                match totals.iter().position(|total| total.item == renamed) {
                    Some(known) => {
                        let Total { packets, seen, unknown, at_least, introduced, .. } = totals[place];
                        let into = &mut totals[known];
                        into.packets = into.packets.saturating_add(packets);
                        if into.seen < seen {
                            into.see(seen);
                        }
                        into.unknown |= unknown && into.seen == seen;
                        into.at_least |= at_least;
                        into.introduced |= introduced;
                        totals.remove(place);
                    }
                    None => totals[place].item = renamed,
                }
            }
        }
    }

    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointKind, &Arc<str>, &EndpointTotals)> {
        let shown = self.endpoints.iter().filter(|(_, endpoint)| endpoint.seen == self.read);
        shown.map(|((kind, interface), endpoint)| (*kind, interface, endpoint))
    }

    pub fn workloads(&self) -> impl Iterator<Item = (&Arc<str>, &EndpointTotals)> {
        self.endpoints().filter(|(kind, ..)| *kind == EndpointKind::Workload).map(|(_, interface, endpoint)| (interface, endpoint))
    }

    /// Returns the workloads with packets that were denied or dropped.
    pub fn dropping(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_drop = |total: &Total| total.packets > 0 && matches!(*total.item, Item::Drop { .. } | Item::PolicyDrop { .. });
        let drops = move |endpoint: &EndpointTotals| endpoint.directions.iter().flatten().any(is_drop);
        self.workloads().filter(move |(_, endpoint)| drops(endpoint)).map(|(interface, _)| interface)
    }

    /// Returns the totals of one direction that the last read met, in the order of evaluation.
    pub fn shown<'a>(&self, endpoint: &'a EndpointTotals, direction: Direction) -> impl Iterator<Item = &'a Total> + use<'a> {
        let read = self.read;
        endpoint.directions[direction as usize].iter().filter(move |total| total.is_shown(read))
    }

    pub fn sums(&self, endpoint: &EndpointTotals, direction: Direction) -> Sums {
        let mut sums = endpoint.forgotten[direction as usize];
        endpoint.directions[direction as usize].iter().for_each(|total| sums.add(total));
        sums
    }

    /// Returns what the tiers of one direction dropped because no policy decided, including tiers that no longer apply. `None` if there is
    /// no such tier now, or if the number of one is unknown.
    pub fn no_policy_drops(&self, endpoint: &EndpointTotals, direction: Direction) -> Option<u64> {
        let met = endpoint.directions[direction as usize].iter().filter(|total| total.seen == self.read && total.item.is_no_policy());
        let is_told = met.map(|total| total.is_shown(self.read)).reduce(|a, b| a && b)?;
        is_told.then(|| self.sums(endpoint, direction).no_policy)
    }
}

pub struct Recorder<'a> {
    totals: &'a mut Vec<Total>,
    items: &'a mut Interned<Item>,
    expected: &'a mut usize,
    read: u32,
}

impl Recorder<'_> {
    /// Adds packets to a total, which is created if it is new. Adding 0 makes it visible.
    pub fn add(&mut self, item: &Item, packets: u64) {
        self.total(item, packets);
    }

    /// Adds packets. If `is_exact`, there cannot have been more. If not, the total is visible from now on only if it is not zero.
    pub fn add_counted(&mut self, item: &Item, packets: u64, is_exact: bool) {
        let total = self.total(item, packets);
        total.at_least |= !is_exact;
    }

    fn total(&mut self, item: &Item, packets: u64) -> &mut Total {
        let place = self.find(item);
        *self.expected = place + 1;
        let total = &mut self.totals[place];
        total.packets = total.packets.saturating_add(packets);
        total.see(self.read);
        total
    }

    /// Adds packets, unless their number is unknown.
    pub fn add_unless(&mut self, unknown: bool, item: &Item, packets: u64) {
        match unknown {
            true => self.unknown(item),
            false => self.add(item, packets),
        }
    }

    /// Records that the number of packets since the last read is unknown. The total is not shown, whatever else this read adds to it. From
    /// the next read on it is shown again, unless it is zero.
    pub fn unknown(&mut self, item: &Item) {
        let total = self.total(item, 0);
        (total.at_least, total.unknown) = (true, true);
    }

    /// Does the same for all that a policy denied and passed. Another family may distinguish the two even if this one does not.
    pub fn unknown_decisions(&mut self, item: &mut Item) {
        for verdict in [Verdict::Deny, Verdict::Pass, Verdict::DenyOrPass] {
            item.decided(verdict);
            self.unknown(item);
        }
    }

    /// Shows again what several of these policies decided together, if it is not zero. A series must not end only because nothing can be
    /// added to it any more.
    pub fn keep_joined(&mut self, tier: &str, policies: &[&Arc<str>]) {
        let is_one = |name: &str| policies.iter().any(|policy| ***policy == *name);
        for total in self.totals.iter_mut().filter(|total| total.packets > 0) {
            let Item::Policy { tier: of, policy, .. } = &*total.item else { continue };
            if **of == *tier && policy.contains(',') && policy.split(',').all(is_one) {
                total.see(self.read);
            }
        }
    }

    /// Shows a total again if it is not zero. A series must not end only because nothing can be added to it any more.
    pub fn keep_if_counted(&mut self, item: &Item) {
        if let Some(total) = self.totals.iter_mut().find(|total| *total.item == *item && total.packets > 0) {
            total.see(self.read);
        }
    }

    fn find(&mut self, item: &Item) -> usize {
        let (before, behind) = (0..*self.expected, *self.expected..self.totals.len());
        behind.chain(before).find(|place| self.totals.get(*place).is_some_and(|total| *total.item == *item)).unwrap_or_else(|| {
            self.totals.push(Total {
                item: self.items.get(item),
                packets: 0,
                seen: self.read,
                unknown: false,
                at_least: false,
                introduced: false,
            });
            self.totals.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
