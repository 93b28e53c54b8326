//! A table as in the kernel: chains of rules that count, packets that go through them rule by rule, the effect of Felix's writes on
//! counters, and reads during which packets move.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use calico_accountant::felix::Direction;
use calico_accountant::kernel::nft::protocol;
use calico_accountant::kernel::trace::{Event, Fate, Step, TABLE};
use calico_accountant::ruleset::{Backend, Builder, Count, CtState, Family, MarkMatch, RuleHash, RuleParts, Snapshot, Verdict};

use super::random::Random;

/// An interface, a direction and what happened there: `Accept default.p1`, `no policy t1`, `established`.
pub type Key = (Arc<str>, Direction, Arc<str>);

/// The kind of a packet, before any policy decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It opens a connection.
    New,
    /// It belongs to a known connection.
    Established,
    /// conntrack calls it invalid.
    Invalid,
    /// A workload's own VXLAN.
    Encapsulated,
}

/// What a rule matches, in addition to marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Everything.
    Always,
    /// Packets of this kind.
    Is(Kind),
    /// The match of a policy's rule: by chance.
    Chance,
}

/// What a rule does; see [`Verdict`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    Count,
    Mark { value: u32, mask: u32 },
    Jump(String),
    Return,
    Accept,
    Drop,
    Log,
}

/// A rule as Felix wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleSpec {
    pub comments: Vec<String>,
    pub mark: Option<MarkMatch>,
    pub when: When,
    pub target: Target,
    /// What was decided about a packet that this rule counts.
    pub decides: Option<Arc<str>>,
    /// The addresses in the rule, which distinguish rules that are otherwise the same.
    pub variant: u32,
}

/// A chain as Felix wants it.
#[derive(Debug, Clone)]
pub struct ChainSpec {
    pub name: String,
    pub rules: Vec<RuleSpec>,
}

struct Rule {
    spec: RuleSpec,
    /// Felix's identity of the rule; see [`chained_hashes`].
    hash: String,
    /// The index of the chain to which a jump leads.
    to: usize,
    packets: u64,
    /// nf_tables' handle.
    handle: u64,
}

struct Chain {
    name: String,
    /// nf_tables' handle.
    handle: u64,
    rules: Vec<Rule>,
}

/// The order of chains in the table, and in a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name: iptables-legacy.
    Sorted,
    /// In the order in which they were made: nf_tables.
    Creation,
}

/// What a write of Felix does to a chain that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Replaces the rules from the first difference on: iptables-legacy, which has no handles, and Calico's own tables up to 3.32, in which
    /// a rule that replaces another one keeps its handle.
    Rules,
    /// Flushes the chain and writes all rules: iptables-nft, and Calico's own tables from 3.33 on.
    Chains,
}

/// One table.
pub struct Table {
    pub family: Family,
    pub backend: Backend,
    order: Order,
    writes: Writes,
    chains: Vec<Chain>,
    /// The last handle that was given.
    handles: u64,
}

/// A packet in flight.
pub struct Packet {
    pub interface: Arc<str>,
    pub direction: Direction,
    kind: Kind,
    /// The probability, in percent, that a policy's rule matches it.
    bias: usize,
    mark: u32,
    stack: Vec<(usize, usize)>,
    /// What was decided about it so far.
    pub decided: Vec<Key>,
    /// The rules that matched it: chain, handle, and whether it was dropped there.
    met: Vec<(String, u64, bool)>,
}

/// Hashes over the chain's name, all rules before, and the rule itself. A change at one place changes all later hashes.
fn chained_hashes(chain: &ChainSpec) -> Vec<String> {
    let mut hasher = DefaultHasher::new();
    chain.name.hash(&mut hasher);
    let hash = |rule| {
        Hash::hash(rule, &mut hasher);
        format!("{:016x}", hasher.finish())
    };
    chain.rules.iter().map(hash).collect()
}

impl Table {
    pub fn new(family: Family, backend: Backend, order: Order, writes: Writes) -> Self {
        Table { family, backend, order, writes, chains: Vec::new(), handles: 0 }
    }

    /// A new handle, or 0 if the back end has none.
    fn handle(handles: &mut u64, backend: Backend) -> u64 {
        if backend == Backend::Legacy {
            return 0;
        }
        *handles += 1;
        *handles
    }

    /// Sets all counters to 0, as `iptables -Z` and `nft reset rules` do.
    pub fn zero(&mut self) {
        self.chains.iter_mut().flat_map(|chain| &mut chain.rules).for_each(|rule| rule.packets = 0);
    }

    /// Writes what differs, as Felix does. No packet may be in flight.
    pub fn write(&mut self, wanted: &[ChainSpec]) {
        let mut wanted: HashMap<&str, &ChainSpec> = wanted.iter().map(|chain| (chain.name.as_str(), chain)).collect();
        let mut chains = Vec::new();
        for mut chain in std::mem::take(&mut self.chains) {
            if let Some(spec) = wanted.remove(chain.name.as_str()) {
                let rules = rewritten((self.backend, self.writes), std::mem::take(&mut chain.rules), spec, &mut self.handles);
                chain.rules = rules;
                chains.push(chain);
            }
        }
        let mut new: Vec<&ChainSpec> = wanted.into_values().collect();
        // Felix creates chains in no particular order. Any order will do, but it must be the same for the same seed.
        new.sort_by_key(|spec| chained_hashes(spec));
        for spec in new {
            let handle = Self::handle(&mut self.handles, self.backend);
            let rules = rewritten((self.backend, self.writes), vec![], spec, &mut self.handles);
            chains.push(Chain { name: spec.name.clone(), handle, rules });
        }
        if self.order == Order::Sorted {
            chains.sort_by(|a, b| a.name.cmp(&b.name));
        }
        self.chains = chains;
        self.connect();
    }

    fn connect(&mut self) {
        let places: HashMap<String, usize> = self.chains.iter().enumerate().map(|(i, chain)| (chain.name.clone(), i)).collect();
        for rule in self.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            if let Target::Jump(to) = &rule.spec.target {
                rule.to = places[to];
            }
        }
    }

    /// A packet that is about to enter an endpoint's chain.
    pub fn packet(&self, chain: &str, interface: &Arc<str>, direction: Direction, kind: Kind, bias: usize) -> Option<Packet> {
        let place = self.chains.iter().position(|c| c.name == chain)?;
        let (interface, stack) = (Arc::clone(interface), vec![(place, 0)]);
        Some(Packet { interface, direction, kind, bias, mark: 0, stack, decided: vec![], met: vec![] })
    }

    /// Lets a packet try one rule. Returns whether it has any left.
    pub fn step(&mut self, packet: &mut Packet, random: &mut Random) -> bool {
        let Some((chain, place)) = packet.stack.pop() else { return false };
        let Chain { name, rules, .. } = &mut self.chains[chain];
        let Some(rule) = rules.get_mut(place) else { return !packet.stack.is_empty() };
        if !rule.matches(packet, random) {
            packet.stack.push((chain, place + 1));
            return true;
        }
        rule.packets += 1;
        packet.met.push((name.clone(), rule.handle, rule.spec.target == Target::Drop));
        if let Some(what) = &rule.spec.decides {
            packet.decided.push((Arc::clone(&packet.interface), packet.direction, Arc::clone(what)));
        }
        match rule.spec.target {
            Target::Count | Target::Log => packet.stack.push((chain, place + 1)),
            Target::Mark { value, mask } => {
                packet.mark = (packet.mark & !mask) ^ value;
                packet.stack.push((chain, place + 1));
            }
            Target::Jump(_) => packet.stack.extend([(chain, place + 1), (rule.to, 0)]),
            Target::Return => {}
            Target::Accept | Target::Drop => packet.stack.clear(),
        }
        !packet.stack.is_empty()
    }

    /// The events that the kernel sends about a packet that it traces, in order.
    pub fn told(&self, packet: &Packet) -> Vec<Event> {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let header = calico_accountant::kernel::trace::Packet { protocol: 17, source: address, destination: address, ports: None };
        let event = |table: &str, chain: String, handle, is_dropped| {
            let fate = if is_dropped { Fate::Dropped } else { Fate::GoesOn };
            let (family, step) = (protocol(self.family), Step::Rule { handle });
            Event { id: 1, family, table: table.into(), chain, step, fate, packet: Some(header) }
        };
        let (table, prefix) = if self.backend == Backend::Native { ("calico", "filter-") } else { ("filter", "") };
        let met = packet.met.iter().map(|(chain, handle, is_dropped)| event(table, format!("{prefix}{chain}"), *handle, *is_dropped));
        let own = |chain: &str| event(TABLE, chain.into(), 1, false);
        [own("mark")].into_iter().chain(met).chain([own("forward-end")]).collect()
    }

    /// Whether rules have an identity in addition to their hash that a write of Felix changes.
    pub fn has_handles(&self) -> bool {
        self.writes == Writes::Chains
    }

    /// The table at one instant.
    pub fn look(&self) -> Snapshot {
        let packets: Vec<u64> = self.rules().map(|(_, rule)| rule.packets).collect();
        self.ruleset(&packets)
    }

    /// Reads the table, rule by rule. Calls `between` before each.
    pub fn read(&mut self, mut between: impl FnMut(&mut Table)) -> Snapshot {
        let mut packets = Vec::new();
        for chain in 0..self.chains.len() {
            for rule in 0..self.chains[chain].rules.len() {
                between(self);
                packets.push(self.chains[chain].rules[rule].packets);
            }
        }
        self.ruleset(&packets)
    }

    fn rules(&self) -> impl Iterator<Item = (&Chain, &Rule)> {
        self.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
    }

    fn ruleset(&self, packets: &[u64]) -> Snapshot {
        let mut builder = Builder::new(self.family, self.backend, "filter");
        for chain in &self.chains {
            let id = builder.chain(&chain.name);
            builder.chain_handle(id, chain.handle);
        }
        for ((chain, rule), &packets) in self.rules().zip(packets) {
            let RuleSpec { comments, mark, when, target, .. } = &rule.spec;
            let comments = comments.iter().map(|comment| builder.comment(comment)).collect();
            let (ctstate, other_matches) = match when {
                When::Always => (CtState::Any, false),
                When::Is(Kind::Established) => (CtState::Established, false),
                When::Is(Kind::Invalid) => (CtState::Invalid, false),
                When::Is(_) | When::Chance => (CtState::Any, true),
            };
            let parts = RuleParts {
                uncounted: false,
                hash: RuleHash::new(rule.hash.as_bytes()),
                mark: *mark,
                ctstate,
                other_matches,
                counts_before_match: false,
                comments,
                count: Count { packets, bytes: packets * 60, handle: rule.handle },
            };
            let verdict = verdict(target, &mut builder);
            let chain = builder.chain(&chain.name);
            builder.push(chain, &parts, verdict);
        }
        builder.finish()
    }

    /// The table as `iptables-save -c` prints it.
    pub fn text(&self) -> String {
        let declared = self.chains.iter().map(|chain| format!(":{} - [0:0]\n", chain.name)).collect::<String>();
        let rules =
            self.rules().map(|(chain, rule)| format!("[{}:{}] -A {}{}\n", rule.packets, rule.packets * 60, chain.name, rule.text()));
        format!("*filter\n{declared}{}COMMIT\n", rules.collect::<String>())
    }
}

/// The rules of a chain after a write, with the counts and handles that they keep.
fn rewritten((backend, writes): (Backend, Writes), old: Vec<Rule>, spec: &ChainSpec, handles: &mut u64) -> Vec<Rule> {
    let hashes = chained_hashes(spec);
    let unchanged = old.len() == hashes.len() && old.iter().zip(&hashes).all(|(rule, hash)| rule.hash == *hash);
    let mut rules = Vec::with_capacity(hashes.len());
    for (place, (spec, hash)) in spec.rules.iter().zip(hashes).enumerate() {
        let before = old.get(place).filter(|_| unchanged || writes == Writes::Rules);
        let packets = before.filter(|rule| rule.hash == hash).map_or(0, |rule| rule.packets);
        let handle = before.map_or_else(|| Table::handle(handles, backend), |rule| rule.handle);
        rules.push(Rule { spec: spec.clone(), hash, to: 0, packets, handle });
    }
    rules
}

fn verdict(target: &Target, builder: &mut Builder) -> Verdict {
    match target {
        Target::Count => Verdict::None,
        Target::Mark { value, mask } => Verdict::SetMark { value: *value, mask: *mask },
        Target::Jump(to) => Verdict::Jump(builder.chain(to)),
        Target::Return => Verdict::Return,
        Target::Accept => Verdict::Accept,
        Target::Drop => Verdict::Drop,
        Target::Log => Verdict::Nflog(Some(builder.comment("DPI|_hashed"))),
    }
}

impl Rule {
    fn matches(&self, packet: &Packet, random: &mut Random) -> bool {
        let marked = self.spec.mark.is_none_or(|m| (packet.mark & m.mask == m.value) != m.negated);
        marked
            && match self.spec.when {
                When::Always => true,
                When::Is(kind) => packet.kind == kind,
                When::Chance => random.percent(packet.bias),
            }
    }

    fn text(&self) -> String {
        let RuleSpec { comments, mark, when, target, variant, .. } = &self.spec;
        let mut text = match when {
            When::Chance => format!(" -s 10.{variant}.0.0/16"),
            When::Is(Kind::Encapsulated) => " -p udp".into(),
            _ => String::new(),
        };
        for comment in std::iter::once(&format!("cali:{}", self.hash)).chain(comments) {
            text += &format!(" -m comment --comment \"{comment}\"");
        }
        match when {
            When::Is(Kind::Established) => text += " -m conntrack --ctstate RELATED,ESTABLISHED",
            When::Is(Kind::Invalid) => text += " -m conntrack --ctstate INVALID",
            _ => {}
        }
        if let Some(MarkMatch { value, mask, negated }) = mark {
            text += &format!(" -m mark {}--mark {value:#x}/{mask:#x}", if *negated { "! " } else { "" });
        }
        text + &match target {
            Target::Count => String::new(),
            Target::Mark { value, mask } => format!(" -j MARK --set-xmark {value:#x}/{mask:#x}"),
            Target::Jump(to) => format!(" -j {to}"),
            Target::Return => " -j RETURN".into(),
            Target::Accept => " -j ACCEPT".into(),
            Target::Drop => " -j DROP".into(),
            Target::Log => " -j NFLOG --nflog-prefix \"DPI|_hashed\" --nflog-group 1".into(),
        }
    }
}
