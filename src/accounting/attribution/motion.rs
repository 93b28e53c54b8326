//! What rules counted while a table was read. Pure.
//!
//! Counters are read one after the other while packets pass. A rule that is read late may have counted a packet that a rule that was read
//! early has not. One read cannot show such half packets, because two of them can look like a whole packet that never existed. A second
//! look right after the first one can: the other half of every packet is what moved between the two.

use std::collections::HashMap;

use crate::ruleset::{Chain, RuleId, Snapshot};

/// What each rule of a table counted between a read and the look after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Motion {
    packets: Vec<u64>,
    /// For rules that are not in `packets`.
    otherwise: u64,
}

/// More than any rule counts between two looks. It is the bound for a rule that was rewritten in between. A sum that contains it is as
/// large, so nothing that may be wrong by that much is certain.
const MORE_THAN_ANY: u64 = 1 << 40;

impl Motion {
    /// For a table in which nothing moved, or that was taken at one instant, as a saved one is.
    pub fn still() -> Self {
        Motion { packets: vec![], otherwise: 0 }
    }

    pub fn unknown() -> Self {
        Motion { packets: vec![], otherwise: MORE_THAN_ANY }
    }

    pub fn between(first: &Snapshot, second: &Snapshot) -> Self {
        let mut packets = vec![MORE_THAN_ANY; first.ruleset.rule_count()];
        let chains: HashMap<&str, &Chain> = match first.shares_rules_with(second) {
            true => HashMap::new(),
            false => second.ruleset.chains().iter().map(|chain| (&*chain.name, chain)).collect(),
        };
        for chain in first.ruleset.chains() {
            let again = if chains.is_empty() { Some(&chain) } else { chains.get(&*chain.name) };
            let Some(again) = again.filter(|again| again.rules.len() == chain.rules.len()) else { continue };
            for (now, then) in chain.rule_ids().zip(again.rule_ids()) {
                let (count, again) = (first.count(now), second.count(then));
                // Text has no handles, but the second look at the same rules may have some.
                let is_same = count.handle == again.handle || count.handle == 0;
                if is_same && first.ruleset.hash(now) == second.ruleset.hash(then) {
                    packets[now.0 as usize] = again.packets.checked_sub(count.packets).unwrap_or(MORE_THAN_ANY);
                }
            }
        }
        Motion { packets, otherwise: MORE_THAN_ANY }
    }

    /// Whether a number of packets, or a sum of such numbers, was read and not assumed.
    pub fn is_known(packets: u64) -> bool {
        packets < MORE_THAN_ANY
    }

    /// Returns how many packets may be held up for longer than two looks take, so that nothing seems to move. It is 0 for a table that was
    /// taken at one instant.
    pub fn held_up(&self) -> u64 {
        u64::from(!(self.packets.is_empty() && self.otherwise == 0))
    }

    pub fn of(&self, rule: RuleId) -> u64 {
        self.packets.get(rule.0 as usize).copied().unwrap_or(self.otherwise)
    }

    pub fn sum(&self, rules: impl IntoIterator<Item = RuleId>) -> u64 {
        rules.into_iter().map(|rule| self.of(rule)).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Backend, Count, test};

    fn table(rules: &[(&str, u64)]) -> Snapshot {
        test::table(Backend::Legacy, &[("c", rules)])
    }

    #[test]
    fn what_moved_is_the_difference_and_what_was_written_is_not_known() {
        let first = table(&[("a", 3), ("b", 5), ("c", 7)]);
        let motion = Motion::between(&first, &table(&[("a", 4), ("b", 5), ("x", 9)]));
        assert_eq!([0, 1, 2].map(|rule| motion.of(RuleId(rule))), [1, 0, MORE_THAN_ANY]);
        let motion = Motion::between(&first, &table(&[("a", 4), ("b", 0)]));
        assert_eq!(motion.of(RuleId(0)), MORE_THAN_ANY);
        assert_eq!(Motion::still().sum([RuleId(0), RuleId(7)]), 0);
        // The read is by `iptables-save`, the look by netlink.
        let with_handles = |table: &Snapshot| {
            let counts = (0..2).map(|rule| Count { handle: 9 + u64::from(rule), ..table.count(RuleId(rule)) });
            Snapshot::new(table.ruleset.clone(), counts.collect(), vec![3])
        };
        let (first, second) = (table(&[("a", 3), ("b", 5)]), table(&[("a", 4), ("b", 5)]));
        assert_eq!(Motion::between(&first, &with_handles(&second)).of(RuleId(0)), 1);
    }
}
