//! Two objects, a bad network and crashes.

use sim::{Report, Rewind, Setup, World};

const SEEDS: std::ops::Range<u64> = 0..40;

fn run(seed: u64, setup: Setup) -> Report {
    match World::run(seed, setup) {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    let reports: Vec<_> = SEEDS.map(|seed| run(seed, Setup::default())).collect();
    let crashes: u32 = reports.iter().map(|report| report.crashes).sum();
    let written: usize = reports.iter().map(|report| report.written).sum();
    println!("{} seeds: {written} events, {crashes} crashes", reports.len());
    assert!(crashes > 100, "the faults are really planted: {crashes} crashes");
    assert!(written > 10_000, "the workload really writes: {written} events");
}

#[test]
#[ignore = "takes minutes; for a night or after a change of a machine"]
fn a_thousand_seeds_keep_every_promise() {
    for seed in 1_000..2_000 {
        run(seed, Setup::default());
        run(seed, Setup { rewind: Rewind::Once, ..Setup::default() });
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in SEEDS.take(8) {
        let report = run(seed, Setup::default());
        assert_eq!(report, run(seed, Setup::default()), "seed {seed}");
        hashes.insert(report.hash);
    }
    assert_eq!(hashes.len(), 8);
}

#[test]
fn a_child_put_back_to_an_older_copy_is_stopped_and_the_parent_keeps_what_it_has() {
    let setup = Setup { rewind: Rewind::Once, ..Setup::default() };
    let rewound = SEEDS.take(25).filter(|seed| run(*seed, setup).rewound).count();
    println!("{rewound} seeds rewound the child beyond the parent's mark");
    assert!(rewound >= 5, "only {rewound} seeds came to it");
}
