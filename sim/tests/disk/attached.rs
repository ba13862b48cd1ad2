//! What outlives a loss of power of a database that was just attached.

use cdc_log::{Attached, Tables};
use cdc_model::{Clock, Timestamp};
use rusqlite::Connection;
use sim::Random;
use sim::disk::{self, CrashMode, Disk, Fates, Faults};

#[test]
fn what_was_attached_is_captured_after_a_loss_of_power() {
    disk::install(7);
    let folder = tempfile::tempdir().unwrap();
    for journal in ["delete", "truncate", "persist", "wal"] {
        let root = folder.path().join(journal);
        std::fs::create_dir(&root).unwrap();
        let disk = Disk::mount(&root, Random::stream(7, journal), Faults::default());
        let (database, log) = (root.join("app.db"), root.join("log.db"));
        let app = Connection::open(&database).unwrap();
        app.pragma_update(None, "synchronous", "extra").unwrap();
        app.pragma_update(None, "journal_mode", journal).unwrap();
        app.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)").unwrap();
        let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
        let id = "https://sim.test/app".parse().unwrap();
        let mut attached = Attached::open(&database, &log, &id, Tables::All, &clock).unwrap();
        attached.install().unwrap();
        disk.kill();
        drop((app, attached));
        disk.crash(CrashMode::Power(Fates { lost: 1, kept: 0, torn: 0 }));
        let app = Connection::open(&database).unwrap();
        let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'";
        let triggers: u32 = app.query_row(sql, [], |row| row.get(0)).unwrap();
        assert!(triggers > 0, "{journal}: nothing is captured any more");
    }
}
