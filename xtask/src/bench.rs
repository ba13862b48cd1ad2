//! The benchmark report, and the comparison with other systems: a launcher, because both live in `benches/`.

use clap::Args;

use crate::error::Error;
use crate::repository::{self, Repository};

/// The comparison is no member of the workspace, so that what it compares with is in nobody's build.
const PEERS: &str = "benches/peers/Cargo.toml";

/// What to run and to pass on.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Put the same events through other systems in the place of the report: Redis, NATS, PostgreSQL, Turso, fjall, redb.
    ///
    /// Servers are started on loopback in a temporary folder and stopped again. What is missing is named with the
    /// package that brings it; `-- --embedded` does without servers.
    #[arg(long)]
    peers: bool,
    /// Writes of one object with 1, 8, 64 and 512 of them in flight, in the place of the report.
    #[arg(long, conflicts_with_all = ["peers", "density"])]
    group: bool,
    /// Measure thousands of objects in one process, and nothing else.
    #[arg(long)]
    density: bool,
    /// Arguments of the program, after `--`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the program; its exit code is ours.
///
/// It prints one line per measurement, `name value unit baseline ratio bound ok|short`.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let peers = ["--locked", "--manifest-path", PEERS];
    repository::make_folder(&repository.target.join("bench"))?;
    let mut program = repository.cargo(["run", "--release"]);
    if options.peers {
        // The workspace's own folder: what both use is built once.
        program.args(peers).arg("--target-dir").arg(&repository.target);
    } else {
        program.args(["--package", "benches", "--bin", if options.group { "group" } else { "report" }]);
    }
    let density = options.density.then_some("--density");
    repository::code(program.arg("--").args(density).args(&options.arguments))
}
