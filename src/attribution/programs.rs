//! Who decided about whose packets on the eBPF dataplane: a [`Snapshot`] of each read → [`Totals`] and [`NodeTotals`]. Pure state.
//!
//! A rule's count is the node's: it is shown as that, by rule and by policy. To workloads it is attributed as far as it is certain,
//! by the bounds of the grid ([`bounds`]) that interfaces (rows) and policies (columns) make. Of a row that has its total, what is not
//! certain goes to all of its policies together, as with policy groups. All of this takes that no program changed since the last read,
//! and begins with the second read: what older policies did, no counter tells.

mod bounds;
mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::group::Margin;
use super::node::{NodeTotals, RuleKey};
use super::totals::{Item, Recorder, Totals, Verdict};
use crate::ebpf::{Known, Owner, Policy, Program, RuleId, Snapshot, UNNUMBERED, Verdicts, ids};
use crate::felix::{Decision, Direction, DropReason, EndpointKind, HashedName};
use plan::{Class, Grid, Plan, verdict};

/// What is carried from read to read.
#[derive(Debug, Default)]
pub struct Programs {
    plan: Plan,
    /// What every rule had counted.
    counts: HashMap<RuleId, u64>,
    /// What ids were known as. An id stays what it was while it counts, even when no file shows it any more.
    known: HashMap<RuleId, Known>,
    /// Ids that nothing names, and the names that were tried on them.
    unknown: HashSet<RuleId>,
    tried: (u64, HashSet<RuleId>),
    /// What every interface had counted.
    interfaces: HashMap<(Arc<str>, Direction), Verdicts>,
    /// What may have counted more for a workload than is shown.
    uncertain: HashMap<(Arc<str>, Direction), HashSet<Item>>,
    started: bool,
}

/// The policies of the datastore, for rules that no file shows, and the version of that list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Datastore<'a> {
    /// Their names.
    pub names: &'a [HashedName],
    /// Changes whenever they do.
    pub version: u64,
}

impl Programs {
    /// Takes in one read. `counts_before`: whether what the kernel counted before the first one is shown too.
    pub fn advance(&mut self, read: &Snapshot, datastore: Datastore, counts_before: bool, totals: &mut Totals, node: &mut NodeTotals) {
        if !read.unchanged || !self.started {
            self.plan = Plan::new(&read.programs);
        }
        self.find_names(read, datastore);
        let deltas = self.deltas(read, counts_before);
        self.count_for_the_node(&deltas, node);
        self.attribute(read, &deltas, totals);
        self.take_over(read);
    }

    /// Ids of the last read that nothing names.
    pub fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.known.len()
    }

    /// The policies that programs hold, or whose rules have counted.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let counted = self.known.values().filter_map(|known| match &known.owner {
            Owner::Policy(policy, _) => Some(policy),
            _ => None,
        });
        self.plan.policies.iter().chain(counted)
    }

    /// The workloads' programs, of both families.
    pub fn workloads(&self) -> &[Arc<Program>] {
        &self.plan.workloads
    }

    /// The policies that apply to the workload on an interface, in the order of evaluation.
    pub fn applied(&self, interface: &str, direction: Direction) -> &[Arc<Policy>] {
        self.plan.applied.get(interface).map_or(&[], |directions| &directions[direction as usize])
    }

    /// Computes the ids of the datastore's policies where some are not known otherwise.
    fn find_names(&mut self, read: &Snapshot, Datastore { names, version }: Datastore) {
        if self.tried.0 != version {
            self.tried = (version, HashSet::new());
        }
        let is_new = |id: &RuleId| {
            *id != UNNUMBERED && !self.plan.known.contains_key(id) && !self.known.contains_key(id) && !self.tried.1.contains(id)
        };
        let unknown: HashSet<RuleId> = read.rules.keys().copied().filter(is_new).collect();
        if !unknown.is_empty() {
            self.known.extend(ids::resolve(&unknown, names));
            self.tried.1.extend(unknown);
            self.tried.1.retain(|id| read.rules.contains_key(id));
        }
    }

    /// What every rule has counted since the last read. Felix deletes the entries of rules that change, and a rule that comes back
    /// begins at zero.
    fn deltas(&self, read: &Snapshot, counts_before: bool) -> HashMap<RuleId, Margin> {
        let delta = |(id, now): (&RuleId, &u64)| {
            let delta = match self.counts.get(id) {
                _ if !self.started && !counts_before => Margin::default(),
                Some(last) if now < last => Margin { least: *now, most: None },
                Some(last) => Margin::exact(now - last),
                None => Margin::exact(*now),
            };
            (*id, delta)
        };
        read.rules.iter().map(delta).collect()
    }

    fn count_for_the_node(&mut self, deltas: &HashMap<RuleId, Margin>, node: &mut NodeTotals) {
        node.begin_read();
        self.unknown.clear();
        let mut known = HashMap::with_capacity(self.plan.known.len());
        for (id, now) in &self.plan.known {
            let Some(now) = now else { continue };
            // What was counted while the number changed its meaning may be the one's or the other's.
            let changed = self.known.get(id).is_some_and(|before| before != now);
            match deltas.get(id) {
                Some(delta) if changed => node.count_unknown_rules(delta.least),
                delta => count(now, delta.map_or(0, |delta| delta.least), node),
            }
            known.insert(*id, now.clone());
        }
        for (id, delta) in deltas.iter().filter(|(id, _)| **id != UNNUMBERED && !known_as(&self.plan, **id)) {
            let before = self.known.get(id).filter(|_| !self.plan.known.contains_key(id));
            match before {
                Some(before) => {
                    count(before, delta.least, node);
                    known.insert(*id, before.clone());
                }
                None => {
                    node.count_unknown_rules(delta.least);
                    self.unknown.insert(*id);
                }
            }
        }
        self.known = known;
    }

    fn attribute(&mut self, read: &Snapshot, deltas: &HashMap<RuleId, Margin>, totals: &mut Totals) {
        let changed: HashSet<(&Arc<str>, Direction)> = read
            .programs
            .iter()
            .filter(|shown| !shown.unchanged)
            .map(|shown| (&shown.program.interface, shown.program.direction))
            .collect();
        let is_exact = self.started && read.unchanged && read.complete && read.unreadable == 0 && self.plan.is_understood;
        for grid in &self.plan.grids {
            let rows: Vec<RowRead> = grid.rows.iter().map(|interface| self.row(read, grid, interface)).collect();
            let columns: Vec<Margin> = grid.columns.iter().map(|column| column_margin(column, deltas, is_exact)).collect();
            let margins: Vec<Margin> = rows.iter().map(|row| row.margin).collect();
            let bounds = bounds::bounds(&margins, &columns, &grid.cells);
            for (index, (interface, row)) in grid.rows.iter().zip(&rows).enumerate() {
                let items: Vec<Option<&Item>> = grid.cells[index].iter().map(|&column| grid.columns[column].item.as_ref()).collect();
                let is_steady = !changed.contains(&(interface, grid.direction));
                let uncertain = self.uncertain.entry((Arc::clone(interface), grid.direction)).or_default();
                let mut credit = Credit { class: grid.class, items: &items, row, uncertain };
                let mut recorder = totals.endpoint(EndpointKind::Workload, interface, grid.direction);
                match self.started {
                    true => credit.record(&bounds[index], is_steady, &mut recorder),
                    false => credit.begin(read.interfaces.contains_key(&(Arc::clone(interface), grid.direction)), &mut recorder),
                }
            }
        }
    }

    fn row(&self, read: &Snapshot, grid: &Grid, interface: &Arc<str>) -> RowRead {
        let key = (Arc::clone(interface), grid.direction);
        let of_class = |verdicts: &Verdicts| match grid.class {
            Class::Accepted => Some(verdicts.accepted),
            Class::Refused => Some(verdicts.refused),
            Class::Passed => None,
        };
        // An interface that has come since the last read began at zero.
        let is_new = !self.interfaces.is_empty() && !self.interfaces.contains_key(&key);
        let last = self.interfaces.get(&key).copied().or(is_new.then(Verdicts::default));
        let (now, last) = (read.interfaces.get(&key).and_then(of_class), last.as_ref().and_then(of_class));
        let unknown = RowRead { margin: Margin { least: 0, most: None }, packets: None };
        let Some((now, last)) = now.zip(last).filter(|(now, last)| now.0 >= last.0) else { return unknown };
        let margin = Margin { least: now.0.saturating_sub(last.1), most: Some(now.1.saturating_sub(last.0)) };
        RowRead { margin, packets: Some(now.0 - last.0) }
    }

    fn take_over(&mut self, read: &Snapshot) {
        self.started = true;
        self.counts.clear();
        self.counts.extend(read.rules.iter().map(|(id, packets)| (*id, *packets)));
        self.interfaces.clear();
        self.interfaces.extend(read.interfaces.iter().map(|(key, verdicts)| (key.clone(), *verdicts)));
        let rows: HashSet<(&Arc<str>, Direction)> =
            self.plan.grids.iter().flat_map(|grid| grid.rows.iter().map(|row| (row, grid.direction))).collect();
        self.uncertain.retain(|(interface, direction), _| rows.contains(&(interface, *direction)));
    }
}

fn known_as(plan: &Plan, id: RuleId) -> bool {
    plan.known.get(&id).is_some_and(Option::is_some)
}

/// Counts a rule's packets for the node.
fn count(known: &Known, packets: u64, node: &mut NodeTotals) {
    let Known { owner, decision, direction } = known;
    match owner {
        Owner::Policy(policy, index) => {
            let Some(verdict) = verdict(*decision) else { return };
            let (label, tier, direction) = (Arc::clone(&policy.label), Arc::clone(&policy.tier), *direction);
            let key = RuleKey { policy: Arc::clone(&label), direction, family: None, index: *index, decision: *decision };
            node.rule(key, packets);
            node.decide(direction, Item::Policy { tier, policy: label, verdict }, packets);
        }
        Owner::EndOfTier(tier) if *decision == Decision::Deny => {
            node.decide(*direction, Item::Drop { reason: DropReason::NoPolicy, tier: Arc::clone(tier) }, packets);
        }
        Owner::NoProfile => node.decide(*direction, Item::Drop { reason: DropReason::NoProfile, tier: "".into() }, packets),
        Owner::EndOfTier(_) | Owner::Profile(_) => {}
    }
}

/// What a column has counted since the last read. Where it may have counted for others too, only the most is known.
fn column_margin(column: &plan::Column, deltas: &HashMap<RuleId, Margin>, is_exact: bool) -> Margin {
    if column.ids.contains(&UNNUMBERED) || column.item.is_none() {
        return Margin { least: 0, most: None };
    }
    let none = Margin::exact(0);
    let mut sum = column.ids.iter().fold(none, |sum, id| {
        let delta = deltas.get(id).copied().unwrap_or(none);
        let most = sum.most.zip(delta.most).map(|(a, b)| a.saturating_add(b));
        Margin { least: sum.least.saturating_add(delta.least), most }
    });
    if column.elsewhere || !is_exact {
        sum.least = 0;
    }
    sum
}

fn policy_or_none() -> Item {
    Item::Drop { reason: DropReason::PolicyOrNone, tier: "".into() }
}

/// What an interface has counted since the last read.
struct RowRead {
    /// Up to the moment at which the rules were read.
    margin: Margin,
    /// From one read to the next; `None` where it is not known.
    packets: Option<u64>,
}

/// Credits one row.
struct Credit<'a> {
    class: Class,
    items: &'a [Option<&'a Item>],
    row: &'a RowRead,
    uncertain: &'a mut HashSet<Item>,
}

impl Credit<'_> {
    /// Counting begins with this read.
    fn begin(&self, is_row_known: bool, recorder: &mut Recorder) {
        self.items.iter().flatten().for_each(|item| recorder.add(item, 0));
        if is_row_known && self.class == Class::Refused {
            recorder.add(&policy_or_none(), 0);
        }
    }

    fn record(&mut self, bounds: &[Margin], is_steady: bool, recorder: &mut Recorder) {
        // The row was read a moment before the columns: what is certain of packets after it comes to count with them.
        let mut rest = self.row.packets;
        for (item, bound) in self.items.iter().zip(bounds) {
            let Some(item) = item else { continue };
            let (least, most) = match (rest, is_steady) {
                // Nothing else can have decided.
                (Some(packets), true) if self.items.len() == 1 => (packets, Some(packets)),
                (_, true) => (bound.least.min(rest.unwrap_or(u64::MAX)), bound.most),
                // What the program was meanwhile is not known.
                (_, false) => (0, self.row.margin.most),
            };
            if most != Some(least) {
                self.uncertain.insert((*item).clone());
            }
            match least > 0 || !self.uncertain.contains(*item) {
                true => recorder.add(item, least),
                false => recorder.keep_if_counted(item),
            }
            rest = rest.map(|rest| rest - least);
        }
        self.record_rest(rest, is_steady, recorder);
    }

    /// What one of the row's columns decided, but which one is not certain.
    fn record_rest(&self, rest: Option<u64>, is_steady: bool, recorder: &mut Recorder) {
        match self.class {
            // Whatever changed meanwhile, it was refused.
            Class::Refused => match rest {
                Some(rest) => recorder.add(&policy_or_none(), rest),
                None => recorder.keep_if_counted(&policy_or_none()),
            },
            Class::Accepted => {
                let Some(item) = self.together() else { return };
                match rest.filter(|rest| *rest > 0 && is_steady) {
                    Some(rest) => recorder.add(&item, rest),
                    None => recorder.keep_if_counted(&item),
                }
            }
            Class::Passed => {}
        }
    }

    /// All that may have accepted a packet, their names joined by commas.
    fn together(&self) -> Option<Item> {
        let names = self.items.iter().flatten().filter_map(|item| match item {
            Item::Policy { policy, .. } => Some(&**policy),
            Item::Profile(profile) if !profile.is_empty() => Some(&**profile),
            _ => None,
        });
        let mut tiers: Vec<&str> = Vec::new();
        for item in self.items.iter().flatten() {
            if let Item::Policy { tier, .. } = item
                && !tiers.contains(&&**tier)
            {
                tiers.push(tier);
            }
        }
        let policy = names.collect::<Vec<_>>().join(",").into();
        (self.items.len() > 1).then(|| Item::Policy { tier: tiers.join(",").into(), policy, verdict: Verdict::Accept })
    }
}

#[cfg(test)]
#[path = "programs/tests.rs"]
mod tests;
