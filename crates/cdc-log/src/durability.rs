//! When a write is on disk: with its commit, or with the next one that is synced.
//!
//! Between a commit that is not synced and the next that is, a row says up to where the log is on disk. It commits with
//! the first and goes with the second, so that whoever opens the file, in whatever process, sees what may be handed on.
//! A sync is a commit that removes the row: one that changes nothing would sync nothing.

use cdc_model::Sequence;
use rusqlite::Connection;

use crate::{Log, Result, store};

/// When what a write has committed is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// When the write is acknowledged.
    #[default]
    Full,
    /// Some time later. A process that ends loses nothing; a loss of power takes the newest writes, each whole and none
    /// without those after it. Nobody is shown their events before they are on disk.
    Normal,
}

/// Under what `_cdc_meta` keeps the last position that is on disk, while there are later ones.
const SYNCED: &str = "synced";

/// The last position that is on disk, if there may be later ones.
pub(crate) fn synced(conn: &Connection) -> Result<Option<Sequence>> {
    Ok(store::meta::<i64>(conn, SYNCED)?.map(|at| Sequence::checked(at).unwrap_or_default()))
}

/// Puts the row beside what is not synced, unless it is there.
pub(crate) fn mark(conn: &Connection, synced: Sequence) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO _cdc_meta(key, value) VALUES (?1, ?2)";
    conn.prepare_cached(sql)?.execute(rusqlite::params![SYNCED, synced.as_i64()])?;
    Ok(())
}

/// Removes the row with a commit that is synced.
pub(crate) fn unmark(conn: &Connection) -> Result<()> {
    conn.prepare_cached("DELETE FROM _cdc_meta WHERE key = ?1")?.execute([SYNCED])?;
    Ok(())
}

/// What the next commit of a connection does. It cannot be changed within a transaction.
pub(crate) fn set(conn: &Connection, durability: Durability) -> Result<()> {
    let sql = match durability {
        Durability::Full => "PRAGMA synchronous = full",
        Durability::Normal => "PRAGMA synchronous = normal",
    };
    // It takes effect when it is prepared: a statement that was kept would do nothing.
    Ok(conn.execute_batch(sql)?)
}

impl Log {
    /// Sets when a [`Log::write`] is on disk; [`Durability::Full`] unless set. All else that is committed always is at
    /// once, with everything before it.
    pub const fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Whether everything that was committed is on disk, as far as this handle knows.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        !self.unsynced
    }

    /// Brings to disk what was committed with [`Durability::Normal`]. From then on [`Log::tail`] counts it, and it may be
    /// read.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite), or [`Error::Poisoned`](crate::Error::Poisoned) after an earlier commit
    /// failed.
    pub fn sync(&mut self) -> Result<()> {
        if self.unsynced { self.transact(|_| Ok(())) } else { Ok(()) }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.owes_sync {
            // What fails here is made up for by whoever opens the log next.
            drop(self.sync());
        }
    }
}
