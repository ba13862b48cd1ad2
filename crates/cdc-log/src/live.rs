//! The rows of a captured table as they are now, rendered as capture renders them.

use cdc_model::{KeyShape, Value, ValueRef, document_key};
use rusqlite::types::{ToSqlOutput, ValueRef as Sqlite};
use rusqlite::{Connection, Params, ToSql, params_from_iter};

use crate::Result;
use crate::capture::{self, CapturedTable, in_main, quoted};

/// One row.
#[derive(Debug)]
pub(crate) struct LiveRow {
    pub(crate) document_id: String,
    pub(crate) json: String,
    /// The JSON of the values by which rows are ordered.
    pub(crate) key: Vec<String>,
}

/// One column by which rows are ordered and found: an index has them.
#[derive(Debug)]
struct KeyColumn {
    name: String,
    /// Where its value lies among those of a row.
    place: usize,
    collation: &'static str,
}

/// Reads the rows of one table.
#[derive(Debug)]
pub(crate) struct LiveRows<'u> {
    user: &'u Connection,
    table: &'u CapturedTable,
    /// What rows are ordered by; `None` where only the application knows a collation.
    order: Option<Vec<KeyColumn>>,
    /// What a document is found by if it is not its row id; `None` as above.
    key: Option<Vec<KeyColumn>>,
}

impl<'u> LiveRows<'u> {
    pub(crate) fn of(user: &'u Connection, table: &'u CapturedTable) -> Result<Self> {
        let key = primary_key(user, table)?;
        let order = match rowid(table) {
            Some(rowid) => Some(vec![rowid]),
            None => primary_key(user, table)?,
        };
        Ok(Self { user, table, order, key })
    }

    /// Whether rows can be read in ranges and found by their keys.
    pub(crate) const fn in_order(&self) -> bool {
        self.order.is_some() && self.key.is_some()
    }

    /// The rows after `after`, in the order of their keys.
    pub(crate) fn after(
        &self,
        after: Option<&[String]>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<LiveRow>> {
        let (condition, values) = self.behind(after)?;
        let condition = format!("{condition} ORDER BY {}", self.terms());
        self.select(&condition, params_from_iter(values.iter().map(Bound)), rows_max, bytes_max)
    }

    /// How many rows there are after `after`.
    pub(crate) fn count(&self, after: Option<&[String]>) -> Result<u64> {
        let (condition, values) = self.behind(after)?;
        let table = in_main(&self.table.shape.table);
        let sql = format!("SELECT count(*) FROM {table} AS _cdc_t {condition}");
        Ok(self.user.query_row(&sql, params_from_iter(values.iter().map(Bound)), |row| row.get(0))?)
    }

    /// What rows are ordered by.
    fn terms(&self) -> String {
        let order = self.order.as_deref().unwrap_or_default();
        let terms: Vec<String> = order
            .iter()
            .map(|column| format!("_cdc_t.{} COLLATE {}", column.name, column.collation))
            .collect();
        terms.join(", ")
    }

    /// The condition that rows after `after` meet, and the values it takes.
    fn behind(&self, after: Option<&[String]>) -> Result<(String, Vec<Value>)> {
        let Some(after) = after else { return Ok((String::new(), Vec::new())) };
        let marks: Vec<&str> = after.iter().map(|_| "?").collect();
        let values = after.iter().map(|json| Value::from_json(json)).collect::<Result<_, _>>()?;
        Ok((format!("WHERE ({}) > ({})", self.terms(), marks.join(", ")), values))
    }

    /// All rows.
    pub(crate) fn all(&self) -> Result<Vec<LiveRow>> {
        self.select("NOT INDEXED", [], usize::MAX, usize::MAX)
    }

    /// Whether the table has a row with this document id.
    pub(crate) fn has(&self, document_id: &str) -> Result<bool> {
        let shape = &self.table.shape;
        // An id that no key of this table makes.
        let Ok(mut values) = document_key(document_id, KeyShape { numeric: shape.numeric_key }) else {
            return Ok(false);
        };
        let key = self.key.as_deref().unwrap_or_default();
        let by_rowid;
        let columns = if key.len() == values.len() && !key.is_empty() {
            key
        } else {
            // A key with NULLs, or none, is told apart by the row id.
            let (Some(rowid), Some(last)) = (rowid(self.table), values.pop()) else { return Ok(false) };
            values = vec![last];
            by_rowid = [rowid];
            &by_rowid
        };
        let terms: Vec<String> = columns
            .iter()
            .map(|column| format!("_cdc_t.{} COLLATE {} = ?", column.name, column.collation))
            .collect();
        let values: Vec<_> = values.iter().map(Bound).collect();
        let condition = format!("WHERE {}", terms.join(" AND "));
        let rows = self.select(&condition, params_from_iter(values), 2, usize::MAX)?;
        // Values that are equal are not always the same: 1 and 1.0.
        Ok(rows.iter().any(|row| row.document_id == document_id))
    }

    fn select(
        &self,
        condition: &str,
        params: impl Params,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<LiveRow>> {
        let shape = &self.table.shape;
        let columns = shape.values("_cdc_t.").join(", ");
        let sql = format!("SELECT {columns} FROM {} AS _cdc_t {condition}", in_main(&shape.table));
        let mut statement = self.user.prepare_cached(&sql)?;
        let mut rows = statement.query(params)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let values = capture::values(row, 0, shape.width())?;
            let row = self.row(&values);
            bytes += row.json.len();
            found.push(row);
            if found.len() >= rows_max || bytes >= bytes_max {
                break;
            }
        }
        Ok(found)
    }

    fn row(&self, values: &[ValueRef<'_>]) -> LiveRow {
        let shape = &self.table.shape;
        let order = self.order.iter().flatten();
        LiveRow {
            document_id: shape.document_id(values),
            json: shape.document(values),
            key: order.filter_map(|column| values.get(column.place)).map(ValueRef::to_json).collect(),
        }
    }
}

/// The row id as the column that rows are ordered by, where there is one.
fn rowid(table: &CapturedTable) -> Option<KeyColumn> {
    let shape = &table.shape;
    let (name, place) = match (&shape.rowid, shape.rowid_alias) {
        (Some(rowid), _) => (rowid.clone(), 0),
        (None, Some(alias)) => (quoted(&shape.columns.get(alias)?.name), alias),
        (None, None) => return None,
    };
    Some(KeyColumn { name, place, collation: "BINARY" })
}

/// The columns of the primary key as its index has them; those of the row id where that is the key. `None` where a
/// collation is the application's.
fn primary_key(user: &Connection, table: &CapturedTable) -> Result<Option<Vec<KeyColumn>>> {
    let mut statement = user.prepare_cached(
        "SELECT x.name, x.coll FROM pragma_index_list(?1, 'main') AS l, pragma_index_xinfo(l.name, 'main') AS x \
         WHERE l.origin = 'pk' AND x.key ORDER BY x.seqno",
    )?;
    let columns = statement
        .query_map([&table.shape.table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut key = Vec::new();
    for column in columns {
        let (name, collation) = column?;
        let known =
            ["BINARY", "NOCASE", "RTRIM"].into_iter().find(|known| known.eq_ignore_ascii_case(&collation));
        let (Some(collation), Some(place)) = (known, table.shape.place(&name)) else { return Ok(None) };
        key.push(KeyColumn { name: quoted(&name), place, collation });
    }
    if key.is_empty() {
        key.extend(rowid(table));
    }
    Ok(Some(key))
}

/// A value as a parameter.
struct Bound<'v>(&'v Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self.0.as_ref() {
            None | Some(ValueRef::Null) => Sqlite::Null,
            Some(ValueRef::Integer(value)) => Sqlite::Integer(value),
            Some(ValueRef::Real(value)) => Sqlite::Real(value),
            Some(ValueRef::Text(value)) => Sqlite::Text(value),
            Some(ValueRef::Blob(value)) => Sqlite::Blob(value),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}
