//! Plants a mutant and runs its stored plan and seeds until the promise it breaks is seen broken.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use sim::{FaultPlan, Mutant};

use super::child::{Children, Verdict};
use super::tally::milliseconds;
use crate::runner::Runner;

/// Failures of another kind after which a mutant is not tried any more.
const ELSEWISE_MAX: u64 = 30;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tried {
    pub(super) name: String,
    pub(super) breaks: String,
    pub(super) expected: Vec<String>,
    /// The promise that caught it and what showed it: a seed or its stored plan.
    pub(super) caught: Option<(String, String)>,
    /// Seeds and plans that were run with it, the one that caught it included.
    pub(super) seeds: u64,
    /// In so many of them the planted code was executed.
    pub(super) acted: u64,
    /// Seeds that fail without it as well, and prove nothing.
    pub(super) unusable: u64,
    /// Failures of any other kind, panics included.
    pub(super) elsewise: BTreeMap<String, u64>,
    pub(super) took_ms: u64,
    pub(super) stopped: bool,
}

impl Tried {
    /// Whether it was run as long as was asked for and nobody noticed.
    pub(super) const fn survived(&self) -> bool {
        self.caught.is_none() && !self.stopped
    }
}

/// Where seeds of mutants come from.
pub(super) struct Seeds<D> {
    pub(super) first: u64,
    pub(super) max: u64,
    pub(super) draw: D,
}

/// Runs a mutant's plan and seeds with it, one after the other, until it is caught.
///
/// # Panics
///
/// When the stored plan is none, which a test of the table rules out.
pub(super) fn try_one(
    mutant: &Mutant,
    children: &Children,
    runner: Runner,
    seeds: &Seeds<impl Fn(u64) -> FaultPlan>,
) -> Tried {
    let began = Instant::now();
    let mut tried = Tried {
        name: mutant.name.to_owned(),
        breaks: mutant.breaks.to_owned(),
        expected: mutant.caught_by.iter().map(|promise| (*promise).to_owned()).collect(),
        caught: None,
        seeds: 0,
        acted: 0,
        unusable: 0,
        elsewise: BTreeMap::new(),
        took_ms: 0,
        stopped: false,
    };
    let stored = mutant.plan.map(|plan| serde_json::from_str(plan).expect("a stored plan is one"));
    let stored = stored.into_iter().map(|plan| ("its stored plan".to_owned(), plan));
    let drawn = (seeds.first..).take(usize::try_from(seeds.max).unwrap_or(usize::MAX));
    let drawn = drawn.map(|seed| (format!("seed {seed}"), (seeds.draw)(seed)));
    for (label, sound) in stored.chain(drawn) {
        let plan = FaultPlan { mutant: Some(mutant.name.to_owned()), ..sound.clone() };
        let ran = children.run(&plan, runner);
        let breach = match ran.verdict {
            Verdict::Stopped => {
                tried.stopped = true;
                break;
            }
            Verdict::Kept => None,
            Verdict::Broken(breach) => Some(breach),
        };
        tried.seeds += 1;
        tried.acted += u64::from(ran.measured.sites.get(mutant.name).is_some_and(|(_, fired)| *fired > 0));
        let Some(breach) = breach else { continue };
        if !mutant.caught_by.contains(&breach.promise.as_str()) {
            *tried.elsewise.entry(breach.promise).or_default() += 1;
            if tried.elsewise.values().sum::<u64>() >= ELSEWISE_MAX {
                break;
            }
            continue;
        }
        // A seed that fails without the mutant would catch any of them.
        match children.run(&sound, runner).verdict {
            Verdict::Kept => {
                tried.caught = Some((breach.promise, label));
                break;
            }
            Verdict::Broken(_) => tried.unusable += 1,
            Verdict::Stopped => {
                tried.stopped = true;
                break;
            }
        }
    }
    tried.took_ms = milliseconds(began.elapsed());
    tried
}
