use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::ffi;
use xxhash_rust::xxh3::xxh3_64;

use super::code::{Code, Result};
use super::counts::Counts;
use super::faults::{Faults, strikes};
use super::folder::Folders;
use crate::random::Random;

/// One disk, shared by its handle, the open files and the mounts.
#[derive(Debug)]
pub(super) struct Shared {
    root: String,
    state: Mutex<State>,
}

/// Everything about a disk but the bytes of its files. A file's own lock is taken after this one.
#[derive(Debug)]
pub(super) struct State {
    pub(super) folders: Folders,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
    pub(super) random: Random,
    fault_random: Random,
    pub(super) shm_bytes: u64,
    pub(super) latency: Duration,
    /// The paths of open files by a number of each opening.
    pub(super) handles: BTreeMap<u64, Arc<str>>,
    pub(super) operations: u64,
    pub(super) trace: u64,
    /// Operations until the disk dies.
    pub(super) dies_in: Option<u64>,
    /// Whether it dies of a sync only.
    pub(super) dies_at_sync: bool,
    pub(super) dead: bool,
}

/// Something that changes a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    /// The hash of the path below the disk's root.
    pub(super) file: u64,
    pub(super) offset: usize,
    pub(super) len: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Create,
    Delete,
    Write,
    Truncate,
    Sync,
    SyncFolder,
}

/// How much of an operation still happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Whole,
    /// The disk dies before it.
    Never,
    /// The disk dies in the middle of it.
    Halfway,
    /// The disk dies when it is done and nobody has been told.
    Unheard,
}

impl Step {
    /// Whether what happens at once or not at all happens.
    pub(super) const fn acts(self) -> bool {
        matches!(self, Self::Whole | Self::Unheard)
    }
}

impl Shared {
    pub(super) fn new(root: String, mut random: Random, faults: Faults) -> Self {
        let fault_random = Random::stream(random.next(), "disk faults");
        let state = State {
            folders: Folders::default(),
            faults,
            counts: Counts::default(),
            random,
            fault_random,
            shm_bytes: 0,
            latency: Duration::ZERO,
            handles: BTreeMap::new(),
            operations: 0,
            trace: 0,
            dies_in: None,
            dies_at_sync: false,
            dead: false,
        };
        Self { root, state: Mutex::new(state) }
    }

    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        held(&self.state)
    }

    pub(super) fn knows(&self, path: &str) -> bool {
        self.state().folders.find(path).is_some()
    }

    /// What stands for a file in the trace, wherever the disk is mounted.
    pub(super) fn hash(&self, path: &str) -> u64 {
        xxh3_64(path.strip_prefix(self.root()).unwrap_or(path).as_bytes())
    }
}

impl State {
    /// Counts an operation, and decides whether it fails by plan and whether the disk dies of it.
    ///
    /// # Errors
    ///
    /// The operation's code, and then it changes nothing.
    pub(super) fn begin(&mut self, operation: Operation) -> Result<Step> {
        let kind = operation.kind;
        if self.dead {
            return Err(kind.code());
        }
        self.operations += 1;
        self.note(operation);
        if self.fails(kind) {
            return Err(kind.code());
        }
        match self.dies_in {
            Some(0 | 1) if self.dies_at_sync && !matches!(kind, Kind::Sync) => Ok(Step::Whole),
            Some(0 | 1) => {
                self.kill();
                Ok(*self.random.pick(&[Step::Never, Step::Halfway, Step::Unheard]))
            }
            Some(more) => {
                self.dies_in = Some(more - 1);
                Ok(Step::Whole)
            }
            None => Ok(Step::Whole),
        }
    }

    pub(super) const fn kill(&mut self) {
        self.dead = true;
        self.dies_in = None;
    }

    /// # Errors
    ///
    /// `code` once the disk is dead, which also ends the operation it died of.
    pub(super) const fn alive(&self, code: i32) -> Result<()> {
        if self.dead { Err(Code(code)) } else { Ok(()) }
    }

    pub(super) fn open_fails(&mut self) -> bool {
        let fails = strikes(&mut self.fault_random, self.faults.open_errors_per_million);
        self.counts.open_errors += u64::from(fails);
        fails
    }

    pub(super) fn read_fails(&mut self) -> bool {
        let fails = strikes(&mut self.fault_random, self.faults.read_errors_per_million);
        self.counts.read_errors += u64::from(fails);
        fails
    }

    /// Lets a sync take its time.
    pub(super) fn take_sync_time(&mut self) {
        self.latency += self.faults.sync_time;
        if strikes(&mut self.fault_random, self.faults.slow_syncs_per_million) {
            self.latency += self.faults.slow_sync_time;
        }
    }

    /// Bytes that files may still grow by.
    pub(super) fn space(&self) -> usize {
        let Some(capacity) = self.faults.capacity_bytes else { return usize::MAX };
        let free = capacity.saturating_sub(self.folders.bytes() + self.shm_bytes);
        usize::try_from(free).unwrap_or(usize::MAX)
    }

    /// Flips a bit of a database if the plan says so.
    pub(super) fn flip_somewhere(&mut self) -> Option<(PathBuf, u64)> {
        let databases = self.folders.databases();
        if databases.is_empty() || !strikes(&mut self.random, self.faults.flips_per_million_crashes) {
            return None;
        }
        let (name, inode) = self.random.pick(&databases);
        let bits = u64::try_from(inode.inner().body.len()).unwrap_or(u64::MAX) * 8;
        let bit = self.random.between(0, bits - 1);
        self.counts.flips += u64::from(inode.inner().body.flip(bit));
        Some((PathBuf::from(&**name), bit))
    }

    fn fails(&mut self, kind: Kind) -> bool {
        let Faults { write_errors_per_million, sync_errors_per_million, delete_errors_per_million, .. } =
            self.faults;
        let (per_million, counter) = match kind {
            Kind::Create => return false,
            Kind::Delete => (delete_errors_per_million, &mut self.counts.delete_errors),
            Kind::Write | Kind::Truncate => (write_errors_per_million, &mut self.counts.write_errors),
            Kind::Sync | Kind::SyncFolder => (sync_errors_per_million, &mut self.counts.sync_errors),
        };
        let fails = strikes(&mut self.fault_random, per_million);
        *counter += u64::from(fails);
        fails
    }

    fn note(&mut self, operation: Operation) {
        let counter = match operation.kind {
            Kind::Create => &mut self.counts.creates,
            Kind::Delete => &mut self.counts.deletes,
            Kind::Write => &mut self.counts.writes,
            Kind::Truncate => &mut self.counts.truncates,
            Kind::Sync | Kind::SyncFolder => &mut self.counts.syncs,
        };
        *counter += 1;
        let place = u64::try_from(operation.offset).unwrap_or(u64::MAX);
        let len = u64::try_from(operation.len).unwrap_or(u64::MAX);
        for word in [operation.kind.mark(), operation.file, place, len] {
            self.trace = (self.trace.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

impl Kind {
    pub(super) const fn code(self) -> Code {
        Code(match self {
            Self::Create => ffi::SQLITE_IOERR,
            Self::Delete => ffi::SQLITE_IOERR_DELETE,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
            Self::SyncFolder => ffi::SQLITE_IOERR_DIR_FSYNC,
        })
    }

    const fn mark(self) -> u64 {
        match self {
            Self::Create => 1,
            Self::Delete => 2,
            Self::Write => 3,
            Self::Truncate => 4,
            Self::Sync => 5,
            Self::SyncFolder => 6,
        }
    }
}

/// Locks; a panic elsewhere leaves nothing half done here.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
