//! A parent that comes back with less than it acknowledged.

use cdc_model::{Refusal, Remedy, Sequence};
use cdc_relay::{Outbound, Stop};

use crate::world::{Disk, Mutant, Mutants, World, small_options};

/// A child with five rows, all acknowledged, and the parent's disk as it was after each.
fn before(mutants: Mutants) -> (World, Vec<Disk>) {
    let mut world = World::new(2, &small_options(), mutants);
    let mut copies = vec![world.nodes[1].disk.clone()];
    for _ in 0..5 {
        world.nodes[0].write(world.now);
        world.nodes[0].sync();
        world.carry_unarchived();
        world.nodes[0].sync();
        copies.push(world.nodes[1].disk.clone());
    }
    let link = world.nodes[0].sender.as_ref().unwrap().outbound();
    assert!(world.nodes[0].commit(|disk| disk.outbound = link));
    (world, copies)
}

fn restore_parent(world: &mut World, copy: &Disk) {
    world.nodes[1].disk = copy.clone();
    world.nodes[1].crash();
}

/// The parent is empty; the child's link must not begin anew by itself.
fn lost(mutants: Mutants) -> Result<Stop, String> {
    let (mut world, copies) = before(mutants);
    restore_parent(&mut world, &copies[0]);
    world.restart(0);
    world.carry_unarchived();
    world.stop_of(0).ok_or_else(|| format!("it went on to {:?}", world.nodes[1].disk.tail()))
}

#[test]
fn a_parent_without_a_mark_is_not_a_fresh_one() {
    let after = Sequence::new(5);
    let stop = lost(&[]).unwrap();
    assert_eq!(stop, Stop::Refused(Refusal::ParentLostState { after }));
    assert_eq!(stop.remedy(), Remedy::Restore);
    lost(&[Mutant::LostMarkIsFresh]).unwrap_err();
}

#[test]
fn a_running_link_notices_at_its_next_batch() {
    let (mut world, copies) = before(&[]);
    restore_parent(&mut world, &copies[0]);
    world.nodes[0].write(world.now);
    world.nodes[0].sync();
    world.carry_unarchived();
    let after = Sequence::new(5);
    assert_eq!(world.stop_of(0), Some(Stop::Refused(Refusal::ParentLostState { after })));
}

#[test]
fn a_rebuilt_parent_gets_everything_again_after_the_declared_begin() {
    for settled in 0..=5 {
        let (mut world, copies) = before(&[]);
        restore_parent(&mut world, &copies[0]);
        world.marks = vec![Sequence::ZERO; 2];
        let begin = world.nodes[0].disk.position(settled);
        let child = &mut world.nodes[0];
        assert!(child.commit(|disk| disk.outbound = disk.outbound.begun_anew_at(begin)));
        world.restart(0);
        world.heal().unwrap();
        let rows = world.nodes[1].disk.rows.len();
        assert_eq!(rows, 5 - settled, "begun after {settled}");
        assert_eq!(world.nodes[0].sender.as_ref().unwrap().acked(), world.nodes[0].disk.tail());
    }
}

#[test]
fn a_parent_restored_to_an_older_copy_stops_the_link_until_an_explicit_act() {
    for kept in 1..=5 {
        let (mut world, copies) = before(&[]);
        restore_parent(&mut world, &copies[kept]);
        world.marks = vec![Sequence::ZERO; 2];
        world.restart(0);
        world.carry_unarchived();
        let stop = world.stop_of(0);
        if kept < 5 {
            let mark = world.nodes[0].disk.position(kept);
            assert_eq!(stop, Some(Stop::ReceiverRewound { acked: Sequence::new(5), mark }));
            assert_eq!(world.nodes[1].disk.rows.len(), kept, "nothing moves before the act");
            let child = &mut world.nodes[0];
            assert!(child.commit(|disk| disk.outbound = disk.outbound.rewound_to(mark)));
            world.restart(0);
        } else {
            assert_eq!(stop, None);
        }
        world.heal().unwrap();
        world.check_arrived().unwrap();
    }
}

#[test]
fn a_new_parent_takes_only_what_happened_after_the_switch() {
    let (mut world, copies) = before(&[]);
    restore_parent(&mut world, &copies[0]); // stands for another object that never saw the child
    world.marks = vec![Sequence::ZERO; 2];
    let begin = world.nodes[0].disk.position(3);
    let child = &mut world.nodes[0];
    assert!(child.commit(|disk| disk.outbound = Outbound::beginning_at(begin)));
    world.restart(0);
    world.nodes[0].write(world.now);
    world.nodes[0].sync();
    world.heal().unwrap();
    world.check_arrived().unwrap();
    let origins: Vec<_> = world.nodes[1].disk.rows.iter().map(|row| row.origin_sequence.get()).collect();
    assert_eq!(origins, [4, 5, 6]);
}
