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

/// The statement that writes a state of every row that `from` (`FROM … WHERE …`) gives, told apart by `keys`.
pub(crate) fn write_states(id: i64, op: &str, values: &[String], from: &str, keys: &[String]) -> String {
    if values.len() <= ROW_VALUES_MAX {
        let list: String = values.iter().map(|value| format!(", {value}")).collect();
        return format!("{} SELECT {NOW}, '{op}', {id}, random(){list} {from}", head(values.len()));
    }
    let last = values_in_parts(values.len()) / ROW_VALUES_MAX;
    // The columns' collations may be coarser than the key's. Keys that differ in any collation differ in their bytes.
    let key_names: String = (0..keys.len()).map(|at| format!("k{at} COLLATE BINARY, ")).collect();
    let part = |(at, values): (usize, &[String])| {
        let keys: String = keys.iter().enumerate().map(|(at, key)| format!("{key} AS k{at}, ")).collect();
        let op = if at == last { op } else { "+" };
        let value = |place| values.get(place).map_or("NULL", String::as_str);
        let list: String =
            (0..ROW_VALUES_MAX).map(|place| format!(", {} AS v{place}", value(place))).collect();
        format!("SELECT {keys}{at} AS part, '{op}' AS op{list} {from}")
    };
    let parts: Vec<String> = values.chunks(ROW_VALUES_MAX).enumerate().map(part).collect();
    let list: String = (0..ROW_VALUES_MAX).map(|place| format!(", v{place}")).collect();
    format!(
        "{} SELECT {NOW}, op, {id}, random(){list} FROM ({}) ORDER BY {key_names}part",
        head(ROW_VALUES_MAX),
        parts.join(" UNION ALL ")
    )
}
