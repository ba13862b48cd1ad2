//! Compares captured tables with their logs, one object after the other, within a share of a processor: what bypassed
//! capture and left no trace is found by nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use cdc_model::{ObjectId, Timestamp, mutant};
use cdc_net::Env;
use tokio::sync::watch;

use crate::engine::Inner;
use crate::node::{Hot, Node};
use crate::settings::AuditSettings;
use crate::shared::{Shared, stopped};
use crate::slot::Usage;
use crate::{Error, Result};

/// A step is taken to last so long at least, so that a clock that does not tell leads to no haste.
const STEP_MIN: Duration = Duration::from_micros(100);

/// While nothing is due, it is looked for again after this long at most.
const REST_MAX: Duration = Duration::from_secs(10);

/// An object whose comparison failed is compared again after this long.
const RETRY: Duration = Duration::from_secs(60);

/// What one step has come to.
enum Step {
    /// There is more to compare of this object.
    More,
    /// It was compared as of then.
    Done(Timestamp),
}

/// Compares until the engine stops.
pub(crate) async fn drive<E: Env>(engine: Weak<Inner<E>>, env: E, mut stop: watch::Receiver<bool>) {
    let Some(settings) = engine.upgrade().map(|engine| engine.project.settings().audit.clone()) else {
        return;
    };
    let rest = (settings.interval() / 10).min(REST_MAX);
    let mut due = BTreeMap::new();
    let mut under_way = None;
    let mut pause = rest;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = env.sleep(pause) => {}
        }
        let Some(objects) = engine.upgrade().map(|engine| engine.all()) else { return };
        let began = env.now();
        let Some(object) = next(&objects, &due, under_way.as_ref(), began) else {
            pause = rest;
            continue;
        };
        drop(objects);
        under_way = None;
        match step(&object, &settings).await {
            Ok(Step::More) => under_way = Some(object.id().clone()),
            Ok(Step::Done(compared)) => {
                object.clear_trouble("audit");
                due.insert(object.id().clone(), env.now() + settings.left(compared, env.clock().now()));
            }
            Err(Error::ShutDown) => {}
            Err(error) => {
                if !matches!(&error, Error::Log(error) if error.is_busy()) {
                    object.set_failed("audit", &error);
                }
                due.insert(object.id().clone(), env.now() + RETRY.min(settings.interval()));
            }
        }
        pause = settings.pause_after(env.now().saturating_sub(began).max(STEP_MIN));
    }
}

/// The object to go on with, else the first that is due. One that was just opened is.
fn next<E: Env>(
    objects: &[Arc<Shared<E>>],
    due: &BTreeMap<ObjectId, Duration>,
    under_way: Option<&ObjectId>,
    now: Duration,
) -> Option<Arc<Shared<E>>> {
    let goes_on = objects.iter().find(|object| Some(object.id()) == under_way);
    let is_due = |object: &&Arc<Shared<E>>| {
        due.get(object.id()).is_none_or(|due| *due <= now) && !mutant!("audit-never-due")
    };
    goes_on.or_else(|| objects.iter().find(is_due)).map(Arc::clone)
}

async fn step<E: Env>(object: &Arc<Shared<E>>, settings: &AuditSettings) -> Result<Step> {
    let (now, settings) = (object.env.clock().now(), settings.clone());
    object.run_as(Usage::Passing, move |node| step_at(node, now, &settings)).await
}

fn step_at(node: &mut Node, now: Timestamp, settings: &AuditSettings) -> Result<Step> {
    let compared = node.log().compared_at()?;
    if let Some(compared) = compared.filter(|compared| !settings.left(*compared, now).is_zero()) {
        // One that is under way was begun when audits were wanted more often.
        node.hot.log_mut().drop_audit()?;
        return Ok(Step::Done(compared));
    }
    let more = match &mut node.hot {
        Hot::Attached(attached) => attached.audit()?.drained.more,
        Hot::Owned(log) => log.audit()?.more,
    };
    let compared = node.log().compared_at()?;
    Ok(match (&node.hot, compared) {
        _ if more => Step::More,
        (_, Some(compared)) => Step::Done(compared),
        // What ended was the taking up of new tables.
        (Hot::Attached(_), None) => Step::More,
        (Hot::Owned(_), None) => Step::Done(now),
    })
}
