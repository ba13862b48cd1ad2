//! The fuzz targets of `fuzz/`, each for a given time.

use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::error::Error;
use crate::repository::{self, Repository};

const MANIFEST: &str = "fuzz/Cargo.toml";

/// How long, and which targets.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u32,
    /// Only this target.
    #[arg(long)]
    pub(crate) target: Option<String>,
}

/// Runs the targets one after the other and stops at the first that fails.
pub(crate) fn run(repository: &Repository, options: &Options) -> Result<u8, Error> {
    let all = targets(&repository.read(MANIFEST)?)?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| options.target.as_ref().is_none_or(|only| only == *name)).collect();
    if chosen.is_empty() {
        return Err(Error::Request {
            what: format!("there is no such fuzz target; there are: {}", all.join(", ")),
        });
    }
    install(repository)?;
    for target in chosen {
        let code = run_target(repository, target, options.seconds)?;
        if code != 0 {
            println!("fuzz: {target}: failed; the input is under fuzz/artifacts/{target}, keep it as a seed");
            return Ok(code);
        }
        println!("fuzz: {target}: ok ({} s)", options.seconds);
    }
    Ok(0)
}

fn targets(manifest: &str) -> Result<Vec<String>, Error> {
    let wrong = |what: String| Error::Content { path: MANIFEST.to_owned(), what };
    let manifest: toml::Table =
        manifest.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let bins = manifest.get("bin").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = bins.iter().filter_map(|bin| bin.get("name")?.as_str()).map(str::to_owned);
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        Err(wrong("name at least one target in a [[bin]] table".to_owned()))
    } else {
        Ok(names)
    }
}

fn install(repository: &Repository) -> Result<(), Error> {
    if repository::works(&mut repository.cargo(["fuzz", "--version"])) {
        return Ok(());
    }
    println!("fuzz: cargo-fuzz is missing; installing it");
    // Its build is none of the workspace's: it stays out of the target directory that the caller chose.
    repository::succeed(
        repository.cargo(["install", "cargo-fuzz", "--locked"]).env_remove("CARGO_TARGET_DIR"),
    )
}

/// libFuzzer writes what it finds into the first corpus folder it is given and only reads the others.
fn run_target(repository: &Repository, target: &str, seconds: u32) -> Result<u8, Error> {
    let build = repository.target.join("fuzz");
    let found = build.join("corpus").join(target);
    let seeds = Path::new("fuzz/corpus").join(target);
    repository::make_folder(&found)?;
    repository::make_folder(&repository.root.join(&seeds))?;
    // Built apart, so that a target that does not compile is not taken for one that found something.
    repository::succeed(cargo_fuzz(repository, "build", &build).arg(target))?;
    let mut fuzz = cargo_fuzz(repository, "run", &build);
    fuzz.arg(target).arg(&found).arg(&seeds).arg("--");
    let dictionary = format!("fuzz/dictionaries/{target}.dict");
    if repository.root.join(&dictionary).is_file() {
        fuzz.arg(format!("-dict={dictionary}"));
    }
    fuzz.arg(format!("-max_total_time={seconds}")).args(["-print_final_stats=1", "-verbosity=0"]);
    repository::code(&mut fuzz)
}

/// The sanitizer flags are unstable; the variable lets the pinned compiler take them.
fn cargo_fuzz(repository: &Repository, verb: &str, build: &Path) -> Command {
    let mut command = repository.cargo(["fuzz", verb, "--fuzz-dir", "fuzz", "--target-dir"]);
    command.arg(build).env("RUSTC_BOOTSTRAP", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_binaries_of_the_manifest() {
        let manifest = "[package]\nname = 'f'\n[[bin]]\nname = 'a'\n[[bin]]\nname = 'b'\n";
        assert_eq!(targets(manifest).expect("two targets"), ["a", "b"]);
        targets("[package]\nname = 'f'\n").expect_err("no target");
    }
}
