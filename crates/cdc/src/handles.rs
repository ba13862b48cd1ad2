//! Which objects have their files open: at most so many, the least recently used of them closed for another.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cdc_model::ObjectId;
use cdc_net::Env;
use tokio::sync::watch;

use crate::ballast::Ballast;
use crate::engine::blocking;
use crate::node::Hot;
use crate::registry::ObjectSpec;
use crate::settings::HandleSettings;
use crate::shared::{Shared, stopped};
use crate::slot::Closing;
use crate::uplink::chain;
use crate::{Error, Project, Result};

/// How long a look at an application's database waits for a lock. The thread is one of a few that all objects share; who
/// finds the database locked looks again a little later.
const LOOK_PATIENCE: Duration = Duration::from_millis(50);

/// So many objects keep the memory that makes their next use faster: those that were used last. And an object that is opened
/// beside so many keeps its write-ahead log small: a process with few objects has room for larger ones, with which a single
/// busy object is faster.
const MANY: usize = 128;

/// Objects that are closed or tidied in one job, after which others have their turn.
const IDLE_PER_JOB: usize = 32;

/// The open files of an engine's objects.
///
/// An object in the middle of a job is never closed. When all of them are, one more is opened all the same: the limit is
/// passed by as many objects at most as work at one moment.
#[derive(Debug)]
pub(crate) struct Handles<E: Env> {
    project: Project,
    env: E,
    open_max: usize,
    idle: Duration,
    pub(crate) ballast: Arc<Ballast>,
    open: Mutex<Open<E>>,
}

#[derive(Debug)]
struct Open<E: Env> {
    /// The objects that are open, in the order in which they were last used, and when that was.
    by_use: BTreeMap<u64, (Weak<Shared<E>>, Duration)>,
    /// Of these the ones that keep their memory, ...
    warm: BTreeSet<u64>,
    /// ... and those that were closed and left their write-ahead log.
    left: BTreeMap<u64, (Weak<Shared<E>>, Duration)>,
    /// Places for objects that are about to be opened.
    reserved: usize,
    uses: u64,
}

/// Where in the order of uses an object stands.
#[derive(Debug, Default)]
pub(crate) struct LastUse {
    /// 0 while it is closed.
    open: AtomicU64,
    /// 0 unless it was closed and left its write-ahead log.
    left: AtomicU64,
}

impl LastUse {
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }
}

/// Room for one more open object, until an object takes it.
#[derive(Debug)]
pub(crate) struct Room<E: Env>(Arc<Handles<E>>);

impl<E: Env> Room<E> {
    pub(crate) fn taken_by(self, object: &Arc<Shared<E>>) {
        self.0.touch(object);
    }
}

impl<E: Env> Drop for Room<E> {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}

impl<E: Env> Handles<E> {
    pub(crate) fn new(project: Project, env: E) -> Arc<Self> {
        let settings: &HandleSettings = &project.settings.handles;
        let (open_max, idle) = (settings.open_max(), settings.idle());
        let (by_use, left, warm) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let open = Open { by_use, warm, left, reserved: 0, uses: 0 };
        let ballast = Ballast::new(project.registry.ballast(), project.settings.disk.ballast_bytes);
        let (ballast, open) = (Arc::new(ballast), Mutex::new(open));
        Arc::new(Self { project, env, open_max, idle, ballast, open })
    }

    fn lock(&self) -> MutexGuard<'_, Open<E>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error while the disk is full.
    pub(crate) fn check_disk(&self) -> Result<()> {
        match self.ballast.is_given_up() {
            true => Err(Error::DiskFull { folder: self.project.folder().to_owned() }),
            false => Ok(()),
        }
    }

    /// As [`Handles::check_disk`] for events of a child.
    pub(crate) fn check_disk_for(&self, child: &ObjectId) -> Result<()> {
        let is_here = self.project.registry.is_here(child).unwrap_or(false);
        if is_here && self.ballast.has_room_to_move() { Ok(()) } else { self.check_disk() }
    }

    /// How long unsynced writes wait for more.
    pub(crate) fn sync_after(&self) -> Duration {
        self.project.settings.disk.sync()
    }

    /// Opens an object's files.
    pub(crate) fn open(&self, spec: &ObjectSpec) -> Result<Hot> {
        let (project, clock) = (&self.project, self.env.clock());
        let mut hot = match &spec.attached {
            Some(attached) if !attached.detached => {
                Hot::Attached(Box::new(project.open_attached_log(LOOK_PATIENCE, spec, &clock)?))
            }
            _ => Hot::Owned(Box::new(project.open_log(spec, &clock)?)),
        };
        if self.count() >= MANY {
            hot.log_mut().keep_wal_small()?;
        }
        Ok(hot)
    }

    /// Makes room for one more open object: closes others as far as none of them is in the middle of a job.
    pub(crate) fn room(self: &Arc<Self>) -> Room<E> {
        self.lock().reserved += 1;
        let room = Room(Arc::clone(self));
        let mut tried = 0;
        while let Some((at, object)) = self.next_to_close(tried) {
            tried = at;
            self.close(at, &object, Closing::LeavingWal);
        }
        room
    }

    /// The least recently used object after `tried`, while there are too many.
    fn next_to_close(&self, tried: u64) -> Option<(u64, Weak<Shared<E>>)> {
        let open = self.lock();
        if open.by_use.len() + open.reserved <= self.open_max {
            return None;
        }
        let mut later = open.by_use.range((Bound::Excluded(tried), Bound::Unbounded));
        later.next().map(|(at, (object, _))| (*at, Weak::clone(object)))
    }

    fn close(&self, at: u64, object: &Weak<Shared<E>>, closing: Closing) -> bool {
        let Some(object) = object.upgrade() else {
            // It went with its engine's other objects.
            return self.lock().by_use.remove(&at).is_some();
        };
        object.rest(closing)
    }

    /// Gives what came of it, if it was tried.
    fn tidy(&self, at: u64, object: &Weak<Shared<E>>) -> Option<Result<()>> {
        let Some(object) = object.upgrade() else {
            return self.lock().left.remove(&at).map(|_| Ok(()));
        };
        object.tidy()
    }

    /// Moves what closed objects have left of their write-ahead logs into their files, one after the other, until then.
    /// Gives how many keep one.
    pub(crate) async fn tidy_until(self: &Arc<Self>, end: Duration) -> Result<usize> {
        let (mut tried, mut failed) = (0, 0);
        while self.env.now() < end {
            let some = self.left_after(tried);
            let Some((last, _)) = some.last() else { break };
            tried = *last;
            let handles = Arc::clone(self);
            failed += blocking(&self.env, move || Ok(handles.tidy_some(&some, end))).await?;
        }
        Ok(self.lock().left.len() + failed)
    }

    fn left_after(&self, tried: u64) -> Vec<(u64, Weak<Shared<E>>)> {
        let open = self.lock();
        let left = open.left.range((Bound::Excluded(tried), Bound::Unbounded)).take(IDLE_PER_JOB);
        left.map(|(at, (object, _))| (*at, Weak::clone(object))).collect()
    }

    /// Gives how many could not be tidied.
    fn tidy_some(&self, some: &[(u64, Weak<Shared<E>>)], end: Duration) -> usize {
        let in_time = some.iter().take_while(|_| self.env.now() < end);
        let failed = in_time.filter_map(|(at, object)| {
            let error = self.tidy(*at, object)?.err()?;
            let object = object.upgrade()?;
            tracing::warn!(object = %object.id(), error = %chain(&error), "a write-ahead log is left");
            Some(())
        });
        failed.count()
    }

    /// The object is used now. The one that was used so many others ago gives back memory.
    pub(crate) fn touch(&self, object: &Arc<Shared<E>>) {
        let now = self.env.now();
        let mut open = self.lock();
        open.uses += 1;
        let at = open.uses;
        let LastUse { open: before, left } = &object.last_use;
        let (before, left) = (before.swap(at, Ordering::Relaxed), left.swap(0, Ordering::Relaxed));
        open.left.remove(&left);
        let entry = open.by_use.remove(&before).map_or_else(|| Arc::downgrade(object), |(entry, _)| entry);
        open.by_use.insert(at, (entry, now));
        open.warm.remove(&before);
        open.warm.insert(at);
        let cools = if open.warm.len() > MANY { open.warm.pop_first() } else { None };
        let cools = cools.and_then(|at| open.by_use.get(&at)?.0.upgrade());
        drop(open);
        if let Some(cools) = cools {
            cools.cool();
        }
    }

    /// The object is closed now.
    pub(crate) fn closed(&self, last_use: &LastUse, closing: Closing) {
        let mut open = self.lock();
        let at = last_use.open.swap(0, Ordering::Relaxed);
        open.warm.remove(&at);
        if let Some(entry) = open.by_use.remove(&at)
            && closing == Closing::LeavingWal
        {
            last_use.left.store(at, Ordering::Relaxed);
            open.left.insert(at, entry);
        }
    }

    /// The object has no write-ahead log any more.
    pub(crate) fn tidied(&self, last_use: &LastUse) {
        let mut open = self.lock();
        open.left.remove(&last_use.left.swap(0, Ordering::Relaxed));
    }

    /// How many objects are open.
    pub(crate) fn count(&self) -> usize {
        self.lock().by_use.len()
    }

    /// Closes what nobody has used for a while, so that its `-wal` and `-shm` go, until told to stop. One task for all
    /// objects.
    pub(crate) async fn close_idle(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let now = self.env.now();
            // What is due and in the middle of a job is looked at again, but not at once.
            let pause =
                (self.oldest_use().unwrap_or(now) + self.idle).saturating_sub(now).max(self.idle / 16);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                () = self.env.sleep(pause) => {}
            }
            loop {
                let handles = Arc::clone(&self);
                let closed = blocking(&self.env, move || {
                    Ok(handles.close_unused_since(handles.env.now().saturating_sub(handles.idle)))
                });
                match closed.await {
                    Ok(IDLE_PER_JOB) if !*stop.borrow() => {}
                    Ok(_) => break,
                    // The environment runs nothing any more.
                    Err(_) => return,
                }
            }
        }
    }

    fn oldest_use(&self) -> Option<Duration> {
        let open = self.lock();
        let first =
            |uses: &BTreeMap<u64, (Weak<Shared<E>>, Duration)>| uses.values().next().map(|(_, used)| *used);
        first(&open.by_use).into_iter().chain(first(&open.left)).min()
    }

    /// Closes or tidies some of those that were not used since then. Gives how many.
    fn close_unused_since(&self, since: Duration) -> usize {
        let unused = |uses: &BTreeMap<u64, (Weak<Shared<E>>, Duration)>| {
            let unused = uses.iter().take_while(|(_, (_, used))| *used <= since).take(IDLE_PER_JOB);
            unused.map(|(at, (object, _))| (*at, Weak::clone(object))).collect::<Vec<_>>()
        };
        let (idle, left) = {
            let open = self.lock();
            (unused(&open.by_use), unused(&open.left))
        };
        let closed = idle.iter().filter(|(at, object)| self.close(*at, object, Closing::Whole)).count();
        // What is wrong with the files is told to whoever uses them.
        let tidied = left.iter().filter(|(at, object)| self.tidy(*at, object).is_some()).count();
        closed.max(tidied)
    }
}
