//! Snapshots: manifest, manifest list and summary of one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cdc_model::{Sequence, Timestamp};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, MAIN_BRANCH, Manifest, ManifestContentType, ManifestFile, ManifestList, ManifestListWriter,
    ManifestWriterBuilder, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary,
};
use iceberg::{TableRequirement, TableUpdate};
use uuid::Uuid;

use crate::catalog::{FsCatalog, Loaded};
use crate::mark::{FIRST_SEQUENCE, Watermark, watermark_of};
use crate::retention::{VERSIONS_MAX, removals, versions_max};
use crate::select::sequence_bounds;
use crate::{Error, Result, Storage};

/// Manifests read at the same time.
const MANIFESTS_AT_ONCE: usize = 8;
/// The table library's name for "inherit it from the manifest".
const INHERITED: i64 = -1;
const LIST: &str = "a manifest list";

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
        let path = format!("{}/metadata/{}-m0.avro", table.location, self.uuid);
        let metadata = &table.metadata;
        let mut writer = ManifestWriterBuilder::new(
            storage.output(&path),
            Some(self.snapshot_id),
            Arc::clone(metadata.current_schema()),
            metadata.default_partition_spec().as_ref().clone(),
        )
        .build_v2_data();
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
        writer
            .add_manifests(kept.into_iter().chain(added.cloned()))
            .map_err(Error::table("add manifests to a list"))?;
        writer.close().await.map_err(Error::table("write a manifest list"))?;
        let snapshot = Snapshot::builder()
            .with_manifest_list(list)
            .with_snapshot_id(self.snapshot_id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(sequence_number)
            .with_summary(self.summary(table))
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
        self.watermark.to_pairs().into_iter().chain((!has_max).then(versions_max)).collect()
    }

    fn summary(&self, table: &Loaded) -> Summary {
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
        Summary { operation: Operation::Append, additional_properties: properties.into_iter().collect() }
    }
}

/// The manifests of the current snapshot that still list files.
async fn manifests(storage: &Storage, table: &Loaded) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = table.metadata.current_snapshot() else {
        return Ok(Vec::new());
    };
    let list = snapshot.manifest_list();
    let bytes =
        storage.read(list).await?.ok_or_else(|| Error::corrupt(list, LIST)("it is missing".into()))?;
    let parsed = ManifestList::parse_with_version(&bytes, table.metadata.format_version())
        .map_err(|source| Error::corrupt(list, LIST)(source.into()))?;
    let live = |manifest: &ManifestFile| manifest.has_added_files() || manifest.has_existing_files();
    Ok(parsed.consume_entries().into_iter().filter(live).collect())
}

/// The data files of the current snapshot, in no particular order.
pub(crate) async fn data_files(storage: &Storage, table: &Loaded) -> Result<Vec<DataFile>> {
    match listed_files(storage, table).await {
        Ok(files) => Ok(files),
        Err(error) => files_since_expired(storage, table, error).await,
    }
}

/// The files of a snapshot that has expired since the table was looked at, from the one that is now the newest.
///
/// Files are only ever added and each lies on one side of a mark, so the newer ones up to the older mark are the
/// older ones.
async fn files_since_expired(storage: &Storage, table: &Loaded, error: Error) -> Result<Vec<DataFile>> {
    let newest = FsCatalog::new(storage.clone()).reload(table).await?;
    let same = newest.metadata.uuid() == table.metadata.uuid() && newest.version > table.version;
    let current = table.metadata.current_snapshot_id();
    let expired = current.is_some_and(|id| same && newest.metadata.snapshot_by_id(id).is_none());
    let Some(watermark) = watermark_of(table)?.filter(|_| expired) else {
        return Err(error);
    };
    let files = listed_files(storage, &newest).await?;
    Ok(files.into_iter().filter(|file| sequence_bounds(file).1 <= watermark.mark.sequence).collect())
}

async fn listed_files(storage: &Storage, table: &Loaded) -> Result<Vec<DataFile>> {
    let io = storage.file_io();
    let manifests = manifests(storage, table).await?;
    if let Some(deletes) = manifests.iter().find(|manifest| manifest.content == ManifestContentType::Deletes)
    {
        let source = "delete files are not read; compact the table with the engine that wrote them".into();
        return Err(Error::corrupt(&deletes.manifest_path, "a manifest of data files")(source));
    }
    let loads = manifests.into_iter().map(move |manifest| load(manifest, io.clone()));
    let loaded: Vec<_> = stream::iter(loads).buffered(MANIFESTS_AT_ONCE).try_collect().await?;
    let entries = loaded.iter().flat_map(|manifest| manifest.entries());
    Ok(entries.filter(|entry| entry.is_alive()).map(|entry| entry.data_file().clone()).collect())
}

async fn load(manifest: ManifestFile, io: FileIO) -> Result<Manifest> {
    let loaded = manifest.load_manifest(&io).await.map_err(Error::table("read a manifest"));
    loaded.map_err(|error| error.of_file(&manifest.manifest_path, "a manifest"))
}
