//! Workspace tasks: `cargo xtask <task>`.
//!
//! Nothing here ships. The tasks check the house rules, run what continuous integration runs, and start the
//! fuzzers, benchmarks and independent readers. This crate depends on no other crate of the workspace, so that
//! it builds while they do not.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to the person who started it")]
#![expect(clippy::disallowed_methods, reason = "a task measures its own wall time; no Env exists here")]

mod bench;
mod ci;
mod differential;
mod error;
mod fuzz;
mod hostile;
mod interop;
mod readme;
mod repository;
mod sim;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Error;
use repository::Repository;

/// Tasks of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check the house rules that no compiler checks: crate arrows, dependencies, layout, names, links.
    ///
    /// Prints one line per violation, `path: rule: what to do`, and exits 1; otherwise `tidy: ok (N checks)`.
    Tidy,
    /// Run everything that continuous integration runs, in its order, with the minutes of each step.
    ///
    /// A failing step does not stop the later ones; the summary names it and the exit code is 1.
    Ci(ci::Options),
    /// Run the fuzz targets of `fuzz/` for a while each.
    ///
    /// Uses the pinned stable toolchain with RUSTC_BOOTSTRAP=1 and installs cargo-fuzz when it is missing. New
    /// inputs are kept under the target directory; the seeds in `fuzz/corpus` are only read.
    Fuzz(fuzz::Options),
    /// Run the benchmarks and write `target/bench/report.json`; exits 4 when a bound is missed.
    Bench(bench::Options),
    /// Read a table of ours with five independent readers and compare each with our own replay.
    ///
    /// Exits 4 when a reader sees anything else than `cdc replay` prints.
    Interop(interop::Options),
    /// Kill `cdc run` at random while other programs write, then put an older copy of their database back.
    ///
    /// Afterwards the live tables, the fold of the root and DuckDB's count must agree. Exits 1 otherwise.
    Hostile(hostile::Options),
    /// Write captured databases with SQLite 3.26, the machine's and the current one, and compare tables and log.
    ///
    /// Random schemas, random SQL and changes of the schema, from foreign processes; after every transaction what the
    /// log adds up to must be what the tables hold. Exits 1 at the first difference, and prints the shortest history
    /// found that leads to it.
    Differential(differential::Options),
    /// Run the whole system in simulated worlds: real SQLite and the real engine on simulated disks, networks, clocks
    /// and stores, which fail.
    ///
    /// A seed decides a world and what befalls it; each runs in a process of its own. The first build takes some
    /// minutes. Reports go to target/sim/report.{txt,json,html}; a failure prints its story and the command that
    /// shows it again. Exits 1 when anything was found.
    #[command(after_long_help = sim::HELP)]
    Sim(sim::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<u8, Error> {
    let repository = Repository::find()?;
    match task {
        Task::Tidy => tidy::run(&repository),
        Task::Ci(options) => ci::run(&repository, &options),
        Task::Fuzz(options) => fuzz::run(&repository, &options),
        Task::Bench(options) => bench::run(&repository, &options),
        Task::Interop(options) => interop::run(&repository, &options),
        Task::Hostile(options) => hostile::run(&repository, &options),
        Task::Differential(options) => differential::run(&repository, &options),
        Task::Sim(options) => sim::run(&repository, &options),
    }
}
