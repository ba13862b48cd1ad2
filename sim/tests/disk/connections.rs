//! Several connections of one process.

use rusqlite::{Connection, ErrorCode};

use crate::bench::{Bench, count};
use crate::ledger;

fn is_busy(result: rusqlite::Result<()>) -> bool {
    result.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

fn pair(bench: &Bench, journal: &str) -> (Connection, Connection) {
    let pragmas = format!("PRAGMA journal_mode = {journal}; PRAGMA busy_timeout = 0");
    let one = bench.open("a.db", &pragmas).expect("sound");
    one.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)").expect("sound");
    (one, bench.open("a.db", &pragmas).expect("sound"))
}

#[test]
fn in_wal_mode_a_reader_keeps_its_snapshot_and_one_writes() {
    let bench = Bench::new(1);
    let (one, two) = pair(&bench, "wal");
    two.execute_batch("BEGIN").expect("sound");
    assert_eq!(count(&two, "t"), Ok(1));
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").expect("readers do not exclude a writer");
    let three = bench.open("a.db", "PRAGMA busy_timeout = 0").expect("sound");
    assert!(is_busy(three.execute_batch("BEGIN IMMEDIATE")), "one writes");
    one.execute_batch("COMMIT").expect("sound");
    assert_eq!((count(&one, "t"), count(&two, "t"), count(&three, "t")), (Ok(2), Ok(1), Ok(2)));
    let busy: u64 =
        one.query_row("PRAGMA wal_checkpoint(truncate)", [], |row| row.get(0)).expect("it answers");
    assert_eq!(busy, 1, "the reader's snapshot is needed");
    assert!(two.execute_batch("INSERT INTO t VALUES (3)").is_err(), "its snapshot is old");
    two.execute_batch("COMMIT").expect("sound");
    assert_eq!(count(&two, "t"), Ok(2));
}

#[test]
fn in_rollback_mode_readers_and_a_writer_exclude_each_other() {
    let bench = Bench::new(1);
    let (one, two) = pair(&bench, "delete");
    two.execute_batch("BEGIN").expect("sound");
    assert_eq!(count(&two, "t"), Ok(1));
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").expect("a reader bears a writer to be");
    let three = bench.open("a.db", "PRAGMA busy_timeout = 0").expect("sound");
    assert!(is_busy(three.execute_batch("BEGIN IMMEDIATE")), "one writes");
    assert!(is_busy(one.execute_batch("COMMIT")), "a reader reads");
    assert!(count(&three, "t").is_err(), "a writer waits for readers, so no new one comes in");
    two.execute_batch("COMMIT").expect("sound");
    one.execute_batch("COMMIT").expect("the reader is gone");
    assert_eq!((count(&two, "t"), count(&three, "t")), (Ok(2), Ok(2)));
}

#[test]
fn a_busy_handler_counts_its_sleeps_and_takes_no_time() {
    let bench = Bench::new(1);
    let (one, two) = pair(&bench, "wal");
    two.execute_batch("PRAGMA busy_timeout = 60000").expect("sound");
    one.execute_batch("BEGIN IMMEDIATE").expect("sound");
    let before = sim::disk::sleeps();
    assert!(is_busy(two.execute_batch("BEGIN IMMEDIATE")));
    assert!(sim::disk::sleeps() - before > 100);
}

#[test]
fn threads_share_a_database() {
    for journal in ["wal", "delete"] {
        let bench = Bench::new(1);
        let (one, _two) = pair(&bench, journal);
        let write = || {
            let conn = bench.open("a.db", "PRAGMA busy_timeout = 0").expect("sound");
            let mut written = 0;
            while written < 200 {
                written += u32::from(conn.execute_batch("INSERT INTO t VALUES (0)").is_ok());
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(write))));
        assert_eq!(count(&one, "t"), Ok(801), "{journal}");
        let sound: String =
            one.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it answers");
        assert_eq!(sound, "ok", "{journal}");
    }
}

#[test]
fn a_connection_dropped_after_the_kill_changes_nothing() {
    for journal in ["wal", "delete"] {
        let bench = Bench::new(1);
        let mut conn = bench.open("a.db", &format!("PRAGMA journal_mode = {journal}")).expect("sound");
        (1..20).for_each(|number| ledger::commit(&mut conn, number).expect("sound"));
        conn.execute_batch("PRAGMA cache_size = 2; BEGIN; DELETE FROM row").expect("sound");
        bench.disk.kill();
        let (image, trace) = (bench.disk.image_hash(), bench.disk.trace_hash());
        drop(conn);
        assert_eq!((bench.disk.image_hash(), bench.disk.trace_hash()), (image, trace), "{journal}");
        assert!(bench.disk.open_handles().is_empty());
        bench.disk.crash(sim::disk::CrashMode::Kill);
        let conn = bench.open("a.db", "").expect("sound");
        assert_eq!(ledger::check(&conn), Ok(19), "{journal}");
        drop(conn);
        assert_ne!(bench.disk.image_hash(), image, "without the kill closing does change something");
    }
}

#[test]
#[should_panic(expected = "files are open in a crash")]
fn a_crash_with_open_files_is_refused() {
    let bench = Bench::new(1);
    let _conn = bench.open("a.db", "PRAGMA journal_mode = wal").expect("sound");
    bench.disk.kill();
    bench.disk.crash(sim::disk::CrashMode::POWER);
}

#[test]
fn a_file_below_no_disk_cannot_be_opened() {
    let bench = Bench::new(1);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let error = Connection::open(elsewhere.path().join("a.db")).expect_err("no disk is there");
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen));
    let error = Connection::open(bench.path("missing").join("a.db")).expect_err("no folder is there");
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen));
}

#[test]
fn temporary_tables_live_beside_the_disk() {
    let bench = Bench::new(1);
    let conn = bench.open("a.db", "PRAGMA temp_store = file; PRAGMA cache_size = 2").expect("sound");
    conn.execute_batch(
        "CREATE TEMP TABLE t AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000)
             SELECT n, zeroblob(100) AS data FROM r;
         PRAGMA temp.cache_size = 2; UPDATE t SET data = zeroblob(120)",
    )
    .expect("sound");
    assert_eq!(count(&conn, "t"), Ok(20_000));
    assert_eq!(bench.disk.used_bytes(), 0);
}
