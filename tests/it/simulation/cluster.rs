//! A cluster of Calico, and the chains that Felix makes for it. Upstream: `felix/rules/endpoints.go`, `felix/rules/policy.go`,
//! `endpoint_mgr.go`.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use calico_accountant::felix::Direction;
use calico_accountant::ruleset::{Family, MarkMatch};

use super::kernel::{ChainSpec, Kind, RuleSpec, Target, When};
use super::random::Random;

const ACCEPT: u32 = 0x10000;
const PASS: u32 = 0x20000;
const DROP: u32 = 0x40000;

/// Policies of a group between two returns.
const STRIDE: usize = 5;

/// How a release renders rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// ≤ 3.27: every policy has its own jump.
    Old,
    /// 3.28: groups.
    V328,
    /// 3.29: groups and tiers.
    V329,
    /// ≥ 3.30: denies by mark, with or without the rules that log flows.
    V330 { flow_logs: bool },
}

impl Era {
    pub const ALL: [Era; 5] = [Era::Old, Era::V328, Era::V329, Era::V330 { flow_logs: false }, Era::V330 { flow_logs: true }];

    fn has_groups(self) -> bool {
        self != Era::Old
    }

    fn has_tiers(self) -> bool {
        !matches!(self, Era::Old | Era::V328)
    }

    fn marks_refusals(self) -> bool {
        matches!(self, Era::V330 { .. })
    }

    fn flow_logs(self) -> bool {
        self == Era::V330 { flow_logs: true }
    }
}

/// The action of a policy's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Says {
    Accept,
    Deny,
    Pass,
    Log,
}

#[derive(Debug, Clone)]
pub struct Tier {
    pub name: String,
    /// Whether its default action is Pass.
    pub passes: bool,
}

#[derive(Debug, Clone)]
pub struct PolicyRule {
    pub says: Says,
    pub variant: u32,
    /// Whether it has IPv4 addresses, so that only that family has the rule.
    pub v4_only: bool,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub name: String,
    pub tier: usize,
    /// The selector of its workloads.
    pub selector: usize,
    pub staged: bool,
    /// Its rules by direction. `None` if it does not apply to the direction.
    pub rules: [Option<Vec<PolicyRule>>; 2],
}

#[derive(Debug, Clone)]
pub struct Workload {
    pub interface: Arc<str>,
    /// Selectors that match it, one bit each.
    pub selectors: u32,
    pub profiles: usize,
    /// Whether it is a host endpoint. Its chains refer to the same policies, but it is not a workload.
    pub host: bool,
}

/// What Felix has to program.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub era: Era,
    pub tiers: Vec<Tier>,
    pub policies: Vec<Policy>,
    pub workloads: Vec<Workload>,
}

/// Policies that stand together in an endpoint's tier: their names, in order.
pub type Group = Vec<String>;

/// The parts of an endpoint's tier that the tests compare.
#[derive(Debug, Clone)]
pub struct TierShape {
    pub name: String,
    /// Groups and single policies, in order.
    pub targets: Vec<Group>,
    /// Whether a rule counts what no policy decided.
    pub has_end: bool,
}

impl Cluster {
    /// The policies of one endpoint, for each tier that applies to it.
    pub fn shape(&self, workload: &Workload, direction: Direction) -> Vec<TierShape> {
        let mut shapes = Vec::new();
        for (place, tier) in self.tiers.iter().enumerate() {
            let applies =
                |p: &&Policy| p.tier == place && workload.selectors & (1 << p.selector) != 0 && p.rules[direction as usize].is_some();
            let all: Vec<&Policy> = self.policies.iter().filter(applies).collect();
            if all.is_empty() {
                continue;
            }
            let staged = all.iter().all(|policy| policy.staged);
            let has_end = self.era.flow_logs() || (!tier.passes && !staged);
            shapes.push(TierShape { name: tier.name.clone(), targets: self.targets(&all), has_end });
        }
        shapes
    }

    /// Groups policies: consecutive policies with the same selector form a group. Staged policies are left out.
    fn targets(&self, policies: &[&Policy]) -> Vec<Group> {
        let runs = policies.chunk_by(|a, b| self.era.has_groups() && a.selector == b.selector);
        let in_force = |run: &[&Policy]| run.iter().filter(|p| !p.staged).map(|p| p.name.clone()).collect::<Vec<_>>();
        let single = |group: Group| if self.era.has_groups() { vec![group] } else { group.into_iter().map(|p| vec![p]).collect() };
        runs.map(in_force).filter(|group| !group.is_empty()).flat_map(single).collect()
    }

    /// All chains of one family's filter table.
    pub fn chains(&self, family: Family) -> Vec<ChainSpec> {
        let mut render = Render { cluster: self, family, chains: BTreeMap::new() };
        for workload in &self.workloads {
            for direction in Direction::ALL {
                render.endpoint(workload, direction);
            }
        }
        render.chains.into_iter().map(|(name, rules)| ChainSpec { name, rules }).collect()
    }

    pub fn policy(&self, name: &str) -> &Policy {
        self.policies.iter().find(|policy| policy.name == name).unwrap()
    }
}

/// The name of an endpoint's chain.
pub fn endpoint_chain(workload: &Workload, direction: Direction) -> String {
    let kind = match (workload.host, direction) {
        (false, Direction::Ingress) => "tw",
        (false, Direction::Egress) => "fw",
        (true, Direction::Ingress) => "fh",
        (true, Direction::Egress) => "th",
    };
    format!("cali-{kind}-{}", workload.interface)
}

struct Render<'a> {
    cluster: &'a Cluster,
    family: Family,
    chains: BTreeMap<String, Vec<RuleSpec>>,
}

impl Render<'_> {
    fn endpoint(&mut self, workload: &Workload, direction: Direction) {
        let era = self.cluster.era;
        let mut rules = vec![
            rule(Target::Accept).when(When::Is(Kind::Established)).decides("established"),
            rule(Target::Drop).when(When::Is(Kind::Invalid)).decides("invalid"),
            rule(mark(0, if era.has_groups() { ACCEPT | PASS } else { ACCEPT })),
        ];
        if direction == Direction::Egress {
            let drop = rule(Target::Drop).when(When::Is(Kind::Encapsulated)).decides("encapsulation");
            rules.push(drop.comment("Drop VXLAN encapped packets originating in workloads"));
        }
        for (place, tier) in self.cluster.shape(workload, direction).iter().enumerate() {
            if place == 0 || era.has_tiers() {
                self.tier(tier, direction, &mut rules);
            }
        }
        self.profiles(workload, direction, &mut rules);
        self.chains.insert(endpoint_chain(workload, direction), rules);
    }

    fn tier(&mut self, tier: &TierShape, direction: Direction, rules: &mut Vec<RuleSpec>) {
        let era = self.cluster.era;
        match era {
            Era::Old => rules.push(rule(mark(0, PASS)).comment("Start of policies")),
            Era::V328 => {}
            Era::V329 | Era::V330 { .. } => rules.push(rule(mark(0, PASS)).comment(&format!("Start of tier {}", tier.name))),
        }
        for group in &tier.targets {
            let chain = match group.as_slice() {
                [policy] => self.policy(policy, direction),
                _ => self.group(group, &tier.name, direction),
            };
            rules.push(rule(Target::Jump(chain)).if_clear(PASS));
            rules.push(rule(Target::Return).if_set(ACCEPT).comment("Return if policy accepted"));
        }
        if era.flow_logs() {
            rules.push(rule(Target::Log).if_clear(PASS));
        }
        let default_action_is_drop = !self.cluster.tiers.iter().any(|t| t.name == tier.name && t.passes);
        if default_action_is_drop && !tier.targets.is_empty() {
            let drop = rule(Target::Drop).if_clear(PASS).decides(&format!("no policy {}", tier.name));
            let sentence = "Drop if no policies passed packet";
            rules.push(match era.marks_refusals() {
                true => drop.comment(&format!("End of tier {}. {sentence}", tier.name)),
                false => drop.comment(sentence),
            });
        }
    }

    fn profiles(&mut self, workload: &Workload, direction: Direction, rules: &mut Vec<RuleSpec>) {
        for profile in 0..workload.profiles {
            let (prefix, word) = if direction == Direction::Ingress { ("pri", "ingress") } else { ("pro", "egress") };
            let name = format!("kns.{profile}");
            let chain = format!("cali-{prefix}-{name}");
            let accept = rule(mark(ACCEPT, ACCEPT)).when(When::Chance).decides(&format!("profile {name}"));
            let accept = accept.comment(&format!("Profile {name} {word}"));
            self.chains.insert(chain.clone(), vec![accept, rule(Target::Return).if_set(ACCEPT)]);
            rules.push(rule(Target::Jump(chain)));
            rules.push(rule(Target::Return).if_set(ACCEPT).comment("Return if profile accepted"));
        }
        if self.cluster.era.flow_logs() {
            rules.push(rule(Target::Log));
        }
        rules.push(rule(Target::Drop).decides("noprofile").comment("Drop if no profiles matched"));
    }

    fn group(&mut self, group: &Group, tier: &str, direction: Direction) -> String {
        let prefix = if direction == Direction::Ingress { "cali-gi-" } else { "cali-go-" };
        let chain = format!("{prefix}{}", digest(&(tier, group)));
        let mut rules = Vec::new();
        for (place, policy) in group.iter().enumerate() {
            let first_of_stride = place % STRIDE == 0;
            if place > 0 && first_of_stride {
                rules.push(rule(Target::Return).unless_clear(ACCEPT | PASS).comment("Return on verdict"));
            }
            let jump = rule(Target::Jump(self.policy(policy, direction)));
            rules.push(if first_of_stride { jump } else { jump.if_clear(ACCEPT | PASS) });
        }
        self.chains.insert(chain.clone(), rules);
        chain
    }

    fn policy(&mut self, name: &str, direction: Direction) -> String {
        let (prefix, word) = if direction == Direction::Ingress { ("cali-pi-", "ingress") } else { ("cali-po-", "egress") };
        let chain = format!("{prefix}_{}", digest(&name));
        if self.chains.contains_key(&chain) {
            return chain;
        }
        let policy = self.cluster.policy(name);
        let applicable = policy.rules[direction as usize].iter().flatten().filter(|r| self.family == Family::V4 || !r.v4_only);
        let mut rules: Vec<RuleSpec> = applicable.flat_map(|rule| self.policy_rule(name, rule)).collect();
        if self.cluster.era.has_groups() && rules.last().is_some_and(|rule| rule.target == Target::Return) {
            rules.pop();
        }
        if rules.is_empty() {
            rules.push(rule(Target::Count));
        }
        rules[0].comments.push(format!("Policy {name} {word}"));
        self.chains.insert(chain.clone(), rules);
        chain
    }

    fn policy_rule(&self, name: &str, PolicyRule { says, variant, .. }: &PolicyRule) -> Vec<RuleSpec> {
        let era = self.cluster.era;
        let decides = |target| rule(target).when(When::Chance).variant(*variant).decides(&format!("{says:?} {name}"));
        let logged = |bit, last: RuleSpec| {
            let log = era.flow_logs().then(|| rule(Target::Log).if_set(bit));
            [Some(decides(mark(bit, bit))), log, Some(last)].into_iter().flatten().collect()
        };
        match says {
            Says::Accept => logged(ACCEPT, rule(Target::Return).if_set(ACCEPT)),
            Says::Pass => logged(PASS, rule(Target::Return).if_set(PASS)),
            Says::Deny if era.marks_refusals() => logged(DROP, rule(Target::Drop).if_set(DROP)),
            Says::Deny => vec![decides(Target::Drop)],
            Says::Log => vec![rule(Target::Log).when(When::Chance).variant(*variant)],
        }
    }
}

fn digest(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn rule(target: Target) -> RuleSpec {
    RuleSpec { comments: vec![], mark: None, when: When::Always, target, decides: None, variant: 0 }
}

fn mark(value: u32, mask: u32) -> Target {
    Target::Mark { value, mask }
}

impl RuleSpec {
    fn comment(mut self, comment: &str) -> Self {
        self.comments.push(comment.into());
        self
    }

    fn when(self, when: When) -> Self {
        RuleSpec { when, ..self }
    }

    fn variant(self, variant: u32) -> Self {
        RuleSpec { variant, ..self }
    }

    fn decides(self, what: &str) -> Self {
        RuleSpec { decides: Some(what.into()), ..self }
    }

    fn if_clear(self, mask: u32) -> Self {
        RuleSpec { mark: Some(MarkMatch { value: 0, mask, negated: false }), ..self }
    }

    fn unless_clear(self, mask: u32) -> Self {
        RuleSpec { mark: Some(MarkMatch { value: 0, mask, negated: true }), ..self }
    }

    fn if_set(self, bit: u32) -> Self {
        RuleSpec { mark: Some(MarkMatch { value: bit, mask: bit, negated: false }), ..self }
    }
}

/// Makes random clusters, and random changes to them.
pub struct Designer<'a> {
    pub random: &'a mut Random,
    /// Counts up, so that no two rules or names are the same.
    pub serial: &'a mut u32,
}

impl Designer<'_> {
    /// A cluster of a few workloads, tiers and policies.
    pub fn cluster(&mut self, era: Era) -> Cluster {
        let tiers = if era.has_tiers() { self.random.between(1, 3) } else { 1 };
        let tier = |place: usize, random: &mut Random| match place {
            0 => Tier { name: "default".into(), passes: era.has_tiers() && random.percent(15) },
            n => Tier { name: format!("t{n}"), passes: random.percent(40) },
        };
        let mut tiers: Vec<Tier> = (0..tiers).map(|place| tier(place, self.random)).collect();
        tiers.reverse();
        let mut cluster = Cluster { era, tiers, policies: vec![], workloads: vec![] };
        for _ in 0..self.random.between(1, 12) {
            self.add_policy(&mut cluster);
        }
        for _ in 0..self.random.between(1, 6) {
            self.add_workload(&mut cluster);
        }
        if self.random.percent(15) {
            let selectors = self.random.between(1, 7) as u32;
            cluster.workloads.push(Workload { interface: "eth0".into(), selectors, profiles: 0, host: true });
        }
        cluster
    }

    pub fn add_policy(&mut self, cluster: &mut Cluster) {
        *self.serial += 1;
        let tier = self.random.below(cluster.tiers.len());
        // Mostly the same selector, for long groups.
        let selector = if self.random.percent(60) { 0 } else { self.random.below(3) };
        let staged = cluster.era.has_tiers() && self.random.percent(10);
        let name = format!("{}.p{}", cluster.tiers[tier].name, self.serial);
        let rules = [(); 2].map(|()| self.random.percent(70).then(|| self.policy_rules()));
        let place = self.random.below(cluster.policies.len() + 1);
        cluster.policies.insert(place, Policy { name, tier, selector, staged, rules });
    }

    pub fn policy_rules(&mut self) -> Vec<PolicyRule> {
        let kinds: &[Says] = match self.random.below(6) {
            0 => &[Says::Accept],
            1 => &[Says::Accept, Says::Deny],
            2 => &[Says::Deny],
            3 => &[Says::Accept, Says::Pass],
            _ => &[Says::Accept, Says::Accept, Says::Deny, Says::Pass, Says::Log],
        };
        let rules = self.random.below(4);
        (0..rules).map(|_| self.policy_rule(kinds)).collect()
    }

    fn policy_rule(&mut self, kinds: &[Says]) -> PolicyRule {
        *self.serial += 1;
        PolicyRule { says: *self.random.pick(kinds), variant: *self.serial, v4_only: self.random.percent(10) }
    }

    pub fn add_workload(&mut self, cluster: &mut Cluster) {
        let free: BTreeSet<usize> = (0..7).filter(|n| !cluster.workloads.iter().any(|w| *w.interface == *format!("cali{n}"))).collect();
        let Some(number) = free.into_iter().next() else { return };
        // Most workloads with selector 0 have no other, so that several workloads share a group.
        let selectors = if self.random.percent(70) { 1 } else { self.random.below(8) as u32 };
        let workload = Workload { interface: format!("cali{number}").into(), selectors, profiles: self.random.below(3), host: false };
        cluster.workloads.push(workload);
    }

    /// Changes something, as users do.
    pub fn change(&mut self, cluster: &mut Cluster) {
        match self.random.below(6) {
            0 | 1 if !cluster.policies.is_empty() => {
                let (policy, direction) = (self.random.below(cluster.policies.len()), self.random.below(2));
                let mut rules = self.policy_rules();
                // Often rules are only added, so that the rules before them are unchanged.
                if let Some(old) = cluster.policies[policy].rules[direction].as_ref().filter(|_| self.random.percent(60)) {
                    rules = old.iter().cloned().chain(rules).take(5).collect();
                }
                cluster.policies[policy].rules[direction] = Some(rules);
            }
            2 if cluster.policies.len() > 1 => _ = cluster.policies.remove(self.random.below(cluster.policies.len())),
            3 if cluster.workloads.len() > 1 => _ = cluster.workloads.remove(self.random.below(cluster.workloads.len())),
            4 => self.add_workload(cluster),
            _ => self.add_policy(cluster),
        }
    }
}
