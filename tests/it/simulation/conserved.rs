//! Checks that everything that happened is credited, and nothing else, when no packet is in flight any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use calico_accountant::felix::Direction;

use super::check::{Shown, get};
use super::cluster::{Group, Says, TierShape, Workload};
use super::kernel::Key;
use super::world::{Truth, World};

/// Checks all endpoints of a node on which rules have never changed. Derived counts begin at `start`. They may differ by `allowed` packets,
/// because a read during which packets move may lose one that another packet hides.
pub fn check(world: &World, start: &Truth, shown: &Shown, allowed: u64) -> Result<(), String> {
    for workload in world.cluster.workloads.iter().filter(|workload| !workload.host) {
        for direction in Direction::ALL {
            let endpoint = Endpoint { world, start, truth: world.most(), shown, workload, direction, allowed };
            endpoint.check_direct()?;
            for tier in world.cluster.shape(workload, direction) {
                endpoint.check_tier(&tier)?;
            }
        }
    }
    Ok(())
}

struct Endpoint<'a> {
    world: &'a World,
    start: &'a Truth,
    truth: Truth,
    shown: &'a Shown,
    workload: &'a Workload,
    direction: Direction,
    allowed: u64,
}

impl Endpoint<'_> {
    fn interface(&self) -> &Arc<str> {
        &self.workload.interface
    }

    fn of(&self, map: &BTreeMap<Key, u64>, item: &str) -> u64 {
        get(map, self.interface(), self.direction, item)
    }

    fn equal(&self, what: &str, credited: u64, happened: u64) -> Result<(), String> {
        self.near(what, credited, happened, 0)
    }

    fn near(&self, what: &str, credited: u64, happened: u64, allowed: u64) -> Result<(), String> {
        match credited.abs_diff(happened) <= allowed {
            true => Ok(()),
            false => Err(format!("{} {:?} {what}: {credited} credited, {happened} happened", self.interface(), self.direction)),
        }
    }

    fn check_direct(&self) -> Result<(), String> {
        for ((interface, direction, item), shown) in self.shown {
            let counted = !["Accept", "Deny", "Pass", "DenyOrPass", "refused"].contains(&item.split(' ').next().unwrap());
            if counted && interface == self.interface() && *direction == self.direction {
                self.equal(item, *shown, self.of(&self.truth, item))?;
            }
        }
        Ok(())
    }

    /// All that is shown for a target: the counts of its policies, and the joint counts of some of them.
    fn credited(&self, verdict: &str, target: &Group) -> u64 {
        let is_of = |item: &str| {
            let policies = item.strip_prefix(verdict).and_then(|rest| rest.strip_prefix(' '));
            policies.is_some_and(|policies| policies.split(',').all(|policy| target.iter().any(|known| *known == *policy)))
        };
        let here = self
            .shown
            .iter()
            .filter(|((interface, direction, item), _)| interface == self.interface() && *direction == self.direction && is_of(item));
        here.map(|(_, packets)| packets).sum()
    }

    fn ever(&self, verdict: &str, target: &Group) -> u64 {
        target.iter().map(|policy| self.of(&self.truth, &format!("{verdict} {policy}"))).sum()
    }

    fn since_start(&self, verdict: &str, target: &Group) -> u64 {
        self.ever(verdict, target) - target.iter().map(|policy| self.of(self.start, &format!("{verdict} {policy}"))).sum::<u64>()
    }

    fn check_tier(&self, tier: &TierShape) -> Result<(), String> {
        let both = tier.targets.iter().filter(|target| self.can(target, Says::Deny) && self.can(target, Says::Pass)).count();
        for (place, target) in tier.targets.iter().enumerate() {
            let name = target.join(",");
            self.equal(&format!("Accept {name}"), self.credited("Accept", target), self.ever("Accept", target))?;
            // Each family may have its own rules for a policy. Then one may be split and the other not.
            if self.world.tables.len() > 1 {
                continue;
            }
            let (denied, passed) = (self.since_start("Deny", target), self.since_start("Pass", target));
            let (deny, pass) = (self.credited("Deny", target), self.credited("Pass", target));
            let does_both = self.can(target, Says::Deny) && self.can(target, Says::Pass);
            if place + 1 == tier.targets.len() && !tier.has_end {
                // What the target passed on and what no policy decided are counted together.
                if both <= usize::from(does_both) {
                    self.near(&format!("Deny {name}"), deny, denied, self.allowed)?;
                }
                continue;
            }
            self.near(
                &format!("refused or passed {name}"),
                deny + pass + self.credited("DenyOrPass", target),
                denied + passed,
                self.allowed,
            )?;
            if !does_both || (both == 1 && tier.has_end) {
                self.near(&format!("Deny {name}"), deny, denied, self.allowed)?;
                self.near(&format!("Pass {name}"), pass, passed, self.allowed)?;
            }
        }
        Ok(())
    }

    fn can(&self, target: &Group, says: Says) -> bool {
        target.iter().any(|policy| {
            let rules = self.world.cluster.policy(policy).rules[self.direction as usize].as_ref();
            rules.into_iter().flatten().any(|rule| rule.says == says)
        })
    }
}

/// Checks that every packet since `first` was credited to the single policy that decided it.
pub fn check_cells(world: &World, start: &Truth, first: &Shown, shown: &Shown) -> Result<(), String> {
    let truth = world.most();
    for (workload, direction, _, target) in world.targets().filter(|(workload, ..)| !workload.host) {
        let difference =
            |now, then, item: &str| get(now, &workload.interface, direction, item) - get(then, &workload.interface, direction, item);
        for policy in &target {
            let item = format!("Accept {policy}");
            let (credited, happened) = (difference(shown, first, &item), difference(&truth, start, &item));
            if credited != happened {
                return Err(format!("{} {direction:?} {item} of {target:?}: {credited} credited, {happened} happened", workload.interface));
            }
        }
    }
    Ok(())
}
