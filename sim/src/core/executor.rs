//! A deterministic executor: tasks, jobs and timers of all simulated hosts on one thread, in an order that the seed
//! decides, under simulated time.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::random::{Random, mixed};

/// What lives and dies together: one life of one host. Zero is the world itself, which never dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Domain(pub(crate) u64);

impl Domain {
    pub(crate) const WORLD: Self = Self(0);
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Job = Box<dyn FnOnce() + Send>;

/// Runs everything; see the module.
#[derive(Clone)]
pub(crate) struct Executor(Arc<Shared>);

struct Shared {
    /// Microseconds of simulated time.
    now: AtomicU64,
    state: Mutex<State>,
    /// Tasks woken since they were last sorted in: their order must not depend on who woke them first.
    woken: Mutex<Vec<u64>>,
}

struct State {
    random: Random,
    next: u64,
    tasks: BTreeMap<u64, Entry>,
    ready: Vec<Ready>,
    timers: BTreeMap<(u64, u64, u64), Timer>,
    dead: Vec<Domain>,
    /// What would be ready in domains that stand still.
    paused: BTreeMap<Domain, Vec<Ready>>,
    trace: u64,
    steps: u64,
}

struct Entry {
    domain: Domain,
    /// Taken out while it is polled.
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

enum Ready {
    Poll(u64),
    Run(Domain, Job),
}

enum Timer {
    Wake(Waker),
    Run(Domain, Job),
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    shared: Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed)
            && let Some(shared) = self.shared.upgrade()
        {
            lock(&shared.woken).push(self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Executor {
    pub(crate) fn new(random: Random) -> Self {
        let state = State {
            random,
            next: 1,
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            timers: BTreeMap::new(),
            dead: Vec::new(),
            paused: BTreeMap::new(),
            trace: 0,
            steps: 0,
        };
        Self(Arc::new(Shared {
            now: AtomicU64::new(0),
            state: Mutex::new(state),
            woken: Mutex::new(Vec::new()),
        }))
    }

    /// Simulated time since the world began.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.0.now.load(Ordering::Relaxed))
    }

    /// Steps so far, and a hash over all of them.
    pub(crate) fn trace(&self) -> (u64, u64) {
        let state = lock(&self.0.state);
        (state.steps, state.trace)
    }

    /// Adds a task. One of a dead domain is dropped.
    pub(crate) fn spawn(&self, domain: Domain, task: impl Future<Output = ()> + Send + 'static) {
        let mut state = lock(&self.0.state);
        if state.dead.contains(&domain) {
            drop(state);
            return drop(task);
        }
        let id = state.next;
        state.next += 1;
        let shared = Arc::downgrade(&self.0);
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(true), shared });
        state.tasks.insert(id, Entry { domain, task: Some(Box::pin(task)), waker });
        state.ready.push(Ready::Poll(id));
    }

    /// Adds a job that runs once, after a time. One of a dead domain is dropped.
    pub(crate) fn run_after(&self, domain: Domain, delay: Duration, job: Job) {
        let mut state = lock(&self.0.state);
        if state.dead.contains(&domain) {
            drop(state);
            return drop(job);
        }
        let due = micros(self.now()) + micros(delay);
        let key = state.timer_key(due);
        state.timers.insert(key, Timer::Run(domain, job));
    }

    /// A number of the schedule's own stream.
    pub(crate) fn draw(&self, least: u64, most: u64) -> u64 {
        lock(&self.0.state).random.between(least, most)
    }

    /// Completes after a simulated time.
    pub(crate) fn sleep(&self, time: Duration) -> Sleep {
        Sleep { executor: self.clone(), due: micros(self.now()).saturating_add(micros(time)), key: None }
    }

    /// Nothing of a domain runs from now on.
    pub(crate) fn pause(&self, domain: Domain) {
        lock(&self.0.state).paused.entry(domain).or_default();
    }

    /// A domain goes on.
    pub(crate) fn resume(&self, domain: Domain) {
        let mut state = lock(&self.0.state);
        let held = state.paused.remove(&domain).unwrap_or_default();
        state.ready.extend(held);
    }

    /// Ends a domain at once: its tasks and jobs go as they are, new ones are not taken.
    pub(crate) fn kill(&self, domain: Domain) {
        let mut gone_tasks = Vec::new();
        let mut gone_jobs = Vec::new();
        {
            let mut state = lock(&self.0.state);
            state.dead.push(domain);
            let ids: Vec<u64> =
                state.tasks.iter().filter(|(_, entry)| entry.domain == domain).map(|(id, _)| *id).collect();
            gone_tasks.extend(ids.iter().filter_map(|id| state.tasks.remove(id)));
            let ready = std::mem::take(&mut state.ready);
            for item in ready {
                match item {
                    Ready::Run(of, job) if of == domain => gone_jobs.push(job),
                    Ready::Poll(id) if ids.contains(&id) => {}
                    item @ (Ready::Run(..) | Ready::Poll(_)) => state.ready.push(item),
                }
            }
            let due = state.timers.iter().filter_map(|(key, timer)| match timer {
                Timer::Run(of, _) if *of == domain => Some(*key),
                Timer::Run(..) | Timer::Wake(_) => None,
            });
            let due: Vec<_> = due.collect();
            for key in due {
                if let Some(Timer::Run(_, job)) = state.timers.remove(&key) {
                    gone_jobs.push(job);
                }
            }
        }
        // Outside of the lock: what goes may wake, spawn and cancel.
        drop(gone_tasks);
        drop(gone_jobs);
    }

    /// Runs one thing, or moves time to the next timer. False when nothing is left to do before `until`, which it
    /// then is.
    pub(crate) fn step(&self, until: Duration) -> bool {
        let item = {
            let mut state = lock(&self.0.state);
            let mut woken = lock(&self.0.woken);
            woken.sort_unstable();
            state.ready.extend(woken.drain(..).map(Ready::Poll));
            drop(woken);
            if state.ready.is_empty() && !self.move_time(&mut state, micros(until)) {
                self.0.now.fetch_max(micros(until), Ordering::Relaxed);
                return false;
            }
            state.next_ready(micros(self.now()))
        };
        match item {
            Some(Ready::Poll(id)) => self.poll(id),
            Some(Ready::Run(_, job)) => job(),
            None => {}
        }
        true
    }

    /// Moves time to the next timer and takes all that are due then.
    fn move_time(&self, state: &mut State, until: u64) -> bool {
        let Some((&(due, ..), _)) = state.timers.first_key_value() else { return false };
        if due > until {
            return false;
        }
        self.0.now.fetch_max(due, Ordering::Relaxed);
        while let Some(entry) = state.timers.first_entry() {
            if entry.key().0 > due {
                break;
            }
            match entry.remove() {
                Timer::Wake(waker) => waker.wake(),
                Timer::Run(domain, job) => state.ready.push(Ready::Run(domain, job)),
            }
        }
        true
    }

    fn poll(&self, id: u64) {
        let (task, waker) = {
            let mut state = lock(&self.0.state);
            let Some(entry) = state.tasks.get_mut(&id) else { return };
            entry.waker.queued.store(false, Ordering::Relaxed);
            (entry.task.take(), Arc::clone(&entry.waker))
        };
        let Some(mut task) = task else { return };
        let done = task.as_mut().poll(&mut Context::from_waker(&Waker::from(waker))).is_ready();
        let mut state = lock(&self.0.state);
        match state.tasks.get_mut(&id) {
            Some(entry) if !done => entry.task = Some(task),
            Some(_) => {
                let gone = state.tasks.remove(&id);
                drop(state);
                drop((gone, task));
            }
            None => {
                drop(state);
                drop(task);
            }
        }
    }
}

impl State {
    fn timer_key(&mut self, due: u64) -> (u64, u64, u64) {
        self.next += 1;
        (due, self.random.next(), self.next)
    }

    /// One of the things that are ready; the seed decides which.
    fn next_ready(&mut self, now: u64) -> Option<Ready> {
        if self.ready.is_empty() {
            return None;
        }
        let at = self.random.place(self.ready.len());
        let item = self.ready.swap_remove(at);
        let domain = match &item {
            Ready::Poll(id) => self.tasks.get(id).map(|entry| entry.domain),
            Ready::Run(domain, _) => Some(*domain),
        };
        if let Some(held) = domain.and_then(|domain| self.paused.get_mut(&domain)) {
            held.push(item);
            return None;
        }
        let what = match &item {
            Ready::Poll(id) => *id << 1,
            Ready::Run(domain, _) => domain.0 << 1 | 1,
        };
        self.steps += 1;
        self.trace = mixed(mixed(self.trace, now), what);
        Some(item)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// A pause; see [`Executor::sleep`].
#[derive(Debug)]
pub(crate) struct Sleep {
    executor: Executor,
    due: u64,
    key: Option<(u64, u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if micros(self.executor.now()) >= self.due {
            return Poll::Ready(());
        }
        let waker = Timer::Wake(context.waker().clone());
        let executor = self.executor.clone();
        let mut state = lock(&executor.0.state);
        let due = self.due;
        let key = *self.key.get_or_insert_with(|| state.timer_key(due));
        state.timers.insert(key, waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let removed = lock(&self.executor.0.state).timers.remove(&key);
            drop(removed);
        }
    }
}
