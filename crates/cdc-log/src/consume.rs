use cdc_model::{Cursor, Filter, Record, mutant};

use crate::{Limit, Log, Result, Save, Tx};

impl Log {
    /// Hands the next records after a subscriber's checkpoint to `work`, whose effects in this database and the new
    /// checkpoint commit in one transaction: exactly once, through any crash. `None` when there is nothing new.
    ///
    /// Schema changes and records that do not pass `filter` are passed over; the checkpoint moves over them.
    ///
    /// # Errors
    ///
    /// What `work` returns; the checkpoint stays then, and the same records come again.
    pub fn consume<R>(
        &mut self,
        subscriber: &str,
        limit: Limit,
        filter: &Filter,
        work: impl FnOnce(&Tx<'_>, &[Record]) -> Result<R>,
    ) -> Result<Option<(Cursor, R)>> {
        let from = self.checkpoint(subscriber)?.map_or(Cursor::START, |checkpoint| checkpoint.cursor);
        let mut cursor = None;
        let mut passed = Vec::new();
        for record in self.read(from.sequence, limit)? {
            cursor = Some(record.cursor());
            if !record.body.is_schema() && filter.passes(&record)? {
                passed.push(record);
            }
        }
        let Some(cursor) = cursor else { return Ok(None) };
        if mutant!("checkpoint-before-effect") {
            self.transact(|log| log.save_checkpoint(subscriber, cursor, None, Save::Advance).map(drop))?;
        }
        let done = self.write_with(|tx, log| {
            tx.outside_guard(|| log.save_checkpoint(subscriber, cursor, None, Save::Advance))?;
            work(tx, &passed)
        })?;
        Ok(Some((cursor, done)))
    }
}
