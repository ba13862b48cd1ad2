//! Reading an archive, against reading the same records from the hot log.

use std::hint::black_box;
use std::sync::Arc;

use cdc_iceberg::{Archive, Components, Location};
use cdc_log::{Limit, Log};
use cdc_model::{Batch, Clock, Position, Record, Sequence};
use futures_util::TryStreamExt as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::range::fill;
use crate::{Result, Side, archive, object};

/// Records in one commit of the archive.
const COMMIT: usize = 50_000;

/// The archive and the hot log with the same records, in this order.
///
/// # Errors
///
/// When they cannot be made, or when they do not hold the same.
pub fn cold_sides(rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let mut log = Log::open(folder.path().join("log.db"), &object("root")?, &Clock::system())?;
    fill(&mut log, rows)?;
    let hot = HotRead { log, rows, _folder: Arc::clone(&folder) };
    let records = hot.records()?;

    let runtime = archive::runtime()?;
    let location = Location::folder(folder.path().join("warehouse"));
    let opened = Archive::open(&location, hot.log.id(), Components::system());
    let mut archive = runtime.block_on(opened)?;
    let mut after = Position::START;
    for records in records.chunks(COMMIT) {
        let step = |at: Position, record: &Record| Position {
            sequence: record.sequence,
            digest: record.digest(at.digest),
        };
        let through = records.iter().fold(after, step);
        let (sender, epoch, records) = (hot.log.id().clone(), hot.log.epoch(), records.to_vec());
        runtime.block_on(archive.append(&Batch {
            sender,
            generation: 1,
            epoch,
            after,
            through,
            records,
            kept_back: 0,
        }))?;
        after = through;
    }
    let cold = ColdRead { runtime, archive, _folder: folder };
    let archived = cold.runtime.block_on(cold.archive.scan().stream().try_concat())?;
    if archived != records {
        return Err("archive and log do not hold the same records".into());
    }
    Ok(vec![Box::new(cold), Box::new(hot)])
}

/// A scan of the whole archive.
#[derive(Debug)]
pub struct ColdRead {
    runtime: Runtime,
    archive: Archive,
    _folder: Arc<TempDir>,
}

impl Side for ColdRead {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let count = |rows: usize, page: Vec<Record>| async move { Ok(rows + black_box(page).len()) };
        let rows = self.runtime.block_on(self.archive.scan().stream().try_fold(0, count))?;
        Ok(u32::try_from(rows)?)
    }
}

/// [`Log::read`] of the whole log in pages of the default limit.
#[derive(Debug)]
pub struct HotRead {
    log: Log,
    rows: u32,
    _folder: Arc<TempDir>,
}

impl HotRead {
    fn records(&self) -> Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        while records.len() < usize::try_from(self.rows)? {
            let after = records.last().map_or(Sequence::ZERO, |record| record.sequence);
            records.extend(self.log.read(after, Limit::default())?);
        }
        Ok(records)
    }
}

impl Side for HotRead {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let mut after = Sequence::ZERO;
        while after < self.log.tail().sequence {
            let page = black_box(self.log.read(after, Limit::default())?);
            after = page.last().map_or(after.next(), |record| record.sequence);
        }
        Ok(self.rows)
    }
}
