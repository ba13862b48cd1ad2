//! Which capture rows there are. A look opens the database anew, so that each statement is compiled again: those that are asked
//! more than once are asked with the same text.

use rusqlite::{Connection, OptionalExtension as _};

use super::rows::nonce_of;
use crate::Result;

/// The place of the oldest row.
pub(crate) fn oldest_row(conn: &Connection) -> Result<Option<i64>> {
    Ok(conn.prepare_cached("SELECT min(seq) FROM _cdc_capture")?.query_row([], |row| row.get(0))?)
}

/// The place of the first row after this one.
pub(crate) fn first_row_after(conn: &Connection, seq: i64) -> Result<Option<i64>> {
    let mut first = conn.prepare_cached("SELECT min(seq) FROM _cdc_capture WHERE seq > ?1")?;
    Ok(first.query_row([seq], |row| row.get(0))?)
}

/// The nonce of the row at this place.
pub(crate) fn nonce_at(conn: &Connection, seq: i64) -> Result<Option<i64>> {
    let mut nonce = conn.prepare_cached("SELECT nonce FROM _cdc_capture WHERE seq = ?1")?;
    Ok(nonce.query_row([seq], |row| Ok(nonce_of(row.get_ref(0)?))).optional()?)
}
