//! Which documents the object's captured events add up to: an index of the log, brought up to date when it is needed, so
//! that no append pays for it.

use cdc_model::{Body, Content, Operation, Record, SchemaChange, Sequence, Tag, mutant};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::read::Limit;
use crate::transaction::LogTransaction;
use crate::{Error, Log, Result, store};

/// The position through which the index covers the log.
const THROUGH: &str = "documents_through";

/// What is kept of the schema changes of a collection that changed its documents: `reshaped/` and its name.
const RESHAPED: &str = "reshaped/";

/// Rows of the log that one transaction takes into the index at most.
const CATCH_UP: Limit = Limit { records: 20_000, bytes: 8 << 20 };

/// Takes what was appended since into the index, a chunk at most. Gives whether it covers the whole log now.
pub(crate) fn catch_up(log: &LogTransaction<'_>) -> Result<bool> {
    let tail = log.tail().sequence;
    let from = through(log.conn())?;
    let floor = log.log().floor()?;
    let mut after = from.max(Sequence::new(floor.get().saturating_sub(1)));
    if after < tail {
        for record in log.read(after, CATCH_UP)? {
            apply(log.conn(), &record)?;
            after = record.sequence;
        }
    }
    if after > from {
        cover(log.conn(), after)?;
    }
    Ok(after >= tail)
}

/// The position through which the index covers the log.
pub(crate) fn through(log: &Connection) -> Result<Sequence> {
    Ok(store::meta(log, THROUGH)?.and_then(Sequence::checked).unwrap_or_default())
}

fn cover(log: &Connection, through: Sequence) -> Result<()> {
    store::put_meta(log, THROUGH, through.as_i64())
}

/// Takes a record that was just appended to a log that the index covered.
pub(crate) fn take(log: &LogTransaction<'_>, record: &Record) -> Result<()> {
    apply(log.conn(), record)?;
    cover(log.conn(), record.sequence)
}

fn apply(log: &Connection, record: &Record) -> Result<()> {
    if !record.is_own() {
        return Ok(());
    }
    let change = match record.body.content()? {
        Content::Change(change) => change,
        Content::Schema(schema) => return reshape(log, &schema, record.sequence),
        _ => return Ok(()),
    };
    if change.schema_version.is_none() && change.tag != Some(Tag::Reconciled) {
        // Emitted here or made by a stage: no row of a table.
        return Ok(());
    }
    let key = (change.collection.as_ref(), change.document_id.as_ref());
    if change.operation == Operation::Delete {
        log.prepare_cached("DELETE FROM _cdc_document WHERE collection = ?1 AND document = ?2")?
            .execute(params![key.0, key.1])?;
    } else {
        log.prepare_cached(
            "INSERT OR REPLACE INTO _cdc_document(collection, document, sequence) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![key.0, key.1, record.sequence.as_i64()])?;
    }
    Ok(())
}

/// The document's state as the log has it, where the index covers the log.
pub(crate) fn state(log: &Log, collection: &str, document: &str) -> Result<Option<String>> {
    let mut statement = log.conn.prepare_cached(
        "SELECT sequence, state, (SELECT body FROM _cdc_log WHERE sequence = d.sequence) \
         FROM _cdc_document AS d WHERE collection = ?1 AND document = ?2",
    )?;
    let found: Option<(i64, Option<String>, Option<String>)> = statement
        .query_row([collection, document], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((sequence, kept, body)) = found else { return Ok(None) };
    let sequence = Sequence::checked(sequence).unwrap_or_default();
    let missing = || log.corrupt(sequence, "a document's newest event is missing");
    let mut state = match (kept, body) {
        (Some(kept), _) => kept,
        (None, Some(body)) => after(&body)?.ok_or_else(missing)?,
        (None, None) => return Err(missing()),
    };
    for (at, schema) in reshaped(&log.conn, collection)? {
        if at > sequence.get() {
            state = schema.reshape(&state)?;
        }
    }
    Ok(Some(state))
}

/// Before rows up to `last` are pruned: keeps the state of every document whose newest event is among them, so that what
/// the rest of the log says can still be added to something.
pub(crate) fn keep_states(log: &LogTransaction<'_>, last: Sequence) -> Result<()> {
    let covered = through(log.conn())?;
    if covered < last {
        let records = usize::try_from(last.since(covered)).unwrap_or(usize::MAX);
        for record in log.read(covered, Limit { records, bytes: usize::MAX })? {
            apply(log.conn(), &record)?;
        }
        cover(log.conn(), last)?;
    }
    if mutant!("pruned-state-not-kept") {
        return Ok(());
    }
    let mut newest = log.conn().prepare_cached(
        "SELECT d.sequence, d.collection, d.document, l.body FROM _cdc_document AS d \
         JOIN _cdc_log AS l ON l.sequence = d.sequence WHERE d.state IS NULL AND d.sequence <= ?1",
    )?;
    let newest: rusqlite::Result<Vec<(i64, String, String, String)>> = newest
        .query_map([last.as_i64()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect();
    let mut keep = log
        .conn()
        .prepare_cached("UPDATE _cdc_document SET state = ?3 WHERE collection = ?1 AND document = ?2")?;
    for (sequence, collection, document, body) in newest? {
        let sequence = Sequence::checked(sequence).unwrap_or_default();
        let state = after(&body)?
            .ok_or_else(|| log.log().corrupt(sequence, "a document's newest event leaves nothing behind"))?;
        keep.execute(params![collection, document, state])?;
    }
    Ok(())
}

/// Visits the documents whose newest event is pruned, with their states as of where the index covers the log.
pub(crate) fn kept(log: &Log, mut visit: impl FnMut(&str, &str, Sequence, String)) -> Result<()> {
    let mut statement = log.conn.prepare_cached(
        "SELECT collection, document, sequence, state FROM _cdc_document WHERE state IS NOT NULL ORDER BY collection",
    )?;
    let mut rows = statement.query([])?;
    let mut changes = (String::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (collection, document): (String, String) = (row.get(0)?, row.get(1)?);
        let sequence = Sequence::checked(row.get(2)?).unwrap_or_default();
        let mut state: String = row.get(3)?;
        if changes.0 != collection {
            changes = (collection.clone(), reshaped(&log.conn, &collection)?);
        }
        for (_, schema) in changes.1.iter().filter(|(at, _)| *at > sequence.get()) {
            state = schema.reshape(&state)?;
        }
        visit(&collection, &document, sequence, state);
    }
    Ok(())
}

/// The state that an event leaves behind.
pub(crate) fn after(body: &str) -> Result<Option<String>> {
    let body = Body::from_stored(body);
    let change = body.change()?;
    Ok(change.and_then(|change| change.after).map(|after| after.get().to_owned()))
}

/// The ids of a collection's documents after `after`, in the order of their bytes.
pub(crate) fn ids(
    log: &Connection,
    collection: &str,
    after: Option<&str>,
    count: usize,
) -> Result<Vec<String>> {
    let sql = "SELECT document FROM _cdc_document WHERE collection = ?1 AND document > ?2 ORDER BY document LIMIT ?3";
    let first = "SELECT document FROM _cdc_document WHERE collection = ?1 ORDER BY document LIMIT ?2";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let ids: rusqlite::Result<_> = match after {
        Some(after) => {
            let mut statement = log.prepare_cached(sql)?;
            statement.query_map(params![collection, after, count], |row| row.get(0))?.collect()
        }
        None => {
            let mut statement = log.prepare_cached(first)?;
            statement.query_map(params![collection, count], |row| row.get(0))?.collect()
        }
    };
    Ok(ids?)
}

/// A table's new shape: what it did to the documents is done to each when its state is asked for.
fn reshape(log: &Connection, schema: &SchemaChange, at: Sequence) -> Result<()> {
    let mut changes = reshaped(log, &schema.collection)?;
    if let Some(old) = &schema.renamed_from {
        log.execute(
            "UPDATE OR REPLACE _cdc_document SET collection = ?1 WHERE collection = ?2",
            params![schema.collection, old],
        )?;
        changes = reshaped(log, old)?;
        log.execute("DELETE FROM _cdc_meta WHERE key = ?1", [format!("{RESHAPED}{old}")])?;
    }
    if !schema.changes.is_empty() {
        changes.push((at.get(), schema.clone()));
    }
    if changes.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string(&changes)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    store::put_meta(log, &format!("{RESHAPED}{}", schema.collection), text)
}

fn reshaped(log: &Connection, collection: &str) -> Result<Vec<(u64, SchemaChange)>> {
    let text: Option<String> = store::meta(log, &format!("{RESHAPED}{collection}"))?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    Ok(parsed
        .map_err(|error| {
            Error::from(rusqlite::Error::FromSqlConversionFailure(
                0,
                rusqlite::types::Type::Text,
                error.into(),
            ))
        })?
        .unwrap_or_default())
}
