use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::random::{Random, mixed};
use crate::world::HostIndex;

/// In which order an engine that is not ours runs tasks: made random where it is not, and hashed. Clones are the same.
#[derive(Clone)]
pub(crate) struct Schedule(Arc<Mutex<State>>);

struct State {
    random: Random,
    /// Of a hundred polls, how many are put off.
    put_off_percent: u64,
    /// Who waits to go on, on hosts that stand still.
    paused: BTreeMap<HostIndex, Vec<Waker>>,
    tasks: u64,
    steps: u64,
    trace: u64,
}

impl Schedule {
    pub(crate) fn new(random: Random, put_off_percent: u64) -> Self {
        let state = State { random, put_off_percent, paused: BTreeMap::new(), tasks: 0, steps: 0, trace: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task whose steps are counted and may be put off.
    pub(crate) fn task<F: Future<Output = ()>>(&self, host: HostIndex, task: F) -> Scheduled<F> {
        let mut state = self.lock();
        state.tasks += 1;
        Scheduled { schedule: self.clone(), host, number: state.tasks, task: Box::pin(task) }
    }

    /// A time of at most this many microseconds, in whole milliseconds, since the engines know no shorter ones: the
    /// mean is right.
    pub(crate) fn delay_us(&self, most: u64) -> u64 {
        let mut state = self.lock();
        let drawn = state.random.between(0, most);
        (drawn + state.random.between(0, 999)) / 1_000 * 1_000
    }

    /// A number of the schedule's own stream.
    pub(crate) fn draw(&self, least: u64, most: u64) -> u64 {
        self.lock().random.between(least, most)
    }

    /// Something happened at a time.
    pub(crate) fn note(&self, host: HostIndex, now: Duration) {
        let what = u64::try_from(host).unwrap_or(u64::MAX);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        state.steps += 1;
        state.trace = mixed(mixed(state.trace, now), what);
    }

    /// No task of a host takes a step from now on.
    pub(crate) fn pause(&self, host: HostIndex) {
        self.lock().paused.entry(host).or_default();
    }

    /// They do again.
    pub(crate) fn resume(&self, host: HostIndex) {
        let waiting = self.lock().paused.remove(&host);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Steps so far, and a hash over them.
    pub(crate) fn trace(&self) -> (u64, u64) {
        let state = self.lock();
        (state.steps, state.trace)
    }

    /// Whether a task has to wait for its turn. Then it is woken.
    fn puts_off(&self, host: HostIndex, number: u64, waker: &Waker) -> bool {
        let mut state = self.lock();
        if let Some(waiting) = state.paused.get_mut(&host) {
            waiting.push(waker.clone());
            return true;
        }
        state.steps += 1;
        state.trace = mixed(state.trace, number);
        let percent = state.put_off_percent;
        let put_off = percent > 0 && state.random.chance(percent);
        drop(state);
        if put_off {
            waker.wake_by_ref();
        }
        put_off
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("trace", &self.trace()).finish_non_exhaustive()
    }
}

/// See [`Schedule::task`].
pub(crate) struct Scheduled<F> {
    schedule: Schedule,
    host: HostIndex,
    number: u64,
    task: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Scheduled<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.schedule.puts_off(self.host, self.number, context.waker()) {
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}
