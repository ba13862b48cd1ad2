//! Faults planted into the code with `mutant!`, each of which the simulator has to notice.

/// One planted fault. It exists in builds with `--cfg cdc_fault` only, and acts when a plan names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// What `mutant!` and a plan call it.
    pub name: &'static str,
    /// What the code does wrong, and what follows from it.
    pub breaks: &'static str,
    /// The promises of which one has to be seen broken; anything else, a panic included, is not taken for it.
    pub caught_by: &'static [&'static str],
}

/// All of them, by name.
pub const MUTANTS: &[Mutant] = &[Mutant {
    name: "records-swapped",
    breaks: "A parent stores the records of a batch in the opposite order.",
    caught_by: &["every event once, in its origin's order"],
}];
