//! Where files lie, what they are called and how long they get.

use std::collections::BTreeSet;

use super::tree::Tree;
use super::{Report, Rule};

/// A file has fewer lines than this; past it, it holds two things.
const LINES_MAX: usize = 800;

/// What a newcomer finds first, and nothing else; beside it dotfiles and the settings of tools.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "crates",
    "docs",
    "fuzz",
    "sim",
    "xtask",
];
const TOOL_SETTINGS: &[&str] = &["clippy.toml", "deny.toml", "rust-toolchain.toml", "rustfmt.toml"];

/// Names that say nothing about what is inside.
const VAGUE: &[&str] = &["common", "helpers", "prelude", "utils"];

/// Checks the whole tree.
pub(crate) fn check(tree: &Tree, report: &mut Report) {
    check_top_level(tree, report);
    for (path, _) in tree.paths().filter(|(path, _)| path.ends_with(".rs")) {
        let stem = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")).unwrap_or(path);
        let name = stem.rsplit('/').next().unwrap_or(stem);
        report.check(!VAGUE.contains(&name), path, Rule::FileName, || {
            format!("name it after what it holds; `{name}` says nothing")
        });
    }
    for (path, text) in tree.texts().filter(|(path, _)| written_by_hand(path)) {
        let lines = text.lines().count();
        report.check(lines < LINES_MAX, path, Rule::FileLength, || {
            format!("split it by subject: {lines} lines, and a file has fewer than {LINES_MAX}")
        });
    }
}

fn check_top_level(tree: &Tree, report: &mut Report) {
    for name in TOP_LEVEL {
        report.check(tree.holds(name), name, Rule::TopLevel, || "add it: the top level has one".to_owned());
    }
    let tracked = tree.paths().filter(|(_, tracked)| *tracked);
    let names: BTreeSet<&str> = tracked.filter_map(|(path, _)| path.split('/').next()).collect();
    for name in names {
        let known = name.starts_with('.') || TOP_LEVEL.contains(&name) || TOOL_SETTINGS.contains(&name);
        report.check(known, name, Rule::TopLevel, || {
            "move it into the folder of what it belongs to; the top level stays as it is".to_owned()
        });
    }
}

/// Data and what tools write may be long.
fn written_by_hand(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let data = ["csv", "json", "lock", "ndjson", "proptest-regressions", "snap", "svg", "txt"];
    !data.contains(&extension) && !path.starts_with("fuzz/corpus/")
}
