//! Appending to a log, against inserting the very same rows with plain rusqlite.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdc_log::Log;
use cdc_model::{Batch, Body, Clock, Epoch, Origin, Record};
use tempfile::TempDir;

use crate::stored::{BareLog, StoredRow, row_of};
use crate::{Batches, Result, Side, object, workload};

/// Whose events are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The object's own.
    Own,
    /// A hundred children's.
    Forwarded,
}

/// What both sides do in one round.
#[derive(Clone, Copy, Debug)]
pub struct AppendOptions {
    /// Whose events.
    pub whose: Whose,
    /// Rows in one transaction.
    pub per_transaction: u32,
    /// Rows in one round.
    pub rows: u32,
}

/// The log and the bare table, in this order, in one temporary folder.
///
/// # Errors
///
/// When a file cannot be made.
pub fn append_sides(options: AppendOptions) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let log = LogAppend::new(Arc::clone(&folder), options)?;
    let bare = BareAppend::new(folder, options)?;
    Ok(vec![Box::new(log), Box::new(bare)])
}

/// Appends through [`Log::transact`].
#[derive(Debug)]
pub struct LogAppend {
    log: Log,
    options: AppendOptions,
    workload: Batches,
    own: Vec<(cdc_model::Timestamp, Body)>,
    forwarded: Vec<Record>,
    /// What was appended, so that freeing it is not timed: the bare side keeps its rows, too.
    appended: Vec<Record>,
    _folder: Arc<TempDir>,
}

impl LogAppend {
    fn new(folder: Arc<TempDir>, options: AppendOptions) -> Result<Self> {
        let log = Log::open(path(folder.path(), "log"), &object("parent")?, &Clock::system())?;
        let workload = Batches::new(&object("parent")?, EPOCH)?;
        let (own, forwarded, appended) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { log, options, workload, own, forwarded, appended, _folder: folder })
    }
}

/// Of the rows' origins; the log's own epoch is not stored with its rows.
const EPOCH: Epoch = Epoch { number: 1, nonce: 1 };

impl Side for LogAppend {
    fn prepare(&mut self) -> Result<()> {
        let records = self.workload.next(self.options.rows)?.records;
        match self.options.whose {
            Whose::Own => {
                self.own = records
                    .into_iter()
                    .map(|record| (workload::time_of(record.sequence), record.body))
                    .collect();
            }
            Whose::Forwarded => self.forwarded = records,
        }
        self.appended.clear();
        self.appended.reserve(self.own.len());
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let own = std::mem::take(&mut self.own);
        let per_transaction = usize::try_from(self.options.per_transaction)?.max(1);
        for records in self.forwarded.chunks(per_transaction) {
            self.log.transact(|log| {
                for record in records {
                    log.append_forwarded(record, &record.origin, record.timestamp)?;
                }
                Ok(())
            })?;
        }
        let mut own = own.into_iter().peekable();
        while own.peek().is_some() {
            self.log.transact(|log| {
                for (timestamp, body) in own.by_ref().take(per_transaction) {
                    self.appended.push(log.append(timestamp, body)?);
                }
                Ok(())
            })?;
        }
        Ok(self.options.rows)
    }
}

/// Inserts rows that were prepared as the log stores them, digests included.
#[derive(Debug)]
pub struct BareAppend {
    log: BareLog,
    options: AppendOptions,
    workload: Batches,
    /// The log's numbers of origins, in the order in which it meets them.
    origins: BTreeMap<cdc_model::Digest, i64>,
    digest: cdc_model::Digest,
    rows: Vec<StoredRow>,
    _folder: Arc<TempDir>,
}

impl BareAppend {
    fn new(folder: Arc<TempDir>, options: AppendOptions) -> Result<Self> {
        Ok(Self {
            log: BareLog::create(&path(folder.path(), "bare"))?,
            options,
            workload: Batches::new(&object("parent")?, EPOCH)?,
            origins: BTreeMap::new(),
            digest: cdc_model::Digest::ZERO,
            rows: Vec::new(),
            _folder: folder,
        })
    }

    /// The row as the log stores it; the first and the last of a transaction keep the digest.
    fn stored(&mut self, record: Record, own: &Arc<Origin>, at_an_end: bool) -> StoredRow {
        let (record, origin) = match self.options.whose {
            Whose::Own => (Record { origin: Arc::clone(own), ..record }, None),
            Whose::Forwarded => {
                let next = i64::try_from(self.origins.len() + 1).unwrap_or(i64::MAX);
                let id = *self.origins.entry(record.origin.fingerprint()).or_insert(next);
                (record, Some(id))
            }
        };
        self.digest = record.digest(self.digest);
        row_of(&record, origin, self.digest, at_an_end)
    }
}

impl Side for BareAppend {
    fn prepare(&mut self) -> Result<()> {
        let Batch { records, .. } = self.workload.next(self.options.rows)?;
        let own = Origin::new(object("parent")?, EPOCH, Vec::new());
        let (per_transaction, newest) = (self.options.per_transaction, self.options.rows - 1);
        let ends = |row: u32| row.is_multiple_of(per_transaction);
        let at_an_end = |row| ends(row) || ends(row + 1) || row == newest;
        self.rows =
            (0..).zip(records).map(|(row, record)| self.stored(record, &own, at_an_end(row))).collect();
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.log.insert(&self.rows, usize::try_from(self.options.per_transaction)?)
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.db"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::newest;

    #[test]
    fn both_sides_store_the_very_same_rows() {
        for whose in [Whose::Own, Whose::Forwarded] {
            let folder = Arc::new(tempfile::tempdir().unwrap());
            let options = AppendOptions { whose, per_transaction: 100, rows: 250 };
            let mut log = LogAppend::new(Arc::clone(&folder), options).unwrap();
            let mut bare = BareAppend::new(Arc::clone(&folder), options).unwrap();
            let sides: [&mut dyn Side; 2] = [&mut log, &mut bare];
            for side in sides {
                side.prepare().unwrap();
                assert_eq!(side.run().unwrap(), 250);
            }
            let rows = |name| newest(&path(folder.path(), name), 1000).unwrap();
            assert_eq!(rows("log"), rows("bare"), "{whose:?}");
            assert_eq!(rows("log").len(), 250);
        }
    }
}
