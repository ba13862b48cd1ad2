//! Drives the hop from an attached database to its log: looks when something was committed, drains until quiet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_log::Trimmed;
use cdc_net::{Env, Watch as _};

use crate::node::Hot;
use crate::settings::Trim;
use crate::shared::{Shared, stopped};
use crate::slot::Usage;
use crate::{Error, Result};

/// A wake-up can come before the commit is visible, so one more look follows after this long.
const SECOND_LOOK: Duration = Duration::from_millis(15);

/// Safety net: the file's state is compared this often even when nothing woke us.
const SWEEP: Duration = Duration::from_secs(1);

/// And looked at regardless after this many sweeps, ...
const SWEEPS_PER_LOOK: u32 = 30;

/// ... or this many once the object was closed because nothing happened to it.
const SWEEPS_PER_LOOK_CLOSED: u32 = 3600;

/// Pause after a look that failed.
const RETRY: Duration = Duration::from_millis(200);

/// Drained rows are trimmed after this long without a foreign commit.
const TRIM_AFTER: Duration = Duration::from_secs(1);

pub(crate) async fn drive<E: Env>(object: Arc<Shared<E>>, database: PathBuf, trims: Trim) {
    let mut watch = object.env.watch(&database);
    let (mut stop, mut flush) = (object.stop.subscribe(), object.flush.subscribe());
    let mut seen = None;
    let mut asked = *flush.borrow_and_update();
    let (mut second_look, mut trim_due, mut sweeps) = (false, false, 0);
    let mut usage = Usage::Use;
    loop {
        let now = watch.state();
        if seen.as_ref().is_some_and(|seen| *seen != now) {
            usage = Usage::Use;
        }
        if seen.as_ref() != Some(&now) || second_look {
            second_look = seen.as_ref() != Some(&now);
            seen = Some(now);
            trim_due = trims == Trim::Idle;
            sweeps = 0;
            if !look_until_quiet(&object, usage, asked).await {
                seen = None;
            }
        }
        let pause = if seen.is_none() {
            RETRY
        } else if second_look {
            SECOND_LOOK
        } else if trim_due {
            TRIM_AFTER
        } else {
            SWEEP
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = flush.changed() => {
                asked = *flush.borrow_and_update();
                (seen, usage) = (None, Usage::Use);
            }
            () = watch.changed(), if !second_look => {}
            () = object.env.sleep(pause) => {
                sweeps += 1;
                let enough = if object.is_open() { SWEEPS_PER_LOOK } else { SWEEPS_PER_LOOK_CLOSED };
                if sweeps >= enough {
                    (seen, usage) = (None, Usage::Passing);
                } else if trim_due && !second_look && seen.as_ref() == Some(&watch.state()) {
                    // What moved the files is looked at: besides us somebody else may have committed meanwhile.
                    trim_due = trim(&object).await;
                }
            }
        }
    }
}

/// Looks until nothing is left, and tells those who `asked`. Gives false when a look failed and is to be repeated.
async fn look_until_quiet<E: Env>(object: &Arc<Shared<E>>, usage: Usage, asked: u64) -> bool {
    loop {
        if *object.stop.borrow() {
            return true;
        }
        if let Err(error) = object.handles.check_disk() {
            // What was captured waits where it is.
            object.set_failed("drain", &error);
            return false;
        }
        let looked = object.run_as(usage, |node| match &mut node.hot {
            Hot::Attached(attached) => Ok(Some(attached.look()?)),
            Hot::Owned(_) => Ok(None),
        });
        match looked.await {
            Ok(Some(look)) if look.drained.more => {}
            Ok(_) => {
                object.clear_trouble("drain");
                object.quiet_looks.send_replace(asked);
                return true;
            }
            Err(Error::Log(error)) if error.is_busy() => return false,
            Err(Error::ShutDown) => return true,
            Err(error) => {
                object.set_failed("drain", &error);
                return false;
            }
        }
    }
}

/// Trims one step. Gives whether there is more to trim.
async fn trim<E: Env>(object: &Arc<Shared<E>>) -> bool {
    let trimmed: Result<Trimmed> = object
        .run_as(Usage::Passing, |node| match &mut node.hot {
            Hot::Attached(attached) => Ok(attached.trim()?),
            Hot::Owned(_) => Ok(Trimmed::Rows(0)),
        })
        .await;
    match trimmed {
        Ok(Trimmed::Rows(rows)) => rows > 0,
        Ok(Trimmed::Busy) => true,
        Err(error) => {
            tracing::warn!(object = %object.id(), %error, "drained rows could not be trimmed");
            false
        }
    }
}
