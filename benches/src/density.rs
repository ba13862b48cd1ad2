//! Thousands of objects in one process: what each takes while its files are open, and what opening them costs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc::{Cdc, Change, Deadline, Env as _, HandleSettings, Object, Settings, Tokio};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::{Result, Stopwatch, cpu_time, replay};

/// Objects that are made or opened side by side.
const MAKERS: usize = 16;

/// Transactions in which an object's first events are written.
const TRANSACTIONS: u32 = 10;

/// What each event's document says beside its number: with it an event has about 300 bytes.
const TEXT: &str = "Ada Lovelace, first to see that a machine could do more than sums; tier pro, region eu-west, \
                    last seen in the morning, with three open invoices and a note that somebody should call her back";

/// How many objects, and for how long they are watched.
#[derive(Clone, Debug)]
pub struct DensityOptions {
    /// Objects whose files are open at the same time.
    pub open: u32,
    /// Objects in all, once more than may be open are there.
    pub objects: u32,
    /// Events of each object.
    pub events: u32,
    /// Single appends over objects that are open, one after the other.
    pub appends: u32,
    /// Single appends to objects that must be opened for it.
    pub misses: u32,
    /// How long nothing is done, to see what that costs.
    pub idle: Duration,
    /// Where the project lies; a temporary folder otherwise.
    pub folder: Option<PathBuf>,
}

/// One figure. A bound is the most it may be.
#[derive(Clone, Debug, PartialEq)]
pub struct DensityFigure {
    /// What it is called.
    pub name: &'static str,
    /// What was found.
    pub value: f64,
    /// What it counts.
    pub unit: &'static str,
    /// What it is held against, and the most that it may be of it.
    pub baseline: Option<f64>,
    /// The most that it, or its part of the baseline, may be.
    pub bound: Option<f64>,
}

const fn figure(name: &'static str, value: f64, unit: &'static str) -> DensityFigure {
    DensityFigure { name, value, unit, baseline: None, bound: None }
}

/// Makes the objects and gives each figure to `tell` as it is found.
///
/// # Errors
///
/// Whatever the engine meets.
pub fn density(options: &DensityOptions, tell: &mut dyn FnMut(DensityFigure)) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.as_deref().unwrap_or(temporary.path()).join("density");
    fs::create_dir_all(&folder)?;
    let runtime = replay::runtime()?;
    runtime.block_on(async {
        all_open(options, &folder, tell).await?;
        more_than_open(options, &folder, tell).await
    })
}

async fn engine(options: &DensityOptions, folder: &Path) -> Result<Cdc> {
    let open_max = Some(usize::try_from(options.open)?);
    let handles = HandleSettings { open_max, ..HandleSettings::default() };
    Ok(Cdc::builder(folder).settings(Settings { handles, ..Settings::default() }).open().await?)
}

async fn all_open(
    options: &DensityOptions,
    folder: &Path,
    tell: &mut dyn FnMut(DensityFigure),
) -> Result<()> {
    let cdc = engine(options, folder).await?;
    // What the first object makes is there once for all.
    make(&cdc, u32::MAX, options.events).await?;
    let before = resident()?;
    let watch = Stopwatch::start();
    let objects = make_all(&cdc, 0..options.open - 1, options.events).await?;
    let making = watch.elapsed().as_secs_f64() * 1e3 / f64::from(options.open - 1);
    tell(figure("density-make", making, "ms/object"));
    let memory = per(resident()? - before, options.open - 1)? / 1024.0 / 1024.0;
    tell(DensityFigure { bound: Some(0.15), ..figure("density-memory-open", memory, "MiB/object") });
    tell(figure("density-disk-open", per(disk(folder)?, options.open)? / 1024.0, "KiB/object"));

    let mut latencies = Vec::new();
    for object in objects.iter().cycle().take(usize::try_from(options.appends)?) {
        latencies.push(append(object).await?);
    }
    tell_latencies(["density-append-p50", "density-append-p99", "density-append-p99.9"], latencies, tell);
    let memory = per(resident()? - before, options.open - 1)? / 1024.0 / 1024.0;
    tell(DensityFigure { bound: Some(0.15), ..figure("density-memory-used", memory, "MiB/object") });

    let spent = cpu_time().ok_or("the system does not tell processor time")?;
    Tokio::current().sleep(options.idle).await;
    let spent = cpu_time().unwrap_or_default().saturating_sub(spent);
    let idle = spent.as_secs_f64() / options.idle.as_secs_f64() * 1e6 / f64::from(options.open);
    tell(figure("density-idle", idle, "cpu-\u{b5}s/s"));
    drop(objects);
    cdc.stop().await;
    tell(figure("density-disk-closed", per(disk(folder)?, options.open)? / 1024.0, "KiB/object"));
    Ok(())
}

async fn more_than_open(
    options: &DensityOptions,
    folder: &Path,
    tell: &mut dyn FnMut(DensityFigure),
) -> Result<()> {
    let cdc = engine(options, folder).await?;
    let watch = Stopwatch::start();
    let cdc::Opening { opened, failed, .. } = cdc.open_all().await?;
    if let Some((id, error)) = failed.into_iter().next() {
        return Err(format!("{id}: {error}").into());
    }
    let opening = watch.elapsed().as_secs_f64() * 1e3 / f64::from(u32::try_from(opened)?);
    tell(figure("density-open-all", opening, "ms/object"));
    let before = resident()?;
    let closed = options.objects - options.open;
    let objects = make_all(&cdc, options.open..options.objects, options.events).await?;
    tell(figure(
        "density-memory-closed",
        per(resident()?.saturating_sub(before), closed)? / 1024.0,
        "KiB/object",
    ));

    let hot = objects.last().ok_or("there are no objects")?;
    let (mut misses, mut warm) = (Vec::new(), Vec::new());
    for object in objects.iter().take(usize::try_from(options.misses)?) {
        misses.push(append(object).await?);
        warm.push(append(hot).await?);
    }
    misses.sort();
    warm.sort();
    let (miss, hit) = (millis(at(&misses, 50.0)), millis(at(&warm, 50.0)));
    tell(DensityFigure { baseline: Some(hit), bound: Some(10.0), ..figure("density-miss", miss, "ms") });
    tell_latencies(["density-miss-p50", "density-miss-p99", "density-miss-p99.9"], misses, tell);
    tell(figure("density-open-files", f64::from(u32::try_from(cdc.open_files())?), "objects"));
    let whole = per(resident()?, 1)? / 1024.0 / 1024.0;
    tell(figure("density-memory-process", whole, "MiB"));
    drop(objects);
    cdc.shutdown(Deadline::secs(600)).await?;
    Ok(())
}

async fn make_all(cdc: &Cdc, numbers: std::ops::Range<u32>, events: u32) -> Result<Vec<Object>> {
    let made = numbers.map(|number| make(cdc, number, events));
    stream::iter(made).buffer_unordered(MAKERS).try_collect().await
}

async fn make(cdc: &Cdc, number: u32, events: u32) -> Result<Object> {
    let object = cdc.object(format!("https://density.ly/{number}")).open().await?;
    for _ in 0..TRANSACTIONS {
        emit(&object, events / TRANSACTIONS).await?;
    }
    Ok(object)
}

async fn emit(object: &Object, events: u32) -> Result<()> {
    let written = object.write(move |tx| {
        for number in 0..events {
            let document = serde_json::json!({ "number": number, "text": TEXT });
            tx.emit(&Change::insert("customers", &number.to_string(), &document)?)?;
        }
        Ok(())
    });
    Ok(written.await?)
}

async fn append(object: &Object) -> Result<Duration> {
    let watch = Stopwatch::start();
    emit(object, 1).await?;
    Ok(watch.elapsed())
}

fn tell_latencies(
    [half, most, nearly_all]: [&'static str; 3],
    mut latencies: Vec<Duration>,
    tell: &mut dyn FnMut(DensityFigure),
) {
    latencies.sort();
    for (name, per_cent) in [(half, 50.0), (most, 99.0), (nearly_all, 99.9)] {
        tell(figure(name, millis(at(&latencies, per_cent)), "ms"));
    }
}

/// What so many per cent of sorted values do not exceed.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank among some thousand values"
)]
fn at(sorted: &[Duration], per_cent: f64) -> Duration {
    let rank = (sorted.len() as f64 * per_cent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Bytes of memory that this process has now.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Bytes that all files below a folder take on the disk.
fn disk(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "bytes of a process or a folder")]
fn per(bytes: u64, objects: u32) -> Result<f64> {
    if objects == 0 {
        return Err("there are no objects".into());
    }
    Ok(bytes as f64 / f64::from(objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_so_many_do_not_exceed() {
        let sorted: Vec<_> = (1..=1000).map(Duration::from_millis).collect();
        for (per_cent, expected) in [(50.0, 500), (99.0, 990), (99.9, 999), (100.0, 1000)] {
            assert_eq!(at(&sorted, per_cent), Duration::from_millis(expected));
        }
        assert_eq!(at(&[], 50.0), Duration::ZERO);
    }
}
