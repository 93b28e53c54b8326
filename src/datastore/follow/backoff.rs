//! The delay between two attempts. Pure.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::Patience;

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest delay if an administrator has to repair something and each attempt is expensive for the datastore.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The longest delay if the datastore is only unavailable, or if attempts cost it little. It is short, because a change must show within 2
/// s after the datastore is reachable again, or after a file, role or flag was repaired. Lists are not repeated this fast: the watch
/// resumes.
const LONGEST_DELAY_AWAY: Duration = Duration::from_secs(1);
/// After this many failures (two or three minutes), a missing right is no longer tried every second.
const EAGER: u32 = 200;

/// Growing delays with jitter, so that the exporters of a thousand nodes do not reconnect at the same time.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn next(&mut self, patience: Patience) -> Duration {
        let longest = match patience {
            Patience::Away => LONGEST_DELAY_AWAY,
            Patience::Rights if self.failures < EAGER => LONGEST_DELAY_AWAY,
            Patience::Repair | Patience::Rights | Patience::Told(_) => LONGEST_DELAY,
        };
        let own = FIRST_DELAY.saturating_mul(1 << self.failures.min(16)).min(longest).mul_f64(jitter());
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        match patience {
            Patience::Told(delay) if first => delay.min(LONGEST_DELAY).mul_f64(1.5 - jitter() / 2.0),
            Patience::Told(delay) => own.max(delay.min(LONGEST_DELAY)),
            _ => own,
        }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns a random factor between 0.5 and 1. The standard library's hash keys are sufficient as randomness.
pub(crate) fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.5 + (random >> 11) as f64 / (1u64 << 53) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_that_the_datastore_names_is_kept_within_bounds() {
        let mut backoff = Backoff::default();
        let second = Duration::from_secs(1);
        let first = backoff.next(Patience::Told(second));
        assert!(first >= second && first <= second.mul_f64(1.25), "{first:?}");
        assert!((0..9).all(|_| backoff.next(Patience::Told(second)) >= second));
        assert!(backoff.next(Patience::Told(second)) > LONGEST_DELAY / 2, "asked again and again, it grows");
        assert!(Backoff::default().next(Patience::Told(Duration::from_secs(86_400))) <= LONGEST_DELAY.mul_f64(1.25));
    }

    #[test]
    fn a_missing_right_is_asked_for_often_at_first() {
        let mut backoff = Backoff::default();
        let waited: Duration = (0..EAGER).map(|_| backoff.next(Patience::Rights)).inspect(|&d| assert!(d <= LONGEST_DELAY_AWAY)).sum();
        assert!(waited > Duration::from_secs(100));
        assert!(backoff.next(Patience::Rights) > LONGEST_DELAY_AWAY);
    }

    #[test]
    fn delays_grow_to_one_second_while_away_and_to_thirty_for_a_repair() {
        let longest = |patience| {
            let mut backoff = Backoff::default();
            let first = backoff.next(patience);
            assert!(first >= FIRST_DELAY / 2 && first <= FIRST_DELAY, "{first:?}");
            (0..100).map(|_| backoff.next(patience)).max().unwrap()
        };
        assert!(longest(Patience::Away) <= Duration::from_secs(1));
        assert!(longest(Patience::Repair) > Duration::from_secs(15) && longest(Patience::Repair) <= Duration::from_secs(30));
    }
}
