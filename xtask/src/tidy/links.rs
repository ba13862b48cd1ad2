//! Links inside the documentation.

use super::tree::Tree;
use super::{Report, Rule};

/// Checks every Markdown file of the top level and of `docs/`.
pub(crate) fn check(tree: &Tree, report: &mut Report) {
    let documentation =
        |path: &str| path.ends_with(".md") && (!path.contains('/') || path.starts_with("docs/"));
    for (path, text) in tree.texts().filter(|(path, _)| documentation(path)) {
        for target in prose(text).flat_map(targets).filter(|target| is_internal(target)) {
            let resolved = resolve(path, target);
            let leads = resolved.as_ref().is_some_and(|file| tree.holds(file));
            report.check(leads, path, Rule::Links, || {
                format!("mend the link `{target}`: there is no such file in the repository")
            });
        }
    }
}

/// The lines outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The targets of `[text](target)`, `![text](target)` and `[name]: target` on a line.
fn targets(line: &str) -> Vec<&str> {
    let outside_code = line.split('`').step_by(2);
    let inline = outside_code.flat_map(|text| text.split("](").skip(1));
    let mut found: Vec<&str> = inline.filter_map(|rest| rest.split([')', ' ']).next()).collect();
    let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    found.extend(definition.and_then(|(_, target)| target.split_whitespace().next()));
    found.into_iter().map(|target| target.trim_matches(['<', '>'])).collect()
}

fn is_internal(target: &str) -> bool {
    !target.starts_with('#') && !target.contains("://") && !target.starts_with("mailto:")
}

/// The path from the root; none if the target leaves the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let target = target.split(['#', '?']).next().unwrap_or_default();
    let (folder, relative) = match target.strip_prefix('/') {
        Some(rooted) => ("", rooted),
        None => (from.rsplit_once('/').map_or("", |(folder, _)| folder), target),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(relative.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}
