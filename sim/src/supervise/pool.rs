//! Work on several threads, heard of on one.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often the caller is told that time has passed.
const TICK: Duration = Duration::from_secs(1);

/// What the caller hears.
pub(super) enum News<R> {
    Done(R),
    Tick,
}

/// Takes jobs off the queue until it is empty, so many at a time. What is done is heard of in order of completion.
pub(super) fn run<J, R: Send>(
    workers: usize,
    queue: impl Iterator<Item = J> + Send,
    work: impl Fn(J) -> R + Sync,
    mut hear: impl FnMut(News<R>),
) {
    let queue = Mutex::new(queue);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            let (tell, queue, work) = (tell.clone(), &queue, &work);
            scope.spawn(move || {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(job) = next() {
                    if tell.send(work(job)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        loop {
            match told.recv_timeout(TICK) {
                Ok(done) => hear(News::Done(done)),
                Err(RecvTimeoutError::Timeout) => hear(News::Tick),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once_whatever_the_number_of_workers() {
        for workers in [0, 1, 3, 50] {
            let mut seen = Vec::new();
            run(
                workers,
                0..20_u64,
                |job| job * 2,
                |news| match news {
                    News::Done(done) => seen.push(done),
                    News::Tick => {}
                },
            );
            seen.sort_unstable();
            assert_eq!(seen, (0..20).map(|job| job * 2).collect::<Vec<_>>(), "{workers} workers");
        }
    }
}
