//! A packet's path through a table, as the kernel walks it: which rules count it, and what Calico's rules decide. The packet has no
//! addresses and opens a connection. Rules that match on anything but marks do not match, except the foreign one.

use std::collections::BTreeMap;

use calico_accountant::felix::{Decision, Label, Labels, Pipeline, Pipelines};
use calico_accountant::ruleset::{ChainId, CtState, MarkMatch, RuleId, Ruleset, Verdict};

use crate::captures::Key;

/// What happens to a packet that the foreign rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It continues with the next rule.
    On,
    /// It returns from the chain.
    Back,
    /// It is accepted, denied or kept.
    Gone,
    /// It continues with this mark and mask.
    Marked(u32, u32),
}

/// One walk.
pub struct Walk<'a> {
    ruleset: &'a Ruleset,
    pipelines: &'a Pipelines,
    labels: &'a Labels,
    /// The endpoint in whose chain the packet is.
    pipeline: Option<&'a Pipeline>,
    foreign: (RuleId, Fate),
    /// The jumps that lead to the packet's destination. They match.
    path: Vec<RuleId>,
    mark: u32,
    /// The last decision, and the policy or profile that made it.
    last: Option<(ChainId, Decision)>,
    /// How often each rule counted the packet.
    pub counted: BTreeMap<RuleId, u64>,
    /// The decisions that took effect.
    pub decided: Vec<Key>,
}

/// Whether the packet is still in the table after a chain.
#[derive(PartialEq, Eq)]
enum After {
    Returned,
    Gone,
}

impl<'a> Walk<'a> {
    /// Walks a packet to a chain: that of an endpoint, or one that leads to endpoints.
    pub fn new(
        (ruleset, pipelines, labels): (&'a Ruleset, &'a Pipelines, &'a Labels),
        bound_for: ChainId,
        foreign: (RuleId, Fate),
    ) -> Self {
        let (mut first, mut path) = (bound_for, Vec::new());
        while let Some((caller, rule)) = caller(ruleset, first) {
            path.push(rule);
            first = caller;
        }
        let (counted, decided) = (BTreeMap::new(), Vec::new());
        let mut walk = Walk { ruleset, pipelines, labels, pipeline: None, foreign, path, mark: 0, last: None, counted, decided };
        walk.chain(first);
        walk
    }

    fn chain(&mut self, chain: ChainId) -> After {
        let outside = self.pipeline;
        self.pipeline = self.pipelines.endpoints.iter().find(|pipeline| pipeline.chain == chain).or(outside);
        let after = self.rules(chain);
        self.pipeline = outside;
        after
    }

    fn rules(&mut self, chain: ChainId) -> After {
        for id in self.ruleset.chain(chain).rule_ids() {
            let rule = self.ruleset.rule(id);
            if id == self.foreign.0 {
                *self.counted.entry(id).or_default() += 1;
                match self.foreign.1 {
                    Fate::On => {}
                    Fate::Back => return After::Returned,
                    Fate::Gone => return After::Gone,
                    Fate::Marked(value, mask) => self.mark = self.mark & !mask | value,
                }
                continue;
            }
            let matches = rule.ctstate == CtState::Any && rule.mark.is_none_or(|mark| has(self.mark, mark));
            if matches && rule.counts_before_match {
                *self.counted.entry(id).or_default() += 1;
            }
            if (!matches || rule.other_matches) && !self.path.contains(&id) {
                continue;
            }
            *self.counted.entry(id).or_default() += 1;
            self.note(chain, id);
            match rule.verdict {
                Verdict::SetMark { value, mask } => self.mark = self.mark & !mask | value,
                Verdict::Jump(to) if self.chain(to) == After::Gone => return After::Gone,
                Verdict::Goto(to) => return self.chain(to),
                Verdict::Return => return After::Returned,
                Verdict::Accept | Verdict::Drop | Verdict::Reject => return After::Gone,
                _ => {}
            }
        }
        After::Returned
    }

    /// Records what a rule decides.
    fn note(&mut self, chain: ChainId, id: RuleId) {
        let Some(pipeline) = self.pipeline else { return };
        let decides = |policy: &&calico_accountant::felix::PolicyRule| policy.rule == id;
        if let Some(policy) = self.pipelines.policy(chain) {
            if let Some(rule) = policy.rules.iter().find(decides) {
                self.last = Some((chain, rule.decision));
            }
            if self.ruleset.rule(id).verdict.is_deny() {
                self.decide(chain, Decision::Deny);
            } else if self.last == Some((chain, Decision::Pass)) {
                self.decide(chain, Decision::Pass);
            }
        } else if chain == pipeline.chain {
            self.note_of_endpoint(pipeline, id);
        }
    }

    fn note_of_endpoint(&mut self, pipeline: &'a Pipeline, id: RuleId) {
        let tiers = pipeline.tiers.iter().chain([&pipeline.profiles]);
        if let Some(tier) = tiers.clone().find(|tier| tier.end == Some(id)) {
            self.push(match tier.name.is_empty() {
                true => "noprofile".into(),
                false => format!("no policy {}", tier.name),
            });
        }
        let mut targets = tiers.flat_map(|tier| &tier.targets);
        if let (Some(_), Some((policy, Decision::Accept))) = (targets.find(|target| target.accepted == Some(id)), self.last) {
            self.decide(policy, Decision::Accept);
        }
    }

    fn decide(&mut self, chain: ChainId, decision: Decision) {
        let Some(Label { label, tier, is_profile, .. }) = self.labels.get(chain) else { return };
        match (*is_profile, decision) {
            (true, Decision::Accept) => self.push(format!("profile {label}")),
            (true, _) => self.push("profile".into()),
            (false, _) => {
                self.push(format!("{decision:?} {label}"));
                if decision == Decision::Deny {
                    self.push(format!("refused {tier}"));
                }
            }
        }
    }

    /// Records a decision once: each policy decides about a packet only once.
    fn push(&mut self, item: String) {
        let Some(pipeline) = self.pipeline else { return };
        let key = (pipeline.interface.to_string(), pipeline.direction.as_str(), item);
        if !self.decided.contains(&key) {
            self.decided.push(key);
        }
    }
}

/// A rule that leads to the chain.
fn caller(ruleset: &Ruleset, chain: ChainId) -> Option<(ChainId, RuleId)> {
    let leads = |id: &RuleId| matches!(ruleset.rule(*id).verdict, Verdict::Jump(to) | Verdict::Goto(to) if to == chain);
    ruleset.chain_ids().find_map(|(caller, chain)| Some((caller, chain.rule_ids().find(leads)?)))
}

fn has(mark: u32, wanted: MarkMatch) -> bool {
    (mark & wanted.mask == wanted.value) != wanted.negated
}
