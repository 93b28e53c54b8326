//! What the kernel told of one packet → witnesses: past which endpoints it went, and what decided there. Pure.
//!
//! The rule that carries a policy's match tells the decision, as it does where counters are read: see [`felix`](crate::felix). Rules
//! are known by their handles, which the kernel gives once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::felix::names::tells_decisions;
use crate::felix::{Decision, Direction, DropReason, EndpointKind, Structure};
use crate::kernel::nft;
use crate::kernel::trace::{Event, Fate, Packet, Step};
use crate::ruleset::{Backend, RuleId, Snapshot};

/// Packets under way at once; what is more is let go.
const MOST_TRACES: usize = 10_000;
/// Messages of one packet: a node's longest way through groups and policies is far shorter.
const MOST_EVENTS: usize = 2_000;
/// A packet whose end was not told by then will not be told any more: another program kept it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one packet met at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    pub time: SystemTime,
    pub packet: Packet,
    pub kind: EndpointKind,
    pub interface: Arc<str>,
    pub direction: Direction,
    /// What policies and profiles decided, in the order of evaluation. All but the last one passed the packet on.
    pub decisions: Vec<PolicyDecision>,
    pub end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDecision {
    /// Empty for profiles.
    pub tier: Arc<str>,
    /// As metrics name it.
    pub policy: Arc<str>,
    pub is_profile: bool,
    pub decision: Decision,
    /// The rule's place in the policy, from 0.
    pub rule: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The endpoint let it through.
    Accepted,
    /// A policy or profile refused it: the last decision.
    Denied,
    /// Refused, though no policy did; with the tier, for [`DropReason::NoPolicy`].
    Dropped { reason: DropReason, tier: Arc<str> },
    /// It was let through here, and refused by somebody else's rule, of this table and chain.
    DroppedElsewhere { table: String, chain: String },
}

impl End {
    pub fn is_accepted(&self) -> bool {
        *self == End::Accepted
    }
}

/// All that was told of one packet.
#[derive(Debug, Clone)]
pub struct Trace {
    pub time: SystemTime,
    begun: Instant,
    packet: Packet,
    events: Vec<Event>,
}

/// Puts messages together, packet by packet.
#[derive(Debug, Default)]
pub struct Traces {
    open: HashMap<u32, Trace>,
    /// Packets of which all was told.
    pub whole: u64,
}

impl Traces {
    /// Takes one message; a whole trace if it was the last one of its packet.
    pub fn take(&mut self, event: Event) -> Option<Trace> {
        let id = event.id;
        if event.marks() {
            // What others trace does not begin here.
            if let (Step::Rule { .. }, Some(packet)) = (event.step, event.packet) {
                let trace = Trace { time: SystemTime::now(), begun: Instant::now(), packet, events: Vec::new() };
                if self.open.len() < MOST_TRACES || self.open.contains_key(&id) {
                    self.open.insert(id, trace);
                }
            }
            return None;
        }
        let Entry::Occupied(mut trace) = self.open.entry(id) else { return None };
        let is_last = event.fate == Fate::Dropped || event.is_behind();
        if trace.get().events.len() < MOST_EVENTS {
            trace.get_mut().events.push(event);
        }
        self.whole += u64::from(is_last);
        is_last.then(|| trace.remove())
    }

    /// After messages were lost, nothing that is under way is whole.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    pub fn forget_old(&mut self, now: Instant) {
        self.open.retain(|_, trace| now.duration_since(trace.begun) < PATIENCE);
    }
}

/// What a rule tells of the packets that it matches.
#[derive(Debug, Clone)]
struct Meaning {
    /// The endpoint in whose chain the rule is.
    endpoint: Option<Arc<Endpoint>>,
    tells: Tells,
}

#[derive(Debug, Clone)]
enum Tells {
    /// Leads to a policy, or prepares something.
    Nothing,
    Decision(PolicyDecision),
    Drop {
        reason: DropReason,
        tier: Arc<str>,
    },
}

#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    kind: EndpointKind,
    interface: Arc<str>,
    direction: Direction,
}

/// Where a rule is, as the kernel tells it: `NFPROTO_…`, the table, the handle.
type Place = (u8, &'static str, u64);

/// The rules of one read.
#[derive(Debug, Default)]
pub struct Meanings(HashMap<Place, Meaning>);

impl Meanings {
    /// `structures` are those of these tables, in their order.
    pub fn new(tables: &[Snapshot], structures: &[Structure]) -> Self {
        let mut meanings = HashMap::new();
        for (table, structure) in tables.iter().zip(structures) {
            let place = |rule: RuleId| {
                let name = if table.ruleset.backend == Backend::Native { nft::Tables::Calico.name() } else { table.ruleset.table };
                (nft::protocol(table.ruleset.family), name, table.count(rule).handle)
            };
            for policy in structure.pipelines.policies() {
                let rules = table.ruleset.chain(policy.chain).rule_ids();
                meanings.extend(rules.map(|rule| (place(rule), Meaning { endpoint: None, tells: Tells::Nothing })));
                let Some(label) = structure.labels.get(policy.chain) else { continue };
                for rule in policy.rules.iter().filter(|rule| rule.decision != Decision::Log) {
                    let decision = PolicyDecision {
                        tier: Arc::clone(&label.tier),
                        policy: Arc::clone(&label.label),
                        is_profile: label.is_profile,
                        decision: rule.decision,
                        rule: rule.index,
                    };
                    meanings.insert(place(rule.rule), Meaning { endpoint: None, tells: Tells::Decision(decision) });
                }
            }
            for group in structure.pipelines.groups() {
                let rules = table.ruleset.chain(group.chain).rule_ids();
                meanings.extend(rules.map(|rule| (place(rule), Meaning { endpoint: None, tells: Tells::Nothing })));
            }
            for pipeline in &structure.pipelines.endpoints {
                let (interface, direction) = (Arc::clone(&pipeline.interface), pipeline.direction);
                let endpoint = Arc::new(Endpoint { kind: pipeline.kind, interface, direction });
                let mut add = |rule: RuleId, tells: Tells| {
                    meanings.insert(place(rule), Meaning { endpoint: Some(Arc::clone(&endpoint)), tells });
                };
                table.ruleset.chain(pipeline.chain).rule_ids().for_each(|rule| add(rule, Tells::Nothing));
                for drop in &pipeline.drops {
                    add(drop.rule, Tells::Drop { reason: drop.reason, tier: Arc::clone(&pipeline.profiles.name) });
                }
                for tier in &pipeline.tiers {
                    let tells = Tells::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(&tier.name) };
                    tier.end.into_iter().for_each(|end| add(end, tells.clone()));
                }
            }
        }
        Meanings(meanings)
    }

    /// What a packet met, endpoint after endpoint; `None` if it met rules of Calico's that are not known.
    pub fn witnesses(&self, trace: &Trace) -> Option<Vec<Witness>> {
        let mut found: Vec<(Arc<Endpoint>, Witness)> = Vec::new();
        for event in &trace.events {
            let Step::Rule { handle } = event.step else { continue };
            let is_dropped = event.fate == Fate::Dropped;
            let Some(meaning) = self.find(event, handle) else {
                let chain = event.chain.strip_prefix("filter-").unwrap_or(&event.chain);
                if tells_decisions("filter", chain) {
                    return None;
                }
                if is_dropped && let Some((_, witness)) = found.last_mut() {
                    witness.end = End::DroppedElsewhere { table: event.table.clone(), chain: event.chain.clone() };
                }
                continue;
            };
            if let Some(endpoint) = &meaning.endpoint
                && found.last().is_none_or(|(last, _)| last != endpoint)
            {
                found.push((Arc::clone(endpoint), Witness::new(trace, endpoint)));
            }
            let Some((_, witness)) = found.last_mut() else { continue };
            match &meaning.tells {
                Tells::Decision(decision) => {
                    witness.decisions.push(decision.clone());
                    if decision.decision == Decision::Deny {
                        witness.end = End::Denied;
                    }
                }
                // Limits of Calico's own tables let most packets pass.
                Tells::Drop { reason, tier } if is_dropped => witness.end = End::Dropped { reason: *reason, tier: Arc::clone(tier) },
                Tells::Drop { .. } | Tells::Nothing => {}
            }
        }
        if let Some(Event { step: Step::Policy, fate: Fate::Dropped, table, chain, .. }) = trace.events.last()
            && let Some((_, witness)) = found.last_mut()
        {
            witness.end = End::DroppedElsewhere { table: table.clone(), chain: chain.clone() };
        }
        Some(found.into_iter().map(|(_, witness)| witness).collect())
    }

    fn find(&self, event: &Event, handle: u64) -> Option<&Meaning> {
        let name = [nft::Tables::Calico.name(), "filter", "mangle", "raw"].into_iter().find(|name| **name == *event.table)?;
        self.0.get(&(event.family, name, handle))
    }
}

impl Witness {
    fn new(trace: &Trace, endpoint: &Endpoint) -> Self {
        Witness {
            time: trace.time,
            packet: trace.packet,
            kind: endpoint.kind,
            interface: Arc::clone(&endpoint.interface),
            direction: endpoint.direction,
            decisions: Vec::new(),
            end: End::Accepted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::trace::TABLE;

    const PACKET: Packet = Packet {
        protocol: 17,
        source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        destination: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        ports: None,
    };

    fn event(id: u32, table: &str, chain: &str, fate: Fate) -> Event {
        let (step, packet) = (Step::Rule { handle: 1 }, Some(PACKET));
        Event { id, family: 2, table: table.into(), chain: chain.into(), step, fate, packet }
    }

    #[test]
    fn a_trace_begins_with_our_mark_and_ends_with_its_packet() {
        let mut traces = Traces::default();
        let mark = |id| event(id, TABLE, "mark", Fate::GoesOn);
        let rule = |id| event(id, "filter", "cali-tw-cali1", Fate::GoesOn);
        // Somebody else's.
        assert!(traces.take(rule(7)).is_none() && traces.take(event(7, "filter", "x", Fate::Dropped)).is_none());
        // Two at once.
        for id in [1, 2] {
            assert!(traces.take(mark(id)).is_none() && traces.take(rule(id)).is_none());
        }
        assert_eq!(traces.take(event(1, "filter", "cali-tw-cali1", Fate::Dropped)).unwrap().events.len(), 2);
        assert_eq!(traces.take(event(2, TABLE, "forward-end", Fate::GoesOn)).unwrap().events.len(), 2);
        assert!(traces.take(rule(1)).is_none());
        // A packet whose end was not told, and another one that has its number now.
        for _ in 0..2 {
            assert!(traces.take(mark(3)).is_none() && traces.take(rule(3)).is_none());
        }
        assert_eq!(traces.take(event(3, TABLE, "input-end", Fate::GoesOn)).unwrap().events.len(), 2);
        assert_eq!(traces.whole, 3);
    }

    #[test]
    fn what_never_ends_is_let_go() {
        let mut traces = Traces::default();
        for id in 0..2 * MOST_TRACES as u32 {
            traces.take(event(id, TABLE, "mark", Fate::GoesOn));
        }
        for _ in 0..2 * MOST_EVENTS {
            traces.take(event(5, "filter", "x", Fate::GoesOn));
        }
        assert_eq!((traces.open.len(), traces.open[&5].events.len()), (MOST_TRACES, MOST_EVENTS));
        traces.forget_old(Instant::now() + PATIENCE);
        assert!(traces.open.is_empty());
    }

    /// A rule of an endpoint, a policy or a group that is not known may have decided.
    #[test]
    fn rules_that_are_not_known_are_not_guessed() {
        let trace = |chain: &str| {
            let mut traces = Traces::default();
            traces.take(event(1, TABLE, "mark", Fate::GoesOn));
            traces.take(event(1, "calico", chain, Fate::GoesOn));
            traces.take(event(1, TABLE, "forward-end", Fate::GoesOn)).unwrap()
        };
        let nothing = Meanings::default();
        for chain in ["cali-tw-cali1", "cali-pi-default.p", "filter-cali-gi-x", "filter-cali-pri-kns.default", "cali-fh-eth0"] {
            assert_eq!(nothing.witnesses(&trace(chain)), None, "{chain}");
        }
        for chain in ["FORWARD", "cali-FORWARD", "filter-cali-from-wl-dispatch", "KUBE-FORWARD"] {
            assert_eq!(nothing.witnesses(&trace(chain)), Some(vec![]), "{chain}");
        }
    }
}
