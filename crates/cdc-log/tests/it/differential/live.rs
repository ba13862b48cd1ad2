//! The tables as they are, read without the code under test.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::time::Duration;

use cdc_model::ValueRef;
use rusqlite::{Connection, ErrorCode};

use super::world::{Difference, Kind};
use crate::tables::{Table, quoted};
use crate::witness::difference;

/// How many rows each table holds, and the sum of their hashes; none of an empty table.
pub(crate) type Sums = BTreeMap<String, (u64, u64)>;

/// A connection that reads, and what it knows of the schema.
pub(crate) struct Live {
    reader: Connection,
    schema: Option<i64>,
    pub(crate) tables: Vec<Table>,
    /// The triggers of capture.
    pub(crate) ours: Vec<String>,
    /// The triggers of the application.
    pub(crate) theirs: Vec<String>,
    /// How each table is read, and the hashes of its columns' names.
    selects: Vec<(String, Vec<u64>)>,
    pub(crate) rows_read: u64,
}

impl Live {
    pub(crate) fn open(path: &Path) -> Self {
        let reader = Connection::open(path).unwrap();
        reader.set_prepared_statement_cache_capacity(64);
        reader.busy_timeout(Duration::ZERO).unwrap();
        Self {
            reader,
            schema: None,
            tables: vec![],
            ours: vec![],
            theirs: vec![],
            selects: vec![],
            rows_read: 0,
        }
    }

    /// Whether a writer keeps readers out: it waits for them to leave, to commit in a rollback journal's mode.
    pub(crate) fn is_kept_out(&self) -> bool {
        let read =
            self.reader.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, u64>(0));
        read.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }

    /// Reads the schema anew when it has changed.
    pub(crate) fn read_schema(&mut self) {
        let schema = self.reader.query_row("PRAGMA schema_version", [], |row| row.get(0)).unwrap();
        if self.schema == Some(schema) {
            return;
        }
        self.schema = Some(schema);
        self.reader.flush_prepared_statement_cache();
        let strings = |sql: &str| -> Vec<String> {
            let mut statement = self.reader.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let names = strings(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             AND name NOT LIKE '\\_cdc\\_%' ESCAPE '\\' ORDER BY name",
        );
        self.ours = strings(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '\\_cdc\\_%' ESCAPE '\\'",
        );
        self.theirs = strings(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name NOT LIKE '\\_cdc\\_%' ESCAPE '\\'",
        );
        self.tables = names.iter().map(|name| Table::read(&self.reader, name)).collect();
        let select = |name: &String| {
            let select = format!("SELECT * FROM {}", quoted(name));
            let columns = self.reader.prepare(&select).unwrap().column_names().map(hash_name).collect();
            (select, columns)
        };
        self.selects = names.iter().map(select).collect();
    }

    /// What the tables hold.
    pub(crate) fn rows(&mut self) -> Sums {
        let mut live = Sums::new();
        for (table, (select, columns)) in self.tables.iter().zip(&self.selects) {
            let mut statement = self.reader.prepare_cached(select).unwrap();
            let mut rows = statement.query([]).unwrap();
            let (mut count, mut sum) = (0_u64, 0_u64);
            while let Some(row) = rows.next().unwrap() {
                let mut hasher = DefaultHasher::new();
                for (at, column) in columns.iter().enumerate() {
                    hash_value(&mut hasher, *column, &live_value(row.get_ref(at).unwrap()));
                }
                count += 1;
                sum = sum.wrapping_add(hasher.finish());
            }
            self.rows_read += count;
            if count > 0 {
                live.insert(table.name.clone(), (count, sum));
            }
        }
        live
    }

    /// Compares tables and fold value by value.
    pub(crate) fn compare(&self, fold: &cdc_model::Fold, folded: &Sums) -> Result<(), Difference> {
        for table in &self.tables {
            if let Some(what) = difference(&self.reader, fold, &table.name) {
                return Err(Difference::new(Kind::Rows, what));
            }
        }
        let gone = |collection: &&String| !self.tables.iter().any(|table| table.name == **collection);
        match folded.keys().find(gone) {
            Some(gone) => Err(Difference::new(Kind::Rows, format!("{gone} is gone, its documents are not"))),
            None => Ok(()),
        }
    }
}

pub(crate) fn hash_name(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Adds a value of a column to the hash of a row: with its type, to the bit.
pub(crate) fn hash_value(hasher: &mut DefaultHasher, column: u64, value: &ValueRef<'_>) {
    hasher.write_u64(column);
    match value {
        ValueRef::Null => hasher.write_u8(0),
        ValueRef::Integer(i) => {
            hasher.write_u8(1);
            hasher.write_i64(*i);
        }
        ValueRef::Real(r) => {
            hasher.write_u8(2);
            hasher.write_u64(r.to_bits());
        }
        ValueRef::Text(bytes) => {
            hasher.write_u8(3);
            bytes.hash(hasher);
        }
        ValueRef::Blob(bytes) => {
            hasher.write_u8(4);
            bytes.hash(hasher);
        }
    }
}

fn live_value(value: rusqlite::types::ValueRef<'_>) -> ValueRef<'_> {
    use rusqlite::types::ValueRef as Sqlite;
    match value {
        Sqlite::Null => ValueRef::Null,
        Sqlite::Integer(i) => ValueRef::Integer(i),
        Sqlite::Real(r) => ValueRef::Real(r),
        Sqlite::Text(t) => ValueRef::Text(t),
        Sqlite::Blob(b) => ValueRef::Blob(b),
    }
}
