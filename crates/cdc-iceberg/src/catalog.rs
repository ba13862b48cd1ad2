//! Tables as numbered metadata files: `tables/{doId}/metadata/vN.metadata.json`.
//!
//! A commit creates the file with the next number if it is absent; the store decides who wins. `version-hint.text`
//! is written for other readers and never trusted: the newest version is found by probing forward or by listing.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use cdc_model::{ObjectId, Timestamp};
use iceberg::spec::{TableMetadata, TableMetadataBuilder};
use iceberg::{TableRequirement, TableUpdate};
use serde_json::Value;

use crate::error::Cause;
use crate::storage::Put;
use crate::{Error, Result, Storage};

const HINT: &str = "version-hint.text";
/// A hint that is further behind than this is given up in favour of a listing.
const PROBE_MAX: u64 = 16;
/// How often an unanswered create is repeated. Repeating is safe: only one create can succeed.
const CREATE_ATTEMPTS_MAX: u32 = 3;

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
}

/// How a commit that got an answer ended.
#[derive(Debug)]
pub(crate) enum Commit {
    /// It is the table's next version.
    Done(Loaded),
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
        match self.newest(location, self.hint(location).await?).await? {
            Some(version) => self.load_version(location, version).await.map(Some),
            None => Ok(None),
        }
    }

    /// The newest version, given that `known` exists.
    pub(crate) async fn reload(&self, known: &Loaded) -> Result<Loaded> {
        let hint = self.hint(&known.location).await?.unwrap_or(0).max(known.version);
        let newest = self.newest(&known.location, Some(hint)).await?.unwrap_or(known.version);
        if newest == known.version {
            return Ok(known.clone());
        }
        self.load_version(&known.location, newest).await
    }

    /// Makes `metadata` the first version of a table that does not exist.
    pub(crate) async fn create(&self, metadata: TableMetadata, now: Timestamp) -> Result<Commit> {
        let location = metadata.location().to_owned();
        self.publish(location, 1, stamped(&metadata, now)?).await
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
        self.publish(base.location.clone(), base.version + 1, metadata).await
    }

    async fn publish(&self, location: String, version: u64, metadata: TableMetadata) -> Result<Commit> {
        let file = version_file(&location, version);
        let bytes = Bytes::from(encode(&metadata)?);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.storage.create(&file, bytes.clone()).await {
                Ok(Put::Created) => return Ok(self.done(location, version, metadata).await),
                Ok(Put::Exists) => return self.compare(location, version, metadata, &bytes).await,
                Err(Error::Storage { retryable: true, .. }) if attempts < CREATE_ATTEMPTS_MAX => {}
                Err(error @ Error::Storage { retryable: true, .. }) => {
                    return Err(unclear(location, version, error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The version exists: it is ours if it says what we wrote, for an unanswered write may have taken place.
    async fn compare(
        &self,
        location: String,
        version: u64,
        metadata: TableMetadata,
        ours: &Bytes,
    ) -> Result<Commit> {
        match self.storage.read(&version_file(&location, version)).await {
            Ok(Some(found)) if found == *ours => Ok(self.done(location, version, metadata).await),
            Ok(_) => Ok(Commit::Lost),
            Err(error) => Err(unclear(location, version, error)),
        }
    }

    async fn done(&self, location: String, version: u64, metadata: TableMetadata) -> Commit {
        // A hint that cannot be written only costs the next reader a listing; the commit stands.
        let hint = Bytes::from(version.to_string());
        drop(self.storage.overwrite(&format!("{location}/metadata/{HINT}"), hint).await);
        Commit::Done(Loaded { version, location, metadata: Arc::new(metadata) })
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
        for version in hint..hint.saturating_add(PROBE_MAX) {
            if !self.exists(location, version + 1).await? {
                return Ok(Some(version));
            }
        }
        self.newest_listed(location).await
    }

    async fn exists(&self, location: &str, version: u64) -> Result<bool> {
        Ok(self.storage.size(&version_file(location, version)).await?.is_some())
    }

    async fn newest_listed(&self, location: &str) -> Result<Option<u64>> {
        let names = self.storage.names(&format!("{location}/metadata")).await?;
        Ok(names.iter().filter_map(|name| version_of(name)).max())
    }

    async fn load_version(&self, location: &str, version: u64) -> Result<Loaded> {
        let file = version_file(location, version);
        let bytes =
            self.storage.read(&file).await?.ok_or_else(|| Error::NotFound { location: file.clone() })?;
        let metadata: TableMetadata = serde_json::from_slice(&bytes)
            .map_err(|source| Error::corrupt(&file, "Iceberg table metadata")(source.into()))?;
        Ok(Loaded { version, location: location.to_owned(), metadata: Arc::new(metadata) })
    }
}

fn unclear(location: String, version: u64, error: Error) -> Error {
    Error::Unclear { location, version, source: Box::new(error) }
}

fn version_file(location: &str, version: impl Display) -> String {
    format!("{location}/metadata/v{version}.metadata.json")
}

fn version_of(name: &str) -> Option<u64> {
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
    Error::corrupt("new table metadata", "Iceberg table metadata")(source)
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
        let Commit::Done(base) = create(1).await.unwrap() else { panic!("the first create lost") };
        assert!(matches!(create(1).await.unwrap(), Commit::Done(again) if again.version == 1));
        assert!(matches!(create(2).await.unwrap(), Commit::Lost));

        let commit = |ms, value: &str| {
            let updates = [("key".to_owned(), value.to_owned())].into_iter().collect();
            catalog.commit(&base, vec![TableUpdate::SetProperties { updates }], &[], Timestamp::new(ms))
        };
        assert!(matches!(commit(3, "a").await.unwrap(), Commit::Done(next) if next.version == 2));
        assert!(matches!(commit(3, "a").await.unwrap(), Commit::Done(next) if next.version == 2));
        assert!(matches!(commit(3, "b").await.unwrap(), Commit::Lost));
        let newest = catalog.reload(&base).await.unwrap();
        assert_eq!((newest.version, newest.metadata.last_updated_ms()), (2, 3));
    }
}
