use cdc_model::{Mark, Sequence, Timestamp};
use iceberg::spec::DataFile;

use crate::select::{sequence_bounds, time_bounds};
use crate::snapshot::data_files;
use crate::{Archive, Result};

/// What an archive holds, counted from the current snapshot's manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The address of the table.
    pub location: String,
    /// The number of the newest metadata file.
    pub metadata_version: u64,
    /// Snapshots that can still be read.
    pub snapshots: usize,
    /// Data files.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes, compressed.
    pub bytes: u64,
    /// How far the log is archived.
    pub watermark: Option<Mark>,
    /// The log time of the newest archived record.
    pub valid_through: Option<Timestamp>,
    /// The first log sequence that is a row here.
    pub first_sequence: Option<Sequence>,
    /// The time of the oldest event, by its origin.
    pub oldest: Option<Timestamp>,
    /// The time of the newest event, by its origin.
    pub newest: Option<Timestamp>,
}

impl Archive {
    /// What the archive holds as it was last looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage) or [`Error::Corrupt`](crate::Error::Corrupt).
    pub async fn status(&self) -> Result<Status> {
        let files = data_files(self.storage(), self.table()).await?;
        let times = || files.iter().filter_map(time_bounds);
        Ok(Status {
            location: self.location().to_owned(),
            metadata_version: self.table().version,
            snapshots: self.table().metadata.snapshots().len(),
            files: files.len(),
            rows: files.iter().map(DataFile::record_count).sum(),
            bytes: files.iter().map(DataFile::file_size_in_bytes).sum(),
            watermark: self.watermark(),
            valid_through: self.valid_through(),
            first_sequence: files.iter().map(|file| sequence_bounds(file).0).min(),
            oldest: times().map(|(oldest, _)| oldest).min(),
            newest: times().map(|(_, newest)| newest).max(),
        })
    }
}
