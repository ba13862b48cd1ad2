//! The `cdc` binary.
fn main() {}
