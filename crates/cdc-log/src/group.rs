//! Several writes in one transaction: one commit and one sync for all of them, and each is undone by itself.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cdc_model::mutant;

use crate::owned::OwnCapture;
use crate::{Durability, Error, Log, LogTransaction, Result, Tx};

/// Records that the writes of one transaction append at most, unless its last write alone appends more.
const RECORDS_MAX: u64 = 20_000;

/// A transaction that several writes share; see [`Log::group`].
#[derive(Debug)]
pub struct Group<'g, 'l> {
    log: &'g mut LogTransaction<'l>,
    own: &'g mut OwnCapture,
}

const BEGIN: &str = "SAVEPOINT _cdc_write";
const KEEP: &str = "RELEASE _cdc_write";
const UNDO: &str = "ROLLBACK TO _cdc_write; RELEASE _cdc_write";

impl Log {
    /// Runs `work` in one transaction in which it may do several writes. A write that fails is undone by itself, and the
    /// others commit. `Ok` means that they are committed, and as durable as `durability` says.
    ///
    /// # Errors
    ///
    /// Then all of them failed: [`Error::TransactionGone`] when a statement of one rolled the transaction back,
    /// [`Error::Sqlite`] when it could not be committed, [`Error::Poisoned`] after an earlier commit failed.
    pub fn group<R>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&mut Group<'_, '_>) -> R,
    ) -> Result<R> {
        self.transact_owned_as(durability, |log, own| Ok(work(&mut Group { log, own })))
    }
}

impl<'l> Group<'_, 'l> {
    /// As [`Log::write`], together with the others.
    ///
    /// # Errors
    ///
    /// As for [`Log::write`]; nothing of this one is written then.
    pub fn write<R>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        self.member(|log, own| {
            own.prepare(log)?;
            own.drain_whole(log)?;
            own.write(log, work)
        })
    }

    /// As [`Log::transact`], together with the others.
    ///
    /// # Errors
    ///
    /// What `work` returns; nothing of this one is written then.
    pub fn transact<R>(&mut self, work: impl FnOnce(&mut LogTransaction<'l>) -> Result<R>) -> Result<R> {
        self.member(|log, _| work(log))
    }

    /// Whether it is to be committed before another write: it has grown large, the last write has left more than one
    /// chunk to drain, or there is no transaction any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let appended = self.log.tail().sequence.get() - self.log.log().newest.position.sequence.get();
        appended >= RECORDS_MAX || self.own.has_more() || self.log.conn().is_autocommit()
    }

    /// Whether a write must have a transaction to itself here, because the schema lets it roll others back.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn writes_alone(&mut self) -> Result<bool> {
        self.own.writes_alone(self.log.conn())
    }

    fn member<R>(
        &mut self,
        work: impl FnOnce(&mut LogTransaction<'l>, &mut OwnCapture) -> Result<R>,
    ) -> Result<R> {
        let conn = self.log.conn();
        if conn.is_autocommit() {
            return Err(Error::TransactionGone);
        }
        conn.prepare_cached(BEGIN)?.execute([])?;
        let before = self.log.appended();
        let done = catch_unwind(AssertUnwindSafe(|| work(self.log, self.own)));
        match done {
            Ok(Ok(done)) => {
                conn.prepare_cached(KEEP)?.execute([])?;
                return Ok(done);
            }
            // What was known of capture may be of what is undone.
            Ok(Err(_)) | Err(_) => *self.own = OwnCapture::default(),
        }
        self.log.set_appended(before);
        if !conn.is_autocommit() {
            conn.execute_batch(if mutant!("failed-write-kept") { KEEP } else { UNDO }).or_else(|_| {
                // Then all of the transaction goes, which whoever shares it is told.
                conn.execute_batch("ROLLBACK")
            })?;
        }
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
