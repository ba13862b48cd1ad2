//! What the hot tier promises, attacked from outside: random SQL, foreign processes, restores, bypasses, kills.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and tests that kill and race need threads, waits and the environment"
)]

mod bypasses;
mod differential;
mod random;
mod restores;
mod statements;
mod tables;
mod witness;
