//! Deterministic simulation of the whole system.

mod checks;
pub mod core;
pub mod disk;
mod documents;
#[cfg(madsim)]
mod engine;
mod failure;
pub use failure::Failure;
mod host;
#[cfg(madsim)]
mod http;
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
mod workload;
mod world;
pub use world::Outcome;
