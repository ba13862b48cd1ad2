use serde_json::{Value, json};

use crate::world::{CHANGES, World};

fn with_changes() -> World {
    let world = World::with_customers();
    world.sql("app.db", CHANGES);
    world.ok("run --once");
    world
}

/// What happened, without what is different in each run.
fn gist(events: &[Value]) -> Vec<Value> {
    let gist = |event: &Value| {
        let of = |name: &str| event.get(name).cloned().unwrap_or(Value::Null);
        json!([
            of("sequence"),
            of("operation"),
            of("documentId"),
            of("before"),
            of("after"),
            of("changedFields"),
            of("tag")
        ])
    };
    events.iter().map(gist).collect()
}

#[test]
fn a_replay_gives_every_change_with_its_states() {
    let world = with_changes();
    let (ada, bob, cleo) = (
        json!({"id": 1, "name": "Ada", "tier": "free"}),
        json!({"id": 42, "name": "Bob", "tier": "free"}),
        json!({"id": 7, "name": "Cleo", "tier": null}),
    );
    let pro = json!({"id": 42, "name": "Bob", "tier": "pro"});
    let expected = json!([
        [2, "INSERT", "1", null, ada, null, "snapshot"],
        [3, "INSERT", "42", null, bob, null, "snapshot"],
        [4, "UPDATE", "42", bob, pro, ["tier"], null],
        [5, "INSERT", "7", null, cleo, null, null],
        [6, "DELETE", "1", ada, null, null, null],
    ]);
    for command in
        ["replay app.db", "replay crm.headless.ly", "tail app.db", "replay https://crm.headless.ly/acme"]
    {
        assert_eq!(json!(gist(&world.values(command))), expected, "{command}");
    }
}

#[test]
fn a_replay_is_narrowed_by_position_time_and_filter() {
    let world = with_changes();
    let time =
        |sequence: usize| world.values("replay app.db")[sequence - 2]["cursor"]["timestamp"].to_string();
    for (arguments, sequences) in [
        ("--after 3", vec![4, 5, 6]),
        ("--after 3 --until 5", vec![4, 5]),
        ("--after 4@123", vec![5, 6]),
        ("--operation insert --operation DELETE --after 3", vec![5, 6]),
        ("--collection orders", vec![]),
        ("--source crm.headless.ly/acme --until 2", vec![2]),
        ("--source app.db --until 2", vec![2]),
        ("--source crm.headless.ly", vec![]),
        ("--schema --until 2", vec![1, 2]),
        (&format!("--from-time @{}", time(4)), vec![4, 5, 6]),
        (&format!("--until @{}", time(4)), vec![2, 3]),
        ("--from-time 2999-01-01T00:00:00Z", vec![]),
    ] {
        for object in ["app.db", "crm.headless.ly"] {
            // The parent's log has its own times.
            if object != "app.db" && arguments.contains('@') {
                continue;
            }
            let found = world.values(&format!("replay {object} {arguments}"));
            let found: Vec<_> = found.iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
            assert_eq!(found, sequences, "{object} {arguments}");
        }
    }
}

#[test]
fn every_command_prints_for_people() {
    let world = with_changes();
    world.ok("checkpoint set app.db billing 4@1705276800000");
    insta::assert_snapshot!(world.session(&[
        "tail app.db --last 2 -o table",
        "tail app.db --last 2 --schema -o table",
        "replay crm.headless.ly --schema -o table",
        "replay app.db --after 3 -o table --color always",
        "history app.db customers/42 -o table",
        "fold crm.headless.ly -o table",
        "fold app.db --at 3 -o table",
        "checkpoint ls app.db -o table",
        "tree -o table",
        "verify --rows -o table",
    ]));
}

#[test]
fn every_command_prints_for_programs() {
    let world = with_changes();
    insta::assert_snapshot!(world.session(&[
        "tail app.db --last 1",
        "history app.db customers/42 -o json",
        "replay app.db --after 3 --until 4 -o debezium",
        "replay app.db --until 2 --schema -o cloudevents",
        "replay app.db --schema --until 1 -o debezium",
        "replay app.db --collection orders -o json",
        "fold app.db -o json",
        "checkpoint set app.db billing 4",
        "checkpoint set app.db billing 2 --force",
        "checkpoint set app.db billing 3 --if-at 2 --metadata {\"shard\":1}",
        "checkpoint get app.db billing",
        "checkpoint ls app.db -o json",
        "checkpoint rm app.db billing",
        "checkpoint ls app.db -o json",
        "tree",
        "verify --rows",
        "verify app.db -o json",
        "fold app.db -o cloudevents",
    ]));
}

#[test]
fn the_archive_holds_what_the_root_received() {
    let world = with_changes();
    let status = world.values("archive status crm.headless.ly");
    let of = |name: &str| status[0][name].clone();
    assert_eq!(
        (of("watermark"), of("tail"), of("rows"), of("lag")),
        (json!(6), json!(6), json!(6), json!(0))
    );
    let location = of("location");
    assert!(location.as_str().unwrap().ends_with("/warehouse/tables/crm.headless.ly"), "{location}");
    let table = world.ok("archive status crm.headless.ly -o table");
    assert!(table.contains("watermark         6 of 6\n"), "{table}");
}

#[test]
fn a_project_in_another_folder_is_named_by_flag_or_variable() {
    let world = with_changes();
    let elsewhere = World::new();
    let folder = world.path("");
    let mut command = elsewhere.command("tree");
    assert!(command.env("CDC_DIR", &folder).output().unwrap().status.success());
    assert_eq!(elsewhere.ok(&format!("tree --dir {}", folder.display())), world.ok("tree"));
    assert_eq!(
        elsewhere.ok(&format!("tail {0}/app.db --dir {0}", folder.display())),
        world.ok("tail app.db")
    );
}

#[test]
fn the_tree_shows_the_last_comparison_and_collisions_of_a_database() {
    let world = World::with_customers();
    let log = ".cdc/objects/2b/crm.headless.ly~acme/log.db";
    world.sql(log, "INSERT OR REPLACE INTO _cdc_counter VALUES ('collisions', 1)");
    let seen = |told: &str| {
        let tree = world.ok("tree -o table");
        assert!(tree.contains(&format!("app.db ({told})\n")), "{tree}");
    };
    seen("1 collision");
    world.sql(log, "INSERT OR REPLACE INTO _cdc_meta VALUES ('compared_at', 1705276800000)");
    world.sql(log, "UPDATE _cdc_counter SET value = 3 WHERE name = 'collisions'");
    seen("compared 2024-01-15T00:00:00.000Z, 3 collisions");
}
