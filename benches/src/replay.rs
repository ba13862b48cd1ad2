//! Replaying a history that lies in two tiers, against reading it from the hot log alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cdc::{ArchiveSettings, Cdc, Change, Cursor, Limit, Object, Reader, Record, Sequence, Settings};
use futures_util::TryStreamExt as _;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{Result, Rng, Shape, Side};

/// Rows in one transaction.
const TRANSACTION: u32 = 1000;

/// A runtime like an application's, whose threads live on, so that their processor time stays countable.
pub(crate) fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    Ok(builder.worker_threads(2).thread_keep_alive(Duration::from_secs(3600)).enable_time().build()?)
}

/// Settings under which the archive takes only what it is asked for.
pub(crate) fn archive_when_asked() -> ArchiveSettings {
    const NEVER: u64 = 1 << 40;
    ArchiveSettings { events_min: NEVER, interval_ms: NEVER, ..ArchiveSettings::new("file:./warehouse") }
}

/// An object whose log holds everything and whose archive ends at four fifths.
#[derive(Debug)]
struct History {
    reader: Reader,
    rows: u32,
    _cdc: Cdc,
    runtime: Runtime,
    _folder: TempDir,
}

/// The replay over both tiers and the hot read, in this order, through the engine's reader.
///
/// # Errors
///
/// When the history cannot be made, or when the replay is not exactly the log.
pub fn replay_sides(rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let (folder, runtime) = (tempfile::tempdir()?, runtime()?);
    let (cdc, reader) = runtime.block_on(make(folder.path(), rows))?;
    let history = Arc::new(History { reader, rows, _cdc: cdc, runtime, _folder: folder });
    let (replay, hot) = (ReplayHistory(Arc::clone(&history)), FacadeRead(history));
    let (mut replayed, mut read) = (Vec::new(), Vec::new());
    replay.each(|page| replayed.extend(page))?;
    hot.each(|page| read.extend(page))?;
    if replayed != read || read.len() != usize::try_from(rows)? {
        return Err("the replay is not exactly the log".into());
    }
    Ok(vec![Box::new(replay), Box::new(hot)])
}

async fn make(folder: &std::path::Path, rows: u32) -> Result<(Cdc, Reader)> {
    let settings = Settings { archive: Some(archive_when_asked()), ..Settings::default() };
    let cdc = Cdc::builder(folder).settings(settings).open().await?;
    let root = cdc.object("https://startups.studio").open().await?;
    let mut rng = Rng::new(19);
    let cold = rows / 5 * 4;
    write(&root, &mut rng, 0, cold).await?;
    root.settle().await?;
    write(&root, &mut rng, cold, rows).await?;
    let reader = root.reader().await?;
    let archived = reader.archive_status().await?.ok_or("there is no archive")?.rows;
    if archived != u64::from(cold) {
        return Err(format!("the archive holds {archived} rows instead of {cold}").into());
    }
    Ok((cdc, reader))
}

async fn write(root: &Object, rng: &mut Rng, from: u32, until: u32) -> Result<()> {
    let shape = Shape::medium();
    let mut number = from;
    while number < until {
        let mut changes = Vec::new();
        for at in number..until.min(number + TRANSACTION) {
            let document = shape.document(&shape.row(rng, at));
            changes.push(Change::insert("customers", &at.to_string(), &document)?);
        }
        number += u32::try_from(changes.len())?;
        root.write(move |tx| changes.iter().try_for_each(|change| Ok(tx.emit(change)?))).await?;
    }
    Ok(())
}

/// A replay from the start: the archive, then what only the log holds.
#[derive(Debug)]
pub struct ReplayHistory(Arc<History>);

impl ReplayHistory {
    fn each(&self, mut page: impl FnMut(Vec<Record>)) -> Result<()> {
        let History { reader, runtime, .. } = &*self.0;
        runtime.block_on(async {
            let mut batches = reader.replay().from_start().stream();
            while let Some(batch) = batches.try_next().await? {
                page(batch.records);
            }
            Ok(())
        })
    }
}

impl Side for ReplayHistory {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.each(|page| drop(black_box(page)))?;
        Ok(self.0.rows)
    }
}

/// The same records from the log alone, page by page.
#[derive(Debug)]
pub struct FacadeRead(Arc<History>);

impl FacadeRead {
    fn each(&self, mut page: impl FnMut(Vec<Record>)) -> Result<()> {
        let History { reader, runtime, .. } = &*self.0;
        runtime.block_on(async {
            let mut after = Cursor::START.sequence;
            loop {
                let records = reader.after(after, Limit::default()).await?;
                let Some(last) = records.last().map(|record| record.sequence) else { return Ok(()) };
                after = Sequence::max(after, last);
                page(records);
            }
        })
    }
}

impl Side for FacadeRead {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.each(|page| drop(black_box(page)))?;
        Ok(self.0.rows)
    }
}
