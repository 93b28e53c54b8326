//! nf_tables straight from the kernel: iptables-nft's tables and Calico's own → a [`Snapshot`] a table. Rules come chain by chain, for a
//! dump of a whole table takes time that grows with its square.
//!
//! The kernel never changes a rule, it only puts another in its place, with a handle that it never gives again. So a chain whose
//! rules have the handles that they had at the last read has the same rules, and all that is new about it is its counters. This
//! holds whatever else was written meanwhile, by kube-proxy for example; and if it holds for all chains, then the table was as it
//! is now from the last read on, so that there is no instant at which it could have been seen half changed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::expressions::{Rule, counter};
use super::netlink::{Attributes, Dump, DumpError, Socket, put_string};
use super::xt::{be64, string};
use crate::ruleset::{Backend, Builder, ChainId, Family, Ruleset, Snapshot};

/// Messages of nf_tables.
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_GENERATION: u16 = 16;

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

    fn backend(self) -> Backend {
        match self {
            Tables::Iptables(_) => Backend::Nft,
            Tables::Calico => Backend::Native,
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

/// Reads the same tables of a family again and again.
#[derive(Debug)]
pub struct Reader {
    family: Family,
    tables: Tables,
    known: Known,
}

/// What the last read found.
#[derive(Debug, Default)]
struct Known {
    /// The handle of the nf_tables table: another one holds other chains and rules under the same handles.
    table: Option<u64>,
    /// In the order in which the kernel lists them.
    chains: Vec<Chain>,
    rulesets: Vec<Arc<Ruleset>>,
}

/// A chain as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    name: String,
    handle: Option<u64>,
}

/// A chain that was read.
#[derive(Debug)]
struct Chain {
    listed: Listed,
    /// The handles of its rules; `None` if it holds one that could not be taken apart.
    rules: Option<Vec<u64>>,
    /// Which of the rulesets it is in, and where.
    place: (usize, ChainId),
}

impl Known {
    /// The same chain at the last read, if its rules can be known again.
    fn chain(&self, place: Option<usize>, listed: &Listed) -> Option<(&Chain, &[u64])> {
        let chain = self.chains.get(place?).filter(|chain| chain.listed == *listed && listed.handle.is_some())?;
        Some((chain, chain.rules.as_deref()?))
    }
}

impl Reader {
    /// A reader of these tables.
    pub fn new(family: Family, tables: Tables) -> Self {
        Reader { family, tables, known: Known::default() }
    }

    /// Reads the tables: empty if there is none.
    ///
    /// # Errors
    /// No rights, no answer in time, or changes without end.
    pub fn read(&mut self, deadline: Instant) -> io::Result<Vec<Snapshot>> {
        loop {
            let mut socket = Socket::open(deadline)?;
            match self.attempt(&mut socket) {
                Ok(Some(snapshots)) => return Ok(snapshots),
                Err(DumpError::Io(error)) => return Err(error),
                Ok(None) | Err(DumpError::Again | DumpError::Gone) => {}
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the rules changed during every one of many reads"));
            }
        }
    }

    /// Reads once; `None` if what was read may never have been there at one instant.
    fn attempt(&mut self, socket: &mut Socket) -> Result<Option<Vec<Snapshot>>, DumpError> {
        let before = generation(socket)?;
        let table = match self.table(socket) {
            Err(DumpError::Gone) => {
                self.known = Known::default();
                return Ok(Some(Vec::new()));
            }
            table => table?,
        };
        if table.is_none() || table != self.known.table {
            self.known = Known { table, ..Known::default() };
        }
        let listed = self.chains(socket)?;
        let places: HashMap<&str, usize> = self.known.chains.iter().enumerate().map(|(i, chain)| (&*chain.listed.name, i)).collect();
        let places: Vec<Option<usize>> = listed.iter().map(|chain| places.get(&*chain.name).copied()).collect();
        let mut counts = Vec::with_capacity(listed.len());
        for (listed, place) in listed.iter().zip(&places) {
            counts.push(match self.known.chain(*place, listed) {
                Some((_, rules)) => self.count(socket, &listed.name, rules)?,
                None => None,
            });
        }
        let same_chains = listed.len() == self.known.chains.len() && places.iter().enumerate().all(|(i, place)| *place == Some(i));
        if let Some(counts) = counts.iter().map(Option::as_ref).collect::<Option<Vec<_>>>().filter(|_| same_chains) {
            return Ok(Some(self.same_rules(&counts)));
        }
        let counts: Vec<_> = places.into_iter().zip(counts).collect();
        let snapshots = self.other_rules(socket, listed, &counts)?;
        Ok((generation(socket)? == before).then_some(snapshots))
    }

    /// All rules are those of the last read.
    fn same_rules(&self, counts: &[&Vec<u64>]) -> Vec<Snapshot> {
        let snapshot = |(place, ruleset): (usize, &Arc<Ruleset>)| {
            let mut packets = Vec::with_capacity(ruleset.rule_count());
            let chains = self.known.chains.iter().zip(counts).filter(|(chain, _)| chain.place.0 == place);
            chains.for_each(|(_, counts)| packets.extend_from_slice(counts));
            Snapshot::new(Arc::clone(ruleset), packets)
        };
        self.known.rulesets.iter().enumerate().map(snapshot).collect()
    }

    /// Reads the chains that have other rules than at the last read, and takes over the others.
    fn other_rules(
        &mut self,
        socket: &mut Socket,
        listed: Vec<Listed>,
        counts: &[(Option<usize>, Option<Vec<u64>>)],
    ) -> Result<Vec<Snapshot>, DumpError> {
        let tables: BTreeMap<&str, usize> = listed.iter().filter_map(|chain| Some((self.tables.place(&chain.name)?.0, 0))).collect();
        let mut builders: Vec<(&str, Builder)> =
            tables.keys().map(|&table| (table, Builder::new(self.family, self.tables.backend(), table))).collect();
        let mut places = Vec::with_capacity(listed.len());
        for chain in &listed {
            let Some((table, name)) = self.tables.place(&chain.name) else { continue };
            let Some(place) = builders.iter().position(|(of, _)| *of == table) else { continue };
            places.push((place, builders[place].1.chain(name)));
        }
        let mut chains = Vec::with_capacity(listed.len());
        for ((listed, place), (before, counts)) in listed.into_iter().zip(places).zip(counts) {
            let builder = &mut builders[place.0].1;
            let known = self.known.chain(*before, &listed).zip(counts.as_ref());
            let rules = match known {
                Some(((chain, rules), counts)) => {
                    let from = &self.known.rulesets[chain.place.0];
                    builder.adopt(place.1, from, from.chain(chain.place.1), counts);
                    Some(rules.to_vec())
                }
                None => self.rules(socket, &listed.name, (builder, place.1))?,
            };
            chains.push(Chain { listed, rules, place });
        }
        let snapshots: Vec<Snapshot> = builders.into_iter().map(|(_, builder)| builder.finish()).collect();
        self.known.rulesets = snapshots.iter().map(|snapshot| Arc::clone(&snapshot.ruleset)).collect();
        self.known.chains = chains;
        Ok(snapshots)
    }

    fn protocol(&self) -> u8 {
        match self.family {
            Family::V4 => libc::NFPROTO_IPV4 as u8,
            Family::V6 => libc::NFPROTO_IPV6 as u8,
        }
    }

    /// The table's handle; `None` inside where the kernel does not tell it (before 4.16).
    fn table(&self, socket: &mut Socket) -> Result<Option<u64>, DumpError> {
        let (mut wanted, mut handle) = (Vec::new(), None);
        put_string(&mut wanted, 1, self.tables.name());
        socket.get(GET_TABLE, self.protocol(), &wanted, &mut |attributes| handle = Attributes(attributes).get(4).and_then(be64))?;
        Ok(handle)
    }

    /// The table's chains that matter. The kernel lists those of all tables.
    fn chains(&self, socket: &mut Socket) -> Result<Vec<Listed>, DumpError> {
        let mut chains = Vec::new();
        let dump = socket.dump(GET_CHAIN, self.protocol(), &[], &mut |attributes| {
            let attributes = Attributes(attributes);
            let (Some(table), Some(name)) = (attributes.get(1), attributes.get(3)) else { return };
            if string(table) != self.tables.name().as_bytes() {
                return;
            }
            let name = std::str::from_utf8(string(name)).ok().filter(|name| self.tables.place(name).is_some());
            chains.extend(name.map(|name| Listed { name: name.to_owned(), handle: attributes.get(2).and_then(be64) }));
        })?;
        match dump {
            Dump::Whole => Ok(chains),
            Dump::Interrupted => Err(DumpError::Again),
        }
    }

    fn dump_rules(&self, socket: &mut Socket, chain: &str, take: &mut dyn FnMut(&[u8])) -> Result<Dump, DumpError> {
        let mut wanted = Vec::new();
        put_string(&mut wanted, 1, self.tables.name());
        put_string(&mut wanted, 2, chain);
        socket.dump(GET_RULE, self.protocol(), &wanted, take)
    }

    /// What a chain's rules have counted, if they are still those with these handles.
    fn count(&self, socket: &mut Socket, chain: &str, rules: &[u64]) -> Result<Option<Vec<u64>>, DumpError> {
        let (mut packets, mut same) = (Vec::with_capacity(rules.len()), true);
        // Nothing can be missing or twice where all handles are as expected, whatever was changed meanwhile.
        self.dump_rules(socket, chain, &mut |attributes| {
            let attributes = Attributes(attributes);
            same &= handle(attributes) == rules.get(packets.len()).copied();
            packets.push(attributes.get(4).and_then(counter).unwrap_or(0));
        })?;
        Ok((same && packets.len() == rules.len()).then_some(packets))
    }

    /// Takes a chain's rules apart; their handles.
    fn rules(&self, socket: &mut Socket, name: &str, (builder, id): (&mut Builder, ChainId)) -> Result<Option<Vec<u64>>, DumpError> {
        let find = |builder: &mut Builder, chain: &str| self.tables.place(chain).map(|(_, name)| builder.chain(name));
        loop {
            let (before, mut handles, mut unreadable) = (builder.rule_count(), Some(Vec::new()), 0);
            let dump = self.dump_rules(socket, name, &mut |attributes| {
                let attributes = Attributes(attributes);
                handles = handles.take().zip(handle(attributes)).map(|(mut handles, handle)| {
                    handles.push(handle);
                    handles
                });
                let mut rule = Rule::new(builder, &find);
                rule.user_data(attributes.get(7).unwrap_or_default());
                let well_formed = attributes.get(4).is_none_or(|list| rule.expressions(list).is_some());
                let (parts, verdict) = (rule.parts, rule.verdict);
                match well_formed {
                    true => builder.push(id, &parts, verdict),
                    false => unreadable += 1,
                }
            })?;
            if dump == Dump::Whole {
                (0..unreadable).for_each(|_| builder.unreadable());
                return Ok(handles.filter(|_| unreadable == 0));
            }
            builder.truncate(before);
        }
    }
}

/// Changes with every change of any table.
fn generation(socket: &mut Socket) -> Result<Vec<u8>, DumpError> {
    let mut generation = Vec::new();
    socket.get(GET_GENERATION, 0, &[], &mut |attributes| generation.extend(Attributes(attributes).get(1).unwrap_or_default()))?;
    Ok(generation)
}

fn handle(attributes: Attributes) -> Option<u64> {
    be64(attributes.get(3)?)
}
