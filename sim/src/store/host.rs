use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cdc_model::Clock;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::objects::Objects;
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

    async fn request<T>(
        &self,
        request: Request<'_>,
        act: impl FnOnce(&mut Objects, &Clock) -> Result<T>,
    ) -> Result<T> {
        self.wait().await;
        let alive = self.spend();
        let (took, result) = self.store.serve(self.host, alive, request, act);
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
        let request = Request { operation: Operation::Delete, path: &path, size: 0 };
        self.request(request, |objects, _| {
            objects.delete(&path);
            Ok(())
        })
        .await?;
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
        let bytes = Bytes::from(payload);
        let operation = if options.mode == PutMode::Create { Operation::Create } else { Operation::Put };
        let request = Request { operation, path, size: bytes.len() };
        let PutOptions { mode, attributes, .. } = options;
        self.request(request, |objects, clock| objects.put(path, bytes, mode, attributes, clock.now())).await
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
        let request = Request { operation, path, size: usize::from(options.range.is_some()) };
        self.request(request, |objects, _| objects.get(path, &options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let request = Request { operation: Operation::Get, path, size: ranges.len() };
        self.request(request, |objects, _| objects.get_ranges(path, ranges)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let host = self.clone();
        paths.and_then(move |path| host.clone().delete_one(path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (host, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            let request = Request { operation: Operation::List, path: &prefix, size: 0 };
            let listed = host.request(request, |objects, _| Ok(objects.list(&prefix))).await?;
            Ok::<_, Error>(stream::iter(listed.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let request = Request { operation: Operation::List, path: &prefix, size: 1 };
        self.request(request, |objects, _| Ok(objects.list_with_delimiter(&prefix))).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let request = Request { operation: Operation::Copy, path: to, size: 0 };
        self.request(request, |objects, clock| objects.copy(from, to, options.mode, clock.now())).await
    }
}
