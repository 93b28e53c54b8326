//! Concurrent callers share one computation: who arrives while it runs waits for its result instead of starting another.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Shares one computation among concurrent callers.
pub struct SingleFlight<T> {
    current: Mutex<Option<Arc<Flight<T>>>>,
}

/// One computation. Only those who wait hold it, so its result is freed with the last of them.
struct Flight<T> {
    outcome: Mutex<Outcome<T>>,
    landed: Condvar,
}

enum Outcome<T> {
    Pending,
    Done(T),
    /// The computation panicked.
    Lost,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { current: Mutex::new(None) }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// Nothing is running yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The result of `compute`, or of the computation that is running already. `T` should be cheap to clone (an `Arc`).
    ///
    /// A panic in `compute` goes on to its own caller; those who waited for it compute for themselves.
    pub fn run(&self, compute: impl FnOnce() -> T) -> T {
        loop {
            let flight = {
                let mut current = lock(&self.current);
                match &*current {
                    Some(flight) => Arc::clone(flight),
                    None => {
                        let flight = Arc::new(Flight { outcome: Mutex::new(Outcome::Pending), landed: Condvar::new() });
                        *current = Some(Arc::clone(&flight));
                        drop(current);
                        return self.lead(flight, compute);
                    }
                }
            };
            if let Some(result) = flight.wait() {
                return result;
            }
        }
    }

    fn lead(&self, flight: Arc<Flight<T>>, compute: impl FnOnce() -> T) -> T {
        let mut landing = Landing { of: self, flight: &flight, outcome: Outcome::Lost };
        let result = compute();
        landing.outcome = Outcome::Done(result.clone());
        result
    }
}

impl<T: Clone> Flight<T> {
    /// Waits for the result; `None` if there will be none.
    fn wait(&self) -> Option<T> {
        let mut outcome = lock(&self.outcome);
        loop {
            match &*outcome {
                Outcome::Pending => outcome = self.landed.wait(outcome).unwrap_or_else(PoisonError::into_inner),
                Outcome::Done(result) => return Some(result.clone()),
                Outcome::Lost => return None,
            }
        }
    }
}

/// Ends a flight when dropped, so that a panic cannot leave the others waiting.
struct Landing<'a, T> {
    of: &'a SingleFlight<T>,
    flight: &'a Flight<T>,
    outcome: Outcome<T>,
}

impl<T> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        // First make room for the next computation: a later caller must not be given this one's result.
        *lock(&self.of.current) = None;
        *lock(&self.flight.outcome) = std::mem::replace(&mut self.outcome, Outcome::Lost);
        self.flight.landed.notify_all();
    }
}

/// Nothing under these locks can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Waits until `count` callers besides the leader hold the running flight.
    fn await_waiters<T>(single: &SingleFlight<T>, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        // One reference in `current`, one with the leader.
        while lock(&single.current).as_ref().map_or(0, Arc::strong_count) < 2 + count {
            assert!(Instant::now() < deadline, "callers did not arrive");
            thread::yield_now();
        }
    }

    #[test]
    fn callers_share_a_running_computation_and_later_ones_start_anew() {
        let (single, runs) = (SingleFlight::<usize>::new(), AtomicUsize::new(0));
        let (started, go) = (mpsc::channel(), mpsc::channel::<()>());
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let go = go.1;
                single.run(|| {
                    started.0.send(()).unwrap();
                    go.recv().unwrap();
                    runs.fetch_add(1, Ordering::SeqCst) + 1
                })
            });
            started.1.recv().unwrap();
            let others: Vec<_> = (0..8).map(|_| scope.spawn(|| single.run(|| runs.fetch_add(1, Ordering::SeqCst) + 1))).collect();
            await_waiters(&single, 8);
            go.0.send(()).unwrap();
            assert_eq!(leader.join().unwrap(), 1);
            assert!(others.into_iter().all(|other| other.join().unwrap() == 1));
        });
        assert_eq!(single.run(|| runs.fetch_add(1, Ordering::SeqCst) + 1), 2);
    }

    #[test]
    fn a_panic_neither_blocks_nor_reaches_the_others() {
        let single = SingleFlight::<&str>::new();
        let (started, go) = (mpsc::channel(), mpsc::channel::<()>());
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let go = go.1;
                catch_unwind(AssertUnwindSafe(|| {
                    single.run(|| {
                        started.0.send(()).unwrap();
                        go.recv().unwrap();
                        panic!("lost");
                    })
                }))
            });
            started.1.recv().unwrap();
            let other = scope.spawn(|| single.run(|| "mine"));
            await_waiters(&single, 1);
            go.0.send(()).unwrap();
            assert!(leader.join().unwrap().is_err());
            assert_eq!(other.join().unwrap(), "mine");
        });
    }

    #[test]
    fn a_result_lives_only_as_long_as_its_callers_hold_it() {
        let single = SingleFlight::<Arc<Vec<u8>>>::new();
        let result = single.run(|| Arc::new(vec![0; 1024]));
        assert_eq!(Arc::strong_count(&result), 1);
    }
}
