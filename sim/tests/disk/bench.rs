//! A folder with a disk, alone in the process: one test runs at a time.

use std::path::PathBuf;

use rusqlite::Connection;
use sim::Random;
use sim::disk::{self, Disk, Faults, Installed};
use tempfile::TempDir;

pub(crate) struct Bench {
    pub(crate) disk: Disk,
    pub(crate) random: Random,
    folder: TempDir,
    _installed: Installed,
}

impl Bench {
    pub(crate) fn new(seed: u64) -> Self {
        let installed = disk::install(seed);
        disk::set_time(1_700_000_000_000);
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::mount(folder.path(), Random::stream(seed, "disk"), Faults::default());
        Self { disk, random: Random::stream(seed, "test"), folder, _installed: installed }
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
