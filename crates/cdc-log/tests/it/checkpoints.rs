//! Checkpoints and those who consume by them.

use cdc_log::{
    Begin, Consumed, Emit, Error, Hold, Limit, Log, Remover, Result, Retention, Save, Subscription,
};
use cdc_model::{Cursor, Epoch, Record, Remedy, Sequence, Timestamp};
use serde_json::json;

use crate::log::{filled, open, owned};
use crate::witness::folder;

fn at(sequence: u64) -> Cursor {
    Cursor { sequence: Sequence::new(sequence), timestamp: Timestamp::new(1), epoch: None }
}

fn save(log: &mut Log, save: &Save) -> Result<u64> {
    log.transact(|log| log.save_checkpoint("s", save)).map(|saved| saved.cursor.sequence.get())
}

fn remove(log: &mut Log, by: Remover) -> Result<bool> {
    log.transact(|log| log.remove_checkpoint("s", by))
}

#[test]
fn a_checkpoint_advances_keeps_what_is_not_given_and_goes_back_only_by_force() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = filled(&path, 20);
    let first =
        log.transact(|log| log.save_checkpoint("s", &Save::at(at(5)).metadata(json!({"k": [1]})))).unwrap();
    assert_eq!((first.revision, first.cursor.epoch), (0, Some(log.epoch())));
    let second = log.transact(|log| log.save_checkpoint("s", &Save::at(at(9)))).unwrap();
    assert_eq!((second.created_at, &second.metadata), (first.created_at, &first.metadata));
    let back = log.transact(|log| log.save_checkpoint("s", &Save::at(at(4))));
    assert!(
        matches!(back, Err(Error::CheckpointBackwards { at, to, .. }) if (at, to) == (Sequence::new(9), Sequence::new(4)))
    );
    let beyond = log.transact(|log| log.save_checkpoint("s", &Save::at(at(21)).forced()));
    assert!(matches!(beyond, Err(Error::BeyondTail { .. })));
    let forced = log
        .transact(|log| log.save_checkpoint("s", &Save::at(at(4)).forced().metadata(json!(null))))
        .unwrap();
    assert_eq!((forced.revision, &forced.metadata), (1, &Some(json!(null))));
    drop(log);
    let mut log = open(&path);
    assert_eq!(log.checkpoint("s").unwrap(), Some(forced.clone()));
    assert_eq!(log.checkpoints().unwrap(), [forced]);
    assert!(remove(&mut log, Remover::Anybody).unwrap());
    assert!(!remove(&mut log, Remover::Anybody).unwrap());
    assert_eq!(log.checkpoint("s").unwrap(), None);
}

#[test]
fn a_consumer_takes_every_record_exactly_once() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.write(|tx| tx.execute_batch("CREATE TABLE sums(n)")).unwrap();
    for n in 0..30 {
        log.write(|tx| tx.execute("INSERT INTO t VALUES (?1, ?1)", [n])).unwrap();
    }
    let by = Subscription { limit: Limit { records: 4, bytes: usize::MAX }, ..Subscription::new("s") };
    let (mut taken, mut calls) = (0, 0);
    loop {
        calls += 1;
        let done = log.consume(&by, |_, records| {
            if calls % 3 == 0 {
                Err(Error::GivenUp { reason: "a test".to_owned() })
            } else {
                Ok(records.len())
            }
        });
        match done {
            Ok(Some(consumed)) => taken += consumed.done.unwrap_or_default(),
            Ok(None) => break,
            Err(Error::GivenUp { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    // Schema records are passed over.
    assert_eq!(taken, 30);
}

#[test]
fn a_consumer_that_asks_for_no_records_takes_one_at_a_time() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.write(|tx| tx.execute_batch("INSERT INTO t(id) VALUES (1), (2), (3)")).unwrap();
    let limit = Limit { records: 0, ..Limit::default() };
    let by = Subscription { limit, ..Subscription::new("s") };
    let mut taken = Vec::new();
    while let Some(consumed) = log.consume(&by, |_, records| Ok(records.len())).unwrap() {
        taken.extend(consumed.done);
    }
    assert_eq!(taken, [1, 1, 1]);
}

#[test]
fn a_save_that_expects_another_checkpoint_than_there_is_is_refused() {
    let folder = folder();
    let mut log = filled(&folder.path().join("log"), 20);
    save(&mut log, &Save::at(at(5)).expecting(None)).unwrap();
    let seen = log.checkpoint("s").unwrap();
    let refused = save(&mut log, &Save::at(at(6)).expecting(None)).unwrap_err();
    assert!(matches!(refused, Error::CheckpointMoved { at, revision: 0, .. } if at == Sequence::new(5)));
    assert_eq!(refused.remedy(), Remedy::Retry);
    assert_eq!(save(&mut log, &Save::at(at(7)).expecting(seen.as_ref())).unwrap(), 7);
    // An operator sets it back to where it was seen: the revision tells.
    save(&mut log, &Save::at(at(5)).forced()).unwrap();
    let refused = save(&mut log, &Save::at(at(8)).expecting(seen.as_ref())).unwrap_err();
    assert!(matches!(refused, Error::CheckpointMoved { revision: 1, .. }));
    assert_eq!(log.checkpoint("s").unwrap().unwrap().cursor.sequence, Sequence::new(5));
}

#[test]
fn once_a_checkpoint_was_taken_over_only_its_newest_token_saves_it() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    log.write(|tx| tx.execute("INSERT INTO t VALUES (1, 1)", []).map(drop)).unwrap();
    let first = log.transact(|log| log.take_over("s")).unwrap();
    save(&mut log, &Save::at(at(1)).token(first)).unwrap();
    let second = log.transact(|log| log.take_over("s")).unwrap();
    assert_ne!(first, second);
    drop(log);
    let mut log = open(&path);
    for refused in [Save::at(at(1)), Save::at(at(1)).token(first), Save::at(at(0)).token(first).forced()] {
        let refused = save(&mut log, &refused).unwrap_err();
        assert!(matches!(refused, Error::CheckpointFenced { .. }), "{refused}");
        assert_eq!(refused.remedy(), Remedy::Fenced);
    }
    let by = |token| Subscription { token, ..Subscription::new("s") };
    for token in [None, Some(first)] {
        let refused = log.consume(&by(token), |_, _| Ok(()));
        assert!(matches!(refused, Err(Error::CheckpointFenced { .. })), "{refused:?}");
    }
    assert!(log.consume(&by(Some(second)), |_, _| Ok(())).unwrap().is_some());
    // At the end of the log, too, whoever was fenced is told.
    assert!(matches!(log.consume(&by(Some(first)), |_, _| Ok(())), Err(Error::CheckpointFenced { .. })));
    // An operator needs no token.
    assert_eq!(save(&mut log, &Save::at(at(0)).forced()).unwrap(), 0);
    assert!(remove(&mut log, Remover::Operator).unwrap());
    assert!(matches!(save(&mut log, &Save::at(at(1)).token(second)), Err(Error::CheckpointFenced { .. })));
    assert_eq!(save(&mut log, &Save::at(at(1))).unwrap(), 1);
}

/// Consumes to the end with effects on a captured table and on documents; gives the documents handed on.
fn consume_to_the_end(log: &mut Log, by: &Subscription) -> Vec<String> {
    const ROUNDS_MAX: u32 = 50;
    let mut taken = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let consumed = log.consume(by, |tx, records| {
            tx.execute("INSERT INTO t(a) VALUES (NULL)", [])?;
            tx.emit(&Emit::insert("echoes", "e", &records.len())?)?;
            records.iter().map(document).collect::<Result<Vec<_>>>()
        });
        match consumed.unwrap() {
            Some(Consumed { done, .. }) => taken.extend(done.into_iter().flatten()),
            None => return taken,
        }
    }
    panic!("it feeds itself: {taken:?}");
}

fn document(record: &Record) -> Result<String> {
    let change = record.body.change()?.unwrap();
    Ok(format!("{}/{}", change.collection, change.document_id))
}

#[test]
fn a_consumer_passes_over_what_it_caused_itself_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let write = |log: &mut Log, id: u32| {
        log.write(|tx| tx.execute("INSERT INTO t(id) VALUES (?1)", [id]).map(drop)).unwrap();
    };
    let by = Subscription { limit: Limit { records: 3, bytes: usize::MAX }, ..Subscription::new("s") };
    (100..110).for_each(|id| write(&mut log, id));
    let mut written: Vec<_> = (100..110).map(|id| format!("t/{id}")).collect();
    assert_eq!(consume_to_the_end(&mut log, &by), written);
    // A crash of the process forgets nothing of it, and neither does a work that fails.
    drop(log);
    let mut log = open(&path);
    write(&mut log, 200);
    let failed = log.consume(&by, |tx, _| {
        tx.execute("INSERT INTO t(id) VALUES (199)", [])?;
        Err::<(), _>(Error::GivenUp { reason: "a test".to_owned() })
    });
    assert!(matches!(failed, Err(Error::GivenUp { .. })));
    write(&mut log, 201);
    written.extend(["t/200".to_owned(), "t/201".to_owned()]);
    assert_eq!(consume_to_the_end(&mut log, &by), ["t/200", "t/201"]);
    // Set back, it takes again what others wrote, and still not what it caused at any time.
    save(&mut log, &Save::at(at(0)).forced()).unwrap();
    assert_eq!(consume_to_the_end(&mut log, &by), written);
    // To another subscriber these are events like others.
    let other = Subscription::new("other");
    let Some(Consumed { done: Some(taken), .. }) =
        log.consume(&other, |_, records| Ok(records.len())).unwrap()
    else {
        panic!("there is much to consume")
    };
    assert!(taken > written.len());
}

#[test]
fn effects_too_large_for_one_chunk_are_passed_over_whole() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.write(|tx| tx.execute("INSERT INTO t(id) VALUES (1)", []).map(drop)).unwrap();
    let by = Subscription::new("s");
    let many = "WITH n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 15000) INSERT INTO t(id) SELECT i FROM n";
    let consumed = log.consume(&by, |tx, records| tx.execute(many, []).map(|_| records.len())).unwrap();
    assert_eq!(consumed.unwrap().done, Some(1));
    log.write(|tx| tx.execute("DELETE FROM t WHERE id = 7", []).map(drop)).unwrap();
    let mut taken = Vec::new();
    while let Some(consumed) = log.consume(&by, |_, records| Ok(records.to_vec())).unwrap() {
        taken.extend(consumed.done.into_iter().flatten());
    }
    assert_eq!(taken.iter().map(|record| document(record).unwrap()).collect::<Vec<_>>(), ["t/7"]);
}

#[test]
fn a_change_that_a_consumers_own_transaction_found_by_comparison_is_handed_on() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    log.write(|tx| tx.execute_batch("INSERT INTO t(id) VALUES (1), (2)")).unwrap();
    let bypass = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 't' AND sql LIKE '%AFTER DELETE%'";
    let trigger: String = bypass.query_row(sql, [], |row| row.get(0)).unwrap();
    bypass.execute_batch(&format!("DROP TRIGGER {trigger}; DELETE FROM t WHERE id = 1")).unwrap();
    drop(bypass);
    let by = Subscription::new("s");
    let redesign =
        log.consume(&by, |tx, _| tx.execute_batch("CREATE TABLE other(x); INSERT INTO t(id) VALUES (3)"));
    redesign.unwrap().unwrap();
    let found =
        log.consume(&by, |_, records| records.iter().map(document).collect::<Result<Vec<_>>>()).unwrap();
    assert_eq!(found.unwrap().done.unwrap(), ["t/1"]);
}

#[test]
fn a_subscriber_lags_behind_by_what_it_has_not_taken() {
    let folder = folder();
    let mut log = filled(&folder.path().join("log"), 20);
    save(&mut log, &Save::at(at(15))).unwrap();
    log.transact(|log| log.save_checkpoint("done", &Save::at(at(20)))).unwrap();
    let next = log.read(Sequence::new(15), Limit { records: 1, bytes: 1 }).unwrap();
    let lags: Vec<_> = log.subscribers().unwrap().into_iter().map(|s| (s.lag, s.waiting_since)).collect();
    assert_eq!(lags, [(0, None), (5, Some(next[0].timestamp))]);
}

#[test]
fn a_checkpoint_that_was_taken_over_is_removed_by_its_newest_token_or_an_operator_only() {
    let folder = folder();
    let mut log = filled(&folder.path().join("log"), 20);
    let by = |token| Subscription { token: Some(token), ..Subscription::new("s") };
    let first = log.transact(|log| log.take_over("s")).unwrap();
    log.consume(&by(first), |_, _| Ok(())).unwrap();
    let second = log.transact(|log| log.take_over("s")).unwrap();
    let saved = log.checkpoint("s").unwrap();
    for remover in [Remover::Anybody, Remover::Holder(first)] {
        let refused = remove(&mut log, remover).unwrap_err();
        assert!(matches!(refused, Error::CheckpointFenced { .. }), "{refused}");
        assert_eq!(log.checkpoint("s").unwrap(), saved);
    }
    // Its fence is still there.
    assert!(matches!(log.consume(&by(first), |_, _| Ok(())), Err(Error::CheckpointFenced { .. })));
    assert!(remove(&mut log, Remover::Holder(second)).unwrap());
    assert_eq!(log.checkpoint("s").unwrap(), None);
    // With the checkpoint its fence has gone.
    assert!(matches!(remove(&mut log, Remover::Holder(second)), Err(Error::CheckpointFenced { .. })));
    assert!(!remove(&mut log, Remover::Anybody).unwrap());
}

const EARLIER: Epoch = Epoch { number: 1, nonce: 7 };

/// A checkpoint as it was saved when the log had another epoch.
fn of_an_earlier_epoch(log: &mut Log, sequence: u64) {
    save(log, &Save::at(at(sequence))).unwrap();
    let file = rusqlite::Connection::open(log.path()).unwrap();
    file.execute("UPDATE _cdc_checkpoint SET epoch = ?1", [EARLIER.to_string()]).unwrap();
}

#[test]
fn a_cursor_of_another_epoch_is_saved_by_force_only() {
    let folder = folder();
    let mut log = filled(&folder.path().join("log"), 20);
    let earlier = Cursor { epoch: Some(EARLIER), ..at(5) };
    for cursor in [earlier, Cursor { epoch: Some(EARLIER), ..at(500) }] {
        let refused = save(&mut log, &Save::at(cursor)).unwrap_err();
        assert!(
            matches!(&refused, Error::CheckpointEpoch { found: EARLIER, epoch, .. } if *epoch == log.epoch()),
            "{refused}"
        );
        assert_eq!(refused.remedy(), Remedy::FixRequest);
    }
    assert_eq!(log.checkpoint("s").unwrap(), None);
    let here = Cursor { epoch: Some(log.epoch()), ..at(3) };
    assert_eq!(save(&mut log, &Save::at(here)).unwrap(), 3);
    assert_eq!(save(&mut log, &Save::at(at(4))).unwrap(), 4, "of whichever epoch");
    assert_eq!(save(&mut log, &Save::at(earlier).forced()).unwrap(), 5);
    let saved = log.checkpoint("s").unwrap().unwrap();
    assert_eq!((saved.revision, saved.cursor.epoch), (1, Some(log.epoch())));
}

#[test]
fn a_checkpoint_of_an_earlier_epoch_has_taken_nothing_of_this_log() {
    let folder = folder();
    let mut log = filled(&folder.path().join("log"), 20);
    of_an_earlier_epoch(&mut log, 15);
    let lags: Vec<_> = log.subscribers().unwrap().into_iter().map(|s| s.lag).collect();
    assert_eq!(lags, [20]);
    let retention = Retention { max_events: Some(1), ..Retention::ALL };
    let others: [Hold; 0] = [];
    let pruned = log.prune(&retention, Timestamp::ZERO, &others).unwrap();
    assert_eq!((pruned.records, pruned.held.len()), (0, 1), "{pruned:?}");
    let refused = log.consume(&Subscription::new("s"), |_, _| Ok(())).unwrap_err();
    assert!(matches!(refused, Error::CheckpointEpoch { found: EARLIER, .. }), "{refused}");
    // Nobody can say of which epoch this is meant to be.
    assert!(matches!(save(&mut log, &Save::at(at(16))), Err(Error::CheckpointEpoch { .. })));
    // Who has read this log knows where it is in it, also before where it was in the other.
    let here = Cursor { epoch: Some(log.epoch()), ..at(2) };
    assert_eq!(save(&mut log, &Save::at(here)).unwrap(), 2);
    log.consume(&Subscription::new("s"), |_, _| Ok(())).unwrap().unwrap();
    of_an_earlier_epoch(&mut log, 20);
    assert_eq!(save(&mut log, &Save::at(at(1)).forced()).unwrap(), 1);
}

#[test]
fn a_subscriber_without_a_checkpoint_begins_at_the_floor_when_it_is_told_to() {
    let folder = folder();
    let mut log = filled(&folder.path().join("log"), 20);
    log.prune_through(Sequence::new(12)).unwrap();
    let refused = log.consume(&Subscription::new("s"), |_, _| Ok(())).unwrap_err();
    assert!(matches!(refused, Error::BelowFloor { floor, .. } if floor == Sequence::new(13)));
    let by = Subscription { begin: Begin::Floor, ..Subscription::new("s") };
    let first = |records: &[Record]| Ok(records.first().map(|record| record.sequence.get()));
    let consumed = log.consume(&by, |_, records| first(records)).unwrap().unwrap();
    assert_eq!(consumed.done, Some(Some(13)));
    // Where it has a checkpoint it goes on there, and what goes under its feet is told.
    save(&mut log, &Save::at(at(3)).forced()).unwrap();
    assert!(matches!(log.consume(&by, |_, _| Ok(())), Err(Error::BelowFloor { .. })));
}
