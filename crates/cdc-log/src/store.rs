//! The log's tables and how its file is opened.

use std::path::Path;
use std::time::Duration;

use cdc_model::{Digest, Epoch, ObjectId, mutant};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::{Error, Result, template};

/// The layout of the tables below. A file with a newer one is refused.
const FORMAT: i64 = 1;

/// How long a statement waits for another process's lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A WAL of at most this many pages (1 MiB) is moved into the file at the next commit, so that thousands of
/// objects do not keep gigabytes of WAL.
const WAL_PAGES_MAX: u32 = 256;

/// Of a log that is one of many, such a WAL is moved already (256 KiB).
const WAL_PAGES_MAX_OF_MANY: u32 = 64;

/// `_cdc_log` has no secondary index and no constraint. Own rows keep the capture row they were drained from,
/// forwarded rows their origin; every 64th row keeps the running digest. `_cdc_document` has the newest event of every
/// captured document, and its state where that event is not in the log any more.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS _cdc_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_log(sequence INTEGER PRIMARY KEY, timestamp, origin, origin_sequence, origin_timestamp, capture, nonce, digest, body);
CREATE TABLE IF NOT EXISTS _cdc_origin(id INTEGER PRIMARY KEY, source TEXT, epoch TEXT, route TEXT);
CREATE TABLE IF NOT EXISTS _cdc_origin_mark(source TEXT, epoch TEXT, sequence, PRIMARY KEY(source, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_link(child TEXT PRIMARY KEY, generation, session, epoch, sequence, digest) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_checkpoint(subscriber TEXT PRIMARY KEY, sequence, timestamp, epoch, created_at, updated_at, metadata, revision) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_fence(subscriber TEXT PRIMARY KEY, token) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_effect(subscriber TEXT, first, last, PRIMARY KEY(subscriber, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_stage(stage TEXT, key TEXT, value TEXT, PRIMARY KEY(stage, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _cdc_verdict(sequence INTEGER PRIMARY KEY, verdict TEXT);
CREATE TABLE IF NOT EXISTS _cdc_dead_letter(sequence INTEGER PRIMARY KEY, stage TEXT, reason TEXT);
CREATE TABLE IF NOT EXISTS _cdc_parked(sequence INTEGER PRIMARY KEY, timestamp, origin, origin_sequence, origin_timestamp, body);
CREATE TABLE IF NOT EXISTS _cdc_document(collection TEXT, document TEXT, sequence, state TEXT, PRIMARY KEY(collection, document)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _cdc_document_hot ON _cdc_document(sequence) WHERE state IS NULL;
CREATE TABLE IF NOT EXISTS _cdc_counter(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
";

/// Pages of 4 KiB with the log's tables.
pub(crate) fn lay_out(conn: &Connection) -> Result<()> {
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update(None, "auto_vacuum", "incremental")?;
    Ok(conn.execute_batch(TABLES)?)
}

/// Opens or makes the file of a log: WAL, 4 KiB pages, FULL durability.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    template::place(path)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(128);
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages == 0 {
        // Both count for a file that is made just now. Of one that is there, the second would write a page and sync it.
        conn.pragma_update(None, "page_size", 4096)?;
        conn.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    write_ahead(&conn, path)?;
    conn.pragma_update(None, "synchronous", if mutant!("not-synced") { "normal" } else { "full" })?;
    conn.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
    Ok(conn)
}

/// Keeps the write-ahead log small.
pub(crate) fn keep_wal_small(conn: &Connection) -> Result<()> {
    Ok(conn.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX_OF_MANY)?)
}

/// Gives back the memory of pages and statements, which is most of what an open file takes.
pub(crate) fn release_memory(conn: &Connection) -> Result<()> {
    conn.flush_prepared_statement_cache();
    Ok(conn.execute_batch("PRAGMA shrink_memory")?)
}

/// Lets the connection be closed without moving the write-ahead log into the file, which costs several syncs.
pub(crate) fn leave_wal(conn: &Connection) -> Result<()> {
    Ok(conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)?)
}

/// Moves the write-ahead log into the file and begins it anew. Fails while somebody reads.
pub(crate) fn move_wal(conn: &Connection) -> Result<()> {
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None).into());
    }
    Ok(())
}

/// Whether SQLite finds nothing wrong with the file. Whatever keeps it from looking is what was asked about.
pub(crate) fn is_sound(conn: &Connection) -> bool {
    let found: rusqlite::Result<String> = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    found.is_ok_and(|found| found == "ok")
}

/// Puts the database into WAL mode and makes sure that it is: with a rollback journal, a commit that `FULL` has
/// acknowledged can be lost with the power.
///
/// SQLite stays in another mode without an error when it cannot change it, and only who reads next sees the mode that
/// is in the file.
///
/// The change itself has a rollback journal. Should its deletion be undone by a loss of power, the journal would roll
/// back what is in the log by then. The first sync of a WAL syncs the folder as well, but an error of that is told to
/// nobody. So before there is a log the change is made with `EXTRA`, and again if that failed.
fn write_ahead(conn: &Connection, path: &Path) -> Result<()> {
    if !has_log(conn)? {
        conn.pragma_update(None, "synchronous", "extra")?;
        let changed = set_journal_mode(conn, "delete").map_err(Error::Sqlite);
        // Others who have it open already are in WAL mode.
        changed.or_else(|error| if error.is_busy() { Ok(()) } else { Err(error) })?;
    }
    set_journal_mode(conn, "wal")?;
    conn.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    match mode.as_str() {
        "wal" => Ok(()),
        _ => Err(Error::NoWriteAheadLog { path: path.to_owned(), mode }),
    }
}

fn has_log(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM pragma_table_info('_cdc_log')")?.exists([])
}

/// When the disk fails, the change is given up as the statement ends, after its answer.
fn set_journal_mode(conn: &Connection, mode: &str) -> rusqlite::Result<()> {
    let mut change = conn.prepare(&format!("PRAGMA journal_mode = {mode}"))?;
    let mut answers = change.query([])?;
    while answers.next()?.is_some() {}
    Ok(())
}

/// Makes the tables if they are missing, and the log's identity with them.
pub(crate) fn prepare(conn: &Connection, path: &Path, id: &ObjectId) -> Result<Epoch> {
    if template::is_unused(conn)? {
        template::make_name_durable(path)?;
    }
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let prepared = prepare_in(conn, path, id);
    conn.execute_batch(if prepared.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    prepared
}

fn prepare_in(conn: &Connection, path: &Path, id: &ObjectId) -> Result<Epoch> {
    let was_there = has_log(conn)?;
    conn.execute_batch(TABLES)?;
    let format: Option<i64> = meta(conn, "format")?;
    if format.is_some_and(|format| format > FORMAT) {
        return Err(Error::NotAllowed { reason: "opening a log that a newer version of this program made" });
    }
    let found: Option<String> = meta(conn, "object")?;
    if let Some(found) = found.filter(|found| found != id.as_str()) {
        return Err(Error::AnotherObject { path: path.to_owned(), found, expected: id.clone() });
    }
    let damaged = |what: &str| Error::Damaged { path: path.to_owned(), what: what.to_owned() };
    if let Some(epoch) = meta::<String>(conn, "epoch")? {
        // A table that was lost with its name would be made anew, and empty.
        if !was_there {
            return Err(damaged("it has an epoch and no log"));
        }
        let identity: Option<String> = meta(conn, "identity")?;
        if identity.is_some_and(|identity| identity != identity_of(id, &epoch)) {
            return Err(damaged("its epoch is not the one that it was made with"));
        }
        return Ok(epoch.parse()?);
    }
    let is_unused = template::is_unused(conn)?;
    if was_there && !is_unused {
        return Err(damaged("it has a log and no epoch"));
    }
    let nonce: i64 = conn.query_row("SELECT random()", [], |row| row.get(0))?;
    let epoch = Epoch { number: 1, nonce: nonce.cast_unsigned() };
    if is_unused {
        template::mark_used(conn)?;
    }
    put_meta(conn, "format", FORMAT)?;
    put_meta(conn, "object", id.as_str())?;
    put_meta(conn, "epoch", epoch.to_string())?;
    put_meta(conn, "identity", identity_of(id, &epoch.to_string()))?;
    Ok(epoch)
}

/// What is stored beside object and epoch, so that a bit of the epoch that changes is found: no row's digest is over it.
fn identity_of(id: &ObjectId, epoch: &str) -> String {
    Digest::of(format!("{id} {epoch}").as_bytes()).to_string()
}

pub(crate) fn meta<T: rusqlite::types::FromSql>(conn: &Connection, key: &str) -> Result<Option<T>> {
    let mut statement = conn.prepare_cached("SELECT value FROM _cdc_meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// As [`meta`], of a database that others can write: what somebody has made something else is not there.
pub(crate) fn meta_of_others<T: rusqlite::types::FromSql>(conn: &Connection, key: &str) -> Result<Option<T>> {
    let mut statement = conn.prepare_cached("SELECT value FROM _cdc_meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| Ok(T::column_result(row.get_ref(0)?).ok())).optional()?.flatten())
}

pub(crate) fn put_meta(conn: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<()> {
    let mut statement =
        conn.prepare_cached("INSERT OR REPLACE INTO _cdc_meta(key, value) VALUES (?1, ?2)")?;
    statement.execute(rusqlite::params![key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use cdc_model::Remedy;

    use super::*;

    #[test]
    fn a_database_that_stays_without_a_write_ahead_log_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        let refused = write_ahead(&conn, Path::new("x.db")).unwrap_err();
        assert_eq!(refused.remedy(), Remedy::Retry);
        assert_eq!(
            refused.to_string(),
            "x.db stays in journal mode \"memory\"; a log needs WAL, which its disk or file system refused"
        );
    }
}
