//! Snapshots: manifest, manifest list and summary of one commit.

use std::collections::{BTreeMap, BTreeSet};

use cdc_model::{Sequence, Timestamp, mutant};
use iceberg::spec::{
    DataFile, MAIN_BRANCH, ManifestContentType, ManifestFile, ManifestListWriter, Operation, Snapshot,
    SnapshotReference, SnapshotRetention, Summary,
};
use iceberg::{TableRequirement, TableUpdate};
use uuid::Uuid;

use crate::catalog::{FsCatalog, Loaded};
use crate::manifest::{self, Facts, counts, manifests};
use crate::mark::{FIRST_SEQUENCE, Watermark, watermark_of};
use crate::retention::{VERSIONS_MAX, removals, versions_max};
use crate::select::sequence_bounds;
use crate::{Error, Result, Storage};

/// The table library's name for "inherit it from the manifest".
const INHERITED: i64 = -1;
/// How many manifests of its parent a snapshot has merged into one; in the summaries of those that did.
pub(crate) const MANIFESTS_REPLACED: &str = "manifests-replaced";

/// What one append adds, on whatever version it lands.
#[derive(Debug)]
pub(crate) struct Addition {
    pub(crate) snapshot_id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) files: Vec<DataFile>,
    pub(crate) first_sequence: Sequence,
    pub(crate) watermark: Watermark,
    pub(crate) snapshots_kept: usize,
}

/// A snapshot ready to commit on one version.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) updates: Vec<TableUpdate>,
    pub(crate) requirements: Vec<TableRequirement>,
}

impl Addition {
    pub(crate) fn rows(&self) -> u64 {
        self.files.iter().map(DataFile::record_count).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(DataFile::file_size_in_bytes).sum()
    }

    /// Writes the manifest of the added files; it serves every attempt. None when there are no files.
    pub(crate) async fn write_manifest(
        &self,
        storage: &Storage,
        table: &Loaded,
    ) -> Result<Option<ManifestFile>> {
        if self.files.is_empty() {
            return Ok(None);
        }
        let path = manifest::path(table, self.uuid, 0, self.files.iter());
        let mut writer = manifest::writer(storage, table, &path, self.snapshot_id);
        for file in &self.files {
            writer.add_file(file.clone(), INHERITED).map_err(Error::table("add a file to a manifest"))?;
        }
        writer.write_manifest_file().await.map(Some).map_err(Error::table("write a manifest"))
    }

    /// Writes the manifest list for landing on `table` and composes the commit.
    pub(crate) async fn prepare(
        &self,
        storage: &Storage,
        table: &Loaded,
        added: Option<&ManifestFile>,
        attempt: u32,
        now: Timestamp,
    ) -> Result<Prepared> {
        let metadata = &table.metadata;
        let parent = metadata.current_snapshot_id();
        let sequence_number = metadata.next_sequence_number();
        let list =
            format!("{}/metadata/snap-{}-{attempt}-{}.avro", table.location, self.snapshot_id, self.uuid);
        let output = storage.output(&list).writer().await.map_err(Error::table("write a manifest list"))?;
        let mut writer = ManifestListWriter::v2(output, self.snapshot_id, parent, sequence_number);
        let kept = manifests(storage, table).await?;
        let name = (self.uuid, attempt + 1);
        let (kept, replaced) = manifest::merged(storage, table, kept, self.snapshot_id, name).await;
        let created = usize::from(replaced > 0) + added.iter().count();
        let merge = (replaced > 0).then(|| (created, kept.len() - usize::from(replaced > 0), replaced));
        writer
            .add_manifests(kept.into_iter().chain(added.cloned()))
            .map_err(Error::table("add manifests to a list"))?;
        writer.close().await.map_err(Error::table("write a manifest list"))?;
        let snapshot = Snapshot::builder()
            .with_manifest_list(list)
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence_number)
            .with_summary(self.summary(table, merge))
            .with_schema_id(metadata.current_schema_id())
            // A clock that went backwards must not stop archiving: the library refuses older snapshots.
            .with_timestamp_ms(now.get().max(metadata.last_updated_ms()))
            .build();
        let retention = SnapshotRetention::branch(None, None, None);
        let reference = SnapshotReference::new(self.snapshot_id, retention);
        let mut updates = vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference },
        ];
        updates.extend(removals(table, self.snapshots_kept));
        updates.push(TableUpdate::SetProperties { updates: self.properties(table).into_iter().collect() });
        Ok(Prepared {
            updates,
            requirements: vec![
                TableRequirement::UuidMatch { uuid: metadata.uuid() },
                TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id: parent },
            ],
        })
    }

    fn properties(&self, table: &Loaded) -> Vec<(String, String)> {
        let has_max = table.metadata.properties().contains_key(VERSIONS_MAX);
        let mark = self.watermark.to_pairs().into_iter().filter(|_| !mutant!("mark-not-in-property"));
        mark.chain((!has_max).then(versions_max)).collect()
    }

    fn summary(&self, table: &Loaded, merge: Option<(usize, usize, usize)>) -> Summary {
        let (rows, bytes) = (self.rows(), self.bytes());
        let files = self.files.iter().map(|_| 1_u64).sum::<u64>();
        let days: BTreeSet<String> =
            self.files.iter().map(|file| format!("{:?}", file.partition())).collect();
        let previous =
            table.metadata.current_snapshot().map(|snapshot| &snapshot.summary().additional_properties);
        let total = |key: &str, added: u64| {
            let before = previous.and_then(|summary| summary.get(key)?.parse::<u64>().ok()).unwrap_or(0);
            (key.to_owned(), before.saturating_add(added).to_string())
        };
        let mut properties: BTreeMap<String, String> = self.watermark.to_pairs().into_iter().collect();
        properties.insert(FIRST_SEQUENCE.to_owned(), self.first_sequence.to_string());
        properties.extend([
            ("added-data-files".to_owned(), files.to_string()),
            ("added-records".to_owned(), rows.to_string()),
            ("added-files-size".to_owned(), bytes.to_string()),
            ("changed-partition-count".to_owned(), days.len().to_string()),
            total("total-data-files", files),
            total("total-records", rows),
            total("total-files-size", bytes),
            total("total-delete-files", 0),
            total("total-position-deletes", 0),
            total("total-equality-deletes", 0),
        ]);
        if let Some((created, kept, replaced)) = merge {
            properties.extend([
                ("manifests-created".to_owned(), created.to_string()),
                ("manifests-kept".to_owned(), kept.to_string()),
                (MANIFESTS_REPLACED.to_owned(), replaced.to_string()),
            ]);
        }
        Summary { operation: Operation::Append, additional_properties: properties.into_iter().collect() }
    }
}

/// The current snapshot's files, as far as they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Files of the manifests that were opened, in no particular order.
    pub(crate) files: Vec<DataFile>,
    /// What the list and the names tell about the manifests that were not.
    pub(crate) closed: Closed,
}

/// What is in manifests that were not opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Closed {
    pub(crate) files: usize,
    pub(crate) rows: u64,
    pub(crate) facts: Option<Facts>,
}

impl Closed {
    fn add(&mut self, (files, rows): (usize, u64), facts: Option<Facts>) {
        self.files += files;
        self.rows += rows;
        self.facts = match (self.facts, facts) {
            (Some(all), Some(one)) => Some(all.with(one)),
            (one, None) | (None, one) => one,
        };
    }
}

/// The files of the current snapshot, but for manifests that `open` leaves closed because the list says enough.
pub(crate) async fn listing(
    storage: &Storage,
    table: &Loaded,
    open: impl Fn(&ManifestFile) -> bool,
) -> Result<Listing> {
    match current_listing(storage, table, open).await {
        Ok(listing) => Ok(listing),
        Err(error) => listing_since_expired(storage, table, error).await,
    }
}

/// The files of a snapshot that has expired since the table was looked at, from the one that is now the newest.
///
/// Files are only ever added and each lies on one side of a mark, so the newer ones up to the older mark are the
/// older ones.
async fn listing_since_expired(storage: &Storage, table: &Loaded, error: Error) -> Result<Listing> {
    let newest = FsCatalog::new(storage.clone()).reload(table).await?;
    let same = newest.metadata.uuid() == table.metadata.uuid() && newest.version > table.version;
    let current = table.metadata.current_snapshot_id();
    let expired = current.is_some_and(|id| same && newest.metadata.snapshot_by_id(id).is_none());
    let Some(watermark) = watermark_of(table)?.filter(|_| expired) else {
        return Err(error);
    };
    let mark = watermark.mark.sequence;
    let open = |manifest: &ManifestFile| {
        Facts::parse(&manifest.manifest_path).is_none_or(|facts| facts.first <= mark)
    };
    let files = current_listing(storage, &newest, open).await?.files;
    let files = files.into_iter().filter(|file| sequence_bounds(file).1 <= mark).collect();
    Ok(Listing { files, closed: Closed::default() })
}

async fn current_listing(
    storage: &Storage,
    table: &Loaded,
    open: impl Fn(&ManifestFile) -> bool,
) -> Result<Listing> {
    let (mut opened, mut closed) = (Vec::new(), Closed::default());
    for manifest in manifests(storage, table).await? {
        if manifest.content == ManifestContentType::Deletes {
            let source =
                "delete files are not read; compact the table with the engine that wrote them".into();
            return Err(Error::corrupt(&manifest.manifest_path, "a manifest of data files")(source));
        }
        match counts(&manifest).filter(|_| !open(&manifest)) {
            Some(counts) => closed.add(counts, Facts::parse(&manifest.manifest_path)),
            None => opened.push(manifest),
        }
    }
    let entries = manifest::entries(storage, opened).await?;
    Ok(Listing { files: entries.iter().map(|entry| entry.data_file().clone()).collect(), closed })
}
