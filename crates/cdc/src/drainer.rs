//! Drives the hop from an attached database to its log: looks when something was committed, drains until quiet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_log::Trimmed;
use cdc_model::Remedy;
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

/// That somebody else holds the database locked is told once all looks have found it so for this long.
const LOCKED_MAX: Duration = Duration::from_secs(5);

/// Drained rows are trimmed after this long without a foreign commit.
const TRIM_AFTER: Duration = Duration::from_secs(1);

pub(crate) async fn drive<E: Env>(object: Arc<Shared<E>>, database: PathBuf, trims: Trim) {
    let mut watch = object.env.watch(&database);
    let (mut stop, mut flush) = (object.stop.subscribe(), object.flush.subscribe());
    let mut seen = None;
    let asked = *flush.borrow_and_update();
    let (mut second_look, mut trim_due, mut sweeps) = (false, false, 0);
    let mut drainer = Drainer { object, database, usage: Usage::Use, asked, locked_since: None };
    loop {
        let now = watch.state();
        if seen.as_ref().is_some_and(|seen| *seen != now) {
            drainer.usage = Usage::Use;
        }
        if seen.as_ref() != Some(&now) || second_look {
            second_look = seen.as_ref() != Some(&now);
            seen = Some(now);
            trim_due = trims == Trim::Idle;
            sweeps = 0;
            if !drainer.look_until_quiet().await {
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
                drainer.asked = *flush.borrow_and_update();
                (seen, drainer.usage) = (None, Usage::Use);
            }
            () = watch.changed(), if !second_look => {}
            () = drainer.object.env.sleep(pause) => {
                sweeps += 1;
                if sweeps >= drainer.sweeps_per_look() {
                    (seen, drainer.usage) = (None, Usage::Passing);
                } else if trim_due && !second_look && seen.as_ref() == Some(&watch.state()) {
                    // What moved the files is looked at: besides us somebody else may have committed meanwhile.
                    trim_due = drainer.trim().await;
                }
            }
        }
    }
}

/// What is done to the database.
struct Drainer<E: Env> {
    object: Arc<Shared<E>>,
    database: PathBuf,
    /// What looks are for.
    usage: Usage,
    /// The newest request for a look.
    asked: u64,
    /// Since when every look has found the database locked.
    locked_since: Option<Duration>,
}

impl<E: Env> Drainer<E> {
    fn sweeps_per_look(&self) -> u32 {
        if self.object.is_open() { SWEEPS_PER_LOOK } else { SWEEPS_PER_LOOK_CLOSED }
    }

    /// Looks until nothing is left, and tells those who asked. Gives false when a look failed and is to be repeated.
    async fn look_until_quiet(&mut self) -> bool {
        loop {
            if *self.object.stop.borrow() {
                return true;
            }
            if let Err(error) = self.object.handles.check_disk() {
                // What was captured waits where it is.
                self.object.set_failed("drain", &error);
                return false;
            }
            let looked = self.object.run_as(self.usage, |node| match &mut node.hot {
                Hot::Attached(attached) => Ok(Some(attached.look()?)),
                Hot::Owned(_) => Ok(None),
            });
            match looked.await {
                Ok(look) => {
                    self.locked_since = None;
                    self.object.clear_trouble("drain");
                    if look.is_none_or(|look| !look.drained.more) {
                        self.object.quiet_looks.send_replace(self.asked);
                        return true;
                    }
                }
                Err(Error::ShutDown) => return true,
                Err(error) if is_locked(&error) => {
                    self.note_lock();
                    return false;
                }
                Err(error) => {
                    self.locked_since = None;
                    self.object.set_failed("drain", &error);
                    return false;
                }
            }
        }
    }

    /// A lock that is held for a moment is nobody's trouble.
    fn note_lock(&mut self) {
        let now = self.object.env.now();
        let since = *self.locked_since.get_or_insert(now);
        if now.saturating_sub(since) >= LOCKED_MAX {
            let reason = format!(
                "{} has been locked for more than {} s, by a transaction that its application leaves open or by PRAGMA \
                 locking_mode = EXCLUSIVE; end that, or close the application: what was captured waits there",
                self.database.display(),
                LOCKED_MAX.as_secs()
            );
            self.object.set_trouble("drain", reason, Remedy::Retry);
        }
    }

    /// Trims one step. Gives whether there is more to trim.
    async fn trim(&self) -> bool {
        let trimmed: Result<Trimmed> = self
            .object
            .run_as(Usage::Passing, |node| match &mut node.hot {
                Hot::Attached(attached) => Ok(attached.trim()?),
                Hot::Owned(_) => Ok(Trimmed::Rows(0)),
            })
            .await;
        match trimmed {
            Ok(Trimmed::Rows(rows)) => rows > 0,
            Ok(Trimmed::Busy) => true,
            Err(error) => {
                tracing::warn!(object = %self.object.id(), %error, "drained rows could not be trimmed");
                false
            }
        }
    }
}

/// Whether somebody else holds the database, also where that kept it from being opened again.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Log(error) if error.is_busy())
        || matches!(error, Error::NotReopened { source, .. } if is_locked(source))
}
