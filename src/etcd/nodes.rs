//! The names of the nodes that have objects in etcd. Touches etcd: requests keys, but no values.

use std::collections::BTreeSet;

use super::gateway::Gateway;
use super::messages::Span;
use super::{keys, page_of_keys};
use crate::datastore::error::Error;
use crate::datastore::http::Requester;
use crate::datastore::inventory::is_similar;

/// The maximum number of workload endpoints' keys. In key order, the first ones may be of any nodes.
const MOST_KEYS: usize = 20_000;

/// Returns names of nodes: those of node objects and, if none of them is similar to `node`, those in the keys of workload endpoints.
pub(super) fn names(gateway: &mut Gateway, node: &str) -> Result<Vec<String>, Error> {
    let mut names = BTreeSet::new();
    // This read may fail, because a role for workload endpoints alone is enough for everything else.
    let stored = each_key(gateway, keys::NODES, &mut |key| {
        names.extend(key.strip_prefix(keys::NODES).map(str::to_owned));
        true
    });
    if !names.iter().any(|name| is_similar(name, node)) {
        let used = each_key(gateway, keys::WORKLOAD_ENDPOINTS, &mut |key| {
            let name = keys::node_of(key);
            let is_found = name.as_ref().is_some_and(|name| is_similar(name, node));
            names.extend(name);
            !is_found
        });
        used.or(stored)?;
    }
    Ok(names.into_iter().collect())
}

/// Passes keys under `prefix` to `take` until it returns false.
fn each_key(gateway: &mut Gateway, prefix: &str, take: &mut dyn FnMut(&str) -> bool) -> Result<(), Error> {
    let (mut span, mut position, mut count) = (Span::prefix(prefix), None, 0);
    loop {
        let limit = gateway.limits().page;
        let page = page_of_keys(gateway, prefix, &span, limit, &mut position)?;
        count += page.keys.len();
        let wants_more = page.keys.iter().all(|key| take(key));
        let Some(last) = page.keys.last().filter(|_| page.more && wants_more && count < MOST_KEYS) else { return Ok(()) };
        span.from = [last.as_bytes(), b"\0"].concat();
    }
}
