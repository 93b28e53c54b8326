//! Follows one collection of objects with a client and a kind of object. Passes what the server sends to the kind.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Question};
use super::error::{Asked, failure, said};
use super::event::{Meaning, Position, meaning};
use super::kinds::Kind;
use super::messages::{Envelope, Event, ListMeta, Status, read_list};
use crate::datastore::bounds::{LONGEST_TEXT, cut};
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::follow::{Ended, Failure, Frames, LARGEST_FRAME, Sign, Watched, jitter};
use crate::datastore::http::Requester as _;
use crate::datastore::inventory::{Inventory, Part, Table};

/// Servers without metadata-only answers (Kubernetes < 1.15) send whole objects.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// With a list's name in this header, a watch is accepted and ends immediately.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const WHOLE: &str = "application/json";
/// A watch that ends sooner than this is not repeated immediately.
const SHORT: Duration = Duration::from_secs(1);
/// The first interval for looking for something absent. It doubles each time.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// The longest position in a list or a history that is sent back, in bytes. Tokens of pages contain the last key.
const LONGEST_POSITION: usize = 8 << 10;

type Objects<K> = Table<<K as Kind>::Object>;

pub(super) struct Range<K: Kind> {
    client: Client,
    kind: K,
    name: String,
    part: Part<K::Object>,
    path: String,
    /// The number of attempts since it has been absent or denied.
    looks: u32,
}

impl<K: Kind> Watched for Range<K> {
    type Position = Position;

    fn name(&self) -> &str {
        &self.name
    }

    fn list(&mut self) -> Result<Position, Failure> {
        let listed = match self.read_all() {
            // The server's history expired while pages were read. The continuation that it offers would be from another time.
            Err(error) if error.kind == ErrorKind::Expired => self.read_all(),
            other => other,
        };
        match listed {
            Ok((version, objects)) => {
                self.part.replace(objects)?;
                self.looks = 0;
                Ok(Position::new(Some(version)))
            }
            Err(error) if self.kind.may_be(error.kind) => {
                if self.looks == 0 {
                    let level = if error.kind == ErrorKind::Absent { log::Level::Info } else { log::Level::Warn };
                    log::log!(level, "{}: continuing as if there were none: {error}", self.name);
                }
                self.part.replace(Table::default())?;
                Ok(Position::new(None))
            }
            Err(error) => Err(failure(error)),
        }
    }

    fn watch(&mut self, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        let Some(version) = &position.version else {
            thread::sleep(self.until_next_look());
            return self.list_again(position, signs);
        };
        let began = Instant::now();
        let stream = match self.open(version, position.patience(&self.client.limits)) {
            Ok(stream) => stream,
            Err(error) => return self.not_accepted(error, position),
        };
        signs(Sign::Accepted);
        self.take_all(stream, began, position, signs)
    }
}

impl<K: Kind> Range<K> {
    pub fn new(client: Client, kind: K, inventory: Arc<Inventory>) -> Self {
        let part = Part::new(inventory, kind.prefix());
        Range { client, name: kind.name(), kind, part, path: String::new(), looks: 0 }
    }

    pub fn replay(&mut self, list: impl io::Read, watch: impl io::Read) -> Result<Ended, Error> {
        let mut objects = Table::default();
        let meta = self.take_page(list, &mut objects)?;
        self.part.replace(objects).map_err(|error| self.client.error(ErrorKind::TooMuch, error))?;
        // As if it had not ended immediately.
        let began = Instant::now().checked_sub(SHORT).unwrap_or_else(Instant::now);
        Ok(self.take_all(watch, began, &mut Position::new(Some(meta.resource_version)), &mut |_| {}))
    }

    fn take_all(&mut self, stream: impl io::Read, began: Instant, position: &mut Position, signs: &mut dyn FnMut(Sign)) -> Ended {
        let mut frames = Frames::new(stream, LARGEST_FRAME);
        loop {
            let ended = match frames.next_frame() {
                Ok(Some(frame)) => self.take(frame, position),
                Ok(None) => Err(self.closed(began, position)),
                Err(error) => self.interrupted(error, position),
            };
            match ended {
                Err(Ended::Quiet) if position.stale(&self.client.limits) => return self.list_again(position, signs),
                Err(ended) => return ended,
                Ok(()) => {}
            }
            position.hear();
            signs(Sign::Message);
        }
    }

    /// Reads all objects, page by page if the server uses pages. Returns them and their resource version.
    fn read_all(&mut self) -> Result<(String, Objects<K>), Error> {
        self.path = self.kind.path(&mut self.client)?;
        let (began, mut objects) = (Instant::now(), Table::default());
        let mut query = "resourceVersion=0".to_owned();
        loop {
            self.client.in_time(began)?;
            let path = with_query(&self.path, &format!("limit={}&{query}", self.client.limits().page));
            let accept = if K::METADATA_ONLY { METADATA_LIST } else { WHOLE };
            let stream = self.client.get(&Question { path: &path, accept, verb: "list", resource: &self.name })?;
            let meta = self.take_page(stream, &mut objects)?;
            if meta.resource_version.is_empty() || meta.longest() > LONGEST_POSITION {
                return Err(self.client.garbled("a list without a resource version or the start of its next page"));
            }
            let Some(next) = meta.next_page() else { return Ok((meta.resource_version, objects)) };
            query = next;
        }
    }

    fn take_page(&mut self, stream: impl io::Read, objects: &mut Objects<K>) -> Result<ListMeta, Error> {
        let mut too_many = None;
        let listed = read_list(stream, |object| {
            let parsed = serde_json::from_str::<Envelope>(object.get());
            match parsed.and_then(|envelope| Ok((self.key(&envelope), self.kind.parse(&envelope, object.get())?))) {
                Ok((key, Some(object))) => _ = objects.insert(&key, object).inspect_err(|error| too_many = Some(error.clone()))?,
                Ok((_, None)) => {}
                Err(error) => self.skip(object.get(), &error),
            }
            Ok(())
        });
        listed.map_err(|error| match too_many {
            Some(too_many) => self.client.error(ErrorKind::TooMuch, too_many),
            None => self.client.unreadable(error),
        })
    }

    fn open(&mut self, version: &str, patience: Duration) -> Result<Box<dyn io::Read>, Error> {
        let seconds = patience.mul_f64(jitter()).as_secs().max(1);
        let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}");
        let path = with_query(&self.path, &query);
        let accept = if K::METADATA_ONLY { METADATA } else { WHOLE };
        self.client.get(&Question { path: &path, accept, verb: "watch", resource: &self.name })
    }

    fn take(&mut self, frame: &[u8], position: &mut Position) -> Result<(), Ended> {
        let garbled = |error: serde_json::Error| Ended::Relist(format!("a line of the watch is not what an API server sends: {error}"));
        let event: Event = serde_json::from_slice(frame).map_err(garbled)?;
        match meaning(&event, position) {
            Ok(Meaning::Put(envelope)) => match self.kind.parse(&envelope, event.object.get()) {
                Ok(object) => self.part.put(&self.key(&envelope), object).map_err(|error| Ended::Relist(error.to_string()))?,
                // What was known of it before is kept.
                Err(error) => self.skip(event.object.get(), &error),
            },
            Ok(Meaning::Delete(envelope)) => self.part.remove(&self.key(&envelope)),
            Ok(Meaning::Error(status)) => return Err(self.ended(&status, position)),
            Ok(Meaning::Bookmark) => {}
            Ok(Meaning::Unknown) => log::debug!("{}: an event of type {:?}", self.name, event.kind),
            Err(error) => self.skip(event.object.get(), &error),
        }
        Ok(())
    }

    fn key(&self, envelope: &Envelope<'_>) -> String {
        format!("{}{}", self.part.prefix(), envelope.key())
    }

    /// Counts an object that cannot be understood, and logs it once.
    fn skip(&mut self, object: &str, error: &serde_json::Error) {
        let key = serde_json::from_str::<Envelope>(object).map(|envelope| envelope.key()).unwrap_or_default();
        let key = cut(&key, LONGEST_TEXT);
        self.part.skip(&key, format_args!("{}: skipping {key:?}, which does not parse: {error}", self.name));
    }

    /// Handles a watch that the server ended with an error, inside an answer that began well.
    fn ended(&self, status: &Status, position: &mut Position) -> Ended {
        let error = said(Asked { url: &self.client.url, verb: "watch", resource: &self.name, token: true }, status, None);
        if error.kind == ErrorKind::Expired {
            return Ended::Relist(error.to_string());
        }
        shaken(error, position)
    }

    /// Handles a watch that the server closed: its time was up, the server is stopping, or the API has changed.
    fn closed(&mut self, began: Instant, position: &mut Position) -> Ended {
        if began.elapsed() >= SHORT {
            return Ended::Quiet;
        }
        shaken(self.client.error(ErrorKind::Busy { retry_after: None }, "it ended a watch immediately"), position)
    }

    /// Lists again although there is no known problem, because only a list can detect one.
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

    /// Returns how long to wait before looking again for something absent. Short at first, because it may be about to appear.
    fn until_next_look(&mut self) -> Duration {
        let looks = self.looks.min(16);
        self.looks += 1;
        FIRST_LOOK.saturating_mul(1 << looks).min(self.client.limits.absent).mul_f64(jitter())
    }

    /// Handles a failed read. Silence is normal if nothing happens, but the connection may be dead.
    fn interrupted(&mut self, error: io::Error, position: &mut Position) -> Result<(), Ended> {
        let error = self.client.interrupted(error, "line")?;
        self.client.reconnect();
        Err(if error.kind == ErrorKind::TimedOut { Ended::Quiet } else { shaken(error, position) })
    }

    /// Handles a watch that the server did not accept. If the position or the API is the problem, a list shows it.
    fn not_accepted(&mut self, error: Error, position: &mut Position) -> Ended {
        let is_for_a_list = match error.kind {
            ErrorKind::Expired | ErrorKind::Absent | ErrorKind::Refused => true,
            missing => self.kind.may_be(missing),
        };
        if is_for_a_list {
            return Ended::Relist(error.to_string());
        }
        shaken(error, position)
    }
}

fn shaken(error: Error, position: &mut Position) -> Ended {
    position.shake();
    Ended::Failed(failure(error))
}

fn with_query(path: &str, query: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{query}")
}
