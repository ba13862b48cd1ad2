//! Data files, read whole and by column name.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

type Result<T> = std::result::Result<T, String>;

/// A row of an archive, column by column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    /// Its place in the archived log (`cursorSequence`).
    pub sequence: i64,
    /// When the archived log took it, in microseconds (`cursorTimestamp`).
    pub timestamp: i64,
    /// The archived log's epoch (`cursorEpoch`).
    pub epoch: String,
    /// The event's id.
    pub id: String,
    /// The origin's address.
    pub source: String,
    /// The origin's epoch.
    pub origin_epoch: String,
    /// Its place in the origin's log (`sequence`).
    pub origin_sequence: i64,
    /// When it happened, in microseconds (`timestamp`).
    pub origin_timestamp: i64,
    /// The objects it passed.
    pub route: Vec<String>,
    /// `change` or `schema`.
    pub kind: String,
    /// INSERT, UPDATE or DELETE.
    pub operation: Option<String>,
    /// Table or collection.
    pub collection: String,
    /// Row or document.
    pub document_id: Option<String>,
    /// JSON text.
    pub before: Option<String>,
    /// JSON text.
    pub after: Option<String>,
    /// The log stores only the changed members of `before`.
    pub delta: bool,
    /// Changed paths.
    pub changed_fields: Option<Vec<String>>,
    /// For tracing.
    pub correlation_id: Option<String>,
    /// JSON text.
    pub tag: Option<String>,
    /// JSON text.
    pub transaction: Option<String>,
    /// The version of the table's schema.
    pub schema_version: Option<i32>,
    /// JSON text.
    pub derived_from: Option<String>,
    /// JSON text.
    pub schema: Option<String>,
}

/// The rows of a data file in its order.
pub(crate) fn read(bytes: &Bytes) -> Result<Vec<Row>> {
    let unreadable = |error: &dyn std::error::Error| format!("it is not Parquet: {error}");
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| unreadable(&error))?;
    let reader = builder.build().map_err(|error| unreadable(&error))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = Columns(batch.map_err(|error| unreadable(&error))?);
        for row in 0..batch.0.num_rows() {
            rows.push(batch.row(row)?);
        }
    }
    Ok(rows)
}

struct Columns(RecordBatch);

impl Columns {
    fn row(&self, row: usize) -> Result<Row> {
        Ok(Row {
            sequence: self.long("cursorSequence", row)?,
            timestamp: self.micros("cursorTimestamp", row)?,
            epoch: self.required("cursorEpoch", row)?,
            id: self.required("id", row)?,
            source: self.required("source", row)?,
            origin_epoch: self.required("originEpoch", row)?,
            origin_sequence: self.long("sequence", row)?,
            origin_timestamp: self.micros("timestamp", row)?,
            route: self.texts("route", row)?.ok_or("`route` is null")?,
            kind: self.required("kind", row)?,
            operation: self.text("operation", row)?,
            collection: self.required("collection", row)?,
            document_id: self.text("documentId", row)?,
            before: self.text("before", row)?,
            after: self.text("after", row)?,
            delta: self.flag("delta", row)?,
            changed_fields: self.texts("changedFields", row)?,
            correlation_id: self.text("correlationId", row)?,
            tag: self.text("tag", row)?,
            transaction: self.text("transaction", row)?,
            schema_version: self.int("schemaVersion", row)?,
            derived_from: self.text("derivedFrom", row)?,
            schema: self.text("schema", row)?,
        })
    }

    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.0.column_by_name(name).ok_or_else(|| format!("`{name}` is missing"))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<String>> {
        let array = self.column(name)?.as_string_opt::<i32>().ok_or_else(|| mistyped(name))?;
        Ok(array.is_valid(row).then(|| array.value(row).to_owned()))
    }

    fn required(&self, name: &str, row: usize) -> Result<String> {
        self.text(name, row)?.ok_or_else(|| format!("`{name}` is null"))
    }

    fn texts(&self, name: &str, row: usize) -> Result<Option<Vec<String>>> {
        let array = self.column(name)?.as_list_opt::<i32>().ok_or_else(|| mistyped(name))?;
        if array.is_null(row) {
            return Ok(None);
        }
        let items = array.value(row);
        let items = items.as_string_opt::<i32>().ok_or_else(|| mistyped(name))?;
        Ok(Some(items.iter().flatten().map(str::to_owned).collect()))
    }

    fn long(&self, name: &str, row: usize) -> Result<i64> {
        let array = self.column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| mistyped(name))?;
        array.is_valid(row).then(|| array.value(row)).ok_or_else(|| format!("`{name}` is null"))
    }

    fn micros(&self, name: &str, row: usize) -> Result<i64> {
        let array = self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let array = array.ok_or_else(|| mistyped(name))?;
        array.is_valid(row).then(|| array.value(row)).ok_or_else(|| format!("`{name}` is null"))
    }

    fn int(&self, name: &str, row: usize) -> Result<Option<i32>> {
        let array = self.column(name)?.as_primitive_opt::<Int32Type>().ok_or_else(|| mistyped(name))?;
        Ok(array.is_valid(row).then(|| array.value(row)))
    }

    fn flag(&self, name: &str, row: usize) -> Result<bool> {
        let array = self.column(name)?.as_boolean_opt().ok_or_else(|| mistyped(name))?;
        array.is_valid(row).then(|| array.value(row)).ok_or_else(|| format!("`{name}` is null"))
    }
}

fn mistyped(name: &str) -> String {
    format!("`{name}` is of another type")
}
