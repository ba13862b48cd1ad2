//! The log by itself: appending, reading, checkpoints, marks, and what a failed transaction leaves.

use std::panic::AssertUnwindSafe;

use cdc_log::{Emit, Error, Limit, Link, Log, Save, Tables};
use cdc_model::{
    Body, ChangeBody, Digest, Epoch, Mark, ObjectId, Operation, Origin, Position, Record, Sequence, Timestamp,
};
use rusqlite::Connection;
use serde_json::json;

use crate::witness::{clock, folder, id};

pub(crate) fn body(n: u64, bytes: usize) -> Body {
    let after =
        serde_json::value::RawValue::from_string(format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(bytes)))
            .unwrap();
    let mut body = ChangeBody::new(Operation::Insert, "things", n.to_string());
    body.after = Some(&after);
    body.to_body()
}

pub(crate) fn child() -> ObjectId {
    "https://crm.headless.ly/acme/child".parse().unwrap()
}

pub(crate) fn open(path: &std::path::Path) -> Log {
    Log::open(path, &id(), &clock()).unwrap()
}

/// What a child sends of its own.
pub(crate) fn forwarded(number: u64) -> Record {
    let origin = Origin::new(child(), Epoch { number: 3, nonce: 7 }, vec![child()]);
    Record {
        sequence: Sequence::new(number * 10),
        timestamp: Timestamp::new(5),
        epoch: origin.epoch(),
        origin,
        origin_sequence: Sequence::new(number * 10),
        origin_timestamp: Timestamp::new(5),
        body: body(number, 10),
    }
}

/// A log of `n` records, every third of them forwarded.
pub(crate) fn filled(path: &std::path::Path, n: u64) -> Log {
    let mut log = open(path);
    log.transact(|log| {
        for number in 1..=n {
            if number % 3 == 0 {
                let record = forwarded(number);
                log.append_forwarded(&record, &record.origin, Timestamp::new(1000))?;
            } else {
                log.append(Timestamp::new(i64::try_from(number).unwrap()), body(number, 10))?;
            }
        }
        Ok(())
    })
    .unwrap();
    log
}

pub(crate) fn all(log: &Log) -> Vec<Record> {
    log.read(Sequence::ZERO, Limit { records: usize::MAX, bytes: usize::MAX }).unwrap()
}

#[test]
fn every_position_and_limit_reads_the_same_records() {
    let folder = folder();
    let path = folder.path().join("log");
    let n = 200;
    let log = filled(&path, n);
    let records = all(&log);
    assert_eq!(records.len(), 200);
    let mut digest = Digest::ZERO;
    let mut positions = vec![Position::START];
    for record in &records {
        digest = record.digest(digest);
        positions.push(Position { sequence: record.sequence, digest });
    }
    assert!(records.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp));
    for log in [log, open(&path)] {
        assert_eq!(log.tail(), positions[200]);
        assert_eq!(log.cursor().timestamp, records[199].timestamp);
        for after in 0..=n {
            let at = usize::try_from(after).unwrap();
            assert_eq!(log.position_at(Sequence::new(after)).unwrap(), positions[at], "{after}");
            for count in [0, 1, 2, 63, 64, 65, 500] {
                let read =
                    log.read(Sequence::new(after), Limit { records: count, bytes: usize::MAX }).unwrap();
                assert_eq!(read, records[at..(at + count).min(200)], "{after} {count}");
            }
            let read = log.read(Sequence::new(after), Limit { records: 50, bytes: 0 }).unwrap();
            assert_eq!(read.len(), usize::from(after < n), "at least one record is given, however large");
        }
        assert!(matches!(log.read(Sequence::new(n + 1), Limit::default()), Err(Error::BeyondTail { .. })));
        assert!(matches!(log.position_at(Sequence::new(n + 1)), Err(Error::BeyondTail { .. })));
    }
}

#[test]
fn a_digest_is_stored_at_every_64th_row_and_at_both_ends_of_each_transaction() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = filled(&path, 130);
    log.transact(|log| log.append(Timestamp::ZERO, body(131, 1))).unwrap();
    let conn = Connection::open(&path).unwrap();
    let mut statement =
        conn.prepare("SELECT sequence FROM _cdc_log WHERE digest IS NOT NULL ORDER BY 1").unwrap();
    let found: Vec<u64> = statement
        .query_map([], |row| row.get::<_, i64>(0))
        .unwrap()
        .map(|n| u64::try_from(n.unwrap()).unwrap())
        .collect();
    assert_eq!(found, [1, 64, 128, 130, 131]);
}

#[test]
fn below_the_floor_is_told_with_the_floor() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = filled(&path, 100);
    assert_eq!(log.prune_through(Sequence::new(64)).unwrap().records, 64);
    assert_eq!(log.floor().unwrap(), Sequence::new(65));
    let refused = log.read(Sequence::new(63), Limit::default());
    assert!(
        matches!(refused, Err(Error::BelowFloor { floor, .. }) if floor == Sequence::new(65)),
        "{refused:?}"
    );
    assert_eq!(log.read(Sequence::new(64), Limit::default()).unwrap().len(), 36);
    let empty = open(&folder.path().join("empty"));
    assert_eq!((empty.floor().unwrap(), empty.tail()), (Sequence::new(1), Position::START));
    assert_eq!(empty.read(Sequence::ZERO, Limit::default()).unwrap(), []);
}

#[test]
fn verify_finds_every_kind_of_damage() {
    for (damage, while_open) in [
        ("UPDATE _cdc_log SET body = replace(body, '\"n\":10,', '\"n\":11,') WHERE sequence = 10", false),
        ("UPDATE _cdc_log SET body = replace(body, '\"n\":149,', '\"n\":148,') WHERE sequence = 149", false),
        ("UPDATE _cdc_log SET timestamp = timestamp - 1 WHERE sequence = 150", false),
        ("DELETE FROM _cdc_log WHERE sequence = 70", false),
        ("DELETE FROM _cdc_log WHERE sequence = 1", false),
        ("DELETE FROM _cdc_log WHERE sequence > 140", true),
        (
            "UPDATE _cdc_log SET digest = (SELECT digest FROM _cdc_log WHERE sequence = 128) WHERE sequence = 64",
            false,
        ),
        ("UPDATE _cdc_log SET digest = NULL WHERE sequence = 64", false),
        ("UPDATE _cdc_log SET origin_sequence = 1 WHERE sequence = 9", false),
        ("UPDATE _cdc_log SET origin_timestamp = 0 WHERE sequence = 10", false),
        ("UPDATE _cdc_log SET origin = 77 WHERE sequence = 9", false),
    ] {
        let folder = folder();
        let path = folder.path().join("log");
        let log = filled(&path, 150);
        log.verify().unwrap();
        let changed = Connection::open(&path).unwrap().execute(damage, []).unwrap();
        assert!(changed > 0, "{damage}");
        assert!(matches!(log.verify(), Err(Error::Corrupt { .. })), "{damage}");
        drop(log);
        if !while_open {
            let found = Log::open(&path, &id(), &clock()).and_then(|log| log.verify().map(|_| ()));
            assert!(matches!(found, Err(Error::Corrupt { .. })), "{damage} {found:?}");
        }
    }
}

#[test]
fn a_failed_transaction_leaves_nothing_and_a_good_one_survives_reopening() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = filled(&path, 10);
    let epoch = Epoch { number: 2, nonce: 9 };
    let link = Link { generation: 4, session: u64::MAX, mark: Some(Mark::at(epoch, log.tail())) };
    let cursor = log.cursor();
    let change = |log: &mut cdc_log::LogTransaction<'_>| {
        log.append(Timestamp::ZERO, body(11, 1))?;
        log.set_origin_mark(&child(), epoch, Sequence::new(7))?;
        log.set_link(&child(), &link)?;
        log.save_checkpoint("s", &Save::at(cursor))?;
        log.set_stage_state("stage", "key", Some("value"))?;
        log.set_verdict(Sequence::new(3), "filtered")?;
        log.add_dead_letter(Sequence::new(4), "stage", "why")?;
        log.count("n", 2)
    };
    let seen = |log: &mut Log| {
        let mark = log.transact(|log| log.origin_mark(&child(), epoch)).unwrap();
        let parts = (
            log.tail(),
            mark,
            log.link(&child()).unwrap(),
            log.children().unwrap(),
            log.checkpoint("s").unwrap(),
        );
        let verdicts = log.verdicts(Sequence::ZERO, Sequence::new(10)).unwrap();
        (parts, log.stage_state("stage", "key").unwrap(), verdicts, log.counter("n").unwrap())
    };
    let before = seen(&mut log);
    assert_eq!((before.3, before.0.1), (0, Sequence::ZERO));
    let failed = log.transact(|log| {
        change(log)?;
        Err::<(), _>(Error::GivenUp { reason: "a test".to_owned() })
    });
    assert!(matches!(failed, Err(Error::GivenUp { .. })));
    assert_eq!(seen(&mut log), before);
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        log.transact(|log| {
            change(log)?;
            panic!("the caller's own");
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        })
    }));
    panicked.unwrap_err();
    assert_eq!(seen(&mut log), before);
    log.transact(change).unwrap();
    let after = seen(&mut log);
    assert_eq!((after.0.1, after.0.2.as_ref(), after.3), (Sequence::new(7), Some(&link), 2));
    drop(log);
    let mut log = open(&path);
    assert_eq!(seen(&mut log), after);
    log.transact(|log| log.set_stage_state("stage", "key", None)).unwrap();
    assert_eq!(log.stage_state("stage", "key").unwrap(), None);
    let conn = Connection::open(&path).unwrap();
    let letter: (i64, String) = conn
        .query_row("SELECT sequence, reason FROM _cdc_dead_letter", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(letter, (4, "why".to_owned()));
    log.verify().unwrap();
}

pub(crate) fn owned(path: &std::path::Path) -> Log {
    let mut log = open(path);
    log.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE stop(x);
             CREATE TRIGGER gone BEFORE INSERT ON stop BEGIN SELECT RAISE(ROLLBACK, 'stop'); END;
             CREATE TABLE parent(id INTEGER PRIMARY KEY);
             CREATE TABLE child(p REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);",
        )
    })
    .unwrap();
    log.capture(&Tables::All).unwrap();
    log
}

fn rows(log: &Log) -> i64 {
    log.query(|conn| Ok(conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)).unwrap()
}

#[test]
fn nothing_inside_a_write_can_end_it_or_touch_the_log() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.write(|tx| tx.execute("INSERT INTO t VALUES (1, 1)", [])).unwrap();
    let before = log.tail();
    for sql in [
        "COMMIT",
        "COMMIT -- _cdc_log",
        "BEGIN IMMEDIATE -- _cdc_log",
        "ROLLBACK",
        "BEGIN",
        "END",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA journal_mode=delete",
        "PRAGMA writable_schema=on",
        "PRAGMA foreign_keys(0)",
        "DELETE FROM _cdc_log",
        "DELETE FROM _cdc_capture WHERE seq <= ?1",
        "INSERT OR REPLACE INTO _cdc_meta(key, value) VALUES (?1, ?2)",
        "INSERT INTO _CDC_counter VALUES ('x', 1)",
        "UPDATE _cdc_checkpoint SET sequence = 0",
        "DROP TABLE _cdc_log",
        "ALTER TABLE _cdc_log RENAME TO mine",
        "CREATE INDEX i ON _cdc_log(body)",
        "CREATE TABLE _cdc_mine(x)",
        "CREATE VIEW _cdc_mine AS SELECT 1",
        "CREATE TRIGGER _cdc_1_mine AFTER INSERT ON t BEGIN DELETE FROM _cdc_log; END",
        "CREATE TRIGGER mine AFTER INSERT ON _cdc_log BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER mine AFTER INSERT ON t BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TEMP TABLE _cdc_capture(x)",
    ] {
        for cached in [true, false] {
            let done = log.write(|tx| {
                tx.execute("INSERT INTO t VALUES (2, 2)", [])?;
                if cached {
                    let parameters = usize::from(sql.contains("?1")) + usize::from(sql.contains("?2"));
                    let given = ["a"; 2];
                    tx.execute(sql, rusqlite::params_from_iter(given.iter().take(parameters)))?;
                } else {
                    tx.execute_batch(sql)?;
                }
                Ok(())
            });
            assert!(matches!(done, Err(Error::NotAllowed { .. })), "{sql}: {done:?}");
        }
        assert_eq!((log.tail(), rows(&log)), (before, 1), "{sql}");
    }
    let by_trigger = log.write(|tx| {
        tx.execute_batch("CREATE TRIGGER mine AFTER INSERT ON t BEGIN DELETE FROM _cdc_log; END")?;
        tx.execute("INSERT INTO t VALUES (2, 2)", [])
    });
    assert!(matches!(by_trigger, Err(Error::NotAllowed { .. })), "{by_trigger:?}");
    log.write(|tx| tx.query_row("SELECT count(*) FROM _cdc_log", [], |row| row.get::<_, i64>(0))).unwrap();
    assert_eq!(log.tail(), before);
    for sql in ["DELETE FROM t", "PRAGMA query_only=off", "COMMIT", "BEGIN"] {
        log.query(|conn| Ok(conn.execute_batch(sql)?)).unwrap_err();
    }
    log.write(|tx| tx.execute("INSERT INTO t VALUES (3, 3)", [])).unwrap();
    assert_eq!(log.verify().unwrap().0.broken_chains, 0);
}

#[test]
fn a_transaction_that_a_statement_rolled_back_writes_nothing_whatever_comes_after() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let before = log.tail();
    for gone in ["INSERT INTO stop VALUES (1)", "INSERT OR ROLLBACK INTO t(id) VALUES (1)"] {
        let done = log.write(|tx| {
            let mut kept = tx.prepare_cached("INSERT INTO t(a) VALUES (?1)")?;
            tx.execute("INSERT INTO t VALUES (1, 1)", [])?;
            tx.execute(gone, []).unwrap_err();
            assert!(matches!(tx.execute("INSERT INTO t VALUES (2, 2)", []), Err(Error::TransactionGone)));
            assert!(matches!(tx.emit(&Emit::insert("c", "1", &1)?), Err(Error::TransactionGone)));
            // A statement prepared before would commit by itself now.
            kept.execute([9]).unwrap_err();
            Ok(())
        });
        assert!(matches!(done, Err(Error::TransactionGone)), "{done:?}");
        assert_eq!((log.tail(), rows(&log)), (before, 0));
    }
    log.write(|tx| tx.execute("INSERT INTO t VALUES (1, 1)", [])).unwrap();
    assert_eq!(rows(&log), 1);
}

#[test]
fn a_deferred_constraint_that_fails_at_commit_is_an_ordinary_error() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let before = log.tail();
    let done = log.write(|tx| tx.execute("INSERT INTO child VALUES (42)", []));
    assert!(matches!(done, Err(Error::Sqlite(_))), "{done:?}");
    assert_eq!(log.tail(), before);
    log.write(|tx| tx.execute_batch("INSERT INTO child VALUES (42); INSERT INTO parent VALUES (42)"))
        .unwrap();
    assert_eq!(log.tail().sequence.since(before.sequence), 2);
    log.verify().unwrap();
}

#[test]
fn a_write_that_panics_leaves_a_usable_log() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    let before = log.tail();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        log.write(|tx| {
            tx.execute("INSERT INTO t VALUES (1, 1)", [])?;
            panic!("the caller's own");
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        })
    }));
    panicked.unwrap_err();
    assert_eq!((log.tail(), rows(&log)), (before, 0));
    log.write(|tx| tx.execute("INSERT INTO t VALUES (1, 1)", [])).unwrap();
    assert_eq!(log.tail().sequence, before.sequence.next());
}

#[test]
fn tables_change_inside_a_write_like_anything_else() {
    let folder = folder();
    let mut log = owned(&folder.path().join("log"));
    log.write(|tx| {
        tx.emit(&Emit::insert("notes", "1", &json!({"a": 1}))?)?;
        tx.execute("INSERT INTO t VALUES (1, 'one')", [])?;
        tx.execute_batch("CREATE TABLE fresh(x, y); INSERT INTO fresh VALUES (1, 2)")?;
        tx.emit(&Emit::insert("notes", "2", &json!({"a": 1}))?)?;
        tx.execute_batch("ALTER TABLE t ADD COLUMN c DEFAULT 'c'; INSERT INTO t VALUES (2, 'two', 'x')")?;
        tx.emit(&Emit::delete("notes", "1", &json!({"a": 1}))?)
    })
    .unwrap();
    log.write(|tx| tx.execute_batch("UPDATE fresh SET y = 3; UPDATE t SET c = 'd'")).unwrap();
    log.write(|tx| tx.execute_batch("DROP TABLE fresh; UPDATE t SET c = 'e' WHERE id = 2")).unwrap();
    let (verified, fold) = log.verify().unwrap();
    assert_eq!(verified.broken_chains, 0);
    assert_eq!(log.compare_rows(&fold).unwrap(), None);
    assert_eq!((fold.collection(&id(), "fresh").count(), fold.collection(&id(), "notes").count()), (0, 1));
}

#[test]
fn a_transaction_of_many_rows_is_drained_in_chunks_without_comparing() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let before = log.tail().sequence;
    let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 25000) INSERT INTO t SELECT x, x FROM n";
    log.write(|tx| tx.execute(sql, [])).unwrap();
    assert_eq!(log.tail().sequence.since(before), 10_000);
    // What waits survives reopening.
    drop(log);
    let mut log = open(&path);
    let drained = log.drain().unwrap();
    assert_eq!((drained.records, drained.reconciled, drained.more), (15_000, 0, false));
    assert_eq!(log.drain().unwrap().records, 0);
    log.write(|tx| tx.execute("UPDATE t SET a = a + 100000", [])).unwrap();
    log.write(|tx| tx.execute("DELETE FROM t WHERE id % 2", [])).unwrap();
    log.drain().unwrap();
    let (verified, fold) = log.verify().unwrap();
    assert_eq!((verified.broken_chains, verified.records), (0, before.get() + 62_500));
    assert_eq!(log.compare_rows(&fold).unwrap(), None);
}

#[test]
fn emitted_documents_are_kept_as_they_are() {
    let folder = folder();
    let mut log = open(&folder.path().join("log"));
    let before =
        json!({"id": "42", "customer": {"name": "Ada", "tier": "free"}, "tags": [1, 2], "a.b": 1, "n": null});
    let after = json!({"id": "42", "customer": {"name": "Ada", "tier": "pro"}, "tags": [2], "a.b": 2, "n": 1.0, "new": {"x": []}});
    log.write(|tx| {
        tx.emit(&Emit::insert("orders", "42", &before)?.correlate("trace-\"1\""))?;
        tx.emit(&Emit::update("orders", "42", &before, &after)?)?;
        tx.emit(&Emit::update("orders", "42", &after, &after)?)?;
        tx.emit(&Emit::delete("orders", "42", &after)?)?;
        tx.emit(&Emit::insert("nulls", "", &json!(null))?)?;
        tx.emit(&Emit::update("nulls", "", &json!(null), &json!([null]))?)?;
        tx.emit(&Emit::delete("nulls", "", &json!([null]))?)
    })
    .unwrap();
    let events: Vec<_> =
        all(&log).iter().map(|record| record.event::<serde_json::Value>().unwrap().unwrap()).collect();
    let paths: Vec<_> = events.iter().map(|event| event.change.changed_fields().to_vec()).collect();
    assert_eq!(paths[1], ["a\\.b", "customer.tier", "n", "new", "tags"]);
    assert_eq!((paths[2].len(), paths[5].clone()), (0, vec!["$".to_owned()]));
    assert_eq!(events[0].correlation_id.as_deref(), Some("trace-\"1\""));
    assert_eq!((events[1].change.before(), events[1].change.after()), (Some(&before), Some(&after)));
    assert_eq!(
        (events[4].change.after(), events[6].change.before()),
        (Some(&json!(null)), Some(&json!([null])))
    );
    for record in all(&log) {
        Body::parse(record.body.as_str()).unwrap();
    }
    assert_eq!(log.verify().unwrap().0.broken_chains, 0);
    let refused = Emit::insert("c", "1", &f64::NAN).map(|_| ());
    refused.unwrap();
}
