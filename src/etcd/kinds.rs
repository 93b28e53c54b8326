//! What is done with each kind of object in etcd. In come keys and values; out go changes of the [`Inventory`].

use std::collections::HashSet;
use std::sync::Arc;

use super::objects::{self, NodeKeys};
use super::sweep::Group;
use crate::datastore::bounds::{LONGEST_TEXT, cut};
use crate::datastore::inventory::{Inventory, Object, StoredPolicy, Table, TooMany, Workload};

/// Keys that are reported as not understood; beyond so many, nobody reads the log anyway.
const MOST_REPORTED: usize = 1000;

/// One kind of object: a prefix in etcd, a part of the inventory.
pub(super) trait Kind {
    /// What an object becomes.
    type Object: Object;

    /// Whether the key alone does not say everything.
    const NEEDS_VALUES: bool;

    /// What its keys start with.
    fn prefix(&self) -> &'static str;

    /// Whether an object is of interest, by its key.
    fn wants(&self, key: &str) -> bool;

    /// The group of keys that `key` is in, if most groups hold little of interest.
    fn group(&self, key: &str) -> Option<Group>;

    /// What the object under `key` is to us; the outer `None` is one that cannot be understood, the inner one none of ours.
    fn parse(&mut self, key: &str, value: &[u8]) -> Option<Option<Self::Object>>;

    /// Takes over a full list.
    ///
    /// # Errors
    /// There are too many objects; nothing is changed.
    fn replace(&mut self, objects: Table<Self::Object>) -> Result<(), TooMany>;

    /// Takes over one new or changed object.
    ///
    /// # Errors
    /// There are too many objects; nothing is changed.
    fn put(&mut self, key: &str, object: Self::Object) -> Result<(), TooMany>;

    /// Forgets one object.
    fn delete(&mut self, key: &str);
}

/// The workload endpoints of one node.
pub(super) struct Workloads {
    node: String,
    keys: NodeKeys,
    inventory: Arc<Inventory>,
    /// Keys whose values were reported as not understood.
    reported: HashSet<String>,
}

impl Workloads {
    pub(super) fn new(node: String, inventory: Arc<Inventory>) -> Self {
        Workloads { keys: NodeKeys::new(&node), node, inventory, reported: HashSet::new() }
    }
}

impl Kind for Workloads {
    type Object = Workload;

    const NEEDS_VALUES: bool = true;

    fn prefix(&self) -> &'static str {
        objects::WORKLOAD_ENDPOINTS
    }

    fn wants(&self, key: &str) -> bool {
        self.keys.own(key)
    }

    fn group(&self, key: &str) -> Option<Group> {
        self.keys.group(key)
    }

    fn parse(&mut self, key: &str, value: &[u8]) -> Option<Option<Workload>> {
        match objects::workload(key, value, &self.node) {
            Ok(workload) => Some(workload),
            Err(error) => {
                self.inventory.skip_object();
                if self.reported.len() < MOST_REPORTED && self.reported.insert(key.to_owned()) {
                    log::warn!("{}: skipped, not a workload endpoint: {error}", cut(key, LONGEST_TEXT));
                }
                None
            }
        }
    }

    fn replace(&mut self, objects: Table<Workload>) -> Result<(), TooMany> {
        self.inventory.replace_workloads(objects);
        self.inventory.mark_synced();
        Ok(())
    }

    fn put(&mut self, key: &str, workload: Workload) -> Result<(), TooMany> {
        self.inventory.put_workload(key, workload)
    }

    fn delete(&mut self, key: &str) {
        self.inventory.remove_workload(key);
    }
}

/// The policies under one prefix.
pub(super) struct Policies {
    prefix: &'static str,
    inventory: Arc<Inventory>,
    listed: bool,
}

impl Policies {
    pub(super) fn new(prefix: &'static str, inventory: Arc<Inventory>) -> Self {
        Policies { prefix, inventory, listed: false }
    }
}

impl Kind for Policies {
    type Object = StoredPolicy;

    const NEEDS_VALUES: bool = false;

    fn prefix(&self) -> &'static str {
        self.prefix
    }

    fn wants(&self, key: &str) -> bool {
        objects::policy(key).is_some()
    }

    fn group(&self, _key: &str) -> Option<Group> {
        None
    }

    fn parse(&mut self, key: &str, _value: &[u8]) -> Option<Option<StoredPolicy>> {
        Some(objects::policy(key))
    }

    fn replace(&mut self, objects: Table<StoredPolicy>) -> Result<(), TooMany> {
        self.inventory.replace_policies_under(self.prefix, objects)?;
        // The first list came because it was asked for; only the later ones make up for something missed.
        if self.listed {
            self.inventory.mark_synced();
        }
        self.listed = true;
        Ok(())
    }

    fn put(&mut self, key: &str, policy: StoredPolicy) -> Result<(), TooMany> {
        self.inventory.put_policy(key, policy)
    }

    fn delete(&mut self, key: &str) {
        self.inventory.remove_policy(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(interface: &str, node: &str) -> Vec<u8> {
        format!(r#"{{"spec":{{"node":"{node}","interfaceName":"{interface}"}}}}"#).into_bytes()
    }

    #[test]
    fn workloads_that_cannot_be_understood_are_skipped_and_counted() {
        let inventory = Arc::new(Inventory::new());
        let mut workloads = Workloads::new("n".into(), Arc::clone(&inventory));
        assert_eq!(workloads.parse("bad", b"{"), None);
        assert_eq!(workloads.parse("other", &value("cali2", "m")), Some(None));
        assert!(workloads.parse("good", &value("cali1", "n")).flatten().is_some());
        assert_eq!(inventory.skipped_objects(), 1);
        workloads.replace(Table::default()).unwrap();
        assert!(inventory.synced());
    }

    #[test]
    fn only_later_lists_of_policies_are_resyncs() {
        let inventory = Arc::new(Inventory::new());
        inventory.mark_synced();
        let mut policies = Policies::new(objects::GLOBAL_NETWORK_POLICIES, Arc::clone(&inventory));
        let key = format!("{}default.a", objects::GLOBAL_NETWORK_POLICIES);
        let policy = policies.parse(&key, b"").flatten().unwrap();
        for resyncs in [0, 1] {
            policies.replace(vec![(key.clone(), policy.clone())].try_into().unwrap()).unwrap();
            assert_eq!((inventory.policies().len(), inventory.resyncs()), (1, resyncs));
        }
    }
}
