//! The differential test of capture, for long: a launcher, because the test lives in `crates/cdc-log/tests`.

use std::path::PathBuf;

use clap::Args;

use crate::error::Error;
use crate::repository::{self, Repository};

/// The package whose only dependency brings the sources of the oldest SQLite that is promised.
const OLD_SQLITE: &str = "crates/cdc-log/tests/foreign/sqlite-3.26";

/// The folder of its sources in the dependency.
const OLD_SQLITE_SOURCES: &str = "sqlite3";

/// How long, and with which writers.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Statements to run; the worlds that are under way then are finished.
    #[arg(long, default_value_t = 200_000)]
    statements: u64,
    /// The seed of the first world.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The foreign SQLites: 3.26, the machine's own library (system), the one the workspace is built with (current).
    #[arg(long, default_value = "3.26,system,current", value_name = "KINDS")]
    writers: String,
    /// Worlds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
}

/// Builds the test and has it run; exits 1 when anything differed.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let mut commit = repository.command("git");
    println!("commit        {}", repository::output(commit.args(["rev-parse", "HEAD"]))?.trim());
    let test = ["test", "--profile", "sim", "--package", "cdc-log", "--test", "it", "--"];
    let mut differential = repository.cargo(test);
    differential.args(["differential::for_long", "--exact", "--ignored", "--nocapture"]);
    differential.env("CDC_STATEMENTS", options.statements.to_string());
    differential.env("CDC_SEED", options.seed.to_string());
    differential.env("CDC_WRITERS", &options.writers);
    differential.env("CDC_JOBS", options.jobs.to_string());
    if options.writers.split(',').any(|kind| kind == "3.26") {
        differential.env("CDC_SQLITE_3_26", old_sqlite(repository)?);
    }
    Ok(u8::from(repository::code(&mut differential)? != 0))
}

/// Has cargo fetch the sources, and asks it where they are.
fn old_sqlite(repository: &Repository) -> Result<PathBuf, Error> {
    let manifest = format!("{OLD_SQLITE}/Cargo.toml");
    let mut metadata = repository.cargo(["metadata", "--locked", "--format-version", "1"]);
    let printed = repository::output(metadata.args(["--manifest-path", &manifest]))?;
    let packages: serde_json::Value = serde_json::from_str(&printed).unwrap_or_default();
    let packages = packages.get("packages").and_then(serde_json::Value::as_array);
    let manifest = packages.into_iter().flatten().find_map(|package| {
        let is_it = package.get("name")?.as_str()? == "libsqlite3-sys";
        package.get("manifest_path")?.as_str().filter(|_| is_it)
    });
    let folder =
        manifest.and_then(|manifest| Some(PathBuf::from(manifest).parent()?.join(OLD_SQLITE_SOURCES)));
    folder.ok_or_else(|| Error::Answer {
        command: format!("cargo metadata --manifest-path {OLD_SQLITE}/Cargo.toml"),
        what: "no libsqlite3-sys".to_owned(),
    })
}
