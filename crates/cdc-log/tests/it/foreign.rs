//! Other programs write the database while it is looked at: the `sqlite3` shell and Python, each with a SQLite of
//! its own.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cdc_log::{Attached, Tables};
use rusqlite::{Connection, ErrorCode};

use crate::witness::{Follower, Reconciled, assert_agrees, attach, clock, folder, id};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT COLLATE NOCASE UNIQUE);
    CREATE TABLE w(k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID;";

/// What each foreign program runs, `{n}` standing for a number of its own.
const STATEMENTS: [&str; 8] = [
    "INSERT OR REPLACE INTO t VALUES ({n} % 17, {n} * 1.5, 'b' || ({n} % 5));",
    "INSERT INTO t(a, b) VALUES (x'00ff', 'é' || {n}) ON CONFLICT DO NOTHING;",
    "INSERT INTO w VALUES ('K' || ({n} % 7), {n}) ON CONFLICT(k) DO UPDATE SET v = excluded.v;",
    "REPLACE INTO w VALUES ('k' || ({n} % 7), -{n});",
    "UPDATE OR REPLACE t SET b = 'b' || ({n} % 3) WHERE id % 3 = 1;",
    "DELETE FROM t WHERE id = {n} % 23;",
    "BEGIN IMMEDIATE; UPDATE t SET a = 9007199254740993; DELETE FROM w; ROLLBACK;",
    "BEGIN IMMEDIATE; INSERT INTO t(a) VALUES (9e999); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT;",
];

fn script(seed: u32, rounds: u32) -> String {
    let number = |round: u32| (round * 7919 + seed * 104_729) % 1000;
    let statement = |round: u32| {
        STATEMENTS[usize::try_from(round).unwrap() % STATEMENTS.len()]
            .replace("{n}", &number(round).to_string())
    };
    (0..rounds).map(statement).collect::<Vec<_>>().join("\n")
}

fn is_here(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Starts the shell with a script. Without a timeout it fails at once when somebody else holds the lock.
fn shell(database: &Path, script: &str, timeout_ms: u32) -> Child {
    let mut child = Command::new("sqlite3")
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, ".timeout {timeout_ms}\nPRAGMA trusted_schema=OFF;\nPRAGMA foreign_keys=ON;\n{script}")
        .unwrap();
    child
}

fn python(database: &Path, script: &str) -> Child {
    let program = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)\n\
        c.execute('PRAGMA trusted_schema=OFF')\n\
        c.execute('PRAGMA recursive_triggers=ON')\n\
        for line in sys.stdin:\n    c.executescript(line)\n";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child
}

/// The programs that are here; at least Python must be.
fn writers() -> Vec<fn(&Path, &str) -> Child> {
    let mut writers: Vec<fn(&Path, &str) -> Child> = Vec::new();
    if is_here("sqlite3") {
        writers.push(|database, script| shell(database, script, 10_000));
    } else {
        eprintln!("the sqlite3 shell is not installed: Python alone writes");
    }
    assert!(is_here("python3"), "neither the sqlite3 shell nor Python may be missing silently");
    writers.push(python);
    writers
}

#[test]
fn foreign_processes_write_while_looks_and_trims_go_on() {
    for journal in ["wal", "delete"] {
        let folder = folder();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).unwrap();
        app.execute_batch(SCHEMA).unwrap();
        drop(app);
        let mut attached =
            Attached::open(&path, &folder.path().join("log"), &id(), Tables::All, &clock()).unwrap();
        attached.install().unwrap();
        let mut children: Vec<Child> = writers()
            .iter()
            .enumerate()
            .map(|(at, start)| start(&path, &script(u32::try_from(at).unwrap(), 300)))
            .collect();
        let (mut looks, mut trimmed) = (0, 0);
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            attached.look().unwrap();
            trimmed += attached.trim().unwrap().rows();
            looks += 1;
            // As an engine does; without a pause a look holds the lock whenever a writer asks for it.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
        while attached.look().unwrap().drained.more {}
        let mut follower = Follower::default();
        follower.follow(attached.log(), Reconciled::Never);
        let app = Connection::open(&path).unwrap();
        assert_agrees(&app, &follower.fold, "t");
        assert_agrees(&app, &follower.fold, "w");
        eprintln!("{journal}: {looks} looks, {trimmed} trimmed, {} records", attached.log().tail().sequence);
    }
}

/// Hardly ever: a reader that meets the header of the WAL half written takes the write lock for a moment, to read it again.
#[test]
fn a_writer_without_a_timeout_is_hardly_ever_kept_out_by_quiet_looks() {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), SCHEMA);
    app.busy_timeout(std::time::Duration::ZERO).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let write = |n: i64| app.execute("INSERT OR REPLACE INTO t VALUES (?1 % 100, ?1, ?1)", [n]);
    let is_busy = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
    let mut kept_out = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                attached.look().unwrap();
            }
        });
        let written = (0..2000).try_for_each(|n| {
            let mut written = write(n);
            while written.as_ref().is_err_and(is_busy) && kept_out < 5 {
                kept_out += 1;
                written = write(n);
            }
            written.map(drop)
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        written.unwrap();
    });
    while attached.look().unwrap().drained.more {}
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(&app, &follower.fold, "t");
}

#[test]
fn a_look_leaves_no_files_behind_and_takes_none_away() {
    let folder = folder();
    let path = folder.path().join("app.db");
    let beside = |suffix: &str| folder.path().join(format!("app.db{suffix}")).exists();
    let app = Connection::open(&path).unwrap();
    app.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).unwrap();
    app.execute_batch(SCHEMA).unwrap();
    let mut attached =
        Attached::open(&path, &folder.path().join("log"), &id(), Tables::All, &clock()).unwrap();
    attached.install().unwrap();
    app.execute("INSERT INTO t VALUES (1, 1, 1)", []).unwrap();
    attached.look().unwrap();
    assert!(beside("-wal"), "the application still has it open");
    drop(app);
    assert!(!beside("-wal") && !beside("-shm"));
    for _ in 0..3 {
        attached.look().unwrap();
        attached.trim().unwrap();
        assert!(!beside("-wal") && !beside("-shm") && !beside("-journal"));
    }
}

#[test]
fn a_look_while_the_application_holds_the_write_lock_reads_what_is_committed() {
    let folder = folder();
    let (app, mut attached) = attach(folder.path(), SCHEMA);
    attached.look().unwrap();
    app.execute("INSERT INTO t VALUES (1, 1, 1)", []).unwrap();
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2, 2, 2)").unwrap();
    assert_eq!(attached.look().unwrap().drained.records, 1);
    assert_eq!(attached.trim().unwrap().rows(), 0);
    app.execute_batch("ROLLBACK").unwrap();
    assert_eq!(attached.look().unwrap().drained.records, 0);
}
