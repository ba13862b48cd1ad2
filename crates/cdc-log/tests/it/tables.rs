//! Random tables, with everything that makes capture hard.

use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Quoted.
    pub(crate) name: String,
    pub(crate) generated: bool,
}

/// One table and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Unquoted.
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Columns of the key, quoted; empty when there is none.
    pub(crate) key: Vec<String>,
    /// Whether the row id can be reached, by this name.
    pub(crate) rowid: Option<&'static str>,
    /// CREATE TABLE, indexes.
    pub(crate) sql: Vec<String>,
    /// User triggers.
    pub(crate) triggers: Vec<String>,
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    pub(crate) fn writable(&self) -> Vec<&str> {
        self.columns.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect()
    }
}

const TABLE_NAMES: [&str; 12] =
    ["t", "select", "Ünï", "a\"b", "with space", "rowid", "n", "v0", "seq", "new", "it's", "x_y"];

const COLUMN_NAMES: [&str; 26] = [
    "a",
    "b",
    "c",
    "d",
    "v0",
    "v1",
    "n",
    "seq",
    "ts",
    "op",
    "tbl",
    "nonce",
    "rowid",
    "oid",
    "_rowid_",
    "_cdc_t",
    "a\"\"b",
    "naïve",
    "order",
    "NEW",
    "old",
    "key",
    "with space",
    "x.y",
    "_cdc_stash_1",
    "it's",
];

const TYPES: [&str; 8] = ["", "INTEGER", "TEXT", "REAL", "NUMERIC", "BLOB", "VARCHAR(10)", "ANY"];
const STRICT_TYPES: [&str; 5] = ["INTEGER", "TEXT", "REAL", "BLOB", "ANY"];

struct Builder<'r> {
    random: &'r mut Random,
    strict: bool,
    names: Vec<&'static str>,
    columns: Vec<Column>,
    declared: Vec<String>,
}

impl Builder<'_> {
    fn name(&mut self) -> String {
        if self.names.is_empty() {
            return format!("\"c{}\"", self.columns.len());
        }
        let at = self.random.below(self.names.len());
        format!("\"{}\"", self.names.remove(at))
    }

    fn decl(&mut self) -> &'static str {
        if self.strict { self.random.pick(&STRICT_TYPES) } else { self.random.pick(&TYPES) }
    }

    fn column(&mut self, declared: &str) -> String {
        let name = self.name();
        self.declared.push(format!("{name} {declared}"));
        self.columns.push(Column { name: name.clone(), generated: false });
        name
    }

    fn generated(&mut self, of: &str) {
        let name = self.name();
        let text = self.random.pick(&[
            "{n} TEXT AS ({c} || 'x')",
            "{n} TEXT AS (upper({c})) STORED",
            "{n} TEXT GENERATED ALWAYS AS (coalesce({c}, 'none')) VIRTUAL UNIQUE",
            "{n} TEXT AS ({c} || 'y') STORED UNIQUE",
        ]);
        self.declared.push(text.replace("{n}", &name).replace("{c}", of));
        self.columns.push(Column { name, generated: true });
    }
}

/// Draws a table. `parent` may be referenced by a cascading foreign key.
pub(crate) fn table(random: &mut Random, at: usize, parent: Option<&Table>, width: Option<usize>) -> Table {
    let name = if random.one_in(2) { format!("t{at}") } else { format!("{}{at}", random.pick(&TABLE_NAMES)) };
    let strict = random.one_in(5);
    let mut b = Builder { random, strict, names: COLUMN_NAMES.to_vec(), columns: vec![], declared: vec![] };
    // Not all three names of the row id: such a table is refused, which another test proves.
    b.names.retain(|name| *name != "_rowid_" || !b.random.one_in(2));
    if b.names.contains(&"_rowid_") {
        b.names.retain(|name| *name != "rowid");
    }
    let text = if strict { "TEXT" } else { b.random.pick(&["TEXT", "VARCHAR(20)", "NUMERIC", "", "REAL"]) };
    let nocase = if b.random.one_in(3) { " COLLATE NOCASE" } else { "" };
    let (mut key, mut constraint, mut without_rowid_possible) = (vec![], String::new(), true);
    match b.random.below(9) {
        0..=2 => key.push(b.column("INTEGER PRIMARY KEY")),
        3 => key.push(b.column(&format!("{text}{nocase} PRIMARY KEY"))),
        4 => {
            let (x, y) = (b.column(&format!("{text}{nocase}")), b.column("INTEGER"));
            let within = b.random.pick(&["", " COLLATE NOCASE", " DESC"]);
            constraint = format!(", PRIMARY KEY({x}{within}, {y})");
            key = vec![x, y];
        }
        5 => key.push(b.column("INTEGER PRIMARY KEY DESC")),
        6 => key.push(b.column("INTEGER PRIMARY KEY AUTOINCREMENT")),
        7 => {
            let x = b.column(text);
            constraint = format!(", PRIMARY KEY({x} COLLATE NOCASE)");
            key = vec![x];
        }
        _ => without_rowid_possible = false,
    }
    let autoincrement = b.declared.first().is_some_and(|text| text.ends_with("AUTOINCREMENT"));
    let without_rowid = without_rowid_possible && !autoincrement && b.random.one_in(3);
    let others = width
        .unwrap_or_else(|| if b.random.one_in(8) { 20 + b.random.below(20) } else { 1 + b.random.below(5) });
    let mut plain = Vec::new();
    for other in 0..others {
        let decl = b.decl();
        let extra = match b.random.below(14) + if other < 8 { 0 } else { 6 } {
            0 => " UNIQUE",
            1 => " NOT NULL DEFAULT 'dflt'",
            2 if !strict => " NOT NULL DEFAULT 'dflt' UNIQUE",
            3 if !strict => " NOT NULL DEFAULT bare UNIQUE",
            4 => " COLLATE NOCASE UNIQUE",
            5 => " UNIQUE ON CONFLICT REPLACE",
            6 => " COLLATE NOCASE",
            _ => "",
        };
        let extra = if strict && extra.contains("DEFAULT") { "" } else { extra };
        plain.push(b.column(&format!("{decl}{extra}")));
    }
    // Of the same affinity as the parent's key: otherwise SQLite finds a row's parent but not a parent's rows, and
    // keeps what a statement deleted although it fails.
    let integer = |parent: &&Table| parent.sql[0].contains(" INTEGER PRIMARY KEY");
    if let Some(parent) = parent.filter(integer) {
        let action = b.random.pick(&[
            "ON DELETE CASCADE ON UPDATE CASCADE",
            "ON DELETE SET NULL",
            "ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
        ]);
        b.column(&format!("INTEGER REFERENCES {}({}) {action}", parent.quoted(), parent.key[0]));
    }
    // A generated column of a NOT NULL column with a default is a hole: its value in NEW is not the one it gets when
    // REPLACE puts the default in the place of NULL.
    let nullable: Vec<&String> = plain
        .iter()
        .filter(|name| !b.declared.iter().any(|text| text.starts_with(*name) && text.contains("DEFAULT")))
        .collect();
    if !nullable.is_empty() && b.random.one_in(4) {
        let of = nullable[b.random.below(nullable.len())].clone();
        b.generated(&of);
    }
    let quoted = quoted(&name);
    let options = match (strict, without_rowid) {
        (true, true) => " STRICT, WITHOUT ROWID",
        (true, false) => " STRICT",
        (false, true) => " WITHOUT ROWID",
        (false, false) => "",
    };
    let mut sql = vec![format!("CREATE TABLE {quoted}({}{constraint}){options}", b.declared.join(", "))];
    for index in 0..b.random.below(3) {
        let (x, y) = (plain[b.random.below(plain.len())].clone(), plain[b.random.below(plain.len())].clone());
        let terms = b.random.pick(&[
            "({x})",
            "({x} COLLATE NOCASE)",
            "({x}) WHERE {x} IS NOT NULL",
            "({x}) WHERE {y} > 3 -- only large (ones)",
            "({x}) WHERE {t}.{y} > 3",
            "(({x} = 1), {y})",
            "(({x} >= 'B'), {y})",
            "(lower({x}))",
            "(abs({x}) DESC, {y})",
            "({x} || ',)' || {y} /* ( */)",
        ]);
        let terms = terms.replace("{x}", &x).replace("{y}", &y).replace("{t}", &quoted);
        sql.push(format!("CREATE UNIQUE INDEX \"i {at} {index}\" ON {quoted} {terms}"));
    }
    let taken = |name: &str| b.columns.iter().any(|column| column.name == format!("\"{name}\""));
    let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !without_rowid && !taken(name));
    Table { name, columns: b.columns, key, rowid, sql, triggers: vec![] }
}

/// User triggers on `table` that write it again, write `audit`, or stop a row.
pub(crate) fn trigger(random: &mut Random, table: &Table, audit: &Table, at: usize) -> String {
    let (t, audit_name) = (table.quoted(), audit.quoted());
    let writable = table.writable();
    let c = writable[random.below(writable.len())];
    let columns = audit.writable();
    let a = columns[random.below(columns.len())];
    let found = match (&table.rowid, table.key.first()) {
        (Some(rowid), _) => format!("{rowid} = NEW.{rowid}"),
        (None, _) => {
            let equal = |key: &String| format!("{key} IS NEW.{key}");
            table.key.iter().map(equal).collect::<Vec<_>>().join(" AND ")
        }
    };
    let texts = [
        "AFTER UPDATE ON {t} WHEN NEW.{c} IS OLD.{c} BEGIN UPDATE {t} SET {c} = 'touched' WHERE {found} AND {c} IS NOT 'touched'; END",
        "AFTER INSERT ON {t} BEGIN UPDATE OR IGNORE {t} SET {c} = 7 WHERE {found} AND {c} IS NULL; END",
        "BEFORE INSERT ON {t} WHEN NEW.{c} IS 5 BEGIN SELECT RAISE(IGNORE); END",
        "BEFORE UPDATE ON {t} WHEN NEW.{c} IS 6 BEGIN SELECT RAISE(IGNORE); END",
        "BEFORE DELETE ON {t} WHEN OLD.{c} IS 4 BEGIN SELECT RAISE(IGNORE); END",
        "AFTER DELETE ON {t} WHEN OLD.{c} IS 3 BEGIN SELECT RAISE(ABORT, 'kept'); END",
        "AFTER INSERT ON {t} BEGIN INSERT OR IGNORE INTO {audit}({a}) VALUES (NEW.{c}); END",
        "AFTER DELETE ON {t} BEGIN INSERT OR REPLACE INTO {audit}({a}) VALUES (OLD.{c}); END",
        "BEFORE UPDATE ON {t} BEGIN DELETE FROM {audit} WHERE {a} IS OLD.{c}; END",
    ];
    // SQLite may keep what a statement deleted although a cascade that a trigger stopped makes it fail.
    let cascades = table.sql[0].contains("REFERENCES");
    let possible: Vec<&str> = texts
        .into_iter()
        .filter(|text| !(cascades && text.contains("RAISE(IGNORE)")))
        .filter(|text| audit.name != table.name || !text.contains("{audit}"))
        .collect();
    let text = random.pick(&possible);
    let text = text.replace("{t}", &t).replace("{c}", c).replace("{audit}", &audit_name).replace("{a}", a);
    format!("CREATE TRIGGER \"user {at}\" {}", text.replace("{found}", &found))
}
