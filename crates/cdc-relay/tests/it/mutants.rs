//! The checkers can fail: each planted mistake is seen by one of the runs that the right code passes.

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use crate::world::{Mutant, Mutants, World, scenario};

/// The first of many random runs in which the checkers see something wrong.
fn first_seen(mutants: Mutants) -> Option<String> {
    let mut runner = TestRunner::deterministic();
    (0..1_500).find_map(|run| {
        let scenario = scenario(2).new_tree(&mut runner).unwrap().current();
        World::run(&scenario, mutants).err().map(|why| format!("run {run}: {why}"))
    })
}

#[test]
fn every_planted_mistake_is_seen() {
    let mutants: [Mutants; 10] = [
        &[Mutant::AckBlindly],
        &[Mutant::MarkWithoutCommit],
        &[Mutant::EventsBeforeMarks],
        &[Mutant::MarksBeforeEvents],
        &[Mutant::VolatileTail],
        &[Mutant::UnsavedGeneration],
        &[Mutant::RepeatedHandshakeGrants],
        &[Mutant::StoredIsSettled],
        &[Mutant::FilterBeforeDigest],
        &[Mutant::AnyAnswerFits],
    ];
    for mutants in mutants {
        assert_ne!(first_seen(mutants), None, "{mutants:?}");
    }
    assert_eq!(first_seen(&[]), None, "the right code passes the same runs");
}
