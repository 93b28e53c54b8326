//! Makes one pipeline for each workload and direction of the eBPF dataplane's programs, without counts. Pure. Interfaces and policies are
//! counted there, but not each policy for each interface, so the policies of a tier are shown like a group.

use std::sync::Arc;

use super::outline::{Outline, join_pipelines, merge};
use super::{Counts, DefaultAction, Group, Pipeline, PolicyCounts, Profile, Refused, Target, Tier};
use crate::accounting::attribution::Programs;
use crate::ebpf::{self, Owner, Policy, Program, Rule};
use crate::felix::{Decision, DropReason, EndpointKind};

impl Outline {
    pub fn of_programs(programs: &Programs) -> Self {
        let mut outline = Outline::default();
        for program in programs.workloads() {
            let pipelines = outline.endpoints.entry((EndpointKind::Workload, Arc::clone(&program.interface))).or_default();
            merge(pipelines, [pipeline(program)], |a, b| a.direction == b.direction, join_pipelines);
        }
        outline.endpoints.values_mut().flatten().for_each(put_together);
        outline.sort();
        outline
    }
}

fn pipeline(program: &Program) -> Pipeline {
    let rules = || program.rules.iter().filter(|rule| rule.is_workloads);
    let mut tiers: Vec<Tier> = Vec::new();
    for (policy, _) in program.policies.iter().filter(|(_, is_workloads)| *is_workloads) {
        if tiers.last().is_none_or(|tier| tier.tier != policy.tier) {
            let default_action = default_action(rules(), &policy.tier);
            tiers.push(Tier { tier: Arc::clone(&policy.tier), default_action, targets: Vec::new(), no_policy: None });
        }
        let target = Target::Policy(self::policy(policy, rules()));
        tiers.iter_mut().last().into_iter().for_each(|tier| tier.targets.push(target.clone()));
    }
    let mut profiles: Vec<Profile> = Vec::new();
    for rule in rules().filter(|rule| rule.counts && rule.known.decision == Decision::Accept) {
        if let Owner::Profile(name) = &rule.known.owner {
            profiles.push(Profile { profile: name.clone().unwrap_or_default(), accept: None });
        }
    }
    profiles.dedup_by(|a, b| a.profile == b.profile);
    let before = vec![Refused { reason: DropReason::PolicyOrNone.as_str().into(), packets: None, is_derived: false }];
    Pipeline {
        direction: program.direction,
        established: None,
        before,
        tiers,
        profiles,
        by_profile: None,
        profiles_refuse: false,
        no_profile: None,
        undivided: None,
        all: None,
    }
}

fn default_action<'a>(mut rules: impl Iterator<Item = &'a Rule>, tier: &str) -> DefaultAction {
    let passes =
        rules.any(|rule| matches!(&rule.known.owner, Owner::EndOfTier(of) if **of == *tier) && rule.known.decision == Decision::Pass);
    if passes { DefaultAction::Pass } else { DefaultAction::Deny }
}

fn policy<'a>(policy: &Arc<Policy>, rules: impl Iterator<Item = &'a Rule>) -> PolicyCounts {
    let own = rules.filter(|rule| matches!(&rule.known.owner, Owner::Policy(of, _) if of == policy));
    let mut can: Vec<Decision> = own.map(|rule| rule.known.decision).filter(|decision| *decision != Decision::Log).collect();
    can.sort();
    can.dedup();
    PolicyCounts { policy: Arc::clone(&policy.label), name: Arc::clone(&policy.label), can, ..PolicyCounts::default() }
}

/// Shows the policies of a tier as a group if nothing outside the tier can accept. What is not certain of one policy is counted for the
/// group then, otherwise for the pipeline.
fn put_together(pipeline: &mut Pipeline) {
    let can_accept = |tier: &Tier| tier.targets.iter().flat_map(Target::policies).filter(|p| p.can.contains(&Decision::Accept)).count();
    let accepting = pipeline.tiers.iter().filter(|tier| can_accept(tier) > 0).count() + pipeline.profiles.len();
    for tier in pipeline.tiers.iter_mut().filter(|tier| accepting == 1 && can_accept(tier) > 1) {
        let policies = tier.targets.iter().flat_map(Target::policies).cloned().collect();
        tier.targets = vec![Target::Group(Group { group: ebpf::BACKEND.into(), policies, undivided: Counts::default() })];
    }
}
