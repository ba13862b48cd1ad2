//! Random tables, with everything that makes capture hard.

use rusqlite::Connection;

use crate::random::Random;

/// What the oldest SQLite that meets a schema can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// As `sqlite3_libversion_number` says it.
    pub(crate) version: i32,
    /// Whether others than it and us read and write. Versions do not write the same text for every REAL: an index on
    /// such a text is damaged between them, and a generated column has another value for each.
    pub(crate) mixed: bool,
    /// Whether tables may have keys into themselves.
    pub(crate) itself: bool,
}

impl Features {
    pub(crate) const CURRENT: Self = Self { version: i32::MAX, mixed: false, itself: false };

    /// Whether a trigger may keep a row that a REPLACE is to remove: 3.26 then keeps both and damages the index, and so
    /// does 3.40 where an UPDATE moves row ids.
    pub(crate) const fn deletes_ignored(self) -> bool {
        self.version >= 3_050_000
    }

    /// Whether an index may have a REAL column. Older ones leave an integer in it as it was written, and take it for a
    /// REAL or not from one statement to the next: their indexes lose rows, without us too.
    pub(crate) const fn indexed_reals(self) -> bool {
        self.version >= 3_040_000
    }

    /// Whether an index may ask how a column compares, or name its table. 3.26 compares text and numbers otherwise than
    /// later versions, and damages the index; where its table is renamed the legacy way, it damages the schema. Both
    /// without us too.
    pub(crate) const fn compared_indexes(self) -> bool {
        self.version >= 3_040_000
    }

    /// Whether an index may have columns of a WITHOUT ROWID table's key. 3.26 leaves the key's own column out of such an
    /// index also where it is collated otherwise there; later versions do not find its entries, without us too.
    pub(crate) const fn indexed_keys(self) -> bool {
        self.version >= 3_040_000
    }

    /// Whether an UPDATE OR REPLACE may meet a partial unique index: 3.26 then crashes, without us too.
    pub(crate) const fn replaces_beside_partial_indexes(self) -> bool {
        self.version >= 3_040_000
    }

    /// Whether keys may be checked at the end only: 3.26 crashes when an UPDATE OR REPLACE of such a table meets a partial
    /// unique index, without us too.
    pub(crate) const fn deferred_keys(self) -> bool {
        self.version >= 3_040_000
    }

    /// A column's value where it becomes text.
    pub(crate) fn as_text(self, column: &str) -> String {
        if self.mixed {
            format!("(CASE typeof({column}) WHEN 'real' THEN 'real' ELSE {column} END)")
        } else {
            column.to_owned()
        }
    }

    pub(crate) const fn generated_columns(self) -> bool {
        self.version >= 3_031_000
    }

    /// Several ON CONFLICT clauses, and DO UPDATE without a target.
    pub(crate) const fn several_upserts(self) -> bool {
        self.version >= 3_035_000
    }

    pub(crate) const fn returning(self) -> bool {
        self.version >= 3_035_000
    }

    pub(crate) const fn drop_column(self) -> bool {
        self.version >= 3_035_000
    }

    pub(crate) const fn update_from(self) -> bool {
        self.version >= 3_033_000
    }

    pub(crate) const fn strict(self) -> bool {
        self.version >= 3_037_000
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Quoted.
    pub(crate) name: String,
    pub(crate) generated: bool,
    /// Whether it is an INTEGER PRIMARY KEY.
    pub(crate) key: bool,
    pub(crate) real: bool,
}

impl Column {
    /// What stands for its values in the text of a statement.
    pub(crate) const fn place(&self) -> char {
        if self.key { '\u{2}' } else { '\u{1}' }
    }
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
    /// What ON CONFLICT can name, in parentheses.
    pub(crate) uniques: Vec<String>,
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

    /// Reads a table as it is now.
    pub(crate) fn read(conn: &Connection, name: &str) -> Self {
        let mut statement = conn
            .prepare_cached("SELECT name, hidden IN (2, 3), pk, upper(type) FROM pragma_table_xinfo(?1) WHERE hidden <> 1")
            .unwrap();
        let columns = statement.query_map([name], |row| {
            let (column, declared): (String, String) = (row.get(0)?, row.get(3)?);
            let (key, generated): (usize, bool) = (row.get(2)?, row.get(1)?);
            let (is_key, real) = (key > 0 && declared == "INTEGER", declared == "REAL");
            Ok((key, Column { name: quoted(&column), generated, key: is_key, real }))
        });
        let columns: Vec<(usize, Column)> = columns.unwrap().map(Result::unwrap).collect();
        let mut key: Vec<_> = columns
            .iter()
            .filter(|(key, _)| *key > 0)
            .map(|(key, column)| (*key, column.name.clone()))
            .collect();
        key.sort();
        let without_rowid = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1";
        let without_rowid: bool = conn.query_row(without_rowid, [name], |row| row.get(0)).unwrap();
        let mut statement = conn
            .prepare_cached("SELECT sql FROM sqlite_master WHERE tbl_name = ?1 AND type IN ('table', 'index') ORDER BY type DESC")
            .unwrap();
        let sql = statement.query_map([name], |row| row.get::<_, Option<String>>(0)).unwrap();
        let sql = sql.filter_map(Result::unwrap).collect();
        let columns: Vec<Column> = columns.into_iter().map(|(_, column)| column).collect();
        Self {
            name: name.to_owned(),
            rowid: rowid_name(&columns).filter(|_| !without_rowid),
            key: key.into_iter().map(|(_, name)| name).collect(),
            uniques: uniques(conn, name),
            columns,
            sql,
            triggers: vec![],
        }
    }

    /// Whether rows of it have a key into it that acts on them. What one statement does to a row it is still to write
    /// is a hole: the row's own event goes on from what the row was when the statement found it.
    pub(crate) fn acts_on_itself(&self) -> bool {
        let itself = format!("REFERENCES {}", self.quoted());
        self.sql
            .first()
            .is_some_and(|sql| sql.split_once(&itself).is_some_and(|(_, action)| action.contains(") ON ")))
    }

    /// Whether a unique index of it holds some rows only.
    pub(crate) fn has_partial_index(&self) -> bool {
        self.sql.iter().any(|sql| sql.starts_with("CREATE UNIQUE INDEX") && sql.contains(" WHERE "))
    }

    pub(crate) fn writable(&self) -> Vec<&str> {
        self.columns.iter().filter(|c| !c.generated).map(|c| c.name.as_str()).collect()
    }
}

fn rowid_name(columns: &[Column]) -> Option<&'static str> {
    let taken = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(&quoted(name)));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name))
}

/// The unique indexes of plain columns that hold every row.
fn uniques(conn: &Connection, table: &str) -> Vec<String> {
    let mut statement = conn
        .prepare_cached(
            "SELECT group_concat('\"' || replace(x.name, '\"', '\"\"') || '\" COLLATE ' || x.coll, ', '), min(x.name IS NOT NULL) \
             FROM pragma_index_list(?1) AS i JOIN pragma_index_xinfo(i.name) AS x \
             WHERE i.\"unique\" AND NOT i.partial AND x.key GROUP BY i.name",
        )
        .unwrap();
    let found =
        statement.query_map([table], |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, bool>(1)?)));
    let found = found.unwrap().map(Result::unwrap);
    found
        .filter_map(|(columns, plain)| columns.filter(|_| plain))
        .map(|columns| format!("({columns})"))
        .collect()
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
    features: Features,
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
        let key = declared.starts_with("INTEGER PRIMARY KEY");
        self.columns.push(Column {
            name: name.clone(),
            generated: false,
            key,
            real: declared.starts_with("REAL"),
        });
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
        // SQLite 3.40 lets a value of another type into a strict table here, and later ones cannot read it.
        let text = if self.strict { text.replace(" TEXT ", " ANY ") } else { text.to_owned() };
        self.declared.push(text.replace("{n}", &name).replace("{c}", &self.features.as_text(of)));
        self.columns.push(Column { name, generated: true, key: false, real: false });
    }
}

/// Draws a table. `parent` may be referenced by a cascading foreign key.
pub(crate) fn table(
    random: &mut Random,
    at: usize,
    parent: Option<&Table>,
    width: Option<usize>,
    features: Features,
) -> Table {
    let name = if random.one_in(2) { format!("t{at}") } else { format!("{}{at}", random.pick(&TABLE_NAMES)) };
    let strict = features.strict() && random.one_in(5);
    let names = COLUMN_NAMES.to_vec();
    let mut b = Builder { random, strict, features, names, columns: vec![], declared: vec![] };
    // Not all three names of the row id: such a table is refused, which another test proves.
    b.names.retain(|name| *name != "_rowid_" || !b.random.one_in(2));
    if b.names.contains(&"_rowid_") {
        b.names.retain(|name| *name != "rowid");
    }
    let text = if strict { "TEXT" } else { b.random.pick(&["TEXT", "VARCHAR(20)", "NUMERIC", "", "REAL"]) };
    let text = if text == "REAL" && !features.indexed_reals() { "NUMERIC" } else { text };
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
    let others = width.unwrap_or_else(|| match b.random.below(30) {
        0..=2 => 20 + b.random.below(20),
        // More than a capture row holds.
        3 => 60 + b.random.below(80),
        _ => 1 + b.random.below(5),
    });
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
        let extra = if decl == "REAL" && !features.indexed_reals() { "" } else { extra };
        plain.push(b.column(&format!("{decl}{extra}")));
    }
    if features.itself
        && parent.is_none()
        && !key.is_empty()
        && b.declared[0].contains(" INTEGER PRIMARY KEY")
        && b.random.one_in(5)
    {
        let action = b.random.pick(&["ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE", ""]);
        let key = key[0].clone();
        b.column(&format!("INTEGER REFERENCES {}({key}) {action}", quoted(&name)));
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
        let action = if features.deferred_keys() {
            action
        } else {
            action.trim_end_matches(" DEFERRABLE INITIALLY DEFERRED")
        };
        b.column(&format!("INTEGER REFERENCES {}({}) {action}", parent.quoted(), parent.key[0]));
    }
    // A generated column of a NOT NULL column with a default is a hole: its value in NEW is not the one it gets when
    // REPLACE puts the default in the place of NULL.
    let nullable: Vec<&String> = plain
        .iter()
        .filter(|name| !b.declared.iter().any(|text| text.starts_with(*name) && text.contains("DEFAULT")))
        .collect();
    if b.features.generated_columns() && !nullable.is_empty() && b.random.one_in(4) {
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
    let real = |name: &String| b.declared.iter().any(|text| text.starts_with(&format!("{name} REAL")));
    plain.retain(|name| features.indexed_reals() || !real(name));
    let mut sql = vec![format!("CREATE TABLE {quoted}({}{constraint}){options}", b.declared.join(", "))];
    for index in 0..if plain.is_empty() { 0 } else { b.random.below(3) } {
        let (x, y) = (plain[b.random.below(plain.len())].clone(), plain[b.random.below(plain.len())].clone());
        let terms = b.random.pick(&[
            "({x})",
            "({x} COLLATE NOCASE)",
            "({x}) WHERE {x} IS NOT NULL",
            if features.compared_indexes() {
                "({x}) WHERE {y} > 3 -- only large (ones)"
            } else {
                "({x}, {y})"
            },
            if features.compared_indexes() { "({x}) WHERE {t}.{y} > 3" } else { "({x}) WHERE {y} IS NULL" },
            "(({x} = 1), {y})",
            "(({x} >= 'B'), {y})",
            "(lower({x_text}))",
            "(abs({x}) DESC, {y})",
            "({x_text} || ',)' || {y_text} /* ( */)",
        ]);
        let terms =
            terms.replace("{x_text}", &features.as_text(&x)).replace("{y_text}", &features.as_text(&y));
        let terms = terms.replace("{x}", &x).replace("{y}", &y).replace("{t}", &quoted);
        sql.push(format!("CREATE UNIQUE INDEX \"i {at} {index}\" ON {quoted} {terms}"));
    }
    let rowid = rowid_name(&b.columns).filter(|_| !without_rowid);
    Table { name, columns: b.columns, key, rowid, uniques: vec![], sql, triggers: vec![] }
}

/// User triggers on `table` that write it again, write `audit`, or stop a row.
pub(crate) fn trigger(
    random: &mut Random,
    features: Features,
    table: &Table,
    audit: &Table,
    at: usize,
) -> String {
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
    // Every version damages the index of such a table when the row that an UPDATE OR REPLACE is to remove is kept.
    let is_damaged = table.rowid.is_none() && table.key.len() > 1;
    let deletes_ignored = features.deletes_ignored() && !is_damaged;
    // Inside of a REPLACE every UPDATE is one OR REPLACE.
    let updates = features.replaces_beside_partial_indexes() || !table.has_partial_index();
    let possible: Vec<&str> = texts
        .into_iter()
        .filter(|text| !(cascades && text.contains("RAISE(IGNORE)")))
        .filter(|text| deletes_ignored || !text.contains("BEFORE DELETE"))
        .filter(|text| {
            updates || !["UPDATE {t}", "UPDATE OR IGNORE {t}"].iter().any(|part| text.contains(part))
        })
        .filter(|text| audit.name != table.name || !text.contains("{audit}"))
        .collect();
    let text = random.pick(&possible);
    let text = text.replace("{t}", &t).replace("{c}", c).replace("{audit}", &audit_name).replace("{a}", a);
    format!("CREATE TRIGGER \"user {at}\" {}", text.replace("{found}", &found))
}
