//! Three and more objects: events pass every hop once, and `settled` trickles down from the root.

use cdc_model::Refusal;
use cdc_relay::Stop;
use proptest::prelude::*;

use crate::world::{Mutant, Scenario, Step, World, scenario, small_options};

proptest! {
    #![proptest_config(ProptestConfig { cases: 700, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_run_of_three_objects_keeps_every_promise(scenario in scenario(3)) {
        if let Err(why) = World::run(&scenario, &[]) {
            prop_assert!(false, "{}", why);
        }
    }
}

#[test]
fn chains_of_one_four_and_seven_hops_carry_every_event_to_the_root() {
    for hops in [1_u8, 4, 7] {
        let mut steps: Vec<_> =
            (0..=hops).flat_map(|n| [Step::Write(n), Step::Write(n), Step::Sync(n)]).collect();
        steps.push(Step::Deliver(0));
        let scenario = Scenario { nodes: hops + 1, options: small_options(), steps };
        let world = World::run(&scenario, &[]).unwrap();
        let root = world.nodes.last().unwrap();
        assert_eq!(root.disk.rows.len(), 2 * (usize::from(hops) + 1));
        for row in &root.disk.rows {
            let route = row.origin.route();
            assert_eq!(route.first().unwrap_or(&root.id), row.origin.source());
        }
        let leaf = world.nodes[0].sender.as_ref().unwrap();
        assert_eq!(leaf.ancestors().len(), usize::from(hops), "the leaf knows the way to the root");
    }
}

#[test]
fn a_root_that_does_not_archive_settles_nothing() {
    let mut world = World::new(3, &small_options(), &[]);
    world.nodes[0].write(world.now);
    world.nodes[0].sync();
    world.carry_unarchived();
    let settled = |world: &World| world.nodes[0].sender.as_ref().unwrap().settled().get();
    assert_eq!((world.nodes[2].disk.rows.len(), settled(&world)), (1, 0));
    world.step(Step::Archive);
    world.carry();
    assert_eq!(settled(&world), 1);
}

#[test]
fn what_is_stored_at_the_middle_is_not_settled() {
    let steps = [Step::Write(0), Step::Sync(0)].into_iter().chain([Step::Deliver(0); 12]).collect();
    let scenario = Scenario { nodes: 3, options: small_options(), steps };
    World::run(&scenario, &[]).unwrap();
    World::run(&scenario, &[Mutant::StoredIsSettled]).map(drop).unwrap_err();
}

#[test]
fn a_circle_closed_everywhere_at_once_is_found_and_no_event_goes_round() {
    for order in 0..4_u8 {
        let mut world = World::ring(3);
        for n in 0..3 {
            world.step(Step::Write(n));
            world.step(Step::Sync(n));
        }
        for _ in 0..60 {
            (0..4).for_each(|_| world.step(Step::Deliver(order)));
            world.step(Step::Tick);
        }
        let stops: Vec<_> = (0..3).filter_map(|n| world.stop_of(n)).collect();
        let circles = stops.iter().filter(|stop| matches!(stop, Stop::Refused(Refusal::Cycle { .. })));
        assert_eq!((circles.count(), stops.is_empty()), (stops.len(), false), "{stops:?}");
        for node in &world.nodes {
            let own = node.disk.rows.iter().filter(|row| row.origin.source() == &node.id);
            assert_eq!(own.count(), 1, "{} holds its own event once", node.id);
        }
    }
}
