//! Requests to and answers from the JSON gateway, as typed structs that borrow from the received bytes. Pure.

use std::borrow::Cow;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::json;
use serde_json::value::{RawValue, Value};

use crate::datastore::bounds::{LONGEST_KEY, at_most};

/// The maximum number of keys in one answer. It is larger than any requested page.
const MOST_KEYS: usize = 20_000;
/// The maximum number of events in one frame: of the thousand revisions that etcd sends together, with 128 changes each.
const MOST_EVENTS: usize = 128_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub from: Vec<u8>,
    pub end: Vec<u8>,
}

impl Span {
    pub fn prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Span { from: prefix.as_bytes().to_vec(), end }
    }
}

/// Returns the request to `kv/range` for keys as of `revision` (0: now), at most `limit` of them (0: all).
pub fn range_of_keys(span: &Span, limit: u32, revision: i64) -> Value {
    json!({ "key": base64(&span.from), "range_end": base64(&span.end), "limit": limit, "revision": revision, "keys_only": true })
}

/// Returns the request for one key and its value.
pub fn range_of_one(key: &str, revision: i64) -> Value {
    json!({ "key": base64(key), "limit": 1, "revision": revision, "keys_only": false })
}

/// Returns the request to `watch` for all events from a revision on. With `progress_notify`, etcd sends an empty frame now and then, which
/// says up to which revision nothing happened.
pub fn watch_of(span: &Span, revision: i64) -> Value {
    let range = json!({ "key": base64(&span.from), "range_end": base64(&span.end), "start_revision": revision, "progress_notify": true });
    json!({ "create_request": range })
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

#[derive(Deserialize)]
pub struct AuthenticateResponse {
    /// The value of the `Authorization` header, unchanged.
    pub token: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// The same for all members of a cluster as long as it lives.
    #[serde(default, deserialize_with = "number")]
    pub cluster_id: u64,
    /// The revision of the store, or 0 in some cancellations.
    #[serde(default, deserialize_with = "number")]
    pub revision: i64,
}

/// A key, and its value if it was requested. The gateway omits zero and empty fields.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyValue<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(deserialize_with = "number")]
    pub mod_revision: i64,
}

impl KeyValue<'_> {
    /// Returns the key, or `None` if it is not text or is longer than any of Calico's can be.
    pub fn key(&self) -> Option<String> {
        let key = String::from_utf8(self.raw_key()?).ok()?;
        (key.len() <= LONGEST_KEY).then_some(key)
    }

    pub fn raw_key(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.key.as_bytes()).ok()
    }

    pub fn value(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.value.as_bytes()).ok()
    }
}

#[derive(Deserialize)]
pub struct RangeResponse<'a> {
    #[serde(default)]
    pub header: Header,
    #[serde(borrow, default, deserialize_with = "at_most::<_, _, MOST_KEYS>")]
    pub kvs: Vec<KeyValue<'a>>,
    #[serde(default)]
    pub more: bool,
    /// The number of keys without the limit.
    #[serde(default, deserialize_with = "number")]
    pub count: u64,
}

#[derive(Deserialize)]
pub struct WatchFrame<'a> {
    #[serde(borrow, default)]
    pub result: Option<WatchResult<'a>>,
    /// The end of the stream: the server is stopping, or lost its leader.
    #[serde(borrow, default)]
    pub error: Option<ErrorBody<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct WatchResult<'a> {
    pub header: Header,
    /// The watch exists now. Its history follows.
    pub created: bool,
    /// The watch does not exist any more, though the stream stays open.
    pub canceled: bool,
    /// The watch was cancelled because the history before this revision is gone.
    #[serde(deserialize_with = "number")]
    pub compact_revision: i64,
    #[serde(borrow)]
    pub cancel_reason: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "at_most::<_, _, MOST_EVENTS>")]
    pub events: Vec<Event<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    /// The key. There is no value after a deletion.
    #[serde(borrow)]
    pub kv: KeyValue<'a>,
}

impl Event<'_> {
    pub fn deleted(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// The body of an answer other than 200, and the error in a stream. The field names differ by release.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ErrorBody<'a> {
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    code: u32,
    grpc_code: u32,
}

impl ErrorBody<'_> {
    /// Returns the message (etcd 3.6 has no `error`, etcd 3.3 no `message`).
    pub fn text(&self) -> &str {
        self.message.as_deref().or(self.error.as_deref()).unwrap_or_default()
    }

    pub fn code(&self) -> u32 {
        if self.code != 0 { self.code } else { self.grpc_code }
    }
}

/// Deserializes a 64-bit number. It is a string in the gateway's JSON, but a JSON number is accepted too.
fn number<'de, D: Deserializer<'de>, N: FromStr>(deserializer: D) -> Result<N, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    text.trim_matches('"').parse().map_err(|_| D::Error::custom("not a 64-bit number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_prefix_with_its_last_byte_raised() {
        let watch = watch_of(&Span::prefix("/calico/"), 7).to_string();
        let expected = r#"{"create_request":{"key":"L2NhbGljby8=","progress_notify":true,"range_end":"L2NhbGljbzA=","start_revision":7}}"#;
        assert_eq!(watch, expected);
        assert_eq!(range_of_one("a", 7).to_string(), r#"{"key":"YQ==","keys_only":false,"limit":1,"revision":7}"#);
    }

    #[test]
    fn a_range_borrows_and_takes_numbers_as_strings() {
        let body = br#"{"header":{"cluster_id":"18446744073709551615","revision":"6"},
            "kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"5","version":"1","value":"e30="}],"more":true,"count":"5"}"#;
        let response: RangeResponse = serde_json::from_slice(body).unwrap();
        assert_eq!(response.header, Header { cluster_id: u64::MAX, revision: 6 });
        assert!(response.more);
        let kv = &response.kvs[0];
        assert!(matches!(kv.key, Cow::Borrowed(_)));
        assert_eq!((kv.key().as_deref(), kv.value().as_deref(), kv.mod_revision), (Some("a"), Some(&b"{}"[..]), 5));
    }

    #[test]
    fn an_empty_range_has_no_fields() {
        let response: RangeResponse = serde_json::from_slice(br#"{"header":{"revision":1}}"#).unwrap();
        assert!(response.kvs.is_empty() && !response.more);
        assert_eq!(response.header.revision, 1);
    }

    #[test]
    fn errors_of_every_release_are_read() {
        let read = |body| serde_json::from_str::<ErrorBody>(body).unwrap();
        let v34 = read(r#"{"error":"M","message":"M","code":11}"#);
        let v33 = read(r#"{"error":"M","code":11}"#);
        let v36 = read(r#"{"code": 11, "message": "M"}"#);
        let stream = read(r#"{"grpc_code":11,"http_code":503,"message":"M","http_status":"Service Unavailable"}"#);
        for error in [v34, v33, v36, stream] {
            assert_eq!((error.text(), error.code()), ("M", 11));
        }
    }
}
