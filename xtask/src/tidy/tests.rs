//! Each rule, with a violation planted in a tree that is otherwise clean.

use std::collections::BTreeSet;

use super::tree::Tree;
use super::{Rule, check};

const ROOT: &str = "[workspace]
members = ['crates/*', 'sim', 'xtask']
exclude = ['fuzz']
[workspace.dependencies]
cdc = { path = 'crates/cdc' }
cdc-log = { path = 'crates/cdc-log' }
cdc-model = { path = 'crates/cdc-model' }
anyhow = '1'
arrow-array = '58'
rusqlite = '0.41'
serde = '1'
sqlite = { package = 'libsqlite3-sys', version = '0.30' }
tokio = '1'
tracing-subscriber = '0.3'
";

const REASONS: &str = "# Dependencies
| name | reason |
| --- | --- |
| `anyhow` | x |
| arrow-array | x |
| rusqlite | x |
| serde | x |
| libsqlite3-sys | x |
| tokio | x |
| tracing-subscriber | x |
| libfuzzer-sys | x |
";

fn manifest(name: &str, tables: &str) -> String {
    format!("[package]\nname = '{name}'\n[lints]\nworkspace = true\n{tables}")
}

fn clean() -> Tree {
    let mut tree = Tree::default();
    tree.put("Cargo.toml", ROOT);
    for path in
        ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"]
    {
        tree.put(path, "text\n");
    }
    tree.put(
        "README.md",
        "[a](docs/decisions/README.md#x) [b](https://x.test/y) [c](#d) `[e](f)`\n```\n[g](h)\n```\n",
    );
    tree.put(
        "docs/decisions/README.md",
        "[up](../../README.md), [here](.), [file](dependencies.md \"title\")\n[r]: ./\n",
    );
    tree.put("docs/decisions/dependencies.md", REASONS);
    tree.put("clippy.toml", "");
    tree.put(".ci/run", "");
    tree.put_untracked("notes.txt", "mine");
    tree.put("benches/Cargo.toml", &manifest("benches", "[dependencies]\ncdc-log.workspace = true\n"));
    tree.put("sim/Cargo.toml", &manifest("sim", "[dependencies]\ncdc.workspace = true\n"));
    tree.put("xtask/Cargo.toml", &manifest("xtask", "[dependencies]\nanyhow.workspace = true\n"));
    tree.put(
        "fuzz/Cargo.toml",
        "[package]\nname = 'fuzz'\n[dependencies]\nlibfuzzer-sys = '0.4'\ncdc-model.path = 'x'\n",
    );
    tree.put(
        "crates/cdc/Cargo.toml",
        &manifest("cdc", "[dependencies]\ncdc-log.workspace = true\ntokio.workspace = true\n"),
    );
    tree.put("crates/cdc-cli/Cargo.toml", &manifest("cdc-cli", "[dependencies]\ncdc.workspace = true\ntracing-subscriber.workspace = true\n[dev-dependencies]\ncdc-model.workspace = true\n"));
    tree.put(
        "crates/cdc-log/Cargo.toml",
        &manifest("cdc-log", "[dependencies]\ncdc-model.workspace = true\nrusqlite.workspace = true\n"),
    );
    tree.put(
        "crates/cdc-model/Cargo.toml",
        &manifest("cdc-model", "[dependencies]\nserde.workspace = true\n"),
    );
    tree.put("crates/cdc-model/src/lib.rs", "//! Uses no std::fs.\npub use event::{Event, Id};\nuse super::*;\nmod tests {\n    use std::fs;\n}\n");
    tree
}

/// The rules that a tree breaks, each once per place.
fn broken(tree: &Tree) -> Vec<(String, Rule)> {
    check(tree).violations.into_iter().map(|violation| (violation.path, violation.rule)).collect()
}

#[test]
fn the_clean_tree_breaks_no_rule() {
    let report = check(&clean());
    assert_eq!(report.violations, []);
    assert!(report.checks > 50, "only {} checks", report.checks);
}

/// The rule, the file that breaks it, and the file's text.
type Planted = (Rule, &'static str, String);

/// A manifest whose only dependency is this line.
fn one(name: &str, line: &str) -> String {
    manifest(name, &format!("[dependencies]\n{line}\n"))
}

/// The same for tests.
fn dev(name: &str, line: &str) -> String {
    manifest(name, &format!("[dev-dependencies]\n{line}\n"))
}

fn wrong_arrows() -> Vec<Planted> {
    let build = "[build-dependencies]\ncdc.workspace = true\n";
    let target = "[target.'cfg(unix)'.dependencies]\ncdc.workspace = true\n";
    vec![
        ("cdc-model", one("cdc-model", "cdc-log.workspace = true")),
        ("cdc-log", one("cdc-log", "cdc.workspace = true")),
        ("cdc-log", dev("cdc-log", "cdc.workspace = true")),
        ("cdc-log", manifest("cdc-log", build)),
        ("cdc-log", manifest("cdc-log", target)),
        ("cdc-cli", one("cdc-cli", "cdc-log.workspace = true")),
        ("cdc-new", one("cdc-new", "")),
        ("xtask", one("xtask", "cdc-model.workspace = true")),
    ]
    .into_iter()
    .map(|(name, text)| (Rule::Arrows, path_of(name), text))
    .collect()
}

fn wrong_externals() -> Vec<Planted> {
    [
        ("cdc-model", "tokio"),
        ("cdc-model", "rusqlite"),
        ("cdc-model", "sqlite"),
        ("cdc-model", "arrow-array"),
        ("cdc-log", "tokio"),
        ("cdc-relay", "tokio"),
        ("cdc-relay", "rusqlite"),
        ("cdc-net", "rusqlite"),
        ("cdc-net", "arrow-array"),
        ("cdc", "arrow-array"),
        ("cdc", "anyhow"),
        ("cdc", "tracing-subscriber"),
    ]
    .into_iter()
    .flat_map(|(name, dependency)| {
        let line = format!("{dependency}.workspace = true");
        [one(name, &line), dev(name, &line)].map(|text| (Rule::External, path_of(name), text))
    })
    .collect()
}

fn path_of(name: &str) -> &'static str {
    match name {
        "cdc" => "crates/cdc/Cargo.toml",
        "cdc-cli" => "crates/cdc-cli/Cargo.toml",
        "cdc-log" => "crates/cdc-log/Cargo.toml",
        "cdc-model" => "crates/cdc-model/Cargo.toml",
        "cdc-net" => "crates/cdc-net/Cargo.toml",
        "cdc-new" => "crates/cdc-new/Cargo.toml",
        "cdc-relay" => "crates/cdc-relay/Cargo.toml",
        _ => "xtask/Cargo.toml",
    }
}

fn wrong_manifests() -> Vec<Planted> {
    let reasons = "docs/decisions/dependencies.md";
    let without_row = REASONS.replace("| serde | x |\n", "");
    let without_reason = REASONS.replace("| serde | x |", "| serde | |");
    let bare = "[package]\nname = 'sim'\n";
    vec![
        (Rule::Manifest, "crates/cdc/Cargo.toml", "[package".to_owned()),
        (Rule::Manifest, "crates/cdc/Cargo.toml", "[package]\n".to_owned()),
        (Rule::Lints, "sim/Cargo.toml", bare.to_owned()),
        (Rule::Lints, "sim/Cargo.toml", format!("{bare}[lints]\nworkspace = false\n")),
        (Rule::WorkspaceDependency, "sim/Cargo.toml", one("sim", "serde = '1'")),
        (Rule::WorkspaceDependency, "sim/Cargo.toml", dev("sim", "serde = { version = '1' }")),
        (Rule::DependencyReason, reasons, without_row),
        (Rule::DependencyReason, reasons, without_reason),
        (Rule::DependencyReason, reasons, format!("{REASONS}| old | x |\n")),
        (Rule::FolderName, "crates/log/Cargo.toml", one("cdc-log", "")),
    ]
}

fn wrong_files() -> Vec<Planted> {
    let long = || "x\n".repeat(800);
    vec![
        (Rule::TopLevel, "notes.md", String::new()),
        (Rule::TopLevel, "scripts/run.sh", String::new()),
        (Rule::FileName, "sim/src/utils.rs", String::new()),
        (Rule::FileName, "sim/tests/common/mod.rs", String::new()),
        (Rule::FileName, "sim/src/helpers.rs", String::new()),
        (Rule::FileName, "sim/src/prelude.rs", String::new()),
        (Rule::FileLength, "sim/src/lib.rs", long()),
        (Rule::FileLength, "docs/long.md", long()),
        (Rule::Links, "README.md", "see [x](docs/gone.md)\n".to_owned()),
        (Rule::Links, "docs/a.md", "see [x](../../outside.md)\n".to_owned()),
        (Rule::Links, "ARCHITECTURE.md", "![x](docs/gone.svg)\n".to_owned()),
        (Rule::Links, "docs/a.md", "[x]: gone.md\n".to_owned()),
    ]
}

fn wrong_sources() -> Vec<Planted> {
    [
        (Rule::GlobReexport, "sim/src/lib.rs", "pub use world::*;\n"),
        (Rule::GlobReexport, "sim/src/lib.rs", "pub use {\n    a::B,\n    world::*,\n};\n"),
        (Rule::GlobReexport, "sim/src/lib.rs", "    pub(crate) use world::*;\n"),
        (Rule::Pure, "crates/cdc-model/src/lib.rs", "use std::fs::File;\n"),
        (Rule::Pure, "crates/cdc-relay/src/lib.rs", "fn f() { std::thread::yield_now() }\n"),
        (Rule::Pure, "crates/cdc-log/src/lib.rs", "pub async fn open() {}\n"),
        (Rule::Pure, "crates/cdc-model/src/a.rs", "#[cfg(test)]\nmod tests;\nuse std::net::IpAddr;\n"),
    ]
    .map(|(rule, path, text)| (rule, path, text.to_owned()))
    .into()
}

#[test]
fn a_planted_violation_of_each_rule_is_found_and_nothing_else() {
    let cases =
        [wrong_arrows(), wrong_externals(), wrong_manifests(), wrong_files(), wrong_sources()].concat();
    for (rule, path, text) in &cases {
        let mut tree = clean();
        tree.put(path, text);
        let top = path.split('/').next().unwrap_or(path);
        let place = if *rule == Rule::TopLevel { top } else { path };
        assert_eq!(broken(&tree), [(place.to_owned(), *rule)], "{path}:\n{text}");
    }
    let rules: BTreeSet<Rule> = cases.iter().map(|(rule, _, _)| *rule).collect();
    assert_eq!(rules.len(), Rule::ALL, "a rule without a planted violation");
}

#[test]
fn a_missing_top_level_file_is_named() {
    for path in ["README.md", "Cargo.lock", "benches/Cargo.toml"] {
        let mut tree = clean();
        tree.take(path);
        let name = path.split('/').next().expect("a first part");
        assert!(broken(&tree).contains(&(name.to_owned(), Rule::TopLevel)), "{name}");
    }
}

#[test]
fn dependencies_that_the_project_decided_against_are_found_anywhere() {
    for name in ["sqlx", "sqlx-core", "chrono", "foyer", "figment", "iceberg-catalog-sql", "axum"] {
        let mut tree = clean();
        tree.put("Cargo.toml", &format!("{ROOT}{name} = '1'\n"));
        tree.put("docs/decisions/dependencies.md", &format!("{REASONS}| {name} | x |\n"));
        tree.put("sim/Cargo.toml", &manifest("sim", &format!("[dependencies]\n{name}.workspace = true\n")));
        let found = broken(&tree);
        let places = ["sim/Cargo.toml", "Cargo.toml"].map(|path| (path.to_owned(), Rule::External));
        assert_eq!(found, places, "{name}");
    }
}

#[test]
fn a_file_one_line_below_the_limit_and_a_long_data_file_pass() {
    let mut tree = clean();
    tree.put("sim/src/lib.rs", &"x\n".repeat(799));
    tree.put("docs/formats/golden.json", &"1\n".repeat(2000));
    assert_eq!(broken(&tree), []);
}

#[test]
fn a_violation_reads_path_rule_remedy() {
    let mut tree = clean();
    tree.put("sim/src/lib.rs", "pub use world::*;\n");
    let lines: Vec<String> = check(&tree).violations.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["sim/src/lib.rs: glob-reexport: re-export by name, not `pub use world::*;`"]);
}
