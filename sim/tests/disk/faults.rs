//! Planned errors, full disks, flipped bits, copies, and that a seed decides everything.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use sim::disk::{CrashMode, Fates, Faults};

use crate::bench::{Bench, count};
use crate::ledger;

const WAL: &str = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 20";

#[test]
fn a_full_disk_refuses_loses_nothing_and_goes_on_when_there_is_space() {
    for journal in ["wal", "delete"] {
        let bench = Bench::new(1);
        let mut conn = bench.open("a.db", &format!("{WAL}; PRAGMA journal_mode = {journal}")).expect("sound");
        let mut number = 0;
        for capacity in [150_000, 300_000, 450_000] {
            bench.disk.set_capacity(Some(capacity));
            let error = loop {
                match ledger::commit(&mut conn, number + 1) {
                    Ok(()) => number += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull), "{journal}");
            assert!(bench.disk.used_bytes() <= capacity);
            assert_eq!(ledger::check(&conn), Ok(number), "{journal}");
        }
        let counts = bench.disk.counts();
        println!("{journal}: {number} transactions, {} refused writes", counts.full);
        bench.disk.set_capacity(None);
        ledger::commit(&mut conn, number + 1).expect("there is space again");
        bench.disk.kill();
        drop(conn);
        bench.disk.crash(CrashMode::POWER);
        assert_eq!(ledger::check(&bench.open("a.db", "").expect("sound")), Ok(number + 1), "{journal}");
    }
}

#[test]
fn a_failed_call_is_told_and_nothing_acknowledged_is_lost() {
    /// A COMMIT that fails may have happened all the same, though not durably: when the journal is cut off and only
    /// the sync of that failed.
    fn last_in(conn: &Connection) -> u64 {
        let read = || conn.query_row("SELECT number FROM last", [], |row| row.get(0));
        std::iter::repeat_with(read).take(100).find_map(Result::ok).expect("errors are rare")
    }

    let mut injected = 0;
    for seed in 0..40 {
        let mut bench = Bench::new(seed);
        let journal = *bench.random.pick(&["wal", "truncate"]);
        let pragmas = format!("{WAL}; PRAGMA journal_mode = {journal}; PRAGMA cache_size = 10");
        let mut conn = bench.open("a.db", &pragmas).expect("sound");
        ledger::commit(&mut conn, 1).expect("sound");
        bench.disk.set_faults(Faults {
            read_errors_per_million: 2_000,
            write_errors_per_million: 20_000,
            sync_errors_per_million: 50_000,
            open_errors_per_million: 20_000,
            delete_errors_per_million: 50_000,
            ..Faults::default()
        });
        let (mut promised, mut last, mut told) = (1, 1, 0);
        for _ in 0..200 {
            match ledger::commit(&mut conn, last + 1) {
                Ok(()) => {
                    last += 1;
                    promised = last;
                }
                Err(_) => {
                    told += 1;
                    let there = last_in(&conn);
                    assert!(there == last || there == last + 1, "seed {seed}: {there} of {last}");
                    last = there;
                }
            }
        }
        bench.disk.set_faults(Faults::default());
        bench.disk.kill();
        drop(conn);
        bench.disk.crash(CrashMode::draw(&mut bench.random));
        let there = ledger::check(&bench.open("a.db", "").expect("sound")).expect("sound");
        assert!((promised..=last + 1).contains(&there), "seed {seed}: {there} of {promised}..={last}");
        let counts = bench.disk.counts();
        injected += counts.read_errors + counts.write_errors + counts.sync_errors + counts.open_errors;
        assert!(told > 0, "seed {seed}");
    }
    println!("{injected} errors injected");
    assert!(injected > 500);
}

#[test]
fn a_slow_sync_costs_simulated_time() {
    let bench = Bench::new(1);
    let (sync_time, slow_sync_time) = (Duration::from_micros(300), Duration::from_secs(2));
    bench.disk.set_faults(Faults {
        sync_time,
        slow_sync_time,
        slow_syncs_per_million: 500_000,
        ..Faults::default()
    });
    let mut conn = bench.open("a.db", WAL).expect("sound");
    (1..20).for_each(|number| ledger::commit(&mut conn, number).expect("sound"));
    let latency = bench.disk.take_latency();
    assert!(latency > Duration::from_secs(10) && latency < Duration::from_secs(60), "{latency:?}");
    assert_eq!(bench.disk.take_latency(), Duration::ZERO);
}

#[test]
fn the_seed_decides_every_byte() {
    let run = |seed| {
        let mut bench = Bench::new(seed);
        let mut conn = bench.open("a.db", WAL).expect("sound");
        let mut number = 0;
        for _ in 0..10 {
            bench.disk.crash_at(bench.random.between(20, 200), false);
            while ledger::commit(&mut conn, number + 1).is_ok() {
                number += 1;
            }
            drop(conn);
            bench.disk.crash(CrashMode::draw(&mut bench.random));
            conn = bench.open("a.db", WAL).expect("sound");
            number = ledger::check(&conn).expect("sound");
        }
        conn.execute_batch("CREATE TABLE drawn AS SELECT random() AS r, datetime('now') AS t")
            .expect("sound");
        let drawn: (i64, String) = conn
            .query_row("SELECT r, t FROM drawn", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("sound");
        assert_eq!(drawn.1, "2023-11-14 22:13:20");
        let wal = bench.disk.bytes(&bench.path("a.db-wal"));
        (bench.disk.trace_hash(), bench.disk.image_hash(), bench.disk.counts(), wal, drawn)
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    let (one, other) = (run(1), run(2));
    assert!(one.0 != other.0 && one.1 != other.1 && one.4 != other.4, "another seed, another run");
}

#[test]
fn a_flipped_bit_is_there_and_found() {
    let bench = Bench::new(1);
    let path = bench.path("a.db");
    let mut conn = bench.open("a.db", "").expect("sound");
    (1..40).for_each(|number| ledger::commit(&mut conn, number).expect("sound"));
    drop(conn);
    let before = bench.disk.bytes(&path).expect("it is there");
    assert!(bench.disk.flip(&path, 8 * 4096 + 4), "the file is that long");
    let after = bench.disk.bytes(&path).expect("it is there");
    let differ: Vec<_> = (0..before.len()).filter(|&byte| before[byte] != after[byte]).collect();
    assert_eq!(differ, [4096]);
    assert!(
        ledger::check(&bench.open("a.db", "").expect("it opens")).is_err(),
        "the type of a page is wrong"
    );
    assert!(!bench.disk.flip(&path, u64::MAX), "no file is that long");
}

#[test]
fn a_crash_flips_bits_by_plan() {
    let bench = Bench::new(1);
    bench.disk.set_faults(Faults { flips_per_million_crashes: 1_000_000, ..Faults::default() });
    let mut conn = bench.open("a.db", "").expect("sound");
    (1..40).for_each(|number| ledger::commit(&mut conn, number).expect("sound"));
    drop(conn);
    let before = bench.disk.bytes(&bench.path("a.db")).expect("it is there");
    let report = bench.disk.crash(CrashMode::POWER);
    let (path, bit) = &report.flipped[0];
    let after = bench.disk.bytes(path).expect("it is there");
    assert_eq!(before.iter().zip(&after).map(|(old, new)| (old ^ new).count_ones()).sum::<u32>(), 1, "{bit}");
}

#[test]
fn a_copy_put_back_is_the_database_of_then_in_a_new_file() {
    let bench = Bench::new(1);
    let path = bench.path("a.db");
    let inode = || std::fs::metadata(&path).expect("the marker is there").ino();
    let mut conn = bench.open("a.db", WAL).expect("sound");
    (1..30).for_each(|number| ledger::commit(&mut conn, number).expect("sound"));
    let copy = bench.disk.copy(&path);
    (30..60).for_each(|number| ledger::commit(&mut conn, number).expect("sound"));
    let old_inode = inode();
    bench.disk.put_back(&path, &copy).expect("the folder is there");
    assert_ne!(inode(), old_inode);
    assert_eq!(ledger::check(&conn), Ok(59), "an open connection goes on with the file it opened");
    drop(conn);
    assert_eq!(ledger::check(&bench.open("a.db", "").expect("sound")), Ok(29));
    bench.disk.rename(&path, &bench.path("b.db")).expect("the folder is there");
    assert!(!path.exists() && bench.path("b.db").is_file());
    assert_eq!(ledger::check(&bench.open("b.db", "").expect("sound")), Ok(29));
    bench.disk.remove(&bench.path("b.db")).expect("the folder is there");
    assert!(bench.disk.list().is_empty() && !bench.path("b.db").exists());
    assert_eq!(bench.disk.used_bytes(), 0);
}

#[test]
fn a_database_whose_creation_is_lost_has_no_marker() {
    let mut fates = [0, 0];
    for seed in 0..20 {
        let bench = Bench::new(seed);
        let conn = bench.open("a.db", "PRAGMA synchronous = off; CREATE TABLE t (n)").expect("sound");
        assert!(bench.path("a.db").is_file());
        drop(conn);
        bench.disk.crash(CrashMode::POWER);
        let there = bench.disk.bytes(&bench.path("a.db")).is_some();
        assert_eq!(bench.path("a.db").is_file(), there);
        fates[usize::from(there)] += 1;
    }
    assert!(fates.iter().all(|&fate| fate > 0), "{fates:?}");
}

#[test]
fn a_synced_new_database_is_found_without_a_sync_of_its_folder() {
    let bench = Bench::new(1);
    let pragmas = "PRAGMA journal_mode = off; PRAGMA synchronous = full; CREATE TABLE t (n)";
    drop(bench.open("a.db", pragmas).expect("sound"));
    bench.disk.crash(CrashMode::Power(Fates { lost: 1, kept: 0, torn: 0 }));
    assert_eq!(count(&bench.open("a.db", "").expect("sound"), "t"), Ok(0));
}

#[test]
fn disks_fail_apart() {
    let bench = Bench::new(1);
    let folder = tempfile::tempdir().expect("a folder");
    let other = sim::disk::Disk::mount(folder.path(), bench.random.clone(), Faults::default());
    let here = bench.open("a.db", "CREATE TABLE t (n)").expect("sound");
    let there = Connection::open(folder.path().join("a.db")).expect("sound");
    bench.disk.kill();
    assert!(here.execute_batch("INSERT INTO t VALUES (1)").is_err());
    there.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)").expect("the other disk is alive");
    assert_eq!(count(&there, "t"), Ok(1));
    assert!(!other.is_dead() && bench.disk.is_dead());
}
