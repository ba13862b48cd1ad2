use std::sync::Arc;

use cdc_log::{Durability, Log, RowDifference, Tables, Tx};
use cdc_model::{Cursor, Fold, ObjectId, Record, Sequence, Subscriber};
use cdc_net::{Env, Tokio};
use cdc_relay::Stages;

use crate::engine::blocking;
use crate::node::Hot;
use crate::registry::ObjectSpec;
use crate::shared::{Patience, Shared};
use crate::sharing::Sharing;
use crate::slot::Usage;
use crate::{Cdc, CheckpointHandle, Consumer, Error, Reader, Result};

/// Says how to open an object.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct ObjectBuilder<E: Env = Tokio> {
    cdc: Cdc<E>,
    id: String,
    context: Option<ObjectId>,
    archive: bool,
    migrations: Vec<String>,
    capture: Option<Tables>,
    stages: Option<Result<Stages, cdc_relay::Error>>,
    durability: Option<Durability>,
}

impl<E: Env> ObjectBuilder<E> {
    pub(crate) fn new(cdc: Cdc<E>, id: &str) -> Self {
        Self {
            cdc,
            id: id.to_owned(),
            context: None,
            archive: false,
            migrations: Vec::new(),
            capture: None,
            stages: None,
            durability: None,
        }
    }

    /// The object's parent. Stored when the object is made; an object that exists keeps its own.
    pub fn context(mut self, parent: &ObjectId) -> Self {
        self.context = Some(parent.clone());
        self
    }

    /// Archives the object's log although it has a parent. Stored when the object is made.
    pub const fn archived(mut self) -> Self {
        self.archive = true;
        self
    }

    /// SQL to run at every open, such as `CREATE TABLE IF NOT EXISTS …`.
    pub fn migrate(mut self, sql: impl Into<String>) -> Self {
        self.migrations.push(sql.into());
        self
    }

    /// Captures these tables.
    pub fn capture(mut self, tables: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.capture = Some(Tables::Named(tables.into_iter().map(Into::into).collect()));
        self
    }

    /// Captures every table, also those made later.
    pub fn capture_all(mut self) -> Self {
        self.capture = Some(Tables::All);
        self
    }

    /// The stages that children's events pass, in order, in place before the first of them arrives; see
    /// [`Object::stages`].
    pub fn stages(mut self, stages: Vec<Box<dyn cdc_relay::Stage>>) -> Self {
        self.stages = Some(Stages::new(stages));
        self
    }

    /// When the object's writes are on disk, from now on and while this engine runs; [`Durability::Full`] unless said.
    ///
    /// With [`Durability::Normal`] a write is acknowledged without waiting for the disk, which follows some 10 ms later.
    /// Readers, consumers, archive and parent hear of its events then. A process that ends loses nothing; a loss of power
    /// takes at most the writes of these moments, each whole.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Opens the object, making it if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] when the id is none, [`Error::UnknownParent`], [`Error::OtherParent`], [`Error::Circle`],
    /// [`Error::Elsewhere`], [`Error::Relay`] when stages have no name or one name, or what SQLite says to a migration.
    pub async fn open(self) -> Result<Object<E>> {
        let Self { cdc, id, context, archive, migrations, capture, stages, durability } = self;
        let id: ObjectId = id.parse()?;
        let stages = stages.transpose()?;
        let (project, ours) = (cdc.project().clone(), id.clone());
        blocking(&cdc.inner.env, move || {
            if context.is_some() || project.registry.get(&ours)?.is_none() {
                project.create_as(&ObjectSpec { id: ours, context, attached: None, archive })?;
            }
            Ok(())
        })
        .await?;
        let object = Object { shared: cdc.open_object(&id, stages).await?, cdc };
        if let Some(durability) = durability {
            object.shared.set_durability(durability);
        }
        if !migrations.is_empty() {
            object.write(move |tx| migrations.iter().try_for_each(|sql| Ok(tx.execute_batch(sql)?))).await?;
        }
        if let Some(tables) = capture {
            object.on_log(move |log| Ok(log.capture(&tables)?)).await?;
        }
        Ok(object)
    }
}

/// A handle on an open object. Cheap to clone; all handles of one object share its queue.
#[derive(Debug)]
pub struct Object<E: Env = Tokio> {
    cdc: Cdc<E>,
    pub(crate) shared: Arc<Shared<E>>,
}

impl<E: Env> Clone for Object<E> {
    fn clone(&self) -> Self {
        Self { cdc: self.cdc.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<E: Env> Object<E> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &ObjectId {
        self.shared.id()
    }

    /// The cursor after its newest record.
    ///
    /// # Errors
    ///
    /// [`Error::ShutDown`].
    pub async fn cursor(&self) -> Result<Cursor> {
        self.shared.run(|node| Ok(node.log().cursor())).await
    }

    /// Everything up to here is stored at the root and archived on the way.
    #[must_use]
    pub fn settled(&self) -> Sequence {
        *self.shared.settled.borrow()
    }

    /// Runs `work` in one write transaction of the object's database, off the asynchronous workers. Every change
    /// of a captured table and every emitted document becomes a record in the same transaction. `Ok` means durable, at
    /// the object's [`ObjectBuilder::durability`]; `Err` leaves nothing. Dropping the future does not stop a transaction that has begun.
    ///
    /// Writes and children's batches that wait at the same time share one transaction and one sync. One that fails is
    /// undone by itself.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`Error::Attached`] when the database belongs to an application; [`Error::DiskFull`] until there
    /// is room again; [`Error::Log`] with
    /// `NotCommitted` when the transaction failed as a whole, also because a statement of another write asked for that
    /// (`INSERT OR ROLLBACK`): then trying again helps.
    pub async fn write<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        if let Some(attached) = self.shared.spec.attached.as_ref().filter(|attached| !attached.detached) {
            return Err(Error::Attached { id: self.id().clone(), database: attached.database.clone() });
        }
        self.shared.handles.check_disk()?;
        let shared = Arc::clone(&self.shared);
        self.shared
            .share(
                Sharing::Write(self.shared.durability()),
                move |group, _| carry(|given_up| group.write(|tx| work(tx).map_err(given_up))),
                move |node, written| {
                    // Of a very large transaction the rest follows in chunks. It is durable already.
                    match node.drain_own() {
                        Ok(()) => shared.clear_trouble("drain"),
                        Err(error) => shared.set_failed("drain", &error),
                    }
                    Ok(written)
                },
            )
            .await
    }

    /// Runs `work` with the object's database for reading. It sees every write that was acknowledged, also those that are
    /// not on disk.
    ///
    /// # Errors
    ///
    /// What `work` returns.
    pub async fn query<R: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let id = self.id().clone();
        let query = move |log: &mut Log| carry(|given_up| log.query(|conn| work(conn).map_err(given_up)));
        self.shared.run_unsynced(Usage::Use, move |node| query(node.owned(&id)?)).await
    }

    /// Sets the stages that children's events pass, in order. The first time they take effect at the next batch;
    /// after a restart they first decide about what came in without them, which waits for them. What was decided
    /// stays. An empty list lets everything go on.
    ///
    /// [`ObjectBuilder::stages`] sets them before anything comes in.
    ///
    /// # Errors
    ///
    /// [`Error::Relay`] when a name is empty or given twice.
    pub async fn stages(&self, stages: Vec<Box<dyn cdc_relay::Stage>>) -> Result<()> {
        self.shared.set_stages(Stages::new(stages)?).await
    }

    /// Sends everything up to the newest record on its way and waits until the root has stored it, or the first
    /// ancestor that another process serves; for one that is not there, as long as it takes. Archiving goes on by
    /// itself; [`Object::settle`] waits for that and for the root wherever it is.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] when a link on the way does not go on by itself.
    pub async fn flush(&self) -> Result<()> {
        Cdc::drain(&self.shared, Patience::Endless).await?;
        let mut object = Arc::clone(&self.shared);
        while let Some(parent) = object.spec.context.clone() {
            let tail = object.tail.borrow().sequence;
            object.flush.send_modify(|count| *count += 1);
            let above = self.cdc.opened_or_elsewhere(&parent)?;
            let mut drivers: Vec<(_, &[&str])> = vec![(&object, &["link", "stages"])];
            drivers.extend(above.iter().map(|above| (above, &["intake"][..])));
            object.until(&object.acked, tail, &drivers, Patience::Endless).await?;
            let Some(above) = above else { break };
            object = above;
        }
        Ok(())
    }

    /// Waits until everything up to the newest record is stored at the root and in every archive on the way. An ancestor
    /// that another process serves is asked now and then, and archives when its own settings say so.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] when a link or archive on the way does not go on by itself.
    pub async fn settle(&self) -> Result<()> {
        self.flush().await?;
        let tail = self.shared.tail.borrow().sequence;
        let mut chain = vec![Arc::clone(&self.shared)];
        while let Some(parent) = chain.last().and_then(|object| object.spec.context.clone()) {
            let Some(above) = self.cdc.opened_or_elsewhere(&parent)? else { break };
            chain.push(above);
        }
        chain.iter().for_each(|object| object.flush.send_modify(|count| *count += 1));
        const DRIVERS: &[&str] = &["archive", "intake", "link", "stages"];
        let drivers: Vec<_> = chain.iter().map(|object| (object, DRIVERS)).collect();
        self.shared.until(&self.shared.settled, tail, &drivers, Patience::Endless).await
    }

    /// A subscriber's checkpoint in this object.
    #[must_use]
    pub fn checkpoint(&self, subscriber: impl Into<String>) -> CheckpointHandle<E> {
        CheckpointHandle::new(Arc::clone(&self.shared), subscriber.into())
    }

    /// All subscribers with a checkpoint, and how far each is behind.
    ///
    /// # Errors
    ///
    /// [`Error::Log`].
    pub async fn subscribers(&self) -> Result<Vec<Subscriber>> {
        self.shared.run(|node| Ok(node.log().subscribers()?)).await
    }

    /// Begins a consumer whose effects lie in this object's database: effect and checkpoint commit together, so
    /// each record is taken exactly once, through any crash. Events of its own effects are passed over.
    pub fn consume<F>(&self, subscriber: impl Into<String>, work: F) -> Consumer<E, F>
    where
        F: FnMut(&Tx<'_>, &[Record]) -> Result<()> + Send + 'static,
    {
        Consumer::new(self.clone(), subscriber.into(), work)
    }

    /// Compares the live tables of this object with a fold of its history, wherever that was folded: the first
    /// difference, or `None`.
    ///
    /// # Errors
    ///
    /// [`Error::Log`].
    pub async fn compare_rows(&self, fold: Fold) -> Result<Option<RowDifference>> {
        self.shared
            .run(move |node| match &node.hot {
                Hot::Owned(log) => Ok(log.compare_rows(&fold)?),
                Hot::Attached(attached) => Ok(attached.compare_rows(&fold)?),
            })
            .await
    }

    /// A reader of this object's history over all tiers.
    ///
    /// # Errors
    ///
    /// What is wrong with its log or archive.
    pub async fn reader(&self) -> Result<Reader<E>> {
        self.cdc.project().reader(&self.cdc.inner.env, self.id()).await
    }

    async fn on_log<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.shared.run(move |node| work(node.hot.log_mut())).await
    }

    pub(crate) async fn on_owned<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let id = self.id().clone();
        self.shared.run(move |node| work(node.owned(&id)?)).await
    }
}

/// Carries the caller's own error through a transaction of the log, which is rolled back because of it.
pub(crate) fn carry<R>(
    run: impl FnOnce(&mut dyn FnMut(Error) -> cdc_log::Error) -> cdc_log::Result<R>,
) -> Result<R> {
    let mut own = None;
    let mut given_up = |error: Error| {
        if let Error::Log(error) = error {
            return error;
        }
        let reason = error.to_string();
        own = Some(error);
        cdc_log::Error::GivenUp { reason }
    };
    let done = run(&mut given_up);
    match (done, own) {
        (Err(_), Some(error)) => Err(error),
        (done, _) => Ok(done?),
    }
}
