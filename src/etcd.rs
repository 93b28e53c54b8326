//! etcd v3 over its JSON gateway: list, then watch, into the [`Inventory`]. Provides this node's workloads and, if the ruleset has no
//! names, the policies. Opens connections to etcd and reads TLS files.
//!
//! Each kind of object is a separate range with its own watch: `workloadendpoints/` from the start, the two policy ranges once a scrape has
//! asked for them. One watch over all of Calico's resources would keep its revision fresher between etcd's compactions. But it would send
//! every value of every kind to every node, and need a role that may read them. There remain the events of other nodes' endpoints, for
//! which etcd has no filter, because the node follows the namespace in keys.
//!
//! A list requests keys only, skipping as many of other nodes as possible, and then, at the same revision, the values of this node's keys.

mod certificates;
mod discovery;
mod error;
mod frame;
mod gateway;
mod keys;
mod kinds;
mod messages;
mod nodes;
mod sweep;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use crate::datastore::http::Limits;
pub use gateway::LIMITS;

use crate::config::EtcdConfig;
use crate::datastore::bounds::{LONGEST_TEXT, cut};
use crate::datastore::dns::Resolver;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::follow::{self, Ended, Failure, Frames, LARGEST_FRAME, Patience, Sign, Watched};
use crate::datastore::http::Requester;
use crate::datastore::inventory::{Inventory, Object, Part, Table, TooMany};
use error::failure;
use frame::{Meaning, Position};
use gateway::Gateway;
use kinds::{Kind, Policies, Workloads};
use messages::{Event, RangeResponse, Span, WatchFrame};
use sweep::Page;

/// The interval between attempts to find etcd by DNS.
const DISCOVERY_EVERY: Duration = Duration::from_secs(10);

/// Follows etcd on its own threads for the lifetime of the process. The workloads of `node` go into `inventory`, and the policies as soon
/// as [`Inventory::policies_wanted`] returns true. Later problems are in [`Inventory::troubles`] and in the log.
pub fn follow(config: EtcdConfig, node: String, inventory: Arc<Inventory>, limits: Limits) -> io::Result<()> {
    if let Some(domain) = config.discovery.clone() {
        let discover = move || follow_discovered(config, &domain, node, inventory, limits);
        return thread::Builder::new().name("etcd discovery".into()).spawn(discover).map(|_| ());
    }
    let mut asking = Gateway::new(config.clone(), limits);
    let name = node.clone();
    follow::when_nodes_are_wanted(Arc::clone(&inventory), node.clone(), move || nodes::names(&mut asking, &name))?;
    follow::spawn(Range::new(config.clone(), limits, Workloads::new(node), &inventory), Arc::clone(&inventory))?;
    follow::when_policies_are_wanted(Arc::clone(&inventory), move || {
        let prefixes = [keys::NETWORK_POLICIES, keys::GLOBAL_NETWORK_POLICIES];
        // All of them before the first is listed. Otherwise one alone would look complete.
        prefixes.iter().for_each(|prefix| inventory.expect_list(prefix));
        prefixes
            .into_iter()
            .try_for_each(|prefix| follow::spawn(Range::new(config.clone(), limits, Policies(prefix), &inventory), Arc::clone(&inventory)))
    })
}

/// Processes a recorded stream of a watch over workload endpoints as [`follow()`] does, after a list of cluster 1 at revision 1.
pub fn replay(stream: impl io::Read, node: &str, inventory: Arc<Inventory>) -> Ended {
    let config = EtcdConfig { endpoints: Vec::new(), discovery: None, credentials: None, ca_file: None, client_cert: None };
    let mut range = Range::new(config, LIMITS, Workloads::new(node.to_owned()), &inventory);
    range.take_all(stream, &mut Position { cluster: 1, revision: 1 }, &mut |_| {})
}

/// Finds the endpoints by DNS, then follows. As in etcd's own client, they are looked up once.
fn follow_discovered(mut config: EtcdConfig, domain: &str, node: String, inventory: Arc<Inventory>, limits: Limits) {
    const NAME: &str = "ETCD_DISCOVERY_SRV";
    let mut said = None;
    config.discovery = None;
    config.endpoints = loop {
        match discovery::endpoints(domain, |name| Resolver::of_system().srv(name)) {
            Ok(endpoints) => break endpoints,
            Err(why) => {
                inventory.set_trouble(NAME, Some(why.clone()));
                if said.as_ref() != Some(&why) {
                    log::warn!("{NAME}: {why}");
                    said = Some(why);
                }
                thread::sleep(DISCOVERY_EVERY);
            }
        }
    };
    log::info!("{NAME}: found {}", config.endpoints.join(", "));
    inventory.set_trouble(NAME, None);
    // The endpoints are found, but not reached yet.
    inventory.set_up(false);
    if let Err(error) = follow(config, node, inventory, limits) {
        log::error!("cannot follow etcd: {error}");
    }
}

/// Requests one page of keys, as of `position`, which the first page sets.
fn page_of_keys(gateway: &mut Gateway, prefix: &str, span: &Span, limit: u32, position: &mut Option<Position>) -> Result<Page, Error> {
    let revision = position.map_or(0, |position| position.revision);
    let answer = gateway.ask("/kv/range", &messages::range_of_keys(span, limit, revision), prefix)?;
    let page: RangeResponse = serde_json::from_slice(&answer).map_err(|error| gateway.garbled(error))?;
    let at = position.get_or_insert(Position { cluster: page.header.cluster_id, revision: page.header.revision });
    if page.header.cluster_id != at.cluster {
        return Err(gateway.garbled("it is a member of another cluster than the endpoint before"));
    }
    let last = page.kvs.last().and_then(|kv| kv.raw_key());
    if page.more && !last.as_ref().is_some_and(|last| (&span.from..&span.end).contains(&last)) {
        return Err(gateway.garbled("a page that ends outside of the requested range"));
    }
    let keys = page.kvs.iter().filter_map(|kv| kv.key()).collect();
    Ok(Page { keys, read: page.kvs.len() as u64, last, count: page.count, more: page.more })
}

struct Range<K: Kind> {
    gateway: Gateway,
    kind: K,
    part: Part<K::Object>,
}

impl<K: Kind> Watched for Range<K> {
    type Position = Position;

    fn name(&self) -> &str {
        self.kind.prefix()
    }

    fn list(&mut self) -> Result<Position, Failure> {
        let began = Instant::now();
        let (position, keys) = self.list_keys(began).map_err(failure)?;
        let mut objects = Table::default();
        for key in keys {
            self.gateway.in_time(began).map_err(failure)?;
            let value = if K::NEEDS_VALUES { self.read(&key, position.revision).map_err(failure)? } else { Vec::new() };
            if let Some(Some(object)) = self.parse(&key, &value) {
                objects.insert(&key, object)?;
            }
        }
        self.part.replace(objects)?;
        Ok(position)
    }

    fn watch(&mut self, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        let request = messages::watch_of(&Span::prefix(self.kind.prefix()), position.revision + 1);
        let stream = match self.gateway.watch(&request, self.kind.prefix()) {
            Ok(stream) => stream,
            Err(error) if error.kind == ErrorKind::Expired => return Ended::Relist(error.to_string()),
            Err(error) => return Ended::Failed(failure(error)),
        };
        self.take_all(stream, position, signs)
    }
}

impl<K: Kind> Range<K> {
    fn new(config: EtcdConfig, limits: Limits, kind: K, inventory: &Arc<Inventory>) -> Self {
        let part = Part::new(Arc::clone(inventory), kind.prefix());
        Range { gateway: Gateway::new(config, limits), kind, part }
    }

    /// Returns the keys of this node, and the revision at which they all existed.
    fn list_keys(&mut self, began: Instant) -> Result<(Position, Vec<String>), Error> {
        let Range { gateway, kind, .. } = self;
        let mut position = None;
        let pages = sweep::Pages { largest: gateway.limits().page, most: K::Object::MOST };
        let ask = |span: &Span, limit| {
            gateway.in_time(began)?;
            page_of_keys(gateway, kind.prefix(), span, limit, &mut position)
        };
        let keys = sweep::keys(kind, pages, ask)?;
        if keys.len() > K::Object::MOST {
            return Err(gateway.error(ErrorKind::TooMuch, TooMany::of::<K::Object>()));
        }
        let position = position.ok_or_else(|| gateway.garbled("a list without a page"))?;
        Ok((position, keys))
    }

    /// Returns the value of `key` at `revision`, at which it exists.
    fn read(&mut self, key: &str, revision: i64) -> Result<Vec<u8>, Error> {
        let answer = self.gateway.ask("/kv/range", &messages::range_of_one(key, revision), self.kind.prefix())?;
        let response: RangeResponse = serde_json::from_slice(&answer).map_err(|error| self.gateway.garbled(error))?;
        let value = response.kvs.first().and_then(|kv| kv.value());
        value.ok_or_else(|| self.gateway.garbled(format!("no value for {key} at revision {revision}, where it was listed")))
    }

    fn take_all(&mut self, stream: impl io::Read, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        let mut frames = Frames::new(stream, LARGEST_FRAME);
        let mut silent = true;
        loop {
            let ended = match frames.next_frame() {
                Ok(Some(frame)) => self.take(frame, position),
                Ok(None) => Err(self.over("it closed the watch")),
                Err(error) => self.interrupted(error, silent),
            };
            match ended {
                Ok(()) => signs(Sign::Message),
                Err(ended) => return ended,
            }
            silent = false;
        }
    }

    fn take(&mut self, frame: &[u8], position: &mut Position) -> Result<(), Ended> {
        let frame: WatchFrame = serde_json::from_slice(frame)
            .map_err(|error| Ended::Relist(format!("a frame of the watch is not what etcd sends: {error}")))?;
        match frame::meaning(&frame, position) {
            Meaning::GoOn => {
                let mut events = frame.result.iter().flat_map(|result| &result.events);
                events.try_for_each(|event| self.apply(event)).map_err(|error| Ended::Relist(error.to_string()))?;
            }
            Meaning::Relist(reason) => return Err(Ended::Relist(reason)),
            Meaning::Over(why) => return Err(self.over(&why)),
            Meaning::Token(why) => return Err(self.unauthorised(error::bad_token(self.gateway.endpoint(), &why))),
            Meaning::Denied => {
                let denied = error::denied(self.gateway.endpoint(), self.gateway.user(), self.kind.prefix());
                return Err(self.unauthorised(denied));
            }
        }
        Ok(())
    }

    /// Applies an event. A value that cannot be understood does not change the stored object.
    fn apply(&mut self, event: &Event<'_>) -> Result<(), TooMany> {
        let Some(key) = event.kv.key().filter(|key| self.kind.wants(key)) else { return Ok(()) };
        if event.deleted() {
            self.part.remove(&key);
            return Ok(());
        }
        // What is not base64 is not JSON either.
        let value = if K::NEEDS_VALUES { event.kv.value().unwrap_or_default() } else { Vec::new() };
        match self.parse(&key, &value) {
            Some(object) => self.part.put(&key, object),
            None => Ok(()),
        }
    }

    /// Parses a value. The outer `None` means that it cannot be understood, the inner one that it is irrelevant.
    fn parse(&mut self, key: &str, value: &[u8]) -> Option<Option<K::Object>> {
        let skip = |error| self.part.skip(key, format_args!("{}: skipped, not a workload endpoint: {error}", cut(key, LONGEST_TEXT)));
        self.kind.parse(key, value).map_err(skip).ok()
    }

    /// Ends a watch that can no longer be used, though it reported no error.
    fn over(&mut self, why: &str) -> Ended {
        let error = error::unavailable(self.gateway.endpoint(), why);
        self.gateway.move_on();
        Ended::Failed(failure(error))
    }

    /// Handles a failed read. Silence after the first frame is normal if nothing happens. Silence without a first frame means that nobody
    /// answers.
    fn interrupted(&mut self, error: io::Error, silent: bool) -> Result<(), Ended> {
        let error = self.gateway.interrupted(error, "frame")?;
        if error.kind == ErrorKind::TimedOut && !silent {
            self.gateway.reconnect();
            return Err(Ended::Quiet);
        }
        self.gateway.move_on();
        Err(Ended::Failed(failure(error)))
    }

    /// A watch reports an expired token and a missing permission in the same way, so a new token is tried first.
    fn unauthorised(&mut self, error: Error) -> Ended {
        self.gateway.forget_token();
        let patience = if self.gateway.user().is_some() { Patience::Repair } else { Patience::Away };
        Ended::Failed(Failure { patience, reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, Engine};

    #[test]
    fn workloads_that_cannot_be_understood_are_skipped_and_counted() {
        let event = |pod: &str, value: &str| {
            let key = format!("{}shop/n-k8s-{pod}-eth0", keys::WORKLOAD_ENDPOINTS);
            let [key, value] = [key.as_str(), value].map(|text| BASE64_STANDARD.encode(text));
            format!(r#"{{"result":{{"header":{{"cluster_id":"1"}},"events":[{{"kv":{{"key":"{key}","value":"{value}"}}}}]}}}}"#)
        };
        let endpoint = |node: &str| format!(r#"{{"spec":{{"node":"{node}","interfaceName":"cali1"}}}}"#);
        let stream = [event("bad", "{"), event("other", &endpoint("m")), event("good", &endpoint("n")), event("good", "{")].concat();
        let inventory = Arc::new(Inventory::new());
        replay(stream.as_bytes(), "n", Arc::clone(&inventory));
        assert_eq!((inventory.workload_count(), inventory.skipped_objects()), (1, 2));
    }
}
