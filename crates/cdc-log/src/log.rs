use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cdc_model::{Clock, Cursor, Epoch, ObjectId, Origin, Position, Timestamp, mutant, reached};
use rusqlite::Connection;

use crate::comparison;
use crate::durability::{self, Durability};
use crate::owned::OwnCapture;
use crate::read::{Origins, Tail};
use crate::retention::Measured;
use crate::transaction::LogTransaction;
use crate::{Error, Result, store};

/// The hot log of one object: an append-only table in SQLite, with the marks and checkpoints of everything that
/// reads from it or writes to it.
///
/// For an object whose database the engine owns, the log lies in that database; for an attached one in a file of
/// its own. One process opens it at a time.
#[derive(Debug)]
pub struct Log {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    pub(crate) id: ObjectId,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Clock,
    /// The newest row that is on disk, which is the last that anybody is shown.
    pub(crate) tail: Tail,
    /// The newest row.
    pub(crate) newest: Tail,
    /// Whether there may be later rows than the tail, or changes of other tables, that are not on disk.
    pub(crate) unsynced: bool,
    pub(crate) durability: Durability,
    /// What the connection is set to.
    commits_with: Durability,
    /// Whether this handle has committed what is not on disk, and has to bring it there.
    pub(crate) owes_sync: bool,
    pub(crate) own: Arc<Origin>,
    pub(crate) origins: Origins,
    pub(crate) poisoned: bool,
    keeps_wal_small: bool,
    /// Set while a caller's statements run; see [`crate::Tx`].
    pub(crate) guarded: Arc<AtomicBool>,
    pub(crate) own_capture: OwnCapture,
    pub(crate) measured: Measured,
}

/// With our mark in them, like all statements of ours: see [`crate::Tx::prepare_cached`].
const BEGIN: &str = "BEGIN IMMEDIATE -- _cdc_log";
const COMMIT: &str = "COMMIT -- _cdc_log";
impl Log {
    /// Opens the log at `path` for the object `id`, making it if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::AnotherObject`], [`Error::Corrupt`], or [`Error::Sqlite`].
    pub fn open(path: impl AsRef<Path>, id: &ObjectId, clock: &Clock) -> Result<Self> {
        let path = path.as_ref();
        Self::open_file(path, id, clock).map_err(|error| error.of_log(path))
    }

    fn open_file(path: &Path, id: &ObjectId, clock: &Clock) -> Result<Self> {
        let mut conn = store::open(path)?;
        let guarded = Arc::new(AtomicBool::new(false));
        crate::owned::guard(&mut conn, &guarded)?;
        let epoch = store::prepare(&conn, path, id)?;
        let mut log = Self {
            own: Origin::new(id.clone(), epoch, Vec::new()),
            conn,
            path: path.to_owned(),
            id: id.clone(),
            epoch,
            clock: clock.clone(),
            tail: Tail::default(),
            newest: Tail::default(),
            unsynced: false,
            durability: Durability::Full,
            commits_with: Durability::Full,
            owes_sync: false,
            origins: Origins::default(),
            poisoned: false,
            keeps_wal_small: false,
            guarded,
            own_capture: OwnCapture::default(),
            measured: Measured::default(),
        };
        log.refresh()?;
        Ok(log)
    }

    /// Opens the log anew after a commit that failed; does nothing otherwise. What is on disk counts from here on.
    ///
    /// # Errors
    ///
    /// As for [`Log::open`]; the log stays as it is then.
    pub fn recover(&mut self) -> Result<()> {
        if self.poisoned {
            reached!("log.reopened");
            let mut anew = Self::open(&self.path, &self.id, &self.clock)?;
            anew.durability = self.durability;
            if self.unsynced {
                // A sync that failed may have taken for written what never reached the disk, and the next would not write
                // it. So all of it is written again, into the file.
                store::move_wal(&anew.conn)?;
            }
            if self.keeps_wal_small {
                anew.keep_wal_small()?;
            }
            anew.make_durable()?;
            *self = anew;
        }
        Ok(())
    }

    /// Keeps the write-ahead log small, as is right for one log of very many in a process. It is moved into the file more
    /// often then.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn keep_wal_small(&mut self) -> Result<()> {
        self.keeps_wal_small = true;
        store::keep_wal_small(&self.conn)
    }

    /// Gives back memory that only makes the next use faster.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn release_memory(&self) -> Result<()> {
        store::release_memory(&self.conn)
    }

    /// Leaves the write-ahead log when the log is closed, so that closing costs no sync. Whoever opens the log next finds
    /// what is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn leave_wal(&self) -> Result<()> {
        store::leave_wal(&self.conn)
    }

    /// Whether a commit failed, so that nobody knows what is on disk: see [`Log::recover`].
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Brings to disk what the file shows of an earlier process or of a commit that failed: a commit that was written
    /// and not synced is visible, and a loss of power can still take it. Whoever hands on what a log holds calls this
    /// when the log was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn make_durable(&mut self) -> Result<()> {
        if self.unsynced {
            // Should a sync of it have failed, the next one syncs nothing of it.
            match store::move_wal(&self.conn) {
                Err(error) if !error.is_busy() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        // Only a commit that changes something syncs.
        self.transact(|log| log.count("openings", 1))
    }

    /// The object.
    #[must_use]
    pub const fn id(&self) -> &ObjectId {
        &self.id
    }

    /// The log's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest durable position, with the running digest at it. Later rows are not on disk, and nobody is shown them:
    /// see [`Log::sync`].
    #[must_use]
    pub const fn tail(&self) -> Position {
        self.tail.position
    }

    /// The cursor after the newest record.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor {
            sequence: self.tail.position.sequence,
            timestamp: self.tail.timestamp,
            epoch: Some(self.epoch),
        }
    }

    /// When the last comparison of all tables with the log had begun that is done: what bypassed capture before is in the
    /// log. `None` before the first.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn compared_at(&self) -> Result<Option<Timestamp>> {
        comparison::compared_at(&self.conn)
    }

    /// Runs `work` in one transaction of the log's file. `Ok` means durable, with everything before it.
    ///
    /// # Errors
    ///
    /// What `work` returns, after a rollback; [`Error::Poisoned`] after an earlier commit failed.
    pub fn transact<R>(&mut self, work: impl FnOnce(&mut LogTransaction<'_>) -> Result<R>) -> Result<R> {
        self.transact_as(Durability::Full, work)
    }

    /// As [`Log::transact`]; with [`Durability::Normal`] it is on disk once a later transaction is.
    pub(crate) fn transact_as<R>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&mut LogTransaction<'_>) -> Result<R>,
    ) -> Result<R> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        if self.commits_with != durability {
            durability::set(&self.conn, durability)?;
            self.commits_with = durability;
        }
        let is_full = durability == Durability::Full;
        self.conn.prepare_cached(BEGIN)?.execute([])?;
        let open = OpenTransaction(&self.conn);
        let mut transaction = LogTransaction::new(self);
        let mut committing = false;
        let done = work(&mut transaction).and_then(|done| {
            if self.conn.is_autocommit() {
                return Err(Error::TransactionGone);
            }
            transaction.keep_digest()?;
            match is_full {
                true if self.unsynced && !mutant!("sync-changes-nothing") => durability::unmark(&self.conn)?,
                true => {}
                // Where there is no row, everything that this handle knows of is on disk.
                false => durability::mark(&self.conn, self.newest.position.sequence)?,
            }
            let mut commit = self.conn.prepare_cached(COMMIT)?;
            committing = true;
            let committed = commit.execute([]);
            if !mutant!("ack-without-commit") {
                committed?;
            }
            Ok(done)
        });
        let (tail, origins) = transaction.into_parts();
        // A COMMIT that is refused (a deferred foreign key) leaves the transaction open; one that fails ends it.
        let unknown = committing && done.is_err() && self.conn.is_autocommit();
        drop(open);
        match done {
            Ok(done) => {
                self.newest = tail;
                (self.unsynced, self.owes_sync) = (!is_full, !is_full);
                if is_full || mutant!("sent-before-synced") {
                    self.tail = tail;
                }
                self.origins.merge(origins);
                Ok(done)
            }
            Err(error) => {
                if mutant!("tail-moved-before-commit") {
                    (self.tail, self.newest) = (tail, tail);
                }
                self.poisoned = unknown || !self.conn.is_autocommit();
                Err(error)
            }
        }
    }
}

/// Rolls back what is still open when it goes, also when the caller's work panics.
pub(crate) struct OpenTransaction<'c>(pub(crate) &'c Connection);

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            // A rollback that fails leaves the transaction open, which is checked for.
            drop(self.0.execute_batch("ROLLBACK"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use cdc_model::{ChangeBody, Operation, Record};

    use super::*;

    fn append(log: &mut Log, fails: bool) -> Result<Record> {
        log.transact(|transaction| {
            let body = ChangeBody::new(Operation::Delete, "t", "1").to_body();
            let record = transaction.append(Timestamp::ZERO, body)?;
            // The hook then turns the commit into a rollback, as a failing disk does.
            transaction.log().guarded.store(fails, Ordering::Relaxed);
            Ok(record)
        })
    }

    #[test]
    fn after_a_commit_that_failed_the_log_takes_nothing_until_it_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let id = "https://crm.headless.ly/acme".parse().unwrap();
        let mut log = Log::open(folder.path().join("log.db"), &id, &Clock::system()).unwrap();
        append(&mut log, false).unwrap();
        let tail = log.tail();
        assert!(matches!(append(&mut log, true), Err(Error::Sqlite(_))));
        log.guarded.store(false, Ordering::Relaxed);
        assert!(matches!(append(&mut log, false), Err(Error::Poisoned)));
        log.recover().unwrap();
        assert_eq!(log.tail(), tail);
        assert_eq!(append(&mut log, false).unwrap().sequence, tail.sequence.next());
    }
}
