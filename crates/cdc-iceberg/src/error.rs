use std::error::Error as StdError;
use std::io::ErrorKind;

use cdc_model::{Mark, ObjectId, Remedy, Sequence};

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any cause.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// What went wrong in the cold tier. [`Error::remedy`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text does not name a place this build can archive to.
    #[error("{location:?} is not a warehouse; write {supported}")]
    UnsupportedLocation {
        /// The refused text.
        location: String,
        /// What would be understood.
        supported: &'static str,
    },
    /// There is no such warehouse or no such table.
    #[error("nothing is archived at {location}")]
    NotFound {
        /// The address of the table or of the warehouse.
        location: String,
    },
    /// Something that this crate did not write lies where the table should be.
    #[error("{location} is not an archive of {object}: {reason}; move it away or choose another warehouse")]
    NotATable {
        /// The address of the table.
        location: String,
        /// The object whose archive was asked for.
        object: ObjectId,
        /// What was found.
        reason: &'static str,
    },
    /// The warehouse cannot be written.
    #[error(
        "the warehouse cannot be written at {path}; make it writable for this user or choose another warehouse"
    )]
    Unwritable {
        /// The path or address.
        path: String,
        /// The store's own error.
        source: Cause,
    },
    /// The store overwrites although told to create only, so two archivers could destroy each other's commits.
    #[error("{location} ignores create-if-absent; use a store that honours If-None-Match")]
    CreateNotExclusive {
        /// The address of the warehouse.
        location: String,
    },
    /// Table metadata points out of the warehouse, as after the folder was moved: addresses are absolute.
    #[error("{location} lies outside the warehouse {warehouse}; open it under the path it was written to")]
    OutsideWarehouse {
        /// The address found in the metadata.
        location: String,
        /// The warehouse that was opened.
        warehouse: String,
    },
    /// The store failed.
    #[error("could not {operation} {location}")]
    Storage {
        /// What was tried.
        operation: &'static str,
        /// The address.
        location: String,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The store's own error.
        source: object_store::Error,
    },
    /// A file of the table is damaged or of a later format.
    #[error("{file} is not readable as {expected}")]
    Corrupt {
        /// The address of the file.
        file: String,
        /// What it should be.
        expected: &'static str,
        /// The decoder's own error.
        source: Cause,
    },
    /// Table property and snapshot name different marks: someone else's commit moved one of them.
    #[error(
        "{location}: the table property says {property:?}, the snapshot {snapshot:?}; restore the older metadata"
    )]
    MarkConflict {
        /// The address of the metadata.
        location: String,
        /// The mark in the table's properties.
        property: Option<Mark>,
        /// The mark in the current snapshot or its nearest ancestor that carries one.
        snapshot: Option<Mark>,
    },
    /// The batch does not follow the table's watermark.
    #[error("the archive of {object} refused a batch; it stands at {mark:?}")]
    Refused {
        /// The object whose archive refused.
        object: ObjectId,
        /// The watermark that counts now; re-cut the batch after it.
        mark: Option<Mark>,
        /// Why.
        source: cdc_model::Refusal,
    },
    /// The batch contradicts itself.
    #[error("the batch is malformed at sequence {sequence}: {reason}")]
    BadBatch {
        /// Where.
        sequence: Sequence,
        /// What is wrong.
        reason: &'static str,
    },
    /// The store never said whether the commit took place. The next call looks.
    #[error("no answer whether version {version} of {location} was committed")]
    Unclear {
        /// The address of the table.
        location: String,
        /// The metadata version that was written.
        version: u64,
        /// The last failure.
        source: Box<Self>,
    },
    /// Others committed first each time.
    #[error("{location}: lost {attempts} races for a commit that did not move the watermark")]
    Contended {
        /// The address of the table.
        location: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A record's body is not what a log stores.
    #[error("the record at sequence {sequence} cannot be stored as a row")]
    Row {
        /// The record's place in the log.
        sequence: Sequence,
        /// Why.
        source: cdc_model::Error,
    },
    /// A stored row is not a record.
    #[error("{file}: the row at sequence {sequence} is not a record")]
    Unreadable {
        /// The data file.
        file: String,
        /// The row's place in the log.
        sequence: Sequence,
        /// Why.
        source: cdc_model::Error,
    },
    /// A stored row breaks a rule that every archive keeps.
    #[error("{file}: {reason} at sequence {sequence}")]
    BadRow {
        /// The data file.
        file: String,
        /// The row's place in the log, as far as it is known.
        sequence: Sequence,
        /// The broken rule.
        reason: &'static str,
    },
    /// A sequence came twice or out of order while reading.
    #[error("{file}: sequence {found} after {previous}")]
    Repeat {
        /// The data file.
        file: String,
        /// The last sequence given out.
        previous: Sequence,
        /// The one that came next.
        found: Sequence,
    },
    /// The table library refused what this crate asked of it.
    #[error("could not {operation}")]
    Table {
        /// What was tried.
        operation: &'static str,
        /// Its own error.
        source: Box<iceberg::Error>,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Storage { retryable: true, .. } | Self::Unclear { .. } | Self::Contended { .. } => {
                Remedy::Retry
            }
            Self::Refused { source, .. } => source.remedy(),
            Self::UnsupportedLocation { .. }
            | Self::NotFound { .. }
            | Self::NotATable { .. }
            | Self::Unwritable { .. }
            | Self::CreateNotExclusive { .. }
            | Self::OutsideWarehouse { .. }
            | Self::Storage { retryable: false, .. }
            | Self::BadBatch { .. }
            | Self::Row { .. } => Remedy::FixRequest,
            Self::Corrupt { .. }
            | Self::MarkConflict { .. }
            | Self::Unreadable { .. }
            | Self::BadRow { .. }
            | Self::Repeat { .. } => Remedy::Restore,
            Self::Table { .. } => Remedy::Bug,
        }
    }

    pub(crate) fn storage(
        operation: &'static str,
        location: impl Into<String>,
        source: object_store::Error,
    ) -> Self {
        let location = location.into();
        if matches!(source, object_store::Error::NotFound { .. }) {
            return Self::NotFound { location };
        }
        match io_kind(&source) {
            Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory)
                if operation == "write" =>
            {
                Self::Unwritable { path: location, source: source.into() }
            }
            kind => Self::Storage { operation, location, retryable: is_retryable(&source, kind), source },
        }
    }

    pub(crate) fn corrupt(file: &str, expected: &'static str) -> impl FnOnce(Cause) -> Self {
        let file = file.to_owned();
        move |source| Self::Corrupt { file, expected, source }
    }

    /// The same for the whole warehouse when it is one file of it that cannot be written.
    pub(crate) fn at(self, warehouse: &str) -> Self {
        if let Self::Unwritable { source, .. } = self {
            return Self::Unwritable { path: warehouse.to_owned(), source };
        }
        self
    }

    /// This error of reading a file of the table: what is missing or does not parse is damage, a failing store is not.
    pub(crate) fn of_file(self, file: &str, expected: &'static str) -> Self {
        if let Self::Table { source, .. } = self {
            return Self::corrupt(file, expected)(source);
        }
        if matches!(self, Self::NotFound { .. }) {
            return Self::corrupt(file, expected)("it is missing".into());
        }
        self
    }

    pub(crate) fn table(operation: &'static str) -> impl FnOnce(iceberg::Error) -> Self {
        move |source| Self::from_iceberg(operation, source)
    }

    /// Our own storage errors travel through the table library; here they come out again.
    pub(crate) fn from_iceberg(operation: &'static str, source: iceberg::Error) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&source);
        while let Some(error) = cause {
            if let Some(carried) = error.downcast_ref::<Carried>().and_then(Carried::take) {
                return carried;
            }
            cause = error.source();
        }
        Self::Table { operation, source: Box::new(source) }
    }
}

pub(crate) fn io_kind(error: &object_store::Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

fn is_retryable(error: &object_store::Error, kind: Option<ErrorKind>) -> bool {
    let transport =
        matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. });
    let fixed = matches!(
        kind,
        Some(
            ErrorKind::PermissionDenied
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::InvalidFilename
        )
    );
    transport && !fixed
}

/// Carries an [`Error`] through the table library, which wraps it in its own, and out again whole.
#[derive(Debug, thiserror::Error)]
#[error("the warehouse's store failed")]
pub(crate) struct Carried(std::sync::Mutex<Option<Box<Error>>>);

impl Carried {
    pub(crate) fn new(error: Error) -> Self {
        Self(std::sync::Mutex::new(Some(Box::new(error))))
    }

    fn take(&self) -> Option<Error> {
        let mut inner = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.take().map(|error| *error)
    }
}
