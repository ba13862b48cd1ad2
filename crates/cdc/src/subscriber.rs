//! Who takes records and keeps how far: a checkpoint by itself, and consumers whose effects commit with it.

use std::sync::{Arc, Mutex, PoisonError};

use cdc_log::{Begin, Consumed, Remover, Save, Subscription, Tx};
use cdc_model::{Checkpoint, Cursor, FenceToken, Filter, Record};
use cdc_net::{Env, Tokio};

use crate::object::carry;
use crate::shared::Shared;
use crate::{Error, Object, Result};

/// One subscriber's checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointHandle<E: Env = Tokio> {
    shared: Arc<Shared<E>>,
    subscriber: String,
}

impl<E: Env> CheckpointHandle<E> {
    pub(crate) const fn new(shared: Arc<Shared<E>>, subscriber: String) -> Self {
        Self { shared, subscriber }
    }

    /// The checkpoint, if it was ever saved.
    ///
    /// # Errors
    ///
    /// [`Error::Log`].
    pub async fn get(&self) -> Result<Option<Checkpoint>> {
        let subscriber = self.subscriber.clone();
        self.shared.run(move |node| Ok(node.log().checkpoint(&subscriber)?)).await
    }

    /// Saves how far the subscriber has come. It only goes forwards.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] with `CheckpointBackwards`, `BeyondTail`, `CheckpointFenced`, or `CheckpointEpoch` for a cursor of a
    /// log that was made anew since.
    pub async fn save(&self, cursor: Cursor) -> Result<Checkpoint> {
        self.save_as(Save::at(cursor)).await
    }

    /// Sets it anywhere and raises its revision.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] with `BeyondTail`.
    pub async fn force(&self, cursor: Cursor) -> Result<Checkpoint> {
        self.save_as(Save::at(cursor).forced()).await
    }

    /// Saves it under conditions: only if it is as it was seen, only with the token of who has taken it over.
    ///
    /// # Errors
    ///
    /// As for [`CheckpointHandle::save`], and with `CheckpointMoved`.
    pub async fn save_as(&self, save: Save) -> Result<Checkpoint> {
        let subscriber = self.subscriber.clone();
        self.shared
            .run(move |node| {
                Ok(node.hot.log_mut().transact(|log| log.save_checkpoint(&subscriber, &save))?)
            })
            .await
    }

    /// Takes it over: who had it before, or has no token, saves it no more.
    ///
    /// # Errors
    ///
    /// [`Error::Log`].
    pub async fn take_over(&self) -> Result<FenceToken> {
        let subscriber = self.subscriber.clone();
        self.shared.run(move |node| Ok(node.hot.log_mut().transact(|log| log.take_over(&subscriber))?)).await
    }

    /// Forgets it. Gives whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] with `CheckpointFenced` once somebody has taken it over: see [`CheckpointHandle::remove_as`].
    pub async fn remove(&self) -> Result<bool> {
        self.remove_as(Remover::Anybody).await
    }

    /// Forgets it as who has taken it over, or as an operator.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] with `CheckpointFenced` once another has taken it over.
    pub async fn remove_as(&self, by: Remover) -> Result<bool> {
        let subscriber = self.subscriber.clone();
        self.shared
            .run(move |node| Ok(node.hot.log_mut().transact(|log| log.remove_checkpoint(&subscriber, by))?))
            .await
    }
}

/// A consumer that takes each record exactly once.
#[derive(Debug)]
#[must_use = "a consumer does nothing until it is run"]
pub struct Consumer<E: Env, F> {
    object: Object<E>,
    by: Subscription,
    work: F,
}

impl<E: Env, F> Consumer<E, F>
where
    F: FnMut(&Tx<'_>, &[Record]) -> Result<()> + Send + 'static,
{
    pub(crate) fn new(object: Object<E>, subscriber: String, work: F) -> Self {
        Self { object, by: Subscription::new(subscriber), work }
    }

    /// Only records that pass this filter.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.by.filter = filter;
        self
    }

    /// At most this many records in one transaction; 0 counts as 1.
    pub const fn batch_size(mut self, records: usize) -> Self {
        self.by.limit.records = records;
        self
    }

    /// Begins at the oldest record that is still there while the subscriber has no checkpoint: those before it were pruned,
    /// and are in the archive, if there is one.
    pub const fn from_floor(mut self) -> Self {
        self.by.begin = Begin::Floor;
        self
    }

    /// As who has taken the checkpoint over: see [`CheckpointHandle::take_over`].
    pub const fn token(mut self, token: FenceToken) -> Self {
        self.by.token = Some(token);
        self
    }

    /// Consumes until the end of the log. Gives the cursor reached.
    ///
    /// # Errors
    ///
    /// What the work returns; the checkpoint stays before that batch, and it comes again. [`Error::Log`] with
    /// `CheckpointFenced` once another has taken the checkpoint over, with `BelowFloor` when what comes next was pruned: see
    /// [`Consumer::from_floor`].
    pub async fn run(self) -> Result<Cursor> {
        let Self { object, by, work } = self;
        let work = Arc::new(Mutex::new(work));
        loop {
            let (by, work) = (by.clone(), Arc::clone(&work));
            let consumed = object.on_owned(move |log| {
                let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
                let done: Option<Consumed<()>> =
                    carry(|given_up| log.consume(&by, |tx, records| work(tx, records).map_err(given_up)))?;
                let at =
                    log.checkpoint(&by.subscriber)?.map_or(Cursor::START, |checkpoint| checkpoint.cursor);
                Ok((done.is_none(), at))
            });
            match consumed.await {
                Ok((true, cursor)) => return Ok(cursor),
                Ok((false, _)) => {}
                // Somebody has set it elsewhere just now: that is where it goes on.
                Err(Error::Log(cdc_log::Error::CheckpointMoved { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
