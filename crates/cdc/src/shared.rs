//! What the drivers of one object share: its lane and the positions they tell each other about.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cdc_log::{Damage, Durability, Group};
use cdc_model::{ObjectId, Position, Remedy, Sequence, mutant, reached};
use cdc_net::Env;
use cdc_relay::Stages;
use tokio::sync::{oneshot, watch};

use crate::handles::{Handles, LastUse};
use crate::lane::Lane;
use crate::node::{Hot, Node};
use crate::registry::ObjectSpec;
use crate::sharing::{Member, Share, Sharing, run_together};
use crate::slot::{Closing, Keeper, Slot, Usage};
use crate::uplink::chain;
use crate::{Error, Result};

/// One object of a running engine.
#[derive(Debug)]
pub(crate) struct Shared<E: Env> {
    pub(crate) spec: ObjectSpec,
    /// How many ancestors it has here. What the link hears of its ancestors comes later.
    pub(crate) depth: usize,
    pub(crate) lane: Lane<Slot, E, Box<dyn Member>>,
    pub(crate) handles: Arc<Handles<E>>,
    pub(crate) last_use: LastUse,
    pub(crate) env: E,
    /// Whether its writes are acknowledged before they are on disk.
    is_normal: AtomicBool,
    /// How many of these have not ended so far, ...
    normal_writes: AtomicUsize,
    /// ... and whether some that have are not on disk.
    unsynced: AtomicBool,
    /// Whether somebody is about to bring them there.
    syncs_soon: AtomicBool,
    /// The log's newest durable position.
    pub(crate) tail: watch::Sender<Position>,
    /// Up to where the link may send: the tail, unless stages that must decide first were not set yet.
    pub(crate) sendable: watch::Sender<Position>,
    /// The parent's mark; the tail's own where there is no parent.
    pub(crate) acked: watch::Sender<Sequence>,
    /// Stored at the root, as far as the parent says.
    pub(crate) uplink_settled: watch::Sender<Sequence>,
    /// The archive's watermark, where this object archives.
    pub(crate) archived: Option<watch::Sender<Sequence>>,
    /// Everything up to here is stored at the root and archived on the way.
    pub(crate) settled: watch::Sender<Sequence>,
    /// The object's ancestors, nearest first.
    pub(crate) ancestors: watch::Sender<Vec<ObjectId>>,
    /// Raised to ask links and archives to send what they have.
    pub(crate) flush: watch::Sender<u64>,
    /// Set to end the drivers.
    pub(crate) stop: watch::Sender<bool>,
    /// The newest value of `flush` that was known when a look at the attached database began that drained it.
    pub(crate) quiet_looks: watch::Sender<u64>,
    /// Counts troubles of all objects, so that whoever waits for progress looks again.
    news: watch::Sender<u64>,
    /// By what has stopped.
    troubles: Mutex<BTreeMap<&'static str, Told>>,
}

/// A trouble, and when it was last met.
#[derive(Debug)]
struct Told {
    reason: String,
    remedy: Remedy,
    damage: Option<Damage>,
    at: Duration,
}

impl Told {
    fn is_passing(&self) -> bool {
        self.remedy == Remedy::Retry
    }
}

/// Pause at least before a sync that failed is tried again, ...
const SYNC_AGAIN_AFTER_MIN: Duration = Duration::from_millis(1);

/// ... and at most.
const SYNC_AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// A write that is acknowledged before it is on disk, from when it is queued until it has ended.
struct NormalWrite<E: Env>(Arc<Shared<E>>);

impl<E: Env> NormalWrite<E> {
    fn new(object: &Arc<Shared<E>>) -> Self {
        object.normal_writes.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(object))
    }
}

impl<E: Env> Drop for NormalWrite<E> {
    fn drop(&mut self) {
        self.0.normal_writes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How long to wait for what goes on by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// For ever.
    Endless,
    /// Until it has failed once more since then.
    TriedSince(Duration),
}

/// Why children's events wait in an object that was opened without its stages.
const STAGES_MISSING: &str = "stages decided here before and were not set since the object was opened; set them, or none \
                              to let everything go on";

/// Why a driver does not go on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `link`, `archive`, `drain`, `trim`, `audit`, `intake`, `stages` or `sync`.
    pub what: &'static str,
    /// Why, in words.
    pub reason: String,
    /// What to do about it. With [`Remedy::Retry`] it is tried again without being asked.
    pub remedy: Remedy,
    /// Whose file is damaged, where it is that.
    pub damage: Option<Damage>,
}

impl<E: Env> Shared<E> {
    pub(crate) fn new(
        spec: ObjectSpec,
        node: Node,
        (env, handles): (E, Arc<Handles<E>>),
        ancestors: Vec<ObjectId>,
        archives: bool,
        news: watch::Sender<u64>,
    ) -> Arc<Self> {
        let (tail, sendable) = (node.log().tail(), node.sendable());
        let waits_for_stages = node.waits_for_stages();
        let zero = || watch::Sender::new(Sequence::ZERO);
        let shared = Arc::new_cyclic(|keeper: &Weak<Self>| Self {
            lane: Lane::sharing(Slot::new(node, Box::new(Weak::clone(keeper))), env.clone(), run_together),
            handles,
            last_use: LastUse::default(),
            spec,
            depth: ancestors.len(),
            env,
            is_normal: AtomicBool::new(false),
            normal_writes: AtomicUsize::new(0),
            unsynced: AtomicBool::new(false),
            syncs_soon: AtomicBool::new(false),
            tail: watch::Sender::new(tail),
            sendable: watch::Sender::new(sendable),
            acked: zero(),
            uplink_settled: zero(),
            archived: archives.then(zero),
            settled: zero(),
            ancestors: watch::Sender::new(ancestors),
            flush: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            quiet_looks: watch::Sender::new(0),
            news,
            troubles: Mutex::new(BTreeMap::new()),
        });
        if waits_for_stages {
            shared.set_trouble("stages", STAGES_MISSING.to_owned(), Remedy::FixRequest);
        }
        shared
    }

    pub(crate) fn id(&self) -> &ObjectId {
        &self.spec.id
    }

    /// Runs a job on the object's lane, once everything that was written is on disk: what it sees may be handed on.
    /// Whoever waits for the tail hears of it when the job has moved it.
    pub(crate) async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Node) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.run_as(Usage::Use, job).await
    }

    /// As [`Shared::run`]; with [`Usage::Passing`] the object is closed for others, or for being idle, as if this had not
    /// been.
    pub(crate) async fn run_as<R: Send + 'static>(
        self: &Arc<Self>,
        usage: Usage,
        job: impl FnOnce(&mut Node) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.run_unsynced(usage, |node| {
            if !mutant!("sent-before-synced") {
                node.hot.log_mut().sync()?;
            }
            job(node)
        })
        .await
    }

    /// As [`Shared::run_as`], for who hands on nothing of the log: a write that was acknowledged may not be on disk.
    pub(crate) async fn run_unsynced<R: Send + 'static>(
        self: &Arc<Self>,
        usage: Usage,
        job: impl FnOnce(&mut Node) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let shared = Arc::clone(self);
        self.lane
            .run(move |slot| {
                let done = slot.node(usage).and_then(|node| {
                    let done = node.recover().map_err(Error::from).and_then(|()| job(node));
                    shared.tell_tail(node);
                    done
                });
                done.inspect_err(|error| shared.handles.ballast.note(error))
            })
            .await?
    }

    /// Runs `work` in a transaction that it shares with what waits beside it, and `then` once that has committed.
    pub(crate) async fn share<R: Send + 'static, S: Send + 'static>(
        self: &Arc<Self>,
        kind: Sharing,
        work: impl FnOnce(&mut Group<'_, '_>, Option<&Stages>) -> Result<R> + Send + 'static,
        then: impl FnOnce(&mut Node, R) -> Result<S> + Send + 'static,
    ) -> Result<S> {
        let (way, done) = oneshot::channel();
        let shared = Arc::clone(self);
        let is_normal = kind == Sharing::Write(Durability::Normal);
        let write = is_normal.then(|| NormalWrite::new(self));
        let then = move |node: &mut Node, done| {
            let done = then(node, done);
            shared.tell_tail(node);
            // From here on it is known whether it is on disk.
            drop(write);
            done
        };
        self.lane.join(Box::new(Share { kind, work: Some(work), then, done: None, way }));
        if is_normal {
            // Behind the write: whoever syncs soon already comes after it.
            self.sync_soon();
        }
        let done = done.await.ok().ok_or(Error::ShutDown)?;
        if let Err(error) = &done {
            self.handles.ballast.note(error);
        }
        done
    }

    /// When the object's writes are on disk.
    pub(crate) fn durability(&self) -> Durability {
        if self.is_normal.load(Ordering::Relaxed) { Durability::Normal } else { Durability::Full }
    }

    pub(crate) fn set_durability(&self, durability: Durability) {
        self.is_normal.store(durability == Durability::Normal, Ordering::Relaxed);
    }

    /// Brings to disk what is queued by then, a moment from now, and tries as often as it takes.
    fn sync_soon(self: &Arc<Self>) {
        if self.syncs_soon.swap(true, Ordering::AcqRel) {
            return;
        }
        let (object, env, mut pause) = (Arc::downgrade(self), self.env.clone(), self.handles.sync_after());
        self.env.spawn(async move {
            loop {
                env.sleep(pause).await;
                // Who drops the engine syncs by that.
                let Some(object) = object.upgrade() else { return };
                // What is queued from here on has another one to see to it.
                object.syncs_soon.store(false, Ordering::Release);
                if object.normal_writes.load(Ordering::Acquire) == 0 && !object.is_unsynced() {
                    // Somebody else was quicker, or it was closed.
                    return object.clear_trouble("sync");
                }
                match object.run_as(Usage::Passing, |_| Ok(())).await {
                    Ok(()) => return object.clear_trouble("sync"),
                    Err(Error::ShutDown) => return,
                    Err(error) => object.set_failed("sync", &error),
                }
                if object.syncs_soon.swap(true, Ordering::AcqRel) {
                    return;
                }
                pause = (pause * 2).clamp(SYNC_AGAIN_AFTER_MIN, SYNC_AGAIN_AFTER_MAX);
            }
        });
    }

    /// Whoever waits for the tail hears of it.
    fn tell_tail(&self, node: &Node) {
        self.unsynced.store(!node.log().is_synced(), Ordering::Release);
        advance(&self.sendable, node.sendable());
        if advance(&self.tail, node.log().tail()) {
            self.update_settled();
        }
    }

    /// Whether a write was acknowledged that is not on disk.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Acquire)
    }

    /// Opens the files of the object again.
    fn reopen(&self) -> Result<Hot> {
        reached!("object.opened-again");
        let room = self.handles.room();
        let opened = self.handles.open(&self.spec);
        drop(room);
        opened.map_err(|source| Error::NotReopened { id: self.id().clone(), source: Box::new(source) })
    }

    /// Whether its files are open.
    pub(crate) fn is_open(&self) -> bool {
        self.last_use.is_open()
    }

    /// Closes the files of the object, unless a job is under way. Gives whether they are closed.
    pub(crate) fn rest(&self, closing: Closing) -> bool {
        let rested = self.lane.if_resting(|slot| {
            // Closing brings to disk what is not.
            if slot.close(closing, |node| self.tell_tail(node)) {
                self.handles.closed(&self.last_use, closing);
            }
        });
        rested.is_some()
    }

    /// Moves what is left of the object's write-ahead log into its file, unless a job is under way. Gives what came of it
    /// if it was tried; it is not tried again.
    pub(crate) fn tidy(&self) -> Option<Result<()>> {
        self.lane.if_resting(|slot| {
            let tidied = slot.tidy(|| self.handles.open(&self.spec));
            self.handles.tidied(&self.last_use);
            tidied
        })
    }

    /// Gives back memory, unless a job is under way.
    pub(crate) fn cool(&self) {
        self.lane.if_resting(|slot| slot.release_memory());
    }

    /// Gives the object its stages; see [`Node::set_stages`].
    pub(crate) async fn set_stages(self: &Arc<Self>, stages: Stages) -> Result<()> {
        self.run(move |node| node.set_stages(stages)).await?;
        self.clear_trouble("stages");
        Ok(())
    }

    /// Works out anew what is settled: at most what the parent and the archive say.
    pub(crate) fn update_settled(&self) {
        let above = if self.spec.context.is_some() {
            *self.uplink_settled.borrow()
        } else {
            self.tail.borrow().sequence
        };
        let archived = self.archived.as_ref().map(|archived| *archived.borrow());
        let settled = match archived {
            Some(archived) if mutant!("settled-by-nearest-archive") => archived,
            Some(_) if mutant!("settled-without-archive") => above,
            archived => archived.map_or(above, |archived| archived.min(above)),
        };
        raise(&self.settled, settled);
    }

    pub(crate) fn set_trouble(&self, what: &'static str, reason: String, remedy: Remedy) {
        self.tell(what, Told { reason, remedy, damage: None, at: self.env.now() });
    }

    /// As [`Shared::set_trouble`] for an error of ours.
    pub(crate) fn set_failed(&self, what: &'static str, error: &Error) {
        let (reason, damage) = (chain(error), error.damage());
        self.tell(what, Told { reason, remedy: error.remedy(), damage, at: self.env.now() });
    }

    fn tell(&self, what: &'static str, told: Told) {
        let mut troubles = self.troubles_now();
        if troubles.get(what).is_none_or(|known| known.reason != told.reason || known.remedy != told.remedy) {
            let goes_on = told.is_passing();
            tracing::warn!(object = %self.id(), what, reason = %told.reason, goes_on, "trouble");
        }
        troubles.insert(what, told);
        drop(troubles);
        self.news.send_modify(|count| *count += 1);
    }

    pub(crate) fn clear_trouble(&self, what: &'static str) {
        self.troubles_now().remove(what);
    }

    /// As [`Shared::clear_trouble`], unless the driver has stopped.
    pub(crate) fn clear_passing(&self, what: &'static str) {
        let mut troubles = self.troubles_now();
        if troubles.get(what).is_some_and(Told::is_passing) {
            troubles.remove(what);
        }
    }

    pub(crate) fn has_trouble(&self, what: &str) -> bool {
        self.troubles_now().contains_key(what)
    }

    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let troubles = self.troubles_now();
        let trouble = |(what, told): (&&'static str, &Told)| Trouble {
            what,
            reason: told.reason.clone(),
            remedy: told.remedy,
            damage: told.damage,
        };
        troubles.iter().map(trouble).collect()
    }

    fn troubles_now(&self) -> MutexGuard<'_, BTreeMap<&'static str, Told>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if one of these drivers of the object has stopped, or waits for longer than there is patience.
    fn check(&self, drivers: &[&str], patience: Patience) -> Result<()> {
        for (what, told) in self.troubles_now().iter().filter(|(what, _)| drivers.contains(what)) {
            let (id, reason) = (self.id().clone(), told.reason.clone());
            match patience {
                _ if !told.is_passing() => return Err(Error::Stopped { id, what, reason }),
                Patience::TriedSince(since) if told.at >= since => {
                    return Err(Error::Waiting { id, what, reason });
                }
                Patience::TriedSince(_) | Patience::Endless => {}
            }
        }
        Ok(())
    }

    /// Waits until `reached` has got to `wanted`, or one of the drivers on the way has stopped.
    pub(crate) async fn until<T: Copy + PartialOrd>(
        &self,
        reached: &watch::Sender<T>,
        wanted: T,
        drivers: &[(&Arc<Self>, &[&str])],
        patience: Patience,
    ) -> Result<()> {
        let (mut watched, mut news) = (reached.subscribe(), self.news.subscribe());
        loop {
            news.borrow_and_update();
            drivers.iter().try_for_each(|(object, drivers)| object.check(drivers, patience))?;
            if *watched.borrow_and_update() >= wanted {
                return Ok(());
            }
            let changed = tokio::select! {
                biased;
                changed = watched.changed() => changed,
                changed = news.changed() => changed,
            };
            changed.ok().ok_or(Error::ShutDown)?;
        }
    }
}

impl<E: Env> Keeper for Weak<Shared<E>> {
    fn open(&self) -> Result<Hot> {
        self.upgrade().ok_or(Error::ShutDown)?.reopen()
    }

    fn note(&self, usage: Usage) {
        let Some(object) = self.upgrade() else { return };
        if usage == Usage::Use || !object.is_open() {
            object.handles.touch(&object);
        }
    }
}

/// Moves a watched position forwards, never back. Gives whether it moved.
fn advance(watched: &watch::Sender<Position>, to: Position) -> bool {
    watched.send_if_modified(|known| {
        let moved = known.sequence < to.sequence;
        if moved {
            *known = to;
        }
        moved
    })
}

/// Moves a watched sequence forwards, never back.
pub(crate) fn raise(watched: &watch::Sender<Sequence>, to: Sequence) {
    watched.send_if_modified(|known| {
        let moved = *known < to;
        if moved {
            *known = to;
        }
        moved
    });
}

/// Completes when the drivers are to end.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop us is gone, which is an end as well.
    let _is_set_or_gone = stop.wait_for(|stop| *stop).await.is_ok();
}
