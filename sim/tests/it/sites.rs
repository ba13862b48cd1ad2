//! The tables of sites and mutants, held against what the code says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sim::{MUTANTS, sites};

/// Where the macros are defined and tried.
const DEFINITION: &str = "cdc-model/src/fault.rs";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(DEFINITION) {
            found.push(path);
        }
    }
}

/// What the uses of a macro in the crates name.
fn named(invocation: &str) -> BTreeSet<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates")).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut found);
    }
    let mut names = BTreeSet::new();
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split(invocation).skip(1) {
            let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
            names.insert(name.unwrap_or_else(|| panic!("no name in {}", path.display())).0.to_owned());
        }
    }
    names
}

fn listed(names: &[&str]) -> BTreeSet<String> {
    let set: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(set.len(), names.len(), "a name is listed twice");
    set
}

#[test]
fn the_tables_list_the_sites_that_are_in_the_code() {
    assert_eq!(listed(sites::FAULT_POINTS), named("fault_point!("));
    assert_eq!(listed(sites::REACHED), named("reached!("));
}

#[test]
fn every_mutant_is_in_the_code_and_says_what_catches_it() {
    let names: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    let unknown: Vec<String> = listed(&names).difference(&named("mutant!(")).cloned().collect();
    assert!(unknown.is_empty(), "not in the code: {unknown:?}");
    for mutant in MUTANTS {
        assert!(!mutant.breaks.is_empty() && !mutant.caught_by.is_empty(), "{}", mutant.name);
    }
}
