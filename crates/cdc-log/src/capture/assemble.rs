//! Turns capture rows into bodies of the log.

use std::collections::BTreeMap;

use cdc_model::{Body, Operation, RawChange, Tag, Value, ValueRef, changed_columns_json, row_from_json};
use rusqlite::Row;
use serde_json::value::RawValue;

use super::install::CapturedTable;
use super::rows::{ROW_VALUES_MAX, values_in_parts};
use super::shape::Shape;
use crate::{Error, Result};

/// Puts rows together that are one change: rows that a REPLACE removed with the row that replaced them, and the
/// halves of a wide update.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// Rows that were replaced, to be told apart by their document id: an update or deletions.
    replaced: Vec<Replaced>,
    /// The first values of a state that takes more than one row, and their table.
    part: Vec<Value>,
    part_of: i64,
    /// The first half of a wide update.
    old: Option<Vec<Value>>,
}

#[derive(Debug)]
struct Replaced {
    table: CapturedTable,
    document_id: String,
    values: Vec<Value>,
}

/// The place of the first value in a row selected by [`crate::drain`].
pub(crate) const FIRST_VALUE: usize = 5;

impl Assembler {
    /// Whether rows are held back that belong to a change whose end is still to come.
    pub(crate) fn is_open(&self) -> bool {
        !self.replaced.is_empty() || !self.part.is_empty() || self.old.is_some()
    }

    /// Takes one row of a captured table and gives the bodies that are complete with it.
    pub(crate) fn take(&mut self, op: &str, row: &Row<'_>, table: &CapturedTable) -> Result<Vec<Body>> {
        let shape = &table.shape;
        let width = shape.width();
        if op == "+" {
            self.part.extend(owned(&values(row, FIRST_VALUE, ROW_VALUES_MAX)?));
            self.part_of = table.id;
            return Ok(Vec::new());
        }
        let part = std::mem::take(&mut self.part);
        if part.len() != values_in_parts(width) || !part.is_empty() && self.part_of != table.id {
            return Err(Error::UnfitCaptureRow { row: row.get(0)? });
        }
        let first = || -> Result<Vec<ValueRef<'_>>> {
            let rest = values(row, FIRST_VALUE, width.saturating_sub(part.len()))?;
            if part.is_empty() {
                return Ok(rest);
            }
            Ok(part.iter().filter_map(Value::as_ref).chain(rest).collect())
        };
        if !matches!(op, "O" | "R" | "I" | "D" | "U") {
            return Err(Error::UnfitCaptureRow { row: row.get(0)? });
        }
        let joins = op != "D";
        let mut bodies = Vec::new();
        if !joins || self.replaced.iter().any(|replaced| replaced.table.id != table.id) {
            bodies = self.flush();
        }
        match op {
            "O" => self.old = Some(owned(&first()?)),
            "R" => {
                let values = first()?;
                let (document_id, values) = (shape.document_id(&values), owned(&values));
                self.replaced.push(Replaced { table: table.clone(), document_id, values });
            }
            "I" => self.write(&mut bodies, table, None, Some(&first()?)),
            "D" => self.write(&mut bodies, table, Some(&first()?), None),
            _ => {
                if let Some(old) = self.old.take() {
                    let old: Vec<_> = old.iter().filter_map(Value::as_ref).collect();
                    self.write(&mut bodies, table, Some(&old), Some(&first()?));
                } else {
                    let (old, new) = (first()?, values(row, FIRST_VALUE + width, width)?);
                    self.write(&mut bodies, table, Some(&old), Some(&new));
                }
            }
        }
        Ok(bodies)
    }

    /// What is held back although the row that it belongs to does not come (its trigger was dropped): replaced
    /// rows are gone all the same.
    pub(crate) fn flush(&mut self) -> Vec<Body> {
        (self.old, self.part) = (None, Vec::new());
        let gone = |replaced: Replaced| {
            let table = &replaced.table;
            let writer = BodyWriter { shape: &table.shape, version: table.version };
            let values: Vec<_> = replaced.values.iter().filter_map(Value::as_ref).collect();
            writer.body(&replaced.document_id, Some(&values), None)
        };
        std::mem::take(&mut self.replaced).into_iter().map(gone).collect()
    }

    /// Adds the bodies of one written row: deletions of other rows it replaced, then itself. An update that changes the
    /// key is a deletion and an insertion.
    fn write(
        &mut self,
        bodies: &mut Vec<Body>,
        table: &CapturedTable,
        old: Option<&[ValueRef<'_>]>,
        new: Option<&[ValueRef<'_>]>,
    ) {
        let writer = BodyWriter { shape: &table.shape, version: table.version };
        let old_id = old.map(|old| table.shape.document_id(old));
        let new_id = new.map(|new| table.shape.document_id(new));
        let mut replaced_here = None;
        for Replaced { document_id: id, values, .. } in std::mem::take(&mut self.replaced) {
            if Some(&id) == new_id.as_ref() && Some(&id) != old_id.as_ref() {
                replaced_here = Some(values);
            } else {
                let values: Vec<_> = values.iter().filter_map(Value::as_ref).collect();
                bodies.push(writer.body(&id, Some(&values), None));
            }
        }
        let replaced_here: Option<Vec<_>> =
            replaced_here.as_ref().map(|values| values.iter().filter_map(Value::as_ref).collect());
        match (old_id, new_id) {
            (Some(old_id), Some(new_id)) if old_id == new_id => bodies.push(writer.body(&new_id, old, new)),
            (old_id, new_id) => {
                if let Some(old_id) = old_id {
                    bodies.push(writer.body(&old_id, old, None));
                }
                if let Some(new_id) = new_id {
                    bodies.push(writer.body(&new_id, replaced_here.as_deref(), new));
                }
            }
        }
    }
}

fn owned(values: &[ValueRef<'_>]) -> Vec<Value> {
    values.iter().map(|value| value.to_value()).collect()
}

pub(crate) fn values<'r>(row: &'r Row<'_>, from: usize, count: usize) -> Result<Vec<ValueRef<'r>>> {
    use rusqlite::types::ValueRef as Sqlite;
    if from + count > row.as_ref().column_count() {
        return Err(Error::UnfitCaptureRow { row: row.get(0)? });
    }
    let mut values = Vec::with_capacity(count);
    for at in from..from + count {
        values.push(match row.get_ref(at)? {
            Sqlite::Null => ValueRef::Null,
            Sqlite::Integer(i) => ValueRef::Integer(i),
            Sqlite::Real(r) => ValueRef::Real(r),
            Sqlite::Text(t) => ValueRef::Text(t),
            Sqlite::Blob(b) => ValueRef::Blob(b),
        });
    }
    Ok(values)
}

struct BodyWriter<'a> {
    shape: &'a Shape,
    version: u32,
}

impl BodyWriter<'_> {
    fn body(&self, document_id: &str, old: Option<&[ValueRef<'_>]>, new: Option<&[ValueRef<'_>]>) -> Body {
        let operation = match (old, new) {
            (None, _) => Operation::Insert,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
        };
        let mut change = RawChange::new(operation, &self.shape.table, document_id);
        change.schema_version = Some(self.version);
        let after = new.map(|new| self.shape.document(new));
        change.after = after.as_deref();
        let (was, paths, before);
        match (old, new) {
            (Some(old), Some(new)) => {
                let changed = self.shape.changed(old, new);
                let names =
                    changed.iter().filter_map(|at| self.shape.columns.get(*at)).map(|column| &*column.name);
                paths = changed_columns_json(names);
                was = self.shape.json(old, |at| changed.contains(&at));
                change.was = Some(&was);
                change.changed_fields = Some(&paths);
            }
            (Some(old), None) => {
                before = self.shape.document(old);
                change.before = Some(&before);
            }
            (None, _) => {}
        }
        change.to_body()
    }
}

/// The body of an emitted document, from its capture row.
pub(crate) fn emitted(row: &Row<'_>) -> Result<Body> {
    let text = |at: usize| -> Result<Option<String>> { Ok(row.get(FIRST_VALUE + at)?) };
    let (collection, document_id) = (text(0)?.unwrap_or_default(), text(1)?.unwrap_or_default());
    let operation: Operation = text(2)?.unwrap_or_default().parse()?;
    let (paths, before, after, correlation) = (text(3)?, text(4)?, text(5)?, text(6)?);
    let mut change = RawChange::new(operation, &collection, &document_id);
    change.changed_fields = paths.as_deref();
    change.before = before.as_deref();
    change.after = after.as_deref();
    change.correlation_id = correlation.as_deref();
    Ok(change.to_body())
}

/// A document whose change nobody saw happen.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) collection: &'a str,
    pub(crate) document_id: &'a str,
    pub(crate) version: Option<u32>,
    pub(crate) tag: Tag,
}

impl Found<'_> {
    /// The event that takes it from one state to another; `None` when the states are the same. It is stored like every
    /// other: of an update only the changed columns of `before`.
    pub(crate) fn body(&self, from: Option<&str>, to: Option<&str>) -> Result<Option<Body>> {
        let operation = match (from, to) {
            (None, None) => return Ok(None),
            (Some(from), Some(to)) if from == to => return Ok(None),
            (None, Some(_)) => Operation::Insert,
            (Some(_), Some(_)) => Operation::Update,
            (Some(_), None) => Operation::Delete,
        };
        let mut change = RawChange::new(operation, self.collection, self.document_id);
        (change.schema_version, change.tag) = (self.version, Some(&self.tag));
        (change.before, change.after) = (from, to);
        let (Some(from_text), Some(to_text)) = (from, to) else { return Ok(Some(change.to_body())) };
        let (from, to) = (columns(from_text)?, columns(to_text)?);
        let paths = changed_columns(&from, &to);
        change.changed_fields = Some(&paths);
        let body = change.to_body();
        if names(from_text)? != names(to_text)? {
            // A column came, went or has another place: the one row cannot be told from the other and what changed.
            return Ok(Some(body));
        }
        let mut delta = body.columns()?;
        delta.delta = true;
        Ok(Some(delta.to_body()?))
    }
}

/// A row's columns: their names and the JSON of their values.
type Columns = BTreeMap<String, Box<RawValue>>;

fn columns(text: &str) -> Result<Columns> {
    serde_json::from_str(text).map_err(undecoded)
}

/// The names of a row's columns in their order.
fn names(text: &str) -> Result<Vec<String>> {
    let row: &RawValue = serde_json::from_str(text).map_err(undecoded)?;
    Ok(row_from_json(row)?.into_iter().map(|(name, _)| name).collect())
}

fn undecoded(error: serde_json::Error) -> Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()).into()
}

fn changed_columns(from: &Columns, to: &Columns) -> String {
    let differs = |name: &&String| from.get(*name).map(|raw| raw.get()) != to.get(*name).map(|raw| raw.get());
    let added = to.keys().filter(|name| !from.contains_key(*name));
    changed_columns_json(from.keys().filter(differs).chain(added).map(String::as_str))
}
