//! The text of the statements that write capture rows.
//!
//! A capture row holds the values of one state of a row, of an update both. What does not fit goes into rows of op
//! `+` before it, so that one wide table does not make every row of `_cdc_capture` wide.

use cdc_model::Timestamp;
use rusqlite::types::ValueRef;

/// Values a capture row holds at most. Both states of a row of 32 columns fit.
pub(crate) const ROW_VALUES_MAX: usize = 64;

/// The time by SQL that every SQLite since 3.26 has and that schemas may use untrusted: a Julian day, exact to the
/// millisecond. To make milliseconds of it costs three times as much, and takes registers of the trigger's program:
/// [`time_of`] does that when the row is drained.
pub(crate) const NOW: &str = "julianday()";

/// 1970 in milliseconds of the Julian day.
const JULIAN_1970_MS: f64 = 210_866_760_000_000.0;

/// The time that a row has by [`NOW`], or by triggers of an earlier version, which wrote milliseconds since 1970.
pub(crate) fn time_of(written: ValueRef<'_>) -> Option<Timestamp> {
    match written {
        ValueRef::Integer(milliseconds) => Some(Timestamp::new(milliseconds)),
        ValueRef::Real(day) => {
            let milliseconds = (day * 86_400_000.0).round() - JULIAN_1970_MS;
            #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "it saturates")]
            Some(Timestamp::new(milliseconds as i64))
        }
        ValueRef::Null | ValueRef::Text(_) | ValueRef::Blob(_) => None,
    }
}

/// What only triggers of ours write as an integer.
pub(crate) const fn integer(written: ValueRef<'_>) -> Option<i64> {
    match written {
        ValueRef::Integer(integer) => Some(integer),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => None,
    }
}

/// The nonce of a row, also of one that somebody took it from: the row can be the one at the mark.
pub(crate) fn nonce_of(written: ValueRef<'_>) -> i64 {
    integer(written).unwrap_or_default()
}

/// Values of a state of so many that lie in rows of op `+`.
pub(crate) const fn values_in_parts(width: usize) -> usize {
    width.saturating_sub(1) / ROW_VALUES_MAX * ROW_VALUES_MAX
}

fn head(values: usize) -> String {
    let columns: String = (0..values).map(|at| format!(", v{at}")).collect();
    format!("INSERT INTO _cdc_capture(ts, op, tbl, nonce{columns})")
}

/// The statements that write one state, values given as SQL.
pub(crate) fn write_state(id: i64, op: &str, values: &[String]) -> Vec<String> {
    let mut parts: Vec<&[String]> = values.chunks(ROW_VALUES_MAX).collect();
    let last = parts.pop().unwrap_or_default();
    let part = |op: &str, values: &[String]| {
        let list: String = values.iter().map(|value| format!(", {value}")).collect();
        format!("{} VALUES ({NOW}, '{op}', {id}, random(){list})", head(values.len()))
    };
    parts.into_iter().map(|values| part("+", values)).chain([part(op, last)]).collect()
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_julian_day_gives_back_the_millisecond_it_was_made_from() {
        let conn = Connection::open_in_memory().unwrap();
        let day = "SELECT julianday(?1 / 1000.0, 'unixepoch', 'subsec')";
        for milliseconds in [0, 1, 999, 1_705_276_800_123, 1_764_353_471_507, 253_402_300_799_999] {
            let written = conn.query_row(day, [milliseconds], |row| Ok(time_of(row.get_ref(0)?))).unwrap();
            assert_eq!(written, Some(Timestamp::new(milliseconds)));
        }
        let now = format!("SELECT {NOW}, CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER)");
        let (now, milliseconds) =
            conn.query_row(&now, [], |row| Ok((time_of(row.get_ref(0)?), row.get(1)?))).unwrap();
        assert_eq!(now, Some(Timestamp::new(milliseconds)));
    }

    #[test]
    fn what_no_trigger_wrote_has_no_time_or_one_that_no_calendar_has() {
        assert_eq!(time_of(ValueRef::Null), None);
        assert_eq!(time_of(ValueRef::Text(b"2024-01-15")), None);
        assert_eq!(time_of(ValueRef::Real(f64::INFINITY)), Some(Timestamp::new(i64::MAX)));
        assert!(time_of(ValueRef::Real(-1e300)) < Some(Timestamp::ZERO));
    }
}
