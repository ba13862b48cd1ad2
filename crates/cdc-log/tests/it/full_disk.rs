//! A disk that runs full and gets room again, in loops: what is refused leaves nothing, what was acknowledged stays,
//! and everything goes on. `CDC_FULL_DISKS=500 cargo test -p cdc-log --test it full_disk -- --nocapture` is the long run.

use std::path::Path;

use cdc_log::{Attached, Error, Log, Tables};
use cdc_model::Remedy;
use rusqlite::Connection;

use crate::ledger::{self, Ledger, attached};
use crate::random::Random;
use crate::small_disk::SmallDisk;
use crate::witness::{clock, id};

/// The size of the disk.
const DISK_BYTES: usize = 4 << 20;

/// Times a disk runs full in one history.
const FILLS_PER_HISTORY: usize = 25;

/// Writes that are tried while the disk runs full. A write-ahead log that is begun anew has room for many.
const WRITES_TRIED: usize = 2_000;

/// Writes that are refused before there is room again.
const REFUSED_MAX: usize = 10;

/// Writes between two full disks.
const WRITES_BETWEEN: usize = 5;

fn fills() -> usize {
    std::env::var("CDC_FULL_DISKS").map_or(8, |fills| fills.parse().unwrap())
}

/// Writes row after row and tells the ledger which were acknowledged; gives how many were refused.
fn write(
    ledger: &mut Ledger,
    (first, rows): (i64, usize),
    mut write: impl FnMut(i64) -> cdc_log::Result<()>,
) -> usize {
    let (mut n, mut refused) = (first, 0);
    for _ in 0..rows {
        if refused == REFUSED_MAX {
            break;
        }
        match write(n) {
            Ok(()) => {
                ledger.acknowledge(n);
                n += 1;
            }
            Err(error) => {
                assert_eq!(error.remedy(), Remedy::Retry, "{error:?}");
                refused += 1;
            }
        }
    }
    refused
}

/// Runs a disk full again and again. `round` writes so many rows from its next one on, and gives how many were refused;
/// `check` holds the ledger against everything.
fn loops<T>(
    kind: &str,
    begin: impl Fn(&Path, usize) -> T,
    round: impl Fn(&mut T, &mut Ledger, usize) -> usize,
    check: impl Fn(&mut T, &mut Ledger),
) {
    let mut random = Random::new(31);
    let (mut filled, mut refused_in_all, mut acknowledged, mut history) = (0, 0, 0, 0);
    while filled < fills() {
        let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
        let mut object = begin(disk.path(), history);
        history += 1;
        let mut ledger = Ledger::default();
        for _ in 0..FILLS_PER_HISTORY.min(fills() - filled) {
            assert_eq!(round(&mut object, &mut ledger, WRITES_BETWEEN), 0, "refused on a disk with room");
            disk.fill(random.below(100_000));
            let refused = round(&mut object, &mut ledger, WRITES_TRIED);
            assert!(refused > 0, "the disk did not run full");
            refused_in_all += refused;
            disk.make_room();
            assert_eq!(round(&mut object, &mut ledger, 1), 0, "refused although there is room again");
            check(&mut object, &mut ledger);
            filled += 1;
        }
        acknowledged += ledger.acknowledged();
        drop(object);
    }
    eprintln!(
        "{kind}: {filled} times full in {history} histories, {acknowledged} acknowledged writes, {refused_in_all} refused, 0 lost, 0 doubled"
    );
}

#[test]
fn an_owned_object_refuses_writes_on_a_full_disk_and_goes_on_when_there_is_room() {
    let begin = |folder: &Path, _| {
        let mut log = Log::open(folder.join("log"), &id(), &clock()).unwrap();
        log.write(|tx| tx.execute_batch(ledger::SCHEMA)).unwrap();
        log.capture(&Tables::All).unwrap();
        log
    };
    let round = |log: &mut Log, ledger: &mut Ledger, rows| {
        let first = log.query(|conn| Ok(ledger::next(conn))).unwrap();
        write(ledger, (first, rows), |n| {
            log.recover()?;
            log.write(|tx| tx.execute_batch(&ledger::statements(n)))
        })
    };
    loops("owned", begin, round, |log, ledger| {
        log.drain().unwrap();
        ledger.check(log, &Connection::open(log.path()).unwrap());
    });
}

#[test]
fn an_attached_database_on_a_full_disk_is_drained_when_there_is_room() {
    let begin = |folder: &Path, history: usize| {
        let app = Connection::open(folder.join("app.db")).unwrap();
        let mode = ["wal", "delete"][history % 2];
        app.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
        app.execute_batch(ledger::SCHEMA).unwrap();
        let mut attached = attached(folder);
        attached.install().unwrap();
        (app, attached)
    };
    let round = |(app, attached): &mut (Connection, Attached), ledger: &mut Ledger, rows| {
        write(ledger, (ledger::next(app), rows), |n| {
            let written = app.execute_batch(&format!("BEGIN IMMEDIATE; {}; COMMIT", ledger::statements(n)));
            if !app.is_autocommit() {
                app.execute_batch("ROLLBACK").unwrap();
            }
            let looked = attached.log_mut().recover().and_then(|()| attached.look().map(drop));
            if let Err(error) = looked {
                assert_eq!(error.remedy(), Remedy::Retry, "{error:?}");
            }
            Ok(written?)
        })
    };
    loops("attached", begin, round, |(app, attached), ledger| {
        attached.log_mut().recover().unwrap();
        while attached.look().unwrap().drained.more {}
        attached.trim().unwrap();
        ledger.check(attached.log(), app);
    });
}

#[test]
fn a_full_disk_of_the_application_is_told_apart_from_the_logs() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (database, log) = (disk.path().join("app.db"), folder.path().join("log"));
    let app = Connection::open(&database).unwrap();
    app.execute_batch(ledger::SCHEMA).unwrap();
    let mut attached = Attached::open(&database, &log, &id(), Tables::All, &clock()).unwrap();
    attached.install().unwrap();
    app.execute_batch("CREATE TABLE another(a); INSERT INTO another VALUES (1)").unwrap();
    disk.fill(0);
    let told = attached.look().unwrap_err();
    assert!(matches!(&told, Error::DatabaseFull { path } if *path == database), "{told:?}");
    assert_eq!((told.is_full_disk(), told.remedy()), (false, Remedy::Retry));
    disk.make_room();
    while attached.look().unwrap().drained.more {}
    let (_, fold) = attached.log().verify().unwrap();
    assert_eq!(fold.iter().map(|(_, table, ..)| table).collect::<Vec<_>>(), ["another"]);
}
