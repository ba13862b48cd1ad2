//! Data files to one stream of records in the order of the log.
//!
//! The files of one append overlap when its events are of several days; files of different appends do not. So a
//! file is opened only when the log has reached its first sequence, and records are taken in runs, not one by one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use cdc_model::{Record, Sequence};
use futures_util::StreamExt as _;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use crate::decode::Decoder;
use crate::parquet_io::{DataFileReader, unreadable};
use crate::schema::{CURSOR_SEQUENCE, name_of};
use crate::select::Select;
use crate::{Error, Result, Storage};

/// Rows decoded at once.
const ROWS_PER_READ: usize = 1024;
/// An item of the stream ends with the run that brings it to this many records or body bytes.
const ROWS_PER_ITEM: usize = 1024;
const BYTES_PER_ITEM: usize = 4 << 20;

/// A file to read. Ordered by the sequence it begins with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Planned {
    pub(crate) first: Sequence,
    pub(crate) location: String,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Merge {
    storage: Storage,
    select: Arc<Select>,
    pending: VecDeque<Planned>,
    open: Vec<OpenFile>,
    last: Sequence,
}

/// A file being read. It stays open only while it has a next record in its queue.
struct OpenFile {
    location: String,
    stream: ParquetRecordBatchStream<DataFileReader>,
    decoder: Decoder,
    queue: VecDeque<Record>,
}

impl Merge {
    pub(crate) fn new(storage: Storage, select: Arc<Select>, planned: Vec<Planned>) -> Self {
        let last = select.after;
        Self { storage, select, pending: planned.into(), open: Vec::new(), last }
    }

    /// The next records; empty at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<Record>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < ROWS_PER_ITEM && bytes < BYTES_PER_ITEM {
            let Some(mut file) = self.take_next_file().await? else {
                break;
            };
            let others = self.open.iter().filter_map(OpenFile::head);
            let pending = self.pending.front().map(|planned| planned.first);
            let limit = others.chain(pending).min();
            let mut first = true;
            while let Some(record) = file.pop_below(limit, first) {
                self.advance(&file, record.sequence)?;
                bytes += record.body.as_str().len();
                records.push(record);
                first = false;
            }
            self.keep(file).await?;
        }
        Ok(records)
    }

    fn advance(&mut self, file: &OpenFile, found: Sequence) -> Result<()> {
        if found <= self.last {
            let (file, previous) = (file.location.clone(), self.last);
            return Err(Error::Repeat { file, previous, found });
        }
        self.last = found;
        Ok(())
    }

    /// The open file with the smallest next sequence, after opening all that might begin before it.
    async fn take_next_file(&mut self) -> Result<Option<OpenFile>> {
        loop {
            let next = self.open.iter().enumerate().min_by_key(|(_, file)| file.head());
            let (index, head) = next.map_or((None, None), |(index, file)| (Some(index), file.head()));
            let begins = |planned: &mut Planned| head.is_none_or(|head| planned.first <= head);
            match self.pending.pop_front_if(begins) {
                Some(planned) => {
                    let file = OpenFile::open(&self.storage, &self.select, planned).await?;
                    self.keep(file).await?;
                }
                None => return Ok(index.map(|index| self.open.swap_remove(index))),
            }
        }
    }

    /// Puts a file back if it has more records.
    async fn keep(&mut self, mut file: OpenFile) -> Result<()> {
        if file.fill().await? {
            self.open.push(file);
        }
        Ok(())
    }
}

impl OpenFile {
    async fn open(storage: &Storage, select: &Arc<Select>, planned: Planned) -> Result<Self> {
        let location = planned.location;
        let reader = DataFileReader::new(storage.clone(), location.clone(), planned.bytes);
        let failed = |source| unreadable(&location, source);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let groups = builder.metadata().row_groups().iter().enumerate();
        let wanted = groups.filter(|(_, group)| may_hold(group, select)).map(|(index, _)| index).collect();
        let builder = builder.with_batch_size(ROWS_PER_READ).with_row_groups(wanted);
        let stream = builder.build().map_err(|source| unreadable(&location, source))?;
        let decoder = Decoder::new(location.clone(), Arc::clone(select));
        Ok(Self { location, stream, decoder, queue: VecDeque::new() })
    }

    fn head(&self) -> Option<Sequence> {
        self.queue.front().map(|record| record.sequence)
    }

    /// The next record if it comes before `limit`, or in any case when it is the `first` of a run.
    fn pop_below(&mut self, limit: Option<Sequence>, first: bool) -> Option<Record> {
        self.queue.pop_front_if(|record| first || limit.is_none_or(|limit| record.sequence < limit))
    }

    /// Reads until there is a next record; false at the end of the file.
    async fn fill(&mut self) -> Result<bool> {
        while self.queue.is_empty() {
            let Some(batch) = self.stream.next().await else {
                return Ok(false);
            };
            let batch = batch.map_err(|source| unreadable(&self.location, source))?;
            self.queue.extend(self.decoder.records(&batch)?);
        }
        Ok(true)
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("location", &self.location).field("head", &self.head()).finish()
    }
}

/// Whether a row group's bounds leave it possible that it holds a sequence asked for.
fn may_hold(group: &RowGroupMetaData, select: &Select) -> bool {
    let column =
        group.columns().iter().find(|column| column.column_path().string() == name_of(CURSOR_SEQUENCE));
    let Some(Statistics::Int64(bounds)) = column.and_then(|column| column.statistics()) else {
        return true;
    };
    let reaches = bounds.max_opt().is_none_or(|max| *max > select.after.as_i64());
    let begins = |through: Sequence| bounds.min_opt().is_none_or(|min| *min <= through.as_i64());
    reaches && select.through.is_none_or(begins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Archive, Components, Location};
    use cdc_model::{Batch, Body, Epoch, ObjectId, Origin, Position, Timestamp};

    #[tokio::test]
    async fn a_row_that_lies_in_two_files_ends_the_scan_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::folder(folder.path());
        let id: ObjectId = "https://a.b".parse().unwrap();
        let mut archive = Archive::open(&location, &id, Components::system()).await.unwrap();
        let epoch = Epoch { number: 1, nonce: 1 };
        let body = r#"{"operation":"INSERT","collection":"c","documentId":"1","after":1}"#;
        let record = Record {
            sequence: Sequence::new(1),
            timestamp: Timestamp::ZERO,
            epoch,
            origin: Origin::new(id.clone(), epoch, vec![]),
            origin_sequence: Sequence::new(1),
            origin_timestamp: Timestamp::ZERO,
            body: Body::parse(body).unwrap(),
        };
        let through = record.position_after(Position::START);
        let records = vec![record];
        let batch = Batch {
            sender: id,
            generation: 1,
            epoch,
            after: Position::START,
            through,
            records,
            kept_back: 0,
        };
        archive.append(&batch).await.unwrap();

        let files =
            crate::snapshot::listing(archive.storage(), archive.table(), |_| true).await.unwrap().files;
        let file = files.first().unwrap();
        let (first, bytes) = (Sequence::new(1), file.file_size_in_bytes());
        let planned = Planned { first, location: file.file_path().to_owned(), bytes };
        let twice = vec![planned.clone(), planned];
        let mut merge = Merge::new(archive.storage().clone(), Arc::new(Select::default()), twice);
        let error = merge.next().await.unwrap_err();
        assert!(matches!(&error, Error::Repeat { previous, found, .. } if previous == found), "{error:?}");
    }
}
