//! The core runner: one thread, one event heap, real SQLite on simulated disks, the real engine, messages instead of
//! connections.

mod env;
mod executor;
mod network;
mod runner;
pub use runner::run;
