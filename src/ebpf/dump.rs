//! Parses a file in which Felix shows a policy program (`calico-bpf policy dump` prints it) → [`Program`]. Pure.
//!
//! Upstream: `felix/bpf/polprog/pol_prog_builder.go` adds comments and labels to the instructions, and `felix/bpf/asm/asm.go` has their
//! JSON format. A program is a sequence of tiers, policies and rules between comments:
//!
//! ```text
//! Start of tier default
//! Start of policy shop/knp.default.web                 (up to 3.31)
//! Start of KubernetesNetworkPolicy shop/web 0          (since 3.32, with a running number)
//! Start of rule action:"allow" protocol:{number:6}     (a rule in the form of protobuf; since 3.32 its owner's name comes first)
//! Rule MatchID: 1234567890123456789
//! End of rule …
//! End of tier default: deny
//! ```
//!
//! A rule that is only for the other address family, or that no packet can reach, has comments but no instructions.
//!
//! Rules outside any policy belong to profiles. The end of a tier, and the rule after the last profile, have no comments: their ID is in
//! the instruction that loads it. A policy without a name is not enforced: it is staged, or does not exist yet. It has no rules.
//!
//! In a workload's program, the policies of the host endpoint `*` come first. The label `allowed_by_host_policy` marks where the workload's
//! own begin. Comments and labels belong to the next instruction that is written, and unreachable instructions are not written. So the
//! instruction with that label has the last comments about the host's part and the first ones about the workload's ([`host_comments`]). A
//! comment about the end of a tier may belong to an instruction that does not end it ([`walk`]).

mod walk;

use std::borrow::Cow;

use serde::Deserialize;

use super::{Program, RuleId, UNNUMBERED};
use crate::felix::Direction;
use crate::ruleset::Family;
use walk::Walk;

/// Only the workload's own policies follow this label.
const WORKLOAD: &str = "allowed_by_host_policy";
/// The instruction that loads a 64-bit number, and the register into which Felix loads IDs.
const LOAD_64: u8 = 0x18;
const ID_REGISTER: u8 = 2;
/// The instruction that jumps, its maximum distance from the recording of a hit, and the label of the refusal of packets.
const JUMP: u8 = 0x05;
const AS_FAR_AS_JUMP: usize = 8;
const DENY: &str = "deny";
const TIER_STARTS: &str = "Start of tier ";
const TIER_ENDS: &str = "End of tier ";
const RULE_STARTS: &str = "Start of rule ";
const RULE_ENDS: &str = "End of rule";

#[derive(Deserialize)]
struct Dump<'a> {
    #[serde(borrow, default, rename = "ifacename")]
    interface: Cow<'a, str>,
    /// `null` if the program could not be built.
    #[serde(borrow, default, rename = "policyInfo")]
    instructions: Option<Vec<Instruction<'a>>>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Instruction<'a> {
    inst: [u8; 8],
    #[serde(borrow, default)]
    labels: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    comments: Vec<Cow<'a, str>>,
}

/// A parsed file name: `<interface>_<direction>_v<4|6>.json`. Calico 3.25 capitalises directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    pub interface: &'a str,
    /// The direction. XDP programs are for packets that enter through a host's interface.
    pub direction: Direction,
    pub family: Family,
    pub is_xdp: bool,
}

impl<'a> Name<'a> {
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, family) = name.strip_suffix(".json")?.rsplit_once("_v")?;
        let family = match family {
            "4" => Family::V4,
            "6" => Family::V6,
            _ => return None,
        };
        let (interface, direction) = rest.rsplit_once('_').filter(|(interface, _)| !interface.is_empty())?;
        let is_xdp = direction.eq_ignore_ascii_case("xdp");
        let direction = match () {
            () if is_xdp || direction.eq_ignore_ascii_case("ingress") => Direction::Ingress,
            () if direction.eq_ignore_ascii_case("egress") => Direction::Egress,
            () => return None,
        };
        Some(Name { interface, direction, family, is_xdp })
    }
}

pub fn parse(content: &[u8], name: Name) -> Result<Program, String> {
    let dump: Dump = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if dump.interface != name.interface {
        return Err(format!("it is about the interface {:?}", dump.interface));
    }
    if !dump.error.is_empty() {
        return Err(format!("Felix could not load the program: {}", dump.error));
    }
    let instructions = dump.instructions.unwrap_or_default();
    let mut walk = Walk::new(name.direction);
    let boundary = boundary(&instructions);
    for (at, instruction) in instructions.iter().enumerate() {
        let hosts = (Some(at) == boundary).then(|| host_comments(&instructions, at));
        walk.unrecognised += usize::from(hosts == Some(None));
        let hosts = hosts.map(|hosts| hosts.unwrap_or(instruction.comments.len()));
        for (index, comment) in instruction.comments.iter().enumerate() {
            if hosts == Some(index) {
                walk.host_ends();
            }
            walk.comment(comment);
        }
        if hosts == Some(instruction.comments.len()) {
            walk.host_ends();
        }
        walk.labels(&instruction.labels);
        if let Some(id) = loaded_id(&instructions, at) {
            walk.counts(id, jump_denies(&instructions, at));
        }
    }
    let (policies, rules, unrecognised) = walk.finish(boundary.is_some());
    let (interface, is_workload) = (name.interface.into(), boundary.is_some());
    let Name { direction, family, is_xdp, .. } = name;
    Ok(Program { interface, direction, family, is_workload, is_counted: !is_xdp, policies, rules, unrecognised })
}

/// Returns the index at which the workload's own part begins. Returns `None` for a host interface's program, in which nothing records a hit
/// after the label. A program that is too long is split, and long jumps are made in steps. Then the label occurs more than once, and the
/// last occurrence is the right one.
fn boundary(instructions: &[Instruction]) -> Option<usize> {
    let at = instructions.iter().rposition(|instruction| instruction.labels.iter().any(|label| label == WORKLOAD))?;
    (at..instructions.len()).any(|at| loaded_id(instructions, at).is_some()).then_some(at)
}

/// Returns how many comments on the first instruction of the workload's part are about the host's, or `None` if it is unknown.
fn host_comments(instructions: &[Instruction], boundary: usize) -> Option<usize> {
    let comments = &instructions[boundary].comments;
    let last = |start: &str| comments.iter().rposition(|comment| comment.starts_with(start));
    let (tier, rule) = (last(TIER_STARTS), last(RULE_STARTS));
    if let Some(rule) = rule.filter(|rule| last(RULE_ENDS).is_none_or(|end| end < *rule)) {
        // The instruction belongs to this rule, which is one of the tier that starts before it, or of a profile.
        let tier = tier.filter(|tier| last(TIER_ENDS).is_none_or(|end| end < *tier));
        return Some(tier.unwrap_or(rule));
    }
    // The instruction ends a tier, all of whose comments are here, or follows the last profile.
    let ends_a_tier = comments.last().is_some_and(|comment| comment.starts_with(TIER_ENDS));
    let Some(tier) = tier.filter(|_| ends_a_tier) else { return Some(comments.len()) };
    let mut later = boundary..instructions.len();
    let id = later.find_map(|at| loaded_id(instructions, at));
    let goes_on = later.any(|at| {
        loaded_id(instructions, at).is_some() || instructions[at].comments.iter().any(|comment| comment.starts_with(RULE_STARTS))
    });
    // Nothing follows the refusal of packets that no profile accepted, and it has no ID of its own.
    (goes_on || id.is_some_and(|id| id != UNNUMBERED)).then_some(tier)
}

fn loaded_id(instructions: &[Instruction], at: usize) -> Option<RuleId> {
    let [LOAD_64, ID_REGISTER, _, _, low @ ..] = instructions[at].inst else { return None };
    let [_, _, _, _, high @ ..] = instructions.get(at + 1)?.inst;
    Some(RuleId::from(u32::from_le_bytes(low)) | RuleId::from(u32::from_le_bytes(high)) << 32)
}

/// Reports whether the jump after a recorded hit refuses the packet. Returns `None` if no jump follows.
fn jump_denies(instructions: &[Instruction], at: usize) -> Option<bool> {
    let mut near = instructions.iter().enumerate().skip(at + 2).take(AS_FAR_AS_JUMP);
    let (at, offset) = near.find_map(|(at, jump)| match jump.inst {
        [JUMP, _, low, high, ..] => Some((at, i16::from_le_bytes([low, high]))),
        _ => None,
    })?;
    let target = instructions.get((at + 1).checked_add_signed(offset.into())?)?;
    Some(target.labels.iter().any(|label| label == DENY))
}

#[cfg(test)]
mod tests;
