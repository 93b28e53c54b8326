//! Reads that share their rules with the last one, as the readers' do, and reads that do not: the totals must be the same.

use std::sync::Arc;

use super::super::captures::Pipeline;
use super::random::Random;
use super::world::World;
use super::{for_all_seeds, setting};

fn live(mut random: Random) -> Result<(), String> {
    let setting = setting(&mut random, 1, true);
    let mut world = World::new(&setting, random);
    let (mut sharing, mut fresh) = (Pipeline::default(), Pipeline::default());
    let mut last: Vec<_> = world.read_calmly();
    let mut shared = 0;
    for _ in 0..10 {
        world.burst();
        if world.random.percent(30) {
            world.change();
        }
        let read = world.read_calmly();
        fresh.read(&read);
        let mut tables = read;
        for (table, last) in tables.iter_mut().zip(&last) {
            table.share_rules_of(&last.ruleset);
            shared += usize::from(table.shares_rules_with(last));
        }
        sharing.read(&tables);
        if sharing.totals() != fresh.totals() {
            return Err(format!("{:#?}\nnot\n{:#?}", sharing.totals(), fresh.totals()));
        }
        last = tables;
    }
    match shared {
        0 => Err("nothing was ever shared".into()),
        _ => Ok(()),
    }
}

#[test]
fn sharing_rules_changes_nothing() {
    for_all_seeds(60, live);
}

#[test]
fn rules_that_differ_in_anything_are_not_shared() {
    let mut world = World::new(&setting(&mut Random::new(1), 0, true), Random::new(2));
    let mut read = world.read_calmly();
    let before = Arc::clone(&read[0].ruleset);
    world.change();
    read = world.read_calmly();
    read[0].share_rules_of(&before);
    assert!(!Arc::ptr_eq(&read[0].ruleset, &before));
}
