//! nf_tables straight from the kernel: iptables-nft's tables and Calico's own → [`Ruleset`]. Rules come chain by chain, for a dump of
//! a whole table takes time that grows with its square; a read is repeated if anything changed meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::expressions::Rule;
use super::netlink::{Attributes, DumpError, Socket, put_string};
use super::xt::string;
use crate::ruleset::{Backend, Builder, Family, Ruleset};

/// Messages of nf_tables.
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_GENERATION: u16 = 16;
/// How often a read is begun again before it is given up.
const TRIES: usize = 20;

/// Which tables to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// iptables-nft's table of this name.
    Iptables(&'static str),
    /// Calico's own table `calico` (≥ 3.29), which holds several of iptables' in one: their names are prefixes of its chains'.
    Calico,
}

impl Tables {
    fn name(self) -> &'static str {
        match self {
            Tables::Iptables(table) => table,
            Tables::Calico => "calico",
        }
    }

    /// The table that a chain belongs to, and its name there, if it is one of Calico's that matter.
    pub(crate) fn place(self, chain: &str) -> Option<(&'static str, &str)> {
        let (table, chain) = match self {
            Tables::Iptables(table) => (table, chain),
            Tables::Calico => {
                let (prefix, chain) = chain.split_once('-')?;
                (["filter", "mangle", "raw"].into_iter().find(|table| *table == prefix)?, chain)
            }
        };
        chain.starts_with("cali-").then_some((table, chain))
    }
}

/// Reads tables of a family: empty if there is none.
///
/// # Errors
/// No rights, no answer in time, or changes without end.
pub fn read(family: Family, tables: Tables, deadline: Instant) -> io::Result<Vec<Ruleset>> {
    let mut socket = Socket::open(deadline)?;
    for _ in 0..TRIES {
        match attempt(&mut socket, family, tables) {
            Ok(rulesets) => return Ok(rulesets),
            Err(DumpError::Io(error)) => return Err(error),
            Err(DumpError::Interrupted) => {}
        }
    }
    Err(io::Error::other("the rules changed during every one of many reads"))
}

fn attempt(socket: &mut Socket, family: Family, tables: Tables) -> Result<Vec<Ruleset>, DumpError> {
    let before = generation(socket)?;
    let chains = chains(socket, family, tables)?;
    let mut builders = BTreeMap::<&str, Builder>::new();
    let backend = if tables == Tables::Calico { Backend::Native } else { Backend::Nft };
    for chain in &chains {
        if let Some((table, name)) = tables.place(chain) {
            builders.entry(table).or_insert_with(|| Builder::new(family, backend, table)).chain(name);
        }
    }
    for chain in &chains {
        let builder = tables.place(chain).and_then(|(table, name)| Some((builders.get_mut(table)?, name)));
        if let Some((builder, name)) = builder {
            rules(socket, family, tables, chain, (builder, name))?;
        }
    }
    match generation(socket)? == before {
        true => Ok(builders.into_values().map(Builder::finish).collect()),
        false => Err(DumpError::Interrupted),
    }
}

fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4 as u8,
        Family::V6 => libc::NFPROTO_IPV6 as u8,
    }
}

/// Changes with every change of any rule.
fn generation(socket: &mut Socket) -> Result<Vec<u8>, DumpError> {
    let mut generation = Vec::new();
    socket.get(GET_GENERATION, 0, &mut |attributes| generation.extend(Attributes(attributes).get(1).unwrap_or_default()))?;
    Ok(generation)
}

/// The names of a table's chains. The kernel lists those of all tables.
fn chains(socket: &mut Socket, family: Family, tables: Tables) -> Result<Vec<String>, DumpError> {
    let mut chains = Vec::new();
    socket.dump(GET_CHAIN, protocol(family), &[], &mut |attributes| {
        let attributes = Attributes(attributes);
        let (Some(table), Some(name)) = (attributes.get(1), attributes.get(3)) else { return };
        if string(table) == tables.name().as_bytes() {
            chains.extend(std::str::from_utf8(string(name)).map(str::to_owned));
        }
    })?;
    Ok(chains)
}

fn rules(socket: &mut Socket, family: Family, tables: Tables, chain: &str, (builder, name): (&mut Builder, &str)) -> Result<(), DumpError> {
    let mut wanted = Vec::new();
    put_string(&mut wanted, 1, tables.name());
    put_string(&mut wanted, 2, chain);
    let id = builder.chain(name);
    let find = |builder: &mut Builder, chain: &str| tables.place(chain).map(|(_, name)| builder.chain(name));
    socket.dump(GET_RULE, protocol(family), &wanted, &mut |attributes| {
        let attributes = Attributes(attributes);
        let mut rule = Rule::new(builder, &find);
        rule.user_data(attributes.get(7).unwrap_or_default());
        let well_formed = attributes.get(4).is_none_or(|list| rule.expressions(list).is_some());
        let (parts, verdict) = (rule.parts, rule.verdict);
        match well_formed {
            true => builder.push(id, &parts, verdict),
            false => builder.unreadable(),
        }
    })
}
