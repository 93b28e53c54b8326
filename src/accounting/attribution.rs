//! Attributes packets to endpoints and policies: from the pipelines and deltas of each read to [`Totals`]. Pure state, no I/O.
//!
//! What a rule counts by itself is taken as it is. What no rule counts is derived ([`tier`]), bounded ([`group`]) or left out. In
//! doubt too little is credited, never too much.

mod direct;
pub(super) mod flow;
mod foreign;
mod group;
mod groups;
mod motion;
mod node;
mod open;
mod programs;
mod table;
mod tier;
mod totals;
mod walk;
mod witnessed;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use motion::Motion;
pub use node::NodeTotals;
pub use programs::{Datastore, Programs};
pub use totals::{EndpointTotals, Item, Total, Totals, Verdict};
pub use witnessed::Witnessed;

use crate::accounting::ledger::Deltas;
use crate::ebpf;
use crate::felix::{Decision, DropReason, Labels, Pipelines, PolicyChain};
use crate::ruleset::{ChainId, Ruleset, TableId};
use direct::{Claims, Waiting};
use groups::Groups;
use open::Open;
use table::{ByChain, Leftovers, TableView, Users};
use walk::Walk;

/// Identifies a chain from read to read.
type ChainKey = (TableId, Arc<str>);

#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    pub ruleset: &'a Ruleset,
    pub pipelines: &'a Pipelines,
    pub deltas: &'a Deltas,
    pub labels: &'a Labels,
    pub motion: &'a Motion,
    pub reach: &'a flow::Reach,
    pub witnessed: &'a Witnessed,
    /// The number of CPUs of the node. Each works on one packet at a time.
    pub cpus: u64,
    /// Whether endpoints are watched and none has come or gone since the last read.
    pub endpoints_stayed: bool,
}

impl Table<'_> {
    fn key(&self, chain: ChainId) -> ChainKey {
        (self.ruleset.id(), Arc::clone(&self.ruleset.chain(chain).name))
    }
}

/// Whether packets were decided since the last read in a way that no rule counts by itself. Then it matters whether packets were in
/// flight while the table was read.
pub(super) fn has_to_be_derived(pipelines: &Pipelines, deltas: &Deltas) -> bool {
    let denies_or_passes = |policy: &PolicyChain| policy.can(Decision::Deny) || policy.can(Decision::Pass);
    let is_derived = |chain| pipelines.group(chain).is_some() || pipelines.policy(chain).is_some_and(denies_or_passes);
    let mut tiers = pipelines.endpoints.iter().flat_map(|endpoint| endpoint.tiers.iter().chain([&endpoint.profiles]));
    // Any rule of the tier may be the only one that counted: a packet may come after the jump was read. A policy may be, too: a packet may
    // come after the endpoint was read.
    let counted = |rule| deltas.packets(rule) > 0;
    tiers.any(|tier| tier.targets.iter().any(|target| is_derived(target.chain)) && tier::all_rules(tier).any(counted))
        || pipelines.policies().filter(|policy| denies_or_passes(policy)).any(|policy| policy.rules.iter().any(|rule| counted(rule.rule)))
}

/// What one read of tables leaves for the next one, which forgets what it does not meet.
#[derive(Debug, Default)]
struct Left {
    waiting: Waiting,
    leftovers: Leftovers,
    users: Users,
    groups: Groups,
    open: Open,
    /// Labels that are used until a policy's name is known.
    provisional: HashMap<ChainKey, Arc<str>>,
}

#[derive(Debug, Default)]
pub struct Attribution {
    totals: Totals,
    node: NodeTotals,
    left: Left,
    /// Whether no rule counts what limits deny, as in Calico's own nftables tables.
    limits_are_derived: bool,
    /// The eBPF dataplane's state, while that dataplane is read.
    programs: Option<Programs>,
}

impl Attribution {
    pub fn advance(&mut self, tables: &[Table]) {
        let now = Instant::now();
        self.programs = None;
        let mut before = std::mem::take(&mut self.left);
        self.rename(tables, &before.provisional);
        let mut drops = tables.iter().flat_map(|table| &table.pipelines.endpoints).flat_map(|pipeline| &pipeline.drops);
        self.limits_are_derived = drops.any(|drop| !drop.let_through.is_empty());
        self.totals.begin_read(now);
        for table in tables {
            let mut view = TableView::new(*table, &mut before.leftovers, &before.users);
            let (claims, members, open) = (Claims::default(), ByChain(Vec::new()), ByChain(Vec::new()));
            let (waited, waiting) = (&before.waiting, &mut self.left.waiting);
            let mut walk = Walk { view: &view, waited, waiting, claims, members, open };
            for pipeline in &table.pipelines.endpoints {
                walk.pipeline(pipeline, &mut self.totals.of(pipeline));
            }
            let Walk { claims, members, open, .. } = walk;
            claims.settle(&mut view, &mut self.left.waiting, &mut self.totals);
            groups::credit_all(&view, members, &mut before.groups, &mut self.left.groups, &mut self.totals);
            open::settle(&view, open, &mut before.open, &mut self.left.open, &mut self.totals);
            view.leave(&mut self.left.leftovers, &mut self.left.users);
        }
        self.node.advance(tables, now);
        self.totals.end_read();
    }

    /// Takes in one read of the eBPF dataplane. If tables were read before, Calico has switched to eBPF: the programs' counts may be old,
    /// so counting begins with this read.
    pub fn advance_programs(&mut self, read: &ebpf::Snapshot, datastore: Datastore) {
        let counts_before = self.node.is_new();
        self.totals.begin_read(Instant::now());
        let programs = self.programs.get_or_insert_default();
        programs.advance(read, datastore, counts_before, &mut self.totals, &mut self.node);
    }

    /// Moves totals from a chain's name to the policy's name, once the datastore has given it.
    fn rename(&mut self, tables: &[Table], before: &HashMap<ChainKey, Arc<str>>) {
        for table in tables {
            for (chain, label) in table.labels.iter() {
                if before.is_empty() && !label.provisional {
                    continue;
                }
                let key = table.key(chain);
                if let Some(old) = before.get(&key).filter(|old| **old != label.label) {
                    self.totals.rename_policy(old, &label.label);
                    self.node.rename_policy(old, &label.label);
                }
                if label.provisional {
                    self.left.provisional.insert(key, Arc::clone(&label.label));
                }
            }
        }
    }

    pub fn restart(&mut self) {
        self.totals.restart();
        self.node.restart();
    }

    /// Hides what takes two reads to derive, because there was only one. On the eBPF dataplane that is everything about endpoints.
    pub fn forget_derived(&mut self) {
        let (has_programs, limits_are_derived) = (self.programs.is_some(), self.limits_are_derived);
        self.totals.hide(|item| match item {
            _ if has_programs => true,
            Item::PolicyDrop { .. } | Item::Drop { reason: DropReason::Profile, .. } => true,
            Item::Drop { reason: DropReason::RateLimit | DropReason::ConnectionLimit, .. } => limits_are_derived,
            Item::Policy { verdict, .. } => *verdict != Verdict::Accept,
            _ => false,
        });
    }

    pub fn note_that_there_may_have_been_more(&mut self) {
        self.totals.note_that_there_may_have_been_more();
    }

    pub fn introduce(&mut self, hold: Duration) {
        self.totals.introduce(Instant::now(), hold);
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub fn programs(&self) -> Option<&Programs> {
        self.programs.as_ref()
    }

    pub fn node(&self) -> &NodeTotals {
        &self.node
    }
}
