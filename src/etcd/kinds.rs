//! What is done with each kind of object in etcd. In come keys and values; out go changes of the [`Inventory`].

use std::collections::HashSet;
use std::sync::Arc;

use super::objects::{self, NodeKeys};
use super::sweep::Group;
use crate::inventory::{Inventory, Workload};

/// Keys that are reported as not understood; beyond so many, nobody reads the log anyway.
const MOST_REPORTED: usize = 1000;

/// One kind of object: a prefix in etcd, a part of the inventory.
pub(super) trait Kind {
    /// Whether the key alone does not say everything.
    const NEEDS_VALUES: bool;

    /// What its keys start with.
    fn prefix(&self) -> &'static str;

    /// Whether an object is of interest, by its key.
    fn wants(&self, key: &str) -> bool;

    /// The group of keys that `key` is in, if most groups hold little of interest.
    fn group(&self, key: &str) -> Option<Group>;

    /// Takes over a full list.
    fn replace(&mut self, objects: Vec<(String, Vec<u8>)>);

    /// Takes over one new or changed object.
    fn put(&mut self, key: &str, value: &[u8]);

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

    /// The outer `None` is an object that cannot be understood, the inner one none of ours.
    fn parse(&mut self, key: &str, value: &[u8]) -> Option<Option<Workload>> {
        match objects::workload(key, value, &self.node) {
            Ok(workload) => Some(workload),
            Err(error) => {
                self.inventory.skip_object();
                if self.reported.len() < MOST_REPORTED && self.reported.insert(key.to_owned()) {
                    log::warn!("{key}: skipped, not a workload endpoint: {error}");
                }
                None
            }
        }
    }
}

impl Kind for Workloads {
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

    fn replace(&mut self, objects: Vec<(String, Vec<u8>)>) {
        let parsed = objects.into_iter().filter_map(|(key, value)| self.parse(&key, &value)?.map(|workload| (key, workload)));
        let workloads: Vec<_> = parsed.collect();
        self.inventory.replace_workloads(workloads);
        self.inventory.mark_synced();
    }

    /// A value that cannot be understood leaves what was known of the workload before.
    fn put(&mut self, key: &str, value: &[u8]) {
        match self.parse(key, value) {
            Some(Some(workload)) => self.inventory.put_workload(key, workload),
            Some(None) => self.inventory.remove_workload(key),
            None => {}
        }
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

    fn replace(&mut self, objects: Vec<(String, Vec<u8>)>) {
        let policies = objects.into_iter().filter_map(|(key, _)| objects::policy(&key).map(|policy| (key, policy)));
        self.inventory.replace_policies_under(self.prefix, policies);
        // The first list came because it was asked for; only the later ones make up for something missed.
        if self.listed {
            self.inventory.mark_synced();
        }
        self.listed = true;
    }

    fn put(&mut self, key: &str, _value: &[u8]) {
        if let Some(policy) = objects::policy(key) {
            self.inventory.put_policy(key, policy);
        }
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
        workloads.replace(vec![("good".into(), value("cali1", "n")), ("bad".into(), b"{".to_vec()), ("other".into(), value("cali2", "m"))]);
        assert_eq!((inventory.workload_count(), inventory.skipped_objects()), (1, 1));
        assert!(inventory.synced());
        workloads.put("good", b"junk");
        assert_eq!((inventory.workload_count(), inventory.skipped_objects()), (1, 2));
        workloads.put("good", &value("cali1", "m"));
        assert_eq!(inventory.workload_count(), 0);
    }

    #[test]
    fn only_later_lists_of_policies_are_resyncs() {
        let inventory = Arc::new(Inventory::new());
        inventory.mark_synced();
        let mut policies = Policies::new(objects::GLOBAL_NETWORK_POLICIES, Arc::clone(&inventory));
        let list = || vec![(format!("{}default.a", objects::GLOBAL_NETWORK_POLICIES), Vec::new())];
        policies.replace(list());
        assert_eq!((inventory.policies().len(), inventory.resyncs()), (1, 0));
        policies.replace(list());
        assert_eq!((inventory.policies().len(), inventory.resyncs()), (1, 1));
    }
}
