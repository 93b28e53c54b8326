//! What `nft -j list ruleset`, or `list table`, says of Calico's own nftables tables → [`Snapshot`]. Pure: bytes in; the same rules as
//! [`kernel::nft`](crate::kernel::nft) reads. What cannot be taken apart is counted, never fatal.

mod rule;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::kernel::nft::Tables;
use crate::ruleset::{Backend, Builder, Family, Snapshot};

#[derive(Debug)]
pub enum JsonError {
    Malformed(serde_json::Error),
    /// Calico's rules are those of iptables-nft, whose matches are not in there.
    Iptables,
    NoCounters,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Malformed(error) => write!(f, "not what nft -j prints: {error}"),
            JsonError::NoCounters => {
                f.write_str("its rules were saved without their counters; use nft -j list ruleset (without -s)")
            }
            JsonError::Iptables => f.write_str(
                "Calico's rules are in iptables-nft's tables, of which nft shows no matches; save them by iptables-save -c and ip6tables-save -c",
            ),
        }
    }
}

impl std::error::Error for JsonError {}

/// The tables in a text, one for each family and prefix of chain names; none if none of them is Calico's.
pub fn parse(json: &[u8]) -> Result<Vec<Snapshot>, JsonError> {
    let mut tables = Collector::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Document(&mut tables).deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(JsonError::Malformed)?;
    match tables.builders.is_empty() && tables.has_iptables {
        true => Err(JsonError::Iptables),
        false if tables.has_no_counters => Err(JsonError::NoCounters),
        false => Ok(tables.builders.into_values().map(Builder::finish).collect()),
    }
}

/// Builders by family and table, filled object by object: a ruleset with its sets can be a hundred times as large as its rules.
#[derive(Default)]
struct Collector {
    builders: BTreeMap<(Family, &'static str), Builder>,
    has_iptables: bool,
    has_no_counters: bool,
}

impl Collector {
    fn object(&mut self, kind: &str, object: &Value) {
        let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let family = match text("family") {
            "ip" => Family::V4,
            "ip6" => Family::V6,
            _ => return,
        };
        let chain = text(if kind == "chain" { "name" } else { "chain" });
        if text("table") != "calico" {
            self.has_iptables |= chain.starts_with("cali-");
            return;
        }
        let Some((table, name)) = Tables::Calico.place(chain) else { return };
        let builder = self.builders.entry((family, table)).or_insert_with(|| Builder::new(family, Backend::Native, table));
        let id = builder.chain(name);
        if kind == "chain" {
            builder.chain_handle(id, object.get("handle").and_then(Value::as_u64).unwrap_or(0));
        } else {
            self.has_no_counters |= rule::is_stateless(object);
            match rule::read(object, builder) {
                Some((parts, verdict)) => builder.push(id, &parts, verdict),
                None => builder.push_unreadable(id, None),
            }
        }
    }
}

/// `{"nftables": [ … ]}`
struct Document<'a>(&'a mut Collector);

/// `[ {"metainfo": …}, {"table": …}, … ]`
struct Objects<'a>(&'a mut Collector);

/// `{"rule": …}`; what is neither chain nor rule is passed over without being kept.
struct Object<'a>(&'a mut Collector);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with \"nftables\" in it")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "nftables" => map.next_value_seed(Objects(&mut *self.0))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
            found |= key == "nftables";
        }
        if found { Ok(()) } else { Err(A::Error::custom("there is no \"nftables\" in it")) }
    }
}

impl<'de> DeserializeSeed<'de> for Objects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of tables, chains and rules")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        while objects.next_element_seed(Object(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a table, chain or rule")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(kind) = map.next_key::<String>()? {
            match kind.as_str() {
                "chain" | "rule" => self.0.object(&kind, &map.next_value()?),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ruleset_is_said_so() {
        for (text, expected) in [
            ("", "not what nft -j prints: EOF"),
            ("{}", "not what nft -j prints: there is no \"nftables\" in it"),
            (r#"{"nftables": 1}"#, "not what nft -j prints: invalid type: integer `1`, expected a list of tables, chains and rules"),
            (r#"{"nftables": [{"rule": {}}]"#, "not what nft -j prints: EOF"),
            (
                r#"{"nftables": [{"chain": {"family": "ip", "table": "filter", "name": "cali-INPUT"}}]}"#,
                "Calico's rules are in iptables-nft's tables",
            ),
            (
                r#"{"nftables": [{"rule": {"family": "ip", "table": "calico", "chain": "filter-cali-pi-x", "expr": [{"counter": null}]}}]}"#,
                "its rules were saved without their counters; use nft -j list ruleset (without -s)",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(parse(br#"{"nftables": [{"rule": {"family": "inet", "table": "x"}}, {"set": {"elem": []}}]}"#).unwrap().is_empty());
    }

    #[test]
    fn rules_whose_parts_are_no_parts_are_counted() {
        let rule = |expr: &str| {
            let text = format!(
                r#"{{"nftables": [{{"rule": {{"family": "ip6", "table": "calico", "chain": "filter-cali-pi-x", "expr": {expr}}}}}]}}"#
            );
            let tables = parse(text.as_bytes()).unwrap();
            (tables[0].ruleset.rule_count(), tables[0].ruleset.unreadable)
        };
        assert_eq!(rule(r#"[{"counter": {"packets": 1, "bytes": 1}}, {"drop": null}]"#), (1, 0));
        for expr in ["null", "7", r#"[7]"#, r#"[{"counter": {"packets": -1}}]"#, r#"[{"jump": {}}]"#, r#"[{"match": {"op": "=="}}]"#] {
            assert_eq!(rule(expr), (1, 1), "{expr}");
        }
    }
}
