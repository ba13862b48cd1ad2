use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cdc_model::Entropy;
use futures_util::TryStreamExt as _;
use futures_util::stream::StreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::{Error, Location, Result};

/// The warehouse as objects under absolute addresses, such as `file:///srv/warehouse/tables/…`.
///
/// Cheap to clone; all archives of a process share one. Writes are durable when they return.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    base: String,
    probed: AtomicBool,
}

/// What a create-if-absent found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Exists,
}

impl Storage {
    /// The warehouse at `location`; its folder is created when missing.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`] when the folder cannot be created.
    pub fn open(location: &Location) -> Result<Self> {
        let path = location.path();
        std::fs::create_dir_all(path).map_err(|source| Error::Unwritable {
            path: path.display().to_string(),
            source: source.into(),
        })?;
        Self::existing(location)
    }

    /// The warehouse at `location`, which is left as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when there is no such folder.
    pub fn existing(location: &Location) -> Result<Self> {
        let not_found = || Error::NotFound { location: location.to_string() };
        let path =
            std::fs::canonicalize(location.path()).ok().filter(|path| path.is_dir()).ok_or_else(not_found)?;
        let base = path.to_str().map(|path| format!("file://{path}")).ok_or_else(not_found)?;
        let store = LocalFileSystem::new_with_prefix(&path)
            .map_err(|source| Error::storage("open the warehouse", base.clone(), source))?
            .with_fsync(true);
        Ok(Self::over(Arc::new(store), base))
    }

    /// A warehouse over any store. `base` is the address of the store's root as table metadata spells it.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, base: impl Into<String>) -> Self {
        let mut base: String = base.into();
        base.truncate(base.trim_end_matches('/').len());
        Self(Arc::new(Inner { store, base, probed: AtomicBool::new(false) }))
    }

    /// The address of the warehouse.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// Proves once per storage that the store can be written and refuses to overwrite on create-if-absent.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`], or [`Error::CreateNotExclusive`] for a store on which two archivers could overwrite
    /// each other's commits.
    pub async fn probe(&self, entropy: &Entropy) -> Result<()> {
        if self.0.probed.load(Ordering::Acquire) {
            return Ok(());
        }
        let location = format!("{}/.probe-{:032x}", self.base(), entropy.u128());
        let first = self.create(&location, Bytes::from_static(b"first")).await;
        first.map_err(|error| error.at(self.base()))?;
        let second = self.create(&location, Bytes::from_static(b"second")).await?;
        self.delete(&location).await?;
        if second == Put::Created {
            return Err(Error::CreateNotExclusive { location: self.base().to_owned() });
        }
        self.0.probed.store(true, Ordering::Release);
        Ok(())
    }

    /// The address of an object within the store.
    pub(crate) fn locate(&self, location: &str) -> Result<Path> {
        let rest = location.strip_prefix(self.base()).and_then(|rest| rest.strip_prefix('/'));
        rest.and_then(|rest| Path::parse(rest).ok()).ok_or_else(|| Error::OutsideWarehouse {
            location: location.to_owned(),
            warehouse: self.base().to_owned(),
        })
    }

    pub(crate) async fn create(&self, location: &str, bytes: Bytes) -> Result<Put> {
        self.create_from(location, PutPayload::from_bytes(bytes)).await
    }

    pub(crate) async fn create_from(&self, location: &str, payload: PutPayload) -> Result<Put> {
        let path = self.locate(location)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.0.store.put_opts(&path, payload, options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(source) => Err(Error::storage("write", location, source)),
        }
    }

    pub(crate) async fn overwrite(&self, location: &str, bytes: Bytes) -> Result<()> {
        let path = self.locate(location)?;
        let written = self.0.store.put(&path, PutPayload::from_bytes(bytes)).await;
        written.map(drop).map_err(|source| Error::storage("write", location, source))
    }

    pub(crate) async fn read(&self, location: &str) -> Result<Option<Bytes>> {
        let path = self.locate(location)?;
        let got = match self.0.store.get(&path).await {
            Ok(got) => got.bytes().await,
            Err(source) => Err(source),
        };
        found(got).map_err(|source| Error::storage("read", location, source))
    }

    pub(crate) async fn read_range(&self, location: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        let path = self.locate(location)?;
        let got = self.0.store.get_range(&path, range).await;
        got.map_err(|source| Error::storage("read", location, source))
    }

    pub(crate) async fn read_ranges(
        &self,
        location: &str,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let path = self.locate(location)?;
        let got = self.0.store.get_ranges(&path, ranges).await;
        got.map_err(|source| Error::storage("read", location, source))
    }

    /// The size in bytes, or none when there is no such object.
    pub(crate) async fn size(&self, location: &str) -> Result<Option<u64>> {
        let path = self.locate(location)?;
        let head = found(self.0.store.head(&path).await);
        head.map(|meta| meta.map(|meta| meta.size)).map_err(|source| Error::storage("read", location, source))
    }

    pub(crate) async fn delete(&self, location: &str) -> Result<()> {
        let path = self.locate(location)?;
        let deleted = found(self.0.store.delete(&path).await);
        deleted.map(drop).map_err(|source| Error::storage("delete", location, source))
    }

    /// The names of the objects directly in a folder.
    pub(crate) async fn names(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.locate(folder)?;
        let listed = found(self.0.store.list_with_delimiter(Some(&path)).await);
        let listed = listed.map_err(|source| Error::storage("list", folder, source))?;
        let objects = listed.map(|listed| listed.objects).unwrap_or_default();
        Ok(objects.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect())
    }

    /// Whether anything lies below a folder.
    pub(crate) async fn any_below(&self, folder: &str) -> Result<bool> {
        let path = self.locate(folder)?;
        let mut listing = self.0.store.list(Some(&path)).take(1);
        let first = listing.try_next().await.map_err(|source| Error::storage("list", folder, source))?;
        Ok(first.is_some())
    }

    pub(crate) async fn delete_below(&self, folder: &str) -> Result<()> {
        let path = self.locate(folder)?;
        let mut listing = self.0.store.list(Some(&path));
        while let Some(meta) = listing.try_next().await.map_err(|e| Error::storage("list", folder, e))? {
            let deleted = found(self.0.store.delete(&meta.location).await);
            deleted.map_err(|source| Error::storage("delete", folder, source))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Storage").field(&self.0.base).finish()
    }
}

fn found<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
