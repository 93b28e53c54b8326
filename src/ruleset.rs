//! The model that every reader produces: one table of one address family, as chains of rules in a small closed vocabulary, and separately
//! what the rules have counted. Rules seldom change, so reads share them, and what follows from them is computed once. The model owns its
//! strings, and keeps each distinct string and each distinct rule once: a table of 55,000 rules costs a few megabytes and no lifetimes.

mod builder;
mod interned;
mod protocol;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use builder::{Builder, RuleParts};
pub use interned::Interned;
pub use protocol::protocol_name;

/// What a rule has counted, and its identity in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
    /// nf_tables' handle of the rule (`NFTA_RULE_HANDLE`). It is never reused, but a rule that replaces another keeps its handle.
    /// 0 if there is none: in legacy tables, and in texts of `iptables-save`.
    pub handle: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    /// `None` means that both are counted together.
    pub fn name(family: Option<Family>) -> &'static str {
        family.map_or("any", Family::as_str)
    }
}

/// The kernel interface that holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Backend {
    /// iptables over `xt` tables. A commit zeroes all counters for a moment, so reads need the xtables lock.
    Legacy,
    /// iptables over nf_tables. Felix rewrites a chain as a whole.
    Nft,
    /// Calico's own nf_tables tables (≥ 3.29). Up to 3.32, Felix replaces single rules; from 3.33 on, whole chains.
    Native,
}

impl Backend {
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Legacy => "legacy",
            Backend::Nft => "nft",
            Backend::Native => "nftables",
        }
    }
}

/// Identifies a table. Chains of one name can be in several tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    pub family: Family,
    /// `filter`, `mangle` or `raw`.
    pub table: &'static str,
}

/// The index of a rule in its [`Ruleset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// The index of a chain in [`Ruleset::chains`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainId(pub u32);

/// The index of a comment in [`Ruleset::comments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommentId(pub u32);

/// Felix's identity of a rule: the 16 characters after `cali:` in its first comment. They are a hash of the chain's name, all rules
/// before it, and its own text. A rule that Felix did not write gets a hash of what it does, which begins with a zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RuleHash([u8; 16]);

impl RuleHash {
    /// Takes the text after `cali:`. More than 16 bytes are cut off (Felix never writes more).
    pub fn new(text: &[u8]) -> Self {
        let mut hash = [0; 16];
        let len = text.len().min(16);
        hash[..len].copy_from_slice(&text[..len]);
        RuleHash(hash)
    }

    /// Whether the rule has no `cali:` hash, which means that Felix did not write it.
    pub fn is_none(&self) -> bool {
        self.0[0] == 0
    }

    fn made_up(digest: u64) -> Self {
        let mut hash = [0; 16];
        hash[8..].copy_from_slice(&digest.to_be_bytes());
        RuleHash(hash)
    }
}

impl fmt::Debug for RuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// A match on the packet's mark: `mark & mask == value`, or its negation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MarkMatch {
    pub value: u32,
    pub mask: u32,
    pub negated: bool,
}

impl MarkMatch {
    pub fn is_clear(&self) -> bool {
        !self.negated && self.value == 0
    }

    /// Returns the bit that must be set, if the match is for exactly one set bit.
    pub fn set_bit(&self) -> Option<u32> {
        (!self.negated && self.value == self.mask && self.mask.is_power_of_two()).then_some(self.mask)
    }
}

/// The conntrack states that a rule matches, as far as Felix's rules differ in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum CtState {
    #[default]
    Any,
    Established,
    Invalid,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    None,
    /// Sets the bits of `mask` to `value`.
    SetMark {
        value: u32,
        mask: u32,
    },
    Jump(ChainId),
    /// Continues in another chain. A return there returns from this chain, too.
    Goto(ChainId),
    Return,
    Accept,
    Drop,
    Reject,
    /// Logs the packet and continues (`LOG`).
    Log,
    /// Reports the packet to Felix under this prefix and continues (`NFLOG`).
    Nflog(Option<CommentId>),
    Other,
    Unreadable,
}

impl Verdict {
    pub fn is_deny(self) -> bool {
        matches!(self, Verdict::Drop | Verdict::Reject)
    }

    pub fn target(self) -> Option<ChainId> {
        match self {
            Verdict::Jump(to) | Verdict::Goto(to) => Some(to),
            _ => None,
        }
    }
}

/// What a rule matches and does. Rules that differ only in their hashes share it, because each endpoint has a rule for each policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    pub mark: Option<MarkMatch>,
    pub ctstate: CtState,
    /// Whether it matches on anything else: addresses, ports, sets, interfaces, limits.
    pub other_matches: bool,
    /// Whether it counts packets before the last of its matches, as limits in Calico's own nftables tables do.
    pub counts_before_match: bool,
    /// Whether it has no counter, so that it is unknown what it matched.
    pub uncounted: bool,
    pub verdict: Verdict,
    comments: Box<[CommentId]>,
}

impl Rule {
    /// Whether every packet that reaches the rule matches it.
    pub fn is_unconditional(&self) -> bool {
        self.mark.is_none() && self.ctstate == CtState::Any && !self.other_matches
    }

    /// Whether it matches on nothing except, perhaps, the mark.
    pub fn has_only_mark(&self) -> bool {
        self.ctstate == CtState::Any && !self.other_matches
    }
}

/// A rule in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    hash: RuleHash,
    /// What it matches and does: an index in [`Ruleset::distinct`].
    rule: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: Arc<str>,
    pub rules: Range<u32>,
}

impl Chain {
    pub fn rule_ids(&self) -> impl DoubleEndedIterator<Item = RuleId> + ExactSizeIterator + use<> {
        (self.rules.start as usize..self.rules.end as usize).map(|rule| RuleId(rule as u32))
    }
}

/// This name keeps the derived code from treating it as text to borrow from its input.
type TableName = &'static str;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    pub family: Family,
    pub backend: Backend,
    #[serde(deserialize_with = "table_name")]
    pub table: TableName,
    chains: Vec<Chain>,
    entries: Vec<Entry>,
    distinct: Vec<Rule>,
    comments: Vec<Arc<str>>,
    /// Lines or rules in Calico's chains that the reader could not parse.
    pub unreadable: u64,
}

impl Ruleset {
    pub fn id(&self) -> TableId {
        TableId { family: self.family, table: self.table }
    }

    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    pub fn chain(&self, id: ChainId) -> &Chain {
        &self.chains[id.0 as usize]
    }

    pub fn chain_ids(&self) -> impl Iterator<Item = (ChainId, &Chain)> {
        self.chains.iter().enumerate().map(|(i, chain)| (ChainId(i as u32), chain))
    }

    pub fn rule_count(&self) -> usize {
        self.entries.len()
    }

    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.distinct[self.entries[id.0 as usize].rule as usize]
    }

    pub fn hash(&self, id: RuleId) -> RuleHash {
        self.entries[id.0 as usize].hash
    }

    /// Returns the distinct comments. Rules refer to them by index, so that each is parsed only once.
    pub fn comments(&self) -> &[Arc<str>] {
        &self.comments
    }

    /// Returns the comments of a rule, without the one with its hash.
    pub fn comments_of(&self, id: RuleId) -> &[CommentId] {
        &self.rule(id).comments
    }
}

/// A table at one moment: its rules, which it shares with other reads as long as they are the same, and their counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub ruleset: Arc<Ruleset>,
    counts: Arc<Vec<Count>>,
    chain_handles: Vec<u64>,
}

impl Snapshot {
    /// Creates a read of these rules. `counts` are in the order of the rules. `chain_handles` are nf_tables' handles of the chains
    /// (`NFTA_CHAIN_HANDLE`), in the order of the chains; empty if there are none.
    pub fn new(ruleset: Arc<Ruleset>, mut counts: Vec<Count>, chain_handles: Vec<u64>) -> Self {
        counts.resize(ruleset.rule_count(), Count::default());
        Snapshot { ruleset, counts: Arc::new(counts), chain_handles }
    }

    /// Returns the handle of a chain, if nf_tables gave it one. A chain that was deleted and created again has another one.
    pub fn chain_handle(&self, id: ChainId) -> Option<u64> {
        self.chain_handles.get(id.0 as usize).copied().filter(|handle| *handle != 0)
    }

    pub fn packets(&self, id: RuleId) -> u64 {
        self.count(id).packets
    }

    pub fn count(&self, id: RuleId) -> Count {
        self.counts[id.0 as usize]
    }

    pub fn counts_of(&self, chain: &Chain) -> &[Count] {
        &self.counts[chain.rules.start as usize..chain.rules.end as usize]
    }

    pub fn shares_rules_with(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.ruleset, &other.ruleset)
    }

    /// Uses the rules of another read instead of its own if they are equal, so that both share them.
    pub fn share_rules_of(&mut self, other: &Arc<Ruleset>) {
        if self.ruleset == *other {
            self.ruleset = Arc::clone(other);
        }
    }
}

fn table_name<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = ["filter", "mangle", "raw"].into_iter().find(|known| *known == name);
    known.ok_or_else(|| serde::de::Error::custom(format!("no table is called {name:?}")))
}

impl Snapshot {
    /// Whether every index in it is valid. It may come from a file that was changed.
    pub fn is_whole(&self) -> bool {
        let Ruleset { chains, entries, distinct, comments, .. } = &*self.ruleset;
        let is_comment = |id: CommentId| (id.0 as usize) < comments.len();
        let is_rule = |rule: &Rule| {
            let commented = rule.comments.iter().copied().all(is_comment);
            let prefixed = !matches!(rule.verdict, Verdict::Nflog(Some(comment)) if !is_comment(comment));
            commented && prefixed && rule.verdict.target().is_none_or(|chain| (chain.0 as usize) < chains.len())
        };
        let are_chains = chains.iter().all(|chain| chain.rules.start <= chain.rules.end && chain.rules.end as usize <= entries.len());
        let are_entries = entries.iter().all(|entry| (entry.rule as usize) < distinct.len());
        self.counts.len() == entries.len() && are_chains && are_entries && distinct.iter().all(is_rule)
    }
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;

    /// Returns a table of these chains. Each rule is given by its hash and its packets.
    pub fn table(backend: Backend, chains: &[(&str, &[(&str, u64)])]) -> Snapshot {
        let mut builder = Builder::new(Family::V4, backend, "filter");
        for (chain, rules) in chains {
            let chain = builder.chain(chain);
            for &(hash, packets) in *rules {
                let (hash, count) = (RuleHash::new(hash.as_bytes()), Count { packets, ..Count::default() });
                builder.push(chain, &RuleParts { hash, count, ..RuleParts::default() }, Verdict::Return);
            }
        }
        builder.finish()
    }
}
