//! The simulator: a launcher, because the simulator is a program of its own, built with faults in the code.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::error::Error;
use crate::repository::{self, Repository};

/// What the simulator's build is compiled with: the runners that replace tokio's clock and sockets, and the faults and
/// mutants that the code plants into itself.
const FLAGS: &str = "--cfg madsim --cfg tokio_unstable --cfg cdc_fault";

/// Tasks of the program besides `swarm`, which is meant when none of them is named.
const TASKS: [&str; 4] = ["plan", "run", "shrink", "swarm"];

/// Seeds that continuous integration runs twice, before anything else.
const CI_DETERMINISM: &str = "3";
/// Seeds that it runs on each runner: always the same ones.
const CI_SEEDS: &str = "12";
/// The mutants it plants, a third of all: those that few seeds show. A night's run plants all.
const CI_MUTANTS: [&str; 29] = [
    "ack-without-commit",
    "body-written-anew",
    "changed-schema-not-healed",
    "checkpoint-before-effect",
    "checkpoint-epoch-not-compared",
    "closed-log-left-open",
    "cursor-read-again",
    "digest-of-sent-rows-only",
    "drained-row-left",
    "failed-trim-given-up",
    "failed-write-kept",
    "full-disk-told-for-ever",
    "full-from-the-start-not-noticed",
    "gone-rows-not-compared",
    "hop-sets-event-time",
    "kept-back-not-counted",
    "log-time-goes-back",
    "origin-mark-not-moved",
    "records-swapped",
    "recovered-rows-not-synced",
    "route-not-extended",
    "row-digest-not-verified",
    "schema-record-dropped",
    "second-parent-ignored",
    "stored-not-counted",
    "tail-moved-before-commit",
    "template-has-an-epoch",
    "trim-setting-ignored",
    "trimmed-before-drained",
];
/// Seeds after which a mutant has survived there.
const CI_MUTANT_SEEDS_MAX: &str = "60";
/// Where plans that once failed are kept.
const PLANS: &str = "sim/plans";

/// What every developer wants to know before the first build.
pub(crate) const HELP: &str = "\
Examples:
  cargo xtask sim --seeds 200                   200 seeds, each in a process of its own
  cargo xtask sim --seed 17                     one seed; a broken promise is told as a story
  cargo xtask sim --minutes 60 --shrink         an hour of seeds; failures are made smaller
  cargo xtask sim --scenario crashes --seeds 50 a kind of world; `swarm --help` lists them
  cargo xtask sim --determinism 10              ten seeds twice: every figure must be equal
  cargo xtask sim --plans sim/plans             every stored plan, or one: --plans FILE
  cargo xtask sim --mutants all                 every planted fault must be caught
  cargo xtask sim --mutants 1/3                 a third of them
  cargo xtask sim plan --seed 17                print the plan of a seed
  cargo xtask sim run --plan FILE               run one plan in one process
  cargo xtask sim shrink --plan FILE            make a failing plan smaller
  cargo xtask sim swarm --help                  every option, told by the simulator itself

docs/simulation.md says what is simulated and checked, and how to get from a failure to its cause.";

/// What to pass on.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Arguments of the simulator, as its own help explains them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Options {
    /// What continuous integration runs.
    pub(crate) fn short() -> Self {
        let arguments =
            ["--runner", "all", "--determinism", CI_DETERMINISM, "--plans", PLANS, "--seeds", CI_SEEDS];
        let mutants = CI_MUTANTS.join(",");
        let mutants = ["--mutants", &mutants, "--mutant-seeds-max", CI_MUTANT_SEEDS_MAX];
        Self { arguments: arguments.into_iter().chain(mutants).map(str::to_owned).collect() }
    }
}

/// Builds the simulator and hands over to it; its exit code is ours.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let home = repository.target.join("sim");
    let program = build(repository, &home)?;
    let mut simulator = repository.command(program);
    let task = options.arguments.first().filter(|first| TASKS.contains(&first.as_str()));
    if task.is_none() {
        simulator.arg("swarm");
    }
    simulator.args(&options.arguments);
    let writes = task.is_none_or(|task| ["swarm", "shrink"].contains(&task.as_str()));
    if writes && !options.arguments.iter().any(|argument| argument.starts_with("--report")) {
        simulator.arg("--report").arg(&home);
    }
    repository::code(&mut simulator)
}

/// In a target directory of its own: the flags reach every dependency, and would have cargo build all of them anew
/// after each change between this build and the usual one.
fn build(repository: &Repository, home: &std::path::Path) -> Result<PathBuf, Error> {
    let began = Instant::now();
    let mut build = repository.cargo(["build", "--package", "sim", "--bin", "sim", "--profile", "sim"]);
    build.arg("--target-dir").arg(home).env("RUSTFLAGS", FLAGS);
    repository::succeed(&mut build)?;
    println!("sim: built in {:.0} s", began.elapsed().as_secs_f64());
    Ok(home.join("sim").join("sim"))
}
