//! What capture costs an application: the same statements without capture, with one more prepared insert, with the
//! triggers, and with the triggers but those that look for rows that a REPLACE removes.

use std::path::Path;
use std::sync::Arc;

use cdc_log::{Attached, Tables};
use cdc_model::{Clock, Operation};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tempfile::TempDir;

use crate::workload::placeholders;
use crate::{Result, Rng, Shape, Side, object};

/// How changes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the triggers that attaching installs.
    Triggers,
    /// By the same triggers without the guards: what a REPLACE removes is missed. No setting does this; it tells
    /// what capture costs from what the guards cost.
    Unguarded,
    /// By one more statement of the application, which knows the values already.
    Floor,
    /// By a trigger that does the floor's insert and nothing else: neither time nor nonce, nor rows that a REPLACE
    /// removes. It tells what a trigger costs by itself.
    BareTrigger,
    /// Not at all.
    None,
}

/// What all sides do in one round.
#[derive(Clone, Copy, Debug)]
pub struct CaptureOptions {
    /// The table.
    pub shape: Shape,
    /// The statement.
    pub operation: Operation,
    /// Rows in one transaction.
    pub per_transaction: u32,
    /// Rows in one round.
    pub rows: u32,
}

/// Rows that are in the table all the time.
const ROWS_BEFORE: u32 = 1000;

/// The application with triggers, with one more insert, without capture, with triggers but without guards, and with a
/// trigger that only does that one more insert, in this order.
///
/// # Errors
///
/// When a database cannot be made.
pub fn capture_sides(options: CaptureOptions) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let side =
        |how| -> Result<Box<dyn Side>> { Ok(Box::new(Captured::new(Arc::clone(&folder), how, options)?)) };
    [How::Triggers, How::Floor, How::None, How::Unguarded, How::BareTrigger].into_iter().map(side).collect()
}

/// One statement and what the floor keeps of it.
#[derive(Clone, Debug, Default)]
struct Step {
    bound: Vec<Value>,
    kept: Vec<Value>,
}

/// An application that writes to one table of its own.
#[derive(Debug)]
pub struct Captured {
    conn: Connection,
    how: How,
    options: CaptureOptions,
    rng: Rng,
    /// The rows that come and go or change.
    rows: Vec<Vec<Value>>,
    steps: Vec<Step>,
    kept: i64,
    _folder: Arc<TempDir>,
}

impl Captured {
    fn new(folder: Arc<TempDir>, how: How, options: CaptureOptions) -> Result<Self> {
        let path = folder.path().join(format!("{how:?}.db"));
        let conn = Connection::open(&path)?;
        conn.execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = wal; PRAGMA synchronous = normal",
        )?;
        conn.execute_batch(&options.shape.create())?;
        let mut rng = Rng::new(11);
        let mut insert = conn.prepare(&options.shape.sql(Operation::Insert))?;
        for number in 1..=ROWS_BEFORE {
            insert.execute(params_from_iter(options.shape.row(&mut rng, number)))?;
        }
        drop(insert);
        match how {
            How::Triggers | How::Unguarded => {
                install(&path, &folder.path().join(format!("{how:?}-log.db")))?;
                if how == How::Unguarded {
                    drop_guards(&conn)?;
                }
            }
            How::Floor => conn.execute_batch(&kept_table(options.shape))?,
            How::BareTrigger => {
                conn.execute_batch(&kept_table(options.shape))?;
                conn.execute_batch(&bare_trigger(options.shape, options.operation))?;
            }
            How::None => {}
        }
        let numbers = ROWS_BEFORE + 1..=ROWS_BEFORE + options.rows;
        let rows = numbers.map(|number| options.shape.row(&mut rng, number)).collect();
        let mut side = Self { conn, how, options, rng, rows, steps: Vec::new(), kept: 0, _folder: folder };
        if options.operation != Operation::Insert {
            side.plan(Operation::Insert);
            side.apply(Operation::Insert)?;
        }
        Ok(side)
    }

    /// Works out everything that the next statements bind.
    fn plan(&mut self, operation: Operation) {
        let shape = self.options.shape;
        let mut steps = Vec::with_capacity(self.rows.len());
        for (row, number) in self.rows.iter_mut().zip(1..) {
            let (bound, states) = match operation {
                Operation::Insert => (row.clone(), row.clone()),
                Operation::Delete => (row.iter().take(1).cloned().collect(), row.clone()),
                Operation::Update => {
                    let changes = shape.changes(&mut self.rng, row, number);
                    let after = shape.changed(row, &changes);
                    let before = std::mem::replace(row, after.clone());
                    (changes, [before, after].concat())
                }
            };
            self.kept += 1;
            let kept = match self.how {
                How::Floor => {
                    let nonce = self.rng.draw().cast_signed();
                    let head = [self.kept, 1_705_276_800_000, 1, 1, nonce].map(Value::Integer);
                    head.into_iter().chain(states).collect()
                }
                How::Triggers | How::Unguarded | How::BareTrigger | How::None => Vec::new(),
            };
            steps.push(Step { bound, kept });
        }
        self.steps = steps;
    }

    fn apply(&self, operation: Operation) -> Result<()> {
        let shape = self.options.shape;
        let states = if operation == Operation::Update { 2 } else { 1 };
        let sql = shape.sql(operation);
        let keep = keep_statement(shape, states);
        for steps in self.steps.chunks(usize::try_from(self.options.per_transaction)?.max(1)) {
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let mut statement = self.conn.prepare_cached(&sql)?;
            if self.how == How::Floor {
                let mut keep = self.conn.prepare_cached(&keep)?;
                for step in steps {
                    statement.execute(params_from_iter(&step.bound))?;
                    keep.execute(params_from_iter(&step.kept))?;
                }
            } else {
                for step in steps {
                    statement.execute(params_from_iter(&step.bound))?;
                }
            }
            self.conn.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(())
    }
}

impl Side for Captured {
    fn prepare(&mut self) -> Result<()> {
        let undo = match self.options.operation {
            Operation::Insert => Some(Operation::Delete),
            Operation::Delete => Some(Operation::Insert),
            Operation::Update => None,
        };
        // Before its first round the table is as the operation needs it already.
        if let Some(undo) = undo.filter(|_| !self.steps.is_empty() && self.is_done()) {
            self.plan(undo);
            self.apply(undo)?;
        }
        self.plan(self.options.operation);
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.apply(self.options.operation)?;
        Ok(self.options.rows)
    }
}

impl Captured {
    /// Whether the table already is as the operation leaves it.
    fn is_done(&self) -> bool {
        let key = self.rows.first().and_then(|row| row.first()).cloned().unwrap_or(Value::Null);
        let exists = self
            .conn
            .query_row("SELECT EXISTS(SELECT 1 FROM customers WHERE id = ?1)", [key], |row| row.get(0))
            .unwrap_or(false);
        exists == (self.options.operation == Operation::Insert)
    }
}

/// An untyped table like the one that the triggers write to.
fn kept_table(shape: Shape) -> String {
    let columns: String = (0..shape.columns() * 2).map(|at| format!(", v{at}")).collect();
    format!("CREATE TABLE kept(seq INTEGER PRIMARY KEY, ts, op, tbl, nonce{columns})")
}

fn keep_statement(shape: Shape, states: usize) -> String {
    let values = shape.columns() * states;
    let columns: String = (0..values).map(|at| format!(", v{at}")).collect();
    format!("INSERT INTO kept(seq, ts, op, tbl, nonce{columns}) VALUES ({})", placeholders(5 + values))
}

/// A trigger that keeps the states which the operation has, with constants for what the floor binds beside them.
fn bare_trigger(shape: Shape, operation: Operation) -> String {
    let states: &[&str] = match operation {
        Operation::Insert => &["NEW"],
        Operation::Update => &["OLD", "NEW"],
        Operation::Delete => &["OLD"],
    };
    let values: String =
        states.iter().flat_map(|state| shape.names().map(move |name| format!(", {state}.{name}"))).collect();
    let columns: String = (0..shape.columns() * states.len()).map(|at| format!(", v{at}")).collect();
    format!(
        "CREATE TRIGGER bare AFTER {operation} ON customers BEGIN \
         INSERT INTO kept(ts, op, tbl, nonce{columns}) VALUES (1705276800000, 1, 1, 1{values}); END"
    )
}

fn install(database: &Path, log: &Path) -> Result<()> {
    let tables = Tables::Named(vec!["customers".to_owned()]);
    let mut attached = Attached::open(database, log, &object("app")?, tables, &Clock::system())?;
    attached.install()?;
    Ok(())
}

/// The triggers of an insert that look for rows which a REPLACE removes: before it those that conflict, after it those
/// that are gone.
const GUARDS: [&str; 2] = ["_cdc_1_guard_insert", "_cdc_1_replaced_by_insert"];

fn drop_guards(app: &Connection) -> Result<()> {
    for guard in GUARDS {
        app.execute_batch(&format!("DROP TRIGGER {guard}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_changes_every_row_once_and_keeps_it_once() {
        for operation in [Operation::Insert, Operation::Update, Operation::Delete] {
            let sides = [
                (How::Triggers, "_cdc_capture"),
                (How::Unguarded, "_cdc_capture"),
                (How::Floor, "kept"),
                (How::BareTrigger, "kept"),
            ];
            for (how, table) in sides {
                let folder = Arc::new(tempfile::tempdir().unwrap());
                let options =
                    CaptureOptions { shape: Shape::wide(), operation, per_transaction: 7, rows: 20 };
                let mut side = Captured::new(folder, how, options).unwrap();
                let count = |side: &Captured| {
                    let sql = format!("SELECT count(*) FROM {table}");
                    side.conn.query_row(&sql, [], |row| row.get::<_, u32>(0)).unwrap()
                };
                for _ in 0..3 {
                    side.prepare().unwrap();
                    let (before, changes) = (count(&side), side.conn.total_changes());
                    assert_eq!(side.run().unwrap(), 20);
                    assert_eq!(count(&side) - before, 20, "{operation} {how:?}");
                    assert!(side.conn.total_changes() - changes >= 40, "{operation} {how:?}");
                }
            }
        }
    }
}
