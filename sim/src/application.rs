//! The application of an attached database: it knows nothing of the engine and writes with plain SQLite.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc::Env;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

use crate::random::Random;
use crate::topology::{Habits, Journal};
use crate::workload::{SCHEMA, Transaction};

/// Pause before it tries again what somebody's lock, or the disk, kept it from.
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(20);

/// How often it tries again what somebody's lock keeps it from.
const ATTEMPTS_MAX: u32 = 20;

/// The longest that it leaves a transaction open.
const LINGERS_MAX: Duration = Duration::from_millis(30);

/// Of a hundred transactions, how many are left open for a while.
const LINGERS_PERCENT: u64 = 25;

/// After how many of a hundred transactions it opens its database anew.
const REOPENS_PERCENT: u64 = 10;

/// Up to here it vacuums its database instead.
const VACUUMS_PERCENT: u64 = 13;

/// Up to here it changes its journal instead.
const FLIPS_PERCENT: u64 = 17;

/// After how many of a hundred transactions it changes the captured tables, if it does that.
const REDESIGNS_PERCENT: u64 = 4;

/// The stream of random numbers of those changes.
const DESIGNS: usize = usize::MAX / 11;

/// A change of the captured tables.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Design {
    Sql(&'static str),
    /// One of the triggers that capture is gone.
    TriggerDropped(u32),
    /// Rows are written while no trigger fires.
    Unseen(&'static str),
}

/// The ways in which tools and people change tables: columns, keys' order, the rebuild that ORMs do.
const DESIGNS_OF_TABLES: [Design; 12] = [
    Design::Sql("ALTER TABLE notes ADD COLUMN more"),
    Design::Sql("ALTER TABLE notes ADD COLUMN grade INTEGER NOT NULL DEFAULT 7"),
    Design::Sql("ALTER TABLE tags ADD COLUMN more TEXT DEFAULT 'none'"),
    Design::Sql("ALTER TABLE notes RENAME COLUMN more TO less"),
    Design::Sql("ALTER TABLE tags RENAME COLUMN more TO \"the \"\"rest\""),
    Design::Sql(
        "CREATE TABLE rebuilt(id INTEGER PRIMARY KEY, title TEXT, amount);
         INSERT INTO rebuilt SELECT id, title, amount FROM notes;
         DROP TABLE notes;
         ALTER TABLE rebuilt RENAME TO notes",
    ),
    Design::Sql(
        "CREATE TRIGGER IF NOT EXISTS shouts AFTER INSERT ON tags WHEN NEW.color = 'a' BEGIN
                     UPDATE tags SET color = 'A' WHERE name = NEW.name; END",
    ),
    Design::TriggerDropped(0),
    Design::TriggerDropped(3),
    // Many rows at once, where a table is filled: more than stay before drained ones are removed.
    Design::Sql("UPDATE notes SET amount = amount + 1 WHERE id BETWEEN -1000150 AND -1000001"),
    // Somebody edits what capture has written, so that it fits nothing any more.
    Design::Sql(
        "UPDATE notes SET title = 'edited' WHERE id % 3 = 0;
         UPDATE _cdc_capture SET op = '?' WHERE seq = (SELECT max(seq) FROM _cdc_capture)",
    ),
    Design::Sql(
        "DELETE FROM tags WHERE rank % 2 = 0;
         UPDATE _cdc_capture SET tbl = 'tags' WHERE seq = (SELECT max(seq) FROM _cdc_capture)",
    ),
];

/// What is written around capture.
const BYPASSES: [Design; 4] = [
    Design::Unseen("DELETE FROM notes WHERE id = (SELECT max(id) FROM notes)"),
    Design::Unseen("UPDATE notes SET title = 'unseen' WHERE id % 3 = 0"),
    Design::Unseen("INSERT OR REPLACE INTO tags(name, rank, color) VALUES ('unseen', -1, 'grey')"),
    Design::Unseen("DELETE FROM tags WHERE rank % 2 = 1"),
];

/// Of a hundred changes of an application that writes around capture, how many do that.
const BYPASSES_PERCENT: u64 = 30;

/// Rows that a filled table has: more than one step of a comparison takes. Their keys lie below those that are written, or
/// every other statement would change all of them.
const FILLED_ROWS: u32 = 1_300;

impl Design {
    /// Whether nothing tells of it but what it did.
    pub(crate) const fn is_unseen(self) -> bool {
        matches!(self, Self::Unseen(_))
    }
}

/// The application of one database, while its process lives.
#[derive(Debug)]
pub(crate) struct Application<E> {
    env: E,
    database: PathBuf,
    journal: Journal,
    habits: Habits,
    random: Random,
    /// When it changes its tables, and how.
    designs: Random,
    conn: Option<Connection>,
}

impl<E: Env> Application<E> {
    pub(crate) fn new(env: E, database: PathBuf, habits: Habits, random: Random) -> Self {
        let designs = random.branch(DESIGNS);
        Self { env, database, journal: habits.journal, habits, random, designs, conn: None }
    }

    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// Makes its tables if they are missing, and durable whatever a process that ended or a commit that failed has left
    /// in the database. Gives the number of the last transaction that is in it.
    pub(crate) async fn settle(&mut self) -> u32 {
        loop {
            if let Ok(number) = self.on_disk(settle).await {
                return number;
            }
            self.pause().await;
        }
    }

    /// Runs a transaction. Gives whether it was committed; `None` when nobody knows, until it is settled.
    pub(crate) async fn run(&mut self, transaction: Transaction) -> Option<bool> {
        let committed = self.transact(transaction).await;
        match self.random.between(1, 100) {
            ..=REOPENS_PERCENT => self.close(),
            ..=VACUUMS_PERCENT if committed.is_some() => drop(self.on_disk(vacuum).await),
            ..=FLIPS_PERCENT if committed.is_some() && self.habits.may_flip => {
                self.journal = *self.random.pick(&Journal::ALL);
                let name = self.journal.name();
                // Somebody's lock may be in the way; it is set again when the database is opened.
                drop(self.on_disk(move |conn| conn.pragma_update(None, "journal_mode", name)).await);
            }
            _ => {}
        }
        committed
    }

    fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.env.blocking(move || drop(conn));
        }
    }

    /// How the captured tables are to be changed, when it is time to.
    pub(crate) fn design(&mut self) -> Option<Design> {
        if !self.habits.may_redesign || !self.designs.chance(REDESIGNS_PERCENT) {
            return None;
        }
        let bypasses = self.habits.may_bypass && self.designs.chance(BYPASSES_PERCENT);
        let designs = if bypasses { &BYPASSES[..] } else { &DESIGNS_OF_TABLES[..] };
        Some(*self.designs.pick(designs))
    }

    /// Changes the captured tables, or what captures them. What does not fit them, or is kept from it by somebody's
    /// lock, is not done. Gives whether it was.
    pub(crate) async fn redesign(&mut self, design: Design) -> bool {
        let changed = self.on_disk(move |conn| {
            let script = match design {
                Design::Sql(script) | Design::Unseen(script) => script.to_owned(),
                Design::TriggerDropped(nth) => trigger_dropped(conn, nth)?,
            };
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, !design.is_unseen())?;
            let changed = all_or_nothing(conn, &script);
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?;
            changed
        });
        changed.await.is_ok()
    }

    /// Whether the tables hold many rows before they are captured.
    pub(crate) const fn is_filled(&self) -> bool {
        self.habits.is_filled
    }

    /// Fills its tables, unless that was done or is kept from it.
    pub(crate) async fn fill(&mut self) {
        let fill = format!(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {FILLED_ROWS})
             INSERT OR IGNORE INTO notes(id, title, amount) SELECT -1000000 - x, 'there', x FROM n"
        );
        // Without them it is as good.
        drop(self.on_disk(move |conn| all_or_nothing(conn, &fill)).await);
    }

    async fn transact(&mut self, transaction: Transaction) -> Option<bool> {
        let begin = *self.random.pick(&["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]);
        let is_rolled_back = transaction.is_rolled_back();
        let begun = self.repeat(move |conn| {
            conn.execute_batch(begin)?;
            let run = transaction.run_plain(conn).and_then(|()| {
                // So that it can be told later whether this one was committed.
                conn.pragma_update(None, "user_version", transaction.number)
            });
            run.or_else(|error| conn.execute_batch("ROLLBACK").and(Err(error)))
        });
        match begun.await {
            Some(true) => {}
            ended @ (Some(false) | None) => return ended,
        }
        if self.random.chance(LINGERS_PERCENT) {
            let time = self.random.time(LINGERS_MAX);
            self.env.sleep(time).await;
        }
        if is_rolled_back {
            return self.roll_back().await;
        }
        match self.repeat(|conn| conn.execute_batch("COMMIT")).await {
            Some(false) => self.roll_back().await,
            ended @ (Some(true) | None) => ended,
        }
    }

    async fn roll_back(&mut self) -> Option<bool> {
        self.on_disk(|conn| conn.execute_batch("ROLLBACK")).await.ok().map(|()| false)
    }

    /// Works until nobody's lock keeps it from that: whether one does in the end; `None` when it failed otherwise.
    async fn repeat(
        &mut self,
        work: impl Fn(&Connection) -> rusqlite::Result<()> + Clone + Send + 'static,
    ) -> Option<bool> {
        for _ in 0..ATTEMPTS_MAX {
            match self.on_disk(work.clone()).await {
                Ok(()) => return Some(true),
                Err(error) if is_busy(&error) => self.pause().await,
                Err(_) => return None,
            }
        }
        Some(false)
    }

    async fn pause(&mut self) {
        let time = self.random.time(AGAIN_AFTER_MAX);
        self.env.sleep(time).await;
    }

    /// Works on the database, in a connection that goes when something fails in it.
    async fn on_disk<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> rusqlite::Result<R> {
        let (conn, database) = (self.conn.take(), self.database.clone());
        let (journal, synchronous) = (self.journal, self.habits.synchronous);
        let pages = *self.random.pick(&[2, 20, 1_000]);
        let (way, done) = oneshot::channel();
        self.env.blocking(move || {
            let conn = conn.map_or_else(|| open(&database, journal, synchronous, pages), Ok);
            let worked = conn.map(|conn| match work(&conn) {
                Err(error) if !is_busy(&error) => (None, Err(error)),
                worked => (Some(conn), worked),
            });
            drop(way.send(worked));
        });
        match done.await {
            Ok(Ok((conn, worked))) => {
                self.conn = conn;
                worked
            }
            Ok(Err(error)) => Err(error),
            // Its process has ended.
            Err(_) => std::future::pending().await,
        }
    }
}

/// As an application opens its database. It waits for no lock: that would stop the world.
fn open(
    database: &Path,
    journal: Journal,
    synchronous: &str,
    checkpoint_pages: u32,
) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database, flags)?;
    conn.busy_timeout(Duration::ZERO)?;
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "journal_mode", journal.name())?;
    conn.pragma_update(None, "wal_autocheckpoint", checkpoint_pages)?;
    Ok(conn)
}

fn settle(conn: &Connection) -> rusqlite::Result<u32> {
    conn.execute_batch(SCHEMA)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let number = conn.pragma_query_value(None, "user_version", |row| row.get(0));
    let settled = number.and_then(|number| {
        conn.pragma_update(None, "user_version", number)?;
        conn.execute_batch("COMMIT")?;
        Ok(number)
    });
    settled.or_else(|error| conn.execute_batch("ROLLBACK").and(Err(error)))
}

fn all_or_nothing(conn: &Connection, script: &str) -> rusqlite::Result<()> {
    let done = conn.execute_batch(&format!("BEGIN IMMEDIATE; {script}; COMMIT"));
    if done.is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    done
}

fn trigger_dropped(conn: &Connection, nth: u32) -> rusqlite::Result<String> {
    let named =
        "SELECT 'DROP TRIGGER ' || name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_cdc\\_%'
                 ESCAPE '\\' ORDER BY name LIMIT 1 OFFSET ?1";
    conn.query_row(named, [nth], |row| row.get(0))
}

fn vacuum(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("VACUUM")
}

/// Whether somebody's lock was in the way.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
