//! Random statements on random tables.

use cdc_model::Value;

use crate::random::Random;
use crate::tables::{Features, Table};

/// Stands for any value in the text of a statement.
const VALUE: char = '\u{1}';
/// Stands for a small integer, or NULL now and then.
const KEY: char = '\u{2}';
/// Stands for a small integer.
const SMALL: char = '\u{3}';

/// More values than these are written into the text.
const BOUND_MAX: usize = 200;

/// A statement whose values are drawn anew each time it runs.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) kind: &'static str,
    text: String,
}

impl Statement {
    fn new(kind: &'static str, text: String) -> Self {
        Self { kind, text }
    }

    /// The text with values in it.
    pub(crate) fn literal(&self, random: &mut Random) -> String {
        let mut out = String::with_capacity(2 * self.text.len());
        for char in self.text.chars() {
            match draw(random, char) {
                Some(value) => out.push_str(&literal(&value)),
                None => out.push(char),
            }
        }
        out
    }

    /// The text with parameters, and their values. `None` when there are too many.
    pub(crate) fn bound(&self, random: &mut Random) -> Option<(String, Vec<Value>)> {
        let places = self.text.chars().filter(|char| [VALUE, KEY, SMALL].contains(char)).count();
        if places > BOUND_MAX {
            return None;
        }
        let values = self.text.chars().filter_map(|char| draw(random, char)).collect();
        Some((self.text.replace([VALUE, KEY, SMALL], "?"), values))
    }
}

fn draw(random: &mut Random, place: char) -> Option<Value> {
    match place {
        VALUE => Some(value(random)),
        KEY if random.one_in(4) => Some(Value::Null),
        KEY | SMALL => Some(small(random, 12)),
        _ => None,
    }
}

fn small(random: &mut Random, end: usize) -> Value {
    Value::Integer(i64::try_from(random.below(end)).unwrap())
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

/// Few different ones, so that keys meet, and the awkward ones.
fn value(random: &mut Random) -> Value {
    if random.one_in(8) {
        return awkward(random);
    }
    match random.below(9) {
        0 => Value::Null,
        1..=4 => small(random, 9),
        5 => Value::Real(f64::from(u8::try_from(random.below(4)).unwrap())),
        6 => text(&random.below(9).to_string()),
        _ => text(random.pick(&["a", "A", "b", "B", "cc", "Cc", "d"])),
    }
}

fn awkward(random: &mut Random) -> Value {
    if random.one_in(4000) {
        return Value::Blob(vec![7; 1 << 20]);
    }
    match random.below(20) {
        0 => Value::Integer((1 << 53) - 1),
        1 => Value::Integer(1 << 53),
        2 => Value::Integer(-(1 << 53) - 1),
        3 => Value::Integer(i64::MAX),
        4 => Value::Integer(i64::MIN),
        5 => Value::Real(-0.0),
        6 => Value::Real(f64::INFINITY),
        7 => Value::Real(f64::NEG_INFINITY),
        8 => Value::Real(0.1),
        9 => Value::Real(1e300),
        10 => text("a\0b"),
        11 => Value::Text(vec![0xff, 0, 0xfe]),
        12 => Value::Blob(vec![]),
        13 => Value::Blob(vec![0, 0xff]),
        14 => text(""),
        15 => text("[1]"),
        16 => text("{\"$int\":\"1\"}"),
        17 => text("ß\"\\\n"),
        18 => Value::Real(5e-324),
        _ => Value::Blob(vec![0; 300]),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as SQL.
pub(crate) fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) if r.is_infinite() => if *r > 0.0 { "9e999" } else { "-9e999" }.to_owned(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(bytes) if bytes.iter().all(|byte| (32..127).contains(byte) && *byte != b'\'') => {
            format!("'{}'", String::from_utf8_lossy(bytes))
        }
        Value::Text(bytes) => format!("CAST(x'{}' AS TEXT)", hex(bytes)),
        Value::Blob(bytes) if bytes.len() > 100 && bytes.iter().all(|byte| *byte == 0) => {
            format!("zeroblob({})", bytes.len())
        }
        Value::Blob(bytes) => format!("x'{}'", hex(bytes)),
        Value::Omitted { .. } => panic!("nobody writes an omitted value"),
    }
}

/// What a statement does about conflicts: the words behind its verb.
const OR: [(&str, [&str; 2]); 6] = [
    ("", ["INSERT", "UPDATE"]),
    (" OR REPLACE", ["INSERT OR REPLACE", "UPDATE OR REPLACE"]),
    (" OR IGNORE", ["INSERT OR IGNORE", "UPDATE OR IGNORE"]),
    (" OR FAIL", ["INSERT OR FAIL", "UPDATE OR FAIL"]),
    (" OR ABORT", ["INSERT OR ABORT", "UPDATE OR ABORT"]),
    (" OR ROLLBACK", ["INSERT OR ROLLBACK", "UPDATE OR ROLLBACK"]),
];

fn or(random: &mut Random) -> (&'static str, [&'static str; 2]) {
    OR[[0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5][random.below(11)]]
}

fn condition(random: &mut Random, table: &Table) -> String {
    let column = &table.columns[random.below(table.columns.len())].name;
    match random.below(8) {
        0 => "1".to_owned(),
        1 => format!("{column} > {VALUE}"),
        2 => match &table.rowid {
            Some(rowid) => format!("{rowid} % 3 = {SMALL} % 3"),
            None => format!("{column} IS NOT NULL"),
        },
        3 => format!("{column} IN ({VALUE}, {VALUE}, {VALUE})"),
        4 => format!("{column} IN (SELECT {column} FROM {} ORDER BY 1 LIMIT 2)", table.quoted()),
        _ => format!("{column} IS {VALUE}"),
    }
}

fn set(random: &mut Random, table: &Table) -> String {
    let columns = table.writable();
    let mut set = Vec::new();
    for _ in 0..=random.below(3) {
        let column = columns[random.below(columns.len())];
        set.push(match random.below(6) {
            0 => format!("{column} = {column}"),
            1 => format!("{column} = {column} + 1"),
            _ => format!("{column} = {VALUE}"),
        });
    }
    if let Some(rowid) = table.rowid.as_ref().filter(|_| random.one_in(8)) {
        set.push(format!("{rowid} = {SMALL}"));
    }
    set.join(", ")
}

/// The clauses of an upsert, or nothing.
fn upsert(random: &mut Random, table: &Table, features: Features) -> Option<(&'static str, String)> {
    let target = |random: &mut Random| {
        let unique = &table.uniques;
        (!unique.is_empty()).then(|| unique[random.below(unique.len())].clone())
    };
    let one = |random: &mut Random, target: &str| {
        if random.one_in(3) {
            return format!("ON CONFLICT{target} DO NOTHING");
        }
        let writable = table.writable();
        let set = writable[random.below(writable.len())];
        let with = if random.one_in(2) { format!("excluded.{set}") } else { VALUE.to_string() };
        let only = if random.one_in(4) { format!(" WHERE {set} IS NOT {VALUE}") } else { String::new() };
        format!("ON CONFLICT{target} DO UPDATE SET {set} = {with}{only}")
    };
    let last = |random: &mut Random| {
        if features.several_upserts() { one(random, "") } else { "ON CONFLICT DO NOTHING".to_owned() }
    };
    match target(random) {
        Some(first) if features.several_upserts() && random.one_in(2) => {
            // Each target once: with one given twice SQLite 3.40 damages the table.
            let mut targets = vec![first];
            for _ in 0..=random.below(2) {
                targets.extend(target(random).filter(|next| !targets.contains(next)));
            }
            let mut clauses: Vec<String> = targets.iter().map(|target| one(random, target)).collect();
            if clauses.len() == 1 || random.one_in(2) {
                clauses.push(last(random));
            }
            Some(("several upserts", clauses.join(" ")))
        }
        Some(first) if random.one_in(2) => Some(("upsert", one(random, &first))),
        _ => Some(("upsert", last(random))),
    }
}

fn insert(random: &mut Random, table: &Table, features: Features) -> Statement {
    let mut columns: Vec<(&str, char)> =
        table.columns.iter().filter(|c| !c.generated).map(|c| (c.name.as_str(), c.place())).collect();
    if columns.len() < 100 && random.one_in(3) {
        columns.retain(|_| !random.one_in(3));
    }
    if let Some(rowid) = table.rowid.filter(|_| random.one_in(4)) {
        columns.push((rowid, KEY));
    }
    if columns.is_empty() {
        return Statement::new("INSERT", format!("INSERT INTO {} DEFAULT VALUES", table.quoted()));
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    let row = columns.iter().map(|(_, place)| place.to_string()).collect::<Vec<_>>().join(", ");
    let rows = if random.one_in(4) { 1 + random.below(5) } else { 1 };
    let rows = if random.one_in(10) {
        // In the order of the columns that are written: what an index gives is another order in another version.
        let order = (1..=columns.len().min(30)).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
        format!("SELECT {names} FROM {} WHERE true ORDER BY {order} LIMIT 3", table.quoted())
    } else {
        format!("VALUES {}", vec![format!("({row})"); rows].join(", "))
    };
    let text = format!("INTO {}({names}) {rows}", table.quoted());
    if random.one_in(4)
        && let Some((kind, clauses)) = upsert(random, table, features)
    {
        return Statement::new(kind, format!("INSERT {text} {clauses}"));
    }
    let returning = if features.returning() && random.one_in(12) { " RETURNING *" } else { "" };
    if random.one_in(8) {
        return Statement::new("REPLACE", format!("REPLACE {text}{returning}"));
    }
    let (or, [kind, _]) = or(random);
    Statement::new(kind, format!("INSERT{or} {text}{returning}"))
}

fn update(random: &mut Random, table: &Table, features: Features) -> Statement {
    let (mut or, [_, mut kind]) = or(random);
    if or == " OR REPLACE" && table.has_partial_index() && !features.replaces_beside_partial_indexes() {
        (or, kind) = (" OR IGNORE", "UPDATE OR IGNORE");
    }
    let (name, set, condition) = (table.quoted(), set(random, table), condition(random, table));
    if features.update_from() && random.one_in(15) {
        let writable = table.writable();
        let column = writable[random.below(writable.len())];
        // Beside another table the row id has no name that is clear in every version.
        let condition = if condition.contains('%') { "true" } else { &condition };
        let from = format!("(SELECT {VALUE} AS _given UNION ALL SELECT {VALUE}) AS _other");
        let text = format!("UPDATE{or} {name} SET {column} = _given FROM {from} WHERE {condition}");
        return Statement::new("UPDATE FROM", text);
    }
    let returning = if features.returning() && random.one_in(12) { " RETURNING *" } else { "" };
    Statement::new(kind, format!("UPDATE{or} {name} SET {set} WHERE {condition}{returning}"))
}

/// One statement on one of the tables.
pub(crate) fn statement(random: &mut Random, tables: &[Table], features: Features) -> Statement {
    let table = &tables[random.below(tables.len())];
    match random.below(20) {
        0..=9 => insert(random, table, features),
        10..=15 => update(random, table, features),
        16..=18 => Statement::new(
            "DELETE",
            format!("DELETE FROM {} WHERE {}", table.quoted(), condition(random, table)),
        ),
        _ => Statement::new("DELETE of all", format!("DELETE FROM {}", table.quoted())),
    }
}

/// The statements of one transaction, savepoints among them. `next` gives one statement.
pub(crate) fn transaction<S>(
    random: &mut Random,
    most: usize,
    mut next: impl FnMut(&mut Random) -> S,
    word: impl Fn(&'static str) -> S,
) -> Vec<S> {
    let mut statements = Vec::new();
    for _ in 0..=random.below(most) {
        if random.one_in(12) {
            statements.push(word("SAVEPOINT s"));
            for _ in 0..=random.below(3) {
                statements.push(next(random));
            }
            let end = random.pick(&["RELEASE s", "ROLLBACK TO s", "ROLLBACK TO s; RELEASE s"]);
            statements.extend(end.split("; ").map(&word));
        } else {
            statements.push(next(random));
        }
    }
    statements
}
