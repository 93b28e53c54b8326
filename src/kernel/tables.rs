//! Which nf_tables tables are read, and which of their chains are relevant. Pure.

use crate::felix::names::CHAIN_PREFIX;
use crate::ruleset::Backend;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tables {
    Iptables(&'static str),
    /// Calico's own table `calico` (≥ 3.29), which holds several iptables tables. Their names are prefixes of its chains' names.
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

    /// Returns a chain's table and its name there, or `None` if it is not one of Calico's relevant chains.
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
