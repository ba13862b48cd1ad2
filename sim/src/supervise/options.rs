use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use sim::{MUTANTS, Mutant};

use crate::runner::Runners;
use crate::scenario::Scenario;

/// Seeds when nothing else is asked for.
const SEEDS: u64 = 100;

/// Seconds after which a run is taken to hang.
const TIMEOUT_S: u64 = 300;

/// What to run, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct SwarmOptions {
    /// So many seeds, from --from-seed on. 100 when nothing else is asked for.
    #[arg(long, conflicts_with = "seed")]
    pub(super) seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(super) from_seed: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["from_seed", "minutes"])]
    pub(super) seed: Option<u64>,
    /// As many seeds as begin within so many minutes, or --seeds if that is fewer. Each runner gets an equal part of
    /// the time. Such a run also fails when a site in the code that it has to pass was not passed.
    #[arg(long)]
    pub(super) minutes: Option<u64>,
    /// So many objects in each world; drawn from the seed otherwise.
    #[arg(long)]
    pub(super) objects: Option<usize>,
    /// The kind of world.
    #[arg(long, value_enum, default_value_t)]
    pub(super) scenario: Scenario,
    /// What executes the plans; `all` runs each plan once with each.
    #[arg(long, default_value = "core")]
    pub(super) runner: Runners,
    /// First run so many seeds twice, in two processes; every figure of both must be equal.
    #[arg(long, value_name = "SEEDS")]
    pub(super) determinism: Option<u64>,
    /// Run the stored plans of a folder, or one plan; each has to pass.
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) plans: Option<PathBuf>,
    /// Plant mutants, one at a time, and run seeds until each is caught: `all`, the third K of N as `K/N`, or names
    /// with commas between them.
    #[arg(long, value_name = "WHICH", num_args = 0..=1, default_missing_value = "all")]
    pub(super) mutants: Option<Mutants>,
    /// Seeds after which a mutant has survived.
    #[arg(long, default_value_t = 300)]
    pub(super) mutant_seeds_max: u64,
    /// Processes at a time; as many as there are cores otherwise.
    #[arg(long)]
    pub(super) jobs: Option<usize>,
    /// Seconds after which a run is taken to hang: 300, or one for each of --objects if that is more.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Begin no more seeds after so many failures.
    #[arg(long, default_value_t = 50)]
    pub(super) failures_max: u64,
    /// Make the plans of failures smaller: one of each kind, of three kinds.
    #[arg(long)]
    pub(super) shrink: bool,
    /// Minutes for making one plan smaller.
    #[arg(long, default_value_t = 5)]
    pub(super) shrink_minutes: u64,
    /// Where reports and plans of failures go.
    #[arg(long, value_name = "DIR", default_value = "target/sim")]
    pub(super) report: PathBuf,
}

/// What to make smaller.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShrinkOptions {
    /// The plan, which has to fail.
    #[arg(long)]
    pub(super) plan: PathBuf,
    /// What executes it.
    #[arg(long, value_enum, default_value = "core")]
    pub(super) runner: crate::runner::Runner,
    /// Minutes after which the smallest plan so far is taken.
    #[arg(long, default_value_t = 10)]
    pub(super) minutes: u64,
    /// Processes at a time; as many as there are cores otherwise.
    #[arg(long)]
    pub(super) jobs: Option<usize>,
    /// Seconds after which a run is taken to hang.
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT_S)]
    pub(super) timeout: u64,
    /// The small plan is written to `plans` in here.
    #[arg(long, value_name = "DIR", default_value = "target/sim")]
    pub(super) report: PathBuf,
}

impl SwarmOptions {
    /// Seconds after which a run is taken to hang.
    pub(super) fn timeout(&self) -> u64 {
        let objects = u64::try_from(self.objects.unwrap_or(0)).unwrap_or(u64::MAX);
        self.timeout.unwrap_or_else(|| objects.max(TIMEOUT_S))
    }

    /// How many seeds to run; none when only other things are asked for.
    pub(super) fn seeds_max(&self) -> u64 {
        let others = self.determinism.is_some() || self.plans.is_some() || self.mutants.is_some();
        match (self.seed, self.seeds, self.minutes) {
            (Some(_), _, _) => 1,
            (None, Some(seeds), _) => seeds,
            (None, None, Some(_)) => u64::MAX,
            (None, None, None) if others => 0,
            (None, None, None) => SEEDS,
        }
    }

    /// The first of them.
    pub(super) fn first_seed(&self) -> u64 {
        self.seed.unwrap_or(self.from_seed)
    }
}

/// Processes at a time.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(cores).max(1)
}

/// How many cores this machine lets us use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Which mutants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mutants {
    /// Every `of`th one, beginning with the `part`th.
    Part {
        part: usize,
        of: usize,
    },
    Named(Vec<String>),
}

impl FromStr for Mutants {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::Part { part: 1, of: 1 });
        }
        if let Some((part, of)) = text.split_once('/') {
            return match (part.parse(), of.parse()) {
                (Ok(part), Ok(of)) if (1..=of).contains(&part) => Ok(Self::Part { part, of }),
                _ => Err(format!("{text} is no part; the second third is 2/3")),
            };
        }
        Ok(Self::Named(text.split(',').map(str::to_owned).collect()))
    }
}

impl Mutants {
    /// The chosen ones of a table, or the name that it lacks.
    pub(super) fn chosen<'t>(&self, table: &'t [Mutant]) -> Result<Vec<&'t Mutant>, String> {
        match self {
            Self::Part { part, of } => Ok(table.iter().skip(part - 1).step_by(*of).collect()),
            Self::Named(names) => {
                let find =
                    |name: &String| table.iter().find(|mutant| mutant.name == name).ok_or(name.clone());
                names.iter().map(find).collect()
            }
        }
    }

    /// The chosen ones of ours.
    pub(super) fn of_ours(&self) -> Result<Vec<&'static Mutant>, String> {
        self.chosen(MUTANTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mutant(name: &'static str) -> Mutant {
        Mutant { name, breaks: "", caught_by: &[], plan: None }
    }

    #[test]
    fn mutants_are_chosen_by_part_or_by_name() {
        let table = ["a", "b", "c", "d", "e"].map(mutant);
        for (text, expected) in [
            ("all", Ok(vec!["a", "b", "c", "d", "e"])),
            ("1/3", Ok(vec!["a", "d"])),
            ("3/3", Ok(vec!["c"])),
            ("d,a", Ok(vec!["d", "a"])),
            ("a,x", Err("x".to_owned())),
        ] {
            let chosen = text.parse::<Mutants>().and_then(|mutants| mutants.chosen(&table));
            let names = chosen.map(|chosen| chosen.iter().map(|mutant| mutant.name).collect::<Vec<_>>());
            assert_eq!(names, expected, "{text}");
        }
        for text in ["0/3", "4/3", "1/0", "x/3"] {
            text.parse::<Mutants>().expect_err(text);
        }
    }
}
