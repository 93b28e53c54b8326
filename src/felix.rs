//! What Felix meant: a [`Ruleset`] → [`Pipelines`], the ordered steps of every endpoint, with its policies and groups.
//! Pure. Every release since Calico 3.0 is recognised by structure and comments; what is not understood is listed, never guessed.

mod catalog;
mod endpoint;
mod foreign;
mod labels;
pub mod names;
mod phrases;
mod policy;
mod structures;
mod tiers;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub use catalog::{Catalog, GroupPlace, PolicyInfo};
pub use endpoint::{DropReason, DropRule, Pipeline, Target, Tier};
pub use foreign::{Foreign, Way};
pub use labels::{Label, Labels, Names};
pub use names::{ChainNames, HashedName, PolicyName, hashed_names, limited_id};
pub use policy::{Decision, GroupChain, PolicyChain, PolicyRule};
pub use structures::{Structure, Structures};

use serde::{Deserialize, Serialize};

use crate::ruleset::{Backend, ChainId, MarkMatch, RuleId, Ruleset, Verdict};
use phrases::Phrase;

/// A direction, seen from the endpoint.
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

/// The mark bits that carry verdicts, learnt from the rules (they depend on release and configuration).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// A policy or profile has accepted the packet. 0 where no rule tells.
    pub accept: u32,
    /// A policy has passed the packet on. 0 where no rule tells.
    pub pass: u32,
    /// A policy has refused the packet (Calico ≥ 3.30).
    pub drop: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKind {
    Workload,
    Host(Stage),
}

/// Where a host endpoint's policies meet its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// `doNotTrack` policies, in the raw table.
    Untracked,
    /// `preDNAT` policies, in the mangle table.
    PreDnat,
    /// Policies for traffic to and from the host itself, in the filter table, and in the mangle table for what was DNATed.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Endpoint(EndpointKind, Direction),
    Dispatch(Direction),
    Policy,
    Group,
    Profile,
    Failsafe,
    Other,
}

fn role(table: &str, name: &str) -> Role {
    let kind = name.strip_prefix("cali-").and_then(|rest| rest.split('-').next());
    match kind {
        Some("tw") => Role::Endpoint(EndpointKind::Workload, Direction::Ingress),
        Some("fw") => Role::Endpoint(EndpointKind::Workload, Direction::Egress),
        // Named from the host's side: "to host" leaves through the endpoint.
        Some("th") => Role::Endpoint(EndpointKind::Host(host_stage(table, Direction::Egress)), Direction::Egress),
        Some("fh") => Role::Endpoint(EndpointKind::Host(host_stage(table, Direction::Ingress)), Direction::Ingress),
        Some("thfw") => Role::Endpoint(EndpointKind::Host(Stage::Forward), Direction::Egress),
        Some("fhfw") => Role::Endpoint(EndpointKind::Host(Stage::Forward), Direction::Ingress),
        Some("to") if name.starts_with("cali-to-wl-dispatch") => Role::Dispatch(Direction::Ingress),
        Some("from") if name.starts_with("cali-from-wl-dispatch") => Role::Dispatch(Direction::Egress),
        Some("pi" | "po") => Role::Policy,
        Some("gi" | "go") => Role::Group,
        Some("pri" | "pro") => Role::Profile,
        Some("failsafe") => Role::Failsafe,
        _ => Role::Other,
    }
}

pub fn is_endpoint_chain(table: &str, name: &str) -> bool {
    matches!(role(table, name), Role::Endpoint(..))
}

/// Whether the rules of a chain tell what endpoints, policies and profiles decide.
pub fn tells_decisions(table: &str, name: &str) -> bool {
    matches!(role(table, name), Role::Endpoint(..) | Role::Policy | Role::Group | Role::Profile)
}

fn host_stage(table: &str, direction: Direction) -> Stage {
    match (table, direction) {
        ("raw", _) => Stage::Untracked,
        ("mangle", Direction::Ingress) => Stage::PreDnat,
        _ => Stage::Normal,
    }
}

/// The interface in an endpoint chain's name; `*` for the host endpoint of all interfaces, whose name is too long for some chains.
fn interface_of(chain: &str) -> Arc<str> {
    const ALL_INTERFACES: &str = "any-interface-at-all";
    let prefix_len = "cali-".len() + chain["cali-".len()..].find('-').map_or(0, |dash| dash + 1);
    let (prefix, interface) = chain.split_at(prefix_len);
    match interface == ALL_INTERFACES || chain == names::chain_name(prefix, ALL_INTERFACES) {
        true => "*".into(),
        false => interface.into(),
    }
}

pub struct Roles(Vec<Role>);

impl Roles {
    fn new(ruleset: &Ruleset) -> Self {
        Roles(ruleset.chains().iter().map(|chain| role(ruleset.table, &chain.name)).collect())
    }

    fn of(&self, chain: ChainId) -> Role {
        self.0[chain.0 as usize]
    }

    fn is_policy_or_group(&self, chain: ChainId) -> bool {
        matches!(self.of(chain), Role::Policy | Role::Group)
    }
}

/// Everything that one table says about endpoints and policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipelines {
    pub endpoints: Vec<Pipeline>,
    /// Rules that refuse packets of interfaces which have no endpoint (yet).
    pub unknown_interfaces: Vec<(Direction, RuleId)>,
    /// Policy and profile chains, by their place in the ruleset.
    policies: Vec<Option<PolicyChain>>,
    groups: BTreeMap<ChainId, GroupChain>,
    /// Rules in chains that matter which are not understood, whatever they do.
    pub unrecognised: Vec<RuleId>,
}

impl Pipelines {
    pub fn new(ruleset: &Ruleset) -> Self {
        let phrases: Vec<Phrase> = ruleset.comments().iter().map(|comment| phrases::phrase(comment)).collect();
        let roles = Roles::new(ruleset);
        let marks = Marks::learn(ruleset, &roles);
        let context = endpoint::Context { ruleset, phrases: &phrases, roles: &roles, marks };
        let mut pipelines = Pipelines { policies: vec![None; ruleset.chains().len()], ..Pipelines::default() };
        for (id, chain) in ruleset.chain_ids() {
            pipelines.chain(&context, id, &chain.name);
        }
        if ruleset.backend == Backend::Native {
            tiers::settle(&mut pipelines);
        }
        pipelines
    }

    fn chain(&mut self, context: &endpoint::Context, id: ChainId, name: &str) {
        let endpoint::Context { ruleset, phrases, roles, marks } = *context;
        let unrecognised = &mut self.unrecognised;
        match roles.of(id) {
            Role::Endpoint(kind, direction) => {
                // Chains of real interfaces are never hashed: at most 10 bytes of prefix and 15 of interface stay below 28.
                self.endpoints.push(endpoint::pipeline(context, id, (kind, interface_of(name), direction), unrecognised));
            }
            Role::Dispatch(direction) => {
                let is_end = |rule: &RuleId| ruleset.comments_of(*rule).iter().any(|c| phrases[c.0 as usize] == Phrase::UnknownInterface);
                let is_felixs = |rule: &RuleId| !ruleset.rule(*rule).hash.is_none();
                // What others wrote here takes packets that no endpoint counts.
                unrecognised.extend(ruleset.chain(id).rule_ids().filter(|rule| !is_felixs(rule)));
                let ends = ruleset.chain(id).rule_ids().filter(is_felixs);
                let ends = ends.filter(|rule| ruleset.rule(*rule).verdict.is_deny() && is_end(rule));
                self.unknown_interfaces.extend(ends.map(|rule| (direction, rule)));
            }
            Role::Policy | Role::Profile => {
                self.policies[id.0 as usize] = Some(policy::policy_chain(ruleset, id, marks, unrecognised));
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

    /// The policies of a group; of any other chain, that chain itself.
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
    /// Accept: what endpoint chains return on. Pass: what their jumps to policies must not have. Drop: what policies refuse on.
    fn learn(ruleset: &Ruleset, roles: &Roles) -> Self {
        let (mut accept, mut pass, mut drop) = (Votes::default(), Votes::default(), Votes::default());
        for (id, chain) in ruleset.chain_ids() {
            let role = roles.of(id);
            for rule in chain.rule_ids().map(|rule| ruleset.rule(rule)).filter(|rule| !rule.hash.is_none()) {
                let bit = rule.mark.and_then(|mark| mark.set_bit());
                match (role, rule.verdict) {
                    (Role::Endpoint(..), Verdict::Return) => bit.into_iter().for_each(|bit| accept.add(bit)),
                    (Role::Endpoint(..), Verdict::Jump(to)) if roles.is_policy_or_group(to) => {
                        rule.mark.filter(MarkMatch::is_clear).into_iter().for_each(|mark| pass.add(mark.mask));
                    }
                    // Before 3.30 some denies match on a scratch bit, too, but beside others that do not.
                    (Role::Policy, verdict) if verdict.is_deny() => drop.add(bit.filter(|_| rule.has_only_mark()).unwrap_or(0)),
                    _ => {}
                }
            }
        }
        Marks { accept: accept.most().unwrap_or(0), pass: pass.most().unwrap_or(0), drop: drop.most().filter(|bit| *bit != 0) }
    }

    /// The bits that carry verdicts; `None` if no rule tells.
    fn verdicts(self) -> Option<u32> {
        let bits = self.accept | self.pass | self.drop.unwrap_or(0);
        (self.accept != 0 && self.pass != 0).then_some(bits)
    }
}

/// How many rules speak for each value. A rule that pretends to be Felix's is outvoted.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_chains() {
        for (chain, interface) in [
            ("cali-tw-cali751425ce827", "cali751425ce827"),
            ("cali-fh-eth1", "eth1"),
            ("cali-thfw-br-lan", "br-lan"),
            ("cali-fh-any-interface-at-all", "*"),
            ("cali-thfw-_Nqh4HyA73udmyanQI", "*"),
        ] {
            assert_eq!(&*interface_of(chain), interface);
        }
    }

    #[test]
    fn host_endpoints_are_seen_from_the_endpoint() {
        let host = |stage, direction| Role::Endpoint(EndpointKind::Host(stage), direction);
        assert_eq!(role("filter", "cali-th-eth0"), host(Stage::Normal, Direction::Egress));
        assert_eq!(role("mangle", "cali-th-eth0"), host(Stage::Normal, Direction::Egress));
        assert_eq!(role("mangle", "cali-fh-eth0"), host(Stage::PreDnat, Direction::Ingress));
        assert_eq!(role("raw", "cali-fh-eth0"), host(Stage::Untracked, Direction::Ingress));
        assert_eq!(role("filter", "cali-fhfw-eth0"), host(Stage::Forward, Direction::Ingress));
        assert_eq!(role("filter", "cali-to-wl-dispatch-4"), Role::Dispatch(Direction::Ingress));
        assert_eq!(role("filter", "cali-to-host-endpoint"), Role::Other);
    }
}
