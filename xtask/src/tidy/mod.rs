//! The house rules that no compiler checks.
//!
//! Every rule is a pure function over a [`Tree`], so the rules are tested with planted violations.

mod arrows;
mod files;
mod links;
mod manifest;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

use crate::error::Error;
use crate::repository::Repository;
use manifest::Workspace;
use tree::Tree;

/// Checks the repository and prints what is wrong.
pub(crate) fn run(repository: &Repository) -> Result<u8, Error> {
    let report = check(&Tree::read(&repository.root)?);
    for violation in &report.violations {
        println!("{violation}");
    }
    if report.violations.is_empty() {
        println!("tidy: ok ({} checks)", report.checks);
        return Ok(0);
    }
    println!("tidy: {} of {} checks failed", report.violations.len(), report.checks);
    Ok(1)
}

fn check(tree: &Tree) -> Report {
    let mut report = Report::default();
    let workspace = Workspace::parse(tree, &mut report);
    arrows::check(&workspace, &mut report);
    manifest::check(&workspace, tree, &mut report);
    files::check(tree, &mut report);
    source::check(tree, &mut report);
    links::check(tree, &mut report);
    report
}

/// What a violation breaks; the name is what the output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// Which crate may use which crate.
    Arrows,
    /// Which crate may use which external dependency.
    External,
    /// Crates that promise no I/O or no async keep to it.
    Pure,
    /// A manifest parses and names its package.
    Manifest,
    /// Members take the workspace's lints.
    Lints,
    /// Members take external dependencies from the workspace.
    WorkspaceDependency,
    /// Each external dependency has a written reason.
    DependencyReason,
    /// The top level holds exactly what it should.
    TopLevel,
    /// Folder name = crate name.
    FolderName,
    /// No file that says nothing about its content.
    FileName,
    /// No file beyond the length limit.
    FileLength,
    /// Re-export by name.
    GlobReexport,
    /// Links in the documentation lead to files.
    Links,
}

impl Rule {
    /// How many there are.
    #[cfg(test)]
    const ALL: usize = 13;

    const fn name(self) -> &'static str {
        match self {
            Self::Arrows => "arrows",
            Self::External => "external",
            Self::Pure => "pure",
            Self::Manifest => "manifest",
            Self::Lints => "lints",
            Self::WorkspaceDependency => "workspace-dependency",
            Self::DependencyReason => "dependency-reason",
            Self::TopLevel => "top-level",
            Self::FolderName => "folder-name",
            Self::FileName => "file-name",
            Self::FileLength => "file-length",
            Self::GlobReexport => "glob-reexport",
            Self::Links => "links",
        }
    }
}

/// One broken rule in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    path: String,
    rule: Rule,
    remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path, self.rule.name(), self.remedy)
    }
}

/// What was checked and what came out.
#[derive(Debug, Default)]
struct Report {
    checks: usize,
    violations: Vec<Violation>,
}

impl Report {
    fn check(&mut self, holds: bool, path: &str, rule: Rule, remedy: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.violations.push(Violation { path: path.to_owned(), rule, remedy: remedy() });
        }
    }
}
