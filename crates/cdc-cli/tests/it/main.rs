//! The built binary, called as people call it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod attaching;
mod failing;
mod following;
mod help;
mod pruning;
mod reading;
mod serving;
mod world;
