//! One life of a process: the engine over its objects, its writers and its consumers. The same on every runner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cdc::{
    Aggregate, ArchiveSettings, AttachOptions, Cdc, Deadline, Env, Filter, FilterStage, LinkOptions, Object,
    Operation, Outcome, Record, Settings, Stage, StageError, StageState, Trouble, Verdict,
};
use cdc_iceberg::Storage;
use cdc_model::ObjectId;
use cdc_net::{Loopback, Transport};
use futures_util::TryStreamExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::application::Application;
use crate::archivist::Archivist;
use crate::disk::Disk;
use crate::failure::{chain, ensure};
use crate::oracle::Oracle;
use crate::plan::Options;
use crate::random::Random;
use crate::topology::Place;
use crate::workload::{COUNTS, EMITTED, ON_PURPOSE, REJECTED, SCHEMA, TABLES, Transaction};

/// Pause before a process tries again to open what could not be opened.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// Longest pause between two rounds of a consumer.
const CONSUME_PAUSE_MAX: Duration = Duration::from_millis(300);

/// How long a child waits for an answer: short, so that trouble of a second is long.
pub(crate) const ANSWER_TIMEOUT_MS: u64 = 400;

/// Archived at the latest after this long.
const ARCHIVE_INTERVAL_MS: u64 = 2_000;

/// Objects that are opened again at a time.
const REOPENED_MAX: usize = 20;

const ONE_PARENT: &str = "an object keeps its parent";

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

/// Those who read logs beside an engine, in connections of their own, until their process closes.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    is_closing: AtomicBool,
}

impl Readers {
    /// To be held while one reads; `None` when it is too late to begin.
    fn begin(self: &Arc<Self>) -> Option<Weak<Self>> {
        (!self.is_closing.load(Ordering::Relaxed)).then(|| Arc::downgrade(self))
    }
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

/// One document of a fold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoldedDocument {
    pub(crate) source: String,
    pub(crate) collection: String,
    pub(crate) document: String,
    pub(crate) after: String,
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
                    self.readers.is_closing.store(true, Ordering::Relaxed);
                    // What was left is sent by the next life.
                    drop(cdc.shutdown(deadline).await);
                    while Arc::weak_count(&self.readers) > 0 {
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
                        drop(way.send(fold(object).await.map_err(|error| chain(&error))));
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
            archive: self.storage.as_ref().map(|_| self.archive()),
            remotes,
        }
    }

    fn archive(&self) -> ArchiveSettings {
        ArchiveSettings {
            events_min: self.options.archive_events_min,
            interval_ms: ARCHIVE_INTERVAL_MS,
            ..ArchiveSettings::new("file:./warehouse")
        }
    }

    /// Opens every object of the process, parents first.
    async fn open_objects<E: Env>(
        &self,
        cdc: &Cdc<E>,
        env: &E,
    ) -> (Vec<(usize, Object<E>)>, BTreeMap<usize, Application<E>>) {
        let here: Vec<usize> = {
            let oracle = lock(&self.oracle);
            let here = oracle.places.iter().enumerate().filter(|(_, place)| place.host == self.host);
            here.map(|(at, _)| at).collect()
        };
        let (mut objects, mut applications) = (Vec::new(), BTreeMap::new());
        for at in here {
            let mut application = self.start_application(env, at).await;
            let id = lock(&self.oracle).place(at).id.clone();
            if let Some(application) = &mut application
                && cdc.project().object(&id).is_ok()
            {
                self.write_unseen(at, application).await;
            }
            let database = application.as_ref().map(|application| application.database().to_owned());
            loop {
                match self.open_object(cdc, env, at, database.as_deref()).await {
                    Ok(object) => {
                        objects.push((at, object));
                        break;
                    }
                    Err(error) => self.failed(&error),
                }
                env.sleep(REOPEN_AFTER).await;
            }
            applications.extend(application.map(|application| (at, application)));
            self.tell(News::Opened { object: at });
        }
        (objects, applications)
    }

    /// The application of an attached object is there before the engine looks at its database.
    async fn start_application<E: Env>(&self, env: &E, at: usize) -> Option<Application<E>> {
        let place = lock(&self.oracle).place(at).clone();
        let database = self.folder.join(place.tables_file(at));
        if lock(&self.oracle).distrusts(at) {
            // The folder of a process is always there.
            drop(self.disk.remove(&database));
        }
        let random = self.random.branch(APPLICATIONS).branch(at);
        let mut application = Application::new(env.clone(), database, place.attached?, random);
        let number = application.settle().await;
        lock(&self.oracle).last_committed(at, number);
        Some(application)
    }

    /// Attaches an object, unless an earlier life has.
    async fn attach<E: Env>(
        &self,
        cdc: &Cdc<E>,
        env: &E,
        place: &Place,
        options: AttachOptions,
    ) -> cdc::Result<()> {
        let (project, clock) = (cdc.project().clone(), env.clock());
        let (disk, log) = (self.disk.clone(), self.folder.join(place.log_file()));
        let (way, done) = oneshot::channel();
        env.blocking(move || {
            let attached = match project.object(&options.id) {
                Err(cdc::Error::UnknownObject { .. }) => project.attach(&options, &clock).map(drop),
                known => known.map(drop),
            };
            // What failed may have removed the folder of the log.
            disk.follow(log.parent().unwrap_or(&log)).expect("the folders of a project can be made");
            drop(way.send(attached));
        });
        match done.await {
            Ok(attached) => attached,
            Err(_ended) => std::future::pending().await,
        }
    }

    async fn open_object<E: Env>(
        &self,
        cdc: &Cdc<E>,
        env: &E,
        at: usize,
        database: Option<&Path>,
    ) -> cdc::Result<Object<E>> {
        let (place, parent) = {
            let oracle = lock(&self.oracle);
            let place = oracle.place(at).clone();
            let parent = place.parent.map(|parent| oracle.place(parent).id.clone());
            (place, parent)
        };
        let mut builder = cdc.object(place.id.as_str());
        if let Some(database) = database {
            let options = AttachOptions {
                database: database.to_owned(),
                id: place.id.clone(),
                context: parent.clone(),
                tables: cdc::Tables::Named(TABLES.map(str::to_owned).to_vec()),
            };
            self.attach(cdc, env, &place, options).await?;
        } else {
            builder = builder.migrate(SCHEMA).capture(TABLES);
        }
        if let Some(parent) = &parent {
            builder = builder.context(parent);
        }
        if place.archives && parent.is_some() {
            builder = builder.archived();
        }
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        if place.counts {
            let count = Aggregate::count().per_ms(1_000).stage(COUNTS);
            stages.push(Box::new(count.expect("the stage has a name")));
        }
        if place.rejects {
            let rejected = Filter { operations: vec![Operation::Delete], ..Filter::collection(REJECTED) };
            stages.push(Box::new(Rejecting(rejected)));
        }
        if place.filters {
            stages.push(Box::new(FilterStage::new("keeps-back", not_emitted())));
        }
        if !stages.is_empty() {
            builder = builder.stages(stages);
        }
        builder.open().await
    }

    /// Names another parent for an object that is open, which must be refused, and opens some as they are again.
    async fn reparent<E: Env>(&self, cdc: &Cdc<E>, env: &E, object: usize, to: usize) {
        let (id, parent) = {
            let oracle = lock(&self.oracle);
            (oracle.place(object).id.clone(), oracle.place(to).id.clone())
        };
        let moved = cdc.object(id.as_str()).context(&parent).open().await;
        let refused = ensure(matches!(moved, Err(cdc::Error::OtherParent { .. })), ONE_PARENT, || {
            let moved = moved.map(drop).map_err(|error| chain(&error));
            format!("object {object} was to go to {to} and came to {moved:?}")
        });
        lock(&self.oracle).note(refused);
        // With the parent that it has, and everything else as it is, an object may be opened as often as one likes.
        let owned: Vec<usize> = {
            let oracle = lock(&self.oracle);
            let here = |at: &usize| oracle.place(*at).host == self.host && !oracle.is_attached(*at);
            (0..oracle.places.len()).filter(here).take(REOPENED_MAX).collect()
        };
        for at in owned {
            drop(self.open_object(cdc, env, at, None).await);
        }
    }

    fn start_writers<E: Env>(
        &self,
        env: &E,
        objects: &[(usize, Object<E>)],
        mut applications: BTreeMap<usize, Application<E>>,
    ) {
        for writer in 0..self.options.writers {
            let share: Vec<_> = objects.iter().skip(writer).step_by(self.options.writers).cloned().collect();
            if share.is_empty() {
                continue;
            }
            let ours = |(at, _): &(usize, Object<E>)| Some((*at, applications.remove(at)?));
            let applications = share.iter().filter_map(ours).collect();
            let (host, ours) = (self.clone(), env.clone());
            env.spawn(async move { host.write(ours, share, applications, writer).await });
        }
    }

    async fn write<E: Env>(
        self,
        env: E,
        objects: Vec<(usize, Object<E>)>,
        mut applications: BTreeMap<usize, Application<E>>,
        writer: usize,
    ) {
        let mut random = self.random.branch(writer);
        let pause_max = Duration::from_millis(self.options.write_pause_max_ms);
        loop {
            env.sleep(random.time(pause_max)).await;
            let (at, object) = random.pick(&objects);
            let transaction = {
                let mut oracle = lock(&self.oracle);
                if oracle.begun >= self.options.writes_max {
                    return;
                }
                oracle.begin(*at)
            };
            let Some(transaction) = transaction else { continue };
            if let Some(application) = applications.get_mut(at) {
                self.write_attached(*at, application, transaction).await;
                continue;
            }
            let written = object.write(move |tx| Ok(transaction.run(tx)?)).await;
            let committed = match written {
                Ok(()) => Some(true),
                Err(cdc::Error::Log(cdc::LogError::GivenUp { reason })) if reason == ON_PURPOSE => {
                    Some(false)
                }
                Err(_) => None,
            };
            lock(&self.oracle).ended(*at, committed);
        }
    }

    async fn write_attached<E: Env>(
        &self,
        at: usize,
        application: &mut Application<E>,
        transaction: Transaction,
    ) {
        let committed = application.run(transaction).await;
        lock(&self.oracle).ended(at, committed);
        if committed.is_none() {
            lock(&self.oracle).is_unsettled(at);
            let number = application.settle().await;
            lock(&self.oracle).last_committed(at, number);
        } else if application.is_to_redesign() {
            // Rows that change without an event of their own are found by comparison.
            lock(&self.oracle).loosen(at);
            let redesigned = application.redesign().await;
            lock(&self.oracle).redesigns += u64::from(redesigned);
        }
    }

    /// An application goes on with its database while nobody looks at it.
    async fn write_unseen<E: Env>(&self, at: usize, application: &mut Application<E>) {
        let mut random = self.random.branch(UNSEEN).branch(at);
        for _ in 0..random.between(0, UNSEEN_MAX) {
            let transaction = {
                let mut oracle = lock(&self.oracle);
                if oracle.begun >= self.options.writes_max { None } else { oracle.begin(at) }
            };
            let Some(transaction) = transaction else { return };
            self.write_attached(at, application, transaction).await;
        }
    }

    fn start_consumers<E: Env>(&self, env: &E, objects: &[(usize, Object<E>)]) {
        let consumed: Vec<_> = {
            let oracle = lock(&self.oracle);
            let is_consumed = |at: usize| oracle.place(at).consumes && oracle.place(at).attached.is_none();
            objects.iter().filter(|(at, _)| is_consumed(*at)).cloned().collect()
        };
        for (at, object) in consumed {
            let (mut random, ours) = (self.random.branch(usize::MAX - at), env.clone());
            let oracle = Arc::clone(&self.oracle);
            env.spawn(async move {
                loop {
                    ours.sleep(random.time(CONSUME_PAUSE_MAX)).await;
                    // What fails comes again with the next round.
                    drop(consume(&object).await);
                    lock(&oracle).dirty.insert(at);
                }
            });
        }
    }

    /// Somebody reads along in batches and goes on after the cursor he has kept, whatever becomes of this process.
    fn start_readers<E: Env>(&self, env: &E, objects: &[(usize, Object<E>)]) {
        let read: Vec<_> = {
            let oracle = lock(&self.oracle);
            objects.iter().filter(|(at, _)| oracle.place(*at).consumes).cloned().collect()
        };
        for (at, object) in read {
            let (mut random, ours) = (self.random.branch(READERS).branch(at), env.clone());
            let (oracle, readers) = (Arc::clone(&self.oracle), Arc::clone(&self.readers));
            env.spawn(async move {
                loop {
                    ours.sleep(random.time(CONSUME_PAUSE_MAX)).await;
                    let Some(reading) = readers.begin() else { return };
                    // What fails comes again with the next round.
                    drop(read_along(&object, at, &oracle, random.between(1, 4)).await);
                    drop(reading);
                }
            });
        }
    }

    fn troubles<E: Env>(&self, cdc: &Cdc<E>) -> Vec<(usize, Trouble)> {
        let oracle = lock(&self.oracle);
        let troubles = cdc.troubles().into_iter();
        let of = |id: &ObjectId| oracle.index(id).unwrap_or(usize::MAX);
        troubles.map(|(id, trouble)| (of(&id), trouble)).collect()
    }
}

/// A stage that cannot work with what passes this filter.
#[derive(Debug)]
struct Rejecting(Filter);

impl Stage for Rejecting {
    fn name(&self) -> &'static str {
        "rejects"
    }

    fn apply(&self, _: &mut StageState<'_>, record: &Record) -> Result<Outcome, StageError> {
        match self.0.passes(record) {
            Ok(true) if !record.body.is_schema() => {
                Err(StageError::Rejected { reason: "it does not work with this".to_owned() })
            }
            Ok(_) => Ok(Verdict::Forward.into()),
            Err(error) => Err(StageError::Rejected { reason: error.to_string() }),
        }
    }
}

/// The subscriber whose effects the checkers look at.
pub(crate) const SUBSCRIBER: &str = "watcher";

async fn consume<E: Env>(object: &Object<E>) -> cdc::Result<()> {
    let consumer = object.consume(SUBSCRIBER, |tx, records| {
        for record in records {
            let (own, source) = (record.sequence.as_i64(), record.origin.source().as_str());
            let values = cdc::params![own, source, record.origin_sequence.as_i64()];
            tx.execute("INSERT INTO effects VALUES (?1, ?2, ?3)", values)?;
        }
        Ok(())
    });
    consumer.batch_size(7).run().await.map(drop)
}

/// The stream of random numbers of those who read along.
const READERS: usize = usize::MAX / 2;

/// The stream of those of what applications write before an engine is there.
const UNSEEN: usize = usize::MAX / 7;

/// Transactions of that kind in one life, at most.
const UNSEEN_MAX: u64 = 4;

/// The stream of those of second archivers.
const ARCHIVISTS: usize = usize::MAX / 5;

/// The stream of those of applications.
const APPLICATIONS: usize = usize::MAX / 3;

/// Reads some batches after the cursor that was kept.
async fn read_along<E: Env>(
    object: &Object<E>,
    at: usize,
    oracle: &Mutex<Oracle>,
    batches: u64,
) -> cdc::Result<()> {
    let Some(cursor) = lock(oracle).reads_after(at) else { return Ok(()) };
    let replay = object.reader().await?.replay().after(cursor).batch_size(5).with_schema_changes();
    let mut stream = replay.stream();
    for _ in 0..batches {
        let Some(batch) = stream.try_next().await? else { break };
        lock(oracle).read(at, &batch.records, batch.cursor);
    }
    Ok(())
}

async fn fold<E: Env>(object: &Object<E>) -> cdc::Result<Vec<FoldedDocument>> {
    let folded = object.reader().await?.replay().from_start().fold().await?;
    let documents = folded.documents.iter().map(|(source, collection, document, after)| {
        let (source, collection) = (source.to_string(), collection.to_owned());
        FoldedDocument { source, collection, document: document.to_owned(), after: after.json.clone() }
    });
    Ok(documents.collect())
}

/// What is not a document without a table.
fn not_emitted() -> Filter {
    let kept = TABLES.iter().copied().chain([COUNTS]).map(str::to_owned).collect::<Vec<_>>();
    assert!(!kept.iter().any(|name| name == EMITTED), "the filter keeps something back");
    Filter { collections: kept, ..Filter::ALL }
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
