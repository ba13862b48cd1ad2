//! The built binary, called as people call it.

mod attaching;
mod failing;
mod following;
mod help;
mod reading;
mod world;
