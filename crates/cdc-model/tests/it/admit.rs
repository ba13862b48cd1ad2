use cdc_model::{Batch, Digest, Epoch, Mark, Origin, Position, Record, Refusal, Sequence, admit};

use crate::{epoch, id, insert, own, record};

fn log(len: u64) -> (Vec<Record>, Vec<Position>) {
    let mut positions = vec![Position::START];
    let records: Vec<_> = (1..=len).map(|n| record(n, &own(), insert(n))).collect();
    for record in &records {
        let last = *positions.last().unwrap();
        positions.push(Position { sequence: record.sequence, digest: record.digest(last.digest) });
    }
    (records, positions)
}

fn batch(records: &[Record], after: Position, through: Position) -> Batch {
    let within = |r: &&Record| r.sequence > after.sequence && r.sequence <= through.sequence;
    let records: Vec<Record> = records.iter().filter(within).cloned().collect();
    let kept_back = through.sequence.since(after.sequence) - u64::try_from(records.len()).unwrap();
    Batch {
        sender: own().source().clone(),
        generation: 1,
        epoch: epoch(),
        after,
        through,
        records,
        kept_back,
    }
}

#[test]
fn a_batch_is_applied_only_where_epoch_position_and_digest_agree() {
    let (records, at) = log(6);
    let mark = Mark::at(epoch(), at[2]);
    let other = Position { digest: Digest::of(b"other"), ..at[2] };
    for (after, through, mark, expected) in [
        (at[0], at[3], None, Ok(())),
        (at[2], at[6], Some(mark), Ok(())),
        (at[2], at[2], Some(mark), Ok(())),
        (at[2], at[3], None, Err(Refusal::ParentLostState { after: Sequence::new(2) })),
        (
            at[1],
            at[3],
            Some(mark),
            Err(Refusal::NotAtMark { after: Sequence::new(1), mark: Sequence::new(2) }),
        ),
        (
            at[3],
            at[4],
            Some(mark),
            Err(Refusal::NotAtMark { after: Sequence::new(3), mark: Sequence::new(2) }),
        ),
        (at[2], at[3], Some(Mark::at(epoch(), other)), Err(Refusal::Diverged { at: Sequence::new(2) })),
    ] {
        assert_eq!(admit(&batch(&records, after, through), mark.as_ref()), expected);
    }
}

#[test]
fn an_epoch_that_ended_was_not_granted_or_is_another_is_refused() {
    let (records, at) = log(3);
    let batch = batch(&records, at[1], at[2]);
    let mark = |number, nonce| Some(Mark::at(Epoch { number, nonce }, at[1]));
    assert!(matches!(admit(&batch, mark(2, 0xc0ffee).as_ref()), Err(Refusal::Fenced { .. })));
    assert!(matches!(admit(&batch, mark(0, 0xc0ffee).as_ref()), Err(Refusal::NotGranted { .. })));
    assert!(matches!(admit(&batch, mark(1, 7).as_ref()), Err(Refusal::Diverged { .. })));
}

#[test]
fn a_batch_that_contradicts_itself_is_malformed() {
    let (records, at) = log(4);
    let good = || batch(&records, at[1], at[3]);
    let mark = Mark::at(epoch(), at[1]);
    assert_eq!(admit(&good(), Some(&mark)), Ok(()));
    let spoil: [(&str, fn(&mut Batch)); 8] = [
        ("lost", |b| drop(b.records.remove(0))),
        ("counted twice", |b| b.kept_back = 1),
        ("swapped", |b| b.records.swap(0, 1)),
        ("repeated", |b| b.records[1] = b.records[0].clone()),
        ("altered", |b| b.records[1].body = insert(9)),
        ("foreign without a route", |b| b.sender = id("https://x.y")),
        ("range reversed", |b| b.through.sequence = Sequence::ZERO),
        ("beyond its range", |b| b.records[1].sequence = Sequence::new(9)),
    ];
    for (what, spoil) in spoil {
        let mut batch = good();
        spoil(&mut batch);
        assert!(matches!(admit(&batch, Some(&mark)), Err(Refusal::Malformed { .. })), "{what}");
    }
}

#[test]
fn a_filtered_range_moves_the_mark_and_forwarded_records_keep_their_origin() {
    let (mut records, at) = log(4);
    records.remove(1);
    assert_eq!(admit(&batch(&records, at[0], at[4]), None), Ok(()));
    assert_eq!(admit(&batch(&[], at[0], at[4]), None), Ok(()));
    let via = Origin::new(id("https://a.b/c"), epoch(), vec![id("https://a.b/c")]);
    let mut forwarded = record(2, &via, insert(2));
    forwarded.origin_sequence = Sequence::new(77);
    assert_ne!(forwarded.digest(at[1].digest), at[2].digest);
    assert_eq!(admit(&batch(&[forwarded], at[0], at[4]), None), Ok(()));
}
