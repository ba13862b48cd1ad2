//! The turmoil runner: the same world, with a tokio runtime and an HTTP server for each process and connections between
//! them. A process is a host with hundreds of objects; of hosts there are few, since turmoil keeps a link for each pair.

mod env;
mod runner;
pub use runner::{HOSTS_MAX, run};
