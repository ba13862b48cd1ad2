//! Plans in files.

use std::io::Read;
use std::path::{Path, PathBuf};

use sim::FaultPlan;

use super::Error;

/// The plan in a file.
pub(crate) fn read_plan(path: &Path) -> Result<FaultPlan, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Plan { path: path.to_owned(), source })
}

/// The plan that comes in on standard input.
pub(crate) fn read_plan_from_input() -> Result<FaultPlan, Error> {
    let path = PathBuf::from("standard input");
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => serde_json::from_slice(&bytes).map_err(|source| Error::Plan { path, source }),
        Err(source) => Err(Error::File { path, source }),
    }
}

/// The plans of a folder in the order of their names, or the one plan of a file.
pub(super) fn read_plans(path: &Path) -> Result<Vec<(PathBuf, FaultPlan)>, Error> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let all = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
        paths = all.map_err(failed)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
    }
    paths.into_iter().map(|path| read_plan(&path).map(|plan| (path, plan))).collect()
}

/// Keeps a plan.
pub(super) fn write_plan(folder: &Path, name: &str, plan: &FaultPlan) -> Result<PathBuf, Error> {
    let path = folder.join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(plan).expect("a plan has a form in JSON");
    text.push('\n');
    write_file(&path, &text)?;
    Ok(path)
}

/// Writes a file and makes the folders above it.
pub(super) fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
    std::fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}
