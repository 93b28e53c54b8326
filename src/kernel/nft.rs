//! nf_tables straight from the kernel: iptables-nft's tables and Calico's own → one [`Snapshot`] for each table. Rules are dumped chain by
//! chain, because the time to dump a whole table grows with the square of its size.
//!
//! A chain is not parsed again if its rules are unchanged since the last read in every byte except their counters. (Handles are not enough:
//! a rule that replaces another one keeps its handle.) If this holds for all chains, then the rules are unchanged, whatever else was
//! written meanwhile, by kube-proxy for example. If some of Calico's chains have changed, then no write may have happened during the read.
//! Otherwise the result may never have existed at one instant, and the read is repeated.
//!
//! The kernel answers a dump on the CPU of the thread that asks. So two threads read a large table, one chain at a time, each with its own
//! socket.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use foldhash::quality::{FoldHasher, RandomState};

use super::expressions::{Rule, counter};
use super::matches::{Matches, of_expressions};
use super::netlink::{self, Attributes, Dump, DumpError, Socket, put_string};
pub use super::tables::Tables;
use super::xt::{be32, be64, string};
use crate::felix::names::CHAIN_PREFIX;
use crate::ruleset::{Builder, ChainId, Count, Family, Ruleset, Snapshot};

const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_ELEMENTS: u16 = 13;
const GET_GENERATION: u16 = 16;
/// The number of rules from which a second thread is worth its start. The kernel takes about 1 ms for them.
const LARGE: usize = 500;

#[derive(Debug)]
pub struct Reader {
    family: Family,
    tables: Tables,
    known: Known,
    hasher: RandomState,
    /// Whether two threads can run at the same time.
    has_cpus: bool,
}

#[derive(Debug, Default)]
struct Known {
    /// In the kernel's order.
    chains: Vec<Chain>,
    rulesets: Vec<Arc<Ruleset>>,
}

#[derive(Debug)]
struct Chain {
    name: String,
    /// A hash of its rules without their counters, or `None` if one of them could not be parsed.
    fingerprint: Option<u64>,
    /// The index of its ruleset, and its ID there.
    place: (usize, ChainId),
}

struct Listed {
    name: String,
    handle: u64,
    /// Its index at the last read.
    before: Option<usize>,
    /// The counts of its rules, if the rules are those of the last read.
    counts: Option<Vec<Count>>,
}

type Counts = Vec<(usize, Option<Vec<Count>>)>;

impl Reader {
    pub fn new(family: Family, tables: Tables) -> Self {
        let has_cpus = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        Reader { family, tables, known: Known::default(), hasher: RandomState::default(), has_cpus }
    }

    /// Reads the tables. Returns an empty list if there are none.
    pub fn read(&mut self, deadline: Instant) -> io::Result<Vec<Snapshot>> {
        self.read_by(deadline, &mut || Socket::open(deadline))
    }

    /// Reads the tables with sockets from `open`.
    pub fn read_by(&mut self, deadline: Instant, open: &mut dyn FnMut() -> io::Result<Socket>) -> io::Result<Vec<Snapshot>> {
        loop {
            match self.attempt(open) {
                Ok(Some(snapshots)) => return Ok(snapshots),
                Err(DumpError::Io(error)) => return Err(error),
                Ok(None) | Err(DumpError::Again | DumpError::Gone) => {}
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the rules changed during every one of many reads"));
            }
        }
    }

    /// Reads once. Returns `None` if the result may never have existed at one instant.
    fn attempt(&mut self, open: &mut dyn FnMut() -> io::Result<Socket>) -> Result<Option<Vec<Snapshot>>, DumpError> {
        let mut socket = open()?;
        let generation_before = generation(&mut socket)?;
        let mut listed = self.chains(&mut socket)?;
        let is_large = self.known.rulesets.iter().map(|ruleset| ruleset.rule_count()).sum::<usize>() >= LARGE;
        // One socket is enough if no other can be opened.
        let second = if is_large && self.has_cpus { open().ok() } else { None };
        for (place, counts) in self.count_known(&listed, &mut socket, second)? {
            listed[place].counts = counts;
        }
        let same_chains = listed.len() == self.known.chains.len() && listed.iter().enumerate().all(|(i, chain)| chain.before == Some(i));
        if same_chains && listed.iter().all(|chain| chain.counts.is_some()) {
            return Ok(Some(self.same_rules(&listed)));
        }
        let snapshots = self.other_rules(&mut socket, listed)?;
        Ok((generation(&mut socket)? == generation_before).then_some(snapshots))
    }

    /// Returns the counts of the chains that were there at the last read, with `None` for those whose rules have changed.
    fn count_known(&self, listed: &[Listed], socket: &mut Socket, second: Option<Socket>) -> Result<Counts, DumpError> {
        let next = &AtomicUsize::new(0);
        thread::scope(|scope| {
            let count = |mut socket| thread::Builder::new().spawn_scoped(scope, move || self.count_next(listed, next, &mut socket)).ok();
            let second = second.and_then(count);
            let counts = self.count_next(listed, next, socket);
            let others = second.map_or(Ok(Ok(Vec::new())), ScopedJoinHandle::join);
            let others = others.unwrap_or_else(|_| Err(io::Error::other("a thread that read rules panicked").into()));
            let (mut counts, others) = (counts?, others?);
            counts.extend(others);
            Ok(counts)
        })
    }

    /// Counts the next chain until there is none left.
    fn count_next(&self, listed: &[Listed], next: &AtomicUsize, socket: &mut Socket) -> Result<Counts, DumpError> {
        let mut counts = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(chain) = listed.get(place) else { return Ok(counts) };
            if let Some(fingerprint) = chain.before.and_then(|before| self.known.chains[before].fingerprint) {
                let of_chain = self.count(socket, &chain.name, fingerprint).inspect_err(|_| next.store(listed.len(), Ordering::Relaxed))?;
                counts.push((place, of_chain));
            }
        }
    }

    fn same_rules(&self, listed: &[Listed]) -> Vec<Snapshot> {
        let snapshot = |(place, ruleset): (usize, &Arc<Ruleset>)| {
            let mut counts = Vec::with_capacity(ruleset.rule_count());
            let of_table = || self.known.chains.iter().zip(listed).filter(|(chain, _)| chain.place.0 == place).map(|(_, listed)| listed);
            of_table().filter_map(|chain| chain.counts.as_ref()).for_each(|of_chain| counts.extend_from_slice(of_chain));
            Snapshot::new(Arc::clone(ruleset), counts, of_table().map(|chain| chain.handle).collect())
        };
        self.known.rulesets.iter().enumerate().map(snapshot).collect()
    }

    /// Parses the chains whose rules have changed since the last read, and copies the others.
    fn other_rules(&mut self, socket: &mut Socket, listed: Vec<Listed>) -> Result<Vec<Snapshot>, DumpError> {
        let mut builders = BTreeMap::<&str, Builder>::new();
        for chain in &listed {
            if let Some((table, name)) = self.tables.place(&chain.name) {
                builders.entry(table).or_insert_with(|| Builder::new(self.family, self.tables.backend(), table)).chain(name);
            }
        }
        let mut builders: Vec<(&str, Builder)> = builders.into_iter().collect();
        let mut chains = Vec::with_capacity(listed.len());
        for Listed { name, handle, before, counts } in listed {
            let Some((table, short)) = self.tables.place(&name) else { continue };
            let Some(place) = builders.iter().position(|(of, _)| *of == table) else { continue };
            let builder = &mut builders[place].1;
            let id = builder.chain(short);
            builder.chain_handle(id, handle);
            let fingerprint = match before.zip(counts) {
                Some((before, counts)) => {
                    let Chain { place: (table, chain), fingerprint, .. } = self.known.chains[before];
                    let from = &self.known.rulesets[table];
                    builder.adopt(id, from, from.chain(chain), &counts);
                    fingerprint
                }
                None => self.rules(socket, &name, builder, id)?,
            };
            chains.push(Chain { name, fingerprint, place: (place, id) });
        }
        let snapshots: Vec<Snapshot> = builders.into_iter().map(|(_, builder)| builder.finish()).collect();
        self.known = Known { chains, rulesets: snapshots.iter().map(|snapshot| Arc::clone(&snapshot.ruleset)).collect() };
        Ok(snapshots)
    }

    /// Returns the table's relevant chains. The kernel lists the chains of all tables.
    fn chains(&self, socket: &mut Socket) -> Result<Vec<Listed>, DumpError> {
        let places: HashMap<&str, usize> = self.known.chains.iter().enumerate().map(|(i, chain)| (&*chain.name, i)).collect();
        let mut chains = Vec::new();
        let dump = socket.dump(GET_CHAIN, protocol(self.family), &[], &mut |attributes| {
            let attributes = Attributes(attributes);
            let (Some(table), Some(name)) = (attributes.get(1), attributes.get(3)) else { return };
            if string(table) != self.tables.name().as_bytes() {
                return;
            }
            let name = std::str::from_utf8(string(name)).ok().filter(|name| self.tables.place(name).is_some());
            let handle = attributes.get(2).and_then(be64).unwrap_or(0);
            let before = name.and_then(|name| places.get(name).copied());
            chains.extend(name.map(|name| Listed { name: name.to_owned(), handle, before, counts: None }));
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
        socket.dump(GET_RULE, protocol(self.family), &wanted, take)
    }

    /// Returns the elements of a set: each key, and whether an interval ends before it.
    fn elements(&self, socket: &mut Socket, set: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, DumpError> {
        const INTERVAL_END: u32 = 1;
        let mut wanted = Vec::new();
        put_string(&mut wanted, 1, self.tables.name());
        put_string(&mut wanted, 2, &String::from_utf8_lossy(set));
        let mut elements = Vec::new();
        socket.dump(GET_ELEMENTS, protocol(self.family), &wanted, &mut |attributes| {
            for (_, element) in Attributes(Attributes(attributes).get(3).unwrap_or_default()) {
                let key = Attributes(element).get(1).and_then(|key| Attributes(key).get(1)).unwrap_or_default();
                let flags = Attributes(element).get(3).and_then(be32).unwrap_or(0);
                elements.push((key.to_vec(), flags & INTERVAL_END != 0));
            }
        })?;
        Ok(elements)
    }

    /// Returns the counts of a chain's rules, or `None` if the rules do not have this fingerprint.
    fn count(&self, socket: &mut Socket, chain: &str, fingerprint: u64) -> Result<Option<Vec<Count>>, DumpError> {
        let (mut counts, mut hasher) = (Vec::new(), self.hasher.build_hasher());
        // An interrupted dump does not matter: if the fingerprint is the same, no rule is missing or duplicated.
        self.dump_rules(socket, chain, &mut |attributes| counts.push(add_to_fingerprint(attributes, &mut hasher)))?;
        Ok((hasher.finish() == fingerprint).then_some(counts))
    }

    /// Parses a chain's rules. Returns their fingerprint, or `None` if a rule could not be parsed.
    fn rules(&self, socket: &mut Socket, name: &str, builder: &mut Builder, id: ChainId) -> Result<Option<u64>, DumpError> {
        loop {
            let (before, mut hasher, mut all_readable) = (builder.rule_count(), self.hasher.build_hasher(), true);
            let dump = self.dump_rules(socket, name, &mut |attributes| {
                add_to_fingerprint(attributes, &mut hasher);
                all_readable &= push_rule(Attributes(attributes), self.tables, builder, id);
            })?;
            if dump == Dump::Whole {
                return Ok(all_readable.then(|| hasher.finish()));
            }
            builder.truncate(before);
        }
    }
}

pub(super) fn hooks(family: Family, tables: Tables, deadline: Instant) -> io::Result<BTreeSet<&'static str>> {
    let reader = Reader::new(family, tables);
    let mut socket = Socket::open(deadline)?;
    let mut found = BTreeSet::new();
    for chain in ["INPUT", "FORWARD", "OUTPUT"] {
        let name = if tables == Tables::Calico { format!("filter-{chain}") } else { chain.to_owned() };
        // In a rule, only the name of one of Calico's chains begins like this: interfaces are `cali+`, comments `cali:`.
        let mut take = |rule: &[u8]| {
            if rule.windows(CHAIN_PREFIX.len()).any(|bytes| bytes == CHAIN_PREFIX.as_bytes()) {
                found.insert(chain);
            }
        };
        loop {
            match reader.dump_rules(&mut socket, &name, &mut take) {
                Ok(_) | Err(DumpError::Gone) => break,
                Err(DumpError::Again) => {}
                Err(DumpError::Io(error)) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Returns what a chain's rules match on.
pub(super) fn matches(family: Family, tables: Tables, chain: &str, deadline: Instant) -> io::Result<Matches> {
    let reader = Reader::new(family, tables);
    let mut socket = Socket::open(deadline)?;
    let mut rules = Vec::new();
    loop {
        match reader.dump_rules(&mut socket, chain, &mut |rule| rules.push(rule.to_vec())) {
            Ok(Dump::Whole) => break,
            Ok(Dump::Interrupted) | Err(DumpError::Again) => rules.clear(),
            Err(DumpError::Gone) => return Ok(Matches::new()),
            Err(DumpError::Io(error)) => return Err(error),
        }
    }
    let mut builder = Builder::new(family, tables.backend(), "filter");
    let mut matches = Matches::new();
    for attributes in rules.iter().map(|rule| Attributes(rule)) {
        let mut rule = Rule::new(&mut builder, tables, 0);
        rule.user_data(attributes.get(7).unwrap_or_default());
        let expressions = attributes.get(4).unwrap_or_default();
        _ = rule.expressions(expressions);
        let hash = rule.draft.parts.hash;
        let mut elements = |set: &[u8]| reader.elements(&mut socket, set).ok();
        matches.insert(hash, of_expressions(expressions, family == Family::V4, &mut elements));
    }
    Ok(matches)
}

/// Parses a rule and appends it to a chain. Reports whether it is well formed.
fn push_rule(attributes: Attributes, tables: Tables, builder: &mut Builder, chain: ChainId) -> bool {
    let mut rule = Rule::new(builder, tables, handle(attributes));
    rule.user_data(attributes.get(7).unwrap_or_default());
    let expressions = attributes.get(4).unwrap_or_default();
    let is_readable = rule.expressions(expressions).is_some();
    let (parts, verdict) = rule.draft.finish();
    match is_readable {
        true => builder.push(chain, &parts, verdict),
        false => builder.push_unreadable(chain, (!parts.uncounted).then_some(parts.count)),
    }
    is_readable
}

/// Parses a dump of a table's rules as received from a socket. [`Reader`] does the same chain by chain.
pub fn decode(family: Family, tables: Tables, dump: &[u8]) -> Vec<Snapshot> {
    let mut builders = BTreeMap::<&str, Builder>::new();
    for attributes in netlink::messages(dump).map(Attributes) {
        let chain = attributes.get(2).and_then(|name| std::str::from_utf8(string(name)).ok());
        let Some((table, chain)) = chain.and_then(|chain| tables.place(chain)) else { continue };
        let builder = builders.entry(table).or_insert_with(|| Builder::new(family, tables.backend(), table));
        let chain = builder.chain(chain);
        push_rule(attributes, tables, builder, chain);
    }
    builders.into_values().map(Builder::finish).collect()
}

fn handle(rule: Attributes) -> u64 {
    rule.get(3).and_then(be64).unwrap_or(0)
}

/// Adds everything about a rule to the hash, except its counter. Returns its count.
fn add_to_fingerprint(rule: &[u8], hasher: &mut FoldHasher) -> Count {
    let counter = counter(Attributes(rule).get(4).unwrap_or_default());
    // The counter's place within the rule.
    let place = counter.map_or(rule.len()..rule.len(), |counter| {
        let begin = counter.values.as_ptr().addr() - rule.as_ptr().addr();
        begin..begin + counter.values.len()
    });
    hasher.write_usize(rule.len());
    hasher.write(&rule[..place.start]);
    hasher.write(&rule[place.end..]);
    let (packets, bytes) = counter.map_or((0, 0), |counter| (counter.packets, counter.bytes));
    Count { packets, bytes, handle: handle(Attributes(rule)) }
}

/// `NFPROTO_…`
pub fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => libc::NFPROTO_IPV4 as u8,
        Family::V6 => libc::NFPROTO_IPV6 as u8,
    }
}

/// Returns the generation ID, which increases with each change of any table.
pub fn generation(socket: &mut Socket) -> Result<Vec<u8>, DumpError> {
    let mut generation = Vec::new();
    socket.get(GET_GENERATION, 0, &[], &mut |attributes| generation.extend(Attributes(attributes).get(1).unwrap_or_default()))?;
    Ok(generation)
}
