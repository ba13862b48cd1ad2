use cdc_model::{Cursor, FenceToken, Filter, Record, Sequence, Tag, mutant};

use crate::{Durability, Limit, Log, Result, Save, Tx};

/// Where a subscriber begins that has no checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// At the first record there ever was: where it was pruned, that is an error.
    #[default]
    First,
    /// At the oldest record that is still there; those before it were never taken.
    Floor,
}

/// Who consumes a log with effects in the log's own database, and what of it.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Whose checkpoint moves.
    pub subscriber: String,
    /// Where it begins while it has no checkpoint.
    pub begin: Begin,
    /// With which token, once the checkpoint was taken over; see [`LogTransaction::take_over`](crate::LogTransaction).
    pub token: Option<FenceToken>,
    /// What is handed on; the checkpoint moves over the rest.
    pub filter: Filter,
    /// At most so much in one transaction; 0 records count as 1.
    pub limit: Limit,
}

impl Subscription {
    /// All changes, in batches of the default size.
    pub fn new(subscriber: impl Into<String>) -> Self {
        let subscriber = subscriber.into();
        Self { subscriber, begin: Begin::First, token: None, filter: Filter::ALL, limit: Limit::default() }
    }
}

/// What came of consuming a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed<R> {
    /// Where the checkpoint is now.
    pub cursor: Cursor,
    /// What the work gave; `None` when all of the batch was passed over.
    pub done: Option<R>,
}

impl Log {
    /// Hands the next records after a subscriber's checkpoint to `work`, whose effects in this database and the new
    /// checkpoint commit in one transaction: exactly once, through any crash. `None` when there is nothing new.
    ///
    /// Passed over are schema changes, what does not pass the filter, and the events of what `work` itself did to
    /// captured tables or emitted, for the same subscriber: it would feed itself for ever.
    ///
    /// # Errors
    ///
    /// What `work` returns; the checkpoint stays then, and the same records come again.
    /// [`Error::BelowFloor`](crate::Error::BelowFloor) where what comes next was pruned,
    /// [`Error::CheckpointEpoch`](crate::Error::CheckpointEpoch) with a checkpoint of another epoch,
    /// [`Error::CheckpointFenced`](crate::Error::CheckpointFenced), and
    /// [`Error::CheckpointMoved`](crate::Error::CheckpointMoved) when another process has moved the checkpoint just now.
    pub fn consume<R>(
        &mut self,
        by: &Subscription,
        work: impl FnOnce(&Tx<'_>, &[Record]) -> Result<R>,
    ) -> Result<Option<Consumed<R>>> {
        let subscriber = by.subscriber.as_str();
        self.check_fence(subscriber, by.token)?;
        let seen = self.checkpoint(subscriber)?;
        let after = match (&seen, by.begin) {
            (Some(checkpoint), _) => {
                self.check_epoch(subscriber, checkpoint.cursor)?;
                checkpoint.cursor.sequence
            }
            (None, Begin::First) => Sequence::ZERO,
            (None, Begin::Floor) => self.below_floor()?.sequence,
        };
        let limit = Limit { records: by.limit.records.max(1), ..by.limit };
        let batch = self.read(after, limit)?;
        let Some(cursor) = batch.last().map(Record::cursor) else { return Ok(None) };
        let own = self.own_effects(subscriber, after, cursor.sequence)?;
        let mut passed = Vec::new();
        for record in batch {
            let caused = own.iter().any(|(first, last)| (*first..=*last).contains(&record.sequence));
            let taken = !caused || is_found(&record)? || mutant!("own-effects-consumed");
            if taken && !record.body.is_schema() && by.filter.passes(&record)? {
                passed.push(record);
            }
        }
        let save = Save::at(cursor).expecting(seen.as_ref()).token(by.token);
        if mutant!("checkpoint-before-effect") {
            self.transact(|log| log.save_checkpoint(subscriber, &save).map(drop))?;
            let done = self.write(|tx| work(tx, &passed))?;
            return Ok(Some(Consumed { cursor, done: Some(done) }));
        }
        if passed.is_empty() {
            self.transact(|log| log.save_checkpoint(subscriber, &save).map(drop))?;
            return Ok(Some(Consumed { cursor, done: None }));
        }
        self.drain_foreign()?;
        let done = self.write_in(Durability::Full, |log, own| {
            log.save_checkpoint(subscriber, &save)?;
            let first = log.tail().sequence.next();
            let done = own.write(log, |tx| work(tx, &passed))?;
            own.drain_whole(log)?;
            log.note_own_effects(subscriber, first)?;
            Ok(done)
        })?;
        Ok(Some(Consumed { cursor, done: Some(done) }))
    }
}

/// Whether a comparison found it: it may be anybody's, whichever transaction appended it.
fn is_found(record: &Record) -> Result<bool> {
    let tag = record.body.change()?.and_then(|change| change.tag);
    Ok(matches!(tag, Some(Tag::Reconciled | Tag::Snapshot)))
}
