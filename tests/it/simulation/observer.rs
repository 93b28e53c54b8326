//! An exporter on a simulated node, and the checks of what it shows.

use calico_accountant::felix::Direction;
use calico_accountant::ruleset::Snapshot;

use super::super::captures::Pipeline;
use super::check::{Checker, Shown};
use super::world::{CPUS, World};

/// The exporter without its inputs and outputs.
pub struct Observer {
    exporter: Pipeline,
    /// Whether it trusts its reads, and takes no second look.
    pub credulous: bool,
    pub checker: Checker,
    /// What the last read showed.
    pub shown: Shown,
}

impl Observer {
    /// An exporter that starts now.
    pub fn new(world: &World) -> Self {
        Observer { exporter: Pipeline::new(CPUS), credulous: false, checker: Checker::new(world.least()), shown: Shown::new() }
    }

    /// Reads the node as its setting says. `same_rules`: nothing was rewritten since the last read.
    pub fn read(&mut self, world: &mut World, same_rules: bool) -> Result<(), String> {
        let (rulesets, again) = world.read().into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        self.take(world, (&rulesets, &again), same_rules)
    }

    /// Reads the node while nothing moves.
    pub fn read_calmly(&mut self, world: &mut World) -> Result<(), String> {
        let rulesets = world.read_calmly();
        self.take(world, (&rulesets, &rulesets), true)
    }

    fn take(&mut self, world: &mut World, (rulesets, again): (&[Snapshot], &[Snapshot]), same_rules: bool) -> Result<(), String> {
        note_policies(world, &mut self.checker);
        if std::mem::take(&mut world.endpoints_stayed) {
            self.exporter.endpoints_stayed();
        }
        world.endpoints_stayed = true;
        let again = if self.credulous { rulesets } else { again };
        self.exporter.read_traced(rulesets, again, &std::mem::take(&mut world.told));
        if self.exporter.unrecognised > 0 {
            return Err("a rule is not understood".into());
        }
        self.shown = shown(&self.exporter);
        self.checker.check(&self.shown, &world.most(), same_rules)
    }
}

fn note_policies(world: &World, checker: &mut Checker) {
    for policy in &world.cluster.policies {
        checker.policy(&policy.name, &world.cluster.tiers[policy.tier].name);
    }
    for (workload, direction, _, target) in world.targets() {
        if let [policy] = target.as_slice() {
            checker.direct(&workload.interface, direction, policy);
        }
    }
}

fn shown(exporter: &Pipeline) -> Shown {
    let direction = |name: &str| Direction::ALL.into_iter().find(|d| d.as_str() == name).unwrap();
    exporter.totals().into_iter().map(|((interface, d, item), n)| ((interface.into(), direction(d), item.into()), n)).collect()
}
