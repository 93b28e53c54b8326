//! A node with programs and counters.

use std::collections::BTreeMap;

use super::super::super::node::RuleKey;
use super::super::*;
use crate::ebpf::{Known, Owner, Program, Rule, Shown};
use crate::felix::{Decision, PolicyName};
use crate::ruleset::Family;

pub fn policy(name: &str) -> Arc<Policy> {
    let name = PolicyName::from_comment(&format!("Policy {name} ingress")).unwrap();
    Arc::new(Policy::new(name, &"default".into()))
}

pub fn rule(id: RuleId, owner: Owner, decision: Decision) -> Rule {
    Rule { id, known: Known { owner, decision, direction: Direction::Ingress }, is_workloads: true, counts: true }
}

/// Ids of rules. The hundreds say the policy. Odd ids accept, even ids deny.
pub fn of_policy(id: RuleId) -> Rule {
    let owner = Owner::Policy(policy(&format!("shop/default.p{}", id / 100)), (id % 100 - 1) as u32);
    rule(id, owner, if id % 2 == 1 { Decision::Accept } else { Decision::Deny })
}

/// A workload's program with these rules and the end of its tier, which counts under `end`.
pub fn program(interface: &str, ids: &[RuleId], end: RuleId) -> Shown {
    let mut rules: Vec<Rule> = ids.iter().map(|id| of_policy(*id)).collect();
    rules.push(rule(end, Owner::EndOfTier("default".into()), Decision::Deny));
    shown(interface, rules)
}

pub fn shown(interface: &str, rules: Vec<Rule>) -> Shown {
    let mut policies: Vec<(Arc<Policy>, bool)> = Vec::new();
    for rule in &rules {
        match &rule.known.owner {
            Owner::Policy(policy, _) if !policies.iter().any(|(known, _)| known == policy) => policies.push((Arc::clone(policy), true)),
            _ => {}
        }
    }
    let (interface, direction, family) = (interface.into(), Direction::Ingress, Family::V4);
    let (is_workload, is_counted, unrecognised) = (true, true, 0);
    let program = Program { interface, direction, family, is_workload, is_counted, policies, rules, unrecognised };
    Shown { program: Arc::new(program), is_live: true, unchanged: true }
}

/// Two interfaces that have counted nothing.
pub const AT_ZERO: [(&str, u64, u64); 2] = [("cali1", 0, 0), ("cali2", 0, 0)];

/// What one read finds.
#[derive(Default)]
pub struct Node {
    pub programs: Programs,
    pub totals: Totals,
    pub node: NodeTotals,
    pub read: Snapshot,
}

impl Node {
    pub fn new(programs: Vec<Shown>) -> Self {
        let read = Snapshot { programs, complete: true, ..Snapshot::default() };
        Node { read, ..Node::default() }
    }

    /// Begins counting with these interfaces.
    pub fn begun(programs: Vec<Shown>, interfaces: &[(&str, u64, u64)]) -> Self {
        let mut node = Node::new(programs);
        node.counts(&[], interfaces).advance();
        node
    }

    /// Replaces all programs.
    pub fn programs(&mut self, programs: Vec<Shown>) -> &mut Self {
        (self.read.programs, self.read.unchanged) = (programs, false);
        self
    }

    /// Sets counters: rules by id, interfaces' accepted and refused packets.
    pub fn counts(&mut self, rules: &[(RuleId, u64)], interfaces: &[(&str, u64, u64)]) -> &mut Self {
        self.read.rules = Arc::new(rules.iter().copied().collect());
        let verdicts = |(interface, accepted, refused): &(&str, u64, u64)| {
            (
                ((*interface).into(), Direction::Ingress),
                Verdicts { accepted: (*accepted, *accepted), refused: (*refused, *refused), number: 1 },
            )
        };
        self.read.interfaces = interfaces.iter().map(verdicts).collect();
        self.read.interface_maps = if interfaces.is_empty() { Vec::new() } else { vec![1] };
        self
    }

    pub fn added(&mut self, mut program: Shown) -> &mut Self {
        program.unchanged = false;
        self.read.programs.push(program);
        self.read.unchanged = false;
        self
    }

    /// Adds packets of the first interface that were accepted before the columns had been read.
    pub fn also_accepted(&mut self, packets: u64) {
        let key = (Arc::<str>::from("cali1"), Direction::Ingress);
        self.read.interfaces.get_mut(&key).unwrap().accepted.1 = packets;
    }

    pub fn advance(&mut self) -> &mut Self {
        let first = self.node.is_new();
        self.totals.begin_read(Instant::now());
        self.programs.advance(&self.read, Datastore::default(), first, &mut self.totals, &mut self.node);
        self.read.unchanged = true;
        self
    }

    /// Returns what is shown for the workloads, without sums: `interface what` → packets.
    pub fn shown(&self) -> BTreeMap<String, u64> {
        let is_sum = |what: &String| ["accepted", "refused", "policy of "].iter().any(|sum| what.contains(&format!(" {sum}")));
        self.all().into_iter().filter(|(what, _)| !is_sum(what)).collect()
    }

    /// The same with sums.
    pub fn all(&self) -> BTreeMap<String, u64> {
        let mut shown = BTreeMap::new();
        for (interface, endpoint) in self.totals.workloads() {
            for total in self.totals.shown(endpoint, Direction::Ingress) {
                let what = match &*total.item {
                    Item::Policy { policy, verdict, .. } => format!("{} {verdict:?}", policy.replace("shop/default.", "")),
                    Item::Profile(profile) => format!("profile {profile}"),
                    Item::Drop { reason, .. } => reason.as_str().into(),
                    Item::PolicyDrop { tier } => format!("policy of {tier}"),
                    Item::Accepted => "accepted".into(),
                    Item::Refused => "refused".into(),
                    other => format!("{other:?}"),
                };
                assert!(shown.insert(format!("{interface} {what}"), total.packets).is_none());
            }
        }
        shown
    }

    /// Takes `cali1: p1 Accept 3, no_policy 0; cali2: …`.
    #[track_caller]
    pub fn shows(&self, expected: &str) {
        let workloads = expected.split("; ").map(|workload| workload.split_once(": ").unwrap());
        let totals = workloads.flat_map(|(workload, all)| all.split(", ").map(move |total| (workload, total.rsplit_once(' ').unwrap())));
        assert_eq!(self.shown(), totals.map(|(workload, (what, n))| (format!("{workload} {what}"), n.parse().unwrap())).collect());
    }

    pub fn rules(&self) -> Vec<(String, u64)> {
        let name = |key: &RuleKey| format!("{}#{} {:?}", key.policy.replace("shop/default.", ""), key.index, key.decision);
        self.node.rules().map(|(key, packets)| (name(key), packets)).collect()
    }
}
