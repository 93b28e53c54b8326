//! What is read of each kind of object in etcd: in come keys and values, out go the objects of the inventory. Pure.

use super::keys::{self, NodeKeys};
use super::sweep::Group;
use crate::datastore::inventory::{Kept, StoredPolicy, Workload};

/// One kind of object: a prefix in etcd, a part of the inventory.
pub(super) trait Kind {
    type Object: Kept;

    /// Whether the key alone does not say everything.
    const NEEDS_VALUES: bool;

    fn prefix(&self) -> &'static str;

    fn wants(&self, key: &str) -> bool;

    /// The group of keys that `key` is in, if most groups hold little of interest.
    fn group(&self, _key: &str) -> Option<Group> {
        None
    }

    /// What the object under `key` is to us; `None` if it is none of ours.
    fn parse(&self, key: &str, value: &[u8]) -> serde_json::Result<Option<Self::Object>>;
}

/// The workload endpoints of one node.
pub(super) struct Workloads {
    node: String,
    keys: NodeKeys,
}

impl Workloads {
    pub(super) fn new(node: String) -> Self {
        Workloads { keys: NodeKeys::new(&node), node }
    }
}

impl Kind for Workloads {
    type Object = Workload;

    const NEEDS_VALUES: bool = true;

    fn prefix(&self) -> &'static str {
        keys::WORKLOAD_ENDPOINTS
    }

    fn wants(&self, key: &str) -> bool {
        self.keys.own(key)
    }

    fn group(&self, key: &str) -> Option<Group> {
        self.keys.group(key)
    }

    fn parse(&self, key: &str, value: &[u8]) -> serde_json::Result<Option<Workload>> {
        keys::workload(key, value, &self.node)
    }
}

pub(super) struct Policies(pub &'static str);

impl Kind for Policies {
    type Object = StoredPolicy;

    const NEEDS_VALUES: bool = false;

    fn prefix(&self) -> &'static str {
        self.0
    }

    fn wants(&self, key: &str) -> bool {
        keys::policy(key).is_some()
    }

    fn parse(&self, key: &str, _value: &[u8]) -> serde_json::Result<Option<StoredPolicy>> {
        Ok(keys::policy(key))
    }
}
