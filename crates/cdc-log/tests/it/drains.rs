//! Draining at its limits: chunk boundaries, large values, wide tables, held locks, disks that are full.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cdc_log::{Attached, Error, Log, Tables, Trimmed};
use cdc_model::{Body, ChangeBody, Operation, Timestamp};
use rusqlite::Connection;

use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

fn agrees(app: &Connection, attached: &Attached, table: &str) {
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(app, &follower.fold, table);
    assert_eq!(attached.compare_rows(&follower.fold).unwrap(), None);
}

#[test]
fn a_chunk_never_ends_between_replaced_rows_and_the_row_that_replaced_them() {
    let folder = folder();
    let (app, mut attached) =
        attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE)");
    app.execute_batch(
        "BEGIN; INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3);
         WITH RECURSIVE n(x) AS (SELECT 4 UNION ALL SELECT x + 1 FROM n WHERE x < 9999) INSERT INTO t SELECT x, x, x FROM n;
         INSERT OR REPLACE INTO t VALUES (1, 2, 3); INSERT INTO t VALUES (2, 1, 1); COMMIT",
    )
    .unwrap();
    let first = attached.look().unwrap().drained;
    // 9,999 rows, three that were replaced and the one that replaced them.
    assert_eq!((first.rows, first.more), (10_003, true));
    let second = attached.look().unwrap().drained;
    assert_eq!((second.rows, second.more), (1, false));
    agrees(&app, &attached, "t");
}

#[test]
fn a_wide_table_does_not_make_the_rows_of_others_wide() {
    let folder = folder();
    let columns = (0..1200).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let schema = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE wide(k TEXT PRIMARY KEY, u UNIQUE, {columns}); INSERT INTO wide(k, u, c1199) VALUES ('first', 0, 'last')"
    );
    let (app, mut attached) = attach(folder.path(), &schema);
    let width: i64 = app
        .query_row("SELECT count(*) FROM pragma_table_info('_cdc_capture')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(width, 5 + 64);
    app.execute_batch(
        "INSERT INTO t VALUES (1, 1); INSERT INTO wide(k, u, c0, c63, c64, c1199) VALUES ('second', 1, 1, 2, 3, 4), ('third', 2, 5, 6, 7, 8);
         UPDATE wide SET c700 = 'x', c1199 = NULL; INSERT OR REPLACE INTO wide(k, u, c5) VALUES ('second', 2, 9);
         UPDATE OR REPLACE wide SET u = 2 WHERE k = 'first'; INSERT OR REPLACE INTO t VALUES (1, 2); DELETE FROM wide WHERE k = 'first'",
    )
    .unwrap();
    while attached.look().unwrap().drained.more {}
    agrees(&app, &attached, "wide");
    agrees(&app, &attached, "t");
}

#[test]
fn parts_of_rows_whose_keys_the_column_takes_for_equal_are_not_mixed() {
    let folder = folder();
    let columns = (0..100).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let schema = format!(
        "CREATE TABLE wide(k TEXT COLLATE NOCASE, {columns}, PRIMARY KEY(k COLLATE BINARY)) WITHOUT ROWID;
         INSERT INTO wide(k, c0, c99) VALUES ('a', 1, 2), ('A', 3, 4), ('b', 5, 6)"
    );
    let (app, mut attached) = attach(folder.path(), &schema);
    agrees(&app, &attached, "wide");
    app.execute_batch("UPDATE wide SET c70 = 7; REPLACE INTO wide(k, c0) VALUES ('A', 8)").unwrap();
    while attached.look().unwrap().drained.more {}
    agrees(&app, &attached, "wide");
}

#[test]
fn a_value_too_large_to_render_is_named_by_its_digest_and_stops_nothing() {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    app.execute("INSERT INTO t VALUES (1, zeroblob(?1))", [(64 << 20) + 1]).unwrap();
    app.execute_batch("UPDATE t SET id = 2; INSERT INTO t VALUES (1, 'small')").unwrap();
    while attached.look().unwrap().drained.more {}
    let (verified, fold) = attached.log().verify().unwrap();
    assert_eq!((verified.records, verified.broken_chains), (5, 0));
    let json = &fold.get(&id(), "t", "2").unwrap().json;
    assert!(json.starts_with("{\"id\":2,\"a\":{\"$omitted\":{\"bytes\":67108865,\"digest\":"), "{json}");
    assert_eq!(attached.compare_rows(&fold).unwrap(), None);
}

#[test]
fn a_lock_held_for_a_while_is_waited_for_and_one_held_too_long_is_told() {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    app.query_row("PRAGMA journal_mode=delete", [], |_| Ok(())).unwrap();
    app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1, 1)").unwrap();
    std::thread::scope(|scope| {
        let look = scope.spawn(|| attached.look());
        // Long enough for a look that does not wait to have failed.
        std::thread::sleep(Duration::from_millis(300));
        assert!(!look.is_finished());
        app.execute_batch("COMMIT").unwrap();
        assert_eq!(look.join().unwrap().unwrap().drained.records, 1);
    });
    app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (2, 2)").unwrap();
    let busy = attached.look().unwrap_err();
    assert!(busy.is_busy(), "{busy:?}");
    assert_eq!(attached.trim().unwrap().rows(), 0);
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(attached.look().unwrap().drained.records, 1);
}

#[test]
fn collisions_are_counted_while_the_lock_is_held_and_when_nothing_is_drained_after_it() {
    let folder = folder();
    let (app, attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    drop(attached);
    app.query_row("PRAGMA journal_mode=delete", [], |_| Ok(())).unwrap();
    let (database, log) = (folder.path().join("app.db"), folder.path().join("log"));
    let open =
        || Attached::open_within(Duration::ZERO, &database, &log, &id(), Tables::All, &clock()).unwrap();
    let counted = || Log::open(&log, &id(), &clock()).unwrap().counter("collisions").unwrap();
    let mut attached = open();
    app.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for _ in 0..30 {
        assert!(attached.look().unwrap_err().is_busy());
    }
    assert_eq!(counted(), 25);
    drop(attached);
    assert_eq!(counted(), 30);
    app.execute_batch("COMMIT").unwrap();
    let mut attached = open();
    app.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(attached.look().unwrap_err().is_busy());
    assert_eq!(attached.trim().unwrap(), Trimmed::Busy);
    app.execute_batch("COMMIT").unwrap();
    assert_eq!((attached.look().unwrap().drained.records, counted()), (0, 32));
}

const FULL_DISK: &str = "CDC_CHILD_FULL_DISK";

/// A log whose file may not grow: what it says when its disk is full. Run again by the test below.
#[test]
fn child_with_a_full_disk() {
    let Ok(folder) = std::env::var(FULL_DISK) else { return };
    let mut log = Log::open(Path::new(&folder).join("log"), &id(), &clock()).unwrap();
    let text = serde_json::value::RawValue::from_string(format!("\"{}\"", "x".repeat(3000))).unwrap();
    let mut body = ChangeBody::new(Operation::Insert, "c", "1");
    body.after = Some(&text);
    let body: Body = body.to_body();
    let failed =
        (0..10_000).find_map(|_| log.transact(|log| log.append(Timestamp::ZERO, body.clone())).err());
    let tail = log.tail().sequence;
    assert!(matches!(failed, Some(Error::Sqlite(_))), "{failed:?}");
    assert!(matches!(log.transact(|_| Ok(())), Err(Error::Poisoned)));
    println!("tail {tail}");
}

#[test]
fn after_a_failed_commit_the_log_takes_nothing_until_it_is_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let child = format!(
        "trap '' XFSZ; ulimit -f 900; exec '{}' --exact drains::child_with_a_full_disk --nocapture",
        std::env::current_exe().unwrap().display()
    );
    let output = Command::new("sh").args(["-c", &child]).env(FULL_DISK, folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let tail: u64 = said.lines().find_map(|line| line.strip_prefix("tail ")?.parse().ok()).unwrap();
    let mut log = Log::open(folder.path().join("log"), &id(), &clock()).unwrap();
    // What was acknowledged is there; of what was not, all or nothing.
    assert!((tail..=tail + 1).contains(&log.tail().sequence.get()), "{tail}");
    assert!(tail > 10);
    log.verify().unwrap();
    log.transact(|log| log.count("n", 1)).unwrap();
}

#[test]
fn what_is_held_back_when_a_new_table_comes_is_appended_before_the_index_must_cover_the_log() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    let named = |tables: [&str; 2]| Tables::Named(tables.map(str::to_owned).to_vec());
    log.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE a(id INTEGER PRIMARY KEY, u UNIQUE); CREATE TABLE b(x); CREATE TABLE c(id INTEGER PRIMARY KEY)",
        )
    })
    .unwrap();
    log.capture(&named(["a", "c"])).unwrap();
    // No comparison is open, and the index takes none of these.
    log.write(|tx| tx.execute_batch("INSERT INTO a VALUES (1, 1); INSERT INTO c VALUES (1), (2)")).unwrap();
    // In another process, the row that was replaced is captured, and the row that replaced it is not.
    let app = Connection::open(&path).unwrap();
    let trigger =
        "SELECT name FROM sqlite_master WHERE tbl_name = 'a' AND sql LIKE '%AFTER INSERT ON \"a\" BEGIN%'";
    let trigger: String = app.query_row(trigger, [], |row| row.get(0)).unwrap();
    app.execute_batch(&format!("DROP TRIGGER {trigger}; INSERT OR REPLACE INTO a VALUES (2, 1)")).unwrap();
    // The first table is not wanted any more, so that it is not compared, and another comes.
    log.capture(&named(["c", "b"])).unwrap();
    while log.audit().unwrap().more {}
    let mut follower = Follower::default();
    follower.follow(&log, Reconciled::Never);
    for table in ["b", "c"] {
        assert_agrees(&app, &follower.fold, table);
    }
}
