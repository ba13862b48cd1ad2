use std::path::PathBuf;
use std::sync::Arc;

use cdc_model::{Epoch, ObjectId, Remedy, Sequence};

/// What an operation of this crate gives back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the hot tier did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused.
    #[error("SQLite refused")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored value does not decode.
    #[error("a stored value does not decode")]
    Value(#[from] cdc_model::Error),
    /// There is no file at this path.
    #[error("{path} does not exist")]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// The file is not a SQLite database.
    #[error("{path} is not a SQLite database")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database or its folder cannot be written.
    #[error("{path} cannot be written: capture installs triggers and a table in it")]
    NotWritable {
        /// The file.
        path: PathBuf,
    },
    /// The database lies on a network file system, where SQLite's locks cannot be relied upon.
    #[error(
        "{path} lies on a network file system ({kind}), where SQLite's locks cannot be relied upon; move it to a local disk"
    )]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// The database could not be put into WAL mode, without which a loss of power can take an acknowledged commit.
    #[error("{path} stays in journal mode {mode:?}; a log needs WAL, which its disk or file system refused")]
    NoWriteAheadLog {
        /// The file.
        path: PathBuf,
        /// The journal mode it stays in.
        mode: String,
    },
    /// The database stores its text as UTF-16.
    #[error("{path} stores its text as UTF-16; only UTF-8 databases can be captured (dump and reload it)")]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
    /// The database has no such table.
    #[error("there is no table {table:?}; the tables are: {}", known.join(", "))]
    UnknownTable {
        /// The table asked for.
        table: String,
        /// The tables that can be captured.
        known: Vec<String>,
    },
    /// The table cannot be captured.
    #[error("table {table:?} cannot be captured: {reason}")]
    UnsupportedTable {
        /// The table.
        table: String,
        /// Why not.
        reason: &'static str,
    },
    /// With capture installed, the application's writes to the table would fail. It is as it was.
    #[error("table {table:?} cannot be captured: writes to it would fail with {error}")]
    WritesWouldFail {
        /// The table.
        table: String,
        /// What SQLite says to a write.
        error: rusqlite::Error,
    },
    /// The file belongs to another object.
    #[error("{path} belongs to {found}, not to {expected}")]
    AnotherObject {
        /// The file.
        path: PathBuf,
        /// The object it names.
        found: String,
        /// The object it was opened for.
        expected: ObjectId,
    },
    /// The file is itself a log or the database of an object.
    #[error(
        "{path} is a log or the database of an object itself; only an application's database can be attached"
    )]
    IsALog {
        /// The file.
        path: PathBuf,
    },
    /// Another log drains this database: one of another project, or the object's before it was lost.
    #[error(
        "{path} is drained by another log ({by}): by another project's, where it must be detached first, or by this object's, \
         which was lost"
    )]
    DrainedElsewhere {
        /// The database.
        path: PathBuf,
        /// The other log, as it names itself.
        by: String,
    },
    /// The schema was changed by others again and again while capture was to be removed.
    #[error("the schema of {path} keeps changing; try again when its migrations are done")]
    Restless {
        /// The database.
        path: PathBuf,
    },
    /// The log is older than what it once drained: it was replaced by a copy. Nothing was drained.
    #[error(
        "the log of {object} was rewound: its capture mark is {mark}, the database holds only captured rows from {oldest}"
    )]
    LogRewound {
        /// The object.
        object: ObjectId,
        /// The capture row the log last drained.
        mark: i64,
        /// The oldest capture row the database still holds.
        oldest: i64,
    },
    /// A capture row is not as a trigger wrote it or does not fit the rows before it: somebody changed them. A drain passes
    /// over it, and a comparison makes up for it.
    #[error("capture row {row} is not as it was captured")]
    UnfitCaptureRow {
        /// Its place.
        row: i64,
    },
    /// A stored row contradicts the log's digest or order.
    #[error("the log of {object} is corrupt at sequence {at}: {reason}")]
    Corrupt {
        /// The object.
        object: ObjectId,
        /// Where.
        at: Sequence,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file is not as SQLite or the log made it.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The database of an application is not as SQLite made it. Nothing was written to it.
    #[error("the application's database {path} is damaged: {what}")]
    DatabaseDamaged {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The disk of an application's database is full: capture cannot be installed in it, or drained rows be removed. What
    /// was captured waits there.
    #[error("the disk of the application's database {path} is full")]
    DatabaseFull {
        /// The database.
        path: PathBuf,
    },
    /// The position lies before the oldest readable record: older ones were pruned. Replay the archive first, where there
    /// is one, or begin at the floor: a consumer with [`Begin::Floor`](crate::Begin), anybody with a checkpoint just
    /// before it.
    #[error("sequence {after} lies below the floor {floor} of this log")]
    BelowFloor {
        /// The position asked for.
        after: Sequence,
        /// The oldest readable sequence.
        floor: Sequence,
    },
    /// The position lies beyond the newest record.
    #[error("sequence {after} lies beyond the end of this log ({tail})")]
    BeyondTail {
        /// The position asked for.
        after: Sequence,
        /// The newest sequence.
        tail: Sequence,
    },
    /// A checkpoint would move backwards. Force it if that is meant.
    #[error("checkpoint {subscriber:?} is at {at}, it does not go back to {to} unless forced")]
    CheckpointBackwards {
        /// Whose checkpoint.
        subscriber: String,
        /// Where it is.
        at: Sequence,
        /// Where it was to go.
        to: Sequence,
    },
    /// The cursor, or the checkpoint that is there, is of another epoch: the log was made anew, and its sequences count
    /// other records. Begin anew, and force the checkpoint to where that is.
    #[error(
        "checkpoint {subscriber:?}: sequence {at} is of epoch {found}, this log of {epoch}: it was made anew and counts other records; begin anew and force the checkpoint to where that is"
    )]
    CheckpointEpoch {
        /// Whose checkpoint.
        subscriber: String,
        /// Where the cursor is in the other epoch.
        at: Sequence,
        /// The cursor's epoch.
        found: Epoch,
        /// The log's epoch.
        epoch: Epoch,
    },
    /// A checkpoint is no more where the caller saw it. Get it again and decide anew.
    #[error(
        "checkpoint {subscriber:?} was moved meanwhile: it is at {at} (revision {revision}); get it again and save from there"
    )]
    CheckpointMoved {
        /// Whose checkpoint.
        subscriber: String,
        /// Where it is; 0 when there is none.
        at: Sequence,
        /// Its revision.
        revision: u64,
    },
    /// Somebody else has taken the checkpoint over. Stop, or take it over again.
    #[error(
        "checkpoint {subscriber:?} was taken over: who holds its newest token saves it, others stop or take it over"
    )]
    CheckpointFenced {
        /// Whose checkpoint.
        subscriber: String,
    },
    /// The statement would end the transaction or touch the tables of the log.
    #[error("not allowed inside a write: {reason}")]
    NotAllowed {
        /// What was tried.
        reason: &'static str,
    },
    /// The transaction was rolled back by a statement or trigger inside it.
    #[error("the transaction was rolled back by a statement or trigger inside it; nothing was written")]
    TransactionGone,
    /// A commit failed and what is on disk is unknown. Reopen the log.
    #[error("an earlier commit failed and what is on disk is unknown; reopen the log")]
    Poisoned,
    /// The transaction that this write shared with others failed as a whole.
    #[error("the transaction that this write may have shared with others failed as a whole")]
    NotCommitted {
        /// Why, for all of them.
        source: Arc<Self>,
    },
    /// The caller's own reason to roll back.
    #[error("the write was given up: {reason}")]
    GivenUp {
        /// The caller's words.
        reason: String,
    },
}

impl Error {
    /// Whether SQLite said that somebody else holds the lock, so that trying again later helps.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(error, _))
            if matches!(error.code, DatabaseBusy | DatabaseLocked))
            || matches!(self, Self::NotCommitted { source } if source.is_busy())
    }

    /// Whether the disk is full, so that nothing is taken until there is room.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_SHMSIZE};
        let is_full = |code| matches!(code, SQLITE_FULL | SQLITE_IOERR_SHMSIZE);
        matches!(self, Self::Sqlite(error) if error.sqlite_error().is_some_and(|error| is_full(error.extended_code)))
            || matches!(self, Self::NotCommitted { source } if source.is_full_disk())
    }

    /// Whether what is stored is not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.damage().is_some()
    }

    /// As it is told of a write to the application's database, whose disk may be another than the log's.
    pub(crate) fn of_write_to(self, database: &std::path::Path) -> Self {
        // A file that was moved away while it was open is read-only, too, whatever may be written there.
        let is_read_only = matches!(&self, Self::Sqlite(rusqlite::Error::SqliteFailure(error, _))
            if error.code == rusqlite::ErrorCode::ReadOnly
                && error.extended_code != rusqlite::ffi::SQLITE_READONLY_DBMOVED);
        if self.is_full_disk() {
            Self::DatabaseFull { path: database.to_owned() }
        } else if is_read_only {
            Self::NotWritable { path: database.to_owned() }
        } else {
            self
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Sqlite(error) => remedy_of(error),
            // Another write may have rolled it back: this one is right.
            Self::NotCommitted { source } if matches!(**source, Self::TransactionGone) => Remedy::Retry,
            Self::NotCommitted { source } => source.remedy(),
            Self::Poisoned
            | Self::Restless { .. }
            | Self::CheckpointMoved { .. }
            | Self::DatabaseFull { .. }
            | Self::NoWriteAheadLog { .. } => Remedy::Retry,
            Self::NotFound { .. }
            | Self::NotADatabase { .. }
            | Self::NotWritable { .. }
            | Self::NetworkFileSystem { .. }
            | Self::Utf16 { .. }
            | Self::UnknownTable { .. }
            | Self::UnsupportedTable { .. }
            | Self::WritesWouldFail { .. }
            | Self::AnotherObject { .. }
            | Self::IsALog { .. }
            | Self::BeyondTail { .. }
            | Self::CheckpointBackwards { .. }
            | Self::CheckpointEpoch { .. }
            | Self::NotAllowed { .. }
            | Self::TransactionGone
            | Self::GivenUp { .. } => Remedy::FixRequest,
            Self::DrainedElsewhere { .. } | Self::CheckpointFenced { .. } => Remedy::Fenced,
            Self::Value(_)
            | Self::LogRewound { .. }
            | Self::UnfitCaptureRow { .. }
            | Self::Corrupt { .. }
            | Self::Damaged { .. }
            | Self::DatabaseDamaged { .. }
            | Self::BelowFloor { .. } => Remedy::Restore,
        }
    }
}

/// What to do about what SQLite says: locks, memory and full disks pass, damage does not.
fn remedy_of(error: &rusqlite::Error) -> Remedy {
    use rusqlite::ErrorCode::{
        DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase, OutOfMemory, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | DiskFull | OutOfMemory | SystemIoFailure) => Remedy::Retry,
        Some(DatabaseCorrupt | NotADatabase) => Remedy::Restore,
        _ => Remedy::FixRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_a_read_only_folder_refuses_says_that_the_database_cannot_be_written() {
        let refused =
            |code| Error::Sqlite(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        let told = |code| refused(code).of_write_to(std::path::Path::new("app.db"));
        assert!(matches!(told(rusqlite::ffi::SQLITE_READONLY_DIRECTORY), Error::NotWritable { .. }));
        assert!(matches!(told(rusqlite::ffi::SQLITE_READONLY_DBMOVED), Error::Sqlite(_)));
        assert!(matches!(told(rusqlite::ffi::SQLITE_FULL), Error::DatabaseFull { .. }));
        assert!(matches!(told(rusqlite::ffi::SQLITE_BUSY), Error::Sqlite(_)));
    }
}
