use std::collections::BTreeMap;
use std::time::Duration;

use crate::random::Random;

/// What is to happen, in order of simulated time. Among things due at the same time the seed decides.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    now: Duration,
    random: Random,
    added: u64,
    due: BTreeMap<(Duration, u64, u64), E>,
}

impl<E> Schedule<E> {
    pub(crate) fn new(seed: u64) -> Self {
        Self { now: Duration::ZERO, random: Random::stream(seed, "schedule"), added: 0, due: BTreeMap::new() }
    }

    /// Simulated time since the world began.
    pub(crate) const fn now(&self) -> Duration {
        self.now
    }

    /// Adds what happens at a time; at once if that has passed.
    pub(crate) fn at(&mut self, time: Duration, event: E) {
        self.added += 1;
        self.due.insert((time.max(self.now), self.random.next(), self.added), event);
    }

    /// Adds what happens after exactly this pause.
    pub(crate) fn after(&mut self, pause: Duration, event: E) {
        self.at(self.now + pause, event);
    }

    /// Adds what happens after a random pause of at most this.
    pub(crate) fn within(&mut self, most: Duration, event: E) {
        let pause = self.random.time(most);
        self.after(pause, event);
    }

    /// Goes on to the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((time, ..), event) = self.due.pop_first()?;
        self.now = time;
        Some(event)
    }
}
