//! Runs one simulated world in this process, because SQLite and its random numbers are one per process.
#![expect(clippy::print_stdout, reason = "the outcome goes to whoever started the process")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sim::{Failure, FaultPlan, Outcome};

#[derive(Debug, Parser)]
#[command(name = "sim", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Draw the plan of a seed and print it.
    Plan(Which),
    /// Run a plan and print its outcome as JSON; exits 1 with the story when a promise is broken.
    Run {
        #[command(flatten)]
        which: Which,
        /// What runs the processes of the plan.
        #[arg(long, value_enum, default_value_t = Runner::Core)]
        runner: Runner,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Runner {
    /// One event heap, and messages between processes.
    Core,
    /// A tokio runtime for each process, and HTTP between them.
    #[cfg(madsim)]
    Turmoil,
    /// A node for each process, tasks in any order, and HTTP between them.
    #[cfg(madsim)]
    Madsim,
}

impl Runner {
    fn run(self, plan: &FaultPlan) -> Result<Outcome, Box<Failure>> {
        match self {
            Self::Core => sim::core::run(plan),
            #[cfg(madsim)]
            Self::Turmoil => sim::turmoil::run(plan),
            #[cfg(madsim)]
            Self::Madsim => sim::madsim::run(plan),
        }
    }
}

#[derive(Debug, Args)]
struct Which {
    /// The seed a plan is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A stored plan, in the place of one drawn from the seed.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// So many objects.
    #[arg(long)]
    objects: Option<usize>,
    /// Plant this mutant.
    #[arg(long)]
    mutant: Option<String>,
}

impl Which {
    fn plan(&self) -> Result<FaultPlan, Box<dyn std::error::Error>> {
        let mut plan = match &self.plan {
            Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
            None => FaultPlan::draw(self.seed, self.objects),
        };
        if self.mutant.is_some() {
            plan.mutant.clone_from(&self.mutant);
        }
        Ok(plan)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    match Arguments::parse().task {
        Task::Plan(which) => println!("{}", serde_json::to_string_pretty(&which.plan()?)?),
        Task::Run { which, runner } => {
            let plan = which.plan()?;
            match runner.run(&plan) {
                Ok(outcome) => println!("{}", serde_json::to_string(&outcome)?),
                Err(failure) => {
                    println!("{failure}");
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
