//! What a fault may cost a follower: it is measured before, during and after.

use std::time::{Duration, Instant};

use super::follower::{Cost, Follower, State};
use super::within;

/// How much of a processor a follower may take while it waits; more is a busy loop.
const BUSY: f64 = 0.05;
/// What [`Measured::memory`] is at first.
const MEMORY: usize = 4 << 10;
/// How long a fault may show after it is over. The longest delays between attempts are 30 s.
const OVER: Duration = Duration::from_secs(35);

/// A follower, how much was asked of the datastore, and what it took while all was well.
pub struct Measured {
    pub follower: Follower,
    calm: Cost,
    /// Memory that may be in use beyond what was before the first fault, in kB: buffers, and what an allocator keeps.
    pub memory: usize,
}

impl Measured {
    /// Of a follower that has just followed everything.
    pub fn new(follower: Follower) -> Self {
        let calm = follower.cost();
        Measured { follower, calm, memory: MEMORY }
    }

    /// Waits until the follower has exactly what the datastore has, and no trouble.
    #[track_caller]
    pub fn is_level(&mut self, what: &str, stored: &State) {
        let began = Instant::now();
        while (State { resyncs: 0, ..self.follower.state() }) != *stored {
            assert!(began.elapsed() < OVER, "{what}: {:#?}\ninstead of {stored:#?}", self.follower.state());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a fault has cost since it began: little time beside what its `work` takes, few questions (so many were asked, and may be
    /// in a second), no memory, thread or descriptor that is not given back.
    #[track_caller]
    pub fn was_cheap(&mut self, what: &str, before: &Cost, began: Instant, work: Duration, (asked, rate): (u64, f64)) {
        let seconds = began.elapsed().as_secs_f64();
        let cost = self.follower.cost();
        let busy = (cost.cpu - before.cpu).as_secs_f64();
        println!(
            "{what}: {seconds:.1} s, {busy:.2} s of them busy, asked {asked} times; {} kB, {} threads, {} descriptors (before all: {} kB, {}, {})",
            cost.memory, cost.threads, cost.descriptors, self.calm.memory, self.calm.threads, self.calm.descriptors
        );
        assert!(busy < work.as_secs_f64() + BUSY * seconds, "{what}: busy for {busy:.2} of {seconds:.1} s");
        assert!((asked as f64) < 20.0 + rate * seconds, "{what}: asked {asked} times in {seconds:.1} s");
        let calm = self.calm;
        within(Duration::from_secs(10), "threads and descriptors as before", || {
            let now = self.follower.cost();
            now.threads <= calm.threads && now.descriptors <= calm.descriptors + 2
        });
        assert!(cost.memory < calm.memory + self.memory, "{what}: {} kB, before it all {} kB", cost.memory, calm.memory);
    }
}
