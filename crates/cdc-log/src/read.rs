//! What a log says of its rows: positions, records and running digests, as of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_model::{Body, Digest, Epoch, Origin, Position, Record, Sequence, Timestamp, mutant};
use rusqlite::{OptionalExtension as _, Row};

use crate::comparison::Comparison;
use crate::durability;
use crate::log::OpenTransaction;
use crate::verify::CompareRows;
use crate::{Error, Log, Result};

/// Every so many rows the running digest is stored with the row.
pub(crate) const DIGEST_EVERY: u64 = 64;

/// How much one read gives back at most.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Records.
    pub records: usize,
    /// Bytes of bodies; at least one record is given, however large.
    pub bytes: usize,
}

impl Default for Limit {
    /// 1,000 records or 4 MiB.
    fn default() -> Self {
        Self { records: 1000, bytes: 4 << 20 }
    }
}

/// A record of a log, as its last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) position: Position,
    pub(crate) timestamp: Timestamp,
}

/// The interned origins of forwarded rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// In the order of their ids. A log counts them from 1, so that a row's origin lies where its id says.
    by_id: Vec<(i64, Arc<Origin>)>,
    ids: BTreeMap<Digest, i64>,
}

impl Origins {
    pub(crate) fn insert(&mut self, id: i64, origin: Arc<Origin>) {
        self.ids.insert(origin.fingerprint(), id);
        match self.by_id.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => drop(self.by_id.splice(at..=at, [(id, origin)])),
            Err(at) => self.by_id.insert(at, (id, origin)),
        }
    }

    pub(crate) fn id(&self, origin: &Origin) -> Option<i64> {
        self.ids.get(&origin.fingerprint()).copied()
    }

    fn get(&self, id: i64) -> Option<&Arc<Origin>> {
        let likely = usize::try_from(id).ok()?.checked_sub(1)?;
        let found = self.by_id.get(likely).filter(|(of, _)| *of == id);
        let search = || self.by_id.get(self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?);
        found.or_else(search).map(|(_, origin)| origin)
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (id, origin) in other.by_id {
            self.insert(id, origin);
        }
    }
}

/// One stored row, borrowed while a scan stands on it.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    /// Its place in this log.
    pub sequence: Sequence,
    /// When it was appended here.
    pub timestamp: Timestamp,
    /// Where its event comes from.
    pub origin: &'a Arc<Origin>,
    /// The event's place in its origin's log.
    pub origin_sequence: Sequence,
    /// When the event happened.
    pub origin_timestamp: Timestamp,
    /// The stored bytes of what it says.
    pub body: &'a str,
}

impl RowRef<'_> {
    pub(crate) fn to_record(self, epoch: Epoch) -> Record {
        Record {
            sequence: self.sequence,
            timestamp: self.timestamp,
            epoch,
            origin: Arc::clone(self.origin),
            origin_sequence: self.origin_sequence,
            origin_timestamp: self.origin_timestamp,
            body: Body::from_stored(self.body),
        }
    }
}

const READ: &str = "BEGIN -- _cdc_log";

const SCAN: &str = "SELECT sequence, timestamp, body, origin, origin_sequence, origin_timestamp FROM _cdc_log \
                    WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence";

impl Log {
    /// Looks again how far the log reaches, for a process that reads along while another one writes.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`] or [`Error::Corrupt`].
    pub fn refresh(&mut self) -> Result<()> {
        let newest = "SELECT coalesce(max(sequence), 0) FROM _cdc_log";
        let newest: i64 = self.conn.prepare_cached(newest)?.query_row([], |row| row.get(0))?;
        let synced = durability::synced(&self.conn)?;
        if newest == self.newest.position.sequence.as_i64()
            && synced == self.unsynced.then_some(self.tail.position.sequence)
        {
            return Ok(());
        }
        self.at_one_moment(|_| Ok(()))
    }

    /// Runs `work` on the log as it is at one moment, also when another process goes on writing it.
    ///
    /// # Errors
    ///
    /// What `work` returns, [`Error::Sqlite`] or [`Error::Corrupt`].
    pub fn at_one_moment<R, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Self) -> Result<R, E>,
    ) -> Result<R, E> {
        self.conn.prepare_cached(READ).and_then(|mut begin| begin.execute([])).map_err(Error::from)?;
        let open = OpenTransaction(&self.conn);
        // A row's origin is looked up among those that were there with it.
        self.origins = self.stored_origins()?;
        self.newest = self.stored_at(None)?;
        let synced = durability::synced(&self.conn)?;
        self.unsynced = synced.is_some();
        self.tail = match synced.filter(|synced| *synced < self.newest.position.sequence) {
            Some(synced) if !mutant!("read-before-synced") => self.stored_at(Some(synced))?,
            _ => self.newest,
        };
        let done = work(self);
        drop(open);
        done
    }

    /// As [`Log::at_one_moment`], with a comparison of the live tables in the log's own file. `None` when captured
    /// rows wait to be drained, or another process has changed the schema and capture was not installed anew since; try
    /// again.
    ///
    /// # Errors
    ///
    /// What `work` returns, [`Error::Sqlite`] or [`Error::Corrupt`].
    pub fn at_rest<R, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Self, &CompareRows<'_>) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        self.at_one_moment(|log| {
            let waits = log.unsynced || crate::capture::has_rows(&log.conn)?;
            if waits || Comparison::read(&log.conn)?.is_needed() || !log.is_capture_healthy()? {
                return Ok(None);
            }
            work(log, &|fold| log.compare_rows(fold)).map(Some)
        })
    }

    /// Runs `work` on the file as it is at one moment: between two statements another connection may append, and prune
    /// what the first has just seen.
    fn steady<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        if !self.conn.is_autocommit() {
            return work();
        }
        self.conn.prepare_cached(READ)?.execute([])?;
        let open = OpenTransaction(&self.conn);
        let done = work();
        drop(open);
        done
    }

    /// The oldest readable sequence; one beyond the tail when the log is empty. It goes up when rows are pruned.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn floor(&self) -> Result<Sequence> {
        Ok(self.below_floor()?.sequence.next())
    }

    /// Reads the records after `after`, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFloor`] or [`Error::BeyondTail`] when `after` is not a readable position.
    pub fn read(&self, after: Sequence, limit: Limit) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.scan(after, limit, |row| {
            records.push(row.to_record(self.epoch));
            Ok(())
        })?;
        Ok(records)
    }

    /// Visits the stored rows after `after`, oldest first, without copying them. Gives the last position visited.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFloor`], [`Error::BeyondTail`], [`Error::Corrupt`] at a gap, or what `visit` returns.
    pub fn scan(
        &self,
        after: Sequence,
        limit: Limit,
        visit: impl FnMut(RowRef<'_>) -> Result<()>,
    ) -> Result<Sequence> {
        self.scan_to(self.tail().sequence, after, limit, visit)
    }

    /// As [`Log::scan`] for a log that ends at `tail`.
    pub(crate) fn scan_to(
        &self,
        tail: Sequence,
        after: Sequence,
        limit: Limit,
        mut visit: impl FnMut(RowRef<'_>) -> Result<()>,
    ) -> Result<Sequence> {
        self.steady(|| {
            self.check_readable(tail, after)?;
            let through = after.get().saturating_add(u64::try_from(limit.records).unwrap_or(u64::MAX));
            let through = Sequence::new(through.min(tail.get()));
            let mut statement = self.conn.prepare_cached(SCAN)?;
            let mut rows = statement.query([after.as_i64(), through.as_i64()])?;
            let (mut last, mut bytes) = (after, 0_usize);
            while let Some(row) = rows.next()? {
                let row = self.row_ref(row)?;
                if row.sequence != last.next() {
                    return Err(self.corrupt(row.sequence, "rows before it are missing"));
                }
                last = row.sequence;
                bytes = bytes.saturating_add(row.body.len());
                visit(row)?;
                if bytes >= limit.bytes {
                    return Ok(last);
                }
            }
            if last < through {
                return Err(self.corrupt(last.next(), "rows from here on are missing"));
            }
            Ok(last)
        })
    }

    fn check_readable(&self, tail: Sequence, after: Sequence) -> Result<()> {
        if after > tail {
            return Err(Error::BeyondTail { after, tail });
        }
        let floor = self.floor()?;
        if after.next() < floor {
            return Err(Error::BelowFloor { after, floor });
        }
        Ok(())
    }

    pub(crate) fn row_ref<'r>(&'r self, row: &'r Row<'_>) -> Result<RowRef<'r>> {
        let sequence = Sequence::checked(row.get(0)?).unwrap_or_default();
        let timestamp = Timestamp::new(row.get(1)?);
        let body = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let Some(origin) = row.get::<_, Option<i64>>(3)? else {
            let (origin_sequence, origin_timestamp) = (sequence, timestamp);
            return Ok(RowRef {
                sequence,
                timestamp,
                origin: &self.own,
                origin_sequence,
                origin_timestamp,
                body,
            });
        };
        let origin =
            self.origins.get(origin).ok_or_else(|| self.corrupt(sequence, "its origin is not known"))?;
        let origin_sequence = Sequence::checked(row.get(4)?).unwrap_or_default();
        let origin_timestamp = Timestamp::new(row.get(5)?);
        Ok(RowRef { sequence, timestamp, origin, origin_sequence, origin_timestamp, body })
    }

    /// The running digest at a readable position.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFloor`], [`Error::BeyondTail`] or [`Error::Corrupt`].
    pub fn position_at(&self, sequence: Sequence) -> Result<Position> {
        if sequence == self.tail().sequence {
            return Ok(self.tail());
        }
        self.steady(|| {
            self.check_readable(self.tail().sequence, sequence)?;
            self.rolled(sequence)
        })
    }

    /// Rolls the digest forward to `sequence` from the nearest stored one at or below it.
    fn rolled(&self, sequence: Sequence) -> Result<Position> {
        let below = self.below_floor()?;
        let base = Sequence::new(sequence.get() / DIGEST_EVERY * DIGEST_EVERY).max(below.sequence);
        let mut digest = below.digest;
        if base > below.sequence {
            let mut statement =
                self.conn.prepare_cached("SELECT digest FROM _cdc_log WHERE sequence = ?1")?;
            let stored: Option<Option<[u8; 16]>> =
                statement.query_row([base.as_i64()], |row| row.get(0)).optional()?;
            let Some(stored) = stored.flatten() else {
                return Err(self.corrupt(base, "its digest is missing"));
            };
            digest = Digest::from_bytes(stored);
        }
        let mut statement = self.conn.prepare_cached(SCAN)?;
        let mut rows = statement.query([base.as_i64(), sequence.as_i64()])?;
        let mut last = base;
        while let Some(row) = rows.next()? {
            let row = self.row_ref(row)?;
            if row.sequence != last.next() {
                return Err(self.corrupt(row.sequence, "rows before it are missing"));
            }
            last = row.sequence;
            digest = row.to_record(self.epoch).digest(digest);
        }
        Ok(Position { sequence, digest })
    }

    /// The log as it ends at a stored row, or at its newest one.
    fn stored_at(&self, sequence: Option<Sequence>) -> Result<Tail> {
        let sql = "SELECT sequence, timestamp, digest FROM _cdc_log WHERE sequence <= ?1 \
                   ORDER BY sequence DESC LIMIT 1";
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<[u8; 16]>>(2)?));
        let upto = sequence.map_or(i64::MAX, Sequence::as_i64);
        let found = self.conn.prepare_cached(sql)?.query_row([upto], row).optional()?;
        let Some((sequence, timestamp, digest)) = found else {
            return Ok(Tail::default());
        };
        let position = self.rolled(Sequence::checked(sequence).unwrap_or_default())?;
        if digest.is_some_and(|digest| Digest::from_bytes(digest) != position.digest) {
            return Err(self.corrupt(position.sequence, "its digest does not follow from the rows"));
        }
        Ok(Tail { position, timestamp: Timestamp::new(timestamp) })
    }

    fn stored_origins(&self) -> Result<Origins> {
        let mut statement = self.conn.prepare("SELECT id, source, epoch, route FROM _cdc_origin")?;
        let mut rows = statement.query([])?;
        let mut origins = Origins::default();
        while let Some(row) = rows.next()? {
            let (source, epoch, route): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let route = route.split_whitespace().map(str::parse).collect::<Result<_, cdc_model::Error>>()?;
            origins.insert(row.get(0)?, Origin::new(source.parse()?, epoch.parse()?, route));
        }
        Ok(origins)
    }

    pub(crate) fn corrupt(&self, at: Sequence, reason: &'static str) -> Error {
        Error::Corrupt { object: self.id.clone(), at, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_found_by_its_id_also_where_ids_are_missing() {
        let origin = |at: i64| {
            let id = format!("https://crm.headless.ly/{at}").parse().unwrap();
            Origin::new(id, Epoch { number: 1, nonce: 1 }, Vec::new())
        };
        let mut origins = Origins::default();
        for at in [1, 2, 7, 4, 2] {
            origins.insert(at, origin(at));
        }
        for at in [1, 2, 4, 7] {
            assert_eq!(origins.get(at).map(|found| found.source()), Some(origin(at).source()), "{at}");
        }
        for at in [i64::MIN, -1, 0, 3, 5, 8, i64::MAX] {
            assert!(origins.get(at).is_none(), "{at}");
        }
    }
}
