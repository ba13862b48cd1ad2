use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_model::{
    Body, Checkpoint, Cursor, Digest, Epoch, Mark, ObjectId, Origin, Position, Record, Sequence, Timestamp,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use crate::log::{DIGEST_EVERY, Origins, Tail};
use crate::{Error, Limit, Log, Result};

/// What a parent keeps of one child's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The link's generation; batches of older ones are refused.
    pub generation: u64,
    /// The sender's session to which that generation was granted.
    pub session: u64,
    /// The last position taken; `None` before the first batch.
    pub mark: Option<Mark>,
}

/// The row a capture row was drained from: its place in `_cdc_capture` and its random nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaptureRow {
    pub(crate) seq: i64,
    pub(crate) nonce: i64,
}

impl CaptureRow {
    /// What an event has that was found by a comparison and was never captured. Capture rows count from 1.
    pub(crate) const FOUND: Self = Self { seq: 0, nonce: 0 };
}

/// How a checkpoint is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// Only forwards.
    Advance,
    /// Anywhere; raises the revision.
    Force,
}

/// One transaction of a log: appends, marks, checkpoints and stage state commit together.
pub struct LogTransaction<'l> {
    log: &'l Log,
    tail: Tail,
    new_origins: Origins,
    /// The appending statement, held for the whole transaction: fetching it per row costs an eighth of an append.
    append: Option<CachedStatement<'l>>,
}

impl std::fmt::Debug for LogTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogTransaction")
            .field("log", &self.log)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

const APPEND: &str = "INSERT INTO _cdc_log(sequence, timestamp, origin, origin_sequence, origin_timestamp, capture, nonce, digest, body) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

impl<'l> LogTransaction<'l> {
    pub(crate) fn new(log: &'l Log) -> Self {
        Self { log, tail: log.tail, new_origins: Origins::default(), append: None }
    }

    pub(crate) fn into_parts(self) -> (Tail, Origins) {
        (self.tail, self.new_origins)
    }

    pub(crate) const fn conn(&self) -> &'l Connection {
        &self.log.conn
    }

    pub(crate) const fn log(&self) -> &'l Log {
        self.log
    }

    /// The object.
    #[must_use]
    pub const fn id(&self) -> &'l ObjectId {
        &self.log.id
    }

    /// The newest position, counting what this transaction has appended.
    #[must_use]
    pub const fn tail(&self) -> Position {
        self.tail.position
    }

    /// The log's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.log.clock.now()
    }

    /// Appends an event of this object. Its time is `timestamp`, or the tail's if that is later.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn append(&mut self, timestamp: Timestamp, body: Body) -> Result<Record> {
        self.append_captured(timestamp, body, None)
    }

    pub(crate) fn append_captured(
        &mut self,
        timestamp: Timestamp,
        body: Body,
        from: Option<CaptureRow>,
    ) -> Result<Record> {
        let sequence = self.tail.position.sequence.next();
        let timestamp = timestamp.max(self.tail.timestamp);
        let record = Record {
            sequence,
            timestamp,
            epoch: self.log.epoch,
            origin: Arc::clone(&self.log.own),
            origin_sequence: sequence,
            origin_timestamp: timestamp,
            body,
        };
        self.insert(&record, None, from)?;
        Ok(record)
    }

    /// Appends a child's event. `record` is as the child sent it; `origin` is its origin as seen from here
    /// ([`Origin::via`] the sender). Its append time is now, or the tail's if that is later.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn append_forwarded(
        &mut self,
        record: &Record,
        origin: &Arc<Origin>,
        now: Timestamp,
    ) -> Result<Record> {
        let id = self.origin_id(origin)?;
        let record = Record {
            sequence: self.tail.position.sequence.next(),
            timestamp: now.max(self.tail.timestamp),
            epoch: self.log.epoch,
            origin: Arc::clone(origin),
            origin_sequence: record.origin_sequence,
            origin_timestamp: record.origin_timestamp,
            body: record.body.clone(),
        };
        self.insert(&record, Some(id), None)?;
        Ok(record)
    }

    /// Reads records, counting what this transaction has appended.
    pub(crate) fn read(&self, after: Sequence, limit: Limit) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.log.scan_to(self.tail.position.sequence, after, limit, |row| {
            records.push(row.to_record(self.log.epoch));
            Ok(())
        })?;
        Ok(records)
    }

    /// Whether the running digest is stored with a row as it is appended: every so often, and with the first of a
    /// transaction, which mostly is its last.
    fn keeps_digest(&self, sequence: Sequence) -> bool {
        sequence.get().is_multiple_of(DIGEST_EVERY) || sequence == self.log.tail().sequence.next()
    }

    /// Stores the running digest with the newest row, so that a change of any row can be found later.
    pub(crate) fn keep_digest(&mut self) -> Result<()> {
        let Position { sequence, digest } = self.tail.position;
        if sequence > self.log.tail().sequence && !self.keeps_digest(sequence) {
            let mut statement =
                self.conn().prepare_cached("UPDATE _cdc_log SET digest = ?1 WHERE sequence = ?2")?;
            statement.execute(params![digest.as_bytes(), sequence.as_i64()])?;
        }
        Ok(())
    }

    fn insert(&mut self, record: &Record, origin: Option<i64>, from: Option<CaptureRow>) -> Result<()> {
        let digest = record.digest(self.tail.position.digest);
        let kept = self.keeps_digest(record.sequence).then_some(digest.as_bytes());
        let append = match &mut self.append {
            Some(append) => append,
            none => none.insert(self.log.conn.prepare_cached(APPEND)?),
        };
        append.execute(params![
            record.sequence.as_i64(),
            record.timestamp.get(),
            origin,
            origin.map(|_| record.origin_sequence.as_i64()),
            origin.map(|_| record.origin_timestamp.get()),
            from.map(|row| row.seq),
            from.map(|row| row.nonce),
            kept,
            record.body.as_str(),
        ])?;
        self.tail =
            Tail { position: Position { sequence: record.sequence, digest }, timestamp: record.timestamp };
        Ok(())
    }

    fn origin_id(&mut self, origin: &Arc<Origin>) -> Result<i64> {
        if let Some(id) = self.log.origins.id(origin).or_else(|| self.new_origins.id(origin)) {
            return Ok(id);
        }
        let route: Vec<&str> = origin.route().iter().map(ObjectId::as_str).collect();
        let mut statement = self
            .conn()
            .prepare_cached("INSERT INTO _cdc_origin(source, epoch, route) VALUES (?1, ?2, ?3)")?;
        let id = statement.insert(params![
            origin.source().as_str(),
            origin.epoch().to_string(),
            route.join(" ")
        ])?;
        self.new_origins.insert(id, Arc::clone(origin));
        Ok(id)
    }

    /// The last sequence of this origin that was taken, by any way.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn origin_mark(&self, source: &ObjectId, epoch: Epoch) -> Result<Sequence> {
        let mut statement = self
            .conn()
            .prepare_cached("SELECT sequence FROM _cdc_origin_mark WHERE source = ?1 AND epoch = ?2")?;
        let mark: Option<i64> =
            statement.query_row(params![source.as_str(), epoch.to_string()], |row| row.get(0)).optional()?;
        Ok(mark.and_then(Sequence::checked).unwrap_or_default())
    }

    /// Moves an origin's mark.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn set_origin_mark(&mut self, source: &ObjectId, epoch: Epoch, mark: Sequence) -> Result<()> {
        let mut statement = self.conn().prepare_cached(
            "INSERT OR REPLACE INTO _cdc_origin_mark(source, epoch, sequence) VALUES (?1, ?2, ?3)",
        )?;
        statement.execute(params![source.as_str(), epoch.to_string(), mark.as_i64()])?;
        Ok(())
    }

    /// Saves what is kept of a child's link.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn set_link(&mut self, child: &ObjectId, link: &Link) -> Result<()> {
        let mut statement = self.conn().prepare_cached(
            "INSERT OR REPLACE INTO _cdc_link(child, generation, session, epoch, sequence, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let mark = link.mark.as_ref();
        statement.execute(params![
            child.as_str(),
            link.generation.cast_signed(),
            link.session.cast_signed(),
            mark.map(|mark| mark.epoch.to_string()),
            mark.map(|mark| mark.sequence.as_i64()),
            mark.map(|mark| *mark.digest.as_bytes()),
        ])?;
        Ok(())
    }

    /// What is kept of a child's link.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn link(&self, child: &ObjectId) -> Result<Option<Link>> {
        self.log.link(child)
    }

    /// A subscriber's saved cursor.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn checkpoint(&self, subscriber: &str) -> Result<Option<Checkpoint>> {
        self.log.checkpoint(subscriber)
    }

    /// Saves a subscriber's cursor. `createdAt` and, when `metadata` is `None`, the metadata are kept.
    ///
    /// # Errors
    ///
    /// [`Error::CheckpointBackwards`] unless forced; [`Error::BeyondTail`].
    pub fn save_checkpoint(
        &mut self,
        subscriber: &str,
        cursor: Cursor,
        metadata: Option<serde_json::Value>,
        save: Save,
    ) -> Result<Checkpoint> {
        let tail = self.tail.position.sequence;
        if cursor.sequence > tail {
            return Err(Error::BeyondTail { after: cursor.sequence, tail });
        }
        let now = self.now();
        let old = self.checkpoint(subscriber)?;
        if let Some(old) = &old
            && save == Save::Advance
            && cursor.sequence < old.cursor.sequence
        {
            let (at, to) = (old.cursor.sequence, cursor.sequence);
            return Err(Error::CheckpointBackwards { subscriber: subscriber.to_owned(), at, to });
        }
        let forced = u64::from(save == Save::Force && old.is_some());
        let checkpoint = Checkpoint {
            subscriber_id: subscriber.to_owned(),
            cursor: Cursor { epoch: Some(cursor.epoch.unwrap_or(self.log.epoch)), ..cursor },
            created_at: old.as_ref().map_or(now, |old| old.created_at),
            updated_at: now,
            revision: old.as_ref().map_or(0, |old| old.revision) + forced,
            metadata: metadata.or_else(|| old.and_then(|old| old.metadata)),
        };
        self.conn()
            .prepare_cached(
                "INSERT OR REPLACE INTO _cdc_checkpoint(subscriber, sequence, timestamp, epoch, created_at, updated_at, metadata, revision) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                subscriber,
                checkpoint.cursor.sequence.as_i64(),
                checkpoint.cursor.timestamp.get(),
                checkpoint.cursor.epoch.map(|epoch| epoch.to_string()),
                checkpoint.created_at.get(),
                checkpoint.updated_at.get(),
                checkpoint.metadata.as_ref().map(ToString::to_string),
                checkpoint.revision.cast_signed(),
            ])?;
        Ok(checkpoint)
    }

    /// Forgets a subscriber. Gives whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn remove_checkpoint(&mut self, subscriber: &str) -> Result<bool> {
        let mut statement =
            self.conn().prepare_cached("DELETE FROM _cdc_checkpoint WHERE subscriber = ?1")?;
        Ok(statement.execute([subscriber])? > 0)
    }

    /// A stage's state under `key`.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn stage_state(&self, stage: &str, key: &str) -> Result<Option<String>> {
        self.log.stage_state(stage, key)
    }

    /// Sets a stage's state under `key`; `None` removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn set_stage_state(&mut self, stage: &str, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            None => self
                .conn()
                .prepare_cached("DELETE FROM _cdc_stage WHERE stage = ?1 AND key = ?2")?
                .execute([stage, key])?,
            Some(value) => self
                .conn()
                .prepare_cached("INSERT OR REPLACE INTO _cdc_stage(stage, key, value) VALUES (?1, ?2, ?3)")?
                .execute([stage, key, value])?,
        };
        Ok(())
    }

    /// Records that a stage keeps the record at `sequence` from going on, and why (`filtered` or `absorbed`).
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn set_verdict(&mut self, sequence: Sequence, verdict: &str) -> Result<()> {
        let mut statement = self
            .conn()
            .prepare_cached("INSERT OR REPLACE INTO _cdc_verdict(sequence, verdict) VALUES (?1, ?2)")?;
        statement.execute(params![sequence.as_i64(), verdict])?;
        Ok(())
    }

    /// Parks the record at `sequence`, which a stage rejected.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn add_dead_letter(&mut self, sequence: Sequence, stage: &str, reason: &str) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO _cdc_dead_letter(sequence, stage, reason) VALUES (?1, ?2, ?3)";
        self.conn().prepare_cached(sql)?.execute(params![sequence.as_i64(), stage, reason])?;
        Ok(())
    }

    /// Adds to a counter that survives restarts.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn count(&mut self, name: &str, by: u64) -> Result<()> {
        let mut statement = self.conn().prepare_cached(
            "INSERT INTO _cdc_counter(name, value) VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value",
        )?;
        statement.execute(params![name, by.cast_signed()])?;
        Ok(())
    }
}

impl Log {
    /// A stage's state under `key`, or anything else a driver keeps beside the log under a name of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn stage_state(&self, stage: &str, key: &str) -> Result<Option<String>> {
        let mut statement =
            self.conn.prepare_cached("SELECT value FROM _cdc_stage WHERE stage = ?1 AND key = ?2")?;
        Ok(statement.query_row([stage, key], |row| row.get(0)).optional()?)
    }

    /// What is kept of a child's link.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn link(&self, child: &ObjectId) -> Result<Option<Link>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT generation, session, epoch, sequence, digest FROM _cdc_link WHERE child = ?1",
        )?;
        let mut rows = statement.query([child.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let parts: (Option<String>, Option<i64>, Option<[u8; 16]>) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let mark = match parts {
            (Some(epoch), Some(sequence), Some(digest)) => Some(Mark {
                epoch: epoch.parse()?,
                sequence: Sequence::checked(sequence).unwrap_or_default(),
                digest: Digest::from_bytes(digest),
            }),
            _ => None,
        };
        let (generation, session): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Some(Link { generation: generation.cast_unsigned(), session: session.cast_unsigned(), mark }))
    }

    /// The children that ever linked to this object.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn children(&self) -> Result<Vec<ObjectId>> {
        let mut statement = self.conn.prepare_cached("SELECT child FROM _cdc_link ORDER BY child")?;
        let children = statement.query_map([], |row| row.get::<_, String>(0))?;
        children.map(|child| Ok(child?.parse()?)).collect()
    }

    /// A subscriber's saved cursor.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn checkpoint(&self, subscriber: &str) -> Result<Option<Checkpoint>> {
        let sql = format!("{CHECKPOINTS} WHERE subscriber = ?1");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([subscriber])?;
        rows.next()?.map(checkpoint).transpose()
    }

    /// All saved cursors, by subscriber.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let mut statement = self.conn.prepare_cached(&format!("{CHECKPOINTS} ORDER BY subscriber"))?;
        let mut rows = statement.query([])?;
        let mut checkpoints = Vec::new();
        while let Some(row) = rows.next()? {
            checkpoints.push(checkpoint(row)?);
        }
        Ok(checkpoints)
    }

    /// The verdicts of stages in `(after, through]`: sequence and `filtered` or `absorbed`.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn verdicts(&self, after: Sequence, through: Sequence) -> Result<BTreeMap<Sequence, String>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT sequence, verdict FROM _cdc_verdict WHERE sequence > ?1 AND sequence <= ?2",
        )?;
        let mut rows = statement.query([after.as_i64(), through.as_i64()])?;
        let mut verdicts = BTreeMap::new();
        while let Some(row) = rows.next()? {
            verdicts.insert(Sequence::checked(row.get(0)?).unwrap_or_default(), row.get(1)?);
        }
        Ok(verdicts)
    }

    /// A counter that survives restarts; 0 when it was never counted.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn counter(&self, name: &str) -> Result<u64> {
        let mut statement = self.conn.prepare_cached("SELECT value FROM _cdc_counter WHERE name = ?1")?;
        let value: Option<i64> = statement.query_row([name], |row| row.get(0)).optional()?;
        Ok(value.unwrap_or_default().cast_unsigned())
    }
}

const CHECKPOINTS: &str = "SELECT subscriber, sequence, timestamp, epoch, created_at, updated_at, metadata, revision FROM _cdc_checkpoint";

fn checkpoint(row: &Row<'_>) -> Result<Checkpoint> {
    let epoch: Option<String> = row.get(3)?;
    let metadata: Option<String> = row.get(6)?;
    let decoded = |error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, error.into())
    };
    Ok(Checkpoint {
        subscriber_id: row.get(0)?,
        cursor: Cursor {
            sequence: Sequence::checked(row.get(1)?).unwrap_or_default(),
            timestamp: Timestamp::new(row.get(2)?),
            epoch: epoch.as_deref().map(str::parse).transpose()?,
        },
        created_at: Timestamp::new(row.get(4)?),
        updated_at: Timestamp::new(row.get(5)?),
        metadata: metadata.as_deref().map(serde_json::from_str).transpose().map_err(decoded)?,
        revision: row.get::<_, i64>(7)?.cast_unsigned(),
    })
}
