//! Starts the followers of policies once a scrape has asked for them.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::inventory::Inventory;

/// How often to look whether a scrape has asked for the policies.
const EVERY: Duration = Duration::from_secs(1);

/// Calls `start` on a thread of its own once [`Inventory::policies_wanted`] says so. What keeps it from starting is logged.
///
/// # Errors
/// When the system gives no thread.
pub fn when_policies_are_wanted(inventory: Arc<Inventory>, start: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("policies wanted".into()).spawn(move || {
        while !inventory.policies_wanted() {
            thread::sleep(EVERY);
        }
        if let Err(error) = start() {
            log::error!("cannot follow the policies: {error}");
        }
    })?;
    Ok(())
}
