//! Deterministic simulation of the whole system.

mod checks;
pub mod core;
pub mod disk;
mod documents;
mod failure;
pub use failure::Failure;
mod host;
mod machine;
mod mutants;
pub use mutants::{MUTANTS, Mutant};
mod oracle;
mod plan;
pub use plan::{DiskRates, Fault, FaultKind, FaultPlan, Link, NetworkRates, Options, SiteRates, StoreRates};
mod random;
pub use random::Random;
mod rows;
pub mod sites;
pub mod store;
mod topology;
mod workload;
mod world;
pub use world::Outcome;
