//! What is read of each kind of object in etcd: in come keys and values, out go the objects of the inventory. Pure.

use super::keys;
use super::messages::Span;
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

pub(super) struct Workloads {
    node: String,
    /// What the names of its endpoints start with: the node's with its hyphens doubled, and a hyphen that ends it
    /// (`libcalico-go/lib/names/workloadendpoint.go`).
    start: String,
}

impl Workloads {
    pub(super) fn new(node: String) -> Self {
        Workloads { start: format!("{}-", node.replace('-', "--")), node }
    }
}

impl Kind for Workloads {
    type Object = Workload;

    const NEEDS_VALUES: bool = true;

    fn prefix(&self) -> &'static str {
        keys::WORKLOAD_ENDPOINTS
    }

    fn wants(&self, key: &str) -> bool {
        let Some((_namespace, name)) = key.strip_prefix(keys::WORKLOAD_ENDPOINTS).and_then(|rest| rest.split_once('/')) else {
            return false;
        };
        // A second hyphen is part of another node's name: `node` is not `node-1`, which is stored as `node--1`.
        name.strip_prefix(&self.start).is_some_and(|rest| rest.as_bytes().first().is_some_and(|&byte| byte > b'-'))
    }

    fn group(&self, key: &str) -> Option<Group> {
        let (namespace, _name) = key.strip_prefix(keys::WORKLOAD_ENDPOINTS)?.split_once('/')?;
        let namespace = format!("{}{namespace}/", keys::WORKLOAD_ENDPOINTS);
        // After the hyphen that ends the node's name comes a letter or a digit, never a second hyphen: see `wants`.
        let mut own = Span::prefix(&format!("{namespace}{}", self.start));
        own.from.push(b'-' + 1);
        Some(Group { own, next: Span::prefix(&namespace).end })
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
