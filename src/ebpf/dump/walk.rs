//! Walks through a program's comments, labels and IDs in order, and returns its policies and rules. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use super::{RULE_ENDS, RULE_STARTS, TIER_ENDS, TIER_STARTS};
use crate::ebpf::{Known, Owner, Policy, Rule, RuleId};
use crate::felix::{Decision, Direction, PolicyName};

/// Policies in the order of evaluation, and whether they are the workload's own.
pub type Policies = Vec<(Arc<Policy>, bool)>;

enum Within {
    Policy(Arc<Policy>),
    /// A policy without a name, which has no rules.
    Nameless,
    Profile,
}

/// What the end of a tier does. `None` up to 3.29, where the comment does not say it.
type EndOfTier = Option<Decision>;

pub struct Walk {
    direction: Direction,
    policies: Policies,
    rules: Vec<Rule>,
    /// The number of policies and rules that are the host endpoint's.
    hosts: (usize, usize),
    tier: Arc<str>,
    /// The number of tiers that have started. Labels number them.
    tiers: usize,
    within: Within,
    /// The index of the next rule in its policy.
    index: u32,
    rule: Option<Started>,
    /// A tier's end whose ID has not been read yet. `None` if something else starts at the same instruction, because the end is unreachable
    /// then.
    end_of_tier: Option<EndOfTier>,
    pub unrecognised: usize,
}

struct Started {
    /// `None` in a policy without a name.
    owner: Option<Owner>,
    decision: Option<Decision>,
    id: Option<RuleId>,
    /// Whether an instruction loads the ID.
    counts: bool,
}

impl Walk {
    pub fn new(direction: Direction) -> Self {
        Walk {
            direction,
            policies: Vec::new(),
            rules: Vec::new(),
            hosts: (0, 0),
            tier: "".into(),
            tiers: 0,
            within: Within::Profile,
            index: 0,
            rule: None,
            end_of_tier: None,
            unrecognised: 0,
        }
    }

    pub fn host_ends(&mut self) {
        self.rule_ends();
        self.end_of_tier = None;
        self.hosts = (self.policies.len(), self.rules.len());
    }

    pub fn labels(&mut self, labels: &[Cow<str>]) {
        // What follows the tier begins here.
        if labels.iter().any(|label| label.strip_prefix("end_of_tier_").is_some_and(|tier| tier.parse() == Ok(self.tiers.wrapping_sub(1))))
        {
            self.end_of_tier = None;
        }
    }

    pub fn comment(&mut self, comment: &str) {
        if let Some(tier) = comment.strip_prefix(TIER_STARTS) {
            (self.tier, self.end_of_tier) = (tier.into(), None);
            self.tiers += 1;
        } else if let Some(rule) = comment.strip_prefix(RULE_STARTS) {
            self.end_of_tier = None;
            self.rule_starts(rule);
        } else if let Some(id) = comment.strip_prefix("Rule MatchID: ") {
            if let Some(rule) = &mut self.rule {
                rule.id = parse_id(id);
            }
        } else if comment.starts_with(RULE_ENDS) {
            self.rule_ends();
        } else if let Some(end) = comment.strip_prefix(TIER_ENDS) {
            self.within = Within::Profile;
            self.end_of_tier = Some(match end.strip_prefix(&*self.tier) {
                Some(": deny") => Some(Decision::Deny),
                Some(": pass") => Some(Decision::Pass),
                _ => None,
            });
        } else if let Some(policy) = comment.strip_prefix("Start of ") {
            self.policy_starts(policy);
        } else if comment.starts_with("End of ") {
            self.within = Within::Profile;
        }
    }

    fn policy_starts(&mut self, text: &str) {
        self.index = 0;
        self.within = match policy_name(text) {
            Some(name) => Within::Policy(Arc::new(Policy::new(name, &self.tier))),
            None => Within::Nameless,
        };
        match &self.within {
            Within::Policy(policy) => self.policies.push((Arc::clone(policy), true)),
            _ => self.unrecognised += usize::from(!is_nameless(text)),
        }
    }

    fn rule_starts(&mut self, text: &str) {
        self.rule_ends();
        let mut decision = action_of(text);
        let owner = match &self.within {
            Within::Policy(policy) => {
                let index = self.index;
                self.index += 1;
                Some(Owner::Policy(Arc::clone(policy), index))
            }
            Within::Nameless => None,
            Within::Profile => {
                // After profiles, a packet cannot be passed on.
                decision = decision.map(|decision| if decision == Decision::Pass { Decision::Deny } else { decision });
                Some(Owner::Profile(owner_of(text).map(Into::into)))
            }
        };
        self.rule = Some(Started { owner, decision, id: None, counts: false });
    }

    fn rule_ends(&mut self) {
        match self.rule.take() {
            Some(Started { owner: Some(owner), decision: Some(decision), id: Some(id), counts }) => self.push(id, owner, decision, counts),
            Some(_) => self.unrecognised += 1,
            None => {}
        }
    }

    /// Handles an instruction that loads an ID: the ID in the rule's comment, or that of a rule without comments.
    pub fn counts(&mut self, id: RuleId, denies: Option<bool>) {
        if let Some(rule) = &mut self.rule {
            // The instruction has another ID than the comment, so the rule is not understood.
            rule.id = rule.id.filter(|commented| *commented == id);
            rule.counts = true;
            return;
        }
        let Some(end) = self.end_of_tier.take() else { return self.push(id, Owner::NoProfile, Decision::Deny, true) };
        match end.or(denies.map(|denies| if denies { Decision::Deny } else { Decision::Pass })) {
            Some(decision) => self.push(id, Owner::EndOfTier(Arc::clone(&self.tier)), decision, true),
            None => self.unrecognised += 1,
        }
    }

    fn push(&mut self, id: RuleId, owner: Owner, decision: Decision, counts: bool) {
        let known = Known { owner, decision, direction: self.direction };
        self.rules.push(Rule { id, known, is_workloads: true, counts });
    }

    /// Returns policies, rules, and the number of parts that were not understood.
    pub fn finish(mut self, is_workload: bool) -> (Policies, Vec<Rule>, usize) {
        self.rule_ends();
        let (policies, rules) = if is_workload { self.hosts } else { (self.policies.len(), self.rules.len()) };
        self.policies.iter_mut().take(policies).for_each(|(_, is_workloads)| *is_workloads = false);
        for rule in self.rules.iter_mut().take(rules) {
            rule.is_workloads = false;
            // What enters the workload leaves the host. The refusal after the last profile counts under one ID, the workload's.
            if is_workload && rule.known.owner != Owner::NoProfile {
                rule.known.direction = opposite(rule.known.direction);
            }
        }
        (self.policies, self.rules, self.unrecognised)
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// `policy shop/default.web`, `NetworkPolicy shop/web 3`, `GlobalNetworkPolicy base 0`
fn policy_name(text: &str) -> Option<PolicyName> {
    let mut words = text.split(' ');
    let (kind, name) = (words.next()?, words.next()?);
    let number = words.next().is_none_or(|word| word.parse::<u32>().is_ok());
    let kind = if kind == "policy" { "Policy" } else { kind };
    let is_policy = kind.ends_with("Policy") && number && words.next().is_none();
    is_policy.then(|| PolicyName::from_comment(&format!("{kind} {name} ingress"))).flatten()
}

/// `policy ` up to 3.31. Since 3.32, an empty kind, an empty name, and a number.
fn is_nameless(text: &str) -> bool {
    text == "policy " || text.strip_prefix("  ").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Decimal in every known release. `calico-bpf` also accepts hexadecimal numbers.
fn parse_id(text: &str) -> Option<RuleId> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => RuleId::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `action:"allow" …`, with or without the owner's name before it. Protobuf may or may not put a space after the colon.
fn action_of(rule: &str) -> Option<Decision> {
    let (_, rest) = rule.split_once("action:")?;
    let (action, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(match &*action.to_ascii_lowercase() {
        "allow" => Decision::Accept,
        "deny" => Decision::Deny,
        "pass" | "next-tier" => Decision::Pass,
        "log" => Decision::Log,
        _ => return None,
    })
}

fn owner_of(rule: &str) -> Option<&str> {
    rule.split(' ').next().filter(|word| !word.is_empty() && !word.contains(':'))
}
