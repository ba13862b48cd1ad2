use std::sync::Arc;

use cdc_model::{Filter, ObjectId, Operation, Record, Sequence, Timestamp};
use futures_core::Stream;
use futures_util::stream::{self, TryStreamExt as _};
use iceberg::spec::ManifestFile;

use crate::catalog::Loaded;
use crate::merge::{Merge, Planned};
use crate::select::{Select, sequence_bounds};
use crate::snapshot::{Listing, listing};
use crate::{Result, Storage};

/// Asks an archive for records. Every bound narrows; without any the whole table is read.
#[derive(Clone, Debug)]
#[must_use = "a scan reads nothing until it is planned or streamed"]
pub struct ScanBuilder {
    storage: Storage,
    table: Loaded,
    select: Select,
}

/// What a scan will read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanPlan {
    /// Data files of the table.
    pub files_total: usize,
    /// Those whose bounds do not rule them out.
    pub files_read: usize,
    /// The bytes of those, compressed: an upper bound of what is fetched.
    pub bytes: u64,
}

/// A planned scan.
#[derive(Debug)]
#[must_use = "a scan reads nothing until it is streamed"]
pub struct Scan {
    plan: ScanPlan,
    merge: Merge,
}

impl ScanBuilder {
    pub(crate) fn new(storage: Storage, table: Loaded) -> Self {
        Self { storage, table, select: Select::default() }
    }

    /// Only records after this sequence of the log.
    pub fn after(mut self, sequence: Sequence) -> Self {
        self.select.after = sequence;
        self
    }

    /// Only records up to this sequence of the log, inclusive.
    pub fn through(mut self, sequence: Sequence) -> Self {
        self.select.through = Some(sequence);
        self
    }

    /// Only records that the log took at this time or later.
    pub fn from_time(mut self, time: Timestamp) -> Self {
        self.select.from_time = Some(time);
        self
    }

    /// Only records that the log took before this time.
    pub fn until_time(mut self, time: Timestamp) -> Self {
        self.select.until_time = Some(time);
        self
    }

    /// Only events that happened in `[from, until)` by their origin's clock.
    pub fn origin_time(mut self, from: Timestamp, until: Timestamp) -> Self {
        self.select.origin_from = Some(from);
        self.select.origin_until = Some(until);
        self
    }

    /// Also events of this origin; without any call those of all.
    pub fn source(mut self, source: ObjectId) -> Self {
        self.select.filter.sources.push(source);
        self
    }

    /// Also records of this collection; without any call those of all.
    pub fn collection(mut self, name: impl Into<String>) -> Self {
        self.select.filter.collections.push(name.into());
        self
    }

    /// Also changes with this operation; without any call all. Schema changes pass regardless.
    pub fn operation(mut self, operation: Operation) -> Self {
        self.select.filter.operations.push(operation);
        self
    }

    /// Only records that pass this filter. Replaces what [`source`](Self::source),
    /// [`collection`](Self::collection) and [`operation`](Self::operation) have set.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.select.filter = filter;
        self
    }

    /// Reads the manifests that may matter and decides which files to read.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage) or [`Error::Corrupt`](crate::Error::Corrupt).
    pub async fn plan(self) -> Result<Scan> {
        let select = Arc::new(self.select);
        let spec_id = self.table.metadata.default_partition_spec_id();
        let may_match = |manifest: &ManifestFile| select.may_be_listed_in(manifest, spec_id);
        let Listing { files, closed } = listing(&self.storage, &self.table, may_match).await?;
        let mut plan = ScanPlan { files_total: closed.files + files.len(), ..ScanPlan::default() };
        let mut planned: Vec<Planned> = Vec::new();
        for file in files.iter().filter(|file| select.may_be_in(file)) {
            let bytes = file.file_size_in_bytes();
            plan.files_read += 1;
            plan.bytes += bytes;
            planned.push(Planned {
                first: sequence_bounds(file).0,
                location: file.file_path().to_owned(),
                bytes,
            });
        }
        planned.sort();
        Ok(Scan { plan, merge: Merge::new(self.storage, select, planned) })
    }

    /// Plans and streams in one.
    ///
    /// The items are those of [`Scan::stream`], or one error when planning fails.
    pub fn stream(self) -> impl Stream<Item = Result<Vec<Record>>> + Send + 'static {
        stream::once(async move { Ok::<_, crate::Error>(self.plan().await?.stream()) }).try_flatten()
    }
}

impl Scan {
    /// What will be read.
    #[must_use]
    pub fn report(&self) -> ScanPlan {
        self.plan
    }

    /// The records in strictly increasing order of the log's sequence, in non-empty portions.
    ///
    /// Memory is bounded by one row group per file that overlaps the current place in the log; those are the files
    /// of one append, one or more per day of its events. After an error the stream ends.
    pub fn stream(self) -> impl Stream<Item = Result<Vec<Record>>> + Send + 'static {
        stream::try_unfold(self.merge, |mut merge| async move {
            let records = merge.next().await?;
            Ok((!records.is_empty()).then_some((records, merge)))
        })
    }
}
