//! Does what a scrape requests: starts the followers of policies, looks up the names of nodes.

use std::io;
use std::sync::Arc;
use std::thread;

use crate::datastore::error::Error;
use crate::datastore::inventory::Inventory;

/// Calls `start` on its own thread once the policies are wanted. An error is logged.
pub fn when_policies_are_wanted(inventory: Arc<Inventory>, start: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("policies wanted".into()).spawn(move || {
        inventory.wait_until_policies_are_wanted();
        if let Err(error) = start() {
            log::error!("cannot follow the policies: {error}");
        }
    })?;
    Ok(())
}

/// Waits on its own thread until the names of nodes are wanted, then calls `list` once and logs the conclusion for `node`, under which the
/// datastore knows no workload. If `list` fails, it is logged without other names.
pub fn when_nodes_are_wanted(
    inventory: Arc<Inventory>,
    node: String,
    list: impl FnOnce() -> Result<Vec<String>, Error> + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name("nodes wanted".into()).spawn(move || {
        inventory.nodes().wait_until_wanted();
        let names = list().unwrap_or_else(|error| {
            log::info!("the names of other nodes cannot be read: {error}");
            Vec::new()
        });
        inventory.nodes().answer(names);
        log::warn!("{}", inventory.nodes().problem(&node));
    })?;
    Ok(())
}
