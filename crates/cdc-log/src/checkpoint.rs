//! Saving checkpoints: forwards unless forced, where they are as the caller saw them, and by who may.

use cdc_model::{Checkpoint, Cursor, FenceToken, Sequence, mutant};
use rusqlite::{OptionalExtension as _, params};

use crate::{Error, Log, LogTransaction, Result};

/// By whom a checkpoint is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remover {
    /// Somebody without a token: only where nobody has taken it over.
    #[default]
    Anybody,
    /// Who has taken it over, with the token that [`LogTransaction::take_over`] gave.
    Holder(FenceToken),
    /// An operator, whoever has taken it over.
    Operator,
}

/// What is to be saved of a subscriber, and what must hold for it.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it only says what to save"]
pub struct Save {
    cursor: Cursor,
    metadata: Option<serde_json::Value>,
    forced: bool,
    seen: Option<Seen>,
    token: Option<FenceToken>,
}

/// What the caller knows of a checkpoint: where it is and its revision, or that there is none.
type Seen = Option<(Cursor, u64)>;

fn seen_of(checkpoint: Option<&Checkpoint>) -> Seen {
    checkpoint.map(|checkpoint| (checkpoint.cursor, checkpoint.revision))
}

impl Save {
    /// The cursor after the last record taken. The checkpoint only goes forwards; its metadata is kept.
    pub const fn at(cursor: Cursor) -> Self {
        Self { cursor, metadata: None, forced: false, seen: None, token: None }
    }

    /// Goes anywhere and raises the revision, so that whoever saves by what was seen before is refused. An operator
    /// may force without the token of who has taken the checkpoint over. The cursor is one of this log, whatever its
    /// epoch says.
    pub fn forced(self) -> Self {
        Self { forced: true, ..self }
    }

    /// Only if the checkpoint is still as it was seen; `None` where there was none.
    pub fn expecting(self, seen: Option<&Checkpoint>) -> Self {
        Self { seen: Some(seen_of(seen)), ..self }
    }

    /// In the place of the metadata that is there.
    pub fn metadata(self, metadata: serde_json::Value) -> Self {
        Self { metadata: Some(metadata), ..self }
    }

    /// By whom: as [`LogTransaction::take_over`] gave it.
    pub fn token(self, token: impl Into<Option<FenceToken>>) -> Self {
        Self { token: token.into(), ..self }
    }
}

impl Log {
    /// An error unless this token is the one with which the checkpoint was taken over last; without a token, if it was
    /// taken over at all.
    pub(crate) fn check_fence(&self, subscriber: &str, token: Option<FenceToken>) -> Result<()> {
        let mut statement = self.conn.prepare_cached("SELECT token FROM _cdc_fence WHERE subscriber = ?1")?;
        let holds: Option<[u8; 16]> = statement.query_row([subscriber], |row| row.get(0)).optional()?;
        if holds.map(FenceToken::from_bytes) == token || mutant!("fence-not-compared") {
            return Ok(());
        }
        Err(Error::CheckpointFenced { subscriber: subscriber.to_owned() })
    }

    /// An error unless the cursor is one of this log. Without an epoch it is taken for one.
    pub(crate) fn check_epoch(&self, subscriber: &str, cursor: Cursor) -> Result<()> {
        let Cursor { sequence: at, epoch: found, .. } = cursor;
        match found {
            Some(found) if found != self.epoch && !mutant!("checkpoint-epoch-not-compared") => {
                let subscriber = subscriber.to_owned();
                Err(Error::CheckpointEpoch { subscriber, at, found, epoch: self.epoch })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How much of this log a checkpoint says was taken: nothing, where it is of another epoch.
    pub(crate) fn taken(&self, checkpoint: &Checkpoint) -> Sequence {
        let is_ours = checkpoint.cursor.epoch.is_none_or(|epoch| epoch == self.epoch);
        if is_ours { checkpoint.cursor.sequence } else { Sequence::ZERO }
    }

    /// The parts of `(after, through]` that a consumer's own transactions appended: first and last sequence of each.
    pub(crate) fn own_effects(
        &self,
        subscriber: &str,
        after: Sequence,
        through: Sequence,
    ) -> Result<Vec<(Sequence, Sequence)>> {
        let mut statement = self.conn.prepare_cached(
            "SELECT first, last FROM _cdc_effect WHERE subscriber = ?1 AND first <= ?3 AND last > ?2 AND first >= \
             coalesce((SELECT max(first) FROM _cdc_effect WHERE subscriber = ?1 AND first <= ?2), 0) ORDER BY first",
        )?;
        let ranges = statement.query_map(params![subscriber, after.as_i64(), through.as_i64()], |row| {
            let sequence = |at| Ok::<_, rusqlite::Error>(Sequence::checked(row.get(at)?).unwrap_or_default());
            Ok((sequence(0)?, sequence(1)?))
        })?;
        Ok(ranges.collect::<rusqlite::Result<_>>()?)
    }
}

impl LogTransaction<'_> {
    /// A subscriber's saved cursor.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn checkpoint(&self, subscriber: &str) -> Result<Option<Checkpoint>> {
        self.log().checkpoint(subscriber)
    }

    /// Saves a subscriber's cursor. `createdAt` and, unless it is given, the metadata are kept.
    ///
    /// # Errors
    ///
    /// [`Error::CheckpointFenced`], [`Error::CheckpointMoved`], [`Error::BeyondTail`]; unless forced,
    /// [`Error::CheckpointBackwards`], and [`Error::CheckpointEpoch`] for a cursor of another epoch, or for one without an
    /// epoch where there is a checkpoint of another.
    pub fn save_checkpoint(&mut self, subscriber: &str, save: &Save) -> Result<Checkpoint> {
        let Save { cursor, forced, .. } = *save;
        if save.token.is_some() || !forced {
            self.log().check_fence(subscriber, save.token)?;
        }
        if !forced {
            self.log().check_epoch(subscriber, cursor)?;
        }
        let tail = self.tail().sequence;
        if cursor.sequence > tail {
            return Err(Error::BeyondTail { after: cursor.sequence, tail });
        }
        let old = self.checkpoint(subscriber)?;
        let (at, revision) =
            old.as_ref().map_or((Sequence::ZERO, 0), |old| (old.cursor.sequence, old.revision));
        if save.seen.is_some_and(|seen| seen != seen_of(old.as_ref())) {
            return Err(Error::CheckpointMoved { subscriber: subscriber.to_owned(), at, revision });
        }
        if let (Some(old), false, None) = (&old, forced, cursor.epoch) {
            self.log().check_epoch(subscriber, old.cursor)?;
        }
        let taken = old.as_ref().map_or(Sequence::ZERO, |old| self.log().taken(old));
        if !forced && cursor.sequence < taken {
            let to = cursor.sequence;
            return Err(Error::CheckpointBackwards { subscriber: subscriber.to_owned(), at, to });
        }
        let now = self.now();
        let checkpoint = Checkpoint {
            subscriber_id: subscriber.to_owned(),
            cursor: Cursor { epoch: Some(self.log().epoch), ..cursor },
            created_at: old.as_ref().map_or(now, |old| old.created_at),
            updated_at: now,
            revision: revision + u64::from(forced && old.is_some()),
            metadata: save.metadata.clone().or_else(|| old.and_then(|old| old.metadata)),
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

    /// Takes a checkpoint over: from now on it is saved with the token that this gives, and with no other.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn take_over(&mut self, subscriber: &str) -> Result<FenceToken> {
        let mut statement = self.conn().prepare_cached(
            "INSERT OR REPLACE INTO _cdc_fence(subscriber, token) VALUES (?1, randomblob(16)) RETURNING token",
        )?;
        Ok(FenceToken::from_bytes(statement.query_row([subscriber], |row| row.get(0))?))
    }

    /// Notes what a consumer's own transaction appended from `first` on, so that it passes over that, however often its
    /// checkpoint is set back.
    pub(crate) fn note_own_effects(&mut self, subscriber: &str, first: Sequence) -> Result<()> {
        let last = self.tail().sequence;
        if last < first {
            return Ok(());
        }
        let range = params![subscriber, first.as_i64(), last.as_i64()];
        let grown = self
            .conn()
            .prepare_cached(
                "UPDATE _cdc_effect SET last = ?3 WHERE subscriber = ?1 AND last = ?2 - 1 \
                 AND first = (SELECT max(first) FROM _cdc_effect WHERE subscriber = ?1)",
            )?
            .execute(range)?;
        if grown == 0 {
            self.conn()
                .prepare_cached("INSERT INTO _cdc_effect(subscriber, first, last) VALUES (?1, ?2, ?3)")?
                .execute(range)?;
            // What is not in the log any more cannot come again.
            self.conn()
                .prepare_cached("DELETE FROM _cdc_effect WHERE subscriber = ?1 AND first < ?2 AND last < ?2")?
                .execute(params![subscriber, self.log().floor()?.as_i64()])?;
        }
        Ok(())
    }

    /// Forgets a subscriber, also who has taken it over and which events it caused. Gives whether there was a
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::CheckpointFenced`] unless it is removed by who has taken it over last, or by an operator.
    pub fn remove_checkpoint(&mut self, subscriber: &str, by: Remover) -> Result<bool> {
        match by {
            Remover::Anybody => self.log().check_fence(subscriber, None)?,
            Remover::Holder(token) => self.log().check_fence(subscriber, Some(token))?,
            Remover::Operator => {}
        }
        self.conn().prepare_cached("DELETE FROM _cdc_fence WHERE subscriber = ?1")?.execute([subscriber])?;
        self.conn().prepare_cached("DELETE FROM _cdc_effect WHERE subscriber = ?1")?.execute([subscriber])?;
        let mut statement =
            self.conn().prepare_cached("DELETE FROM _cdc_checkpoint WHERE subscriber = ?1")?;
        Ok(statement.execute([subscriber])? > 0)
    }
}
