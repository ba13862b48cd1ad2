//! Draining captured rows into the log, against inserting the rows that come out of it.

use std::path::PathBuf;
use std::sync::Arc;

use cdc_log::{Attached, Tables};
use cdc_model::Clock;
use rusqlite::{Connection, params_from_iter};
use tempfile::TempDir;

use crate::stored::{BareLog, StoredRow, newest, renumbered};
use crate::{Result, Rng, Shape, Side, object};

/// The drain and the bare insert of the same rows, in this order; `rows` in one round and one transaction, at most
/// 10,000.
///
/// # Errors
///
/// When a database cannot be made.
pub fn drain_sides(shape: Shape, rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let drain = Drain::new(Arc::clone(&folder), shape, rows)?;
    let bare = BareDrain {
        bare: BareLog::create(&folder.path().join("bare.db"))?,
        log: folder.path().join("log.db"),
        count: rows,
        rows: Vec::new(),
        last: 0,
        _folder: folder,
    };
    Ok(vec![Box::new(drain), Box::new(bare)])
}

/// [`Attached::look`] over rows that an application wrote.
#[derive(Debug)]
pub struct Drain {
    attached: Attached,
    app: Connection,
    shape: Shape,
    rng: Rng,
    rows: u32,
    number: u32,
    _folder: Arc<TempDir>,
}

impl Drain {
    fn new(folder: Arc<TempDir>, shape: Shape, rows: u32) -> Result<Self> {
        let database = folder.path().join("app.db");
        let app = Connection::open(&database)?;
        app.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = normal")?;
        app.execute_batch(&shape.create())?;
        let tables = Tables::Named(vec!["customers".to_owned()]);
        let log = folder.path().join("log.db");
        let mut attached = Attached::open(&database, &log, &object("app")?, tables, &Clock::system())?;
        attached.install()?;
        let mut side = Self { attached, app, shape, rng: Rng::new(13), rows, number: 0, _folder: folder };
        // A first round, so that the bare side finds rows whichever begins.
        side.prepare()?;
        side.run()?;
        Ok(side)
    }

    fn write(&mut self) -> Result<()> {
        let statements = self.shape.statements(&mut self.rng, &mut self.number, self.rows);
        self.app.execute_batch("BEGIN IMMEDIATE")?;
        for (operation, bound) in statements {
            self.app.prepare_cached(&self.shape.sql(operation))?.execute(params_from_iter(bound))?;
        }
        self.app.execute_batch("COMMIT")?;
        Ok(())
    }
}

impl Side for Drain {
    fn prepare(&mut self) -> Result<()> {
        while self.attached.trim()?.rows() > 0 {}
        self.write()
    }

    fn run(&mut self) -> Result<u32> {
        let mut records = 0;
        loop {
            let look = self.attached.look()?;
            records += look.drained.records;
            if !look.drained.more {
                return Ok(u32::try_from(records)?);
            }
        }
    }
}

/// Inserts the rows of the last drain again, with plain rusqlite, at the same sync.
#[derive(Debug)]
pub struct BareDrain {
    bare: BareLog,
    log: PathBuf,
    count: u32,
    rows: Vec<StoredRow>,
    last: i64,
    _folder: Arc<TempDir>,
}

impl Side for BareDrain {
    fn prepare(&mut self) -> Result<()> {
        self.rows = renumbered(newest(&self.log, self.count)?, &mut self.last);
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.bare.insert(&self.rows, self.rows.len())
    }
}
