//! Manifests: what they say, and the rules about how they say it.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::tree::Tree;
use super::{Report, Rule};

/// The file that gives each external dependency its reason.
const REASONS: &str = "docs/decisions/dependencies.md";
const ROOT: &str = "Cargo.toml";

/// For whom a dependency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The package itself or its build script.
    Shipped,
    /// Its tests and examples.
    Development,
}

/// One line of a manifest's dependency tables.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) kind: Kind,
    /// The package's name in its registry or workspace, whatever the manifest calls it.
    pub(crate) package: String,
    inherited: bool,
}

/// One package of the repository.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    /// Whether the workspace counts it as its own; `fuzz` is a workspace of its own.
    member: bool,
    lints: bool,
}

/// Every package, and what the root manifest shares.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    /// External packages of `[workspace.dependencies]`.
    pub(crate) shared: BTreeSet<String>,
}

impl Workspace {
    /// Reads every manifest of the tree; one that cannot be read is reported and left out.
    pub(crate) fn parse(tree: &Tree, report: &mut Report) -> Self {
        let root = parse(tree.text(ROOT).unwrap_or_default(), ROOT, report).unwrap_or_default();
        let workspace = table(&root, "workspace").cloned().unwrap_or_default();
        let dependencies = table(&workspace, "dependencies").cloned().unwrap_or_default();
        let renamed: BTreeMap<&str, &str> =
            dependencies.iter().map(|(key, value)| (key.as_str(), package_name(key, value))).collect();
        let external = dependencies.iter().filter(|(_, value)| value.get("path").is_none());
        let shared = external.map(|(key, value)| package_name(key, value).to_owned()).collect();
        let excluded = strings(workspace.get("exclude"));
        let manifests = tree.texts().filter(|(path, _)| path.ends_with("/Cargo.toml"));
        let packages = manifests
            .filter_map(|(path, text)| {
                let folder = path.strip_suffix("/Cargo.toml")?;
                let mut package = Package::read(path, &parse(text, path, report)?, &renamed, report)?;
                package.member = !excluded.contains(&folder);
                Some(package)
            })
            .collect();
        Self { packages, shared }
    }
}

impl Package {
    fn read(path: &str, text: &Table, renamed: &BTreeMap<&str, &str>, report: &mut Report) -> Option<Self> {
        let name = table(text, "package").and_then(|package| package.get("name")).and_then(Value::as_str);
        report.check(name.is_some(), path, Rule::Manifest, || "give the package a name".to_owned());
        let targets = table(text, "target").into_iter().flat_map(|targets| targets.values());
        let scopes = std::iter::once(text).chain(targets.filter_map(Value::as_table));
        let dependencies = scopes.flat_map(|scope| dependencies(scope, renamed)).collect();
        let lints = table(text, "lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        Some(Self {
            path: path.to_owned(),
            name: name?.to_owned(),
            dependencies,
            member: true,
            lints: lints == Some(true),
        })
    }
}

/// Checks lints, inherited versions, written reasons and folder names.
pub(crate) fn check(workspace: &Workspace, tree: &Tree, report: &mut Report) {
    let own: BTreeSet<&str> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    for package in workspace.packages.iter().filter(|package| package.member) {
        report.check(package.lints, &package.path, Rule::Lints, || {
            "add `[lints] workspace = true`; the workspace's lints reach no package without it".to_owned()
        });
        for dependency in package.dependencies.iter().filter(|one| !own.contains(one.package.as_str())) {
            report.check(dependency.inherited, &package.path, Rule::WorkspaceDependency, || {
                let name = &dependency.package;
                format!("write `{name}.workspace = true` and keep its version in the root Cargo.toml")
            });
        }
        if let Some(folder) = package.path.strip_prefix("crates/") {
            report.check(
                folder == format!("{}/Cargo.toml", package.name),
                &package.path,
                Rule::FolderName,
                || format!("name the folder as the crate: crates/{}", package.name),
            );
        }
    }
    check_reasons(workspace, &own, tree, report);
}

/// A reason is a table row `| name | reason |`.
fn check_reasons(workspace: &Workspace, own: &BTreeSet<&str>, tree: &Tree, report: &mut Report) {
    let apart = workspace.packages.iter().filter(|package| !package.member);
    let apart = apart.flat_map(|package| &package.dependencies).map(|one| one.package.as_str());
    let used: BTreeSet<&str> = workspace.shared.iter().map(String::as_str).chain(apart).collect();
    let rows = tree.text(REASONS).unwrap_or_default().lines().filter_map(reason_row);
    let given: BTreeSet<&str> = rows.collect();
    for name in used.iter().filter(|name| !own.contains(*name)) {
        report.check(given.contains(name), REASONS, Rule::DependencyReason, || {
            format!("add a row `| {name} | why it earns its place |`, or drop the dependency")
        });
    }
    for name in &given {
        report.check(used.contains(name), REASONS, Rule::DependencyReason, || {
            format!("take the row of `{name}` out: nothing depends on it")
        });
    }
}

fn reason_row(line: &str) -> Option<&str> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let (name, reason) = (cells.next()?.trim_matches('`'), cells.next()?);
    let heading = name == "name" || name.starts_with('-');
    (!heading && !name.is_empty() && !reason.is_empty()).then_some(name)
}

fn dependencies<'a>(
    scope: &'a Table,
    renamed: &'a BTreeMap<&str, &str>,
) -> impl Iterator<Item = Dependency> + use<'a> {
    let tables = [
        ("dependencies", Kind::Shipped),
        ("build-dependencies", Kind::Shipped),
        ("dev-dependencies", Kind::Development),
    ];
    tables.into_iter().flat_map(move |(name, kind)| {
        table(scope, name).into_iter().flatten().map(move |(key, value)| {
            let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
            let shared = renamed.get(key.as_str()).copied().filter(|_| inherited);
            let package = shared.unwrap_or_else(|| package_name(key, value)).to_owned();
            Dependency { kind, package, inherited }
        })
    })
}

fn package_name<'a>(key: &'a str, value: &'a Value) -> &'a str {
    value.get("package").and_then(Value::as_str).unwrap_or(key)
}

fn parse(text: &str, path: &str, report: &mut Report) -> Option<Table> {
    let parsed = text.parse::<Table>();
    report.check(parsed.is_ok(), path, Rule::Manifest, || "write it as TOML that cargo can read".to_owned());
    parsed.ok()
}

fn table<'a>(parent: &'a Table, key: &str) -> Option<&'a Table> {
    parent.get(key)?.as_table()
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}
