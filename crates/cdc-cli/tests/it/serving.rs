//! Two processes: a root in one, its child in the other.

use std::fs;

use crate::world::{CUSTOMERS, Live, World};

/// A project for a root, and one for its child, whose database has two customers.
fn two_projects() -> World {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.ok("init --dir above");
    world.ok("create crm.headless.ly --dir above");
    world.ok("init --dir below");
    world
}

/// Serves the root. Gives the address taken.
fn serve(world: &World, address: &str) -> (Live, String) {
    let mut above = world.start(&format!("serve --dir above --listen {address} --archive-interval 50"));
    let told = above.told("listening on ");
    let address = told.trim().rsplit(' ').next().unwrap().to_owned();
    above.told("running 1 object");
    (above, address)
}

/// Tells the child's project where its parent is.
fn add_remote(world: &World, address: &str) {
    let path = world.path("below/cdc.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}\"https://crm.headless.ly\" = \"{address}\"\n")).unwrap();
}

/// How far the child's events have come at the root, by what the root's own process says.
fn held(world: &World) -> usize {
    world.values("replay crm.headless.ly --dir above").len()
}

#[test]
fn a_child_and_its_root_in_two_processes_survive_that_either_is_killed() {
    let world = two_projects();
    let (above, address) = serve(&world, "127.0.0.1:0");
    add_remote(&world, &address);
    world.ok("attach app.db --id crm.headless.ly/acme --context crm.headless.ly --dir below");
    let mut below = world.start("run --dir below");
    let opened = below.told("opened https://crm.headless.ly/acme");
    assert!(opened.contains(&format!("-> https://crm.headless.ly at {address} (attached to")), "{opened}");
    let mut tail = world.start("tail crm.headless.ly --follow --last 10 -o table --dir above");
    world.sql("app.db", "UPDATE customers SET tier = 'pro' WHERE id = 42");
    let seen = (0..3).map(|_| tail.line()).find(|line| line.contains("customers/42 UPDATE"));
    // What came before the tail was followed has its place before it.
    let seen = seen.unwrap_or_default();
    assert!(seen.ends_with("crm.headless.ly/acme customers/42 UPDATE tier: free → pro\n"), "{seen}");
    drop(tail);
    // The root's process is killed; its child writes on and says what it waits for.
    assert_eq!(above.stop("-KILL").code, None);
    world.sql("app.db", "INSERT INTO customers VALUES (7, 'Cleo', NULL)");
    let waits = below.told("waiting: the link of https://crm.headless.ly/acme: ");
    assert!(waits.contains(&format!("https://crm.headless.ly is not reachable: {address}: ")), "{waits}");
    let (above, _) = serve(&world, &address);
    below.told("recovered: the link of https://crm.headless.ly/acme");
    // Now the child's.
    assert_eq!(below.stop("-KILL").code, None);
    world.sql("app.db", "DELETE FROM customers WHERE id = 1");
    world.ok("run --once --dir below");
    assert_eq!(held(&world), 5);
    assert_eq!(above.stop("-TERM").code, Some(0));
    assert_eq!(world.values("archive status crm.headless.ly --dir above")[0]["lag"], 0);
    world.ok("verify --rows --dir below");
    world.ok("verify --dir above");
    let tree = world.ok("tree -o table --dir below").replace(&address, "[ADDRESS]");
    insta::assert_snapshot!(world.redact(&tree));
    assert_eq!(world.values("tree --dir below")[0]["contextAt"], address);
}

#[test]
fn a_parent_that_does_not_answer_leaves_a_run_undone_and_nothing_lost() {
    let world = two_projects();
    let (above, address) = serve(&world, "127.0.0.1:0");
    assert_eq!(above.stop("-INT").code, Some(130));
    add_remote(&world, &address);
    let mut seen = world.session(&[
        "create crm.headless.ly --dir below",
        "attach app.db --id crm.headless.ly/app --context crm.headless.ly --dir below",
        "run --once --dir below",
        "verify -o table --dir below",
    ]);
    let mut below = world.start("run --dir below");
    below.told("waiting: the link of https://crm.headless.ly/app: ");
    let ran = below.stop("-INT");
    assert_eq!(ran.code, Some(130));
    seen.push_str(&world.redact(&ran.stderr));
    let (above, _) = serve(&world, &address);
    seen.push_str(&world.session(&[
        "create crm.headless.ly/eu --context crm.headless.ly --dir below",
        "run --once --dir below",
    ]));
    assert_eq!(held(&world), 2);
    assert_eq!(above.stop("-INT").code, Some(130));
    insta::assert_snapshot!(seen.replace(&address, "[ADDRESS]"));
}

#[test]
fn an_address_that_cannot_be_listened_on_is_told() {
    let world = two_projects();

    world.ok("init --dir other");
    let (above, address) = serve(&world, "127.0.0.1:0");
    let seen = world.session(&[
        &format!("serve --dir other --listen {address}"),
        "serve --dir other --listen 0.0.0.0:7410",
        "serve --dir other --listen 192.0.2.1:7410",
        "serve --dir other --listen localhost:7410",
        "serve --dir above --listen 127.0.0.1:0",
        "serve --once",
    ]);
    assert_eq!(above.stop("-TERM").code, Some(0));
    insta::assert_snapshot!(seen.replace(&address, "[ADDRESS]"));
}

#[test]
fn a_mistake_among_the_remotes_is_told_with_its_place() {
    let world = World::new();
    let mut seen = String::new();
    for line in [
        "\"https://crm.headless.ly\" = \"10.0.0.1:7410\"",
        "\"https://crm.headless.ly\" = \"localhost:7410\"",
        "\"crm.headless.ly\" = \"127.0.0.1:7410\"",
    ] {
        fs::write(world.path("cdc.toml"), format!("[remotes]\n{line}\n")).unwrap();
        seen.push_str(&world.session(&["tree"]));
    }
    insta::assert_snapshot!(seen);
}
