//! The text of the statements that write capture rows.
//!
//! A capture row holds the values of one state of a row, of an update both. What does not fit goes into rows of op
//! `+` before it, so that one wide table does not make every row of `_cdc_capture` wide.

/// Values a capture row holds at most. Both states of a row of 32 columns fit.
pub(crate) const ROW_VALUES_MAX: usize = 64;

/// Milliseconds since 1970 by SQL that every SQLite since 3.26 has and that schemas may use untrusted.
pub(crate) const NOW: &str = "CAST((julianday('now')-2440587.5)*86400000+0.5 AS INTEGER)";

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
