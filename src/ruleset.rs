//! The model that every reader produces: one table of one address family, as chains of rules in a small closed vocabulary, and apart
//! from it what the rules have counted. The first seldom changes, so reads share it, and what follows from it is worked out once.
//! It owns its strings, each distinct one once, so that a table of 55,000 rules costs a few megabytes and no lifetimes.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The address family a table belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// As metrics and messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    /// The same, where both may be counted together.
    pub fn name(family: Option<Family>) -> &'static str {
        family.map_or("any", Family::as_str)
    }
}

/// The kernel interface that holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// iptables over `xt` tables: a commit zeroes all counters for a moment, so reads need the xtables lock.
    Legacy,
    /// iptables over nf_tables: Felix rewrites a chain as a whole.
    Nft,
    /// Calico's own nf_tables tables (≥ 3.29): up to 3.32 Felix replaces single rules, from 3.33 on whole chains.
    Native,
}

impl Backend {
    /// As metrics and messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Legacy => "legacy",
            Backend::Nft => "nft",
            Backend::Native => "nftables",
        }
    }
}

/// Which table of which family: chains of one name can be in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    /// The address family.
    pub family: Family,
    /// `filter`, `mangle` or `raw`.
    pub table: &'static str,
}

/// A rule's place in [`Ruleset::rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// A chain's place in [`Ruleset::chains`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

/// A comment's place in [`Ruleset::comments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommentId(pub u32);

/// Felix's identity of a rule: the 16 characters after `cali:` in its first comment (a hash over the chain's name, all rules
/// before it, and its own text). All zero for a rule that Felix did not write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RuleHash([u8; 16]);

impl RuleHash {
    /// From the text after `cali:`; what exceeds 16 bytes is cut (Felix never writes more).
    pub fn new(text: &[u8]) -> Self {
        let mut hash = [0; 16];
        let len = text.len().min(16);
        hash[..len].copy_from_slice(&text[..len]);
        RuleHash(hash)
    }

    /// Whether the rule carries no `cali:` hash.
    pub fn is_none(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Debug for RuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// A match on the packet's mark: `mark & mask == value`, or its negation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MarkMatch {
    /// The value compared with.
    pub value: u32,
    /// The bits that are compared.
    pub mask: u32,
    /// Whether the match is negated.
    pub negated: bool,
}

impl MarkMatch {
    /// Matches packets in which all of `bits` are clear.
    pub fn is_clear(&self) -> bool {
        !self.negated && self.value == 0
    }

    /// The bit that must be set, where the match is for exactly one set bit.
    pub fn set_bit(&self) -> Option<u32> {
        (!self.negated && self.value == self.mask && self.mask.is_power_of_two()).then_some(self.mask)
    }
}

/// The conntrack states a rule matches, as far as Felix's rules differ by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CtState {
    /// No match on the state.
    #[default]
    Any,
    /// `RELATED,ESTABLISHED`
    Established,
    /// `INVALID`
    Invalid,
    /// Some other set of states.
    Other,
}

/// What a rule does with a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The rule only counts.
    None,
    /// Sets the bits of `mask` to `value`.
    SetMark {
        /// Bits after.
        value: u32,
        /// Bits touched.
        mask: u32,
    },
    /// Continues in another chain and comes back.
    Jump(ChainId),
    /// Continues in another chain; a return there returns from here.
    Goto(ChainId),
    /// Returns to the calling chain.
    Return,
    /// Accepts the packet.
    Accept,
    /// Drops the packet.
    Drop,
    /// Drops the packet and answers its sender.
    Reject,
    /// Logs the packet and goes on (`LOG`).
    Log,
    /// Tells Felix of the packet and goes on (`NFLOG`), under this prefix.
    Nflog(Option<CommentId>),
    /// Any other target.
    Other,
}

impl Verdict {
    /// Whether the packet ends here, refused.
    pub fn is_deny(self) -> bool {
        matches!(self, Verdict::Drop | Verdict::Reject)
    }
}

/// One rule. What it has counted is in a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Felix's identity of the rule.
    pub hash: RuleHash,
    /// The match on the mark, if there is one.
    pub mark: Option<MarkMatch>,
    /// The match on the conntrack state.
    pub ctstate: CtState,
    /// Whether it matches on anything else: addresses, ports, sets, interfaces, limits.
    pub other_matches: bool,
    /// Whether it has counted packets before the last of its matches let them through: a limit of Calico's own nftables tables.
    pub counts_before_match: bool,
    /// What it does.
    pub verdict: Verdict,
    comments: (u32, u8),
}

impl Rule {
    /// Whether every packet that reaches the rule matches it.
    pub fn is_unconditional(&self) -> bool {
        self.mark.is_none() && self.ctstate == CtState::Any && !self.other_matches
    }
}

/// A chain: its name and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The chain's name.
    pub name: Arc<str>,
    /// Its rules, in order.
    pub rules: Range<u32>,
}

impl Chain {
    /// The rules' places, in order.
    pub fn rule_ids(&self) -> impl DoubleEndedIterator<Item = RuleId> + ExactSizeIterator + use<> {
        let range: Range<u32> = self.rules.clone();
        (range.start as usize..range.end as usize).map(|rule| RuleId(rule as u32))
    }
}

/// One table of one family, without its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The address family.
    pub family: Family,
    /// Where it was read.
    pub backend: Backend,
    /// The table: `filter`, `mangle`, `raw`.
    pub table: &'static str,
    chains: Vec<Chain>,
    rules: Vec<Rule>,
    comments: Vec<Arc<str>>,
    comment_lists: Vec<CommentId>,
    /// Lines or rules in Calico's chains that the reader could not take apart.
    pub unreadable: u64,
}

impl Ruleset {
    /// Which table this is.
    pub fn id(&self) -> TableId {
        TableId { family: self.family, table: self.table }
    }

    /// All of Calico's chains.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The chain at `id`.
    pub fn chain(&self, id: ChainId) -> &Chain {
        &self.chains[id.0 as usize]
    }

    /// All chains with their places.
    pub fn chain_ids(&self) -> impl Iterator<Item = (ChainId, &Chain)> {
        self.chains.iter().enumerate().map(|(i, chain)| (ChainId(i as u32), chain))
    }

    /// How many rules there are in Calico's chains.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The rule at `id`.
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id.0 as usize]
    }

    /// The distinct comments; a rule refers to them by place, so that each is looked at once.
    pub fn comments(&self) -> &[Arc<str>] {
        &self.comments
    }

    /// The comments of a rule, without the one that holds its hash.
    pub fn comments_of(&self, id: RuleId) -> &[CommentId] {
        let (start, len) = self.rule(id).comments;
        &self.comment_lists[start as usize..start as usize + len as usize]
    }
}

/// A table read at one moment: its rules, which it shares with other reads as long as they are the same, and their counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The rules.
    pub ruleset: Arc<Ruleset>,
    packets: Vec<u64>,
}

impl Snapshot {
    /// A read of these rules; `packets` are in their order.
    pub fn new(ruleset: Arc<Ruleset>, mut packets: Vec<u64>) -> Self {
        packets.resize(ruleset.rule_count(), 0);
        Snapshot { ruleset, packets }
    }

    /// Packets that the rule at `id` has matched, as the kernel counts them.
    pub fn packets(&self, id: RuleId) -> u64 {
        self.packets[id.0 as usize]
    }

    /// The same for all rules of a chain, in order.
    pub fn packets_of(&self, chain: &Chain) -> &[u64] {
        &self.packets[chain.rules.start as usize..chain.rules.end as usize]
    }

    /// Whether both were read of the very same rules.
    pub fn shares_rules_with(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.ruleset, &other.ruleset)
    }

    /// Takes the rules of another read instead of its own if they are equal, so that both share them.
    pub fn share_rules_of(&mut self, other: &Arc<Ruleset>) {
        if self.ruleset == *other {
            self.ruleset = Arc::clone(other);
        }
    }
}

/// What a reader says of one rule; see [`Rule`].
#[derive(Debug, Clone, Default)]
pub struct RuleParts {
    /// Felix's identity of the rule.
    pub hash: RuleHash,
    /// The match on the mark.
    pub mark: Option<MarkMatch>,
    /// The match on the conntrack state.
    pub ctstate: CtState,
    /// Whether it matches on anything else.
    pub other_matches: bool,
    /// Whether it has counted packets before the last of its matches let them through.
    pub counts_before_match: bool,
    /// Its comments, without the hash.
    pub comments: Vec<CommentId>,
    /// Packets counted.
    pub packets: u64,
}

/// Collects what a reader meets, in the order in which it meets it.
#[derive(Debug)]
pub struct Builder {
    ruleset: Ruleset,
    packets: Vec<u64>,
    chain_of: Vec<ChainId>,
    chain_ids: HashMap<Arc<str>, ChainId>,
    comment_ids: HashMap<Arc<str>, CommentId>,
}

impl Builder {
    /// An empty table.
    pub fn new(family: Family, backend: Backend, table: &'static str) -> Self {
        let ruleset = Ruleset {
            family,
            backend,
            table,
            chains: Vec::new(),
            rules: Vec::new(),
            comments: Vec::new(),
            comment_lists: Vec::new(),
            unreadable: 0,
        };
        Builder { ruleset, packets: Vec::new(), chain_of: Vec::new(), chain_ids: HashMap::new(), comment_ids: HashMap::new() }
    }

    /// The chain of this name, made if it is new.
    pub fn chain(&mut self, name: &str) -> ChainId {
        if let Some(&id) = self.chain_ids.get(name) {
            return id;
        }
        let (id, name) = (ChainId(self.ruleset.chains.len() as u32), Arc::<str>::from(name));
        self.ruleset.chains.push(Chain { name: Arc::clone(&name), rules: 0..0 });
        self.chain_ids.insert(name, id);
        id
    }

    /// The chain of this name, if it was met before.
    pub fn known_chain(&self, name: &str) -> Option<ChainId> {
        self.chain_ids.get(name).copied()
    }

    /// The name of a chain.
    pub fn chain_name(&self, id: ChainId) -> &str {
        &self.ruleset.chains[id.0 as usize].name
    }

    /// The place of this comment, kept once however often it occurs.
    pub fn comment(&mut self, text: &str) -> CommentId {
        if let Some(&id) = self.comment_ids.get(text) {
            return id;
        }
        let (id, text) = (CommentId(self.ruleset.comments.len() as u32), Arc::<str>::from(text));
        self.ruleset.comments.push(Arc::clone(&text));
        self.comment_ids.insert(text, id);
        id
    }

    /// Appends a rule to a chain.
    pub fn push(&mut self, chain: ChainId, parts: &RuleParts, verdict: Verdict) {
        let RuleParts { hash, mark, ctstate, other_matches, counts_before_match, ref comments, packets } = *parts;
        // More than 255 comments on a rule cannot come from Felix; the rest would not be looked at anyway.
        let comments = &comments[..comments.len().min(u8::MAX as usize)];
        let place = (self.ruleset.comment_lists.len() as u32, comments.len() as u8);
        self.ruleset.comment_lists.extend_from_slice(comments);
        self.ruleset.rules.push(Rule { hash, mark, ctstate, other_matches, counts_before_match, verdict, comments: place });
        self.packets.push(packets);
        self.chain_of.push(chain);
    }

    /// Appends a chain's rules as another table has them, with what they have counted now.
    pub fn adopt(&mut self, chain: ChainId, from: &Ruleset, of: &Chain, packets: &[u64]) {
        for (id, &packets) in of.rule_ids().zip(packets) {
            let comment = |builder: &mut Self, id: CommentId| builder.comment(&from.comments[id.0 as usize]);
            let Rule { hash, mark, ctstate, other_matches, counts_before_match, verdict, .. } = *from.rule(id);
            let verdict = match verdict {
                Verdict::Jump(to) => Verdict::Jump(self.chain(&from.chain(to).name)),
                Verdict::Goto(to) => Verdict::Goto(self.chain(&from.chain(to).name)),
                Verdict::Nflog(prefix) => Verdict::Nflog(prefix.map(|prefix| comment(self, prefix))),
                other => other,
            };
            let comments = from.comments_of(id).iter().map(|id| comment(self, *id)).collect();
            self.push(chain, &RuleParts { hash, mark, ctstate, other_matches, counts_before_match, comments, packets }, verdict);
        }
    }

    /// Sets where jumps lead that were pushed before that was known; `None`: somewhere else than to one of these chains.
    pub fn lead_jumps(&mut self, chain: impl Fn(ChainId) -> Option<ChainId>) {
        for rule in &mut self.ruleset.rules {
            rule.verdict = match rule.verdict {
                Verdict::Jump(to) => chain(to).map_or(Verdict::Other, Verdict::Jump),
                Verdict::Goto(to) => chain(to).map_or(Verdict::Other, Verdict::Goto),
                other => other,
            };
        }
    }

    /// Takes back all rules but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.ruleset.rules.truncate(count);
        self.packets.truncate(count);
        self.chain_of.truncate(count);
    }

    /// Notes a line or rule that could not be taken apart.
    pub fn unreadable(&mut self) {
        self.ruleset.unreadable += 1;
    }

    /// How many rules there are so far.
    pub fn rule_count(&self) -> usize {
        self.ruleset.rules.len()
    }

    /// The finished table.
    pub fn finish(mut self) -> Snapshot {
        if !self.chain_of.is_sorted() {
            self.group_rules_by_chain();
        }
        for (i, chain) in self.chain_of.iter().enumerate() {
            let range = &mut self.ruleset.chains[chain.0 as usize].rules;
            if range.start == range.end {
                range.start = i as u32;
            }
            range.end = i as u32 + 1;
        }
        self.ruleset.rules.shrink_to_fit();
        self.packets.shrink_to_fit();
        Snapshot { ruleset: Arc::new(self.ruleset), packets: self.packets }
    }

    /// Kernel dumps come chain by chain, but not always in the order in which the chains were declared.
    fn group_rules_by_chain(&mut self) {
        let mut order: Vec<u32> = (0..self.chain_of.len() as u32).collect();
        order.sort_by_key(|&rule| self.chain_of[rule as usize]);
        self.ruleset.rules = order.iter().map(|&rule| self.ruleset.rules[rule as usize].clone()).collect();
        self.packets = order.iter().map(|&rule| self.packets[rule as usize]).collect();
        self.chain_of.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_come_out_of_order_are_grouped_by_chain() {
        let mut builder = Builder::new(Family::V4, Backend::Nft, "filter");
        let (a, b) = (builder.chain("a"), builder.chain("b"));
        for (chain, packets) in [(b, 1), (a, 2), (b, 3)] {
            builder.push(chain, &RuleParts { packets, ..RuleParts::default() }, Verdict::Return);
        }
        let read = builder.finish();
        let counts = |chain| read.packets_of(read.ruleset.chain(chain)).to_vec();
        assert_eq!((counts(a), counts(b)), (vec![2], vec![1, 3]));
    }

    #[test]
    fn a_chain_without_rules_has_an_empty_range() {
        let mut builder = Builder::new(Family::V4, Backend::Nft, "filter");
        let (a, _) = (builder.chain("a"), builder.chain("b"));
        builder.push(a, &RuleParts::default(), Verdict::Return);
        let ruleset = builder.finish().ruleset;
        assert_eq!(ruleset.chains()[1].rule_ids().count(), 0);
    }

    #[test]
    fn comments_and_chains_are_kept_once() {
        let mut builder = Builder::new(Family::V4, Backend::Nft, "filter");
        assert_eq!(builder.comment("x"), builder.comment("x"));
        assert_eq!(builder.chain("c"), builder.chain("c"));
        assert_eq!(builder.known_chain("d"), None);
    }
}
