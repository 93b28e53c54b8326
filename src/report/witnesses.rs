//! Packets that were traced, as the API, the page and `watch` show them, and the last ones of each kind. Pure, except for names.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::datastore::addresses::Addresses;
use crate::datastore::inventory::Workload;
use crate::felix::{Decision, Direction, EndpointKind};
use crate::kernel::trace::Packet;
use crate::os::logging::rfc3339;
use crate::ruleset::protocol_name;
use crate::witness::{End, Witness};

/// One witness: see docs/api.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub time: String,
    pub source_port: Option<u16>,
    /// Policies that passed it before: tier, policy, rule.
    pub passed: Vec<(String, String, u32)>,
    #[serde(flatten)]
    pub flow: Flow,
}

/// What packets have in common that one side sends to the other and that get the same decision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    pub direction: Direction,
    pub interface: String,
    /// For a host endpoint: `normal` or `forward`.
    pub stage: Option<Cow<'static, str>>,
    /// `NAMESPACE/POD`
    pub workload: Option<String>,
    /// Its `app` label.
    pub app: Option<String>,
    /// The other side, if it is a pod of this node.
    pub peer: Option<String>,
    pub peer_app: Option<String>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: String,
    pub destination_port: Option<u16>,
    /// `accept` or `drop`
    pub verdict: Cow<'static, str>,
    /// `policy`, `profile`, or why it was dropped, as in `calico_accountant_drop_packets_total`; `other` for another program's rule, and
    /// `none` if nothing decided.
    pub reason: Cow<'static, str>,
    pub tier: Option<String>,
    pub policy: Option<String>,
    /// The rule's place in the policy, from 0.
    pub rule: Option<u32>,
    /// The table and chain of another program.
    pub elsewhere: Option<String>,
}

impl Line {
    pub fn new(witness: &Witness, addresses: &Addresses) -> Self {
        let passed = witness.decisions.iter().filter(|decision| decision.decision == Decision::Pass);
        Line {
            time: rfc3339(witness.time),
            source_port: witness.packet.ports.map(|(source, _)| source),
            passed: passed.map(|pass| (pass.tier.to_string(), pass.policy.to_string(), pass.rule)).collect(),
            flow: Flow::new(witness, addresses),
        }
    }

    /// Whether this policy decided or passed it.
    pub fn met(&self, policy: &str) -> bool {
        self.flow.policy.as_deref() == Some(policy) || self.passed.iter().any(|(_, passed, _)| passed == policy)
    }

    pub fn text(&self) -> String {
        let [endpoint, arrow, peer, port] = self.flow.way();
        // The date is today's.
        let time = self.time.split_once('T').map_or(&*self.time, |(_, time)| time);
        let from = match (self.flow.direction, self.source_port) {
            (Direction::Ingress, Some(port)) => format!(":{port}"),
            _ => String::new(),
        };
        format!("{time} {endpoint} {arrow} {peer}{from} {port} {:6} {}", self.flow.verdict, self.flow.because())
    }
}

impl Flow {
    fn new(witness: &Witness, addresses: &Addresses) -> Self {
        let Packet { protocol, source, destination, ports } = witness.packet;
        let other = if witness.endpoint.direction == Direction::Ingress { source } else { destination };
        let (workload, peer) = (addresses.pod_on(&witness.endpoint.interface), addresses.pod_at(other));
        let last = witness.decisions.iter().rfind(|decision| decision.decision != Decision::Pass);
        let of_decision = last.map_or("none", |last| if last.is_profile { "profile" } else { "policy" });
        let (verdict, reason, drop_tier, elsewhere) = match &witness.end {
            End::Accepted => ("accept", of_decision, None, None),
            End::Denied => ("drop", of_decision, None, None),
            End::Dropped { reason, tier } => ("drop", reason.as_str(), Some(tier), None),
            End::DroppedElsewhere { table, chain } => ("drop", "other", None, Some(format!("{table} {chain}"))),
        };
        let tier = last.map(|last| &last.tier).or(drop_tier).filter(|tier| !tier.is_empty());
        Flow {
            direction: witness.endpoint.direction,
            interface: witness.endpoint.interface.to_string(),
            stage: match witness.endpoint.kind {
                EndpointKind::Workload => None,
                EndpointKind::Host(stage) => Some(stage.as_str().into()),
            },
            workload: workload.as_deref().map(name),
            app: workload.as_deref().and_then(app),
            peer: peer.map(|peer| name(peer)),
            peer_app: peer.and_then(|peer| app(peer)),
            source,
            destination,
            protocol: protocol_name(protocol),
            destination_port: ports.map(|(_, destination)| destination),
            verdict: verdict.into(),
            reason: reason.into(),
            tier: tier.map(|tier| tier.to_string()),
            policy: last.map(|last| last.policy.to_string()),
            rule: last.map(|last| last.rule),
            elsewhere,
        }
    }

    /// Returns the endpoint, an arrow, the other side, and the protocol and port.
    pub fn way(&self) -> [String; 4] {
        let (other, arrow) = match self.direction {
            Direction::Ingress => (self.source, "<-"),
            Direction::Egress => (self.destination, "->"),
        };
        let endpoint = self.workload.as_ref().unwrap_or(&self.interface).clone();
        let peer = self.peer.clone().unwrap_or_else(|| other.to_string());
        let port = self.destination_port.map_or_else(String::new, |port| format!("/{port}"));
        [endpoint, arrow.to_owned(), peer, format!("{}{port}", self.protocol)]
    }

    /// Returns what decided.
    pub fn because(&self) -> String {
        let tier = self.tier.as_ref().map_or_else(String::new, |tier| format!(" (tier {tier})"));
        match (&self.policy, &*self.reason) {
            (_, "other") => format!("by another program: {}", self.elsewhere.as_deref().unwrap_or_default()),
            (_, "no_policy") => format!("no policy matched{tier}"),
            (Some(policy), reason @ ("policy" | "profile")) => {
                let rule = self.rule.map_or_else(String::new, |rule| format!(" rule {rule}"));
                let kind = if reason == "profile" { "profile " } else { "" };
                format!("{kind}{policy}{rule}{tier}")
            }
            (_, reason) => reason.to_owned(),
        }
    }

    /// Whether this policy accepted it.
    pub fn is_accepted_by(&self, policy: &str) -> bool {
        self.policy.as_deref() == Some(policy) && self.verdict == "accept"
    }
}

fn name(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.pod)
}

fn app(workload: &Workload) -> Option<String> {
    Some(workload.app.clone()).filter(|app| !app.is_empty())
}

/// The most lines of one kind that are kept.
const MOST_OF_A_KIND: usize = 20;
const MOST_LINES: usize = 4_000;

/// The last witnesses: some of each endpoint, verdict, reason and policy, so that a flood of one kind does not remove the rest.
#[derive(Debug, Default)]
pub struct Recent {
    /// Lines, with the time when they were read.
    kinds: HashMap<Kind, VecDeque<(Milliseconds, Arc<Line>)>>,
    lines: usize,
    last_read: Milliseconds,
}

/// Since 1970. Whole numbers, so that a client that asks for what came after the last answer's time gets no line twice and misses none.
pub type Milliseconds = u64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    interface: String,
    direction: Direction,
    verdict: Cow<'static, str>,
    reason: Cow<'static, str>,
    tier: Option<String>,
    policy: Option<String>,
}

impl Recent {
    /// Begins a read. Lines that are added from now on were read now, and later than all before, even if the clock goes back.
    pub fn read(&mut self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Milliseconds);
        self.last_read = now.max(self.last_read + 1);
    }

    pub fn add(&mut self, line: Arc<Line>) {
        let Flow { interface, direction, verdict, reason, tier, policy, .. } = line.flow.clone();
        let lines = self.kinds.entry(Kind { interface, direction, verdict, reason, tier, policy }).or_default();
        lines.push_back((self.last_read, line));
        self.lines += 1;
        if lines.len() > MOST_OF_A_KIND {
            lines.pop_front();
            self.lines -= 1;
        }
        while self.lines > MOST_LINES {
            // Removes the kind that was not seen for the longest time.
            let oldest = self.kinds.iter().min_by_key(|(_, lines)| lines.back().map(|(time, _)| *time)).map(|(kind, _)| kind.clone());
            let removed = oldest.and_then(|kind| self.kinds.remove(&kind));
            self.lines -= removed.map_or(self.lines, |lines| lines.len());
        }
    }

    /// Returns the lines that were read after this moment, in the order of time.
    pub fn since(&self, since: Option<Milliseconds>) -> Vec<Arc<Line>> {
        let mut all: Vec<_> = self.kinds.values().flatten().filter(|(read, _)| since.is_none_or(|since| *read > since)).collect();
        all.sort_by(|(a_read, a), (b_read, b)| (a_read, &a.time).cmp(&(b_read, &b.time)));
        all.into_iter().map(|(_, line)| Arc::clone(line)).collect()
    }

    /// Returns the time of the last read in seconds; `None` before the first.
    pub fn last_read(&self) -> Option<f64> {
        (self.last_read > 0).then(|| self.last_read as f64 / 1e3)
    }
}

/// The answer of `/api/v1/witnesses`: see docs/api.md.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WitnessesAnswer {
    #[serde(flatten)]
    pub tracing: TracingStatus,
    pub witnesses: Vec<Arc<Line>>,
}

/// How packets are traced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracingStatus {
    /// `off`, `drops` or `groups`.
    pub mode: Cow<'static, str>,
    pub rate: u32,
    /// When the last ones were read.
    pub time: Option<f64>,
    /// Why packets cannot be traced.
    pub problem: Option<String>,
    /// Packets that opened a connection, or belonged to none, while their endpoints were watched. `traced` is how many of them were traced.
    pub seen: u64,
    pub traced: u64,
    /// Traced packets without a whole trace.
    pub lost: u64,
    /// Traced packets that met rules while these were changed.
    pub unclear: u64,
}

impl Default for TracingStatus {
    fn default() -> Self {
        TracingStatus { mode: "off".into(), rate: 0, time: None, problem: None, seen: 0, traced: 0, lost: 0, unclear: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_pushes_out_nothing_else() {
        let line = |interface: &str, policy: &str, second: u64| -> Arc<Line> {
            let at = UNIX_EPOCH + std::time::Duration::from_secs(second);
            serde_json::from_value(serde_json::json!({
                "time": rfc3339(at), "direction": "ingress", "interface": interface, "stage": null, "workload": null, "app": null,
                "peer": null, "peer_app": null, "source": "192.0.2.1", "destination": "192.0.2.1", "protocol": "udp", "source_port": null,
                "destination_port": null, "verdict": "drop", "reason": "policy", "tier": null, "policy": policy, "rule": null,
                "elsewhere": null, "passed": []
            }))
            .unwrap()
        };
        let mut recent = Recent::default();
        let mut add = |interface: &str, policy: &str, second: u64| {
            recent.read(UNIX_EPOCH + std::time::Duration::from_secs(second));
            recent.add(line(interface, policy, second));
        };
        add("cali1", "default.rare", 1);
        (2..1000).for_each(|second| add("cali1", "default.flood", second));
        // The clock goes back.
        add("cali1", "default.flood", 500);
        assert_eq!((recent.since(None).len(), recent.since(Some(989_000)).len()), (1 + MOST_OF_A_KIND, 11));
        assert_eq!((recent.last_read(), recent.since(Some(999_000)).len(), recent.since(Some(999_001)).len()), (Some(999.001), 1, 0));
        assert_eq!(recent.since(None)[0].flow.policy.as_deref(), Some("default.rare"));
        for second in 1000..11_000 {
            recent.read(UNIX_EPOCH + std::time::Duration::from_secs(second));
            recent.add(line(&format!("cali{second}"), "default.p", second));
        }
        assert_eq!((recent.since(None).len(), recent.lines), (MOST_LINES, MOST_LINES));
    }
}
