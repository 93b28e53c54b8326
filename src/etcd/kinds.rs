//! Converts the keys and values of each kind of object in etcd to objects of the inventory. Pure.

use super::keys;
use super::messages::Span;
use super::sweep::Group;
use crate::datastore::inventory::{Kept, StoredPolicy, Workload};

/// One kind of object: a prefix in etcd, a part of the inventory.
pub(super) trait Kind {
    type Object: Kept;

    /// Whether the key alone is not enough.
    const NEEDS_VALUES: bool;

    fn prefix(&self) -> &'static str;

    fn wants(&self, key: &str) -> bool;

    /// Returns the group of keys that contains `key`, if most groups contain little of interest.
    fn group(&self, _key: &str) -> Option<Group> {
        None
    }

    /// Parses the object under `key`. Returns `None` if it is irrelevant.
    fn parse(&self, key: &str, value: &[u8]) -> serde_json::Result<Option<Self::Object>>;
}

pub(super) struct Workloads {
    node: String,
    /// The start of its endpoints' names: the node's name with hyphens doubled, and the hyphen that ends it
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
        // A second hyphen belongs to another node's name: `node` is not `node-1`, which is stored as `node--1`.
        name.strip_prefix(&self.start).is_some_and(|rest| rest.as_bytes().first().is_some_and(|&byte| byte > b'-'))
    }

    fn group(&self, key: &str) -> Option<Group> {
        let (namespace, _name) = key.strip_prefix(keys::WORKLOAD_ENDPOINTS)?.split_once('/')?;
        let namespace = format!("{}{namespace}/", keys::WORKLOAD_ENDPOINTS);
        // The hyphen that ends the node's name is followed by a letter or a digit, never by a second hyphen: see `wants`.
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
