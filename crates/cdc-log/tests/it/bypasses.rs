//! What capture cannot see, a comparison finds: the log comes back to the tables, and capture is healthy again.

use cdc_log::{Attached, Log, Tables};
use rusqlite::Connection;

use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

struct Bypassed {
    _folder: tempfile::TempDir,
    app: Connection,
    attached: Attached,
    follower: Follower,
}

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
    CREATE TABLE other(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', NULL), (3, 'three', x'00');
    INSERT INTO other VALUES ('x', 1);";

impl Bypassed {
    fn new(tables: Tables) -> Self {
        let folder = folder();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(SCHEMA).unwrap();
        let mut attached =
            Attached::open(&path, &folder.path().join("log"), &id(), tables, &clock()).unwrap();
        attached.install().unwrap();
        let mut this = Self { _folder: folder, app, attached, follower: Follower::default() };
        this.look(Reconciled::Never);
        this.write("UPDATE t SET a = 'uno' WHERE id = 1", Reconciled::Never);
        this
    }

    fn look(&mut self, allowed: Reconciled) {
        while self.attached.look().unwrap().drained.more {}
        self.follower.follow(self.attached.log(), allowed);
    }

    fn write(&mut self, sql: &str, allowed: Reconciled) {
        self.app.execute_batch(sql).unwrap();
        self.look(allowed);
    }

    fn agrees(&self, tables: &[&str]) {
        for table in tables {
            assert_agrees(&self.app, &self.follower.fold, table);
        }
        assert_eq!(self.attached.compare_rows(&self.follower.fold).unwrap(), None);
    }
}

fn rebuild() -> String {
    // The twelve steps of sqlite.org/lang_altertable.html, as Django and Alembic take them.
    "PRAGMA foreign_keys=off; BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, b, a, c DEFAULT 9);
     INSERT INTO new_t(id, a, b) SELECT id, a, b FROM t WHERE id <> 2; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT"
        .to_owned()
}

fn drop_our_triggers(app: &Connection) -> Vec<String> {
    let sql =
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '\\_cdc\\_%' ESCAPE '\\'";
    let mut statement = app.prepare(sql).unwrap();
    let found =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let (names, texts): (Vec<_>, Vec<_>) = found.map(Result::unwrap).unzip();
    names.iter().for_each(|name| app.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    texts
}

#[test]
fn writes_around_dropped_triggers_are_found() {
    let mut world = Bypassed::new(Tables::All);
    let texts = drop_our_triggers(&world.app);
    world.app.execute_batch("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (9, 'new', 1)").unwrap();
    // Made again as they were: only the schema's cookie tells.
    texts.iter().for_each(|text| world.app.execute_batch(text).unwrap());
    world.app.execute_batch("UPDATE t SET b = 2 WHERE id = 9; UPDATE other SET v = 2").unwrap();
    world.look(Reconciled::Allowed);
    world.agrees(&["t", "other"]);
    assert_eq!(world.follower.reconciled, 2, "one row deleted, one inserted");
    world.write("UPDATE t SET a = 'again'", Reconciled::Never);
    world.agrees(&["t"]);
}

#[test]
fn writes_without_triggers_are_found_when_the_triggers_stay_dropped() {
    let mut world = Bypassed::new(Tables::All);
    drop_our_triggers(&world.app);
    world.write("DELETE FROM t; INSERT INTO t VALUES (1, 'one again', 1)", Reconciled::Allowed);
    world.agrees(&["t", "other"]);
    let before = world.follower.reconciled;
    world.write("UPDATE t SET a = 2", Reconciled::Allowed);
    assert_eq!(world.follower.reconciled, before, "capture is healthy again");
    world.agrees(&["t"]);
}

#[test]
fn a_rebuilt_table_is_compared_row_by_row() {
    let mut world = Bypassed::new(Tables::All);
    world.app.execute_batch(&rebuild()).unwrap();
    world.app.execute_batch("UPDATE t SET a = 'after the rebuild' WHERE id = 3").unwrap();
    world.look(Reconciled::Allowed);
    world.agrees(&["t", "other"]);
    let before = world.follower.reconciled;
    world.write("UPDATE t SET c = 2; DELETE FROM t WHERE id = 1", Reconciled::Allowed);
    assert_eq!(world.follower.reconciled, before, "capture is healthy again");
    world.agrees(&["t"]);
}

#[test]
fn every_alter_table_is_followed() {
    for (sql, tables) in [
        ("ALTER TABLE t ADD COLUMN c DEFAULT 7", &["t", "other"][..]),
        ("ALTER TABLE t ADD COLUMN g TEXT AS (a || 'g')", &["t", "other"]),
        ("ALTER TABLE t RENAME COLUMN a TO \"a\"\"b\"", &["t", "other"]),
        ("ALTER TABLE t RENAME TO \"select\"", &["select", "other"]),
        ("DROP TABLE t", &["other"]),
        (
            "DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (2, 'two', 5)",
            &["t"],
        ),
        ("DROP TABLE t; CREATE VIEW t AS SELECT 1", &["other"]),
        ("CREATE TABLE fresh(x); INSERT INTO fresh VALUES (1), (1)", &["t", "fresh"]),
        ("CREATE UNIQUE INDEX i ON t(a)", &["t"]),
        (
            "CREATE TABLE loose(a); INSERT INTO loose VALUES (1), (2), (3); DELETE FROM loose WHERE a < 3; VACUUM",
            &["loose"],
        ),
    ] {
        let mut world = Bypassed::new(Tables::All);
        world.app.execute_batch(sql).unwrap();
        // Before anybody looks.
        world.app.execute_batch(&format!("UPDATE \"{0}\" SET rowid = rowid WHERE 0", "t")).ok();
        world.look(Reconciled::Allowed);
        world.agrees(tables);
        let before = world.follower.reconciled;
        let table = tables[0];
        let column: String = world
            .app
            .query_row(&format!("SELECT name FROM pragma_table_info('{table}') WHERE pk = 0"), [], |row| {
                row.get(0)
            })
            .unwrap();
        let column = column.replace('"', "\"\"");
        world.write(
            &format!("UPDATE \"{table}\" SET \"{column}\" = \"{column}\" || 'x'"),
            Reconciled::Allowed,
        );
        assert_eq!(world.follower.reconciled, before, "{sql}: capture is healthy again");
        world.agrees(tables);
        if sql.starts_with("DROP TABLE t") && !tables.contains(&"t") {
            assert_eq!(world.follower.fold.collection(&id(), "t").count(), 0, "{sql}");
        }
    }
}

#[test]
fn row_ids_that_vacuum_renumbers_are_found() {
    let mut world = Bypassed::new(Tables::All);
    world.write("CREATE TABLE loose(a); INSERT INTO loose VALUES (1), (2), (3)", Reconciled::Never);
    world.write("DELETE FROM loose WHERE a < 3", Reconciled::Never);
    world.write("VACUUM", Reconciled::Allowed);
    world.write("UPDATE loose SET a = 4", Reconciled::Allowed);
    world.agrees(&["loose", "t"]);
    assert_eq!(world.follower.reconciled, 2, "the row under its old id went, under its new id it came");
}

#[test]
fn making_other_tables_costs_no_comparison() {
    let mut world = Bypassed::new(Tables::Named(vec!["t".to_owned()]));
    let before = world.attached.log().tail();
    world.write(
        "CREATE TABLE a(x UNIQUE); CREATE INDEX i ON a(x); CREATE VIEW v AS SELECT 1",
        Reconciled::Never,
    );
    assert!(!world.app.prepare("SELECT 1 FROM _cdc_capture WHERE op = 'B'").unwrap().exists([]).unwrap());
    assert_eq!(world.attached.log().tail(), before);
}

#[test]
fn dropping_a_column_is_refused_by_sqlite_while_captured_and_followed_after_the_triggers_are_gone() {
    let mut world = Bypassed::new(Tables::All);
    let refused = world.app.execute_batch("ALTER TABLE t DROP COLUMN b").unwrap_err();
    assert!(refused.to_string().contains("_cdc_"), "{refused}");
    drop_our_triggers(&world.app);
    world.write("ALTER TABLE t DROP COLUMN b", Reconciled::Allowed);
    world.agrees(&["t", "other"]);
}

#[test]
fn a_named_table_may_go_and_come_back() {
    let mut world = Bypassed::new(Tables::Named(vec!["T".to_owned(), "t".to_owned()]));
    world.write("INSERT INTO t VALUES (7, 7, 7)", Reconciled::Never);
    world.agrees(&["t"]);
    world.write("DROP TABLE t", Reconciled::Allowed);
    assert_eq!(world.follower.fold.collection(&id(), "t").count(), 0);
    world.write("CREATE TABLE unrelated(x)", Reconciled::Allowed);
    world.write("CREATE TABLE t(id TEXT PRIMARY KEY, z); INSERT INTO t VALUES ('a', 1)", Reconciled::Allowed);
    world.write("UPDATE t SET z = 2", Reconciled::Allowed);
    world.agrees(&["t"]);
}

#[test]
fn a_user_trigger_made_after_ours_is_put_between_ours() {
    for (text, write) in [
        (
            "CREATE TRIGGER touch AFTER INSERT ON t BEGIN UPDATE t SET b = 'touched' WHERE id = NEW.id; END",
            "INSERT INTO t VALUES (5, 'five', 5)",
        ),
        (
            "CREATE TRIGGER hide AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE); END",
            "UPDATE t SET a = 'hidden' WHERE id = 1",
        ),
        (
            "CREATE TRIGGER del AFTER DELETE ON t BEGIN INSERT INTO t VALUES (OLD.id, 'undead', 0); END",
            "DELETE FROM t",
        ),
        (
            "CREATE TRIGGER chain BEFORE UPDATE ON t BEGIN UPDATE other SET v = v + 1; END",
            "UPDATE OR REPLACE t SET id = 1 WHERE id = 2",
        ),
    ] {
        let mut world = Bypassed::new(Tables::All);
        world.app.execute_batch(text).unwrap();
        world.app.execute_batch(write).unwrap();
        world.look(Reconciled::Allowed);
        world.agrees(&["t", "other"]);
        let before = world.follower.reconciled;
        world.write("INSERT OR REPLACE INTO t VALUES (6, 'six', 6), (1, 'un', 1)", Reconciled::Allowed);
        world.write("UPDATE t SET a = 'seen'", Reconciled::Allowed);
        assert_eq!(world.follower.reconciled, before, "{text}: capture is healthy again");
        world.agrees(&["t", "other"]);
    }
}

#[test]
fn a_gap_in_the_capture_rows_is_compared() {
    for delete in [
        "DELETE FROM _cdc_capture",
        "DELETE FROM _cdc_capture WHERE seq = (SELECT max(seq) FROM _cdc_capture)",
        "DELETE FROM _cdc_capture WHERE seq = (SELECT max(seq) - 1 FROM _cdc_capture)",
        "DELETE FROM _cdc_capture WHERE seq < (SELECT max(seq) FROM _cdc_capture)",
    ] {
        let mut world = Bypassed::new(Tables::All);
        world
            .app
            .execute_batch(
                "UPDATE t SET a = 'x'; UPDATE t SET b = 3 WHERE id = 2; DELETE FROM t WHERE id = 3;",
            )
            .unwrap();
        world.app.execute_batch(delete).unwrap();
        world.write(
            "INSERT INTO t VALUES (8, 8, 8); INSERT INTO other VALUES ('y', 2); UPDATE other SET v = 3",
            Reconciled::Allowed,
        );
        if delete.contains("= (SELECT max(seq) FROM") {
            // The newest rows taken away leave no gap: the next ones get their numbers. A comparison must be asked for.
            world.app.execute_batch("CREATE TRIGGER z AFTER INSERT ON t BEGIN SELECT 1; END").unwrap();
        }
        world.look(Reconciled::Allowed);
        world.agrees(&["t", "other"]);
        let before = world.follower.reconciled;
        world.write("UPDATE t SET a = 'healthy'", Reconciled::Allowed);
        assert_eq!(world.follower.reconciled, before, "{delete}");
        world.agrees(&["t"]);
    }
}

#[test]
fn a_row_that_its_own_before_trigger_writes_is_captured_as_it_is_afterwards() {
    for write in ["UPDATE t SET a = 2 WHERE id = 1", "DELETE FROM t WHERE id = 1"] {
        let mut world = Bypassed::new(Tables::All);
        let event = write.split(' ').next().unwrap();
        world
            .app
            .execute_batch(&format!(
                "CREATE TRIGGER u BEFORE {event} ON t WHEN OLD.b IS NOT 'mine' BEGIN UPDATE t SET b = 'mine' WHERE id = OLD.id; END"
            ))
            .unwrap();
        world.look(Reconciled::Allowed);
        world.app.execute_batch(write).unwrap();
        while world.attached.look().unwrap().drained.more {}
        // SQLite shows the outer statement's triggers what the row was before the inner one.
        let (verified, fold) = world.attached.log().verify().unwrap();
        assert_eq!(verified.broken_chains, 1, "{write}");
        assert_agrees(&world.app, &fold, "t");
        assert_eq!(world.attached.compare_rows(&fold).unwrap(), None, "{write}");
    }
}

#[test]
fn capture_rows_that_do_not_fit_each_other_are_compared() {
    for change in ["SET op = '+' WHERE op = 'I'", "SET op = 'I' WHERE op = '+'"] {
        let mut world = Bypassed::new(Tables::All);
        let columns = (0..100).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        world.write(&format!("CREATE TABLE wide(k PRIMARY KEY, {columns})"), Reconciled::Never);
        world
            .app
            .execute_batch(
                "INSERT INTO wide(k, c99) VALUES ('a', 1), ('b', 2); INSERT INTO other VALUES ('y', 2); UPDATE other SET v = 3",
            )
            .unwrap();
        let changed =
            format!("UPDATE _cdc_capture {change} AND seq > (SELECT max(seq) - 7 FROM _cdc_capture)");
        assert!(world.app.execute(&changed, []).unwrap() > 0);
        world.look(Reconciled::Allowed);
        world.agrees(&["wide", "other", "t"]);
        let before = world.follower.reconciled;
        assert!(before > 0, "{change}");
        world.write("UPDATE wide SET c5 = 7", Reconciled::Never);
        assert_eq!(world.follower.reconciled, before, "{change}");
        world.agrees(&["wide"]);
    }
}

#[test]
fn capture_taken_out_by_hand_is_installed_again() {
    let mut world = Bypassed::new(Tables::All);
    drop_our_triggers(&world.app);
    world.app.execute_batch("DROP TABLE _cdc_capture; UPDATE t SET a = 'unseen'").unwrap();
    world.look(Reconciled::Allowed);
    world.agrees(&["t", "other"]);
    world.write("UPDATE t SET a = 'seen'", Reconciled::Allowed);
    world.agrees(&["t"]);
}

#[test]
fn a_capture_table_that_was_dropped_is_made_as_wide_as_it_was() {
    let mut world = Bypassed::new(Tables::All);
    let values = (0..9).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    world.write(&format!("CREATE TABLE wide(k PRIMARY KEY, {values})"), Reconciled::Never);
    world.write("INSERT INTO wide(k, c8) VALUES ('a', 1)", Reconciled::Never);
    // The triggers stay as they are.
    world.write("DROP TABLE _cdc_capture", Reconciled::Allowed);
    // A connection that compiles a write with a trigger does not notice by that that its schema is old.
    world.app.query_row("SELECT count(*) FROM wide", [], |_| Ok(())).unwrap();
    world.write("INSERT INTO wide(k, c8) VALUES ('b', 2); UPDATE wide SET c0 = 'seen'", Reconciled::Allowed);
    world.agrees(&["t", "other", "wide"]);
}

#[test]
fn a_dropped_table_is_gone_also_when_its_name_begins_as_our_keys_do() {
    let mut world = Bypassed::new(Tables::All);
    world.write(
        r#"CREATE TABLE "schema/u"(k INTEGER PRIMARY KEY); INSERT INTO "schema/u" VALUES (1)"#,
        Reconciled::Never,
    );
    assert_eq!(world.follower.fold.collection(&id(), "schema/u").count(), 1);
    world.write(r#"DROP TABLE "schema/u""#, Reconciled::Allowed);
    assert_eq!(world.follower.fold.collection(&id(), "schema/u").count(), 0);
}

#[test]
fn healing_before_the_first_drain_does_not_snapshot_twice() {
    let folder = folder();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch(SCHEMA).unwrap();
    let mut attached =
        Attached::open(&path, &folder.path().join("log"), &id(), Tables::All, &clock()).unwrap();
    assert_eq!(attached.install().unwrap().installed.rows, 4);
    app.execute_batch("CREATE TRIGGER u AFTER UPDATE ON t BEGIN SELECT 1; END; UPDATE t SET a = 1").unwrap();
    let look = attached.look().unwrap();
    assert_eq!((look.healed.unwrap().rows, look.drained.reconciled), (0, 0));
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(&app, &follower.fold, "t");
}

#[test]
fn tables_no_longer_named_are_let_go_and_taken_up_again_without_losing_their_history() {
    let mut world = Bypassed::new(Tables::Named(vec!["t".to_owned(), "other".to_owned()]));
    let (path, log) = (world.attached.database().to_owned(), world.attached.log().path().to_owned());
    let open = |tables: &[&str]| {
        let tables = Tables::Named(tables.iter().map(|table| (*table).to_owned()).collect());
        Attached::open(&path, &log, &id(), tables, &clock()).unwrap()
    };
    world.attached = open(&["t"]);
    world.attached.install().unwrap();
    world.write("UPDATE other SET v = 'unseen'; UPDATE t SET b = 'seen'", Reconciled::Never);
    world.agrees(&["t"]);
    world.attached = open(&["t", "other"]);
    world.attached.install().unwrap();
    world.look(Reconciled::Allowed);
    world.agrees(&["t", "other"]);
}

/// Who knows the column by its old name cannot read it.
const RENAMED: &str = "ALTER TABLE t RENAME COLUMN a TO z";

#[test]
fn an_attached_table_that_was_altered_just_now_is_no_difference() {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    app.execute_batch("INSERT INTO t VALUES (1, 'one')").unwrap();
    let found = |attached: &mut Attached| {
        attached
            .at_rest(|log, compare| compare(&log.verify()?.1))
            .unwrap()
            .map(|row| row.map(|row| row.to_string()))
    };
    assert_eq!(found(&mut attached), None, "a row waits");
    while attached.look().unwrap().drained.more {}
    assert_eq!(found(&mut attached), Some(None));
    app.execute_batch(RENAMED).unwrap();
    assert_eq!(found(&mut attached), None);
    while attached.look().unwrap().drained.more {}
    assert_eq!(found(&mut attached), Some(None));
}

#[test]
fn an_owned_table_that_another_process_altered_is_no_difference_and_captured_anew() {
    type Owner = fn(&mut Log);
    let owners: [(&str, Owner); 3] = [
        ("a write", |log| {
            log.write(|tx| tx.execute("INSERT INTO t VALUES (2, 'two')", []).map(drop)).unwrap()
        }),
        ("an audit", |log| while log.audit().unwrap().more {}),
        ("healing", |log| assert!(!log.heal().unwrap().more)),
    ];
    for (name, owner) in owners {
        let folder = folder();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, &id(), &clock()).unwrap();
        log.write(|tx| tx.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")).unwrap();
        log.capture(&Tables::All).unwrap();
        log.write(|tx| tx.execute("INSERT INTO t VALUES (1, 'one')", []).map(drop)).unwrap();
        let found = |log: &mut Log| {
            log.at_rest(|log, compare| compare(&log.verify()?.1))
                .unwrap()
                .map(|row| row.map(|row| row.to_string()))
        };
        assert_eq!(found(&mut log), Some(None), "{name}");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(RENAMED).unwrap();
        assert_eq!(found(&mut log), None, "{name}");
        owner(&mut log);
        app.execute_batch("INSERT INTO t(id, z) VALUES (3, 'three')").unwrap();
        log.heal().unwrap();
        assert_eq!(found(&mut log), Some(None), "{name}");
        let mut follower = Follower::default();
        follower.follow(&log, Reconciled::Never);
        assert_agrees(&app, &follower.fold, "t");
    }
}

/// Changes of rows of capture that wait to be drained; `?` stands for the condition that chooses them.
const EDITS: [&str; 22] = [
    "UPDATE _cdc_capture SET op = NULL WHERE ?",
    "UPDATE _cdc_capture SET op = 7 WHERE ?",
    "UPDATE _cdc_capture SET op = 'X' WHERE ?",
    "UPDATE _cdc_capture SET op = x'49' WHERE ?",
    "UPDATE _cdc_capture SET op = 'A' WHERE ?",
    "UPDATE _cdc_capture SET op = 'A', tbl = 0 WHERE ?",
    "UPDATE _cdc_capture SET op = 'T' WHERE ?",
    "UPDATE _cdc_capture SET op = 'E', tbl = 0 WHERE ?",
    "UPDATE _cdc_capture SET op = '+' WHERE ?",
    "UPDATE _cdc_capture SET tbl = NULL WHERE ?",
    "UPDATE _cdc_capture SET tbl = 99 WHERE ?",
    "UPDATE _cdc_capture SET tbl = 'one' WHERE ?",
    "UPDATE _cdc_capture SET tbl = 1.5 WHERE ?",
    "UPDATE _cdc_capture SET nonce = NULL WHERE ?",
    "UPDATE _cdc_capture SET nonce = 'once' WHERE ?",
    "UPDATE _cdc_capture SET ts = NULL, op = NULL, tbl = NULL, nonce = NULL WHERE ?",
    "UPDATE _cdc_capture SET op = NULL WHERE ?; DELETE FROM _cdc_meta WHERE key <> 'format'",
    "UPDATE _cdc_capture SET op = NULL WHERE ?; UPDATE _cdc_meta SET value = NULL WHERE key IN ('barrier', 'trims')",
    "DELETE FROM _cdc_table WHERE (SELECT count(*) FROM _cdc_capture WHERE ?)",
    "UPDATE _cdc_table SET shape = '{}' WHERE (SELECT count(*) FROM _cdc_capture WHERE ?)",
    "UPDATE _cdc_table SET version = NULL WHERE (SELECT count(*) FROM _cdc_capture WHERE ?)",
    "DELETE FROM _cdc_table WHERE (SELECT count(*) FROM _cdc_capture WHERE ?); UPDATE _cdc_capture SET nonce = NULL",
];

/// Of the rows after the one that was drained last: the first, one between, the last, all.
const CHOICES: [&str; 4] = [
    "seq = (SELECT min(seq) + 1 FROM _cdc_capture)",
    "seq = (SELECT max(seq) - 2 FROM _cdc_capture)",
    "seq = (SELECT max(seq) FROM _cdc_capture)",
    "seq > (SELECT min(seq) FROM _cdc_capture)",
];

const WRITES: &str = "UPDATE t SET a = 'x'; INSERT OR REPLACE INTO t VALUES (2, 'again', 4), (4, 'four', 4);
    DELETE FROM t WHERE id = 3; UPDATE t SET b = 5 WHERE id = 1; INSERT INTO other VALUES ('y', 2);
    UPDATE other SET v = 3; DELETE FROM other WHERE k = 'x';";

#[test]
fn edited_rows_of_capture_are_passed_over_and_compared() {
    for (edit, choice) in EDITS.iter().flat_map(|edit| CHOICES.map(|choice| (edit, choice))) {
        for reopened in [false, true] {
            let mut world = Bypassed::new(Tables::All);
            let drained = "DELETE FROM _cdc_capture WHERE seq < (SELECT max(seq) FROM _cdc_capture)";
            world.app.execute_batch(drained).unwrap();
            world.app.execute_batch(WRITES).unwrap();
            let edit = edit.replace('?', choice);
            world.app.execute_batch(&edit).unwrap();
            if reopened {
                let (path, log) =
                    (world.attached.database().to_owned(), world.attached.log().path().to_owned());
                world.attached = Attached::open(&path, &log, &id(), Tables::All, &clock()).unwrap();
                world.attached.install().unwrap();
            }
            world.look(Reconciled::Allowed);
            world.agrees(&["t", "other"]);
            let before = world.follower.reconciled;
            assert!(before > 0, "{edit}");
            world.write("UPDATE t SET a = 'healthy'; INSERT INTO other VALUES ('z', 1)", Reconciled::Allowed);
            assert_eq!(world.follower.reconciled, before, "{edit}: capture is healthy again");
            world.agrees(&["t", "other"]);
            world.attached.detach().unwrap();
            world.app.execute_batch("UPDATE t SET a = 'alone'; DELETE FROM other").unwrap();
        }
    }
}

#[test]
fn rows_of_capture_that_were_moved_or_share_a_nonce_lose_nothing() {
    for edit in [
        "UPDATE _cdc_capture SET seq = seq + 1000 WHERE ?",
        "UPDATE _cdc_capture SET nonce = (SELECT nonce FROM _cdc_capture ORDER BY seq LIMIT 1) WHERE ?",
        "UPDATE _cdc_capture SET nonce = 0 WHERE ?",
        "UPDATE _cdc_capture SET nonce = NULL WHERE seq = (SELECT min(seq) FROM _cdc_capture)",
        "UPDATE _cdc_capture SET seq = -1 WHERE seq = (SELECT min(seq) FROM _cdc_capture)",
        "UPDATE _cdc_capture SET seq = -9223372036854775808 WHERE seq = (SELECT min(seq) FROM _cdc_capture)",
    ] {
        for choice in CHOICES {
            let mut world = Bypassed::new(Tables::All);
            world
                .app
                .execute_batch("DELETE FROM _cdc_capture WHERE seq < (SELECT max(seq) FROM _cdc_capture)")
                .unwrap();
            world.app.execute_batch(WRITES).unwrap();
            let edit = edit.replace('?', choice);
            world.app.execute_batch(&edit).unwrap();
            world.look(Reconciled::Allowed);
            world.agrees(&["t", "other"]);
            world.attached.trim().unwrap();
            let before = world.follower.reconciled;
            world.write("UPDATE t SET a = 'healthy'; INSERT INTO other VALUES ('z', 1)", Reconciled::Allowed);
            assert_eq!(world.follower.reconciled, before, "{edit}: capture is healthy again");
            world.agrees(&["t", "other"]);
        }
    }
}

#[test]
fn edited_rows_of_an_owned_object_are_passed_over_and_compared() {
    for (edit, choice) in EDITS.iter().flat_map(|edit| CHOICES.map(|choice| (edit, choice))) {
        let folder = folder();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, &id(), &clock()).unwrap();
        log.write(|tx| tx.execute_batch(SCHEMA)).unwrap();
        log.capture(&Tables::All).unwrap();
        drop(log);
        let app = Connection::open(&path).unwrap();
        app.execute_batch("INSERT INTO t VALUES (9, 9, 9)").unwrap();
        app.execute_batch(WRITES).unwrap();
        let edit = edit.replace('?', choice).replace("key <> 'format'", "key = 'barrier'");
        app.execute_batch(&edit).unwrap();
        let mut log = Log::open(&path, &id(), &clock()).unwrap();
        log.write(|tx| tx.execute("INSERT INTO t VALUES (8, 'eight', 8)", []).map(drop)).unwrap();
        let mut follower = Follower::default();
        follower.follow(&log, Reconciled::Allowed);
        while log.heal().unwrap().more {}
        follower.follow(&log, Reconciled::Allowed);
        let before = follower.reconciled;
        assert!(before > 0, "{edit}");
        log.write(|tx| tx.execute_batch("UPDATE t SET a = 'healthy'; INSERT INTO other VALUES ('z', 1)"))
            .unwrap();
        follower.follow(&log, Reconciled::Allowed);
        assert_eq!(follower.reconciled, before, "{edit}: capture is healthy again");
        assert_agrees(&app, &follower.fold, "t");
        assert_agrees(&app, &follower.fold, "other");
    }
}
