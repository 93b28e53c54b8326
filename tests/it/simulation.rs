//! Attribution against a simulator that knows the truth: random clusters, packets that go through the chains rule by rule, rewrites as
//! Felix makes them, and reads during which packets move.
//!
//! `SIMULATION_RUNS` is the number of random runs of each test. `SIMULATION_SEED` repeats a single run.

mod bounds;
mod check;
mod cluster;
mod conserved;
mod kernel;
mod observer;
pub mod random;
mod shared;
mod world;

use std::sync::Arc;

use calico_accountant::ruleset::{Backend, Family, Snapshot};

use super::captures::parse;
use check::{Checker, Shown};
use cluster::{Era, Says};
use kernel::{Order, Writes};
use observer::Observer;
use random::Random;
use world::{Setting, World};

/// The seeds to try.
fn seeds(runs: u64) -> impl Iterator<Item = u64> {
    let variable = |name| std::env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    match variable("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SIMULATION_RUNS").unwrap_or(runs),
    }
}

/// Runs a simulation for many seeds. Fails with the seeds that failed.
fn for_all_seeds(runs: u64, mut simulate: impl FnMut(Random) -> Result<(), String>) {
    let mut run = |seed| simulate(Random::new(seed)).err().map(|error| format!("SIMULATION_SEED={seed}: {error}"));
    let failures: Vec<String> = seeds(runs).filter_map(&mut run).collect();
    let first = &failures[..failures.len().min(8)];
    assert!(failures.is_empty(), "{} runs failed, the first:\n{}", failures.len(), first.join("\n"));
}

fn setting(random: &mut Random, torn: usize, rewrites: bool) -> Setting {
    let (backend, order, writes) = *random.pick(&[
        (Backend::Legacy, Order::Sorted, Writes::Rules),
        (Backend::Nft, Order::Sorted, Writes::Chains),
        (Backend::Nft, Order::Creation, Writes::Chains),
        (Backend::Native, Order::Creation, Writes::Rules),
        (Backend::Native, Order::Creation, Writes::Chains),
    ]);
    let families = random.pick(&[&[Family::V4][..], &[Family::V4], &[Family::V6], &Family::ALL]).to_vec();
    Setting { era: *random.pick(&Era::ALL), backend, order, writes, families, torn, rewrites, traced: 0 }
}

/// Like [`live`], with the setting in the error.
fn simulate(setting: &Setting, random: Random, reads: usize) -> Result<(), String> {
    live(setting, random, reads).map_err(|error| format!("{error} ({:?} {:?} {:?})", setting.backend, setting.writes, setting.families))
}

/// Simulates an exporter for this number of reads, with occasional restarts. Checks each read.
fn live(setting: &Setting, random: Random, reads: usize) -> Result<(), String> {
    let mut world = World::new(setting, random);
    world.burst();
    let mut start = world.least();
    let mut observer = Observer::new(&world);
    observer.read_calmly(&mut world)?;
    for _ in 0..reads {
        if world.random.percent(5) {
            start = world.least();
            observer = Observer::new(&world);
            observer.read_calmly(&mut world)?;
        }
        let rewritten = setting.rewrites && world.random.percent(30);
        (0..world.random.below(4)).for_each(|_| world.burst());
        if rewritten {
            let before: Vec<_> = world.tables.iter().map(kernel::Table::look).collect();
            world.unrest();
            if !world.shows_what_happened(&before) {
                start = world.least();
                observer = Observer::new(&world);
            }
        }
        observer.read(&mut world, !rewritten)?;
        world.land();
    }
    for _ in 0..3 {
        observer.read_calmly(&mut world)?;
    }
    if !setting.rewrites {
        // At the first and at the last read, one more may be taken for a packet that is held up.
        let on_their_way = if setting.torn > 0 { setting.torn as u64 + 2 } else { 0 };
        conserved::check(&world, &start, &observer.shown, on_their_way)?;
    }
    Ok(())
}

/// Simulates an exporter during whose reads up to three packets move.
fn overtaken(mut random: Random, rewrites: bool) -> Result<(), String> {
    let torn = random.between(1, 3);
    simulate(&setting(&mut random, torn, rewrites), random, 8)
}

fn simulate_overtaken(rewrites: bool) {
    for_all_seeds(200, |random| overtaken(random, rewrites));
}

/// Packets that were traced from rule to rule are credited, and this credits nothing too much.
#[test]
fn lives_in_which_some_packets_are_traced() {
    for traced in [30, 90] {
        for (torn, rewrites) in [(0, true), (2, false), (3, true)] {
            for_all_seeds(100, |mut random| {
                let setting = Setting { traced, ..setting(&mut random, torn, rewrites) };
                simulate(&setting, random, 8)
            });
        }
    }
}

/// With all packets traced, each is credited to the policy that decided it, however many workloads and policies are active.
#[test]
fn traced_packets_are_resolved_completely() {
    for_all_seeds(150, |mut random| {
        let setting = Setting { traced: 100, ..setting(&mut random, 0, false) };
        if setting.backend == Backend::Legacy {
            return Ok(());
        }
        let mut world = World::new(&setting, random);
        world.remove_host_endpoints();
        let mut observer = Observer::new(&world);
        observer.read_calmly(&mut world)?;
        for _ in 0..6 {
            (0..3).for_each(|_| world.burst());
            observer.read(&mut world, true)?;
            conserved::check_cells(&world, &Default::default(), &Shown::new(), &observer.shown)?;
        }
        Ok(())
    });
}

/// Seeds that failed once, or that fail as soon as restarted counters are trusted.
#[test]
fn lives_that_were_wrong_once() {
    let runs = |seeds: &[u64], simulate: &dyn Fn(Random) -> Result<(), String>| {
        let failures: Vec<String> =
            seeds.iter().filter_map(|seed| Some(format!("{seed}: {}", simulate(Random::new(*seed)).err()?))).collect();
        assert!(failures.is_empty(), "{failures:#?}");
    };
    runs(&[4247], &|mut random| simulate(&setting(&mut random, 0, false), random, 6));
    runs(&[213, 1243, 2156, 2908, 3767, 5477, 6809, 8088], &|mut random| simulate(&setting(&mut random, 0, true), random, 8));
    runs(&[1864, 2214, 3391, 4781, 6663, 7295, 7710], &|random| overtaken(random, false));
    runs(&[1066, 3403, 3700, 3864, 4781, 5746, 5897, 5998, 6067], &|random| overtaken(random, true));
}

#[test]
fn whole_reads_of_unchanged_rules_credit_everything() {
    for_all_seeds(120, |mut random| simulate(&setting(&mut random, 0, false), random, 6));
}

#[test]
fn whole_reads_with_rewrites_credit_nothing_that_did_not_happen() {
    for_all_seeds(150, |mut random| simulate(&setting(&mut random, 0, true), random, 8));
}

#[test]
fn a_packet_that_overtakes_a_read_is_credited_later() {
    simulate_overtaken(false);
}

#[test]
fn overtaken_reads_with_rewrites_credit_nothing_that_did_not_happen() {
    simulate_overtaken(true);
}

/// If one workload is active between two reads, every packet is credited to the policy that decided it.
#[test]
fn one_active_workload_is_resolved_completely() {
    for_all_seeds(150, |mut random| {
        let mut world = World::new(&setting(&mut random, 0, false), random);
        world.remove_host_endpoints();
        let mut observer = Observer::new(&world);
        observer.read_calmly(&mut world)?;
        for _ in 0..6 {
            let (table, endpoint) = (world.random.below(world.tables.len()), world.random.below(world.cluster.workloads.len() * 2));
            let packets = world.random.between(0, 20);
            world.flow(table, endpoint, packets);
            observer.read(&mut world, true)?;
            conserved::check_cells(&world, &Default::default(), &Shown::new(), &observer.shown)?;
        }
        Ok(())
    });
}

/// The same if only one policy can accept, however many workloads are active.
#[test]
fn one_accepting_policy_is_resolved_completely() {
    for_all_seeds(150, |mut random| {
        let mut world = World::new(&setting(&mut random, 0, false), random);
        world.remove_host_endpoints();
        let policies = world.cluster.policies.iter_mut().skip(1);
        policies.flat_map(|policy| policy.rules.iter_mut().flatten()).for_each(|rules| rules.retain(|rule| rule.says != Says::Accept));
        world.write();
        let mut observer = Observer::new(&world);
        observer.read_calmly(&mut world)?;
        for _ in 0..4 {
            world.burst();
            observer.read(&mut world, true)?;
            conserved::check_cells(&world, &Default::default(), &Shown::new(), &observer.shown)?;
        }
        Ok(())
    });
}

/// Prints how much of a mixed load through groups is credited to single policies. No share is promised.
#[test]
fn the_share_of_mixed_load_that_is_resolved() {
    let (mut single, mut joined) = (0, 0);
    for_all_seeds(100, |mut random| {
        let mut world = World::new(&setting(&mut random, 0, false), random);
        let mut observer = Observer::new(&world);
        observer.read_calmly(&mut world)?;
        for _ in 0..6 {
            (0..3).for_each(|_| world.burst());
            observer.read(&mut world, true)?;
        }
        for (workload, direction, _, target) in world.targets().filter(|(_, _, _, target)| target.len() > 1) {
            for ((_, _, item), packets) in observer.shown.iter().filter(|((i, d, _), _)| *i == workload.interface && *d == direction) {
                let Some(policies) = item.strip_prefix("Accept ") else { continue };
                if policies.split(',').all(|policy| target.iter().any(|of_group| of_group == policy)) {
                    *if policies.contains(',') { &mut joined } else { &mut single } += packets;
                }
            }
        }
        Ok(())
    });
    println!("mixed load: of {} packets that groups accepted, {single} are credited to single policies", single + joined);
    assert!(single > 0 && joined > 0);
}

/// The second look is needed: without it, packets are credited that did not exist.
#[test]
fn without_a_second_look_some_packets_never_were() {
    let mut wrong = 0;
    for_all_seeds(200, |mut random| {
        let mut world = World::new(&setting(&mut random, 3, false), random);
        let mut observer = Observer::new(&world);
        observer.credulous = true;
        observer.read_calmly(&mut world)?;
        let reads = (0..8).try_for_each(|_| {
            (0..world.random.below(4)).for_each(|_| world.burst());
            let read = observer.read(&mut world, true);
            world.land();
            read
        });
        wrong += usize::from(reads.is_err());
        Ok(())
    });
    assert!(wrong > 0);
}

/// Runs one of the test's own bounds through the checker. Returns how many runs it rejects.
fn rejections(bound: bounds::Bound) -> usize {
    let mut rejected = 0;
    for_all_seeds(60, |mut random| {
        let mut world = World::new(&setting(&mut random, 0, false), random);
        let (checker, mut shown) = (Checker::new(world.least()), Shown::new());
        for _ in 0..4 {
            let before = world.least();
            (0..3).for_each(|_| world.burst());
            bounds::credit(&world, &before, &world.least(), bound, &mut shown);
        }
        rejected += usize::from(checker.check_bounds(&shown, &world.most()).is_err());
        Ok(())
    });
    rejected
}

/// The checks are strict enough to reject a bound that is a little too high.
#[test]
fn a_deliberately_wrong_bound_is_rejected() {
    assert_eq!(rejections(bounds::lower), 0);
    assert!(rejections(bounds::upper) > 0);
    assert!(rejections(bounds::proportional) > 0);
}

#[test]
fn the_simulated_text_is_what_the_parser_reads() {
    for_all_seeds(20, |mut random| {
        let mut world = World::new(&setting(&mut random, 0, true), random);
        world.burst();
        let rulesets = world.read_calmly();
        for (table, ruleset) in world.tables.iter().zip(rulesets) {
            let parsed = parse(&table.text(), table.family, table.backend, "filter");
            if parsed.ruleset.unreadable > 0 || contents(&parsed) != contents(&ruleset) {
                return Err(table.text());
            }
        }
        Ok(())
    });
}

/// A rule's chain, count, text and comments.
type Content = (Arc<str>, u64, String, Vec<Arc<str>>);

/// All rules, without a reader's internal numbers of names and comments.
fn contents(table: &Snapshot) -> Vec<Content> {
    let ruleset = &table.ruleset;
    let rule = |name: &Arc<str>, id| {
        let rule = ruleset.rule(id);
        let verdict = format!("{:?} {:?} {:?} {:?} {}", ruleset.hash(id), rule.mark, rule.ctstate, rule.verdict, rule.other_matches);
        let comments = ruleset.comments_of(id).iter().map(|comment| Arc::clone(&ruleset.comments()[comment.0 as usize]));
        (Arc::clone(name), table.packets(id), verdict, comments.collect())
    };
    ruleset.chains().iter().flat_map(|chain| chain.rule_ids().map(|id| rule(&chain.name, id))).collect()
}
