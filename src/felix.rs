//! What Felix's rules mean: from a [`Ruleset`] to [`Pipelines`], the ordered steps of every endpoint, with its policies and groups. Pure.
//! The rules of every release since Calico 3.0 are recognised by structure and comments. What is not understood is listed, never guessed.

mod catalog;
mod endpoint;
mod foreign;
mod labels;
pub mod names;
mod phrases;
mod policy;
mod policy_name;
mod structures;
mod tiers;

use std::collections::{BTreeMap, HashSet};

pub use catalog::Catalog;
pub use endpoint::{DropReason, DropRule, Pipeline, Target, Tier};
pub use foreign::{Foreign, Way};
pub use labels::{Label, Labels};
pub use names::limited_id;
pub use policy::{Decision, GroupChain, PolicyChain, PolicyRule};
pub use policy_name::{ChainNames, HashedName, PolicyName, hashed_names};
pub use structures::{Structure, Structures};

use serde::{Deserialize, Serialize};

use crate::ruleset::{Backend, ChainId, MarkMatch, RuleId, Ruleset, Verdict};
use names::{Role, role};
use phrases::Phrase;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// The mark bits that carry verdicts. They depend on release and configuration, and are learnt from the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    /// A policy or profile has accepted the packet. 0 if no rule shows the bit.
    accept: u32,
    /// A policy has passed the packet. 0 if no rule shows the bit.
    pass: u32,
    /// A policy has denied the packet (Calico ≥ 3.30).
    drop: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKind {
    Workload,
    Host(Stage),
}

/// Where the policies of a host endpoint apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// `doNotTrack` policies, in the raw table.
    Untracked,
    /// `preDNAT` policies, in the mangle table.
    PreDnat,
    /// Policies for traffic to and from the host itself, in the filter table. Also in the mangle table, for traffic after DNAT.
    Normal,
    /// `applyOnForward` policies, in the filter table.
    Forward,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Untracked => "untracked",
            Stage::PreDnat => "pre_dnat",
            Stage::Normal => "normal",
            Stage::Forward => "forward",
        }
    }
}

/// What is known of a table before its chains are parsed.
struct Context<'a> {
    ruleset: &'a Ruleset,
    /// The meaning of each comment.
    phrases: Vec<Phrase>,
    /// The role of each chain.
    roles: Vec<Role>,
    marks: Marks,
}

impl<'a> Context<'a> {
    fn new(ruleset: &'a Ruleset) -> Self {
        let phrases = ruleset.comments().iter().map(|comment| phrases::phrase(comment)).collect();
        let roles = ruleset.chains().iter().map(|chain| role(ruleset.table, &chain.name)).collect();
        let context = Context { ruleset, phrases, roles, marks: Marks::default() };
        Context { marks: Marks::learn(&context), ..context }
    }

    fn role(&self, chain: ChainId) -> Role {
        self.roles[chain.0 as usize]
    }

    fn is_policy_or_group(&self, chain: ChainId) -> bool {
        matches!(self.role(chain), Role::Policy | Role::Group)
    }

    fn phrases_of(&self, rule: RuleId) -> impl Iterator<Item = &Phrase> {
        self.ruleset.comments_of(rule).iter().map(|comment| &self.phrases[comment.0 as usize])
    }

    fn is_felixs(&self, rule: RuleId) -> bool {
        !self.ruleset.hash(rule).is_none()
    }
}

/// What one table contains about endpoints and policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipelines {
    pub endpoints: Vec<Pipeline>,
    /// Rules that drop packets of interfaces without an endpoint, or without one yet.
    pub unknown_interfaces: Vec<(Direction, RuleId)>,
    /// Policy and profile chains, by chain id.
    policies: Vec<Option<PolicyChain>>,
    groups: BTreeMap<ChainId, GroupChain>,
    /// Rules that are not understood, in chains that matter, whatever they do.
    pub unrecognised: Vec<RuleId>,
}

impl Pipelines {
    pub fn new(ruleset: &Ruleset) -> Self {
        let context = Context::new(ruleset);
        let mut pipelines = Pipelines { policies: vec![None; ruleset.chains().len()], ..Pipelines::default() };
        ruleset.chain_ids().for_each(|(id, _)| pipelines.chain(&context, id));
        if ruleset.backend == Backend::Native {
            tiers::settle(&mut pipelines);
        }
        pipelines
    }

    fn chain(&mut self, context: &Context, id: ChainId) {
        let (ruleset, unrecognised) = (context.ruleset, &mut self.unrecognised);
        match context.role(id) {
            Role::Endpoint(kind, direction) => {
                self.endpoints.push(endpoint::pipeline(context, id, kind, direction, unrecognised));
            }
            Role::Dispatch(direction) => {
                let (felixs, others): (Vec<RuleId>, Vec<RuleId>) = ruleset.chain(id).rule_ids().partition(|rule| context.is_felixs(*rule));
                // Foreign rules here take packets that no endpoint counts.
                unrecognised.extend(others);
                let is_end = |rule: &RuleId| context.phrases_of(*rule).any(|phrase| *phrase == Phrase::UnknownInterface);
                let ends = felixs.into_iter().filter(|rule| ruleset.rule(*rule).verdict.is_deny() && is_end(rule));
                self.unknown_interfaces.extend(ends.map(|rule| (direction, rule)));
            }
            Role::Policy | Role::Profile => {
                self.policies[id.0 as usize] = Some(policy::policy_chain(context, id, unrecognised));
            }
            Role::Group => _ = self.groups.insert(id, policy::group_chain(context, id, unrecognised)),
            Role::Failsafe | Role::Other => {}
        }
    }

    pub fn endpoint_chains(&self) -> HashSet<ChainId> {
        self.endpoints.iter().map(|endpoint| endpoint.chain).collect()
    }

    pub fn policy(&self, id: ChainId) -> Option<&PolicyChain> {
        self.policies.get(id.0 as usize)?.as_ref()
    }

    pub fn group(&self, id: ChainId) -> Option<&GroupChain> {
        self.groups.get(&id)
    }

    /// Returns the policies of a group; for any other chain, the chain itself.
    pub fn policies_in(&self, id: ChainId) -> impl Iterator<Item = ChainId> {
        let group = self.group(id);
        let alone = group.is_none().then_some(id);
        group.into_iter().flat_map(GroupChain::policy_chains).chain(alone)
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupChain> {
        self.groups.values()
    }

    pub fn policies(&self) -> impl Iterator<Item = &PolicyChain> {
        self.policies.iter().flatten()
    }
}

impl Marks {
    /// Learns the bits. Accept: endpoint chains return on it. Pass: their jumps to policies require it to be clear. Drop: policies deny on
    /// it.
    fn learn(context: &Context) -> Self {
        let (mut accept, mut pass, mut drop) = (Votes::default(), Votes::default(), Votes::default());
        for (id, chain) in context.ruleset.chain_ids() {
            for rule in chain.rule_ids().filter(|rule| context.is_felixs(*rule)).map(|rule| context.ruleset.rule(rule)) {
                let bit = rule.mark.and_then(|mark| mark.set_bit());
                match (context.role(id), rule.verdict) {
                    (Role::Endpoint(..), Verdict::Return) => bit.into_iter().for_each(|bit| accept.add(bit)),
                    (Role::Endpoint(..), Verdict::Jump(to)) if context.is_policy_or_group(to) => {
                        rule.mark.filter(MarkMatch::is_clear).into_iter().for_each(|mark| pass.add(mark.mask));
                    }
                    // Before 3.30, some denies match on a scratch bit too, but others do not.
                    (Role::Policy, verdict) if verdict.is_deny() => drop.add(bit.filter(|_| rule.has_only_mark()).unwrap_or(0)),
                    _ => {}
                }
            }
        }
        Marks { accept: accept.most().unwrap_or(0), pass: pass.most().unwrap_or(0), drop: drop.most().filter(|bit| *bit != 0) }
    }

    /// Returns the bits that carry verdicts; `None` if no rule shows them.
    fn verdicts(self) -> Option<u32> {
        let bits = self.accept | self.pass | self.drop.unwrap_or(0);
        (self.accept != 0 && self.pass != 0).then_some(bits)
    }
}

/// How many rules use each value. A rule that only looks like Felix's is outvoted.
#[derive(Debug, Default)]
struct Votes(Vec<(u32, usize)>);

impl Votes {
    fn add(&mut self, value: u32) {
        match self.0.iter_mut().find(|(known, _)| *known == value) {
            Some((_, votes)) => *votes += 1,
            None => self.0.push((value, 1)),
        }
    }

    fn most(&self) -> Option<u32> {
        self.0.iter().max_by_key(|(_, votes)| *votes).map(|(value, _)| *value)
    }
}
