//! What answers move, and what happens without them.

use cdc_model::{Answer, Digest, Mark, Position, Refusal, Sequence};
use cdc_relay::{Action, LinkOptions, Outbound, Status, Stop};

use super::{Bench, EPOCH, ms, position, range, rows, said};

#[test]
fn failures_back_off_open_the_breaker_and_end_with_the_first_answer() {
    let mut bench = Bench::linked(1);
    let mut now = ms(0);
    let mut open = 0;
    for failure in 1..=8 {
        let (request, batch) = bench.sent(now);
        assert_eq!(range(&batch), (0, 1, 1), "the same range again");
        bench.sender.handle_failure(now, request);
        let status = bench.sender.status(now);
        assert_eq!(status == Status::BreakerOpen, failure >= 5, "{failure}: {status:?}");
        open += u32::from(status == Status::BreakerOpen);
        let Action::Wait(until) = bench.poll(now) else { panic!("it must pause") };
        assert!(until - now <= ms(60_000));
        now = until;
    }
    let (request, batch) = bench.sent(now);
    bench.ack(now, request, &batch);
    assert_eq!((open, bench.sender.status(now), bench.poll(now)), (4, Status::Open, Action::Idle));
}

#[test]
fn an_answer_that_does_not_come_is_a_failure_and_a_known_return_ends_the_pause() {
    let mut bench = Bench::linked(1);
    let (late, _) = bench.sent(ms(0));
    assert!(matches!(bench.poll(ms(29_999)), Action::Wait(_)));
    assert!(matches!(bench.poll(ms(30_000)), Action::Wait(until) if until > ms(30_000)));
    assert_eq!(bench.sender.status(ms(30_000)), Status::BackingOff);
    bench.sender.retry_now();
    let (request, batch) = bench.sent(ms(30_000));
    assert_ne!(late, request);
    bench.ack(ms(30_001), late, &batch);
    assert_eq!((bench.sender.acked(), bench.sender.sent().stale_answers), (Position::START, 1));
}

#[test]
fn busy_is_a_pause_without_the_breaker() {
    let mut bench = Bench::linked(1);
    let mut now = ms(0);
    for _ in 0..9 {
        let (request, batch) = bench.sent(now);
        bench.sender.handle_answer(now, request, said(batch.generation, None, Some(Refusal::Busy)));
        assert_eq!(bench.sender.status(now), Status::BackingOff);
        let Action::Wait(until) = bench.poll(now) else { panic!("it must pause") };
        now = until;
    }
}

#[test]
fn who_is_busy_says_what_is_settled_and_is_left_alone_all_the_same() {
    let mut bench = Bench::linked(1);
    let (first, one) = bench.sent(ms(0));
    bench.sender.handle_answer(ms(1), first, said(one.generation, Some(Mark::at(EPOCH, one.through)), None));
    bench.grow(ms(2), 3);
    let mark = Mark::at(EPOCH, one.through);
    let (mut now, mut pauses) = (ms(2), Vec::new());
    for generation in [0, 1, 1, 1, 1, 1, 1] {
        let (request, batch) = bench.sent(now);
        assert_eq!(range(&batch), (1, 3, 2), "the same again");
        // What is said of another link's generation is not of this one.
        let said = said(batch.generation * generation, Some(mark), Some(Refusal::Busy));
        bench.sender.handle_answer(now, request, Answer { settled: mark.sequence, ..said });
        assert_eq!(bench.sender.status(now), Status::BackingOff);
        let settled = if generation == 0 { Sequence::ZERO } else { mark.sequence };
        assert_eq!((bench.sender.acked(), bench.sender.outbound().settled), (one.through, settled));
        let Action::Wait(until) = bench.poll(now) else { panic!("it must pause") };
        pauses.push(until - now);
        now = until;
    }
    assert!(pauses[6] > 8 * pauses[0], "the pauses grow: {pauses:?}");
}

#[test]
fn late_repeated_and_reordered_answers_move_nothing() {
    let mut bench = Bench::linked(1);
    let (first, one) = bench.sent(ms(0));
    bench.ack(ms(1), first, &one);
    bench.grow(ms(2), 3);
    let (second, two) = bench.sent(ms(2));
    for _ in 0..3 {
        bench.ack(ms(3), first, &one);
    }
    assert_eq!(bench.sender.acked(), one.through);
    bench.ack(ms(4), second, &two);
    bench.ack(ms(5), first, &one);
    bench.ack(ms(5), second, &one);
    assert_eq!((bench.sender.acked(), bench.sender.sent().stale_answers), (two.through, 5));

    let mut other = Bench::unlinked(LinkOptions::default(), bench.sender.outbound(), 5);
    let (_, hello) = other.handshake(ms(0));
    other.ack(ms(1), second, &two);
    assert_eq!(other.sender.status(ms(1)), Status::Linking, "{hello:?}");
}

#[test]
fn an_answer_in_between_is_compared_and_cut_again_from_there() {
    let mut bench = Bench::linked(10);
    let (request, batch) = bench.sent(ms(0));
    let mark = Mark::at(EPOCH, position(&bench.log, 4));
    let refusal = Refusal::NotAtMark { after: Sequence::ZERO, mark: mark.sequence };
    bench.sender.handle_answer(ms(1), request, said(batch.generation, Some(mark), Some(refusal)));
    assert!(matches!(bench.sender.poll(ms(1)), Action::Compare { at, .. } if at == mark.sequence));
    let mut bench = Bench::linked(10);
    let (request, batch) = bench.sent(ms(0));
    bench.sender.handle_answer(ms(1), request, said(batch.generation, Some(mark), None));
    assert_eq!(range(&bench.sent(ms(1)).1), (4, 10, 6));
}

#[test]
fn a_receiver_that_says_yes_and_does_nothing_is_not_asked_in_a_tight_loop() {
    let mut bench = Bench::linked(1);
    let (request, batch) = bench.sent(ms(0));
    bench.sender.handle_answer(ms(1), request, said(batch.generation, None, None));
    assert!(matches!(bench.poll(ms(1)), Action::Wait(until) if until >= ms(500)));
}

#[test]
fn after_a_restart_the_log_itself_is_asked_for_its_digest() {
    let log = rows(9);
    let link = Outbound { acked: position(&log, 5), ..Outbound::NEW };
    for (own, stopped) in [
        (Some(position(&log, 5).digest), None),
        (Some(Digest::of(b"other")), Some(Stop::Diverged { at: Sequence::new(5) })),
        (None, Some(Stop::BelowFloor { mark: Sequence::new(5), floor: Sequence::new(1) })),
    ] {
        let mut bench = Bench::unlinked(LinkOptions::default(), link, 9);
        let (request, hello) = bench.handshake(ms(0));
        bench.answer(ms(0), request, &hello, 5, None);
        let Action::Compare { request, at } = bench.sender.poll(ms(0)) else { panic!("it must ask") };
        assert_eq!(at, Sequence::new(5));
        bench.sender.handle_digest(ms(0), request, own);
        if let Action::Stopped(stop) = bench.poll(ms(0)) {
            assert_eq!(Some(stop), stopped);
        } else {
            assert_eq!((bench.sender.acked(), stopped), (position(&log, 5), None));
        }
    }
}

#[test]
fn settled_is_asked_for_ever_more_slowly_or_when_there_is_news() {
    let mut bench = Bench::linked(1);
    let (request, batch) = bench.sent(ms(0));
    let stored = said(batch.generation, Some(batch.mark()), None);
    bench.sender.handle_answer(ms(0), request, stored.clone());
    let (mut now, mut pauses) = (ms(0), Vec::new());
    for _ in 0..9 {
        let Action::Wait(until) = bench.poll(now) else { panic!("it must pause") };
        pauses.push(until - now);
        now = until;
        let (request, probe) = bench.sent(now);
        assert_eq!(range(&probe), (1, 1, 0));
        bench.sender.handle_answer(now, request, stored.clone());
    }
    assert!(pauses[0] <= ms(1_000) && pauses[8] >= ms(30_000), "{pauses:?}");
    bench.sender.probe();
    let (request, probe) = bench.sent(now);
    bench.ack(now, request, &probe);
    assert_eq!((bench.sender.settled().get(), bench.poll(now)), (1, Action::Idle));
}
