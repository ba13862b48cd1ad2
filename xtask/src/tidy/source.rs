//! What Rust sources say.

use super::tree::Tree;
use super::{Report, Rule};

/// What crates without I/O do not mention.
const IO: &[&str] = &["std::fs", "std::net", "std::process", "std::thread", "std::env"];
/// What synchronous crates do not mention.
const AWAITING: &[&str] = &["async fn", "async move", "async {", ".await", "std::future"];

/// Folders of sources that keep from something, and what.
const PURE: &[(&str, &[&str], &str)] = &[
    ("crates/cdc-model/src/", IO, "this crate does no I/O; take the value as an argument"),
    ("crates/cdc-relay/src/", IO, "this crate does no I/O; return an effect and let the driver act"),
    ("crates/cdc-model/src/", AWAITING, "this crate is synchronous; only drivers await"),
    ("crates/cdc-relay/src/", AWAITING, "this crate is synchronous; only drivers await"),
    ("crates/cdc-log/src/", AWAITING, "this crate is synchronous; only drivers await"),
];

/// Checks every Rust file.
pub(crate) fn check(tree: &Tree, report: &mut Report) {
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".rs")) {
        let globs: Vec<String> = reexports(text).filter(|item| item.contains('*')).collect();
        report.check(globs.is_empty(), path, Rule::GlobReexport, || {
            format!("re-export by name, not `{}`", globs.join(" "))
        });
        for (_, words, remedy) in PURE.iter().filter(|(folder, _, _)| path.starts_with(folder)) {
            let found = shipped(path, text).find_map(|(number, line)| {
                words.iter().find(|word| line.contains(**word)).map(|word| (number, *word))
            });
            report.check(found.is_none(), path, Rule::Pure, || {
                let (line, word) = found.unwrap_or_default();
                format!("take `{word}` out of line {line}: {remedy}")
            });
        }
    }
}

/// The items `pub use …;`, each on one line.
fn reexports(text: &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        let mut item = lines.find(|line| is_reexport(line))?.to_owned();
        while !item.contains(';') {
            item.push_str(lines.next()?);
        }
        Some(item)
    })
}

fn is_reexport(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub") else {
        return false;
    };
    let rest = match rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
        Some((_, after)) => after,
        None => rest,
    };
    rest.starts_with(" use ")
}

/// The numbered lines that are neither comment nor test.
fn shipped<'a>(path: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let test_file = path.ends_with("/tests.rs") || path.contains("/tests/");
    let all = text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line));
    let before_tests = all.take_while(move |(_, line)| !test_file && !line.starts_with("mod tests {"));
    before_tests.filter(|(_, line)| !line.starts_with("//"))
}
