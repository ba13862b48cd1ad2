//! Writes that share a transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cdc_log::{Durability, Emit, Error, Log};
use cdc_model::{Epoch, Sequence, Timestamp};

use crate::log::{body, child, forwarded, open, owned};
use crate::witness::folder;

fn emit(id: &str) -> Emit {
    Emit::insert("notes", id, &1).unwrap()
}

/// The documents in the log, in order.
fn documents(log: &Log) -> Vec<String> {
    let records = log.read(Sequence::ZERO, cdc_log::Limit::default()).unwrap();
    let changes = records.iter().filter_map(|record| record.body.change().unwrap());
    changes.map(|change| change.document_id.into_owned()).collect()
}

/// How many transactions changed the database so far, as the index of its write-ahead log counts them.
fn commits(path: &std::path::Path) -> u32 {
    let index = std::fs::read(format!("{}-shm", path.display())).unwrap();
    u32::from_ne_bytes(index[8..12].try_into().unwrap())
}

#[test]
fn a_write_that_fails_is_undone_by_itself_and_the_others_share_one_commit() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    log.write(|tx| tx.execute_batch("DROP TABLE stop; DROP TABLE child")).unwrap();
    let (before, tail) = (commits(&path), log.tail().sequence.get());
    let origin = Epoch { number: 3, nonce: 7 };
    let told = log.group(Durability::Full, |group| {
        let first = group.write(|tx| tx.execute("INSERT INTO t VALUES (1, 1)", []).map(drop));
        let second = group.write(|tx| {
            tx.emit(&emit("given up"))?;
            tx.execute("INSERT INTO t VALUES (2, 2)", [])?;
            Err::<(), _>(Error::GivenUp { reason: "a test".to_owned() })
        });
        let third = group.write(|tx| tx.execute("INSERT INTO t VALUES (3, 1)", []).map(drop));
        let panics = || {
            group.write(|tx| -> cdc_log::Result<()> {
                tx.emit(&emit("panicked")).unwrap();
                panic!("on purpose")
            })
        };
        let fourth = catch_unwind(AssertUnwindSafe(panics)).is_err();
        // The origin that came with what is undone is not known any more.
        let fifth = group.transact(|log| {
            log.append_forwarded(&forwarded(1), &forwarded(1).origin, Timestamp::ZERO)?;
            log.set_origin_mark(&child(), origin, Sequence::new(1))?;
            Err::<(), _>(Error::TransactionGone)
        });
        let sixth = group.transact(|log| {
            assert_eq!(log.origin_mark(&child(), origin)?, Sequence::ZERO);
            log.append_forwarded(&forwarded(2), &forwarded(2).origin, Timestamp::ZERO)?;
            log.append(Timestamp::ZERO, body(7, 1)).map(drop)
        });
        let last = group.write(|tx| tx.emit(&emit("last")));
        (first, second, third, fourth, fifth, sixth, last)
    });
    let (first, second, third, fourth, fifth, sixth, last) = told.unwrap();
    first.and(sixth).and(last).unwrap();
    assert!(matches!(second, Err(Error::GivenUp { .. })));
    assert!(matches!(third, Err(Error::Sqlite(_))));
    assert!(fourth && fifth.is_err());
    assert_eq!(commits(&path), before + 1);
    assert_eq!(log.tail().sequence.get(), tail + 4);
    let shown = documents(&log);
    assert_eq!(shown, ["1", "2", "7", "last"]);
    log.verify().unwrap();
    drop(log);
    let log = open(&path);
    assert_eq!(documents(&log), shown);
    log.verify().unwrap();
}

#[test]
fn who_shares_a_transaction_that_a_statement_rolls_back_is_told() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let tail = log.tail();
    let mut after = None;
    let told = log.group(Durability::Full, |group| {
        group.write(|tx| tx.emit(&emit("first"))).unwrap();
        assert!(!group.is_full());
        group
            .write(|tx| tx.execute("INSERT OR ROLLBACK INTO t VALUES (1, 1), (1, 1)", []).map(drop))
            .unwrap_err();
        assert!(group.is_full());
        after = Some(group.write(|tx| tx.emit(&emit("after"))));
    });
    assert!(matches!(told, Err(Error::TransactionGone)));
    assert!(matches!(after, Some(Err(Error::TransactionGone))));
    assert_eq!(log.tail(), tail);
    log.write(|tx| tx.emit(&emit("later"))).unwrap();
    assert_eq!(documents(&log), ["later"]);
    log.verify().unwrap();
}

#[test]
fn a_write_has_a_transaction_to_itself_where_the_schema_lets_it_take_others_with_it() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let mut writes_alone = |sql: &str| {
        log.write(|tx| tx.execute_batch(sql)).unwrap();
        log.group(Durability::Full, |group| group.writes_alone()).unwrap().unwrap()
    };
    assert!(writes_alone("DROP TABLE stop"), "a constraint is deferred");
    assert!(!writes_alone("DROP TABLE child"));
    assert!(writes_alone("CREATE TABLE r(x UNIQUE ON CONFLICT ROLLBACK)"));
}

#[test]
fn nothing_inside_a_write_ends_the_savepoint_that_it_runs_in() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.group(Durability::Full, |group| {
        for sql in ["RELEASE _cdc_write", "ROLLBACK TO _cdc_write", "SAVEPOINT _CDC_write"] {
            let done = group.write(|tx| tx.execute_batch(sql));
            assert!(matches!(done, Err(Error::NotAllowed { .. })), "{sql}: {done:?}");
        }
        group
            .write(|tx| tx.execute_batch("SAVEPOINT own; INSERT INTO t VALUES (1, 1); ROLLBACK TO own"))
            .unwrap();
    })
    .unwrap();
    assert_eq!(documents(&log), [""; 0]);
}

#[test]
fn what_a_large_write_leaves_keeps_the_next_out_of_its_transaction() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.group(Durability::Full, |group| {
        let many = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000) INSERT INTO t(id) SELECT i FROM n";
        group.write(|tx| tx.execute(many, []).map(drop)).unwrap();
        assert!(group.is_full());
    })
    .unwrap();
    assert!(log.tail().sequence.get() < 15_000);
    log.group(Durability::Full, |group| group.write(|tx| tx.emit(&emit("next")))).unwrap().unwrap();
    let shown = documents(&log);
    assert!(shown.len() < 15_001, "read in part");
    assert_eq!(log.position_at(log.tail().sequence).unwrap(), log.tail());
    log.verify().unwrap();
}
