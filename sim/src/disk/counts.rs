/// What happened on a disk since it was mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Files opened.
    pub opens: u64,
    /// Files created.
    pub creates: u64,
    /// Databases that came by a copy in the real file system.
    pub copied: u64,
    /// Files deleted.
    pub deletes: u64,
    /// Reads of a file.
    pub reads: u64,
    /// Writes to a file.
    pub writes: u64,
    /// Changes of a file's length.
    pub truncates: u64,
    /// Syncs of a file, and of a folder after a deletion.
    pub syncs: u64,
    /// Transactions that wrote and that SQLite took for committed; ones of several databases count once for each.
    pub commits: u64,
    /// Losses of power.
    pub crashes: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Unsynced operations that a loss of power undid.
    pub lost: u64,
    /// Unsynced operations that outlived a loss of power.
    pub kept: u64,
    /// Unsynced writes of which some sectors outlived a loss of power.
    pub torn: u64,
    /// Reads that failed by plan.
    pub read_errors: u64,
    /// Writes and truncates that failed by plan.
    pub write_errors: u64,
    /// Syncs that failed by plan.
    pub sync_errors: u64,
    /// Opens that failed by plan.
    pub open_errors: u64,
    /// Deletions that failed by plan.
    pub delete_errors: u64,
    /// Operations refused for want of space.
    pub full: u64,
    /// Bits flipped, by order or by a crash.
    pub flips: u64,
}
