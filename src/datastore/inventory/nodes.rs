//! The names of nodes in the datastore. They are requested if the datastore knows no workload of this node though there are rules for some.
//! Felix stores workloads under its name of the node, which may be a short name, a full one, or contain capitals.

use std::fmt::Write;
use std::sync::OnceLock;

use crate::datastore::bounds::{LONGEST_TEXT, cut};

/// The maximum number of names in one message.
const MOST: usize = 3;

#[derive(Debug, Default)]
pub struct Nodes {
    wanted: OnceLock<()>,
    stored: OnceLock<Vec<String>>,
}

impl Nodes {
    pub fn want(&self) {
        _ = self.wanted.set(());
    }

    pub fn wait_until_wanted(&self) {
        self.wanted.wait();
    }

    /// Stores the names of nodes that could be read, in any order. Only the first call has an effect.
    pub fn answer(&self, mut names: Vec<String>) {
        names.iter_mut().filter(|name| name.len() > LONGEST_TEXT).for_each(|name| *name = cut(name, LONGEST_TEXT).into_owned());
        names.sort_unstable();
        names.dedup();
        _ = self.stored.set(names);
    }

    pub fn stored(&self) -> Option<&Vec<String>> {
        self.stored.get()
    }

    /// Explains in one line why no workload with rules has a name.
    pub fn problem(&self, node: &str) -> String {
        let stored = self.stored().map_or(&[][..], Vec::as_slice);
        let mut text = format!("the datastore knows none of the workloads that have rules here under the node name {node:?}");
        let (similar, others): (Vec<&String>, Vec<&String>) =
            stored.iter().filter(|name| **name != node).partition(|name| is_similar(name, node));
        let is_similar = !similar.is_empty();
        let named = if is_similar { similar } else { others };
        if !named.is_empty() {
            let list: Vec<String> = named.iter().take(MOST).map(|name| format!("{name:?}")).collect();
            _ = write!(text, "; it has {}{}", if is_similar { "the similar name " } else { "" }, list.join(", "));
            if named.len() > MOST {
                _ = write!(text, " and {} more", named.len() - MOST);
            }
        }
        text + ": set NODENAME to the name that Calico uses"
    }
}

/// Reports whether both may mean the same node: they differ only in case, or one of them lacks the domain.
pub fn is_similar(one: &str, other: &str) -> bool {
    let host = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    host(one) == host(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_differ_in_case_or_domain() {
        for (one, other) in [("worker-02", "worker-02.mydomain.com"), ("Worker-02", "worker-02"), ("WORKER-02.a", "worker-02.b.c")] {
            assert!(is_similar(one, other) && is_similar(other, one), "{one} {other}");
        }
        assert!(!is_similar("worker-02", "worker-020") && !is_similar("worker-02", "worker-01.mydomain.com"));
    }

    #[test]
    fn a_few_names_are_shown_the_similar_ones_only_if_there_are_some() {
        for (node, stored, expected) in [
            ("worker-02", &["a", "worker-02.mydomain.com"][..], "\"worker-02\"; it has the similar name \"worker-02.mydomain.com\": set"),
            ("n", &["a", "b", "c", "d", "e"], "\"n\"; it has \"a\", \"b\", \"c\" and 2 more: set"),
            ("n", &["n"], "under the node name \"n\": set NODENAME to the name that Calico uses"),
        ] {
            let nodes = Nodes::default();
            nodes.answer(stored.iter().map(|name| (*name).to_owned()).collect());
            assert!(nodes.problem(node).contains(expected), "{}", nodes.problem(node));
        }
    }
}
