//! The madsim runner: the same world with connections that do not lose bytes, any number of hosts, and tasks that run in
//! an order which the seed decides.

mod env;
mod runner;
pub use runner::run;
