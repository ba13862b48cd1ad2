use std::sync::Arc;

use cdc_model::{Body, Epoch, Mark, ObjectId, Origin, Position, Record, Sequence, Timestamp, mutant};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::read::{DIGEST_EVERY, Origins, Tail};
use crate::{Limit, Log, Result};

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

/// One transaction of a log: appends, marks, checkpoints and stage state commit together.
pub struct LogTransaction<'l> {
    log: &'l Log,
    tail: Tail,
    new_origins: Origins,
    appends: Appends<'l>,
}

/// The appending statements, held for the whole transaction: fetching one per row costs an eighth of an append.
#[derive(Default)]
struct Appends<'l> {
    own: Option<CachedStatement<'l>>,
    forwarded: Option<CachedStatement<'l>>,
}

/// What a row keeps of where its event comes from.
#[derive(Clone, Copy, Debug)]
enum Provenance {
    /// This object, of this capture row if it was captured.
    Own(Option<CaptureRow>),
    /// The interned origin with this id.
    Forwarded(i64),
}

impl std::fmt::Debug for LogTransaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogTransaction")
            .field("log", &self.log)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

/// Two statements, so that no NULL is bound for what only the other kind of row has.
const APPEND_OWN: &str =
    "INSERT INTO _cdc_log(sequence, timestamp, digest, body, capture, nonce) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const APPEND_FORWARDED: &str = "INSERT INTO _cdc_log(sequence, timestamp, digest, body, origin, origin_sequence, origin_timestamp) \
                                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// The statement, prepared the first time.
fn held<'h, 'l>(
    statement: &'h mut Option<CachedStatement<'l>>,
    conn: &'l Connection,
    sql: &str,
) -> Result<&'h mut CachedStatement<'l>> {
    match statement {
        Some(statement) => Ok(statement),
        none => Ok(none.insert(conn.prepare_cached(sql)?)),
    }
}

impl<'l> LogTransaction<'l> {
    pub(crate) fn new(log: &'l Log) -> Self {
        Self { log, tail: log.newest, new_origins: Origins::default(), appends: Appends::default() }
    }

    pub(crate) fn into_parts(self) -> (Tail, Origins) {
        (self.tail, self.new_origins)
    }

    /// What it has appended so far, to go back to.
    pub(crate) fn appended(&self) -> (Tail, Origins) {
        (self.tail, self.new_origins.clone())
    }

    /// What was appended since was undone.
    pub(crate) fn set_appended(&mut self, appended: (Tail, Origins)) {
        (self.tail, self.new_origins) = appended;
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
        let newest = self.tail.timestamp;
        let goes_back = timestamp < newest && mutant!("log-time-goes-back");
        let timestamp = if goes_back { timestamp } else { timestamp.max(newest) };
        let record = Record {
            sequence,
            timestamp,
            epoch: self.log.epoch,
            origin: Arc::clone(&self.log.own),
            origin_sequence: sequence,
            origin_timestamp: timestamp,
            body,
        };
        self.insert(&record, Provenance::Own(from))?;
        Ok(record)
    }

    /// Appends a child's event. `record` is as the child sent it; `origin` is its origin as seen from here
    /// ([`Origin::via`] the sender). Its append time is now, or the tail's if that is later.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn append_forwarded(
        &mut self,
        record: &Record,
        origin: &Arc<Origin>,
        now: Timestamp,
    ) -> Result<Record> {
        let id = self.origin_id(origin)?;
        let happened = if mutant!("hop-sets-event-time") { now } else { record.origin_timestamp };
        let body = match mutant!("body-written-anew") {
            true => Body::from_stored(record.body.as_str().replacen(':', ": ", 1)),
            false => record.body.clone(),
        };
        let record = Record {
            sequence: self.tail.position.sequence.next(),
            timestamp: now.max(self.tail.timestamp),
            epoch: self.log.epoch,
            origin: Arc::clone(origin),
            origin_sequence: record.origin_sequence,
            origin_timestamp: happened,
            body,
        };
        self.insert(&record, Provenance::Forwarded(id))?;
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
        sequence.get().is_multiple_of(DIGEST_EVERY) || sequence == self.log.newest.position.sequence.next()
    }

    /// Stores the running digest with the newest row, so that a change of any row can be found later.
    pub(crate) fn keep_digest(&mut self) -> Result<()> {
        let Position { sequence, digest } = self.tail.position;
        if sequence > self.log.newest.position.sequence && !self.keeps_digest(sequence) {
            let mut statement =
                self.conn().prepare_cached("UPDATE _cdc_log SET digest = ?1 WHERE sequence = ?2")?;
            statement.execute(params![digest.as_bytes(), sequence.as_i64()])?;
        }
        Ok(())
    }

    fn insert(&mut self, record: &Record, from: Provenance) -> Result<()> {
        let digest = record.digest(self.tail.position.digest);
        let kept = self.keeps_digest(record.sequence).then_some(digest.as_bytes());
        let (sequence, timestamp, body) =
            (record.sequence.as_i64(), record.timestamp.get(), record.body.as_str());
        match from {
            Provenance::Own(row) => {
                let append = held(&mut self.appends.own, &self.log.conn, APPEND_OWN)?;
                let (seq, nonce) = row.map(|row| (row.seq, row.nonce)).unzip();
                append.execute(params![sequence, timestamp, kept, body, seq, nonce])?
            }
            Provenance::Forwarded(origin) => {
                let append = held(&mut self.appends.forwarded, &self.log.conn, APPEND_FORWARDED)?;
                let (place, time) = (record.origin_sequence.as_i64(), record.origin_timestamp.get());
                append.execute(params![sequence, timestamp, kept, body, origin, place, time])?
            }
        };
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn link(&self, child: &ObjectId) -> Result<Option<Link>> {
        self.log.link(child)
    }

    /// A stage's state under `key`.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn stage_state(&self, stage: &str, key: &str) -> Result<Option<String>> {
        self.log.stage_state(stage, key)
    }

    /// Sets a stage's state under `key`; `None` removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn add_dead_letter(&mut self, sequence: Sequence, stage: &str, reason: &str) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO _cdc_dead_letter(sequence, stage, reason) VALUES (?1, ?2, ?3)";
        self.conn().prepare_cached(sql)?.execute(params![sequence.as_i64(), stage, reason])?;
        Ok(())
    }

    /// Adds to a counter that survives restarts.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn count(&mut self, name: &str, by: u64) -> Result<()> {
        let mut statement = self.conn().prepare_cached(
            "INSERT INTO _cdc_counter(name, value) VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value",
        )?;
        statement.execute(params![name, by.cast_signed()])?;
        Ok(())
    }
}
