use std::fs;

use crate::world::{CHANGES, World};

fn with_changes() -> World {
    let world = World::with_customers();
    world.sql("app.db", CHANGES);
    world.ok("run --once");
    world
}

#[test]
fn what_is_over_the_limits_goes_and_who_holds_the_rest_is_told() {
    let world = with_changes();
    world.ok("checkpoint set crm.headless.ly billing 3");
    let path = world.path("cdc.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings.replace("[retention]\n", "[retention]\nmaxEvents = 1\n")).unwrap();
    insta::assert_snapshot!(world.session(&[
        "prune crm.headless.ly -o table",
        "checkpoint rm crm.headless.ly billing",
        "prune crm.headless.ly",
        "replay crm.headless.ly -o table",
        "verify crm.headless.ly -o table",
    ]));
}

#[test]
fn what_the_root_has_not_settled_as_far_as_is_stored_stays() {
    let world = with_changes();
    let path = world.path("cdc.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings.replace("[retention]\n", "[retention]\nmaxEvents = 1\n")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&world.ok("prune app.db -o ndjson")).unwrap();
    // How much of it the link had heard by the end of the run is a matter of moments.
    let held: u64 =
        line["held"].as_array().unwrap().iter().map(|held| held["records"].as_u64().unwrap()).sum();
    assert_eq!(line["floor"].as_u64().unwrap() + held, 6, "{line}");
    let held = line["held"].to_string();
    assert!(held == "[]" || held.contains("the root and the archives on the way"), "{held}");
    world.ok("verify");
}

#[test]
fn an_explicit_floor_says_what_it_drops_and_for_whom_and_drops_it_when_told_to() {
    let world = with_changes();
    world.ok("checkpoint set crm.headless.ly billing 2");
    insta::assert_snapshot!(world.session(&[
        "prune",
        "prune crm.headless.ly --through 4 -o table",
        "prune crm.headless.ly --through 4",
        "prune crm.headless.ly --through 4 --yes",
        "tail crm.headless.ly --last 9 -o table",
        "prune crm.headless.ly --yes",
        "prune --through 4",
        "prune crm.headless.ly --through 99",
        "verify crm.headless.ly",
    ]));
}
