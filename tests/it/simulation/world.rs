//! A node: its cluster, the tables that follow from it, the traffic through them, and the truth about every packet.

use std::collections::BTreeMap;
use std::sync::Arc;

use calico_accountant::felix::Direction;
use calico_accountant::ruleset::{Backend, Family, RuleId, Snapshot};
use calico_accountant::witness::traces::{Trace, Traces};

use super::cluster::{Cluster, Designer, Era, Group, Workload, endpoint_chain};
use super::kernel::{Key, Kind, Order, Packet, Table, Writes};
use super::random::Random;

/// What has happened to all packets.
pub type Truth = BTreeMap<Key, u64>;

/// What kind of node to simulate.
#[derive(Debug, Clone)]
pub struct Setting {
    pub era: Era,
    pub backend: Backend,
    pub order: Order,
    pub writes: Writes,
    pub families: Vec<Family>,
    /// How many packets enter while a table is read.
    pub torn: usize,
    /// Whether Felix rewrites rules.
    pub rewrites: bool,
    /// How many percent of the packets between two reads are traced.
    pub traced: usize,
}

pub struct World {
    pub cluster: Cluster,
    pub tables: Vec<Table>,
    pub random: Random,
    serial: u32,
    torn: usize,
    /// Whether no endpoint came or went since the last read.
    pub endpoints_stayed: bool,
    /// Packets in flight, by table.
    in_flight: Vec<Vec<Packet>>,
    /// The workloads with rules in the tables.
    written: Vec<Arc<str>>,
    /// What happened to packets that have arrived.
    arrived: Truth,
    traced: usize,
    /// A generator of its own, so that a run is the same with and without traces.
    chance_of_traces: Random,
    traces: Traces,
    /// What was traced since the last read.
    pub told: Vec<Trace>,
}

/// The number of CPUs, which is how many packets can be in flight at the same time.
pub const CPUS: usize = 3;

impl World {
    /// A node with random workloads and policies.
    pub fn new(setting: &Setting, mut random: Random) -> Self {
        let mut serial = 0;
        let cluster = Designer { random: &mut random, serial: &mut serial }.cluster(setting.era);
        let tables: Vec<Table> = setting.families.iter().map(|f| Table::new(*f, setting.backend, setting.order, setting.writes)).collect();
        let in_flight = tables.iter().map(|_| vec![]).collect();
        let mut world = World {
            cluster,
            tables,
            random,
            serial,
            torn: setting.torn,
            endpoints_stayed: false,
            written: vec![],
            in_flight,
            arrived: Truth::new(),
            traced: setting.traced,
            chance_of_traces: Random::new(setting.traced as u64),
            traces: Traces::default(),
            told: vec![],
        };
        world.write();
        world
    }

    /// Writes the rules of the present cluster.
    pub fn write(&mut self) {
        self.land();
        let workloads: Vec<Arc<str>> = self.cluster.workloads.iter().map(|workload| Arc::clone(&workload.interface)).collect();
        self.endpoints_stayed &= self.written == workloads;
        self.written = workloads;
        for table in &mut self.tables {
            table.write(&self.cluster.chains(table.family));
        }
    }

    /// Changes something, as users do, and writes it as Felix does.
    pub fn change(&mut self) {
        Designer { random: &mut self.random, serial: &mut self.serial }.change(&mut self.cluster);
        self.write();
    }

    /// Changes between two reads, with packets meanwhile: users change something once or several times, or undo a change, so that rules
    /// have their old hashes again, or counters are set to 0.
    pub fn unrest(&mut self) {
        for _ in 0..self.random.between(1, 3) {
            let before = self.random.percent(40).then(|| self.cluster.clone());
            match self.random.percent(10) {
                true => self.zero(),
                false => self.change(),
            }
            self.burst();
            if let Some(before) = before {
                self.cluster = before;
                self.write();
                self.burst();
            }
        }
    }

    /// Whether the counters show that something was written since the last read. If a table has no handles, all rules are the same and none
    /// counts less, then it cannot be distinguished from an unchanged one.
    pub fn shows_what_happened(&self, last: &[Snapshot]) -> bool {
        self.tables.iter().zip(last).all(|(table, last)| {
            let now = table.look();
            let less = |rule: u32| now.packets(RuleId(rule)) < last.packets(RuleId(rule));
            table.has_handles() || now.ruleset != last.ruleset || (0..now.ruleset.rule_count() as u32).any(less)
        })
    }

    /// Sets all counters to 0.
    fn zero(&mut self) {
        self.land();
        self.tables.iter_mut().for_each(Table::zero);
    }

    /// Keeps only workloads: what a host endpoint shares with them can never be distinguished.
    pub fn remove_host_endpoints(&mut self) {
        self.cluster.workloads.retain(|workload| !workload.host);
        self.write();
    }

    /// Sends packets of one kind of traffic through some endpoints. All of them arrive.
    pub fn burst(&mut self) {
        for _ in 0..self.random.between(1, 4) {
            let endpoint = self.random.below(self.cluster.workloads.len() * 2);
            let table = self.random.below(self.tables.len());
            let packets = self.random.between(1, 12);
            self.flow(table, endpoint, packets);
        }
    }

    /// Sends packets through one endpoint: twice the index of its workload, plus its direction.
    pub fn flow(&mut self, table: usize, endpoint: usize, packets: usize) {
        let bias = *self.random.pick(&[10, 30, 60]);
        for _ in 0..packets {
            let Some(mut packet) = set_out(&self.tables[table], &self.cluster.workloads, endpoint, bias, &mut self.random) else { return };
            while self.tables[table].step(&mut packet, &mut self.random) {}
            add(&mut self.arrived, &packet.decided);
            if self.traced > 0 && self.chance_of_traces.percent(self.traced) {
                let events = self.tables[table].told(&packet);
                self.told.extend(events.into_iter().filter_map(|event| self.traces.take(event)));
            }
        }
    }

    /// Lets all packets arrive.
    pub fn land(&mut self) {
        for (place, table) in self.tables.iter_mut().enumerate() {
            for mut packet in std::mem::take(&mut self.in_flight[place]) {
                while table.step(&mut packet, &mut self.random) {}
                add(&mut self.arrived, &packet.decided);
            }
        }
    }

    /// Every policy and group that an endpoint goes through, with the tier.
    pub fn targets(&self) -> impl Iterator<Item = (&Workload, Direction, String, Group)> {
        let endpoints = self.cluster.workloads.iter().flat_map(|workload| Direction::ALL.map(|direction| (workload, direction)));
        endpoints.flat_map(|(workload, direction)| {
            let tiers = self.cluster.shape(workload, direction).into_iter();
            let named = tiers.flat_map(|tier| tier.targets.into_iter().map(move |target| (tier.name.clone(), target)));
            named.map(move |(tier, target)| (workload, direction, tier, target)).collect::<Vec<_>>()
        })
    }

    /// What has happened to the packets that have arrived.
    pub fn least(&self) -> Truth {
        self.arrived.clone()
    }

    /// Like [`least`](Self::least), plus what was decided about packets in flight.
    pub fn most(&self) -> Truth {
        let mut truth = self.arrived.clone();
        self.in_flight.iter().flatten().for_each(|packet| add(&mut truth, &packet.decided));
        truth
    }

    /// Reads all tables, each with a second look after it. Packets move during both if the setting says so. Of the packets in flight when
    /// the first read ends, at most one is still in flight when the second begins.
    pub fn read(&mut self) -> Vec<(Snapshot, Snapshot)> {
        let look = |world: &mut World, place: usize| {
            let first = world.read_torn(place);
            let held_up = if world.random.percent(50) { world.in_flight[place].pop() } else { None };
            world.land();
            world.in_flight[place].extend(held_up);
            (first, world.read_torn(place))
        };
        (0..self.tables.len()).map(|place| look(self, place)).collect()
    }

    /// Reads all tables while nothing moves.
    pub fn read_calmly(&mut self) -> Vec<Snapshot> {
        self.land();
        self.tables.iter_mut().map(|table| table.read(|_| {})).collect()
    }

    fn read_torn(&mut self, place: usize) -> Snapshot {
        let mut tear = Tear {
            workloads: &self.cluster.workloads,
            random: &mut self.random,
            in_flight: std::mem::take(&mut self.in_flight[place]),
            arrived: vec![],
            left: self.torn,
        };
        let ruleset = self.tables[place].read(|table| tear.move_on(table));
        let Tear { in_flight, arrived, .. } = tear;
        self.in_flight[place] = in_flight;
        arrived.iter().for_each(|packet| add(&mut self.arrived, &packet.decided));
        ruleset
    }
}

fn add(truth: &mut Truth, decided: &[Key]) {
    for key in decided {
        *truth.entry(key.clone()).or_default() += 1;
    }
}

fn set_out(table: &Table, workloads: &[Workload], endpoint: usize, bias: usize, random: &mut Random) -> Option<Packet> {
    let (workload, direction) = (&workloads[endpoint / 2], Direction::ALL[endpoint % 2]);
    let kind = match random.below(20) {
        0 => Kind::Established,
        1 => Kind::Invalid,
        2 => Kind::Encapsulated,
        _ => Kind::New,
    };
    table.packet(&endpoint_chain(workload, direction), &workload.interface, direction, kind, bias)
}

/// Packets that move while a table is read.
struct Tear<'a> {
    workloads: &'a [Workload],
    random: &'a mut Random,
    in_flight: Vec<Packet>,
    arrived: Vec<Packet>,
    left: usize,
}

impl Tear<'_> {
    fn move_on(&mut self, table: &mut Table) {
        if self.random.percent(90) {
            return;
        }
        if self.left > 0 && self.in_flight.len() < CPUS && self.random.percent(70) {
            self.left -= 1;
            let endpoint = self.random.below(self.workloads.len() * 2);
            let bias = *self.random.pick(&[10, 30, 60]);
            self.in_flight.extend(set_out(table, self.workloads, endpoint, bias, self.random));
        }
        if self.in_flight.is_empty() {
            return;
        }
        let place = self.random.below(self.in_flight.len());
        let mut packet = self.in_flight.swap_remove(place);
        // Most packets pass immediately. A few are held up.
        let steps = if self.random.percent(70) { usize::MAX } else { self.random.between(1, 15) };
        let on_its_way = (0..steps).all(|_| table.step(&mut packet, self.random));
        match on_its_way {
            true => self.in_flight.push(packet),
            false => self.arrived.push(packet),
        }
    }
}
