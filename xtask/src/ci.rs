//! Everything that continuous integration runs, step by step.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::error::{self, Error};
use crate::repository::{self, Repository};
use crate::{fuzz, hostile, interop, readme, sim, tidy};

/// Seconds of each fuzz target; a longer search is `cargo xtask fuzz --seconds N`.
const FUZZ_SECONDS: u32 = 30;

/// One step, in the order in which they run: what fails soonest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// `cargo fmt --check`, also of `fuzz/` and `benches/peers`.
    Fmt,
    /// `cargo xtask tidy`.
    Tidy,
    /// Clippy over every target, warnings denied.
    Clippy,
    /// The documentation, warnings denied.
    Doc,
    /// The test command that the README shows.
    Test,
    /// `cargo xtask sim` with some seeds twice, all stored plans, fixed seeds and a third of the mutants.
    Sim,
    /// The demo command that the README shows, in a folder of its own.
    Demo,
    /// `cargo xtask interop`.
    Interop,
    /// `cargo xtask hostile`, with fewer kills.
    Hostile,
    /// `cargo xtask fuzz --seconds 30`.
    Fuzz,
}

/// Which steps.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these steps.
    #[arg(long, value_delimiter = ',', value_name = "STEPS")]
    only: Vec<Step>,
    /// All but these steps.
    #[arg(long, value_delimiter = ',', value_name = "STEPS")]
    skip: Vec<Step>,
}

impl Options {
    fn wants(&self, step: Step) -> bool {
        (self.only.is_empty() || self.only.contains(&step)) && !self.skip.contains(&step)
    }
}

struct Ran {
    step: Step,
    took: Duration,
    passed: bool,
}

/// Runs the chosen steps, all of them even when one fails, and prints the summary.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let chosen: Vec<Step> =
        Step::value_variants().iter().copied().filter(|step| options.wants(*step)).collect();
    if chosen.is_empty() {
        return Err(Error::Request { what: "--only and --skip leave no step".to_owned() });
    }
    let ran: Vec<Ran> = chosen.into_iter().map(|step| run_step(repository, step)).collect();
    println!("\n== summary");
    for Ran { step, took, passed } in &ran {
        println!("{:<8} {:>5} min  {}", name(*step), minutes(*took), if *passed { "ok" } else { "FAILED" });
    }
    println!("{:<8} {:>5} min", "total", minutes(ran.iter().map(|ran| ran.took).sum()));
    Ok(u8::from(ran.iter().any(|ran| !ran.passed)))
}

fn run_step(repository: &Repository, step: Step) -> Ran {
    println!("\n== {}", name(step));
    let began = Instant::now();
    let passed = match carry_out(repository, step) {
        Ok(code) => code == 0,
        Err(error) => {
            println!("{}: {}", name(step), error::chain(&error));
            false
        }
    };
    let took = began.elapsed();
    println!("== {}: {} in {} min", name(step), if passed { "ok" } else { "FAILED" }, minutes(took));
    Ran { step, took, passed }
}

fn carry_out(repository: &Repository, step: Step) -> Result<u8, Error> {
    match step {
        Step::Fmt => format(repository),
        Step::Tidy => tidy::run(repository),
        Step::Clippy => {
            let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            repository::code(&mut repository.cargo(clippy))
        }
        Step::Doc => {
            let doc = ["doc", "--workspace", "--no-deps"];
            repository::code(repository.cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))
        }
        Step::Test => {
            let commands = readme::command(&repository.read("README.md")?, "test-command")?;
            repository::code(&mut shell(repository, &commands))
        }
        Step::Sim => sim::run(repository, &sim::Options::short()),
        Step::Demo => demo(repository),
        Step::Interop => interop::run(repository, &interop::Options::everything()),
        Step::Hostile => hostile::run(repository, &hostile::Options::short()),
        Step::Fuzz => fuzz::run(repository, &fuzz::Options { seconds: FUZZ_SECONDS, target: None }),
    }
}

fn format(repository: &Repository) -> Result<u8, Error> {
    let mut worst = repository::code(&mut repository.cargo(["fmt", "--all", "--check"]))?;
    for apart in ["fuzz/Cargo.toml", "benches/peers/Cargo.toml"] {
        let check = ["fmt", "--manifest-path", apart, "--check"];
        worst = worst.max(repository::code(&mut repository.cargo(check))?);
    }
    Ok(worst)
}

fn demo(repository: &Repository) -> Result<u8, Error> {
    let commands = readme::command(&repository.read("README.md")?, "demo-command")?;
    let folder = repository.target.join("ci").join("demo");
    repository::empty_folder(&folder)?;
    let commands = readme::in_folder(&commands, &repository::quoted(&folder.to_string_lossy()));
    repository::code(&mut shell(repository, &commands))
}

/// The first failing line ends it, in a pipe too.
fn shell(repository: &Repository, commands: &[String]) -> Command {
    let mut bash = repository.command("bash");
    bash.args(["-euo", "pipefail", "-c"]).arg(commands.join("\n"));
    bash
}

fn name(step: Step) -> String {
    step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn minutes(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() / 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_and_skip_choose_steps_in_their_order() {
        let chosen = |only: &[Step], skip: &[Step]| -> Vec<Step> {
            let options = Options { only: only.to_vec(), skip: skip.to_vec() };
            Step::value_variants().iter().copied().filter(|step| options.wants(*step)).collect()
        };
        assert_eq!(chosen(&[], &[]), Step::value_variants());
        assert_eq!(chosen(&[Step::Doc, Step::Fmt], &[]), [Step::Fmt, Step::Doc]);
        assert_eq!(chosen(&[Step::Doc, Step::Fmt], &[Step::Fmt]), [Step::Doc]);
    }
}
