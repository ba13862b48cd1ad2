//! Brings logs back within their limits, one object after the other, at a slow pace.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cdc_log::{Hold, Holder, Log, Pruned, Retention};
use cdc_model::{ObjectId, Sequence, mutant};
use cdc_net::Env;
use tokio::sync::watch;

use crate::Result;
use crate::engine::Inner;
use crate::node::outbound;
use crate::shared::{Shared, stopped};
use crate::slot::Usage;

/// Between two visits at least: many objects are visited more seldom, not faster.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Between two steps at one log, so that whoever waits for it comes first.
pub(crate) const STEP_PAUSE: Duration = Duration::from_millis(10);

/// All objects are visited once in about this time while the disk is full.
const SWEEP_WHEN_FULL: Duration = Duration::from_secs(1);

/// One visit takes at most this many steps; the rest is left for the next.
const STEPS_MAX: u32 = 200;

/// How far others have come with an object's log, as its driver knows it.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) parent: Option<ObjectId>,
    /// Stored at the root and archived on the way.
    pub(crate) settled: Sequence,
    /// The archive's watermark, where the object archives.
    pub(crate) archived: Option<Sequence>,
    /// Up to where stages have decided, if they have not decided about everything.
    pub(crate) decided: Option<Sequence>,
}

impl Reach {
    /// Who needs rows, but for subscribers, who have their checkpoints in the log itself.
    pub(crate) fn holds(&self, log: &Log) -> Result<Vec<Hold>> {
        let mut holds = Vec::new();
        let mut hold = |holder, through| holds.push(Hold { holder, through });
        if let Some(parent) = &self.parent {
            // Whoever opens the log next knows no more than is stored.
            let link = outbound(log, parent)?;
            hold(Holder::Parent(parent.clone()), link.acked.sequence);
            if !mutant!("pruned-before-settled") {
                hold(Holder::Settled, self.settled.min(link.settled));
            }
        } else if self.archived.is_none() {
            hold(Holder::LastCopy, Sequence::ZERO);
        }
        if let Some(archived) = self.archived.filter(|_| !mutant!("pruned-before-settled")) {
            hold(Holder::Archive, archived);
        }
        if let Some(decided) = self.decided {
            hold(Holder::Stages, decided);
        }
        Ok(holds)
    }
}

/// Visits the objects of an engine in turn until it stops.
pub(crate) async fn drive<E: Env>(engine: Weak<Inner<E>>, env: E, mut stop: watch::Receiver<bool>) {
    let (mut last, mut at_rest) = (None, AtRest::new());
    let Some(mut full) = engine.upgrade().map(|engine| engine.ballast().given_up.subscribe()) else { return };
    loop {
        let Some((objects, sweep)) = engine.upgrade().map(|engine| due(&engine, &at_rest)) else { return };
        let share = sweep / u32::try_from(objects.len()).unwrap_or(u32::MAX).max(1);
        drop(objects);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = full.changed() => continue,
            () = env.sleep(jittered(&env, share.max(PAUSE_MIN))) => {}
        }
        let Some((mut objects, _)) = engine.upgrade().map(|engine| due(&engine, &at_rest)) else { return };
        if objects.is_empty() {
            continue;
        }
        let next = objects.iter().position(|(object, _)| last.as_ref().is_none_or(|last| object.id() > last));
        let (object, retention) = objects.swap_remove(next.unwrap_or_default());
        drop(objects);
        let stands = stands(&object);
        match visit(&object, &retention).await {
            Some(done)
                if done.held.is_empty() && (retention.max_age_ms.is_none() || done.floor >= stands.0) =>
            {
                at_rest.insert(object.id().clone(), stands);
            }
            _ => {
                at_rest.remove(object.id());
            }
        }
        last = Some(object.id().clone());
    }
}

/// Where objects stood at whose logs nothing was left to do, so that their files need not be opened to see it again.
type AtRest = BTreeMap<ObjectId, (Sequence, Sequence)>;

/// What may let rows go or make some go: the log's end, and what is settled of it.
fn stands<E: Env>(object: &Shared<E>) -> (Sequence, Sequence) {
    (object.tail.borrow().sequence, *object.settled.borrow())
}

/// An open object with its limits.
type Limited<E> = (Arc<Shared<E>>, Retention);

/// The open objects that have limits and may be over them, by id, and the time in which all are to be visited.
fn due<E: Env>(engine: &Inner<E>, at_rest: &AtRest) -> (Vec<Limited<E>>, Duration) {
    let settings = &engine.project.settings().retention;
    let limits = |object: Arc<Shared<E>>| {
        let retention = settings.of(object.id());
        let is_due = !retention.is_all() && at_rest.get(object.id()) != Some(&stands(&object));
        is_due.then_some((object, retention))
    };
    let sweep = settings.sweep();
    let sweep = if engine.ballast().is_given_up() { sweep.min(SWEEP_WHEN_FULL) } else { sweep };
    (engine.all().into_iter().filter_map(limits).collect(), sweep)
}

/// Between half of it and one and a half.
fn jittered<E: Env>(env: &E, pause: Duration) -> Duration {
    let percent = u32::try_from(env.entropy().u64() % 101).unwrap_or_default();
    pause / 2 + pause * percent / 100
}

/// Prunes what may go of one object, and lets its writers in between. `None` when something is left.
async fn visit<E: Env>(object: &Arc<Shared<E>>, retention: &Retention) -> Option<Pruned> {
    for _ in 0..STEPS_MAX {
        if *object.stop.borrow() {
            return None;
        }
        match step(object, *retention).await {
            Ok(done) if !done.more => return Some(done),
            Ok(_) => object.env.sleep(STEP_PAUSE).await,
            // Tried again at the next visit; what keeps a log from being written is told by whoever writes it.
            Err(error) => {
                tracing::warn!(object = %object.id(), %error, "the log could not be pruned");
                return None;
            }
        }
    }
    None
}

async fn step<E: Env>(object: &Arc<Shared<E>>, retention: Retention) -> Result<Pruned> {
    let reach = Reach {
        parent: object.spec.context.clone(),
        settled: *object.settled.borrow(),
        archived: object.archived.as_ref().map(|archived| *archived.borrow()),
        decided: None,
    };
    let now = object.env.clock().now();
    object.run_as(Usage::Passing, move |node| node.prune(&retention, now, reach)).await
}
