//! Names, the files they stand for, and which of them outlive a loss of power.
//!
//! # When a name is durable
//!
//! Creating and deleting a file changes its folder, and a changed folder is durable by itself at no time. Each change
//! is an unsynced operation of its own, apart from those of the file's bytes, until
//!
//! - the folder is synced, which makes all changes of the folder durable. SQLite does so in two places. `xDelete`
//!   syncs the folder if its caller asks for it (`syncDir`): `synchronous=EXTRA` when a rollback journal goes, and
//!   the deletion of a super-journal. And a handle that was opened with `SQLITE_OPEN_CREATE` as a rollback journal,
//!   a super-journal or a WAL syncs the folder after its first successful `xSync`, once (`UNIXFILE_DIRSYNC` of
//!   `os_unix.c`; whether the file was new does not matter, an error of that sync is ignored);
//! - or the file itself, newly created, is synced: ext4 commits the new inode and the name that leads to it in one
//!   transaction of its journal. Earlier changes of the same name become durable with it. Real ext4 would make every
//!   earlier change of the folder durable too; that is not promised anywhere and not modelled.
//!
//! So a main database is there after its first `xSync`, a `-wal` or `-journal` after its first `xSync` with all else
//! in the folder, and a deleted `-journal` or `-wal` may be back until one of these happens.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::body::Body;
use super::crash::{CrashReport, Dice, Fate};
use super::locks::Locks;
use super::marker;
use super::shm::Shm;
use super::state::held;

/// The files of a disk by their absolute paths.
#[derive(Debug, Default)]
pub(super) struct Folders {
    names: BTreeMap<Arc<str>, Arc<Inode>>,
    /// What happened to names since their folder was synced, by folder and in order.
    unsynced: BTreeMap<Box<str>, Vec<Change>>,
    bytes: u64,
}

/// A file, whatever its name, kept by its names, by unsynced changes of folders and by open handles.
#[derive(Debug)]
pub(super) struct Inode {
    /// No other file has it.
    number: u64,
    is_database: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) body: Body,
    pub(super) locks: Locks,
    pub(super) shm: Shm,
    /// It has a name, and so counts as used space.
    pub(super) is_named: bool,
    /// It is new and the name that leads to it may not be durable.
    is_name_unsynced: bool,
}

#[derive(Debug)]
struct Change {
    name: Arc<str>,
    before: Option<Arc<Inode>>,
    after: Option<Arc<Inode>>,
}

impl Inode {
    pub(super) fn new(is_database: bool, body: Body) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { number, is_database, inner: Mutex::new(Inner { body, ..Inner::default() }) })
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        held(&self.inner)
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    fn len(&self) -> u64 {
        u64::try_from(self.inner().body.len()).unwrap_or(u64::MAX)
    }
}

impl Folders {
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Inode>> {
        self.names.get(path)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Inode>)> {
        self.names.iter()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A named file has got longer or shorter.
    pub(super) fn resized(&mut self, before: usize, after: usize) {
        let grown = u64::try_from(after.saturating_sub(before)).unwrap_or(u64::MAX);
        let shrunk = u64::try_from(before.saturating_sub(after)).unwrap_or(u64::MAX);
        self.bytes = self.bytes + grown - shrunk;
    }

    /// Makes an empty file.
    ///
    /// # Errors
    ///
    /// A database's folder does not exist in the real file system.
    pub(super) fn create(&mut self, path: &str, is_database: bool) -> io::Result<Arc<Inode>> {
        let inode = Inode::new(is_database, Body::default());
        inode.inner().is_name_unsynced = true;
        self.change(path, Some(&inode))?;
        Ok(inode)
    }

    /// Takes the name of a file away.
    pub(super) fn delete(&mut self, path: &str) {
        self.change(path, None).expect("nothing is created");
    }

    /// Everything that happened to the folder of this file is durable.
    pub(super) fn sync_folder_of(&mut self, path: &str) {
        for change in self.unsynced.remove(folder_of(path)).into_iter().flatten() {
            change.after.iter().for_each(|inode| inode.inner().is_name_unsynced = false);
        }
    }

    /// A file that may be new was synced, and its name with it.
    pub(super) fn sync_name(&mut self, path: &str, inode: &Arc<Inode>) {
        if !std::mem::take(&mut inode.inner().is_name_unsynced) {
            return;
        }
        let Some(changes) = self.unsynced.get_mut(folder_of(path)) else { return };
        let is_creation = |change: &Change| change.after.as_ref().is_some_and(|new| Arc::ptr_eq(new, inode));
        let Some(creation) = changes.iter().rposition(is_creation) else { return };
        let name = Arc::clone(&changes.get(creation).expect("just found").name);
        let mut place = 0;
        changes.retain(|change| {
            place += 1;
            change.name != name || place > creation + 1
        });
    }

    /// Lets a name stand for this file or for none, at once durable.
    ///
    /// # Errors
    ///
    /// A database's folder does not exist in the real file system.
    pub(super) fn put(&mut self, path: &str, inode: Option<&Arc<Inode>>) -> io::Result<()> {
        if let Some(changes) = self.unsynced.get_mut(folder_of(path)) {
            changes.retain(|change| &*change.name != path);
        }
        self.set(&Arc::from(path), inode)
    }

    /// Decides what of the unsynced bytes and of the unsynced names outlives a loss of power.
    pub(super) fn settle(&mut self, dice: &mut Dice<'_>, report: &mut CrashReport) {
        let changes: Vec<Change> = std::mem::take(&mut self.unsynced).into_values().flatten().collect();
        for inode in self.names.values() {
            inode.inner().body.settle(dice, report);
        }
        for inode in changes.iter().flat_map(|change| change.before.iter().chain(&change.after)) {
            inode.inner().body.settle(dice, report);
            inode.inner().is_name_unsynced = false;
        }
        self.bytes = self.names.values().map(|inode| inode.len()).sum();
        for change in changes.iter().rev() {
            self.restore(&change.name, change.before.as_ref());
        }
        for change in &changes {
            let fate = dice.whole();
            report.count(fate);
            if fate == Fate::Kept {
                self.restore(&change.name, change.after.as_ref());
            }
        }
    }

    fn restore(&mut self, name: &Arc<str>, inode: Option<&Arc<Inode>>) {
        self.set(name, inode).expect("the folders of a disk stay while it is mounted");
    }

    fn change(&mut self, path: &str, after: Option<&Arc<Inode>>) -> io::Result<()> {
        let name: Arc<str> = Arc::from(path);
        let before = self.names.get(path).cloned();
        self.set(&name, after)?;
        let change = Change { name, before, after: after.cloned() };
        match self.unsynced.get_mut(folder_of(path)) {
            Some(changes) => changes.push(change),
            None => drop(self.unsynced.insert(Box::from(folder_of(path)), vec![change])),
        }
        Ok(())
    }

    fn set(&mut self, name: &Arc<str>, inode: Option<&Arc<Inode>>) -> io::Result<()> {
        let old = match inode {
            Some(inode) => {
                if inode.is_database {
                    marker::ensure(name)?;
                }
                inode.inner().is_named = true;
                self.bytes += inode.len();
                self.names.insert(Arc::clone(name), Arc::clone(inode))
            }
            None => self.names.remove(name),
        };
        let Some(old) = old else { return Ok(()) };
        self.bytes -= old.len();
        if inode.is_some_and(|inode| Arc::ptr_eq(inode, &old)) {
            return Ok(());
        }
        old.inner().is_named = false;
        if old.is_database && inode.is_none() {
            marker::remove(name);
        }
        Ok(())
    }
}

impl Folders {
    /// The databases that have bytes.
    pub(super) fn databases(&self) -> Vec<(Arc<str>, Arc<Inode>)> {
        let databases = self.names.iter().filter(|(_, inode)| inode.is_database && inode.len() > 0);
        databases.map(|(name, inode)| (Arc::clone(name), Arc::clone(inode))).collect()
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _name)| folder)
}
