//! Bits that rot in a log's file are noticed, or nobody reads them.

use std::path::Path;
use std::sync::Arc;

use cdc_log::{Attached, Damage, Emit, Error, Log, Tables};
use cdc_model::{Body, ChangeBody, Epoch, ObjectId, Operation, Origin, Record, Remedy, Sequence, Timestamp};
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::witness::{attach, clock, folder, id};

/// Every so manieth bit of the file is tried; bits of a byte differ in what they do, so that 8 does not divide it.
const EVERY: usize = 997;

/// An owned log with rows of its own and of a child, in a file without a WAL.
fn made(path: &Path) {
    let mut log = Log::open(path, &id(), &clock()).unwrap();
    log.write(|tx| tx.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, x)")).unwrap();
    log.capture(&Tables::All).unwrap();
    let child: ObjectId = "https://crm.headless.ly/acme/child".parse().unwrap();
    let origin = Origin::new(child.clone(), Epoch { number: 3, nonce: 7 }, vec![child]);
    for number in 1..=45_u64 {
        log.write(|tx| {
            tx.execute("INSERT INTO t VALUES (?1, 'n' || ?1, ?1 / 2.0)", [number.cast_signed()])?;
            tx.execute("DELETE FROM t WHERE id = ?1 - 15", [number.cast_signed()])?;
            tx.emit(&Emit::insert("things", &number.to_string(), &number)?)
        })
        .unwrap();
        let record = Record {
            sequence: Sequence::new(number),
            timestamp: Timestamp::new(5),
            epoch: origin.epoch(),
            origin: Arc::clone(&origin),
            origin_sequence: Sequence::new(number),
            origin_timestamp: Timestamp::new(5),
            body: deleted(number),
        };
        log.transact(|log| log.append_forwarded(&record, &origin, Timestamp::new(1000))).unwrap();
    }
}

fn deleted(number: u64) -> Body {
    ChangeBody::new(Operation::Delete, "things", number.to_string()).to_body()
}

/// What a reader is given, by plain SQL.
fn read(path: &Path) -> rusqlite::Result<Vec<Vec<Value>>> {
    let conn = Connection::open(path)?;
    let mut all = Vec::new();
    for sql in [
        "SELECT value FROM _cdc_meta WHERE key = 'epoch'",
        "SELECT l.sequence, l.timestamp, o.source, o.epoch, o.route, l.origin_sequence, l.origin_timestamp, \
         l.digest, l.body FROM _cdc_log AS l LEFT JOIN _cdc_origin AS o ON o.id = l.origin ORDER BY l.sequence",
        "SELECT * FROM t ORDER BY id",
    ] {
        let mut statement = conn.prepare(sql)?;
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?;
        all.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

fn verified(path: &Path) -> Result<Option<String>, Error> {
    let log = Log::open(path, &id(), &clock())?;
    let (_, fold) = log.verify()?;
    Ok(log.compare_rows(&fold)?.map(|row| row.to_string()))
}

#[test]
fn a_flipped_bit_is_noticed_or_in_what_nobody_reads() {
    let folder = folder();
    let path = folder.path().join("log");
    made(&path);
    assert_eq!(verified(&path).unwrap(), None);
    let (sound, held) = (std::fs::read(&path).unwrap(), read(&path).unwrap());
    let (mut noticed, mut unread) = (0, 0);
    for bit in (0..sound.len() * 8).step_by(EVERY) {
        let mut rotten = sound.clone();
        *rotten.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        // Nothing of the file before may be left beside it.
        let path = folder.path().join(format!("log-{bit}"));
        std::fs::write(&path, &rotten).unwrap();
        match verified(&path) {
            Ok(None) => {
                assert_eq!(read(&path).as_ref(), Ok(&held), "bit {bit}");
                unread += 1;
            }
            Ok(Some(_)) | Err(_) => noticed += 1,
        }
        std::fs::remove_file(&path).unwrap();
    }
    assert!(noticed > 100 && unread > 100, "{noticed} {unread}");
}

#[test]
fn what_a_log_has_lost_is_not_made_anew() {
    for (damage, what) in [
        ("DROP TABLE _cdc_log", "it has an epoch and no log"),
        ("DELETE FROM _cdc_meta WHERE key = 'epoch'", "it has a log and no epoch"),
        (
            "UPDATE _cdc_meta SET value = '2' || substr(value, 2) WHERE key = 'epoch'",
            "its epoch is not the one that it was made with",
        ),
    ] {
        let folder = folder();
        let path = folder.path().join("log");
        drop(Log::open(&path, &id(), &clock()).unwrap());
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        for _ in 0..2 {
            let refused = Log::open(&path, &id(), &clock());
            assert!(
                matches!(&refused, Err(Error::Damaged { what: said, .. }) if said == what),
                "{refused:?}"
            );
        }
    }
}

/// Writes over the header, or over every page after the first.
fn overwrite(path: &Path, part: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let range = if part == "header" { 0..100 } else { 4096..bytes.len() };
    bytes.get_mut(range).unwrap().fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_damaged_file_of_an_attached_object_is_named_and_left_alone() {
    for (part, log_is_it) in [("header", true), ("pages", true), ("header", false), ("pages", false)] {
        let folder = folder();
        let (app, attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
        let (database, log) = (attached.database().to_owned(), attached.log().path().to_owned());
        app.execute_batch("INSERT INTO t VALUES (1, 'one')").unwrap();
        drop((app, attached));
        let damaged = if log_is_it { &log } else { &database };
        overwrite(damaged, part);
        let bytes = std::fs::read(damaged).unwrap();
        let look = |path: &Path| {
            let mut attached = Attached::open(path, &log, &id(), Tables::All, &clock())?;
            attached.look()
        };
        let refused = look(&database).unwrap_err();
        let expected = if log_is_it { Damage::Log } else { Damage::Database };
        assert_eq!(refused.damage(), Some(expected), "{part}: {refused:?}");
        assert_eq!(refused.remedy(), Remedy::Restore, "{part}: {refused:?}");
        assert!(refused.to_string().contains(damaged.to_str().unwrap()), "{refused}");
        assert_eq!(std::fs::read(damaged).unwrap(), bytes, "nothing was written to it");
    }
}

#[test]
fn a_file_that_is_damaged_between_two_looks_is_named() {
    for (log_is_it, expected) in [(true, Damage::Log), (false, Damage::Database)] {
        let folder = folder();
        let (app, mut attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
        app.execute_batch("INSERT INTO t VALUES (1, 'one')").unwrap();
        drop(app);
        attached.look().unwrap();
        let (database, log) = (attached.database().to_owned(), attached.log().path().to_owned());
        Connection::open(&log).unwrap().query_row("PRAGMA wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
        Connection::open(&database).unwrap().execute_batch("INSERT INTO t VALUES (2, 'two')").unwrap();
        overwrite(if log_is_it { &log } else { &database }, "pages");
        attached.log().release_memory().unwrap();
        for _ in 0..2 {
            let refused = attached.look().unwrap_err();
            assert_eq!(refused.damage(), Some(expected), "{refused:?}");
        }
    }
}
