use cdc_model::{Sequence, Timestamp};
use rusqlite::OptionalExtension as _;

use crate::{Log, Result};

impl Log {
    /// The first record that was appended at this time or later; `None` when all are older. Times never decrease
    /// along a log, so this is a binary search.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`](crate::Error::Sqlite).
    pub fn seek(&self, time: Timestamp) -> Result<Option<Sequence>> {
        let (mut low, mut high) = (self.floor()?.get(), self.tail().sequence.get() + 1);
        let mut statement = self.conn.prepare_cached("SELECT timestamp FROM _cdc_log WHERE sequence = ?1")?;
        while low < high {
            let middle = low + (high - low) / 2;
            let at: Option<i64> =
                statement.query_row([Sequence::new(middle).as_i64()], |row| row.get(0)).optional()?;
            match at {
                Some(at) if at >= time.get() => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok((low <= self.tail().sequence.get()).then(|| Sequence::new(low)))
    }
}
