//! The columns of an archive.
//!
//! One row is one record of the object's log. Ids and types never change; a new column gets the next free id.
//! Times are microseconds UTC. JSON columns hold JSON text, so that `null` (the text) and absent (SQL NULL) differ.
//!
//! | id | column | type | null | content |
//! |---:|---|---|---|---|
//! | 1 | `id` | string | never | the event's id, the same at every hop |
//! | 2 | `kind` | string | never | `change` or `schema` |
//! | 3 | `operation` | string | on schema changes | `INSERT`, `UPDATE` or `DELETE` |
//! | 4 | `collection` | string | never | table or collection |
//! | 5 | `documentId` | string | on schema changes | row or document |
//! | 6 | `timestamp` | timestamptz | never | when it happened, by the origin's log |
//! | 7 | `sequence` | long | never | its place in the origin's log |
//! | 8 | `before` | string | without a state before | full state before, JSON |
//! | 9 | `after` | string | without a state after | full state after, JSON |
//! | 10 | `delta` | boolean | never | the log stores only the changed members of `before` |
//! | 11 | `changedFields` | list of string (24) | unless UPDATE | changed paths |
//! | 12 | `source` | string | never | the origin's URL |
//! | 13 | `originEpoch` | string | never | the origin's epoch |
//! | 14 | `route` | list of string (25) | never | the objects it passed, nearest first |
//! | 15 | `correlationId` | string | unless set | for tracing |
//! | 16 | `tag` | string | unless tagged | JSON |
//! | 17 | `transaction` | string | unless known | JSON |
//! | 18 | `schemaVersion` | int | unless known | version of the table's schema |
//! | 19 | `derivedFrom` | string | unless a stage made it | JSON |
//! | 20 | `schema` | string | unless `kind` is `schema` | JSON |
//! | 21 | `cursorSequence` | long | never | its place in the archived log; rows are sorted by it |
//! | 22 | `cursorTimestamp` | timestamptz | never | when the archived log took it |
//! | 23 | `cursorEpoch` | string | never | the archived log's epoch |
//!
//! Partitioned by `day(timestamp)`; sort order `cursorSequence` ascending.

use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, ListType, NestedField, NullOrder, PrimitiveType, Schema, SortDirection, SortField,
    SortOrder, TableMetadata, TableMetadataBuilder, Transform, Type, UnboundPartitionSpec,
};
use uuid::Uuid;

use crate::{Error, Result};

/// Defines the ids once, with a name each that the rest of the crate uses.
macro_rules! columns {
    ($($constant:ident = $id:literal $name:literal),* $(,)?) => {
        $(pub(crate) const $constant: i32 = $id;)*
        /// Column names by id, ids ascending.
        const NAMES: &[(i32, &str)] = &[$(($id, $name)),*];
    };
}

columns! {
    ID = 1 "id",
    KIND = 2 "kind",
    OPERATION = 3 "operation",
    COLLECTION = 4 "collection",
    DOCUMENT_ID = 5 "documentId",
    TIMESTAMP = 6 "timestamp",
    SEQUENCE = 7 "sequence",
    BEFORE = 8 "before",
    AFTER = 9 "after",
    DELTA = 10 "delta",
    CHANGED_FIELDS = 11 "changedFields",
    SOURCE = 12 "source",
    ORIGIN_EPOCH = 13 "originEpoch",
    ROUTE = 14 "route",
    CORRELATION_ID = 15 "correlationId",
    TAG = 16 "tag",
    TRANSACTION = 17 "transaction",
    SCHEMA_VERSION = 18 "schemaVersion",
    DERIVED_FROM = 19 "derivedFrom",
    SCHEMA = 20 "schema",
    CURSOR_SEQUENCE = 21 "cursorSequence",
    CURSOR_TIMESTAMP = 22 "cursorTimestamp",
    CURSOR_EPOCH = 23 "cursorEpoch",
}

const CHANGED_FIELDS_ELEMENT: i32 = 24;
const ROUTE_ELEMENT: i32 = 25;

const REQUIRED: [i32; 13] = [
    ID,
    KIND,
    COLLECTION,
    TIMESTAMP,
    SEQUENCE,
    DELTA,
    SOURCE,
    ORIGIN_EPOCH,
    ROUTE,
    CURSOR_SEQUENCE,
    CURSOR_TIMESTAMP,
    CURSOR_EPOCH,
    ROUTE_ELEMENT,
];

/// The name of a column.
pub(crate) fn name_of(id: i32) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == id).map_or("", |(_, name)| name)
}

/// The schema of a new table.
pub(crate) fn table_schema() -> Result<Schema> {
    let fields = NAMES.iter().map(|(id, name)| {
        let required = REQUIRED.contains(id);
        Arc::new(NestedField::new(*id, *name, type_of(*id), required))
    });
    Schema::builder().with_fields(fields).build().map_err(Error::table("build the table schema"))
}

fn type_of(id: i32) -> Type {
    match id {
        TIMESTAMP | CURSOR_TIMESTAMP => Type::Primitive(PrimitiveType::Timestamptz),
        SEQUENCE | CURSOR_SEQUENCE => Type::Primitive(PrimitiveType::Long),
        SCHEMA_VERSION => Type::Primitive(PrimitiveType::Int),
        DELTA => Type::Primitive(PrimitiveType::Boolean),
        CHANGED_FIELDS => strings(CHANGED_FIELDS_ELEMENT),
        ROUTE => strings(ROUTE_ELEMENT),
        _ => Type::Primitive(PrimitiveType::String),
    }
}

fn strings(element: i32) -> Type {
    let element = NestedField::list_element(element, Type::Primitive(PrimitiveType::String), true);
    Type::List(ListType { element_field: Arc::new(element) })
}

/// The metadata of a table without snapshots.
pub(crate) fn new_table(
    location: String,
    uuid: Uuid,
    properties: Vec<(String, String)>,
) -> Result<TableMetadata> {
    let build = || -> iceberg::Result<TableMetadata> {
        let schema = table_schema().map_err(|error| {
            iceberg::Error::new(iceberg::ErrorKind::Unexpected, "the table schema").with_source(error)
        })?;
        let spec = UnboundPartitionSpec::builder()
            .add_partition_field(TIMESTAMP, "timestamp_day", Transform::Day)?
            .build();
        let by_sequence = SortField::builder()
            .source_id(CURSOR_SEQUENCE)
            .transform(Transform::Identity)
            .direction(SortDirection::Ascending)
            .null_order(NullOrder::First)
            .build();
        let order = SortOrder::builder().with_order_id(1).with_sort_field(by_sequence).build(&schema)?;
        let properties = properties.into_iter().collect();
        let builder =
            TableMetadataBuilder::new(schema, spec, order, location, FormatVersion::V2, properties)?;
        Ok(builder.assign_uuid(uuid).build()?.metadata)
    };
    build().map_err(Error::table("build table metadata"))
}

/// Whether a table has every column as this crate writes it. It may have more.
pub(crate) fn check_schema(metadata: &TableMetadata) -> Result<(), &'static str> {
    let schema = metadata.current_schema();
    let same = |(id, name): &(i32, &str)| {
        schema.field_by_id(*id).is_some_and(|field| field.name == *name && *field.field_type == type_of(*id))
    };
    let partitioned =
        metadata.default_partition_spec().fields().iter().map(|field| (field.source_id, field.transform));
    if !NAMES.iter().all(same) {
        return Err("its columns are not those of an archive");
    }
    if partitioned.ne([(TIMESTAMP, Transform::Day)]) {
        return Err("it is not partitioned by day of `timestamp`");
    }
    Ok(())
}
