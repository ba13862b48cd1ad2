//! The archive against real folders and stores that fail on purpose.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that unwraps a failure has failed")]

mod append;
mod catalog;
mod damage;
mod format;
mod history;
mod layout;
mod maintenance;
mod round_trip;
mod scan;
mod support;
