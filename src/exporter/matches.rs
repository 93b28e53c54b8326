//! What the rules of one policy match on, read when a user looks at it. Touches the kernel through the reader.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::state::State;
use crate::felix::names::direction_of;
use crate::report::{PolicyAnswer, Rule};
use crate::ruleset::{Family, Ruleset};

/// The time limit for all chains together, because scrapes wait in the meantime.
const LIMIT: Duration = Duration::from_secs(2);

/// The matches of the policy that was asked for last. Users ask for it every few seconds, and its rules seldom change.
#[derive(Debug, Default)]
pub struct Known {
    policy: String,
    /// The rulesets in which they were read.
    rulesets: Vec<Weak<Ruleset>>,
    /// As in the answer, without packets.
    rules: Vec<Rule>,
}

pub fn add(state: &mut State, answer: &mut PolicyAnswer) {
    let label = &*answer.policy.policy;
    let State { accounting, reader, matches: known, .. } = state;
    let tables = accounting.tables();
    let is_same = known.policy == label
        && known.rulesets.len() == tables.len()
        && known.rulesets.iter().zip(tables).all(|(known, table)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(&table.ruleset)));
    if !is_same {
        *known = Known { policy: label.to_owned(), ..Known::default() };
        let deadline = Instant::now() + LIMIT;
        for table in tables {
            known.rulesets.push(Arc::downgrade(&table.ruleset));
            let is_meant = |chain| table.labels.get(chain).is_some_and(|of| !of.is_profile && *of.label == *label);
            for policy in table.pipelines.policies().filter(|policy| is_meant(policy.chain)) {
                let chain = &table.ruleset.chain(policy.chain).name;
                let found = reader.matches(&table.ruleset, chain, deadline).unwrap_or_else(|error| {
                    log::debug!("what the rules of {label} match on cannot be read: {error}");
                    Default::default()
                });
                let (direction, family) = (direction_of(chain), Family::name(Some(table.ruleset.family)).into());
                known.rules.extend(policy.rules.iter().map(|rule| Rule {
                    direction,
                    family: Clone::clone(&family),
                    rule: rule.index,
                    action: rule.decision,
                    packets: 0,
                    matches: found.get(&table.ruleset.hash(rule.rule)).cloned(),
                }));
            }
        }
    }
    for rule in &mut answer.policy.rules {
        let is_it = |of: &&Rule| (of.direction, of.rule, of.action) == (rule.direction, rule.rule, rule.action) && of.family == rule.family;
        rule.matches = known.rules.iter().find(is_it).and_then(|known| known.matches.clone());
    }
}
