/// Requests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCounts {
    /// All requests, those of dead hosts too.
    pub requests: u64,
    /// Writes and deletes that took place, told or not.
    pub changes: u64,
    /// Not done and reported as failed.
    pub errors: u64,
    /// Done and reported as failed: only writes and deletes that took place.
    pub lost_acks: u64,
    /// Reported as failed and done later; not those that then could not be done.
    pub late: u64,
    /// Done, asked again by the client itself, and reported as there already.
    pub echoes: u64,
    /// Refused for being too many.
    pub throttled: u64,
    /// Done late.
    pub slow: u64,
    /// Writes refused by a full store.
    pub full: u64,
    /// Requests of hosts that are dead, which did nothing.
    pub dead: u64,
    /// Creates that found the object there.
    pub exists: u64,
}
