//! The first hop: capture rows → log. Rows are rendered to JSON here, once.

use std::collections::BTreeMap;

use cdc_model::{Body, Fold, Timestamp};
use rusqlite::{Connection, Row};

use crate::capture::{self, Assembler, CapturedTable, RowHead};
use crate::reconcile;
use crate::transaction::{CaptureRow, LogTransaction};
use crate::{Result, store};

/// One transaction drains at most this many capture rows, unless a comparison needs all of them.
pub(crate) const DRAIN_ROWS_MAX: u64 = 10_000;

/// And at most this many bytes of bodies.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// What one drain did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Capture rows read.
    pub rows: u64,
    /// Records appended to the log.
    pub records: u64,
    /// Of these, events found by comparison or undone after a restore.
    pub reconciled: u64,
    /// Whether rows are left.
    pub more: bool,
}

impl Drained {
    /// Adds what another drain did; `more` is the other's.
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.records += other.records;
        self.reconciled += other.reconciled;
        self.more = other.more;
    }
}

/// The last capture row that was drained.
pub(crate) fn mark(log: &Connection) -> Result<Option<CaptureRow>> {
    let seq: Option<i64> = store::meta(log, "capture_mark")?;
    let nonce: Option<i64> = store::meta(log, "capture_nonce")?;
    Ok(seq.zip(nonce).map(|(seq, nonce)| CaptureRow { seq, nonce }))
}

pub(crate) fn set_mark(log: &Connection, mark: CaptureRow) -> Result<()> {
    store::put_meta(log, "capture_mark", mark.seq)?;
    store::put_meta(log, "capture_nonce", mark.nonce)
}

/// Drains rows after `after` from a database on which the caller holds a read transaction, or which is the log's
/// own. Gives the last row drained, which is the new mark.
pub(crate) fn drain(
    user: &Connection,
    log: &mut LogTransaction<'_>,
    after: Option<CaptureRow>,
    compare: bool,
) -> Result<(Drained, Option<CaptureRow>)> {
    let compare = compare || holds_barrier(user, after)?;
    let mut drain = Drain {
        tables: capture::by_id(user)?,
        assembler: Assembler::default(),
        fold: if compare { Some(reconcile::fold_own(log)?) } else { None },
        done: Drained::default(),
        mark: after,
        bytes: 0,
    };
    let mut statement = user.prepare_cached("SELECT * FROM _cdc_capture WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query([after.map_or(i64::MIN, |mark| mark.seq)])?;
    while let Some(row) = rows.next()? {
        if !compare && !drain.assembler.is_open() && drain.is_full() {
            drain.done.more = true;
            break;
        }
        drain.take(log, row)?;
    }
    if let Some(fold) = &mut drain.fold {
        let found = reconcile::compare(user, log, fold)?;
        drain.done.reconciled += found;
        drain.done.records += found;
    }
    Ok((drain.done, drain.mark))
}

/// Drains a chunk of the rows in the log's own file. They are removed in the same transaction, so that there is
/// no mark to keep.
pub(crate) fn drain_own(log: &mut LogTransaction<'_>) -> Result<(Drained, Option<CaptureRow>)> {
    let user = log.conn();
    drain(user, log, None, false)
}

/// Whether a comparison was asked for by a row still to be drained, or rows are missing in between.
fn holds_barrier(user: &Connection, after: Option<CaptureRow>) -> Result<bool> {
    let after = after.map_or(0, |mark| mark.seq);
    let sql = "SELECT coalesce(max(op = 'B'), 0), count(*), coalesce(max(seq), ?1) FROM _cdc_capture WHERE seq > ?1";
    let (barrier, rows, last): (bool, i64, i64) =
        user.prepare_cached(sql)?.query_row([after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(barrier || last - after != rows)
}

struct Drain {
    tables: BTreeMap<i64, CapturedTable>,
    assembler: Assembler,
    /// While comparing: the documents as the log has them.
    fold: Option<Fold>,
    done: Drained,
    mark: Option<CaptureRow>,
    bytes: usize,
}

impl Drain {
    const fn is_full(&self) -> bool {
        self.done.rows >= DRAIN_ROWS_MAX || self.bytes >= DRAIN_BYTES_MAX
    }

    fn take(&mut self, log: &mut LogTransaction<'_>, row: &Row<'_>) -> Result<()> {
        let head =
            RowHead { seq: row.get(0)?, timestamp: row.get(1)?, table: row.get(3)?, nonce: row.get(4)? };
        let op = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let bodies = match (op, self.tables.get(&head.table)) {
            ("E", _) => vec![capture::emitted(row)?],
            ("T", Some(table)) => vec![Body::schema(table.shape.schema_change(table.version))],
            ("A" | "B", _) => Vec::new(),
            (_, Some(table)) => self.assembler.take(op, row, table)?,
            (_, None) => {
                return Err(log
                    .log()
                    .corrupt(log.tail().sequence, "a captured row names a table that is not known"));
            }
        };
        let from = CaptureRow { seq: head.seq, nonce: head.nonce };
        let last = bodies.len().saturating_sub(1);
        for (at, body) in bodies.into_iter().enumerate() {
            self.append(log, head.timestamp, body, (at == last).then_some(from))?;
        }
        self.done.rows += 1;
        self.mark = Some(from);
        Ok(())
    }

    fn append(
        &mut self,
        log: &mut LogTransaction<'_>,
        ts: i64,
        body: Body,
        from: Option<CaptureRow>,
    ) -> Result<()> {
        let timestamp = Timestamp::new(ts);
        self.bytes += body.as_str().len();
        if let Some(fold) = &mut self.fold {
            let mended = reconcile::mend_chain(log, fold, timestamp, &body)?;
            self.done.reconciled += mended;
            self.done.records += mended;
        }
        let record = log.append_captured(timestamp, body, from)?;
        self.done.records += 1;
        if let Some(fold) = &mut self.fold {
            fold.apply(&record)?;
        }
        Ok(())
    }
}
