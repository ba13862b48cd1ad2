//! Runs worlds of fixed seeds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that unwraps a failure has failed")]

mod sites;
mod store;
mod swarm;
