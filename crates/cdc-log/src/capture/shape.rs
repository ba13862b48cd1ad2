//! What a table looks like to capture: its columns, its key, and how its values lie in a capture row.

use cdc_model::{KeyShape, SchemaChange, SchemaColumn, ValueRef, document_id, push_json_string};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::rows::ROW_VALUES_MAX;
use crate::{Error, Result};

/// A state of a row has at most this many values, so that the table that holds replaced rows keeps SQLite's default
/// limit of 2,000 columns.
const STATE_VALUES_MAX: usize = 1990;

/// Values of more bytes are kept out of the log: only their size and digest are.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// A column's name, and how it stands before its value in the JSON of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) struct ColumnName {
    name: String,
    member: String,
}

impl From<String> for ColumnName {
    fn from(name: String) -> Self {
        let mut member = String::new();
        push_json_string(&mut member, &name);
        member.push(':');
        Self { name, member }
    }
}

impl From<ColumnName> for String {
    fn from(name: ColumnName) -> Self {
        name.name
    }
}

impl std::ops::Deref for ColumnName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: ColumnName,
    pub(crate) declared_type: String,
    /// Its place in the primary key, from 1.
    pub(crate) key: Option<u32>,
}

impl Column {
    /// Its affinity, as §3.1 of "Datatypes In SQLite" finds it in the declared type. INTEGER is not told apart.
    pub(crate) fn affinity(&self) -> &'static str {
        let declared = self.declared_type.to_ascii_uppercase();
        let has = |part: &&str| declared.contains(part);
        if has(&"INT") {
            "NUMERIC"
        } else if ["CHAR", "CLOB", "TEXT"].iter().any(has) {
            "TEXT"
        } else if declared.is_empty() || has(&"BLOB") {
            "BLOB"
        } else if ["REAL", "FLOA", "DOUB"].iter().any(has) {
            "REAL"
        } else {
            "NUMERIC"
        }
    }
}

/// One table as one version of its triggers captures it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) table: String,
    pub(crate) columns: Vec<Column>,
    /// The name by which the row id is reached, when it is captured as the first value.
    pub(crate) rowid: Option<String>,
    /// The INTEGER PRIMARY KEY column, when there is one.
    pub(crate) rowid_alias: Option<usize>,
    /// Whether a number and the text of that number cannot both be keys.
    pub(crate) numeric_key: bool,
}

impl Shape {
    /// Reads a table's shape from the database.
    pub(crate) fn read(conn: &Connection, table: &str) -> Result<Self> {
        let refuse = |reason| Error::UnsupportedTable { table: table.to_owned(), reason };
        let kind =
            "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let found: Option<(String, String, bool)> =
            conn.query_row(kind, [table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let Some((name, kind, without_rowid)) = found else {
            return Err(Error::UnknownTable { table: table.to_owned(), known: tables(conn)? });
        };
        match kind.as_str() {
            "table" if name.starts_with("_cdc_") => return Err(refuse("it belongs to capture itself")),
            "table" if name.starts_with("sqlite_") => return Err(refuse("it belongs to SQLite itself")),
            "table" => {}
            "view" => return Err(refuse("it is a view; capture the tables under it")),
            "virtual" => return Err(refuse("it is a virtual table; SQLite fires no triggers for it")),
            _ => return Err(refuse("it is a shadow table of a virtual table")),
        }
        let columns = columns(conn, &name)?;
        let rowid_alias = if without_rowid { None } else { rowid_alias(conn, &name, &columns)? };
        let rowid = if without_rowid || rowid_alias.is_some() {
            None
        } else {
            Some(
                free_rowid_names(&columns)
                    .next()
                    .ok_or_else(|| refuse("its columns hide the row id under all three of its names"))?
                    .to_owned(),
            )
        };
        let numeric_key = rowid_alias.is_some()
            || key_columns(&columns).next().is_none_or(|(_, column)| is_numeric(column));
        let shape = Self { table: name, columns, rowid, rowid_alias, numeric_key };
        if shape.width() > STATE_VALUES_MAX {
            return Err(refuse("it has more than 1989 columns"));
        }
        let select =
            format!("SELECT {} FROM {} NOT INDEXED", shape.values("").join(", "), in_main(&shape.table));
        if conn.prepare(&select).is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::Unknown)) {
            return Err(refuse(
                "only the application has a function or collation without which it cannot be read",
            ));
        }
        Ok(shape)
    }

    /// How many values one state of a row has in a capture row.
    pub(crate) fn width(&self) -> usize {
        self.columns.len() + usize::from(self.rowid.is_some())
    }

    /// Whether the states before and after of an update need a capture row each.
    pub(crate) fn is_wide(&self) -> bool {
        self.width() * 2 > ROW_VALUES_MAX
    }

    /// How many values a capture row of this table has at most.
    pub(crate) fn values_max(&self) -> usize {
        if self.is_wide() { self.width().min(ROW_VALUES_MAX) } else { self.width() * 2 }
    }

    /// The quoted names of the captured values of one state, each after `prefix`.
    pub(crate) fn values(&self, prefix: &str) -> Vec<String> {
        let rowid = self.rowid.iter().cloned();
        rowid
            .chain(self.columns.iter().map(|column| quoted(&column.name)))
            .map(|name| format!("{prefix}{name}"))
            .collect()
    }

    /// The names of the values by which a row is found again in the table, and their places in a capture row.
    pub(crate) fn row_key(&self) -> Vec<(String, usize)> {
        match (&self.rowid, self.rowid_alias) {
            (Some(rowid), _) => vec![(rowid.clone(), 0)],
            (None, Some(alias)) => {
                self.columns.get(alias).map(|column| (quoted(&column.name), alias)).into_iter().collect()
            }
            (None, None) => {
                key_columns(&self.columns).map(|(at, column)| (quoted(&column.name), at)).collect()
            }
        }
    }

    /// A column's place in a capture row.
    pub(crate) fn place(&self, column: &str) -> Option<usize> {
        let at = self.columns.iter().position(|other| &*other.name == column)?;
        Some(at + usize::from(self.rowid.is_some()))
    }

    pub(crate) const fn has_rowid(&self) -> bool {
        self.rowid.is_some() || self.rowid_alias.is_some()
    }

    /// The names by which statements can reach the row id beside its column, if it has one.
    pub(crate) fn rowid_names(&self) -> impl Iterator<Item = &'static str> {
        free_rowid_names(&self.columns).filter(|_| self.has_rowid())
    }

    /// The document id of a row, from the values of one state.
    pub(crate) fn document_id(&self, values: &[ValueRef<'_>]) -> String {
        let offset = usize::from(self.rowid.is_some());
        let at = |index: usize| values.get(index).copied().unwrap_or(ValueRef::Null);
        let numeric = KeyShape { numeric: self.numeric_key };
        if let Some(alias) = self.rowid_alias {
            return document_id(&[at(alias)], numeric);
        }
        let mut key: Vec<_> = key_columns(&self.columns).map(|(index, _)| at(offset + index)).collect();
        let unique = !key.is_empty() && !key.iter().any(|value| matches!(value, ValueRef::Null));
        if !unique && offset == 1 {
            key.push(at(0));
        }
        document_id(&key, numeric)
    }

    /// The JSON of one state of a row.
    pub(crate) fn document(&self, values: &[ValueRef<'_>]) -> String {
        self.json(values, |_| true)
    }

    /// The JSON of the columns whose index `wanted` says yes to.
    pub(crate) fn json(&self, values: &[ValueRef<'_>], wanted: impl Fn(usize) -> bool) -> String {
        let offset = usize::from(self.rowid.is_some());
        let mut out = String::with_capacity(32 * values.len());
        out.push('{');
        for (index, column) in self.columns.iter().enumerate().filter(|(index, _)| wanted(*index)) {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&column.name.member);
            values.get(offset + index).unwrap_or(&ValueRef::Null).write_json(&mut out, VALUE_BYTES_MAX);
        }
        out.push('}');
        out
    }

    /// The indexes of the columns that differ between two states.
    pub(crate) fn changed(&self, before: &[ValueRef<'_>], after: &[ValueRef<'_>]) -> Vec<usize> {
        let offset = usize::from(self.rowid.is_some());
        let differs = |index: &usize| match (before.get(offset + index), after.get(offset + index)) {
            (Some(before), Some(after)) => !before.same(after),
            _ => true,
        };
        (0..self.columns.len()).filter(differs).collect()
    }

    pub(crate) fn schema_change(&self, version: u32) -> SchemaChange {
        let columns = self.columns.iter().map(|column| SchemaColumn {
            name: column.name.to_string(),
            declared_type: column.declared_type.clone(),
            key: column.key,
        });
        SchemaChange {
            collection: self.table.clone(),
            version,
            columns: columns.collect(),
            ..SchemaChange::default()
        }
    }
}

fn free_rowid_names(columns: &[Column]) -> impl Iterator<Item = &'static str> {
    let taken = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().filter(move |name| !taken(name))
}

fn key_columns(columns: &[Column]) -> impl Iterator<Item = (usize, &Column)> {
    let mut key: Vec<_> = columns.iter().enumerate().filter(|(_, column)| column.key.is_some()).collect();
    key.sort_by_key(|(_, column)| column.key);
    key.into_iter()
}

/// The tables that can be captured.
pub(crate) fn tables(conn: &Connection) -> Result<Vec<String>> {
    let mut statement = conn.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_cdc\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn columns(conn: &Connection, table: &str) -> Result<Vec<Column>> {
    let mut statement = conn.prepare(
        "SELECT name, type, pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let columns = statement.query_map([table], |row| {
        let key: u32 = row.get(2)?;
        Ok(Column {
            name: row.get::<_, String>(0)?.into(),
            declared_type: row.get(1)?,
            key: (key > 0).then_some(key),
        })
    })?;
    Ok(columns.collect::<Result<_, _>>()?)
}

/// INTEGER PRIMARY KEY is the row id itself, unless SQLite made an index for it (as it does for DESC).
fn rowid_alias(conn: &Connection, table: &str, columns: &[Column]) -> Result<Option<usize>> {
    let mut key = key_columns(columns);
    let (Some((index, column)), None) = (key.next(), key.next()) else {
        return Ok(None);
    };
    if !column.declared_type.eq_ignore_ascii_case("integer") {
        return Ok(None);
    }
    let indexed = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')";
    let indexed: bool = conn.query_row(indexed, [table], |row| row.get(0))?;
    Ok((!indexed).then_some(index))
}

/// Whether SQLite turns text that looks like a number into a number in this column. In a STRICT table it does not in
/// an ANY column.
fn is_numeric(column: &Column) -> bool {
    matches!(column.affinity(), "NUMERIC" | "REAL") && !column.declared_type.eq_ignore_ascii_case("any")
}

/// A name as a SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table, view or trigger of the database, also where the connection has a TEMP table of that name. What triggers do
/// needs none of this: SQLite looks names up in the trigger's own schema, and allows no other there.
pub(crate) fn in_main(name: &str) -> String {
    format!("main.{}", quoted(name))
}
