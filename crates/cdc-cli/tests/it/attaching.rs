use std::fs;

use crate::world::{CHANGES, CUSTOMERS, World};

#[test]
fn attaching_says_what_it_did_and_what_tools_must_be_told() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.sql("old.db", "CREATE TABLE t(x); CREATE VIEW v AS SELECT x FROM t;");
    insta::assert_snapshot!(world.session(&[
        "init",
        "create startups.studio",
        "create startups.studio",
        "attach app.db --id crm.headless.ly/acme --context crm.headless.ly",
        "attach app.db --id crm.headless.ly/acme --context crm.headless.ly",
        "attach old.db --id crm.headless.ly/old --context startups.studio --tables t",
        "tree -o table",
    ]));
}

#[test]
fn only_the_tables_that_are_named_are_captured() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.sql("app.db", "CREATE TABLE orders(id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1);");
    world.ok("init");
    world.ok("attach app.db --id a.b --tables customers");
    world.sql("app.db", "INSERT INTO orders VALUES (2); UPDATE customers SET tier = 'pro';");
    world.ok("run --once");
    let collections: Vec<_> =
        world.values("replay a.b").iter().map(|event| event["collection"].clone()).collect();
    assert_eq!(collections, ["customers"; 4]);
}

#[test]
fn detaching_leaves_the_database_as_it_was_and_the_history_readable() {
    let world = World::with_customers();
    assert!(!world.ours("app.db").is_empty());
    world.sql("app.db", CHANGES);
    insta::assert_snapshot!(world.session(&[
        "detach app.db",
        "detach app.db",
        "tree -o table",
        "replay crm.headless.ly/acme -o table"
    ]));
    assert!(world.ours("app.db").is_empty());
}

#[test]
fn what_cannot_be_attached_is_left_untouched() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.sql("wide.db", "PRAGMA encoding = 'UTF-16'; CREATE TABLE t(x);");
    fs::write(
        world.path("notes.txt"),
        "not a database, but a text that is long enough to be looked at as one\n".repeat(20),
    )
    .unwrap();
    fs::create_dir(world.path("folder.db")).unwrap();
    world.ok("init");
    insta::assert_snapshot!(world.session(&[
        "attach missing.db --id a.b/x --context a.b",
        "attach notes.txt --id a.b/x --context a.b",
        "attach wide.db --id a.b/x --context a.b",
        "attach folder.db --id a.b/x --context a.b",
        "attach app.db --id a.b/x --context a.b --tables customers,ordres",
        "attach app.db --id a.b/x --context a.b --tables customers --all",
        "attach app.db --id no_url_at_all! --context a.b",
        "attach app.db --id http://a.b",
        "attach app.db --id a.b --context a.b",
        "attach app.db --id a.b -o debezium",
        "attach app.db",
    ]));
    assert_eq!(world.ok("tree"), "");
    assert!(world.ours("app.db").is_empty() && world.ours("wide.db").is_empty());
    assert_eq!(fs::read_dir(world.path(".cdc/objects")).unwrap().count(), 0);
}

#[test]
fn an_id_and_a_database_belong_together() {
    let world = World::new();
    for name in ["one.db", "two.db"] {
        world.sql(name, CUSTOMERS);
    }
    world.ok("init");
    world.ok("init --dir other");
    world.ok("attach one.db --id a.b/one --context a.b");
    insta::assert_snapshot!(world.session(&[
        "attach two.db --id a.b/one --context a.b",
        "attach two.db --id a.b",
        "attach one.db --id a.b/other",
        "attach one.db --id a.b/one --context c.d",
        "attach one.db --id a.b/one --context a.b --dir other",
        "create a.b/one",
        "create x.y --context x.y",
        "create x.y --context z.z",
    ]));
    assert!(world.ours("two.db").is_empty());
}

#[test]
fn a_project_is_made_once_and_its_settings_are_the_persons() {
    let world = World::new();
    insta::assert_snapshot!(world.session(&["init --warehouse cold", "init", "tree"]));
    insta::assert_snapshot!("cdc_toml", fs::read_to_string(world.path("cdc.toml")).unwrap());
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let world = World::with_customers();
    let location = |args: &str, variable: Option<&str>| {
        let mut command = world.command(&format!("run --once {args}"));
        command.envs(variable.map(|value| ("CDC_WAREHOUSE", value)));
        assert!(command.output().unwrap().status.success());
        ["flag", "variable", "warehouse"].into_iter().find(|name| world.path(name).exists()).unwrap()
    };
    fs::remove_dir_all(world.path("warehouse")).unwrap();
    assert_eq!(location("", None), "warehouse");
    assert_eq!(location("", Some("variable")), "variable");
    assert_eq!(location("--warehouse flag", Some("variable")), "flag");
}

#[test]
fn capture_whose_log_is_lost_or_whose_database_is_gone_is_given_up_by_force() {
    let world = World::with_customers();
    fs::remove_dir_all(world.path(".cdc/objects/2b/crm.headless.ly~acme")).unwrap();
    world.sql("gone.db", CUSTOMERS);
    world.ok("attach gone.db --id crm.headless.ly/gone");
    fs::remove_file(world.path("gone.db")).unwrap();
    insta::assert_snapshot!(world.session(&[
        "attach app.db --id crm.headless.ly/acme --context crm.headless.ly",
        "detach app.db",
        "detach app.db --force",
        "detach crm.headless.ly/gone",
        "detach crm.headless.ly/gone --force",
        "detach nothing.db --force",
        "run --once",
    ]));
    assert!(world.ours("app.db").is_empty());
}

#[test]
fn a_log_and_a_folder_are_no_applications_databases() {
    let world = World::with_customers();
    let log = ".cdc/objects/2b/crm.headless.ly~acme/log.db";
    insta::assert_snapshot!(world.session(&[
        &format!("attach {log} --id x.y/log"),
        "attach . --id x.y/folder",
        "attach /dev/null --id x.y/null",
    ]));
    world.ok("run --once");
}

#[test]
fn attaching_again_keeps_what_it_is_not_told() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.ok("init");
    world.ok("attach app.db --id a.b/app --context a.b --tables customers");
    insta::assert_snapshot!(world.session(&["attach app.db --id a.b/app"]));
    world.sql("app.db", "CREATE TABLE orders(id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1);");
    world.ok("run --once");
    let events = world.values("replay a.b");
    assert!(events.iter().all(|event| event["collection"] == "customers"));
}

#[test]
fn a_copied_project_is_refused_and_a_moved_one_is_at_home_where_it_is() {
    let world = World::with_customers();
    world.ok("run --once");
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(world.path(".")).arg(&copy).status();
    assert!(copied.unwrap().success());
    let run = |line: &str| {
        let ran = world.command(line).current_dir(&copy).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let (code, told) = run("run --once");
    assert!(code == Some(5) && told.contains("is a copy of the project in"), "{told}");
    fs::remove_dir_all(world.path(".cdc")).unwrap();
    world.sql("app.db", "UPDATE customers SET tier = 'pro'");
    // Its database is where it was; its archive names the files by where they were.
    let (code, told) = run("run --once");
    assert!(code == Some(1) && told.contains("outside the warehouse"), "{code:?} {told}");
    let ran = world.command("tail crm.headless.ly/acme --last 1").current_dir(&copy).output().unwrap();
    assert!(String::from_utf8(ran.stdout).unwrap().contains("\"tier\":\"pro\""));
}

#[test]
fn attaching_again_goes_on_with_rows_that_were_not_taken_up() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.ok("init");
    // As an attach leaves it that was stopped before the first row.
    let project = cdc::Project::open(world.path(""), cdc::Settings::default()).unwrap();
    let options = cdc::AttachOptions {
        database: world.path("app.db"),
        id: "https://a.b/app".parse().unwrap(),
        context: None,
        tables: cdc::Tables::All,
    };
    project.attach(&options, &cdc::Clock::system()).unwrap();
    let told = world.cdc("attach app.db --id a.b/app").stderr;
    assert!(told.contains("nothing had to be installed"), "{told}");
    assert!(told.contains("going on with what is left of customers: 2 rows in all"), "{told}");
    let told = world.cdc("attach app.db --id a.b/app").stderr;
    assert!(!told.contains("going on"), "{told}");
    // The shape of the table, and two rows.
    assert_eq!(world.values("tree")[0]["tail"], 3);
}

#[test]
fn attaching_beside_a_running_engine_says_who_takes_up_the_rows() {
    let world = World::new();
    world.sql("app.db", CUSTOMERS);
    world.ok("init");
    let mut run = world.start("run");
    run.told("running");
    let attached = world.cdc("attach app.db --id a.b/app");
    assert_eq!(attached.code, Some(0));
    assert!(attached.stderr.contains("a `cdc run` takes up the rows"), "{}", attached.stderr);
    run.stop("-INT");
}
