//! Parquet's reading trait over [`Storage`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::{Error, Result, Storage};

/// Fetched from a file's end at first: footers of our files fit.
const FOOTER_BYTES: usize = 64 << 10;
/// A file up to this size is fetched in one request: with a remote store the round trips are the cost.
const WHOLE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct DataFileReader {
    storage: Storage,
    location: String,
    bytes: u64,
    whole: Option<Bytes>,
}

impl DataFileReader {
    pub(crate) fn new(storage: Storage, location: String, bytes: u64) -> Self {
        Self { storage, location, bytes, whole: None }
    }

    async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        match self.part_of_whole(&range) {
            Some(part) => Ok(part),
            None => self.storage.read_range(&self.location, range).await,
        }
    }

    fn part_of_whole(&self, range: &Range<u64>) -> Option<Bytes> {
        let whole = self.whole.as_ref()?;
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        (start <= end && end <= whole.len()).then(|| whole.slice(start..end))
    }
}

impl AsyncFileReader for DataFileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.fetch(range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let parts: Option<Vec<Bytes>> = ranges.iter().map(|range| self.part_of_whole(range)).collect();
            match parts {
                Some(parts) => Ok(parts),
                None => {
                    let read = self.storage.read_ranges(&self.location, &ranges).await;
                    read.map_err(external)
                }
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let bytes = self.bytes;
            if bytes <= WHOLE_BYTES_MAX {
                self.whole = Some(self.fetch(0..bytes).await.map_err(external)?);
            }
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, bytes).await.map(Arc::new)
        }
        .boxed()
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// A store that failed is not a damaged file; a data file that is gone is.
pub(crate) fn unreadable(location: &str, source: ParquetError) -> Error {
    const EXPECTED: &str = "a data file";
    let ParquetError::External(source) = source else {
        return Error::corrupt(location, EXPECTED)(source.into());
    };
    match source.downcast::<Error>() {
        Ok(error) => error.of_file(location, EXPECTED),
        Err(source) => Error::corrupt(location, EXPECTED)(source),
    }
}
