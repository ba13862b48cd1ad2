//! Databases that belong to an application: how one is opened for a look, whose capture is in it, and how that is taken
//! out.

use std::cell::Cell;
use std::fs::Metadata;
use std::path::Path;
use std::time::Duration;

use cdc_model::ObjectId;
use rusqlite::{Connection, OpenFlags};

use crate::{Error, Result, capture, store};

/// The file that was found on a local disk last, by device and number: what the system mounts is read once for each, not at
/// every look.
#[derive(Debug, Default)]
pub(crate) struct LocalFile(Cell<Option<(u64, u64)>>);

impl LocalFile {
    fn check(&self, path: &Path) -> Result<()> {
        let not_found = |_error| Error::NotFound { path: path.to_owned() };
        let metadata = path.metadata().map_err(not_found)?;
        if !metadata.is_file() {
            return Err(Error::NotADatabase { path: path.to_owned() });
        }
        let file = number(&metadata);
        if file.is_some() && file == self.0.get() {
            return Ok(());
        }
        if let Some(kind) = network_file_system(&path.canonicalize().map_err(not_found)?) {
            return Err(Error::NetworkFileSystem { path: path.to_owned(), kind });
        }
        self.0.set(file);
        Ok(())
    }
}

#[cfg(unix)]
fn number(file: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
const fn number(_file: &Metadata) -> Option<(u64, u64)> {
    None
}

/// Opens a foreign database for one look. It must exist, be writable, UTF-8 and on a local disk.
pub(crate) fn open_database(path: &Path) -> Result<Connection> {
    open_waiting(path, store::BUSY_TIMEOUT, &LocalFile::default())
}

/// As [`open_database`], waiting so long for another process's lock.
pub(crate) fn open_waiting(path: &Path, timeout: Duration, local: &LocalFile) -> Result<Connection> {
    local.check(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let named = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => Error::NotADatabase { path: path.to_owned() },
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly) => {
            Error::NotWritable { path: path.to_owned() }
        }
        _ => Error::Sqlite(error),
    };
    let user = Connection::open_with_flags(path, flags).map_err(named)?;
    user.busy_timeout(timeout)?;
    let encoding: String = user.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(named)?;
    if encoding != "UTF-8" {
        return Err(Error::Utf16 { path: path.to_owned() });
    }
    if user.is_readonly("main")? {
        return Err(Error::NotWritable { path: path.to_owned() });
    }
    // With less, SQLite syncs a rollback journal once: its count of pages may outlive the loss of power that took them,
    // and what is rolled back then damages the database.
    user.pragma_update(None, "synchronous", "full")?;
    user.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(user)
}

/// The type of the file system a path lies on, if it is a network one. Linux tells; elsewhere nothing is known.
fn network_file_system(path: &Path) -> Option<String> {
    const NETWORK: [&str; 9] =
        ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"];
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?.replace("\\040", " "), fields.next()?.to_owned());
        path.starts_with(&point).then_some((point.len(), kind))
    };
    let (_, kind) = mounts.lines().filter_map(mount).max_by_key(|(len, _)| *len)?;
    NETWORK.contains(&kind.as_str()).then_some(kind)
}

/// The database may be drained by this log only, and for this object only.
pub(crate) fn check_owner(user: &Connection, path: &Path, id: &ObjectId, log: Option<&str>) -> Result<()> {
    if capture::is_prepared(user)? { check_prepared_owner(user, path, id, log) } else { Ok(()) }
}

/// As [`check_owner`], of a database that has the tables of capture.
pub(crate) fn check_prepared_owner(
    user: &Connection,
    path: &Path,
    id: &ObjectId,
    log: Option<&str>,
) -> Result<()> {
    let found: Option<String> = store::meta_of_others(user, "object")?;
    if let Some(found) = found.filter(|found| found != id.as_str()) {
        return Err(Error::AnotherObject { path: path.to_owned(), found, expected: id.clone() });
    }
    let owner: Option<String> = store::meta_of_others(user, "log")?;
    match (owner, log) {
        (Some(by), Some(log)) if by != log => Err(Error::DrainedElsewhere { path: path.to_owned(), by }),
        _ => Ok(()),
    }
}

/// Takes triggers and tables of capture out of a database, whichever log they belong to and without draining them.
///
/// # Errors
///
/// [`Error::Sqlite`], or what is wrong with the database, as for [`Attached::open`](crate::Attached::open); nothing is removed then.
pub fn strip(database: &Path) -> Result<()> {
    let user = open_database(database)?;
    strip_at(&user)?;
    user.close().map_err(|(_, error)| error.into())
}

/// No loss of power brings back what is taken out: neither with the journal of this commit nor, where nobody knows whether
/// an installation was committed, with what that left in the write-ahead log. So this is a commit that changes something,
/// also when there is nothing to be seen.
pub(crate) fn strip_at(user: &Connection) -> Result<()> {
    user.pragma_update(None, "synchronous", "extra")?;
    user.execute_batch("BEGIN IMMEDIATE")?;
    let removed = capture::remove_all(user)
        .and_then(|()| Ok(user.execute_batch("CREATE TABLE _cdc_gone(x); DROP TABLE _cdc_gone")?));
    user.execute_batch(if removed.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    removed
}

/// Whether a database is a log of ours or an object's own database.
pub(crate) fn is_a_log(user: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_cdc_log')";
    Ok(user.query_row(sql, [], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_put_in_the_place_of_a_local_one_is_looked_at_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("app.db"), folder.path().join("other.db"));
        let local = LocalFile::default();
        assert!(matches!(local.check(&path), Err(Error::NotFound { .. })));
        std::fs::write(&path, "").unwrap();
        std::fs::write(&other, "").unwrap();
        local.check(&path).unwrap();
        let first = local.0.get();
        local.check(&path).unwrap();
        assert_eq!((local.0.get(), first.is_some()), (first, cfg!(unix)));
        std::fs::rename(&other, &path).unwrap();
        local.check(&path).unwrap();
        assert!(local.0.get() != first || !cfg!(unix));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(local.check(&path), Err(Error::NotADatabase { .. })));
    }
}
