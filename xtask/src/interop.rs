//! Independent readers against our own replay: DuckDB, PyIceberg, Polars, Daft and chDB.
//!
//! The readers are Python packages pinned in `xtask/interop/requirements.txt`; they live in a virtual
//! environment under the target directory. `xtask/interop/run.py` makes the project and compares.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Error;
use crate::repository::{self, Repository};

const SCRIPTS: &str = "xtask/interop";

/// Which readers, and over what.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these readers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Check the comparison itself, over a table that PyIceberg writes: each reader must agree with it, and
    /// each planted difference must be found. Needs no `cdc` binary.
    #[arg(long)]
    self_test: bool,
}

impl Options {
    /// What continuous integration runs.
    pub(crate) const fn everything() -> Self {
        Self {
            only: Vec::new(),
            self_test: false,
        }
    }
}

/// Sets the readers up, builds the binary and compares.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let home = repository.target.join("interop");
    let python = readers(repository, &home)?;
    let work = home.join("work");
    repository::empty_folder(&work)?;
    let mut compare = repository.command(python);
    compare
        .arg(Path::new(SCRIPTS).join("run.py"))
        .arg("--work")
        .arg(&work);
    if options.self_test {
        compare.arg("--self-test");
    } else {
        compare.arg("--cdc").arg(binary(repository)?);
    }
    if !options.only.is_empty() {
        compare.arg("--only").arg(options.only.join(","));
    }
    repository::code(&mut compare)
}

/// The interpreter of an environment that holds exactly the pinned readers.
fn readers(repository: &Repository, home: &Path) -> Result<PathBuf, Error> {
    let environment = home.join("venv");
    let python = environment.join("bin/python");
    let requirements = repository.read(&format!("{SCRIPTS}/requirements.txt"))?;
    let installed = environment.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    repository::empty_folder(&environment)?;
    repository::succeed(
        repository
            .command("python3")
            .args(["-m", "venv"])
            .arg(&environment),
    )?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ];
    let pinned = Path::new(SCRIPTS).join("requirements.txt");
    repository::succeed(repository.command(&python).args(pip).arg(pinned))?;
    std::fs::write(&installed, requirements).map_err(|source| Error::File {
        path: installed.clone(),
        source,
    })?;
    Ok(python)
}

fn binary(repository: &Repository) -> Result<PathBuf, Error> {
    repository::succeed(&mut repository.cargo(["build", "--package", "cdc-cli", "--bin", "cdc"]))?;
    Ok(repository.target.join("debug").join("cdc"))
}
