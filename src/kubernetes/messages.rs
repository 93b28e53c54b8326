//! What the API server sends, as typed structs of only the needed fields. Pure. Objects remain text until they are parsed one at a time,
//! because half of a pod is `managedFields`.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::client::encoded;
use crate::datastore::bounds::{Each, at_most};
use crate::datastore::follow::LARGEST_FRAME;
use crate::datastore::inventory::TooMany;

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMeta {
    /// The position at which a watch continues.
    pub resource_version: String,
    /// The position of the next page. Empty after the last one.
    #[serde(rename = "continue")]
    token: String,
}

impl ListMeta {
    pub fn longest(&self) -> usize {
        self.resource_version.len().max(self.token.len())
    }

    pub fn next_page(&self) -> Option<String> {
        (!self.token.is_empty()).then(|| format!("continue={}", encoded(&self.token)))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

impl Envelope<'_> {
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    pub fn namespace(&self) -> Option<&str> {
        Some(&*self.metadata.namespace).filter(|namespace| !namespace.is_empty())
    }

    pub fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// Returns namespace and name, which are unique among the objects of a kind.
    pub fn key(&self) -> String {
        match self.namespace() {
            Some(namespace) => format!("{namespace}/{}", self.name()),
            None => self.name().to_owned(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Event<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// The body of most answers other than 200, and the object of an `ERROR`. `kind` and `apiVersion` may be missing.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub message: String,
    pub reason: String,
    pub code: u16,
    details: Option<Details>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
    #[serde(deserialize_with = "at_most::<_, _, 100>")]
    causes: Vec<Cause>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
}

impl Status {
    /// Reports whether the requested resource version is no longer valid, or not yet.
    pub fn expired(&self) -> bool {
        let too_large = |details: &Details| details.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge");
        self.code == 410 || matches!(&*self.reason, "Expired" | "Gone") || self.details.as_ref().is_some_and(too_large)
    }

    /// Returns the seconds to wait before the next attempt, or 0 if unspecified.
    pub fn retry_after(&self) -> u32 {
        self.details.as_ref().map_or(0, |details| details.retry_after_seconds)
    }
}

/// The groups of APIs of a server: the answer of `/apis`.
#[derive(Deserialize)]
pub(super) struct Groups {
    #[serde(deserialize_with = "at_most::<_, _, 10_000>")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
}

impl Groups {
    pub fn has(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.name == name)
    }
}

/// Reads a list from `stream`. Passes each object's text to `item` as it arrives, so that only one is in memory. An object larger than
/// [`LARGEST_FRAME`] gives `FileTooLarge`.
pub(super) fn read_list(stream: impl Read, mut item: impl FnMut(&RawValue) -> Result<(), TooMany>) -> serde_json::Result<ListMeta> {
    let left = Cell::new(LARGEST_FRAME);
    let metered = BufReader::new(Metered { stream, left: &left });
    let mut deserializer = serde_json::Deserializer::from_reader(metered);
    let mut meta = ListMeta::default();
    let mut each = |object: &RawValue| {
        left.set(LARGEST_FRAME);
        item(object)
    };
    deserializer.deserialize_map(List { meta: &mut meta, item: &mut each })?;
    deserializer.end()?;
    Ok(meta)
}

/// Lets at most `left` bytes through.
struct Metered<'a, R> {
    stream: R,
    left: &'a Cell<usize>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let length = buffer.len().min(self.left.get());
        let n = self.stream.read(&mut buffer[..length])?;
        self.left.set(self.left.get() - n);
        Ok(n)
    }
}

/// A list's fields in any order. Lists of custom resources have their metadata last.
struct List<'a> {
    meta: &'a mut ListMeta,
    item: &'a mut dyn FnMut(&RawValue) -> Result<(), TooMany>,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut items = false;
        while let Some(field) = map.next_key::<Cow<'_, str>>()? {
            match &*field {
                "metadata" => *self.meta = map.next_value()?,
                "items" => {
                    items = true;
                    map.next_value_seed(Each::new(|item: Box<RawValue>| (self.item)(&item), |f| f.write_str("objects")))?;
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if items { Ok(()) } else { Err(serde::de::Error::missing_field("items")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> serde_json::Result<(ListMeta, Vec<String>)> {
        let mut items = Vec::new();
        let meta = read_list(text.as_bytes(), |item| {
            items.push(item.get().to_owned());
            Ok(())
        })?;
        Ok((meta, items))
    }

    #[test]
    fn metadata_comes_before_or_after_the_items() {
        let meta = |next: &str| ListMeta { resource_version: "407".into(), token: next.into() };
        let built_in = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"407","remainingItemCount":5,"continue":"t"},
            "items":[{"a":[1]},{"b":2}]}"#;
        assert_eq!(list(built_in).unwrap(), (meta("t"), vec![r#"{"a":[1]}"#.into(), r#"{"b":2}"#.into()]));
        let custom = r#"{"apiVersion":"x","items":[{}],"kind":"y","metadata":{"continue":"","resourceVersion":"407"}}"#;
        assert_eq!(list(custom).unwrap(), (meta(""), vec!["{}".into()]));
        assert_eq!(list(r#"{"metadata":{"resourceVersion":"407"},"items":null}"#).unwrap(), (meta(""), vec![]));
    }

    #[test]
    fn the_token_of_a_page_cannot_change_the_question() {
        let token = |token: &str| ListMeta { token: token.into(), ..ListMeta::default() }.next_page();
        assert_eq!(token(""), None);
        assert_eq!(token("a&watch=1 b").as_deref(), Some("continue=a%26watch%3D1%20b"));
    }

    #[test]
    fn what_is_no_whole_list_is_an_error() {
        for text in ["", "<html>", "[]", "{}", r#"{"kind":"Status"}"#, r#"{"items":[{}"#, r#"{"items":[]} trailing"#, r#"{"items":{}}"#] {
            assert!(list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_object_without_end_is_not_kept() {
        let endless = r#"{"items":[{"a":""#.as_bytes().chain(io::repeat(b'x'));
        let error = io::Error::from(read_list(endless, |_| Ok(())).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn many_objects_may_together_be_larger() {
        let object = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
        let text = format!("{{\"items\":[{}]}}", [object.as_str(); 12].join(","));
        assert_eq!(list(&text).unwrap().1.len(), 12);
    }

    #[test]
    fn a_status_says_whether_the_position_is_of_use() {
        let expired = |text: &str| serde_json::from_str::<Status>(text).unwrap().expired();
        assert!(expired(r#"{"kind":"Status","reason":"Expired","code":410}"#));
        assert!(expired(r#"{"reason":"Gone"}"#));
        assert!(expired(
            r#"{"reason":"Timeout","code":504,"details":{"causes":[{"reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1}}"#
        ));
        assert!(!expired(r#"{"reason":"Timeout","code":504,"details":{"causes":null}}"#));
        assert!(!expired(r#"{"code":500,"details":null}"#));
    }
}
