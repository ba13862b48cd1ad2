//! What the drivers of one object share: its lane and the positions they tell each other about.

use std::sync::{Arc, Mutex, PoisonError};

use cdc_model::{ObjectId, Position, Sequence};
use cdc_net::Env;
use tokio::sync::watch;

use crate::lane::Lane;
use crate::node::Node;
use crate::registry::ObjectSpec;
use crate::{Error, Result};

/// One object of a running engine.
#[derive(Debug)]
pub(crate) struct Shared<E: Env> {
    pub(crate) spec: ObjectSpec,
    pub(crate) lane: Lane<Node, E>,
    pub(crate) env: E,
    /// The log's newest durable position.
    pub(crate) tail: watch::Sender<Position>,
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
    trouble: Mutex<Option<Trouble>>,
}

/// Why a driver does not go on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `link`, `archive` or `drain`.
    pub what: &'static str,
    /// Why, in words.
    pub reason: String,
}

impl<E: Env> Shared<E> {
    pub(crate) fn new(
        spec: ObjectSpec,
        node: Node,
        env: E,
        ancestors: Vec<ObjectId>,
        archives: bool,
    ) -> Arc<Self> {
        let tail = node.log().tail();
        let zero = || watch::Sender::new(Sequence::ZERO);
        Arc::new(Self {
            lane: Lane::new(node, env.clone()),
            spec,
            env,
            tail: watch::Sender::new(tail),
            acked: zero(),
            uplink_settled: zero(),
            archived: archives.then(zero),
            settled: zero(),
            ancestors: watch::Sender::new(ancestors),
            flush: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            quiet_looks: watch::Sender::new(0),
            trouble: Mutex::new(None),
        })
    }

    pub(crate) fn id(&self) -> &ObjectId {
        &self.spec.id
    }

    /// Runs a job on the object's lane; whoever waits for the tail hears of it when the job has moved it.
    pub(crate) async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&mut Node) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let shared = Arc::clone(self);
        self.lane
            .run(move |node| {
                let done = job(node);
                let tail = node.log().tail();
                let moved = |known: &mut Position| {
                    let moved = known.sequence < tail.sequence;
                    if moved {
                        *known = tail;
                    }
                    moved
                };
                if shared.tail.send_if_modified(moved) {
                    shared.update_settled();
                }
                done
            })
            .await?
    }

    /// Works out anew what is settled: at most what the parent and the archive say.
    pub(crate) fn update_settled(&self) {
        let above = if self.spec.context.is_some() {
            *self.uplink_settled.borrow()
        } else {
            self.tail.borrow().sequence
        };
        let archived = self.archived.as_ref().map(|archived| *archived.borrow());
        let settled = archived.map_or(above, |archived| archived.min(above));
        raise(&self.settled, settled);
    }

    pub(crate) fn set_trouble(&self, what: &'static str, reason: String) {
        let trouble = Some(Trouble { what, reason });
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != trouble {
            tracing::warn!(object = %self.id(), what, reason = ?trouble.as_ref().map(|t| &t.reason), "stopped");
            *known = trouble;
        }
        drop(known);
        // Whoever waits for progress looks again and finds the trouble.
        self.flush.send_modify(|_| {});
        self.acked.send_modify(|_| {});
        self.settled.send_modify(|_| {});
        self.quiet_looks.send_modify(|_| {});
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn clear_trouble(&self, what: &'static str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref().is_some_and(|trouble| trouble.what == what) {
            *trouble = None;
        }
    }

    /// An error if a driver of this object has stopped.
    pub(crate) fn check(&self) -> Result<()> {
        match self.trouble() {
            None => Ok(()),
            Some(Trouble { what, reason }) => Err(Error::Stopped { id: self.id().clone(), what, reason }),
        }
    }

    /// Waits until `reached` has got to `wanted`.
    pub(crate) async fn until(&self, reached: &watch::Sender<Sequence>, wanted: Sequence) -> Result<()> {
        let mut watched = reached.subscribe();
        loop {
            if *watched.borrow_and_update() >= wanted {
                return Ok(());
            }
            self.check()?;
            watched.changed().await.ok().ok_or(Error::ShutDown)?;
        }
    }
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
