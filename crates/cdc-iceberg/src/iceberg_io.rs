//! The table library's storage traits over ours.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cdc_model::mutant;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile,
    Storage as IcebergStorage, StorageConfig, StorageFactory,
};
use iceberg::{Error as IcebergError, ErrorKind};
use object_store::PutPayload;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Carried;
use crate::storage::Put;
use crate::{Error, Storage};

impl Storage {
    pub(crate) fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(Factory(Bridge(self.clone())))).build()
    }

    pub(crate) fn output(&self, location: &str) -> OutputFile {
        OutputFile::new(Arc::new(Bridge(self.clone())), location.to_owned())
    }
}

/// Our storage as the table library sees it.
#[derive(Clone, Debug)]
struct Bridge(Storage);

fn carry(error: Error) -> IcebergError {
    let retryable = matches!(error, Error::Storage { retryable: true, .. });
    IcebergError::new(ErrorKind::Unexpected, "the store failed")
        .with_retryable(retryable)
        .with_source(Carried::new(error))
}

fn missing(location: &str) -> IcebergError {
    carry(Error::NotFound { location: location.to_owned() })
}

/// A live store is not data: the traits ask for serde, and this says no.
impl Serialize for Bridge {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("an open store cannot be serialised"))
    }
}

impl<'de> Deserialize<'de> for Bridge {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("an open store cannot be deserialised"))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Factory(Bridge);

#[typetag::serde(name = "CdcStorageFactory")]
impl StorageFactory for Factory {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn IcebergStorage>> {
        Ok(Arc::new(self.0.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "CdcStorage")]
impl IcebergStorage for Bridge {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        self.0.size(path).await.map(|size| size.is_some()).map_err(carry)
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        let size = self.0.size(path).await.map_err(carry)?.ok_or_else(|| missing(path))?;
        Ok(FileMetadata { size })
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        self.0.read(path).await.map_err(carry)?.ok_or_else(|| missing(path))
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { storage: self.0.clone(), location: path.to_owned() }))
    }

    async fn write(&self, path: &str, bytes: Bytes) -> iceberg::Result<()> {
        create_once(&self.0, path, bytes.into()).await
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        Ok(Box::new(Writer { storage: self.0.clone(), location: path.to_owned(), parts: Some(Vec::new()) }))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.0.delete(path).await.map_err(carry)
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        self.0.delete_below(path).await.map_err(carry)
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            self.0.delete(&path).await.map_err(carry)?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(self.0.output(path))
    }
}

/// Every object of a table is written once: an existing one is never replaced.
///
/// A client of a remote store repeats a create whose answer was lost by itself, and then finds its own object.
async fn create_once(storage: &Storage, location: &str, payload: PutPayload) -> iceberg::Result<()> {
    if mutant!("data-file-overwritten") {
        return storage.overwrite(location, payload.into()).await.map_err(carry);
    }
    let put = storage.create_from(location, payload.clone()).await.map_err(carry)?;
    if put == Put::Created || storage.read(location).await.map_err(carry)? == Some(payload.into()) {
        return Ok(());
    }
    Err(IcebergError::new(ErrorKind::PreconditionFailed, format!("{location} exists already")))
}

#[derive(Debug)]
struct Reader {
    storage: Storage,
    location: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        self.storage.read_range(&self.location, range).await.map_err(carry)
    }
}

/// Collects a file and creates it whole on close, so that a crash never leaves half of one under its name.
#[derive(Debug)]
struct Writer {
    storage: Storage,
    location: String,
    parts: Option<Vec<Bytes>>,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        let parts = self.parts.as_mut().ok_or_else(closed)?;
        parts.push(bytes);
        Ok(())
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        let parts = self.parts.take().ok_or_else(closed)?;
        let payload: PutPayload = parts.into_iter().collect();
        create_once(&self.storage, &self.location, payload).await
    }
}

fn closed() -> IcebergError {
    IcebergError::new(ErrorKind::Unexpected, "the file is closed already")
}
