use cdc_model::{Mark, Sequence, Timestamp};
use iceberg::spec::{DataFile, ManifestFile};

use crate::manifest::Facts;
use crate::select::{sequence_bounds, time_bounds};
use crate::snapshot::{Listing, listing};
use crate::{Archive, Result};

/// What an archive holds, by the current snapshot's list of manifests.
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
        let unknown = |manifest: &ManifestFile| {
            manifest.has_deleted_files() || Facts::parse(&manifest.manifest_path).is_none()
        };
        let Listing { files, closed } = listing(self.storage(), self.table(), unknown).await?;
        let known = closed.facts;
        let times = || files.iter().filter_map(time_bounds);
        let firsts = files.iter().map(|file| sequence_bounds(file).0);
        Ok(Status {
            location: self.location().to_owned(),
            metadata_version: self.table().version,
            snapshots: self.table().metadata.snapshots().len(),
            files: closed.files + files.len(),
            rows: closed.rows + files.iter().map(DataFile::record_count).sum::<u64>(),
            bytes: known.map_or(0, |known| known.bytes)
                + files.iter().map(DataFile::file_size_in_bytes).sum::<u64>(),
            watermark: self.watermark(),
            valid_through: self.valid_through(),
            first_sequence: firsts.chain(known.map(|known| known.first)).min(),
            oldest: times().map(|(oldest, _)| oldest).chain(known.map(|known| known.oldest)).min(),
            newest: times().map(|(_, newest)| newest).chain(known.map(|known| known.newest)).max(),
        })
    }
}
