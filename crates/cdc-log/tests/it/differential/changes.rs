//! Changes of the schema by the application.

use crate::random::Random;
use crate::tables::{Features, Table, quoted, table, trigger};

/// A change: what it is called and its statements.
pub(crate) struct Change {
    pub(crate) kind: &'static str,
    pub(crate) statements: Vec<String>,
    /// Whether it cannot be part of a transaction.
    pub(crate) alone: bool,
}

const TABLES_MAX: usize = 4;

/// Draws a change of these tables. `made` numbers what is made, `ours` are the triggers of capture.
pub(crate) fn change(
    random: &mut Random,
    tables: &[Table],
    ours: &[String],
    features: Features,
    made: usize,
) -> Change {
    let of = |kind, statements: Vec<String>| Change { kind, statements, alone: false };
    let alone = |kind, text: &str| Change { kind, statements: vec![text.to_owned()], alone: true };
    let new_table = |random: &mut Random| {
        let new = table(random, 100 + made, None, None, features);
        of("CREATE TABLE", new.sql)
    };
    let Some(table) = (!tables.is_empty()).then(|| &tables[random.below(tables.len())]) else {
        return new_table(random);
    };
    let name = table.quoted();
    let writable = table.writable();
    let column = writable[random.below(writable.len())].to_owned();
    let is_real = table.columns.iter().any(|it| it.name == column && it.real);
    let is_key = table.rowid.is_none() && table.key.contains(&column);
    match random.below(16) {
        0 | 1 => of(
            "ADD COLUMN",
            vec![format!("ALTER TABLE {name} ADD COLUMN {}", added(random, features, &column, made))],
        ),
        2 | 3 => of(
            "RENAME COLUMN",
            vec![format!("ALTER TABLE {name} RENAME COLUMN {column} TO \"re named {made}\"")],
        ),
        4 => of("RENAME TABLE", vec![format!("ALTER TABLE {name} RENAME TO \"named {made}\"")]),
        5 if features.drop_column() => {
            let drop = format!("ALTER TABLE {name} DROP COLUMN {column}");
            let without_ours = random.one_in(2);
            // SQLite refuses it while our triggers read the column.
            let ours = ours.iter().filter(|_| without_ours);
            let mut statements: Vec<String> = ours.map(|ours| format!("DROP TRIGGER {ours}")).collect();
            statements.push(drop);
            of("DROP COLUMN", statements)
        }
        6 | 7 => of("rebuild", rebuild(random, table)),
        8 if tables.len() > 1 && !is_referenced(table, tables) => {
            of("DROP TABLE", vec![format!("DROP TABLE {name}")])
        }
        9 if tables.len() < TABLES_MAX => new_table(random),
        10 if (features.indexed_reals() || !is_real) && (features.indexed_keys() || !is_key) => of(
            "CREATE INDEX",
            vec![format!(
                "CREATE {}INDEX \"made {made}\" ON {name}({column}{})",
                if features.indexed_reals() { random.pick(&["", "UNIQUE "]) } else { "" },
                random.pick(&["", " COLLATE NOCASE", " DESC"])
            )],
        ),
        11 => of("DROP INDEX", vec![format!("DROP INDEX \"made {}\"", made.saturating_sub(1))]),
        12 => of("CREATE TRIGGER", vec![trigger(random, features, table, table, 1000 + made)]),
        13 => of("DROP TRIGGER", vec![format!("DROP TRIGGER \"user {}\"", random.below(20))]),
        14 => alone("ANALYZE", "ANALYZE"),
        _ => alone("VACUUM", "VACUUM"),
    }
}

/// Without the table that a key references, no row of its own can be written.
fn is_referenced(table: &Table, tables: &[Table]) -> bool {
    let reference = format!("REFERENCES {}", table.quoted());
    tables
        .iter()
        .any(|other| other.name != table.name && other.sql.iter().any(|sql| sql.contains(&reference)))
}

fn added(random: &mut Random, features: Features, of: &str, made: usize) -> String {
    let mut kinds = vec![
        "{n}",
        "{n} INTEGER DEFAULT 7",
        "{n} TEXT NOT NULL DEFAULT 'added'",
        "{n} REAL DEFAULT 1.5",
        "{n} DEFAULT (-0.5)",
        "{n} TEXT COLLATE NOCASE",
        "{n} BLOB DEFAULT x'00ff'",
    ];
    if !features.mixed {
        // SQLite 3.40 reads 0 here in the rows that were there before.
        kinds.push("{n} DEFAULT (-0.0)");
    }
    if features.generated_columns() {
        kinds.push("{n} TEXT AS ({c} || 'added')");
    }
    random.pick(&kinds).replace("{n}", &format!("\"added {made}\"")).replace("{c}", &features.as_text(of))
}

/// The twelve steps of sqlite.org/lang_altertable.html, as ORMs take them: the table again, without some of its rows.
fn rebuild(random: &mut Random, table: &Table) -> Vec<String> {
    let new = quoted("new table");
    let name = table.quoted();
    let Some((_, body)) = table.sql.first().and_then(|sql| sql.split_once('(')) else { return vec![] };
    let columns = table.writable().join(", ");
    let without = if random.one_in(2) { " WHERE random() % 3 <> 0" } else { "" };
    let mut statements = vec![
        format!("CREATE TABLE {new}({body}"),
        format!("INSERT INTO {new}({columns}) SELECT {columns} FROM {name}{without}"),
        format!("DROP TABLE {name}"),
        format!("ALTER TABLE {new} RENAME TO {name}"),
    ];
    statements.extend(table.sql.iter().skip(1).cloned());
    statements
}
