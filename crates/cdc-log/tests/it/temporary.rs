//! TEMP tables that have the names of captured tables: SQLite meets them first wherever no schema is named.

use cdc_log::{Error, Log, Tables};
use rusqlite::Connection;

use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

const SCHEMA: &str = "CREATE TABLE t(id TEXT PRIMARY KEY COLLATE NOCASE, a UNIQUE, b DEFAULT 1);
    CREATE TABLE seen(n);
    CREATE TRIGGER users AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (NEW.a); END;
    INSERT INTO t(id, a) VALUES ('x', 1), ('Y', 2);";

/// Another key, other columns, and an index of the same name.
const SHADOW: &str = "CREATE TEMP TABLE t(a INTEGER PRIMARY KEY, z UNIQUE);
    INSERT INTO temp.t VALUES (7, 7);
    CREATE TEMP TABLE seen(x, y);";

#[test]
fn an_owned_table_is_told_from_a_temporary_one_of_its_name() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    log.write(|tx| tx.execute_batch(SCHEMA)).unwrap();
    log.capture(&Tables::All).unwrap();
    log.write(|tx| tx.execute_batch(SHADOW)).unwrap();
    for sql in [
        "INSERT OR REPLACE INTO main.t(id, a) VALUES ('X', 2)",
        // Installs again.
        "ALTER TABLE main.t ADD COLUMN c DEFAULT 'c'",
        "INSERT INTO main.t(id, a) VALUES ('z', 3); INSERT INTO temp.t VALUES (8, 8)",
        "CREATE TABLE more(k PRIMARY KEY); INSERT INTO more VALUES (1); CREATE TEMP TABLE more(l)",
        "CREATE TRIGGER main.later AFTER DELETE ON t BEGIN INSERT INTO seen VALUES ('gone'); END",
        "UPDATE main.t SET a = 9 WHERE id = 'z'; DELETE FROM main.t WHERE id = 'x'; UPDATE main.more SET k = 2",
    ] {
        log.write(|tx| tx.execute_batch(sql)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    while log.audit().unwrap().more {}
    let mut follower = Follower::default();
    follower.follow(&log, Reconciled::Never);
    let app = Connection::open(&path).unwrap();
    for table in ["t", "seen", "more"] {
        assert_agrees(&app, &follower.fold, table);
    }
    assert_eq!(log.compare_rows(&follower.fold).unwrap(), None);
    let users = "SELECT group_concat(name, ' ') FROM sqlite_master WHERE type = 'trigger' AND name NOT LIKE '\\_cdc%' ESCAPE '\\'";
    let users: String = app.query_row(users, [], |row| row.get(0)).unwrap();
    assert_eq!(users, "users later");
}

#[test]
fn an_attached_table_is_told_from_a_temporary_one_of_its_name() {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), SCHEMA);
    app.execute_batch(SHADOW).unwrap();
    // Not even ours hide behind those of the application.
    app.execute_batch("CREATE TEMP TABLE _cdc_capture(x); CREATE TEMP TABLE _cdc_stash_1(x)").unwrap();
    app.execute_batch(
        "INSERT OR REPLACE INTO main.t(id, a) VALUES ('X', 2); ALTER TABLE main.t ADD COLUMN c DEFAULT 'c';
         INSERT INTO main.t(id, a) VALUES ('z', 3); INSERT INTO temp.t VALUES (8, 8);",
    )
    .unwrap();
    while attached.look().unwrap().drained.more {}
    app.execute_batch("UPDATE main.t SET a = 9 WHERE id = 'z'; DELETE FROM main.t WHERE id = 'x'").unwrap();
    while attached.audit().unwrap().drained.more {}
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    let others = Connection::open(folder.path().join("app.db")).unwrap();
    for table in ["t", "seen"] {
        assert_agrees(&others, &follower.fold, table);
    }
}

#[test]
fn no_temporary_table_gets_the_name_of_one_of_ours() {
    let folder = folder();
    let mut log = Log::open(folder.path().join("log"), &id(), &clock()).unwrap();
    for sql in [
        "CREATE TEMP TABLE _cdc_log(x)",
        "CREATE TEMP VIEW _cdc_log AS SELECT 1",
        "CREATE TEMP TABLE x(y); ALTER TABLE x RENAME TO _cdc_log",
    ] {
        let refused = log.write(|tx| tx.execute_batch(sql));
        assert!(matches!(refused, Err(Error::NotAllowed { .. })), "{sql}: {refused:?}");
    }
}
