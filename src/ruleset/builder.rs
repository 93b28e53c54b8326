//! What a reader meets, in the order in which it meets it → a [`Ruleset`] with its counters. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Backend, Chain, ChainId, CommentId, Count, CtState, Family, MarkMatch, Rule, RuleHash, Ruleset, Snapshot, Verdict};

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
    /// What it has counted.
    pub count: Count,
}

/// Collects what a reader meets, in the order in which it meets it.
#[derive(Debug)]
pub struct Builder {
    ruleset: Ruleset,
    counts: Vec<Count>,
    chain_handles: Vec<u64>,
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
        Builder {
            ruleset,
            counts: Vec::new(),
            chain_handles: Vec::new(),
            chain_of: Vec::new(),
            chain_ids: HashMap::new(),
            comment_ids: HashMap::new(),
        }
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

    /// Notes nf_tables' handle of a chain.
    pub fn chain_handle(&mut self, chain: ChainId, handle: u64) {
        self.chain_handles.resize(self.ruleset.chains.len(), 0);
        self.chain_handles[chain.0 as usize] = handle;
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
        let RuleParts { hash, mark, ctstate, other_matches, counts_before_match, ref comments, count } = *parts;
        // More than 255 comments on a rule cannot come from Felix; the rest would not be looked at anyway.
        let comments = &comments[..comments.len().min(u8::MAX as usize)];
        let place = (self.ruleset.comment_lists.len() as u32, comments.len() as u8);
        self.ruleset.comment_lists.extend_from_slice(comments);
        self.ruleset.rules.push(Rule { hash, mark, ctstate, other_matches, counts_before_match, verdict, comments: place });
        self.counts.push(count);
        self.chain_of.push(chain);
    }

    /// Appends a chain's rules as another table has them, with what they have counted now.
    pub fn adopt(&mut self, chain: ChainId, from: &Ruleset, of: &Chain, counts: &[Count]) {
        for (id, &count) in of.rule_ids().zip(counts) {
            let comment = |builder: &mut Self, id: CommentId| builder.comment(&from.comments[id.0 as usize]);
            let Rule { hash, mark, ctstate, other_matches, counts_before_match, verdict, .. } = *from.rule(id);
            let verdict = match verdict {
                Verdict::Jump(to) => Verdict::Jump(self.chain(&from.chain(to).name)),
                Verdict::Goto(to) => Verdict::Goto(self.chain(&from.chain(to).name)),
                Verdict::Nflog(prefix) => Verdict::Nflog(prefix.map(|prefix| comment(self, prefix))),
                other => other,
            };
            let comments = from.comments_of(id).iter().map(|id| comment(self, *id)).collect();
            self.push(chain, &RuleParts { hash, mark, ctstate, other_matches, counts_before_match, comments, count }, verdict);
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
        self.counts.truncate(count);
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
        self.counts.shrink_to_fit();
        Snapshot { ruleset: Arc::new(self.ruleset), counts: self.counts, chain_handles: self.chain_handles }
    }

    /// Kernel dumps come chain by chain, but not always in the order in which the chains were declared.
    fn group_rules_by_chain(&mut self) {
        let mut order: Vec<u32> = (0..self.chain_of.len() as u32).collect();
        order.sort_by_key(|&rule| self.chain_of[rule as usize]);
        self.ruleset.rules = order.iter().map(|&rule| self.ruleset.rules[rule as usize].clone()).collect();
        self.counts = order.iter().map(|&rule| self.counts[rule as usize]).collect();
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
            builder.push(chain, &RuleParts { count: Count { packets, ..Count::default() }, ..RuleParts::default() }, Verdict::Return);
        }
        let read = builder.finish();
        let counts = |chain| read.counts_of(read.ruleset.chain(chain)).iter().map(|count| count.packets).collect::<Vec<_>>();
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
