//! What was sent while a capture was taken, and whether counts agree with it. A count must be right or missing.

use std::collections::{BTreeMap, BTreeSet};

use calico_accountant::accounting::attribution::Verdict;
use calico_accountant::felix::PolicyName;
use calico_accountant::ruleset::Family;
use serde_json::{Map, Value};

use super::Key;
use crate::support::fixture;

/// What was sent, under the same keys as [`Pipeline::totals`](super::Pipeline::totals).
pub fn ground_truth(capture: &str, at: &str, families: &[Family]) -> BTreeMap<Key, u64> {
    let truth: Value = serde_json::from_str(&fixture::text(&format!("captures/{capture}/{at}/ground-truth.json.gz"))).unwrap();
    let mut all = BTreeMap::new();
    // Some captures have counts by interface, and by stage of host endpoints, for both families together.
    let sources: Vec<&str> = match truth.get("by_interface") {
        Some(_) if families.len() == Family::ALL.len() => vec!["by_interface", "host_endpoints"],
        Some(_) => vec![],
        None => families.iter().map(|family| family.as_str()).collect(),
    };
    for (endpoint, directions) in sources.iter().flat_map(|source| truth[source].as_object().unwrap()) {
        let host = endpoint.strip_prefix("hep:").map(|host| host.split(':').next().unwrap());
        let interface = host.or_else(|| truth["interfaces"][endpoint].as_str()).unwrap_or(endpoint);
        for (direction, counts) in directions.as_object().unwrap() {
            let direction = if direction == "ingress" { "ingress" } else { "egress" };
            for (item, packets) in flatten(counts, &truth["policies"]) {
                *all.entry((interface.to_owned(), direction, item)).or_default() += packets;
            }
        }
    }
    all
}

fn flatten(counts: &Value, policies: &Value) -> Vec<(String, u64)> {
    let none = Map::new();
    let map =
        |name: &str| counts[name].as_object().unwrap_or(&none).iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap())).collect::<Vec<_>>();
    let label = |policy: &str| {
        let (comment, tier) = (policies[policy]["ruleset"].as_str().unwrap(), policies[policy]["tier"].as_str().unwrap());
        PolicyName::from_comment(&format!("{comment} ingress")).unwrap().label(tier)
    };
    let mut all: Vec<(String, u64)> = ["established", "invalid"].map(|item| (item.into(), counts[item].as_u64().unwrap_or(0))).into();
    all.push(("noprofile".into(), counts["no_profile_drop"].as_u64().unwrap()));
    all.push(("profile".into(), map("profile_denied").into_iter().map(|(_, n)| n).sum()));
    all.extend(map("no_policy_drop_by_tier").into_iter().map(|(tier, n)| (format!("no policy {tier}"), n)));
    all.extend(map("profile_accepted").into_iter().map(|(profile, n)| (format!("profile {profile}"), n)));
    for (name, verdict) in [("accepted", Verdict::Accept), ("denied", Verdict::Deny), ("passed", Verdict::Pass)] {
        all.extend(map(name).into_iter().map(|(policy, n)| (format!("{verdict:?} {}", label(&policy)), n)));
    }
    for (policy, packets) in map("denied") {
        all.push((format!("refused {}", policies[&policy]["tier"].as_str().unwrap()), packets));
    }
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    all.into_iter().for_each(|(item, n)| *sums.entry(item).or_default() += n);
    sums.into_iter().filter(|(_, n)| *n > 0).collect()
}

/// The result of comparing counts with what was sent.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Counts that differ from what was sent.
    pub wrong: Vec<String>,
    /// What was sent and is in no count, not even in a joint one.
    pub missing: BTreeSet<Key>,
    /// Packets credited to single policies of groups.
    pub single: u64,
    /// Packets credited to groups as a whole.
    pub joined: u64,
}

/// A count under a name that stands for several: `Deny a,b`, `DenyOrPass a`, or that of two interfaces.
struct Rest<'a> {
    key: &'a Key,
    packets: u64,
    parts: BTreeSet<Key>,
}

impl<'a> Rest<'a> {
    fn new(key: &'a Key, packets: u64) -> Option<Self> {
        let (interfaces, direction, item) = key;
        let (verdict, name) = item.split_once(' ').unwrap_or((item, ""));
        let verdicts = if verdict == "DenyOrPass" { vec!["Deny", "Pass"] } else { vec![verdict] };
        let names = name.split(',').flat_map(|name| verdicts.iter().map(move |verdict| format!("{verdict} {name}").trim_end().to_owned()));
        let names: Vec<String> = names.collect();
        let parts = interfaces.split(',').flat_map(|interface| names.iter().map(|name| (interface.to_owned(), *direction, name.clone())));
        let parts: BTreeSet<Key> = parts.collect();
        (parts.len() > 1).then_some(Rest { key, packets, parts })
    }
}

/// Compares increases with what was sent.
pub fn judge(increases: &BTreeMap<Key, u64>, truth: &BTreeMap<Key, u64>) -> Judgement {
    let mut judgement = Judgement::default();
    let rests: Vec<Rest> = increases.iter().filter_map(|(key, packets)| Rest::new(key, *packets)).collect();
    let told = |keys: &BTreeSet<Key>, map: &BTreeMap<Key, u64>| keys.iter().filter_map(|key| map.get(key)).sum::<u64>();
    for rest in &rests {
        let overlaps = rests.iter().any(|other| other.key != rest.key && !other.parts.is_disjoint(&rest.parts));
        let (credited, sent) = (told(&rest.parts, increases), told(&rest.parts, truth));
        if !overlaps && credited + rest.packets != sent {
            judgement.wrong.push(format!("{:?}: {credited} and together {}, sent {sent}", rest.key, rest.packets));
        }
        (judgement.single, judgement.joined) = (judgement.single + credited, judgement.joined + rest.packets);
    }
    // Captures without established connections have no other packets either, except those that open a connection.
    let others = ["established", "invalid", "encapsulation", "profile"];
    let is_told = |key: &Key| truth.keys().any(|key| key.2 == "established") || !others.contains(&&*key.2);
    let keys: BTreeSet<&Key> = increases.keys().chain(truth.keys()).filter(|key| Rest::new(key, 0).is_none() && is_told(key)).collect();
    for key in keys {
        let sent = truth.get(key).copied().unwrap_or(0);
        let together: u64 = rests.iter().filter(|rest| rest.parts.contains(key)).map(|rest| rest.packets).sum();
        // The kernel sends a few packets of its own. A host endpoint of all interfaces counts them.
        let most = if key.0 == "*" { sent + 2 } else { sent };
        match increases.get(key) {
            Some(found) if *found > most || found + together < sent => {
                judgement.wrong.push(format!("{key:?}: {found} (and {together} together with others), sent {sent}"));
            }
            Some(_) => {}
            None if sent > together => _ = judgement.missing.insert(key.clone()),
            None => {}
        }
    }
    judgement
}

/// Compares increases with what was sent, and fails if any is missing. Returns how many packets were credited to single policies of groups,
/// and how many to groups as a whole.
pub fn compare(context: &str, increases: &BTreeMap<Key, u64>, truth: &BTreeMap<Key, u64>) -> (u64, u64) {
    let Judgement { wrong, missing, single, joined } = judge(increases, truth);
    assert!(wrong.is_empty(), "{context}:\n{}", wrong.join("\n"));
    assert!(missing.is_empty(), "{context}: sent and not told: {missing:#?}");
    (single, joined)
}
