//! Calico's own nftables tables, as `nft -j list ruleset` or `list table` prints them → [`Snapshot`]. For output without `-j`, see
//! [`text`]. Pure: gets bytes, gives the same rules as [`kernel::nft`](crate::kernel::nft). A rule that cannot be parsed is counted, never
//! fatal.

mod rule;
pub mod text;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::felix::names::CHAIN_PREFIX;
use crate::kernel::nft::Tables;
use crate::ruleset::{Backend, Builder, ChainId, Family, Snapshot};

/// The message for tables that are not Calico's own.
pub const ELSEWHERE: &str = "Calico's rules are in iptables-nft's tables, of which nft shows no matches; save them by iptables-save -c and \
                             ip6tables-save -c";
const NO_COUNTERS: &str = "its rules were saved without their counters; use nft list ruleset without -s";

/// Returns the tables in a text, one for each family and prefix of chain names. Empty if none of them is Calico's.
pub fn parse(json: &[u8]) -> Result<Vec<Snapshot>, String> {
    let mut tables = Collector::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let document = Seed { kind: Kind::Document, tables: &mut tables };
    let read = document.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| format!("not what nft -j prints: {error}"))?;
    tables.finish()
}

/// Builders by family and table, filled object by object, because a ruleset with its sets can be a hundred times as large as its rules.
#[derive(Default)]
struct Collector {
    builders: BTreeMap<(Family, &'static str), Builder>,
    has_iptables: bool,
    has_no_counters: bool,
}

impl Collector {
    /// Returns the builder and ID of a chain, or `None` if it is not one of Calico's relevant chains.
    fn chain(&mut self, family: &str, table: &str, chain: &str) -> Option<(&mut Builder, ChainId)> {
        let family = match family {
            "ip" => Family::V4,
            "ip6" => Family::V6,
            _ => return None,
        };
        if table != "calico" {
            self.has_iptables |= chain.starts_with(CHAIN_PREFIX);
            return None;
        }
        let (table, name) = Tables::Calico.place(chain)?;
        let builder = self.builders.entry((family, table)).or_insert_with(|| Builder::new(family, Backend::Native, table));
        let id = builder.chain(name);
        Some((builder, id))
    }

    fn finish(self) -> Result<Vec<Snapshot>, String> {
        if self.builders.is_empty() && self.has_iptables {
            return Err(ELSEWHERE.into());
        }
        if self.has_no_counters {
            return Err(NO_COUNTERS.into());
        }
        Ok(self.builders.into_values().map(Builder::finish).collect())
    }

    fn object(&mut self, kind: &str, object: &Value) {
        let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text(if kind == "chain" { "name" } else { "chain" });
        self.has_no_counters |= kind == "rule" && text("table") == "calico" && rule::is_stateless(object);
        let Some((builder, id)) = self.chain(text("family"), text("table"), name) else { return };
        if kind == "chain" {
            builder.chain_handle(id, object.get("handle").and_then(Value::as_u64).unwrap_or(0));
        } else {
            match rule::read(object, builder) {
                Some((parts, verdict)) => builder.push(id, &parts, verdict),
                None => builder.push_unreadable(id, None),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `{"nftables": [ … ]}`
    Document,
    /// `[ {"metainfo": …}, {"table": …}, … ]`
    Objects,
    /// `{"rule": …}`. Objects other than chains and rules are skipped without being stored.
    Object,
}

struct Seed<'a> {
    kind: Kind,
    tables: &'a mut Collector,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kind {
            Kind::Objects => deserializer.deserialize_seq(self),
            Kind::Document | Kind::Object => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Document => "an object with \"nftables\" in it",
            Kind::Objects => "a list of tables, chains and rules",
            Kind::Object => "a table, chain or rule",
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_complete = self.kind == Kind::Object;
        while let Some(key) = map.next_key::<String>()? {
            match (self.kind, key.as_str()) {
                (Kind::Document, "nftables") => {
                    map.next_value_seed(Seed { kind: Kind::Objects, tables: &mut *self.tables })?;
                    is_complete = true;
                }
                (Kind::Object, "chain" | "rule") => self.tables.object(&key, &map.next_value()?),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if is_complete { Ok(()) } else { Err(A::Error::custom("there is no \"nftables\" in it")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        while objects.next_element_seed(Seed { kind: Kind::Object, tables: &mut *self.tables })?.is_some() {}
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
                "its rules were saved without their counters; use nft list ruleset without -s",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
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
