//! Many writes of one object under way at the same time: what shares a transaction shares its sync.

use std::fs;
use std::path::{Path, PathBuf};

use cdc::{Cdc, Change, Deadline, Durability, Object};
use futures_util::future::try_join_all;
use rusqlite::Connection;

use crate::{Cost, Result, Rng, Shape, replay, timed};

/// How much is written, and how.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// Writes under way at the same time; each waits for its answer before the next.
    pub in_flight: u32,
    /// Events in all, one to a write.
    pub events: u32,
    /// When they are on disk.
    pub durability: Durability,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct GroupResult {
    /// Events that were written.
    pub events: u32,
    /// What that took.
    pub cost: Cost,
    /// Transactions that it took. With [`Durability::Full`] each is one sync of the write-ahead log; moving that into the
    /// database is two more every 256 pages.
    pub commits: u32,
}

impl GroupResult {
    /// Events a second, by wall time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(self.events) / self.cost.wall.as_secs_f64()
    }

    /// Transactions an event.
    #[must_use]
    pub fn commits_per_event(&self) -> f64 {
        f64::from(self.commits) / f64::from(self.events)
    }

    /// Processor time of an event, µs.
    #[must_use]
    pub fn cpu_per_event(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / f64::from(self.events)
    }
}

/// Emits documents into one object through the engine, until all are on disk.
///
/// # Errors
///
/// Whatever the engine meets, and when an event is missing afterwards.
pub fn group(options: GroupOptions) -> Result<GroupResult> {
    let folder = tempfile::tempdir()?;
    let runtime = replay::runtime()?;
    runtime.block_on(async {
        let cdc = Cdc::builder(folder.path()).open().await?;
        let object = cdc.object("https://crm.headless.ly").durability(options.durability).open().await?;
        object.write(|tx| Ok(tx.emit(&Change::insert("contacts", "first", &0)?)?)).await?;
        let database = database(&object).await?;
        let (before, first) = (commits(&database)?, object.cursor().await?.sequence);
        let each = options.events / options.in_flight;
        let writers = (0..options.in_flight).map(|writer| write(&object, writer, each));
        let watch = crate::Stopwatch::start();
        let cpu = crate::cpu_time();
        try_join_all(writers).await?;
        object.cursor().await?;
        let wall = watch.elapsed();
        let spent = cpu.zip(crate::cpu_time()).map(|(before, after)| after.saturating_sub(before));
        let events = each * options.in_flight;
        let written = object.cursor().await?.sequence.since(first);
        if written != u64::from(events) {
            return Err(format!("the log took {written} of {events} events").into());
        }
        let commits = commits(&database)?.wrapping_sub(before);
        cdc.shutdown(Deadline::secs(60)).await?;
        Ok(GroupResult { events, cost: Cost { cpu: spent.unwrap_or(wall), wall }, commits })
    })
}

async fn write(object: &Object, writer: u32, events: u32) -> Result<()> {
    let mut random = Rng::new(u64::from(writer));
    for number in 0..events {
        let row = document(&mut random, number);
        object
            .write(move |tx| {
                Ok(tx.emit(&Change::insert("contacts", &format!("{writer}-{number}"), &row)?)?)
            })
            .await?;
    }
    Ok(())
}

fn document(random: &mut Rng, number: u32) -> Vec<String> {
    Shape::narrow().row(random, number).iter().map(|value| format!("{value:?}")).collect()
}

async fn database(object: &Object) -> Result<PathBuf> {
    Ok(object.query(|db| Ok(PathBuf::from(db.path().unwrap_or_default()))).await?)
}

/// How many transactions changed the database so far, as the index of its write-ahead log counts them.
fn commits(database: &Path) -> Result<u32> {
    let index = fs::read(format!("{}-shm", database.display()))?;
    let counter = index.get(8..12).ok_or("the index of the write-ahead log is too short")?;
    Ok(u32::from_ne_bytes(counter.try_into()?))
}

/// Inserts the same documents into a bare table, one to a transaction, `synchronous = FULL`.
///
/// # Errors
///
/// What SQLite says.
pub fn bare(events: u32) -> Result<GroupResult> {
    let folder = tempfile::tempdir()?;
    let conn = Connection::open(folder.path().join("bare.db"))?;
    conn.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 256;
         CREATE TABLE log(sequence INTEGER PRIMARY KEY, body)",
    )?;
    let mut random = Rng::new(0);
    let rows: Vec<String> = (0..events).map(|number| document(&mut random, number).join(",")).collect();
    let (cost, ()) = timed(|| {
        for row in &rows {
            conn.prepare_cached("INSERT INTO log(body) VALUES (?1)")?.execute([row])?;
        }
        Ok(())
    })?;
    Ok(GroupResult { events, cost, commits: events })
}
