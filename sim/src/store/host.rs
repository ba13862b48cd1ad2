use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::objects::{Change, Objects};
use crate::store::requests::{Operation, Request, SimStore};

/// The store as one life of a host sees it. Clones are the same life.
#[derive(Clone)]
pub struct HostStore {
    store: SimStore,
    host: u32,
    life: Arc<Mutex<Life>>,
}

#[derive(Debug, Default)]
struct Life {
    /// Requests until death; none is no end.
    left: Option<u64>,
    latency: Duration,
}

impl HostStore {
    pub(crate) fn new(store: SimStore, host: u32) -> Self {
        Self { store, host, life: Arc::default() }
    }

    /// The host dies: no later request of it does anything, and all fail.
    pub fn kill(&self) {
        self.kill_after(0);
    }

    /// The host dies after so many more requests, as in the middle of an append.
    pub fn kill_after(&self, requests: u64) {
        self.life().left = Some(requests);
    }

    /// Whether its requests still do anything.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.life().left != Some(0)
    }

    /// The time that its requests took since the last call.
    #[must_use]
    pub fn take_latency(&self) -> Duration {
        std::mem::take(&mut self.life().latency)
    }

    async fn read<T>(
        &self,
        (operation, path, size): (Operation, &Path, usize),
        act: impl FnOnce(&Objects) -> Result<T>,
    ) -> Result<T> {
        self.wait().await;
        let request = Request { host: self.host, is_alive: self.spend(), operation, path, size };
        let (took, result) = self.store.read(request, act);
        self.life().latency += took;
        result
    }

    async fn change(&self, change: Change) -> Result<PutResult> {
        self.wait().await;
        let (took, result) = self.store.change(self.host, self.spend(), &change);
        self.life().latency += took;
        result
    }

    /// Lets others go first, as often as the faults say.
    async fn wait(&self) {
        while self.store.waits() {
            let mut waited = false;
            poll_fn(|context| {
                if std::mem::replace(&mut waited, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    /// Whether the host lives to see its next request done.
    fn spend(&self) -> bool {
        match &mut self.life().left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delete_one(self, path: Path) -> Result<Path> {
        self.change(Change::Delete { path: path.clone() }).await?;
        Ok(path)
    }
}

impl fmt::Debug for HostStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostStore")
            .field("host", &self.host)
            .field("life", &self.life())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for HostStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore of host {}", self.host)
    }
}

#[async_trait]
impl ObjectStore for HostStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let PutOptions { mode, attributes, .. } = options;
        self.change(Change::Put { path: path.clone(), bytes: payload.into(), mode, attributes }).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported { source: format!("a simulated upload of {path} in parts").into() })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let ranges = usize::from(options.range.is_some());
        self.read((operation, path, ranges), |objects| objects.get(path, &options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read((Operation::Get, path, ranges.len()), |objects| objects.get_ranges(path, ranges)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let host = self.clone();
        paths.and_then(move |path| host.clone().delete_one(path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (host, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            let listed =
                host.read((Operation::List, &prefix, 0), |objects| Ok(objects.list(&prefix))).await?;
            Ok::<_, Error>(stream::iter(listed.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.read((Operation::List, &prefix, 1), |objects| Ok(objects.list_with_delimiter(&prefix))).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let change = Change::Copy { from: from.clone(), to: to.clone(), mode: options.mode };
        self.change(change).await.map(drop)
    }
}
