use std::error::Error as _;

use cdc_model::{Body, Cursor, Epoch, Filter, Origin, Record, Remedy};
use cdc_replay::{Absent, Error, Page, Replay, Scan, Source, Span};
use proptest::prelude::*;

use crate::world::{
    EPOCH, Memory, Run, cut_logs, failure, filters, go_on, in_epoch, inserts, ready, run, seq, source,
};

#[test]
fn a_failing_tier_is_named_with_its_own_error() {
    let tier = || Memory::dense(&inserts(1..=3)).failing_at(1);
    for (error, name) in
        [(failure(Replay::new().cold(tier())), "cold"), (failure(Replay::new().hot(tier())), "hot")]
    {
        assert_eq!(error.to_string(), format!("the {name} tier could not be read"));
        assert_eq!(error.source().unwrap().to_string(), "the disk is gone");
        assert_eq!(error.remedy(), Remedy::Retry);
    }
}

proptest! {
    #[test]
    fn a_failure_at_any_call_loses_and_repeats_nothing_after_a_retry(
        (log, cut) in cut_logs(),
        filter in filters(),
        batch_size in 1..8_usize,
        fails_at in [1..15_u64, 1..15_u64],
        same_run in any::<bool>(),
    ) {
        let (cold, hot) = cut.tiers(&log);
        let whole = run(Replay::new().cold(&cold).hot(&hot).filter(filter.clone())).whole();
        let (cold, hot) = cut.tiers(&log);
        let (cold, hot) = (cold.failing_at(fails_at[0]), hot.failing_at(fails_at[1]));
        let (mut cursor, mut found, mut failures) = (Cursor::START, vec![], 0);
        loop {
            let replay = Replay::new().cold(&cold).hot(&hot).filter(filter.clone());
            let started = ready(replay.batch_size(batch_size).after(cursor).start());
            let error = match started {
                Err(error) => Some(error),
                Ok(mut running) => {
                    let mut took = go_on(&mut running);
                    if same_run && took.error.is_some() {
                        let rest = go_on(&mut running);
                        took = Run { batches: [took.batches, rest.batches].concat(), error: rest.error };
                    }
                    cursor = took.batches.last().map_or(cursor, |batch| batch.cursor);
                    found.extend(took.batches.into_iter().flat_map(|batch| batch.records));
                    took.error
                }
            };
            let Some(error) = error else { break };
            prop_assert!(matches!(error, Error::Source { .. }), "{:?}", error);
            failures += 1;
            prop_assert!(failures <= 2);
        }
        prop_assert_eq!(found, whole);
    }
}

/// Two tiers that overlap at 5..=7, with a change to the cold one's record at 7.
fn differing(change: impl FnOnce(&mut Record)) -> (Memory, Memory) {
    let mut cold = inserts(1..=7);
    change(cold.last_mut().unwrap());
    (Memory::dense(&cold), Memory::dense(&inserts(5..=9)))
}

#[test]
fn overlapping_tiers_that_disagree_are_refused() {
    let other = Body::from_stored(
        r#"{"operation":"INSERT","collection":"c0","documentId":"9","after":{}}"#.to_owned(),
    );
    for (what, tiers) in [
        ("time", differing(|record| record.timestamp = cdc_model::Timestamp::new(99))),
        ("body", differing(|record| record.body = other)),
        ("source", differing(|record| record.origin = Origin::new(source(1), EPOCH, vec![]))),
        ("place at the source", differing(|record| record.origin_sequence = seq(3))),
        ("nonce", differing(|record| record.epoch = Epoch { nonce: 8, ..EPOCH })),
        ("epoch", differing(|record| record.epoch = Epoch { number: 2, ..EPOCH })),
    ] {
        let stopped = run(Replay::new().cold(&tiers.0).hot(&tiers.1));
        let error = stopped.error.unwrap();
        assert!(matches!(error, Error::Diverged { at } if at == seq(7)), "{what}: {error:?}");
        assert_eq!(error.remedy(), Remedy::Restore);
    }
}

#[test]
fn a_replay_that_begins_behind_the_overlap_compares_what_costs_nothing() {
    for (what, (cold, hot)) in [
        ("time", differing(|record| record.timestamp = cdc_model::Timestamp::new(99))),
        ("nonce", differing(|record| record.epoch = Epoch { nonce: 8, ..EPOCH })),
    ] {
        let error = failure(Replay::new().cold(&cold).hot(&hot).after(Cursor::after(seq(8))));
        assert!(matches!(error, Error::Diverged { at } if at == seq(7)), "{what}: {error:?}");
        assert_eq!(cold.calls(), 1, "only its span is asked");
    }
}

#[test]
fn a_row_archived_before_a_new_epoch_was_granted_is_the_same_row() {
    let (cold, hot) = (Memory::dense(&inserts(1..=7)), Memory::dense(&in_epoch(inserts(5..=9), 2)));
    let batches = run(Replay::new().cold(&cold).hot(&hot).batch_size(1)).batches;
    assert_eq!(batches.len(), 9);
    for batch in batches {
        let rest = run(Replay::new().cold(&cold).hot(&hot).after(batch.cursor)).whole();
        assert_eq!(rest.len(), usize::try_from(9 - batch.cursor.sequence.get()).unwrap());
    }
}

#[test]
fn an_epoch_that_decreases_along_the_log_is_refused() {
    let mut log = in_epoch(inserts(1..=3), 2);
    log.extend(in_epoch(inserts(4..=6), 1));
    for cold_end in 0..6 {
        let (cold, hot) = (Memory::dense(&log[..cold_end]), Memory::dense(&log[cold_end..]));
        let error = failure(Replay::new().cold(&cold).hot(&hot).batch_size(2));
        assert!(matches!(error, Error::Diverged { at } if at == seq(4)), "{cold_end}: {error:?}");
        let error = failure(Replay::new().cold(&cold).hot(&hot).after(log[2].cursor()));
        assert!(matches!(error, Error::Diverged { at } if at == seq(4)), "resumed, {cold_end}: {error:?}");
    }
}

#[test]
fn a_hot_tier_that_began_anew_below_the_archive_is_not_passed_over() {
    let cold = Memory::dense(&inserts(1..=20));
    let copy = Memory::dense(&inserts(1..=5));
    assert_eq!(run(Replay::new().cold(&cold).hot(&copy)).whole().len(), 20);
    let anew = Memory::dense(&in_epoch(inserts(1..=5), 1).into_iter().map(other_nonce).collect::<Vec<_>>());
    let error = failure(Replay::new().cold(&cold).hot(&anew));
    assert!(matches!(error, Error::Diverged { at } if at == seq(5)), "{error:?}");
    let expired = Memory::dense(&inserts(10..=20));
    let error = failure(Replay::new().cold(&expired).hot(&copy));
    assert!(matches!(error, Error::Diverged { at } if at == seq(5)), "{error:?}");
}

fn other_nonce(record: Record) -> Record {
    Record { epoch: Epoch { nonce: 99, ..EPOCH }, ..record }
}

#[test]
fn a_record_that_does_not_decode_stops_a_filtered_replay_exactly_there() {
    let mut log = inserts(1..=9);
    log[4].body = Body::from_stored("{".to_owned());
    let hot = Memory::dense(&log);
    assert_eq!(run(Replay::new().hot(&hot)).whole(), log, "what nobody decodes cannot fail");
    let replay = || Replay::new().hot(&hot).filter(Filter::collection("c0"));
    let stopped = run(replay());
    assert_eq!(stopped.sequences(), [1, 2, 3, 4]);
    let error = stopped.error.unwrap();
    assert!(matches!(error, Error::Record { at, .. } if at == seq(5)), "{error:?}");
    let rest = replay().after(Cursor::after(error.go_on_after().unwrap()));
    assert_eq!(run(rest).sequences(), [6, 7, 8, 9]);
}

/// A tier that says it holds this and answers one page to everything.
struct Liar(Span, Page);

fn liar(page: Page) -> Liar {
    Liar(Span { floor: seq(1), through: Cursor::after(seq(9)) }, page)
}

impl Source for Liar {
    type Error = std::convert::Infallible;

    async fn span(&self) -> Result<Span, Self::Error> {
        Ok(self.0)
    }

    async fn read(&self, _scan: Scan<'_>) -> Result<Page, Self::Error> {
        Ok(self.1.clone())
    }

    async fn seek(&self, _time: cdc_model::Timestamp) -> Result<Option<cdc_model::Sequence>, Self::Error> {
        Ok(None)
    }
}

#[test]
fn a_tier_that_breaks_its_contract_is_named_and_never_loops() {
    let disordered = inserts([1, 3, 2]);
    for (what, page) in [
        ("nothing", Page::Dense(vec![])),
        ("no move", Page::Filtered { records: vec![], through: seq(0) }),
        ("repeat", Page::Dense(inserts([1, 1]))),
        ("disorder", Page::Filtered { records: disordered, through: seq(3) }),
        ("beyond its end", Page::Filtered { records: inserts([1, 5]), through: seq(3) }),
        ("before the scan", Page::Dense(inserts([0, 1]))),
    ] {
        let stopped = run(Replay::new().cold(liar(page)).hot(Absent));
        let error = stopped.error.unwrap();
        assert!(matches!(error, Error::Contract { tier: "cold", .. }), "{what}: {error:?}");
        assert_eq!(error.remedy(), Remedy::Bug, "{what}");
    }
    let span = Span { floor: seq(11), through: Cursor::after(seq(9)) };
    let error = failure(Replay::new().hot(Liar(span, Page::Dense(vec![]))));
    assert!(matches!(error, Error::Contract { tier: "hot", .. }), "{error:?}");
}

#[test]
fn a_tier_may_answer_more_than_it_was_asked_for() {
    let tier = liar(Page::Dense(inserts(1..=9)));
    let replay = Replay::new().cold(tier).until(seq(4));
    assert_eq!(run(replay).sequences(), [1, 2, 3, 4]);
    let tier = liar(Page::Filtered { records: inserts([2, 5, 9]), through: seq(9) });
    let batches = run(Replay::new().cold(tier).until(seq(6))).batches;
    assert_eq!(batches.len(), 1);
    assert_eq!((batches[0].records.len(), batches[0].cursor.sequence), (2, seq(6)));
}

#[test]
fn a_replay_that_begins_in_the_hot_tier_leaves_the_cold_one_alone() {
    let (cold, hot) = (Memory::dense(&inserts(1..=500)), Memory::dense(&inserts(400..=600)));
    let cursor = inserts([550])[0].cursor();
    assert_eq!(run(Replay::new().cold(&cold).hot(&hot).after(cursor)).whole().len(), 50);
    assert_eq!(cold.calls(), 1, "only its span is asked");
}
