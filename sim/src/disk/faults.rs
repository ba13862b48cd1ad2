use std::time::Duration;

use crate::random::Random;

/// What goes wrong on a disk besides crashes. The default is a sound disk without end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads that fail with an I/O error, of a million.
    pub read_errors_per_million: u32,
    /// Writes and truncates that fail with an I/O error and change nothing, of a million.
    pub write_errors_per_million: u32,
    /// Syncs that fail with an I/O error, of a million. What they were to make durable stays unsynced.
    pub sync_errors_per_million: u32,
    /// Opens that fail with `SQLITE_CANTOPEN`, of a million.
    pub open_errors_per_million: u32,
    /// Deletions that fail with an I/O error and delete nothing, of a million.
    pub delete_errors_per_million: u32,
    /// What every sync takes of simulated time.
    pub sync_time: Duration,
    /// Syncs that take `slow_sync_time` more, of a million.
    pub slow_syncs_per_million: u32,
    /// What a slow sync takes more.
    pub slow_sync_time: Duration,
    /// Syncs say that they did and do nothing.
    pub sync_lies: bool,
    /// Losses of power that flip one bit of one database, of a million.
    pub flips_per_million_crashes: u32,
    /// Bytes that all files together hold at most, shared memory included.
    pub capacity_bytes: Option<u64>,
}

/// Whether a thing happens that does so often of a million; a thing that never does draws no number.
pub(super) fn strikes(random: &mut Random, per_million: u32) -> bool {
    per_million > 0 && random.next() % 1_000_000 < u64::from(per_million)
}
