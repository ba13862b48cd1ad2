//! Manifests: what their names tell, which are opened, and which become one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cdc_model::{Sequence, Timestamp, mutant};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestList,
    ManifestWriter, ManifestWriterBuilder,
};
use uuid::Uuid;

use crate::catalog::Loaded;
use crate::select::{sequence_bounds, time_bounds};
use crate::{Error, Result, Storage};

/// More manifests than this with about as many files each become one. So a list has that many for each power of it.
pub(crate) const MERGED_BEYOND: usize = 50;
/// Manifests that are this large stay as they are.
const LARGE_BYTES: i64 = 4 << 20;
/// What one merge reads at most; bounds the time of the commit that does it.
const MERGED_BYTES_MAX: i64 = 8 << 20;
/// Manifests read at the same time.
const MANIFESTS_AT_ONCE: usize = 8;
const LIST: &str = "a manifest list";
const PREFIX: &str = "r";

/// What the name of a manifest tells about the rows in it. Lists have no room for it, and reading a list is cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    pub(crate) oldest: Timestamp,
    pub(crate) newest: Timestamp,
    pub(crate) bytes: u64,
}

impl Facts {
    /// None when there is no file, or one without bounds.
    pub(crate) fn of<'a>(files: impl Iterator<Item = &'a DataFile>) -> Option<Self> {
        files.map(Self::of_file).reduce(|all, one| Some(all?.with(one?)))?
    }

    fn of_file(file: &DataFile) -> Option<Self> {
        let (first, last) = sequence_bounds(file);
        let (oldest, newest) = time_bounds(file)?;
        let bounded = first > Sequence::ZERO && last < Sequence::MAX;
        bounded.then_some(Self { first, last, oldest, newest, bytes: file.file_size_in_bytes() })
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            oldest: self.oldest.min(other.oldest),
            newest: self.newest.max(other.newest),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Those in a manifest's name; none in the names that others give.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let parts: Vec<&str> = name.split('.').collect();
        let [PREFIX, first, last, oldest, newest, bytes, _, "avro"] = parts.as_slice() else { return None };
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            oldest: Timestamp::new(oldest.parse().ok()?),
            newest: Timestamp::new(newest.parse().ok()?),
            bytes: bytes.parse().ok()?,
        })
    }
}

/// Where a manifest of these files is written.
pub(crate) fn path<'a>(
    table: &Loaded,
    uuid: Uuid,
    number: u32,
    files: impl Iterator<Item = &'a DataFile>,
) -> String {
    let folder = format!("{}/metadata", table.location);
    match Facts::of(files) {
        Some(Facts { first, last, oldest, newest, bytes }) => {
            let (oldest, newest) = (oldest.get(), newest.get());
            format!("{folder}/{PREFIX}.{first}.{last}.{oldest}.{newest}.{bytes}.{uuid}-m{number}.avro")
        }
        None => format!("{folder}/{uuid}-m{number}.avro"),
    }
}

/// A writer of a manifest of data files, which the snapshot adds.
pub(crate) fn writer(storage: &Storage, table: &Loaded, path: &str, snapshot_id: i64) -> ManifestWriter {
    let metadata = &table.metadata;
    let spec = metadata.default_partition_spec().as_ref().clone();
    let schema = Arc::clone(metadata.current_schema());
    ManifestWriterBuilder::new(storage.output(path), Some(snapshot_id), schema, spec).build_v2_data()
}

/// The manifests of the current snapshot that still list files.
pub(crate) async fn manifests(storage: &Storage, table: &Loaded) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = table.metadata.current_snapshot() else {
        return Ok(Vec::new());
    };
    let list = snapshot.manifest_list();
    let listed = listed(storage, list, table.metadata.format_version()).await?;
    let manifests = listed.ok_or_else(|| Error::corrupt(list, LIST)("it is missing".into()))?;
    let live = |manifest: &ManifestFile| manifest.has_added_files() || manifest.has_existing_files();
    Ok(manifests.into_iter().filter(live).collect())
}

/// All manifests in a list; none when it is gone.
pub(crate) async fn listed(
    storage: &Storage,
    list: &str,
    format: FormatVersion,
) -> Result<Option<Vec<ManifestFile>>> {
    let Some(bytes) = storage.read(list).await? else { return Ok(None) };
    let parsed = ManifestList::parse_with_version(&bytes, format)
        .map_err(|source| Error::corrupt(list, LIST)(source.into()))?;
    Ok(Some(parsed.consume_entries().into_iter().collect()))
}

/// The live entries of these manifests.
pub(crate) async fn entries(
    storage: &Storage,
    manifests: Vec<ManifestFile>,
) -> Result<Vec<ManifestEntryRef>> {
    let io = storage.file_io();
    let loads = manifests.into_iter().map(move |manifest| load(manifest, io.clone()));
    let loaded: Vec<Manifest> = stream::iter(loads).buffered(MANIFESTS_AT_ONCE).try_collect().await?;
    let entries = loaded.into_iter().flat_map(|manifest| manifest.into_parts().0);
    Ok(entries.filter(|entry| entry.is_alive()).collect())
}

async fn load(manifest: ManifestFile, io: FileIO) -> Result<Manifest> {
    let loaded = manifest.load_manifest(&io).await.map_err(Error::table("read a manifest"));
    loaded.map_err(|error| error.of_file(&manifest.manifest_path, "a manifest"))
}

/// How many files and rows a manifest lists; none when the list does not tell.
pub(crate) fn counts(manifest: &ManifestFile) -> Option<(usize, u64)> {
    let files = manifest.added_files_count?.checked_add(manifest.existing_files_count?)?;
    let rows = manifest.added_rows_count?.checked_add(manifest.existing_rows_count?)?;
    Some((usize::try_from(files).ok()?, rows))
}

/// The manifests that are to become one: the oldest of those with about as many files each, if there are too many.
fn to_merge(manifests: &[ManifestFile], spec_id: i32) -> BTreeSet<&str> {
    let mut by_size: BTreeMap<u32, Vec<&ManifestFile>> = BTreeMap::new();
    for manifest in manifests {
        let ours = manifest.content == ManifestContentType::Data
            && manifest.partition_spec_id == spec_id
            && manifest.key_metadata.is_none()
            && manifest.manifest_length < LARGE_BYTES;
        if let Some((files, _)) = counts(manifest).filter(|_| ours) {
            by_size.entry(files.max(1).ilog(MERGED_BEYOND)).or_default().push(manifest);
        }
    }
    let Some(mut alike) = by_size.into_values().find(|alike| alike.len() > MERGED_BEYOND) else {
        return BTreeSet::new();
    };
    alike.sort_by_key(|manifest| manifest.sequence_number);
    let mut bytes = 0;
    let fits = alike.into_iter().take_while(|manifest| {
        bytes += manifest.manifest_length;
        bytes <= MERGED_BYTES_MAX
    });
    fits.map(|manifest| manifest.manifest_path.as_str()).collect()
}

/// The manifests for the next snapshot's list, some of them merged if they are too many; then also how many were.
///
/// Merging only makes lists shorter: if it fails, the list stays as long as it was.
pub(crate) async fn merged(
    storage: &Storage,
    table: &Loaded,
    manifests: Vec<ManifestFile>,
    snapshot_id: i64,
    (uuid, number): (Uuid, u32),
) -> (Vec<ManifestFile>, usize) {
    let chosen: BTreeSet<String> = to_merge(&manifests, table.metadata.default_partition_spec_id())
        .into_iter()
        .map(str::to_owned)
        .collect();
    if chosen.len() < 2 {
        return (manifests, 0);
    }
    let (old, kept): (Vec<_>, Vec<_>) =
        manifests.iter().cloned().partition(|manifest| chosen.contains(&manifest.manifest_path));
    match merge(storage, table, old, snapshot_id, (uuid, number)).await {
        Ok(_) if mutant!("merged-manifest-not-listed") => (kept, 0),
        Ok(merged) => ([merged].into_iter().chain(kept).collect(), chosen.len()),
        Err(_) => (manifests, 0),
    }
}

/// Writes one manifest with the entries of all of these: the snapshots that added their files stay the same.
async fn merge(
    storage: &Storage,
    table: &Loaded,
    manifests: Vec<ManifestFile>,
    snapshot_id: i64,
    (uuid, number): (Uuid, u32),
) -> Result<ManifestFile> {
    let failed = || Error::table("merge manifests");
    let entries = entries(storage, manifests).await?;
    let path = path(table, uuid, number, entries.iter().map(|entry| entry.data_file()));
    let mut writer = writer(storage, table, &path, snapshot_id);
    for entry in entries {
        let (Some(added_by), Some(sequence)) = (entry.snapshot_id(), entry.sequence_number()) else {
            return Err(Error::corrupt(&path, "a manifest")("a file was added by no snapshot".into()));
        };
        let file_sequence = entry.file_sequence_number;
        let file = entry.data_file().clone();
        writer.add_existing_file(file, added_by, sequence, file_sequence).map_err(failed())?;
    }
    writer.write_manifest_file().await.map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_tell_facts() {
        let uuid = "4639b344-e94f-82a0-e471-2cfe6899feb5";
        let facts = Facts {
            first: Sequence::new(7),
            last: Sequence::new(90),
            oldest: Timestamp::new(-5),
            newest: Timestamp::new(1_705_276_800_000),
            bytes: 12,
        };
        for (name, expected) in [
            (format!("r.7.90.-5.1705276800000.12.{uuid}-m0.avro"), Some(facts)),
            (format!("file:///w.x/metadata/r.7.90.-5.1705276800000.12.{uuid}-m3.avro"), Some(facts)),
            (format!("{uuid}-m0.avro"), None),
            (format!("r.7.90.-5.1705276800000.{uuid}-m0.avro"), None),
            (format!("r.7.x.-5.1705276800000.12.{uuid}-m0.avro"), None),
            (format!("r.7.90.-5.1705276800000.12.{uuid}-m0.avro.1"), None),
        ] {
            assert_eq!(Facts::parse(&name), expected, "{name}");
        }
    }
}
