//! A child that comes back with an older copy of its log.

use cdc_model::{Epoch, Sequence};
use cdc_relay::{Outbound, Stop};

use crate::world::{Disk, Mutant, Mutants, Step, World, epoch, small_options};

/// A child's log of `len` rows, of which the parent has taken `mark`; restored to `prefix` rows, of which it went on
/// with `more` others.
#[derive(Clone, Copy, Debug)]
struct Case {
    len: usize,
    mark: usize,
    prefix: usize,
    more: usize,
}

fn every_case() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in 1..=8 {
        for mark in 0..=len {
            for prefix in 0..len {
                for more in 0..=9 - prefix {
                    cases.push(Case { len, mark, prefix, more });
                }
            }
        }
    }
    cases
}

/// The world before the restore, and the child's disk as it was after each row.
fn before(case: Case, mutants: Mutants) -> (World, Vec<Disk>) {
    let mut world = World::new(2, &small_options(), mutants);
    let mut copies = vec![world.nodes[0].disk.clone()];
    for row in 1..=case.len {
        world.nodes[0].write(world.now);
        world.nodes[0].sync();
        copies.push(world.nodes[0].disk.clone());
        if row <= case.mark {
            world.heal().expect("nothing is wrong yet");
        }
    }
    (world, copies)
}

fn restore(world: &mut World, copy: &Disk) {
    let child = &mut world.nodes[0];
    child.disk = copy.clone();
    child.crash();
}

/// What the parent holds, and why the child's link stopped.
fn run(case: Case, mutants: Mutants) -> Result<Option<Stop>, String> {
    let (mut world, copies) = before(case, mutants);
    let parent = world.nodes[1].disk.clone();
    restore(&mut world, &copies[case.prefix]);
    for salt in 0..case.more {
        world.nodes[0].write_otherwise(world.now, 1 + u64::try_from(salt).unwrap());
    }
    world.nodes[0].sync();
    world.start(0);
    world.carry();
    let stop = world.stop_of(0);
    let (child, now) = (&world.nodes[0].disk, &world.nodes[1].disk);
    if case.prefix >= case.mark {
        let same = now.rows.iter().map(|row| &row.body).eq(child.rows.iter().map(|row| &row.body));
        return if same { Ok(stop) } else { Err("the parent does not hold the child's log".to_owned()) };
    }
    if now.tail() != parent.tail()
        || now.links.values().map(|l| l.mark).ne(parent.links.values().map(|l| l.mark))
    {
        return Err(format!("the parent took other content: {:?}", now.rows));
    }
    Ok(stop)
}

#[test]
fn a_rewound_child_is_told_apart_at_every_prefix_and_length_and_moves_nothing() {
    for case in every_case() {
        let (prefix, mark, tail) = (case.prefix, case.mark, case.prefix + case.more);
        let at = |n: usize| Sequence::new(u64::try_from(n).unwrap());
        let expected = match (prefix < mark, tail < mark) {
            (false, _) => None,
            (true, true) => Some(Stop::Rewound { tail: at(tail), mark: at(mark) }),
            (true, false) => Some(Stop::Diverged { at: at(mark) }),
        };
        assert_eq!(run(case, &[]), Ok(expected), "{case:?}");
    }
}

#[test]
fn a_receiver_alone_lets_nothing_in_from_a_sender_that_does_not_compare() {
    for case in every_case() {
        for mutants in [&[Mutant::TrustsMark], &[Mutant::TrustsOwnAck]] {
            if let Err(why) = run(case, mutants) {
                panic!("{case:?} {mutants:?}: {why}");
            }
        }
    }
}

#[test]
fn every_planted_mistake_in_comparing_is_seen() {
    let mutants: [Mutants; 3] = [
        &[Mutant::IgnoreDigestSending],
        &[Mutant::TrustsMark, Mutant::IgnoreDigestReceiving],
        &[Mutant::TrustsOwnAck, Mutant::TrimOverlap],
    ];
    for mutants in mutants {
        let seen = every_case().into_iter().filter(|case| run(*case, mutants).is_err()).count();
        assert!(seen > 0, "{mutants:?}");
    }
}

#[test]
fn a_copy_that_went_on_identically_is_the_same_log() {
    let case = Case { len: 5, mark: 3, prefix: 1, more: 0 };
    let (mut world, copies) = before(case, &[]);
    let original = world.nodes[0].disk.clone();
    restore(&mut world, &copies[1]);
    let outbound = copies[1].outbound;
    world.nodes[0].disk = original;
    world.nodes[0].disk.outbound = outbound;
    world.restart(0);
    world.heal().unwrap();
    world.check_arrived().unwrap();
}

/// Rows 3 and 4 were sent but never arrived; the child is restored to row 2 and writes others; then the old batch
/// arrives.
fn late_batch(mutants: Mutants) -> Result<(), String> {
    let (mut world, copies) = before(Case { len: 2, mark: 2, prefix: 2, more: 0 }, mutants);
    for _ in 0..2 {
        world.nodes[0].write(world.now);
    }
    world.step(Step::Sync(0));
    restore(&mut world, &copies[2]);
    for salt in 1..4 {
        world.nodes[0].write_otherwise(world.now, salt);
    }
    world.nodes[0].sync();
    world.start(0);
    world.step(Step::Flush(0));
    world.step(Step::Deliver(1)); // the new handshake overtakes the old batch
    world.heal()?;
    world.check_arrived()
}

#[test]
fn a_batch_of_the_life_before_a_restore_is_refused() {
    late_batch(&[]).unwrap();
    late_batch(&[Mutant::IgnoreGeneration]).unwrap_err();
}

#[test]
fn a_restored_child_goes_on_in_a_granted_epoch_and_in_no_other() {
    let (mut world, copies) = before(Case { len: 4, mark: 4, prefix: 4, more: 0 }, &[]);
    let granted = Epoch { number: 2, nonce: 99 };
    restore(&mut world, &copies[4]);
    world.nodes[0].epoch = granted;
    world.nodes[0].write(world.now);
    world.nodes[0].sync();
    world.start(0);
    world.carry();
    let Some(Stop::Refused(refusal)) = world.stop_of(0) else { panic!("it must be refused") };
    assert!(matches!(refusal, cdc_model::Refusal::NotGranted { .. }), "{refusal}");

    let child = world.nodes[0].id.clone();
    let link = world.nodes[1].disk.links[&child].granted(granted).unwrap();
    assert!(link.granted(granted).is_err(), "an epoch is granted once");
    world.nodes[1].commit(|disk| disk.links.extend([(child, link)]));
    world.restart(0);
    world.heal().unwrap();
    world.check_arrived().unwrap();

    // The log of the ended epoch comes back.
    world.nodes[0].epoch = epoch(0);
    world.restart(0);
    world.carry();
    let Some(Stop::Refused(refusal)) = world.stop_of(0) else { panic!("it must be refused") };
    assert!(matches!(refusal, cdc_model::Refusal::Fenced { .. }), "{refusal}");
}

#[test]
fn a_clone_is_stopped_by_the_generation_or_by_the_digest() {
    let (mut world, _) = before(Case { len: 3, mark: 3, prefix: 3, more: 0 }, &[]);
    let mut original = world.nodes[0].disk.clone();
    // The clone runs and writes; then the original comes back with its own later rows.
    world.nodes[0].write_otherwise(world.now, 5);
    world.nodes[0].sync();
    world.restart(0);
    world.carry();
    assert_eq!(world.stop_of(0), None);
    original.outbound = Outbound { generation: 40, ..original.outbound };
    restore(&mut world, &original);
    world.nodes[0].write_otherwise(world.now, 6);
    world.nodes[0].sync();
    world.start(0);
    world.carry();
    assert_eq!(world.stop_of(0), Some(Stop::Diverged { at: Sequence::new(4) }));
}

#[test]
fn a_restored_child_with_an_old_generation_is_told_what_is_wrong_with_its_log() {
    let at = Sequence::new;
    for (prefix, more, expected) in [
        (1, 0, Some(Stop::Rewound { tail: at(1), mark: at(3) })),
        (1, 4, Some(Stop::Diverged { at: at(3) })),
        (3, 2, None),
    ] {
        let (mut world, copies) = before(Case { len: 3, mark: 3, prefix, more }, &[]);
        (0..5).for_each(|_| world.restart(0));
        world.carry();
        restore(&mut world, &copies[prefix]);
        (0..more).for_each(|_| world.nodes[0].write_otherwise(world.now, 3));
        world.nodes[0].sync();
        world.start(0);
        world.carry();
        let stop = world.stop_of(0);
        if expected.is_some() {
            assert_eq!(stop, expected);
            continue;
        }
        let Some(Stop::Refused(cdc_model::Refusal::Superseded { current, .. })) = stop else {
            panic!("{stop:?}")
        };
        world.nodes[0].commit(|disk| disk.outbound = disk.outbound.succeeding(current));
        world.restart(0);
        world.heal().unwrap();
        world.check_arrived().unwrap();
    }
}
