//! Rulesets that real Felix builds wrote, with known traffic through them: every count must be right.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calico_accountant::accounting::Accounting;
use calico_accountant::accounting::attribution::{Item, Witnessed};
use calico_accountant::datastore::inventory::StoredPolicy;
use calico_accountant::felix::{ChainNames, Direction, DropReason, EndpointKind, Pipelines, PolicyName, Structure};
use calico_accountant::iptables::text::Parser;
use calico_accountant::kernel::nft;
use calico_accountant::ruleset::{Backend, Family, Snapshot};
use calico_accountant::witness::meanings::{Meanings, witnesses};
use calico_accountant::witness::traces::Trace;
use serde_json::Value;

use super::support::fixture;
use super::support::netns::{Namespace, feed};

mod truth;

pub use truth::{Judgement, compare, ground_truth, judge};

/// Captures of iptables' tables. All have the same topology, with [`CAPTURED_PODS`].
pub const CAPTURES: [(&str, Backend); 10] = [
    ("v3.25.2-nft", Backend::Nft),
    ("v3.27.5-legacy", Backend::Legacy),
    ("v3.28.5-legacy", Backend::Legacy),
    ("v3.28.5-nft", Backend::Nft),
    ("v3.29.7-legacy", Backend::Legacy),
    ("v3.31.7-nft-flowlogs", Backend::Nft),
    ("v3.32.1-legacy", Backend::Legacy),
    ("v3.32.1-legacy-flowlogs", Backend::Legacy),
    ("v3.32.1-olddata-legacy", Backend::Legacy),
    ("v3.32.1-nft", Backend::Nft),
];

/// Captures of iptables' tables with other topologies: wildcard host endpoints, several interface prefixes, many tiers, overlapping groups.
pub const OTHER_CAPTURES: [(&str, Backend); 6] = [
    ("v3.21.6-legacy", Backend::Legacy),
    ("v3.22.5-nft-dnat-both", Backend::Nft),
    ("v3.24.6-legacy-nohep", Backend::Legacy),
    ("v3.27.5-legacy-v4only", Backend::Legacy),
    ("v3.32.1-nft-clean-hep", Backend::Nft),
    ("HEAD-legacy-clean-wild", Backend::Legacy),
];

/// Captures of Calico's own nftables tables.
pub const NATIVE_CAPTURES: [&str; 8] = [
    "v3.29.7-native",
    "v3.30.7-native-clean-flowlogs",
    "v3.31.7-native",
    "v3.31.7-native-return",
    "v3.32.1-native",
    "v3.32.1-native-families",
    "v3.32.1-native-reject",
    "HEAD-native-clean",
];

/// The pods of all captures in `tests/fixtures/captures`. They are on one node.
pub const CAPTURED_PODS: [(&str, &str); 9] = [
    ("infra", "client-0"),
    ("infra", "many-0"),
    ("infra", "many-1"),
    ("infra", "noprof-0"),
    ("infra", "tiered-0"),
    ("shop", "db-0"),
    ("shop", "rich-0"),
    ("shop", "web-1"),
    ("shop", "web-2"),
];

pub fn parse(text: &str, family: Family, backend: Backend, table: &'static str) -> Snapshot {
    let mut parser = Parser::new(family, backend, table);
    parser.push(text.as_bytes());
    parser.finish().unwrap()
}

/// The exporter without its inputs and outputs: takes text, gives totals.
pub struct Pipeline {
    accounting: Accounting,
    /// Those of the last read.
    meanings: Option<Meanings>,
    /// Rules of the last read that were not understood.
    pub unrecognised: u64,
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline::new(2)
    }
}

impl Pipeline {
    /// A pipeline for a node with this number of CPUs.
    pub fn new(cpus: usize) -> Self {
        Pipeline { accounting: Accounting::new(cpus), meanings: None, unrecognised: 0 }
    }

    /// Gives chains the names that the datastore has for them.
    pub fn rename(&mut self, chain_names: ChainNames) {
        self.accounting.rename(chain_names);
    }

    /// Takes in the tables of one read, as if all had been read at the same instant.
    pub fn read(&mut self, tables: &[Snapshot]) {
        self.read_twice(tables, &[]);
    }

    /// Notes that no endpoint came or went since the last read.
    pub fn endpoints_stayed(&mut self) {
        self.accounting.note_that_endpoints_stayed();
    }

    /// Takes in the tables of one read and of a second look right after it.
    pub fn read_twice(&mut self, tables: &[Snapshot], again: &[Snapshot]) {
        self.read_traced(tables, again, &[]);
    }

    /// Like [`read_twice`](Self::read_twice), with the packets that were traced since the last read.
    pub fn read_traced(&mut self, tables: &[Snapshot], again: &[Snapshot], traces: &[Trace]) {
        let meanings = &mut self.meanings;
        let witnessed = |structures: &[Structure]| {
            let before = meanings.replace(Meanings::new(tables, structures));
            let mut witnessed = Witnessed::default();
            let found = traces.iter().filter_map(|trace| witnesses(trace, before.as_ref()?, meanings.as_ref()?));
            found.flatten().for_each(|witness| witnessed.add(&witness));
            witnessed
        };
        self.accounting.advance_witnessed(tables, witnessed, |_| Ok::<_, String>(again.to_vec()));
        self.unrecognised = self.accounting.unrecognised();
    }

    /// Every total that is shown, under a readable key.
    pub fn totals(&self) -> BTreeMap<Key, u64> {
        let totals = self.accounting.totals();
        let mut all = BTreeMap::new();
        for (kind, interface, endpoint) in totals.endpoints() {
            for direction in Direction::ALL {
                for total in totals.shown(endpoint, direction) {
                    // The ground truth does not distinguish the stages of a host endpoint.
                    let key = (interface.to_string(), direction.as_str(), key(&total.item));
                    let sum: &mut Option<u64> = all.entry(key.clone()).or_default();
                    assert!(sum.is_none() || kind != EndpointKind::Workload, "{key:?} twice");
                    *sum = Some(sum.unwrap_or(0) + total.packets);
                }
            }
        }
        all.into_iter().filter_map(|(key, sum)| Some((key, sum?))).collect()
    }
}

/// Interface, direction, item.
pub type Key = (String, &'static str, String);

fn key(item: &Item) -> String {
    match item {
        Item::Established => "established".into(),
        Item::Drop { reason: DropReason::NoPolicy, tier } => format!("no policy {tier}"),
        Item::Drop { reason, .. } => format!("{reason:?}").to_lowercase(),
        Item::PolicyDrop { tier } => format!("refused {tier}"),
        Item::Accepted => "accepted".into(),
        Item::Refused => "refused".into(),
        Item::Profile(profile) => format!("profile {profile}"),
        Item::Policy { policy, verdict, .. } => format!("{verdict:?} {policy}"),
    }
}

/// Iptables' tables at one moment of a capture.
pub fn rulesets(capture: &str, at: &str, backend: Backend, families: &[Family]) -> Vec<Snapshot> {
    let file = |family| if family == Family::V4 { "iptables" } else { "ip6tables" };
    let text = |family| fixture::text(&format!("captures/{capture}/{at}/{}-save.txt.gz", file(family)));
    let tables = families.iter().flat_map(|&family| ["filter", "mangle", "raw"].map(|table| (family, table)));
    tables.map(|(family, table)| parse(&text(family), family, backend, table)).collect()
}

/// Calico's own tables at one moment of a capture, loaded into the kernel and read from it. `None` if that is not possible here.
pub fn native(capture: &str, at: &str, families: &[Family]) -> Option<Vec<Snapshot>> {
    let namespace = Namespace::new("reading Calico's own tables")?;
    let read = |family: &Family| {
        let file = if *family == Family::V4 { "nft-ip" } else { "nft-ip6" };
        feed("nft -f -", &fixture::text(&format!("captures/{capture}/{at}/{file}.txt.gz")));
        nft::Reader::new(*family, nft::Tables::Calico).read(Instant::now() + Duration::from_secs(20)).unwrap()
    };
    Some(namespace.run(|| families.iter().flat_map(read).collect()))
}

/// The policies of a capture, as the datastore of Calico ≤ 3.31 stores them.
pub fn stored_policies(capture: &str) -> Vec<StoredPolicy> {
    let truth: Value = serde_json::from_str(&fixture::text(&format!("captures/{capture}/t1/ground-truth.json.gz"))).unwrap();
    let name = |policy: &Value| PolicyName::from_comment(&format!("{} ingress", policy["ruleset"].as_str().unwrap())).unwrap();
    let stored = |name: PolicyName| StoredPolicy::calico(name.namespace.map(|n| n.to_string()), name.name.to_string());
    truth["policies"].as_object().unwrap().values().map(|policy| stored(name(policy))).collect()
}

pub fn increases(before: &BTreeMap<Key, u64>, after: &BTreeMap<Key, u64>) -> BTreeMap<Key, u64> {
    after.iter().map(|(key, n)| (key.clone(), n - before.get(key).copied().unwrap_or(0))).collect()
}

#[test]
fn every_capture_gives_what_was_sent() {
    for (capture, backend) in CAPTURES.into_iter().chain(OTHER_CAPTURES) {
        for families in [&[Family::V4][..], &[Family::V6], &Family::ALL] {
            for at in ["t1", "t2"] {
                let truth = ground_truth(capture, at, families);
                if truth.is_empty() {
                    continue;
                }
                let mut exporter = Pipeline::default();
                exporter.rename(ChainNames::new(&stored_policies(capture)));
                exporter.read(&rulesets(capture, "t0", backend, families));
                let before = exporter.totals();
                exporter.read(&rulesets(capture, at, backend, families));
                assert_eq!(exporter.unrecognised, 0, "{capture}");
                let context = format!("{capture} {at} {families:?}");
                let (single, joined) = told(capture, &context, &increases(&before, &exporter.totals()), &truth);
                println!("{context}: of grouped packets {single} to single policies, {joined} to groups");
            }
        }
    }
}

/// Whether this count of a capture may be unknown. A loss is allowed here, a wrong count never is.
fn may_be_unknown(capture: &str, item: &str) -> bool {
    match item.split_once(' ') {
        // If the last policy of a tier without an end passes packets on, they mix with those that no policy decided.
        Some(("Pass", _)) => capture.contains("clean"),
        _ => false,
    }
}

/// Asserts that a capture's increases are what was sent, except for what may be unknown. Returns packets as [`compare`] does.
pub fn told(capture: &str, context: &str, increases: &BTreeMap<Key, u64>, truth: &BTreeMap<Key, u64>) -> (u64, u64) {
    let Judgement { wrong, missing, single, joined } = judge(increases, truth);
    assert!(wrong.is_empty(), "{context}:\n{}", wrong.join("\n"));
    let missing: Vec<_> = missing.into_iter().filter(|key| !may_be_unknown(capture, &key.2)).collect();
    assert!(missing.is_empty(), "{context}: sent and not told: {missing:#?}");
    (single, joined)
}

/// A series that one read has shown remains as long as the rules do.
#[test]
fn no_series_ends_between_two_reads_of_the_same_rules() {
    for (capture, backend) in CAPTURES {
        let mut exporter = Pipeline::default();
        exporter.read(&rulesets(capture, "t2", backend, &Family::ALL));
        let first = exporter.totals();
        exporter.read(&rulesets(capture, "t2", backend, &Family::ALL));
        assert_eq!(exporter.totals(), first, "{capture}");
    }
}

/// Real Felix changes rules. The captures say what happened to each rule. The same few packets follow every change.
#[test]
fn real_changes_are_survived_exactly() {
    for (capture, backend) in [("v3.32.1-legacy", Backend::Legacy), ("v3.32.1-nft", Backend::Nft)] {
        for change in changes(capture) {
            let mut exporter = Pipeline::default();
            let mut seen: Vec<BTreeMap<Key, u64>> = Vec::new();
            for at in ["before", "after", "after-traffic"] {
                exporter.read(&rulesets(capture, &format!("{change}/{at}"), backend, &Family::ALL));
                assert_eq!(exporter.unrecognised, 0, "{capture} {change}");
                seen.push(exporter.totals());
            }
            survived_exactly(&format!("{capture} {change}"), &seen);
        }
    }
}

/// Checks totals before a change, after it, and after some packets. Nothing was sent while the rules changed. Afterwards 5 packets were
/// sent that web-allow accepts, and 2 that no policy decides.
pub fn survived_exactly(context: &str, seen: &[BTreeMap<Key, u64>]) {
    for pair in seen.windows(2) {
        pair[0].iter().for_each(|(key, n)| assert!(pair[1].get(key).is_none_or(|now| now >= n), "{context}: {key:?}"));
    }
    assert_eq!(moved(&seen[0], &seen[1]), [], "{context}");
    let web_1 = |item: &str, packets| (("cali751425ce827".to_owned(), "ingress", item.to_owned()), packets);
    let moved = moved(&seen[1], &seen[2]);
    let by_web_allow: u64 =
        moved.iter().filter(|((_, _, item), _)| item.starts_with("Accept") && item.contains("web-allow")).map(|m| m.1).sum();
    assert_eq!(by_web_allow, 5, "{context}: {moved:?}");
    assert!(moved.contains(&web_1("no policy default", 2)), "{context}: {moved:?}");
    assert!(moved.len() <= 3, "{context}: {moved:?}");
}

/// The folders of a capture's changes.
pub fn changes(capture: &str) -> Vec<String> {
    let folder = fixture::path(&format!("captures/{capture}/changes"));
    std::fs::read_dir(folder).unwrap().map(|change| format!("changes/{}", change.unwrap().file_name().to_str().unwrap())).collect()
}

/// Increases of the totals that both reads show. A new series may hold what was counted before it was attributed.
fn moved(before: &BTreeMap<Key, u64>, after: &BTreeMap<Key, u64>) -> Vec<(Key, u64)> {
    let increase = |(key, n): (&Key, &u64)| (key.clone(), n - before.get(key).copied().unwrap_or(0));
    after.iter().map(increase).filter(|(_, n)| *n > 0).collect()
}

#[test]
fn reconstructed_tables_and_upstream_dumps_are_fully_recognised() {
    for sample in std::fs::read_dir(fixture::path("samples")).unwrap() {
        let name = format!("samples/{}", sample.unwrap().file_name().to_str().unwrap());
        for table in ["filter", "mangle", "raw"] {
            let ruleset = parse(&fixture::text(&name), Family::V4, Backend::Legacy, table).ruleset;
            let pipelines = Pipelines::new(&ruleset);
            assert_eq!((ruleset.unreadable, pipelines.unrecognised.len()), (0, 0), "{name} {table}");
            // The upstream dump has no workloads.
            assert!(table != "filter" || name.contains("upstream") || !pipelines.endpoints.is_empty(), "{name}");
        }
    }
}

/// Chains of Calico ≤ 3.21 do not have the names of policies. What was counted under a chain's name moves to the policy's name when the
/// datastore says it.
#[test]
fn names_that_come_late_lose_nothing() {
    let tables = ["t0", "t1"].map(|at| rulesets("v3.21.6-legacy", at, Backend::Legacy, &Family::ALL));
    let names = || ChainNames::new(&stored_policies("v3.21.6-legacy"));
    let read = |early: bool| {
        let mut exporter = Pipeline::default();
        if early {
            exporter.rename(names());
        }
        tables.iter().for_each(|moment| exporter.read(moment));
        exporter.rename(names());
        exporter.read(&tables[1]);
        exporter.totals()
    };
    let (early, late) = (read(true), read(false));
    assert!(early.iter().any(|((_, _, item), packets)| item.starts_with("Deny ") && *packets > 0));
    assert_eq!(early, late);
}
