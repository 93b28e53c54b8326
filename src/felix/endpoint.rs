//! From endpoint chains to pipelines: the ordered steps that a packet to or from an endpoint takes. Pure. Recognised by comments and
//! structure, never by a version number. Upstream: `felix/rules/endpoints.go` (`endpointIptablesChain`), Calico 3.0 to 3.33.

use std::sync::Arc;

use lazy_static::lazy_static;

use super::foreign::Foreign;
use super::names::interface_of;
use super::phrases::Phrase;
use super::{Context, Direction, EndpointKind, Role};
use crate::ruleset::{ChainId, CommentId, CtState, Rule, RuleId, Verdict};

lazy_static! {
    static ref DEFAULT_TIER: Arc<str> = "default".into();
    static ref NO_TIER: Arc<str> = "".into();
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    pub chain: ChainId,
    pub kind: EndpointKind,
    pub interface: Arc<str>,
    pub direction: Direction,
    /// Accepts packets of known connections.
    pub established: Option<RuleId>,
    /// Rules that drop packets whatever the policies say.
    pub drops: Vec<DropRule>,
    pub tiers: Vec<Tier>,
    /// Profiles in order, as a tier without a name that drops what none of them accepted.
    pub profiles: Tier,
    pub foreign: Vec<Foreign>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropRule {
    pub reason: DropReason,
    pub rule: RuleId,
    /// Empty if the rule counts what it drops. A limit in Calico's own nftables tables counts all packets that reach it. Then these
    /// rules together count the packets that it let through.
    pub let_through: Vec<RuleId>,
}

/// Why a packet was dropped, other than by a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    NoPolicy,
    Profile,
    NoProfile,
    Invalid,
    /// VXLAN or IP-in-IP sent by a workload.
    Encapsulation,
    RateLimit,
    ConnectionLimit,
    AdminDown,
    /// A policy denied it, or none decided. The eBPF dataplane does not distinguish the two.
    PolicyOrNone,
}

impl DropReason {
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::NoPolicy => "no_policy",
            DropReason::Profile => "profile",
            DropReason::NoProfile => "no_profile",
            DropReason::Invalid => "invalid",
            DropReason::Encapsulation => "encapsulation",
            DropReason::RateLimit => "rate_limit",
            DropReason::ConnectionLimit => "connection_limit",
            DropReason::AdminDown => "admin_down",
            DropReason::PolicyOrNone => "policy_or_none",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name; `default` if the release had only one tier.
    pub name: Arc<str>,
    /// Whether its last rules name it. The first one may still name another tier: see [`tiers`](super::tiers).
    pub is_named_at_end: bool,
    pub targets: Vec<Target>,
    /// Drops what no policy decided. Absent if the tier's default action is Pass.
    pub end: Option<RuleId>,
    /// Logs what no policy decided (flow logs). It counts the same packets as `end`, and exists even if `end` is absent.
    pub end_log: Option<RuleId>,
    /// The rule after the tier. What the tier passed reaches it and, without `end`, what no policy decided.
    pub after: Option<RuleId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub jump: RuleId,
    pub chain: ChainId,
    pub accepted: Option<RuleId>,
}

impl Tier {
    fn new(name: Arc<str>) -> Self {
        Tier { name, is_named_at_end: false, targets: vec![], end: None, end_log: None, after: None }
    }

    /// Returns the rule that counts the packets that target `index` left undecided: the next jump, or the end of the tier.
    pub fn undecided_after(&self, index: usize) -> Option<RuleId> {
        match self.targets.get(index + 1) {
            Some(next) => Some(next.jump),
            None => self.end_log.or(self.end),
        }
    }
}

pub(super) fn pipeline(
    context: &Context,
    chain: ChainId,
    kind: EndpointKind,
    direction: Direction,
    unrecognised: &mut Vec<RuleId>,
) -> Pipeline {
    let interface = interface_of(&context.ruleset.chain(chain).name);
    let profiles = Tier::new(Arc::clone(&NO_TIER));
    let empty = Pipeline { chain, kind, interface, direction, established: None, drops: vec![], tiers: vec![], profiles, foreign: vec![] };
    let mut walk = Walk { context, pipeline: empty, section: Section::Head, unrecognised };
    for id in context.ruleset.chain(chain).rule_ids() {
        walk.rule(id);
    }
    walk.pipeline
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Head,
    Tier,
    /// After a tier's last rule. If the next rule is unconditional, it counts what comes out of the tier.
    AfterTier,
    Profiles,
}

struct Walk<'a, 'b> {
    context: &'a Context<'a>,
    pipeline: Pipeline,
    section: Section,
    unrecognised: &'b mut Vec<RuleId>,
}

impl Walk<'_, '_> {
    fn rule(&mut self, id: RuleId) {
        let rule = self.context.ruleset.rule(id);
        if !self.context.is_felixs(id) || (!self.by_comment(id, rule) && !self.by_structure(id, rule)) {
            self.unrecognised.push(id);
            self.pipeline.foreign.extend(Foreign::new(self.context.ruleset, id, self.context.marks));
        }
    }

    fn by_comment(&mut self, id: RuleId, rule: &Rule) -> bool {
        let phrase = self.context.phrases_of(id).find(|phrase| **phrase != Phrase::Other);
        let deny = rule.verdict.is_deny();
        let returns = rule.verdict == Verdict::Return;
        let marks = matches!(rule.verdict, Verdict::SetMark { .. });
        match phrase {
            Some(Phrase::AdminDisabled) if deny => self.drop(DropReason::AdminDown, id),
            Some(Phrase::RateLimitDrop) if deny => self.drop(DropReason::RateLimit, id),
            Some(Phrase::ConnectionLimit) if deny => self.drop(DropReason::ConnectionLimit, id),
            Some(Phrase::Encapsulation) if deny => self.drop(DropReason::Encapsulation, id),
            Some(Phrase::NoProfileMatched) if deny && rule.is_unconditional() => self.no_profile(id),
            Some(Phrase::NoPolicyMatched(tier)) if deny && self.is_undecided(rule) => return self.end_of_tier(id, tier.as_ref()),
            Some(Phrase::StartOfPolicies) if marks && rule.is_unconditional() => self.start_of_tier(id, Arc::clone(&DEFAULT_TIER)),
            Some(Phrase::StartOfTier(name)) if marks && rule.is_unconditional() => self.start_of_tier(id, Arc::clone(name)),
            Some(Phrase::PolicyAccepted) if returns && self.is_accepted(rule) => return self.policy_accepted(id),
            Some(Phrase::ProfileAccepted) if returns && self.is_accepted(rule) => return self.profile_accepted(id),
            Some(Phrase::RateLimitMark) if marks => {}
            Some(Phrase::ForwardAllowed) => {}
            _ => return false,
        }
        true
    }

    fn by_structure(&mut self, id: RuleId, rule: &Rule) -> bool {
        let (undecided, accepted) = (self.is_undecided(rule), self.is_accepted(rule));
        match (rule.ctstate, rule.verdict) {
            // With filterAllowAction=Return, it sets the accept bit and a second rule returns.
            (CtState::Established, Verdict::Accept | Verdict::SetMark { .. } | Verdict::Return) => {
                self.pipeline.established.get_or_insert(id);
            }
            (CtState::Invalid, verdict) if verdict.is_deny() => self.drop(DropReason::Invalid, id),
            (CtState::Any, Verdict::Jump(chain)) => return self.jump(id, chain),
            (CtState::Any, Verdict::Return) if accepted => return self.policy_accepted(id) || self.profile_accepted(id),
            (CtState::Any, Verdict::Nflog(prefix)) => self.log(id, undecided, prefix),
            // This is an untracked policy's accept, in the raw table.
            (CtState::Any, Verdict::Other) if accepted => {}
            (CtState::Any, verdict) if verdict.is_deny() && undecided => return self.end_of_tier(id, None),
            (CtState::Any, verdict) if verdict.is_deny() && rule.is_unconditional() => self.no_profile(id),
            // This clears the verdict marks before the first tier.
            (CtState::Any, Verdict::SetMark { value: 0, mask }) if rule.is_unconditional() => self.clear_marks(id, mask),
            _ => return false,
        }
        true
    }

    fn is_undecided(&self, rule: &Rule) -> bool {
        rule.mark.is_some_and(|mark| mark.is_clear() && mark.mask == self.context.marks.pass) && rule.has_only_mark()
    }

    fn is_accepted(&self, rule: &Rule) -> bool {
        rule.mark.and_then(|mark| mark.set_bit()) == Some(self.context.marks.accept) && rule.has_only_mark()
    }

    fn drop(&mut self, reason: DropReason, id: RuleId) {
        let let_through = match self.context.ruleset.rule(id).counts_before_match {
            true => self.let_through(reason, id),
            false => Some(vec![]),
        };
        // If no rules count what it let through, what it dropped is unknown, so it is left out.
        self.pipeline.drops.extend(let_through.map(|let_through| DropRule { reason, rule: id, let_through }));
    }

    /// Returns the rules after `id` by which packets leave the chain, up to the first one that counts all packets that remain. A limit on
    /// connections applies to TCP only and makes the sum wrong: then neither it nor a rate limit before it has a known count.
    fn let_through(&self, reason: DropReason, id: RuleId) -> Option<Vec<RuleId>> {
        let mut rules = Vec::new();
        for next in self.context.ruleset.chain(self.pipeline.chain).rule_ids().filter(|next| *next > id) {
            let rule = self.context.ruleset.rule(next);
            // A foreign rule takes no packets as long as it matches none, see `foreign`.
            if !self.context.is_felixs(next) {
                continue;
            }
            if rule.counts_before_match || reason != DropReason::RateLimit {
                return None;
            }
            let ends = rule.verdict.is_deny() || matches!(rule.verdict, Verdict::Accept | Verdict::Return);
            if ends || rule.is_unconditional() {
                rules.push(next);
            }
            if rule.is_unconditional() {
                return Some(rules);
            }
        }
        None
    }

    fn no_profile(&mut self, id: RuleId) {
        self.leave_tier(id);
        self.drop(DropReason::NoProfile, id);
        self.pipeline.profiles.end.get_or_insert(id);
        self.section = Section::Profiles;
    }

    fn start_of_tier(&mut self, id: RuleId, name: Arc<str>) {
        self.leave_tier(id);
        self.pipeline.tiers.push(Tier::new(name));
        self.section = Section::Tier;
    }

    fn clear_marks(&mut self, id: RuleId, mask: u32) {
        self.leave_tier(id);
        if self.context.marks.verdicts().is_some_and(|bits| bits & !mask == 0) {
            self.pipeline.foreign.iter_mut().for_each(|foreign| foreign.changes_marks = false);
        }
    }

    /// If a tier has just ended, `id` is the rule after it.
    fn leave_tier(&mut self, id: RuleId) {
        let in_tier = matches!(self.section, Section::Tier | Section::AfterTier);
        if let Some(tier) = self.pipeline.tiers.last_mut().filter(|tier| in_tier && tier.after.is_none()) {
            tier.after = Some(id);
            self.section = Section::AfterTier;
        }
    }

    fn jump(&mut self, id: RuleId, chain: ChainId) -> bool {
        let target = Target { jump: id, chain, accepted: None };
        match self.context.role(chain) {
            Role::Policy | Role::Group => {}
            Role::Profile => {
                self.leave_tier(id);
                self.section = Section::Profiles;
                self.pipeline.profiles.targets.push(target);
                return true;
            }
            // Fail-safe ports of a host endpoint come before its policies.
            role => return role == Role::Failsafe,
        }
        if self.section != Section::Tier {
            // 3.28 begins its only tier without a comment.
            self.start_of_tier(id, Arc::clone(&DEFAULT_TIER));
        }
        if let Some(tier) = self.pipeline.tiers.last_mut() {
            tier.targets.push(target);
        }
        true
    }

    fn policy_accepted(&mut self, id: RuleId) -> bool {
        let tier = self.pipeline.tiers.last_mut().filter(|_| self.section == Section::Tier);
        close(tier.and_then(|tier| tier.targets.last_mut()), id)
    }

    fn profile_accepted(&mut self, id: RuleId) -> bool {
        close(self.pipeline.profiles.targets.last_mut().filter(|_| self.section == Section::Profiles), id)
    }

    /// Takes the tier's name from a prefix such as `DPI|platform`: denied, by a policy or the end of its tier, ingress.
    /// Upstream: `felix/rules/nflogprefix.go`.
    fn log(&mut self, id: RuleId, undecided: bool, prefix: Option<CommentId>) {
        let comments = self.context.ruleset.comments();
        let name = prefix.and_then(|prefix| Some(comments[prefix.0 as usize].split_once('|')?.1)).filter(|name| !name.starts_with('_'));
        if let Some(tier) = self.pipeline.tiers.last_mut().filter(|_| undecided && self.section == Section::Tier) {
            tier.end_log = Some(id);
            tier.is_named_at_end |= name.is_some();
            name.into_iter().for_each(|name| tier.name = name.into());
        }
    }

    fn end_of_tier(&mut self, id: RuleId, name: Option<&Arc<str>>) -> bool {
        let Some(tier) = self.pipeline.tiers.last_mut().filter(|_| self.section == Section::Tier) else { return false };
        tier.end = Some(id);
        tier.is_named_at_end |= name.is_some();
        name.into_iter().for_each(|name| tier.name = Arc::clone(name));
        self.section = Section::AfterTier;
        true
    }
}

/// Gives a target its only rule that returns what it accepted.
fn close(target: Option<&mut Target>, id: RuleId) -> bool {
    match target {
        Some(target) if target.accepted.is_none() => {
            target.accepted = Some(id);
            true
        }
        _ => false,
    }
}
