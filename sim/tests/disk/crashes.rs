//! What outlives crashes, by journal mode and `synchronous`.

use std::ops::Range;

use rusqlite::Connection;
use sim::disk::{CrashMode, Fates, Faults};

use crate::bench::Bench;
use crate::ledger;

const CRASHES: u64 = 25;

/// What many crashes of one kind of database did.
#[derive(Debug, Default)]
struct Tally {
    seeds: u64,
    crashes: u64,
    committed: u64,
    /// Transactions that SQLite had called committed and that were gone.
    lost: u64,
    /// The most that one crash took.
    lost_at_once: u64,
    /// Transactions that nobody had been told of and that were there.
    unheard: u64,
    /// Seeds with a database that was not that of some number of whole transactions.
    corrupt: u64,
    /// Seeds that were corrupt or lost a transaction.
    harmed: u64,
    undone: u64,
    torn: u64,
}

/// One database through many crashes.
struct Life<'a> {
    bench: &'a mut Bench,
    pragmas: &'a str,
    /// The last transaction that was called committed, or that outlived a loss of power.
    promised: u64,
    /// The last transaction that was there when the database was opened, or that was called committed since.
    seen: u64,
    tally: &'a mut Tally,
}

impl Life<'_> {
    /// Commits until the disk dies.
    fn live(&mut self, conn: &mut Connection) {
        let operations_max = *self.bench.random.pick(&[20, 100, 600]);
        self.bench.disk.crash_at(self.bench.random.between(1, operations_max), false);
        while ledger::commit(conn, self.seen + 1).is_ok() {
            self.seen += 1;
            self.promised = self.seen;
            self.tally.committed += 1;
        }
        assert!(self.bench.disk.is_dead(), "nothing but death ends it");
    }

    fn crash(&mut self) -> CrashMode {
        let mode = CrashMode::draw(&mut self.bench.random);
        self.bench.disk.crash(mode);
        self.tally.crashes += 1;
        mode
    }

    /// Opens the database, or dies in the attempt as often as it happens.
    fn reopen(&mut self) -> rusqlite::Result<(Connection, CrashMode)> {
        let mut mode = self.crash();
        while self.bench.random.chance(30) {
            self.bench.disk.crash_at(self.bench.random.between(1, 12), false);
            let conn = self.bench.open("a.db", self.pragmas);
            let dead =
                conn.and_then(|conn| conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
            self.bench.disk.kill();
            drop(dead);
            let again = self.crash();
            mode = if mode == CrashMode::Kill { again } else { mode };
        }
        Ok((self.bench.open("a.db", self.pragmas)?, mode))
    }

    fn compare(&mut self, conn: &Connection, mode: CrashMode) -> Result<(), String> {
        let there = ledger::check(conn)?;
        if there > self.seen + 1 {
            return Err(format!("transaction {there} is there, {} was the last", self.seen));
        }
        let lost = self.promised.saturating_sub(there);
        self.tally.lost += lost;
        self.tally.lost_at_once = self.tally.lost_at_once.max(lost);
        self.tally.unheard += u64::from(there > self.seen);
        self.seen = there;
        if mode != CrashMode::Kill || lost > 0 {
            self.promised = there;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        let mut conn = self.bench.open("a.db", self.pragmas).map_err(|error| error.to_string())?;
        for _ in 0..CRASHES {
            self.live(&mut conn);
            drop(conn);
            let (reopened, mode) = self.reopen().map_err(|error| error.to_string())?;
            conn = reopened;
            self.compare(&conn, mode)?;
        }
        Ok(())
    }
}

fn crash(seeds: Range<u64>, pragmas: &str, faults: &Faults) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut bench = Bench::new(seed);
        bench.disk.set_faults(faults.clone());
        let pages = *bench.random.pick(&[1_000, 20, 2]);
        let cache = *bench.random.pick(&[2_000, 10]);
        let pragmas = format!("PRAGMA cache_size = {cache}; {pragmas}; PRAGMA wal_autocheckpoint = {pages};");
        let mut life = Life { bench: &mut bench, pragmas: &pragmas, promised: 0, seen: 0, tally: &mut tally };
        let lost_before = life.tally.lost;
        let outcome = life.run();
        tally.harmed += u64::from(outcome.is_err() || tally.lost > lost_before);
        if let Err(corrupt) = outcome {
            assert!(faults.sync_lies, "seed {seed}: {corrupt}");
            tally.corrupt += 1;
        }
        tally.seeds += 1;
        let counts = bench.disk.counts();
        tally.undone += counts.lost;
        tally.torn += counts.torn;
    }
    assert!(tally.crashes > 20 && tally.committed > tally.crashes, "the test tests something: {tally:?}");
    tally
}

/// In WAL mode with FULL, and in rollback mode where the end of a transaction is a synced write (TRUNCATE, PERSIST)
/// or a synced deletion (DELETE with EXTRA).
#[test]
fn a_synced_commit_outlives_every_crash() {
    for pragmas in [
        "PRAGMA journal_mode = wal; PRAGMA synchronous = full",
        "PRAGMA locking_mode = exclusive; PRAGMA journal_mode = wal; PRAGMA synchronous = full",
        "PRAGMA journal_mode = delete; PRAGMA synchronous = extra",
        "PRAGMA journal_mode = truncate; PRAGMA synchronous = full",
        "PRAGMA journal_mode = persist; PRAGMA synchronous = full",
    ] {
        let tally = crash(0..50, pragmas, &Faults::default());
        println!("{pragmas}: {tally:?}");
        assert_eq!(tally.lost, 0, "{pragmas}");
        assert!(tally.crashes > 1_000 && tally.unheard > 0 && tally.torn > 0, "{tally:?}");
    }
}

/// FULL does not sync the folder after the journal's deletion. If that deletion is lost the journal is there again
/// and takes the last transaction back; the next one's journal is a synced creation, so it is never more than one.
#[test]
fn a_deleted_journal_that_comes_back_takes_the_last_commit() {
    let tally = crash(0..50, "PRAGMA journal_mode = delete; PRAGMA synchronous = full", &Faults::default());
    println!("DELETE and FULL: {tally:?}");
    assert!(tally.lost > 0, "{tally:?}");
    assert_eq!(tally.lost_at_once, 1, "{tally:?}");
}

#[test]
fn an_unsynced_commit_is_lost_now_and_then_but_never_in_part() {
    let tally = crash(0..50, "PRAGMA journal_mode = wal; PRAGMA synchronous = normal", &Faults::default());
    println!("WAL and NORMAL: {tally:?}");
    assert!(tally.lost > 50 && tally.lost_at_once > 1, "{tally:?}");
}

#[test]
fn without_syncs_nearly_every_database_is_corrupt_and_none_is_unharmed() {
    let lies = Faults { sync_lies: true, ..Faults::default() };
    for pragmas in [
        "PRAGMA journal_mode = wal; PRAGMA synchronous = full",
        "PRAGMA journal_mode = delete; PRAGMA synchronous = extra",
    ] {
        let tally = crash(0..50, pragmas, &lies);
        println!("{pragmas}, but nothing is synced: {tally:?}");
        assert!(tally.corrupt > 30 && tally.harmed == tally.seeds, "{tally:?}");
    }
}

/// A super-journal names the journals of both databases; each of these files has to be found after the crash.
#[test]
fn a_transaction_of_two_databases_happens_in_both_or_in_neither() {
    let (mut committed, mut unheard) = (0, 0);
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        let other = bench.path("b.db");
        let attach = format!("PRAGMA synchronous = extra; ATTACH '{}' AS other", other.display());
        let conn = bench.open("a.db", &attach).expect("sound");
        conn.execute_batch(
            "PRAGMA other.synchronous = extra;
             CREATE TABLE main.t (n, data); INSERT INTO main.t VALUES (0, zeroblob(9000));
             CREATE TABLE other.u (n, data); INSERT INTO other.u VALUES (0, zeroblob(9000))",
        )
        .expect("sound");
        bench.disk.crash_at(bench.random.between(1, 200), false);
        let update = "BEGIN; UPDATE t SET n = n + 1, data = randomblob(9000);
                      UPDATE u SET n = n + 1, data = randomblob(9000); COMMIT";
        let last = (0..).take_while(|_| conn.execute_batch(update).is_ok()).count();
        drop(conn);
        bench.disk.crash(CrashMode::draw(&mut bench.random));
        let conn = bench.open("a.db", &attach).expect("sound");
        let there: (usize, usize) = conn
            .query_row("SELECT (SELECT n FROM t), (SELECT n FROM u)", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .expect("sound");
        assert!(there.0 == there.1 && (last..=last + 1).contains(&there.0), "seed {seed}: {there:?}, {last}");
        committed += last;
        unheard += there.0 - last;
    }
    println!("200 crashes, {committed} transactions of two databases, {unheard} unheard");
    assert!(committed > 100 && unheard > 0);
}

#[test]
fn what_a_killed_process_wrote_stays_and_can_still_be_lost_with_the_power() {
    let bench = Bench::new(1);
    let pragmas = "PRAGMA journal_mode = wal; PRAGMA synchronous = off";
    let mut conn = bench.open("a.db", "PRAGMA journal_mode = wal").expect("sound");
    ledger::commit(&mut conn, 1).expect("sound");
    conn.execute_batch("PRAGMA wal_checkpoint(truncate)").expect("sound");
    conn.execute_batch(pragmas).expect("sound");
    ledger::commit(&mut conn, 2).expect("sound");
    bench.disk.kill();
    drop(conn);
    bench.disk.crash(CrashMode::Kill);
    let conn = bench.open("a.db", pragmas).expect("sound");
    assert_eq!(ledger::check(&conn), Ok(2));
    bench.disk.kill();
    drop(conn);
    bench.disk.crash(CrashMode::Power(Fates { lost: 1, kept: 0, torn: 0 }));
    assert_eq!(ledger::check(&bench.open("a.db", pragmas).expect("sound")), Ok(1));
}
