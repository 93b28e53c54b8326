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
    /// Towards the endpoint.
    Ingress,
    /// Away from the endpoint.
    Egress,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// As the standard metrics name it.
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

/// What an endpoint chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointKind {
    /// A workload.
    Workload,
    /// A host endpoint, at one of its stages.
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
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Untracked => "untracked",
            Stage::PreDnat => "pre_dnat",
            Stage::Normal => "normal",
            Stage::Forward => "forward",
        }
    }
}

/// What a chain is for, by its name and table.
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

/// Whether a chain of this name is an endpoint's.
pub fn is_endpoint_chain(table: &str, name: &str) -> bool {
    matches!(role(table, name), Role::Endpoint(..))
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

/// What every chain of a table is for.
pub struct Roles(Vec<Role>);

impl Roles {
    fn new(ruleset: &Ruleset) -> Self {
        Roles(ruleset.chains().iter().map(|chain| role(ruleset.table, &chain.name)).collect())
    }

    fn of(&self, chain: ChainId) -> Role {
        self.0[chain.0 as usize]
    }

    fn is_profile(&self, chain: ChainId) -> bool {
        self.of(chain) == Role::Profile
    }

    fn is_policy_or_group(&self, chain: ChainId) -> bool {
        matches!(self.of(chain), Role::Policy | Role::Group)
    }

    fn is_failsafe(&self, chain: ChainId) -> bool {
        self.of(chain) == Role::Failsafe
    }
}

/// Everything that one table says about endpoints and policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipelines {
    /// Endpoint chains.
    pub endpoints: Vec<Pipeline>,
    /// Rules that refuse packets of interfaces which have no endpoint (yet).
    pub unknown_interfaces: Vec<(Direction, RuleId)>,
    /// Policy, profile and group chains, by their place in the ruleset.
    chains: Vec<Option<SharedChain>>,
    /// Rules in chains that matter which are not understood, whatever they do.
    pub unrecognised: Vec<RuleId>,
}

/// A chain that several endpoints share.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SharedChain {
    Policy(PolicyChain),
    Group(GroupChain),
}

impl Pipelines {
    /// Works out the pipelines of a table.
    pub fn new(ruleset: &Ruleset) -> Self {
        let phrases: Vec<Phrase> = ruleset.comments().iter().map(|comment| phrases::phrase(comment)).collect();
        let roles = Roles::new(ruleset);
        let marks = Marks::learn(ruleset, &roles);
        let context = endpoint::Context { ruleset, phrases: &phrases, roles: &roles, marks };
        let mut pipelines = Pipelines { chains: vec![None; ruleset.chains().len()], ..Pipelines::default() };
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
        let shared = match roles.of(id) {
            Role::Endpoint(kind, direction) => {
                // Chains of real interfaces are never hashed: at most 10 bytes of prefix and 15 of interface stay below 28.
                self.endpoints.push(endpoint::pipeline(context, id, (kind, interface_of(name), direction), unrecognised));
                None
            }
            Role::Dispatch(direction) => {
                let is_end = |rule: &RuleId| ruleset.comments_of(*rule).iter().any(|c| phrases[c.0 as usize] == Phrase::UnknownInterface);
                let is_felixs = |rule: &RuleId| !ruleset.rule(*rule).hash.is_none();
                // What others wrote here takes packets that no endpoint counts.
                unrecognised.extend(ruleset.chain(id).rule_ids().filter(|rule| !is_felixs(rule)));
                let ends = ruleset.chain(id).rule_ids().filter(is_felixs);
                let ends = ends.filter(|rule| ruleset.rule(*rule).verdict.is_deny() && is_end(rule));
                self.unknown_interfaces.extend(ends.map(|rule| (direction, rule)));
                None
            }
            Role::Policy | Role::Profile => Some(SharedChain::Policy(policy::policy_chain(ruleset, id, marks, unrecognised))),
            Role::Group => Some(SharedChain::Group(policy::group_chain(context, id, unrecognised))),
            Role::Failsafe | Role::Other => None,
        };
        self.chains[id.0 as usize] = shared;
    }

    /// The policy or profile chain at `id`.
    pub fn policy(&self, id: ChainId) -> Option<&PolicyChain> {
        match self.chains.get(id.0 as usize)?.as_ref()? {
            SharedChain::Policy(policy) => Some(policy),
            SharedChain::Group(_) => None,
        }
    }

    /// The group chain at `id`.
    pub fn group(&self, id: ChainId) -> Option<&GroupChain> {
        match self.chains.get(id.0 as usize)?.as_ref()? {
            SharedChain::Group(group) => Some(group),
            SharedChain::Policy(_) => None,
        }
    }

    /// All group chains.
    pub fn groups(&self) -> impl Iterator<Item = &GroupChain> {
        self.chains.iter().filter_map(|chain| match chain {
            Some(SharedChain::Group(group)) => Some(group),
            _ => None,
        })
    }

    /// All policy and profile chains.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyChain> {
        self.chains.iter().filter_map(|chain| match chain {
            Some(SharedChain::Policy(policy)) => Some(policy),
            _ => None,
        })
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
