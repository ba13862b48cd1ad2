//! Deterministic simulation of the whole system.
//!
//! One [`World`] is two objects, a child and its parent: real logs in real SQLite files, the real sending and
//! receiving machines, and between them a network that loses, repeats, delays and reorders. A seeded workload writes
//! rows and emits documents in transactions, some of which roll back. Either object crashes: between two pieces of
//! work, with all but the COMMIT done, or before anybody is told of the COMMIT. After a time everything is healed.
//! The seed alone decides what happens and when; time is simulated.
//!
//! ```
//! use sim::{Setup, World};
//!
//! let report = World::run(7, Setup::default())?;
//! assert_eq!(report, World::run(7, Setup::default())?, "the seed decides everything");
//! # Ok::<(), Box<sim::Failure>>(())
//! ```
//!
//! # What it proves today
//!
//! The checkers know what the workload wrote and read the files by plain SQL; they share no code with the system.
//! After every transaction and every reopening they hold:
//!
//! - the child's log is exactly what was committed, in order, and its tables are what that adds up to;
//! - the parent's log is a prefix of it: nothing lost, repeated, reordered or invented, each `before` the last
//!   `after`, and nothing stored goes away;
//! - marks never move back and cover exactly what is stored; received = stored + duplicate + looped + late + refused;
//! - what an answer or the child's link calls acknowledged lies in the parent's file;
//! - no link of sound files stops;
//! - within eight simulated seconds of healing all has arrived, is acknowledged and folds to the live tables.
//!
//! A child that comes back from an older copy of its files, which the parent had gone beyond, is stopped with
//! `Rewound` or `Diverged`; it writes on, and the parent's log stays as it was. Every [`Mutant`] is found.
//!
//! # What it does not yet
//!
//! A crash here is the death of a process: what was written to a file is still there. Power loss, torn and lost
//! writes, full disks and I/O errors are what [`disk`] simulates; no world runs on it yet. The drivers of the machines are the simulator's and
//! mirror the engine's; the engine itself, with its tasks and transport, is not run. There are two objects, one
//! hop, owned databases, no filter, no stages, no pruning, no archive and so nothing `settled`, no epoch change and
//! no attached database. Triggers read the machine's clock and SQLite draws its own nonces; both stay out of the
//! trace and decide nothing here.

mod checkers;
mod child;
pub mod disk;
mod documents;
mod failure;
pub use failure::Failure;
mod mutant;
pub use mutant::Mutant;
mod network;
mod object;
mod parent;
mod plan;
mod random;
pub use random::Random;
mod rows;
mod schedule;
mod setup;
pub use setup::{Report, Rewind, Setup};
mod trace;
mod workload;
mod world;
pub use world::World;
