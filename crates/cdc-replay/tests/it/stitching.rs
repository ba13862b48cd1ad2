use cdc_model::{Cursor, Filter, Timestamp};
use cdc_replay::{Absent, Error, Replay, Until};
use futures_util::TryStreamExt as _;
use proptest::prelude::*;

use crate::world::{
    Cut, Memory, Run, cut_logs, expected, filters, inserts, log, ready, run, seq, steps, time,
};

#[test]
fn every_event_comes_once_and_in_order_however_the_log_is_cut() {
    for len in [0, 1, 2, 7, 12] {
        let log = inserts(1..=len);
        for cut in Cut::all(log.len()) {
            for batch_size in 1..=log.len() + 1 {
                let (cold, hot) = cut.tiers(&log);
                let replay = Replay::new().cold(&cold).hot(&hot).batch_size(batch_size);
                assert_eq!(run(replay).whole(), log, "{cut:?} in batches of {batch_size}");
            }
        }
    }
}

#[test]
fn adjacent_tiers_are_read_across_their_border() {
    let (cold, hot) = (Memory::dense(&inserts(1..=999)), Memory::dense(&inserts(1000..=1003)));
    for after in [0, 997, 998, 999, 1000, 1003] {
        let replay = Replay::new().cold(&cold).hot(&hot).after(Cursor::after(seq(after)));
        assert_eq!(run(replay).sequences(), Vec::from_iter(after + 1..=1003), "after {after}");
    }
}

#[test]
fn a_tier_may_be_absent_or_an_option() {
    let all = inserts(1..=25);
    let tier = Memory::dense(&all);
    assert_eq!(run(Replay::new().cold(&tier)).whole(), all);
    assert_eq!(run(Replay::new().hot(&tier)).whole(), all);
    assert_eq!(run(Replay::new().cold(None::<&Memory>).hot(Some(&tier))).whole(), all);
    assert_eq!(run(Replay::new().cold(Some(&tier)).hot(Absent)).whole(), all);
    assert_eq!(run(Replay::new()).whole(), []);
}

#[test]
fn twenty_five_events_in_pages_of_ten_give_twenty_five() {
    let tier = Memory::dense(&inserts(1..=25));
    let run = run(Replay::new().hot(&tier).batch_size(10));
    let sizes: Vec<usize> = run.batches.iter().map(|batch| batch.records.len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
    let last = run.batches.last().unwrap();
    assert_eq!((last.cursor.sequence, last.progress.percent()), (seq(25), 100));
}

#[test]
fn a_batch_is_bounded_in_bytes_but_never_empty_for_it() {
    let tier = Memory::dense(&inserts(1..=3));
    let batches = run(Replay::new().hot(&tier).batch_bytes_max(1)).batches;
    assert_eq!(batches.iter().map(|batch| batch.records.len()).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn a_replay_ends_at_the_tail_as_of_its_start() {
    let hot = Memory::dense(&inserts(1..=3));
    let mut running = ready(Replay::new().hot(&hot).batch_size(2).start()).unwrap();
    hot.change(|records| records.extend(inserts(4..=9)));
    assert_eq!(crate::world::go_on(&mut running).sequences(), [1, 2, 3]);
    let replay = Replay::new().hot(&hot).after(running.cursor());
    assert_eq!(run(replay).sequences(), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn cold_is_read_up_to_its_end_before_hot() {
    let (cold, hot) = (Memory::dense(&inserts(1..=9)), Memory::dense(&inserts(1..=10)));
    let batches = run(Replay::new().cold(&cold).hot(&hot).batch_size(4)).batches;
    assert_eq!(batches.iter().map(|batch| batch.records.len()).collect::<Vec<_>>(), [4, 4, 1, 1]);
}

#[test]
fn hot_rows_pruned_while_cold_was_read_are_read_from_cold() {
    let (cold, hot) = (Memory::dense(&inserts(1..=5)), Memory::dense(&inserts(3..=10)));
    let mut running = ready(Replay::new().cold(&cold).hot(&hot).start()).unwrap();
    cold.change(|records| records.extend(inserts(6..=8)));
    hot.change(|records| *records = inserts(8..=10));
    let rest = crate::world::go_on(&mut running);
    assert!(rest.error.is_none(), "{:?}", rest.error);
    assert_eq!(rest.sequences(), Vec::from_iter(1..=10));
}

#[test]
fn hot_rows_pruned_between_plan_and_read_are_read_from_cold() {
    for call in 2..=9 {
        for after in [Cursor::START, Cursor::after(seq(4)), Cursor::at_time(time(5))] {
            let first = if after == Cursor::START { 1 } else { 5 };
            let cold = Memory::dense(&inserts(1..=3)).becoming(2, &inserts(1..=8));
            let hot = Memory::dense(&inserts(1..=10)).becoming(call, &inserts(8..=10));
            let found = run(Replay::new().cold(&cold).hot(&hot).after(after).batch_size(2));
            assert!(found.error.is_none(), "{call} {after}: {:?}", found.error);
            assert_eq!(found.sequences(), Vec::from_iter(first..=10), "{call} {after}");
        }
    }
}

#[test]
fn hot_rows_pruned_that_no_tier_holds_are_told_with_where_to_go_on() {
    let hot = Memory::dense(&inserts(1..=10)).becoming(3, &inserts(8..=10));
    let found = run(Replay::new().hot(&hot).batch_size(2));
    assert_eq!(found.sequences(), [1, 2]);
    let error = found.error.unwrap();
    assert!(matches!(error, Error::BelowFloor { .. }), "{error:?}");
    assert_eq!(error.go_on_after(), Some(seq(7)));
}

#[test]
fn a_batch_size_of_zero_is_one() {
    let tier = Memory::dense(&inserts(1..=3));
    assert_eq!(run(Replay::new().hot(&tier).batch_size(0)).batches.len(), 3);
}

#[test]
fn a_long_stretch_without_a_match_does_not_end_the_replay() {
    let mut steps = vec![(1, 0, 0, 0, false); 500];
    steps[499].2 = 1;
    let log = log(&steps);
    for cut in [
        Cut { cold_end: 500, hot_start: 500, pushes_down: true, looks_at: 7 },
        Cut { cold_end: 250, hot_start: 240, pushes_down: true, looks_at: 1000 },
        Cut { cold_end: 0, hot_start: 0, pushes_down: false, looks_at: 1 },
    ] {
        let (cold, hot) = cut.tiers(&log);
        let replay = Replay::new().cold(&cold).hot(&hot).filter(Filter::collection("c1")).batch_size(10);
        let run = run(replay);
        assert_eq!(run.sequences(), [500], "{cut:?}");
        assert!(run.batches.is_sorted_by(|a, b| a.cursor.sequence < b.cursor.sequence), "{cut:?}");
    }
}

#[test]
fn equal_timestamps_neither_repeat_nor_loop() {
    let log = log(&[(0, 0, 0, 0, false); 25]);
    for batch_size in 1..=25 {
        let tier = Memory::dense(&log);
        let from = Cursor::at_time(time(100));
        let found = run(Replay::new().hot(&tier).after(from).batch_size(batch_size)).whole();
        assert_eq!(found, log, "in batches of {batch_size}");
    }
}

#[test]
fn a_stream_gives_what_pulling_gives() {
    let (cold, hot) = (Memory::dense(&inserts(1..=10)), Memory::dense(&inserts(8..=20)));
    let replay = Replay::new().cold(&cold).hot(&hot).batch_size(3);
    let streamed: Vec<_> = ready(replay.clone().stream().try_collect()).unwrap();
    assert_eq!(streamed, run(replay).batches);
}

#[test]
fn every_future_and_stream_can_be_spawned() {
    fn spawn(_: impl Send) {}
    let replay = || Replay::new().cold(Memory::dense(&[])).hot(Some(Memory::dense(&[])));
    spawn(replay().start());
    spawn(replay().fold());
    spawn(replay().stream());
    spawn(async { ready(replay().start()).unwrap().try_next().await });
}

fn ends() -> impl Strategy<Value = Option<Until>> {
    prop_oneof![
        Just(None),
        (0..30_u64).prop_map(|end| Some(Until::from(seq(end)))),
        (95..150_i64).prop_map(|end| Some(Until::from(time(end)))),
    ]
}

fn starts() -> impl Strategy<Value = Cursor> {
    prop_oneof![
        Just(Cursor::START),
        (1..30_u64).prop_map(|after| Cursor::after(seq(after))),
        (95..150_i64).prop_map(|from| Cursor::at_time(time(from))),
    ]
}

fn clamp(log: usize, after: &mut Cursor, until: &mut Option<Until>) {
    let tail = seq(u64::try_from(log).unwrap());
    if after.sequence > seq(0) {
        after.sequence = after.sequence.min(tail);
    }
    if let Some(Until::Sequence(end)) = until {
        *end = tail.min(*end);
    }
}

proptest! {
    #[test]
    fn a_replay_gives_what_a_plain_loop_over_the_whole_log_gives(
        (log, cut) in cut_logs(),
        mut after in starts(),
        mut until in ends(),
        filter in filters(),
        batch_size in 1..40_usize,
    ) {
        clamp(log.len(), &mut after, &mut until);
        let (cold, hot) = cut.tiers(&log);
        let mut replay = Replay::new().cold(&cold).hot(&hot).after(after).filter(filter.clone()).batch_size(batch_size);
        if let Some(until) = until {
            replay = replay.until(until);
        }
        let run = run(replay);
        for batch in &run.batches {
            prop_assert!(batch.records.len() <= batch_size);
            prop_assert!(batch.records.last().is_none_or(|last| last.sequence <= batch.cursor.sequence));
        }
        if let Some(last) = run.batches.last() {
            prop_assert_eq!(last.progress.scanned, last.progress.total);
            prop_assert_eq!(last.progress.records, u64::try_from(run.records().count()).unwrap());
        }
        prop_assert_eq!(run.whole(), expected(&log, after, until, &filter));
    }

    #[test]
    fn resuming_at_any_batch_gives_what_one_run_gives(
        (log, cut) in cut_logs(),
        from in prop_oneof![Just(Timestamp::ZERO), (95..150_i64).prop_map(time)],
        filter in filters(),
        sizes in [1..12_usize, 1..12_usize],
    ) {
        let (cold, hot) = cut.tiers(&log);
        let replay = |after, batch_size| {
            Replay::new().cold(&cold).hot(&hot).after(after).filter(filter.clone()).batch_size(batch_size)
        };
        let Run { batches, error } = run(replay(Cursor::at_time(from), sizes[0]));
        prop_assert!(error.is_none(), "{:?}", error);
        let whole: Vec<_> = batches.iter().flat_map(|batch| batch.records.clone()).collect();
        for (taken, batch) in batches.iter().enumerate() {
            let mut joined: Vec<_> = batches[..=taken].iter().flat_map(|b| b.records.clone()).collect();
            joined.extend(run(replay(batch.cursor, sizes[1])).whole());
            prop_assert_eq!(&joined, &whole, "resumed at {}", batch.cursor);
        }
    }

    #[test]
    fn a_cursor_says_what_the_record_at_it_says_or_names_no_epoch(
        (log, cut) in cut_logs(),
        filter in filters(),
        batch_size in 1..12_usize,
    ) {
        let (cold, hot) = cut.tiers(&log);
        let run = run(Replay::new().cold(&cold).hot(&hot).filter(filter).batch_size(batch_size));
        for batch in run.batches {
            let at = log.iter().find(|record| record.sequence == batch.cursor.sequence).unwrap();
            if batch.cursor.epoch.is_some() {
                prop_assert_eq!(batch.cursor, at.cursor());
            }
        }
    }

    #[test]
    fn the_tiers_may_change_their_border_between_two_batches(
        steps in steps(2..40),
        (archived, pruned) in (0..3_usize, 0..3_usize),
        batch_size in 1..6_usize,
    ) {
        let log = log(&steps);
        let (cold, hot) = (Memory::dense(&log[..1]), Memory::dense(&log));
        let mut running = ready(Replay::new().cold(&cold).hot(&hot).batch_size(batch_size).start()).unwrap();
        let mut found = vec![];
        while let Some(batch) = ready(running.try_next()).unwrap() {
            found.extend(batch.records);
            let mut end = 0;
            cold.change(|records| {
                end = (records.len() + archived).min(log.len());
                *records = log[..end].to_vec();
            });
            hot.change(|records| {
                let gone = pruned.min(records.len() - 1);
                let last_gone = gone.checked_sub(1).map_or(0, |last| records[last].sequence.get());
                if usize::try_from(last_gone).unwrap() <= end {
                    records.drain(..gone);
                }
            });
        }
        prop_assert_eq!(found, log);
    }
}
