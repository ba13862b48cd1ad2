//! The repository as a value: paths and texts.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::repository;

/// Every file that git tracks or would add, by its path from the root with `/` between folders.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

#[derive(Debug, Clone)]
struct File {
    /// Absent when the file is not text.
    text: Option<String>,
    tracked: bool,
}

impl Tree {
    /// Reads a checkout; files that are deleted but not yet committed so are left out.
    pub(crate) fn read(root: &Path) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        for (selection, tracked) in
            [(&["--cached"][..], true), (&["--others", "--exclude-standard"][..], false)]
        {
            let mut list = Command::new("git");
            list.current_dir(root).args(["ls-files", "-z"]).args(selection);
            for path in repository::output(&mut list)?.split_terminator('\0') {
                let full = root.join(path);
                if full.is_file() {
                    let bytes = std::fs::read(&full).map_err(|source| Error::File { path: full, source })?;
                    files.insert(path.to_owned(), File { text: String::from_utf8(bytes).ok(), tracked });
                }
            }
        }
        Ok(Self { files })
    }

    /// Adds or replaces a tracked file.
    #[cfg(test)]
    pub(crate) fn put(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), File { text: Some(text.to_owned()), tracked: true });
    }

    /// Adds a file that git does not track.
    #[cfg(test)]
    pub(crate) fn put_untracked(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), File { text: Some(text.to_owned()), tracked: false });
    }

    /// Takes a file out.
    #[cfg(test)]
    pub(crate) fn take(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// The text of a file; none if there is no such file or it is not text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// Every file that is text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    /// Every file, with whether git tracks it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = (&str, bool)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file.tracked))
    }

    /// Whether there is such a file, or a folder that holds one; the empty path is the root.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        let inside = || self.files.range(folder.clone()..).next();
        path.is_empty()
            || self.files.contains_key(path)
            || inside().is_some_and(|(found, _)| found.starts_with(&folder))
    }
}
