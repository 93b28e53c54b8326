//! The one way from tables to totals: a read, and a second look where something must be derived from it → [`Attribution`]. Pure state;
//! the second look is the caller's.

use log::debug;

use crate::attribution::{Attribution, Datastore, Motion, Moved, NodeTotals, Programs, Reach, Table, Totals, moved, settle_ages};
use crate::ebpf;
use crate::felix::{Catalog, ChainNames, Structure, Structures};
use crate::ledger::{Deltas, Ledger};
use crate::ruleset::Snapshot;

/// All that is known of the packets so far.
#[derive(Debug)]
pub struct Accounting {
    ledger: Ledger,
    structures: Structures,
    attribution: Attribution,
    cpus: u64,
    endpoints_stayed: bool,
    /// What counted while the tables were read the last time.
    moved: Vec<Moved>,
}

impl Accounting {
    /// Nothing has been read yet. `cpus`: how many CPUs the node has; each works on one packet at a time.
    pub fn new(cpus: usize) -> Self {
        Accounting {
            ledger: Ledger::new(),
            structures: Structures::default(),
            attribution: Attribution::default(),
            cpus: cpus as u64,
            endpoints_stayed: false,
            moved: Vec::new(),
        }
    }

    /// Takes over the names that the datastore has for chains.
    pub fn rename(&mut self, chain_names: ChainNames) {
        self.structures.rename(chain_names);
    }

    /// Whether any rule counts less than at the last read, though it seems to be the same: a reason to read again.
    pub fn went_back(&self, tables: &[Snapshot]) -> bool {
        self.ledger.went_back(tables)
    }

    /// Notes that whoever watches the endpoints knows of none that has come or gone since the last read. It holds for the next read.
    pub fn note_that_endpoints_stayed(&mut self) {
        self.endpoints_stayed = true;
    }

    /// Takes in one read: all tables of it, both families. `look_again` reads the same tables once more, at once, where packets may
    /// have been on their way; it gives none if the tables are those of one instant.
    pub fn advance<E: std::fmt::Display>(&mut self, read: &[Snapshot], look_again: impl FnOnce(&[Snapshot]) -> Result<Vec<Snapshot>, E>) {
        let mut deltas = self.ledger.advance(read);
        self.structures.update(read.iter().map(|table| &table.ruleset));
        let motions = self.motions(read, &deltas, look_again);
        let none = Moved::default();
        let mut reach = Vec::with_capacity(read.len());
        for (place, structure) in self.structures.tables().iter().enumerate() {
            let (motion, moved) = (&motions[place], self.moved.get(place).unwrap_or(&none));
            reach.push(settle_ages((&read[place], &structure.pipelines), &mut deltas[place], (motion, moved), self.cpus));
        }
        self.moved = read.iter().zip(&motions).map(|(read, motion)| moved(read, motion)).collect();
        let (cpus, endpoints_stayed) = (self.cpus, std::mem::take(&mut self.endpoints_stayed));
        let tables = self.structures.tables().iter().zip(&deltas).zip(&motions).zip(&reach);
        let tables: Vec<Table> =
            tables.map(|(((s, deltas), motion), reach)| Table { cpus, endpoints_stayed, ..Table::new(s, deltas, motion, reach) }).collect();
        self.attribution.advance(&tables);
    }

    /// What has moved while the tables were read, where that matters.
    fn motions<E: std::fmt::Display>(
        &self,
        read: &[Snapshot],
        deltas: &[Deltas],
        look_again: impl FnOnce(&[Snapshot]) -> Result<Vec<Snapshot>, E>,
    ) -> Vec<Motion> {
        let (still, reach) = (Motion::still(), Reach::default());
        let tables = self.structures.tables().iter().zip(deltas);
        if !tables.map(|(structure, deltas)| Table::new(structure, deltas, &still, &reach)).any(|table| table.has_to_be_derived()) {
            return vec![still; read.len()];
        }
        let again = match look_again(read) {
            Ok(again) => again,
            Err(error) => {
                debug!("a second look at the kernel's counters failed, so what must be derived waits: {error}");
                return vec![Motion::unknown(); read.len()];
            }
        };
        // Nothing moves in rules that are not this kernel's.
        let is_there = again.iter().any(|table| !table.ruleset.chains().is_empty());
        let otherwise = if is_there { Motion::unknown() } else { still };
        let motion = |first: &Snapshot| {
            let second = again.iter().find(|second| second.ruleset.id() == first.ruleset.id());
            second.filter(|_| is_there).map_or_else(|| otherwise.clone(), |second| Motion::between(first, second))
        };
        read.iter().map(motion).collect()
    }

    /// Takes in one read of the eBPF dataplane.
    pub fn advance_programs(&mut self, read: &ebpf::Snapshot, datastore: Datastore) {
        // So that tables, should Calico go back to them, are not compared with what they held before.
        self.ledger.leave();
        self.structures.update(std::iter::empty());
        self.attribution.advance_programs(read, datastore);
    }

    /// Notes that there is nothing of Calico's any more: what comes back there will have counted from 0.
    pub fn vanished(&mut self) {
        self.ledger.advance(&[]);
    }

    /// Counts from here on: all totals are 0 again.
    pub fn restart(&mut self) {
        self.attribution.restart();
    }

    /// Hides what it takes two reads to tell.
    pub fn forget_derived(&mut self) {
        match self.attribution.programs() {
            Some(_) => self.attribution.forget_endpoints(),
            None => self.attribution.forget_derived(),
        }
    }

    /// What has been counted so far for each endpoint.
    pub fn totals(&self) -> &Totals {
        self.attribution.totals()
    }

    /// What has been counted so far for the node as a whole.
    pub fn node(&self) -> &NodeTotals {
        self.attribution.node()
    }

    /// All of it.
    pub fn attribution(&self) -> &Attribution {
        &self.attribution
    }

    /// The eBPF dataplane's programs, while that is what is read.
    pub fn programs(&self) -> Option<&Programs> {
        self.attribution.programs()
    }

    /// What the tables of the last read mean.
    pub fn tables(&self) -> &[Structure] {
        self.structures.tables()
    }

    /// Policy chains that nothing names: only the datastore's policies could (Calico ≤ 3.21).
    pub fn unnamed(&self) -> usize {
        self.structures.unnamed()
    }

    /// Rules in Calico's chains that are not understood, and lines that are no rule.
    pub fn unrecognised(&self) -> u64 {
        self.structures.unrecognised()
    }

    /// The policies and groups of the dataplane that was read last.
    pub fn catalog(&self) -> &Catalog {
        match self.programs() {
            Some(programs) => programs.catalog(),
            None => self.structures.catalog(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::{Item, Verdict};
    use crate::felix::Direction;
    use crate::iptables::text::Parser;
    use crate::ruleset::{Backend, Family};

    /// An endpoint with one policy that accepts and refuses: packets at the jump, at the return of what was accepted, at the policy's two
    /// rules, and at the end of the tier.
    fn table([jump, accepted, accepts, denies, end]: [u64; 5]) -> Snapshot {
        let rule = |packets: u64, chain: &str, hash: &str, rest: &str| {
            format!("[{packets}:{packets}] -A {chain} -m comment --comment \"cali:{hash:a<16}\" {rest}\n")
        };
        let (policy, endpoint) = ("cali-pi-_p", "cali-tw-cali1");
        let rules = [
            rule(
                accepts,
                policy,
                "1",
                "-m comment --comment \"Policy default/default.p ingress\" -s 10.0.0.1 -j MARK --set-xmark 0x10000/0x10000",
            ),
            rule(accepts, policy, "2", "-m mark --mark 0x10000/0x10000 -j RETURN"),
            rule(denies, policy, "3", "-s 10.0.0.2 -j DROP"),
            rule(jump, endpoint, "4", "-m comment --comment \"Start of policies\" -j MARK --set-xmark 0x0/0x20000"),
            rule(jump, endpoint, "5", "-m mark --mark 0x0/0x20000 -j cali-pi-_p"),
            rule(accepted, endpoint, "6", "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN"),
            rule(end, endpoint, "7", "-m comment --comment \"Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP"),
        ];
        let mut parser = Parser::new(Family::V4, Backend::Legacy, "filter");
        parser.push(format!("*filter\n:{policy} - [0:0]\n:{endpoint} - [0:0]\n{}COMMIT\n", rules.concat()).as_bytes());
        parser.finish().unwrap()
    }

    fn read(accounting: &mut Accounting, first: [u64; 5], second: Option<[u64; 5]>) -> u64 {
        let look_again = |_: &[Snapshot]| second.map(|second| vec![table(second)]).ok_or("no answer");
        accounting.advance(&[table(first)], look_again);
        let (_, endpoint) = accounting.totals().workloads().next().unwrap();
        let is_deny = |item: &Item| matches!(item, Item::Policy { verdict: Verdict::Deny, .. });
        accounting.totals().shown(endpoint, Direction::Ingress).find(|total| is_deny(&total.item)).map_or(0, |total| total.packets)
    }

    /// Two packets went in, and nothing came out yet.
    const INSIDE: [u64; 5] = [2, 0, 0, 2, 0];

    #[test]
    fn what_the_second_look_shows_to_be_on_its_way_is_not_refused_yet() {
        let counted = |second| {
            let mut accounting = Accounting::new(2);
            read(&mut accounting, [0; 5], Some([0; 5]));
            read(&mut accounting, INSIDE, second)
        };
        assert_eq!(counted(Some(INSIDE)), 2, "nothing moved");
        assert_eq!(counted(Some([2, 1, 1, 2, 0])), 1, "one was on its way, and was accepted");
        assert_eq!(counted(None), 0, "nobody looked");
        assert_eq!(counted(Some([2, 5, 5, 2, 0])), 0, "no more than the CPUs are at work on");
    }

    #[test]
    fn what_was_on_its_way_is_credited_by_the_next_read() {
        let mut accounting = Accounting::new(2);
        read(&mut accounting, [0; 5], Some([0; 5]));
        assert_eq!(read(&mut accounting, INSIDE, None), 0);
        assert_eq!(read(&mut accounting, INSIDE, Some(INSIDE)), 2);
    }

    #[test]
    fn a_debt_ends_with_the_first_look_in_which_nothing_moves() {
        let mut accounting = Accounting::new(2);
        // Seven packets go by while the first read is made: as many too few may the next difference show.
        read(&mut accounting, [7, 7, 7, 0, 0], Some([14, 14, 14, 0, 0]));
        let quiet = [20, 20, 20, 0, 0];
        assert_eq!(read(&mut accounting, quiet, Some(quiet)), 0);
        let refused = [25, 20, 20, 5, 0];
        assert_eq!(read(&mut accounting, refused, Some(refused)), 5);
    }
}
