//! What must hold after every read, whatever has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use calico_accountant::felix::Direction;

use super::kernel::Key;
use super::world::Truth;

/// Every total that is shown.
pub type Shown = BTreeMap<Key, u64>;

/// The checks of one exporter.
#[derive(Default)]
pub struct Checker {
    /// What had happened to packets when the first read began.
    start: Truth,
    /// The highest value of every series.
    highest: Shown,
    last: Shown,
    /// Policies that have had their own jump at an endpoint: what they accept is counted directly, since the kernel's start.
    direct: BTreeSet<(Arc<str>, Direction, Arc<str>)>,
    /// The tier of every policy that ever existed.
    tiers: BTreeMap<String, String>,
}

/// Verdicts that are credited together, and the verdicts of the truth that they cover.
const CLASSES: [(&[&str], &[&str]); 4] =
    [(&["Accept"], &["Accept"]), (&["Deny"], &["Deny"]), (&["Pass"], &["Pass"]), (&["Deny", "Pass", "DenyOrPass"], &["Deny", "Pass"])];

pub fn get(map: &BTreeMap<Key, u64>, interface: &Arc<str>, direction: Direction, item: &str) -> u64 {
    map.get(&(Arc::clone(interface), direction, Arc::from(item))).copied().unwrap_or(0)
}

impl Checker {
    /// The checks of an exporter whose first read begins now.
    pub fn new(start: Truth) -> Self {
        Checker { start, ..Checker::default() }
    }

    /// Records a policy.
    pub fn policy(&mut self, name: &str, tier: &str) {
        self.tiers.insert(name.into(), tier.into());
    }

    /// Records a policy with its own jump.
    pub fn direct(&mut self, interface: &Arc<str>, direction: Direction, policy: &str) {
        self.direct.insert((Arc::clone(interface), direction, policy.into()));
    }

    /// Checks a read. `same_rules`: nothing was rewritten since the last one.
    pub fn check(&mut self, shown: &Shown, truth: &Truth, same_rules: bool) -> Result<(), String> {
        self.check_monotone(shown, same_rules)?;
        self.check_bounds(shown, truth)?;
        for (key, value) in shown {
            self.highest.insert(key.clone(), *value);
        }
        self.last.clone_from(shown);
        Ok(())
    }

    fn check_monotone(&self, shown: &Shown, same_rules: bool) -> Result<(), String> {
        for (key, highest) in &self.highest {
            match shown.get(key) {
                Some(now) if now < highest => return Err(format!("{key:?} went from {highest} to {now}")),
                None if same_rules && self.last.contains_key(key) && !goes_by_the_sum(key, shown) => {
                    return Err(format!("{key:?} has vanished"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that nothing is credited that did not happen.
    pub fn check_bounds(&self, shown: &Shown, truth: &Truth) -> Result<(), String> {
        let endpoints: BTreeSet<(&Arc<str>, Direction)> = shown.keys().map(|(interface, direction, _)| (interface, *direction)).collect();
        for (interface, direction) in endpoints {
            let here: Vec<(&str, u64)> =
                shown.iter().filter(|(k, _)| k.0 == *interface && k.1 == direction).map(|(k, n)| (&*k.2, *n)).collect();
            let endpoint = Endpoint { checker: self, interface, direction, truth, shown: here };
            endpoint.check_policies()?;
            endpoint.check_others()?;
        }
        Ok(())
    }
}

/// Whether what a policy denied and what it passed are no longer distinguished.
fn goes_by_the_sum((interface, direction, item): &Key, shown: &Shown) -> bool {
    let policy = ["Deny ", "Pass "].iter().find_map(|verdict| item.strip_prefix(verdict));
    policy.is_some_and(|policy| shown.contains_key(&(Arc::clone(interface), *direction, format!("DenyOrPass {policy}").into())))
}

struct Endpoint<'a> {
    checker: &'a Checker,
    interface: &'a Arc<str>,
    direction: Direction,
    truth: &'a Truth,
    shown: Vec<(&'a str, u64)>,
}

impl Endpoint<'_> {
    fn ever(&self, item: &str) -> u64 {
        get(self.truth, self.interface, self.direction, item)
    }

    fn since_start(&self, item: &str) -> u64 {
        self.ever(item) - get(&self.checker.start, self.interface, self.direction, item)
    }

    /// What a policy has decided that may be credited to it, `alone` or together with others.
    fn decided(&self, verdicts: &[&str], policy: &str, alone: bool) -> u64 {
        let direct = self.checker.direct.contains(&(Arc::clone(self.interface), self.direction, policy.into()));
        let count = |verdict: &&str| match *verdict {
            "Accept" if !alone || direct => self.ever(&format!("Accept {policy}")),
            verdict => self.since_start(&format!("{verdict} {policy}")),
        };
        verdicts.iter().map(count).sum()
    }

    /// Checks that no set of policies is credited with more than these have decided. This covers single policies, groups with all their
    /// members, and groups that were changed and share members.
    fn check_policies(&self) -> Result<(), String> {
        for (credited_as, verdicts) in CLASSES {
            let policies =
                |item: &'_ str| item.split_once(' ').filter(|(verdict, _)| credited_as.contains(verdict)).map(|(_, p)| p.to_owned());
            let items: Vec<(BTreeSet<String>, u64)> =
                self.shown.iter().filter_map(|(item, n)| Some((policies(item)?.split(',').map(str::to_owned).collect(), *n))).collect();
            let sets: BTreeSet<&BTreeSet<String>> = items.iter().map(|(set, _)| set).collect();
            for set in sets {
                let credited: u64 = items.iter().filter(|(other, _)| other.is_subset(set)).map(|(_, n)| n).sum();
                let decided: u64 = set.iter().map(|policy| self.decided(verdicts, policy, set.len() == 1)).sum();
                if credited > decided {
                    let (interface, direction) = (self.interface, self.direction);
                    return Err(format!("{interface} {direction:?} {credited_as:?} {set:?}: {credited} credited, {decided} decided"));
                }
            }
        }
        Ok(())
    }

    fn refused_in(&self, tier: &str) -> u64 {
        let policies = self.checker.tiers.iter().filter(|(_, of)| *of == tier);
        policies.map(|(policy, _)| self.since_start(&format!("Deny {policy}"))).sum()
    }

    fn check_others(&self) -> Result<(), String> {
        for (item, shown) in &self.shown {
            let word = item.split(' ').next().unwrap_or_default();
            let most = match word {
                "Accept" | "Deny" | "Pass" | "DenyOrPass" => continue,
                "refused" => self.refused_in(&item["refused ".len()..]),
                _ => self.ever(item),
            };
            if *shown > most {
                return Err(format!("{} {:?} {item}: {shown} shown, {most} happened", self.interface, self.direction));
            }
        }
        Ok(())
    }
}
