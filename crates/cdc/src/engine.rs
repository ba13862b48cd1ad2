use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cdc_iceberg::Storage;
use cdc_log::Retention;
use cdc_model::ObjectId;
use cdc_net::{Env, Http, HttpOptions, HttpServer, Loopback, Reach, ServeOptions, Tokio, Transport};
use cdc_relay::Stages;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ballast::Ballast;
use crate::handles::Handles;
use crate::node::Node;
use crate::registry::{ObjectSpec, ProjectLock};
use crate::shared::{Patience, Shared};
use crate::uplink::{Uplink, chain};
use crate::{
    ArchiveSettings, Error, ObjectBuilder, Opening, Project, Result, RetentionSettings, Settings, archiver,
    auditor, ballast, drainer, intake, pruner,
};

/// Objects that are opened side by side, when all are.
const OPENING_MAX: usize = 16;

/// Locks that keep an object from being opened twice.
const OPENING_LOCKS: usize = 64;

/// How long the engine may take for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub(crate) Duration);

impl Deadline {
    /// In so many seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// In so many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// Says how to open an engine.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct CdcBuilder<E = Tokio> {
    folder: PathBuf,
    settings: Settings,
    store: Option<Storage>,
    remote: Option<Arc<dyn Transport>>,
    env: E,
}

impl<E: Env> CdcBuilder<E> {
    /// Objects without a parent archive into this warehouse: `file:./warehouse` or a path, relative to the folder.
    pub fn archive(mut self, warehouse: impl Into<String>) -> Self {
        self.settings.archive = Some(ArchiveSettings::new(warehouse));
        self
    }

    /// So much of every log stays hot once everybody has taken it; single objects have their own limits in
    /// [`RetentionSettings::objects`].
    pub const fn retention(mut self, limits: Retention) -> Self {
        self.settings.retention.set(limits);
        self
    }

    /// All settings at once.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Archives into a store that is open already, in the place of the folder that the settings name.
    pub fn store(self, store: Storage) -> Self {
        Self { store: Some(store), ..self }
    }

    /// Reaches the objects of [`Settings::remotes`] by another transport than HTTP.
    pub fn transport(self, remote: Arc<dyn Transport>) -> Self {
        Self { remote: Some(remote), ..self }
    }

    /// Opens the engine. It takes the folder for itself until it is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`], [`Error::File`], or what is wrong with a setting.
    pub async fn open(self) -> Result<Cdc<E>> {
        let Self { folder, settings, store, remote, env } = self;
        settings.validate()?;
        let opened = blocking(&env, move || {
            let project = Project::open(folder, settings)?;
            let project = match store {
                Some(store) => project.with_store(store),
                None => project,
            };
            let lock = project.registry.lock()?;
            project.check_warehouse()?;
            Ok((project, lock))
        });
        let (project, lock) = opened.await?;
        let remote = match remote {
            Some(remote) => remote,
            None => over_http(&env, &project.settings)?,
        };
        let (alive, ended) = mpsc::channel(1);
        let prunes = project.settings.retention != RetentionSettings::default();
        let (stop, handles) = (watch::Sender::new(false), Handles::new(project.clone(), env.clone()));
        let ballast = Arc::clone(&handles.ballast);
        let takes = project.settings.disk.ballast_bytes > 0;
        if takes && let Err(error) = blocking(&env, move || ballast.take()).await {
            tracing::warn!(error = %chain(&error), "no room could be kept for when the disk is full");
        }
        let (idle, still_alive) = (Arc::clone(&handles).close_idle(stop.subscribe()), alive.clone());
        env.spawn(async move {
            idle.await;
            drop(still_alive);
        });
        let audits = !project.settings.audit.is_off();
        let cdc = Cdc {
            inner: Arc::new(Inner {
                project,
                env,
                net: Loopback::new(),
                remote,
                stop,
                handles,
                objects: Mutex::new(BTreeMap::new()),
                opening: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
                news: watch::Sender::new(0),
                alive: Mutex::new(Some(alive)),
                ended: Mutex::new(Some(ended)),
                lock: Mutex::new(Some(Arc::new(lock))),
            }),
        };
        if takes {
            cdc.in_turn(ballast::drive);
        }
        if prunes {
            cdc.in_turn(pruner::drive);
        }
        if audits {
            cdc.in_turn(auditor::drive);
        }
        Ok(cdc)
    }
}

/// A running engine over the objects of one folder.
///
/// Dropping it stops everything and loses nothing; [`Cdc::shutdown`] also empties what is under way.
#[derive(Debug)]
pub struct Cdc<E: Env = Tokio> {
    pub(crate) inner: Arc<Inner<E>>,
}

impl<E: Env> Clone for Cdc<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
pub(crate) struct Inner<E: Env> {
    pub(crate) project: Project,
    pub(crate) env: E,
    net: Loopback,
    /// Reaches parents that another process serves.
    remote: Arc<dyn Transport>,
    /// Set to end what is not of one object.
    stop: watch::Sender<bool>,
    objects: Mutex<BTreeMap<ObjectId, Arc<Shared<E>>>>,
    /// Which of them have their files open.
    handles: Arc<Handles<E>>,
    /// The one of an object is held while it is opened, so that none is opened twice. Several objects share one.
    opening: [tokio::sync::Mutex<()>; OPENING_LOCKS],
    /// Counts troubles.
    news: watch::Sender<u64>,
    /// Every driver holds a clone; when all are gone, the drivers have ended.
    alive: Mutex<Option<mpsc::Sender<()>>>,
    ended: Mutex<Option<mpsc::Receiver<()>>>,
    /// Held until the engine has stopped, by every driver too.
    lock: Mutex<Option<Arc<ProjectLock>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The transport to the objects that the settings say are elsewhere.
fn over_http<E: Env>(env: &E, settings: &Settings) -> Result<Arc<dyn Transport>> {
    let answer_timeout = Duration::from_millis(settings.link.answer_timeout_ms);
    let options = HttpOptions { call_timeout: answer_timeout, ..HttpOptions::default() };
    let http = Http::new(env.clone(), Reach::Loopback, options);
    for (object, address) in &settings.remotes {
        http.set_endpoint(object.clone(), *address)?;
    }
    Ok(Arc::new(http))
}

/// Runs a job off the asynchronous workers.
pub(crate) async fn blocking<R: Send + 'static, E: Env>(
    env: &E,
    job: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    let (done, result) = oneshot::channel();
    env.blocking(move || drop(done.send(job())));
    result.await.ok().ok_or(Error::ShutDown)?
}

impl Cdc<Tokio> {
    /// Begins to open an engine over the objects in `folder`.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn builder(folder: impl AsRef<Path>) -> CdcBuilder {
        Self::builder_in(folder, Tokio::current())
    }
}

impl<E: Env> Cdc<E> {
    /// Begins to open an engine in another environment, such as a simulated one.
    pub fn builder_in(folder: impl AsRef<Path>, env: E) -> CdcBuilder<E> {
        let folder = folder.as_ref().to_owned();
        CdcBuilder { folder, settings: Settings::default(), store: None, remote: None, env }
    }

    /// The project on disk.
    #[must_use]
    pub fn project(&self) -> &Project {
        &self.inner.project
    }

    /// Serves the objects that are open here to other processes over HTTP until the engine stops. Port 0 takes a free
    /// one. Gives the address taken.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] for an address that is taken or that other machines reach: nobody is authenticated so far.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr> {
        let inner = &self.inner;
        let alive = lock(&inner.alive).clone().ok_or(Error::ShutDown)?;
        let options = ServeOptions::default();
        let server = HttpServer::bind(inner.env.clone(), address, Reach::Loopback, options).await?;
        let taken = server.address();
        let (objects, stop) = (inner.net.clone(), inner.stop.subscribe());
        inner.env.spawn(async move {
            server.serve(objects, stop).await;
            drop(alive);
        });
        Ok(taken)
    }

    /// Hands requests of other processes to the objects that are open here, for a transport of one's own.
    #[must_use]
    pub fn inboxes(&self) -> Loopback {
        self.inner.net.clone()
    }

    /// Begins to open an object; an id that does not parse is told at `open`.
    pub fn object(&self, id: impl AsRef<str>) -> ObjectBuilder<E> {
        ObjectBuilder::new(self.clone(), id.as_ref())
    }

    /// How many objects have their files open just now; the others are opened when they are used. See
    /// [`HandleSettings`](crate::HandleSettings).
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.inner.handles.count()
    }

    pub(crate) fn opened(&self, id: &ObjectId) -> Option<Arc<Shared<E>>> {
        lock(&self.inner.objects).get(id).cloned()
    }

    /// A parent, which is open when it is served here; `None` when another process serves it.
    pub(crate) fn opened_or_elsewhere(&self, parent: &ObjectId) -> Result<Option<Arc<Shared<E>>>> {
        match self.opened(parent) {
            None if self.inner.project.registry.is_here(parent)? => Err(Error::ShutDown),
            opened => Ok(opened),
        }
    }

    /// Opens an object and its parents, unless they are open. A fresh object has its stages before anything reaches it.
    pub(crate) async fn open_object(&self, id: &ObjectId, stages: Option<Stages>) -> Result<Arc<Shared<E>>> {
        let mut chain = vec![id.clone()];
        let registry = &self.inner.project.registry;
        registry.check_here(id)?;
        for ancestor in registry.ancestors(&registry.require(id)?)? {
            if registry.is_here(&ancestor)? {
                chain.push(ancestor);
            }
        }
        let (mut opened, mut stages) = (None, stages);
        for at in chain.iter().rev() {
            let its_stages = stages.take_if(|_| at == id);
            let _opening = self.inner.opening_lock(at).lock().await;
            opened = Some(match (self.opened(at), its_stages) {
                (Some(object), Some(stages)) => {
                    object.set_stages(stages).await?;
                    object
                }
                (Some(object), None) => object,
                (None, stages) => self.start(registry.require(at)?, stages).await?,
            });
        }
        opened.ok_or(Error::ShutDown)
    }

    async fn start(&self, spec: ObjectSpec, stages: Option<Stages>) -> Result<Arc<Shared<E>>> {
        let inner = &self.inner;
        let alive = lock(&inner.alive).clone().ok_or(Error::ShutDown)?;
        let (handles, ours) = (Arc::clone(&inner.handles), spec.clone());
        let never_audits = inner.project.settings.audit.is_off();
        let opened = blocking(&inner.env, move || {
            let room = handles.room();
            let open = || {
                let mut node = Node::new(handles.open(&ours)?)?;
                stages.map_or(Ok(()), |stages| node.set_stages(stages))?;
                if never_audits {
                    node.hot.log_mut().drop_audit()?;
                }
                Ok(node)
            };
            let node = open().inspect_err(|error| handles.ballast.note(error))?;
            Ok((node, room))
        });
        let warehouse = inner.project.warehouse(&spec)?;
        let ancestors = inner.project.registry.ancestors(&spec)?;
        let (env, news) = (inner.env.clone(), inner.news.clone());
        let (node, room) = opened.await?;
        let env = (env, Arc::clone(&inner.handles));
        let object = Shared::new(spec, node, env, ancestors, warehouse.is_some(), news);
        room.taken_by(&object);
        let taken = lock(&inner.lock).clone();
        let drive = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let (taken, alive) = (taken.clone(), alive.clone());
            inner.env.spawn(async move {
                task.await;
                // In this order: whoever waits for the drivers' end may take the project at once.
                drop(taken);
                drop(alive);
            });
        };
        drive(Box::pin(intake::serve(Arc::clone(&object), inner.net.serve(object.id().clone()))));
        if let Some(parent) = object.spec.context.clone() {
            let parent_settled = self.opened(&parent).map(|parent| parent.settled.subscribe());
            let is_elsewhere = !inner.project.registry.is_here(&parent)?;
            let transport: Arc<dyn Transport> = match is_elsewhere {
                true => Arc::clone(&inner.remote),
                false => Arc::new(inner.net.clone()),
            };
            let (object, options) = (Arc::clone(&object), inner.project.settings.link.clone());
            let uplink = Uplink { object, parent, parent_settled, is_elsewhere, transport, options };
            drive(Box::pin(uplink.drive()));
        }
        if let (Some(warehouse), Some(settings)) = (warehouse, inner.project.settings.archive.clone()) {
            drive(Box::pin(archiver::drive(Arc::clone(&object), warehouse, settings)));
        }
        if let Some(attached) = object.spec.attached.as_ref().filter(|attached| !attached.detached) {
            let trims = inner.project.settings.capture.trim;
            drive(Box::pin(drainer::drive(Arc::clone(&object), attached.database.clone(), trims)));
        }
        object.update_settled();
        lock(&inner.objects).insert(object.id().clone(), Arc::clone(&object));
        if lock(&inner.alive).is_none() {
            // The engine was stopped meanwhile, and may have told everybody else already.
            object.stop.send_replace(true);
        }
        Ok(object)
    }

    /// Begins to visit objects in turn, until the engine stops. It does not keep the engine from being dropped.
    fn in_turn<D: Future<Output = ()> + Send + 'static>(
        &self,
        drive: impl FnOnce(Weak<Inner<E>>, E, watch::Receiver<bool>) -> D,
    ) {
        let inner = &self.inner;
        let (alive, taken) = (lock(&inner.alive).clone(), lock(&inner.lock).clone());
        let driver = drive(Arc::downgrade(inner), inner.env.clone(), inner.stop.subscribe());
        inner.env.spawn(async move {
            driver.await;
            // In this order: whoever waits for the drivers' end may take the project at once.
            drop(taken);
            drop(alive);
        });
    }

    /// Opens every object of the project that is not open. What could not be opened is tried again at the next call.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the project cannot be read.
    pub async fn open_all(&self) -> Result<Opening> {
        let (objects, unreadable) = self.inner.project.registry.list()?;
        let mut done = Opening { opened: 0, failed: Vec::new(), unreadable };
        let missing = objects.into_keys().filter(|id| self.opened(id).is_none());
        let opening = missing.map(|id| {
            let cdc = self.clone();
            async move { (cdc.open_object(&id, None).await.map(drop), id) }
        });
        let mut opening = futures_util::stream::iter(opening.collect::<Vec<_>>()).buffered(OPENING_MAX);
        while let Some((opened, id)) = opening.next().await {
            match opened {
                Ok(()) => done.opened += 1,
                Err(error) => done.failed.push((id, error)),
            }
        }
        Ok(done)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Shared<E>>> {
        self.inner.all()
    }

    /// Waits until everything is quiet: attached databases drained, every link and archive at the end of its log. What
    /// another process does with it is not waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Waiting`] when something was tried meanwhile and cannot go on just now, such as a link whose parent
    /// does not answer, [`Error::Stopped`] when something does not go on by itself; the rest goes on all the same.
    pub async fn quiet(&self) -> Result<()> {
        let patience = Patience::TriedSince(self.inner.env.now());
        let mut objects = self.all();
        // Children before parents, so that one pass carries everything to the roots.
        objects.sort_by_key(|object| std::cmp::Reverse(object.depth));
        let looks: Vec<_> = objects.iter().map(|object| Self::drain(object, patience)).collect();
        let mut result = Ok(());
        for look in futures_util::future::join_all(looks).await {
            result = result.and(look);
        }
        while let Some(depth) = objects.first().map(|object| object.depth) {
            let (level, rest) = objects.into_iter().partition(|object| object.depth == depth);
            objects = rest;
            let sent = level.iter().map(|object: &Arc<Shared<E>>| Self::send(object, patience));
            for sent in futures_util::future::join_all(sent).await {
                result = result.and(sent);
            }
        }
        result
    }

    /// Drains what was captured to its end as of now.
    pub(crate) async fn drain(object: &Arc<Shared<E>>, patience: Patience) -> Result<()> {
        if object.spec.attached.as_ref().is_none_or(|attached| attached.detached) {
            return object.run(|node| node.drain_own()).await;
        }
        let mut asked = 0;
        object.flush.send_modify(|count| {
            *count += 1;
            asked = *count;
        });
        object.until(&object.quiet_looks, asked, &[(object, &["drain"])], patience).await
    }

    /// Sends everything up to the log's end as of now to the parent and to the archive.
    async fn send(object: &Arc<Shared<E>>, patience: Patience) -> Result<()> {
        let tail = object.tail.borrow().sequence;
        object.flush.send_modify(|count| *count += 1);
        if object.spec.context.is_some() {
            object.until(&object.acked, tail, &[(object, &["link", "stages"])], patience).await?;
        }
        if let Some(archived) = &object.archived {
            object.until(archived, tail, &[(object, &["archive"])], patience).await?;
        }
        Ok(())
    }

    /// What has stopped or waits, with the reason.
    #[must_use]
    pub fn troubles(&self) -> Vec<(ObjectId, crate::Trouble)> {
        let troubles = |object: Arc<Shared<E>>| {
            let named = |trouble| (object.id().clone(), trouble);
            object.troubles().into_iter().map(named).collect::<Vec<_>>()
        };
        self.all().into_iter().flat_map(troubles).collect()
    }

    /// Empties what is under way, then stops. Whatever is left when the deadline passes, or cannot go on just now, is
    /// sent by the next engine; nothing is lost either way.
    ///
    /// In what is left of the time, write-ahead logs beside the files of objects that were closed for others are moved
    /// into these, so that a copy of a database file has all rows; how many are left is logged.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], [`Error::Waiting`] or [`Error::Stopped`] names what was left; the engine has stopped all the
    /// same.
    pub async fn shutdown(self, deadline: Deadline) -> Result<()> {
        let end = self.inner.env.now() + deadline.0;
        let emptied = {
            let (quiet, late) = (self.quiet(), self.inner.env.sleep(deadline.0));
            tokio::select! { biased; quiet = quiet => quiet, () = late => self.left() }
        };
        self.stop_drivers().await;
        if let Ok(left @ 1..) = self.inner.handles.tidy_until(end).await {
            tracing::warn!(left, "write-ahead logs are left beside the files of closed objects");
        }
        self.close().await;
        emptied
    }

    fn left(&self) -> Result<()> {
        for object in self.all() {
            let (wanted, mut done) = (object.tail.borrow().sequence, object.tail.borrow().sequence);
            if object.spec.context.is_some() {
                done = *object.acked.borrow();
            }
            if let Some(archived) = &object.archived {
                done = done.min(*archived.borrow());
            }
            if object.is_unsynced() {
                // More was acknowledged than anybody was told of.
                return Err(Error::Deadline { id: object.id().clone(), done, wanted: wanted.next() });
            }
            if done < wanted {
                return Err(Error::Deadline { id: object.id().clone(), done, wanted });
            }
        }
        Ok(())
    }

    /// Stops every driver and closes every log, without emptying anything first. Objects that were closed for others keep
    /// their write-ahead logs, which whoever opens them next moves into their files.
    pub async fn stop(&self) {
        self.stop_drivers().await;
        self.close().await;
    }

    async fn stop_drivers(&self) {
        self.inner.signal_stop();
        let ended = lock(&self.inner.ended).take();
        if let Some(mut ended) = ended {
            while ended.recv().await.is_some() {}
        }
    }

    async fn close(&self) {
        let objects = std::mem::take(&mut *lock(&self.inner.objects));
        for object in objects.into_values() {
            object.lane.close().await;
        }
        drop(lock(&self.inner.lock).take());
    }
}

impl<E: Env> Inner<E> {
    /// Every open object, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Shared<E>>> {
        lock(&self.objects).values().cloned().collect()
    }

    pub(crate) fn ballast(&self) -> Arc<Ballast> {
        Arc::clone(&self.handles.ballast)
    }

    fn opening_lock(&self, id: &ObjectId) -> &tokio::sync::Mutex<()> {
        let hash = id.as_str().bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31) ^ usize::from(byte));
        let [first, ..] = &self.opening;
        self.opening.get(hash % OPENING_LOCKS).unwrap_or(first)
    }

    fn signal_stop(&self) {
        self.stop.send_replace(true);
        drop(lock(&self.alive).take());
        let objects = lock(&self.objects);
        // All links first: none is to find its parent gone.
        for object in objects.values() {
            object.stop.send_replace(true);
        }
        objects.keys().for_each(|id| self.net.withdraw(id));
    }
}

impl<E: Env> Drop for Inner<E> {
    fn drop(&mut self) {
        self.signal_stop();
    }
}
