//! Places in the code that a long simulation has to pass. `sim/tests/it` holds the lists and the code together.

/// What `fault_point!` names: each has to fire.
pub const FAULT_POINTS: &[&str] = &["link.answer-lost"];

/// What `reached!` names: each has to be passed.
pub const REACHED: &[&str] = &["link.begun-later", "link.not-saved"];
