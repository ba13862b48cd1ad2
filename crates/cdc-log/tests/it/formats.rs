//! The texts that lie in users' files: a change here is a change of format.

use cdc_log::Log;
use rusqlite::Connection;

use crate::witness::{attach, clock, folder, id};

fn texts(conn: &Connection, condition: &str) -> String {
    let sql = format!("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND {condition} ORDER BY rowid");
    let mut statement = conn.prepare(&sql).unwrap();
    let texts = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    texts.map(|text| text.unwrap() + ";\n").collect()
}

fn triggers(create: &str) -> String {
    let folder = folder();
    let (app, _attached) = attach(folder.path(), create);
    texts(&app, "type IN ('trigger', 'view') OR name LIKE '\\_cdc\\_stash%' ESCAPE '\\'")
}

#[test]
fn triggers_of_a_plain_table() {
    insta::assert_snapshot!(triggers("CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, tier TEXT)"));
}

#[test]
fn triggers_of_a_table_without_row_ids_whose_key_ignores_case() {
    insta::assert_snapshot!(triggers(
        "CREATE TABLE tags(owner INTEGER, tag TEXT COLLATE NOCASE, note, PRIMARY KEY(owner, tag)) WITHOUT ROWID"
    ));
}

#[test]
fn triggers_of_a_table_with_every_kind_of_unique_index() {
    insta::assert_snapshot!(triggers(
        "CREATE TABLE \"a\"\"b\"(email TEXT NOT NULL DEFAULT nobody UNIQUE, \"v0\" INT, n, g AS (n + 1) UNIQUE);
         CREATE UNIQUE INDEX e ON \"a\"\"b\"(lower(email), v0 DESC);
         CREATE UNIQUE INDEX p ON \"a\"\"b\"(n) WHERE v0 > 3;
         CREATE TRIGGER mine AFTER INSERT ON \"a\"\"b\" BEGIN SELECT 1; END"
    ));
}

#[test]
fn triggers_of_a_table_without_a_key_whose_columns_hide_the_row_id() {
    insta::assert_snapshot!(triggers("CREATE TABLE loose(rowid, oid)"));
}

#[test]
fn the_tables_of_a_log() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    log.write(|_| Ok(())).unwrap();
    insta::assert_snapshot!(texts(&Connection::open(&path).unwrap(), "1"));
}
