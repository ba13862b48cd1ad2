//! The program itself: seeds, plans and twins in processes of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sim::FaultPlan;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().unwrap()
}

/// Runs a swarm and returns its report.
fn swarm(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let report = ["--report", folder.path().to_str().unwrap()];
    let output = sim(&[&["swarm"], arguments, &report].concat());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.starts_with("simulator: passed\n"), "{printed}");
    for name in ["report.txt", "report.html"] {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap()
}

fn plans() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plans")
}

#[test]
fn twelve_small_worlds_keep_every_promise() {
    let report = swarm(&["--seeds", "12", "--objects", "3"]);
    assert_eq!(report.pointer("/tally/runs"), Some(&Value::from(12)));
    let commits = report.pointer("/tally/commits").and_then(Value::as_u64).unwrap();
    assert!(commits > 1_000, "{commits} commits");
    assert!(report.pointer("/tally/peakRssKib").and_then(Value::as_u64).unwrap() > 1_000);
}

#[test]
fn a_seed_gives_the_same_run_in_another_process() {
    let report = swarm(&["--determinism", "2", "--objects", "3", "--from-seed", "5"]);
    assert_eq!(report.get("determinism"), Some(&serde_json::json!({"seeds": 2, "differing": 0})));
}

#[test]
fn each_scenario_keeps_every_promise() {
    for scenario in ["throughput", "crashes", "network", "archive", "rewinds"] {
        swarm(&["--seed", "3", "--objects", "4", "--scenario", scenario]);
    }
}

#[test]
fn a_plan_that_is_printed_runs_as_its_seed_does() {
    let plan = sim(&["plan", "--seed", "4", "--objects", "3"]).stdout;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("four.json");
    std::fs::write(&path, &plan).unwrap();
    let outcome = |arguments: &[&str]| {
        let line: Value = serde_json::from_slice(&sim(arguments).stdout).unwrap();
        line.get("outcome").cloned().unwrap()
    };
    let of_seed = outcome(&["run", "--json", "--seed", "4", "--objects", "3"]);
    assert_eq!(outcome(&["run", "--json", "--plan", path.to_str().unwrap()]), of_seed);
}

#[test]
fn stored_plans_are_plans() {
    for entry in std::fs::read_dir(plans()).unwrap() {
        let path = entry.unwrap().path();
        let plan: FaultPlan = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let again: FaultPlan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        assert_eq!(plan, again, "{}", path.display());
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do() {
    for (arguments, expected) in [
        (["run", "--plan", "/no/such.json"], "/no/such.json"),
        (["run", "--runner", "none"], "possible values: core"),
        (["swarm", "--runner", "none"], "give all or one of core"),
        (["swarm", "--mutants", "5/3"], "the second third is 2/3"),
        (["swarm", "--plans", "/no/such"], "/no/such"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
