//! Which capture rows there are. A look opens the database anew, so that each statement is compiled again: those that are asked
//! more than once are asked with the same text.

use rusqlite::{Connection, OptionalExtension as _};

use super::install::is_prepared;
use super::rows::nonce_of;
use crate::Result;
use crate::transaction::CaptureRow;

/// Whether there are any.
pub(crate) fn has_rows(conn: &Connection) -> Result<bool> {
    Ok(is_prepared(conn)? && oldest_row(conn)?.is_some())
}

/// The place of the oldest row.
pub(crate) fn oldest_row(conn: &Connection) -> Result<Option<i64>> {
    Ok(conn.prepare_cached("SELECT min(seq) FROM _cdc_capture")?.query_row([], |row| row.get(0))?)
}

/// The place of the first row after this one.
pub(crate) fn first_row_after(conn: &Connection, seq: i64) -> Result<Option<i64>> {
    let mut first = conn.prepare_cached("SELECT min(seq) FROM _cdc_capture WHERE seq > ?1")?;
    Ok(first.query_row([seq], |row| row.get(0))?)
}

/// Whether there are any after the mark.
pub(crate) fn has_rows_after(conn: &Connection, mark: Option<CaptureRow>) -> Result<bool> {
    Ok(first_row_after(conn, mark.map_or(0, |mark| mark.seq))?.is_some())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkState {
    /// The row at the mark is the one that was drained, or nothing was drained yet.
    Agrees,
    /// It is another row or gone. `oldest` is the oldest row there is.
    Differs { oldest: Option<i64> },
}

pub(crate) fn mark_state(conn: &Connection, mark: Option<CaptureRow>) -> Result<MarkState> {
    let oldest = oldest_row(conn)?;
    let agrees = match mark {
        Some(mark) => nonce_at(conn, mark.seq)? == Some(mark.nonce),
        None => oldest.is_some_and(|oldest| oldest <= 1),
    };
    Ok(if agrees { MarkState::Agrees } else { MarkState::Differs { oldest } })
}

/// The nonce of the row at this place.
fn nonce_at(conn: &Connection, seq: i64) -> Result<Option<i64>> {
    let mut nonce = conn.prepare_cached("SELECT nonce FROM _cdc_capture WHERE seq = ?1")?;
    Ok(nonce.query_row([seq], |row| Ok(nonce_of(row.get_ref(0)?))).optional()?)
}
