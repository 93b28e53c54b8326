//! The loop every datastore follower runs: list, watch, resume, list again, wait. In comes a [`Watched`] (one range of a
//! datastore); out goes what it tells the [`Inventory`]. It sleeps and logs, and touches nothing else.

mod backoff;
mod frames;
mod wanted;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backoff::Backoff;
pub(crate) use backoff::jitter;
pub use frames::{Frames, LARGEST_FRAME};
pub use wanted::{when_nodes_are_wanted, when_policies_are_wanted};

use crate::datastore::bounds::cut;
use crate::datastore::inventory::{Inventory, TooMany};

/// A list that held for less than this was of little use: the next one is delayed.
const LASTING: Duration = Duration::from_secs(10);

/// The longest reason, in bytes: somebody else's words, and what to do about them.
const LONGEST_REASON: usize = 1024;
/// How many different reasons are logged in one outage.
const MOST_REASONS: usize = 20;

/// One range of a datastore that can be listed, then watched from where the list ended.
pub trait Watched {
    /// Where a watch continues: a revision, a resource version.
    type Position: Send;

    /// What is followed, as messages name it; unique among the sources of one inventory.
    fn name(&self) -> &str;

    /// Reads everything, replaces what the inventory has of it (or nothing, on failure), and returns where a watch continues.
    fn list(&mut self) -> Result<Self::Position, Failure>;

    /// Puts changes into the inventory until the watch ends, giving `signs` of life and moving `position` along.
    fn watch(&mut self, position: &mut Self::Position, signs: &mut dyn FnMut(Sign)) -> Ended;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The datastore took it: it is there again, though the watch may yet turn out to be of no use.
    Accepted,
    /// A message came: all is well.
    Message,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Silence or a dead connection, or its time was up: watch again from the same position.
    Quiet,
    /// The position is of no use any more (compaction, another history), for the reason given: list again.
    Relist(String),
    /// An error: watch again from the same position after a delay.
    Failed(Failure),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub patience: Patience,
}

impl From<TooMany> for Failure {
    fn from(error: TooMany) -> Self {
        Failure { reason: format!("the datastore has {error}"), patience: Patience::Repair }
    }
}

/// How long the delay between two attempts may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The datastore is away or refuses, asking costs it little, and it may come back at any moment: 1 s.
    Away,
    /// Somebody has to change something first, and asking is dear, as the hashing of a password is: 30 s.
    Repair,
    /// Somebody has to give us a right. Often that is under way, so for the first minutes: 1 s; then 30 s.
    Rights,
    /// The datastore named the delay, within 30 s. The first attempt after it is not delayed further.
    Told(Duration),
}

/// Follows `source` on a thread of its own, for as long as the process lives.
pub fn spawn<S: Watched + Send + 'static>(source: S, inventory: Arc<Inventory>) -> std::io::Result<()> {
    let mut follow = Follow::new(source, inventory);
    thread::Builder::new().name(format!("follow {}", follow.standing.name)).spawn(move || {
        loop {
            // A panic in a library must not leave a cache that looks alive and never changes again.
            let delay = catch_unwind(AssertUnwindSafe(|| follow.step())).unwrap_or_else(|_| follow.panicked());
            thread::sleep(delay);
        }
    })?;
    Ok(())
}

struct Follow<S: Watched> {
    source: S,
    standing: Standing,
    position: Option<S::Position>,
    listed: Option<Instant>,
    failures: Backoff,
    relists: Backoff,
}

impl<S: Watched> Follow<S> {
    fn new(source: S, inventory: Arc<Inventory>) -> Self {
        let standing = Standing { name: source.name().to_owned(), inventory, troubles: Vec::new() };
        Follow { source, standing, position: None, listed: None, failures: Backoff::default(), relists: Backoff::default() }
    }

    /// One list or one watch; returns how long to wait before the next step.
    fn step(&mut self) -> Duration {
        match self.position.take() {
            None => self.list(),
            Some(position) => self.watch(position),
        }
    }

    fn list(&mut self) -> Duration {
        match self.source.list() {
            Ok(position) => {
                self.position = Some(position);
                self.listed = Some(Instant::now());
                self.failures.reset();
                self.standing.inventory.listed(&self.standing.name);
                self.standing.heard();
                Duration::ZERO
            }
            Err(failure) => self.failed(failure),
        }
    }

    fn watch(&mut self, mut position: S::Position) -> Duration {
        let ended = self.source.watch(&mut position, &mut |sign| match sign {
            Sign::Accepted => self.standing.answered(),
            Sign::Message => {
                self.failures.reset();
                self.standing.heard();
            }
        });
        match ended {
            Ended::Quiet => {
                self.position = Some(position);
                self.failures.reset();
                self.standing.recovered();
                Duration::ZERO
            }
            Ended::Relist(reason) => self.relist(&reason),
            Ended::Failed(failure) => {
                self.position = Some(position);
                self.failed(failure)
            }
        }
    }

    /// At once, but later if the last list did not hold for long either (members that disagree, frames too large to keep): lists are dear.
    fn relist(&mut self, reason: &str) -> Duration {
        log::info!("{}: listing again: {reason}", self.standing.name);
        if self.listed.is_some_and(|at| at.elapsed() < LASTING) {
            return self.relists.next(Patience::Repair);
        }
        self.relists.reset();
        Duration::ZERO
    }

    fn failed(&mut self, failure: Failure) -> Duration {
        self.standing.failed(&failure.reason);
        self.failures.next(failure.patience)
    }

    fn panicked(&mut self) -> Duration {
        self.failed(Failure { reason: "the follower failed unexpectedly (please report this)".into(), patience: Patience::Repair })
    }
}

struct Standing {
    name: String,
    inventory: Arc<Inventory>,
    /// What went wrong since it last went well, each reason once.
    troubles: Vec<String>,
}

impl Standing {
    fn heard(&mut self) {
        self.answered();
        self.recovered();
    }

    fn answered(&mut self) {
        self.inventory.touch();
        self.inventory.set_trouble(&self.name, None);
    }

    /// Whatever goes wrong from now on is another outage.
    fn recovered(&mut self) {
        if !self.troubles.is_empty() {
            log::info!("{}: following again", self.name);
            self.troubles.clear();
        }
    }

    /// Each reason is logged once in an outage: an hour of several endpoints' refusals is a few lines, not 3600.
    fn failed(&mut self, reason: &str) {
        // Errors of libraries repeat what they did not expect, whole.
        let reason = cut(reason, LONGEST_REASON).into_owned();
        if !self.troubles.contains(&reason) && self.troubles.len() < MOST_REASONS {
            log::warn!("{}: {reason}", self.name);
            self.troubles.push(reason.clone());
        }
        self.inventory.set_trouble(&self.name, Some(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::backoff::{FIRST_DELAY, LONGEST_DELAY};
    use super::*;
    use std::collections::VecDeque;

    enum Script {
        List(Result<u32, Failure>),
        Watch(Ended),
    }

    struct Scripted(VecDeque<Script>, Vec<String>, Sign);

    impl Watched for Scripted {
        type Position = u32;

        fn name(&self) -> &str {
            "scripted"
        }

        fn list(&mut self) -> Result<u32, Failure> {
            self.1.push("list".into());
            match self.0.pop_front() {
                Some(Script::List(result)) => result,
                _ => panic!("a list was not expected"),
            }
        }

        fn watch(&mut self, position: &mut u32, signs: &mut dyn FnMut(Sign)) -> Ended {
            self.1.push(format!("watch {position}"));
            *position += 1;
            signs(self.2);
            match self.0.pop_front() {
                Some(Script::Watch(ended)) => ended,
                _ => panic!("a watch was not expected"),
            }
        }
    }

    fn failure(patience: Patience) -> Failure {
        Failure { reason: "no luck".into(), patience }
    }

    fn follow(script: impl IntoIterator<Item = Script>) -> Follow<Scripted> {
        Follow::new(Scripted(script.into_iter().collect(), Vec::new(), Sign::Message), Arc::new(Inventory::new()))
    }

    #[test]
    fn a_watch_resumes_where_it_ended_and_lists_again_only_when_told_to() {
        let mut follow = follow([
            Script::List(Ok(5)),
            Script::Watch(Ended::Quiet),
            Script::Watch(Ended::Failed(failure(Patience::Away))),
            Script::Watch(Ended::Relist("compacted".into())),
            Script::List(Ok(9)),
        ]);
        for _ in 0..5 {
            follow.step();
        }
        assert_eq!(follow.source.1, ["list", "watch 5", "watch 6", "watch 7", "list"]);
        assert_eq!(follow.position, Some(9));
    }

    #[test]
    fn up_says_whether_the_last_thing_heard_was_good() {
        let mut follow = follow([Script::List(Err(failure(Patience::Away))), Script::List(Ok(1))]);
        let inventory = Arc::clone(&follow.standing.inventory);
        assert!(follow.step() > Duration::ZERO);
        assert!(!inventory.up());
        assert_eq!(inventory.troubles(), ["no luck"]);
        assert_eq!(follow.step(), Duration::ZERO);
        assert!(inventory.up());
        assert!(inventory.troubles().is_empty());
    }

    #[test]
    fn lists_that_do_not_hold_follow_one_another_more_and_more_slowly() {
        let again = || [Script::List(Ok(1)), Script::Watch(Ended::Relist("future revision".into()))];
        let mut follow = follow((0..8).flat_map(|_| again()));
        let delays: Vec<_> = (0..8).map(|_| follow.step() + follow.step()).collect();
        assert!(delays[0] > Duration::ZERO && delays[0] <= FIRST_DELAY, "{delays:?}");
        assert!(delays[7] >= LONGEST_DELAY / 2, "{delays:?}");
    }

    fn failing_watches() -> Follow<Scripted> {
        let away = || Script::Watch(Ended::Failed(failure(Patience::Repair)));
        follow([Script::List(Ok(1))].into_iter().chain((0..9).map(|_| away())))
    }

    #[test]
    fn after_something_was_heard_the_delays_start_anew() {
        let mut follow = failing_watches();
        // The scripted watch hears something each time before it fails.
        assert!((0..10).all(|_| follow.step() <= FIRST_DELAY));
    }

    /// A watch that is accepted and ends in an error, over and over, must not become a busy loop.
    #[test]
    fn an_accepted_watch_is_up_but_does_not_shorten_the_delays() {
        let mut follow = failing_watches();
        follow.source.2 = Sign::Accepted;
        let delays: Vec<_> = (0..10).map(|_| follow.step()).collect();
        assert!(delays[9] > LONGEST_DELAY / 2, "{delays:?}");
        assert_eq!(follow.standing.troubles.len(), 1, "one outage, one line");
    }
}
