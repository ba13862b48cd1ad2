//! What a history acknowledged, held against what its log has: each event once, none missing.

use std::collections::BTreeSet;
use std::path::Path;

use cdc_log::{Attached, Log, Tables};
use cdc_model::{Operation, Sequence};
use rusqlite::Connection;

use crate::witness::{Follower, Reconciled, assert_agrees, clock, folder, id};

/// What every history writes: row after row, each removed again after [`ROWS_KEPT`] more, so that tables stay small.
pub(crate) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, a)";

const ROWS_KEPT: i64 = 40;

/// One transaction of a history: the statements that write row `n`.
pub(crate) fn statements(n: i64) -> String {
    format!(
        "INSERT INTO t VALUES ({n}, 'row {n}'); UPDATE t SET a = a || '.' WHERE n % 7 = {}; DELETE FROM t WHERE n <= {}",
        n % 7,
        n - ROWS_KEPT
    )
}

/// The next row of a table.
pub(crate) fn next(conn: &Connection) -> i64 {
    conn.query_row("SELECT coalesce(max(n), 0) + 1 FROM t", [], |row| row.get(0)).unwrap()
}

/// The log of the application's database in `folder`.
pub(crate) fn attached(folder: &Path) -> Attached {
    open_attached(folder).unwrap()
}

/// As [`attached`], where the application may hold its lock.
pub(crate) fn open_attached(folder: &Path) -> cdc_log::Result<Attached> {
    Attached::open(&folder.join("app.db"), &folder.join("log"), &id(), Tables::All, &clock())
}

/// The acknowledged rows of one history and its log's events, followed as it grows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    follower: Follower,
    inserted: BTreeSet<i64>,
    looked_at: Sequence,
    acknowledged: BTreeSet<i64>,
}

impl Ledger {
    pub(crate) fn acknowledge(&mut self, n: i64) {
        assert!(self.acknowledged.insert(n), "row {n} was acknowledged before");
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn events(&self) -> u64 {
        self.looked_at.get()
    }

    /// Every acknowledged row was inserted by exactly one event, every event continues its document, the log
    /// verifies as a whole, and the table is what it adds up to.
    pub(crate) fn check(&mut self, log: &Log, tables: &Connection) {
        self.note_inserts(log);
        let lost: Vec<_> = self.acknowledged.difference(&self.inserted).collect();
        assert!(lost.is_empty(), "acknowledged and not in the log: {lost:?}");
        self.follower.follow(log, Reconciled::Never);
        let (verified, _) = log.verify().unwrap();
        assert_eq!(verified.broken_chains, 0);
        assert_agrees(tables, &self.follower.fold, "t");
    }

    fn note_inserts(&mut self, log: &Log) {
        while self.looked_at < log.tail().sequence {
            for record in log.read(self.looked_at, cdc_log::Limit::default()).unwrap() {
                self.looked_at = record.sequence;
                let Some(change) = record.body.change().unwrap() else { continue };
                if change.operation == Operation::Insert {
                    let n: i64 = change.document_id.parse().unwrap();
                    assert!(self.inserted.insert(n), "row {n} is in the log twice");
                }
            }
        }
    }
}

#[test]
fn the_ledger_notices_what_is_lost() {
    let folder = folder();
    let mut log = Log::open(folder.path().join("log"), &id(), &clock()).unwrap();
    log.write(|tx| tx.execute_batch(SCHEMA)).unwrap();
    log.capture(&Tables::All).unwrap();
    log.write(|tx| tx.execute_batch(&statements(1))).unwrap();
    let mut ledger = Ledger::default();
    ledger.acknowledge(1);
    ledger.acknowledge(2);
    let tables = Connection::open(log.path()).unwrap();
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ledger.check(&log, &tables)));
    let message = *noticed.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(message, "acknowledged and not in the log: [2]");
}
