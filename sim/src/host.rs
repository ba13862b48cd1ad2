//! One life of a process: the engine over its objects, its writers and its consumers. The same on every runner.

mod objects;
mod readers;
pub(crate) use readers::{FoldedDocument, RETURNER, Readers, SUBSCRIBER};
mod writers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc::{
    ArchiveSettings, AuditSettings, CaptureSettings, Cdc, Deadline, DiskSettings, Env, HandleSettings,
    LinkOptions, RetentionSettings, Settings, Trouble,
};
use cdc_iceberg::Storage;
use cdc_model::ObjectId;
use cdc_net::{Loopback, Transport};
use tokio::sync::{mpsc, oneshot};

use crate::archivist::Archivist;
use crate::disk::Disk;
use crate::failure::{chain, ensure};
use crate::oracle::Oracle;
use crate::plan::Options;
use crate::random::Random;

/// Pause before a process tries again to open what could not be opened.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// How long a child waits for an answer: short, so that trouble of a second is long.
pub(crate) const ANSWER_TIMEOUT_MS: u64 = 400;

/// Archived at the latest after this long.
const ARCHIVE_INTERVAL_MS: u64 = 2_000;

/// All logs of a process are pruned once in about this long.
const RETENTION_SWEEP_MS: u64 = 300;

/// The file takes nothing of the simulated disk, but there is no room for it while that is about to run full.
const BALLAST_BYTES: u64 = 1 << 10;

/// The stream of random numbers of second archivers.
const ARCHIVISTS: usize = usize::MAX / 5;

const ALONE: &str = "one engine at a time serves a project";

/// What a process is started with.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) host: usize,
    pub(crate) folder: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) options: Options,
    /// Feeds this life's writers.
    pub(crate) random: Random,
    /// Held by whoever reads a log beside the engine, in a connection of his own.
    pub(crate) readers: Arc<Readers>,
    pub(crate) oracle: Arc<Mutex<Oracle>>,
    pub(crate) storage: Option<Storage>,
    pub(crate) news: mpsc::UnboundedSender<News>,
}

/// How a process reaches others and is reached by them.
pub(crate) trait Net<E>: Send + 'static {
    /// What carries requests to objects of other processes.
    fn transport(&self, env: &E) -> Arc<dyn Transport>;

    /// From now on others reach the objects of this process.
    fn serve(self, env: &E, inboxes: Loopback);
}

/// What a process tells the world.
#[derive(Debug)]
pub(crate) enum News {
    /// It serves its objects.
    Up { host: usize, orders: mpsc::UnboundedSender<Order> },
    /// An object is open.
    Opened { object: usize },
    /// It has closed everything in order, and is to be down for so long.
    Closed { host: usize, down: Duration },
    /// Something could not be opened; it is tried again.
    Failed { host: usize, reason: String },
}

/// What the world asks of a process.
#[derive(Debug)]
pub(crate) enum Order {
    /// What does not go on by itself.
    Troubles(oneshot::Sender<Vec<(usize, Trouble)>>),
    /// A second engine over the same objects, which must not open.
    SecondEngine,
    /// Empty what is under way, as far as that can be done in so long, and close.
    Shutdown { deadline: Deadline, down: Duration },
    /// Another parent for an object.
    Reparent { object: usize, to: usize },
    /// An archiver beside the engine's own.
    ArchiveAsWell(usize),
    /// The documents that an object's history adds up to, by source, collection and id.
    Fold(usize, oneshot::Sender<Result<Vec<FoldedDocument>, String>>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Lives until it is killed.
    pub(crate) async fn live<E: Env>(self, env: E, net: impl Net<E>) {
        let transport = net.transport(&env);
        let cdc = loop {
            match self.open(&env, &transport).await {
                Ok(cdc) => break cdc,
                Err(error) => self.failed(&error),
            }
            env.sleep(REOPEN_AFTER).await;
        };
        let (orders, mut inbox) = mpsc::unbounded_channel();
        net.serve(&env, cdc.inboxes());
        self.tell(News::Up { host: self.host, orders });
        let (objects, applications) = self.open_objects(&cdc, &env).await;
        self.start_writers(&env, &objects, applications);
        self.start_consumers(&env, &objects);
        self.start_readers(&env, &objects);
        self.start_onlooker(&env, &objects);
        let mut archivists = self.random.branch(ARCHIVISTS);
        while let Some(order) = inbox.recv().await {
            match order {
                Order::Troubles(way) => drop(way.send(self.troubles(&cdc))),
                Order::SecondEngine => {
                    let second = self.open(&env, &transport).await;
                    let refused = ensure(matches!(second, Err(cdc::Error::InUse { .. })), ALONE, || {
                        let opened = second.map(drop).map_err(|error| chain(&error));
                        format!("host {}: the second came to {opened:?}", self.host)
                    });
                    lock(&self.oracle).note(refused);
                }
                Order::Shutdown { deadline, down } => {
                    self.readers.close();
                    // What was left is sent by the next life.
                    drop(cdc.shutdown(deadline).await);
                    while self.readers.are_reading() {
                        env.sleep(REOPEN_AFTER).await;
                    }
                    self.tell(News::Closed { host: self.host, down });
                    return std::future::pending().await;
                }
                Order::Reparent { object, to } => self.reparent(&cdc, &env, object, to).await,
                Order::ArchiveAsWell(at) => {
                    let object = objects.iter().find(|(object, _)| *object == at);
                    let reading = self.readers.begin();
                    if let (Some((_, object)), Some(storage)) = (object, &self.storage) {
                        let archivist = Archivist::new(env.clone(), object.clone(), storage.clone());
                        let (batches, oracle) = (archivists.between(1, 4), Arc::clone(&self.oracle));
                        env.spawn(async move {
                            let archived = archivist.archive(batches).await;
                            lock(&oracle).note(archived);
                            drop(reading);
                        });
                    }
                }
                Order::Fold(at, way) => {
                    let object = objects.iter().find(|(object, _)| *object == at);
                    if let Some((_, object)) = object {
                        drop(way.send(readers::fold(object).await.map_err(|error| chain(&error))));
                    }
                }
            }
        }
    }

    fn tell(&self, news: News) {
        // The world outlives its processes.
        drop(self.news.send(news));
    }

    fn failed(&self, error: &cdc::Error) {
        self.tell(News::Failed { host: self.host, reason: chain(error) });
    }

    async fn open<E: Env>(&self, env: &E, transport: &Arc<dyn Transport>) -> cdc::Result<Cdc<E>> {
        let builder = Cdc::builder_in(&self.folder, env.clone()).settings(self.settings());
        let builder = builder.transport(Arc::clone(transport));
        match &self.storage {
            Some(storage) => builder.store(storage.clone()).open().await,
            None => builder.open().await,
        }
    }

    fn settings(&self) -> Settings {
        let oracle = lock(&self.oracle);
        let elsewhere = oracle.places.iter().filter(|place| place.host != self.host);
        // The address is not used: this world brings its own transport.
        let remotes = elsewhere.map(|place| (place.id.clone(), ([127, 0, 0, 1], 1).into())).collect();
        Settings {
            link: link(&self.options),
            handles: self.handles(),
            archive: self.storage.as_ref().map(|_| self.archive()),
            retention: RetentionSettings {
                max_events: self.options.retention_events,
                sweep_ms: RETENTION_SWEEP_MS,
                ..RetentionSettings::default()
            },
            capture: CaptureSettings { trim: self.options.trim },
            audit: AuditSettings { interval_ms: self.options.audit_ms, cpu_percent: 50 },
            disk: DiskSettings {
                ballast_bytes: BALLAST_BYTES,
                sync_ms: self.options.sync_ms.unwrap_or(DiskSettings::default().sync_ms),
            },
            remotes,
        }
    }

    fn handles(&self) -> HandleSettings {
        let default = HandleSettings::default();
        HandleSettings {
            open_max: self.options.open_objects_max.or(default.open_max),
            idle_ms: self.options.idle_ms.unwrap_or(default.idle_ms),
            ..default
        }
    }

    fn archive(&self) -> ArchiveSettings {
        ArchiveSettings {
            events_min: self.options.archive_events_min,
            interval_ms: ARCHIVE_INTERVAL_MS,
            ..ArchiveSettings::new("file:./warehouse")
        }
    }

    fn troubles<E: Env>(&self, cdc: &Cdc<E>) -> Vec<(usize, Trouble)> {
        let oracle = lock(&self.oracle);
        let troubles = cdc.troubles().into_iter();
        let of = |id: &ObjectId| oracle.index(id).unwrap_or(usize::MAX);
        troubles.map(|(id, trouble)| (of(&id), trouble)).collect()
    }
}

/// Small pauses, so that trouble of a second is long.
fn link(options: &Options) -> LinkOptions {
    LinkOptions {
        batch_size: options.link.batch_size,
        batch_timeout_ms: options.link.batch_timeout_ms,
        batch_bytes_max: options.link.batch_bytes_max,
        answer_timeout_ms: ANSWER_TIMEOUT_MS,
        backoff_base_ms: 20,
        backoff_max_ms: 500,
        breaker_failures: 5,
        breaker_pause_ms: 400,
        ..LinkOptions::default()
    }
}
