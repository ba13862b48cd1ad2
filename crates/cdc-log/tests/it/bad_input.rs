//! What cannot be captured is refused by name, and nothing is half-installed.

use std::path::Path;

use cdc_log::{Attached, Error, Log, Tables};
use rusqlite::Connection;

use crate::witness::{clock, folder, id};

fn open(database: &Path, tables: Tables) -> Result<Attached, Error> {
    let log = database.with_extension("log");
    Attached::open(database, &log, &id(), tables, &clock())
}

fn named(table: &str) -> Tables {
    Tables::Named(vec!["good".to_owned(), table.to_owned()])
}

fn schema(path: &Path) -> Vec<(String, Option<String>)> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT name, sql FROM sqlite_master ORDER BY rowid").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn files_that_cannot_be_captured_are_told_apart() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    assert!(matches!(open(&at("missing.db"), Tables::All), Err(Error::NotFound { .. })));
    assert!(!at("missing.db").exists());
    std::fs::write(at("text.db"), "this is not a database, and longer than a header ".repeat(50)).unwrap();
    assert!(matches!(open(&at("text.db"), Tables::All), Err(Error::NotADatabase { .. })));
    let utf16 = Connection::open(at("utf16.db")).unwrap();
    utf16.execute_batch("PRAGMA encoding='UTF-16'; CREATE TABLE t(a)").unwrap();
    assert!(matches!(open(&at("utf16.db"), Tables::All), Err(Error::Utf16 { .. })));
    std::fs::create_dir(at("folder.db")).unwrap();
    assert!(matches!(open(&at("folder.db"), Tables::All), Err(Error::NotADatabase { .. })));
    std::fs::write(at("empty.db"), "").unwrap();
    open(&at("empty.db"), Tables::All).unwrap().install().unwrap();
    for name in ["missing", "text", "utf16", "folder"] {
        assert!(!at(name).with_extension("log").exists(), "no log is made for {name}");
    }
    std::fs::write(at("log"), "this is not a database either, and longer than a header ".repeat(50)).unwrap();
    assert!(matches!(Log::open(at("log"), &id(), &clock()), Err(Error::Damaged { .. })));
}

#[test]
fn a_read_only_file_is_not_writable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE good(a)").unwrap();
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
        eprintln!("permissions do not bind this user: nothing is proved here");
        return;
    }
    assert!(matches!(open(&path, Tables::All), Err(Error::NotWritable { .. })));
}

#[test]
fn tables_that_cannot_be_captured_are_named_and_nothing_is_installed() {
    let columns = |count: usize| (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let wide = format!("CREATE TABLE bad({})", columns(1990));
    for (sql, table, why) in [
        ("CREATE VIEW bad AS SELECT 1", "bad", "view"),
        ("CREATE VIRTUAL TABLE bad USING fts5(a)", "bad", "virtual"),
        ("CREATE VIRTUAL TABLE bad USING fts5(a)", "bad_content", "shadow"),
        (&wide, "bad", "1989"),
        ("CREATE TABLE bad(rowid, _rowid_, oid)", "bad", "hide the row id"),
        ("CREATE TABLE bad(a INTEGER PRIMARY KEY AUTOINCREMENT)", "sqlite_sequence", "SQLite itself"),
    ] {
        let folder = folder();
        let path = folder.path().join("app.db");
        Connection::open(&path).unwrap().execute_batch(&format!("CREATE TABLE good(a); {sql}")).unwrap();
        let before = schema(&path);
        let mut attached = open(&path, named(table)).unwrap();
        let refused = attached.install();
        let reason = match &refused {
            Err(Error::UnsupportedTable { reason, .. }) => *reason,
            other => panic!("{sql}: {other:?}"),
        };
        assert!(reason.contains(why), "{reason}");
        attached.look().unwrap_err();
        assert_eq!(schema(&path), before, "{sql}");
        // Under `All` it is left out, with the reason, and the others are captured.
        let mut attached = open(&path, Tables::All).unwrap();
        let installed = attached.install().unwrap().installed;
        assert!(installed.tables.contains(&"good".to_owned()));
        if table == "bad" && !sql.contains("VIEW") && !sql.contains("VIRTUAL") {
            assert_eq!(installed.left_out.len(), 1, "{sql}");
            assert!(installed.left_out[0].1.contains(why));
        }
        assert!(!installed.tables.contains(&table.to_owned()));
    }
}

#[test]
fn the_widest_table_is_captured() {
    for count in [1988, 1989] {
        let folder = folder();
        let path = folder.path().join("app.db");
        let columns = (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(
            &format!("CREATE TABLE wide({columns}); INSERT INTO wide(c0, c1988) VALUES (1, 2)")
                .replace(", c1988)", if count == 1989 { ", c1988)" } else { ", c1987)" }),
        )
        .unwrap();
        let mut attached = open(&path, Tables::All).unwrap();
        attached.install().unwrap();
        app.execute_batch(
            "UPDATE wide SET c5 = 7; INSERT INTO wide(c1) VALUES (3); DELETE FROM wide WHERE c1 = 3",
        )
        .unwrap();
        while attached.look().unwrap().drained.more {}
        let (verified, fold) = attached.log().verify().unwrap();
        assert_eq!((verified.records, verified.broken_chains), (5, 0));
        assert_eq!(attached.compare_rows(&fold).unwrap(), None);
    }
}

#[test]
fn an_unknown_table_is_told_with_the_known_ones() {
    let folder = folder();
    let path = folder.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE good(a); CREATE TABLE \"Ünï\"(a)").unwrap();
    let before = schema(&path);
    let refused = open(&path, named("goood")).unwrap().install().unwrap_err();
    assert_eq!(refused.to_string(), "there is no table \"goood\"; the tables are: good, Ünï");
    assert_eq!(schema(&path), before);
}

#[test]
fn a_database_has_one_object_and_one_log() {
    let folder = folder();
    let path = folder.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE good(a)").unwrap();
    let mut first = open(&path, Tables::All).unwrap();
    first.install().unwrap();
    let before = schema(&path);
    let other: cdc_model::ObjectId = "https://crm.headless.ly/other".parse().unwrap();
    let another = Attached::open(&path, &folder.path().join("a.log"), &other, Tables::All, &clock());
    assert!(matches!(another, Err(Error::AnotherObject { found, .. }) if found == id().as_str()));
    let elsewhere = Attached::open(&path, &folder.path().join("b.log"), &id(), Tables::All, &clock());
    assert!(matches!(&elsewhere, Err(Error::DrainedElsewhere { .. })), "{elsewhere:?}");
    let mine = Log::open(first.log().path(), &other, &clock());
    assert!(matches!(mine, Err(Error::AnotherObject { .. })));
    assert_eq!(schema(&path), before);
    first.detach().unwrap();
    assert_eq!(schema(&path).len(), 1, "nothing of ours is left");
    Attached::open(&path, &folder.path().join("b.log"), &id(), Tables::All, &clock())
        .unwrap()
        .install()
        .unwrap();
    assert!(matches!(first.look(), Err(Error::DrainedElsewhere { .. })));
}

#[test]
fn a_log_that_is_older_than_a_trim_stops_and_says_so() {
    let folder = folder();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE good(a)").unwrap();
    let mut attached = open(&path, Tables::All).unwrap();
    attached.install().unwrap();
    while attached.look().unwrap().drained.more {}
    let log = attached.log().path().to_owned();
    drop(attached);
    let old = std::fs::read(&log).unwrap();
    let mut attached = open(&path, Tables::All).unwrap();
    for n in 0..400 {
        app.execute("INSERT INTO good VALUES (?1)", [n]).unwrap();
    }
    attached.look().unwrap();
    let count = |app: &Connection| {
        app.query_row("SELECT count(*) FROM _cdc_capture", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert!(attached.trim().unwrap().rows() > 0);
    assert_eq!(count(&app), 1, "the row at the mark stays");
    assert_eq!(attached.trim().unwrap().rows(), 0);
    drop(attached);
    std::fs::write(&log, old).unwrap();
    let mut attached = open(&path, Tables::All).unwrap();
    let before = attached.log().tail();
    for _ in 0..2 {
        let rewound = attached.look();
        assert!(
            matches!(&rewound, Err(Error::LogRewound { mark: 2, oldest, .. }) if *oldest > 400),
            "{rewound:?}"
        );
        assert_eq!(attached.log().tail(), before);
    }
}
