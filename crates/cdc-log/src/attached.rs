use std::path::{Path, PathBuf};
use std::time::Duration;

use cdc_model::{Clock, Fold, ObjectId, mutant};
use rusqlite::Connection;

use crate::capture::{self, Installed, KnownTables, MarkState, Plan, Tables};
use crate::comparison::{Comparison, Remaining};
use crate::drain::{self, Compare, Drained, From, Outcome, Source};
use crate::foreign::{LocalFile, check_owner, check_prepared_owner, is_a_log, open_database, open_waiting};
use crate::schema::Schema;
use crate::transaction::{CaptureRow, LogTransaction};
use crate::trim::{self, TRIMS, Trimmed, trims};
use crate::verify::{CompareRows, RowDifference};
use crate::{Damage, Error, Log, Result, damage, restored, store};

/// A look begins anew so often when the application changes the schema meanwhile.
pub(crate) const HEALS_MAX: usize = 3;

/// A database that other processes write: its changes are captured by triggers in it and drained into a [`Log`]
/// in a file of ours.
///
/// The database is opened for each look and closed after it, so that its `-wal` never outlives the application
/// and a file put in its place is noticed.
#[derive(Debug)]
pub struct Attached {
    database: PathBuf,
    tables: Tables,
    log: Log,
    /// The schema with which capture was last found healthy.
    healthy_at: Option<Schema>,
    /// How often others held the database for too long, since it was last counted in the log.
    collisions: u64,
    /// How long a look waits for the application's lock.
    patience: Duration,
    /// Which file turned out to be damaged at the last look.
    damage: Option<Damage>,
    local: LocalFile,
}

/// The counter of how often others held the database for longer than we waited.
const COLLISIONS: &str = "collisions";

/// So many of them are kept back at most while the database stays locked: each time they are counted costs a sync.
const COLLISIONS_HELD_MAX: u64 = 25;

/// What attaching did.
#[derive(Clone, Debug)]
pub struct AttachReport {
    /// What was installed.
    pub installed: Installed,
    /// The tables that are captured now.
    pub captured: Vec<String>,
    /// The database's journal mode, which is left as it is.
    pub journal_mode: String,
}

/// What one look at the database did.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What was drained.
    pub drained: Drained,
    /// What had to be installed again or anew.
    pub healed: Option<Installed>,
    /// Whether the database turned out to be an older copy of itself.
    pub restored: bool,
    /// How many rows are drained that are still in the database; see [`Attached::trim`].
    pub untrimmed: u64,
}

impl Attached {
    /// Opens the log for a database that is attached or about to be. The database itself is only looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with the database: [`Error::NotFound`], [`Error::NotADatabase`], [`Error::NotWritable`],
    /// [`Error::Utf16`], [`Error::NetworkFileSystem`], [`Error::DrainedElsewhere`], [`Error::AnotherObject`].
    pub fn open(database: &Path, log: &Path, id: &ObjectId, tables: Tables, clock: &Clock) -> Result<Self> {
        Self::open_within(store::BUSY_TIMEOUT, database, log, id, tables, clock)
    }

    /// As [`Attached::open`], for somebody who has other things to do: neither this nor a later look waits longer than
    /// `patience` while the application holds its lock, but ends with an error that [is busy](Error::is_busy).
    ///
    /// # Errors
    ///
    /// As for [`Attached::open`].
    pub fn open_within(
        patience: Duration,
        database: &Path,
        log: &Path,
        id: &ObjectId,
        tables: Tables,
        clock: &Clock,
    ) -> Result<Self> {
        let was_attached = |error: Error| if log.exists() { error.of_database(database) } else { error };
        let user = open_waiting(database, patience, &LocalFile::default()).map_err(was_attached)?;
        // Before a log is made for what is another's, and again with the log's own name.
        check_owner(&user, database, id, None).map_err(|error| error.of_database(database))?;
        let log = Log::open(log, id, clock)?;
        let attached = Self::over(log, database, tables, patience);
        attached.check_owner(&user)?;
        user.close().map_err(|(_, error)| error)?;
        Ok(attached)
    }

    /// As [`Attached::open_within`], for a database that was attached before: the first look finds out what is wrong with
    /// it, so that its log is of use also without it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no log, and as for [`Log::open`].
    pub fn open_log(
        patience: Duration,
        database: &Path,
        log: &Path,
        id: &ObjectId,
        tables: Tables,
        clock: &Clock,
    ) -> Result<Self> {
        if !log.exists() {
            // A new one would not be the one that the database was drained into.
            return Err(Error::NotFound { path: log.to_owned() });
        }
        Ok(Self::over(Log::open(log, id, clock)?, database, tables, patience))
    }

    fn over(log: Log, database: &Path, tables: Tables, patience: Duration) -> Self {
        let database = database.to_owned();
        Self {
            database,
            tables,
            log,
            healthy_at: None,
            collisions: 0,
            patience,
            damage: None,
            local: LocalFile::default(),
        }
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The log.
    pub const fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Installs capture in one short transaction of the database. A kill leaves all of it or nothing. Looks take up the
    /// rows that are there, in ranges: they become snapshots.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTable`] or [`Error::UnsupportedTable`]; nothing is installed then.
    pub fn install(&mut self) -> Result<AttachReport> {
        let installed = self.install_now();
        self.blame(installed)
    }

    fn install_now(&mut self) -> Result<AttachReport> {
        let user = open_database(&self.database)?;
        self.check_owner(&user)?;
        if is_a_log(&user)? {
            return Err(Error::IsALog { path: self.database.clone() });
        }
        // What is recorded as attached must be so after a loss of power: what is written without capture is found by
        // comparison only.
        user.pragma_update(None, "synchronous", "extra")?;
        let journal_mode = user.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let installed = self.heal(&user)?;
        let captured = capture::current(&user)?.into_keys().collect();
        user.close().map_err(|(_, error)| error)?;
        Ok(AttachReport { installed, captured, journal_mode })
    }

    /// Looks at the database once: heals capture, drains what is new, and undoes or compares what a restored copy
    /// or a bypass changed. At most one chunk is drained; look again while `more` is set.
    ///
    /// # Errors
    ///
    /// [`Error::LogRewound`]; [`Error::Sqlite`] with [`Error::is_busy`] when the application holds its lock too
    /// long; and what is wrong with the database, as for [`Attached::open`].
    pub fn look(&mut self) -> Result<Look> {
        self.look_and(Compare::WhenNeeded)
    }

    /// As [`Attached::look`], and goes on with a comparison of all tables, or begins one: a range of keys, when nothing is
    /// left to be drained. `more` is set until it is done; [`Log::compared_at`] tells when the last one began.
    ///
    /// # Errors
    ///
    /// As for [`Attached::look`].
    pub fn audit(&mut self) -> Result<Look> {
        self.look_and(Compare::Audit)
    }

    fn look_and(&mut self, compare: Compare) -> Result<Look> {
        let looked = self.look_once(compare);
        match &looked {
            Ok(_) => self.count_collisions()?,
            Err(error) if error.is_busy() => self.collide()?,
            Err(_) => {}
        }
        self.blame(looked)
    }

    fn blame<R>(&mut self, done: Result<R>) -> Result<R> {
        damage::blame(&mut self.damage, &self.log, &self.database, done)
    }

    fn collide(&mut self) -> Result<()> {
        self.collisions += 1;
        if self.collisions < COLLISIONS_HELD_MAX { Ok(()) } else { self.count_collisions() }
    }

    /// Writes to the log what no drain has taken along.
    fn count_collisions(&mut self) -> Result<()> {
        let collisions = self.collisions;
        if collisions > 0 {
            self.log.transact(|log| log.count(COLLISIONS, collisions))?;
            self.collisions = 0;
        }
        Ok(())
    }

    fn look_once(&mut self, compare: Compare) -> Result<Look> {
        let user = self.open_database(self.patience)?;
        if mutant!("trimmed-before-drained") && capture::has_rows(&user)? {
            user.execute("DELETE FROM _cdc_capture WHERE seq < (SELECT max(seq) FROM _cdc_capture)", [])?;
        }
        let looked = self.look_at(&user, compare);
        user.close().map_err(|(_, error)| error)?;
        looked
    }

    fn look_at(&mut self, user: &Connection, compare: Compare) -> Result<Look> {
        let mut look = Look::default();
        for _ in 0..HEALS_MAX {
            user.execute_batch("BEGIN")?;
            let done = self.look_in(user, &mut look, compare).and_then(|done| {
                if done {
                    look.untrimmed = trim::untrimmed(user, drain::mark(&self.log.conn)?)?;
                }
                Ok(done)
            });
            user.execute_batch("ROLLBACK")?;
            if done? {
                return Ok(look);
            }
            let healed = self.heal(user)?;
            look.healed = look.healed.or_else(|| (!healed.tables.is_empty()).then_some(healed));
        }
        look.drained.more = true;
        Ok(look)
    }

    /// Drains one chunk inside the read transaction the caller holds on the database. Gives false when capture must
    /// be found healthy first.
    pub(crate) fn look_in(&mut self, user: &Connection, look: &mut Look, compare: Compare) -> Result<bool> {
        let schema = Schema::read(user)?;
        let is_healthy = |at| at == schema || mutant!("changed-schema-not-healed");
        if !self.healthy_at.is_some_and(is_healthy) {
            self.check_owner(user)?;
            return Ok(false);
        }
        // With that schema the tables of capture are there.
        self.check_prepared_owner(user)?;
        let mark = drain::mark(&self.log.conn)?;
        let state = capture::mark_state(user, mark)?;
        if state == MarkState::Agrees && trims(user)? > trims(&self.log.conn)? {
            // An older log in which nothing is missing: from here on it is as good as the one that was trimmed for.
            let count = trims(user)?;
            self.log.transact(|log| store::put_meta(log.conn(), TRIMS, count))?;
        }
        let at_rest = compare != Compare::Audit && !Comparison::read(&self.log.conn)?.is_needed();
        match state {
            MarkState::Agrees if at_rest && !capture::has_rows_after(user, mark)? => return Ok(true),
            // Without any row there is nothing to hold the mark against.
            MarkState::Differs { oldest: None } => {
                self.healthy_at = None;
                return Ok(false);
            }
            MarkState::Agrees | MarkState::Differs { .. } => {}
        }
        look.drained = self.drain_at(user, mark, state, compare)?;
        look.restored = state != MarkState::Agrees;
        Ok(true)
    }

    fn drain_at(
        &mut self,
        user: &Connection,
        mark: Option<CaptureRow>,
        state: MarkState,
        compare: Compare,
    ) -> Result<Drained> {
        let tables = capture::by_id(user)?;
        let source = Source { user, tables: &tables };
        let collisions = self.collisions;
        let (drained, tampered) = self.log.transact(|log| {
            if collisions > 0 {
                log.count(COLLISIONS, collisions)?;
            }
            let mut start = Start { done: Drained::default(), from: mark, compare };
            if let MarkState::Differs { oldest } = state {
                start.find(user, log, oldest)?;
            }
            start.drain(source, log)
        })?;
        self.collisions = 0;
        if tampered {
            self.healthy_at = None;
        }
        Ok(drained)
    }

    /// Installs what is missing or damaged, in one short transaction; nothing is written when all is well.
    fn heal(&mut self, user: &Connection) -> Result<Installed> {
        let mut schema = Schema::read(user)?;
        let stored = Schema::stored(&self.log.conn)?;
        let compare = stored.is_some_and(|old| schema.hides_something_since(&old));
        let known = capture::known(&self.log.conn)?;
        let plan = Plan::make(user, &self.tables, &known)?;
        let mut installed = Installed { left_out: plan.left_out().to_vec(), ..Installed::default() };
        if compare || !plan.is_empty() || !capture::has_rows(user)? {
            let healed = self.heal_locked(user, &known, compare);
            (installed, schema) = healed.map_err(|error| error.of_write_to(&self.database))?;
        } else {
            self.check_owner(user)?;
        }
        if stored != Some(schema) {
            self.log.transact(|log| schema.store(log.conn()))?;
        }
        self.healthy_at = Some(schema);
        installed.rows = capture::count_rows(user, &installed.new)?;
        Ok(installed)
    }

    fn heal_locked(
        &self,
        user: &Connection,
        known: &KnownTables,
        compare: bool,
    ) -> Result<(Installed, Schema)> {
        user.execute_batch("BEGIN IMMEDIATE")?;
        let done = self.heal_in(user, known, compare);
        // A full disk may have rolled it back.
        if !user.is_autocommit() {
            user.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        }
        done
    }

    fn heal_in(&self, user: &Connection, known: &KnownTables, compare: bool) -> Result<(Installed, Schema)> {
        // Again under the write lock: another log may have attached the database in between.
        self.check_owner(user)?;
        capture::prepare(user, self.log.id(), &self.log.epoch().to_string())?;
        if !capture::has_rows(user)? && known.is_empty() {
            // Positions begin with a row that every later one follows.
            capture::write_row(user, 0, "A", &[])?;
        } else if compare || !capture::has_rows(user)? {
            capture::write_barrier(user)?;
        }
        // Planned again under the write lock: the schema may have changed in between.
        let installed = Plan::make(user, &self.tables, known)?.carry_out(user)?;
        Ok((installed, Schema::read(user)?))
    }

    pub(crate) fn check_owner(&self, user: &Connection) -> Result<()> {
        check_owner(user, &self.database, self.log.id(), Some(&self.log.epoch().to_string()))
    }

    fn check_prepared_owner(&self, user: &Connection) -> Result<()> {
        check_prepared_owner(user, &self.database, self.log.id(), Some(&self.log.epoch().to_string()))
    }

    /// Removes drained capture rows from the database, a few at a time, never the one at the mark. Does nothing
    /// when somebody else is writing.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`] other than a held lock.
    pub fn trim(&mut self) -> Result<Trimmed> {
        self.trim_within(Duration::ZERO)
    }

    /// As [`Attached::trim`], and waits as long as a look for somebody else who is writing.
    ///
    /// # Errors
    ///
    /// As for [`Attached::trim`].
    pub fn trim_waiting(&mut self) -> Result<Trimmed> {
        self.trim_within(self.patience)
    }

    fn trim_within(&mut self, patience: Duration) -> Result<Trimmed> {
        let Some(mark) = drain::mark(&self.log.conn)? else {
            return Ok(Trimmed::Rows(0));
        };
        match self.trim_once(mark, patience) {
            Err(error) if error.is_busy() => {
                self.collide()?;
                Ok(Trimmed::Busy)
            }
            other => {
                let rows = self.blame(other)?;
                self.count_collisions()?;
                Ok(Trimmed::Rows(rows))
            }
        }
    }

    fn open_database(&self, patience: Duration) -> Result<Connection> {
        let opened = open_waiting(&self.database, patience, &self.local);
        opened.map_err(|error| error.of_database(&self.database))
    }

    fn trim_once(&mut self, mark: CaptureRow, patience: Duration) -> Result<u64> {
        let user = self.open_database(patience)?;
        let trimmed = self.trim_at(&user, mark);
        user.close().map_err(|(_, error)| error)?;
        trimmed
    }

    fn trim_at(&mut self, user: &Connection, mark: CaptureRow) -> Result<u64> {
        self.check_owner(user)?;
        let Some(step) = trim::begin(user, &mut self.log, mark)? else { return Ok(0) };
        step.take(user).map_err(|error| error.of_write_to(&self.database))
    }

    /// Runs `work` on log and database at one moment at which nothing waits to be drained, with a comparison of the
    /// live tables. `None` when something does, or the schema has changed since capture was last found healthy; try again.
    ///
    /// # Errors
    ///
    /// What `work` returns, [`Error::Sqlite`] or [`Error::Corrupt`].
    pub fn at_rest<R, E: std::convert::From<Error>>(
        &mut self,
        work: impl FnOnce(&Log, &CompareRows<'_>) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let user = self.open_database(store::BUSY_TIMEOUT)?;
        let of_database = |error: Error| error.of_database(&self.database);
        self.log.at_one_moment(|log| {
            user.execute_batch("BEGIN").map_err(Error::Sqlite)?;
            let mark = drain::mark(&log.conn)?;
            let is_compared = !Comparison::read(&log.conn)?.is_needed();
            let is_drained = || {
                Ok(capture::mark_state(&user, mark)? == MarkState::Agrees
                    && !capture::has_rows_after(&user, mark)?)
            };
            if !is_compared || !is_drained().map_err(of_database)? {
                return Ok(None);
            }
            if Schema::stored(&log.conn)? != Some(Schema::read(&user).map_err(of_database)?) {
                return Ok(None);
            }
            let compare =
                |fold: &Fold| crate::verify::compare_rows(&user, log.id(), fold).map_err(of_database);
            work(log, &compare).map(Some)
        })
    }

    /// What is left of the taking up of rows that were there, or of a comparison that is needed. Looks do it.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`] with [`Error::is_busy`] when the application holds its lock too long.
    pub fn remaining(&self) -> Result<Remaining> {
        let user = self.open_database(self.patience)?;
        user.execute_batch("BEGIN")?;
        let remaining = Comparison::read(&self.log.conn)?.remaining(&user, &self.log.conn)?;
        user.close().map_err(|(_, error)| error)?;
        Ok(remaining)
    }

    /// Compares the live tables with a fold of this object's history: the first difference, or `None`.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn compare_rows(&self, fold: &Fold) -> Result<Option<RowDifference>> {
        let user = self.open_database(store::BUSY_TIMEOUT)?;
        crate::verify::compare_rows(&user, self.log.id(), fold)
            .map_err(|error| error.of_database(&self.database))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // A log that takes nothing just now, or any more, goes without these few.
        drop(self.count_collisions());
    }
}

/// How a drain begins.
struct Start {
    /// What was done before it.
    done: Drained,
    from: Option<CaptureRow>,
    compare: Compare,
}

impl Start {
    /// When the row at the mark is not the one that was drained, the database is an older copy of itself: undoes what
    /// was drained after the copy was taken.
    fn find(&mut self, user: &Connection, log: &mut LogTransaction<'_>, oldest: Option<i64>) -> Result<()> {
        match restored::fork_point(user, log)? {
            Some((row, sequence)) => {
                self.from = Some(row);
                if let Some(undone) = restored::undo(log, sequence)? {
                    (self.done.records, self.done.reconciled) = (undone, undone);
                }
                // What bypassed capture after the copy was taken is in before-images, and not in the copy.
                self.compare = Compare::All;
                drain::set_mark(log.conn(), row)
            }
            None if trims(user)? > trims(log.conn())? => Err(Error::LogRewound {
                object: log.id().clone(),
                mark: self.from.map_or(0, |mark| mark.seq),
                oldest: oldest.unwrap_or_default(),
            }),
            None => {
                // Rows whose past is not known count for what they hold; the comparison finds the rest.
                (self.from, self.compare) = (None, Compare::All);
                Ok(())
            }
        }
    }

    /// Gives also whether rows turned out not to be as triggers wrote them.
    fn drain(mut self, source: Source<'_>, log: &mut LogTransaction<'_>) -> Result<(Drained, bool)> {
        let from = self.from.map_or(From::First, From::After);
        let Outcome { drained, mark, tampered } = drain::drain(source, log, from, self.compare, None)?;
        self.done.add(drained);
        if let Some(mark) = mark.filter(|_| !mutant!("capture-mark-not-moved")) {
            drain::set_mark(log.conn(), mark)?;
        }
        Ok((self.done, tampered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_logs_that_attach_a_database_at_once_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let app = Connection::open(&database).unwrap();
        app.execute_batch("CREATE TABLE customers(id INTEGER PRIMARY KEY)").unwrap();
        let id = "https://crm.headless.ly/acme".parse().unwrap();
        let open = |log| {
            let log = folder.path().join(log);
            Attached::open(&database, &log, &id, Tables::All, &Clock::system()).unwrap()
        };
        let (mut first, mut second) = (open("first.db"), open("second.db"));
        let user = open_database(&database).unwrap();
        second.check_owner(&user).unwrap();
        first.install().unwrap();
        let mut refused = || matches!(second.heal(&user), Err(Error::DrainedElsewhere { .. }));
        assert!(refused());
        // There is something to be installed as well, and it is not.
        app.execute_batch("CREATE TABLE orders(id INTEGER PRIMARY KEY)").unwrap();
        assert!(refused());
        let healed = first.look().unwrap().healed.unwrap();
        assert_eq!(healed.new, ["orders"]);
    }
}
