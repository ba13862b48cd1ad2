//! One link through everything the network, the disks and restarts can do.

use proptest::prelude::*;

use crate::world::{Scenario, Step, World, scenario, small_options};

/// Everything that can befall a link at one moment.
const EVENTS: [&[Step]; 9] = [
    &[Step::Deliver(0)],
    &[Step::Deliver(1)],
    &[Step::Repeat(0)],
    &[Step::Drop(0)],
    &[Step::Tick],
    &[Step::Restart(0)],
    &[Step::Restart(1)],
    &[Step::FailCommits(1, 1), Step::Deliver(0)],
    &[Step::Write(0), Step::Sync(0)],
];

/// Every sequence of `depth` events, each begun after every prefix of a quiet run.
fn every_sequence(depth: u32, mut visit: impl FnMut(&Scenario)) {
    let width = EVENTS.len();
    for quiet in [0, 1, 3, 5] {
        for mut choice in 0..width.pow(depth) {
            let mut steps = vec![Step::Write(0), Step::Write(0), Step::Write(0), Step::Sync(0)];
            steps.extend([Step::Deliver(0)].repeat(quiet));
            for _ in 0..depth {
                steps.extend(EVENTS[choice % width]);
                choice /= width;
            }
            visit(&Scenario { nodes: 2, options: small_options(), steps });
        }
    }
}

#[test]
fn every_order_of_losses_repeats_and_restarts_keeps_every_promise() {
    every_sequence(4, |scenario| {
        if let Err(why) = World::run(scenario, &[]) {
            panic!("{why}\n{scenario:?}");
        }
    });
}

#[test]
fn a_crash_of_either_side_at_every_step_loses_and_doubles_nothing() {
    let quiet = || {
        let mut steps = vec![Step::Write(0); 7];
        steps.push(Step::Sync(0));
        steps.extend([Step::Deliver(0), Step::Deliver(0), Step::Tick].repeat(8));
        steps
    };
    for first in 0..quiet().len() {
        for second in first..quiet().len() {
            for (one, two) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut steps = quiet();
                steps.insert(second, Step::Restart(two));
                steps.insert(first, Step::Restart(one));
                let scenario = Scenario { nodes: 2, options: small_options(), steps };
                if let Err(why) = World::run(&scenario, &[]) {
                    panic!("{why}\n{scenario:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_run_of_two_objects_keeps_every_promise(scenario in scenario(2)) {
        if let Err(why) = World::run(&scenario, &[]) {
            prop_assert!(false, "{}", why);
        }
    }
}

#[test]
fn the_same_run_twice_gives_the_same_logs() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..50 {
        let scenario = scenario(2).new_tree(&mut runner).unwrap().current();
        let tails = || {
            let world = World::run(&scenario, &[]).unwrap();
            (world.now, world.nodes.iter().map(|node| node.disk.tail()).collect::<Vec<_>>())
        };
        assert_eq!(tails(), tails());
    }
}
