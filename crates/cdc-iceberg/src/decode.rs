//! Arrow rows to records.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::TimestampMicrosecondArray;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
};
use arrow_schema::SchemaRef;
use cdc_model::{BodyColumns, Epoch, ObjectId, Origin, Record, Sequence, Timestamp};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use crate::schema;
use crate::select::Select;
use crate::{Error, Result};

/// Origins remembered between rows; beyond this the memory is emptied, not grown.
const ORIGINS_MAX: usize = 4096;

/// Turns the rows of one data file into records.
#[derive(Debug)]
pub(crate) struct Decoder {
    file: String,
    select: Arc<Select>,
    origins: BTreeMap<String, Arc<Origin>>,
    epoch: Option<(String, Epoch)>,
}

impl Decoder {
    pub(crate) fn new(file: String, select: Arc<Select>) -> Self {
        Self { file, select, origins: BTreeMap::new(), epoch: None }
    }

    /// The selected records of a batch of rows, in their order.
    pub(crate) fn records(&mut self, batch: &RecordBatch) -> Result<Vec<Record>> {
        let columns = Columns::of(batch)
            .ok_or_else(|| self.bad(Sequence::ZERO, "a column is missing or of another type"))?;
        let mut records = Vec::with_capacity(batch.num_rows());
        let mut last: Option<(usize, Arc<Origin>)> = None;
        for row in 0..batch.num_rows() {
            let Some(place) = columns.place(row) else {
                return Err(self.bad(Sequence::ZERO, "a required column is null or out of range"));
            };
            if !self.select.takes(&place) {
                continue;
            }
            let same = last.as_ref().filter(|(previous, _)| columns.same_origin(*previous, row));
            let origin = match same {
                Some((_, origin)) => Arc::clone(origin),
                None => self.origin(&columns, row, place.cursor_sequence)?,
            };
            last = Some((row, Arc::clone(&origin)));
            records.push(self.record(&columns, row, &place, origin)?);
        }
        Ok(records)
    }

    fn record(
        &mut self,
        columns: &Columns<'_>,
        row: usize,
        place: &Place<'_>,
        origin: Arc<Origin>,
    ) -> Result<Record> {
        let sequence = place.cursor_sequence;
        let bad = || self.bad(sequence, "a required column is null or out of range");
        let body = columns.body(row).ok_or_else(bad)?;
        let body = body.to_body().map_err(|source| self.unreadable(sequence, source))?;
        let epoch = text(columns.cursor_epoch, row).ok_or_else(bad)?;
        let origin_sequence = long(columns.sequence, row).and_then(Sequence::checked).ok_or_else(bad)?;
        let epoch = self.epoch(epoch, sequence)?;
        Ok(Record {
            sequence,
            timestamp: place.cursor_timestamp,
            epoch,
            origin,
            origin_sequence,
            origin_timestamp: place.timestamp,
            body,
        })
    }

    /// Rows of one file are nearly always of one epoch.
    fn epoch(&mut self, text: &str, sequence: Sequence) -> Result<Epoch> {
        if let Some((known, epoch)) = &self.epoch
            && known == text
        {
            return Ok(*epoch);
        }
        let epoch = text.parse().map_err(|source| self.unreadable(sequence, source))?;
        self.epoch = Some((text.to_owned(), epoch));
        Ok(epoch)
    }

    fn origin(&mut self, columns: &Columns<'_>, row: usize, sequence: Sequence) -> Result<Arc<Origin>> {
        let bad = || Error::BadRow { file: self.file.clone(), sequence, reason: "its origin is incomplete" };
        let row_error = |source| self.unreadable(sequence, source);
        let source = text(columns.source, row).ok_or_else(bad)?;
        let epoch = text(columns.origin_epoch, row).ok_or_else(bad)?;
        let route = texts(columns.route, row).ok_or_else(bad)?;
        let key = format!("{source} {epoch} {}", route.join(" "));
        if let Some(origin) = self.origins.get(&key) {
            return Ok(Arc::clone(origin));
        }
        let hops = route
            .iter()
            .map(|hop| hop.parse::<ObjectId>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(row_error)?;
        let source = source.parse::<ObjectId>().map_err(row_error)?;
        let origin = Origin::new(source, epoch.parse().map_err(row_error)?, hops);
        if self.origins.len() >= ORIGINS_MAX {
            self.origins.clear();
        }
        self.origins.insert(key, Arc::clone(&origin));
        Ok(origin)
    }

    fn unreadable(&self, sequence: Sequence, source: cdc_model::Error) -> Error {
        Error::Unreadable { file: self.file.clone(), sequence, source }
    }

    fn bad(&self, sequence: Sequence, reason: &'static str) -> Error {
        Error::BadRow { file: self.file.clone(), sequence, reason }
    }
}

/// What is looked at before a row is taken apart.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) cursor_sequence: Sequence,
    pub(crate) cursor_timestamp: Timestamp,
    pub(crate) timestamp: Timestamp,
    pub(crate) source: &'a str,
    pub(crate) collection: &'a str,
    pub(crate) operation: Option<&'a str>,
}

/// The columns of one batch, found by field id: a column that an older file lacks is `None` and reads as null.
struct Columns<'a> {
    kind: Option<&'a StringArray>,
    operation: Option<&'a StringArray>,
    collection: Option<&'a StringArray>,
    document_id: Option<&'a StringArray>,
    timestamp: &'a TimestampMicrosecondArray,
    sequence: Option<&'a Int64Array>,
    before: Option<&'a StringArray>,
    after: Option<&'a StringArray>,
    delta: Option<&'a BooleanArray>,
    changed_fields: Option<&'a ListArray>,
    source: Option<&'a StringArray>,
    origin_epoch: Option<&'a StringArray>,
    route: Option<&'a ListArray>,
    correlation_id: Option<&'a StringArray>,
    tag: Option<&'a StringArray>,
    transaction: Option<&'a StringArray>,
    schema_version: Option<&'a Int32Array>,
    derived_from: Option<&'a StringArray>,
    schema: Option<&'a StringArray>,
    cursor_sequence: Option<&'a Int64Array>,
    cursor_timestamp: &'a TimestampMicrosecondArray,
    cursor_epoch: Option<&'a StringArray>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let schema = batch.schema();
        let strings = |id| optional(column(batch, &schema, id), |array| array.as_string_opt::<i32>());
        let longs = |id| optional(column(batch, &schema, id), |array| array.as_primitive_opt::<Int64Type>());
        let lists = |id| optional(column(batch, &schema, id), |array| array.as_list_opt::<i32>());
        let times = |id| column(batch, &schema, id)?.as_primitive_opt::<TimestampMicrosecondType>();
        Some(Self {
            kind: strings(schema::KIND)?,
            operation: strings(schema::OPERATION)?,
            collection: strings(schema::COLLECTION)?,
            document_id: strings(schema::DOCUMENT_ID)?,
            timestamp: times(schema::TIMESTAMP)?,
            sequence: longs(schema::SEQUENCE)?,
            before: strings(schema::BEFORE)?,
            after: strings(schema::AFTER)?,
            delta: optional(column(batch, &schema, schema::DELTA), |array| array.as_boolean_opt())?,
            changed_fields: lists(schema::CHANGED_FIELDS)?,
            source: strings(schema::SOURCE)?,
            origin_epoch: strings(schema::ORIGIN_EPOCH)?,
            route: lists(schema::ROUTE)?,
            correlation_id: strings(schema::CORRELATION_ID)?,
            tag: strings(schema::TAG)?,
            transaction: strings(schema::TRANSACTION)?,
            schema_version: optional(column(batch, &schema, schema::SCHEMA_VERSION), |array| {
                array.as_primitive_opt::<Int32Type>()
            })?,
            derived_from: strings(schema::DERIVED_FROM)?,
            schema: strings(schema::SCHEMA)?,
            cursor_sequence: longs(schema::CURSOR_SEQUENCE)?,
            cursor_timestamp: times(schema::CURSOR_TIMESTAMP)?,
            cursor_epoch: strings(schema::CURSOR_EPOCH)?,
        })
    }

    fn place(&self, row: usize) -> Option<Place<'a>> {
        Some(Place {
            cursor_sequence: long(self.cursor_sequence, row).and_then(Sequence::checked)?,
            cursor_timestamp: time(self.cursor_timestamp, row)?,
            timestamp: time(self.timestamp, row)?,
            source: text(self.source, row)?,
            collection: text(self.collection, row)?,
            operation: text(self.operation, row),
        })
    }

    fn same_origin(&self, one: usize, other: usize) -> bool {
        text(self.source, one) == text(self.source, other)
            && text(self.origin_epoch, one) == text(self.origin_epoch, other)
            && texts(self.route, one) == texts(self.route, other)
    }

    fn body(&self, row: usize) -> Option<BodyColumns> {
        let owned = |column| text(column, row).map(str::to_owned);
        let version =
            self.schema_version.filter(|column| !column.is_null(row)).map(|column| column.value(row));
        let version = version.map(u32::try_from).transpose().ok()?;
        Some(BodyColumns {
            kind: owned(self.kind)?,
            operation: owned(self.operation),
            collection: owned(self.collection)?,
            document_id: owned(self.document_id),
            before: owned(self.before),
            after: owned(self.after),
            delta: self.delta.is_some_and(|column| column.is_valid(row) && column.value(row)),
            changed_fields: texts(self.changed_fields, row)
                .map(|paths| paths.into_iter().map(str::to_owned).collect()),
            correlation_id: owned(self.correlation_id),
            tag: owned(self.tag),
            transaction: owned(self.transaction),
            schema_version: version,
            derived_from: owned(self.derived_from),
            schema: owned(self.schema),
        })
    }
}

/// `Some(None)` when there is no such column, `None` when it is of another type.
fn optional<'a, T>(
    array: Option<&'a ArrayRef>,
    cast: impl FnOnce(&'a ArrayRef) -> Option<T>,
) -> Option<Option<T>> {
    match array {
        Some(array) => cast(array).map(Some),
        None => Some(None),
    }
}

fn column<'a>(batch: &'a RecordBatch, schema: &SchemaRef, id: i32) -> Option<&'a ArrayRef> {
    let id = id.to_string();
    let has_id =
        |field: &arrow_schema::FieldRef| field.metadata().get(PARQUET_FIELD_ID_META_KEY) == Some(&id);
    let index = schema.fields().iter().position(has_id)?;
    batch.columns().get(index)
}

fn text(column: Option<&StringArray>, row: usize) -> Option<&str> {
    let column = column?;
    column.is_valid(row).then(|| column.value(row))
}

fn long(column: Option<&Int64Array>, row: usize) -> Option<i64> {
    let column = column?;
    column.is_valid(row).then(|| column.value(row))
}

/// Whole milliseconds; other engines may have written finer times, which no record of ours has.
fn time(column: &TimestampMicrosecondArray, row: usize) -> Option<Timestamp> {
    column.is_valid(row).then(|| Timestamp::new(column.value(row).div_euclid(1000)))
}

/// The strings of a list; none when the list or an element is null.
fn texts(column: Option<&ListArray>, row: usize) -> Option<Vec<&str>> {
    let column = column.filter(|column| column.is_valid(row))?;
    let values = column.values().as_string_opt::<i32>()?;
    let offsets = column.value_offsets();
    let bound = |index: usize| offsets.get(index).and_then(|offset| usize::try_from(*offset).ok());
    (bound(row)?..bound(row + 1)?).map(|index| text(Some(values), index)).collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::StringBuilder;
    use cdc_model::Body;

    use super::*;
    use crate::encode::{Rows, arrow_schema};

    fn batch() -> (Record, RecordBatch) {
        let id: ObjectId = "https://a.b".parse().unwrap();
        let epoch = Epoch { number: 1, nonce: 1 };
        let record = Record {
            sequence: Sequence::new(7),
            timestamp: Timestamp::new(1),
            epoch,
            origin: Origin::new(id, epoch, vec![]),
            origin_sequence: Sequence::new(7),
            origin_timestamp: Timestamp::new(1),
            body: Body::from_stored(
                r#"{"operation":"INSERT","collection":"c","documentId":"1","tag":"mapped","after":1}"#,
            ),
        };
        let mut rows = Rows::new(&arrow_schema().unwrap());
        rows.push(&record).unwrap();
        (record, rows.finish().unwrap())
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<Record>> {
        Decoder::new("f.parquet".to_owned(), Arc::default()).records(batch)
    }

    /// The batch with another text, or none, in one column.
    fn with(batch: &RecordBatch, id: i32, text: Option<&str>) -> RecordBatch {
        let mut builder = StringBuilder::new();
        builder.append_option(text);
        let index = batch.schema().index_of(schema::name_of(id)).unwrap();
        let mut columns = batch.columns().to_vec();
        columns[index] = Arc::new(builder.finish());
        let schema = batch.schema();
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = arrow_schema::Schema::new(fields.collect::<Vec<_>>());
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn a_row_that_is_no_record_is_named_by_file_and_sequence() {
        let (_, batch) = batch();
        for (id, text) in [
            (schema::OPERATION, Some("MERGE")),
            (schema::OPERATION, None),
            (schema::AFTER, Some("{")),
            (schema::TAG, Some("[]")),
            (schema::CURSOR_EPOCH, Some("x")),
            (schema::ORIGIN_EPOCH, Some("")),
            (schema::SOURCE, Some("ftp://a.b")),
        ] {
            let error = decode(&with(&batch, id, text)).unwrap_err();
            assert!(
                matches!(&error, Error::Unreadable { file, sequence, .. }
                    if file == "f.parquet" && sequence.get() == 7),
                "{id} {text:?}: {error:?}"
            );
        }
        for id in [schema::COLLECTION, schema::KIND, schema::SOURCE, schema::CURSOR_EPOCH] {
            let error = decode(&with(&batch, id, None)).unwrap_err();
            assert!(matches!(error, Error::BadRow { .. }), "{id}: {error:?}");
        }
    }

    #[test]
    fn columns_are_found_by_id_and_one_that_an_older_file_lacks_reads_as_null() {
        let (mut record, batch) = batch();
        let tag = batch.schema().index_of("tag").unwrap();
        let mut others: Vec<usize> = (0..batch.num_columns()).filter(|index| *index != tag).collect();
        others.reverse();
        record.body =
            Body::from_stored(r#"{"operation":"INSERT","collection":"c","documentId":"1","after":1}"#);
        assert_eq!(decode(&batch.project(&others).unwrap()).unwrap(), [record]);
    }

    #[test]
    fn a_column_of_another_type_is_refused() {
        let (_, batch) = batch();
        let wrong = batch.schema().index_of("sequence").unwrap();
        let right = batch.schema().index_of("tag").unwrap();
        let mut columns = batch.columns().to_vec();
        columns[wrong] = Arc::clone(&columns[right]);
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        let field = fields[wrong].as_ref().clone();
        fields[wrong] = Arc::new(field.with_data_type(arrow_schema::DataType::Utf8).with_nullable(true));
        let batch = RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), columns).unwrap();
        assert!(matches!(decode(&batch).unwrap_err(), Error::BadRow { .. }));
    }
}
