//! Reading what is kept beside the records: links, checkpoints, stage state, verdicts and counters. They are written in
//! the transaction of what they speak of; see [`LogTransaction`](crate::LogTransaction).

use std::collections::BTreeMap;

use cdc_model::{Checkpoint, Cursor, Digest, Mark, ObjectId, Sequence, Subscriber, Timestamp};
use rusqlite::{OptionalExtension as _, Row};

use crate::transaction::Link;
use crate::{Log, Result};

impl Log {
    /// A stage's state under `key`, or anything else a driver keeps beside the log under a name of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn stage_state(&self, stage: &str, key: &str) -> Result<Option<String>> {
        let mut statement =
            self.conn.prepare_cached("SELECT value FROM _cdc_stage WHERE stage = ?1 AND key = ?2")?;
        Ok(statement.query_row([stage, key], |row| row.get(0)).optional()?)
    }

    /// What is kept of a child's link.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn children(&self) -> Result<Vec<ObjectId>> {
        let mut statement = self.conn.prepare_cached("SELECT child FROM _cdc_link ORDER BY child")?;
        let children = statement.query_map([], |row| row.get::<_, String>(0))?;
        children.map(|child| Ok(child?.parse()?)).collect()
    }

    /// A subscriber's saved cursor.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let mut statement = self.conn.prepare_cached(&format!("{CHECKPOINTS} ORDER BY subscriber"))?;
        let mut rows = statement.query([])?;
        let mut checkpoints = Vec::new();
        while let Some(row) = rows.next()? {
            checkpoints.push(checkpoint(row)?);
        }
        Ok(checkpoints)
    }

    /// All subscribers with a checkpoint, and how far each is behind.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn subscribers(&self) -> Result<Vec<Subscriber>> {
        let mut next = self.conn.prepare_cached(
            "SELECT timestamp FROM _cdc_log WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence LIMIT 1",
        )?;
        let tail = self.tail().sequence;
        let with_lag = |checkpoint: Checkpoint| {
            let at = self.taken(&checkpoint);
            let since = next.query_row([at.as_i64(), tail.as_i64()], |row| row.get(0)).optional()?;
            let lag = tail.get().saturating_sub(at.get());
            Ok(Subscriber { checkpoint, lag, waiting_since: since.map(Timestamp::new) })
        };
        self.checkpoints()?.into_iter().map(with_lag).collect()
    }

    /// The verdicts of stages in `(after, through]`: sequence and `filtered` or `absorbed`.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
    /// [`Error::Sqlite`](crate::Error::Sqlite).
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
