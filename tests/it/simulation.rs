//! Attribution against a simulator that knows the truth: random clusters, packets that are carried through the chains rule by rule,
//! rewrites as Felix does them, and reads that packets overtake.
//!
//! `SIMULATION_RUNS` sets how many random runs each test makes, `SIMULATION_SEED` makes it repeat a single one.

mod check;
mod cluster;
mod kernel;
mod random;
mod world;

use calico_accountant::felix::Direction;
use calico_accountant::ruleset::{Backend, Family};

use super::captures::{Pipeline, parse};
use check::{Checker, Shown};
use cluster::Era;
use kernel::Order;
use random::Random;
use world::{Setting, Truth, World};

/// The seeds to try.
fn seeds(runs: u64) -> impl Iterator<Item = u64> {
    let variable = |name| std::env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    match variable("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SIMULATION_RUNS").unwrap_or(runs),
    }
}

/// Runs `simulate` for many seeds; says which one failed.
fn for_all_seeds(runs: u64, mut simulate: impl FnMut(Random) -> Result<(), String>) {
    let failures: Vec<String> = seeds(runs).filter_map(|seed| simulate(Random::new(seed)).err().map(|e| format!("SIMULATION_SEED={seed}: {e}"))).collect();
    assert!(failures.is_empty(), "{} runs failed, first:\n{}", failures.len(), failures[..failures.len().min(8)].join("\n"));
}

fn setting(random: &mut Random, torn: usize, rewrites: bool) -> Setting {
    let backend = *random.pick(&[Backend::Legacy, Backend::Nft]);
    let families = random.pick(&[&[Family::V4][..], &[Family::V4], &[Family::V6], &Family::ALL]).to_vec();
    Setting { era: *random.pick(&Era::ALL), backend, order: Order::Sorted, families, torn, rewrites }
}

/// An exporter and the checks of what it shows.
struct Observer {
    exporter: Pipeline,
    checker: Checker,
    shown: Shown,
}

impl Observer {
    fn new(world: &World) -> Self {
        Observer { exporter: Pipeline::default(), checker: Checker::new(world.least()), shown: Shown::new() }
    }

    fn read(&mut self, world: &mut World, same_rules: bool) -> Result<(), String> {
        let rulesets = world.read();
        self.take(world, &rulesets, same_rules)
    }

    fn read_calmly(&mut self, world: &mut World) -> Result<(), String> {
        let rulesets = world.read_calmly();
        self.take(world, &rulesets, true)
    }

    fn take(&mut self, world: &World, rulesets: &[calico_accountant::ruleset::Ruleset], same_rules: bool) -> Result<(), String> {
        note_policies(world, &mut self.checker);
        self.exporter.read(rulesets);
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
    for workload in &world.cluster.workloads {
        for direction in Direction::ALL {
            for target in world.cluster.shape(workload, direction).iter().flat_map(|tier| &tier.targets) {
                if let [policy] = target.as_slice() {
                    checker.direct(&workload.interface, direction, policy);
                }
            }
        }
    }
}

fn shown(exporter: &Pipeline) -> Shown {
    let direction = |name: &str| Direction::ALL.into_iter().find(|d| d.as_str() == name).unwrap();
    exporter.totals().into_iter().map(|((interface, d, item), n)| ((interface.into(), direction(d), item.into()), n)).collect()
}

#[test]
fn text_and_builder_agree() {
    for_all_seeds(20, |mut random| {
        let setting = setting(&mut random, 0, false);
        let mut world = World::new(&setting, random);
        world.burst();
        let rulesets = world.read();
        for (table, ruleset) in world.tables.iter().zip(rulesets) {
            let parsed = parse(&table.text(), table.family, table.backend);
            let rules = |r: &calico_accountant::ruleset::Ruleset| {
                r.chains().iter().flat_map(|chain| chain.rule_ids().map(|id| (chain.name.clone(), r.packets(id), r.rule(id).verdict, r.rule(id).hash, r.rule(id).mark, r.comments_of(id).iter().map(|c| r.comments()[c.0 as usize].clone()).collect::<Vec<_>>())).collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            if rules(&parsed) != rules(&ruleset) || parsed.unreadable > 0 {
                return Err(table.text());
            }
        }
        Ok(())
    });
}

fn simulate(setting: &Setting, random: Random, reads: usize) -> Result<(), String> {
    let mut world = World::new(setting, random);
    world.burst();
    let mut observer = Observer::new(&world);
    observer.read(&mut world, false)?;
    let start_most = world.most();
    world.land();
    for _ in 0..reads {
        let rewritten = setting.rewrites && world.random.percent(30);
        for _ in 0..world.random.below(4) {
            world.burst();
        }
        if rewritten {
            world.change();
            world.burst();
        }
        if std::env::var_os("SIMULATION_TRACE").is_some() {
            for table in &world.tables {
                eprintln!("{}", table.text());
            }
            eprintln!("rewritten: {rewritten} {setting:?}");
        }
        observer.read(&mut world, !rewritten)?;
        world.land();
        if std::env::var_os("SIMULATION_TRACE").is_some() {
            for (k, v) in &observer.shown {
                eprintln!("{} {:?} {} = {v} / {}", k.0, k.1, k.2, check::get(&world.most(), &k.0, k.1, &k.2));
            }
        }
    }
    for _ in 0..3 {
        observer.read_calmly(&mut world)?;
    }
    if setting.rewrites { Ok(()) } else { conserved(&world, &observer, &start_most) }
}

/// Everything is credited once packets and reads have come to rest.
fn conserved(world: &World, observer: &Observer, _start: &Truth) -> Result<(), String> {
    let truth = world.most();
    for workload in world.cluster.workloads.iter().filter(|w| !w.host) {
        for direction in Direction::ALL {
            for target in world.cluster.shape(workload, direction).iter().flat_map(|tier| &tier.targets) {
                let get = |map, item: &str| check::get(map, &workload.interface, direction, item);
                let ever: u64 = target.iter().map(|p| get(&truth, &format!("Accept {p}"))).sum();
                let mut credited: u64 = target.iter().map(|p| get(&observer.shown, &format!("Accept {p}"))).sum();
                if target.len() > 1 {
                    credited += get(&observer.shown, &format!("Accept {}", target.join(",")));
                }
                if credited != ever {
                    return Err(format!("{} {direction:?} {target:?}: {credited} accepts credited, {ever} happened", workload.interface));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn whole_reads_of_unchanged_rules() {
    for_all_seeds(300, |mut random| simulate(&setting(&mut random, 0, false), random, 6));
}

#[test]
fn whole_reads_with_rewrites() {
    for_all_seeds(300, |mut random| simulate(&setting(&mut random, 0, true), random, 10));
}

#[test]
fn torn_reads_of_unchanged_rules() {
    for_all_seeds(300, |mut random| simulate(&setting(&mut random, 1, false), random, 8));
}

#[test]
fn torn_reads_with_rewrites() {
    for_all_seeds(300, |mut random| simulate(&setting(&mut random, 1, true), random, 10));
}
