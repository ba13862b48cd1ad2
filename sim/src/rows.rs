//! Reads what lies in an object's file, for the checkers: by SQL and JSON only, through a connection of its own.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::types::Value as Sqlite;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde_json::{Map, Value};

use crate::documents::{Documents, Fact, rendered};
use crate::failure::{Broken, ensure};
use crate::host::RETURNER;
use crate::workload::TABLES;

/// One row of a log.
#[derive(Clone, Debug)]
pub(crate) struct LogRow {
    pub(crate) sequence: u64,
    /// Its origin's number in `_cdc_origin`, and its place there; `None` for the object's own.
    pub(crate) origin: Option<(i64, u64)>,
    /// When the event happened.
    pub(crate) timestamp: i64,
    /// When it was appended here.
    pub(crate) appended: i64,
    pub(crate) body: String,
}

/// Opens a log for reading along.
pub(crate) fn open(path: &Path) -> Result<Connection, Broken> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

/// Opens an application's database for reading.
pub(crate) fn open_foreign(path: &Path) -> Result<Connection, Broken> {
    // Reading a WAL takes the right to write.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

/// The oldest and the newest row that capture has, if it has any.
pub(crate) fn captured(file: &Connection) -> Result<Option<(i64, i64)>, Broken> {
    let sql = "SELECT min(seq), max(seq) FROM _cdc_capture";
    let rows: (Option<i64>, Option<i64>) = file.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.0.zip(rows.1))
}

/// The rows of a log after `after`.
pub(crate) fn log(file: &Connection, after: u64) -> Result<Vec<LogRow>, Broken> {
    let sql = "SELECT sequence, origin, origin_sequence, coalesce(origin_timestamp, timestamp), body, timestamp \
               FROM _cdc_log \
               WHERE sequence > ?1 ORDER BY sequence";
    let mut statement = file.prepare_cached(sql)?;
    let rows = statement.query_map([after], |row| {
        let origin: Option<i64> = row.get(1)?;
        let origin = origin.map(|origin| Ok::<_, rusqlite::Error>((origin, row.get(2)?))).transpose()?;
        Ok(LogRow {
            sequence: row.get(0)?,
            origin,
            timestamp: row.get(3)?,
            body: row.get(4)?,
            appended: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The nonce of a log's epoch, once it has one.
pub(crate) fn nonce(file: &Connection) -> Result<Option<String>, Broken> {
    let sql = "SELECT substr(value, instr(value, '-') + 1) FROM _cdc_meta WHERE key = 'epoch'";
    Ok(file.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?)
}

/// Where a log ends.
pub(crate) fn tail(file: &Connection) -> Result<u64, Broken> {
    let sql = "SELECT coalesce(max(sequence), 0) FROM _cdc_log";
    Ok(file.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Source and route of an origin.
pub(crate) fn origin(file: &Connection, number: i64) -> Result<(String, String), Broken> {
    let sql = "SELECT source, route FROM _cdc_origin WHERE id = ?1";
    Ok(file.prepare_cached(sql)?.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// The marks a parent keeps of its children's links.
pub(crate) fn marks(file: &Connection) -> Result<Vec<(String, u64)>, Broken> {
    let sql = "SELECT child, coalesce(sequence, 0) FROM _cdc_link ORDER BY child";
    let mut statement = file.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Up to where a log says it holds an origin, by whichever way its events came.
pub(crate) fn origin_mark(file: &Connection, source: &str) -> Result<u64, Broken> {
    let sql = "SELECT coalesce(max(sequence), 0) FROM _cdc_origin_mark WHERE source = ?1";
    Ok(file.prepare_cached(sql)?.query_row([source], |row| row.get(0))?)
}

/// The mark a parent keeps of one child's link.
pub(crate) fn mark(file: &Connection, child: &str) -> Result<u64, Broken> {
    let sql = "SELECT coalesce(max(sequence), 0) FROM _cdc_link WHERE child = ?1";
    Ok(file.prepare_cached(sql)?.query_row([child], |row| row.get(0))?)
}

/// What a child has stored of its link: up to where it believes its parent holds everything.
pub(crate) fn acked(file: &Connection) -> Result<u64, Broken> {
    let sql = "SELECT value FROM _cdc_stage WHERE stage = '@uplink'";
    let stored: Option<String> = file.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    let Some(stored) = stored else { return Ok(0) };
    let stored: Value = serde_json::from_str(&stored)?;
    let acked = stored.get("acked").and_then(|acked| acked.get("sequence"));
    Ok(acked.and_then(|at| at.as_u64().or_else(|| at.as_str()?.parse().ok())).unwrap_or_default())
}

/// What a consumer's effects say it has seen: its own sequences, and how many there are of each.
pub(crate) fn effects(file: &Connection) -> Result<(u64, u64, u64), Broken> {
    let sql = "SELECT count(*), count(DISTINCT sequence), coalesce(max(sequence), 0) FROM effects";
    Ok(file.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
}

/// A subscriber's checkpoint.
pub(crate) fn checkpoint(file: &Connection, subscriber: &str) -> Result<u64, Broken> {
    let sql = "SELECT sequence FROM _cdc_checkpoint WHERE subscriber = ?1";
    Ok(file.prepare_cached(sql)?.query_row([subscriber], |row| row.get(0)).optional()?.unwrap_or_default())
}

/// The oldest row of a log.
pub(crate) fn floor(file: &Connection) -> Result<u64, Broken> {
    let sql = "SELECT value FROM _cdc_meta WHERE key = 'floor'";
    Ok(file.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(1))
}

/// How far the last of those has come who save checkpoints, but for who comes back when rows may be gone already.
pub(crate) fn last_subscriber(file: &Connection) -> Result<Option<u64>, Broken> {
    let sql = "SELECT min(sequence) FROM _cdc_checkpoint WHERE subscriber <> ?1";
    Ok(file.prepare_cached(sql)?.query_row([RETURNER], |row| row.get(0))?)
}

/// A counter of the log.
pub(crate) fn counter(file: &Connection, name: &str) -> Result<u64, Broken> {
    let sql = "SELECT value FROM _cdc_counter WHERE name = ?1";
    Ok(file.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?.unwrap_or_default())
}

/// The rows that a stage rejected: their places, what they say and when that happened. A row that is neither in the log
/// nor kept apart is none.
pub(crate) fn dead_letters(file: &Connection) -> Result<Vec<(u64, String, i64)>, Broken> {
    let sql = "SELECT letter.sequence, coalesce(row.body, parked.body), \
               coalesce(row.origin_timestamp, parked.origin_timestamp) FROM _cdc_dead_letter letter \
               LEFT JOIN _cdc_log row ON row.sequence = letter.sequence \
               LEFT JOIN _cdc_parked parked ON parked.sequence = letter.sequence ORDER BY letter.sequence";
    let mut statement = file.prepare_cached(sql)?;
    let letters = statement.query_map([], |row| {
        let (body, timestamp): (Option<String>, Option<i64>) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, body.unwrap_or_default(), timestamp.unwrap_or_default()))
    })?;
    Ok(letters.collect::<rusqlite::Result<_>>()?)
}

/// What the workload's tables hold.
pub(crate) fn live(file: &Connection) -> Result<Documents, Broken> {
    let mut documents = Documents::default();
    for table in TABLES {
        let mut statement = file.prepare_cached(&format!("SELECT * FROM {table}"))?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut document = Map::new();
            for (at, name) in names.iter().enumerate() {
                document.insert(name.clone(), rendered(&row.get::<_, Sqlite>(at)?));
            }
            let key = names.first().and_then(|key| document.get(key)).cloned().unwrap_or_default();
            let id = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            documents.set(table, &id, Some(Value::Object(document)));
        }
    }
    Ok(documents)
}

/// What a row with this body says.
pub(crate) fn fact(stored: &str) -> Result<Fact, Broken> {
    const PROMISE: &str = "a row says what happened";
    let mut body: Map<String, Value> = serde_json::from_str(stored)?;
    if let Some(schema) = body.get("schema") {
        let changes = schema.get("changes").and_then(Value::as_array).cloned().unwrap_or_default();
        return Ok(Fact::Schema { collection: text(schema.get("collection")), changes });
    }
    let (before, was) = (body.remove("before"), body.remove("was"));
    let after = body.remove("after");
    let before = match (was, &after) {
        (Some(Value::Object(was)), Some(Value::Object(after))) => {
            Some(Value::Object(after.clone().into_iter().chain(was).collect()))
        }
        _ => before,
    };
    let operation = match (&before, &after) {
        (None, _) => "INSERT",
        (Some(_), Some(_)) => "UPDATE",
        (Some(_), None) => "DELETE",
    };
    ensure(body.get("operation").is_some_and(|said| said == operation), PROMISE, || stored.to_owned())?;
    let said = body.get("changedFields").cloned();
    let changed = changed(before.as_ref(), after.as_ref());
    ensure(said == changed, PROMISE, || format!("{stored}: {changed:?} changed"))?;
    let (collection, document) = (text(body.get("collection")), text(body.get("documentId")));
    Ok(Fact::Change { collection, document, before, after })
}

/// The members in which the states of an update differ. The documents of this world have no deeper ones.
fn changed(before: Option<&Value>, after: Option<&Value>) -> Option<Value> {
    let (before, after) = (before?.as_object()?, after?.as_object()?);
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let names = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    Some(names.map(|name| Value::from(name.as_str())).collect())
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}
