use std::ops::ControlFlow;
use std::sync::Arc;

use cdc_model::{Digest, Filter, Position, Record, Sequence, mutant};

use crate::Error;

/// A range of the sender's own log to be read and filtered. [`Cutter`] does it row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Read from the row after this one; its digest is the log's running digest there.
    pub after: Position,
    /// Read no further than this row.
    pub through_max: Sequence,
    /// Most records that pass.
    pub records_max: usize,
    /// Most bytes of bodies that pass; the first record always does.
    pub bytes_max: usize,
    /// Which records pass.
    pub filter: Arc<Filter>,
}

/// What a cut found: the range it covers, with the digest at its end, and the records in it that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where it begins.
    pub after: Position,
    /// The last row looked at.
    pub through: Position,
    /// The records that passed.
    pub records: Vec<Record>,
    /// How many rows did not.
    pub kept_back: u64,
}

/// Reads a [`Cut`]: takes rows in order, filters them and runs the digest over all of them.
///
/// ```
/// # use cdc_relay::{Cut, Cutter};
/// # fn read(log: &[cdc_model::Record], cut: Cut) -> Result<cdc_relay::Slice, cdc_relay::Error> {
/// let mut cutter = Cutter::new(cut);
/// for row in log {
///     if row.sequence > cutter.position().sequence && cutter.push(row.clone())?.is_break() {
///         break;
///     }
/// }
/// Ok(cutter.finish())
/// # }
/// ```
#[derive(Debug)]
pub struct Cutter {
    cut: Cut,
    through: Position,
    records: Vec<Record>,
    kept_back: u64,
    bytes: usize,
    is_complete: bool,
}

impl Cutter {
    /// Begins a cut.
    #[must_use]
    pub const fn new(cut: Cut) -> Self {
        Self { through: cut.after, cut, records: Vec::new(), kept_back: 0, bytes: 0, is_complete: false }
    }

    /// The last row taken; the next must follow it.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.through
    }

    /// Takes the next row, unless the cut is complete without it. [`ControlFlow::Break`] ends the reading; rows
    /// pushed after it are not taken.
    ///
    /// # Errors
    ///
    /// [`Error::Gap`] when a row is missing before this one, [`Error::Row`] when it must be decoded for the
    /// filter and does not decode. The log is broken then: stop the link with [`Error::stop`].
    pub fn push(&mut self, row: Record) -> Result<ControlFlow<()>, Error> {
        if self.is_complete {
            return Ok(ControlFlow::Break(()));
        }
        self.check_next(row.sequence)?;
        let at = row.sequence;
        let digest = row.digest(self.through.digest);
        let passes = self.cut.filter.passes(&row).map_err(|source| Error::Row { at, source })?;
        if passes {
            let bytes = self.bytes.saturating_add(row.body.as_str().len());
            if bytes > self.cut.bytes_max && !self.records.is_empty() {
                self.is_complete = true;
                return Ok(ControlFlow::Break(()));
            }
            self.bytes = bytes;
            self.records.push(row);
        } else {
            self.kept_back += 1;
        }
        Ok(self.advance(at, digest))
    }

    /// Takes the next row as one that a stage keeps back: its position counts, its event is not sent.
    ///
    /// # Errors
    ///
    /// [`Error::Gap`] when a row is missing before this one.
    pub fn keep_back(&mut self, row: &Record) -> Result<ControlFlow<()>, Error> {
        if self.is_complete {
            return Ok(ControlFlow::Break(()));
        }
        self.check_next(row.sequence)?;
        self.kept_back += u64::from(!mutant!("kept-back-not-counted"));
        let before = self.through.digest;
        let digest = if mutant!("digest-of-sent-rows-only") { before } else { row.digest(before) };
        Ok(self.advance(row.sequence, digest))
    }

    /// What was found so far.
    #[must_use]
    pub fn finish(self) -> Slice {
        let Self { cut, through, records, kept_back, .. } = self;
        Slice { after: cut.after, through, records, kept_back }
    }

    fn check_next(&self, found: Sequence) -> Result<(), Error> {
        let expected = self.through.sequence.next();
        if found == expected { Ok(()) } else { Err(Error::Gap { expected, found }) }
    }

    fn advance(&mut self, sequence: Sequence, digest: Digest) -> ControlFlow<()> {
        self.through = Position { sequence, digest };
        self.is_complete = sequence >= self.cut.through_max || self.records.len() >= self.cut.records_max;
        if self.is_complete { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
