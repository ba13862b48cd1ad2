//! Tables as numbered metadata files: `tables/{doId}/metadata/vN.metadata.json`.
//!
//! A commit creates the file with the next number if it is absent; the store decides who wins. `version-hint.text`
//! is written for other readers and never trusted: the newest version is found by probing forward or by listing.
//!
//! Old versions are deleted in ascending order, the newest [`VERSIONS_KEPT`] before the current one never. A number
//! that was deleted could be created again by someone who looked before; so a commit counts only if the version it
//! builds on is still there, and a version is taken for the newest only if the one before it is there, or by listing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use cdc_model::{ObjectId, Timestamp, fault_point, mutant, reached};
use iceberg::spec::{MAIN_BRANCH, TableMetadata, TableMetadataBuilder};
use iceberg::{TableRequirement, TableUpdate};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Cause;
use crate::storage::Put;
use crate::{Error, Result, Storage};

const HINT: &str = "version-hint.text";
/// A hint that is further behind than this is given up in favour of a listing.
const PROBE_MAX: u64 = 16;
/// How often an unanswered create is repeated. Repeating is safe: only one create can succeed.
const CREATE_ATTEMPTS_MAX: u32 = 3;
/// How often a version that was deleted between finding and reading it is looked for again.
const LOAD_ATTEMPTS_MAX: u32 = 4;
/// Versions kept before the newest one. Bounds the folder, and is how far behind a reader or writer may fall between
/// two looks before it has to find its way by listing.
pub(crate) const VERSIONS_KEPT: u64 = 100;
const EXPECTED: &str = "Iceberg table metadata";

/// The tables of one warehouse.
#[derive(Clone, Debug)]
pub(crate) struct FsCatalog {
    storage: Storage,
}

/// One version of a table's metadata.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) version: u64,
    pub(crate) location: String,
    pub(crate) metadata: Arc<TableMetadata>,
    /// Snapshots that tags and other branches point to; the library does not tell.
    pub(crate) referenced: Arc<BTreeSet<i64>>,
}

/// What a version's file says about snapshots, without what the library needs for a whole table.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    #[serde(default)]
    pub(crate) snapshots: Vec<NamedSnapshot>,
    #[serde(default)]
    refs: BTreeMap<String, NamedRef>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct NamedSnapshot {
    pub(crate) snapshot_id: i64,
    pub(crate) parent_snapshot_id: Option<i64>,
    #[serde(default)]
    pub(crate) sequence_number: i64,
    #[serde(default)]
    pub(crate) manifest_list: String,
    #[serde(default)]
    pub(crate) summary: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct NamedRef {
    snapshot_id: i64,
}

/// How a commit that got an answer ended.
#[derive(Debug)]
pub(crate) enum Commit {
    /// It is the table's next version.
    Done {
        table: Loaded,
        /// The hint names it now.
        hinted: bool,
    },
    /// Another commit took that number.
    Lost,
}

impl Loaded {
    /// Where this version's metadata lies.
    pub(crate) fn file(&self) -> String {
        version_file(&self.location, self.version)
    }
}

impl FsCatalog {
    pub(crate) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    pub(crate) fn table_location(&self, object: &ObjectId) -> String {
        format!("{}/tables/{}", self.storage.base(), object.file_name())
    }

    /// The newest version, or none when there is no table.
    pub(crate) async fn load(&self, location: &str) -> Result<Option<Loaded>> {
        let hint = self.hint(location).await?;
        match self.newest(location, hint).await? {
            Some(version) => self.load_newest(location, version).await.map(Some),
            None => Ok(None),
        }
    }

    /// The newest version, given that `known` existed.
    pub(crate) async fn reload(&self, known: &Loaded) -> Result<Loaded> {
        let hint = self.hint(&known.location).await?.unwrap_or(0).max(known.version);
        let newest = self.newest(&known.location, Some(hint)).await?.unwrap_or(known.version);
        if newest == known.version {
            return Ok(known.clone());
        }
        self.load_newest(&known.location, newest).await
    }

    /// Makes the hint say what `table` is, if it does not. It is only a hint, so failing is no failure.
    pub(crate) async fn repair_hint(&self, table: &Loaded) {
        if matches!(self.hint(&table.location).await, Ok(hint) if hint != Some(table.version)) {
            self.write_hint(&table.location, table.version).await;
        }
    }

    /// Makes `metadata` the first version of a table that does not exist.
    pub(crate) async fn create(&self, metadata: TableMetadata, now: Timestamp) -> Result<Commit> {
        let location = metadata.location().to_owned();
        let metadata = Arc::new(stamped(&metadata, now)?);
        self.publish(Loaded { version: 1, location, metadata, referenced: Arc::default() }).await
    }

    /// Applies `updates` to `base` and makes the result the next version, if `base` is still the newest.
    ///
    /// `requirements` are checked against `base`: as long as nobody else takes the next number, `base` is what the
    /// commit lands on, so nothing can slip in between the check and the commit.
    pub(crate) async fn commit(
        &self,
        base: &Loaded,
        updates: Vec<TableUpdate>,
        requirements: &[TableRequirement],
        now: Timestamp,
    ) -> Result<Commit> {
        for requirement in requirements {
            requirement.check(Some(&base.metadata)).map_err(Error::table("meet a commit's requirement"))?;
        }
        let has_snapshot = updates.iter().any(|update| matches!(update, TableUpdate::AddSnapshot { .. }));
        let mut builder =
            TableMetadataBuilder::new_from_metadata(base.metadata.as_ref().clone(), Some(base.file()));
        for update in updates {
            builder = update.apply(builder).map_err(Error::table("apply a table update"))?;
        }
        let mut metadata = builder.build().map_err(Error::table("build table metadata"))?.metadata;
        if !has_snapshot {
            metadata = stamped(&metadata, now)?;
        }
        self.publish(Loaded {
            version: base.version + 1,
            location: base.location.clone(),
            metadata: Arc::new(metadata),
            referenced: Arc::clone(&base.referenced),
        })
        .await
    }

    async fn publish(&self, next: Loaded) -> Result<Commit> {
        let bytes = Bytes::from(encode(&next.metadata)?);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let created = match mutant!("metadata-overwritten") {
                true => self.storage.overwrite(&next.file(), bytes.clone()).await.map(|()| Put::Created),
                false => self.storage.create(&next.file(), bytes.clone()).await,
            };
            match created {
                Ok(Put::Created) => return self.confirm(next).await,
                Ok(Put::Exists) if mutant!("lost-commit-believed") => return self.confirm(next).await,
                Ok(Put::Exists) => return self.compare(next, &bytes).await,
                Err(Error::Storage { retryable: true, .. }) if attempts < CREATE_ATTEMPTS_MAX => {
                    reached!("commit.created-again");
                }
                Err(error @ Error::Storage { retryable: true, .. }) => return Err(unclear(&next, error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The version exists: it is ours if it says what we wrote, for an unanswered write may have taken place.
    async fn compare(&self, next: Loaded, ours: &Bytes) -> Result<Commit> {
        match self.storage.read(&next.file()).await {
            Ok(Some(found)) if found == *ours => {
                reached!("commit.found-its-own");
                self.confirm(next).await
            }
            Ok(_) => {
                reached!("commit.lost");
                Ok(Commit::Lost)
            }
            Err(error) => Err(unclear(&next, error)),
        }
    }

    /// The file is there and ours. It is a commit only if its number was not used and deleted long ago.
    async fn confirm(&self, next: Loaded) -> Result<Commit> {
        match self.follows(&next.location, next.version).await {
            Ok(true) => {
                let hinted = self.write_hint(&next.location, next.version).await;
                Ok(Commit::Done { table: next, hinted })
            }
            Ok(false) => {
                // Nobody builds on it: whoever finds it looks for the version before it.
                drop(self.storage.delete(&next.file()).await);
                Ok(Commit::Lost)
            }
            Err(error) => Err(unclear(&next, error)),
        }
    }

    /// Whether the version before this one is there; for the first, whether the next one is, if there are others.
    async fn follows(&self, location: &str, version: u64) -> Result<bool> {
        if version > 1 {
            return self.exists(location, version - 1).await;
        }
        let versions = self.versions(location).await?;
        Ok(versions.last().is_none_or(|newest| *newest <= version) || versions.contains(&(version + 1)))
    }

    /// A hint that cannot be written only costs the next reader a listing; the commit stands.
    async fn write_hint(&self, location: &str, version: u64) -> bool {
        if fault_point!("archive.hint-not-written") {
            return false;
        }
        let hint = Bytes::from(version.to_string());
        self.storage.overwrite(&format!("{location}/metadata/{HINT}"), hint).await.is_ok()
    }

    async fn hint(&self, location: &str) -> Result<Option<u64>> {
        let bytes = self.storage.read(&format!("{location}/metadata/{HINT}")).await?;
        let text = bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    async fn newest(&self, location: &str, hint: Option<u64>) -> Result<Option<u64>> {
        let Some(hint) = hint else {
            return self.newest_listed(location).await;
        };
        if !self.exists(location, hint).await? {
            return self.newest_listed(location).await;
        }
        if mutant!("hint-trusted") {
            return Ok(Some(hint));
        }
        for version in hint..hint.saturating_add(PROBE_MAX) {
            if !self.exists(location, version + 1).await? {
                if self.follows(location, version).await? {
                    return Ok(Some(version));
                }
                break;
            }
        }
        self.newest_listed(location).await
    }

    async fn exists(&self, location: &str, version: u64) -> Result<bool> {
        Ok(self.storage.size(&version_file(location, version)).await?.is_some())
    }

    async fn newest_listed(&self, location: &str) -> Result<Option<u64>> {
        reached!("table.found-by-listing");
        Ok(self.versions(location).await?.last().copied())
    }

    /// The versions that have a file.
    pub(crate) async fn versions(&self, location: &str) -> Result<BTreeSet<u64>> {
        let names = self.storage.names(&format!("{location}/metadata")).await?;
        Ok(names.iter().filter_map(|name| version_of(name)).collect())
    }

    /// The snapshots that a version names; none when it is gone or not readable.
    pub(crate) async fn named(&self, location: &str, version: u64) -> Result<Option<Vec<NamedSnapshot>>> {
        let bytes = self.storage.read(&version_file(location, version)).await?;
        let named = bytes.and_then(|bytes| serde_json::from_slice::<Named>(&bytes).ok());
        Ok(named.map(|named| named.snapshots))
    }

    /// Reads the version that was found to be the newest, or if it has been deleted since, the one that is now.
    async fn load_newest(&self, location: &str, found: u64) -> Result<Loaded> {
        let mut version = found;
        for _ in 1..LOAD_ATTEMPTS_MAX {
            match self.load_version(location, version).await {
                Err(Error::NotFound { .. }) => {
                    version = self.newest_listed(location).await?.unwrap_or(version);
                }
                loaded => return loaded,
            }
        }
        self.load_version(location, version).await
    }

    async fn load_version(&self, location: &str, version: u64) -> Result<Loaded> {
        let file = version_file(location, version);
        let bytes =
            self.storage.read(&file).await?.ok_or_else(|| Error::NotFound { location: file.clone() })?;
        let corrupt = |source: serde_json::Error| Error::corrupt(&file, EXPECTED)(source.into());
        let metadata: TableMetadata = serde_json::from_slice(&bytes).map_err(corrupt)?;
        let named: Named = serde_json::from_slice(&bytes).map_err(corrupt)?;
        let others = named.refs.iter().filter(|(name, _)| *name != MAIN_BRANCH);
        Ok(Loaded {
            version,
            location: location.to_owned(),
            metadata: Arc::new(metadata),
            referenced: Arc::new(others.map(|(_, reference)| reference.snapshot_id).collect()),
        })
    }
}

fn unclear(next: &Loaded, error: Error) -> Error {
    reached!("commit.unclear");
    Error::Unclear { location: next.location.clone(), version: next.version, source: Box::new(error) }
}

pub(crate) fn version_file(location: &str, version: impl Display) -> String {
    format!("{location}/metadata/v{version}.metadata.json")
}

pub(crate) fn version_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix('v')?.strip_suffix(".metadata.json")?;
    // The last number could not be followed by another.
    number.parse().ok().filter(|version| *version < u64::MAX)
}

/// The metadata's bytes, the same each time: the library keeps its lists and maps in random order.
fn encode(metadata: &TableMetadata) -> Result<Vec<u8>> {
    let mut json = to_json(metadata)?;
    for (list, key) in [
        ("snapshots", "sequence-number"),
        ("schemas", "schema-id"),
        ("partition-specs", "spec-id"),
        ("sort-orders", "order-id"),
    ] {
        if let Some(list) = json.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(|item| item.get(key).and_then(Value::as_i64));
        }
    }
    serde_json::to_vec(&json).map_err(|source| unencodable(source.into()))
}

/// The library stamps the machine's time on metadata without a new snapshot; time comes from the caller here.
fn stamped(metadata: &TableMetadata, now: Timestamp) -> Result<TableMetadata> {
    let mut json = to_json(metadata)?;
    if let Some(members) = json.as_object_mut() {
        members.insert("last-updated-ms".to_owned(), now.get().into());
    }
    serde_json::from_value(json).map_err(|source| unencodable(source.into()))
}

fn to_json(metadata: &TableMetadata) -> Result<Value> {
    serde_json::to_value(metadata).map_err(|source| unencodable(source.into()))
}

fn unencodable(source: Cause) -> Error {
    Error::corrupt("new table metadata", EXPECTED)(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_files_have_a_version() {
        for (name, version) in [
            ("v1.metadata.json", Some(1)),
            ("v120.metadata.json", Some(120)),
            ("v.metadata.json", None),
            ("1.metadata.json", None),
            ("v1.metadata.json#1", None),
            ("v-1.metadata.json", None),
            ("v18446744073709551615.metadata.json", None),
            ("version-hint.text", None),
        ] {
            assert_eq!(version_of(name), version, "{name}");
        }
    }

    #[tokio::test]
    async fn a_version_that_exists_is_ours_only_if_it_says_what_we_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(&crate::Location::folder(folder.path())).unwrap();
        let catalog = FsCatalog::new(storage);
        let object: ObjectId = "https://a.b".parse().unwrap();
        let location = catalog.table_location(&object);
        let metadata = crate::schema::new_table(location, uuid::Uuid::from_u128(1), vec![]).unwrap();
        let create = |ms| catalog.create(metadata.clone(), Timestamp::new(ms));
        let Commit::Done { table: base, .. } = create(1).await.unwrap() else {
            panic!("the first create lost")
        };
        assert!(matches!(create(1).await.unwrap(), Commit::Done { table: again, .. } if again.version == 1));
        assert!(matches!(create(2).await.unwrap(), Commit::Lost));

        let commit = |ms, value: &str| {
            let updates = [("key".to_owned(), value.to_owned())].into_iter().collect();
            catalog.commit(&base, vec![TableUpdate::SetProperties { updates }], &[], Timestamp::new(ms))
        };
        assert!(
            matches!(commit(3, "a").await.unwrap(), Commit::Done { table: next, .. } if next.version == 2)
        );
        assert!(
            matches!(commit(3, "a").await.unwrap(), Commit::Done { table: next, .. } if next.version == 2)
        );
        assert!(matches!(commit(3, "b").await.unwrap(), Commit::Lost));
        let newest = catalog.reload(&base).await.unwrap();
        assert_eq!((newest.version, newest.metadata.last_updated_ms()), (2, 3));
    }
}
