//! A capture with one more rule in it.

use std::collections::BTreeMap;

use calico_accountant::felix::{ChainNames, Labels, Pipelines};
use calico_accountant::ruleset::{Builder, Chain, ChainId, Count, Interned, RuleId, Snapshot};

use super::rules::Foreign;
use super::walk::{Fate, Walk};
use crate::captures::Key;
use crate::simulation::random::Random;

/// No rule of a capture has this handle.
const FOREIGN_HANDLE: u64 = 1_000_000;

/// Where a rule is inserted.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The index of the table.
    pub table: usize,
    pub chain: ChainId,
    /// The position in the chain before which it is inserted.
    pub before: usize,
}

impl Place {
    pub fn describe(&self, tables: &[Snapshot]) -> String {
        let ruleset = &tables[self.table].ruleset;
        format!("{} {} {} rule {}", ruleset.family.as_str(), ruleset.table, ruleset.chain(self.chain).name, self.before)
    }
}

/// Whether the rules of a chain can affect what endpoints count.
pub fn matters(chain: &str) -> bool {
    let kinds = ["tw-", "fw-", "th-", "fh-", "thfw-", "fhfw-", "pi-", "po-", "gi-", "go-", "pri-", "pro-", "to-wl-", "from-wl-", "FORWARD"];
    chain.strip_prefix("cali-").is_some_and(|rest| kinds.iter().any(|kind| rest.starts_with(kind)))
}

/// The tables with a foreign rule that has counted this many packets.
pub fn mutated(tables: &[Snapshot], place: Place, foreign: &Foreign, packets: u64) -> Vec<Snapshot> {
    let mut tables = tables.to_vec();
    let table = &tables[place.table];
    // Both moments have the same chains, but in different orders.
    tables[place.table] = inserted(table, place, foreign, packets);
    tables
}

fn inserted(table: &Snapshot, place: Place, foreign: &Foreign, packets: u64) -> Snapshot {
    let from = &table.ruleset;
    let mut builder = Builder::new(from.family, from.backend, from.table);
    // Chains keep their positions.
    from.chains().iter().for_each(|chain| _ = builder.chain(&chain.name));
    for (id, chain) in from.chain_ids() {
        table.chain_handle(id).into_iter().for_each(|handle| builder.chain_handle(id, handle));
        let split = chain.rules.start + if id == place.chain { place.before as u32 } else { 0 };
        let adopt = |builder: &mut Builder, rules: std::ops::Range<u32>| {
            let part = Chain { name: chain.name.clone(), rules };
            builder.adopt(id, from, &part, table.counts_of(&part));
        };
        adopt(&mut builder, chain.rules.start..split);
        if id == place.chain {
            let rule = &foreign.table.ruleset.chains()[0];
            builder.adopt(
                id,
                &foreign.table.ruleset,
                rule,
                &[Count { packets, bytes: packets * 60, handle: table.chain_handle(id).map_or(0, |_| FOREIGN_HANDLE) }],
            );
        }
        adopt(&mut builder, split..chain.rules.end);
    }
    builder.finish()
}

/// Both moments with a foreign rule that some packets matched in between.
pub struct Mutation {
    pub before: Vec<Snapshot>,
    pub after: Vec<Snapshot>,
    /// What Calico's rules decided about these packets.
    pub decided: BTreeMap<Key, u64>,
    pub fate: Fate,
}

impl Mutation {
    /// `None` if no packet reaches the place.
    pub fn new(
        [before, after]: [&[Snapshot]; 2],
        place: Place,
        foreign: &Foreign,
        (names, random): (&ChainNames, &mut Random),
    ) -> Option<Self> {
        let before = mutated(before, place, foreign, 0);
        let mut after = mutated(after, place, foreign, 0);
        let table = &after[place.table];
        let rule = table.ruleset.chain(place.chain).rule_ids().nth(place.before)?;
        let packets = random.between(1, 9) as u64;
        let fate = *random.pick(foreign.fates);
        let pipelines = Pipelines::new(&table.ruleset);
        let labels = Labels::new(&table.ruleset, &pipelines, names, &mut Interned::default());
        let start = random.below(pipelines.endpoints.len().max(1));
        let all = pipelines.endpoints.iter().cycle().skip(start).take(pipelines.endpoints.len()).map(|pipeline| pipeline.chain);
        let bound_for = all.chain([place.chain].into_iter().filter(|id| !is_shared(&table.ruleset.chain(*id).name)));
        let mut walks = bound_for.map(|chain| Walk::new((&table.ruleset, &pipelines, &labels), chain, (rule, fate)));
        let Walk { counted, decided, .. } = walks.find(|walk| walk.counted.contains_key(&rule))?;
        let now = |id: RuleId| {
            let more = counted.get(&id).copied().unwrap_or(0) * packets;
            let Count { packets, bytes, handle } = table.count(id);
            Count { packets: packets + more, bytes: bytes + more * 60, handle }
        };
        let counts = (0..table.ruleset.rule_count() as u32).map(|id| now(RuleId(id))).collect();
        let handles = table.ruleset.chain_ids().map(|(id, _)| table.chain_handle(id).unwrap_or(0)).collect();
        after[place.table] = Snapshot::new(table.ruleset.clone(), counts, handles);
        Some(Mutation { before, after, decided: decided.into_iter().map(|key| (key, packets)).collect(), fate })
    }
}

fn is_shared(chain: &str) -> bool {
    ["cali-p", "cali-g"].iter().any(|prefix| chain.starts_with(prefix))
}
