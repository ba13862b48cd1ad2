//! Drives the hop from an attached database to its log: looks when something was committed, drains until quiet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_log::{Attached, Trimmed};
use cdc_model::{Remedy, mutant};
use cdc_net::{Env, Watch as _};

use crate::Error;
use crate::node::Hot;
use crate::settings::Trim;
use crate::shared::{Shared, stopped};
use crate::slot::Usage;

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

/// Drained rows are trimmed after this long without a foreign commit; with [`Trim::Always`] what has come since the last
/// trim is.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// While the application commits, it has the database to itself for so many times as long as a trim has taken, ...
const TRIM_PAUSE_FACTOR: u32 = 4;

/// ... and at least for so long.
const TRIM_PAUSE_MIN: Duration = Duration::from_millis(50);

/// A trim that failed is tried again after this long.
const TRIM_RETRY: Duration = Duration::from_secs(30);

/// More drained rows than these in a database whose application never rests are told of.
const UNTRIMMED_MAX: u64 = 1_000_000;

pub(crate) async fn drive<E: Env>(object: Arc<Shared<E>>, database: PathBuf, trims: Trim) {
    let mut watch = object.env.watch(&database);
    let (mut stop, mut flush) = (object.stop.subscribe(), object.flush.subscribe());
    let mut seen = None;
    let asked = *flush.borrow_and_update();
    let (mut second_look, mut sweeps) = (false, 0);
    let trims = if mutant!("trim-setting-ignored") { Trim::Always } else { trims };
    let trims = Trims { when: trims, is_due: false, not_before: Duration::ZERO };
    let mut drainer = Drainer { object, database, usage: Usage::Use, asked, locked_since: None, trims };
    loop {
        let now = watch.state();
        if seen.as_ref().is_some_and(|seen| *seen != now) {
            drainer.usage = Usage::Use;
        }
        if seen.as_ref() != Some(&now) || second_look {
            second_look = seen.as_ref() != Some(&now);
            seen = Some(now);
            drainer.trims.is_due = drainer.trims.when != Trim::Never;
            sweeps = 0;
            if drainer.look_until_quiet().await {
                drainer.trim_beside().await;
            } else {
                seen = None;
            }
        }
        let pause = if seen.is_none() {
            RETRY
        } else if second_look {
            SECOND_LOOK
        } else {
            drainer.trims.pause(drainer.object.env.now())
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
                } else if drainer.trims.is_due(drainer.object.env.now())
                    && !second_look
                    && seen.as_ref() == Some(&watch.state())
                {
                    // What moved the files is looked at: besides us somebody else may have committed meanwhile.
                    drainer.trim(Attached::trim).await;
                }
            }
        }
    }
}

/// When drained rows are removed.
#[derive(Clone, Copy)]
struct Trims {
    when: Trim,
    /// Whether there may be some to remove.
    is_due: bool,
    /// Not before then.
    not_before: Duration,
}

impl Trims {
    /// How long nothing is to be done while nothing happens to the database.
    fn pause(&self, now: Duration) -> Duration {
        match self.when {
            Trim::Idle if self.is_due => TRIM_AFTER,
            Trim::Always if self.is_due => self.not_before.saturating_sub(now).min(SWEEP),
            Trim::Idle | Trim::Always | Trim::Never => SWEEP,
        }
    }

    /// Whether it is time.
    fn is_due(&self, now: Duration) -> bool {
        self.is_due && now >= self.not_before
    }

    /// What a trim that has taken so long until now came to. The application has its turn after it.
    fn done(&mut self, trimmed: Trimmed, took: Duration, now: Duration) {
        self.is_due = trimmed != Trimmed::Rows(0);
        let pause = if self.is_due { (took * TRIM_PAUSE_FACTOR).max(TRIM_PAUSE_MIN) } else { TRIM_AFTER };
        self.not_before = now + pause;
    }

    /// A trim failed. Nothing else asks for one before the application commits again, or for an hour once the object is
    /// closed.
    fn failed(&mut self, now: Duration) {
        self.is_due = !mutant!("failed-trim-given-up");
        self.not_before = now + TRIM_RETRY;
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
    trims: Trims,
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
                    self.note_untrimmed(look.as_ref().map_or(0, |look| look.untrimmed));
                    if look.is_none_or(|look| !look.drained.more) {
                        self.object.quiet_looks.send_replace(self.asked);
                        return true;
                    }
                    self.trim_beside().await;
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

    /// Where only an application that rests lets go of drained rows, too many of them are told of.
    fn note_untrimmed(&self, rows: u64) {
        if self.trims.when != Trim::Idle || rows <= UNTRIMMED_MAX {
            return self.object.clear_trouble("trim");
        }
        let reason = format!(
            "more than {UNTRIMMED_MAX} drained rows wait in {} for a second in which its application commits nothing; if it \
             has a busy timeout, `trim = \"always\"` in cdc.toml removes them beside it",
            self.database.display()
        );
        self.object.set_trouble("trim", reason, Remedy::Retry);
    }

    /// Trims one step beside an application that commits, if it is time.
    async fn trim_beside(&mut self) {
        if self.trims.when == Trim::Always && self.trims.is_due(self.object.env.now()) {
            self.trim(Attached::trim_waiting).await;
        }
    }

    /// Trims one step.
    async fn trim(&mut self, trim: impl FnOnce(&mut Attached) -> cdc_log::Result<Trimmed> + Send + 'static) {
        let env = &self.object.env;
        let began = env.now();
        let trimmed = self.object.run_as(Usage::Passing, |node| match &mut node.hot {
            Hot::Attached(attached) => Ok(trim(attached)?),
            Hot::Owned(_) => Ok(Trimmed::Rows(0)),
        });
        let trimmed = trimmed.await;
        let now = env.now();
        match trimmed {
            Ok(trimmed) => self.trims.done(trimmed, now.saturating_sub(began), now),
            Err(error) => {
                tracing::warn!(object = %self.object.id(), %error, "drained rows could not be trimmed");
                self.trims.failed(now);
            }
        }
    }
}

/// Whether somebody else holds the database, also where that kept it from being opened again.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Log(error) if error.is_busy())
        || matches!(error, Error::NotReopened { source, .. } if is_locked(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trim_that_failed_is_due_again_and_one_that_had_nothing_to_remove_is_not() {
        let (now, took) = (Duration::from_secs(9), Duration::from_millis(1));
        for when in [Trim::Idle, Trim::Always] {
            let mut trims = Trims { when, is_due: true, not_before: Duration::ZERO };
            trims.failed(now);
            assert!(!trims.is_due(now + TRIM_RETRY / 2));
            assert!(trims.is_due(now + TRIM_RETRY));
            assert!(trims.pause(now) <= SWEEP, "sweeps are counted meanwhile");
            trims.done(Trimmed::Busy, took, now);
            assert!(trims.is_due(now + TRIM_PAUSE_MIN));
            trims.done(Trimmed::Rows(0), took, now);
            assert!(!trims.is_due(now + TRIM_RETRY));
        }
    }
}
