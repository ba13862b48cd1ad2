//! Empty files in the real file system where the databases of a disk are, for code that looks at paths.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

/// Creates the marker unless it is there.
pub(super) fn ensure(path: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path).map(drop)
}

/// Puts a new file in the place of the marker. It is made before the old one goes and so has another inode.
pub(super) fn replace(path: &str) -> io::Result<()> {
    let new = format!("{path}.new-marker");
    fs::write(&new, [])?;
    fs::rename(new, path)
}

/// The bytes of a database that was made by a copy in the real file system and that no disk knows yet. What is left is
/// its marker.
pub(super) fn take_copied(path: &str) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok().filter(|bytes| !bytes.is_empty())?;
    fs::write(path, []).unwrap_or_else(|error| panic!("the marker {path} cannot be emptied: {error}"));
    Some(bytes)
}

pub(super) fn rename(from: &str, to: &str) -> io::Result<()> {
    fs::rename(from, to)
}

/// Removes the marker; that it or its folder is gone already is as well.
pub(super) fn remove(path: &str) {
    if let Err(error) = fs::remove_file(path) {
        assert!(!Path::new(path).exists(), "the marker {path} cannot be removed: {error}");
    }
}
