use std::error::Error;
use std::fmt;

use crate::world::Outcome;

/// A promise that a run did not keep.
#[derive(Debug)]
pub struct Failure {
    /// The seed that shows it again.
    pub seed: u64,
    /// The promise.
    pub promise: &'static str,
    /// What the checker saw.
    pub saw: String,
    /// What went wrong on purpose, and the last steps before.
    pub story: String,
    /// How far the run came.
    pub outcome: Outcome,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, promise, saw, story, outcome: _ } = self;
        write!(f, "seed {seed}: {promise}: {saw}\n{story}")
    }
}

impl Error for Failure {}

/// What a checker saw, before the world adds seed and story.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) saw: String,
}

/// An error nobody asked for is a failure of the run.
impl<E: Error> From<E> for Broken {
    fn from(error: E) -> Self {
        let mut saw = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            saw = format!("{saw}: {cause}");
            source = cause.source();
        }
        Self { promise: "nothing fails by itself", saw }
    }
}

/// Holds a promise against what was seen.
pub(crate) fn ensure(kept: bool, promise: &'static str, saw: impl FnOnce() -> String) -> Result<(), Broken> {
    if kept { Ok(()) } else { Err(Broken { promise, saw: saw() }) }
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        line = format!("{line}: {source}");
        cause = source.source();
    }
    line
}
