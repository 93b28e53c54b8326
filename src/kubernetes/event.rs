//! The position of a watch, and the meaning of its events. Pure.

use std::time::{Duration, Instant};

use super::client::Limits;
use super::messages::{Envelope, Event, Status};
use crate::datastore::bounds::LONGEST_TEXT;

#[derive(Debug)]
pub(super) struct Position {
    /// The resource version up to which everything is known. `None` if the server has no such API.
    pub version: Option<String>,
    heard: Instant,
    /// Whether something has failed since then.
    shaken: bool,
}

impl Position {
    pub fn new(version: Option<String>) -> Self {
        Position { version, heard: Instant::now(), shaken: false }
    }

    pub fn hear(&mut self) {
        self.heard = Instant::now();
        self.shaken = false;
    }

    /// Notes that a connection failed. The server may have been restored with another history.
    pub fn shake(&mut self) {
        if !self.shaken {
            self.shaken = true;
            self.heard = Instant::now();
        }
    }

    /// Returns how long a watch may take. It is short while it is doubtful whether the watch will ever send anything.
    pub fn patience(&self, limits: &Limits) -> Duration {
        if self.shaken { limits.doubt } else { limits.watch }
    }

    /// Reports whether only a list helps after this silence.
    pub fn stale(&self, limits: &Limits) -> bool {
        self.heard.elapsed() >= if self.shaken { limits.doubt } else { limits.silence }
    }
}

#[derive(Debug)]
pub(super) enum Meaning<'a> {
    Put(Envelope<'a>),
    Delete(Envelope<'a>),
    Bookmark,
    Error(Status),
    Unknown,
}

/// Returns the meaning of `event`, and advances `position`.
pub(super) fn meaning<'a>(event: &Event<'a>, position: &mut Position) -> serde_json::Result<Meaning<'a>> {
    if event.kind == "ERROR" {
        return serde_json::from_str(event.object.get()).map(Meaning::Error);
    }
    let envelope: Envelope<'a> = serde_json::from_str(event.object.get())?;
    if (1..=LONGEST_TEXT).contains(&envelope.resource_version().len()) {
        position.version = Some(envelope.resource_version().to_owned());
    }
    Ok(match &*event.kind {
        "ADDED" | "MODIFIED" => Meaning::Put(envelope),
        "DELETED" => Meaning::Delete(envelope),
        "BOOKMARK" => Meaning::Bookmark,
        _ => Meaning::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> (String, String) {
        let mut position = Position::new(Some("100".into()));
        let meaning = meaning(&serde_json::from_str(line).unwrap(), &mut position).unwrap();
        let text = match meaning {
            Meaning::Put(envelope) => format!("put {}", envelope.key()),
            Meaning::Delete(envelope) => format!("delete {}", envelope.key()),
            other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        };
        (text, position.version.unwrap_or_default())
    }

    #[test]
    fn events_and_bookmarks_move_the_position_and_errors_do_not() {
        for (line, text, version) in [
            (r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"101"}}}"#, "put n/a", "101"),
            (r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"102"}}}"#, "delete a", "102"),
            (r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"103"},"spec":{"containers":null}}}"#, "Bookmark", "103"),
            (r#"{"type":"NEW","object":{"metadata":{}}}"#, "Unknown", "100"),
            (r#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"reason":"Expired","code":410}}"#, "Error", "100"),
        ] {
            assert_eq!(said(line), (text.to_owned(), version.to_owned()));
        }
    }

    #[test]
    fn silence_is_believed_for_less_long_after_an_outage() {
        let limits = Limits { silence: Duration::from_secs(300), doubt: Duration::ZERO, ..Limits::default() };
        let mut position = Position::new(Some("1".into()));
        assert!(!position.stale(&limits));
        position.shake();
        assert!(position.stale(&limits) && position.patience(&limits) == limits.doubt);
        position.hear();
        assert!(!position.stale(&limits));
    }
}
