use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3Default;

/// Lines that are kept for the story of a failure.
const LINES_MAX: usize = 40;

/// Every step of a run, as a hash over all of them and the newest as text.
///
/// The same seed must give the same hash, so nothing goes in that a run does not decide by its seed. Left out are the
/// nonces of epochs and capture rows, which SQLite's random() draws, the times of capture rows, which triggers take
/// from the machine's clock, and the digests, which cover those times.
#[derive(Default)]
pub(crate) struct Trace {
    hash: Xxh3Default,
    steps: u64,
    newest: VecDeque<String>,
    faults: Vec<String>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("steps", &self.steps)
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

impl Trace {
    /// Notes a step.
    pub(crate) fn step(&mut self, now: Duration, what: impl fmt::Display) {
        let line = format!("{:>9.3} ms  {what}", now.as_secs_f64() * 1000.0);
        self.absorb(&line);
        self.steps += 1;
        if self.newest.len() == LINES_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(line);
    }

    /// Notes a step that is a fault; the story tells all of these.
    pub(crate) fn fault(&mut self, now: Duration, what: impl fmt::Display) {
        let what = what.to_string();
        self.faults.push(format!("{:>9.3} ms  {what}", now.as_secs_f64() * 1000.0));
        self.step(now, what);
    }

    /// Takes text into the hash only.
    pub(crate) fn absorb(&mut self, text: &str) {
        self.hash.update(text.as_bytes());
        self.hash.update(b"\n");
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub(crate) const fn steps(&self) -> u64 {
        self.steps
    }

    /// The faults of the whole run, and its newest steps.
    pub(crate) fn story(&self) -> String {
        let newest: Vec<_> = self.newest.iter().map(String::as_str).collect();
        format!("faults:\n{}\nlast steps:\n{}", self.faults.join("\n"), newest.join("\n"))
    }
}
