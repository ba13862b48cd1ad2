use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_model::mutant;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection, Params, params};
use serde::Serialize;

use crate::capture::{self, CapturedTable, Plan, Tables};
use crate::comparison::Comparison;
use crate::drain::{self, Compare, Drained, From, Outcome, Source};
use crate::emit::{Emit, json};
use crate::joint::Joint;
use crate::{Durability, Error, Log, LogTransaction, Result, store};

/// A write transaction of an owned object: SQL on its tables and emitted documents, all or nothing.
///
/// It cannot be ended from inside, and it cannot touch the tables of the log.
#[derive(Debug)]
pub struct Tx<'c> {
    conn: &'c Connection,
    guarded: &'c AtomicBool,
    joint: RefCell<Joint>,
}

/// While it lives, statements on the connection are the caller's: see [`guard`].
struct Guarded<'g>(&'g AtomicBool);

impl<'g> Guarded<'g> {
    fn new(guarded: &'g AtomicBool) -> Self {
        guarded.store(true, Ordering::Relaxed);
        Self(guarded)
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<'c> Tx<'c> {
    fn alive(&self) -> Result<&'c Connection> {
        if self.conn.is_autocommit() { Err(Error::TransactionGone) } else { Ok(self.conn) }
    }

    /// Runs statements of our own among the caller's. A statement is checked again when the schema has changed
    /// since it was prepared, so that running it belongs in here as much as preparing it.
    pub(crate) fn outside_guard<R>(&self, work: impl FnOnce() -> R) -> R {
        self.guarded.store(false, Ordering::Relaxed);
        let done = work();
        self.guarded.store(true, Ordering::Relaxed);
        done
    }

    /// Runs one statement; gives the number of rows it changed.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`], or [`Error::TransactionGone`] once a statement has rolled the transaction back.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params).map_err(denied)
    }

    /// Runs several statements separated by semicolons.
    ///
    /// # Errors
    ///
    /// As for [`Tx::execute`].
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        self.alive()?.execute_batch(sql).map_err(denied)
    }

    /// Runs a query and maps its one row.
    ///
    /// # Errors
    ///
    /// As for [`Tx::execute`]; `QueryReturnedNoRows` when there is none.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        map: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.prepare_cached(sql)?.query_row(params, map).map_err(denied)
    }

    /// Prepares a statement, or takes it from the cache.
    ///
    /// # Errors
    ///
    /// As for [`Tx::execute`].
    pub fn prepare_cached(&self, sql: &str) -> Result<CachedStatement<'c>> {
        let conn = self.alive()?;
        if sql.contains(OURS) {
            // The cache goes by the text. Every statement of ours has the mark in it, so that the caller never gets
            // one that was prepared without the guard.
            conn.flush_prepared_statement_cache();
        }
        conn.prepare_cached(sql).map_err(denied)
    }

    /// The row id of the last insert.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        self.conn.last_insert_rowid()
    }

    /// Sets the correlation id of every event of this transaction, for distributed tracing; a document that is emitted
    /// with one of its own keeps it.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for more than 1024 bytes.
    pub fn correlate(&self, correlation_id: impl Into<String>) -> Result<()> {
        self.joint.borrow_mut().correlate(correlation_id.into())
    }

    /// Says something of this transaction as a whole, which every event of it carries in its `transaction`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for more than 4096 bytes of JSON, [`Error::GivenUp`] when it does not serialise to JSON.
    pub fn metadata<T: Serialize>(&self, metadata: &T) -> Result<()> {
        self.joint.borrow_mut().describe(json(metadata)?)
    }

    /// Emits the change of a document that has no table.
    ///
    /// # Errors
    ///
    /// As for [`Tx::execute`].
    pub fn emit(&self, change: &Emit) -> Result<()> {
        let conn = self.alive()?;
        self.outside_guard(|| {
            conn.prepare_cached(EMIT)?.execute(params![
                change.collection,
                change.document_id,
                change.operation,
                change.changed_fields,
                change.before,
                change.after,
                change.correlation_id,
            ])?;
            Ok(())
        })
    }
}

const EMIT: &str = "INSERT INTO _cdc_capture(ts, op, tbl, nonce, v0, v1, v2, v3, v4, v5, v6) VALUES \
    (julianday(), 'E', 0, random(), ?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// What the names of our tables, triggers and statements have in them.
const OURS: &str = "_cdc_";

fn denied(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => Error::NotAllowed {
            reason: "ending the transaction, attaching a database, altering a temporary table or touching the tables of the log",
        },
        _ => Error::Sqlite(error),
    }
}

/// Keeps the caller's statements inside the transaction and off our tables while `guarded` is set.
///
/// What our own triggers do on the caller's behalf is allowed; what the caller's triggers do is not. Dropping our
/// triggers is allowed, because dropping a table does it; they are installed again, and the table is compared. A
/// statement that runs on after the transaction is gone would commit by itself: no commit is let through.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is allowed, also what SQLite adds later")]
pub(crate) fn guard(conn: &mut Connection, guarded: &Arc<AtomicBool>) -> Result<()> {
    let ours = |name: &str| name.get(..OURS.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(OURS));
    let is_guarded = Arc::clone(guarded);
    conn.authorizer(Some(move |context: AuthContext<'_>| {
        if !is_guarded.load(Ordering::Relaxed) || context.accessor.is_some_and(ours) {
            return Authorization::Allow;
        }
        let name = match context.action {
            // ALTER TABLE asks it whether the rows that are there fit a column.
            AuthAction::Pragma { pragma_name: "quick_check", .. } => return Authorization::Allow,
            AuthAction::Transaction { .. }
            | AuthAction::Attach { .. }
            | AuthAction::Detach { .. }
            | AuthAction::CreateTempTrigger { .. }
            // Nobody is asked about the new name, and one of ours would hide our table.
            | AuthAction::AlterTable { database_name: "temp", .. }
            | AuthAction::Pragma { pragma_value: Some(_), .. } => return Authorization::Deny,
            AuthAction::Insert { table_name: name }
            | AuthAction::Delete { table_name: name }
            | AuthAction::Update { table_name: name, .. }
            | AuthAction::Savepoint { savepoint_name: name, .. }
            | AuthAction::CreateTable { table_name: name }
            | AuthAction::CreateVtable { table_name: name, .. }
            | AuthAction::CreateTempTable { table_name: name }
            | AuthAction::CreateView { view_name: name }
            | AuthAction::CreateTempView { view_name: name }
            | AuthAction::CreateIndex { table_name: name, .. }
            | AuthAction::DropTable { table_name: name }
            | AuthAction::DropIndex { table_name: name, .. }
            | AuthAction::AlterTable { table_name: name, .. } => name,
            AuthAction::CreateTrigger { trigger_name, table_name } => {
                if ours(trigger_name) {
                    trigger_name
                } else {
                    table_name
                }
            }
            _ => return Authorization::Allow,
        };
        if ours(name) { Authorization::Deny } else { Authorization::Allow }
    }))?;
    let is_guarded = Arc::clone(guarded);
    conn.commit_hook(Some(move || is_guarded.load(Ordering::Relaxed)))?;
    Ok(())
}

impl Log {
    /// Captures tables of the log's own database. Existing rows become snapshots, in one transaction with the
    /// triggers.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownTable`] or [`Error::UnsupportedTable`]; nothing is installed then.
    pub fn capture(&mut self, tables: &Tables) -> Result<Drained> {
        let settings =
            serde_json::to_string(tables).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        self.drain()?;
        self.prepare_capture()?;
        let drained = self.transact_owned(|log, own| {
            store::put_meta(log.conn(), "capture_tables", &settings)?;
            own.heal(log, tables)?;
            own.drain(log, Compare::WhenNeeded, None)
        })?;
        self.drain_rest(drained)
    }

    /// Runs `work` in one write transaction, in which every change of a captured table and every emitted document
    /// becomes a record of this log. `Ok` means durable, unless [`Log::set_durability`] says otherwise; `Err` leaves nothing.
    ///
    /// Of a very large transaction, or of one that changes the schema of a captured table, the records after the first
    /// chunk are appended by [`Log::drain`], at the latest before the next write.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::TransactionGone`] when a statement rolled the transaction back;
    /// [`Error::NotAllowed`] for statements that would end it.
    pub fn write<R>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        self.write_in(self.durability, |log, own| own.write(log, work))
    }

    /// Runs `work` in one transaction in which the caller may write, once nothing of earlier ones waits.
    pub(crate) fn write_in<R>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&mut LogTransaction<'_>, &mut OwnCapture) -> Result<R>,
    ) -> Result<R> {
        self.drain()?;
        self.prepare_capture()?;
        self.transact_owned_as(durability, work)
    }

    /// Appends what an earlier write was too large to append at once, a chunk per transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`]; what was appended before stays.
    pub fn drain(&mut self) -> Result<Drained> {
        let more = self.own_capture.pending && is_prepared(self)?;
        self.drain_rest(Drained { more, ..Drained::default() })
    }

    /// Drains what others have written into captured tables of the file meanwhile, so that it is not taken for the next
    /// transaction's.
    pub(crate) fn drain_foreign(&mut self) -> Result<()> {
        self.own_capture.pending |= capture::has_rows(&self.conn)?;
        self.drain().map(drop)
    }

    /// Installs what is missing of capture after another process has changed the schema, as every write does, and drains
    /// what that leaves.
    ///
    /// # Errors
    ///
    /// As for [`Log::capture`].
    pub fn heal(&mut self) -> Result<Drained> {
        let drained = self.drain()?;
        if !is_prepared(self)? {
            return Ok(drained);
        }
        let healed = self.transact_owned(|log, own| own.drain_healthy(log, Compare::WhenNeeded, None))?;
        self.drain_rest(healed)
    }

    /// Whether capture is as it should be with the schema as it is now. An owner that writes makes it so.
    pub(crate) fn is_capture_healthy(&self) -> Result<bool> {
        let conn = &self.conn;
        if !capture::is_prepared(conn)? || healthy_at(conn)? == Some(cookie(conn)?) {
            return Ok(true);
        }
        match Plan::make(conn, &tables_told(conn)?, &capture::known(conn)?) {
            Ok(plan) => Ok(plan.is_empty()),
            Err(Error::UnknownTable { .. } | Error::UnsupportedTable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Goes on with a comparison of all captured tables with the log, or begins one: a range of keys, in one transaction.
    /// `more` is set until it is done; [`Log::compared_at`] tells when the last one began.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`]; what was appended before stays.
    pub fn audit(&mut self) -> Result<Drained> {
        self.drain()?;
        if !is_prepared(self)? {
            return Ok(Drained::default());
        }
        self.transact_owned(|log, own| {
            let done = own.drain_healthy(log, Compare::Audit, None)?;
            // What else is left is the audit's.
            own.pending &= Comparison::read(log.conn())?.is_needed();
            Ok(done)
        })
    }

    fn drain_rest(&mut self, mut drained: Drained) -> Result<Drained> {
        while drained.more {
            let next = self.transact_owned(|log, own| own.drain_rest(log))?;
            drained.add(next);
        }
        Ok(drained)
    }

    fn prepare_capture(&mut self) -> Result<()> {
        if !is_prepared(self)? {
            self.transact_owned(|log, own| own.prepare(log))?;
        }
        Ok(())
    }

    fn transact_owned<R>(
        &mut self,
        work: impl FnOnce(&mut LogTransaction<'_>, &mut OwnCapture) -> Result<R>,
    ) -> Result<R> {
        self.transact_owned_as(Durability::Full, work)
    }

    pub(crate) fn transact_owned_as<R>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&mut LogTransaction<'_>, &mut OwnCapture) -> Result<R>,
    ) -> Result<R> {
        let mut own = std::mem::take(&mut self.own_capture);
        let done = self.transact_as(durability, |log| work(log, &mut own));
        if done.is_ok() {
            self.own_capture = own;
        }
        done
    }

    /// Runs `work` with the database for reading. Writes are refused.
    ///
    /// # Errors
    ///
    /// What `work` returns.
    pub fn query<R>(&self, work: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
        self.conn.pragma_update(None, "query_only", true)?;
        let _writable_again = QueryOnly(&self.conn);
        let _guarded = Guarded::new(&self.guarded);
        work(&self.conn)
    }
}

/// Lets the connection write again when it goes.
struct QueryOnly<'c>(&'c Connection);

impl Drop for QueryOnly<'_> {
    fn drop(&mut self) {
        // Were it to fail, writes would be refused with an error of their own.
        drop(self.0.pragma_update(None, "query_only", false));
    }
}

fn cookie(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?)
}

/// What the cookie of the schema is kept under with which capture was last found healthy.
const HEALTHY_AT: &str = "capture_schema";

fn healthy_at(conn: &Connection) -> Result<Option<i64>> {
    store::meta(conn, HEALTHY_AT)
}

/// Which tables are to be captured.
fn tables_told(conn: &Connection) -> Result<Tables> {
    let tables: Option<String> = store::meta(conn, "capture_tables")?;
    let tables = tables.and_then(|text| serde_json::from_str(&text).ok());
    Ok(tables.unwrap_or(Tables::Named(Vec::new())))
}

fn is_prepared(log: &mut Log) -> Result<bool> {
    if !log.own_capture.prepared {
        log.own_capture.prepared = capture::is_prepared(&log.conn)?;
    }
    Ok(log.own_capture.prepared)
}

/// What is known of capture in the log's own file. Forgotten when a transaction fails.
#[derive(Debug)]
pub(crate) struct OwnCapture {
    /// Whether its tables are there.
    prepared: bool,
    /// Whether rows may wait to be drained.
    pending: bool,
    /// The cookie of the schema with which capture was last found healthy, as far as it was looked for.
    healthy_at: Option<i64>,
    known: Option<Known>,
}

/// What a schema is, as of this cookie.
#[derive(Debug)]
struct Known {
    cookie: i64,
    /// The shapes of captured tables.
    tables: BTreeMap<i64, CapturedTable>,
    /// See [`OwnCapture::writes_alone`].
    writes_alone: bool,
}

impl Known {
    fn read(conn: &Connection, cookie: i64) -> Result<Self> {
        let alone = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name NOT LIKE '\\_cdc\\_%' ESCAPE '\\' \
                     AND (sql LIKE '%rollback%' OR sql LIKE '%deferred%'))";
        let writes_alone = conn.query_row(alone, [], |row| row.get(0))?;
        Ok(Self { cookie, tables: capture::by_id(conn)?, writes_alone })
    }
}

impl Default for OwnCapture {
    fn default() -> Self {
        Self { prepared: false, pending: true, healthy_at: None, known: None }
    }
}

impl OwnCapture {
    /// Runs the caller's statements and drains a chunk of what they captured.
    pub(crate) fn write<R>(
        &mut self,
        log: &mut LogTransaction<'_>,
        work: impl FnOnce(&Tx<'_>) -> Result<R>,
    ) -> Result<R> {
        let (conn, guarded) = (log.conn(), log.log().guarded.as_ref());
        let tx = Tx { conn, guarded, joint: RefCell::default() };
        let done = {
            let _guarded = Guarded::new(guarded);
            work(&tx)?
        };
        if conn.is_autocommit() {
            return Err(Error::TransactionGone);
        }
        let mut joint = tx.joint.into_inner();
        self.drain_healthy(log, Compare::WhenNeeded, Some(&mut joint))?;
        if self.pending {
            joint.keep(conn)?;
        }
        Ok(done)
    }

    /// Makes the tables that a write needs, if they are missing.
    pub(crate) fn prepare(&mut self, log: &LogTransaction<'_>) -> Result<()> {
        if !self.prepared && !capture::is_prepared(log.conn())? {
            capture::prepare(log.conn(), log.id(), &log.log().epoch.to_string())?;
        }
        self.prepared = true;
        Ok(())
    }

    /// Whether a write may take others with it that share its transaction: a constraint or trigger that rolls all of
    /// it back, or a constraint that is checked when it is committed.
    pub(crate) fn writes_alone(&mut self, conn: &Connection) -> Result<bool> {
        Ok(self.known(conn)?.writes_alone)
    }

    /// What the schema is, as of its cookie now.
    fn known(&mut self, conn: &Connection) -> Result<&Known> {
        let cookie = cookie(conn)?;
        let known = match self.known.take() {
            Some(known) if known.cookie == cookie => known,
            _ => Known::read(conn, cookie)?,
        };
        Ok(self.known.insert(known))
    }

    /// Whether a write has left more than was drained with it.
    pub(crate) const fn has_more(&self) -> bool {
        self.pending && self.prepared
    }

    /// Drains what a write left because it was too large. A comparison that is under way goes on later.
    pub(crate) fn drain_whole(&mut self, log: &mut LogTransaction<'_>) -> Result<()> {
        while self.pending && capture::has_rows(log.conn())? {
            self.drain_rest(log)?;
        }
        Ok(())
    }

    /// Drains a chunk of what a write left, as of that write's transaction.
    fn drain_rest(&mut self, log: &mut LogTransaction<'_>) -> Result<Drained> {
        let mut joint = Joint::kept(log.conn())?;
        let drained = self.drain(log, Compare::WhenNeeded, joint.as_mut())?;
        match &joint {
            Some(joint) if drained.more => joint.keep(log.conn())?,
            Some(_) => Joint::forget(log.conn())?,
            None => {}
        }
        Ok(drained)
    }

    /// Drains a chunk, after installing what is missing if the schema has changed: by the transaction itself, or by
    /// another process since the last one.
    fn drain_healthy(
        &mut self,
        log: &mut LogTransaction<'_>,
        compare: Compare,
        joint: Option<&mut Joint>,
    ) -> Result<Drained> {
        let cookie = cookie(log.conn())?;
        if self.healthy_at != Some(cookie) {
            self.healthy_at = healthy_at(log.conn())?;
        }
        if self.healthy_at != Some(cookie) {
            self.heal(log, &tables_told(log.conn())?)?;
        }
        self.drain(log, compare, joint)
    }

    /// Installs what is missing. A captured table whose shape changed is compared with the log.
    fn heal(&mut self, log: &LogTransaction<'_>, tables: &Tables) -> Result<()> {
        let plan = Plan::make(log.conn(), tables, &capture::known(log.conn())?)?;
        if !plan.is_empty() {
            plan.carry_out(log.conn())?;
        }
        let cookie = cookie(log.conn())?;
        store::put_meta(log.conn(), HEALTHY_AT, cookie)?;
        self.healthy_at = Some(cookie);
        Ok(())
    }

    /// Drains a chunk of the object's own capture rows and removes them: mark and rows lie in one file, so that no
    /// row is kept behind.
    fn drain(
        &mut self,
        log: &mut LogTransaction<'_>,
        compare: Compare,
        joint: Option<&mut Joint>,
    ) -> Result<Drained> {
        let tables = &self.known(log.conn())?.tables;
        let source = Source { user: log.conn(), tables };
        let Outcome { drained, mark: last, tampered } =
            drain::drain(source, log, From::Oldest, compare, joint)?;
        if let Some(last) = last.filter(|_| !mutant!("drained-row-left")) {
            log.conn().prepare_cached("DELETE FROM _cdc_capture WHERE seq <= ?1")?.execute([last.seq])?;
        }
        if capture::barrier(log.conn())?.zip(last).is_some_and(|(barrier, last)| barrier <= last.seq) {
            // Rows count from 1 again.
            log.conn().execute("DELETE FROM _cdc_meta WHERE key = 'barrier'", [])?;
        }
        if tampered {
            // Whoever edited rows may have edited what they are read by.
            self.known = None;
            self.heal(log, &tables_told(log.conn())?)?;
        }
        self.pending = drained.more;
        Ok(drained)
    }
}
