//! How a process opens its objects: attached beside an application or its own, with their stages.

use std::collections::BTreeMap;
use std::path::Path;

use cdc::{
    Aggregate, AttachOptions, Cdc, Cursor, Durability, Env, Filter, FilterStage, Object, Operation, Outcome,
    Record, Save, Stage, StageError, StageState, Verdict,
};
use cdc_log::Log;
use tokio::sync::oneshot;

use super::readers::ONLOOKER;
use super::{Host, News, REOPEN_AFTER, lock};
use crate::application::Application;
use crate::failure::{chain, ensure};
use crate::topology::Place;
use crate::workload::{COUNTS, EMITTED, REJECTED, SCHEMA, TABLES};

/// The stream of random numbers of applications.
const APPLICATIONS: usize = usize::MAX / 3;

/// Objects that are opened again at a time.
const REOPENED_MAX: usize = 20;

const ONE_PARENT: &str = "an object keeps its parent";

impl Host {
    /// Opens every object of the process, parents first.
    pub(super) async fn open_objects<E: Env>(
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
            if let Some(application) = &mut application {
                if cdc.project().object(&id).is_ok() {
                    self.write_unseen(at, application).await;
                } else if application.is_filled() {
                    // These rows are nobody's transaction.
                    lock(&self.oracle).loosen(at);
                    application.fill().await;
                }
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
        if self.options.retention_events.is_some() {
            self.look_on(env, &place).await?;
        }
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
            if place.normal {
                builder = builder.durability(Durability::Normal);
            }
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

    /// The onlooker is a subscriber of a log before anything is in it.
    async fn look_on<E: Env>(&self, env: &E, place: &Place) -> cdc::Result<()> {
        let (path, id, clock) = (self.folder.join(place.log_file()), place.id.clone(), env.clock());
        let (way, done) = oneshot::channel();
        env.blocking(move || {
            std::fs::create_dir_all(path.parent().unwrap_or(&path))
                .expect("the folders of a project can be made");
            let looked = Log::open(&path, &id, &clock).and_then(|mut log| {
                if log.checkpoint(ONLOOKER)?.is_none() {
                    log.transact(|log| log.save_checkpoint(ONLOOKER, &Save::at(Cursor::START)))?;
                }
                Ok(())
            });
            drop(way.send(looked));
        });
        match done.await {
            Ok(looked) => Ok(looked?),
            Err(_ended) => std::future::pending().await,
        }
    }

    /// Names another parent for an object that is open, which must be refused, and opens some as they are again.
    pub(super) async fn reparent<E: Env>(&self, cdc: &Cdc<E>, env: &E, object: usize, to: usize) {
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

/// What is not a document without a table.
fn not_emitted() -> Filter {
    let kept = TABLES.iter().copied().chain([COUNTS]).map(str::to_owned).collect::<Vec<_>>();
    assert!(!kept.iter().any(|name| name == EMITTED), "the filter keeps something back");
    Filter { collections: kept, ..Filter::ALL }
}
