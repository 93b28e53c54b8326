//! The Kubernetes datastore: list, then watch, into the [`Inventory`]. In comes how to reach the API server; out go this node's
//! workloads and, where the ruleset has no names, the policies. It opens connections to the API server.
//!
//! The pods of the node are one list and one watch, filtered by the server. Policies are only asked for once a scrape wants
//! them, and then only their metadata. Lists are as of any time (`resourceVersion=0`): the server answers them from memory, in
//! one piece, and the watch that follows makes up for what is missing.

mod access;
mod client;
mod credentials;
mod error;
mod exec;
mod kinds;
mod messages;
mod nodes;
mod pods;
mod range;
mod timestamp;
mod tls;
mod watch;

use std::io;
use std::sync::Arc;

pub use access::{Access, Fixed};
pub use client::Limits;
pub use credentials::{Authorization, Configured, Credentials, Error as CredentialsError};
pub use error::Error;

use crate::datastore::follow;
use crate::datastore::inventory::Inventory;
use client::Client;
use kinds::{Collection, Kind, Pods, Policies};
use range::Range;

/// Where Calico keeps its own policies: `CALICO_API_GROUP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CalicoApi {
    /// Ask the server: v3 only where it has nothing else.
    #[default]
    Discover,
    /// `crd.projectcalico.org/v1`: every release.
    Crd,
    /// `projectcalico.org/v3`: Calico ≥ 3.32, where it was installed so.
    V3,
}

/// Follows the Kubernetes datastore on threads of its own, for as long as the process lives: the workloads of `node` go into
/// `inventory`, and the policies from when [`Inventory::policies_wanted`] says so.
///
/// # Errors
/// When the system gives no thread. What goes wrong later is in [`Inventory::troubles`] and in the log.
pub fn follow(access: Arc<dyn Access>, node: String, calico_api: CalicoApi, inventory: Arc<Inventory>) -> io::Result<()> {
    follow_within(access, node, calico_api, inventory, Limits::default())
}

/// [`follow()`] with other time-outs.
///
/// # Errors
/// As [`follow()`].
pub fn follow_within(
    access: Arc<dyn Access>,
    node: String,
    calico_api: CalicoApi,
    inventory: Arc<Inventory>,
    limits: Limits,
) -> io::Result<()> {
    let mut asking = Client::new(Arc::clone(&access), limits);
    follow::when_nodes_are_wanted(Arc::clone(&inventory), node.clone(), move || {
        nodes::names(&mut asking).map_err(|error| error.to_string())
    })?;
    let pods = Pods::new(node, Arc::clone(&inventory));
    spawn(pods, &access, limits, &inventory)?;
    follow::when_policies_are_wanted(Arc::clone(&inventory), move || {
        Collection::ALL.into_iter().try_for_each(|collection| {
            let policies = Policies::new(collection, calico_api, Arc::clone(&inventory));
            spawn(policies, &access, limits, &inventory)
        })
    })
}

/// Takes recorded answers to a list of pods and to the watch after it as [`follow()`] takes them.
///
/// # Errors
/// When the list is none.
pub fn replay(list: impl io::Read, watch: impl io::Read, node: &str, inventory: Arc<Inventory>) -> Result<follow::Ended, Error> {
    let client = Client::new(Arc::new(Fixed(Credentials::default())), Limits::default());
    let pods = Pods::new(node.to_owned(), Arc::clone(&inventory));
    Range::new(client, pods, inventory).replay(list, watch)
}

fn spawn<K>(kind: K, access: &Arc<dyn Access>, limits: Limits, inventory: &Arc<Inventory>) -> io::Result<()>
where
    K: Kind + Send + 'static,
{
    let client = Client::new(Arc::clone(access), limits);
    follow::spawn(Range::new(client, kind, Arc::clone(inventory)), Arc::clone(inventory))
}
