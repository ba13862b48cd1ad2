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
        "prune -o table",
        "prune app.db",
        "checkpoint rm crm.headless.ly billing",
        "prune crm.headless.ly",
        "tree",
        "replay crm.headless.ly -o table",
        "replay app.db",
        "verify -o table",
    ]));
}

#[test]
fn an_explicit_floor_says_what_it_drops_and_for_whom_and_drops_it_when_told_to() {
    let world = with_changes();
    world.ok("checkpoint set app.db billing 2");
    insta::assert_snapshot!(world.session(&[
        "prune",
        "prune app.db --through 4 -o table",
        "prune app.db --through 4",
        "prune app.db --through 4 --yes",
        "tail app.db --last 9 -o table",
        "prune app.db --yes",
        "prune --through 4",
        "prune app.db --through 99",
        "verify app.db",
    ]));
}
