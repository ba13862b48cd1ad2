//! What stops a link, and what makes none.

use cdc_model::{Answer, Digest, Epoch, Mark, Position, Record, Refusal, Remedy, Sequence, Timestamp};
use cdc_relay::{Action, Error, LinkOptions, Outbound, Sender, Setup, Status, Stop};

use super::{Bench, EPOCH, ms, position, range, rows, said};
use crate::id;

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
