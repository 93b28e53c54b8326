//! Builds the [`Report`] from outlines and totals. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::outline::Outline;
use super::policies::{self, Bounds, Infos};
use super::{
    All, Counts, Drop, Group, HostEndpoint, Pipeline, PolicyCounts, Refused, Report, Status, Sums, Target, Tier, Workload, WorkloadEndpoint,
};
use super::{UnknownInterfaces, WorkloadStates};
use crate::accounting::attribution::{Attribution, EndpointTotals, Item, Programs, Totals, Verdict};
use crate::datastore::inventory;
use crate::ebpf;
use crate::felix::{Catalog, Decision, Direction, DropReason, EndpointKind};

#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub outline: &'a Outline,
    pub attribution: &'a Attribution,
    pub catalog: &'a Catalog,
    pub workload: &'a dyn Fn(&str) -> Option<Arc<inventory::Workload>>,
    /// Whether there was only one read. Then what rules count together bounds what no rule counts.
    pub one_moment: bool,
}

impl Report {
    /// Counts the workloads that have rules. The rest of `status` is taken as it is.
    pub fn new(sources: Sources, status: Status) -> Self {
        let filler = Filler::new(&sources);
        // On the eBPF dataplane, one read shows nothing of a workload.
        let is_counted = filler.programs.is_none() || !sources.one_moment;
        let totals = filler.by_endpoint();
        let node = sources.attribution.node();
        let mut report = Report {
            status,
            unknown_interfaces: UnknownInterfaces {
                ingress: node.unknown_interface(Direction::Ingress),
                egress: node.unknown_interface(Direction::Egress),
            },
            ..Report::default()
        };
        for (key, outline) in &sources.outline.endpoints {
            let (kind, interface) = key;
            let directions =
                outline.iter().map(|pipeline| filler.pipeline(interface, pipeline.clone(), totals.get(key).copied())).collect();
            match kind {
                EndpointKind::Workload => {
                    report.workloads.push(workload(interface, directions, (sources.workload)(interface), is_counted));
                }
                EndpointKind::Host(stage) => {
                    let interface = Arc::clone(interface);
                    report.host_endpoints.push(HostEndpoint { interface, stage: stage.as_str().into(), directions });
                }
            }
        }
        report.sort();
        report.policies = policies::policies(&filler.infos, node, &report);
        report.count_workloads();
        report
    }

    fn sort(&mut self) {
        let order = |w: &WorkloadEndpoint| {
            let w = &w.workload;
            (!w.known, Arc::clone(&w.namespace), Arc::clone(&w.pod), Arc::clone(&w.interface))
        };
        self.workloads.sort_by_cached_key(order);
        self.host_endpoints.sort_by(|a, b| (&a.interface, &a.stage).cmp(&(&b.interface, &b.stage)));
    }

    fn count_workloads(&mut self) {
        let known = self.workloads.iter().filter(|w| w.workload.known).count();
        let states = &mut self.status.workloads;
        *states = WorkloadStates { known, unknown: self.workloads.len() - known, ..*states };
    }
}

/// Returns what is dropped of the outline's workloads, without the rest of a report.
pub fn drops(sources: Sources) -> Vec<Drop> {
    let filler = Filler::new(&sources);
    let totals = filler.by_endpoint();
    let mut drops = Vec::new();
    for (key, outline) in sources.outline.endpoints.iter().filter(|((kind, _), _)| *kind == EndpointKind::Workload) {
        let directions = outline.iter().map(|pipeline| filler.pipeline(&key.1, pipeline.clone(), totals.get(key).copied())).collect();
        drops.extend(workload(&key.1, directions, (sources.workload)(&key.1), false).drops());
    }
    drops
}

/// Returns a workload with its names, or with its interface only if it has none.
fn workload(
    interface: &Arc<str>,
    directions: Vec<Pipeline>,
    found: Option<Arc<inventory::Workload>>,
    is_counted: bool,
) -> WorkloadEndpoint {
    let sums = |direction| directions.iter().find(|pipeline| is_counted && pipeline.direction == direction).map(Pipeline::sums);
    let (ingress, egress) = (sums(Direction::Ingress), sums(Direction::Egress));
    let known = found.is_some();
    let names = found.unwrap_or_default();
    let workload = Workload {
        interface: Arc::clone(interface),
        namespace: names.namespace.as_str().into(),
        pod: names.pod.as_str().into(),
        app: names.app.as_str().into(),
        ip: names.ip.split(',').filter(|ip| !ip.is_empty()).map(Arc::from).collect(),
        node: names.node.as_str().into(),
        orchestrator: names.orchestrator.as_str().into(),
        service_account: names.service_account.as_str().into(),
        known,
        ingress,
        egress,
    };
    WorkloadEndpoint { workload, directions }
}

/// The totals of one endpoint and direction, by what they count.
#[derive(Default)]
struct Counted<'a> {
    established: Option<u64>,
    refused: HashMap<(&'a str, &'a str), u64>,
    profiles: HashMap<&'a str, u64>,
    policies: HashMap<(&'a str, &'a str, Verdict), u64>,
    /// Only on the eBPF dataplane.
    all: All,
    /// Only on the eBPF dataplane: the tier and policies under which accepts are counted that may be one or the other policy's.
    together: Option<(&'a str, &'a str)>,
}

impl<'a> Counted<'a> {
    fn new(totals: &Totals, endpoint: &'a EndpointTotals, direction: Direction) -> Self {
        let mut counted = Counted::default();
        for total in totals.shown(endpoint, direction) {
            match &*total.item {
                Item::Established => counted.established = Some(total.packets),
                Item::Drop { reason, tier } => _ = counted.refused.insert((reason.as_str(), tier), total.packets),
                Item::Profile(profile) => _ = counted.profiles.insert(profile, total.packets),
                Item::Policy { tier, policy, verdict } => _ = counted.policies.insert((tier, policy, *verdict), total.packets),
                // This is the sum of the policies' denies.
                Item::PolicyDrop { .. } => {}
                Item::Accepted => (counted.all.accepted, counted.all.accepted_exact) = (total.packets, total.is_exact()),
                Item::Refused => (counted.all.refused, counted.all.refused_exact) = (total.packets, total.is_exact()),
            }
        }
        counted
    }

    fn together(&self) -> Option<u64> {
        self.together.and_then(|(tier, policies)| self.decided(tier, policies).accept)
    }

    /// Returns what policies denied if the counters do not show which of them did.
    fn denied_by_one_of_several(&self) -> u64 {
        let is_several = |(_, policies, verdict): &(&str, &str, Verdict)| *verdict == Verdict::Deny && policies.contains(',');
        self.policies.iter().filter(|(key, _)| is_several(key)).fold(0, |sum, (_, packets)| sum.saturating_add(*packets))
    }

    fn refused(&self, reason: &str, tier: &str) -> Option<u64> {
        self.refused.get(&(reason, tier)).copied()
    }

    /// Returns what several of a group's policies decided together.
    fn decided_together(&self, tier: &str, policies: &[PolicyCounts]) -> Counts {
        let are_of_group = |names: &str| names.contains(',') && names.split(',').all(|name| policies.iter().any(|p| *p.policy == *name));
        let decided = |wanted: Verdict| {
            let together =
                self.policies.iter().filter(|((of, names, verdict), _)| *of == tier && *verdict == wanted && are_of_group(names));
            together.map(|(_, packets)| *packets).reduce(u64::saturating_add)
        };
        let [accept, deny, pass, deny_or_pass] = [Verdict::Accept, Verdict::Deny, Verdict::Pass, Verdict::DenyOrPass].map(decided);
        Counts { accept, deny, pass, deny_or_pass }
    }

    fn decided(&self, tier: &str, policy: &str) -> Counts {
        let of = |verdict| self.policies.get(&(tier, policy, verdict)).copied();
        Counts { accept: of(Verdict::Accept), deny: of(Verdict::Deny), pass: of(Verdict::Pass), deny_or_pass: of(Verdict::DenyOrPass) }
    }
}

struct Filler<'a> {
    infos: Infos,
    bounds: Option<Bounds>,
    totals: &'a Totals,
    programs: Option<&'a Programs>,
}

impl<'a> Filler<'a> {
    fn new(sources: &Sources<'a>) -> Self {
        Filler {
            infos: Infos::new(sources.catalog),
            bounds: sources.one_moment.then(|| Bounds::new(sources.attribution.node())),
            totals: sources.attribution.totals(),
            programs: sources.attribution.programs(),
        }
    }

    fn by_endpoint(&self) -> HashMap<(EndpointKind, Arc<str>), &'a EndpointTotals> {
        self.totals.endpoints().map(|(kind, interface, totals)| ((kind, Arc::clone(interface)), totals)).collect()
    }

    fn pipeline(&self, interface: &str, mut pipeline: Pipeline, totals: Option<&EndpointTotals>) -> Pipeline {
        let direction = pipeline.direction;
        let mut counted = totals.map(|totals| Counted::new(self.totals, totals, direction)).unwrap_or_default();
        if let Some(Item::Policy { tier, policy, .. }) = self.programs.and_then(|programs| programs.together(interface, direction)) {
            counted.together = Some((tier, policy));
        }
        pipeline.established = counted.established;
        if self.programs.is_some() && self.bounds.is_none() {
            pipeline.all = Some(counted.all);
        }
        for refused in &mut pipeline.before {
            let known = self.bounds.is_none() || !refused.is_derived;
            refused.packets = counted.refused(&refused.reason, "").filter(|_| known);
            if refused.reason == DropReason::PolicyOrNone.as_str() {
                refused.packets = refused.packets.map(|packets| packets.saturating_add(counted.denied_by_one_of_several()));
            }
        }
        for profile in &mut pipeline.profiles {
            profile.accept = counted.profiles.get(&*profile.profile).copied();
        }
        pipeline.by_profile = counted.refused("profile", "").filter(|_| pipeline.profiles_refuse);
        pipeline.no_profile = counted.refused("no_profile", "");
        for tier in &mut pipeline.tiers {
            self.tier(tier, direction, &counted);
        }
        let has_group = pipeline.tiers.iter().flat_map(|tier| &tier.targets).any(|target| matches!(target, Target::Group(_)));
        if counted.together.is_some() && !has_group {
            let is_divided = pipeline.accepts().any(|accept| accept.is_some());
            pipeline.undivided = counted.together().or(is_divided.then_some(0));
        }
        if let Some(totals) = totals.filter(|_| self.programs.is_none() && self.bounds.is_none()) {
            let (known, all) = (pipeline.sums(), self.totals.sums(totals, direction));
            let (accepted_exact, refused_exact) = (known.accepted_exact, known.exact);
            pipeline.all = Some(All { accepted: all.accepted, accepted_exact, refused: all.refused, refused_exact });
        }
        pipeline
    }

    /// Returns the most that a policy can have accepted, as far as its group shows it. On the eBPF dataplane, one read shows nothing.
    fn most_accepted(&self, by_group: Option<u64>) -> Option<u64> {
        if self.programs.is_some() { Some(u64::MAX) } else { by_group }
    }

    fn tier(&self, tier: &mut Tier, direction: Direction, counted: &Counted) {
        tier.no_policy = counted.refused("no_policy", &tier.tier);
        for target in &mut tier.targets {
            match target {
                Target::Policy(policy) => self.policy(policy, &tier.tier, direction, counted, self.most_accepted(None)),
                Target::Group(group) => self.group(group, &tier.tier, direction, counted),
            }
        }
    }

    fn group(&self, group: &mut Group, tier: &Arc<str>, direction: Direction, counted: &Counted) {
        let joined = match group.policies.len() {
            _ if *group.group == *ebpf::BACKEND => Counts { accept: counted.together(), ..Counts::default() },
            // A group of one has its policy's name.
            0 | 1 => Counts::default(),
            _ => counted.decided_together(tier, &group.policies),
        };
        for policy in &mut group.policies {
            self.policy(policy, tier, direction, counted, self.most_accepted(joined.accept));
        }
        group.undivided = match self.bounds {
            Some(_) => Counts { accept: joined.accept, ..Counts::default() },
            // Denies that are not certain are not part of the group there.
            None if *group.group == *ebpf::BACKEND => Counts { accept: undivided(&joined, &group.policies).accept, ..Counts::default() },
            None => undivided(&joined, &group.policies),
        };
    }

    /// `accepted` is by the policy's group, if it is in one.
    fn policy(&self, policy: &mut PolicyCounts, tier: &Arc<str>, direction: Direction, counted: &Counted, accepted: Option<u64>) {
        self.infos.name(policy, tier);
        policy.counts = counted.decided(tier, &policy.policy);
        if let Some(bounds) = &self.bounds {
            bounds.apply(policy, direction, accepted);
        }
        // What it cannot do is not shown as 0. What it did before it was rewritten is shown.
        let can = |can: Decision, packets: Option<u64>| packets.filter(|packets| *packets > 0 || policy.can.contains(&can));
        let Counts { accept, deny, pass, deny_or_pass } = policy.counts;
        let (accept, deny, pass) = (can(Decision::Accept, accept), can(Decision::Deny, deny), can(Decision::Pass, pass));
        policy.counts = Counts { accept, deny, pass, deny_or_pass };
    }
}

/// Returns what a group did and none of its policies got. If the rest is not shown but the policies' shares are, all of it was divided.
fn undivided(joined: &Counts, policies: &[PolicyCounts]) -> Counts {
    let rest = |of: fn(&Counts) -> Option<u64>| {
        let divided = policies.iter().any(|policy| of(&policy.counts).is_some());
        of(joined).or(divided.then_some(0))
    };
    Counts {
        accept: rest(|counts| counts.accept),
        deny: rest(|counts| counts.deny),
        pass: rest(|counts| counts.pass),
        deny_or_pass: rest(|counts| counts.deny_or_pass),
    }
}

impl Pipeline {
    /// Returns the counts of each policy and of each group's rest, with its tier.
    pub(super) fn decisions(&self) -> impl Iterator<Item = (&Tier, &Counts)> {
        self.tiers.iter().flat_map(|tier| tier.targets.iter().flat_map(Target::decisions).map(move |counts| (tier, counts)))
    }

    pub fn policies(&self) -> impl Iterator<Item = &PolicyCounts> {
        self.tiers.iter().flat_map(|tier| &tier.targets).flat_map(Target::policies)
    }

    /// Returns what each policy, group rest and profile accepted.
    fn accepts(&self) -> impl Iterator<Item = Option<u64>> {
        self.decisions().map(|(_, counts)| counts.accept).chain(self.profiles.iter().map(|profile| profile.accept))
    }

    /// Whether all that its policies and profiles accepted is known, of each or of all together that can accept.
    fn accepts_are_known(&self) -> bool {
        let is_known = |policy: &PolicyCounts| policy.counts.accept.is_some() || !policy.can.contains(&Decision::Accept);
        let of_target = |target: &Target| match target {
            Target::Group(group) if group.undivided.accept.is_some() => true,
            target => target.policies().iter().all(is_known),
        };
        let mut targets = self.tiers.iter().flat_map(|tier| &tier.targets);
        targets.all(of_target) && self.profiles.iter().all(|profile| profile.accept.is_some())
    }

    pub fn sums(&self) -> Sums {
        let accepted = self.accepts().chain([self.undivided]);
        let refused = self.decisions().map(|(_, counts)| counts.deny).chain(self.tiers.iter().map(|tier| tier.no_policy));
        let refused = refused.chain(self.before.iter().map(|refused| refused.packets)).chain([self.by_profile, self.no_profile]);
        let is_exact = |refused: &Refused| refused.packets.is_some();
        let exact = match self.before.iter().find(|refused| refused.reason == DropReason::PolicyOrNone.as_str()) {
            // It is the rest of a sum that is counted.
            Some(rest) => is_exact(rest),
            None => {
                let by_profile = self.by_profile.is_some() || !self.profiles_refuse;
                self.policies().all(PolicyCounts::is_exact) && self.before.iter().all(is_exact) && by_profile
            }
        };
        let all = self.all.unwrap_or_else(|| All {
            accepted: accepted.flatten().fold(0, u64::saturating_add),
            accepted_exact: self.undivided.is_some() || self.accepts_are_known(),
            refused: refused.flatten().fold(0, u64::saturating_add),
            refused_exact: exact,
        });
        Sums {
            accepted: all.accepted,
            accepted_exact: all.accepted_exact,
            established: self.established,
            dropped: all.refused,
            exact: all.refused_exact,
        }
    }
}

impl Target {
    fn decisions(&self) -> impl Iterator<Item = &Counts> {
        let rest = match self {
            Target::Policy(_) => None,
            Target::Group(group) => Some(&group.undivided),
        };
        self.policies().iter().map(|policy| &policy.counts).chain(rest)
    }

    pub fn policies(&self) -> &[PolicyCounts] {
        match self {
            Target::Policy(policy) => std::slice::from_ref(policy),
            Target::Group(group) => &group.policies,
        }
    }
}

impl PolicyCounts {
    fn is_exact(&self) -> bool {
        self.counts.deny.is_some() || !self.can.contains(&Decision::Deny)
    }
}
