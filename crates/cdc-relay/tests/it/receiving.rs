//! What a receiver decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_model::{
    Batch, ChangeBody, Digest, Epoch, Mark, ObjectId, Operation, Origin, Position, Received, Record, Refusal,
    Sequence, Timestamp,
};
use cdc_relay::{DEPTH_MAX, Hello, Hole, Inbound, Intake, OriginMark, Receiver, refused};

use crate::id;

const EPOCH: Epoch = Epoch { number: 2, nonce: 5 };

fn at(n: u64) -> Sequence {
    Sequence::new(n)
}

fn parent(ancestors: &[&str]) -> Receiver {
    Receiver { id: id("parent"), ancestors: ancestors.iter().map(|name| id(name)).collect() }
}

fn hello(generation: u64, session: u64) -> Hello {
    Hello {
        sender: id("child"),
        generation,
        session,
        epoch: EPOCH,
        acked: Sequence::ZERO,
        tail: Position::START,
        floor: at(1),
    }
}

fn place(n: u64) -> Position {
    Position { sequence: at(n), digest: Digest::of(&n.to_be_bytes()) }
}

fn link(generation: u64, session: u64, mark: u64) -> Inbound {
    Inbound { generation, session, mark: (mark > 0).then(|| Mark::at(EPOCH, place(mark))) }
}

/// A record of the child's log: its place there, its source, its place at the source, the way it came.
fn record(sequence: u64, source: &str, origin: u64, route: &[&str]) -> Record {
    Record {
        sequence: at(sequence),
        timestamp: Timestamp::ZERO,
        epoch: EPOCH,
        origin: Origin::new(id(source), EPOCH, route.iter().map(|name| id(name)).collect()),
        origin_sequence: at(origin),
        origin_timestamp: Timestamp::ZERO,
        body: ChangeBody::new(Operation::Insert, "t", sequence.to_string()).to_body(),
    }
}

/// A batch of the link's generation 1, from its mark at 10 on, with a filtered row at its end.
fn batch(records: Vec<Record>) -> Batch {
    let kept_back = 89 - u64::try_from(records.len()).unwrap();
    let (after, through) = (place(10), place(99));
    Batch { sender: id("child"), generation: 1, epoch: EPOCH, after, through, records, kept_back }
}

#[test]
fn handshakes_are_granted_repeated_or_refused() {
    let mut lost = hello(3, 1);
    lost.acked = at(4);
    let mut older = hello(3, 1);
    older.epoch.number = 1;
    let mut foreign = hello(3, 1);
    foreign.epoch.nonce = 6;
    let mut newer = hello(3, 1);
    newer.epoch.number = 3;
    let mut other = hello(3, 1);
    other.tail = Position { sequence: at(8), digest: Digest::of(b"other") };
    let superseded = |generation, current| Err(Refusal::Superseded { generation, current });
    let known = Epoch { ..EPOCH };
    for (stored, hello, expected) in [
        (None, hello(1, 1), Ok(link(1, 1, 0))),
        (Some(link(1, 1, 8)), hello(1, 1), Ok(link(1, 1, 8))),
        (Some(link(1, 1, 8)), hello(2, 7), Ok(link(2, 7, 8))),
        (Some(link(1, 1, 8)), hello(9, 7), Ok(link(9, 7, 8))),
        (Some(link(2, 7, 8)), hello(1, 1), superseded(1, 2)),
        (Some(link(2, 7, 8)), hello(2, 8), superseded(2, 2)),
        (None, hello(0, 1), superseded(0, 0)),
        (None, lost.clone(), Err(Refusal::ParentLostState { after: at(4) })),
        (Some(link(2, 1, 0)), lost, Err(Refusal::ParentLostState { after: at(4) })),
        (Some(link(1, 1, 8)), older.clone(), Err(Refusal::Fenced { epoch: older.epoch, current: known })),
        (Some(link(1, 1, 8)), newer.clone(), Err(Refusal::NotGranted { epoch: newer.epoch, current: known })),
        (Some(link(1, 1, 8)), foreign, Err(Refusal::Diverged { at: at(0) })),
        (Some(link(1, 1, 8)), other, Err(Refusal::Diverged { at: at(8) })),
    ] {
        assert_eq!(parent(&["root"]).greet(stored.as_ref(), &hello), expected, "{stored:?} {hello:?}");
    }
}

#[test]
fn a_circle_is_refused_and_named_at_the_handshake_and_at_every_batch() {
    for (ancestors, circle) in [
        (&["child"][..], &["parent", "child", "parent"][..]),
        (&["a", "b", "child", "c"], &["parent", "a", "b", "child", "parent"]),
    ] {
        let refusal = Refusal::Cycle { circle: circle.iter().map(|name| id(name)).collect() };
        assert_eq!(parent(ancestors).greet(None, &hello(1, 1)), Err(refusal.clone()));
        let batch = batch(vec![]);
        assert_eq!(parent(ancestors).admit(Some(&link(1, 1, 10)), &batch).map(drop), Err(refusal));
    }
    let mut own = hello(1, 1);
    own.sender = id("parent");
    let refusal = Refusal::Cycle { circle: vec![id("parent"), id("parent")] };
    assert_eq!(parent(&[]).greet(None, &own), Err(refusal));
}

#[test]
fn a_chain_deeper_than_the_limit_is_refused() {
    let above = |count: usize| {
        let ancestors = (0..count).map(|n| id(&format!("n{n}"))).collect();
        Receiver { id: id("parent"), ancestors }
    };
    assert_eq!(above(DEPTH_MAX - 2).greet(None, &hello(1, 1)), Ok(link(1, 1, 0)));
    assert!(matches!(above(DEPTH_MAX - 1).greet(None, &hello(1, 1)), Err(Refusal::TooDeep { .. })));

    let way: Vec<_> = (0..DEPTH_MAX - 1).map(|n| format!("n{n}")).collect();
    let route = |len: usize| way.iter().take(len).map(String::as_str).collect::<Vec<_>>();
    let long = |len| batch(vec![record(11, "leaf", 1, &route(len))]);
    let stored = link(1, 1, 10);
    assert_eq!(parent(&[]).admit(Some(&stored), &long(DEPTH_MAX - 2)).map(drop), Ok(()));
    let refusal = parent(&[]).admit(Some(&stored), &long(DEPTH_MAX - 1)).map(drop).unwrap_err();
    assert!(matches!(refusal, Refusal::TooDeep { .. }), "{refusal}");
}

#[test]
fn batches_of_other_generations_and_places_are_refused() {
    let off = |change: fn(&mut Batch)| {
        let mut batch = batch(vec![]);
        change(&mut batch);
        parent(&[]).admit(Some(&link(3, 1, 10)), &batch).map(drop)
    };
    let lost = Err(Refusal::ParentLostState { after: at(10) });
    assert_eq!(off(|batch| batch.generation = 3), Ok(()));
    assert_eq!(off(|batch| batch.generation = 2), Err(Refusal::Superseded { generation: 2, current: 3 }));
    assert_eq!(off(|batch| batch.generation = 4), lost);
    assert_eq!(parent(&[]).admit(None, &batch(vec![])).map(drop), lost);
    let moved = off(|batch| (batch.generation, batch.after, batch.kept_back) = (3, place(9), 90));
    assert_eq!(moved, Err(Refusal::NotAtMark { after: at(9), mark: at(10) }));
    let other = off(|batch| (batch.generation, batch.after.digest) = (3, Digest::ZERO));
    assert_eq!(other, Err(Refusal::Diverged { at: at(10) }));
}

#[test]
fn every_record_is_stored_once_and_what_came_before_or_went_round_is_counted() {
    let records = vec![
        record(11, "child", 11, &[]),
        record(12, "leaf", 4, &["leaf"]),
        record(13, "leaf", 7, &["leaf"]),
        record(14, "leaf", 7, &["leaf", "aside"]),
        record(15, "parent", 3, &["aside"]),
        record(16, "leaf", 9, &["leaf", "parent"]),
        record(17, "leaf", 3, &["leaf"]),
        record(18, "leaf", 8, &["leaf", "aside"]),
    ];
    let batch = batch(records);
    let receiver = parent(&["root"]);
    let admitted = receiver.admit(Some(&link(1, 1, 10)), &batch).unwrap();
    let mut asked = Vec::new();
    let plan = admitted.plan(|source, epoch| {
        asked.push(source.clone());
        assert_eq!(epoch, EPOCH);
        let leaf = OriginMark { taken: at(5), holes: vec![Hole { after: at(2), through: at(3) }] };
        Ok::<_, String>(if *source == id("leaf") { leaf } else { OriginMark::default() })
    });
    let plan = plan.unwrap();
    let stored = |source: &str, route: &[&str]| {
        Intake::Store(Origin::new(id(source), EPOCH, route.iter().map(|name| id(name)).collect()))
    };
    assert_eq!(
        plan.intake,
        [
            stored("child", &["child"]),
            Intake::Duplicate,
            stored("leaf", &["leaf", "child"]),
            Intake::Duplicate,
            Intake::Looped,
            Intake::Looped,
            Intake::Late,
            stored("leaf", &["leaf", "aside", "child"]),
        ]
    );
    let moved = BTreeMap::from([((id("child"), EPOCH), at(11)), ((id("leaf"), EPOCH), at(8))]);
    assert_eq!((plan.origin_marks, plan.link.mark), (moved, Some(batch.mark())));
    let received = Received { received: 8, stored: 3, duplicate: 2, looped: 2, late: 1, refused: 0 };
    assert_eq!(plan.received, received);
    assert!(plan.received.is_conserved() && refused(&batch).is_conserved());
    assert_eq!(asked, [id("child"), id("leaf"), id("parent")], "each origin is looked up once");
}

#[test]
fn records_of_one_origin_and_route_share_it() {
    let origin = Origin::new(id("leaf"), EPOCH, vec![id("leaf")]);
    let own = |n| Record { origin: Arc::clone(&origin), ..record(n, "leaf", n, &["leaf"]) };
    let batch = batch((11..50).map(own).collect());
    let receiver = parent(&[]);
    let admitted = receiver.admit(Some(&link(1, 1, 10)), &batch).unwrap();
    let plan = admitted.plan(|_, _| Ok::<_, String>(OriginMark::default())).unwrap();
    let [Intake::Store(first), .., Intake::Store(last)] = plan.intake.as_slice() else {
        panic!("all are stored")
    };
    assert!(Arc::ptr_eq(first, last));
}

#[test]
fn a_look_up_that_fails_leaves_no_plan() {
    let batch = batch(vec![record(11, "child", 11, &[])]);
    let receiver = parent(&[]);
    let admitted = receiver.admit(Some(&link(1, 1, 10)), &batch).unwrap();
    assert_eq!(admitted.plan(|_, _| Err("disk")), Err("disk"));
}

#[test]
fn an_event_that_comes_by_two_ways_is_stored_by_the_first() {
    // The leaf moved from one child of this parent to another; both carry its events.
    let mut marks: BTreeMap<(ObjectId, Epoch), Sequence> = BTreeMap::new();
    let mut stored = Vec::new();
    for (way, events) in [("left", 1..=4), ("right", 1..=6), ("left", 5..=6)] {
        let first = *events.start();
        let records = events.map(|n| record(n, "leaf", n, &["leaf"])).collect();
        let mut batch = Batch { sender: id(way), after: place(first - 1), ..batch(records) };
        batch.through = place(90);
        batch.kept_back = 91 - first - u64::try_from(batch.records.len()).unwrap();
        let receiver = parent(&[]);
        let known = Inbound { mark: Some(Mark::at(EPOCH, batch.after)), ..link(1, 1, 0) };
        let admitted = receiver.admit(Some(&known), &batch).unwrap();
        let look_up = |source: &ObjectId, epoch| {
            let taken = marks.get(&(source.clone(), epoch)).copied().unwrap_or_default();
            Ok::<_, String>(OriginMark { taken, holes: vec![] })
        };
        let plan = admitted.plan(look_up).unwrap();
        let taken =
            batch.records.iter().zip(&plan.intake).filter(|(_, intake)| matches!(intake, Intake::Store(_)));
        stored.extend(taken.map(|(record, _)| record.origin_sequence.get()));
        marks.extend(plan.origin_marks);
    }
    assert_eq!(stored, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_answer_never_says_more_is_settled_than_stored() {
    let receiver = parent(&["root"]);
    let answer = receiver.answer(Some(&link(4, 1, 10)), at(50), None);
    assert_eq!((answer.settled, answer.generation, answer.ancestors), (at(10), 4, vec![id("root")]));
    assert_eq!(receiver.answer(None, at(50), None).settled, Sequence::ZERO);
}

#[test]
fn the_handshake_has_a_stable_wire_form() {
    insta::assert_json_snapshot!(hello(3, 9), @r#"
    {
      "sender": "https://child.test",
      "generation": 3,
      "session": 9,
      "epoch": "2-0000000000000005",
      "acked": 0,
      "tail": {
        "sequence": 0,
        "digest": "00000000000000000000000000000000"
      },
      "floor": 1
    }
    "#);
}
