//! Policy, profile and group chains: which of their rules accept, pass and deny. Pure.
//!
//! Upstream: `felix/rules/policy.go`. A verdict is counted once, at the rule with the policy rule's match. That is the rule that sets the
//! accept, pass or drop bit, or up to 3.29 the deny itself. Everything after it (RETURN, NFLOG, since 3.30 the deny by drop bit) follows
//! from it.

use super::foreign::Foreign;
use super::phrases::Phrase;
use super::{Context, PolicyName};
use crate::ruleset::{Backend, ChainId, RuleId, Ruleset, Verdict};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyChain {
    pub chain: ChainId,
    /// The name in the comment of its first rule (Calico ≥ 3.22).
    pub name: Option<PolicyName>,
    pub rules: Vec<PolicyRule>,
    pub foreign: Vec<Foreign>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    pub decision: Decision,
    /// The rule that has the match of the policy's rule, and so counts it.
    pub rule: RuleId,
    /// Its place in the policy, from 0: as flow logs give it, else among the rules of this address family.
    pub index: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Accept,
    Deny,
    Pass,
    Log,
}

impl Decision {
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Accept => "accept",
            Decision::Deny => "deny",
            Decision::Pass => "pass",
            Decision::Log => "log",
        }
    }
}

impl PolicyChain {
    pub fn can(&self, decision: Decision) -> bool {
        self.rules.iter().any(|rule| rule.decision == decision)
    }

    pub fn rules_that(&self, decision: Decision) -> impl Iterator<Item = RuleId> {
        self.rules.iter().filter(move |rule| rule.decision == decision).map(|rule| rule.rule)
    }
}

/// A group chain (Calico ≥ 3.28): neighbouring policies of one tier with the same selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChain {
    pub chain: ChainId,
    /// Its policies in the order of evaluation: the jump and its target.
    pub policies: Vec<(RuleId, ChainId)>,
    pub foreign: Vec<Foreign>,
}

pub(super) fn policy_chain(context: &Context, chain: ChainId, unrecognised: &mut Vec<RuleId>) -> PolicyChain {
    let ruleset = context.ruleset;
    let mut rules: Vec<PolicyRule> = Vec::new();
    let mut foreign = Vec::new();
    for id in ruleset.chain(chain).rule_ids() {
        match meaning(context, id) {
            Meaning::Decides(decision) => {
                let index = rules.last().map_or(0, |last| last.index + 1);
                rules.push(PolicyRule { decision, rule: id, index });
            }
            Meaning::Tells(index) => rules.last_mut().into_iter().for_each(|last| last.index = index),
            Meaning::Follows => {}
            Meaning::Unknown => {
                unrecognised.push(id);
                foreign.extend(Foreign::new(ruleset, id, context.marks));
            }
        }
    }
    PolicyChain { chain, name: name_of(ruleset, chain), rules, foreign }
}

enum Meaning {
    Decides(Decision),
    /// Logs what the rule before it decided, with that rule's index in the policy.
    Tells(u32),
    /// Repeats, logs or prepares what another rule decides.
    Follows,
    Unknown,
}

fn meaning(Context { ruleset, marks, .. }: &Context, id: RuleId) -> Meaning {
    let rule = ruleset.rule(id);
    if ruleset.hash(id).is_none() {
        return Meaning::Unknown;
    }
    let set_bit = rule.mark.and_then(|mark| mark.set_bit());
    match rule.verdict {
        Verdict::SetMark { value, mask } if value == mask && value == marks.accept => Meaning::Decides(Decision::Accept),
        Verdict::SetMark { value, mask } if value == mask && value == marks.pass => Meaning::Decides(Decision::Pass),
        Verdict::SetMark { value, mask } if value == mask && Some(value) == marks.drop => Meaning::Decides(Decision::Deny),
        // These are scratch bits of matches that need several rules.
        Verdict::SetMark { .. } => Meaning::Follows,
        Verdict::Drop | Verdict::Reject if set_bit.is_some() && set_bit == marks.drop => Meaning::Follows,
        // If there is a drop bit, every deny sets it first.
        Verdict::Drop | Verdict::Reject if marks.drop.is_some() => Meaning::Unknown,
        Verdict::Drop | Verdict::Reject => Meaning::Decides(Decision::Deny),
        Verdict::Log => Meaning::Decides(Decision::Log),
        Verdict::Nflog(Some(prefix)) => index_in(&ruleset.comments()[prefix.0 as usize]).map_or(Meaning::Follows, Meaning::Tells),
        // `Other` is NOTRACK in the raw table.
        Verdict::Return | Verdict::Nflog(None) | Verdict::None | Verdict::Other => Meaning::Follows,
        Verdict::Accept | Verdict::Jump(_) | Verdict::Goto(_) | Verdict::Unreadable => Meaning::Unknown,
    }
}

/// Returns 3 for `DPI3|default/knp.default.foo`: denied, by a policy, ingress, by its rule 3. Upstream: `felix/rules/nflogprefix.go`.
fn index_in(prefix: &str) -> Option<u32> {
    let (code, _) = prefix.split_once('|')?;
    code.get(3..)?.parse().ok()
}

fn name_of(ruleset: &Ruleset, chain: ChainId) -> Option<PolicyName> {
    let comment = || {
        let first = ruleset.chain(chain).rule_ids().find(|rule| !ruleset.hash(*rule).is_none())?;
        let last_comment = ruleset.comments_of(first).last()?;
        Some(&*ruleset.comments()[last_comment.0 as usize])
    };
    match ruleset.backend {
        // All comments of a rule are joined there, the name last. A long one is cut, but since 3.30 the chain's name has it.
        Backend::Native => {
            comment().and_then(PolicyName::from_end_of_comment).or_else(|| PolicyName::from_long_chain(&ruleset.chain(chain).name))
        }
        Backend::Legacy | Backend::Nft => comment().and_then(PolicyName::from_comment),
    }
}

impl GroupChain {
    pub fn policy_chains(&self) -> impl Iterator<Item = ChainId> {
        self.policies.iter().map(|(_, policy)| *policy)
    }
}

/// Parses a group chain: jumps, and between them returns once a verdict has been reached.
pub(super) fn group_chain(context: &Context, chain: ChainId, unrecognised: &mut Vec<RuleId>) -> GroupChain {
    let ruleset = context.ruleset;
    let mut group = GroupChain { chain, policies: Vec::new(), foreign: Vec::new() };
    for id in ruleset.chain(chain).rule_ids() {
        let rule = ruleset.rule(id);
        let on_verdict = || context.phrases_of(id).any(|phrase| *phrase == Phrase::ReturnOnVerdict);
        match rule.verdict {
            Verdict::Jump(policy) if !ruleset.hash(id).is_none() && context.is_policy_or_group(policy) => group.policies.push((id, policy)),
            Verdict::Return
                if !ruleset.hash(id).is_none() && (on_verdict() || rule.mark.is_some_and(|mark| mark.negated && mark.value == 0)) => {}
            _ => {
                group.foreign.extend(Foreign::new(ruleset, id, context.marks));
                unrecognised.push(id);
            }
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_logs_tell_the_index() {
        assert_eq!(index_in("DPI3|default/knp.default.foo"), Some(3));
        assert_eq!(index_in("API12|x"), Some(12));
        for other in ["DPI|default", "DRI", "", "ä|x"] {
            assert_eq!(index_in(other), None, "{other}");
        }
    }
}
