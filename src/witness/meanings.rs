//! What each rule shows of the packets that it matches, and from that, what a packet met. Rules are identified by their handles. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::traces::{Place, Trace};
use super::{End, Endpoint, PolicyDecision, Witness};
use crate::felix::{Decision, DropReason, Pipeline, Structure};
use crate::kernel::nft;
use crate::ruleset::{Backend, RuleId, Snapshot};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Meaning {
    /// The endpoint in whose chain the rule is.
    endpoint: Option<Arc<Endpoint>>,
    tells: Tells,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tells {
    /// Only prepares something.
    Nothing,
    /// Leads to a policy of this tier, or counts what none decided. So no policy before it has decided.
    Undecided {
        tier: Arc<str>,
    },
    Decision(Arc<PolicyDecision>),
    /// A policy or profile accepted it.
    Accepted,
    Drop {
        reason: DropReason,
        tier: Arc<str>,
    },
}

/// The rules of one read.
#[derive(Debug, Default)]
pub struct Meanings(HashMap<Place, Meaning>);

impl Meanings {
    /// `structures` are those of these tables, in their order.
    pub fn new(tables: &[Snapshot], structures: &[Structure]) -> Self {
        let mut meanings = HashMap::new();
        for (table, structure) in tables.iter().zip(structures) {
            let name = if table.ruleset.backend == Backend::Native { nft::Tables::Calico.name() } else { table.ruleset.table };
            let family = nft::protocol(table.ruleset.family);
            let mut add = |rule: RuleId, endpoint: Option<&Arc<Endpoint>>, tells: Tells| {
                let place = Place { family, table: name, handle: table.count(rule).handle };
                meanings.insert(place, Meaning { endpoint: endpoint.cloned(), tells });
            };
            let chains = structure.pipelines.policies().map(|policy| policy.chain);
            for chain in chains.chain(structure.pipelines.groups().map(|group| group.chain)) {
                table.ruleset.chain(chain).rule_ids().for_each(|rule| add(rule, None, Tells::Nothing));
            }
            decisions(structure, &mut |rule, decision| add(rule, None, Tells::Decision(decision)));
            for pipeline in &structure.pipelines.endpoints {
                let endpoint = Arc::new(Endpoint {
                    table: table.ruleset.id(),
                    chain: Arc::clone(&table.ruleset.chain(pipeline.chain).name),
                    kind: pipeline.kind,
                    interface: Arc::clone(&pipeline.interface),
                    direction: pipeline.direction,
                });
                table.ruleset.chain(pipeline.chain).rule_ids().for_each(|rule| add(rule, Some(&endpoint), Tells::Nothing));
                of_endpoint(pipeline, &mut |rule, tells| add(rule, Some(&endpoint), tells));
            }
        }
        Meanings(meanings)
    }
}

fn decisions(structure: &Structure, add: &mut impl FnMut(RuleId, Arc<PolicyDecision>)) {
    for policy in structure.pipelines.policies() {
        let Some(label) = structure.labels.get(policy.chain) else { continue };
        for rule in policy.rules.iter().filter(|rule| rule.decision != Decision::Log) {
            let decision = PolicyDecision {
                chain: Arc::clone(&structure.ruleset.chain(policy.chain).name),
                tier: Arc::clone(&label.tier),
                policy: Arc::clone(&label.label),
                is_profile: label.is_profile,
                decision: rule.decision,
                rule: rule.index,
            };
            add(rule.rule, Arc::new(decision));
        }
    }
}

fn of_endpoint(pipeline: &Pipeline, add: &mut impl FnMut(RuleId, Tells)) {
    for tier in pipeline.tiers.iter().chain([&pipeline.profiles]) {
        let undecided = || Tells::Undecided { tier: Arc::clone(&tier.name) };
        for target in &tier.targets {
            add(target.jump, undecided());
            target.accepted.into_iter().for_each(|rule| add(rule, Tells::Accepted));
        }
        tier.end_log.into_iter().for_each(|rule| add(rule, undecided()));
    }
    for drop in &pipeline.drops {
        add(drop.rule, Tells::Drop { reason: drop.reason, tier: Arc::clone(&pipeline.profiles.name) });
    }
    for tier in &pipeline.tiers {
        let tells = Tells::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(&tier.name) };
        tier.end.into_iter().for_each(|end| add(end, tells.clone()));
    }
}

/// Returns what a packet met, endpoint by endpoint. `None` if that is not clear: it met rules that are in neither read, or that differ
/// between the reads, or that contradict each other.
pub fn witnesses(trace: &Trace, before: &Meanings, now: &Meanings) -> Option<Vec<Witness>> {
    let mut found: Vec<Passage> = Vec::new();
    for (place, is_dropped) in &trace.steps {
        let meaning = match (before.0.get(place), now.0.get(place)) {
            (Some(before), Some(now)) => Some(now).filter(|now| *now == before),
            (before, now) => before.or(now),
        }?;
        if let Some(endpoint) = &meaning.endpoint
            && found.last().is_none_or(|passage| *passage.witness.endpoint != **endpoint)
        {
            found.push(Passage::new(trace, endpoint));
        }
        if let Some(passage) = found.last_mut() {
            passage.meet(meaning, *is_dropped)?;
        }
    }
    let mut found: Vec<Witness> = found.into_iter().map(Passage::end).collect::<Option<_>>()?;
    if let (Some((table, chain)), Some(witness)) = (&trace.refused_by, found.last_mut()) {
        witness.end = End::DroppedElsewhere { table: Arc::clone(table), chain: Arc::clone(chain) };
    }
    Some(found)
}

/// A packet's way through one endpoint.
struct Passage {
    witness: Witness,
    /// The last decision, until the endpoint's rules confirm it.
    decided: Option<Decision>,
}

impl Passage {
    fn new(trace: &Trace, endpoint: &Arc<Endpoint>) -> Self {
        let (endpoint, decisions, end) = (Arc::clone(endpoint), Vec::new(), End::Accepted);
        Passage { witness: Witness { time: trace.time, packet: trace.packet, endpoint, decisions, end }, decided: None }
    }

    /// Returns `None` if this cannot come after what was met before, because a rule was replaced by another one for a while.
    fn meet(&mut self, meaning: &Meaning, is_dropped: bool) -> Option<()> {
        match &meaning.tells {
            Tells::Decision(decision) => {
                self.witness.decisions.push(Arc::clone(decision));
                self.decided = Some(decision.decision);
            }
            Tells::Accepted if self.decided != Some(Decision::Accept) => return None,
            Tells::Accepted => self.decided = None,
            Tells::Undecided { tier } | Tells::Drop { tier, .. } if self.has_decided(tier) => return None,
            // Limits in Calico's own tables let most packets pass.
            Tells::Drop { reason, tier } if is_dropped => {
                self.witness.end = End::Dropped { reason: *reason, tier: Arc::clone(tier) };
                return Some(());
            }
            Tells::Undecided { .. } | Tells::Drop { .. } => self.decided = None,
            Tells::Nothing => {}
        }
        match (is_dropped, self.decided) {
            (true, Some(Decision::Deny)) => (self.witness.end, self.decided) = (End::Denied, None),
            (true, _) => return None,
            (false, _) => {}
        }
        Some(())
    }

    /// Whether a policy has decided, so that no other policy of this tier is asked.
    fn has_decided(&self, tier: &Arc<str>) -> bool {
        let passed = || self.witness.decisions.last().is_some_and(|last| !last.is_profile && last.tier == *tier);
        match self.decided {
            Some(Decision::Accept | Decision::Deny) => true,
            Some(Decision::Pass) => passed(),
            Some(Decision::Log) | None => false,
        }
    }

    fn end(self) -> Option<Witness> {
        (!matches!(self.decided, Some(Decision::Accept | Decision::Deny))).then_some(self.witness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::trace::{Event, Fate, Packet, Step, TABLE};
    use crate::witness::traces::Traces;

    /// An unknown rule of an endpoint, a policy or a group may have decided.
    #[test]
    fn rules_that_are_not_known_are_not_guessed() {
        let event = |table: &str, chain: &str| {
            let address = std::net::Ipv4Addr::LOCALHOST.into();
            let packet = Packet { protocol: 17, source: address, destination: address, ports: None };
            let (table, chain, step) = (table.into(), chain.into(), Step::Rule { handle: 1 });
            Event { id: 1, family: 2, table, chain, step, fate: Fate::GoesOn, packet: Some(packet) }
        };
        let trace = |chain: &str| {
            let mut traces = Traces::default();
            traces.take(event(TABLE, "mark"));
            traces.take(event("calico", chain));
            traces.take(event(TABLE, "forward-end")).unwrap()
        };
        let nothing = Meanings::default();
        for chain in ["cali-tw-cali1", "cali-pi-default.p", "filter-cali-gi-x", "filter-cali-pri-kns.default", "cali-fh-eth0"] {
            assert_eq!(witnesses(&trace(chain), &nothing, &nothing), None, "{chain}");
        }
        for chain in ["FORWARD", "cali-FORWARD", "filter-cali-from-wl-dispatch", "KUBE-FORWARD"] {
            assert_eq!(witnesses(&trace(chain), &nothing, &nothing), Some(vec![]), "{chain}");
        }
    }
}
