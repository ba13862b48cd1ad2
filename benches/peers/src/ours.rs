//! Ours: the log by itself, documents emitted by an object that owns its database, and an application whose database
//! is attached.

use std::path::{Path, PathBuf};

use benches::{Result, Shape, object};
use cdc_log::{Attached, Emit, Limit, Log, Tables};
use cdc_model::{Clock, Operation, Sequence};
use rusqlite::{Connection, params_from_iter};

use crate::peer::{Event, PAGE, Peer, folder_bytes};

/// Appends to a log and reads it, with a sync per batch.
pub(crate) fn log(folder: &Path) -> Result<Box<dyn Peer>> {
    let log = Log::open(folder.join("log.db"), &object("log")?, &Clock::system())?;
    Ok(Box::new(OfLog { log, folder: folder.to_owned(), read: Sequence::ZERO }))
}

struct OfLog {
    log: Log,
    folder: PathBuf,
    read: Sequence,
}

impl Peer for OfLog {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        self.log.transact(|log| {
            for event in batch {
                let now = log.now();
                log.append(now, event.body.clone())?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        let begin = self.read;
        let limit = Limit { records: usize::try_from(PAGE)?, ..Limit::default() };
        while self.read < self.log.tail().sequence {
            self.read = self.log.scan(self.read, limit, |row| {
                visit(row.body.as_bytes());
                Ok(())
            })?;
        }
        Ok(Some(self.read.get() - begin.get()))
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.folder)
    }
}

/// Emits a document per event inside a write of the object that owns the log.
pub(crate) fn owned_emit(folder: &Path) -> Result<Box<dyn Peer>> {
    let log = Log::open(folder.join("owned.db"), &object("owned")?, &Clock::system())?;
    Ok(Box::new(OwnedEmit { log, folder: folder.to_owned() }))
}

struct OwnedEmit {
    log: Log,
    folder: PathBuf,
}

impl Peer for OwnedEmit {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        self.log.write(|tx| {
            batch.iter().try_for_each(|event| {
                tx.emit(&Emit::insert("customers", &event.number.to_string(), &event.document)?)
            })
        })?;
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.folder)
    }
}

/// An application inserts a row per event, and what its triggers captured is drained into the log after every
/// transaction.
pub(crate) fn attached(folder: &Path) -> Result<Box<dyn Peer>> {
    let (database, log) = (folder.join("app.db"), folder.join("log.db"));
    let app = Connection::open(&database)?;
    app.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full")?;
    app.execute_batch(&Shape::medium().create())?;
    let tables = Tables::Named(vec!["customers".to_owned()]);
    let mut attached = Attached::open(&database, &log, &object("app")?, tables, &Clock::system())?;
    attached.install()?;
    Ok(Box::new(OfAttached { app, attached, log }))
}

struct OfAttached {
    app: Connection,
    attached: Attached,
    log: PathBuf,
}

impl Peer for OfAttached {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        self.app.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut insert = self.app.prepare_cached(&Shape::medium().sql(Operation::Insert))?;
        for event in batch {
            insert.execute(params_from_iter(&event.row))?;
        }
        self.app.prepare_cached("COMMIT")?.execute([])?;
        while self.attached.look()?.drained.more {}
        Ok(())
    }

    fn rest(&mut self) -> Result<()> {
        while self.attached.trim()?.rows() > 0 {}
        Ok(())
    }

    fn bytes(&mut self) -> Result<u64> {
        // The application's own table is not counted.
        let wal = self.log.with_extension("db-wal");
        Ok(self.log.metadata()?.len() + wal.metadata().map_or(0, |wal| wal.len()))
    }
}
