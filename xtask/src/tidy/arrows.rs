//! Which package may use which: arrows between our crates, and limits on what they take from outside.

use super::manifest::{Dependency, Kind, Package, Workspace};
use super::{Report, Rule};

/// What a package may use of ours.
enum Uses {
    Only(&'static [&'static str]),
    All,
}

use Uses::{All, Only};

/// The arrows; ARCHITECTURE.md says why.
const ARROWS: &[(&str, Uses)] = &[
    ("cdc-model", Only(&[])),
    ("cdc-log", Only(&["cdc-model"])),
    ("cdc-relay", Only(&["cdc-model"])),
    ("cdc-iceberg", Only(&["cdc-model"])),
    ("cdc-replay", Only(&["cdc-model"])),
    ("cdc-net", Only(&["cdc-model", "cdc-relay"])),
    ("cdc", Only(&["cdc-iceberg", "cdc-log", "cdc-model", "cdc-net", "cdc-relay", "cdc-replay"])),
    ("cdc-cli", Only(&["cdc"])),
    ("sim", All),
    ("benches", All),
    ("peers", All),
    ("fuzz", All),
    ("sqlite-3-26", Only(&[])),
    ("xtask", Only(&[])),
];

/// Packages that are programs of this repository rather than libraries for others.
const PROGRAMS: &[&str] = &["cdc-cli", "sim", "benches", "peers", "fuzz", "xtask"];

/// A limit on external dependencies; a trailing `*` stands for every name that begins so.
struct Limit {
    holds_for: fn(&str) -> bool,
    forbidden: &'static [&'static str],
    reason: &'static str,
}

const ASYNC: &[&str] = &["tokio*", "async-*", "futures*", "hyper*", "smol*"];

const LIMITS: &[Limit] = &[
    Limit {
        holds_for: |_| true,
        forbidden: &["sqlx*", "chrono", "foyer*", "figment", "iceberg-catalog-sql", "axum*"],
        reason: "is not used in this project; docs/decisions/dependencies.md says what is used in its place",
    },
    Limit {
        holds_for: |name| !PROGRAMS.contains(&name),
        forbidden: &["anyhow", "eyre", "color-eyre"],
        reason: "is not for libraries; give the crate's own error enum a variant",
    },
    Limit {
        holds_for: |name| name != "cdc-cli",
        forbidden: &["tracing-subscriber"],
        reason: "belongs to cdc-cli only; a library emits and the program subscribes",
    },
    Limit {
        holds_for: |name| matches!(name, "cdc-model" | "cdc-log" | "cdc-relay"),
        forbidden: ASYNC,
        reason: "is async; this crate is synchronous, its caller awaits",
    },
    Limit {
        holds_for: |name| {
            matches!(name, "cdc-model" | "cdc-relay" | "cdc-replay" | "cdc-net" | "cdc-iceberg")
        },
        forbidden: &["rusqlite", "libsqlite3-sys"],
        reason: "is SQLite, which belongs behind cdc-log",
    },
    Limit {
        holds_for: |name| !matches!(name, "cdc-iceberg" | "sim" | "benches" | "fuzz"),
        forbidden: &["iceberg*", "parquet*", "arrow*", "object_store"],
        reason: "belongs behind cdc-iceberg",
    },
];

/// Checks every dependency of every package.
pub(crate) fn check(workspace: &Workspace, report: &mut Report) {
    for package in &workspace.packages {
        let uses = ARROWS.iter().find(|(name, _)| *name == package.name).map(|(_, uses)| uses);
        report.check(uses.is_some(), &package.path, Rule::Arrows, || {
            format!("say what {} may use, in xtask/src/tidy/arrows.rs and ARCHITECTURE.md", package.name)
        });
        for dependency in &package.dependencies {
            if let Some(Only(allowed)) = uses {
                check_arrow(workspace, package, dependency, allowed, report);
            }
            check_limits(package, dependency, report);
        }
    }
    for name in &workspace.shared {
        let forbidden = LIMITS.first().is_some_and(|everywhere| everywhere.forbids(name));
        report
            .check(!forbidden, "Cargo.toml", Rule::External, || format!("drop {name}: it is not used here"));
    }
}

/// A program's tests may use more than the program does; a library's may not.
fn check_arrow(
    workspace: &Workspace,
    package: &Package,
    dependency: &Dependency,
    allowed: &[&str],
    report: &mut Report,
) {
    let target = dependency.package.as_str();
    let ours = workspace.packages.iter().any(|other| other.name == target);
    let free = package.name == "cdc-cli" && dependency.kind == Kind::Development;
    if ours && !free {
        report.check(allowed.contains(&target), &package.path, Rule::Arrows, || match allowed {
            [] => format!("drop {target}: {} uses no crate of the workspace", package.name),
            _ => {
                format!("drop {target}: of the workspace, {} uses only {}", package.name, allowed.join(", "))
            }
        });
    }
}

fn check_limits(package: &Package, dependency: &Dependency, report: &mut Report) {
    for limit in LIMITS.iter().filter(|limit| (limit.holds_for)(&package.name)) {
        report.check(!limit.forbids(&dependency.package), &package.path, Rule::External, || {
            format!("drop {}: it {}", dependency.package, limit.reason)
        });
    }
}

impl Limit {
    fn forbids(&self, name: &str) -> bool {
        self.forbidden.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
    }
}
