//! What outlives a loss of power of a log that was made on a disk that fails to sync.

use cdc_log::{Emit, Log};
use cdc_model::{Clock, Timestamp};
use sim::Random;
use sim::disk::{self, CrashMode, Disk, Fates, Faults};

/// Opens the log and writes to it, as often as it takes.
fn write(path: &std::path::Path, clock: &Clock) -> Log {
    let id = "https://sim.test/made".parse().expect("it is an id");
    loop {
        if let Ok(mut log) = Log::open(path, &id, clock)
            && log.write(|tx| tx.emit(&Emit::insert("things", "1", &7)?)).is_ok()
        {
            return log;
        }
    }
}

#[test]
fn what_is_written_stays_whichever_sync_failed_before() {
    let _installed = disk::install(7);
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
    for seed in 0..400 {
        let root = folder.path().join(seed.to_string());
        std::fs::create_dir(&root).unwrap();
        let failing = Faults { sync_errors_per_million: 200_000, ..Faults::default() };
        let disk = Disk::mount(&root, Random::stream(seed, "made"), Faults::default());
        let path = root.join("log.db");
        if seed % 2 == 0 {
            // What is there already is changed to WAL mode; a new file is a copy that has it.
            let filled = rusqlite::Connection::open(&path).unwrap();
            filled.execute_batch("PRAGMA synchronous = extra; CREATE TABLE t(a)").unwrap();
        }
        disk.set_faults(failing);
        let log = write(&path, &clock);
        let tail = log.tail();
        disk.kill();
        drop(log);
        disk.crash(CrashMode::Power(Fates { lost: 1, kept: 0, torn: 0 }));
        disk.set_faults(Faults::default());
        let log = Log::open(&path, &"https://sim.test/made".parse().unwrap(), &clock).unwrap();
        assert!(log.tail().sequence >= tail.sequence, "{seed}: {:?} became {:?}", tail, log.tail());
        drop(log);
    }
}
