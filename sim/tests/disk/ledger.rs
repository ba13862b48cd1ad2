//! Transactions whose number tells all that they write, and a checker that knows it.

use rusqlite::{Connection, params};

const SLOTS: u64 = 48;

/// Commits transaction `number`; the first creates the tables.
pub(crate) fn commit(conn: &mut Connection, number: u64) -> rusqlite::Result<()> {
    let transaction = conn.transaction()?;
    if number == 1 {
        transaction.execute_batch(
            "CREATE TABLE first (number INTEGER); INSERT INTO first VALUES (0);
             CREATE TABLE row (number INTEGER, data BLOB); CREATE INDEX row_number ON row (number);
             CREATE TABLE slot (id INTEGER PRIMARY KEY, number INTEGER, data BLOB);
             CREATE TABLE last (number INTEGER); INSERT INTO last VALUES (0);",
        )?;
    }
    transaction.execute("UPDATE first SET number = ?1", [number])?;
    for _ in 0..rows_of(number) {
        let len = 20 + number * 131 % 2_500;
        transaction.execute("INSERT INTO row VALUES (?1, randomblob(?2))", [number, len])?;
    }
    for id in slots_of(number) {
        transaction
            .execute("INSERT OR REPLACE INTO slot VALUES (?1, ?2, randomblob(900))", params![id, number])?;
    }
    transaction.execute("UPDATE last SET number = ?1", [number])?;
    transaction.commit()
}

/// The last transaction that is there, if all those before it are there whole and nothing else is.
pub(crate) fn check(conn: &Connection) -> Result<u64, String> {
    let said = |error: rusqlite::Error| error.to_string();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(said)?;
    if sound != "ok" {
        return Err(sound);
    }
    let tables: u64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(said)?;
    match tables {
        0 => return Ok(0),
        5 => {}
        some => return Err(format!("{some} of 5 tables and indexes")),
    }
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, u64>(0)).map_err(said);
    let (first, last) = (number("SELECT number FROM first")?, number("SELECT number FROM last")?);
    if first != last {
        return Err(format!("transaction {first} began and {last} ended"));
    }
    let pairs = |sql: &str| -> Result<Vec<(u64, u64)>, String> {
        let mut statement = conn.prepare(sql).map_err(said)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(said)?;
        rows.collect::<Result<_, _>>().map_err(said)
    };
    let rows = pairs("SELECT number, count(*) FROM row GROUP BY number ORDER BY number")?;
    if rows != (1..=last).map(|number| (number, rows_of(number))).collect::<Vec<_>>() {
        return Err(format!("not the rows of {last} transactions"));
    }
    let mut slots = std::collections::BTreeMap::new();
    (1..=last).for_each(|number| slots.extend(slots_of(number).map(|id| (id, number))));
    if pairs("SELECT id, number FROM slot ORDER BY id")? != slots.into_iter().collect::<Vec<_>>() {
        return Err(format!("not the slots of {last} transactions"));
    }
    Ok(last)
}

fn rows_of(number: u64) -> u64 {
    1 + number % 4
}

fn slots_of(number: u64) -> impl Iterator<Item = u64> {
    (0..=number % 5).map(move |more| (number * 7 + more * 11) % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::{check, commit};
    use crate::bench::Bench;

    #[test]
    fn the_checker_finds_what_is_missing_or_too_much() {
        for tampering in [
            "DELETE FROM row WHERE rowid = 3",
            "INSERT INTO row SELECT * FROM row WHERE rowid = 3",
            "UPDATE slot SET number = number - 1 WHERE id = (SELECT max(id) FROM slot)",
            "DELETE FROM slot WHERE id = (SELECT max(id) FROM slot)",
            "UPDATE last SET number = number - 1",
            "UPDATE first SET number = number + 1",
            "DROP TABLE slot",
        ] {
            let bench = Bench::new(1);
            let mut conn = bench.open("a.db", "").expect("sound");
            (1..=9).for_each(|number| commit(&mut conn, number).expect("sound"));
            assert_eq!(check(&conn), Ok(9));
            conn.execute_batch(tampering).expect("sound");
            assert!(check(&conn).is_err(), "{tampering}");
        }
    }
}
