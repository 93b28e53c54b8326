//! The Kubernetes datastore: list, then watch, into the [`Inventory`]. Provides this node's workloads and, if the ruleset has no names, the
//! policies. Opens connections to the API server.
//!
//! The pods of the node are one list and one watch, filtered by the server. Policies are only requested once a scrape wants them, and then
//! only their metadata. Lists are as of any time (`resourceVersion=0`): the server answers them from memory, in one piece, and the
//! following watch makes up for what is missing.

mod access;
mod client;
mod configured;
mod error;
mod event;
mod exec;
mod kinds;
mod lookup;
mod messages;
mod nodes;
mod pods;
mod range;
mod timestamp;

use std::io;
use std::sync::Arc;

pub use crate::datastore::error::Error;
pub use access::{Access, Authorization, Credentials};
pub use client::Limits;
pub use configured::Configured;
pub use lookup::{Lookup, Pod, Query};

use crate::config::ApiGroup;
use crate::datastore::follow;
use crate::datastore::inventory::Inventory;
use client::Client;
use kinds::{Kind, Pods, Policies};
use range::Range;

/// Follows the API server on its own threads for the lifetime of the process. The workloads of `node` go into `inventory`, and the policies
/// as soon as [`Inventory::policies_wanted`] returns true. Later problems are in [`Inventory::troubles`] and in the log.
pub fn follow(access: Arc<dyn Access>, node: String, api_group: ApiGroup, inventory: Arc<Inventory>, limits: Limits) -> io::Result<()> {
    let mut asking = Client::new(Arc::clone(&access), limits);
    follow::when_nodes_are_wanted(Arc::clone(&inventory), node.clone(), move || nodes::names(&mut asking))?;
    spawn(Pods { node }, &access, limits, &inventory)?;
    follow::when_policies_are_wanted(Arc::clone(&inventory), move || {
        Policies::all(api_group).into_iter().try_for_each(|policies| spawn(policies, &access, limits, &inventory))
    })
}

/// Processes recorded answers to a list of pods and to the following watch as [`follow()`] does.
pub fn replay(list: impl io::Read, watch: impl io::Read, node: &str, inventory: Arc<Inventory>) -> Result<follow::Ended, Error> {
    let client = Client::new(Arc::new(Credentials::default()), Limits::default());
    Range::new(client, Pods { node: node.to_owned() }, inventory).replay(list, watch)
}

fn spawn<K>(kind: K, access: &Arc<dyn Access>, limits: Limits, inventory: &Arc<Inventory>) -> io::Result<()>
where
    K: Kind + Send + 'static,
{
    let client = Client::new(Arc::clone(access), limits);
    follow::spawn(Range::new(client, kind, Arc::clone(inventory)), Arc::clone(inventory))
}
