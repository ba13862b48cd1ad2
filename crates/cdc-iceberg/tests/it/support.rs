//! A log to archive, fixed surroundings, and a store that fails when told to.

use std::fmt;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use cdc_iceberg::{Archive, Components, Location, Storage};
use cdc_model::{
    Batch, Body, Clock, Digest, Entropy, Epoch, ObjectId, Origin, Position, Record, Sequence, Timestamp,
};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tempfile::TempDir;

/// 2024-01-15T00:00:00Z.
pub(crate) const DAY: i64 = 1_705_276_800_000;
pub(crate) const DAY_MS: i64 = 86_400_000;
pub(crate) const EPOCH: Epoch = Epoch { number: 1, nonce: 7 };

pub(crate) fn acme() -> ObjectId {
    "https://crm.headless.ly/acme".parse().unwrap()
}

/// A clock that ticks a second per look from 2024-01-15 and randomness that counts from `seed`.
pub(crate) fn components(seed: u64) -> Components {
    let time = AtomicU64::new(0);
    let drawn = AtomicU64::new(seed << 32);
    Components {
        clock: Clock::from_fn(move || {
            let seconds = i64::try_from(time.fetch_add(1, Ordering::Relaxed)).unwrap();
            Timestamp::new(DAY + seconds * 1000)
        }),
        entropy: Entropy::from_fn(move || {
            drawn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        }),
    }
}

pub(crate) struct Warehouse {
    folder: TempDir,
}

impl Warehouse {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &FsPath {
        self.folder.path()
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.path().join("tables/crm.headless.ly~acme")
    }

    pub(crate) fn location(&self) -> Location {
        Location::folder(self.path())
    }

    pub(crate) async fn archive(&self, seed: u64) -> Archive {
        Archive::open(&self.location(), &acme(), components(seed)).await.unwrap()
    }

    /// The warehouse through a store that fails when told to.
    pub(crate) fn faulty(&self) -> (Storage, Arc<Faulty>) {
        let path = self.path().canonicalize().unwrap();
        let faulty = Arc::new(Faulty::over(LocalFileSystem::new_with_prefix(&path).unwrap()));
        let store: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&faulty);
        (Storage::over(store, format!("file://{}", path.display())), faulty)
    }

    /// How many files the table's metadata is, and their bytes.
    pub(crate) fn metadata_size(&self) -> (usize, u64) {
        let files = self.files("");
        let metadata: Vec<&String> = files.iter().filter(|file| file.starts_with("metadata/")).collect();
        let bytes =
            metadata.iter().map(|file| std::fs::metadata(self.table().join(file)).unwrap().len()).sum();
        (metadata.len(), bytes)
    }

    /// The paths of all files below the table with this ending, relative to it, sorted.
    pub(crate) fn files(&self, ending: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.table()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_str().unwrap().ends_with(ending) {
                    found.push(path.strip_prefix(self.table()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

/// The log that is archived: records with a running digest.
pub(crate) struct Log {
    id: ObjectId,
    records: Vec<Record>,
    digests: Vec<Digest>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { id: acme(), records: Vec::new(), digests: vec![Digest::ZERO] }
    }

    /// A log of `count` inserts, a minute apart from 2024-01-15.
    pub(crate) fn of(count: i64) -> Self {
        let mut log = Self::new();
        for n in 0..count {
            log.insert(DAY + n * 60_000);
        }
        log
    }

    /// An own insert at this time.
    pub(crate) fn insert(&mut self, ms: i64) -> &Record {
        let n = self.records.len() + 1;
        let body = format!(
            r#"{{"operation":"INSERT","collection":"customers","documentId":"{n}","after":{{"id":{n},"name":"Ada","tier":"free"}}}}"#
        );
        self.own(ms, Body::parse(&body).unwrap())
    }

    /// An own event at this time.
    pub(crate) fn own(&mut self, ms: i64, body: Body) -> &Record {
        let origin = Origin::new(self.id.clone(), EPOCH, vec![]);
        let sequence = Sequence::new(u64::try_from(self.records.len()).unwrap() + 1);
        self.push(origin, sequence, Timestamp::new(ms), Timestamp::new(ms), body)
    }

    /// Any event: its origin's place and time, then the log's.
    pub(crate) fn push(
        &mut self,
        origin: Arc<Origin>,
        origin_sequence: Sequence,
        origin_timestamp: Timestamp,
        timestamp: Timestamp,
        body: Body,
    ) -> &Record {
        let sequence = Sequence::new(u64::try_from(self.records.len()).unwrap() + 1);
        let record =
            Record { sequence, timestamp, epoch: EPOCH, origin, origin_sequence, origin_timestamp, body };
        self.digests.push(record.digest(*self.digests.last().unwrap()));
        self.records.push(record);
        self.records.last().unwrap()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn position(&self, sequence: usize) -> Position {
        Position { sequence: Sequence::new(sequence.try_into().unwrap()), digest: self.digests[sequence] }
    }

    /// The records in `(after, through]`.
    pub(crate) fn batch(&self, range: Range<usize>) -> Batch {
        Batch {
            sender: self.id.clone(),
            generation: 1,
            epoch: EPOCH,
            after: self.position(range.start),
            through: self.position(range.end),
            records: self.records[range].to_vec(),
            kept_back: 0,
        }
    }

    pub(crate) fn all(&self) -> Batch {
        self.batch(0..self.records.len())
    }
}

pub(crate) async fn read(archive: &Archive) -> Vec<Record> {
    archive.scan().stream().try_concat().await.unwrap()
}

pub(crate) fn sequences(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.sequence.get()).collect()
}

/// What happens to a put whose path contains a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and nothing is written.
    NotDone,
    /// It is done and reported as failed.
    Done,
    /// It is done, and a create reported as refused for being there: the client has repeated it by itself.
    Repeated,
}

/// A store that fails puts when told to.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: LocalFileSystem,
    faults: Mutex<Vec<(String, Fault)>>,
    create_overwrites: bool,
    /// The paths that were read, in order.
    reads: Mutex<Vec<String>>,
    /// Writes and deletes that still take place; none is no limit.
    changes_left: Mutex<Option<usize>>,
    deletes_fail: Mutex<Option<Fault>>,
    /// The file that is read next under the first name has just got the second.
    renamed: Mutex<Option<(PathBuf, PathBuf)>>,
}

impl Faulty {
    fn over(inner: LocalFileSystem) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
            create_overwrites: false,
            reads: Mutex::default(),
            changes_left: Mutex::default(),
            deletes_fail: Mutex::default(),
            renamed: Mutex::default(),
        }
    }

    /// A store that takes create-if-absent for a plain put.
    pub(crate) fn overwriting(inner: LocalFileSystem) -> Self {
        Self { create_overwrites: true, ..Self::over(inner) }
    }

    /// The next puts whose path contains `text` meet these faults, one each.
    pub(crate) fn plan(&self, text: &str, faults: &[Fault]) {
        let mut planned = self.faults.lock().unwrap();
        planned.extend(faults.iter().map(|fault| (text.to_owned(), *fault)));
    }

    /// Forgets what was planned and did not come up.
    pub(crate) fn clear(&self) {
        self.faults.lock().unwrap().clear();
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// The paths that were read since the last call, once per request.
    pub(crate) fn take_reads(&self) -> Vec<String> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    /// After so many more writes and deletes none takes place, as when the process has died. None: all do.
    pub(crate) fn die_after(&self, changes: Option<usize>) {
        *self.changes_left.lock().unwrap() = changes;
    }

    /// Whether it died before all that was asked for took place.
    pub(crate) fn is_dead(&self) -> bool {
        *self.changes_left.lock().unwrap() == Some(0)
    }

    /// From now on all deletes meet this fault.
    pub(crate) fn fail_deletes(&self, fault: Option<Fault>) {
        *self.deletes_fail.lock().unwrap() = fault;
    }

    /// The file gets its new name between being found and being read.
    pub(crate) fn rename_when_read(&self, from: PathBuf, to: PathBuf) {
        *self.renamed.lock().unwrap() = Some((from, to));
    }

    fn rename(&self, path: &Path) {
        let name = |file: &FsPath| file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let mut renamed = self.renamed.lock().unwrap();
        if let Some((from, to)) = renamed.take_if(|(from, _)| name(from).as_deref() == path.filename()) {
            std::fs::rename(from, to).unwrap();
        }
    }

    fn live(&self) -> object_store::Result<()> {
        match &mut *self.changes_left.lock().unwrap() {
            None => Ok(()),
            Some(0) => Err(timeout()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn note_read(&self, path: &Path) {
        self.reads.lock().unwrap().push(path.to_string());
    }

    fn fault_at(&self, path: &Path) -> Option<Fault> {
        let mut planned = self.faults.lock().unwrap();
        let index = planned.iter().position(|(text, _)| path.as_ref().contains(text))?;
        Some(planned.remove(index).1)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

fn timeout() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: "timed out".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if self.create_overwrites {
            options.mode = PutMode::Overwrite;
        }
        self.live()?;
        match self.fault_at(path) {
            Some(Fault::NotDone) => Err(timeout()),
            Some(Fault::Done) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(timeout())
            }
            Some(Fault::Repeated) => {
                self.inner.put_opts(path, payload.clone(), options.clone()).await?;
                self.inner.put_opts(path, payload, options).await
            }
            None => self.inner.put_opts(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.note_read(path);
        if !options.head {
            self.rename(path);
        }
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.note_read(path);
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        if self.live().is_err() {
            return Box::pin(futures_util::stream::iter([Err(timeout())]));
        }
        match *self.deletes_fail.lock().unwrap() {
            None => self.inner.delete_stream(paths),
            Some(Fault::NotDone) => Box::pin(futures_util::stream::iter([Err(timeout())])),
            Some(Fault::Done) => Box::pin(self.inner.delete_stream(paths).map(|_| Err(timeout()))),
            Some(Fault::Repeated) => Box::pin(self.inner.delete_stream(paths)),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
