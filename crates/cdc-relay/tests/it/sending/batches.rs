//! What a batch takes, and when it goes.

use std::time::Duration;

use cdc_model::{ChangeBody, Operation, Remedy, Sequence};
use cdc_relay::{Action, Cutter, Error, LinkOptions, Outbound, Stop};

use super::{Bench, ms, position, range, rows};

#[test]
fn an_idle_link_sends_at_once_and_a_quiet_one_rests() {
    let mut bench = Bench::linked(0);
    assert_eq!(bench.poll(ms(0)), Action::Idle);
    bench.grow(ms(5), 1);
    let (request, batch) = bench.sent(ms(5));
    assert_eq!(range(&batch), (0, 1, 1));
    assert_eq!(bench.poll(ms(5)), Action::Wait(ms(30_005)), "only the answer is waited for");
    bench.ack(ms(6), request, &batch);
    assert_eq!(
        (bench.poll(ms(6)), bench.sender.acked(), bench.sender.lag()),
        (Action::Idle, batch.through, 0)
    );
}

/// Grows the log behind a batch in flight; returns when the next batch was cut.
fn next_cut(grow: usize, flush: bool) -> Option<Duration> {
    let mut bench = Bench::linked(1);
    let (_, first) = bench.sent(ms(0));
    assert_eq!(range(&first), (0, 1, 1));
    bench.grow(ms(10), 1 + grow);
    if flush {
        bench.sender.flush();
    }
    [10, 500, 1_009, 1_010]
        .map(ms)
        .into_iter()
        .find(|now| matches!(bench.sender.poll(*now), Action::Cut { .. }))
}

#[test]
fn behind_a_batch_in_flight_the_next_is_cut_when_full_old_or_flushed() {
    assert_eq!(next_cut(99, false), Some(ms(1_010)));
    assert_eq!(next_cut(100, false), Some(ms(10)));
    assert_eq!(next_cut(1, true), Some(ms(10)));
}

#[test]
fn the_answer_sends_whatever_has_gathered_without_a_timer() {
    for (gathered, next_through, records) in [(1, 2, 1), (7, 8, 7), (150, 101, 100)] {
        let mut bench = Bench::linked(1);
        let (request, first) = bench.sent(ms(0));
        bench.grow(ms(10), 1 + gathered);
        assert!(matches!(bench.poll(ms(20)), Action::Wait(_)), "one batch is in flight");
        bench.ack(ms(21), request, &first);
        let (_, next) = bench.sent(ms(21));
        assert_eq!(range(&next), (1, next_through, records));
    }
}

#[test]
fn batches_are_bounded_by_bytes_but_a_large_record_still_goes() {
    let bytes = rows(1)[0].body.as_str().len();
    let options = LinkOptions { batch_bytes_max: 1_024, ..LinkOptions::default() };
    let mut bench = Bench::with(options, Outbound::NEW, 100);
    let (_, batch) = bench.sent(ms(0));
    assert!(batch.records.len() > 1 && batch.records.len() <= 1_024 / bytes, "{}", batch.records.len());

    let options = LinkOptions { batch_bytes_max: 1_024, ..LinkOptions::default() };
    let mut bench = Bench::unlinked(options, Outbound::NEW, 0);
    let text = format!("{:?}", "x".repeat(5_000));
    let mut body = ChangeBody::new(Operation::Insert, "t", "1");
    let raw = serde_json::value::RawValue::from_string(text).unwrap();
    body.after = Some(&raw);
    bench.log[0].body = body.to_body();
    let (request, hello) = bench.handshake(ms(0));
    bench.answer(ms(0), request, &hello, 0, None);
    bench.grow(ms(0), 3);
    assert_eq!(range(&bench.sent(ms(0)).1), (0, 1, 1));
}

#[test]
fn a_gap_in_the_log_is_an_error_of_the_cut() {
    let mut bench = Bench::linked(5);
    let Action::Cut { cut, .. } = bench.sender.poll(ms(0)) else { panic!("a cut is due") };
    let mut cutter = Cutter::new(cut);
    let error = cutter.push(bench.log[1].clone()).unwrap_err();
    assert!(matches!(error, Error::Gap { expected, found } if (expected.get(), found.get()) == (1, 2)));
    assert_eq!(error.stop(), Some(Stop::LogChanged { at: Sequence::new(1) }));
    assert_eq!(error.remedy(), Remedy::Restore);
}

#[test]
fn a_complete_cut_takes_no_more() {
    let bytes = rows(1)[0].body.as_str().len();
    for (options, through) in [
        (LinkOptions::default(), 60),
        (LinkOptions { batch_size: 2, ..LinkOptions::default() }, 2),
        (LinkOptions { scan_positions_max: 3, ..LinkOptions::default() }, 3),
        (LinkOptions { batch_bytes_max: 1_024, ..LinkOptions::default() }, (1_024 + 9) / (bytes + 1)),
    ] {
        let mut bench = Bench::with(options, Outbound::NEW, 60);
        let Action::Cut { cut, .. } = bench.sender.poll(ms(0)) else { panic!("a cut is due") };
        let mut cutter = Cutter::new(cut);
        assert!(bench.log.iter().any(|row| cutter.push(row.clone()).unwrap().is_break()));
        assert_eq!(cutter.position(), position(&bench.log, through));
        assert!(cutter.push(bench.log[through].clone()).unwrap().is_break());
        assert!(cutter.keep_back(&bench.log[through]).unwrap().is_break());
        assert_eq!(cutter.finish().through, position(&bench.log, through));
    }
}

#[test]
fn rows_that_a_stage_keeps_back_are_passed_over() {
    let mut bench = Bench::linked(5);
    let Action::Cut { request, cut } = bench.sender.poll(ms(0)) else { panic!("a cut is due") };
    let mut cutter = Cutter::new(cut);
    for row in bench.log.iter().take(5) {
        let end = if row.sequence.get().is_multiple_of(2) {
            cutter.keep_back(row)
        } else {
            cutter.push(row.clone())
        };
        assert_eq!(end.unwrap().is_break(), row.sequence.get() == 5);
    }
    bench.sender.handle_batch_cut(ms(0), request, cutter.finish());
    assert_eq!(range(&bench.sent(ms(0)).1), (0, 5, 3));
}

#[test]
fn positions_that_were_all_filtered_wait_for_company_until_the_timeout() {
    let options = || LinkOptions { collections: vec!["other".to_owned()], ..LinkOptions::default() };
    let mut bench = Bench::with(options(), Outbound::NEW, 0);
    bench.grow(ms(100), 7);
    assert_eq!(bench.poll(ms(100)), Action::Wait(ms(1_100)));
    bench.grow(ms(600), 8);
    assert_eq!(bench.poll(ms(600)), Action::Wait(ms(1_100)), "later ones do not prolong the wait");
    assert_eq!(range(&bench.sent(ms(1_100)).1), (0, 8, 0));

    let mut bench = Bench::with(options(), Outbound::NEW, 0);
    bench.grow(ms(100), 7);
    bench.sender.flush();
    assert_eq!(range(&bench.sent(ms(100)).1), (0, 7, 0), "a flush does not wait");

    let mut bench = Bench::with(options(), Outbound::NEW, 0);
    bench.grow(ms(100), 7);
    assert_eq!(bench.poll(ms(100)), Action::Wait(ms(1_100)));
    bench.log[7].body = ChangeBody::new(Operation::Insert, "other", "8").to_body();
    bench.grow(ms(200), 8);
    assert_eq!(range(&bench.sent(ms(200)).1), (0, 8, 1), "a record that passes goes at once");
}
