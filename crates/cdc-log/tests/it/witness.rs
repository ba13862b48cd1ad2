//! Checks a log against live tables with eyes of its own: not with the code under test.

use std::collections::BTreeMap;
use std::path::Path;

use cdc_log::{Attached, Limit, Log, Tables};
use cdc_model::{Clock, Fold, ObjectId, Sequence, Tag, Value, ValueRef, row_from_json};
use rusqlite::Connection;

pub(crate) fn id() -> ObjectId {
    "https://crm.headless.ly/acme".parse().unwrap()
}

pub(crate) fn clock() -> Clock {
    Clock::system()
}

/// A folder in memory where there is one: most tests make thousands of small commits.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Whether events found by comparison may be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconciled {
    Never,
    Allowed,
}

/// Folds a log as it grows and stops at the first event that does not continue its document's history.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) fold: Fold,
    pub(crate) after: Sequence,
    pub(crate) reconciled: u64,
}

impl Follower {
    pub(crate) fn follow(&mut self, log: &Log, allowed: Reconciled) {
        loop {
            let records = log.read(self.after, Limit::default()).unwrap();
            let Some(last) = records.last() else { return };
            self.after = last.sequence;
            for record in &records {
                let broken = self.fold.apply(record).unwrap();
                assert!(broken.is_none(), "{:?} at {} {}", broken, record.sequence, record.body);
                let change = record.body.change().unwrap();
                if change.is_some_and(|change| change.tag == Some(Tag::Reconciled)) {
                    self.reconciled += 1;
                    assert_eq!(allowed, Reconciled::Allowed, "{}", record.body);
                }
            }
        }
    }
}

fn rendered(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::Real(real) => format!("Real {:016x}", real.to_bits()),
        other => format!("{other:?}"),
    }
}

fn live_value(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef as Sqlite;
    rendered(&match value {
        Sqlite::Null => ValueRef::Null,
        Sqlite::Integer(i) => ValueRef::Integer(i),
        Sqlite::Real(r) => ValueRef::Real(r),
        Sqlite::Text(t) => ValueRef::Text(t),
        Sqlite::Blob(b) => ValueRef::Blob(b),
    })
}

type Rows = BTreeMap<String, u64>;

/// The rows of a table, value by value and type by type, with how often each occurs.
pub(crate) fn live_rows(conn: &Connection, table: &str) -> Rows {
    let mut statement = conn.prepare(&format!("SELECT * FROM {}", crate::tables::quoted(table))).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).unwrap();
    let mut found = Rows::new();
    while let Some(row) = rows.next().unwrap() {
        let mut text = String::new();
        for (at, name) in names.iter().enumerate() {
            text.push_str(&format!("{name}={};", live_value(row.get_ref(at).unwrap())));
        }
        *found.entry(text).or_default() += 1;
    }
    found
}

fn folded_rows(fold: &Fold, table: &str) -> Rows {
    let mut found = Rows::new();
    for (_, document) in fold.collection(&id(), table) {
        let raw = serde_json::value::RawValue::from_string(document.json.clone()).unwrap();
        let mut text = String::new();
        for (name, value) in row_from_json(&raw).unwrap() {
            assert!(!matches!(value, Value::Omitted { .. }), "{table}");
            text.push_str(&format!("{name}={};", rendered(&value.as_ref().unwrap())));
        }
        *found.entry(text).or_default() += 1;
    }
    found
}

/// The fold is exactly what the table holds.
#[track_caller]
pub(crate) fn assert_agrees(conn: &Connection, fold: &Fold, table: &str) {
    if let Some(difference) = difference(conn, fold, table) {
        panic!("{difference}");
    }
}

/// In which rows the fold is not what the table holds.
pub(crate) fn difference(conn: &Connection, fold: &Fold, table: &str) -> Option<String> {
    let (live, folded) = (live_rows(conn, table), folded_rows(fold, table));
    let only = |a: &Rows, b: &Rows| {
        a.iter()
            .filter(|(row, n)| b.get(*row) != Some(n))
            .map(|(row, n)| format!("{n} x {row}"))
            .collect::<Vec<_>>()
    };
    let (only_live, only_folded) = (only(&live, &folded), only(&folded, &live));
    (live != folded)
        .then(|| format!("table {table}\nonly live: {only_live:#?}\nonly folded: {only_folded:#?}"))
}

/// An application's database in WAL mode with this schema, attached, what was there drained.
pub(crate) fn attach(folder: &Path, schema: &str) -> (Connection, Attached) {
    let path = folder.join("app.db");
    let app = Connection::open(&path).unwrap();
    app.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).unwrap();
    app.execute_batch(schema).unwrap();
    let mut attached = Attached::open(&path, &folder.join("log"), &id(), Tables::All, &clock()).unwrap();
    attached.install().unwrap();
    while attached.look().unwrap().drained.more {}
    (app, attached)
}
