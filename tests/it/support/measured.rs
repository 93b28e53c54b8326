//! Measures what a fault costs a follower: before, during and after.

use std::time::{Duration, Instant};

use super::follower::{Cost, Follower, State};
use super::within;

/// The share of a processor that a follower may use while it waits. More is a busy loop.
const BUSY: f64 = 0.05;
/// The initial value of [`Measured::memory`].
const MEMORY: usize = 4 << 10;
/// How long a fault may have an effect after it is over. The longest delays between attempts are 30 s.
const OVER: Duration = Duration::from_secs(35);

/// A follower, and its cost while all was well.
pub struct Measured {
    pub follower: Follower,
    calm: Cost,
    /// Memory that may be used beyond that before the first fault, in kB: buffers, and memory that an allocator keeps.
    pub memory: usize,
}

impl Measured {
    /// Measures a follower that has just followed everything.
    pub fn new(follower: Follower) -> Self {
        let calm = follower.cost();
        Measured { follower, calm, memory: MEMORY }
    }

    /// Waits until the follower has exactly the datastore's objects, and no problem.
    #[track_caller]
    pub fn is_level(&mut self, what: &str, stored: &State) {
        let began = Instant::now();
        while (State { resyncs: 0, ..self.follower.state() }) != *stored {
            assert!(began.elapsed() < OVER, "{what}: {:#?}\ninstead of {stored:#?}", self.follower.state());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Checks the cost of a fault since it began: little CPU time in addition to that of its `work`, few requests (`asked` of them, at most
    /// `rate` a second), and no memory, thread or descriptor that is not released.
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
