//! Runs many worlds, each in a process of its own, and says what came of them.
//!
//! The supervisor knows a run by its plan, which goes in on the standard input, and by one line, which comes out. What
//! executes the plan is the other process's business. A panic, a signal or a process that does not end is a failure
//! like a broken promise.
#![expect(clippy::disallowed_methods, reason = "the supervisor lives in real time, outside of any world")]

mod child;
mod ddmin;
mod error;
pub(crate) use error::Error;
mod mutate;
mod options;
pub(crate) use options::{ShrinkOptions, SwarmOptions};
mod origin;
mod plans;
pub(crate) use plans::{read_plan, read_plan_from_input};
mod pool;
mod progress;
mod report;
mod shrink;
mod smaller;
mod swarm;
pub(crate) use swarm::{shrink, swarm};
mod tally;
