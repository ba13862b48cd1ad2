//! What was drained goes from the application's database, a few rows at a time.

use cdc_model::mutant;
use rusqlite::Connection;

use crate::capture::{self, MarkState, mark_state};
use crate::transaction::CaptureRow;
use crate::{Log, Result, store};

/// Capture rows that have been drained are trimmed once there are this many.
const TRIM_ROWS_MIN: i64 = 256;

/// One trimming transaction removes at most this many, so that the application's writers hardly wait.
const TRIM_ROWS_MAX: i64 = 2000;

/// How often drained rows were trimmed, as the log and as the database know it.
pub(crate) const TRIMS: &str = "trims";

/// What one trimming did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trimmed {
    /// So many rows were removed.
    Rows(u64),
    /// Somebody else held the database.
    Busy,
}

impl Trimmed {
    /// How many rows were removed.
    #[must_use]
    pub const fn rows(self) -> u64 {
        match self {
            Self::Rows(rows) => rows,
            Self::Busy => 0,
        }
    }
}

pub(crate) fn trims(conn: &Connection) -> Result<i64> {
    Ok(store::meta_of_others(conn, TRIMS)?.unwrap_or_default())
}

/// How many rows were drained up to the mark and not trimmed. Their positions are dense.
pub(crate) fn untrimmed(user: &Connection, mark: Option<CaptureRow>) -> Result<u64> {
    let rows =
        mark.zip(capture::oldest_row(user)?).map_or(0, |(mark, oldest)| mark.seq.saturating_sub(oldest));
    Ok(u64::try_from(rows).unwrap_or_default())
}

/// A step that is counted in the log, and not taken so far.
pub(crate) struct Step {
    mark: CaptureRow,
    upto: i64,
    count: i64,
}

/// Counts a step that removes some of the rows before the mark, if they are worth a transaction: in the log before in the
/// database, so that a log that is older than a trim can be told.
pub(crate) fn begin(user: &Connection, log: &mut Log, mark: CaptureRow) -> Result<Option<Step>> {
    if mark_state(user, Some(mark))? != MarkState::Agrees || mutant!("drained-rows-kept") {
        return Ok(None);
    }
    let Some(oldest) =
        capture::oldest_row(user)?.filter(|oldest| mark.seq.saturating_sub(*oldest) >= TRIM_ROWS_MIN)
    else {
        return Ok(None);
    };
    let count = trims(&log.conn)? + 1;
    log.transact(|log| store::put_meta(log.conn(), TRIMS, count))?;
    Ok(Some(Step { mark, upto: mark.seq.min(oldest.saturating_add(TRIM_ROWS_MAX)), count }))
}

impl Step {
    /// Gives how many rows it removed.
    pub(crate) fn take(self, user: &Connection) -> Result<u64> {
        user.execute_batch("BEGIN IMMEDIATE")?;
        let removed = self.take_in(user);
        // A full disk may have rolled it back.
        if !user.is_autocommit() {
            user.execute_batch(if removed.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        }
        removed
    }

    fn take_in(self, user: &Connection) -> Result<u64> {
        if mark_state(user, Some(self.mark))? != MarkState::Agrees {
            return Ok(0);
        }
        let removed = user.execute("DELETE FROM _cdc_capture WHERE seq < ?1", [self.upto])?;
        store::put_meta(user, TRIMS, self.count)?;
        Ok(u64::try_from(removed).unwrap_or_default())
    }
}
