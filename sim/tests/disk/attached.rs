//! What outlives a loss of power of a database that was just attached.

use cdc_log::{Attached, Tables};
use cdc_model::{Clock, Timestamp};
use rusqlite::Connection;
use sim::Random;
use sim::disk::{self, CrashMode, Disk, Fates, Faults};

#[test]
fn what_was_attached_is_captured_after_a_loss_of_power() {
    let _installed = disk::install(7);
    let folder = tempfile::tempdir().unwrap();
    for journal in ["delete", "truncate", "persist", "wal"] {
        let root = folder.path().join(journal);
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::mount(&root, Random::stream(7, journal), Faults::default());
        let (database, log) = (root.join("app.db"), root.join("log.db"));
        let app = Connection::open(&database).unwrap();
        app.pragma_update(None, "synchronous", "extra").unwrap();
        app.pragma_update(None, "journal_mode", journal).unwrap();
        app.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)").unwrap();
        let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
        let id = "https://sim.test/app".parse().unwrap();
        let mut attached = Attached::open(&database, &log, &id, Tables::All, &clock).unwrap();
        attached.install().unwrap();
        disk.kill();
        drop((app, attached));
        disk.crash(CrashMode::Power(Fates { lost: 1, kept: 0, torn: 0 }));
        let app = Connection::open(&database).unwrap();
        let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'";
        let triggers: u32 = app.query_row(sql, [], |row| row.get(0)).unwrap();
        assert!(triggers > 0, "{journal}: nothing is captured any more");
    }
}

/// Whoever gives up attaching removes the log: capture that came back with the next loss of power would name a log that
/// nobody has.
#[test]
fn capture_that_was_taken_out_after_a_failed_install_stays_out_through_a_loss_of_power() {
    let _installed = disk::install(7);
    let folder = tempfile::tempdir().unwrap();
    let (mut failed, mut went) = (0, 0);
    for (number, journal) in (0..240).zip(["delete", "truncate", "persist", "wal"].iter().cycle()) {
        let root = folder.path().join(format!("{journal}-{number}"));
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::mount(&root, Random::stream(number, journal), Faults::default());
        let (database, log) = (root.join("app.db"), root.join("log.db"));
        let app = Connection::open(&database).unwrap();
        app.pragma_update(None, "synchronous", "extra").unwrap();
        app.pragma_update(None, "journal_mode", journal).unwrap();
        app.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)").unwrap();
        let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
        let id = "https://sim.test/app".parse().unwrap();
        let mut attached = Attached::open(&database, &log, &id, Tables::All, &clock).unwrap();
        let (writes, syncs) = (30_000, 200_000);
        let faults =
            Faults { write_errors_per_million: writes, sync_errors_per_million: syncs, ..Faults::default() };
        disk.set_faults(faults);
        failed += u32::from(attached.install().is_err());
        disk.set_faults(Faults::default());
        attached.uninstall().unwrap();
        disk.kill();
        drop((app, attached));
        let (lost, kept, torn) = [(1, 0, 0), (0, 1, 0), (1, 1, 1)][usize::try_from(number / 4 % 3).unwrap()];
        disk.crash(CrashMode::Power(Fates { lost, kept, torn }));
        let app = Connection::open(&database).unwrap();
        let sql = "SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_cdc\\_%' ESCAPE '\\'";
        let left: u32 = app.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{journal} {number}: capture came back");
        went += 1;
    }
    assert!(failed > 50 && went == 240, "{failed} of {went} installs failed");
}

/// With less than FULL, SQLite syncs a rollback journal once: the count of its pages may outlive the pages, and what is
/// rolled back after that damages the database.
#[test]
fn a_trim_syncs_the_pages_of_its_journal_before_their_count() {
    let _installed = disk::install(7);
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(folder.path(), Random::stream(7, "trim"), Faults::default());
    let (database, log) = (folder.path().join("app.db"), folder.path().join("log.db"));
    let app = Connection::open(&database).unwrap();
    app.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)").unwrap();
    let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
    let id = "https://sim.test/app".parse().unwrap();
    let mut attached = Attached::open(&database, &log, &id, Tables::All, &clock).unwrap();
    attached.install().unwrap();
    let numbers = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)";
    app.execute_batch(&format!("{numbers} INSERT INTO notes SELECT i, i FROM n")).unwrap();
    while attached.look().unwrap().drained.more {}
    let before = disk.counts().syncs;
    assert!(attached.trim().unwrap().rows() > 0);
    // Of the log, of the journal's pages and of its folder, of their count, and of the database.
    assert_eq!(disk.counts().syncs - before, 5);
}
