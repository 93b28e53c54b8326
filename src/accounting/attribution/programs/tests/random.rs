//! Programs and packets at random.

use std::collections::BTreeMap;

use super::*;

/// Numbers that look random, the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Whatever the programs and the packets: nobody gets more than is theirs, a row's total is right, nothing goes back.
#[test]
fn nothing_that_is_attributed_is_ever_too_much() {
    let (mut exact, mut attributed, mut tiers) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let workloads = 1 + random.below(4);
        let has: Vec<Vec<RuleId>> = (0..workloads)
            .map(|_| (1..=4).filter(|_| random.below(2) == 0).flat_map(|policy| [policy * 100 + 1, policy * 100 + 2]).collect())
            .collect();
        let name = |workload: usize| format!("cali{workload}");
        let rows_known = random.below(4) > 0;
        let shared_end = random.below(2) == 0;
        let end = if shared_end { UNNUMBERED } else { 9 };
        // A profile behind the policies, which all workloads share; most releases do not name it.
        let profile = match random.below(3) {
            0 => None,
            1 => Some(rule(501, Owner::Profile(None), Decision::Accept)),
            _ => Some(rule(501, Owner::Profile(Some("kns.shop".into())), Decision::Accept)),
        };
        let all_rules = |ids: &[RuleId]| {
            let end = rule(end, Owner::EndOfTier("default".into()), Decision::Deny);
            ids.iter().map(|id| of_policy(*id)).chain(profile.clone()).chain([end]).collect::<Vec<_>>()
        };
        let has: Vec<Vec<Rule>> = has.iter().map(|ids| all_rules(ids)).collect();
        let mut node = Node::new(has.iter().enumerate().map(|(workload, rules)| shown(&name(workload), rules.clone())).collect());
        let mut truth = BTreeMap::<String, u64>::new();
        let (mut rules, mut rows) = (BTreeMap::<RuleId, u64>::new(), vec![[0u64; 2]; has.len()]);
        let mut before = BTreeMap::new();
        for read in 0..6 {
            for _ in 0..random.below(12) {
                let workload = random.below(workloads) as usize;
                let hit = &has[workload][random.below(has[workload].len() as u64) as usize];
                let decision = hit.known.decision;
                let what = match &hit.known.owner {
                    Owner::Policy(..) => format!("p{} {decision:?}", hit.id / 100),
                    Owner::Profile(name) => format!("profile {}", name.as_deref().unwrap_or_default()),
                    _ => "no_policy".into(),
                };
                *rules.entry(hit.id).or_default() += 1;
                rows[workload][usize::from(decision == Decision::Deny)] += 1;
                if read > 0 {
                    *truth.entry(format!("cali{workload} {what}")).or_default() += 1;
                }
            }
            let rules: Vec<_> = rules.iter().map(|(id, packets)| (*id, *packets)).collect();
            let names: Vec<String> = (0..has.len()).map(name).collect();
            let interfaces: Vec<_> = names.iter().zip(&rows).map(|(name, row)| (&**name, row[0], row[1])).collect();
            node.counts(&rules, if rows_known { &interfaces } else { &[] }).advance();
            let shown = node.shown();
            for (key, packets) in &shown {
                assert!(before.get(key).is_none_or(|last| last <= packets), "{seed}: {key} goes back");
                if key.contains(',') || key.ends_with("policy_or_none") {
                    continue;
                }
                let most = truth.get(key).copied().unwrap_or(0);
                assert!(*packets <= most, "{seed}: {key} {packets} > {most}");
                // A zero is only shown where it is one.
                assert!(*packets > 0 || most == 0, "{seed}: {key}");
                exact += usize::from(*packets == most && most > 0);
                attributed += usize::from(*packets > 0);
            }
            for workload in 0..has.len() {
                let happened = |what: &str| -> u64 {
                    let is_it = |key: &&String| key.starts_with(&format!("cali{workload} ")) && key.ends_with(what);
                    truth.iter().filter(|(key, _)| is_it(key)).map(|(_, packets)| packets).sum()
                };
                let all = node.all();
                let sum = |what| all.get(&format!("cali{workload} {what}")).copied();
                let denied = happened("Deny");
                if let Some(packets) = sum("policy of default") {
                    assert!(packets <= denied && (packets > 0 || denied == 0), "{seed}: {packets} of {denied} denies of cali{workload}");
                    tiers += usize::from(packets == denied && denied > 0);
                }
                if rows_known {
                    let refused = denied + happened("no_policy");
                    assert_eq!((sum("accepted"), sum("refused")), (Some(happened("") - refused), Some(refused)), "{seed}");
                }
            }
            if rows_known {
                for workload in 0..has.len() {
                    let of = |map: &BTreeMap<String, u64>| -> u64 {
                        map.iter().filter(|(key, _)| key.starts_with(&format!("cali{workload} "))).map(|(_, packets)| packets).sum()
                    };
                    assert_eq!(of(&shown), of(&truth), "{seed}: the sum of cali{workload}");
                }
            }
            before = shown;
        }
    }
    assert!(exact > 1000 && attributed > exact && tiers > 300, "{exact} of {attributed}, {tiers}");
}
