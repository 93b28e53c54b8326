//! One collection of objects as a source that can be followed. In come a client and a kind of object; what the server says goes
//! to the kind.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Limits, Question};
use super::error::Error;
use super::kinds::Kind;
use super::messages::{Envelope, Event, LARGEST_OBJECT, ListMeta, Status, read_list};
use super::watch::{Meaning, Position, meaning};
use crate::datastore::bounds::{LONGEST_TEXT, cut};
use crate::datastore::follow::{Ended, Failure, Frames, Sign, Source, jitter};
use crate::datastore::inventory::{Inventory, Table, TooMany};

/// Servers that do not know metadata alone (Kubernetes < 1.15) send whole objects.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// With a list's name here, a watch is accepted and ends at once.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const WHOLE: &str = "application/json";
/// A watch that ends sooner than this is not repeated at once.
const SHORT: Duration = Duration::from_secs(1);
/// After this, something absent is looked for again; then after twice as long, and so on.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Objects that are reported as not understood; beyond so many, nobody reads the log anyway.
const MOST_REPORTED: usize = 1000;

/// The longest position in a list or a history that is repeated, in bytes. Tokens of pages hold the last key.
const LONGEST_POSITION: usize = 8 << 10;

/// Objects by namespace and name.
type Objects<K> = Table<<K as Kind>::Object>;

/// One collection of objects.
pub(super) struct Range<K> {
    client: Client,
    kind: K,
    inventory: Arc<Inventory>,
    /// What was listed last.
    path: String,
    /// Keys of objects that were reported as not understood.
    reported: HashSet<String>,
    /// How often it has been looked for since it is absent, or denied.
    looks: u32,
}

impl<K: Kind> Source for Range<K> {
    type Position = Position;

    fn name(&self) -> &str {
        self.kind.name()
    }

    fn list(&mut self) -> Result<Position, Failure> {
        let listed = match self.read_all() {
            // Pages were too slow for the server. What it offers to go on with would be another time's remainder.
            Err(Error::Expired { .. }) => self.read_all(),
            other => other,
        };
        match listed {
            Ok((version, objects)) => {
                self.kind.replace(objects)?;
                self.looks = 0;
                Ok(Position::new(Some(version)))
            }
            Err(error) if self.tolerates(&error) => {
                self.say_absent(&error);
                self.kind.replace(Table::default())?;
                Ok(Position::new(None))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn watch(&mut self, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        let Some(version) = &position.version else {
            thread::sleep(self.until_next_look());
            return self.list_again(position, signs);
        };
        let began = Instant::now();
        let stream = match self.open(version, position.patience(&self.client.limits())) {
            Ok(stream) => stream,
            Err(error) => return self.not_accepted(error, position),
        };
        signs(Sign::Accepted);
        self.take_all(stream, began, position, signs)
    }
}

impl<K: Kind> Range<K> {
    pub fn new(client: Client, kind: K, inventory: Arc<Inventory>) -> Self {
        Range { client, kind, inventory, path: String::new(), reported: HashSet::new(), looks: 0 }
    }

    /// What a list and then a watch give, of which these are the answers.
    pub fn replay(&mut self, list: impl io::Read, watch: impl io::Read) -> Result<Ended, Error> {
        let mut objects = Table::default();
        let meta = self.take_page(list, &mut objects)?;
        self.kind.replace(objects).map_err(|error| self.too_much(error))?;
        // As if it had not ended at once.
        let began = Instant::now().checked_sub(SHORT).unwrap_or_else(Instant::now);
        Ok(self.take_all(watch, began, &mut Position::new(Some(meta.resource_version)), &mut |_| {}))
    }

    fn take_all(&mut self, stream: impl io::Read, began: Instant, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        let mut frames = Frames::new(stream, LARGEST_OBJECT);
        loop {
            let ended = match frames.next_frame() {
                Ok(Some(frame)) => self.take(frame, position),
                Ok(None) => Err(self.closed(began, position)),
                Err(error) => Err(self.interrupted(error, position)),
            };
            match ended {
                Err(Ended::Quiet) if position.stale(&self.client.limits()) => return self.list_again(position, signs),
                Err(ended) => return ended,
                Ok(()) => {}
            }
            position.hear();
            signs(Sign::Message);
        }
    }

    /// All objects, page by page if the server makes pages, and the version they are as of.
    fn read_all(&mut self) -> Result<(String, Objects<K>), Error> {
        self.path = self.kind.path(&mut self.client)?;
        let Limits { page, list: limit, .. } = self.client.limits();
        let (began, mut objects) = (Instant::now(), Table::default());
        let mut query = "resourceVersion=0".to_owned();
        while began.elapsed() < limit {
            let path = with_query(&self.path, &format!("limit={page}&{query}"));
            let meta = self.read_page(&path, &mut objects)?;
            if meta.resource_version.is_empty() || meta.resource_version.len().max(meta.next_page.len()) > LONGEST_POSITION {
                return Err(self.client.garbled("a list without a resource version or the start of its next page"));
            }
            if meta.next_page.is_empty() {
                return Ok((meta.resource_version, objects));
            }
            query = format!("continue={}", meta.next_page);
        }
        Err(self.too_much(format_args!("a list without end within {limit:?}")))
    }

    fn too_much(&self, why: impl ToString) -> Error {
        Error::TooMuch { server: self.client.server().to_owned(), why: why.to_string() }
    }

    fn read_page(&mut self, path: &str, objects: &mut Objects<K>) -> Result<ListMeta, Error> {
        let accept = if K::METADATA_ONLY { METADATA_LIST } else { WHOLE };
        let question = Question { path, accept, verb: "list", resource: self.kind.name(), stream: false };
        let stream = self.client.get(&question)?;
        self.take_page(stream, objects)
    }

    fn take_page(&mut self, stream: impl io::Read, objects: &mut Objects<K>) -> Result<ListMeta, Error> {
        let mut too_many = None;
        let listed = read_list(stream, |object| {
            let parsed = serde_json::from_str::<Envelope>(object.get());
            match parsed.and_then(|envelope| Ok((self.kind.key(&envelope), self.kind.parse(&envelope, object.get())?))) {
                Ok((key, Some(object))) => objects.insert(&key, object).map(|_| ()).inspect_err(|error| too_many = Some(error.clone())),
                Ok((_, None)) => Ok(()),
                Err(error) => {
                    skip(&self.inventory, &mut self.reported, self.kind.name(), object.get(), &error);
                    Ok(())
                }
            }
        });
        listed.map_err(|error| too_many.map_or_else(|| self.client.unreadable(error), |too_many| self.too_much(too_many)))
    }

    fn open(&mut self, version: &str, patience: Duration) -> Result<Box<dyn io::Read>, Error> {
        let seconds = patience.mul_f64(jitter()).as_secs().max(1);
        let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}");
        let path = with_query(&self.path, &query);
        let accept = if K::METADATA_ONLY { METADATA } else { WHOLE };
        self.client.get(&Question { path: &path, accept, verb: "watch", resource: self.kind.name(), stream: true })
    }

    fn take(&mut self, frame: &[u8], position: &mut Position) -> Result<(), Ended> {
        let garbled = |error: serde_json::Error| Ended::Relist(format!("a line of the watch is not what an API server sends: {error}"));
        let event: Event = serde_json::from_slice(frame).map_err(garbled)?;
        match meaning(&event, position) {
            Ok(Meaning::Put(envelope)) => {
                self.put(&envelope, event.object.get()).map_err(|error| Ended::Relist(error.to_string()))?;
            }
            Ok(Meaning::Delete(envelope)) => self.kind.delete(&self.kind.key(&envelope)),
            Ok(Meaning::Error(status)) => return Err(self.ended(&status, position)),
            Ok(Meaning::Bookmark) => {}
            Ok(Meaning::Unknown) => log::debug!("{}: an event of type {:?}", self.kind.name(), event.kind),
            Err(error) => skip(&self.inventory, &mut self.reported, self.kind.name(), event.object.get(), &error),
        }
        Ok(())
    }

    /// An object that cannot be understood leaves what was known of it before.
    fn put(&mut self, envelope: &Envelope<'_>, object: &str) -> Result<(), TooMany> {
        let key = self.kind.key(envelope);
        match self.kind.parse(envelope, object) {
            Ok(Some(object)) => self.kind.put(&key, object)?,
            Ok(None) => self.kind.delete(&key),
            Err(error) => skip(&self.inventory, &mut self.reported, self.kind.name(), object, &error),
        }
        Ok(())
    }

    /// The server ended the watch with an error, inside an answer that began well.
    fn ended(&self, status: &Status, position: &mut Position) -> Ended {
        match Error::said(self.client.asked("watch", self.kind.name(), true), status, None) {
            Error::Expired { why } => Ended::Relist(why),
            error => {
                position.shake();
                Ended::Failed(error.into())
            }
        }
    }

    /// The server ended the watch: its time was up, it is stopping, or the API has changed.
    fn closed(&mut self, began: Instant, position: &mut Position) -> Ended {
        if began.elapsed() >= SHORT {
            return Ended::Quiet;
        }
        position.shake();
        let (server, why) = (self.client.server().to_owned(), "it ended a watch at once".to_owned());
        Ended::Failed(Error::Busy { server, why, retry_after: None }.into())
    }

    /// Nothing is wrong, as far as anybody can tell; only a list can.
    fn list_again(&mut self, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        match self.list() {
            Ok(listed) => {
                *position = listed;
                signs(Sign::Message);
                Ended::Quiet
            }
            Err(failure) => Ended::Relist(failure.reason),
        }
    }

    /// How long to wait before looking again for what is absent: not long at first, it may only be on its way.
    fn until_next_look(&mut self) -> Duration {
        let looks = self.looks.min(16);
        self.looks += 1;
        FIRST_LOOK.saturating_mul(1 << looks).min(self.client.limits().absent).mul_f64(jitter())
    }

    /// Reading failed. Silence is normal where nothing happens, but the connection may be dead.
    fn interrupted(&mut self, error: io::Error, position: &mut Position) -> Ended {
        let error = match error.kind() {
            io::ErrorKind::FileTooLarge => return Ended::Relist(format!("a line of the watch is larger than {LARGEST_OBJECT} bytes")),
            io::ErrorKind::InvalidData => self.client.garbled("a watch that is not a stream of JSON objects"),
            _ => self.client.broken(ureq::Error::from(error)),
        };
        self.client.reconnect();
        if matches!(error, Error::TimedOut { .. }) {
            return Ended::Quiet;
        }
        position.shake();
        Ended::Failed(error.into())
    }

    /// The server did not take the watch. If it is the position or the API that it does not like, a list will tell.
    fn not_accepted(&mut self, error: Error, position: &mut Position) -> Ended {
        match error {
            Error::Expired { why } => Ended::Relist(why),
            Error::Absent { .. } | Error::Refused { .. } => Ended::Relist(error.to_string()),
            Error::Denied { .. } if self.kind.may_be_denied() => Ended::Relist(error.to_string()),
            error => {
                position.shake();
                Ended::Failed(error.into())
            }
        }
    }

    fn tolerates(&self, error: &Error) -> bool {
        match error {
            Error::Absent { .. } => self.kind.may_be_absent(),
            Error::Denied { .. } => self.kind.may_be_denied(),
            _ => false,
        }
    }

    fn say_absent(&mut self, error: &Error) {
        let level = if matches!(error, Error::Absent { .. }) { log::Level::Info } else { log::Level::Warn };
        if self.looks == 0 {
            log::log!(level, "{}: done without, as if there were none: {error}", self.kind.name());
        }
    }
}

fn with_query(path: &str, query: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{query}")
}

/// Counts an object that cannot be understood, and says so once.
fn skip(inventory: &Inventory, reported: &mut HashSet<String>, name: &str, object: &str, error: &serde_json::Error) {
    inventory.skip_object();
    let key = serde_json::from_str::<Envelope>(object).map(|envelope| envelope.key()).unwrap_or_default();
    let key = cut(&key, LONGEST_TEXT).into_owned();
    if reported.len() < MOST_REPORTED && reported.insert(key.clone()) {
        log::warn!("{name}: {key:?} is skipped, it cannot be understood: {error}");
    }
}
