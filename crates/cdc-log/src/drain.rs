//! The first hop: capture rows → log. Rows are rendered to JSON here, once.

use std::collections::BTreeMap;

use cdc_model::{Body, Timestamp, mutant};
use rusqlite::{Connection, Row};

use crate::capture::{self, Assembler, CapturedTable, FIRST_VALUE, integer, nonce_of};
use crate::comparison::{Comparison, Why};
use crate::joint::Joint;
use crate::transaction::{CaptureRow, LogTransaction};
use crate::{Error, Result, documents, store};

/// One transaction drains at most this many capture rows, or the one change that they are part of.
const DRAIN_ROWS_MAX: u64 = 10_000;

/// And at most this many bytes of bodies.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// The last millisecond of the year 9999.
const YEAR_9999: Timestamp = Timestamp::new(253_402_300_799_999);

/// What one drain did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Capture rows read.
    pub rows: u64,
    /// Records appended to the log.
    pub records: u64,
    /// Of these, events found by comparison or undone after a restore.
    pub reconciled: u64,
    /// Of these, rows that were there before their table was captured.
    pub backfilled: u64,
    /// Rows of tables, and documents of the log, that were compared with each other.
    pub compared: u64,
    /// Of these, rows of tables.
    pub compared_rows: u64,
    /// Whether rows are left, or tables to be compared.
    pub more: bool,
}

impl Drained {
    /// Adds what another drain did; `more` is the other's.
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.records += other.records;
        self.reconciled += other.reconciled;
        self.backfilled += other.backfilled;
        self.compared += other.compared;
        self.compared_rows += other.compared_rows;
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

/// What rows of our own name in the place of a table.
const OF_NO_TABLE: i64 = 0;

/// Where a drain reads.
#[derive(Clone, Copy)]
pub(crate) struct Source<'u> {
    /// The database with the capture rows; the caller holds a read transaction on it, or it is the log's own.
    pub(crate) user: &'u Connection,
    /// The shapes that capture rows name.
    pub(crate) tables: &'u BTreeMap<i64, CapturedTable>,
}

/// Where a drain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// At the oldest row there is, whichever that is: drained rows are removed at once.
    Oldest,
    /// After this row, without a gap.
    After(CaptureRow),
    /// At the very first row, without a gap.
    First,
}

impl From {
    const fn seq(self) -> i64 {
        match self {
            Self::Oldest => i64::MIN,
            Self::First => 0,
            Self::After(row) => row.seq,
        }
    }
}

/// Whether the live tables are compared with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// When a barrier row asks for it or a gap, or where it has begun.
    WhenNeeded,
    /// All of them, from the beginning.
    All,
    /// Also when nobody knows of anything: goes on with what is under way or begins.
    Audit,
}

/// What a drain came to.
pub(crate) struct Outcome {
    pub(crate) drained: Drained,
    /// The last row drained, which is the new mark.
    pub(crate) mark: Option<CaptureRow>,
    /// Whether rows turned out not to be as triggers wrote them.
    pub(crate) tampered: bool,
}

/// Drains a chunk of rows; where nothing is left of them, goes on with a comparison.
///
/// A row that is not as a trigger wrote it is passed over, and a comparison of all tables finds what it held.
///
/// `joint` is the transaction that all rows are of, where that is known: its events say so, once they are counted.
pub(crate) fn drain(
    source: Source<'_>,
    log: &mut LogTransaction<'_>,
    from: From,
    compare: Compare,
    joint: Option<&mut Joint>,
) -> Result<Outcome> {
    let Source { user, tables } = source;
    let mut drain = Drain {
        user,
        tables,
        assembler: Assembler::default(),
        comparison: Comparison::read(log.conn())?,
        done: Drained::default(),
        mark: None,
        rows: 0,
        bytes: 0,
        joint,
        held: Vec::new(),
        beyond: None,
        tampered: false,
    };
    let before = drain.comparison.clone();
    if compare == Compare::All
        || capture::barrier(user)?.is_some_and(|barrier| barrier > from.seq())
        || begins_with_gap(user, from)?
    {
        drain.comparison.begin(user, log, Why::Needed)?;
    } else if compare == Compare::Audit && !drain.comparison.is_open() {
        // Nothing waits for an index that nobody needed so far.
        match documents::catch_up(log)? {
            true => drain.comparison.begin(user, log, Why::Audit)?,
            false => drain.done.more = true,
        }
    }
    let is_behind = drain.done.more;
    if drain.comparison.is_open() && !documents::catch_up(log)? {
        drain.done.more = true;
    } else {
        drain.read(log, from)?;
        drain.flush(log)?;
        drain.append_held(log)?;
        if drain.tampered && !mutant!("edited-row-believed") {
            drain.comparison.begin(user, log, Why::Needed)?;
            drain.done.more = true;
        }
        let goes_on = |comparison: &Comparison| match compare {
            Compare::Audit => comparison.is_open(),
            Compare::WhenNeeded | Compare::All => comparison.is_needed(),
        };
        if !drain.done.more && goes_on(&drain.comparison) {
            drain.comparison.step(user, log, &mut drain.done)?;
            drain.done.more = goes_on(&drain.comparison);
        }
        drain.done.more |= is_behind;
    }
    if drain.comparison != before {
        drain.comparison.write(log.conn())?;
    }
    Ok(Outcome { drained: drain.done, mark: drain.mark, tampered: drain.tampered })
}

/// Whether the first row is not the one that follows: somebody took rows away.
fn begins_with_gap(user: &Connection, from: From) -> Result<bool> {
    if from == From::Oldest {
        return Ok(false);
    }
    let first = capture::first_row_after(user, from.seq())?;
    Ok(first.is_some_and(|first| first != from.seq() + 1))
}

/// Whether a `before` that is not what the log has is preceded by the change that was missed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chain {
    Mend,
    /// Emitted documents are the caller's own words.
    Leave,
}

/// A capture row and what it says, or only that for what its row never came.
struct Taken<'t> {
    row: Option<CaptureRow>,
    timestamp: Timestamp,
    what: What<'t>,
}

enum What<'t> {
    Changes(Vec<Body>, Chain),
    Schema(&'t CapturedTable),
}

impl Taken<'_> {
    fn changes(&self) -> &[Body] {
        match &self.what {
            What::Changes(bodies, _) => bodies,
            What::Schema(_) => &[],
        }
    }
}

struct Drain<'t> {
    user: &'t Connection,
    tables: &'t BTreeMap<i64, CapturedTable>,
    assembler: Assembler,
    comparison: Comparison,
    done: Drained,
    mark: Option<CaptureRow>,
    /// Rows that were read, and the bytes of their bodies.
    rows: u64,
    bytes: usize,
    joint: Option<&'t mut Joint>,
    /// What the transaction's rows say, until its events are counted.
    held: Vec<Taken<'t>>,
    /// How many more events it has whose rows are left for later.
    beyond: Option<usize>,
    /// Whether a row was passed over or is missing, so that what comes next waits for a comparison.
    tampered: bool,
}

/// When a row was captured. A time that no calendar has would be the log's time from then on and keep its archive from
/// going on; who writes one gets the time of the drain instead.
fn captured_at(row: &Row<'_>, log: &LogTransaction<'_>) -> Result<Timestamp> {
    let at = capture::time_of(row.get_ref(1)?);
    Ok(at.filter(|at| (Timestamp::ZERO..=YEAR_9999).contains(at)).unwrap_or_else(|| log.now()))
}

impl<'t> Drain<'t> {
    fn read(&mut self, log: &mut LogTransaction<'_>, from: From) -> Result<()> {
        let mut after = from.seq();
        let mut statement =
            self.user.prepare_cached("SELECT * FROM _cdc_capture WHERE seq > ?1 ORDER BY seq")?;
        let mut rows = statement.query([after])?;
        while let Some(row) = rows.next()? {
            let timestamp = captured_at(row, log)?;
            let at = CaptureRow { seq: row.get(0)?, nonce: nonce_of(row.get_ref(4)?) };
            let gap = self.rows > 0 && at.seq != after + 1;
            // Where rows are kept after they are drained, a gap is looked at where a drain begins.
            self.tampered |= gap && from == From::Oldest && self.beyond.is_none();
            let full = !self.assembler.is_open() && self.is_full();
            if self.beyond.is_none() && (full || gap || self.tampered) {
                self.done.more = true;
                if self.joint.as_ref().is_none_or(|joint| joint.has_begun()) {
                    break;
                }
                self.beyond = Some(0);
            }
            if row.get_ref(2)?.as_str().is_ok_and(|op| op == "T") {
                self.flush(log)?;
            }
            let what = self.take(log, row)?;
            if !self.push(log, Taken { row: Some(at), timestamp, what })? {
                break;
            }
            after = at.seq;
        }
        Ok(())
    }

    /// Takes what is held back although its end does not come.
    ///
    /// Before the shape of a table is taken, which may have to wait: nothing is appended then any more, because a
    /// comparison is open that the index does not cover the log for yet, and because the mark is past what is held back.
    fn flush(&mut self, log: &mut LogTransaction<'_>) -> Result<()> {
        let bodies = self.assembler.flush();
        if !bodies.is_empty() {
            let taken = Taken { row: None, timestamp: log.now(), what: What::Changes(bodies, Chain::Mend) };
            self.push(log, taken)?;
        }
        Ok(())
    }

    const fn is_full(&self) -> bool {
        self.rows >= DRAIN_ROWS_MAX || self.bytes >= DRAIN_BYTES_MAX
    }

    fn take(&mut self, log: &mut LogTransaction<'_>, row: &Row<'_>) -> Result<What<'t>> {
        match self.read_row(row) {
            Err(Error::UnfitCaptureRow { .. }) => {
                if self.comparison.is_open() {
                    // What it held is found by comparison, from the beginning.
                    self.comparison.begin(self.user, log, Why::Needed)?;
                } else {
                    self.tampered |= self.beyond.is_none();
                }
                Ok(What::Changes(self.assembler.flush(), Chain::Mend))
            }
            taken => taken,
        }
    }

    fn read_row(&mut self, row: &Row<'_>) -> Result<What<'t>> {
        let seq = row.get(0)?;
        let unfit = || Error::UnfitCaptureRow { row: seq };
        let op = row.get_ref(2)?.as_str().map_err(|_error| unfit())?;
        let table = integer(row.get_ref(3)?).zip(integer(row.get_ref(4)?));
        let (table, _nonce) = table.ok_or_else(unfit)?;
        let is_empty = row.get_ref(FIRST_VALUE)? == rusqlite::types::ValueRef::Null;
        let bodies = match (op, self.tables.get(&table)) {
            ("A" | "B", _) if table == OF_NO_TABLE && is_empty => Vec::new(),
            ("E", _) if table == OF_NO_TABLE => {
                let body = capture::emitted(row).map_err(|_error| unfit())?;
                return Ok(What::Changes(vec![body], Chain::Leave));
            }
            ("T", Some(table)) if is_empty => return Ok(What::Schema(table)),
            (_, Some(table)) => self.assembler.take(op, row, table)?,
            (_, None) => return Err(unfit()),
        };
        Ok(What::Changes(bodies, Chain::Mend))
    }

    /// Appends what a row says, unless it waits for the others of its transaction to be counted. Gives false when nothing
    /// more is to be taken now.
    fn push(&mut self, log: &mut LogTransaction<'_>, taken: Taken<'t>) -> Result<bool> {
        if let Some(beyond) = &mut self.beyond {
            *beyond += taken.changes().len();
            return Ok(true);
        }
        self.rows += 1;
        self.bytes += taken.changes().iter().map(|body| body.as_str().len()).sum::<usize>();
        if self.joint.is_none() {
            return self.append(log, taken);
        }
        self.held.push(taken);
        Ok(true)
    }

    fn append_held(&mut self, log: &mut LogTransaction<'_>) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        if let Some(joint) = self.joint.as_mut().filter(|joint| !joint.has_begun()) {
            let here: usize = held.iter().map(|taken| taken.changes().len()).sum();
            let events = here + self.beyond.unwrap_or_default();
            joint.begin(log.log().epoch, log.tail().sequence.next(), events);
        }
        for taken in held {
            if !self.append(log, taken)? {
                break;
            }
        }
        Ok(())
    }

    /// Gives false when the row must wait until a comparison is open and the index covers the log.
    fn append(&mut self, log: &mut LogTransaction<'_>, taken: Taken<'t>) -> Result<bool> {
        let Taken { row, timestamp, what } = taken;
        match what {
            What::Changes(bodies, chain) => {
                let last = bodies.len().saturating_sub(1);
                for (at, mut body) in bodies.into_iter().enumerate() {
                    if let Some(joint) = &mut self.joint {
                        body = joint.join(body);
                    }
                    self.append_body(log, timestamp, body, row.filter(|_| at == last), chain)?;
                }
            }
            What::Schema(table) => {
                let name = &table.shape.table;
                let is_new = !capture::known(log.conn())?.contains_key(name);
                if is_new && !self.comparison.is_open() {
                    self.comparison.backfill(name, log);
                    self.done.more = true;
                    return Ok(false);
                }
                let schema = capture::know(log.conn(), self.user, table)?;
                if is_new && schema.renamed_from.is_none() {
                    self.comparison.backfill(name, log);
                }
                self.append_body(log, timestamp, Body::schema(schema), row, Chain::Mend)?;
            }
        }
        if row.is_some() {
            self.done.rows += 1;
            self.mark = row;
        }
        Ok(true)
    }

    fn append_body(
        &mut self,
        log: &mut LogTransaction<'_>,
        timestamp: Timestamp,
        body: Body,
        from: Option<CaptureRow>,
        chain: Chain,
    ) -> Result<()> {
        let comparing = self.comparison.is_open();
        if comparing && chain == Chain::Mend {
            self.comparison.mend(log, timestamp, &body, &mut self.done)?;
        }
        let record = log.append_captured(timestamp, body, from)?;
        self.done.records += 1;
        if comparing {
            documents::take(log, &record)?;
        }
        Ok(())
    }
}
