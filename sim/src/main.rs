//! Runs simulated worlds: one in this process, because SQLite and its random numbers are one per process, or many,
//! each in a process of its own.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to whoever started it")]

mod line;
mod runner;
mod scenario;
mod supervise;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sim::FaultPlan;

use runner::Runner;
use scenario::Scenario;
use supervise::Error;

/// Also serves SQLite, whose thousands of small databases fragment the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The deterministic simulator.
///
/// A seed decides a plan (what the world is like and what befalls it) and a plan decides a run: the same plan gives the
/// same run, to the bit. A process runs one world, so `swarm` starts a process of this program for each seed.
#[derive(Debug, Parser)]
#[command(name = "sim", disable_version_flag = true, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Draw the plan of a seed and print it.
    Plan(Which),
    /// Run one plan in this process; exits 1 with the story when a promise is broken.
    Run(Run),
    /// Run many seeds, stored plans or mutants, each in a process of its own, and write a report.
    Swarm(supervise::SwarmOptions),
    /// Make a failing plan smaller while it breaks the same promise.
    Shrink(supervise::ShrinkOptions),
}

#[derive(Debug, Args)]
struct Which {
    /// The seed a plan is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A stored plan in the place of one drawn from the seed; `-` reads it from standard input.
    #[arg(long, conflicts_with_all = ["seed", "objects", "scenario"])]
    plan: Option<PathBuf>,
    /// So many objects.
    #[arg(long)]
    objects: Option<usize>,
    /// The kind of world.
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Plant this mutant.
    #[arg(long)]
    mutant: Option<String>,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    which: Which,
    /// What executes the plan.
    #[arg(long, value_enum, default_value = "core")]
    runner: Runner,
    /// Print one line of JSON, whatever happens: the outcome, the failure if there is one, and the process's figures.
    #[arg(long)]
    json: bool,
}

impl Which {
    fn plan(&self) -> Result<FaultPlan, Error> {
        let mut plan = match &self.plan {
            Some(path) if path == Path::new("-") => supervise::read_plan_from_input()?,
            Some(path) => supervise::read_plan(path)?,
            None => self.scenario.draw(self.seed, self.objects),
        };
        if self.mutant.is_some() {
            plan.mutant.clone_from(&self.mutant);
        }
        Ok(plan)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", sim::chain(&error));
            ExitCode::from(2)
        }
    }
}

fn run(task: Task) -> Result<ExitCode, Error> {
    match task {
        Task::Plan(which) => {
            say(&serde_json::to_string_pretty(&which.plan()?).expect("a plan has a form in JSON"));
            Ok(ExitCode::SUCCESS)
        }
        Task::Run(Run { which, runner, json }) => Ok(run_one(&which.plan()?, runner, json)),
        Task::Swarm(options) => supervise::swarm(&options),
        Task::Shrink(options) => supervise::shrink(&options),
    }
}

/// Whoever reads may have heard enough (`| head`): the exit code is told all the same.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn run_one(plan: &FaultPlan, runner: Runner, json: bool) -> ExitCode {
    let done = runner.run(plan);
    let code = if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match &done {
        _ if json => say(&line::written(&done)),
        Ok(outcome) => say(&serde_json::to_string(outcome).expect("an outcome has a form in JSON")),
        Err(failure) => say(&failure.to_string()),
    }
    code
}
