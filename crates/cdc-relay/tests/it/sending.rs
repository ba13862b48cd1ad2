//! What a sender does when, with a log and a receiver played by hand.

use std::sync::Arc;
use std::time::Duration;

use cdc_model::{
    Answer, Batch, ChangeBody, Digest, Epoch, Mark, ObjectId, Operation, Origin, Position, Record, Refusal,
    Remedy, Sequence, Timestamp,
};
use cdc_relay::{
    Action, Cutter, Error, Hello, LinkOptions, Outbound, RequestId, Sender, Setup, Status, Stop,
};

const EPOCH: Epoch = Epoch { number: 3, nonce: 9 };

fn id(name: &str) -> ObjectId {
    format!("https://{name}.test").parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rows(count: usize) -> Vec<Record> {
    let origin = Origin::new(id("child"), EPOCH, vec![]);
    let row = |n: usize| {
        let sequence = Sequence::new(u64::try_from(n).unwrap());
        Record {
            sequence,
            timestamp: Timestamp::ZERO,
            epoch: EPOCH,
            origin: Arc::clone(&origin),
            origin_sequence: sequence,
            origin_timestamp: Timestamp::ZERO,
            body: ChangeBody::new(Operation::Insert, "t", n.to_string()).to_body(),
        }
    };
    (1..=count).map(row).collect()
}

/// A sender with its log; the tests play the receiver.
struct Bench {
    sender: Sender,
    log: Vec<Record>,
    tail: usize,
}

impl Bench {
    fn with(options: LinkOptions, link: Outbound, tail: usize) -> Self {
        let mut bench = Self::unlinked(options, link, tail);
        let (request, hello) = bench.handshake(ms(0));
        bench.answer(ms(0), request, &hello, 0, None);
        bench
    }

    fn unlinked(options: LinkOptions, link: Outbound, tail: usize) -> Self {
        let log = rows(500);
        let setup = Setup {
            id: id("child"),
            receiver: id("parent"),
            epoch: EPOCH,
            options,
            link,
            tail: position(&log, tail),
            floor: Sequence::new(1),
            session: 1,
        };
        Self { sender: Sender::new(setup).unwrap(), log, tail }
    }

    fn linked(tail: usize) -> Self {
        Self::with(LinkOptions::default(), Outbound::NEW, tail)
    }

    fn handshake(&mut self, now: Duration) -> (RequestId, Hello) {
        let Action::Save { request, .. } = self.sender.poll(now) else { panic!("the link is stored first") };
        self.sender.handle_saved(request);
        let Action::Handshake { request, hello } = self.sender.poll(now) else { panic!("no handshake") };
        (request, hello)
    }

    fn grow(&mut self, now: Duration, tail: usize) {
        self.tail = tail;
        self.sender.handle_tail(now, position(&self.log, tail));
    }

    /// Does what concerns the log; what is left is for the receiver or to wait.
    fn poll(&mut self, now: Duration) -> Action {
        loop {
            let action = self.sender.poll(now);
            match action {
                Action::Cut { request, cut } => {
                    let mut cutter = Cutter::new(cut);
                    let from = cutter.position().sequence;
                    for row in self.log.iter().filter(|row| row.sequence > from) {
                        if cutter.push(row.clone()).unwrap().is_break() {
                            break;
                        }
                    }
                    self.sender.handle_batch_cut(now, request, cutter.finish());
                }
                Action::Compare { request, at } => {
                    let own = position(&self.log, usize::try_from(at.get()).unwrap()).digest;
                    self.sender.handle_digest(now, request, Some(own));
                }
                Action::Save { .. }
                | Action::Handshake { .. }
                | Action::Send { .. }
                | Action::Wait(_)
                | Action::Idle
                | Action::Stopped(_) => return action,
            }
        }
    }

    fn sent(&mut self, now: Duration) -> (RequestId, Batch) {
        let action = self.poll(now);
        let Action::Send { request, batch } = action else { panic!("nothing is sent: {action:?}") };
        (request, batch)
    }

    fn answer(
        &mut self,
        now: Duration,
        request: RequestId,
        hello: &Hello,
        mark: usize,
        refusal: Option<Refusal>,
    ) {
        let mark = (mark > 0).then(|| Mark::at(EPOCH, position(&self.log, mark)));
        self.sender.handle_answer(now, request, said(hello.generation, mark, refusal));
    }

    fn ack(&mut self, now: Duration, request: RequestId, batch: &Batch) {
        let settled = batch.through.sequence;
        let answer = Answer { settled, ..said(batch.generation, Some(batch.mark()), None) };
        self.sender.handle_answer(now, request, answer);
    }
}

fn said(generation: u64, mark: Option<Mark>, refusal: Option<Refusal>) -> Answer {
    Answer { mark, settled: Sequence::ZERO, generation, ancestors: vec![], refusal }
}

fn position(log: &[Record], at: usize) -> Position {
    let digest = log.iter().take(at).fold(Digest::ZERO, |digest, row| row.digest(digest));
    Position { sequence: Sequence::new(u64::try_from(at).unwrap()), digest }
}

fn range(batch: &Batch) -> (u64, u64, usize) {
    (batch.after.sequence.get(), batch.through.sequence.get(), batch.records.len())
}

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

/// What the sender of a log of five rows, all acknowledged, makes of one answer to its handshake.
fn stop_after(change: impl FnOnce(&mut Answer, &[Record])) -> Option<Stop> {
    let log = rows(6);
    let link = Outbound { acked: position(&log, 5), ..Outbound::NEW };
    let mut bench = Bench::unlinked(LinkOptions::default(), link, 5);
    let (request, hello) = bench.handshake(ms(0));
    let mut answer = said(hello.generation, Some(Mark::at(EPOCH, position(&log, 5))), None);
    change(&mut answer, &log);
    bench.sender.handle_answer(ms(0), request, answer);
    let Action::Stopped(stop) = bench.poll(ms(0)) else { return None };
    assert_eq!(bench.sender.acked(), position(&log, 5), "a stop moves nothing");
    assert_eq!(bench.sender.status(ms(0)), Status::Stopped);
    Some(stop)
}

#[test]
fn every_answer_that_proves_something_wrong_stops_the_link_and_says_what() {
    let at = Sequence::new;
    let epoch = |number, nonce| Epoch { number, nonce };
    let fenced = |answer: &mut Answer, epoch| answer.mark.as_mut().unwrap().epoch = epoch;
    let refused = |refusal: Refusal| stop_after(move |answer, _| answer.refusal = Some(refusal));
    let deep = Refusal::TooDeep { depth_max: 32 };
    for (stop, expected, remedy) in [
        (stop_after(|_, _| ()), None, None),
        (
            stop_after(|answer, log| answer.mark = Some(Mark::at(EPOCH, position(log, 6)))),
            Some(Stop::Rewound { tail: at(5), mark: at(6) }),
            Some(Remedy::Restore),
        ),
        (
            stop_after(|answer, _| answer.mark.as_mut().unwrap().digest = Digest::of(b"other")),
            Some(Stop::Diverged { at: at(5) }),
            Some(Remedy::Restore),
        ),
        (
            stop_after(|answer, log| answer.mark = Some(Mark::at(EPOCH, position(log, 3)))),
            Some(Stop::ReceiverRewound { acked: at(5), mark: position(&rows(3), 3) }),
            Some(Remedy::Restore),
        ),
        (
            stop_after(|answer, _| answer.mark = None),
            Some(Stop::Refused(Refusal::ParentLostState { after: at(5) })),
            Some(Remedy::Restore),
        ),
        (
            stop_after(|answer, _| fenced(answer, epoch(4, 9))),
            Some(Stop::Refused(Refusal::Fenced { epoch: EPOCH, current: epoch(4, 9) })),
            Some(Remedy::Fenced),
        ),
        (
            stop_after(|answer, _| fenced(answer, epoch(2, 9))),
            Some(Stop::Refused(Refusal::NotGranted { epoch: EPOCH, current: epoch(2, 9) })),
            Some(Remedy::Restore),
        ),
        (
            stop_after(|answer, _| fenced(answer, epoch(3, 8))),
            Some(Stop::Diverged { at: at(0) }),
            Some(Remedy::Restore),
        ),
        (
            stop_after(|answer, _| answer.settled = at(6)),
            Some(Stop::BadAnswer { reason: "more is settled than stored" }),
            Some(Remedy::Bug),
        ),
        (
            stop_after(|answer, _| answer.generation = 7),
            Some(Stop::BadAnswer { reason: "its generation is not the link's" }),
            Some(Remedy::Bug),
        ),
        (
            stop_after(|answer, _| answer.ancestors = vec![id("root"), id("child"), id("parent")]),
            Some(Stop::Refused(Refusal::Cycle {
                circle: vec![id("child"), id("parent"), id("root"), id("child")],
            })),
            Some(Remedy::FixRequest),
        ),
        (
            stop_after(|answer, _| answer.ancestors = (0..31).map(|n| id(&format!("n{n}"))).collect()),
            Some(Stop::TooDeep { depth: 33 }),
            Some(Remedy::FixRequest),
        ),
        (
            refused(Refusal::UnknownObject { object: id("parent") }),
            Some(Stop::Refused(Refusal::UnknownObject { object: id("parent") })),
            Some(Remedy::FixRequest),
        ),
        (refused(deep.clone()), Some(Stop::Refused(deep)), Some(Remedy::FixRequest)),
        (
            refused(Refusal::Superseded { generation: 1, current: 2 }),
            Some(Stop::Refused(Refusal::Superseded { generation: 1, current: 2 })),
            Some(Remedy::Fenced),
        ),
        (refused(Refusal::Diverged { at: at(2) }), Some(Stop::Diverged { at: at(2) }), Some(Remedy::Restore)),
    ] {
        assert_eq!(stop, expected);
        assert_eq!(stop.map(|stop| stop.remedy()), remedy);
    }
}

#[test]
fn a_log_that_was_made_anew_is_told_that_its_past_is_another() {
    let stop = stop_after(|answer, _| {
        answer.refusal = Some(Refusal::Superseded { generation: 1, current: 1 });
        let mark = answer.mark.as_mut().unwrap();
        mark.epoch = Epoch { nonce: EPOCH.nonce + 1, ..EPOCH };
    });
    assert_eq!(stop, Some(Stop::Diverged { at: Sequence::ZERO }));
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
fn rows_pruned_before_the_receiver_took_them_stop_the_link() {
    let mut bench = Bench::unlinked(LinkOptions::default(), Outbound::NEW, 9);
    bench.sender.handle_floor(Sequence::new(4));
    let (request, hello) = bench.handshake(ms(0));
    bench.answer(ms(0), request, &hello, 2, None);
    let stop = Stop::BelowFloor { mark: Sequence::new(2), floor: Sequence::new(4) };
    assert_eq!(bench.poll(ms(0)), Action::Stopped(stop));

    let begin = position(&bench.log, 3);
    let mut bench = Bench::unlinked(LinkOptions::default(), Outbound::beginning_at(begin), 9);
    bench.sender.handle_floor(Sequence::new(4));
    let (request, hello) = bench.handshake(ms(0));
    bench.answer(ms(0), request, &hello, 0, None);
    assert_eq!(range(&bench.sent(ms(0)).1), (0, 9, 6), "a declared begin passes over what is gone");
}

#[test]
fn a_log_that_changes_under_the_link_stops_it() {
    let changed = |at| Action::Stopped(Stop::LogChanged { at: Sequence::new(at) });
    let mut bench = Bench::linked(5);
    bench.grow(ms(0), 4);
    assert_eq!(bench.poll(ms(0)), changed(4));

    let mut bench = Bench::linked(5);
    bench.sender.handle_tail(ms(0), Position { digest: Digest::of(b"other"), ..position(&bench.log, 5) });
    assert_eq!(bench.poll(ms(0)), changed(5));

    let mut bench = Bench::linked(5);
    bench.log[2].timestamp = Timestamp::new(1);
    assert_eq!(bench.poll(ms(0)), changed(5));
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

#[test]
fn a_handshake_waits_until_its_generation_is_stored() {
    let mut bench = Bench::unlinked(LinkOptions::default(), Outbound { generation: 6, ..Outbound::NEW }, 0);
    let Action::Save { request, link } = bench.sender.poll(ms(0)) else { panic!("the link is stored first") };
    assert_eq!(link.generation, 7);
    bench.sender.handle_failure(ms(0), request);
    bench.sender.handle_saved(request);
    let Action::Wait(until) = bench.sender.poll(ms(0)) else { panic!("it must pause") };
    assert_eq!(bench.handshake(until).1.generation, 7);
}

#[test]
fn options_outside_their_limits_make_no_sender() {
    let setup = Setup {
        id: id("child"),
        receiver: id("parent"),
        epoch: EPOCH,
        options: LinkOptions { batch_size: 0, ..LinkOptions::default() },
        link: Outbound::NEW,
        tail: Position::START,
        floor: Sequence::new(1),
        session: 1,
    };
    let error = Sender::new(setup).unwrap_err();
    assert!(matches!(error, Error::Setting { name: "batchSize", .. }));
    assert_eq!(error.remedy(), Remedy::FixRequest);
}
