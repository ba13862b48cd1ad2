//! The benchmark report: a launcher, because the benchmarks live in `benches/`.

use clap::Args;

use crate::error::Error;
use crate::repository::{self, Repository};

/// What to pass on.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measure thousands of objects in one process, and nothing else.
    #[arg(long)]
    density: bool,
    /// Arguments of the report program, after `--`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the report program; its exit code is ours.
///
/// It prints one line per measurement, `name value unit baseline ratio bound ok|short`.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    repository::make_folder(&repository.target.join("bench"))?;
    let report = ["run", "--release", "--package", "benches", "--bin", "report", "--"];
    let density = options.density.then_some("--density");
    repository::code(repository.cargo(report).args(density).args(&options.arguments))
}
