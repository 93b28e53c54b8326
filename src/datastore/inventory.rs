//! The cache of the datastore's content: which workload each interface belongs to, and the names of the policies. A datastore follower
//! writes it and each scrape reads it. It remains usable during outages of the datastore.

mod contents;
mod nodes;
mod objects;
mod part;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use contents::Contents;
pub use contents::Kept;
pub use nodes::{Nodes, is_similar};
pub use objects::{Interface, PolicyKind, StoredPolicy, Workload, ip_label};
pub(crate) use part::Part;
pub use table::{Object, Table, TooMany};

/// The shared cache. Follower threads write and scrapes read. All methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Inventory {
    contents: RwLock<Contents>,
    /// Counts changes of the policies, so that readers rebuild derived data only when needed.
    policies_version: AtomicU64,
    /// Counts workloads that were added or removed, and lists of them, because some may have been added and removed since the previous
    /// list.
    workloads_version: AtomicU64,
    policies_wanted: OnceLock<()>,
    unlisted: Mutex<BTreeSet<String>>,
    /// Whether the datastore is reachable at present.
    up: AtomicBool,
    last_event: AtomicU64,
    /// The number of full lists that were stored.
    lists: AtomicU64,
    skipped_objects: AtomicU64,
    nodes: Nodes,
    /// The current problem of each follower, by the follower's name.
    troubles: Mutex<BTreeMap<String, String>>,
}

impl Inventory {
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        // A poisoned lock only means that another thread panicked between two assignments. The data is still usable.
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a full list of the objects whose keys begin with `prefix`. On failure, stores none of it.
    pub fn replace<T: Kept>(&self, prefix: &str, objects: Table<T>) -> Result<(), TooMany> {
        let mut contents = self.write();
        T::table(&mut contents).replace_under(prefix, objects)?;
        T::update_all(&mut contents);
        T::version(self).fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub fn put<T: Kept>(&self, key: &str, object: T) -> Result<(), TooMany> {
        let mut contents = self.write();
        let (object, before) = T::table(&mut contents).insert(key, object)?;
        if T::update(&mut contents, before.as_ref(), Some(&object)) {
            T::version(self).fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    pub fn remove<T: Kept>(&self, key: &str) {
        let mut contents = self.write();
        let before = T::table(&mut contents).remove(key);
        if T::update(&mut contents, before.as_ref(), None) {
            T::version(self).fetch_add(1, Ordering::Release);
        }
    }

    pub fn workload(&self, interface: &str) -> Option<Arc<Workload>> {
        self.read().by_interface.get(interface).cloned()
    }

    pub fn workloads(&self) -> Vec<(String, Arc<Workload>)> {
        self.read().workloads.iter().map(|(key, w)| (key.clone(), Arc::clone(w))).collect()
    }

    /// Changes whenever a workload has been added or removed, or may have been.
    pub fn workloads_version(&self) -> u64 {
        self.workloads_version.load(Ordering::Acquire)
    }

    pub fn workload_count(&self) -> usize {
        self.read().workloads.iter().filter(|(_, workload)| !workload.is_finished).count()
    }

    /// Returns the number of unfinished workloads that are on none of these interfaces.
    pub fn without_rules<'a>(&self, interfaces: impl IntoIterator<Item = &'a str>) -> usize {
        let is_live = |interface: &&str| self.workload(interface).is_some_and(|workload| !workload.is_finished);
        self.workload_count().saturating_sub(interfaces.into_iter().filter(is_live).count())
    }

    pub fn policies(&self) -> Vec<StoredPolicy> {
        self.read().policies.iter().map(|(_, policy)| (**policy).clone()).collect()
    }

    /// Changes whenever [`Inventory::policies`] may have changed.
    pub fn policies_version(&self) -> u64 {
        self.policies_version.load(Ordering::Acquire)
    }

    /// Asks the follower for the policies too. Called by a scrape that found a policy chain without a name (Calico ≤ 3.21).
    pub fn want_policies(&self) {
        _ = self.policies_wanted.set(());
    }

    /// Once true, remains true.
    pub fn policies_wanted(&self) -> bool {
        self.policies_wanted.get().is_some()
    }

    pub fn wait_until_policies_are_wanted(&self) {
        self.policies_wanted.wait();
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub fn expect_list(&self, name: &str) {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    pub fn listed(&self, name: &str) {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn complete(&self) -> bool {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Counts a full list that was stored.
    pub fn mark_synced(&self) {
        self.lists.fetch_add(1, Ordering::Release);
    }

    pub fn synced(&self) -> bool {
        self.lists.load(Ordering::Acquire) > 0
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }

    pub fn up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Sets or clears the problem of the follower called `name`. The datastore is up while no follower has a problem.
    pub fn set_trouble(&self, name: &str, reason: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => troubles.insert(name.to_owned(), reason),
            None => troubles.remove(name),
        };
        self.set_up(troubles.is_empty());
    }

    /// Returns why the datastore is not up, one line for each follower with a problem. Empty if all is well or nothing was tried.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn skip_object(&self) {
        self.skipped_objects.fetch_add(1, Ordering::Relaxed);
    }

    pub fn skipped_objects(&self) -> u64 {
        self.skipped_objects.load(Ordering::Relaxed)
    }

    /// Notes that the datastore has just sent something (a list, an event, a progress notification).
    pub fn touch(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_event.store(now.as_secs(), Ordering::Relaxed);
    }

    /// Returns when the datastore last sent something, in seconds since the epoch, or 0 for never.
    pub fn last_event(&self) -> u64 {
        self.last_event.load(Ordering::Relaxed)
    }

    /// Returns the number of full lists that were stored after the first.
    pub fn resyncs(&self) -> u64 {
        self.lists.load(Ordering::Relaxed).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(interface: &str, pod: &str) -> Workload {
        Workload { interface: Interface::Name(interface.into()), pod: pod.into(), ..Workload::default() }
    }

    #[test]
    fn a_suffix_is_found_after_any_prefix() {
        let inventory = Inventory::new();
        let web = Workload { interface: Interface::Suffix("82111e10a96".into()), pod: "web".into(), ..Workload::default() };
        inventory.put("a", web).unwrap();
        for interface in ["cali82111e10a96", "eni82111e10a96", "82111e10a96"] {
            assert_eq!(inventory.workload(interface).unwrap().pod, "web", "{interface}");
        }
        for other in ["cali82111e10a97", "lo", "", "caliä111e10a96", "caliéééééé"] {
            assert_eq!(inventory.workload(other), None, "{other}");
        }
        inventory.put("b", on("cali82111e10a96", "exact")).unwrap();
        assert_eq!(inventory.workload("cali82111e10a96").unwrap().pod, "exact");
        assert_eq!(inventory.workload("eni82111e10a96").unwrap().pod, "web");
        inventory.remove::<Workload>("a");
        assert_eq!(inventory.workload("eni82111e10a96"), None);
    }

    #[test]
    fn an_interface_is_left_and_goes_back_to_the_workload_that_still_has_it() {
        let inventory = Inventory::new();
        let on_1_and_2 = || ["cali1", "cali2"].map(|interface| inventory.workload(interface).map(|workload| workload.pod.clone()));
        let pods = |pods: [Option<&str>; 2]| pods.map(|pod| pod.map(str::to_owned));
        inventory.put("a", on("cali1", "old")).unwrap();
        inventory.put("b", on("cali1", "new")).unwrap();
        assert_eq!(on_1_and_2(), pods([Some("new"), None]));
        inventory.remove::<Workload>("b");
        assert_eq!(on_1_and_2(), pods([Some("old"), None]));
        inventory.put("a", on("cali2", "old")).unwrap();
        assert_eq!(on_1_and_2(), pods([None, Some("old")]));
        inventory.remove::<Workload>("a");
        assert_eq!(on_1_and_2(), pods([None, None]));
    }

    #[test]
    fn workloads_without_rules_are_those_that_run() {
        let inventory = Inventory::new();
        let finished = |interface| Workload { is_finished: true, ..on(interface, "job") };
        let running = vec![("a".to_owned(), on("cali1", "web")), ("b".to_owned(), on("cali2", "db"))];
        inventory.replace::<Workload>("", running.try_into().unwrap()).unwrap();
        inventory.put("c", finished("cali3")).unwrap();
        assert_eq!((inventory.workload_count(), inventory.without_rules([])), (2, 2));
        // Interfaces of a finished workload that still has its rules, and of an unknown one, do not count for the others.
        assert_eq!(inventory.without_rules(["cali1", "cali3", "cali4"]), 1);
        assert_eq!(inventory.without_rules(["cali1", "cali2"]), 0);
    }

    #[test]
    fn a_list_replaces_everything_and_only_later_ones_count_as_resyncs() {
        let inventory = Inventory::new();
        inventory.put("a", on("cali1", "gone")).unwrap();
        inventory.replace::<Workload>("", vec![("b".to_owned(), on("cali2", "here"))].try_into().unwrap()).unwrap();
        inventory.mark_synced();
        assert_eq!(inventory.workload("cali1"), None);
        assert_eq!(inventory.workload_count(), 1);
        assert_eq!(inventory.resyncs(), 0);
        inventory.mark_synced();
        assert_eq!(inventory.resyncs(), 1);
    }

    #[test]
    fn it_is_complete_once_each_expected_range_was_listed() {
        let inventory = Inventory::new();
        assert!(inventory.complete());
        ["a", "b"].iter().for_each(|name| inventory.expect_list(name));
        for name in ["a", "unexpected", "b"] {
            assert!(!inventory.complete());
            inventory.listed(name);
        }
        assert!(inventory.complete());
    }

    #[test]
    fn one_kind_of_policy_is_replaced_without_the_other_and_the_version_moves_only_with_the_policies() {
        let inventory = Inventory::new();
        let policy = |name: &str| StoredPolicy::calico(None, name.into());
        let changed = |change: &dyn Fn()| {
            let before = inventory.policies_version();
            change();
            inventory.policies_version() != before
        };
        assert!(changed(&|| inventory.put("g/old", policy("old")).unwrap()));
        assert!(changed(&|| inventory.put("n/kept", policy("kept")).unwrap()));
        assert!(!changed(&|| inventory.put("n/kept", policy("kept")).unwrap()));
        assert!(changed(&|| inventory.replace("g/", vec![("g/new".to_owned(), policy("new"))].try_into().unwrap()).unwrap()));
        assert_eq!(inventory.policies(), [policy("new"), policy("kept")]);
        assert!(changed(&|| inventory.remove::<StoredPolicy>("n/kept")));
    }

    #[test]
    fn the_datastore_is_up_while_no_follower_is_in_trouble() {
        let inventory = Inventory::new();
        inventory.set_trouble("a", None);
        assert!(inventory.up());
        inventory.set_trouble("a", Some("away".into()));
        inventory.set_trouble("b", None);
        assert!(!inventory.up());
        assert_eq!(inventory.troubles(), ["away"]);
        inventory.set_trouble("a", None);
        assert!(inventory.up());
    }
}
