//! What the hot tier promises, attacked from outside: random SQL, foreign processes, restores, bypasses, kills.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops at the first surprise and says what it did; tests that kill and race need threads, waits and the environment"
)]

mod bad_input;
mod bypasses;
mod checkpoints;
mod comparisons;
mod differential;
mod drains;
mod durability;
mod foreign;
mod formats;
mod found;
mod full_disk;
mod groups;
mod indexes;
mod kills;
mod kills_under_load;
mod ledger;
mod log;
mod random;
mod restores;
mod retention;
mod rot;
mod small_disk;
mod statements;
mod tables;
mod temporary;
mod transactions;
mod twins;
mod witness;
