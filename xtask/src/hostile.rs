//! Kills and restores against the binary, with other programs writing: `xtask/hostile/run.py`.

use clap::Args;

use crate::error::Error;
use crate::interop;
use crate::repository::{self, Repository};

/// How hostile.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// SIGKILLs of `cdc run` while Python and the sqlite3 shell write.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Makes the run's random choices those of an earlier one.
    #[arg(long)]
    seed: Option<u64>,
}

impl Options {
    /// What continuous integration runs.
    pub(crate) const fn short() -> Self {
        Self { kills: 8, seed: None }
    }
}

/// Builds the binary and attacks it.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let python = interop::readers(repository, &repository.target.join("interop"))?;
    let binary = interop::binary(repository)?;
    let work = repository.target.join("hostile");
    repository::empty_folder(&work)?;
    let mut attack = repository.command(&python);
    attack.args(["xtask/hostile/run.py", "--kills", &options.kills.to_string()]);
    attack.arg("--cdc").arg(binary).arg("--work").arg(work);
    if let Some(seed) = options.seed {
        attack.args(["--seed", &seed.to_string()]);
    }
    repository::code(attack.env("PYTHONDONTWRITEBYTECODE", "1"))
}
