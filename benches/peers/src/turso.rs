//! Turso with its full change data capture: as a log of events, and under an application's statements.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use benches::{CaptureOptions, Result, Rng, Shape, Side};
use cdc_model::Operation;
use futures_executor::block_on;
use rusqlite::types::Value as Bound;
use tempfile::TempDir;
use turso::{Connection, Statement, Value, params_from_iter};

use crate::peer::{Event, PAGE, Peer, folder_bytes};

const CAPTURE: &str = "PRAGMA capture_data_changes_conn('full')";

fn connect(path: &Path, synchronous: &str) -> Result<Connection> {
    let path = path.to_str().ok_or("a temporary folder whose name is not text")?;
    block_on(async {
        let conn = turso::Builder::new_local(path).build().await?.connect()?;
        run(&conn, &format!("PRAGMA synchronous = {synchronous}")).await?;
        Ok(conn)
    })
}

/// Runs a statement and passes over the rows it gives.
async fn run(conn: &Connection, sql: &str) -> Result<()> {
    let mut rows = conn.query(sql, ()).await?;
    while rows.next().await?.is_some() {}
    Ok(())
}

/// An event is a row of a table; what is read are the rows that capture made of it. A sync per batch.
pub(crate) fn cdc(folder: &Path) -> Result<Box<dyn Peer>> {
    let conn = connect(&folder.join("events.db"), "full")?;
    let insert = block_on(async {
        run(&conn, "CREATE TABLE events(id INTEGER PRIMARY KEY, body TEXT)").await?;
        run(&conn, CAPTURE).await?;
        Result::Ok(conn.prepare("INSERT INTO events VALUES (?1, ?2)").await?)
    })?;
    let select = format!(
        "SELECT change_id, after FROM turso_cdc WHERE change_id > ?1 AND after IS NOT NULL \
         ORDER BY change_id LIMIT {PAGE}"
    );
    Ok(Box::new(Cdc { conn, insert, select, read: 0, folder: folder.to_owned() }))
}

struct Cdc {
    conn: Connection,
    insert: Statement,
    select: String,
    read: i64,
    folder: PathBuf,
}

impl Peer for Cdc {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        block_on(async {
            run(&self.conn, "BEGIN IMMEDIATE").await?;
            for event in batch {
                let body = Value::Text(event.body.as_str().to_owned());
                self.insert.execute([Value::Integer(event.number.into()), body]).await?;
                self.insert.reset()?;
            }
            run(&self.conn, "COMMIT").await
        })
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        block_on(async {
            let mut statement = self.conn.prepare_cached(&self.select).await?;
            let mut count = 0;
            loop {
                let mut page = 0;
                let mut rows = statement.query([Value::Integer(self.read)]).await?;
                while let Some(row) = rows.next().await? {
                    let (Value::Integer(at), Value::Blob(after)) = (row.get_value(0)?, row.get_value(1)?)
                    else {
                        return Err("a change without its row".into());
                    };
                    visit(&after);
                    (self.read, page) = (at, page + 1);
                }
                drop(rows);
                statement.reset()?;
                count += page;
                if page < PAGE {
                    return Ok(Some(count));
                }
            }
        })
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.folder)
    }
}

/// The statements of `benches::Captured` in Turso, `synchronous = NORMAL`.
pub(crate) fn captured(folder: Arc<TempDir>, options: CaptureOptions) -> Result<Box<dyn Side>> {
    let conn = connect(&folder.path().join("app.db"), "normal")?;
    let (shape, mut rng) = (options.shape, Rng::new(11));
    let rows: Vec<_> = (1..=ROWS_BEFORE + options.rows).map(|number| shape.row(&mut rng, number)).collect();
    let statements = block_on(async {
        run(&conn, &shape.create()).await?;
        let mut insert = conn.prepare(shape.sql(Operation::Insert)).await?;
        run(&conn, "BEGIN IMMEDIATE").await?;
        for row in rows.iter().take(usize::try_from(ROWS_BEFORE)?) {
            insert.execute(values(row)).await?;
            insert.reset()?;
        }
        run(&conn, "COMMIT").await?;
        run(&conn, CAPTURE).await?;
        Result::Ok(Statements {
            insert: conn.prepare(shape.sql(Operation::Insert)).await?,
            update: conn.prepare(shape.sql(Operation::Update)).await?,
            delete: conn.prepare(shape.sql(Operation::Delete)).await?,
        })
    })?;
    let rows = rows.into_iter().skip(usize::try_from(ROWS_BEFORE)?).collect();
    let mut side =
        Captured { conn, statements, options, rng, rows, steps: Vec::new(), done: false, _folder: folder };
    if options.operation != Operation::Insert {
        side.plan(Operation::Insert);
        side.apply(Operation::Insert)?;
    }
    Ok(Box::new(side))
}

/// Rows that are in the table all the time.
const ROWS_BEFORE: u32 = 1000;

struct Statements {
    insert: Statement,
    update: Statement,
    delete: Statement,
}

struct Captured {
    conn: Connection,
    statements: Statements,
    options: CaptureOptions,
    rng: Rng,
    rows: Vec<Vec<Bound>>,
    steps: Vec<Vec<Value>>,
    /// Whether a round was run.
    done: bool,
    _folder: Arc<TempDir>,
}

impl Captured {
    fn plan(&mut self, operation: Operation) {
        let shape: Shape = self.options.shape;
        let mut steps = Vec::new();
        for (row, number) in self.rows.iter_mut().zip(1..) {
            steps.push(match operation {
                Operation::Insert => values(row),
                Operation::Delete => values(&row[..1]),
                Operation::Update => {
                    let changes = shape.changes(&mut self.rng, row, number);
                    *row = shape.changed(row, &changes);
                    values(&changes)
                }
            });
        }
        self.steps = steps;
    }

    fn apply(&mut self, operation: Operation) -> Result<()> {
        let statement = match operation {
            Operation::Insert => &mut self.statements.insert,
            Operation::Update => &mut self.statements.update,
            Operation::Delete => &mut self.statements.delete,
        };
        let mut steps = std::mem::take(&mut self.steps).into_iter().peekable();
        block_on(async {
            while steps.peek().is_some() {
                run(&self.conn, "BEGIN IMMEDIATE").await?;
                for step in steps.by_ref().take(usize::try_from(self.options.per_transaction)?) {
                    let changed = statement.execute(params_from_iter(step)).await?;
                    if changed != 1 {
                        return Err(format!("a statement changed {changed} rows").into());
                    }
                    statement.reset()?;
                }
                run(&self.conn, "COMMIT").await?;
            }
            Ok(())
        })
    }
}

impl Side for Captured {
    fn prepare(&mut self) -> Result<()> {
        let undo = match self.options.operation {
            Operation::Insert => Some(Operation::Delete),
            Operation::Delete => Some(Operation::Insert),
            Operation::Update => None,
        };
        if let Some(undo) = undo.filter(|_| self.done) {
            self.plan(undo);
            self.apply(undo)?;
        }
        self.plan(self.options.operation);
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.apply(self.options.operation)?;
        self.done = true;
        Ok(self.options.rows)
    }
}

fn values(row: &[Bound]) -> Vec<Value> {
    let value = |bound: &Bound| match bound {
        Bound::Null => Value::Null,
        Bound::Integer(number) => Value::Integer(*number),
        Bound::Real(number) => Value::Real(*number),
        Bound::Text(text) => Value::Text(text.clone()),
        Bound::Blob(bytes) => Value::Blob(bytes.clone()),
    };
    row.iter().map(value).collect()
}
