//! The bare side of the log: the same table, filled and read with plain rusqlite.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::workload::placeholders;
use crate::{Result, workload};

/// How the log opens its files: WAL, 4 KiB pages, a checkpoint every 256 pages, each commit on the disk.
const PRAGMAS: &str = "PRAGMA page_size = 4096; PRAGMA journal_mode = wal; \
                       PRAGMA wal_autocheckpoint = 256; PRAGMA synchronous = full;";

const TABLE: &str = "CREATE TABLE _cdc_log(sequence INTEGER PRIMARY KEY, timestamp, origin, origin_sequence, \
                     origin_timestamp, capture, nonce, digest, body)";

/// The nine values of one row of the log.
pub(crate) type StoredRow = Vec<Value>;

pub(crate) const COLUMNS: usize = 9;

/// A table like the log's in a file of its own.
#[derive(Debug)]
pub(crate) struct BareLog {
    conn: Connection,
    insert: String,
}

impl BareLog {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let conn = Connection::open(path)?;
        conn.execute_batch(PRAGMAS)?;
        conn.execute_batch(TABLE)?;
        let insert = format!("INSERT INTO _cdc_log VALUES ({})", placeholders(COLUMNS));
        Ok(Self { conn, insert })
    }

    /// Inserts rows with one statement in transactions of so many.
    pub(crate) fn insert(&self, rows: &[StoredRow], per_transaction: usize) -> Result<u32> {
        for rows in rows.chunks(per_transaction.max(1)) {
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let mut statement = self.conn.prepare_cached(&self.insert)?;
            for row in rows {
                statement.execute(params_from_iter(row))?;
            }
            self.conn.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(u32::try_from(rows.len())?)
    }
}

/// The newest `count` rows of a log's file, as stored, oldest first.
pub(crate) fn newest(path: &Path, count: u32) -> Result<Vec<StoredRow>> {
    let conn = Connection::open(path)?;
    let sql =
        "SELECT * FROM _cdc_log WHERE sequence > (SELECT max(sequence) FROM _cdc_log) - ?1 ORDER BY sequence";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([count], |row| (0..COLUMNS).map(|at| row.get(at)).collect())?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The same rows under the sequences after `last`, which moves on.
pub(crate) fn renumbered(mut rows: Vec<StoredRow>, last: &mut i64) -> Vec<StoredRow> {
    for row in &mut rows {
        *last += 1;
        if let Some(sequence) = row.first_mut() {
            *sequence = Value::Integer(*last);
        }
    }
    rows
}

/// The row as the log stores it; `origin` is the number it has given to the origin of a forwarded event.
pub(crate) fn row_of(
    record: &cdc_model::Record,
    origin: Option<i64>,
    digest: cdc_model::Digest,
    at_an_end: bool,
) -> StoredRow {
    let forwarded = |value: i64| origin.map_or(Value::Null, |_| Value::Integer(value));
    let kept = at_an_end || record.sequence.get().is_multiple_of(64);
    vec![
        Value::Integer(record.sequence.as_i64()),
        Value::Integer(workload::time_of(record.sequence).get()),
        origin.map_or(Value::Null, Value::Integer),
        forwarded(record.origin_sequence.as_i64()),
        forwarded(record.origin_timestamp.get()),
        Value::Null,
        Value::Null,
        if kept { Value::Blob(digest.as_bytes().to_vec()) } else { Value::Null },
        Value::Text(record.body.as_str().to_owned()),
    ]
}
