//! Comparisons of tables with the log: what bypassed capture is found, and the rows that were there are taken once.

use std::io::Write as _;
use std::path::Path;

use cdc_log::{Attached, Limit, Log, Tables};
use cdc_model::{Sequence, Tag};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::random::Random;
use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
    CREATE TABLE other(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE loose(a, b);
    INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', NULL), (3, 'three', x'00');
    INSERT INTO other VALUES ('x', 1), ('[', 2), ('', 3), ('7', 4);
    INSERT INTO loose VALUES (1, 2), (1, 2);";

const TABLES: [&str; 3] = ["t", "other", "loose"];

fn drain(attached: &mut Attached) -> u64 {
    let mut backfilled = 0;
    loop {
        let drained = attached.look().unwrap().drained;
        backfilled += drained.backfilled;
        if !drained.more {
            return backfilled;
        }
    }
}

/// How the application's database is written behind the back of capture.
type Bypass = fn(&mut Connection, &Path);

fn without_triggers(app: &mut Connection, _: &Path) {
    app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    app.execute_batch(
        "DELETE FROM t WHERE id = 2; INSERT INTO t(id, a, b) VALUES (9, 'new', 1); UPDATE t SET b = 2 WHERE id = 3;
         UPDATE other SET v = 9 WHERE k = '['; DELETE FROM other WHERE k = '7'; DELETE FROM loose WHERE rowid = 1",
    )
    .unwrap();
    app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
}

fn through_a_blob(app: &mut Connection, _: &Path) {
    let mut blob = app.blob_open("main", "t", "b", 3, false).unwrap();
    blob.write_all(&[7]).unwrap();
}

fn behind_a_temp_trigger(app: &mut Connection, _: &Path) {
    // The last made fires first, and ours not at all.
    app.execute_batch(
        "CREATE TEMP TRIGGER quiet AFTER INSERT ON main.t BEGIN SELECT RAISE(IGNORE); END;
         INSERT INTO t VALUES (4, 'unseen', 4); DROP TRIGGER quiet",
    )
    .unwrap();
}

fn by_the_schema(app: &mut Connection, _: &Path) {
    // A default that rows show which were made before their column.
    app.execute_batch(
        "PRAGMA writable_schema=ON;
         UPDATE sqlite_master SET sql = replace(sql, 'a, b)', 'a, b, c DEFAULT 5)') WHERE name = 't';
         PRAGMA writable_schema=RESET",
    )
    .unwrap();
}

fn by_an_older_file(app: &mut Connection, database: &Path) {
    // As a loss of power leaves it that nothing was synced before, or a copy that was put back: the newest commits are
    // gone, with what was captured of them.
    app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let old = std::fs::read(database).unwrap();
    app.execute_batch("UPDATE t SET a = 'lost'; INSERT INTO other VALUES ('lost', 1)").unwrap();
    *app = Connection::open_in_memory().unwrap();
    std::fs::write(database, old).unwrap();
    *app = Connection::open(database).unwrap();
}

fn by_capture_rows(app: &mut Connection, _: &Path) {
    app.execute_batch(
        "UPDATE t SET a = 'unseen' WHERE id = 1;
         DELETE FROM _cdc_capture WHERE seq = (SELECT max(seq) FROM _cdc_capture)",
    )
    .unwrap();
}

#[test]
fn whatever_bypasses_capture_is_found_by_an_audit() {
    let bypasses: [(&str, Bypass); 6] = [
        ("without triggers", without_triggers),
        ("through a blob", through_a_blob),
        ("behind a temporary trigger", behind_a_temp_trigger),
        ("by the schema", by_the_schema),
        ("by an older file", by_an_older_file),
        ("by capture rows", by_capture_rows),
    ];
    for (name, bypass) in bypasses {
        let folder = folder();
        let (mut app, mut attached) = attach(folder.path(), SCHEMA);
        let mut follower = Follower::default();
        app.execute_batch("UPDATE t SET a = 'captured' WHERE id = 1").unwrap();
        drain(&mut attached);
        follower.follow(attached.log(), Reconciled::Never);
        assert_eq!(attached.log().compared_at().unwrap(), None, "{name}");
        bypass(&mut app, &folder.path().join("app.db"));
        while attached.audit().unwrap().drained.more {}
        follower.follow(attached.log(), Reconciled::Allowed);
        for table in TABLES {
            assert_agrees(&app, &follower.fold, table);
        }
        assert!(attached.log().compared_at().unwrap().is_some(), "{name}");
        let found = follower.reconciled;
        assert!(found > 0 || ["by an older file", "by the schema"].contains(&name), "{name}");
        // Once found, it is known.
        while attached.audit().unwrap().drained.more {}
        app.execute_batch("UPDATE t SET a = a || '!'; UPDATE other SET v = 0").unwrap();
        drain(&mut attached);
        follower.follow(attached.log(), Reconciled::Allowed);
        assert_eq!(follower.reconciled, found, "{name}");
    }
}

#[test]
fn a_captured_change_after_a_missed_one_is_preceded_by_it_while_an_audit_is_under_way() {
    let folder = folder();
    let (mut app, mut attached) = attach(folder.path(), SCHEMA);
    app.execute_batch(
        "WITH RECURSIVE n(x) AS (SELECT 10 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) INSERT INTO t SELECT x, x, x FROM n",
    )
    .unwrap();
    drain(&mut attached);
    without_triggers(&mut app, folder.path());
    let first = attached.audit().unwrap().drained;
    assert!(first.more && first.compared < 2500, "{first:?}");
    app.execute_batch("UPDATE t SET a = 'again' WHERE id IN (3, 9)").unwrap();
    drain(&mut attached);
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Allowed);
    while attached.audit().unwrap().drained.more {}
    follower.follow(attached.log(), Reconciled::Allowed);
    for table in TABLES {
        assert_agrees(&app, &follower.fold, table);
    }
}

#[test]
fn an_audit_that_nobody_goes_on_with_is_dropped_and_a_comparison_that_is_needed_is_not() {
    let folder = folder();
    let (mut app, mut attached) = attach(folder.path(), SCHEMA);
    app.execute_batch(
        "WITH RECURSIVE n(x) AS (SELECT 10 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) INSERT INTO t SELECT x, x, x FROM n",
    )
    .unwrap();
    drain(&mut attached);
    assert!(!attached.log_mut().drop_audit().unwrap(), "none was begun");
    without_triggers(&mut app, folder.path());
    assert!(attached.audit().unwrap().drained.more);
    assert!(attached.log_mut().drop_audit().unwrap());
    assert!(!attached.log_mut().drop_audit().unwrap());
    assert_eq!(attached.look().unwrap().drained.compared, 0);
    // Looks do not go on with an audit, and do with this.
    app.execute_batch("CREATE TRIGGER late AFTER UPDATE ON t BEGIN SELECT 1; END").unwrap();
    assert!(attached.look().unwrap().drained.more);
    assert!(!attached.log_mut().drop_audit().unwrap());
    drain(&mut attached);
    assert!(attached.log().compared_at().unwrap().is_some());
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Allowed);
    for table in TABLES {
        assert_agrees(&app, &follower.fold, table);
    }
}

#[test]
fn an_owned_object_is_audited_too() {
    let folder = folder();
    let path = folder.path().join("acme.db");
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    log.write(|tx| tx.execute_batch(SCHEMA)).unwrap();
    log.capture(&Tables::All).unwrap();
    let mut app = Connection::open(&path).unwrap();
    without_triggers(&mut app, &path);
    while log.audit().unwrap().more {}
    let mut follower = Follower::default();
    follower.follow(&log, Reconciled::Allowed);
    for table in TABLES {
        assert_agrees(&app, &follower.fold, table);
    }
    assert_eq!(follower.reconciled, 6);
}

#[test]
fn rows_that_were_there_are_taken_once_whatever_happens_meanwhile() {
    for seed in 1..=12 {
        let mut random = Random::new(seed);
        let folder = folder();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(
            "PRAGMA journal_mode=wal;
             CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b);
             CREATE TABLE other(k TEXT COLLATE NOCASE, v, PRIMARY KEY(k COLLATE BINARY, v DESC)) WITHOUT ROWID;
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 4000) INSERT INTO t SELECT x, x, 'there' FROM n;
             INSERT INTO other SELECT CASE WHEN id % 2 THEN 'k' ELSE 'K' END || (id / 4), id FROM t",
        )
        .unwrap();
        let open =
            || Attached::open(&path, &folder.path().join("log"), &id(), Tables::All, &clock()).unwrap();
        let mut attached = open();
        assert_eq!(attached.install().unwrap().installed.rows, 8000);
        let (mut follower, mut backfilled, mut looks) = (Follower::default(), 0, 0);
        loop {
            for _ in 0..random.below(4) {
                let (x, y) = (random.below(4200), random.below(4200));
                let sql = match random.below(6) {
                    0 => format!("UPDATE t SET b = 'live {x}' WHERE id = {x}"),
                    1 => format!("DELETE FROM t WHERE id = {x}"),
                    2 => format!("INSERT OR REPLACE INTO t VALUES ({x}, {y}, 'replaced')"),
                    3 => format!("UPDATE OR IGNORE t SET id = {y} WHERE id = {x}"),
                    4 => format!("UPDATE OR REPLACE other SET v = v + 1 WHERE v = {x}"),
                    _ => format!("DELETE FROM other WHERE v BETWEEN {x} AND {}", x + 3),
                };
                app.execute_batch(&sql).unwrap();
            }
            if random.one_in(3) {
                // As after a crash between two steps.
                drop(attached);
                attached = open();
            }
            let drained = attached.look().unwrap().drained;
            backfilled += drained.backfilled;
            looks += 1;
            follower.follow(attached.log(), Reconciled::Never);
            if !drained.more {
                break;
            }
        }
        for table in ["t", "other"] {
            assert_agrees(&app, &follower.fold, table);
        }
        assert!(
            looks > 8 && (7000..=8000).contains(&backfilled),
            "seed {seed}: {looks} looks, {backfilled} rows"
        );
    }
}

#[test]
fn a_schema_change_that_folds_follow_costs_no_event_for_each_row() {
    for (sql, table, changed) in [
        ("ALTER TABLE t ADD COLUMN c INTEGER DEFAULT '7'", "t", 0),
        ("ALTER TABLE t ADD COLUMN c TEXT DEFAULT 7; ALTER TABLE t ADD COLUMN d", "t", 0),
        ("ALTER TABLE t ADD COLUMN c REAL NOT NULL DEFAULT (-0.0)", "t", 0),
        ("ALTER TABLE t RENAME COLUMN a TO \"a\"\"b\"", "t", 0),
        ("ALTER TABLE t RENAME TO renamed", "renamed", 0),
        ("ALTER TABLE t ADD COLUMN c DEFAULT 1; UPDATE t SET c = 2 WHERE id = 5", "t", 1),
        // What the columns do not tell is found row by row.
        (
            "CREATE TABLE n(id INTEGER PRIMARY KEY, b, a); INSERT INTO n SELECT id, b, a FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
            "t",
            3000,
        ),
        ("ALTER TABLE t ADD COLUMN g TEXT AS (a || 'g')", "t", 3000),
    ] {
        let folder = folder();
        let (app, mut attached) = attach(
            folder.path(),
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000) INSERT INTO t SELECT x, x, x FROM n",
        );
        let before = attached.log().tail().sequence.get();
        app.execute_batch(sql).unwrap();
        drain(&mut attached);
        let mut follower = Follower::default();
        follower.follow(attached.log(), Reconciled::Allowed);
        assert_agrees(&app, &follower.fold, table);
        assert_eq!(follower.reconciled, changed, "{sql}");
        assert!(attached.log().tail().sequence.get() <= before + 2 + changed, "{sql}");
        app.execute_batch(&format!("UPDATE {table} SET b = 'after'; DELETE FROM {table} WHERE id > 10"))
            .unwrap();
        drain(&mut attached);
        follower.follow(attached.log(), Reconciled::Allowed);
        assert_eq!(follower.reconciled, changed, "{sql}");
        assert_agrees(&app, &follower.fold, table);
    }
}

#[test]
fn tables_that_only_the_application_can_order_are_compared_whole() {
    let folder = folder();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.create_collation("backwards", |a, b| b.cmp(a)).unwrap();
    app.execute_batch(
        "CREATE TABLE w(k TEXT PRIMARY KEY COLLATE backwards, v) WITHOUT ROWID;
         CREATE TABLE r(k TEXT PRIMARY KEY COLLATE backwards, v);
         INSERT INTO w VALUES ('a', 1), ('b', 2); INSERT INTO r VALUES ('a', 1), ('b', 2)",
    )
    .unwrap();
    let mut attached =
        Attached::open(&path, &folder.path().join("log"), &id(), Tables::All, &clock()).unwrap();
    let report = attached.install().unwrap();
    assert_eq!(report.captured, ["r"]);
    let [(table, reason)] = report.installed.left_out.as_slice() else { panic!("{report:?}") };
    assert!(table == "w" && reason.contains("only the application has a function or collation"), "{reason}");
    drain(&mut attached);
    app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    app.execute_batch(
        "DELETE FROM w WHERE k = 'a'; UPDATE r SET v = 3 WHERE k = 'b'; DELETE FROM r WHERE k = 'a'",
    )
    .unwrap();
    while attached.audit().unwrap().drained.more {}
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Allowed);
    assert_agrees(&app, &follower.fold, "r");
    assert_eq!(follower.reconciled, 2);
}

#[test]
fn events_found_by_comparison_name_the_version_of_their_schema() {
    let folder = folder();
    let (mut app, mut attached) = attach(folder.path(), SCHEMA);
    app.execute_batch("ALTER TABLE t ADD COLUMN c").unwrap();
    drain(&mut attached);
    without_triggers(&mut app, folder.path());
    while attached.audit().unwrap().drained.more {}
    let records = attached.log().read(Sequence::ZERO, Limit::default()).unwrap();
    let changes = records.iter().filter_map(|record| record.body.change().unwrap());
    let found: Vec<_> = changes.filter(|change| change.tag == Some(Tag::Reconciled)).collect();
    assert_eq!(found.len(), 6);
    for change in found {
        let version = if change.collection == "t" { 2 } else { 1 };
        assert_eq!(change.schema_version, Some(version), "{change:?}");
    }
}
