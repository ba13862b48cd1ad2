//! What capture did not see: tables are compared with the log in ranges of keys, and what differs becomes an event.
//!
//! A comparison lasts over many transactions, between which the application goes on writing. Each of them drains to the
//! end of what is captured and compares one range, so that both sides are of one moment. Until the last range is done,
//! a captured change whose `before` is not what the log has is preceded by the change that was missed.
//!
//! A table's first rows come the same way: they are rows that the log does not have, tagged `snapshot`.

use std::collections::BTreeSet;

use cdc_model::{Body, Content, Tag, Timestamp, mutant, reached};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::capture::{self, CapturedTable, Found};
use crate::drain::Drained;
use crate::live::{LiveRow, LiveRows};
use crate::transaction::{CaptureRow, LogTransaction};
use crate::{Log, Result, documents, drain, store};

/// What a comparison that is under way is kept under in the log.
const STATE: &str = "comparison";

/// When the last comparison of all tables began, in milliseconds since 1970.
const COMPARED: &str = "compared_at";

/// One transaction compares at most so many rows.
const ROWS_MAX: u64 = 1000;

/// And stops after so many bytes of rows.
const BYTES_MAX: usize = 4 << 20;

/// How far a comparison is. It resumes after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// When it began, in milliseconds since 1970: what bypassed capture before is found when it is done.
    since: i64,
    /// Tables still to be compared, the first of them from `place` on.
    left: Vec<String>,
    place: Place,
    /// Whether it is of all tables.
    full: bool,
    /// Whether something is known to have bypassed capture, so that nothing is at rest before it is done.
    needed: bool,
    /// Tables whose rows the log never had.
    backfilled: BTreeSet<String>,
}

/// How far the comparison of one table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// Rows after this key, given as JSON, are to be compared.
    Rows(Option<Vec<String>>),
    /// Documents after this one are to be looked for in the table.
    Documents(Option<String>),
}

impl Default for Place {
    fn default() -> Self {
        Self::Rows(None)
    }
}

/// What is left of the taking up of rows that were there, or of a comparison that is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Tables whose rows are still to be compared with the log.
    pub tables: Vec<String>,
    /// The rows of these, from where the comparison stands.
    pub rows: u64,
}

/// What asks for a comparison of all tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something is known to have bypassed capture.
    Needed,
    /// Nobody knows of anything.
    Audit,
}

/// When the last comparison of all tables that was finished had begun.
pub(crate) fn compared_at(log: &Connection) -> Result<Option<Timestamp>> {
    Ok(store::meta(log, COMPARED)?.map(Timestamp::new))
}

impl Log {
    /// Drops an audit that is under way, for somebody who will not go on with it: until it was done, every captured change
    /// would be held against the log. What it has found is in the log. A comparison stays that is needed because something
    /// is known to have bypassed capture. Gives whether there was one to drop.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn drop_audit(&mut self) -> Result<bool> {
        let comparison = Comparison::read(&self.conn)?;
        let drops = comparison.is_open() && !comparison.is_needed();
        if drops {
            self.transact(|log| Comparison::default().write(log.conn()))?;
        }
        Ok(drops)
    }
}

impl Comparison {
    pub(crate) fn read(log: &Connection) -> Result<Self> {
        let text: Option<String> = store::meta(log, STATE)?;
        let state = text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
        })?;
        Ok(state.unwrap_or_default())
    }

    pub(crate) fn write(&self, log: &Connection) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        store::put_meta(log, STATE, text)
    }

    pub(crate) const fn is_open(&self) -> bool {
        !self.left.is_empty()
    }

    /// Whether nothing is at rest before it is done.
    pub(crate) const fn is_needed(&self) -> bool {
        self.needed && self.is_open()
    }

    /// Begins with all tables anew, also when one was under way.
    pub(crate) fn begin(&mut self, user: &Connection, log: &LogTransaction<'_>, why: Why) -> Result<()> {
        let existing = capture::existing(user)?;
        let mut tables: BTreeSet<String> = capture::current(user)?.into_keys().collect();
        tables.extend(capture::known(log.conn())?.into_keys().filter(|table| !existing.contains(table)));
        tables.extend(std::mem::take(&mut self.left));
        self.since = log.now().get();
        self.left = tables.into_iter().collect();
        (self.place, self.full, self.needed) = (Place::default(), true, self.needed || why == Why::Needed);
        self.end_if_done(log)
    }

    /// Takes up a table whose rows the log never had.
    pub(crate) fn backfill(&mut self, table: &str, log: &LogTransaction<'_>) {
        if !self.is_open() {
            (self.since, self.full) = (log.now().get(), false);
        }
        self.needed = true;
        self.backfilled.insert(table.to_owned());
        if !self.left.iter().any(|left| left == table) {
            self.left.push(table.to_owned());
        }
    }

    /// The change that was missed before a captured one, whose `before` is not what the log has, is appended first.
    pub(crate) fn mend(
        &self,
        log: &mut LogTransaction<'_>,
        at: Timestamp,
        body: &Body,
        done: &mut Drained,
    ) -> Result<()> {
        let Content::Change(change) = body.content()? else {
            return Ok(());
        };
        let folded = documents::state(log.log(), &change.collection, &change.document_id)?;
        let before = change.full_before()?;
        let found = Found {
            collection: &change.collection,
            document_id: &change.document_id,
            version: change.schema_version,
            tag: self.tag(&change.collection, folded.as_deref()),
        };
        match found.body(folded.as_deref(), before.as_deref())? {
            Some(missed) if !mutant!("missed-change-not-mended") => append(log, at, missed, &found.tag, done),
            _ => Ok(()),
        }
    }

    fn tag(&self, table: &str, folded: Option<&str>) -> Tag {
        if folded.is_none() && self.backfilled.contains(table) { Tag::Snapshot } else { Tag::Reconciled }
    }

    /// What is left of it, and of what the next drain begins.
    pub(crate) fn remaining(&self, user: &Connection, log: &Connection) -> Result<Remaining> {
        let (known, mark) = (capture::known(log)?, drain::mark(log)?.map_or(0, |mark| mark.seq));
        let begins_anew = capture::barrier(user)?.is_some_and(|barrier| barrier > mark);
        let mut remaining = Remaining::default();
        for (name, table) in capture::current(user)? {
            let is_under_way = self.needed && self.left.contains(&name);
            let is_first = is_under_way && !begins_anew && self.left.first() == Some(&name);
            let after = match &self.place {
                Place::Documents(_) if is_first => continue,
                Place::Rows(after) if is_first => after.as_deref(),
                Place::Rows(_) | Place::Documents(_) => None,
            };
            if begins_anew || is_under_way || !known.contains_key(&name) {
                remaining.rows += LiveRows::of(user, &table)?.count(after)?;
                remaining.tables.push(name);
            }
        }
        Ok(remaining)
    }

    /// Compares the next range, at a moment at which everything captured is drained and the index covers the log.
    pub(crate) fn step(
        &mut self,
        user: &Connection,
        log: &mut LogTransaction<'_>,
        done: &mut Drained,
    ) -> Result<()> {
        let current = capture::current(user)?;
        let existing = capture::existing(user)?;
        let mut range = Range { rows: 0, live: 0, bytes: 0, now: log.now() };
        while let Some(table) = self.left.first().cloned()
            && !range.is_full()
        {
            let finished = match current.get(&table) {
                Some(captured) => self.step_in(captured, user, log, &mut range, done)?,
                // Its rows are nobody's: it is not captured any more.
                None if existing.contains(&table) => true,
                None => self.step_gone(&table, log, &mut range, done)?,
            };
            if finished {
                self.left.remove(0);
                self.backfilled.remove(&table);
                self.place = Place::default();
            }
        }
        reached!("log.range-compared");
        done.compared += range.rows;
        done.compared_rows += range.live;
        self.end_if_done(log)
    }

    fn end_if_done(&mut self, log: &LogTransaction<'_>) -> Result<()> {
        if self.left.is_empty() {
            if self.full {
                store::put_meta(log.conn(), COMPARED, self.since)?;
            }
            *self = Self::default();
        }
        Ok(())
    }

    /// Gives whether the table is done.
    fn step_in(
        &mut self,
        table: &CapturedTable,
        user: &Connection,
        log: &mut LogTransaction<'_>,
        range: &mut Range,
        done: &mut Drained,
    ) -> Result<bool> {
        let live = LiveRows::of(user, table)?;
        let limit = usize::try_from(ROWS_MAX - range.rows).unwrap_or(usize::MAX);
        match &self.place {
            Place::Rows(after) if live.in_order() => {
                let rows = live.after(after.as_deref(), limit, BYTES_MAX)?;
                let last = rows.last().map(|row| row.key.clone());
                for row in &rows {
                    self.compare(table, row, log, range, done)?;
                }
                self.place = match last {
                    Some(last) => Place::Rows(Some(last)),
                    None => {
                        self.backfilled.remove(&table.shape.table);
                        Place::Documents(None)
                    }
                };
                Ok(false)
            }
            Place::Rows(_) => {
                let mut seen = BTreeSet::new();
                for row in live.all()? {
                    self.compare(table, &row, log, range, done)?;
                    seen.insert(row.document_id);
                }
                let mut after = None;
                while let Some(last) =
                    self.gone(&table.shape.table, after.as_deref(), log, range, done, |id| {
                        Ok(!seen.contains(id))
                    })?
                {
                    after = Some(last);
                }
                Ok(true)
            }
            Place::Documents(after) => {
                let after = after.clone();
                let is_gone = |id: &str| Ok(!live.has(id)? && !mutant!("gone-rows-not-compared"));
                let last = self.gone(&table.shape.table, after.as_deref(), log, range, done, is_gone)?;
                let finished = last.is_none();
                self.place = Place::Documents(last);
                Ok(finished)
            }
        }
    }

    fn compare(
        &self,
        table: &CapturedTable,
        row: &LiveRow,
        log: &mut LogTransaction<'_>,
        range: &mut Range,
        done: &mut Drained,
    ) -> Result<()> {
        let collection = table.shape.table.as_str();
        range.take(row.json.len());
        range.live += 1;
        let mut folded = documents::state(log.log(), collection, &row.document_id)?;
        if self.backfilled.contains(collection) && mutant!("backfilled-twice") {
            folded = None;
        }
        let found = Found {
            collection,
            document_id: &row.document_id,
            version: Some(table.version),
            tag: self.tag(collection, folded.as_deref()),
        };
        match found.body(folded.as_deref(), Some(&row.json))? {
            Some(body) => append(log, range.now, body, &found.tag, done),
            None => Ok(()),
        }
    }

    /// A table that is not there any more has no rows.
    fn step_gone(
        &mut self,
        table: &str,
        log: &mut LogTransaction<'_>,
        range: &mut Range,
        done: &mut Drained,
    ) -> Result<bool> {
        let after = match &self.place {
            Place::Documents(after) => after.clone(),
            Place::Rows(_) => None,
        };
        let last = self.gone(table, after.as_deref(), log, range, done, |_| Ok(true))?;
        let finished = last.is_none();
        self.place = Place::Documents(last);
        Ok(finished)
    }

    /// Appends the deletion of every document after `after` that is gone. Gives the last one looked for, `None` after
    /// the last.
    fn gone(
        &self,
        collection: &str,
        after: Option<&str>,
        log: &mut LogTransaction<'_>,
        range: &mut Range,
        done: &mut Drained,
        is_gone: impl Fn(&str) -> Result<bool>,
    ) -> Result<Option<String>> {
        let limit = usize::try_from(ROWS_MAX.saturating_sub(range.rows)).unwrap_or(usize::MAX).max(1);
        let ids = documents::ids(log.conn(), collection, after, limit)?;
        let version = capture::known(log.conn())?.get(collection).copied();
        for document_id in &ids {
            range.take(0);
            if is_gone(document_id)? {
                let folded = documents::state(log.log(), collection, document_id)?;
                let found = Found { collection, document_id, version, tag: Tag::Reconciled };
                if let Some(body) = found.body(folded.as_deref(), None)? {
                    append(log, range.now, body, &found.tag, done)?;
                }
            }
        }
        Ok(ids.into_iter().last())
    }
}

/// What one transaction has compared.
struct Range {
    /// Rows of tables and documents of the log.
    rows: u64,
    /// Of these, rows of tables.
    live: u64,
    bytes: usize,
    now: Timestamp,
}

impl Range {
    fn take(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    const fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }
}

fn append(
    log: &mut LogTransaction<'_>,
    at: Timestamp,
    body: Body,
    tag: &Tag,
    done: &mut Drained,
) -> Result<()> {
    let record = log.append_captured(at, body, Some(CaptureRow::FOUND))?;
    done.records += 1;
    let counter = if *tag == Tag::Snapshot { &mut done.backfilled } else { &mut done.reconciled };
    *counter += 1;
    documents::take(log, &record)
}
