//! Deterministic simulation of the whole system.
//!
//! A [`FaultPlan`], drawn from a seed or stored, says what a world is like and what befalls it. A runner executes it: the
//! real engine in several processes, real SQLite on [disks](disk) that lose what was not synced, real Iceberg tables on a
//! [store] that loses its answers. Checkers that share no code with the system hold what lies in files and tables against
//! what was written. The same plan gives the same run, to the bit.
//!
//! A process runs one world, because SQLite's file layer and its random numbers are one per process; the program `sim`
//! runs many. `docs/simulation.md` says what is simulated and what is checked.
//!
//! ```
//! let plan = sim::FaultPlan::draw(7, Some(3));
//! let outcome = sim::core::run(&plan)?;
//! assert!(outcome.events > 0);
//! # Ok::<(), Box<sim::Failure>>(())
//! ```

mod application;
mod archivist;
mod checks;
pub mod core;
pub mod disk;
mod documents;
#[cfg(madsim)]
mod engine;
mod failure;
pub use failure::{Failure, chain};
mod host;
#[cfg(madsim)]
mod http;
mod known;
mod machine;
#[cfg(madsim)]
pub mod madsim;
mod mutants;
pub use mutants::{MUTANTS, Mutant, PLANNED};
mod oracle;
mod plan;
pub use plan::{DiskRates, Fault, FaultKind, FaultPlan, Link, NetworkRates, Options, SiteRates, StoreRates};
mod random;
pub use random::Random;
mod rows;
#[cfg(madsim)]
mod schedule;
pub mod sites;
pub mod store;
pub use store::{HostStore, Orphans, Row, SimStore, Steps, StoreFaults, TableOracle, Violation};
mod topology;
#[cfg(madsim)]
pub mod turmoil;
mod watch;
mod workload;
mod world;
pub use world::Outcome;
