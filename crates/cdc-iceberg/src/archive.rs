use std::io::ErrorKind;

use cdc_model::{Batch, Mark, ObjectId, Timestamp, admit, fault_point, mutant, reached};
use uuid::Uuid;

use crate::catalog::{Commit, FsCatalog, Loaded};
use crate::data_file::DataFiles;
use crate::error::io_kind;
use crate::mark::{OBJECT, Watermark, watermark_of};
use crate::retention::versions_max;
use crate::scan::ScanBuilder;
use crate::schema::{check_schema, new_table};
use crate::snapshot::Addition;
use crate::sweep::Sweep;
use crate::{Components, Error, Location, Result, Settings, Storage};

/// Races lost to commits that did not move the watermark, such as maintenance.
const COMMIT_ATTEMPTS_MAX: u32 = 8;

/// The archive of one object's log: an Iceberg table whose commits are the last hop of its events.
///
/// The table is the only state. Its watermark moves in the same commit as the rows, so that an append is in the
/// table whole and once, or not at all, whatever was lost on the way.
#[derive(Debug)]
pub struct Archive {
    object: ObjectId,
    storage: Storage,
    catalog: FsCatalog,
    components: Components,
    settings: Settings,
    table: Loaded,
    watermark: Option<Watermark>,
    /// An append ended without a known outcome; the table must be looked at before the next.
    doubtful: bool,
    sweep: Sweep,
}

/// What an append added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The archive's mark after it, durable.
    pub mark: Mark,
    /// New data files.
    pub files: usize,
    /// New rows.
    pub rows: u64,
    /// Their bytes, compressed.
    pub bytes: u64,
}

impl Archive {
    /// Opens the archive of `object` in the warehouse at `location` and creates what is missing of both.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`] or [`Error::CreateNotExclusive`] when nothing can be archived there,
    /// [`Error::NotATable`] when something else lies there, [`Error::Corrupt`] or [`Error::MarkConflict`] when the
    /// table is damaged.
    pub async fn open(location: &Location, object: &ObjectId, components: Components) -> Result<Self> {
        Self::open_in(&Storage::open(location)?, object, components).await
    }

    /// Opens the archive of `object` as it is. Nothing is written before the first append.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is none, and those of [`Archive::open`] for a damaged one.
    pub async fn open_existing(
        location: &Location,
        object: &ObjectId,
        components: Components,
    ) -> Result<Self> {
        Self::open_existing_in(&Storage::existing(location)?, object, components).await
    }

    /// [`Archive::open`] in a warehouse that is open already.
    ///
    /// # Errors
    ///
    /// As for [`Archive::open`].
    pub async fn open_in(storage: &Storage, object: &ObjectId, components: Components) -> Result<Self> {
        storage.probe(&components.entropy).await?;
        let catalog = FsCatalog::new(storage.clone());
        let location = catalog.table_location(object);
        let table = match load(&catalog, &location, object).await? {
            Some(table) => {
                catalog.repair_hint(&table).await;
                table
            }
            None => create(&catalog, storage, location, object, &components).await?,
        };
        Self::over(storage, catalog, table, object, components)
    }

    /// [`Archive::open_existing`] in a warehouse that is open already.
    ///
    /// # Errors
    ///
    /// As for [`Archive::open_existing`].
    pub async fn open_existing_in(
        storage: &Storage,
        object: &ObjectId,
        components: Components,
    ) -> Result<Self> {
        let catalog = FsCatalog::new(storage.clone());
        let location = catalog.table_location(object);
        let table = load(&catalog, &location, object).await?.ok_or(Error::NotFound { location })?;
        Self::over(storage, catalog, table, object, components)
    }

    fn over(
        storage: &Storage,
        catalog: FsCatalog,
        table: Loaded,
        object: &ObjectId,
        components: Components,
    ) -> Result<Self> {
        let refuse = |reason| {
            let location = table.location.clone();
            Error::NotATable { location, object: object.clone(), reason }
        };
        match table.metadata.properties().get(OBJECT) {
            Some(found) if found == object.as_str() => {}
            Some(_) => return Err(refuse("it archives another object")),
            None => return Err(refuse("it was made by something else")),
        }
        check_schema(&table.metadata).map_err(refuse)?;
        Ok(Self {
            object: object.clone(),
            storage: storage.clone(),
            catalog,
            components,
            settings: Settings::default(),
            watermark: watermark_of(&table)?,
            table,
            doubtful: false,
            sweep: Sweep::default(),
        })
    }

    /// The same archive with other settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The object whose log is archived here.
    #[must_use]
    pub fn object(&self) -> &ObjectId {
        &self.object
    }

    /// The address of the table.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.table.location
    }

    /// How far the log was archived when the table was last looked at. None before the first append.
    #[must_use]
    pub fn watermark(&self) -> Option<Mark> {
        self.watermark.map(|watermark| watermark.mark)
    }

    /// The log time of the newest archived record.
    #[must_use]
    pub fn valid_through(&self) -> Option<Timestamp> {
        self.watermark.and_then(|watermark| watermark.valid_through)
    }

    /// Looks at the table again and returns its watermark.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`], [`Error::Corrupt`] or [`Error::MarkConflict`].
    pub async fn refresh(&mut self) -> Result<Option<Mark>> {
        let table = self.catalog.reload(&self.table).await?;
        self.see(table)?;
        self.doubtful = false;
        Ok(self.watermark())
    }

    /// Takes a batch of the object's log: its records and the moved watermark become visible in one commit.
    ///
    /// `Ok` means durable. A batch whose records were all filtered away commits a snapshot without files, so that
    /// property and snapshot always say the same. An empty range commits nothing. Dropping the future leaves the
    /// table before or after the commit; the next call looks which.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the batch does not follow the watermark, with the one that counts now;
    /// [`Error::Row`] or [`Error::BadBatch`] when a record cannot be stored; [`Error::Unclear`], [`Error::Storage`]
    /// or [`Error::Contended`] when it may succeed if cut again after the watermark.
    pub async fn append(&mut self, batch: &Batch) -> Result<Appended> {
        if self.doubtful {
            self.refresh().await?;
        }
        self.admit(batch)?;
        self.check(batch)?;
        if batch.through.sequence == batch.after.sequence {
            return Ok(Appended { mark: batch.mark(), files: 0, rows: 0, bytes: 0 });
        }
        self.storage.probe(&self.components.entropy).await?;
        self.doubtful = true;
        let appended = self.append_admitted(batch).await?;
        self.doubtful = false;
        Ok(appended)
    }

    /// A scan of the table as it was last looked at. Later commits do not reach it.
    pub fn scan(&self) -> ScanBuilder {
        ScanBuilder::new(self.storage.clone(), self.table.clone())
    }

    pub(crate) fn table(&self) -> &Loaded {
        &self.table
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    fn admit(&self, batch: &Batch) -> Result<()> {
        let mark = self.watermark();
        admit(batch, mark.as_ref()).map_err(|source| Error::Refused {
            object: self.object.clone(),
            mark,
            source,
        })
    }

    /// What [`admit`] cannot know: whose log this is.
    fn check(&self, batch: &Batch) -> Result<()> {
        let bad = |sequence, reason| Err(Error::BadBatch { sequence, reason });
        if batch.sender != self.object {
            return bad(batch.after.sequence, "it comes from another object's log");
        }
        match batch.records.iter().find(|record| record.epoch != batch.epoch) {
            Some(record) => bad(record.sequence, "a record is of another epoch than its batch"),
            None => Ok(()),
        }
    }

    async fn append_admitted(&mut self, batch: &Batch) -> Result<Appended> {
        let addition = self.addition(batch).await?;
        let appended = Appended {
            mark: batch.mark(),
            files: addition.files.len(),
            rows: addition.rows(),
            bytes: addition.bytes(),
        };
        let manifest = addition.write_manifest(&self.storage, &self.table).await?;
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            let now = self.components.clock.now();
            let prepared =
                addition.prepare(&self.storage, &self.table, manifest.as_ref(), attempt, now).await?;
            let commit =
                self.catalog.commit(&self.table, prepared.updates, &prepared.requirements, now).await;
            let unclear = match commit {
                Ok(Commit::Done { table, hinted }) => {
                    self.see(table)?;
                    self.sweep(hinted).await;
                    return Ok(appended);
                }
                Ok(Commit::Lost) => None,
                Err(error @ Error::Unclear { .. }) => Some(error),
                Err(error) => return Err(error),
            };
            // Whoever took the number, only the table knows whether our commit is in it.
            let table = self.catalog.reload(&self.table).await?;
            self.see(table)?;
            if mutant!("append-repeated-blindly") {
                return Box::pin(self.append_admitted(batch)).await;
            }
            if self.table.metadata.snapshot_by_id(addition.snapshot_id).is_some() {
                reached!("append.found-its-own");
                return Ok(appended);
            }
            if !mutant!("lost-race-not-looked-at") {
                self.admit(batch)?;
            }
            if let Some(unclear) = unclear {
                return Err(unclear);
            }
        }
        Err(Error::Contended { location: self.table.location.clone(), attempts: COMMIT_ATTEMPTS_MAX })
    }

    /// Deletes a little of what nobody needs any more. What fails now is tried again after the next commit.
    async fn sweep(&mut self, hinted: bool) {
        // Other readers follow the hint: what it may still name stays.
        if hinted && !fault_point!("archive.swept-later") {
            drop(self.sweep.after_commit(&self.catalog, &self.storage, &self.table).await);
        }
    }

    async fn addition(&self, batch: &Batch) -> Result<Addition> {
        let entropy = &self.components.entropy;
        let (location, settings) = (self.table.location.clone(), self.settings.clone());
        let writer = DataFiles::new(self.storage.clone(), location, settings, entropy.clone())?;
        let spec_id = self.table.metadata.default_partition_spec_id();
        let files = writer.write(&batch.records, spec_id).await?;
        let records = batch.records.iter().filter(|_| !mutant!("newest-time-not-archived"));
        let newest = records.map(|record| record.timestamp).max();
        Ok(Addition {
            snapshot_id: self.snapshot_id(),
            uuid: Uuid::from_u128(entropy.u128()),
            files,
            first_sequence: batch.after.sequence.next(),
            watermark: Watermark { mark: batch.mark(), valid_through: newest.max(self.valid_through()) },
            snapshots_kept: self.settings.snapshots_kept,
        })
    }

    fn snapshot_id(&self) -> i64 {
        let draw = || i64::try_from(self.components.entropy.u64() >> 1).unwrap_or(i64::MAX);
        let taken = |id: i64| id == 0 || self.table.metadata.snapshot_by_id(id).is_some();
        std::iter::repeat_with(draw).find(|id| !taken(*id)).unwrap_or(i64::MAX)
    }

    fn see(&mut self, table: Loaded) -> Result<()> {
        if table.metadata.uuid() != self.table.metadata.uuid() {
            return Err(Error::NotATable {
                location: table.location,
                object: self.object.clone(),
                reason: "another table has taken its place since it was opened",
            });
        }
        self.watermark = watermark_of(&table)?;
        self.table = table;
        Ok(())
    }
}

async fn load(catalog: &FsCatalog, location: &str, object: &ObjectId) -> Result<Option<Loaded>> {
    let loaded = catalog.load(location).await;
    if let Err(Error::Storage { source, .. }) = &loaded
        && io_kind(source) == Some(ErrorKind::NotADirectory)
    {
        let (location, object) = (location.to_owned(), object.clone());
        return Err(Error::NotATable { location, object, reason: "a file is in the place of its folder" });
    }
    loaded
}

async fn create(
    catalog: &FsCatalog,
    storage: &Storage,
    location: String,
    object: &ObjectId,
    components: &Components,
) -> Result<Loaded> {
    let occupied = storage.any_below(&location).await?;
    if occupied {
        // Another process may have created the table since it was looked for.
        return load(catalog, &location, object).await?.ok_or_else(|| Error::NotATable {
            location: location.clone(),
            object: object.clone(),
            reason: "its folder has files but no table metadata",
        });
    }
    let properties = vec![
        (OBJECT.to_owned(), object.as_str().to_owned()),
        ("write.parquet.compression-codec".to_owned(), "zstd".to_owned()),
        versions_max(),
    ];
    let uuid = Uuid::from_u128(components.entropy.u128());
    let metadata = new_table(location.clone(), uuid, properties)?;
    match catalog.create(metadata, components.clock.now()).await? {
        Commit::Done { table, .. } => Ok(table),
        Commit::Lost => load(catalog, &location, object).await?.ok_or(Error::NotFound { location }),
    }
}
