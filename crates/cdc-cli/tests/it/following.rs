//! Commands that go on until they are stopped.

use crate::world::{CHANGES, CUSTOMERS, World};

#[test]
fn watching_shows_each_change_as_it_happens() {
    let world = World::new();
    world.sql("My App.db", CUSTOMERS);
    world.sql("app.db", CUSTOMERS);
    let mut watch = world.start("watch app.db --yes -o table");
    watch.told("watching app.db");
    world.sql("app.db", CHANGES);
    assert_eq!(watch.line(), "customers/42 UPDATE tier: free → pro\n");
    assert_eq!(watch.line(), "customers/7 INSERT id: 7, name: Cleo, tier: null\n");
    assert_eq!(watch.line(), "customers/1 DELETE id: 1, name: Ada, tier: free\n");
    let ran = watch.stop("-INT");
    assert_eq!(ran.code, Some(130));
    insta::assert_snapshot!(world.redact(&ran.stderr));
    assert_eq!(world.values("tree")[0]["$id"], "https://local/app");
}

#[test]
fn what_changed_while_nobody_watched_is_taken_in_but_not_shown() {
    let world = World::with_customers();
    world.sql("app.db", CHANGES);
    let mut watch = world.start("watch app.db");
    watch.told("3 changes since last time");
    watch.told("watching app.db");
    world.sql("app.db", "DELETE FROM customers WHERE id = 7");
    assert!(watch.line().contains("\"operation\":\"DELETE\""));
    assert_eq!(watch.stop("-TERM").code, Some(0));
    assert_eq!(world.values("tail app.db").len(), 6);
}

#[test]
fn watching_asks_first_and_leaves_nothing_when_it_may_not() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    std::fs::write(world.path("notes.txt"), "no database ".repeat(100)).unwrap();
    insta::assert_snapshot!(world.session(&[
        "watch app.db",
        "watch missing.db --yes",
        "watch notes.txt --yes",
        "watch app.db --tables ordres --yes",
    ]));
    assert!(world.ours("app.db").is_empty());
    assert!(!world.path("cdc.toml").exists() && !world.path(".cdc").exists());
}

#[test]
fn following_goes_on_where_the_tail_ended() {
    let world = World::with_customers();
    let mut run = world.start("run");
    run.told("running 2 objects");
    let mut tail = world.start("tail crm.headless.ly --follow --last 1 -o table");
    assert!(tail.line().contains("crm.headless.ly/acme customers/42 INSERT"));
    world.sql("app.db", CHANGES);
    assert_eq!(tail.line(), "crm.headless.ly/acme customers/42 UPDATE tier: free → pro\n");
    let ran = tail.stop("-INT");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(130), ""));
}

#[test]
fn a_run_picks_up_what_is_attached_meanwhile_and_stops_in_order() {
    let world = World::with_customers();
    world.sql("new.db", CUSTOMERS);
    let mut run = world.start("run");
    run.told("opened https://crm.headless.ly/acme -> https://crm.headless.ly (attached to");
    run.told("running 2 objects");
    world.ok("attach new.db --id crm.headless.ly/new --context crm.headless.ly");
    run.told("opened https://crm.headless.ly/new -> https://crm.headless.ly (attached to");
    world.sql("new.db", CHANGES);
    let ran = run.stop("-INT");
    assert_eq!(ran.code, Some(130));
    assert!(ran.stderr.ends_with("\nstopped; everything was sent\n"), "{}", ran.stderr);
    assert_eq!(world.values("replay crm.headless.ly --source new.db").len(), 5);
    assert_eq!(world.values("archive status crm.headless.ly")[0]["lag"], 0);
}

#[test]
fn one_process_at_a_time_runs_a_project_and_others_read_along() {
    let world = World::with_customers();
    let mut run = world.start("run");
    run.told("running 2 objects");
    insta::assert_snapshot!(world.session(&[
        "run",
        "run --once",
        "detach app.db",
        "attach app.db --id crm.headless.ly/acme --context crm.headless.ly",
    ]));
    let mut watch = world.start("watch app.db -o table");
    watch.told("another process runs this project");
    watch.told("watching app.db");
    world.sql("app.db", CHANGES);
    assert_eq!(watch.line(), "customers/42 UPDATE tier: free → pro\n");
    assert_eq!(watch.stop("-INT").code, Some(130));
    assert_eq!(run.stop("-TERM").code, Some(0));
}

#[test]
fn a_run_tells_what_has_stopped() {
    let world = World::with_customers();
    std::fs::write(world.path("file"), "in the way").unwrap();
    let mut run = world.start("run --warehouse file");
    let told = run.told("stopped: the archive of https://crm.headless.ly: ");
    assert!(told.contains("file"), "{told}");
    let ran = run.stop("-INT");
    assert_eq!(ran.code, Some(130));
    assert!(ran.stderr.contains("\nstopped; the next run goes on where this one ends: "), "{}", ran.stderr);
}
