//! Builds a [`Ruleset`] with its counters from what a reader meets, in the order in which it meets it. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::{
    Backend, Chain, ChainId, CommentId, Count, CtState, Entry, Family, MarkMatch, Rule, RuleHash, RuleId, Ruleset, Snapshot, Verdict,
};

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
    /// The indices of the distinct rules.
    places: HashMap<Rule, u32, RandomState>,
}

impl Builder {
    pub fn new(family: Family, backend: Backend, table: &'static str) -> Self {
        let (chains, entries, distinct, comments) = (vec![], vec![], vec![], vec![]);
        let ruleset = Ruleset { family, backend, table, chains, entries, distinct, comments, unreadable: 0 };
        let (chain_ids, comment_ids, places) = (HashMap::new(), HashMap::new(), HashMap::default());
        Builder { ruleset, counts: vec![], chain_handles: vec![], chain_of: vec![], chain_ids, comment_ids, places }
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
        let comments = comments.as_slice().into();
        let rule = self.place(Rule { mark, ctstate, other_matches, counts_before_match, uncounted, verdict, comments });
        self.ruleset.entries.push(Entry { hash, rule });
        self.counts.push(count);
        self.chain_of.push(chain);
    }

    /// Returns the index of a rule among the distinct ones.
    fn place(&mut self, rule: Rule) -> u32 {
        let distinct = &mut self.ruleset.distinct;
        *self.places.entry(rule).or_insert_with_key(|rule| {
            distinct.push(rule.clone());
            distinct.len() as u32 - 1
        })
    }

    /// Appends the rules of a chain of another table, with new counts.
    pub fn adopt(&mut self, chain: ChainId, from: &Ruleset, of: &Chain, counts: &[Count]) {
        for (id, &count) in of.rule_ids().zip(counts) {
            let comment = |builder: &mut Self, id: CommentId| builder.comment(&from.comments[id.0 as usize]);
            let Rule { mark, ctstate, other_matches, counts_before_match, uncounted, verdict, .. } = *from.rule(id);
            let verdict = match verdict {
                Verdict::Jump(to) => Verdict::Jump(self.chain(&from.chain(to).name)),
                Verdict::Goto(to) => Verdict::Goto(self.chain(&from.chain(to).name)),
                Verdict::Nflog(prefix) => Verdict::Nflog(prefix.map(|prefix| comment(self, prefix))),
                other => other,
            };
            let comments = from.comments_of(id).iter().map(|id| comment(self, *id)).collect();
            let hash = from.hash(id);
            let parts = RuleParts { hash, mark, ctstate, other_matches, counts_before_match, uncounted, comments, count };
            self.push(chain, &parts, verdict);
        }
    }

    /// Sets the verdict of a jump that was added before its target was known.
    pub fn set_verdict(&mut self, rule: RuleId, verdict: Verdict) {
        let rule_with = Rule { verdict, ..self.ruleset.rule(rule).clone() };
        self.ruleset.entries[rule.0 as usize].rule = self.place(rule_with);
    }

    pub fn truncate(&mut self, count: usize) {
        let taken = (count..self.rule_count()).map(|rule| self.ruleset.rule(RuleId(rule as u32)));
        self.ruleset.unreadable -= taken.filter(|rule| rule.verdict == Verdict::Unreadable).count() as u64;
        self.ruleset.entries.truncate(count);
        self.counts.truncate(count);
        self.chain_of.truncate(count);
    }

    pub fn unreadable(&mut self) {
        self.ruleset.unreadable += 1;
    }

    /// Appends a rule that could not be parsed. It may do anything.
    pub fn push_unreadable(&mut self, chain: ChainId, count: Option<Count>) {
        self.unreadable();
        let (uncounted, count) = (count.is_none(), count.unwrap_or_default());
        self.push(chain, &RuleParts { other_matches: true, uncounted, count, ..RuleParts::default() }, Verdict::Unreadable);
    }

    pub fn rule_count(&self) -> usize {
        self.ruleset.entries.len()
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
        self.ruleset.entries.shrink_to_fit();
        self.counts.shrink_to_fit();
        Snapshot::new(Arc::new(self.ruleset), self.counts, self.chain_handles)
    }

    /// Gives each rule without a hash one that is made of what it does and of the number of such rules before it in its chain.
    fn identify_foreign_rules(&mut self) {
        let foreign: Vec<usize> = (0..self.rule_count()).filter(|&rule| self.ruleset.entries[rule].hash.is_none()).collect();
        let mut before = (None, 0);
        for place in foreign {
            let chain = self.chain_of[place];
            before = if before.0 == Some(chain) { (Some(chain), before.1 + 1) } else { (Some(chain), 0) };
            self.ruleset.entries[place].hash = RuleHash::made_up(self.digest(RuleId(place as u32), before.1));
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

    /// Kernel dumps are ordered by chain, but not always in the order in which the chains were declared.
    fn group_rules_by_chain(&mut self) {
        let mut order: Vec<u32> = (0..self.chain_of.len() as u32).collect();
        order.sort_by_key(|&rule| self.chain_of[rule as usize]);
        self.ruleset.entries = order.iter().map(|&rule| self.ruleset.entries[rule as usize]).collect();
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
            builder.finish().ruleset.entries.iter().map(|rule| rule.hash).collect::<Vec<_>>()
        };
        let first = hashes(&[Verdict::Drop, Verdict::Drop, Verdict::Accept]);
        assert!(first.iter().all(RuleHash::is_none) && first[0] != first[1]);
        assert_eq!(first, hashes(&[Verdict::Drop, Verdict::Drop, Verdict::Accept]));
        assert_ne!(first[1], hashes(&[Verdict::Drop, Verdict::Accept])[1]);
    }

    /// A large node has 50,000 rules, but only a few hundred distinct ones.
    #[test]
    fn what_rules_say_is_kept_once() {
        let mut builder = Builder::new(Family::V4, Backend::Legacy, "filter");
        let [chain, to] = ["a", "b"].map(|chain| builder.chain(chain));
        let comments = vec![builder.comment("Return if policy accepted")];
        for hash in 0..1000 {
            let parts = RuleParts { hash: RuleHash::new(format!("{hash:016}").as_bytes()), ..RuleParts::default() };
            builder.push(chain, &parts, Verdict::Jump(to));
            builder.push(chain, &RuleParts { comments: comments.clone(), ..parts }, Verdict::Return);
        }
        // The target of a jump may become known later.
        builder.set_verdict(RuleId(0), Verdict::Drop);
        let ruleset = builder.finish().ruleset;
        assert_eq!((ruleset.distinct.len(), ruleset.entries.len(), size_of::<Entry>()), (3, 2000, 20));
        assert_eq!([0, 1, 2].map(|rule| ruleset.rule(RuleId(rule)).verdict), [Verdict::Drop, Verdict::Return, Verdict::Jump(to)]);
        assert_eq!((ruleset.comments_of(RuleId(0)), ruleset.comments_of(RuleId(1999))), (&[][..], &comments[..]));
        assert_eq!(ruleset.hash(RuleId(1999)), RuleHash::new(b"0000000000000999"));
    }

    #[test]
    fn comments_and_chains_are_kept_once() {
        let mut builder = Builder::new(Family::V4, Backend::Nft, "filter");
        assert_eq!(builder.comment("x"), builder.comment("x"));
        assert_eq!(builder.chain("c"), builder.chain("c"));
        assert_eq!(builder.known_chain("d"), None);
    }
}
