//! A packet's way through a table as the kernel takes it: which rules count it, and what Calico's decide. It has no addresses and opens a
//! connection: rules that match on anything but marks do not match, but for the foreign one.

use std::collections::BTreeMap;

use calico_accountant::felix::{Decision, Label, Labels, Pipeline, Pipelines};
use calico_accountant::ruleset::{ChainId, CtState, MarkMatch, RuleId, Ruleset, Verdict};

use crate::captures::Key;

/// What becomes of a packet that the foreign rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    On,
    /// It returns.
    Back,
    /// It is accepted, refused, or kept.
    Gone,
    /// It goes on, marked so.
    Marked(u32, u32),
}

/// One walk.
pub struct Walk<'a> {
    ruleset: &'a Ruleset,
    pipelines: &'a Pipelines,
    labels: &'a Labels,
    pipeline: &'a Pipeline,
    foreign: (RuleId, Fate),
    mark: u32,
    /// The policy or profile that decided last.
    last: Option<(ChainId, Decision)>,
    /// How often each rule counted the packet.
    pub counted: BTreeMap<RuleId, u64>,
    /// What was decided, as far as it came true.
    pub decided: Vec<Key>,
}

/// Where the packet is after a chain.
#[derive(PartialEq, Eq)]
enum After {
    Returned,
    Gone,
}

impl<'a> Walk<'a> {
    /// Through the chain of an endpoint.
    pub fn new(
        (ruleset, pipelines, labels): (&'a Ruleset, &'a Pipelines, &'a Labels),
        pipeline: &'a Pipeline,
        foreign: (RuleId, Fate),
    ) -> Self {
        let (counted, decided) = (BTreeMap::new(), Vec::new());
        let mut walk = Walk { ruleset, pipelines, labels, pipeline, foreign, mark: 0, last: None, counted, decided };
        walk.chain(pipeline.chain);
        walk
    }

    fn chain(&mut self, chain: ChainId) -> After {
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
            if !matches || rule.other_matches {
                continue;
            }
            *self.counted.entry(id).or_default() += 1;
            self.note(chain, id);
            match rule.verdict {
                Verdict::SetMark { value, mask } => self.mark = self.mark & !mask | value,
                Verdict::Jump(to) => {
                    if self.chain(to) == After::Gone {
                        return After::Gone;
                    }
                }
                Verdict::Goto(to) => return self.chain(to),
                Verdict::Return => return After::Returned,
                Verdict::Accept | Verdict::Drop | Verdict::Reject => return After::Gone,
                _ => {}
            }
        }
        After::Returned
    }

    /// Notes what a rule decides.
    fn note(&mut self, chain: ChainId, id: RuleId) {
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
        } else if chain == self.pipeline.chain {
            self.note_of_endpoint(id);
        }
    }

    fn note_of_endpoint(&mut self, id: RuleId) {
        let tiers = self.pipeline.tiers.iter().chain([&self.pipeline.profiles]);
        if let Some(tier) = tiers.clone().find(|tier| tier.end == Some(id)) {
            self.decided.push(self.key(match tier.name.is_empty() {
                true => "noprofile".into(),
                false => format!("no policy {}", tier.name),
            }));
        }
        let mut targets = tiers.flat_map(|tier| &tier.targets);
        if let (Some(_), Some((policy, Decision::Accept))) = (targets.find(|target| target.accepted == Some(id)), self.last) {
            self.decide(policy, Decision::Accept);
        }
    }

    fn decide(&mut self, chain: ChainId, decision: Decision) {
        let Some(Label { label, tier, is_profile, .. }) = self.labels.get(chain) else { return };
        if *is_profile {
            let item = if decision == Decision::Accept { format!("profile {label}") } else { "profile".into() };
            return self.decided.push(self.key(item));
        }
        let key = self.key(format!("{decision:?} {label}"));
        if !self.decided.contains(&key) {
            self.decided.push(key);
            if decision == Decision::Deny {
                self.decided.push(self.key(format!("refused {tier}")));
            }
        }
    }

    fn key(&self, item: String) -> Key {
        (self.pipeline.interface.to_string(), self.pipeline.direction.as_str(), item)
    }
}

fn has(mark: u32, wanted: MarkMatch) -> bool {
    (mark & wanted.mask == wanted.value) != wanted.negated
}
