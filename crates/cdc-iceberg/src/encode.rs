//! Records to Arrow rows.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use cdc_model::{BodyColumns, Record, Timestamp};
use iceberg::arrow::schema_to_arrow_schema;

use crate::error::Cause;
use crate::schema::{self, table_schema};
use crate::{Error, Result};

/// The Arrow form of the table's schema, with Parquet field ids.
pub(crate) fn arrow_schema() -> Result<SchemaRef> {
    schema_to_arrow_schema(&table_schema()?).map(Arc::new).map_err(Error::table("derive the Arrow schema"))
}

/// Microseconds as Iceberg stores them; none when they do not fit.
pub(crate) fn micros(time: Timestamp) -> Option<i64> {
    time.get().checked_mul(1000)
}

/// Builds one batch of rows, in the order records are pushed.
pub(crate) struct Rows {
    schema: SchemaRef,
    id: StringBuilder,
    kind: StringBuilder,
    operation: StringBuilder,
    collection: StringBuilder,
    document_id: StringBuilder,
    timestamp: TimestampMicrosecondBuilder,
    sequence: Int64Builder,
    before: StringBuilder,
    after: StringBuilder,
    delta: BooleanBuilder,
    changed_fields: ListBuilder<StringBuilder>,
    source: StringBuilder,
    origin_epoch: StringBuilder,
    route: ListBuilder<StringBuilder>,
    correlation_id: StringBuilder,
    tag: StringBuilder,
    transaction: StringBuilder,
    schema_version: Int32Builder,
    derived_from: StringBuilder,
    schema_change: StringBuilder,
    cursor_sequence: Int64Builder,
    cursor_timestamp: TimestampMicrosecondBuilder,
    cursor_epoch: StringBuilder,
}

impl Rows {
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let times = || TimestampMicrosecondBuilder::new().with_timezone("+00:00");
        Self {
            schema: Arc::clone(schema),
            id: StringBuilder::new(),
            kind: StringBuilder::new(),
            operation: StringBuilder::new(),
            collection: StringBuilder::new(),
            document_id: StringBuilder::new(),
            timestamp: times(),
            sequence: Int64Builder::new(),
            before: StringBuilder::new(),
            after: StringBuilder::new(),
            delta: BooleanBuilder::new(),
            changed_fields: list_builder(schema, schema::CHANGED_FIELDS),
            source: StringBuilder::new(),
            origin_epoch: StringBuilder::new(),
            route: list_builder(schema, schema::ROUTE),
            correlation_id: StringBuilder::new(),
            tag: StringBuilder::new(),
            transaction: StringBuilder::new(),
            schema_version: Int32Builder::new(),
            derived_from: StringBuilder::new(),
            schema_change: StringBuilder::new(),
            cursor_sequence: Int64Builder::new(),
            cursor_timestamp: times(),
            cursor_epoch: StringBuilder::new(),
        }
    }

    /// Appends a record as a row.
    pub(crate) fn push(&mut self, record: &Record) -> Result<()> {
        let sequence = record.sequence;
        let body = record.body.columns().map_err(|source| Error::Row { sequence, source })?;
        // The log prunes what is archived, so a row that would come back altered must not get in.
        if body.to_body().map_err(|source| Error::Row { sequence, source })? != record.body {
            return Err(Error::BadBatch { sequence, reason: "its body is not in canonical form" });
        }
        let out_of_range = || Error::BadBatch { sequence, reason: "a timestamp does not fit microseconds" };
        let timestamp = micros(record.origin_timestamp).ok_or_else(out_of_range)?;
        let cursor_timestamp = micros(record.timestamp).ok_or_else(out_of_range)?;
        let version = body.schema_version.map(i32::try_from).transpose().ok().flatten();
        if version.is_none() && body.schema_version.is_some() {
            return Err(Error::BadBatch { sequence, reason: "the schema version does not fit an int" });
        }
        self.push_body(&body, version);
        self.id.append_value(record.id().to_string());
        self.timestamp.append_value(timestamp);
        self.sequence.append_value(record.origin_sequence.as_i64());
        self.source.append_value(record.origin.source().as_str());
        self.origin_epoch.append_value(record.origin.epoch().to_string());
        for hop in record.origin.route() {
            self.route.values().append_value(hop.as_str());
        }
        self.route.append(true);
        self.cursor_sequence.append_value(sequence.as_i64());
        self.cursor_timestamp.append_value(cursor_timestamp);
        self.cursor_epoch.append_value(record.epoch.to_string());
        Ok(())
    }

    fn push_body(&mut self, body: &BodyColumns, version: Option<i32>) {
        self.kind.append_value(&body.kind);
        self.operation.append_option(body.operation.as_deref());
        self.collection.append_value(&body.collection);
        self.document_id.append_option(body.document_id.as_deref());
        self.before.append_option(body.before.as_deref());
        self.after.append_option(body.after.as_deref());
        self.delta.append_value(body.delta);
        for path in body.changed_fields.iter().flatten() {
            self.changed_fields.values().append_value(path);
        }
        self.changed_fields.append(body.changed_fields.is_some());
        self.correlation_id.append_option(body.correlation_id.as_deref());
        self.tag.append_option(body.tag.as_deref());
        self.transaction.append_option(body.transaction.as_deref());
        self.schema_version.append_option(version);
        self.derived_from.append_option(body.derived_from.as_deref());
        self.schema_change.append_option(body.schema.as_deref());
    }

    /// The rows pushed since the last call.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.operation.finish()),
            Arc::new(self.collection.finish()),
            Arc::new(self.document_id.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.sequence.finish()),
            Arc::new(self.before.finish()),
            Arc::new(self.after.finish()),
            Arc::new(self.delta.finish()),
            Arc::new(self.changed_fields.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.origin_epoch.finish()),
            Arc::new(self.route.finish()),
            Arc::new(self.correlation_id.finish()),
            Arc::new(self.tag.finish()),
            Arc::new(self.transaction.finish()),
            Arc::new(self.schema_version.finish()),
            Arc::new(self.derived_from.finish()),
            Arc::new(self.schema_change.finish()),
            Arc::new(self.cursor_sequence.finish()),
            Arc::new(self.cursor_timestamp.finish()),
            Arc::new(self.cursor_epoch.finish()),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|source| {
            Error::corrupt("a new data file", "rows of the table's schema")(Cause::from(source))
        })
    }
}

fn list_builder(schema: &SchemaRef, id: i32) -> ListBuilder<StringBuilder> {
    let builder = ListBuilder::new(StringBuilder::new());
    match element_of(schema, schema::name_of(id)) {
        Some(element) => builder.with_field(element),
        None => builder,
    }
}

fn element_of(schema: &SchemaRef, name: &str) -> Option<FieldRef> {
    let DataType::List(element) = schema.field_with_name(name).ok()?.data_type() else {
        return None;
    };
    Some(Arc::clone(element))
}
