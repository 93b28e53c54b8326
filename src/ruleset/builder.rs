//! What a reader meets, in the order in which it meets it → a [`Ruleset`] with its counters. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Backend, Chain, ChainId, CommentId, Count, CtState, Family, MarkMatch, Rule, RuleHash, RuleId, Ruleset, Snapshot, Verdict};

#[derive(Debug, Clone, Default)]
pub struct RuleParts {
    pub hash: RuleHash,
    pub mark: Option<MarkMatch>,
    pub ctstate: CtState,
    pub other_matches: bool,
    pub counts_before_match: bool,
    pub uncounted: bool,
    pub comments: Vec<CommentId>,
    pub count: Count,
}

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
    pub fn new(family: Family, backend: Backend, table: &'static str) -> Self {
        let (chains, rules, comments, comment_lists) = (vec![], vec![], vec![], vec![]);
        let ruleset = Ruleset { family, backend, table, chains, rules, comments, comment_lists, unreadable: 0 };
        let (chain_ids, comment_ids) = (HashMap::new(), HashMap::new());
        Builder { ruleset, counts: vec![], chain_handles: vec![], chain_of: vec![], chain_ids, comment_ids }
    }

    pub fn chain(&mut self, name: &str) -> ChainId {
        if let Some(&id) = self.chain_ids.get(name) {
            return id;
        }
        let (id, name) = (ChainId(self.ruleset.chains.len() as u32), Arc::<str>::from(name));
        self.ruleset.chains.push(Chain { name: Arc::clone(&name), rules: 0..0 });
        self.chain_ids.insert(name, id);
        id
    }

    pub fn chain_handle(&mut self, chain: ChainId, handle: u64) {
        self.chain_handles.resize(self.ruleset.chains.len(), 0);
        self.chain_handles[chain.0 as usize] = handle;
    }

    pub fn known_chain(&self, name: &str) -> Option<ChainId> {
        self.chain_ids.get(name).copied()
    }

    pub fn chain_name(&self, id: ChainId) -> &str {
        &self.ruleset.chains[id.0 as usize].name
    }

    pub fn comment(&mut self, text: &str) -> CommentId {
        if let Some(&id) = self.comment_ids.get(text) {
            return id;
        }
        let (id, text) = (CommentId(self.ruleset.comments.len() as u32), Arc::<str>::from(text));
        self.ruleset.comments.push(Arc::clone(&text));
        self.comment_ids.insert(text, id);
        id
    }

    pub fn push(&mut self, chain: ChainId, parts: &RuleParts, verdict: Verdict) {
        let RuleParts { hash, mark, ctstate, other_matches, counts_before_match, uncounted, ref comments, count } = *parts;
        // More than 255 comments on a rule cannot come from Felix; the rest would not be looked at anyway.
        let kept = &comments[..comments.len().min(u8::MAX as usize)];
        let comments = (self.ruleset.comment_lists.len() as u32, kept.len() as u8);
        self.ruleset.comment_lists.extend_from_slice(kept);
        self.ruleset.rules.push(Rule { hash, mark, ctstate, other_matches, counts_before_match, uncounted, verdict, comments });
        self.counts.push(count);
        self.chain_of.push(chain);
    }

    /// Appends a chain's rules as another table has them, with what they have counted now.
    pub fn adopt(&mut self, chain: ChainId, from: &Ruleset, of: &Chain, counts: &[Count]) {
        for (id, &count) in of.rule_ids().zip(counts) {
            let comment = |builder: &mut Self, id: CommentId| builder.comment(&from.comments[id.0 as usize]);
            let Rule { hash, mark, ctstate, other_matches, counts_before_match, uncounted, verdict, .. } = *from.rule(id);
            let verdict = match verdict {
                Verdict::Jump(to) => Verdict::Jump(self.chain(&from.chain(to).name)),
                Verdict::Goto(to) => Verdict::Goto(self.chain(&from.chain(to).name)),
                Verdict::Nflog(prefix) => Verdict::Nflog(prefix.map(|prefix| comment(self, prefix))),
                other => other,
            };
            let comments = from.comments_of(id).iter().map(|id| comment(self, *id)).collect();
            let parts = RuleParts { hash, mark, ctstate, other_matches, counts_before_match, uncounted, comments, count };
            self.push(chain, &parts, verdict);
        }
    }

    /// For a jump that was pushed before it was known where it leads.
    pub fn set_verdict(&mut self, rule: RuleId, verdict: Verdict) {
        self.ruleset.rules[rule.0 as usize].verdict = verdict;
    }

    pub fn truncate(&mut self, count: usize) {
        let taken = self.ruleset.rules.get(count..).unwrap_or_default();
        self.ruleset.unreadable -= taken.iter().filter(|rule| rule.verdict == Verdict::Unreadable).count() as u64;
        self.ruleset.rules.truncate(count);
        self.counts.truncate(count);
        self.chain_of.truncate(count);
    }

    pub fn unreadable(&mut self) {
        self.ruleset.unreadable += 1;
    }

    /// Appends a rule that could not be taken apart to a chain: it may do anything.
    pub fn push_unreadable(&mut self, chain: ChainId, count: Option<Count>) {
        self.unreadable();
        let (uncounted, count) = (count.is_none(), count.unwrap_or_default());
        self.push(chain, &RuleParts { other_matches: true, uncounted, count, ..RuleParts::default() }, Verdict::Unreadable);
    }

    pub fn rule_count(&self) -> usize {
        self.ruleset.rules.len()
    }

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
        self.identify_foreign_rules();
        self.ruleset.rules.shrink_to_fit();
        self.counts.shrink_to_fit();
        Snapshot::new(Arc::new(self.ruleset), self.counts, self.chain_handles)
    }

    /// Gives each rule without a hash one of what it does, and of how many such rules stand before it in its chain.
    fn identify_foreign_rules(&mut self) {
        let foreign: Vec<usize> = (0..self.ruleset.rules.len()).filter(|&rule| self.ruleset.rules[rule].hash.is_none()).collect();
        let mut before = (None, 0);
        for place in foreign {
            let chain = self.chain_of[place];
            before = if before.0 == Some(chain) { (Some(chain), before.1 + 1) } else { (Some(chain), 0) };
            self.ruleset.rules[place].hash = RuleHash::made_up(self.digest(RuleId(place as u32), before.1));
        }
    }

    fn digest(&self, id: RuleId, before: usize) -> u64 {
        let (ruleset, rule) = (&self.ruleset, self.ruleset.rule(id));
        let mut hasher = DefaultHasher::new();
        let comments: Vec<&str> = ruleset.comments_of(id).iter().map(|comment| &*ruleset.comments[comment.0 as usize]).collect();
        (before, comments, rule.other_matches, rule.counts_before_match, rule.uncounted).hash(&mut hasher);
        (rule.mark, rule.ctstate, std::mem::discriminant(&rule.verdict)).hash(&mut hasher);
        match rule.verdict {
            Verdict::Jump(chain) | Verdict::Goto(chain) => ruleset.chain(chain).name.hash(&mut hasher),
            Verdict::Nflog(prefix) => prefix.map(|prefix| &*ruleset.comments[prefix.0 as usize]).hash(&mut hasher),
            Verdict::SetMark { value, mask } => (value, mask).hash(&mut hasher),
            _ => {}
        }
        hasher.finish()
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
        let [a, b, empty] = ["a", "b", "empty"].map(|chain| builder.chain(chain));
        for (chain, packets) in [(b, 1), (a, 2), (b, 3)] {
            builder.push(chain, &RuleParts { count: Count { packets, ..Count::default() }, ..RuleParts::default() }, Verdict::Return);
        }
        let read = builder.finish();
        let counts = |chain| read.counts_of(read.ruleset.chain(chain)).iter().map(|count| count.packets).collect::<Vec<_>>();
        assert_eq!([a, b, empty].map(counts), [vec![2], vec![1, 3], vec![]]);
    }

    #[test]
    fn a_rule_that_is_not_felixs_is_known_again_by_what_it_does() {
        let hashes = |verdicts: &[Verdict]| {
            let mut builder = Builder::new(Family::V4, Backend::Nft, "filter");
            let chain = builder.chain("a");
            verdicts.iter().for_each(|verdict| builder.push(chain, &RuleParts::default(), *verdict));
            builder.finish().ruleset.rules.iter().map(|rule| rule.hash).collect::<Vec<_>>()
        };
        let first = hashes(&[Verdict::Drop, Verdict::Drop, Verdict::Accept]);
        assert!(first.iter().all(RuleHash::is_none) && first[0] != first[1]);
        assert_eq!(first, hashes(&[Verdict::Drop, Verdict::Drop, Verdict::Accept]));
        assert_ne!(first[1], hashes(&[Verdict::Drop, Verdict::Accept])[1]);
    }

    #[test]
    fn comments_and_chains_are_kept_once() {
        let mut builder = Builder::new(Family::V4, Backend::Nft, "filter");
        assert_eq!(builder.comment("x"), builder.comment("x"));
        assert_eq!(builder.chain("c"), builder.chain("c"));
        assert_eq!(builder.known_chain("d"), None);
    }
}
