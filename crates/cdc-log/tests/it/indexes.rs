//! Unique indexes of every kind: what a REPLACE removes is logged, and no write of the application's fails.

use cdc_log::{Attached, Error, Tables};
use rusqlite::Connection;

use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

/// Runs `writes` on a captured table `t` and holds the log against it.
fn follows(create: &str, writes: &str) {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), create);
    app.execute_batch(writes).unwrap_or_else(|error| panic!("{create}: {error}"));
    while attached.look().unwrap().drained.more {}
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(&app, &follower.fold, "t");
    assert_eq!(attached.compare_rows(&follower.fold).unwrap(), None, "{create}");
}

#[test]
fn an_index_may_qualify_its_columns() {
    for index in [
        "t(b) WHERE t.a > 0",
        "t(b) WHERE main.t.a > 0",
        "t(b) WHERE \"T\" . [a] > 0 AND rowid > 0",
        "t(b) WHERE 't'.'a' > 0",
    ] {
        follows(
            &format!("CREATE TABLE t(a INT, b); CREATE UNIQUE INDEX i ON {index}; INSERT INTO t VALUES (1, 1)"),
            "INSERT INTO t VALUES (2, 2); INSERT OR REPLACE INTO t VALUES (1, 1); UPDATE t SET a = 3 WHERE b = 2;
             UPDATE OR REPLACE t SET a = 1, b = 1; DELETE FROM t",
        );
    }
}

fn schema(app: &Connection) -> Vec<(String, Option<String>)> {
    let mut statement = app.prepare("SELECT name, sql FROM sqlite_master ORDER BY rowid").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_table_that_could_not_be_written_any_more_is_refused_and_stays_as_it_was() {
    // As deep as an expression may be; in a trigger it is deeper.
    let deep = vec!["a > 0"; 997].join(" AND ");
    let folder = folder();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch(&format!(
        "CREATE TABLE good(a); CREATE TABLE bad(a, b); CREATE TRIGGER mine AFTER INSERT ON bad BEGIN SELECT 1; END;
         CREATE UNIQUE INDEX i ON bad(b) WHERE {deep}"
    ))
    .unwrap();
    let before = schema(&app);
    let open = |tables| Attached::open(&path, &folder.path().join("log"), &id(), tables, &clock()).unwrap();
    let refused = open(Tables::Named(vec!["bad".to_owned()])).install();
    assert!(matches!(&refused, Err(Error::WritesWouldFail { table, .. }) if table == "bad"), "{refused:?}");
    assert_eq!(schema(&app), before);
    let installed = open(Tables::All).install().unwrap().installed;
    assert_eq!(installed.tables, ["good"]);
    let [(table, why)] = &installed.left_out[..] else { panic!("{installed:?}") };
    assert!(table == "bad" && why.contains("depth"), "{why}");
    app.execute_batch("INSERT INTO bad VALUES (1, 1); UPDATE bad SET a = 2; DELETE FROM bad").unwrap();
}

#[test]
fn a_table_that_could_not_be_written_before_is_captured() {
    let folder = folder();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch(
        "CREATE TABLE t(a UNIQUE, b); CREATE TRIGGER broken AFTER INSERT ON t BEGIN INSERT INTO missing VALUES (1); END",
    )
    .unwrap();
    let mut attached =
        Attached::open(&path, &folder.path().join("log"), &id(), Tables::All, &clock()).unwrap();
    assert_eq!(attached.install().unwrap().installed.tables, ["t"]);
    app.execute_batch("DROP TRIGGER broken; REPLACE INTO t VALUES (1, 1), (1, 2)").unwrap();
    while attached.look().unwrap().drained.more {}
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(&app, &follower.fold, "t");
}

#[test]
fn an_indexed_expression_compares_with_the_affinity_and_collation_of_its_columns() {
    for (column, term, values) in [
        ("a TEXT NOT NULL DEFAULT 'x'", "(a = 1)", ["'1'", "1"]),
        ("a TEXT NOT NULL DEFAULT 'x'", "(a = 'x')", ["'x'", "NULL"]),
        ("a TEXT", "(a = 1)", ["'1'", "1"]),
        ("a TEXT COLLATE NOCASE NOT NULL DEFAULT 'q'", "(a = 'X')", ["'x'", "'X'"]),
        ("a TEXT COLLATE NOCASE NOT NULL DEFAULT 'x'", "(a = 'X')", ["'X'", "NULL"]),
        ("a TEXT COLLATE NOCASE", "(a IN ('X', 'Y'))", ["'x'", "'y'"]),
        ("a INTEGER", "(a > '5')", ["7", "10"]),
        ("a INTEGER NOT NULL DEFAULT '7'", "(a > '5')", ["10", "NULL"]),
        ("a REAL", "(a BETWEEN '1' AND '3')", ["2", "3"]),
        ("a BLOB", "(a = 1)", ["'1'", "'1'"]),
        ("a TEXT", "(a > 1)", ["x'00'", "x'01'"]),
        ("a", "(CASE a WHEN 1 THEN 'one' END)", ["1", "1.0"]),
        ("a TEXT COLLATE NOCASE", "(max(a, 'X'))", ["'x'", "'X'"]),
        ("a TEXT", "(a || 'y')", ["'x'", "'x'"]),
        ("a TEXT NOT NULL DEFAULT 'x'", "lower(a)", ["'X'", "NULL"]),
    ] {
        let [first, second] = values;
        follows(
            &format!("CREATE TABLE t({column}, b); CREATE UNIQUE INDEX i ON t({term}, b)"),
            &format!(
                "INSERT INTO t VALUES ({first}, 1); REPLACE INTO t VALUES ({second}, 1); REPLACE INTO t VALUES ({first}, 1)"
            ),
        );
    }
}

#[test]
fn a_replace_whose_cascades_write_its_table_loses_no_row() {
    follows(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, w UNIQUE);
         CREATE TABLE child(p INTEGER REFERENCES t(id) ON DELETE CASCADE);
         CREATE TRIGGER again AFTER DELETE ON child BEGIN
             INSERT INTO t(u) VALUES (OLD.rowid + 100); INSERT INTO t(u) VALUES (OLD.rowid + 200);
             INSERT INTO t(u) VALUES (OLD.rowid + 200) ON CONFLICT DO NOTHING;
             UPDATE t SET w = 'moved' || OLD.rowid WHERE u = OLD.rowid + 200;
         END;
         INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4); INSERT INTO child VALUES (1), (2), (3), (4)",
        "PRAGMA foreign_keys = on; REPLACE INTO t VALUES (1, 2, 3); UPDATE OR REPLACE t SET u = 4 WHERE id = 1;
         REPLACE INTO t VALUES (9, 101, 'moved1')",
    );
}

#[test]
fn what_ignored_inserts_leave_behind_is_dropped_by_the_next_write() {
    let folder = folder();
    let (app, _attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)");
    app.execute_batch(
        "WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 500) INSERT INTO t SELECT x, x, x FROM n",
    )
    .unwrap();
    let stashed =
        || app.query_row("SELECT count(*) FROM _cdc_stash_1", [], |row| row.get::<_, u64>(0)).unwrap();
    let now = || app.query_row("SELECT julianday('now')", [], |row| row.get::<_, f64>(0)).unwrap();
    let ignored = "INSERT OR IGNORE INTO t SELECT * FROM t";
    let upsert = "INSERT INTO t VALUES (7, 8, 9) ON CONFLICT(id) DO UPDATE SET v = 1";
    for write in [ignored, upsert] {
        app.execute_batch(write).unwrap();
        assert!((1..=32).contains(&stashed()), "{}", stashed());
        // What is stashed is told from what the next statement stashes by SQLite's clock.
        let before = now();
        while now() == before {}
        app.execute_batch("INSERT INTO t(v) VALUES ('next')").unwrap();
        assert_eq!(stashed(), 0, "{write}");
    }
}
