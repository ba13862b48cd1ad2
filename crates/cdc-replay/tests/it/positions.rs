use cdc_model::{Cursor, Epoch, Remedy};
use cdc_replay::{Error, Replay, Until};

use crate::world::{EPOCH, Memory, failure, in_epoch, inserts, run, seq, time};

#[test]
fn a_position_below_the_floor_is_refused_and_the_floor_named() {
    let (cold, hot) = (Memory::dense(&inserts(300..=999)), Memory::dense(&inserts(1000..=1010)));
    let replay = || Replay::new().cold(&cold).hot(&hot);
    for after in
        [Cursor::START, Cursor::after(seq(298)), Cursor::at_time(time(300)), Cursor::at_time(time(7))]
    {
        let error = failure(replay().after(after));
        assert!(matches!(error, Error::BelowFloor { floor, .. } if floor == seq(300)), "{after}: {error:?}");
        let found = run(replay().after(Cursor::after(error.go_on_after().unwrap())));
        assert_eq!(found.sequences().first(), Some(&300));
    }
    assert_eq!(run(replay().after(Cursor::at_time(time(301)))).sequences().first(), Some(&301));
}

#[test]
fn a_position_beyond_the_tail_is_refused_and_the_tail_named() {
    let hot = Memory::dense(&inserts(1..=5));
    assert_eq!(run(Replay::new().hot(&hot).after(Cursor::after(seq(5)))).sequences(), [0; 0]);
    for replay in
        [Replay::new().hot(&hot).after(Cursor::after(seq(6))), Replay::new().hot(&hot).until(seq(6))]
    {
        let refused = run(replay);
        assert_eq!(refused.batches, []);
        let error = refused.error.unwrap();
        assert!(matches!(error, Error::BeyondTail { tail, .. } if tail == seq(5)), "{error:?}");
        assert_eq!((error.go_on_after(), error.remedy()), (Some(seq(5)), Remedy::FixRequest));
    }
}

#[test]
fn a_gap_between_the_tiers_is_refused_where_it_begins_and_its_end_named() {
    let (cold, hot) = (Memory::dense(&inserts(1..=5)), Memory::dense(&inserts(8..=10)));
    let replay = || Replay::new().cold(&cold).hot(&hot);
    let stopped = run(replay().batch_size(2));
    assert_eq!(stopped.sequences(), [1, 2, 3, 4, 5]);
    let error = stopped.error.unwrap();
    assert!(matches!(error, Error::Gap { after, next } if (after, next) == (seq(5), seq(8))), "{error:?}");
    let rest = replay().after(Cursor::after(error.go_on_after().unwrap()));
    assert_eq!(run(rest).sequences(), [8, 9, 10]);
    assert_eq!(run(replay().until(seq(5))).sequences(), [1, 2, 3, 4, 5]);
    // Whether something of that time is lost in the gap, nobody knows.
    for after in [Cursor::after(seq(6)), Cursor::at_time(time(6)), Cursor::at_time(time(8))] {
        let refused = run(replay().after(after));
        assert_eq!(refused.batches, [], "{after}");
        let error = refused.error.unwrap();
        assert!(matches!(error, Error::Gap { next, .. } if next == seq(8)), "{after}: {error:?}");
    }
    assert_eq!(run(replay().after(Cursor::at_time(time(9)))).sequences(), [9, 10]);
}

#[test]
fn a_hole_inside_a_tier_is_a_gap_after_everything_before_it() {
    let hot = Memory::dense(&inserts((1..=4).chain(7..=9)));
    let stopped = run(Replay::new().hot(&hot));
    assert_eq!(stopped.sequences(), [1, 2, 3, 4]);
    assert!(matches!(stopped.error, Some(Error::Gap { after, next }) if (after, next) == (seq(4), seq(7))));
}

#[test]
fn what_a_tier_vouches_for_may_have_holes() {
    let cold = Memory::pushing_down(&inserts((1..=4).chain(7..=9)), 100);
    assert_eq!(run(Replay::new().cold(&cold)).sequences(), [1, 2, 3, 4, 7, 8, 9]);
}

#[test]
fn a_time_begins_at_the_first_and_ends_before_the_first_of_several_equal_ones() {
    let mut log = inserts(1..=9);
    for (record, ms) in log.iter_mut().zip([10, 10, 20, 20, 20, 30, 30, 40, 40]) {
        record.timestamp = time(ms);
    }
    for cut in crate::world::Cut::all(9) {
        let (cold, hot) = cut.tiers(&log);
        for (from, until, found) in [
            (20, 30, vec![3, 4, 5]),
            (11, 31, vec![3, 4, 5, 6, 7]),
            (1, 10, vec![]),
            (1, 11, vec![1, 2]),
            (40, 99, vec![8, 9]),
            (41, 99, vec![]),
            (30, 20, vec![]),
        ] {
            let replay = Replay::new().cold(&cold).hot(&hot).after(Cursor::at_time(time(from)));
            let replay = replay.until(Until::Time(time(until))).batch_size(2);
            assert_eq!(run(replay).sequences(), found, "from {from} until {until}, {cut:?}");
        }
    }
}

#[test]
fn a_cursor_of_a_life_that_ended_is_rewound_and_the_fork_named() {
    let mut log = in_epoch(inserts(1..=600), 1);
    log.extend(in_epoch(inserts(601..=900), 2));
    let of = |at, number| Cursor { epoch: Some(Epoch { number, ..EPOCH }), ..Cursor::after(seq(at)) };
    for (cold_end, hot_start) in [(0, 0), (500, 500), (700, 400), (900, 900)] {
        let (cold, hot) = (Memory::dense(&log[..cold_end]), Memory::dense(&log[hot_start..]));
        let replay = |after| Replay::new().cold(&cold).hot(&hot).after(after);
        for at in [601, 700, 900, 5000] {
            let error = failure(replay(of(at, 1)));
            assert!(matches!(error, Error::Rewound { fork, .. } if fork == seq(600)), "{at}: {error:?}");
        }
        for (at, number) in [(600, 1), (1, 1), (601, 2), (900, 2)] {
            assert_eq!(run(replay(of(at, number))).whole().len(), 900 - usize::try_from(at).unwrap());
        }
        assert!(matches!(failure(replay(of(901, 2))), Error::BeyondTail { .. }));
    }
}

#[test]
fn a_life_that_this_log_never_had_forked_where_the_next_one_begins() {
    let log = [in_epoch(inserts(1..=6), 1), in_epoch(inserts(7..=9), 3)].concat();
    let cursor = Cursor { epoch: Some(Epoch { number: 2, ..EPOCH }), ..Cursor::after(seq(8)) };
    let error = failure(Replay::new().hot(Memory::dense(&log)).after(cursor));
    assert!(matches!(error, Error::Rewound { fork, .. } if fork == seq(6)), "{error:?}");
}

#[test]
fn the_archive_remembers_the_life_that_a_hot_log_has_forgotten() {
    let (cold, hot) = (Memory::dense(&inserts(1..=7)), Memory::dense(&in_epoch(inserts(5..=9), 2)));
    let cursor = Cursor { epoch: Some(EPOCH), ..Cursor::after(seq(9)) };
    let error = failure(Replay::new().cold(&cold).hot(&hot).after(cursor));
    assert!(matches!(error, Error::Rewound { fork, .. } if fork == seq(7)), "{error:?}");
}

#[test]
fn a_cursor_of_another_log_is_rewound_to_before_everything() {
    let hot = Memory::dense(&inserts(5..=9));
    let other = Epoch { nonce: 8, ..EPOCH };
    for at in [4, 5, 9, 20] {
        let error =
            failure(Replay::new().hot(&hot).after(Cursor { epoch: Some(other), ..Cursor::after(seq(at)) }));
        assert!(matches!(error, Error::Rewound { fork, .. } if fork == seq(4)), "{at}: {error:?}");
    }
}

#[test]
fn a_cursor_whose_record_has_another_time_is_of_another_past() {
    let hot = Memory::dense(&inserts(1..=9));
    let cursor = Cursor { sequence: seq(5), timestamp: time(6), epoch: Some(EPOCH) };
    let error = failure(Replay::new().hot(&hot).after(cursor));
    assert!(matches!(error, Error::Diverged { at } if at == seq(5)), "{error:?}");
    // Without an epoch nobody claims that this log issued it: the sequence decides.
    let by_hand = Cursor { epoch: None, ..cursor };
    assert_eq!(run(Replay::new().hot(&hot).after(by_hand)).sequences(), [6, 7, 8, 9]);
}
