//! What other rules of attribution would credit to the policies of groups: the right bound, and deliberately wrong ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use calico_accountant::felix::Direction;

use super::check::{Shown, get};
use super::cluster::Group;
use super::world::{Truth, World};

/// What a cell is credited with, by its row, its column and the sum of all cells.
pub type Bound = fn(row: u64, column: u64, all: u64) -> u64;

/// The lower Fréchet bound.
pub fn lower(row: u64, column: u64, all: u64) -> u64 {
    (row + column).saturating_sub(all)
}

/// The upper Fréchet bound.
pub fn upper(row: u64, column: u64, _: u64) -> u64 {
    row.min(column)
}

/// As if all workloads' packets had the same distribution over the policies.
pub fn proportional(row: u64, column: u64, all: u64) -> u64 {
    (row * column).div_ceil(all.max(1))
}

/// Adds to `shown` what `bound` credits for the accepts between two moments.
pub fn credit(world: &World, before: &Truth, after: &Truth, bound: Bound, shown: &mut Shown) {
    let mut groups: BTreeMap<(Direction, String, Group), Vec<Arc<str>>> = BTreeMap::new();
    for (workload, direction, tier, target) in world.targets().filter(|(_, _, _, target)| target.len() > 1) {
        groups.entry((direction, tier, target)).or_default().push(Arc::clone(&workload.interface));
    }
    for ((direction, _, policies), interfaces) in groups {
        let cell = |interface: &Arc<str>, policy: &String| {
            let item = format!("Accept {policy}");
            get(after, interface, direction, &item) - get(before, interface, direction, &item)
        };
        let row = |interface| policies.iter().map(|policy| cell(interface, policy)).sum::<u64>();
        let column = |policy| interfaces.iter().map(|interface| cell(interface, policy)).sum::<u64>();
        let all: u64 = interfaces.iter().map(row).sum();
        for interface in &interfaces {
            for policy in &policies {
                let key = (Arc::clone(interface), direction, format!("Accept {policy}").into());
                *shown.entry(key).or_default() += bound(row(interface), column(policy), all);
            }
        }
    }
}
