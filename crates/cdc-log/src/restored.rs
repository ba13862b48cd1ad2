//! An older copy of a database in its place: where its past parts from the log's, and the undoing of what came after.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cdc_model::{Content, Operation, Sequence, Tag};
use rusqlite::Connection;

use crate::Result;
use crate::capture::Found;
use crate::read::Limit;
use crate::transaction::{CaptureRow, LogTransaction};

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

/// One document in the part of the log that is undone.
struct Undone {
    /// Its state where the undone part begins.
    first: Option<String>,
    /// Its state where it ends.
    last: Option<String>,
    version: Option<u32>,
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
        let document = documents.entry(key).or_insert_with(|| Undone {
            first: before.map(Cow::into_owned),
            last: None,
            version: None,
        });
        (document.last, document.version) = (after.flatten(), change.schema_version);
        Ok(())
    })?;
    if schema_changed {
        return Ok(None);
    }
    let now = log.now();
    let mut count = 0;
    for ((collection, document_id), Undone { first, last, version }) in documents {
        let found =
            Found { collection: &collection, document_id: &document_id, version, tag: Tag::Reconciled };
        if let Some(body) = found.body(last.as_deref(), first.as_deref())? {
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
