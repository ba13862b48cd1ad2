use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Runtime};

/// Runs asynchronous work to its end as one step of a simulation.
///
/// A thread of its own runs each step on a current-thread runtime with paused time, while the caller waits; so the
/// caller may be on a runtime itself, what is run may borrow from it, and nothing else happens meanwhile. Sleeping in
/// a step takes no time.
#[derive(Debug)]
pub struct Steps(Mutex<Runtime>);

impl Steps {
    /// # Panics
    ///
    /// When the operating system refuses what a runtime needs.
    #[must_use]
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        Self(Mutex::new(runtime.expect("a runtime without I/O can be built")))
    }

    /// What the future gives.
    ///
    /// # Panics
    ///
    /// When the future panics.
    pub fn run<F: Future<Output: Send> + Send>(&self, step: F) -> F::Output {
        let run = || self.0.lock().unwrap_or_else(PoisonError::into_inner).block_on(step);
        let done = std::thread::scope(|scope| scope.spawn(run).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}
