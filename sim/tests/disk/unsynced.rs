//! What a loss of power leaves of a log whose writes are acknowledged before they are on disk.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use cdc_log::{Durability, Emit, Log, Result};
use cdc_model::{Clock, ObjectId, Position, Timestamp};
use sim::Random;
use sim::disk::{self, CrashMode, Disk, Fates, Faults};

fn id() -> ObjectId {
    "https://sim.test/unsynced".parse().unwrap()
}

/// Two documents, which are both there or none.
fn write(log: &mut Log, n: u64) -> Result<()> {
    log.write(|tx| {
        tx.emit(&Emit::insert("things", &format!("{n} a"), &n)?)?;
        tx.emit(&Emit::insert("things", &format!("{n} b"), &n)?)
    })
}

/// What anybody was shown of a log that then lost its power, and what it was found with.
#[derive(Debug)]
struct Found {
    shown: Position,
    written: u64,
    left: Position,
}

fn lose_power(folder: &std::path::Path, seed: u64, clock: &Clock, faults: &Faults) -> Found {
    let root = folder.join(seed.to_string());
    std::fs::create_dir(&root).unwrap();
    let disk = Disk::mount(&root, Random::stream(seed, "unsynced"), Faults::default());
    let path = root.join("log.db");
    let mut log = Log::open(&path, &id(), clock).unwrap();
    write(&mut log, 0).unwrap();
    let mut reader = Log::open(&path, &id(), clock).unwrap();
    log.set_durability(Durability::Normal);
    disk.set_faults(faults.clone());
    let mut random = Random::stream(seed, "writes");
    let (mut shown, mut written) = (log.tail(), 0);
    for n in 1..=random.between(1, 40) {
        let syncs = disk.counts().syncs;
        match random.between(0, 9) {
            0 => drop(log.sync()),
            // What is committed for good takes all before it along.
            1 => drop(log.transact(|log| log.count("things", 1))),
            // It changes no row of the log.
            2 => drop(log.write(|tx| tx.execute_batch("CREATE TABLE IF NOT EXISTS t(a)"))),
            _ => {
                if write(&mut log, n).is_ok() {
                    let newest = "SELECT max(sequence) FROM _cdc_log";
                    written = log.query(|conn| Ok(conn.query_row(newest, [], |row| row.get(0))?)).unwrap();
                    let waits = disk.counts().syncs > syncs;
                    assert!(!waits || *faults != Faults::default(), "{seed}: write {n} waited for the disk");
                }
            }
        }
        if log.is_poisoned() {
            drop(log.recover());
        }
        // Whoever reads along, in this process or another.
        reader.refresh().unwrap();
        shown = [shown, log.tail(), reader.tail()].into_iter().max_by_key(|at| at.sequence).unwrap();
    }
    disk.kill();
    drop((log, reader));
    // Of some the newest writes are all that goes, of others none.
    let kept = random.pick(&[1, 5, 30]);
    disk.crash(CrashMode::Power(Fates { lost: 1, kept: *kept, torn: 0 }));
    disk.set_faults(Faults::default());
    let mut log = Log::open(&path, &id(), clock).unwrap();
    let before = log.tail();
    log.make_durable().unwrap();
    let left = log.tail();
    assert!(before.sequence <= left.sequence && log.is_synced());
    assert!(left.sequence >= shown.sequence, "{seed}: {shown:?} was shown and {left:?} is left");
    assert_eq!(log.position_at(shown.sequence).unwrap(), shown, "{seed}");
    assert!(left.sequence.get().is_multiple_of(2), "{seed}: half of a write is left: {left:?}");
    log.verify().unwrap();
    Found { shown, written, left }
}

#[test]
fn what_was_shown_stays_and_of_the_rest_whole_writes_go() {
    let _installed = disk::install(11);
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..400 {
        let Found { shown, written, left } = lose_power(folder.path(), seed, &clock, &Faults::default());
        lost += u32::from(left.sequence.get() < written);
        kept += u32::from(left.sequence.get() > shown.sequence.get());
    }
    // Otherwise nothing was put to the test.
    assert!(lost > 50 && kept > 5, "{lost} lost something, {kept} kept what nobody was shown");
}

#[test]
fn also_when_syncs_fail() {
    let _installed = disk::install(12);
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
    for seed in 0..200 {
        let faults = Faults { sync_errors_per_million: 200_000, ..Faults::default() };
        lose_power(folder.path(), seed, &clock, &faults);
    }
}

#[test]
fn a_write_that_panics_leaves_no_commit_behind_it_unsynced() {
    let _installed = disk::install(13);
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::from_fn(|| Timestamp::new(1_700_000_000_000));
    let disk = Disk::mount(folder.path(), Random::stream(1, "panics"), Faults::default());
    let mut log = Log::open(folder.path().join("log.db"), &id(), &clock).unwrap();
    write(&mut log, 0).unwrap();
    log.set_durability(Durability::Normal);
    write(&mut log, 1).unwrap();
    let panics = || log.write(|_| -> Result<()> { panic!("on purpose") });
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
    let syncs = disk.counts().syncs;
    log.sync().unwrap();
    assert!(disk.counts().syncs > syncs && log.is_synced());
}
