use std::future::Future;
use std::time::Duration;

use cdc_model::{Clock, Entropy};

/// What the asynchronous shell needs of the world: time, tasks, threads that may block, randomness.
///
/// Static, never `dyn`. The engine is generic over it, so that the code that runs in production also runs under a
/// simulated scheduler, clock and random generator.
pub trait Env: Clone + Send + Sync + 'static {
    /// Time since an arbitrary start; never goes back.
    fn now(&self) -> Duration;

    /// The wall clock.
    fn clock(&self) -> Clock;

    /// The source of randomness.
    fn entropy(&self) -> Entropy;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Runs a task by itself.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Runs a job that may block (SQLite, the file system) off the asynchronous workers, on a bounded pool. Jobs of
    /// one object never run side by side; the caller sees to that.
    fn blocking(&self, job: impl FnOnce() + Send + 'static);
}
