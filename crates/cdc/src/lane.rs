use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdc_model::mutant;
use cdc_net::Env;
use tokio::sync::oneshot;

use crate::{Error, Result};

/// Jobs one turn runs before the lane queues up behind the other objects again.
const JOBS_PER_TURN: usize = 32;

/// Members that run together at most.
const MEMBERS_MAX: usize = 512;

enum Job<T, M> {
    Alone(Box<dyn FnOnce(&mut T) + Send>),
    /// Runs together with those right behind it.
    Member(M),
}

/// The queue of one object: jobs run one after the other, in the order in which they were given, off the
/// asynchronous workers. What they work on has no other owner.
///
/// Members that wait one behind the other are run together.
pub(crate) struct Lane<T, E, M = Infallible> {
    shared: Arc<Shared<T, M>>,
    env: E,
}

struct Shared<T, M> {
    queue: Mutex<Queue<T, M>>,
    together: fn(&mut T, Vec<M>),
}

struct Queue<T, M> {
    jobs: VecDeque<Job<T, M>>,
    /// Taken out while a turn runs; gone once the lane is closed.
    value: Option<T>,
    /// A turn was asked for or runs, or the value is held: see [`Lane::if_resting`].
    running: bool,
    /// A turn found the value held and is to be asked for again.
    missed: bool,
    closed: bool,
    /// Nobody is left to run what is queued.
    abandoned: bool,
    /// Tells who closes the lane, by being dropped, that the value is gone.
    gone: Option<oneshot::Sender<()>>,
}

impl<T, M> Shared<T, M> {
    fn lock(&self) -> MutexGuard<'_, Queue<T, M>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static, E: Env> Lane<T, E> {
    pub(crate) fn new(value: T, env: E) -> Self {
        // Nothing is a member.
        Self::sharing(value, env, |_, _| {})
    }
}

impl<T: Send + 'static, E: Env, M: Send + 'static> Lane<T, E, M> {
    /// A lane whose members `together` runs, all that it is given.
    pub(crate) fn sharing(value: T, env: E, together: fn(&mut T, Vec<M>)) -> Self {
        let queue = Queue {
            jobs: VecDeque::new(),
            value: Some(value),
            running: false,
            missed: false,
            closed: false,
            abandoned: false,
            gone: None,
        };
        Self { shared: Arc::new(Shared { queue: Mutex::new(queue), together }), env }
    }

    /// Queues a member. It tells whoever waits for it itself, or is dropped when nobody is left to run it.
    pub(crate) fn join(&self, member: M) {
        self.push(Job::Member(member));
    }

    /// Runs a job behind those already queued and gives its result. Dropping the future does not stop the job; a
    /// panic in it is its caller's error and nobody else's.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R> {
        let (done, result) = oneshot::channel();
        self.push(Job::Alone(Box::new(move |value| {
            // What a job works on is left by transactions, which roll back when they are unwound.
            let outcome = catch_unwind(AssertUnwindSafe(|| job(value)));
            drop(done.send(outcome.map_err(|panic| Error::Panicked { message: message_of(&*panic) })));
        })));
        result.await.ok().ok_or(Error::ShutDown)?
    }

    fn push(&self, job: Job<T, M>) {
        let mut queue = self.shared.lock();
        if queue.closed {
            return;
        }
        if queue.jobs.len() == 2 && mutant!("lane-job-lost") {
            return;
        }
        queue.jobs.push_back(job);
        if !queue.running {
            queue.running = true;
            self.take_turn();
        }
    }

    fn take_turn(&self) {
        let turn = Turn { lane: self.clone(), taken: false };
        self.env.blocking(move || turn.take());
    }

    fn turn(&self) {
        let mut value = {
            let mut queue = self.shared.lock();
            let Some(value) = queue.value.take() else {
                queue.missed = true;
                return;
            };
            value
        };
        for _ in 0..JOBS_PER_TURN {
            let Some(job) = self.shared.lock().jobs.pop_front() else { break };
            match job {
                Job::Alone(job) => job(&mut value),
                Job::Member(first) => (self.shared.together)(&mut value, self.members_after(first)),
            }
        }
        let mut queue = self.shared.lock();
        if queue.closed && queue.jobs.is_empty() {
            queue.running = false;
            let gone = queue.gone.take();
            drop(queue);
            // On this thread, which may block, and before anybody is told.
            if mutant!("closed-log-left-open") {
                std::mem::forget(value);
            } else {
                drop(value);
            }
            drop(gone);
            return;
        }
        queue.value = Some(value);
        queue.running = !queue.jobs.is_empty();
        if queue.running {
            self.take_turn();
        }
    }

    /// The members that wait right behind the first, which has left the queue.
    fn members_after(&self, first: M) -> Vec<M> {
        let mut members = vec![first];
        let mut queue = self.shared.lock();
        while members.len() < MEMBERS_MAX {
            match queue.jobs.pop_front() {
                Some(Job::Member(member)) => members.push(member),
                Some(other) => {
                    queue.jobs.push_front(other);
                    break;
                }
                None => break,
            }
        }
        members
    }

    /// Runs `work` at once and on this thread, unless a turn runs just now. Jobs that are given meanwhile wait for it.
    pub(crate) fn if_resting<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let (mut value, turn_is_asked_for) = {
            let mut queue = self.shared.lock();
            let value = queue.value.take()?;
            (value, std::mem::replace(&mut queue.running, true))
        };
        let done = work(&mut value);
        let mut queue = self.shared.lock();
        if queue.abandoned {
            drop(queue);
            drop(value);
            return Some(done);
        }
        queue.value = Some(value);
        let missed = std::mem::take(&mut queue.missed);
        if !turn_is_asked_for {
            queue.running = !queue.jobs.is_empty();
        }
        if missed || (!turn_is_asked_for && queue.running) {
            self.take_turn();
        }
        Some(done)
    }

    /// Drops the value and what is queued: nobody is left to run it.
    fn abandon(&self) {
        let mut queue = self.shared.lock();
        (queue.closed, queue.abandoned) = (true, true);
        let left = (std::mem::take(&mut queue.jobs), queue.value.take(), queue.gone.take());
        drop(queue);
        drop(left);
    }

    /// Drops the value once the jobs already queued have run; later ones fail.
    pub(crate) async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let (gone, dropped) = oneshot::channel::<()>();
        self.push(Job::Alone(Box::new(move |_| {
            let mut queue = shared.lock();
            queue.closed = true;
            queue.gone = Some(gone);
        })));
        let _gone = dropped.await;
    }
}

/// A turn that was asked for. An environment that ends drops it, and with it all that would go round in the queue.
struct Turn<T: Send + 'static, E: Env, M: Send + 'static> {
    lane: Lane<T, E, M>,
    taken: bool,
}

impl<T: Send + 'static, E: Env, M: Send + 'static> Turn<T, E, M> {
    fn take(mut self) {
        self.taken = true;
        self.lane.turn();
    }
}

impl<T: Send + 'static, E: Env, M: Send + 'static> Drop for Turn<T, E, M> {
    fn drop(&mut self) {
        if !self.taken {
            self.lane.abandon();
        }
    }
}

pub(crate) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

impl<T, E: Clone, M> Clone for Lane<T, E, M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), env: self.env.clone() }
    }
}

impl<T, E, M> fmt::Debug for Lane<T, E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

#[cfg(test)]
mod tests {
    use cdc_net::Tokio;

    use super::*;

    #[tokio::test]
    async fn jobs_run_one_after_the_other_in_order_also_when_nobody_waits() {
        let lane = Lane::new(Vec::new(), Tokio::current());
        for n in 0..100 {
            let job = lane.run(move |seen: &mut Vec<u32>| seen.push(n));
            if n % 3 == 0 {
                job.await.unwrap();
            } else {
                // Polled once and dropped: the job is queued all the same.
                tokio::select! { biased; _ = job => {}, () = std::future::ready(()) => {} }
            }
        }
        assert_eq!(lane.run(|seen| seen.clone()).await.unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn members_that_wait_one_behind_the_other_run_together_and_nothing_overtakes() {
        let together = |seen: &mut Vec<Vec<u32>>, members: Vec<u32>| seen.push(members);
        let lane = Lane::sharing(Vec::new(), Tokio::current(), together);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut blocks = std::pin::pin!(lane.run(move |_| wait.recv().is_ok()));
        tokio::select! { biased; _ = &mut blocks => {}, () = std::future::ready(()) => {} }
        lane.join(1);
        lane.join(2);
        let mut alone = std::pin::pin!(lane.run(|seen| seen.push(Vec::new())));
        tokio::select! { biased; _ = &mut alone => {}, () = std::future::ready(()) => {} }
        (3..).take(MEMBERS_MAX + 1).for_each(|member| lane.join(member));
        go.send(()).unwrap();
        let seen = lane.run(|seen| seen.clone()).await.unwrap();
        let sizes: Vec<_> = seen.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 0, MEMBERS_MAX, 1]);
        let members: Vec<_> = seen.concat();
        assert_eq!(members, (1..).take(MEMBERS_MAX + 3).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_alone() {
        let lane = Lane::new(0, Tokio::current());
        let panics = lane.run(|_: &mut u32| panic!("on purpose"));
        let next = lane.run(|value| *value += 1);
        assert!(matches!(panics.await, Err(Error::Panicked { message }) if message == "on purpose"));
        next.await.unwrap();
        assert_eq!(lane.run(|value| *value).await.unwrap(), 1);
        lane.close().await;
    }

    #[tokio::test]
    async fn jobs_that_come_while_a_lane_is_closed_end_too() {
        let lane = Lane::new(0, Tokio::current());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut blocks = std::pin::pin!(lane.run(move |_: &mut u32| wait.recv()));
        let mut closes = std::pin::pin!(lane.close());
        let mut later: Vec<_> =
            (0..3 * JOBS_PER_TURN).map(|_| Box::pin(lane.run(|value| *value += 1))).collect();
        // Polled once each: queued, in this order.
        tokio::select! { biased; _ = &mut blocks => {}, () = std::future::ready(()) => {} }
        tokio::select! { biased; () = &mut closes => {}, () = std::future::ready(()) => {} }
        for job in &mut later {
            tokio::select! { biased; _ = job => {}, () = std::future::ready(()) => {} }
        }
        go.send(()).unwrap();
        closes.await;
        for job in later {
            job.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lane_that_is_held_for_a_moment_runs_every_job_afterwards() {
        let lane = Lane::new(0_u32, Tokio::current());
        for n in 1..200_u32 {
            let holder = lane.clone();
            let held = crate::engine::blocking(&lane.env, move || {
                Ok(holder.if_resting(|value| {
                    let before = *value;
                    std::thread::yield_now();
                    assert_eq!(*value, before, "nothing else runs");
                }))
            });
            let (ran, held) = tokio::join!(lane.run(|value| *value += 1), held);
            ran.unwrap();
            held.unwrap();
            assert_eq!(lane.run(|value| *value).await.unwrap(), n);
        }
        lane.close().await;
        assert!(lane.if_resting(|_| ()).is_none(), "nothing is left to hold");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lane_in_the_middle_of_a_job_is_not_held() {
        let lane = Lane::new(0, Tokio::current());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (began, begun) = oneshot::channel();
        let mut blocks = std::pin::pin!(lane.run(move |_: &mut u32| {
            began.send(()).unwrap();
            wait.recv()
        }));
        tokio::select! { biased; _ = &mut blocks => {}, begun = begun => begun.unwrap() }
        assert!(lane.if_resting(|_| ()).is_none());
        go.send(()).unwrap();
        blocks.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_closed_lane_has_run_what_was_queued_and_refuses_the_rest() {
        struct Flag(Arc<Mutex<bool>>);
        impl Drop for Flag {
            fn drop(&mut self) {
                *self.0.lock().unwrap() = true;
            }
        }
        let dropped = Arc::new(Mutex::new(false));
        let lane = Lane::new(Flag(Arc::clone(&dropped)), Tokio::current());
        lane.run(|_| ()).await.unwrap();
        lane.close().await;
        assert!(*dropped.lock().unwrap());
        assert!(matches!(lane.run(|_| ()).await, Err(Error::ShutDown)));
    }
}
