//! Foreign rules anywhere in Calico's chains. One that matched nothing changes nothing, and one that matched makes no number wrong. Covers
//! all captures and every reader, at random places with fixed seeds. `WITHSTAND=1` tries 10,000 places.

mod mutation;
mod rules;
mod walk;

use std::collections::BTreeMap;

use calico_accountant::felix::{ChainNames, EndpointKind, Pipelines};
use calico_accountant::ruleset::{Backend, Family, Snapshot};

use crate::captures::{self, CAPTURES, Key, NATIVE_CAPTURES, OTHER_CAPTURES, Pipeline};
use crate::simulation::random::Random;
use crate::support;
use mutation::{Mutation, Place, mutated};
use rules::Foreign;

/// One capture: two moments, and what was sent between them.
struct Capture {
    name: &'static str,
    before: Vec<Snapshot>,
    after: Vec<Snapshot>,
    truth: BTreeMap<Key, u64>,
    /// The foreign rules, as the readers of its back end see them.
    foreign: Vec<Foreign>,
}

impl Capture {
    /// The totals that are shown at both moments.
    fn totals(&self, [before, after]: [&[Snapshot]; 2]) -> [BTreeMap<Key, u64>; 2] {
        let mut exporter = Pipeline::default();
        exporter.rename(self.names());
        exporter.read(before);
        let first = exporter.totals();
        exporter.read(after);
        [first, exporter.totals()]
    }

    fn names(&self) -> ChainNames {
        ChainNames::new(&captures::stored_policies(self.name))
    }

    fn tables(&self) -> [&[Snapshot]; 2] {
        [&self.before, &self.after]
    }

    /// A random place in one of the chains that matter.
    fn place(&self, random: &mut Random) -> Place {
        loop {
            let table = random.below(self.before.len());
            let ruleset = &self.before[table].ruleset;
            let chains: Vec<_> = ruleset.chain_ids().filter(|(_, chain)| mutation::matters(&chain.name)).collect();
            if chains.is_empty() {
                continue;
            }
            let (chain, rules) = (random.pick(&chains).0, |chain| ruleset.chain(chain).rules.len());
            return Place { table, chain, before: random.below(rules(chain) + 1) };
        }
    }
}

/// All captures of iptables' tables and, if the kernel can be used, of Calico's own.
fn all_captures() -> Vec<Capture> {
    let capture = |(name, backend): (&'static str, Backend)| Capture {
        name,
        before: captures::rulesets(name, "t0", backend, &Family::ALL),
        after: captures::rulesets(name, "t1", backend, &Family::ALL),
        truth: captures::ground_truth(name, "t1", &Family::ALL),
        foreign: rules::by_iptables(backend),
    };
    let mut all: Vec<Capture> = CAPTURES.into_iter().chain(OTHER_CAPTURES).map(capture).collect();
    for name in NATIVE_CAPTURES {
        let (Some(before), Some(after)) = (captures::native(name, "t0", &Family::ALL), captures::native(name, "t1", &Family::ALL)) else {
            break;
        };
        let truth = captures::ground_truth(name, "t1", &Family::ALL);
        all.push(Capture { name, before, after, truth, foreign: rules::by_nft() });
    }
    all
}

/// How many places to try in each capture.
fn places(short: usize) -> usize {
    if support::is_long() { 10_000 / (CAPTURES.len() + OTHER_CAPTURES.len() + NATIVE_CAPTURES.len()) + 1 } else { short }
}

#[test]
fn a_foreign_rule_that_matched_nothing_changes_nothing() {
    for (seed, capture) in all_captures().iter().enumerate() {
        let mut random = Random::new(seed as u64);
        let plain = capture.totals(capture.tables());
        for number in 0..places(12) {
            let (place, foreign) = (capture.place(&mut random), random.pick(&capture.foreign));
            let counted = if random.percent(30) { 7 } else { 0 };
            let tables = [0, 1].map(|moment| mutated(capture.tables()[moment], place, foreign, counted));
            let found = capture.totals([&tables[0], &tables[1]]);
            let context = format!("{} {number}: {} at {}", capture.name, foreign.text, place.describe(&capture.before));
            match counted {
                0 => assert_eq!(found, plain, "{context}"),
                // Before the first read the rule may have matched anything. Since then, nothing.
                _ => {
                    let wrong = wrong(&found, &plain, &capture.truth);
                    assert!(wrong.is_empty(), "{context}:\n{}", wrong.join("\n"));
                }
            }
        }
    }
}

/// In Calico's own tables, what a limit denied follows from the rules after it. The foreign rule is tried at every place among them.
#[test]
fn a_foreign_rule_among_limits_changes_nothing() {
    for capture in all_captures().iter().filter(|capture| capture.name == "v3.32.1-native-reject") {
        let plain = capture.totals(capture.tables());
        for (table, snapshot) in capture.before.iter().enumerate() {
            let Some((chain, found)) = snapshot.ruleset.chain_ids().find(|(_, chain)| &*chain.name == "cali-tw-cali571d22ceb1d") else {
                continue;
            };
            for (before, foreign) in (0..=found.rules.len()).flat_map(|before| capture.foreign.iter().map(move |foreign| (before, foreign)))
            {
                let place = Place { table, chain, before };
                let tables = [0, 1].map(|moment| mutated(capture.tables()[moment], place, foreign, 0));
                let context = format!("{} at {}", foreign.text, place.describe(&capture.before));
                assert_eq!(capture.totals([&tables[0], &tables[1]]), plain, "{context}");
            }
        }
    }
}

#[test]
fn a_foreign_rule_that_matched_makes_no_number_wrong() {
    let (mut matched, mut unknown, mut cells) = (0, 0, 0);
    for (seed, capture) in all_captures().iter().enumerate() {
        let mut random = Random::new(1000 + seed as u64);
        let plain = capture.totals(capture.tables());
        for number in 0..places(25) {
            let (place, foreign) = (capture.place(&mut random), random.pick(&capture.foreign));
            let Some(mutation) = Mutation::new(capture.tables(), place, foreign, (&capture.names(), &mut random)) else { continue };
            let mut truth = capture.truth.clone();
            mutation.decided.iter().for_each(|(key, packets)| *truth.entry(key.clone()).or_default() += packets);
            let found = capture.totals([&mutation.before, &mutation.after]);
            let wrong = wrong(&found, &plain, &truth);
            let context =
                format!("{} {number}: {} ({:?}) at {}", capture.name, foreign.text, mutation.fate, place.describe(&capture.before));
            assert!(wrong.is_empty(), "{context}:\n{}", wrong.join("\n"));
            if let Some(interface) = endpoint_of(&capture.before[place.table], place) {
                let others = |all: &BTreeMap<Key, u64>| {
                    all.iter().filter(|(key, _)| !interface.contains(&key.0)).map(|(k, n)| (k.clone(), *n)).collect::<Vec<_>>()
                };
                // A group's packets may be divided differently if one of its workloads is unknown.
                let sums = |all: &BTreeMap<Key, u64>| others(all).into_iter().filter(|(key, _)| !is_divided(key)).collect::<Vec<_>>();
                assert_eq!(sums(&found[1]), sums(&plain[1]), "{context}");
            }
            matched += 1;
            unknown += plain[1].keys().filter(|key| !found[1].contains_key(*key)).count();
            cells += plain[1].len();
        }
    }
    println!("{matched} rules matched, {unknown} of {cells} cells were unknown");
    assert!(matched > 100 && unknown * 20 < cells);
}

/// Whether a count is a policy's. If the policy is in a group, packets may be divided differently.
fn is_divided(key: &Key) -> bool {
    ["Accept ", "Deny ", "Pass ", "DenyOrPass "].iter().any(|verdict| key.2.starts_with(verdict))
}

/// The interface of the workload in whose chain a place is.
fn endpoint_of(table: &Snapshot, place: Place) -> Option<String> {
    let pipelines = Pipelines::new(&table.ruleset);
    let found = pipelines.endpoints.iter().find(|pipeline| pipeline.chain == place.chain)?;
    (found.kind == EndpointKind::Workload).then(|| found.interface.to_string())
}

/// Counts of the second read that are higher than what was sent. If the first read hid a count, its value there is the one without the
/// foreign rule. The sum of a host endpoint's stages leaves out unknown stages, so it may be too low.
fn wrong([before, after]: &[BTreeMap<Key, u64>; 2], plain: &[BTreeMap<Key, u64>; 2], truth: &BTreeMap<Key, u64>) -> Vec<String> {
    // The stages of a host endpoint are added up here, including one that the foreign rule hid in the first read.
    let at_first = |key: &Key| before.get(key).max(plain[0].get(key)).copied().unwrap_or(0);
    let is_host = |key: &Key| !["cali", "eni", "tap"].iter().any(|prefix| key.0.starts_with(prefix));
    let increases = after.iter().map(|(key, packets)| (key.clone(), packets.saturating_sub(at_first(key))));
    let (hosts, workloads): (BTreeMap<Key, u64>, BTreeMap<Key, u64>) = increases.partition(|(key, _)| is_host(key));
    let truth_of = |of_hosts| truth.iter().filter(move |(key, _)| is_host(key) == of_hosts).map(|(key, packets)| (key.clone(), *packets));
    let mut wrong = captures::judge(&workloads, &truth_of(false).collect()).wrong;
    let sent: BTreeMap<Key, u64> = truth_of(true).collect();
    let too_many = hosts.iter().filter(|(key, packets)| sent.get(*key).is_some_and(|sent| **packets > sent + 2));
    wrong.extend(too_many.map(|(key, packets)| format!("{key:?}: {packets}, sent {}", sent[key])));
    wrong
}
