//! Random programs and packets.

use std::collections::BTreeMap;

use super::*;

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The rules of each workload, and what its packets met.
struct World {
    has: Vec<Vec<Rule>>,
    rules: BTreeMap<RuleId, u64>,
    /// Accepted and refused packets of each workload.
    rows: Vec<[u64; 2]>,
    /// `workload what` → packets since the first read.
    truth: BTreeMap<String, u64>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let workloads = 1 + random.below(4);
        let end = if random.below(2) == 0 { UNNUMBERED } else { 9 };
        // A profile after the policies, which all workloads share. Most releases do not name it.
        let profile = |name| rule(501, Owner::Profile(name), Decision::Accept);
        let profile = [None, Some(profile(None)), Some(profile(Some("kns.shop".into())))][random.below(3) as usize].clone();
        let mut workload = || {
            let policies: Vec<u64> = (1..=4).filter(|_| random.below(2) == 0).collect();
            let rules = policies.into_iter().flat_map(|policy| [policy * 100 + 1, policy * 100 + 2]).map(of_policy);
            rules.chain(profile.clone()).chain([rule(end, Owner::EndOfTier("default".into()), Decision::Deny)]).collect()
        };
        let has: Vec<Vec<Rule>> = (0..workloads).map(|_| workload()).collect();
        World { rows: vec![[0; 2]; has.len()], has, rules: BTreeMap::new(), truth: BTreeMap::new() }
    }

    fn packet(&mut self, random: &mut Random, is_credited: bool) {
        let workload = random.below(self.has.len() as u64) as usize;
        let hit = &self.has[workload][random.below(self.has[workload].len() as u64) as usize];
        let decision = hit.known.decision;
        let what = match &hit.known.owner {
            Owner::Policy(..) => format!("p{} {decision:?}", hit.id / 100),
            Owner::Profile(name) => format!("profile {}", name.as_deref().unwrap_or_default()),
            _ => "no_policy".into(),
        };
        *self.rules.entry(hit.id).or_default() += 1;
        self.rows[workload][usize::from(decision == Decision::Deny)] += 1;
        *self.truth.entry(format!("cali{workload} {what}")).or_default() += u64::from(is_credited);
    }

    fn read(&self, node: &mut Node, rows_known: bool) {
        let rules: Vec<_> = self.rules.iter().map(|(id, packets)| (*id, *packets)).collect();
        let names: Vec<String> = (0..self.has.len()).map(|workload| format!("cali{workload}")).collect();
        let interfaces: Vec<_> = names.iter().zip(&self.rows).map(|(name, row)| (&**name, row[0], row[1])).collect();
        node.counts(&rules, if rows_known { &interfaces } else { &[] }).advance();
    }
}

fn of(totals: &BTreeMap<String, u64>, workload: usize, what: &str) -> u64 {
    let is_it = |key: &str| key.starts_with(&format!("cali{workload} ")) && key.ends_with(what);
    totals.iter().filter(|(key, _)| is_it(key)).map(|(_, packets)| packets).sum()
}

/// Whatever the programs and the packets: no workload gets too much, the total of a row is right, and nothing goes back.
#[test]
fn nothing_that_is_attributed_is_ever_too_much() {
    let (mut exact, mut attributed, mut tiers) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut world, rows_known) = (World::new(&mut random), random.below(4) > 0);
        let programs = world.has.iter().enumerate().map(|(workload, rules)| shown(&format!("cali{workload}"), rules.clone()));
        let (mut node, mut before) = (Node::new(programs.collect()), BTreeMap::new());
        for read in 0..6 {
            (0..random.below(12)).for_each(|_| world.packet(&mut random, read > 0));
            world.read(&mut node, rows_known);
            let (shown, all) = (node.shown(), node.all());
            for (key, packets) in &shown {
                assert!(before.get(key).is_none_or(|last| last <= packets), "{seed}: {key} goes back");
                if key.contains(',') || key.ends_with("policy_or_none") {
                    continue;
                }
                let most = world.truth.get(key).copied().unwrap_or(0);
                assert!(*packets <= most, "{seed}: {key} {packets} > {most}");
                // A zero is shown only if it is true.
                assert!(*packets > 0 || most == 0, "{seed}: {key}");
                exact += usize::from(*packets == most && most > 0);
                attributed += usize::from(*packets > 0);
            }
            for workload in 0..world.has.len() {
                let happened = |what| of(&world.truth, workload, what);
                let sum = |what| all.get(&format!("cali{workload} {what}")).copied();
                let denied = happened("Deny");
                if let Some(packets) = sum("policy of default") {
                    assert!(packets <= denied && (packets > 0 || denied == 0), "{seed}: {packets} of {denied} denies of cali{workload}");
                    tiers += usize::from(packets == denied && denied > 0);
                }
                if rows_known {
                    let refused = denied + happened("no_policy");
                    assert_eq!((sum("accepted"), sum("refused")), (Some(happened("") - refused), Some(refused)), "{seed}");
                    assert_eq!(of(&shown, workload, ""), happened(""), "{seed}: the sum of cali{workload}");
                }
            }
            before = shown;
        }
    }
    assert!(exact > 1000 && attributed > exact && tiers > 300, "{exact} of {attributed}, {tiers}");
}
