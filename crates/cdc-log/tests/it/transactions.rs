//! What events say of the transaction that they were part of.

use cdc_log::{Emit, Error, Limit, Log};
use cdc_model::{ChangeEvent, Sequence, Transaction};
use serde_json::{Value, json};

use crate::log::{open, owned};
use crate::witness::folder;

/// The changes after a place.
fn changes(log: &Log, mut after: Sequence) -> Vec<ChangeEvent> {
    let mut changes = Vec::new();
    loop {
        let records = log.read(after, Limit::default()).unwrap();
        let Some(last) = records.last() else { return changes };
        after = last.sequence;
        changes.extend(records.iter().filter_map(|record| record.event::<Value>().unwrap()));
    }
}

fn expected(
    log: &Log,
    first: Sequence,
    index: u32,
    count: u32,
    metadata: Option<Value>,
) -> Option<Transaction> {
    Some(Transaction { id: Transaction::id_at(log.epoch(), first), index, count, metadata })
}

#[test]
fn events_of_one_write_say_so_and_the_only_one_of_a_write_does_not() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let before = log.tail().sequence;
    log.write(|tx| tx.execute_batch("INSERT INTO t VALUES (1, 1); UPDATE t SET a = 2; UPDATE t SET id = 3"))
        .unwrap();
    log.write(|tx| tx.execute("DELETE FROM t", []).map(drop)).unwrap();
    log.write(|tx| tx.emit(&Emit::insert("notes", "n", &1)?)).unwrap();
    let told: Vec<_> = changes(&log, before).into_iter().map(|change| change.transaction).collect();
    // The key that changed is a document that went and one that came.
    let of = |index| expected(&log, before.next(), index, 4, None);
    assert_eq!(told, [of(0), of(1), of(2), of(3), None, None]);
    log.verify().unwrap();
}

#[test]
fn what_a_write_says_of_itself_is_with_every_event_of_it() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let before = log.tail().sequence;
    let said = json!({ "user": "ada", "amount": 1.5, "note": null });
    log.write(|tx| {
        tx.correlate("request-1")?;
        tx.metadata(&said)?;
        tx.execute("INSERT INTO t VALUES (1, 1)", [])?;
        tx.emit(&Emit::insert("notes", "n", &1)?.correlate("its-own"))
    })
    .unwrap();
    let changes = changes(&log, before);
    let correlations: Vec<_> =
        changes.iter().map(|change| change.correlation_id.as_deref().unwrap()).collect();
    assert_eq!(correlations, ["request-1", "its-own"]);
    for (change, index) in changes.iter().zip(0..) {
        assert_eq!(change.transaction, expected(&log, before.next(), index, 2, Some(said.clone())));
    }
}

#[test]
fn metadata_of_a_single_event_is_kept_and_null_is_none() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let before = log.tail().sequence;
    for (id, said) in [(1, json!(7)), (2, Value::Null)] {
        log.write(|tx| {
            tx.metadata(&said)?;
            tx.execute("INSERT INTO t VALUES (?1, ?1)", [id]).map(drop)
        })
        .unwrap();
    }
    let told: Vec<_> = changes(&log, before).into_iter().map(|change| change.transaction).collect();
    assert_eq!(told, [expected(&log, before.next(), 0, 1, Some(json!(7))), None]);
}

#[test]
fn what_is_said_of_a_transaction_has_its_limits() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.write(|tx| tx.correlate("x".repeat(1024))).unwrap();
    let refused = log.write(|tx| tx.correlate("x".repeat(1025))).unwrap_err();
    assert!(matches!(refused, Error::NotAllowed { .. }), "{refused}");
    let refused = log.write(|tx| tx.metadata(&"x".repeat(4095))).unwrap_err();
    assert!(matches!(refused, Error::NotAllowed { .. }), "{refused}");
}

#[test]
fn a_transaction_too_large_for_one_chunk_is_one_through_a_restart() {
    const ROWS: u32 = 25_000;
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let before = log.tail().sequence;
    log.write(|tx| {
        tx.correlate("large")?;
        tx.execute_batch(&format!(
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO t(id) SELECT i FROM n"
        ))
    })
    .unwrap();
    assert!(log.tail().sequence.get() < before.get() + u64::from(ROWS), "a part of it waits");
    drop(log);
    let mut log = open(&path);
    assert!(log.drain().unwrap().records > 0);
    log.write(|tx| tx.execute("DELETE FROM t WHERE id = 1", []).map(drop)).unwrap();
    let mut changes = changes(&log, before);
    let after = changes.pop().unwrap();
    assert_eq!((after.transaction, after.correlation_id), (None, None));
    assert_eq!(changes.len(), usize::try_from(ROWS).unwrap());
    for (change, index) in changes.iter().zip(0..) {
        assert_eq!(change.transaction, expected(&log, before.next(), index, ROWS, None));
        assert_eq!(change.correlation_id.as_deref(), Some("large"));
    }
}
