use cdc_model::{Clock, Entropy};
use serde::{Deserialize, Serialize};

use crate::retention::SNAPSHOTS_KEPT;

/// How data files are cut and how much of the table's past is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// A data file ends at this many rows. At least 1.
    pub rows_per_file_max: usize,
    /// A data file ends at the first rows that bring it to this many bytes, compressed.
    pub bytes_per_file_max: usize,
    /// Each commit removes the snapshots beyond this many newest ones. Rows are never removed: the newest snapshot has
    /// them all. At least 1.
    pub snapshots_kept: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rows_per_file_max: 100_000, bytes_per_file_max: 128 << 20, snapshots_kept: SNAPSHOTS_KEPT }
    }
}

impl Settings {
    /// The same with data files of at most this many rows.
    #[must_use]
    pub fn with_rows_per_file_max(mut self, rows: usize) -> Self {
        self.rows_per_file_max = rows;
        self
    }

    /// The same with data files of about this many bytes at most.
    #[must_use]
    pub fn with_bytes_per_file_max(mut self, bytes: usize) -> Self {
        self.bytes_per_file_max = bytes;
        self
    }

    /// The same with this many snapshots kept.
    #[must_use]
    pub fn with_snapshots_kept(mut self, snapshots: usize) -> Self {
        self.snapshots_kept = snapshots;
        self
    }
}

/// What an archive takes from its surroundings.
#[derive(Clone, Debug)]
pub struct Components {
    /// The time stamped on snapshots.
    pub clock: Clock,
    /// Names of files and snapshots.
    pub entropy: Entropy,
}

impl Components {
    /// The machine's clock and randomness.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::system(), entropy: Entropy::system() }
    }
}
