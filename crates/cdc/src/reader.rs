use cdc_iceberg::Status as ArchiveStatus;
use cdc_log::{DeadLetter, Limit, Log, Losses, Pruned, Remover, Retention, Save};
use cdc_model::{
    Checkpoint, Cursor, FenceToken, Filter, Mark, ObjectId, Record, Sequence, Subscriber, Timestamp,
};
use cdc_net::{Env, Tokio};
use cdc_relay::Outbound;
use cdc_replay::{Folded, Replay, ReplayBatch, Until};
use futures_core::Stream;

use crate::engine::blocking;
use crate::lane::Lane;
use crate::pruner::{Reach, STEP_PAUSE};
use crate::registry::ObjectSpec;
use crate::tiers::{ColdTier, HotTier};
use crate::{Project, Result};

/// Reads one object's history: its log and its archive, through connections of its own, also while an engine
/// works on the same project in this or another process. Cheap to clone.
#[derive(Debug)]
pub struct Reader<E: Env = Tokio> {
    spec: ObjectSpec,
    hot: HotTier<E>,
    cold: Option<ColdTier>,
    env: E,
    /// Whether the object archives, also when nothing was archived so far.
    archives: bool,
    retention: Retention,
}

impl<E: Env> Clone for Reader<E> {
    fn clone(&self) -> Self {
        Self {
            spec: self.spec.clone(),
            hot: self.hot.clone(),
            cold: self.cold.clone(),
            env: self.env.clone(),
            archives: self.archives,
            retention: self.retention,
        }
    }
}

/// Where an object's log stands.
#[derive(Clone, Debug)]
pub struct LogStatus {
    /// The cursor after the newest record.
    pub tail: Cursor,
    /// The oldest readable sequence.
    pub floor: Sequence,
    /// What the parent has taken, as last stored; `None` without a parent.
    pub acked: Option<Sequence>,
    /// The children that ever linked to this object.
    pub children: Vec<ObjectId>,
    /// When the last comparison of all captured tables had begun; `None` before the first.
    pub compared_at: Option<Timestamp>,
    /// How often the application held its database for longer than a look or a trim waited.
    pub collisions: u64,
}

impl Project {
    /// Opens an object for reading.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownObject`](crate::Error::UnknownObject), or what is wrong with its log or archive.
    pub async fn reader<E: Env>(&self, env: &E, id: &ObjectId) -> Result<Reader<E>> {
        let (project, ours, clock) = (self.clone(), id.clone(), env.clock());
        let (spec, log) = blocking(env, move || {
            let spec = project.object(&ours)?;
            let log = project.open_log(&spec, &clock)?;
            Ok((spec, log))
        })
        .await?;
        let cold = self.archive(env, &spec).await?.map(ColdTier::new);
        let archives = self.warehouse(&spec)?.is_some();
        let retention = self.settings().retention.of(&spec.id);
        let hot = HotTier { lane: Lane::new(log, env.clone()) };
        Ok(Reader { spec, hot, cold, env: env.clone(), archives, retention })
    }
}

impl<E: Env> Reader<E> {
    /// The object.
    #[must_use]
    pub const fn spec(&self) -> &ObjectSpec {
        &self.spec
    }

    /// Begins a replay over all tiers.
    pub fn replay(&self) -> ReplayBuilder<E> {
        ReplayBuilder {
            replay: Replay::new().cold(self.cold.clone()).hot(self.hot.clone()),
            schema_changes: false,
        }
    }

    /// The newest records of the log, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log).
    pub async fn tail(&self, last: usize) -> Result<Vec<Record>> {
        self.on_log(move |log| {
            log.refresh()?;
            let back = u64::try_from(last).unwrap_or(u64::MAX);
            let from = log.tail().sequence.get().saturating_sub(back);
            let after = Sequence::new(from).max(Sequence::new(log.floor()?.get() - 1));
            Ok(log.read(after, Limit { records: last, bytes: usize::MAX })?)
        })
        .await
    }

    /// The records of the log after a position, as far as it reaches now; empty at its end.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log).
    pub async fn after(&self, after: Sequence, limit: Limit) -> Result<Vec<Record>> {
        self.on_log(move |log| {
            log.refresh()?;
            Ok(log.read(after, limit)?)
        })
        .await
    }

    /// Where the log stands.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log).
    pub async fn status(&self) -> Result<LogStatus> {
        let parent = self.spec.context.clone();
        self.on_log(move |log| {
            log.refresh()?;
            let link = parent.map(|parent| crate::node::outbound(log, &parent)).transpose()?;
            Ok(LogStatus {
                tail: log.cursor(),
                floor: log.floor()?,
                acked: link.map(|link: Outbound| link.acked.sequence),
                children: log.children()?,
                compared_at: log.compared_at()?,
                collisions: log.counter("collisions")?,
            })
        })
        .await
    }

    /// What the archive holds; `None` when the object has none.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`](crate::Error::Archive).
    pub async fn archive_status(&self) -> Result<Option<ArchiveStatus>> {
        match &self.cold {
            Some(cold) => Ok(Some(cold.status().await?)),
            None => Ok(None),
        }
    }

    /// All subscribers with a checkpoint, and how far each is behind.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log).
    pub async fn subscribers(&self) -> Result<Vec<Subscriber>> {
        self.on_log(|log| {
            log.refresh()?;
            Ok(log.subscribers()?)
        })
        .await
    }

    /// Saves a subscriber's checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log) with `CheckpointBackwards`, `CheckpointMoved`, `CheckpointFenced`,
    /// `CheckpointEpoch` or `BeyondTail`.
    pub async fn save_checkpoint(&self, subscriber: &str, save: Save) -> Result<Checkpoint> {
        let subscriber = subscriber.to_owned();
        self.on_log(move |log| {
            log.refresh()?;
            Ok(log.transact(|log| log.save_checkpoint(&subscriber, &save))?)
        })
        .await
    }

    /// Takes a subscriber's checkpoint over: who had it before, or has no token, saves it no more.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log).
    pub async fn take_over(&self, subscriber: &str) -> Result<FenceToken> {
        let subscriber = subscriber.to_owned();
        self.on_log(move |log| Ok(log.transact(|log| log.take_over(&subscriber))?)).await
    }

    /// Forgets a subscriber's checkpoint. Gives whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log) with `CheckpointFenced`, unless by who has taken it over last or an operator.
    pub async fn remove_checkpoint(&self, subscriber: &str, by: Remover) -> Result<bool> {
        let subscriber = subscriber.to_owned();
        self.on_log(move |log| Ok(log.transact(|log| log.remove_checkpoint(&subscriber, by))?)).await
    }

    /// Prunes once what is over the configured limits and everybody has taken, as far as the log and the archive say: an
    /// engine at work may know that more is settled. [`Pruned::held`] names who holds back what.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log) or [`Error::Archive`](crate::Error::Archive).
    pub async fn prune(&self) -> Result<Pruned> {
        let (retention, now, reach) = (self.retention, self.env.clock().now(), self.reach().await?);
        self.in_steps(move |log| {
            let holds = reach.holds(log)?;
            Ok(log.prune(&retention, now, &holds)?)
        })
        .await
    }

    /// What [`Reader::prune_through`] would drop, and for whom.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log) with `BeyondTail`, or [`Error::Archive`](crate::Error::Archive).
    pub async fn losses(&self, through: Sequence) -> Result<Losses> {
        let reach = self.reach().await?;
        self.on_log(move |log| {
            log.refresh()?;
            let holds = reach.holds(log)?;
            Ok(log.losses(through, &holds)?)
        })
        .await
    }

    /// Prunes every row up to `through` but the newest, whoever still needs them: the explicit act that drops what may be
    /// nowhere else. Links, archives and subscribers that needed them stop with an error that names the floor.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log) with `BeyondTail`.
    pub async fn prune_through(&self, through: Sequence) -> Result<Pruned> {
        self.in_steps(move |log| Ok(log.prune_through(through)?)).await
    }

    /// The records after `after` that stages rejected, at most `most`, whether or not their rows are still in the log.
    ///
    /// # Errors
    ///
    /// [`Error::Log`](crate::Error::Log).
    pub async fn dead_letters(&self, after: Sequence, most: u32) -> Result<Vec<DeadLetter>> {
        self.on_log(move |log| {
            log.refresh()?;
            Ok(log.dead_letters(after, most)?)
        })
        .await
    }

    /// How far everybody has come, as far as is stored.
    async fn reach(&self) -> Result<Reach> {
        let mark = self.archive_status().await?.and_then(|status| status.watermark);
        let archives = self.archives;
        let parent = self.spec.context.clone();
        self.on_log(move |log| {
            log.refresh()?;
            let link = parent.as_ref().map(|parent| crate::node::outbound(log, parent)).transpose()?;
            let settled = link.map_or(log.tail().sequence, |link| link.settled);
            let decided = crate::node::decided_in(log)?.map(|decided| decided.sequence);
            let archived = archives.then(|| mark.map_or(Sequence::ZERO, |mark| confirmed(log, mark)));
            Ok(Reach { parent, settled, archived, decided })
        })
        .await
    }

    /// Prunes step by step, and lets writers in between.
    async fn in_steps(
        &self,
        step: impl Fn(&mut Log) -> Result<Pruned> + Clone + Send + 'static,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        loop {
            let step = step.clone();
            let done = self
                .on_log(move |log| {
                    log.refresh()?;
                    step(log)
                })
                .await?;
            let more = done.more;
            pruned.add(done);
            if !more {
                return Ok(pruned);
            }
            self.env.sleep(STEP_PAUSE).await;
        }
    }

    async fn on_log<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.hot.lane.run(work).await?
    }
}

/// How far an archive holds this log: nothing of it where the log does not confirm the archive's mark.
fn confirmed(log: &Log, mark: Mark) -> Sequence {
    let own = log.position_at(mark.sequence);
    let agrees = mark.epoch == log.epoch() && own.is_ok_and(|own| own == mark.position());
    if agrees { mark.sequence } else { Sequence::ZERO }
}

/// A replay to be started.
#[derive(Debug)]
#[must_use = "a replay reads nothing until it is streamed or folded"]
pub struct ReplayBuilder<E: Env = Tokio> {
    replay: Replay<Option<ColdTier>, HotTier<E>>,
    schema_changes: bool,
}

impl<E: Env> ReplayBuilder<E> {
    /// From the oldest record; the default.
    pub fn from_start(self) -> Self {
        self.after(Cursor::START)
    }

    /// After this cursor; with sequence 0, from the first record at or after its time.
    pub fn after(self, cursor: Cursor) -> Self {
        Self { replay: self.replay.after(cursor), ..self }
    }

    /// Up to this sequence, inclusive, or this time, exclusive.
    pub fn until(self, until: impl Into<Until>) -> Self {
        Self { replay: self.replay.until(until), ..self }
    }

    /// Only records that pass.
    pub fn filter(self, filter: Filter) -> Self {
        Self { replay: self.replay.filter(filter), ..self }
    }

    /// Only the history of one document.
    pub fn history(self, collection: impl Into<String>, document_id: impl Into<String>) -> Self {
        Self { replay: self.replay.history(collection, document_id), ..self }
    }

    /// At most this many records in one batch.
    pub fn batch_size(self, records: usize) -> Self {
        Self { replay: self.replay.batch_size(records), ..self }
    }

    /// Also schema changes, which are left out otherwise.
    pub fn with_schema_changes(self) -> Self {
        Self { schema_changes: true, ..self }
    }

    /// Reads to the end as of now, batch by batch.
    pub fn stream(self) -> impl Stream<Item = Result<ReplayBatch>> + Send + Unpin {
        use futures_util::TryStreamExt as _;
        let Self { replay, schema_changes } = self;
        replay.stream().map_err(Into::into).map_ok(move |mut batch| {
            batch.records.retain(|record| schema_changes || !record.body.is_schema());
            batch
        })
    }

    /// The documents that the replayed history adds up to.
    ///
    /// # Errors
    ///
    /// [`Error::Replay`](crate::Error::Replay).
    pub async fn fold(self) -> Result<Folded> {
        Ok(self.replay.fold().await?)
    }
}
