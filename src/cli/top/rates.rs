//! Packets a second, as means over the last seconds, so that a burst remains visible for a while. Pure.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::cluster::Answered;
use crate::felix::Direction;
use crate::report::{Drop, WorkloadsAnswer};

/// How long a burst remains visible.
const MEAN: Duration = Duration::from_secs(10);

type Key = (String, Arc<str>, Direction, Cow<'static, str>, Option<Arc<str>>, Option<Arc<str>>);

fn key(node: &str, drop: &Drop) -> Key {
    (node.to_owned(), Arc::clone(&drop.interface), drop.direction, drop.reason.clone(), drop.tier.clone(), drop.policy.clone())
}

/// The counts of the last moments.
#[derive(Debug, Default)]
pub struct Rates(VecDeque<(Instant, HashMap<Key, u64>)>);

impl Rates {
    pub fn add(&mut self, now: Instant, answers: &[Answered<WorkloadsAnswer>]) {
        // For a node that does not answer, the last counts are kept.
        let mut counts = self.0.back().map(|(_, counts)| counts.clone()).unwrap_or_default();
        for (node, answer) in answers {
            counts.extend(answer.drops.iter().map(|drop| (key(node, drop), drop.packets)));
        }
        self.0.push_back((now, counts));
        // Two moments are needed, however far apart.
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(then, _)| now.saturating_duration_since(*then) >= MEAN) {
            self.0.pop_front();
        }
    }

    /// Returns the rate of a drop in one of the last answers, or `None` after a single moment.
    pub fn of(&self, node: &str, drop: &Drop) -> Option<f64> {
        let ((first, _), (last, _)) = (self.0.front()?, self.0.back()?);
        let seconds = last.saturating_duration_since(*first).as_secs_f64();
        let key = key(node, drop);
        let counts = self.0.iter().map(|(_, counts)| counts.get(&key).copied().unwrap_or(0));
        // A count that decreased has restarted, so all of it is new.
        let grown = counts.clone().zip(counts.skip(1)).map(|(before, now)| now.checked_sub(before).unwrap_or(now)).sum::<u64>();
        (self.0.len() > 1).then(|| grown as f64 / seconds.max(0.001))
    }
}
