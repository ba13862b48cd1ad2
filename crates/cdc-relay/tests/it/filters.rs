//! Filtered records are left out, their positions are not.

use cdc_relay::LinkOptions;

use crate::world::{World, small_options};

fn only_a() -> LinkOptions {
    LinkOptions { collections: vec!["a".to_owned()], ..small_options() }
}

fn filled(collections: impl IntoIterator<Item = &'static str>, options: &LinkOptions) -> World {
    let mut world = World::new(2, options, &[]);
    world.heal().unwrap();
    for collection in collections {
        world.nodes[0].write_to(world.now, collection);
    }
    world.nodes[0].sync();
    world
}

#[test]
fn the_mark_moves_over_every_pattern_of_filtered_rows() {
    for pattern in 0..512_u32 {
        let row = |n: u32| if pattern >> n & 1 == 1 { "a" } else { "b" };
        let mut world = filled((0..9).map(row), &only_a());
        world.heal().unwrap();
        world.check_arrived().unwrap();
        assert_eq!(world.nodes[1].disk.rows.len(), usize::try_from(pattern.count_ones()).unwrap());
        assert_eq!(world.nodes[0].sender.as_ref().unwrap().acked(), world.nodes[0].disk.tail());
    }
}

#[test]
fn a_long_filtered_range_is_crossed_in_bounded_cuts() {
    let options = LinkOptions { scan_positions_max: 100, ..only_a() };
    let rows = std::iter::repeat_n("b", 1_000).chain(["a"]);
    let mut world = filled(rows, &options);
    world.heal().unwrap();
    world.check_arrived().unwrap();
    let sent = world.nodes[0].sender.as_ref().unwrap().sent();
    assert_eq!((sent.batches, sent.records, sent.filtered), (11, 1, 1_000));
}
