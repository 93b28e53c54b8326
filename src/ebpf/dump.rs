//! A file in which Felix shows a policy program (`calico-bpf policy dump` prints it) → [`Program`]. Pure.
//!
//! Upstream: `felix/bpf/polprog/pol_prog_builder.go`, which puts comments and labels on the instructions, and `felix/bpf/asm/asm.go` for
//! their form in JSON. A program is a sequence of tiers, policies and rules between comments:
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
//! A rule that is only for the other address family, or that no packet can reach, has its comments, but no instructions.
//!
//! Rules that no policy surrounds are those of profiles. What ends a tier, or follows the last profile, is a rule without comments: its
//! id is in the instruction that loads it. Rules of the host endpoint of all interfaces come first in a workload's program; the label
//! `allowed_by_host_policy` separates them.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use super::{Known, Owner, Policy, Program, Rule, RuleId};
use crate::felix::{Decision, Direction, PolicyName};
use crate::ruleset::Family;

/// Behind this label only the workload's own policies are.
const WORKLOAD: &str = "allowed_by_host_policy";
/// The instruction that loads a number of 64 bits, and the register that Felix loads ids into.
const LOAD_64: u8 = 0x18;
const ID_REGISTER: u8 = 2;

#[derive(Deserialize)]
struct Dump<'a> {
    #[serde(borrow, default, rename = "ifacename")]
    interface: Cow<'a, str>,
    /// `null` where the program could not be built.
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

/// What a file's name says: `<interface>_<direction>_v<4|6>.json`. Directions are capitalised in Calico 3.25; `xdp` programs are what
/// comes in through a host's interface. `None` for other files.
pub fn parse_name(name: &str) -> Option<(&str, Direction, Family)> {
    let (rest, family) = name.strip_suffix(".json")?.rsplit_once("_v")?;
    let family = match family {
        "4" => Family::V4,
        "6" => Family::V6,
        _ => return None,
    };
    let (interface, direction) = rest.rsplit_once('_').filter(|(interface, _)| !interface.is_empty())?;
    let direction = match () {
        () if direction.eq_ignore_ascii_case("ingress") || direction.eq_ignore_ascii_case("xdp") => Direction::Ingress,
        () if direction.eq_ignore_ascii_case("egress") => Direction::Egress,
        () => return None,
    };
    Some((interface, direction, family))
}

/// Takes a file apart.
///
/// # Errors
/// It is cut short or no JSON of Felix's, is about another interface than its name says, or Felix could not load the program.
pub fn parse(content: &[u8], interface: &str, direction: Direction, family: Family) -> Result<Program, String> {
    let dump: Dump = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if dump.interface != interface {
        return Err(format!("it is about the interface {:?}", dump.interface));
    }
    if !dump.error.is_empty() {
        return Err(format!("Felix could not load the program: {}", dump.error));
    }
    let mut walk = Walk::new(direction);
    let instructions = dump.instructions.unwrap_or_default();
    for (at, instruction) in instructions.iter().enumerate() {
        instruction.labels.iter().filter(|label| *label == WORKLOAD).for_each(|_| walk.host_ends());
        instruction.comments.iter().for_each(|comment| walk.comment(comment));
        if let Some(id) = loaded_id(instruction, instructions.get(at + 1)) {
            walk.counts(id);
        }
    }
    Ok(walk.finish(interface, family))
}

fn loaded_id(instruction: &Instruction, next: Option<&Instruction>) -> Option<RuleId> {
    let [LOAD_64, ID_REGISTER, _, _, low @ ..] = instruction.inst else { return None };
    let [_, _, _, _, high @ ..] = next?.inst;
    Some(RuleId::from(u32::from_le_bytes(low)) | RuleId::from(u32::from_le_bytes(high)) << 32)
}

/// Where in the program the walk is.
struct Walk {
    direction: Direction,
    policies: Vec<(Arc<Policy>, bool)>,
    rules: Vec<Rule>,
    /// Policies and rules up to here are the host endpoint's.
    hosts: (usize, usize),
    /// Whether the label was seen: a program without it says nothing about a workload.
    has_label: bool,
    tier: Arc<str>,
    policy: Option<Arc<Policy>>,
    /// The place of the next rule in its policy.
    index: u32,
    rule: Option<Started>,
    /// A tier's end whose id is still to come, and what it does.
    end_of_tier: Option<Decision>,
    unrecognised: usize,
}

/// A rule whose comments have begun.
struct Started {
    owner: Owner,
    decision: Option<Decision>,
    id: Option<RuleId>,
    /// Whether an instruction loads the id.
    counts: bool,
}

impl Walk {
    fn new(direction: Direction) -> Self {
        Walk {
            direction,
            policies: Vec::new(),
            rules: Vec::new(),
            hosts: (0, 0),
            has_label: false,
            tier: "".into(),
            policy: None,
            index: 0,
            rule: None,
            end_of_tier: None,
            unrecognised: 0,
        }
    }

    fn host_ends(&mut self) {
        // Where a program is too long and split, the label comes more than once: the last one counts.
        (self.hosts, self.has_label) = ((self.policies.len(), self.rules.len()), true);
    }

    fn comment(&mut self, comment: &str) {
        let start = comment.strip_prefix("Start of ");
        if let Some(tier) = start.and_then(|rest| rest.strip_prefix("tier ")) {
            self.tier = tier.into();
        } else if let Some(rule) = start.and_then(|rest| rest.strip_prefix("rule ")) {
            self.rule_starts(rule);
        } else if let Some(id) = comment.strip_prefix("Rule MatchID: ") {
            if let Some(rule) = &mut self.rule {
                rule.id = parse_id(id);
            }
        } else if comment.starts_with("End of rule") {
            self.rule_ends();
        } else if let Some(end) = comment.strip_prefix("End of tier ") {
            let action = end.strip_prefix(&*self.tier).and_then(|rest| rest.strip_prefix(": "));
            self.end_of_tier = Some(if action == Some("pass") { Decision::Pass } else { Decision::Deny });
        } else if let Some(policy) = start {
            self.policy = policy_name(policy).map(|name| Arc::new(Policy::new(name, &self.tier)));
            self.policies.extend(self.policy.clone().map(|policy| (policy, true)));
            self.unrecognised += usize::from(self.policy.is_none());
            self.index = 0;
        } else if comment.strip_prefix("End of ").is_some_and(|rest| policy_name(rest).is_some()) {
            self.policy = None;
        }
    }

    fn rule_starts(&mut self, text: &str) {
        self.rule_ends();
        let owner = match &self.policy {
            Some(policy) => {
                let index = self.index;
                self.index += 1;
                Owner::Policy(Arc::clone(policy), index)
            }
            None => Owner::Profile(owner_of(text).map(Into::into)),
        };
        self.rule = Some(Started { owner, decision: action_of(text), id: None, counts: false });
    }

    fn rule_ends(&mut self) {
        match self.rule.take() {
            Some(Started { owner, decision: Some(decision), id: Some(id), counts }) => self.push(id, owner, decision, counts),
            Some(_) => self.unrecognised += 1,
            None => {}
        }
    }

    /// An instruction loads an id: the rule's, as its comment says, or that of a rule without comments.
    fn counts(&mut self, id: RuleId) {
        match (&mut self.rule, self.end_of_tier.take()) {
            (Some(rule), end) => {
                // It would count under another id than the comment says: not understood.
                rule.id = rule.id.filter(|commented| *commented == id);
                rule.counts = true;
                self.end_of_tier = end;
            }
            (None, Some(decision)) => self.push(id, Owner::EndOfTier(Arc::clone(&self.tier)), decision, true),
            (None, None) => self.push(id, Owner::NoProfile, Decision::Deny, true),
        }
    }

    fn push(&mut self, id: RuleId, owner: Owner, decision: Decision, counts: bool) {
        let known = Known { owner, decision, direction: self.direction };
        self.rules.push(Rule { id, known, is_workloads: true, counts });
    }

    fn finish(mut self, interface: &str, family: Family) -> Program {
        self.rule_ends();
        if !self.has_label {
            self.hosts = (self.policies.len(), self.rules.len());
        }
        let (policies, rules) = self.hosts;
        let is_workload = rules < self.rules.len();
        self.policies.iter_mut().take(policies).for_each(|(_, is_workloads)| *is_workloads = false);
        for rule in self.rules.iter_mut().take(rules) {
            rule.is_workloads = false;
            if is_workload {
                // What goes to the workload leaves the host.
                rule.known.direction = opposite(rule.known.direction);
            }
        }
        let Walk { direction, policies, rules, unrecognised, .. } = self;
        Program { interface: interface.into(), direction, family, is_workload, policies, rules, unrecognised }
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// `policy shop/default.web`, `NetworkPolicy shop/web 3`, `GlobalNetworkPolicy base 0`
fn policy_name(text: &str) -> Option<PolicyName> {
    let mut words = text.split(' ');
    let (kind, name) = (words.next()?, words.next()?);
    let number = words.next().is_none_or(|word| word.parse::<u32>().is_ok());
    let kind = if kind == "policy" { "Policy" } else { kind };
    let is_policy = kind.ends_with("Policy") && number && words.next().is_none();
    is_policy.then(|| PolicyName::from_comment(&format!("{kind} {name} ingress"))).flatten()
}

/// Decimal in every release that is known; `calico-bpf` takes hexadecimal numbers too.
fn parse_id(text: &str) -> Option<RuleId> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => RuleId::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `action:"allow" …`, with or without the owner's name before it. The space behind the colon comes and goes with protobuf's mood.
fn action_of(rule: &str) -> Option<Decision> {
    let (_, rest) = rule.split_once("action:")?;
    let (action, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(match &*action.to_ascii_lowercase() {
        "allow" => Decision::Accept,
        "deny" => Decision::Deny,
        "pass" | "next-tier" => Decision::Pass,
        "log" => Decision::Log,
        _ => return None,
    })
}

/// The name that precedes the rule since 3.32.
fn owner_of(rule: &str) -> Option<&str> {
    rule.split(' ').next().filter(|word| !word.is_empty() && !word.contains(':'))
}

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
