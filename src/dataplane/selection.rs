//! Chooses the back end that holds Calico's live rules. Pure.
//!
//! Felix chooses its back end when it starts, and up to 3.32 leaves the rules in the previous one. Packets then pass through both, so that
//! the stale table continues to count. [`Evidence`] lists what distinguishes them, the strongest first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ruleset::Backend;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub backend: Backend,
    pub chains: usize,
    pub endpoints: BTreeSet<String>,
    /// How many of these endpoints the node or the datastore knows.
    pub known: usize,
    /// Whether the built-in chains lead into Calico's; `None` if unknown.
    pub hooked: Option<bool>,
    /// The format of the rules' comments. A higher number is a later release of Calico.
    pub format: u8,
    /// A hash over chains and rules, without counters.
    pub rules: u64,
    /// Packets that all rules of endpoint chains have counted.
    pub packets: u64,
}

/// Why one back end is live and the other is not, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    Workloads,
    Hooks,
    Written,
    Gone,
    Format,
    Packets,
}

impl Evidence {
    pub fn as_str(self) -> &'static str {
        self.words().0
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Evidence::Workloads => ("workloads", "it has chains for more of the node's workloads"),
            Evidence::Hooks => ("hooks", "only there FORWARD, INPUT or OUTPUT lead to Calico's chains"),
            Evidence::Written => ("written", "the rules there were written last"),
            Evidence::Gone => ("gone", "the other has more chains for workloads that are gone"),
            Evidence::Format => ("format", "the rules there are of a later release of Calico"),
            Evidence::Packets => ("packets", "only its counters move"),
        }
    }
}

/// Another back end that also holds chains of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    pub backend: Backend,
    /// Why it is not the one that is read; `None` if it is unknown which is live.
    pub evidence: Option<Evidence>,
}

impl Rival {
    pub fn of(&self, read: Backend) -> String {
        let (read, other) = (read.as_str(), self.backend.as_str());
        match self.evidence {
            Some(evidence) => format!(
                "both the {read} and the {other} dataplane hold chains of endpoints; {read} is read: {}. Remove the rules that Felix has \
                 left in {other}, or set BACKEND",
                evidence.words().1
            ),
            None => format!(
                "both the {read} and the {other} dataplane hold chains of the same endpoints, and it is unknown which one Felix \
                 writes now; {read} is read, and may be the wrong one: set BACKEND={read} or BACKEND={other}"
            ),
        }
    }
}

/// How long one back end is read before the others are looked at again.
pub const LOOK_AROUND: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Selection {
    pub chosen: Option<Backend>,
    pub rivals: Vec<Rival>,
    last: Vec<Finding>,
    last_look: Option<Instant>,
    /// The number of workloads that the chosen back end lacked at the last look.
    missing: usize,
    looks: u32,
    /// The look at which each back end's rules last changed.
    written: BTreeMap<Backend, u32>,
    moved: BTreeSet<Backend>,
}

/// Ranks are compared number by number. The back end with the higher rank is live.
type Rank = [(Evidence, u64); 6];

impl Selection {
    /// Returns the back end that is enough to read now, or `None` if all must be looked at.
    pub fn settled(&self) -> Option<Backend> {
        self.chosen.filter(|_| self.rivals.iter().all(|rival| rival.evidence.is_some()))
    }

    /// Reports whether it is enough to read the chosen back end, which has `chains` chains and lacks `missing` workloads.
    pub fn stays(&mut self, chains: usize, missing: usize, now: Instant) -> bool {
        let is_worse = missing > self.missing;
        self.missing = self.missing.min(missing);
        let looked_lately = self.last_look.is_some_and(|last| now.duration_since(last) < LOOK_AROUND);
        chains > 0 && looked_lately && !is_worse
    }

    /// Chooses among all findings. `missing` returns the number of workloads that a back end lacks. Without evidence the previous choice is
    /// kept. If there is none, the back end that newer releases prefer is chosen.
    pub fn choose(&mut self, found: Vec<Finding>, missing: impl Fn(&Finding) -> usize, now: Instant) -> Option<Backend> {
        self.watch(&found);
        let with_chains = || found.iter().filter(|f| f.chains > 0);
        let best = with_chains().max_by_key(|f| (!f.endpoints.is_empty(), self.rank(f), self.chosen == Some(f.backend), f.backend));
        let is_rival = |f: &&Finding| !f.endpoints.is_empty() && best.is_some_and(|best| best.backend != f.backend);
        let rival = |f: &Finding| Rival { backend: f.backend, evidence: best.and_then(|best| tells(self.rank(best), self.rank(f))) };
        self.rivals = with_chains().filter(is_rival).map(rival).collect();
        self.missing = best.map_or(0, missing);
        self.chosen = best.map(|best| best.backend);
        self.last = found;
        self.last_look = Some(now);
        self.chosen
    }

    fn watch(&mut self, found: &[Finding]) {
        self.looks += 1;
        for finding in found.iter().filter(|f| f.chains > 0) {
            let before = self.last.iter().find(|last| last.backend == finding.backend && last.chains > 0);
            if self.looks > 1 && before.is_none_or(|before| before.rules != finding.rules) {
                self.written.insert(finding.backend, self.looks);
            }
            if before.is_some_and(|before| before.rules == finding.rules && before.packets != finding.packets) {
                self.moved.insert(finding.backend);
            }
        }
    }

    fn rank(&self, finding: &Finding) -> Rank {
        let written = self.written.get(&finding.backend).copied().unwrap_or(0);
        // If no workload is known, all of them look gone.
        let gone = if finding.known > 0 { finding.endpoints.len() - finding.known } else { 0 };
        let (is_hooked, has_moved) = (finding.hooked != Some(false), self.moved.contains(&finding.backend));
        [
            (Evidence::Workloads, finding.known as u64),
            (Evidence::Hooks, is_hooked.into()),
            (Evidence::Written, written.into()),
            (Evidence::Gone, u64::MAX - gone as u64),
            (Evidence::Format, finding.format.into()),
            (Evidence::Packets, has_moved.into()),
        ]
    }
}

fn tells(better: Rank, other: Rank) -> Option<Evidence> {
    better.into_iter().zip(other).find(|(better, other)| better != other).map(|((evidence, _), _)| evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(backend: Backend, known: usize, packets: u64) -> Finding {
        let endpoints = ["cali1", "cali2"].map(str::to_owned).into();
        Finding { backend, chains: 2, endpoints, known, hooked: None, format: 1, rules: 7, packets }
    }

    fn empty(backend: Backend) -> Finding {
        Finding { chains: 0, endpoints: BTreeSet::new(), ..found(backend, 0, 0) }
    }

    fn choose(selection: &mut Selection, found: &[Finding]) -> Option<Backend> {
        selection.choose(found.to_vec(), |f| 2 - f.known, Instant::now())
    }

    use Backend::{Legacy, Native, Nft};

    #[test]
    fn the_one_that_knows_the_workloads_wins_and_one_without_chains_is_none() {
        let mut selection = Selection::default();
        assert_eq!(choose(&mut selection, &[found(Legacy, 2, 9), found(Nft, 0, 9)]), Some(Legacy));
        assert_eq!(selection.settled(), Some(Legacy));
        assert_eq!(selection.rivals, [Rival { backend: Nft, evidence: Some(Evidence::Workloads) }]);
        assert_eq!(choose(&mut Selection::default(), &[empty(Nft)]), None);
    }

    /// A node without workloads still has Calico's static chains. Endpoints in another back end outweigh them.
    #[test]
    fn chains_without_endpoints_are_calicos_too() {
        let static_only = Finding { chains: 9, ..empty(Native) };
        let mut selection = Selection::default();
        assert_eq!(choose(&mut selection, &[static_only.clone(), empty(Nft)]), Some(Native));
        assert_eq!(choose(&mut selection, &[static_only, found(Legacy, 0, 0)]), Some(Legacy));
        assert!(selection.rivals.is_empty());
    }

    #[test]
    fn of_two_that_look_alike_the_one_that_counts() {
        let mut selection = Selection::default();
        assert_eq!(choose(&mut selection, &[found(Legacy, 2, 9), found(Nft, 2, 9)]), Some(Nft));
        assert_eq!((selection.settled(), selection.chosen), (None, Some(Nft)), "both must be read until something tells");
        assert_eq!(choose(&mut selection, &[found(Legacy, 2, 10), found(Nft, 2, 9)]), Some(Legacy));
        assert_eq!(selection.settled(), Some(Legacy));
        // Packets may pass through both, so the movement of one is no longer evidence.
        assert_eq!(choose(&mut selection, &[found(Legacy, 2, 11), found(Nft, 2, 10)]), Some(Legacy));
        assert_eq!((selection.settled(), selection.chosen), (None, Some(Legacy)));
    }

    /// All moves between two back ends, whatever the stale one counts.
    #[test]
    fn the_one_that_felix_writes_wins() {
        for (stale, live) in [(Legacy, Nft), (Nft, Legacy), (Legacy, Native), (Native, Legacy), (Nft, Native), (Native, Nft)] {
            let mut selection = Selection::default();
            assert_eq!(choose(&mut selection, &[found(stale, 2, 9), empty(live)]), Some(stale));
            let expected = [Rival { backend: stale, evidence: Some(Evidence::Written) }];
            for packets in [9, 10, 20] {
                assert_eq!(choose(&mut selection, &[found(stale, 2, packets), found(live, 2, packets)]), Some(live), "{stale:?} {live:?}");
                assert_eq!(selection.rivals, expected);
            }
            // Felix writes a new workload where it is active, even if it has returned to the earlier back end.
            let rewritten = Finding { rules: 8, ..found(stale, 2, 20) };
            assert_eq!(choose(&mut selection, &[rewritten, found(live, 2, 20)]), Some(stale));
        }
    }

    #[test]
    fn at_the_start_it_is_hooks_what_is_gone_and_the_format() {
        let plain = || found(Nft, 2, 9);
        let other = |evidence| [Rival { backend: Nft, evidence: Some(evidence) }];
        for (live, stale, evidence) in [
            (Finding { hooked: Some(true), ..found(Legacy, 2, 9) }, Finding { hooked: Some(false), ..plain() }, Evidence::Hooks),
            (found(Legacy, 2, 9), Finding { endpoints: ["cali1", "cali2", "cali3"].map(str::to_owned).into(), ..plain() }, Evidence::Gone),
            (Finding { format: 2, ..found(Legacy, 2, 9) }, plain(), Evidence::Format),
        ] {
            let mut selection = Selection::default();
            assert_eq!(choose(&mut selection, &[live, stale]), Some(Legacy), "{evidence:?}");
            assert_eq!(selection.rivals, other(evidence));
        }
    }

    #[test]
    fn others_are_looked_at_when_chains_go_a_workload_is_missing_or_after_a_while() {
        let mut selection = Selection::default();
        let now = Instant::now();
        selection.choose(vec![found(Legacy, 1, 9)], |_| 1, now);
        assert!(!selection.stays(0, 1, now));
        assert!(selection.stays(2, 1, now + LOOK_AROUND / 2), "that one was missing at the look already");
        assert!(!selection.stays(2, 2, now));
        assert!(selection.stays(2, 0, now) && !selection.stays(2, 1, now), "one that was there is not any more");
        assert!(!selection.stays(2, 1, now + LOOK_AROUND));
    }
}
