//! Which tables of nf_tables are read, and what belongs to them. Pure.

use crate::felix::names::CHAIN_PREFIX;
use crate::ruleset::Backend;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tables {
    Iptables(&'static str),
    /// Calico's own table `calico` (≥ 3.29), which holds several of iptables' in one: their names are prefixes of its chains'.
    Calico,
}

impl Tables {
    pub fn name(self) -> &'static str {
        match self {
            Tables::Iptables(table) => table,
            Tables::Calico => "calico",
        }
    }

    pub fn backend(self) -> Backend {
        match self {
            Tables::Iptables(_) => Backend::Nft,
            Tables::Calico => Backend::Native,
        }
    }

    /// The table that a chain belongs to, and its name there, if it is one of Calico's that matter.
    pub fn place(self, chain: &str) -> Option<(&'static str, &str)> {
        let (table, chain) = match self {
            Tables::Iptables(table) => (table, chain),
            Tables::Calico => {
                let (prefix, chain) = chain.split_once('-')?;
                (["filter", "mangle", "raw"].into_iter().find(|table| *table == prefix)?, chain)
            }
        };
        chain.starts_with(CHAIN_PREFIX).then_some((table, chain))
    }
}
