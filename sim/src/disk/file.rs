use std::ffi::c_void;
use std::sync::Arc;

use rusqlite::ffi;

use super::body::Body;
use super::bytes::Bytes;
use super::code::{Code, Result};
use super::folder::Inode;
use super::locks::Level;
use super::marker;
use super::shm::{ShmHold, Slots};
use super::state::{Kind, Operation, Shared, State, Step};

/// What SQLite asks of an opening.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) creates: bool,
    pub(super) must_be_new: bool,
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Database,
    /// A rollback journal, a super-journal or a WAL.
    Journal,
    Other,
}

/// A file that is open: on a disk, or for a moment in memory.
#[derive(Debug)]
pub(super) enum Open {
    Temporary(Bytes),
    OnDisk(File),
}

/// An open file of a disk.
#[derive(Debug)]
pub(super) struct File {
    disk: Arc<Shared>,
    inode: Arc<Inode>,
    path: Arc<str>,
    hash: u64,
    handle: u64,
    level: Level,
    shm: ShmHold,
    /// Its next sync is followed by one of its folder.
    syncs_folder: bool,
    pub(super) persists_wal: bool,
    pub(super) is_powersafe: bool,
}

impl File {
    /// `unixOpen`.
    pub(super) fn open(disk: Arc<Shared>, path: &str, opening: Opening) -> Result<Self> {
        let hash = disk.hash(path);
        let mut state = disk.state();
        state.alive(ffi::SQLITE_IOERR)?;
        state.counts.opens += 1;
        if state.open_fails() {
            return Err(Code(ffi::SQLITE_CANTOPEN));
        }
        if opening.role == Role::Database {
            take_copied(&mut state, path)?;
        }
        let inode = match state.folders.find(path) {
            Some(_) if opening.must_be_new => return Err(Code(ffi::SQLITE_CANTOPEN)),
            Some(inode) => Arc::clone(inode),
            None if opening.creates => create(&mut state, path, hash, opening.role)?,
            None => return Err(Code(ffi::SQLITE_CANTOPEN)),
        };
        let path: Arc<str> = Arc::from(path);
        let handle = state.handles.last_key_value().map_or(0, |(last, _)| last + 1);
        state.handles.insert(handle, Arc::clone(&path));
        drop(state);
        let syncs_folder = opening.creates && opening.role == Role::Journal;
        let (level, shm) = (Level::None, ShmHold::default());
        let (persists_wal, is_powersafe) = (false, true);
        Ok(Self { disk, inode, path, hash, handle, level, shm, syncs_folder, persists_wal, is_powersafe })
    }

    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        let mut state = self.disk.state();
        state.alive(ffi::SQLITE_IOERR_READ)?;
        state.counts.reads += 1;
        if state.read_fails() {
            return Err(Code(ffi::SQLITE_IOERR_READ));
        }
        drop(state);
        if self.inode.inner().body.read(offset, into) {
            Ok(())
        } else {
            Err(Code(ffi::SQLITE_IOERR_SHORT_READ))
        }
    }

    pub(super) fn write(&self, offset: usize, data: &[u8]) -> Result<()> {
        let mut state = self.disk.state();
        let step = state.begin(self.operation(Kind::Write, offset, data.len()))?;
        let mut inner = self.inode.inner();
        let before = inner.body.len();
        let fits = before.saturating_add(state.space()).saturating_sub(offset).min(data.len());
        let reaches = match step {
            Step::Whole | Step::Unheard => fits,
            Step::Never => 0,
            Step::Halfway => state.random.place(fits + 1),
        };
        if let Some(data) = data.get(..reaches).filter(|data| !data.is_empty()) {
            inner.body.write(offset, data);
        }
        if inner.is_named {
            state.folders.resized(before, inner.body.len());
        }
        state.alive(ffi::SQLITE_IOERR_WRITE)?;
        if fits == data.len() {
            return Ok(());
        }
        state.counts.full += 1;
        Err(Code(ffi::SQLITE_FULL))
    }

    pub(super) fn truncate(&self, len: usize) -> Result<()> {
        let mut state = self.disk.state();
        let step = state.begin(self.operation(Kind::Truncate, len, 0))?;
        if step.acts() {
            let mut inner = self.inode.inner();
            let before = inner.body.len();
            inner.body.truncate(len);
            if inner.is_named {
                state.folders.resized(before, len);
            }
        }
        state.alive(ffi::SQLITE_IOERR_TRUNCATE)
    }

    /// `unixSync`.
    pub(super) fn sync(&mut self) -> Result<()> {
        let mut state = self.disk.state();
        let step = state.begin(self.operation(Kind::Sync, 0, 0))?;
        state.take_sync_time();
        if step.acts() && !state.faults.sync_lies {
            self.inode.inner().body.sync();
            state.folders.sync_name(&self.path, &self.inode);
        }
        state.alive(ffi::SQLITE_IOERR_FSYNC)?;
        if std::mem::take(&mut self.syncs_folder) {
            // os_unix.c ignores that a folder cannot be synced.
            let _ignored = sync_folder(&mut state, &self.path, self.hash);
            state.alive(ffi::SQLITE_IOERR_FSYNC)?;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> Result<usize> {
        self.disk.state().alive(ffi::SQLITE_IOERR_FSTAT)?;
        Ok(self.inode.inner().body.len())
    }

    pub(super) fn lock(&mut self, want: Level) -> Result<()> {
        self.disk.state().alive(ffi::SQLITE_IOERR_LOCK)?;
        self.inode.inner().locks.lock(&mut self.level, want)
    }

    pub(super) fn unlock(&mut self, want: Level) {
        self.inode.inner().locks.unlock(&mut self.level, want);
    }

    pub(super) fn is_reserved(&self) -> Result<bool> {
        self.disk.state().alive(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)?;
        Ok(self.inode.inner().locks.is_reserved())
    }

    pub(super) const fn level(&self) -> Level {
        self.level
    }

    /// Whether its name stands for another file by now, or for none.
    pub(super) fn has_moved(&self) -> bool {
        self.disk.state().folders.find(&self.path).is_none_or(|inode| !Arc::ptr_eq(inode, &self.inode))
    }

    pub(super) fn note_commit(&self) {
        self.disk.state().counts.commits += 1;
    }

    /// `unixShmMap`; the memory takes space on the disk as the `-shm` file would.
    pub(super) fn shm_map(&mut self, region: usize, size: usize, extend: bool) -> Result<*mut c_void> {
        let mut state = self.disk.state();
        state.alive(ffi::SQLITE_IOERR_SHMMAP)?;
        let mut inner = self.inode.inner();
        let missing = if extend { inner.shm.missing(region, size) } else { 0 };
        if missing > state.space() {
            state.counts.full += 1;
            return Err(Code(ffi::SQLITE_IOERR_SHMSIZE));
        }
        state.shm_bytes += u64::try_from(missing).unwrap_or(u64::MAX);
        Ok(inner.shm.map(&mut self.shm, (region, size), extend))
    }

    pub(super) fn shm_lock(&mut self, slots: Slots, flags: i32) -> Result<()> {
        let mut inner = if flags & ffi::SQLITE_SHM_UNLOCK == 0 {
            self.disk.state().alive(ffi::SQLITE_IOERR_SHMLOCK)?;
            self.inode.inner()
        } else {
            self.inode.inner().shm.unlock(&mut self.shm, slots);
            return Ok(());
        };
        if flags & ffi::SQLITE_SHM_SHARED == 0 {
            inner.shm.lock_exclusive(&mut self.shm, slots)
        } else {
            inner.shm.lock_shared(&mut self.shm, slots)
        }
    }

    pub(super) fn shm_unmap(&mut self) {
        let mut state = self.disk.state();
        let mut inner = self.inode.inner();
        let before = inner.shm.bytes();
        inner.shm.unmap(&mut self.shm);
        state.shm_bytes -= u64::try_from(before - inner.shm.bytes()).unwrap_or_default();
    }

    const fn operation(&self, kind: Kind, offset: usize, len: usize) -> Operation {
        Operation { kind, file: self.hash, offset, len }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.shm_unmap();
        self.unlock(Level::None);
        self.disk.state().handles.remove(&self.handle);
    }
}

/// A read of a file that is in memory only.
pub(super) fn read_temporary(bytes: &Bytes, offset: usize, into: &mut [u8]) -> Result<()> {
    if bytes.read(offset, into) { Ok(()) } else { Err(Code(ffi::SQLITE_IOERR_SHORT_READ)) }
}

/// `unixDelete`.
pub(super) fn delete(disk: &Shared, path: &str, syncs_folder: bool) -> Result<()> {
    let mut state = disk.state();
    state.alive(ffi::SQLITE_IOERR_DELETE)?;
    if state.folders.find(path).is_none() {
        return Err(Code(ffi::SQLITE_IOERR_DELETE_NOENT));
    }
    let hash = disk.hash(path);
    if state.begin(Operation { kind: Kind::Delete, file: hash, offset: 0, len: 0 })?.acts() {
        state.folders.delete(path);
    }
    state.alive(ffi::SQLITE_IOERR_DELETE)?;
    if syncs_folder { sync_folder(&mut state, path, hash) } else { Ok(()) }
}

/// `unixAccess`: whether a file exists, and for `SQLITE_ACCESS_EXISTS` whether it has any bytes.
pub(super) fn exists(disk: &Shared, path: &str, must_have_bytes: bool) -> Result<bool> {
    let state = disk.state();
    state.alive(ffi::SQLITE_IOERR_ACCESS)?;
    let inode = state.folders.find(path);
    Ok(inode.is_some_and(|inode| !must_have_bytes || inode.inner().body.len() > 0))
}

/// A database that was copied in the real file system is on this disk from now on, and durable: whoever copies syncs the
/// copy and its folder before it opens it.
fn take_copied(state: &mut State, path: &str) -> Result<()> {
    if state.folders.find(path).is_some() {
        return Ok(());
    }
    let Some(bytes) = marker::take_copied(path) else { return Ok(()) };
    state.counts.copied += 1;
    let inode = Inode::new(true, Body::durable(bytes));
    state.folders.put(path, Some(&inode)).map_err(|_no_folder| Code(ffi::SQLITE_CANTOPEN))
}

fn create(state: &mut State, path: &str, hash: u64, role: Role) -> Result<Arc<Inode>> {
    let step = state.begin(Operation { kind: Kind::Create, file: hash, offset: 0, len: 0 })?;
    if !step.acts() {
        return Err(Kind::Create.code());
    }
    let created = state.folders.create(path, role == Role::Database);
    let inode = created.map_err(|_no_folder| Code(ffi::SQLITE_CANTOPEN))?;
    state.alive(ffi::SQLITE_IOERR)?;
    Ok(inode)
}

fn sync_folder(state: &mut State, path: &str, hash: u64) -> Result<()> {
    let step = state.begin(Operation { kind: Kind::SyncFolder, file: hash, offset: 0, len: 0 })?;
    state.take_sync_time();
    if step.acts() && !state.faults.sync_lies {
        state.folders.sync_folder_of(path);
    }
    state.alive(ffi::SQLITE_IOERR_DIR_FSYNC)
}
