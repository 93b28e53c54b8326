//! Compares the read of one back end with what the node and the datastore know → a [`Finding`]. Touches `/sys/class/net` and the routes in
//! `/proc/net`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use super::Reading;
use super::selection::Finding;
use crate::datastore::inventory::{Interface, Inventory};
use crate::datastore::podlogs::routes;
use crate::felix::{PolicyName, names};
use crate::ruleset::{Backend, Chain, Ruleset};

/// The workloads that exist according to sources other than Calico's rules.
pub struct Expected {
    inventory: Option<Arc<Inventory>>,
    interfaces: BTreeSet<String>,
}

impl Expected {
    /// Collects the datastore's workloads, the node's interfaces, and its routes to single addresses.
    pub fn here(inventory: Option<Arc<Inventory>>, proc: &Path) -> Self {
        let mut interfaces: BTreeSet<String> = routes::of_interfaces(proc, &|_| true).into_keys().collect();
        let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten();
        interfaces.extend(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()));
        Expected { inventory, interfaces }
    }

    fn knows(&self, interface: &str) -> bool {
        self.interfaces.contains(interface) || self.inventory.as_ref().is_some_and(|inventory| inventory.workload(interface).is_some())
    }

    pub fn missing(&self, endpoints: &BTreeSet<String>) -> usize {
        let prefixes: BTreeSet<&str> =
            endpoints.iter().filter_map(|name| Interface::split(name)).map(|(prefix, _)| prefix).chain(["cali"]).collect();
        let is_workload = |name: &&String| Interface::split(name).is_some_and(|(prefix, _)| prefixes.contains(prefix));
        let here = self.interfaces.iter().filter(is_workload).filter(|name| !endpoints.contains(*name)).count();
        let stored = self.inventory.as_ref().map_or(0, |inventory| inventory.without_rules(endpoints.iter().map(String::as_str)));
        here + stored
    }
}

/// Returns the chains that have rules. A flush (`iptables -F`) leaves empty chains.
pub fn chains(reading: &Reading) -> impl Iterator<Item = &Chain> {
    reading.tables.iter().flat_map(|table| table.ruleset.chains()).filter(|chain| !chain.rules.is_empty())
}

pub fn endpoints(reading: &Reading) -> BTreeSet<String> {
    chains(reading).filter_map(|chain| names::interface_in(&chain.name)).map(str::to_owned).collect()
}

/// Reports whether Calico's static chains are those of a dataplane with tables.
pub fn is_of_tables(reading: &Reading) -> bool {
    chains(reading).any(|chain| &*chain.name == names::FORWARD)
}

pub fn finding(backend: Backend, reading: &Reading, expected: &Expected, hooked: Option<bool>) -> Finding {
    let endpoints = endpoints(reading);
    let known = endpoints.iter().filter(|interface| expected.knows(interface)).count();
    let (mut hasher, mut packets, mut count) = (DefaultHasher::new(), 0u64, 0);
    for table in &reading.tables {
        for chain in table.ruleset.chains().iter().filter(|chain| !chain.rules.is_empty()) {
            count += 1;
            (&chain.name, chain.rules.len()).hash(&mut hasher);
            chain.rule_ids().for_each(|rule| table.ruleset.hash(rule).hash(&mut hasher));
            if names::interface_in(&chain.name).is_some() {
                packets = table.counts_of(chain).iter().fold(packets, |sum, count| sum.wrapping_add(count.packets));
            }
        }
    }
    let format = reading.tables.iter().map(|table| format(&table.ruleset)).max().unwrap_or(0);
    Finding { backend, chains: count, endpoints, known, hooked, format, rules: hasher.finish(), packets }
}

/// Returns the format of the comments. Later releases add the policies' names (≥ 3.22), tiers (≥ 3.29), and the policies' kinds (≥ 3.32).
fn format(ruleset: &Ruleset) -> u8 {
    // In Calico's own tables, all comments of a rule are joined into one.
    let name = |comment: &str| PolicyName::from_comment(comment).or_else(|| PolicyName::from_end_of_comment(comment));
    let of = |comment: &str| match name(comment) {
        Some(name) if &*name.kind == "Profile" => 0,
        Some(name) => 1 + 2 * u8::from(&*name.kind != "Policy"),
        None => 2 * u8::from(comment.starts_with("Start of tier ")),
    };
    let least = if ruleset.backend == Backend::Native { 2 } else { 0 };
    ruleset.comments().iter().map(|comment| of(comment)).max().unwrap_or(0).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::inventory::Workload;
    use crate::iptables::text::Parser;
    use crate::ruleset::Family;

    fn reading(rules: &[&str]) -> Reading {
        let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
        let chains: BTreeSet<&str> = rules.iter().map(|rule| rule.split(' ').next().unwrap()).collect();
        let declared: String = chains.iter().map(|chain| format!(":{chain} - [0:0]\n")).collect();
        let rules: String = rules.iter().map(|rule| format!("[3:9] -A {rule} -j ACCEPT\n")).collect();
        parser.push(format!("*filter\n:cali-tw-caliempty - [0:0]\n{declared}{rules}COMMIT\n").as_bytes());
        Reading { tables: vec![parser.finish().unwrap()], ..Reading::default() }
    }

    fn expected(inventory: Option<&Arc<Inventory>>, interfaces: &[&str]) -> Expected {
        Expected { inventory: inventory.cloned(), interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn chains_of_both_kinds_of_endpoints_count_and_empty_ones_do_not() {
        let reading = reading(&["cali-tw-cali751425ce827", "cali-fh-eth0", "cali-thfw-eth0", "cali-FORWARD"]);
        let finding = finding(Backend::Legacy, &reading, &expected(None, &["eth0"]), None);
        assert_eq!(finding.endpoints, ["cali751425ce827", "eth0"].map(str::to_owned).into());
        assert_eq!((finding.chains, finding.known, finding.packets), (4, 1, 9));
    }

    #[test]
    fn a_workload_without_chains_is_missing() {
        let inventory = Arc::new(Inventory::new());
        let on = |interface: &str| Workload { interface: Interface::Name(interface.into()), ..Workload::default() };
        inventory.put("a", on("tap1")).unwrap();
        inventory.put("b", on("tap2")).unwrap();
        let endpoints = BTreeSet::from(["tap1".to_owned(), "eni751425ce827".to_owned()]);
        let here = ["eth0", "lo", "eni751425ce827", "eni00000000001", "cali00000000002", "docker00000000003"];
        assert_eq!(expected(Some(&inventory), &[]).missing(&endpoints), 1);
        assert_eq!(expected(None, &here).missing(&endpoints), 2);
        assert_eq!(expected(None, &["eth0", "tap1", "cali-éééééé"]).missing(&endpoints), 0);
    }

    #[test]
    fn later_releases_say_more() {
        let rule = |comment: &str| format!("cali-pi-x -m comment --comment \"cali:aaaaaaaaaaaaaaaa\" -m comment --comment \"{comment}\"");
        let comments = ["Start of policies", "Policy shop/default.web ingress", "Start of tier default", "GlobalNetworkPolicy web egress"];
        for (format, comment) in comments.iter().enumerate() {
            assert_eq!(usize::from(super::format(&reading(&[&rule(comment)]).tables[0].ruleset)), format, "{comment}");
        }
        assert_eq!(super::format(&reading(&[&rule("Profile kns.shop ingress")]).tables[0].ruleset), 0);
    }

    #[test]
    fn the_rules_are_others_when_a_hash_is() {
        let of = |hash: &str| {
            let rule = format!("cali-tw-cali1 -m comment --comment \"cali:{hash}\"");
            finding(Backend::Legacy, &reading(&[&rule]), &expected(None, &[]), None).rules
        };
        assert_eq!(of("aaaaaaaaaaaaaaaa"), of("aaaaaaaaaaaaaaaa"));
        assert_ne!(of("aaaaaaaaaaaaaaaa"), of("aaaaaaaaaaaaaaab"));
    }
}
