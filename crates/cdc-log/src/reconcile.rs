//! What capture could not see: the log is brought to agree with the tables by `reconciled` events.

use std::collections::{BTreeMap, BTreeSet};

use cdc_model::{Body, Content, Fold, Operation, Sequence, Tag, Timestamp};
use rusqlite::Connection;

use crate::Result;
use crate::capture::{self, CapturedTable, quoted, reconciled};
use crate::log::Limit;
use crate::transaction::{CaptureRow, LogTransaction};

/// The documents that the object's own events add up to.
pub(crate) fn fold_own(log: &LogTransaction<'_>) -> Result<Fold> {
    let mut fold = Fold::new();
    own_records(log, Sequence::ZERO, |record| {
        fold.apply(record)?;
        Ok(())
    })?;
    Ok(fold)
}

fn own_records(
    log: &LogTransaction<'_>,
    after: Sequence,
    mut visit: impl FnMut(&cdc_model::Record) -> Result<()>,
) -> Result<()> {
    let mut after = after.max(Sequence::new(log.log().floor()?.get().saturating_sub(1)));
    while after < log.tail().sequence {
        let records = log.read(after, Limit::default())?;
        for record in records.iter().filter(|record| record.is_own()) {
            visit(record)?;
        }
        after = records.last().map_or(log.tail().sequence, |record| record.sequence);
    }
    Ok(())
}

/// Before a captured change is appended whose `before` is not what the log has, appends the change that was
/// missed in between.
pub(crate) fn mend_chain(
    log: &mut LogTransaction<'_>,
    fold: &mut Fold,
    at: Timestamp,
    body: &Body,
) -> Result<u64> {
    let Content::Change(change) = body.content()? else {
        return Ok(0);
    };
    let folded =
        fold.get(log.id(), &change.collection, &change.document_id).map(|document| document.json.clone());
    let before = change.full_before()?;
    let missed = reconciled(&change.collection, &change.document_id, folded.as_deref(), before.as_deref())?;
    let Some(missed) = missed else { return Ok(0) };
    let record = log.append_captured(at, missed, Some(CaptureRow::FOUND))?;
    fold.apply(&record)?;
    Ok(1)
}

/// Compares every captured table with the fold and appends what differs. Gives the number of events.
pub(crate) fn compare(user: &Connection, log: &mut LogTransaction<'_>, fold: &mut Fold) -> Result<u64> {
    let now = log.now();
    let current = capture::current(user)?;
    let mut found = Vec::new();
    for table in current.values() {
        let collection = table.shape.table.as_str();
        let mut seen = BTreeSet::new();
        live_rows(user, table, |document_id, json| {
            let folded = fold.get(log.id(), collection, &document_id).map(|document| document.json.as_str());
            found.extend(reconciled(collection, &document_id, folded, Some(&json))?);
            seen.insert(document_id);
            Ok(())
        })?;
        gone(log, fold, collection, |id| !seen.contains(id), &mut found)?;
    }
    let existing = capture::existing(user)?;
    for collection in capture::known(log.conn())?.keys().filter(|collection| !existing.contains(*collection))
    {
        gone(log, fold, collection, |_| true, &mut found)?;
    }
    let count = u64::try_from(found.len()).unwrap_or(u64::MAX);
    for body in found {
        let record = log.append_captured(now, body, Some(CaptureRow::FOUND))?;
        fold.apply(&record)?;
    }
    Ok(count)
}

/// Adds the deletion of every folded document that is gone from the table.
fn gone(
    log: &LogTransaction<'_>,
    fold: &Fold,
    collection: &str,
    is_gone: impl Fn(&str) -> bool,
    found: &mut Vec<Body>,
) -> Result<()> {
    for (id, document) in fold.collection(log.id(), collection).filter(|(id, _)| is_gone(id)) {
        found.extend(reconciled(collection, id, Some(&document.json), None)?);
    }
    Ok(())
}

/// Visits every row of a table as capture would render it: document id and JSON.
pub(crate) fn live_rows(
    user: &Connection,
    table: &CapturedTable,
    mut visit: impl FnMut(String, String) -> Result<()>,
) -> Result<()> {
    let shape = &table.shape;
    let columns = shape.values("_cdc_t.").join(", ");
    let mut statement = user.prepare(&format!("SELECT {columns} FROM {} AS _cdc_t", quoted(&shape.table)))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let values = capture::values(row, 0, shape.width())?;
        visit(shape.document_id(&values), shape.document(&values))?;
    }
    Ok(())
}

/// One document in the part of the log that is undone.
struct Undone {
    /// Its state where the undone part begins.
    first: Option<String>,
    /// Its state where it ends.
    last: Option<String>,
}

/// Undoes the captured events after `fork`, document by document, from their own before-images. `None` when
/// a schema change or something that a comparison found lies in between: then only a comparison can tell, because
/// nobody knows whether what was found had happened before the fork or after it.
pub(crate) fn undo(log: &mut LogTransaction<'_>, fork: Sequence) -> Result<Option<u64>> {
    let found = "SELECT EXISTS(SELECT 1 FROM _cdc_log WHERE sequence > ?1 AND capture = 0)";
    if log.conn().query_row(found, [fork.as_i64()], |row| row.get(0))? {
        return Ok(None);
    }
    let mut documents: BTreeMap<(String, String), Undone> = BTreeMap::new();
    let mut schema_changed = false;
    own_records(log, fork, |record| {
        let Content::Change(change) = record.body.content()? else {
            schema_changed = true;
            return Ok(());
        };
        if change.schema_version.is_none() && change.tag != Some(Tag::Reconciled) {
            // Emitted here or made by a stage: not from the database that was replaced.
            return Ok(());
        }
        let before = change.full_before()?;
        let after =
            (change.operation != Operation::Delete).then(|| change.after.map(|after| after.get().to_owned()));
        let key = (change.collection.clone().into_owned(), change.document_id.clone().into_owned());
        let document = documents
            .entry(key)
            .or_insert_with(|| Undone { first: before.map(std::borrow::Cow::into_owned), last: None });
        document.last = after.flatten();
        Ok(())
    })?;
    if schema_changed {
        return Ok(None);
    }
    let now = log.now();
    let mut count = 0;
    for ((collection, id), Undone { first, last }) in documents {
        if let Some(body) = reconciled(&collection, &id, last.as_deref(), first.as_deref())? {
            log.append(now, body)?;
            count += 1;
        }
    }
    Ok(Some(count))
}

/// The newest capture row that both the log and the database know: its place in both.
///
/// The rows that a database holds and the log knows are the beginning of what it holds, so that the newest record
/// tells.
pub(crate) fn fork_point(
    user: &Connection,
    log: &LogTransaction<'_>,
) -> Result<Option<(CaptureRow, Sequence)>> {
    let mut retained =
        user.prepare("SELECT EXISTS(SELECT 1 FROM _cdc_capture WHERE seq = ?1 AND nonce = ?2)")?;
    let mut known = log
        .conn()
        .prepare("SELECT capture, nonce, sequence FROM _cdc_log WHERE capture > 0 ORDER BY sequence DESC")?;
    let mut rows = known.query([])?;
    while let Some(row) = rows.next()? {
        let row = (CaptureRow { seq: row.get(0)?, nonce: row.get(1)? }, Sequence::checked(row.get(2)?));
        if retained.query_row([row.0.seq, row.0.nonce], |row| row.get(0))? {
            return Ok(Some((row.0, row.1.unwrap_or_default())));
        }
    }
    Ok(None)
}
