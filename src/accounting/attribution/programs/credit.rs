//! Turns what is certain of a row of the grid into totals of its workload. Pure.

use std::sync::Arc;

use super::super::group::{Margin, smaller};
use super::super::totals::{Item, Recorder};
use super::plan::{Class, Grid, InTier};
use crate::felix::DropReason;

fn policy_or_none() -> Item {
    Item::Drop { reason: DropReason::PolicyOrNone, tier: "".into() }
}

/// What an interface has counted since the last read. By default, nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowRead {
    /// Up to the moment at which the rules were read.
    pub margin: Margin,
    /// From one read to the next; `None` if unknown.
    pub packets: Option<u64>,
    pub is_all: bool,
}

pub struct Credit<'a> {
    pub grid: &'a Grid,
    pub index: usize,
    pub row: &'a RowRead,
    pub is_steady: bool,
}

impl Credit<'_> {
    fn items(&self) -> impl Iterator<Item = Option<&Item>> {
        self.grid.cells[self.index].iter().map(|column| self.grid.columns[*column].item.as_ref())
    }

    /// Whether all that an item did is in its column. It may not be if a profile without a name can be the same one.
    fn is_whole(&self, item: &Item) -> bool {
        let is_nameless = |item: Option<&Item>| matches!(item, Some(Item::Profile(name)) if name.is_empty());
        !matches!(item, Item::Profile(name) if !name.is_empty()) || !self.items().any(is_nameless)
    }

    pub fn begin(&self, is_row_known: bool, recorder: &mut Recorder) {
        self.items().flatten().for_each(|item| recorder.add_counted(item, 0, self.is_whole(item)));
        for tier in self.grid.tiers[self.index].iter().filter(|_| self.grid.class == Class::Refused) {
            recorder.add(&Item::PolicyDrop { tier: Arc::clone(&tier.tier) }, 0);
        }
        if self.grid.class == Class::Refused && is_row_known {
            recorder.add(&policy_or_none(), 0);
        }
        self.record_all(0, is_row_known, recorder);
    }

    pub fn record(&self, bounds: &[Margin], recorder: &mut Recorder) {
        // The row was read a moment before the columns. Later packets are credited when the row has counted them.
        let mut rest = self.row.packets;
        let is_divided = self.is_divided(bounds);
        let (mut credited, mut all) = (Vec::with_capacity(bounds.len()), 0u64);
        for (item, bound) in self.items().zip(bounds) {
            let Some(item) = item else {
                credited.push(Margin { least: 0, most: bound.most });
                continue;
            };
            let mut cell = match (rest, self.is_steady) {
                // Nothing else can have decided.
                (Some(packets), true) if bounds.len() == 1 => Margin::exact(packets),
                (_, true) => Margin { least: bound.least.min(rest.unwrap_or(u64::MAX)), most: bound.most },
                // It is unknown what the program was in between.
                (_, false) => Margin { least: 0, most: self.row.margin.most },
            };
            if is_divided {
                cell.most = Some(cell.least);
            }
            recorder.add_counted(item, cell.least, cell.most == Some(cell.least) && self.is_whole(item));
            rest = rest.map(|rest| rest - cell.least);
            all = all.saturating_add(cell.least);
            credited.push(cell);
        }
        for tier in self.grid.tiers[self.index].iter().filter(|_| self.grid.class == Class::Refused) {
            let more = self.record_tier(tier, &credited, rest, recorder);
            rest = rest.map(|rest| rest - more);
            all = all.saturating_add(more);
        }
        self.record_rest(rest, recorder);
        self.record_all(self.row.packets.unwrap_or(all), self.row.is_all, recorder);
    }

    /// Whether what is certain is all that there was, so that each part is exact.
    fn is_divided(&self, bounds: &[Margin]) -> bool {
        let all = bounds.iter().fold(0u64, |sum, bound| sum.saturating_add(bound.least));
        let has_names = self.items().all(|item| item.is_some());
        self.is_steady && has_names && self.row.margin == Margin::exact(all) && self.row.packets == Some(all)
    }

    /// Records what the policies of a tier denied together. Of some packets it may be certain that one of them denied them, but not which.
    /// Returns how many these are.
    fn record_tier(&self, tier: &InTier, credited: &[Margin], rest: Option<u64>, recorder: &mut Recorder) -> u64 {
        let sum = |is_own: bool| {
            let cells = credited.iter().enumerate().filter(move |(place, _)| tier.cells.contains(place) == is_own);
            cells.fold(Margin::exact(0), |sum, (_, cell)| sum.plus(*cell))
        };
        let (own, others) = (sum(true), sum(false));
        let mut more = 0;
        if let Some(item) = &tier.together {
            let certain = others.most.filter(|_| self.is_steady).map_or(0, |others| self.row.margin.least.saturating_sub(others));
            more = certain.saturating_sub(own.least).min(rest.unwrap_or(0));
            recorder.add_counted(item, more, false);
        }
        let most = smaller(own.most, self.row.margin.most);
        let packets = own.least.saturating_add(more);
        recorder.add_counted(&Item::PolicyDrop { tier: Arc::clone(&tier.tier) }, packets, most == Some(packets));
        more
    }

    /// Records what one of the row's columns decided, if it is not certain which.
    fn record_rest(&self, rest: Option<u64>, recorder: &mut Recorder) {
        match self.grid.class {
            // Whatever changed in between, these packets were refused.
            Class::Refused => recorder.add_counted(&policy_or_none(), rest.unwrap_or(0), self.row.is_all),
            Class::Accepted => {
                let Some(item) = &self.grid.together[self.index] else { return };
                recorder.add_counted(item, rest.filter(|_| self.is_steady).unwrap_or(0), false);
            }
            Class::Passed => {}
        }
    }

    /// Records all that was accepted, or refused, including by policies that no longer apply.
    fn record_all(&self, packets: u64, is_all: bool, recorder: &mut Recorder) {
        let item = match self.grid.class {
            Class::Accepted => Item::Accepted,
            Class::Refused => Item::Refused,
            Class::Passed => return,
        };
        recorder.add_counted(&item, packets, is_all);
    }
}
