//! The checkers find faults that are planted on purpose.

use sim::{Mutant, Setup, World};

/// A mutant that so many seeds do not show is not found.
const SEEDS_MAX: u64 = 60;

#[test]
fn every_mutant_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let setup = Setup { mutant: Some(mutant), ..Setup::default() };
        let found = (0..SEEDS_MAX).find_map(|seed| World::run(seed, setup).err());
        match found {
            Some(failure) => {
                let (seeds, saw) = (failure.seed + 1, failure.saw.chars().take(150).collect::<String>());
                println!("{mutant}: {seeds} seeds, {}: {saw}", failure.promise);
            }
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}
