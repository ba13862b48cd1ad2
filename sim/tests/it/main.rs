//! Runs worlds of fixed seeds.

mod mutants;
mod two_objects;
