//! Reading a range of the hot log, against stepping a bare SELECT.

use std::hint::black_box;
use std::sync::Arc;

use cdc_log::{Limit, Log};
use cdc_model::{Clock, Epoch, Sequence};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{Batches, Result, Side, object};

/// How the rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeStyle {
    /// [`Log::scan`]: borrowed rows.
    Scan,
    /// [`Log::read`]: owned records.
    Read,
    /// A prepared `SELECT` of the same columns, borrowed from the statement.
    Bare,
}

/// A full pass over a log of forwarded events, in pages of the default limit.
#[derive(Debug)]
pub struct RangeRead {
    style: RangeStyle,
    log: Log,
    bare: Connection,
    rows: u32,
    _folder: Arc<TempDir>,
}

/// Borrowed, owned and bare, in this order, over one log of so many rows.
///
/// # Errors
///
/// When the log cannot be made.
pub fn range_sides(rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let path = folder.path().join("log.db");
    let open = || Log::open(&path, &object("parent")?, &Clock::system()).map_err(crate::Error::from);
    fill(&mut open()?, rows)?;
    let side = |style| -> Result<Box<dyn Side>> {
        let bare = Connection::open(&path)?;
        Ok(Box::new(RangeRead { style, log: open()?, bare, rows, _folder: Arc::clone(&folder) }))
    };
    Ok(vec![side(RangeStyle::Scan)?, side(RangeStyle::Read)?, side(RangeStyle::Bare)?])
}

/// Appends so many forwarded events.
pub(crate) fn fill(log: &mut Log, rows: u32) -> Result<()> {
    let batch = Batches::new(log.id(), Epoch { number: 1, nonce: 1 })?.next(rows)?;
    for records in batch.records.chunks(1000) {
        log.transact(|log| {
            for record in records {
                log.append_forwarded(record, &record.origin, record.timestamp)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

const SELECT: &str = "SELECT sequence, timestamp, body, origin, origin_sequence, origin_timestamp FROM _cdc_log \
                      WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence";

impl RangeRead {
    /// Reads one page; gives how many rows and bytes of bodies it has.
    fn page(&self, after: u64) -> Result<(u64, usize)> {
        let (mut rows, mut bytes) = (0, 0);
        match self.style {
            RangeStyle::Scan => {
                self.log.scan(Sequence::new(after), Limit::default(), |row| {
                    rows += 1;
                    bytes += black_box(row).body.len();
                    Ok(())
                })?;
            }
            RangeStyle::Read => {
                for record in black_box(self.log.read(Sequence::new(after), Limit::default())?) {
                    rows += 1;
                    bytes += record.body.as_str().len();
                }
            }
            RangeStyle::Bare => {
                let through = after + u64::try_from(Limit::default().records)?;
                let mut statement = self.bare.prepare_cached(SELECT)?;
                let mut found = statement.query([after, through])?;
                while let Some(row) = found.next()? {
                    for column in [0, 1, 3, 4, 5] {
                        black_box(row.get_ref(column)?);
                    }
                    rows += 1;
                    bytes += black_box(row.get_ref(2)?.as_str()?).len();
                }
            }
        }
        Ok((rows, bytes))
    }
}

impl Side for RangeRead {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let (mut after, mut bytes) = (0, 0);
        while after < u64::from(self.rows) {
            let (rows, page) = self.page(after)?;
            after += rows;
            bytes += page;
        }
        black_box(bytes);
        Ok(self.rows)
    }
}
