//! Limits on what is kept or repeated of outside input: texts are cut, sequences are counted. Pure.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// The longest name, label or list of addresses that is kept, in bytes. Kubernetes allows 253. In etcd Calico's own may be longer.
pub const LONGEST_TEXT: usize = 512;
/// The longest key of an object, in bytes. etcd's keys contain the names of a node and a workload with their hyphens doubled.
pub const LONGEST_KEY: usize = 2048;
pub const LONGEST_REASON: usize = 300;

/// Returns `text`, or its beginning with an ellipsis in at most `longest` bytes.
pub fn cut(text: &str, longest: usize) -> Cow<'_, str> {
    const ELLIPSIS: char = '…';
    if text.len() <= longest {
        return text.into();
    }
    let kept = &text[..text.floor_char_boundary(longest.saturating_sub(ELLIPSIS.len_utf8()))];
    let mut short = String::with_capacity(kept.len() + ELLIPSIS.len_utf8());
    short.extend([kept, "…"]);
    short.into()
}

/// Returns the first line of a foreign text, safe to repeat within a line of our own.
pub fn one_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    cut(line, LONGEST_REASON).chars().filter(|c| !c.is_control()).collect()
}

/// Deserializes a sequence of at most `MOST` elements. For `deserialize_with`.
pub fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut elements = Vec::new();
    let take = |element| {
        let has_room = elements.len() < MOST;
        has_room.then(|| elements.push(element)).ok_or_else(|| format!("more than {MOST} elements"))
    };
    Each::new(take, |f| write!(f, "at most {MOST} elements")).deserialize(deserializer)?;
    Ok(elements)
}

/// Passes the elements of a sequence to `take`, one after the other. An empty sequence may be null, as Go writes it.
pub struct Each<T, F> {
    take: F,
    expecting: fn(&mut fmt::Formatter<'_>) -> fmt::Result,
    element: PhantomData<fn(T)>,
}

impl<T, E, F: FnMut(T) -> Result<(), E>> Each<T, F> {
    pub fn new(take: F, expecting: fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> Self {
        Each { take, expecting, element: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>, E: fmt::Display, F: FnMut(T) -> Result<(), E>> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, E: fmt::Display, F: FnMut(T) -> Result<(), E>> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.expecting)(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(element) = sequence.next_element()? {
            (self.take)(element).map_err(A::Error::custom)?;
        }
        Ok(())
    }

    fn visit_unit<U: Error>(self) -> Result<(), U> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "lo…");
        assert_eq!(cut("éééé", 7), "éé…");
        assert_eq!(cut("longer", 0), "…");
        assert_eq!(one_line(" \u{1b}[31mfirst\r\nsecond\n"), "[31mfirst");
        assert_eq!(one_line(&"é".repeat(1000)).len(), 299);
    }

    #[test]
    fn sequences_end_at_their_limit() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Two<'a>(#[serde(borrow, deserialize_with = "at_most::<_, _, 2>")] Vec<&'a str>);
        let read = |text: &'static str| serde_json::from_str::<Two<'_>>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"["a","b"]"#), Ok(Two(vec!["a", "b"])));
        assert_eq!(read("null"), Ok(Two(vec![])));
        assert!(read(r#"["a","b","c"]"#).unwrap_err().starts_with("more than 2 elements"));
        assert!(read("7").unwrap_err().contains("expected at most 2 elements"));
    }
}
