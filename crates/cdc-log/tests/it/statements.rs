//! Random statements on random tables.

use crate::random::Random;
use crate::tables::Table;

/// A value as a SQL literal: few different ones, so that keys meet, and the awkward ones.
pub(crate) fn value(random: &mut Random) -> String {
    if random.one_in(6) {
        return random
            .pick(&[
                "9007199254740991",
                "9007199254740992",
                "-9007199254740993",
                "9223372036854775807",
                "-9223372036854775808",
                "-0.0",
                "9e999",
                "-9e999",
                "0.1",
                "1e300",
                "CAST(x'610062' AS TEXT)",
                "CAST(x'ff00fe' AS TEXT)",
                "x''",
                "x'00ff'",
                "''",
                "'[1]'",
                "'{\"$int\":\"1\"}'",
                "'ß\"\\\n'",
                "zeroblob(300)",
            ])
            .to_owned();
    }
    match random.below(9) {
        0 => "NULL".to_owned(),
        1..=4 => random.below(9).to_string(),
        5 => format!("{}.0", random.below(4)),
        6 => format!("'{}'", random.below(9)),
        _ => format!("'{}'", random.pick(&["a", "A", "b", "B", "cc", "Cc", "d"])),
    }
}

fn or(random: &mut Random) -> &'static str {
    random.pick(&[
        "",
        "",
        "",
        " OR REPLACE",
        " OR REPLACE",
        " OR IGNORE",
        " OR FAIL",
        " OR ABORT",
        " OR ROLLBACK",
    ])
}

fn condition(random: &mut Random, table: &Table) -> String {
    let column = &table.columns[random.below(table.columns.len())].name;
    match random.below(6) {
        0 => "1".to_owned(),
        1 => format!("{column} > {}", value(random)),
        2 => match table.rowid {
            Some(rowid) => format!("{rowid} % 3 = {}", random.below(3)),
            None => format!("{column} IS NOT NULL"),
        },
        _ => format!("{column} IS {}", value(random)),
    }
}

fn insert(random: &mut Random, table: &Table) -> String {
    let mut columns = table.writable();
    if columns.len() < 100 && random.one_in(3) {
        columns.retain(|_| !random.one_in(3));
    }
    if let Some(rowid) = table.rowid.filter(|_| random.one_in(4)) {
        columns.push(rowid);
    }
    if columns.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", table.quoted());
    }
    let rows = if random.one_in(4) { 1 + random.below(5) } else { 1 };
    let row = |random: &mut Random| {
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                match Some(*column) == table.rowid
                    || table.sql[0].contains(&format!("{column} INTEGER PRIMARY KEY"))
                {
                    true if random.one_in(4) => "NULL".to_owned(),
                    true => random.below(12).to_string(),
                    false => value(random),
                }
            })
            .collect();
        format!("({})", values.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(|_| row(random)).collect();
    let text = format!("INTO {}({}) VALUES {}", table.quoted(), columns.join(", "), rows.join(", "));
    if random.one_in(4) {
        let set = table.writable()[random.below(table.writable().len())].to_owned();
        let with = if random.one_in(2) { format!("excluded.{set}") } else { value(random) };
        let on = match (table.key.is_empty() || random.one_in(2), random.one_in(3)) {
            (_, true) => "ON CONFLICT DO NOTHING".to_owned(),
            (true, _) => format!("ON CONFLICT DO UPDATE SET {set} = {with}"),
            (false, _) if table.sql[0].contains("COLLATE NOCASE)") => "ON CONFLICT DO NOTHING".to_owned(),
            (false, _) => format!("ON CONFLICT({}) DO UPDATE SET {set} = {with}", table.key.join(", ")),
        };
        return format!("INSERT {text} {on}");
    }
    if random.one_in(8) { format!("REPLACE {text}") } else { format!("INSERT{} {text}", or(random)) }
}

fn update(random: &mut Random, table: &Table) -> String {
    let columns = table.writable();
    let mut set = Vec::new();
    for _ in 0..=random.below(3) {
        let column = columns[random.below(columns.len())];
        if random.one_in(5) {
            set.push(format!("{column} = {column}"));
        } else if random.one_in(5) {
            set.push(format!("{column} = {column} + 1"));
        } else {
            set.push(format!("{column} = {}", value(random)));
        }
    }
    if let Some(rowid) = table.rowid.filter(|_| random.one_in(8)) {
        set.push(format!("{rowid} = {}", random.below(12)));
    }
    format!(
        "UPDATE{} {} SET {} WHERE {}",
        or(random),
        table.quoted(),
        set.join(", "),
        condition(random, table)
    )
}

/// One statement on one of the tables.
pub(crate) fn statement(random: &mut Random, tables: &[Table]) -> String {
    let table = &tables[random.below(tables.len())];
    match random.below(20) {
        0..=9 => insert(random, table),
        10..=15 => update(random, table),
        16..=18 => format!("DELETE FROM {} WHERE {}", table.quoted(), condition(random, table)),
        _ => format!("DELETE FROM {}", table.quoted()),
    }
}

/// The statements of one transaction, savepoints among them.
pub(crate) fn transaction(random: &mut Random, tables: &[Table]) -> Vec<String> {
    let mut statements = Vec::new();
    for _ in 0..=random.below(6) {
        if random.one_in(10) {
            let inner: Vec<String> = (0..=random.below(3)).map(|_| statement(random, tables)).collect();
            statements.push("SAVEPOINT s".to_owned());
            statements.extend(inner);
            statements
                .push(random.pick(&["RELEASE s", "ROLLBACK TO s", "ROLLBACK TO s; RELEASE s"]).to_owned());
        } else {
            statements.push(statement(random, tables));
        }
    }
    statements
}
