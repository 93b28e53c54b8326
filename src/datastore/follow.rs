//! The loop of every datastore follower: list, watch, resume, list again, wait. Drives a [`Watched`] (one range of a datastore), which
//! updates the [`Inventory`]. It sleeps and logs, and touches nothing else.

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

/// A list that lasted for less than this was of little use, so the next one is delayed.
const LASTING: Duration = Duration::from_secs(10);

/// The longest reason in bytes. It includes the server's words and what to do about them.
const LONGEST_REASON: usize = 1024;
/// The maximum number of different reasons that are logged in one outage.
const MOST_REASONS: usize = 20;

/// One range of a datastore that can be listed, then watched from where the list ended.
pub trait Watched {
    /// Where a watch continues: a revision, a resource version.
    type Position: Send;

    /// The range's name in messages. It is unique among the sources of one inventory.
    fn name(&self) -> &str;

    /// Reads everything and replaces what the inventory has of it (nothing, on failure). Returns where a watch continues.
    fn list(&mut self) -> Result<Self::Position, Failure>;

    /// Stores changes in the inventory until the watch ends. Reports `signs` of life and advances `position`.
    fn watch(&mut self, position: &mut Self::Position, signs: &mut dyn FnMut(Sign)) -> Ended;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The datastore accepted the watch. It is reachable again, though the watch may still fail.
    Accepted,
    /// A message arrived: all is well.
    Message,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Silence, a dead connection, or the watch's time limit: watch again from the same position.
    Quiet,
    /// The position is no longer valid (compaction, another history), for the reason given: list again.
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

/// The longest delay between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The datastore is unavailable or refuses, attempts cost it little, and it may recover at any moment: 1 s.
    Away,
    /// An administrator has to change something first, and attempts are expensive, such as the hashing of a password: 30 s.
    Repair,
    /// An administrator has to grant a right. This is often being done already: 1 s for the first minutes, then 30 s.
    Rights,
    /// The delay that the datastore requested, at most 30 s. The first attempt after it is not delayed further.
    Told(Duration),
}

/// Follows `source` on its own thread for the lifetime of the process.
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

    /// Runs one list or one watch. Returns how long to wait before the next step.
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

    /// Lists again immediately, or later if the last list did not last long either (members that disagree, frames too large to keep),
    /// because lists are expensive.
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
    /// The problems of the current outage, each reason once.
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

    /// Ends the outage. Later problems belong to another one.
    fn recovered(&mut self) {
        if !self.troubles.is_empty() {
            log::info!("{}: following again", self.name);
            self.troubles.clear();
        }
    }

    /// Logs each reason once in an outage, so that an hour of several endpoints' refusals is a few lines instead of 3600.
    fn failed(&mut self, reason: &str) {
        // Errors of libraries contain the whole unexpected input.
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
        // The scripted watch receives something each time before it fails.
        assert!((0..10).all(|_| follow.step() <= FIRST_DELAY));
    }

    /// A watch that is repeatedly accepted and then fails must not become a busy loop.
    #[test]
    fn an_accepted_watch_is_up_but_does_not_shorten_the_delays() {
        let mut follow = failing_watches();
        follow.source.2 = Sign::Accepted;
        let delays: Vec<_> = (0..10).map(|_| follow.step()).collect();
        assert!(delays[9] > LONGEST_DELAY / 2, "{delays:?}");
        assert_eq!(follow.standing.troubles.len(), 1, "one outage, one line");
    }
}
