//! Faults that are planted on purpose: what `fault_point!`, `mutant!` and `reached!` ask.
//!
//! All three are constant without `--cfg cdc_fault`, so that a normal build holds nothing of them. With it, one process
//! runs one simulated world, and what is active is decided once, before that world begins; disks fill while it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Whether this build can be made to fail on purpose.
pub const ENABLED: bool = cfg!(cdc_fault);

/// What is planted in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Decides which sites are active and when they fire.
    pub seed: u64,
    /// Of a hundred sites, how many are active in this process.
    pub active_percent: u64,
    /// Of ten thousand passes over an active site, how many fire.
    pub fire_per_10_000: u64,
    /// The one mutant that is switched on.
    pub mutant: Option<String>,
}

/// What happened at one site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// How often it was passed.
    pub passed: u64,
    /// How often it failed on purpose, or how often a switched-on mutant acted.
    pub fired: u64,
}

struct State {
    faults: Option<Faults>,
    sites: BTreeMap<&'static str, Site>,
    /// Folders whose disk has no room for another file.
    full: BTreeSet<PathBuf>,
}

/// Whether anything is planted, and whether a mutant is: what is asked most often.
static PLANTED: AtomicBool = AtomicBool::new(false);
static MUTATED: AtomicBool = AtomicBool::new(false);

static STATE: Mutex<State> =
    Mutex::new(State { faults: None, sites: BTreeMap::new(), full: BTreeSet::new() });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plants faults for the rest of the process, or none. Every disk has room then.
pub fn plant(faults: Option<Faults>) {
    PLANTED.store(faults.is_some(), Ordering::Relaxed);
    MUTATED.store(faults.as_ref().is_some_and(|faults| faults.mutant.is_some()), Ordering::Relaxed);
    let mut state = state();
    state.faults = faults;
    state.full.clear();
}

/// Whether the disk of a folder has no room for another file from now on.
pub fn set_full(folder: &Path, is_full: bool) {
    let full = &mut state().full;
    if is_full {
        full.insert(folder.to_owned());
    } else {
        full.remove(folder);
    }
}

/// Whether there is no room where a file is to lie. Constant false without `--cfg cdc_fault`.
#[must_use]
pub fn is_full(file: &Path) -> bool {
    ENABLED && state().full.iter().any(|folder| file.starts_with(folder))
}

/// Every site that was passed so far.
#[must_use]
pub fn sites() -> BTreeMap<&'static str, Site> {
    state().sites.clone()
}

/// Behind `fault_point!`.
#[must_use]
pub fn fires(name: &'static str) -> bool {
    if !PLANTED.load(Ordering::Relaxed) {
        return false;
    }
    let mut state = state();
    let State { faults, sites, .. } = &mut *state;
    let site = sites.entry(name).or_default();
    site.passed += 1;
    let Some(faults) = faults else { return false };
    let active = xxh3_64_with_seed(name.as_bytes(), faults.seed) % 100 < faults.active_percent;
    let draw = xxh3_64_with_seed(name.as_bytes(), faults.seed ^ site.passed.rotate_left(32));
    let fires = active && draw % 10_000 < faults.fire_per_10_000;
    site.fired += u64::from(fires);
    fires
}

/// Behind `mutant!`.
#[must_use]
pub fn is_switched_on(name: &'static str) -> bool {
    if !MUTATED.load(Ordering::Relaxed) {
        return false;
    }
    let mut state = state();
    let on = state.faults.as_ref().is_some_and(|faults| faults.mutant.as_deref() == Some(name));
    if on {
        let site = state.sites.entry(name).or_default();
        (site.passed, site.fired) = (site.passed + 1, site.fired + 1);
    }
    on
}

/// Behind `reached!`.
pub fn reach(name: &'static str) {
    state().sites.entry(name).or_default().passed += 1;
}

/// Whether the code is to fail here on purpose. Constant false without `--cfg cdc_fault`.
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault::ENABLED && $crate::fault::fires($name)
    };
}

/// Whether the code is to do the wrong thing that bears this name, so that the simulator proves it would notice.
/// Constant false without `--cfg cdc_fault`.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::fault::ENABLED && $crate::fault::is_switched_on($name)
    };
}

/// Counts that a path was reached which a long simulation must reach. Nothing without `--cfg cdc_fault`.
#[macro_export]
macro_rules! reached {
    ($name:literal) => {
        if $crate::fault::ENABLED {
            $crate::fault::reach($name);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_fires_as_often_as_planted_and_the_same_seed_at_the_same_passes() {
        let run = |seed| {
            plant(Some(Faults {
                seed,
                active_percent: 100,
                fire_per_10_000: 2_500,
                mutant: Some("m".into()),
            }));
            state().sites.clear();
            (0..1000).map(|_| fires("a.site")).collect::<Vec<_>>()
        };
        let (first, again, other) = (run(1), run(1), run(2));
        assert_eq!(first, again);
        assert_ne!(first, other);
        let fired = sites().get("a.site").unwrap().fired;
        assert!((150..350).contains(&fired), "{fired} of 1000 fired");
        assert!(is_switched_on("m") && !is_switched_on("n"));
        assert_eq!(sites().get("m").unwrap().fired, 1);
        plant(None);
        assert!(!fires("a.site") && !is_switched_on("m"));
        assert_eq!((ENABLED, fault_point!("b.site")), (cfg!(cdc_fault), false));
        set_full(Path::new("/host-1"), true);
        assert_eq!(is_full(Path::new("/host-1/ballast")), ENABLED);
        assert!(!is_full(Path::new("/host-11/ballast")));
        plant(None);
        assert!(!is_full(Path::new("/host-1/ballast")));
    }
}
