//! The objects of the inventory, and workloads by interface. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Interface, Inventory, Object, StoredPolicy, Table, Workload};

#[derive(Debug, Default)]
pub struct Contents {
    /// By the datastore's key. It is ordered, so that of two workloads on one interface the same one is always found.
    pub(super) workloads: Table<Workload>,
    pub(super) by_interface: ByInterface,
    pub(super) policies: Table<StoredPolicy>,
}

/// A kind of object that has a table in the inventory.
pub trait Kept: Object {
    /// Whether the first list is only made because a scrape requested it. Then only later lists make up for missed events.
    const IS_ASKED_FOR: bool;

    fn table(contents: &mut Contents) -> &mut Table<Self>;

    /// Returns the counter of the table's changes.
    fn version(inventory: &Inventory) -> &AtomicU64;

    /// Updates data derived from the table after one object was added, removed or replaced. Reports whether that counts as a change.
    fn update(contents: &mut Contents, before: Option<&Arc<Self>>, now: Option<&Arc<Self>>) -> bool;

    fn update_all(_contents: &mut Contents) {}
}

impl Kept for Workload {
    const IS_ASKED_FOR: bool = false;

    fn table(contents: &mut Contents) -> &mut Table<Self> {
        &mut contents.workloads
    }

    fn version(inventory: &Inventory) -> &AtomicU64 {
        &inventory.workloads_version
    }

    fn update(contents: &mut Contents, before: Option<&Arc<Self>>, now: Option<&Arc<Self>>) -> bool {
        let Contents { workloads, by_interface, .. } = contents;
        let [left, taken] = [before, now].map(|workload| workload.map(|workload| &workload.interface));
        if let Some(left) = left.filter(|left| Some(*left) != taken) {
            by_interface.remove(left);
            // Another workload may have it too.
            let other = workloads.iter().map(|(_, workload)| workload).rfind(|other| other.interface == *left);
            other.into_iter().for_each(|other| by_interface.insert(other));
        }
        now.into_iter().for_each(|now| by_interface.insert(now));
        left != taken
    }

    fn update_all(contents: &mut Contents) {
        contents.by_interface = ByInterface::default();
        contents.workloads.iter().for_each(|(_, workload)| contents.by_interface.insert(workload));
    }
}

impl Kept for StoredPolicy {
    const IS_ASKED_FOR: bool = true;

    fn table(contents: &mut Contents) -> &mut Table<Self> {
        &mut contents.policies
    }

    fn version(inventory: &Inventory) -> &AtomicU64 {
        &inventory.policies_version
    }

    fn update(_contents: &mut Contents, before: Option<&Arc<Self>>, now: Option<&Arc<Self>>) -> bool {
        before != now
    }
}

/// Workloads by full interface names, and by suffixes.
#[derive(Debug, Default)]
pub struct ByInterface {
    names: HashMap<String, Arc<Workload>>,
    suffixes: HashMap<String, Arc<Workload>>,
}

impl ByInterface {
    pub fn get(&self, interface: &str) -> Option<&Arc<Workload>> {
        let suffix = || interface.get(interface.len().checked_sub(Interface::SUFFIX)?..);
        self.names.get(interface).or_else(|| self.suffixes.get(suffix()?))
    }

    fn insert(&mut self, workload: &Arc<Workload>) {
        let (map, key) = self.place(&workload.interface);
        map.insert(key.to_owned(), Arc::clone(workload));
    }

    fn remove(&mut self, interface: &Interface) {
        let (map, key) = self.place(interface);
        map.remove(key);
    }

    fn place<'a>(&mut self, interface: &'a Interface) -> (&mut HashMap<String, Arc<Workload>>, &'a str) {
        match interface {
            Interface::Name(name) => (&mut self.names, name),
            Interface::Suffix(suffix) => (&mut self.suffixes, suffix),
        }
    }
}
