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
    /// Only check the comparison itself, over a table that PyIceberg writes: each reader must agree with it,
    /// and each planted difference must be found. Needs no `cdc` binary; a full run begins with it.
    #[arg(long)]
    self_test: bool,
}

impl Options {
    /// What continuous integration runs.
    pub(crate) const fn everything() -> Self {
        Self { only: Vec::new(), self_test: false }
    }
}

/// Sets the readers up, builds the binary and compares.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let home = repository.target.join("interop");
    let python = readers(repository, &home)?;
    let code = compare(repository, &python, &home.join("self-test"), options, None)?;
    if code != 0 || options.self_test {
        return Ok(code);
    }
    let binary = binary(repository)?;
    compare(repository, &python, &home.join("work"), options, Some(&binary))
}

/// Compares over a project that `binary` makes; without one, checks the comparison itself.
fn compare(
    repository: &Repository,
    python: &Path,
    work: &Path,
    options: &Options,
    binary: Option<&Path>,
) -> Result<u8, Error> {
    repository::empty_folder(work)?;
    let mut compare = repository.command(python);
    compare.arg(Path::new(SCRIPTS).join("run.py")).arg("--work").arg(work);
    match binary {
        Some(binary) => compare.arg("--cdc").arg(binary),
        None => compare.arg("--self-test"),
    };
    if !options.only.is_empty() {
        compare.arg("--only").arg(options.only.join(","));
    }
    // Python would leave its byte code beside the scripts.
    repository::code(compare.env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// The interpreter of an environment that holds exactly the pinned readers.
pub(crate) fn readers(repository: &Repository, home: &Path) -> Result<PathBuf, Error> {
    let environment = home.join("venv");
    let python = environment.join("bin/python");
    let requirements = repository.read(&format!("{SCRIPTS}/requirements.txt"))?;
    let installed = environment.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    repository::empty_folder(&environment)?;
    repository::succeed(repository.command("python3").args(["-m", "venv"]).arg(&environment))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    let pinned = Path::new(SCRIPTS).join("requirements.txt");
    repository::succeed(repository.command(&python).args(pip).arg(pinned))?;
    std::fs::write(&installed, requirements)
        .map_err(|source| Error::File { path: installed.clone(), source })?;
    Ok(python)
}

/// The `cdc` binary, built.
pub(crate) fn binary(repository: &Repository) -> Result<PathBuf, Error> {
    repository::succeed(&mut repository.cargo(["build", "--package", "cdc-cli", "--bin", "cdc"]))?;
    Ok(repository.target.join("debug").join("cdc"))
}
