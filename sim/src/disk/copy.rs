use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::body::Body;
use super::folder::Inode;
use super::state::State;
use super::{Disk, marker, process};

/// The files that make up a database: itself, its WAL and its rollback journal.
const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// A copy of a database's files, as `cp` would take it; of none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCopy {
    files: [Option<Vec<u8>>; 3],
}

/// What the file system tells of a database's files, without reading them: which file has the name, and how often that
/// one was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStates {
    files: [Option<(u64, u64)>; 3],
}

/// What a copy, a replacement or a removal of files does is at once durable, as after `sync`. An open connection goes
/// on with the file that it opened.
impl Disk {
    /// The database, its WAL and its rollback journal as they are now.
    #[must_use]
    pub fn copy(&self, path: &Path) -> FileCopy {
        FileCopy { files: SUFFIXES.map(|suffix| self.bytes(&with_suffix(path, suffix))) }
    }

    /// Puts new files with the copied bytes in the place of the database's; removes those that the copy has not.
    ///
    /// # Errors
    ///
    /// The folder does not exist in the real file system.
    pub fn put_back(&self, path: &Path, copy: &FileCopy) -> io::Result<()> {
        SUFFIXES.iter().zip(&copy.files).try_for_each(|(suffix, bytes)| match bytes {
            Some(bytes) => self.put(&with_suffix(path, suffix), bytes.clone()),
            None => self.remove_file(&with_suffix(path, suffix)),
        })
    }

    /// Puts one new file with these bytes at a path, whether or not one is there; its WAL and journal stay.
    ///
    /// # Errors
    ///
    /// The folder does not exist in the real file system.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let path = full_path(path)?;
        let is_database = is_database(&path);
        if is_database {
            marker::replace(&path)?;
        }
        self.shared.state().folders.put(&path, Some(&Inode::new(is_database, Body::durable(bytes))))
    }

    /// Removes a database, its WAL and its rollback journal.
    ///
    /// # Errors
    ///
    /// The folder does not exist in the real file system.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        SUFFIXES.iter().try_for_each(|suffix| self.remove_file(&with_suffix(path, suffix)))
    }

    /// Somebody may have removed a folder of the real file system with databases in it: they are gone then, unless the
    /// disk has died before.
    ///
    /// # Errors
    ///
    /// The folder cannot be made again.
    pub fn follow(&self, folder: &Path) -> io::Result<()> {
        let gone = |path: &PathBuf| path.starts_with(folder) && !path.exists();
        let gone: Vec<_> = self.list().into_iter().filter(gone).collect();
        for path in gone.iter().filter(|path| path.to_str().is_some_and(is_database)) {
            if self.is_dead() {
                std::fs::create_dir_all(folder)?;
                marker::replace(&full_path(path)?)?;
            } else {
                self.remove(path)?;
            }
        }
        Ok(())
    }

    /// Removes one file.
    ///
    /// # Errors
    ///
    /// The folder does not exist in the real file system.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = full_path(path)?;
        self.shared.state().folders.put(&path, None)
    }

    /// Gives a database, its WAL and its rollback journal other names, in the place of what has them. An open
    /// connection goes on with the same files.
    ///
    /// # Errors
    ///
    /// There is no such database, or the new folder does not exist in the real file system.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (full_path(from)?, full_path(to)?);
        let mut state = self.shared.state();
        if state.folders.find(&from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        marker::rename(&from, &to)?;
        SUFFIXES
            .iter()
            .try_for_each(|suffix| rename_file(&mut state, &(from.clone() + suffix), &(to.clone() + suffix)))
    }

    /// The paths of all files, in order.
    #[must_use]
    pub fn list(&self) -> Vec<PathBuf> {
        self.shared.state().folders.names().map(|(name, _)| PathBuf::from(&**name)).collect()
    }

    /// The bytes of a file as they are now.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let path = process::full_path(path)?;
        let state = self.shared.state();
        let inode = state.folders.find(&path)?;
        let inner = inode.inner();
        Some(inner.body.bytes())
    }

    /// Whether what a database in WAL mode shows outlives a loss of power. What a checkpoint has copied into the file
    /// without syncing it is in the WAL still.
    #[must_use]
    pub fn is_synced(&self, path: &Path) -> bool {
        let Some(path) = process::full_path(path) else { return true };
        let state = self.shared.state();
        let wal = state.folders.find(&format!("{path}-wal"));
        wal.or_else(|| state.folders.find(&path)).is_none_or(|inode| inode.inner().body.is_synced())
    }

    /// Changes when a database's file or WAL does.
    #[must_use]
    pub fn version(&self, path: &Path) -> (u64, u64) {
        let Some(path) = process::full_path(path) else { return (0, 0) };
        let state = self.shared.state();
        let changes = |path: &str| state.folders.find(path).map_or(0, |inode| inode.inner().body.changes());
        (changes(&path), changes(&format!("{path}-wal")))
    }

    /// The database, its WAL and its rollback journal as they are now.
    #[must_use]
    pub fn states(&self, path: &Path) -> FileStates {
        let Some(path) = process::full_path(path) else { return FileStates { files: [None; 3] } };
        let state = self.shared.state();
        let files = SUFFIXES.map(|suffix| {
            let inode = state.folders.find(&format!("{path}{suffix}"))?;
            let changes = inode.inner().body.changes();
            Some((inode.number(), changes))
        });
        FileStates { files }
    }

    /// A hash of the names and bytes of all files.
    #[must_use]
    pub fn image_hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (name, inode) in self.shared.state().folders.names() {
            hash.update(&self.shared.hash(name).to_le_bytes());
            hash.update(&inode.inner().body.bytes());
        }
        hash.digest()
    }
}

fn rename_file(state: &mut State, from: &str, to: &str) -> io::Result<()> {
    let inode = state.folders.find(from).map(Arc::clone);
    state.folders.put(from, None)?;
    state.folders.put(to, inode.as_ref())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

fn is_database(path: &str) -> bool {
    SUFFIXES.iter().all(|suffix| suffix.is_empty() || !path.ends_with(suffix))
}

fn full_path(path: &Path) -> io::Result<String> {
    process::full_path(path).ok_or_else(|| io::ErrorKind::InvalidFilename.into())
}
