//! A simulated disk below SQLite: a VFS that loses, keeps or tears what was not synced.
//!
//! A [`Disk`] is one failure domain, mounted at a folder; every SQLite file below that folder belongs to it and lives
//! in memory. [`install`] makes the VFS SQLite's default, so production code opens its databases as it always does.
//! Several connections of the process share a database in any journal mode. A database has an empty file, its
//! *marker*, at its path in the real file system, for code that looks whether it is there; journals have none.
//!
//! # What a crash does
//!
//! The disk keeps each file as it is now and, for what was written since the file's last sync, how to take it back.
//! When power is lost each write, truncation, creation and deletion that is not durable is lost, kept or, if it is a
//! write, torn by sectors, each by its own draw of the disk's stream. When a name is durable is told in `folder.rs`.
//! When only the process dies all that was written stays, and stays unsynced: a transaction that was written but not
//! synced is seen after the restart and can still be lost with the power.
//!
//! The order of a crash is: [`Disk::kill`], or the operation that [`Disk::crash_at`] names; drop all connections,
//! which cannot change anything any more; [`Disk::crash`].
//!
//! ```
//! use sim::disk::{self, CrashMode, Disk, Faults};
//!
//! let _installed = disk::install(7);
//! let folder = tempfile::tempdir()?;
//! let disk = Disk::mount(folder.path(), sim::Random::stream(7, "disk"), Faults::default());
//! let conn = rusqlite::Connection::open(folder.path().join("a.db"))?;
//! conn.pragma_update(None, "journal_mode", "wal")?;
//! conn.execute_batch("PRAGMA synchronous = full; CREATE TABLE t (n)")?;
//! disk.kill();
//! assert!(conn.execute("INSERT INTO t VALUES (1)", []).is_err());
//! drop(conn);
//! disk.crash(CrashMode::POWER);
//! let conn = rusqlite::Connection::open(folder.path().join("a.db"))?;
//! assert_eq!(conn.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, u32>(0))?, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::random::Random;

mod body;
mod bytes;
mod code;
mod copy;
pub use copy::{FileCopy, FileStates};
mod counts;
pub use counts::Counts;
mod crash;
pub use crash::{CrashMode, CrashReport, Fates};
mod faults;
pub use faults::Faults;
mod file;
mod folder;
mod io;
mod locks;
mod marker;
mod process;
pub use process::{set_time, sleeps};
mod shm;
mod state;
mod vfs;
pub use vfs::{Installed, install};

use crash::Dice;
use state::Shared;

/// A disk that several databases share: they lose power together, and the space on it is theirs together. A clone is
/// the same disk. The disk is unmounted when its last clone and its last open file are gone.
#[derive(Clone, Debug)]
pub struct Disk {
    shared: Arc<Shared>,
}

impl Disk {
    /// Mounts an empty disk at an existing folder.
    ///
    /// # Panics
    ///
    /// The folder does not exist, or a disk is mounted there, above or below.
    #[must_use]
    pub fn mount(root: &Path, random: Random, faults: Faults) -> Self {
        let real = root.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        let mut root = real.into_os_string().into_string().expect("the path of a disk is UTF-8");
        root.push('/');
        let shared = Arc::new(Shared::new(root, random, faults));
        process::mount(&shared);
        Self { shared }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.state().faults = faults;
    }

    /// What goes wrong at present.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.state().faults.clone()
    }

    /// Bytes that all files together hold at most from now on. A disk that holds more already lets nothing grow.
    pub fn set_capacity(&self, bytes_max: Option<u64>) {
        self.shared.state().faults.capacity_bytes = bytes_max;
    }

    /// Bytes that all files together hold, shared memory included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let state = self.shared.state();
        state.folders.bytes() + state.shm_bytes
    }

    /// The simulated time that syncs took since the last call.
    #[must_use]
    pub fn take_latency(&self) -> Duration {
        std::mem::take(&mut self.shared.state().latency)
    }

    /// Lets the disk die of the `n`-th operation from now: before it, in the middle of it, or when it is done and
    /// nobody has been told. Operations are writes, truncations, syncs, creations and deletions. With `at_sync` of the next
    /// sync from there on.
    pub fn crash_at(&self, n: u64, at_sync: bool) {
        let mut state = self.shared.state();
        (state.dies_in, state.dies_at_sync) = (Some(n), at_sync);
    }

    /// Puts off the death that is due, for what is none of the process's doing. Gives what [`Disk::go_on_dying`] takes.
    #[must_use]
    pub fn put_off_dying(&self) -> Option<u64> {
        self.shared.state().dies_in.take()
    }

    /// The death that was put off is due again.
    pub fn go_on_dying(&self, due: Option<u64>) {
        self.shared.state().dies_in = due;
    }

    /// Lets the disk die now. Until [`Disk::crash`] every call fails and nothing changes; locks can be released and
    /// files closed.
    pub fn kill(&self) {
        self.shared.state().kill();
    }

    /// Whether the disk has died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.shared.state().dead
    }

    /// The paths of all files that are open, one for each time.
    #[must_use]
    pub fn open_handles(&self) -> Vec<PathBuf> {
        self.shared.state().handles.values().map(|path| PathBuf::from(&**path)).collect()
    }

    /// Decides what outlives the crash, and revives the disk.
    ///
    /// # Panics
    ///
    /// A file is still open: what was to die with the process is alive.
    #[expect(clippy::must_use_candidate, reason = "the crash is the point, the report for those who count")]
    pub fn crash(&self, mode: CrashMode) -> CrashReport {
        let open = self.open_handles();
        assert!(open.is_empty(), "files are open in a crash: {open:?}");
        let mut state = self.shared.state();
        let state = &mut *state;
        state.dead = false;
        state.dies_in = None;
        let mut report = CrashReport::default();
        match mode {
            CrashMode::Kill => state.counts.kills += 1,
            CrashMode::Power(fates) => {
                state.counts.crashes += 1;
                state.folders.settle(&mut Dice { random: &mut state.random, fates }, &mut report);
                report.flipped.extend(state.flip_somewhere());
            }
        }
        state.counts.lost += report.lost;
        state.counts.kept += report.kept;
        state.counts.torn += report.torn;
        report
    }

    /// Flips one bit of a file as it is now; whether the file is that long.
    #[must_use]
    pub fn flip(&self, path: &Path, bit: u64) -> bool {
        let Some(path) = process::full_path(path) else { return false };
        let mut state = self.shared.state();
        let flipped = state.folders.find(&path).is_some_and(|inode| inode.inner().body.flip(bit));
        state.counts.flips += u64::from(flipped);
        flipped
    }

    /// What happened on the disk so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// Operations so far, as [`Disk::crash_at`] counts them.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.state().operations
    }

    /// A hash of all operations so far: kind, file, offset and length of each, in order.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.shared.state().trace
    }
}
