//! Who accepted or refused whose packets: the pipelines and deltas of each read → [`Totals`]. Pure state, no I/O.
//!
//! What a rule counts by itself is taken as it is. What no rule counts is derived ([`tier`]), bounded ([`group`]), or left out; in
//! doubt too little is credited, never too much.

mod direct;
mod flow;
mod group;
mod groups;
mod motion;
mod node;
mod programs;
mod table;
mod tier;
mod totals;

use std::collections::HashMap;
use std::sync::Arc;

use lazy_static::lazy_static;

pub use flow::{Moved, Reach, moved, settle_ages};
pub use motion::Motion;
pub use node::{NodeTotals, RuleKey};
pub use programs::{Datastore, Programs};
pub use totals::{EndpointTotals, Item, Total, Totals, Verdict};

use crate::ebpf;
use crate::felix::{Decision, DropReason, DropRule, Label, Labels, Pipeline, Pipelines, Structure, Target, Tier};
use crate::ledger::{Deltas, Since};
use crate::ruleset::{ChainId, RuleId, Ruleset, TableId};
use direct::{Claim, Claims, Source, Unseen, Waiting};
use groups::{Groups, Member};
use table::{Leftovers, TableView, Users};
use tier::{Can, Decided, Split, refusals_are_known};
use totals::Recorder;

/// How many packets may be held up on their way for longer than two looks take, so that nothing seems to move.
const HELD_UP: u64 = 1;

lazy_static! {
    static ref NO_TIER: Arc<str> = "".into();
}

/// One table of one read, with all that is known about it.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// The rules.
    pub ruleset: &'a Ruleset,
    /// What they mean.
    pub pipelines: &'a Pipelines,
    /// What they have counted since the last read.
    pub deltas: &'a Deltas,
    /// What their policies are called.
    pub labels: &'a Labels,
    /// What they counted while they were read.
    pub motion: &'a Motion,
    /// How many packets can have reached them since the last read.
    pub reach: &'a Reach,
    /// Whether somebody watches endpoints, and none has come or gone since the last read.
    pub endpoints_stayed: bool,
}

impl<'a> Table<'a> {
    /// A table of which nothing changes from read to read but what it has counted.
    pub fn new(structure: &'a Structure, deltas: &'a Deltas, motion: &'a Motion, reach: &'a Reach) -> Self {
        let Structure { ruleset, pipelines, labels } = structure;
        Table { ruleset, pipelines, deltas, labels, motion, reach, endpoints_stayed: false }
    }

    /// Whether packets were decided since the last read in a way that no rule counts by itself. Then it matters whether any were on
    /// their way while the table was read.
    pub fn has_to_be_derived(&self) -> bool {
        let moved = |rule: RuleId| self.deltas.packets(rule) > 0;
        let tiers = self.pipelines.endpoints.iter().flat_map(|endpoint| &endpoint.tiers);
        tiers.flat_map(|tier| &tier.targets).any(|target| {
            let moved = moved(target.jump) || target.accepted.is_some_and(moved);
            moved && (self.pipelines.group(target.chain).is_some() || self.decides_unseen(target.chain))
        })
    }

    /// Whether a policy decides in a way that the endpoint's rules do not count.
    fn decides_unseen(&self, policy: ChainId) -> bool {
        self.pipelines.policy(policy).is_some_and(|policy| policy.can(Decision::Deny) || policy.can(Decision::Pass))
    }
}

/// Attribution over the life of the process.
#[derive(Debug, Default)]
pub struct Attribution {
    /// Packets that can be inside of a chain at one instant.
    cpus: u64,
    totals: Totals,
    node: NodeTotals,
    waiting: Waiting,
    leftovers: Leftovers,
    users: Users,
    groups: Groups,
    /// Labels that stood in for a policy's name at the last read, by table and chain.
    provisional: HashMap<(TableId, Arc<str>), Arc<str>>,
    /// Of the eBPF dataplane, while that is what is read.
    programs: Option<Programs>,
}

impl Attribution {
    /// Nothing was read yet. `cpus`: how many CPUs the node has; each works on one packet at a time.
    pub fn new(cpus: usize) -> Self {
        Attribution { cpus: cpus as u64, ..Attribution::default() }
    }

    /// Takes in one read: all tables of it, both families.
    pub fn advance(&mut self, tables: &[Table]) {
        self.programs = None;
        self.rename(tables);
        self.totals.begin_read();
        let mut leftovers = std::mem::take(&mut self.leftovers);
        let users = std::mem::take(&mut self.users);
        for table in tables {
            let view = TableView::new(*table, &mut leftovers, &users);
            let (claims, cpus) = (Claims::default(), self.cpus);
            let mut walk = Walk { view, cpus, waiting: &self.waiting, claims, groups: &mut self.groups };
            for pipeline in &table.pipelines.endpoints {
                walk.pipeline(pipeline, &mut self.totals.endpoint(pipeline.kind, &pipeline.interface, pipeline.direction));
            }
            let Walk { mut view, claims, .. } = walk;
            claims.settle(&mut view, &mut self.waiting, &mut self.totals);
            self.groups.credit(&view, &mut self.totals);
            view.leave(&mut self.leftovers, &mut self.users);
        }
        self.node.advance(tables);
        self.groups.end_read();
        self.waiting.end_read();
    }

    /// Takes in one read of the eBPF dataplane. If it is the first one that is not the process's first, Calico has moved there:
    /// its counts may be old, and are where counting begins.
    pub fn advance_programs(&mut self, read: &ebpf::Snapshot, datastore: Datastore) {
        let counts_before = self.node.is_new();
        self.totals.begin_read();
        let programs = self.programs.get_or_insert_default();
        programs.advance(read, datastore, counts_before, &mut self.totals, &mut self.node);
    }

    /// Totals that went by a chain's name go by the policy's once the datastore has told it.
    fn rename(&mut self, tables: &[Table]) {
        let before = std::mem::take(&mut self.provisional);
        for table in tables {
            for (chain, label) in table.labels.iter() {
                if before.is_empty() && !label.provisional {
                    continue;
                }
                let key = (table.ruleset.id(), Arc::clone(&table.ruleset.chain(chain).name));
                if let Some(old) = before.get(&key).filter(|old| **old != label.label) {
                    self.totals.rename_policy(old, &label.label);
                }
                if label.provisional {
                    self.provisional.insert(key, Arc::clone(&label.label));
                }
            }
        }
    }

    /// Counts from here on: all totals are 0 again.
    pub fn restart(&mut self) {
        self.totals.restart();
        self.node.restart();
    }

    /// Hides what takes two reads to tell, because there has been but one.
    pub fn forget_derived(&mut self) {
        self.totals.hide(|item| match item {
            Item::PolicyDrop { .. } => true,
            Item::Policy { verdict, .. } => *verdict != Verdict::Accept,
            _ => false,
        });
    }

    /// Hides all that is told of endpoints: on the eBPF dataplane, all of it takes two reads.
    pub fn forget_endpoints(&mut self) {
        self.totals.hide(|_| true);
    }

    /// What has been counted so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The eBPF dataplane's programs, while that is what is read.
    pub fn programs(&self) -> Option<&Programs> {
        self.programs.as_ref()
    }

    /// What has been counted so far for the node as a whole.
    pub fn node(&self) -> &NodeTotals {
        &self.node
    }
}

/// The walk through the pipelines of one table.
struct Walk<'a, 'b> {
    view: TableView<'a>,
    cpus: u64,
    waiting: &'b Waiting,
    claims: Claims,
    groups: &'b mut Groups,
}

impl Walk<'_, '_> {
    fn pipeline(&mut self, pipeline: &Pipeline, recorder: &mut Recorder) {
        let deltas = self.view.table.deltas;
        if let Some(rule) = pipeline.established {
            recorder.add(&Item::Established, deltas.packets(rule));
        }
        for drop in &pipeline.drops {
            recorder.add(&Item::Drop { reason: drop.reason, tier: Arc::clone(&NO_TIER) }, dropped(drop, deltas));
        }
        for tier in &pipeline.tiers {
            self.tier(pipeline, tier, recorder);
        }
        for profile in &pipeline.profiles {
            if let (Some(label), Some(accepted)) = (self.view.table.labels.get(profile.chain), profile.accepted) {
                recorder.add(&Item::Profile(Arc::clone(&label.label)), deltas.packets(accepted));
            }
        }
    }

    fn tier(&mut self, pipeline: &Pipeline, tier: &Tier, recorder: &mut Recorder) {
        let deltas = self.view.table.deltas;
        let can: Vec<_> = tier.targets.iter().map(|target| self.view.can(target.chain)).collect();
        let splits = tier::splits(tier, &can);
        let decided = |since| tier::decided(tier, (&can, &splits), (deltas, since), |target| self.view.own(target.chain, pipeline));
        let since_last_read = decided(Since::LastRead);
        let since_written = if deltas.unchanged(pipeline.chain) { vec![Decided::default(); can.len()] } else { decided(Since::Written) };
        let refusals_are_known = refusals_are_known(&splits, &can);
        for (index, target) in tier.targets.iter().enumerate() {
            let (split, motion) = (splits[index], self.view.table.motion);
            let here = Here {
                split,
                since_last_read: since_last_read[index],
                since_written: since_written[index],
                doubt: tier::doubt(tier, index, split, motion, self.cpus),
                entering: tier::entering(tier, index, split, motion),
                refusals_are_known,
            };
            match self.view.table.pipelines.group(target.chain) {
                Some(_) => self.groups.add(target.chain, member(pipeline, tier, index, can[index], &here)),
                None => self.policy(pipeline, target, &here, recorder),
            }
        }
        if let Some(end) = tier.end {
            recorder.add(&Item::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(&tier.name) }, deltas.packets(end));
        }
        if refusals_are_known {
            recorder.add(&Item::PolicyDrop { tier: Arc::clone(&tier.name) }, 0);
        }
    }

    /// A policy with its own jump: what it accepted is counted, what it refused and passed on is claimed.
    fn policy(&mut self, pipeline: &Pipeline, target: &Target, here: &Here, recorder: &mut Recorder) {
        let Some(Label { label, tier, .. }) = self.view.table.labels.get(target.chain) else { return };
        let mut item = Item::Policy { tier: Arc::clone(tier), policy: Arc::clone(label), verdict: Verdict::Accept };
        if let Some(accepted) = target.accepted {
            recorder.add(&item, self.view.table.deltas.packets(accepted));
        }
        for verdict in here.split.verdicts(self.view.can(target.chain)) {
            item.decided(verdict);
            recorder.add(&item, 0);
            let in_sum = here.refusals_are_known && verdict == Verdict::Deny;
            let sum = in_sum.then(|| Item::PolicyDrop { tier: Arc::clone(tier) });
            if let Some((source, packets, unseen)) = self.claim(pipeline.chain, target, verdict, here) {
                let endpoint = (pipeline.kind, Arc::clone(&pipeline.interface), pipeline.direction);
                let entering = here.entering;
                let doubt = here.doubt.max(here.since_last_read.excess(self.waiting.of(&source)));
                self.claims.add(target.chain, Claim { source, endpoint, item: item.clone(), sum, packets, doubt, entering, unseen });
            }
        }
    }

    /// What an endpoint claims of a policy's decisions, and whether there may be more that its counters do not show. Nothing, as a rule.
    fn claim(&self, chain: ChainId, target: &Target, verdict: Verdict, here: &Here) -> Option<(Source, i64, Option<Unseen>)> {
        let deltas = self.view.table.deltas;
        // Where rules were written anew, all that use a policy are asked for.
        let is_wanted = deltas.rewritten || !self.waiting.is_empty();
        let source = || self.source(chain, target.chain, verdict);
        if let Some(packets) = here.since_last_read.of(verdict) {
            return (packets != 0 || is_wanted).then(|| {
                let source = source();
                let packets = packets + self.waiting.of(&source);
                (source, packets, None)
            });
        }
        let unseen = self.view.table.reach.of(target.jump).map_or(Unseen::Unlimited, Unseen::AtMost);
        match here.since_written.of(verdict) {
            Some(packets) => Some((source(), packets, Some(unseen))),
            None if here.entering == 0 && !is_wanted => None,
            None => Some((source(), -i64::try_from(here.entering).unwrap_or(0), Some(unseen))),
        }
    }

    fn source(&self, endpoint: ChainId, policy: ChainId, verdict: Verdict) -> Source {
        let ruleset = self.view.table.ruleset;
        let name = |chain| Arc::clone(&ruleset.chain(chain).name);
        Source { table: ruleset.id(), endpoint: name(endpoint), policy: name(policy), verdict }
    }
}

/// What is known of one target of a tier.
struct Here {
    split: Split,
    since_last_read: Decided,
    /// If its rules were written later than that.
    since_written: Decided,
    doubt: u64,
    entering: u64,
    refusals_are_known: bool,
}

/// What a rule refused since the last read.
fn dropped(drop: &DropRule, deltas: &Deltas) -> u64 {
    if drop.let_through.is_empty() {
        return deltas.packets(drop.rule);
    }
    let let_through: Option<i64> = drop.let_through.iter().map(|rule| deltas.since_last_read(*rule)).sum();
    let refused = deltas.since_last_read(drop.rule).zip(let_through).map_or(0, |(reached, let_through)| reached - let_through);
    u64::try_from(refused).unwrap_or(0)
}

fn member(pipeline: &Pipeline, tier: &Tier, index: usize, can: Can, here: &Here) -> Member {
    let target = &tier.targets[index];
    Member {
        kind: pipeline.kind,
        interface: Arc::clone(&pipeline.interface),
        direction: pipeline.direction,
        tier: Arc::clone(&tier.name),
        chain: pipeline.chain,
        jump: target.jump,
        accepted: target.accepted,
        undecided: tier.undecided_after(index),
        can,
        split: here.split,
        decided: here.since_last_read,
        since_written: here.since_written,
        doubt: here.doubt,
        entering: here.entering,
        refusals_are_known: here.refusals_are_known,
    }
}
