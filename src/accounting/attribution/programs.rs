//! Attributes packets on the eBPF dataplane: from a [`Snapshot`] of each read to [`Totals`] and [`NodeTotals`]. Pure state.
//!
//! A rule counts for the whole node, and is shown so, by rule and by policy. It is attributed to workloads as far as that is certain, by
//! the bounds of the grid ([`bounds`]) of interfaces (rows) and policies (columns). If the total of a row is known, what is not certain
//! goes to all of its policies together, as with policy groups. All of this requires that no program changed since the last read, and
//! begins with the second read, because no counter shows what older policies did.

mod bounds;
mod credit;
mod plan;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::group::Margin;
use super::node::NodeTotals;
use super::totals::{Item, Totals};
use crate::ebpf::{IdMap, Policy, Program, RuleId, Snapshot, UNNUMBERED, Verdicts, ids};
use crate::felix::{Catalog, Direction, EndpointKind, HashedName};
use credit::{Credit, RowRead};
use plan::{Class, Grid, Named, Plan};

#[derive(Debug, Default)]
pub struct Programs {
    plan: Plan,
    counts: Arc<IdMap<u64>>,
    rule_map: u32,
    /// The meaning of ids that no program holds now. An id keeps its meaning while it counts.
    remembered: IdMap<Named>,
    /// Ids whose meaning has changed since the last read.
    redefined: HashSet<RuleId>,
    /// The number of ids that nothing names. `tried` holds those for which the names of this version were tried.
    pub unknown: usize,
    tried: HashSet<RuleId>,
    version: u64,
    interfaces: BTreeMap<(Arc<str>, Direction), Verdicts>,
    interface_maps: Vec<u32>,
    is_comparable: bool,
    /// All policies that programs hold, or whose rules have counted.
    pub catalog: Catalog,
    started: bool,
}

/// The policies of the datastore, for rules that are in no file, and the version of that list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Datastore<'a> {
    pub names: &'a [HashedName],
    pub version: u64,
}

impl Programs {
    /// Takes in one read. `counts_before`: whether to show what the kernel counted before the first read.
    pub fn advance(&mut self, read: &Snapshot, datastore: Datastore, counts_before: bool, totals: &mut Totals, node: &mut NodeTotals) {
        let mut is_new = !read.unchanged || !self.started;
        self.redefined.clear();
        if is_new {
            self.take_over_programs(read);
        }
        let unplanned: Vec<RuleId> = read.rules.keys().copied().filter(|id| *id != UNNUMBERED && self.plan.rule(*id).is_none()).collect();
        is_new |= self.find_names(read, &unplanned, datastore) | self.forget(read);
        if is_new {
            self.list_policies();
        }
        let is_ignored = !self.started && !counts_before;
        let counted = Counted { now: &read.rules, last: &self.counts, is_same_map: self.rule_map == read.rule_map, is_ignored };
        node.begin_read(Instant::now());
        self.is_comparable = self.started && !read.interface_maps.is_empty() && self.interface_maps == read.interface_maps;
        self.interface_maps.clone_from(&read.interface_maps);
        self.unknown = self.count_for_the_node(&unplanned, &counted, node);
        self.attribute(read, &counted, totals);
        self.started = true;
        self.counts = Arc::clone(&read.rules);
        self.rule_map = read.rule_map;
        self.interfaces.clone_from(&read.interfaces);
    }

    pub fn rules(&self) -> usize {
        self.plan.rules.len() + self.remembered.len()
    }

    pub fn workloads(&self) -> &[Arc<Program>] {
        &self.plan.workloads
    }

    pub fn applied(&self, interface: &str, direction: Direction) -> &[Arc<Policy>] {
        self.plan.applied.get(interface).map_or(&[], |directions| &directions[direction as usize])
    }

    fn take_over_programs(&mut self, read: &Snapshot) {
        let before = std::mem::replace(&mut self.plan, Plan::new(&read.programs));
        self.remembered.extend(before.rules.into_iter().map(|rule| (rule.id, rule)));
        let is_other = |rule: &&Named| self.remembered.get(&rule.id).is_some_and(|before| before.known != rule.known);
        self.redefined = self.plan.rules.iter().filter(is_other).map(|rule| rule.id).collect();
        self.remembered.retain(|id, _| !self.plan.places.contains_key(id));
    }

    /// Returns the item for packets that one of several policies, also of several tiers, or profiles accepted, if it is not certain which.
    /// `None` if only one can have.
    pub fn together(&self, interface: &str, direction: Direction) -> Option<&Item> {
        let grid = self.plan.grids.iter().find(|grid| grid.direction == direction && grid.class == Class::Accepted)?;
        let row = grid.rows.iter().position(|row| **row == *interface)?;
        grid.together[row].as_ref()
    }

    /// Computes the ids of the datastore's policies if some ids are not known otherwise. Returns whether any was found.
    fn find_names(&mut self, read: &Snapshot, unplanned: &[RuleId], Datastore { names, version }: Datastore) -> bool {
        if self.version != version {
            (self.version, self.tried) = (version, HashSet::new());
        }
        let is_new = |id: &RuleId| !self.plan.places.contains_key(id) && !self.remembered.contains_key(id) && !self.tried.contains(id);
        let unknown: HashSet<RuleId> = unplanned.iter().copied().filter(is_new).collect();
        if unknown.is_empty() {
            return false;
        }
        let found = ids::resolve(&unknown, names);
        self.tried.extend(unknown);
        self.tried.retain(|id| read.rules.contains_key(id));
        let any = !found.is_empty();
        self.remembered.extend(found.into_iter().map(|(id, known)| (id, Named::new(id, known))));
        any
    }

    /// Forgets ids that no program holds once their entry is gone. Returns whether there were any.
    fn forget(&mut self, read: &Snapshot) -> bool {
        let before = self.remembered.len();
        self.remembered.retain(|id, _| read.rules.contains_key(id));
        self.remembered.len() < before
    }

    fn list_policies(&mut self) {
        self.catalog = Catalog::default();
        let policies = self.plan.policies.iter().chain(self.remembered.values().filter_map(Named::policy));
        policies.for_each(|policy| self.catalog.add_policy(Some(&policy.name), &policy.label, &policy.tier));
    }

    fn count_for_the_node(&self, unplanned: &[RuleId], counted: &Counted, node: &mut NodeTotals) -> usize {
        for rule in &self.plan.rules {
            let mut delta = counted.of(rule.id).map_or(0, |delta| delta.least);
            if !self.redefined.is_empty() && self.redefined.contains(&rule.id) {
                // What was counted while the number changed its meaning may belong to either meaning.
                node.count_unknown_rules(std::mem::take(&mut delta));
            }
            count(rule, delta, node);
        }
        let mut unknown = 0;
        for id in unplanned {
            let delta = counted.of(*id).map_or(0, |delta| delta.least);
            match self.remembered.get(id) {
                Some(rule) => count(rule, delta, node),
                None => {
                    node.count_unknown_rules(delta);
                    unknown += 1;
                }
            }
        }
        unknown
    }

    fn attribute(&self, read: &Snapshot, counted: &Counted, totals: &mut Totals) {
        let changed = read.programs.iter().filter(|shown| !shown.unchanged).map(|shown| &shown.program);
        let changed: HashSet<_> = changed.map(|program| (&program.interface, program.direction)).collect();
        let is_exact = self.started && read.unchanged && read.complete && read.unreadable == 0 && self.plan.is_understood;
        for grid in &self.plan.grids {
            let mut rows: Vec<RowRead> = grid.rows.iter().map(|interface| self.row(read, grid, interface)).collect();
            let columns: Vec<Margin> = grid.columns.iter().map(|column| column_margin(column, counted, is_exact)).collect();
            if is_contradicted(&rows, &columns) {
                rows.fill(RowRead::default());
            }
            let margins: Vec<Margin> = rows.iter().map(|row| row.margin).collect();
            let bounds = bounds::bounds(&margins, &columns, &grid.cells);
            for (index, (interface, row)) in grid.rows.iter().zip(&rows).enumerate() {
                let is_steady = !changed.contains(&(interface, grid.direction));
                let credit = Credit { grid, index, row, is_steady };
                let mut recorder = totals.endpoint(EndpointKind::Workload, interface, grid.direction);
                match self.started {
                    true => credit.record(&bounds[index], &mut recorder),
                    false => credit.begin(!read.interface_maps.is_empty(), &mut recorder),
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
        if !self.is_comparable {
            return RowRead::default();
        }
        let none = Verdicts::default();
        let (now, last, is_all) = match (read.interfaces.get(&key), self.interfaces.get(&key)) {
            // It has come since the last read, so it began at zero.
            (now, None) => (now.unwrap_or(&none), none, true),
            (Some(now), Some(last)) if now.number == last.number => (now, *last, true),
            // Another interface of this name has come and begins at zero. The last count of the one before is unknown.
            (Some(now), Some(_)) => (now, none, false),
            (None, Some(_)) => return RowRead::default(),
        };
        let Some((now, last)) = of_class(now).zip(of_class(&last)).filter(|(now, last)| now.0 >= last.0) else {
            return RowRead::default();
        };
        let most = now.1.saturating_sub(last.0);
        let margin = Margin { least: now.0.saturating_sub(last.1), most: is_all.then_some(most) };
        RowRead { margin, packets: Some(now.0 - last.0), is_all }
    }
}

struct Counted<'a> {
    now: &'a IdMap<u64>,
    last: &'a IdMap<u64>,
    /// Whether it is the same map. If Felix replaces it by a larger one, it copies the counts. Any other new map begins at zero.
    is_same_map: bool,
    /// Whether to ignore all counts, because counting begins with this read.
    is_ignored: bool,
}

impl Counted<'_> {
    /// Returns what a rule counted since the last read; `None` without an entry. Felix deletes the entries of rules that change, and a rule
    /// that comes back begins at zero.
    fn of(&self, id: RuleId) -> Option<Margin> {
        let now = *self.now.get(&id)?;
        Some(match self.last.get(&id) {
            _ if self.is_ignored => Margin::default(),
            Some(last) if now < *last => Margin { least: now, most: None },
            Some(last) if !self.is_same_map => Margin { least: now - last, most: Some(now) },
            Some(last) => Margin::exact(now - last),
            None => Margin::exact(now),
        })
    }
}

fn count(rule: &Named, packets: u64, node: &mut NodeTotals) {
    rule.rule.iter().for_each(|key| node.rule(key, packets));
    rule.decided.iter().for_each(|decided| node.decide(decided, packets));
}

/// Whether more was decided than all interfaces counted. Then programs count elsewhere, as after a rollback to a release that keeps these
/// counts in another place and leaves the map.
fn is_contradicted(rows: &[RowRead], columns: &[Margin]) -> bool {
    let most = rows.iter().try_fold(0u64, |sum, row| Some(sum.saturating_add(row.margin.most?)));
    let least = columns.iter().fold(0u64, |sum, column| sum.saturating_add(column.least));
    most.is_some_and(|most| least > most)
}

/// Returns what a column has counted since the last read. If it may have counted for others too, only the most is known.
fn column_margin(column: &plan::Column, counted: &Counted, is_exact: bool) -> Margin {
    if column.ids.first() == Some(&UNNUMBERED) || column.item.is_none() {
        return Margin::default();
    }
    let mut sum = column.ids.iter().filter_map(|id| counted.of(*id)).fold(Margin::exact(0), Margin::plus);
    if column.elsewhere || !is_exact {
        sum.least = 0;
    }
    sum
}

#[cfg(test)]
mod tests;
