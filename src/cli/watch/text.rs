//! Witnesses as lines of text or JSON, and what was seen in all. Pure, but for names.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::super::terminal::{LONGEST, columns, safe};
use super::rules::Endpoints;
use crate::config::Watch;
use crate::datastore::inventory::{Inventory, Workload};
use crate::felix::{Decision, Direction, EndpointKind};
use crate::kernel::trace::{Marked, Packet};
use crate::os::logging::rfc3339;
use crate::witness::{End, Witness};

/// Rows of what was seen in all.
const MOST_ROWS: usize = 30;
/// Different rows that are counted.
const MOST_COUNTED: usize = 10_000;

/// Who has which address, as far as the datastore tells of this node.
pub struct Names {
    inventory: Arc<Inventory>,
    version: u64,
    by_address: HashMap<IpAddr, Arc<Workload>>,
}

impl Names {
    pub fn new(inventory: Arc<Inventory>) -> Self {
        Names { inventory, version: u64::MAX, by_address: HashMap::new() }
    }

    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The names of now.
    pub fn now(&mut self) -> &Self {
        let version = self.inventory.workloads_version();
        if version != self.version {
            self.version = version;
            let addresses = |workload: &Arc<Workload>| {
                let all = workload.ip.split(',').filter_map(|network| network.split('/').next()?.parse().ok());
                all.map(|address| (address, Arc::clone(workload))).collect::<Vec<_>>()
            };
            let living = self.inventory.workloads().into_iter().filter(|(_, workload)| !workload.is_finished);
            self.by_address = living.flat_map(|(_, workload)| addresses(&workload)).collect();
        }
        self
    }

    fn of_interface(&self, interface: &str) -> Option<String> {
        name(&*self.inventory.workload(interface)?)
    }

    fn of_address(&self, address: IpAddr) -> Option<String> {
        name(self.by_address.get(&address)?)
    }
}

fn name(workload: &Workload) -> Option<String> {
    (!workload.pod.is_empty()).then(|| format!("{}/{}", workload.namespace, workload.pod))
}

/// One witness, as `--json` prints it: see docs/api.md.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    time: String,
    direction: Direction,
    interface: String,
    /// Of a host endpoint: `normal` or `forward`.
    stage: Option<&'static str>,
    /// `NAMESPACE/POD`
    workload: Option<String>,
    /// The other side, where it is a pod of this node.
    peer: Option<String>,
    source: IpAddr,
    destination: IpAddr,
    protocol: String,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    /// `accept` or `drop`
    verdict: &'static str,
    /// `policy`, `profile`, or why it was dropped, as in `calico_accountant_drop_packets_total`; `other` for another program's rule, and
    /// `none` where nothing decided.
    reason: &'static str,
    tier: Option<String>,
    policy: Option<String>,
    /// The rule's place in the policy, from 0.
    rule: Option<u32>,
    /// The table and chain of another program.
    elsewhere: Option<String>,
    /// Policies that passed it on before: tier, policy, rule.
    passed: Vec<(String, String, u32)>,
}

impl Line {
    pub fn new(witness: &Witness, names: &Names) -> Self {
        let Packet { protocol, source, destination, ports } = witness.packet;
        let other = if witness.direction == Direction::Ingress { source } else { destination };
        let (passed, last): (Vec<_>, Vec<_>) = witness.decisions.iter().partition(|decision| decision.decision == Decision::Pass);
        let last = last.last();
        let of_decision = last.map_or("none", |last| if last.is_profile { "profile" } else { "policy" });
        let (verdict, reason, drop_tier, elsewhere) = match &witness.end {
            End::Accepted => ("accept", of_decision, None, None),
            End::Denied => ("drop", of_decision, None, None),
            End::Dropped { reason, tier } => ("drop", reason.as_str(), Some(tier), None),
            End::DroppedElsewhere { table, chain } => ("drop", "other", None, Some(format!("{table} {chain}"))),
        };
        let tier = last.map(|last| &last.tier).or(drop_tier).filter(|tier| !tier.is_empty());
        Line {
            time: rfc3339(witness.time),
            direction: witness.direction,
            interface: witness.interface.to_string(),
            stage: match witness.kind {
                EndpointKind::Workload => None,
                EndpointKind::Host(stage) => Some(stage.as_str()),
            },
            workload: names.of_interface(&witness.interface),
            peer: names.of_address(other),
            source,
            destination,
            protocol: protocol_name(protocol),
            source_port: ports.map(|(source, _)| source),
            destination_port: ports.map(|(_, destination)| destination),
            verdict,
            reason,
            tier: tier.map(|tier| tier.to_string()),
            policy: last.map(|last| last.policy.to_string()),
            rule: last.map(|last| last.rule),
            elsewhere,
            passed: passed.iter().map(|pass| (pass.tier.to_string(), pass.policy.to_string(), pass.rule)).collect(),
        }
    }

    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// The endpoint, an arrow, the other side, and what was asked for there.
    fn way(&self) -> [String; 4] {
        let (other, arrow) = match self.direction {
            Direction::Ingress => (self.source, "<-"),
            Direction::Egress => (self.destination, "->"),
        };
        let endpoint = safe(self.workload.as_deref().unwrap_or(&self.interface), LONGEST);
        let peer = self.peer.as_ref().map_or_else(|| other.to_string(), |peer| safe(peer, LONGEST));
        let port = self.destination_port.map_or_else(String::new, |port| format!("/{port}"));
        [endpoint, arrow.to_owned(), peer, format!("{}{port}", self.protocol)]
    }

    /// What decided.
    fn because(&self) -> String {
        let tier = self.tier.as_ref().map_or_else(String::new, |tier| format!(" (tier {})", safe(tier, LONGEST)));
        match (&self.policy, self.reason) {
            (_, "other") => format!("by another program: {}", safe(self.elsewhere.as_deref().unwrap_or_default(), LONGEST)),
            (_, "no_policy") => format!("no policy matched{tier}"),
            (Some(policy), reason @ ("policy" | "profile")) => {
                let rule = self.rule.map_or_else(String::new, |rule| format!(" rule {rule}"));
                let kind = if reason == "profile" { "profile " } else { "" };
                format!("{kind}{}{rule}{tier}", safe(policy, LONGEST))
            }
            (_, reason) => reason.to_owned(),
        }
    }

    pub fn text(&self) -> String {
        let [endpoint, arrow, peer, port] = self.way();
        // The date is that of now.
        let time = self.time.split_once('T').map_or(&*self.time, |(_, time)| time);
        let from = match (self.direction, self.source_port) {
            (Direction::Ingress, Some(port)) => format!(":{port}"),
            _ => String::new(),
        };
        format!("{time} {endpoint} {arrow} {peer}{from} {port} {:6} {}", self.verdict, self.because())
    }
}

fn protocol_name(protocol: u8) -> String {
    match i32::from(protocol) {
        libc::IPPROTO_TCP => "tcp".to_owned(),
        libc::IPPROTO_UDP => "udp".to_owned(),
        libc::IPPROTO_SCTP => "sctp".to_owned(),
        libc::IPPROTO_ICMP => "icmp".to_owned(),
        libc::IPPROTO_ICMPV6 => "icmpv6".to_owned(),
        _ => format!("protocol-{protocol}"),
    }
}

/// What was shown, counted by everything but time and source port.
#[derive(Debug, Default)]
pub struct Seen {
    rows: BTreeMap<Vec<String>, u64>,
    pub packets: u64,
}

impl Seen {
    pub fn add(&mut self, line: Line) {
        self.packets += 1;
        let row: Vec<String> = line.way().into_iter().chain([line.verdict.to_owned(), line.because()]).collect();
        if self.rows.len() < MOST_COUNTED || self.rows.contains_key(&row) {
            *self.rows.entry(row).or_default() += 1;
        }
    }

    /// A table, the most frequent first.
    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut rows: Vec<(&Vec<String>, &u64)> = self.rows.iter().collect();
        rows.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
        let more = rows.len().saturating_sub(MOST_ROWS);
        let table: Vec<Vec<String>> =
            rows.iter().take(MOST_ROWS).map(|(row, packets)| [vec![packets.to_string()], row.to_vec()].concat()).collect();
        let mut text = format!("\n{}\n", columns(&table, 0..1).join("\n"));
        if more > 0 {
            text.push_str(&format!("and {more} more\n"));
        }
        text
    }
}

pub fn heading(watch: &Watch, endpoints: &Endpoints) -> String {
    let whose = match (&watch.endpoint, &endpoints.interfaces) {
        (Some(endpoint), _) => safe(endpoint, LONGEST),
        (None, Some(interfaces)) => format!("{} endpoints", interfaces.len()),
        (None, None) => "all interfaces".to_owned(),
    };
    let rate = watch.rate;
    format!("Watching packets of {whose} that open a connection or belong to none, at most {rate} a second. Ctrl-C ends it.")
}

pub fn summary(seen: &Seen, marked: Marked, lost: u64, unclear: u64, rate: u32) -> String {
    let Marked { seen: all, marked } = marked;
    let sample = match all > marked {
        true => format!("{marked} of {all} packets were traced (at most {rate} a second)"),
        false => format!("all {all} packets were traced"),
    };
    let mut text = format!("{sample}; {} shown", seen.packets);
    if lost > 0 {
        text.push_str(&format!("; {lost} were lost"));
    }
    if unclear > 0 {
        text.push_str(&format!("; {unclear} hit rules that were being changed"));
    }
    text
}
