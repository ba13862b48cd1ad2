use std::fs;

use crate::world::{CHANGES, World};

#[test]
fn a_folder_without_a_project_is_told_how_to_become_one() {
    let world = World::new();
    insta::assert_snapshot!(world.session(&["tree", "run", "tail a.b --dir missing"]));
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 0);
}

#[test]
fn a_malformed_file_of_settings_is_told_with_its_place() {
    let world = World::new();
    let mut seen = String::new();
    for text in [
        "[link]\nbatchSize = \"many\"\n",
        "[link]\nbatchSize = 0\n",
        "[link]\nbatchsize = 5\n",
        "[archive\nwarehouse = 'x'\n",
        "[archive]\nwarehouse = 'r2://bucket'\n",
    ] {
        fs::write(world.path("cdc.toml"), text).unwrap();
        seen.push_str(&format!("$ cat cdc.toml\n{text}\n{}", world.session(&["run --once"])));
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn a_setting_by_flag_is_held_to_the_same_limits() {
    let world = World::new();
    insta::assert_snapshot!(world.session(&[
        "init --warehouse r2://bucket",
        "init",
        "run --once --batch-size 0"
    ]));
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::with_customers();
    world.sql("other.db", "CREATE TABLE t(x)");
    insta::assert_snapshot!(world.session(&[
        "tail crm.headless.ly/acne",
        "tail other.db",
        "replay not_a_host!",
        "history app.db customers/43",
        "history app.db customers",
        "checkpoint get app.db nobody",
        "checkpoint rm app.db nobody",
        "archive status app.db",
        "verify a.b",
    ]));
}

#[test]
fn a_position_past_the_end_or_a_step_back_is_refused() {
    let world = World::with_customers();
    insta::assert_snapshot!(world.session(&[
        "replay app.db --after 99",
        "replay app.db --until yesterday",
        "fold app.db --at 99",
        "checkpoint set app.db billing 99",
        "checkpoint set app.db billing three",
        "checkpoint set app.db billing 3",
        "checkpoint set app.db billing 2",
        "checkpoint set app.db billing 5 --if-at 2",
        "checkpoint set app.db billing 4 --token 0123456789abcdef0123456789abcdef",
        "replay app.db --operation upsert",
    ]));
}

#[test]
fn a_warehouse_that_cannot_be_written_stops_the_archive_and_nothing_else() {
    let world = World::with_customers();
    fs::write(world.path("file"), "in the way").unwrap();
    world.sql("app.db", CHANGES);
    insta::assert_snapshot!(world.session(&["run --once --warehouse file", "tree -o table", "run --once"]));
}

#[test]
fn a_difference_is_told_and_has_its_own_exit_code() {
    let world = World::with_customers();
    let log = ".cdc/objects/2b/crm.headless.ly~acme/log.db";
    world.sql(log, "UPDATE _cdc_log SET body = replace(body, 'Bob', 'Eve') WHERE sequence = 3");
    insta::assert_snapshot!(world.session(&["verify -o table"]));
}

#[test]
fn whoever_stops_reading_ends_it_quietly() {
    let world = World::with_customers();
    world.sql("app.db", "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO customers SELECT i, 'x', 'y' FROM n");
    world.ok("run --once");
    let mut replay = world.start("replay app.db");
    assert!(replay.line().contains("\"INSERT\""));
    let ran = replay.close();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_damaged_file_is_named_with_the_way_back() {
    const LOG: &str = ".cdc/objects/2b/crm.headless.ly~acme/log.db";
    let mut seen = String::new();
    for (file, part) in [(LOG, "header"), (LOG, "pages"), ("app.db", "header"), ("app.db", "pages")] {
        let world = World::with_customers();
        let mut bytes = fs::read(world.path(file)).unwrap();
        let range = if part == "header" { 0..100 } else { 4096..bytes.len() };
        bytes[range].fill(0xa5);
        fs::write(world.path(file), &bytes).unwrap();
        seen.push_str(&format!("# the {part} of {file} overwritten\n"));
        seen.push_str(&world.session(&["run --once", "verify app.db", "tail app.db -o table"]));
        assert_eq!(fs::read(world.path(file)).unwrap(), bytes, "nothing was written to it");
        world.start("run").told("help: ");
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn a_checkpoint_of_another_log_or_of_somebody_else_is_refused() {
    let world = World::with_customers();
    let log = ".cdc/objects/2b/crm.headless.ly~acme/log.db";
    world.ok("checkpoint set app.db billing 2");
    world.sql(log, "UPDATE _cdc_checkpoint SET epoch = '1-0000000000000007'");
    let mut seen = world.session(&[
        "checkpoint set app.db billing 3",
        "checkpoint ls app.db -o table",
        "checkpoint set app.db billing 1 --force",
        "checkpoint set app.db billing 3",
    ]);
    world.ok("checkpoint take app.db billing");
    seen.push_str(&world.session(&[
        "checkpoint rm app.db billing",
        "checkpoint rm app.db billing --token 0123456789abcdef0123456789abcdef",
        "checkpoint rm app.db billing --force",
    ]));
    let taken = world.values("checkpoint take app.db billing");
    world.ok("checkpoint set app.db billing 1 --force");
    world.ok(&format!("checkpoint rm app.db billing --token {}", taken[0]["token"].as_str().unwrap()));
    insta::assert_snapshot!(seen);
}

#[test]
fn a_database_that_stays_locked_leaves_a_run_undone_and_is_named() {
    let world = World::with_customers();
    let app = rusqlite::Connection::open(world.path("app.db")).unwrap();
    // The triggers must be made anew, for which there is no lock to be had.
    app.execute_batch("ALTER TABLE customers ADD COLUMN since; BEGIN IMMEDIATE").unwrap();
    let ran = world.cdc("run --once");
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    assert!(ran.stderr.contains("app.db has been locked for more than 5 s"), "{}", ran.stderr);
    app.execute_batch("COMMIT").unwrap();
    world.ok("run --once");
}
