//! A folder with a disk, alone in the process.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use sim::Random;
use sim::disk::{self, Disk, Faults};
use tempfile::TempDir;

/// SQLite's randomness and time belong to the process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct Bench {
    pub(crate) disk: Disk,
    pub(crate) random: Random,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    pub(crate) fn new(seed: u64) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        disk::install(seed);
        disk::set_time(1_700_000_000_000);
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::mount(folder.path(), Random::stream(seed, "disk"), Faults::default());
        Self { disk, random: Random::stream(seed, "test"), folder, _alone: alone }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn open(&self, name: &str, pragmas: &str) -> rusqlite::Result<Connection> {
        let conn = Connection::open(self.path(name))?;
        conn.execute_batch(pragmas)?;
        Ok(conn)
    }
}

pub(crate) fn count(conn: &Connection, table: &str) -> rusqlite::Result<u64> {
    conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
}
