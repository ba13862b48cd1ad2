//! Appending to an archive, against a bare Parquet writer with the same schema, settings and rows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, SchemaRef};
use cdc_iceberg::{Archive, Components, Location};
use cdc_model::{Batch, BodyColumns, Epoch, Record};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{Batches, Result, Side, object};

const EPOCH: Epoch = Epoch { number: 1, nonce: 1 };

/// Rows turned into Arrow at once.
const ROWS_PER_STEP: usize = 1024;

/// The archive, a bare writer that also turns records into columns, and one that is given the columns, in this
/// order; `rows` in one round, one commit and one file.
///
/// # Errors
///
/// When the warehouse cannot be made.
pub fn archive_sides(rows: u32) -> Result<Vec<Box<dyn Side>>> {
    let folder = Arc::new(tempfile::tempdir()?);
    let archive = ArchiveAppend::new(Arc::clone(&folder), rows)?;
    let files = data_files(folder.path())?;
    let schema = schema_of(files.first().ok_or("the archive wrote no data file")?)?;
    let writer = |ready| ParquetWriter::new(Arc::clone(&folder), Arc::clone(&schema), rows, ready);
    Ok(vec![Box::new(archive), Box::new(writer(false)?), Box::new(writer(true)?)])
}

/// A runtime whose threads for blocking work live on, so that their processor time stays countable.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().thread_keep_alive(Duration::from_secs(3600)).enable_time().build()?)
}

/// [`Archive::append`]: checks, data file, manifest, manifest list, table metadata.
#[derive(Debug)]
pub struct ArchiveAppend {
    runtime: Runtime,
    archive: Archive,
    workload: Batches,
    rows: u32,
    next: Option<Batch>,
    _folder: Arc<TempDir>,
}

impl ArchiveAppend {
    fn new(folder: Arc<TempDir>, rows: u32) -> Result<Self> {
        let runtime = runtime()?;
        let id = object("root")?;
        let location = Location::folder(folder.path());
        let archive = runtime.block_on(Archive::open(&location, &id, Components::system()))?;
        let workload = Batches::new(&id, EPOCH)?;
        let mut side = Self { runtime, archive, workload, rows, next: None, _folder: folder };
        // A first append, after which there is a file to take the schema from.
        side.next = Some(side.workload.next(1)?);
        side.run()?;
        Ok(side)
    }
}

impl Side for ArchiveAppend {
    fn prepare(&mut self) -> Result<()> {
        self.next = Some(self.workload.next(self.rows)?);
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        let batch = self.next.take().ok_or("a round was not prepared")?;
        let appended = self.runtime.block_on(self.archive.append(&batch))?;
        Ok(u32::try_from(appended.rows)?)
    }
}

/// An [`ArrowWriter`] that writes a new file in the warehouse and syncs it and its folder.
#[derive(Debug)]
pub struct ParquetWriter {
    schema: SchemaRef,
    workload: Batches,
    rows: u32,
    /// Whether the columns are ready before the round.
    ready: bool,
    records: Vec<Record>,
    columns: Vec<RecordBatch>,
    written: u32,
    folder: Arc<TempDir>,
}

impl ParquetWriter {
    fn new(folder: Arc<TempDir>, schema: SchemaRef, rows: u32, ready: bool) -> Result<Self> {
        let mut workload = Batches::new(&object("root")?, EPOCH)?;
        // The archive had a first row, too.
        workload.next(1)?;
        let (records, columns) = (Vec::new(), Vec::new());
        Ok(Self { schema, workload, rows, ready, records, columns, written: 0, folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("bare-{}-{}.parquet", self.ready, self.written))
    }
}

impl Side for ParquetWriter {
    fn prepare(&mut self) -> Result<()> {
        self.records = self.workload.next(self.rows)?.records;
        self.columns = Vec::new();
        if self.ready {
            let steps = self.records.chunks(ROWS_PER_STEP);
            self.columns = steps.map(|records| columns(&self.schema, records)).collect::<Result<_>>()?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<u32> {
        self.written += 1;
        let file = File::create_new(self.path())?;
        let schema = Arc::clone(&self.schema);
        let mut writer = ArrowWriter::try_new(file.try_clone()?, schema, Some(properties()))?;
        for columns in &self.columns {
            writer.write(columns)?;
        }
        if !self.ready {
            for records in self.records.chunks(ROWS_PER_STEP) {
                writer.write(&columns(&self.schema, records)?)?;
            }
        }
        writer.close()?;
        file.sync_all()?;
        File::open(self.folder.path())?.sync_all()?;
        Ok(u32::try_from(self.records.len())?)
    }
}

/// The settings with which the archive writes its data files; a test holds them against such a file.
fn properties() -> WriterProperties {
    let path = ColumnPath::from;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(16 * 1024))
        .set_max_row_group_bytes(Some(16 << 20))
        .set_statistics_truncate_length(Some(256))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    for name in ["id", "before", "after"] {
        properties = properties.set_column_dictionary_enabled(path(name), false);
    }
    for name in ["timestamp", "sequence", "cursorSequence", "cursorTimestamp"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["before", "after", "tag", "transaction", "derivedFrom", "schema"] {
        properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    properties.build()
}

/// The records as columns of the archive, each built on its own in the plainest way.
fn columns(schema: &SchemaRef, records: &[Record]) -> Result<RecordBatch> {
    let bodies: Vec<BodyColumns> =
        records.iter().map(|record| record.body.columns()).collect::<std::result::Result<_, _>>()?;
    let columns = schema.fields().iter().map(|field| column(field, records, &bodies));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_>>()?)?)
}

fn column(field: &Field, records: &[Record], bodies: &[BodyColumns]) -> Result<ArrayRef> {
    let text = |of: fn(&BodyColumns) -> Option<&str>| -> ArrayRef {
        Arc::new(bodies.iter().map(of).collect::<StringArray>())
    };
    let written = |of: fn(&Record) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(of)))
    };
    let numbers = |of: fn(&Record) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(records.iter().map(of)))
    };
    let times = |of: fn(&Record) -> i64| -> ArrayRef {
        let micros = records.iter().map(|record| of(record) * 1000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("+00:00"))
    };
    Ok(match field.name().as_str() {
        "id" => written(|record| record.id().to_string()),
        "kind" => text(|body| Some(&body.kind)),
        "operation" => text(|body| body.operation.as_deref()),
        "collection" => text(|body| Some(&body.collection)),
        "documentId" => text(|body| body.document_id.as_deref()),
        "timestamp" => times(|record| record.origin_timestamp.get()),
        "sequence" => numbers(|record| record.origin_sequence.as_i64()),
        "before" => text(|body| body.before.as_deref()),
        "after" => text(|body| body.after.as_deref()),
        "delta" => Arc::new(bodies.iter().map(|body| Some(body.delta)).collect::<BooleanArray>()),
        "changedFields" => lists(field, bodies.iter().map(|body| body.changed_fields.as_deref()))?,
        "source" => Arc::new(StringArray::from_iter_values(
            records.iter().map(|record| record.origin.source().as_str()),
        )),
        "originEpoch" => written(|record| record.origin.epoch().to_string()),
        "route" => lists(field, records.iter().map(|record| Some(record.origin.route())))?,
        "correlationId" => text(|body| body.correlation_id.as_deref()),
        "tag" => text(|body| body.tag.as_deref()),
        "transaction" => text(|body| body.transaction.as_deref()),
        "schemaVersion" => Arc::new(
            bodies.iter().map(|body| body.schema_version.map(u32::cast_signed)).collect::<Int32Array>(),
        ),
        "derivedFrom" => text(|body| body.derived_from.as_deref()),
        "schema" => text(|body| body.schema.as_deref()),
        "cursorSequence" => numbers(|record| record.sequence.as_i64()),
        "cursorTimestamp" => times(|record| record.timestamp.get()),
        "cursorEpoch" => written(|record| record.epoch.to_string()),
        other => {
            return Err(format!("the archive has a column {other} that this writer does not know").into());
        }
    })
}

fn lists<'a, T: ToString + 'a>(
    field: &Field,
    rows: impl Iterator<Item = Option<&'a [T]>>,
) -> Result<ArrayRef> {
    let DataType::List(element) = field.data_type() else { return Err("not a list".into()) };
    let mut lists = ListBuilder::new(StringBuilder::new()).with_field(Arc::clone(element));
    for row in rows {
        for item in row.unwrap_or_default() {
            lists.values().append_value(item.to_string());
        }
        lists.append(row.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

fn schema_of(file: &Path) -> Result<SchemaRef> {
    Ok(Arc::clone(ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.schema()))
}

/// The Parquet files below a folder.
fn data_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(data_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> (usize, Vec<RecordBatch>) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        let groups = reader.metadata().num_row_groups();
        (groups, reader.build().unwrap().map(|batch| batch.unwrap()).collect())
    }

    #[test]
    fn the_bare_writers_write_what_the_archive_writes() {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut archive = ArchiveAppend::new(Arc::clone(&folder), 20_000).unwrap();
        let first = data_files(folder.path()).unwrap();
        let schema = schema_of(&first[0]).unwrap();
        archive.prepare().unwrap();
        archive.run().unwrap();
        let written = data_files(folder.path()).unwrap();
        let ours = written.iter().find(|path| !first.contains(path)).unwrap();
        let bytes = |path: &Path| fs::metadata(path).unwrap().len();
        for ready in [false, true] {
            let mut bare =
                ParquetWriter::new(Arc::clone(&folder), Arc::clone(&schema), 20_000, ready).unwrap();
            bare.prepare().unwrap();
            bare.run().unwrap();
            assert_eq!(read(ours), read(&bare.path()));
            let (ours, bare) = (bytes(ours), bytes(&bare.path()));
            assert!(
                ours.abs_diff(bare) * 50 < ours,
                "the archive wrote {ours} bytes, the bare writer {bare}"
            );
        }
    }
}
