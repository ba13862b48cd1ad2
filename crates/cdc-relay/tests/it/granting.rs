//! Which epoch a parent grants, and from where.

use cdc_model::{Digest, Epoch, Mark, Position, Refusal, Sequence};
use cdc_relay::{GrantRequest, Granted, Inbound, Receiver};

use crate::id;

const ENDED: Epoch = Epoch { number: 2, nonce: 5 };
const NEW: Epoch = Epoch { number: 3, nonce: 77 };

fn place(n: u64) -> Position {
    Position { sequence: Sequence::new(n), digest: Digest::of(&n.to_be_bytes()) }
}

fn link(mark: Option<Mark>) -> Inbound {
    Inbound { generation: 4, session: 9, mark }
}

fn request(head: Position) -> GrantRequest {
    GrantRequest { sender: id("child"), ended: ENDED, head, nonce: NEW.nonce }
}

fn grant(link: Option<Inbound>, request: &GrantRequest) -> Result<(Inbound, Granted), Refusal> {
    Receiver { id: id("parent"), ancestors: vec![id("root")] }.grant(link.as_ref(), request)
}

#[test]
fn the_new_epoch_begins_at_the_mark_and_a_repeat_changes_nothing() {
    let before = link(Some(Mark::at(ENDED, place(10))));
    for head in [place(10), place(12)] {
        let (after, granted) = grant(Some(before), &request(head)).unwrap();
        assert_eq!(granted, Granted { epoch: NEW, fork: place(10) });
        assert_eq!(after, link(Some(Mark::at(NEW, place(10)))));
        assert_eq!(grant(Some(after), &request(head)), Ok((after, granted)), "a repeat");
    }
}

#[test]
fn a_log_that_the_witness_cannot_vouch_for_gets_no_epoch() {
    let (after, mark, at) = (Sequence::new(9), Sequence::new(10), Sequence::new(10));
    let taken = |epoch| Some(link(Some(Mark::at(epoch, place(10)))));
    let other = Position { digest: Digest::ZERO, ..place(10) };
    let ask = |ended| GrantRequest { ended, ..request(place(10)) };
    let (later, last) = (Epoch { number: 4, nonce: 1 }, Epoch { number: u32::MAX, nonce: 1 });
    let namesake = Epoch { nonce: 6, ..ENDED };
    for (link, request, refusal) in [
        (None, request(place(9)), Refusal::ParentLostState { after }),
        (Some(link(None)), request(place(9)), Refusal::ParentLostState { after }),
        (taken(ENDED), request(place(9)), Refusal::NotAtMark { after, mark }),
        (taken(NEW), request(place(9)), Refusal::NotAtMark { after, mark }),
        (taken(ENDED), request(other), Refusal::Diverged { at }),
        (taken(ENDED), ask(namesake), Refusal::Diverged { at: Sequence::ZERO }),
        (taken(later), request(place(10)), Refusal::Fenced { epoch: ENDED, current: later }),
        (
            taken(Epoch { nonce: 78, ..NEW }),
            request(place(10)),
            Refusal::Fenced { epoch: ENDED, current: Epoch { nonce: 78, ..NEW } },
        ),
        (taken(ENDED), ask(later), Refusal::NotGranted { epoch: later, current: ENDED }),
        (
            taken(last),
            ask(last),
            Refusal::Malformed { reason: "no epoch follows the last number".to_owned() },
        ),
    ] {
        assert_eq!(grant(link, &request), Err(refusal), "{request:?}");
    }
    let from_above = GrantRequest { sender: id("root"), ..request(place(10)) };
    assert!(matches!(grant(taken(ENDED), &from_above), Err(Refusal::Cycle { .. })));
}
