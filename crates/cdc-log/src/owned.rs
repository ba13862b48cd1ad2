use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdc_model::{Change, changed_fields};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection, Params, params};
use serde::Serialize;

use crate::capture::{self, Plan, Tables};
use crate::drain::{self, Drained};
use crate::{Error, Log, Result};

/// A document's change without a table, to be emitted inside a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    collection: String,
    document_id: String,
    operation: &'static str,
    changed_fields: Option<String>,
    before: Option<String>,
    after: Option<String>,
    correlation_id: Option<String>,
}

impl Emit {
    /// A document came into being.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`] when the document does not serialise to JSON.
    pub fn insert<T: Serialize>(collection: &str, document_id: &str, after: &T) -> Result<Self> {
        Self::new(collection, document_id, &Change::Insert { after: json(after)? })
    }

    /// A document changed; the changed paths are worked out.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`] when a document does not serialise to JSON.
    pub fn update<T: Serialize>(collection: &str, document_id: &str, before: &T, after: &T) -> Result<Self> {
        let (before, after) = (json(before)?, json(after)?);
        let changed_fields = changed_fields(&before, &after);
        Self::new(collection, document_id, &Change::Update { before, after, changed_fields })
    }

    /// A document went.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`] when the document does not serialise to JSON.
    pub fn delete<T: Serialize>(collection: &str, document_id: &str, before: &T) -> Result<Self> {
        Self::new(collection, document_id, &Change::Delete { before: json(before)? })
    }

    fn new(collection: &str, document_id: &str, change: &Change<serde_json::Value>) -> Result<Self> {
        let operation = change.operation();
        let updated = operation == cdc_model::Operation::Update;
        Ok(Self {
            collection: collection.to_owned(),
            document_id: document_id.to_owned(),
            operation: operation.as_str(),
            changed_fields: updated.then(|| serde_json::Value::from(change.changed_fields()).to_string()),
            before: change.before().map(ToString::to_string),
            after: change.after().map(ToString::to_string),
            correlation_id: None,
        })
    }

    /// Sets the correlation id, for distributed tracing.
    #[must_use]
    pub fn correlate(mut self, correlation_id: impl Into<String>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }
}

fn json(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::GivenUp { reason: format!("a document does not serialise: {error}") })
}

/// A write transaction of an owned object: SQL on its tables and emitted documents, all or nothing.
///
/// It cannot be ended from inside, and it cannot touch the tables of the log.
#[derive(Debug)]
pub struct Tx<'c> {
    conn: &'c Connection,
    /// Cleared while a statement of our own is prepared.
    inside: &'c AtomicBool,
}

impl<'c> Tx<'c> {
    fn alive(&self) -> Result<&'c Connection> {
        if self.conn.is_autocommit() { Err(Error::TransactionGone) } else { Ok(self.conn) }
    }

    /// Prepares statements of our own while the caller's are guarded.
    pub(crate) fn outside_guard<R>(&self, work: impl FnOnce() -> R) -> R {
        self.inside.store(false, Ordering::Relaxed);
        let done = work();
        self.inside.store(true, Ordering::Relaxed);
        done
    }

    /// Runs one statement; gives the number of rows it changed.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`], or [`Error::TransactionGone`] once a statement has rolled the transaction back.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        Ok(self.prepare_cached(sql)?.execute(params)?)
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
        Ok(self.prepare_cached(sql)?.query_row(params, map)?)
    }

    /// Prepares a statement, or takes it from the cache.
    ///
    /// # Errors
    ///
    /// As for [`Tx::execute`].
    pub fn prepare_cached(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.alive()?.prepare_cached(sql).map_err(denied)
    }

    /// The row id of the last insert.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        self.conn.last_insert_rowid()
    }

    /// Emits the change of a document that has no table.
    ///
    /// # Errors
    ///
    /// As for [`Tx::execute`].
    pub fn emit(&self, change: &Emit) -> Result<()> {
        let (head, row) = EMIT;
        let conn = self.alive()?;
        // Our own statement on our own table: its text is not the caller's.
        let mut statement =
            self.outside_guard(|| conn.prepare_cached(&format!("{head} VALUES ({row}) --emit")))?;
        statement.execute(params![
            change.collection,
            change.document_id,
            change.operation,
            change.changed_fields,
            change.before,
            change.after,
            change.correlation_id,
        ])?;
        Ok(())
    }
}

const EMIT: (&str, &str) = (
    "INSERT INTO _cdc_capture(ts, op, tbl, nonce, v0, v1, v2, v3, v4, v5, v6)",
    "CAST((julianday('now')-2440587.5)*86400000+0.5 AS INTEGER), 'E', 0, random(), ?1, ?2, ?3, ?4, ?5, ?6, ?7",
);

fn denied(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => Error::NotAllowed {
            reason: "ending the transaction, attaching a database or touching the tables of the log",
        },
        _ => Error::Sqlite(error),
    }
}

/// Installs the authorizer that keeps the caller's statements inside the transaction while `inside` is set.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is allowed, also what SQLite adds later")]
pub(crate) fn guard(conn: &mut Connection, inside: Arc<AtomicBool>) -> Result<()> {
    conn.authorizer(Some(move |context: AuthContext<'_>| {
        if !inside.load(Ordering::Relaxed) || context.accessor.is_some() {
            return Authorization::Allow;
        }
        let ours = |name: &str| name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("_cdc_"));
        let table = match context.action {
            AuthAction::Transaction { .. }
            | AuthAction::Attach { .. }
            | AuthAction::Detach { .. }
            | AuthAction::Pragma { pragma_value: Some(_), .. } => return Authorization::Deny,
            AuthAction::Insert { table_name: name }
            | AuthAction::Delete { table_name: name }
            | AuthAction::Update { table_name: name, .. }
            | AuthAction::DropTable { table_name: name }
            | AuthAction::AlterTable { table_name: name, .. }
            | AuthAction::DropTrigger { trigger_name: name, .. } => Some(name),
            _ => None,
        };
        let denied = table.is_some_and(ours);
        if denied { Authorization::Deny } else { Authorization::Allow }
    }))?;
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
        self.conn.set_prepared_statement_cache_capacity(128);
        let epoch = self.epoch.to_string();
        let settings =
            serde_json::to_string(tables).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        let mut drained = self.transact(|log| {
            let conn = log.conn();
            if !capture::is_prepared(conn)? {
                capture::prepare(conn, log.id(), &epoch)?;
            }
            crate::store::put_meta(conn, "capture_tables", &settings)?;
            heal_owned(log, tables)
        })?;
        while drained.more {
            let next = self.transact(drain_owned)?;
            drained.add(next);
        }
        Ok(drained)
    }

    /// Runs `work` in one write transaction, in which every change of a captured table and every emitted document
    /// becomes a record of this log. `Ok` means durable; `Err` leaves nothing.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::TransactionGone`] when a statement rolled the transaction back;
    /// [`Error::NotAllowed`] for statements that would end it.
    pub fn write<R>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<R>) -> Result<R> {
        self.write_with(|tx, _| work(tx))
    }

    /// As [`Log::write`], with the log's own transaction beside the caller's.
    pub(crate) fn write_with<R>(
        &mut self,
        work: impl FnOnce(&Tx<'_>, &mut crate::LogTransaction<'_>) -> Result<R>,
    ) -> Result<R> {
        while capture_pending(self)? {
            self.transact(drain_owned)?;
        }
        let inside = Arc::clone(&self.inside);
        let prepared = capture::is_prepared(&self.conn)?;
        if !prepared {
            let epoch = self.epoch.to_string();
            self.transact(|log| capture::prepare(log.conn(), log.id(), &epoch))?;
        }
        let cookie =
            |conn: &Connection| conn.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
        let done = self.transact(|log| {
            let before = cookie(log.conn())?;
            inside.store(true, Ordering::Relaxed);
            let done = work(&Tx { conn: log.conn(), inside: &inside }, log);
            inside.store(false, Ordering::Relaxed);
            let done = done?;
            if log.conn().is_autocommit() {
                return Err(Error::TransactionGone);
            }
            if cookie(log.conn())? == before {
                drain_owned(log)?;
            } else {
                let tables: Option<String> = crate::store::meta(log.conn(), "capture_tables")?;
                let tables = tables.and_then(|text| serde_json::from_str(&text).ok());
                heal_owned(log, &tables.unwrap_or(Tables::Named(Vec::new())))?;
            }
            Ok(done)
        });
        inside.store(false, Ordering::Relaxed);
        done
    }

    /// Runs `work` with the database for reading. Writes are refused.
    ///
    /// # Errors
    ///
    /// What `work` returns.
    pub fn query<R>(&self, work: impl FnOnce(&Connection) -> Result<R>) -> Result<R> {
        self.conn.pragma_update(None, "query_only", true)?;
        let done = work(&self.conn);
        self.conn.pragma_update(None, "query_only", false)?;
        done
    }
}

/// Whether rows wait that an earlier transaction was too large to drain, or that a stranger wrote.
fn capture_pending(log: &Log) -> Result<bool> {
    if !capture::is_prepared(&log.conn)? {
        return Ok(false);
    }
    Ok(log.conn.query_row("SELECT EXISTS(SELECT 1 FROM _cdc_capture)", [], |row| row.get(0))?)
}

/// Installs what is missing and drains. A captured table whose shape changed is compared with the log.
fn heal_owned(log: &mut crate::LogTransaction<'_>, tables: &Tables) -> Result<Drained> {
    let plan = Plan::make(log.conn(), tables)?;
    if !plan.is_empty() {
        let known: Vec<String> =
            capture::by_id(log.conn())?.into_values().map(|table| table.shape.table).collect();
        plan.carry_out(log.conn(), |table| known.iter().any(|known| known == table))?;
    }
    drain_owned(log)
}

/// Drains a chunk of the object's own capture rows and removes them: mark and rows lie in one file, so that no
/// row is kept behind.
fn drain_owned(log: &mut crate::LogTransaction<'_>) -> Result<Drained> {
    let (drained, last) = drain::drain_own(log)?;
    if let Some(last) = last {
        log.conn().prepare_cached("DELETE FROM _cdc_capture WHERE seq <= ?1")?.execute([last.seq])?;
    }
    Ok(drained)
}
