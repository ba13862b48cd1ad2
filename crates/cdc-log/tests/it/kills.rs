//! Processes killed in the middle: a child (this test binary run again) works, the parent kills it and looks at what
//! is left.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cdc_log::{Attached, Limit, Log, Tables};
use cdc_model::{Sequence, Tag};
use rusqlite::Connection;

use crate::random::Random;
use crate::witness::{Follower, Reconciled, assert_agrees, clock, folder, id};

const WORK: &str = "CDC_CHILD_WORK";
const FOLDER: &str = "CDC_CHILD_FOLDER";

fn attached(folder: &Path) -> Attached {
    Attached::open(&folder.join("app.db"), &folder.join("log"), &id(), Tables::All, &clock()).unwrap()
}

/// What a child does; nothing when it is run as a test.
#[test]
fn child() {
    let Ok(work) = std::env::var(WORK) else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    println!("ready");
    match work.as_str() {
        "install" => drop(attached(&folder).install().unwrap()),
        "look" => {
            let mut attached = attached(&folder);
            loop {
                attached.look().unwrap();
                attached.trim().unwrap();
            }
        }
        _ => {
            let mut log = Log::open(folder.join("log"), &id(), &clock()).unwrap();
            loop {
                let next = log.tail().sequence.get() + 1;
                log.write(|tx| {
                    tx.execute_batch("INSERT INTO t(a) VALUES (1); UPDATE t SET a = a + 1 WHERE id % 7 = 0")
                })
                .unwrap();
                println!("written {next}");
            }
        }
    }
}

fn start(work: &str, folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--nocapture"])
        .env(WORK, work)
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.as_mut().unwrap();
    // One byte at a time, so that nothing beyond the line is taken.
    while !line.ends_with("ready\n") {
        let mut byte = [0];
        std::io::Read::read_exact(output, &mut byte).unwrap();
        line.push(char::from(byte[0]));
    }
    child
}

/// Kills a child and gives what it had printed.
fn kill(mut child: Child) -> Vec<String> {
    child.kill().unwrap();
    child.wait().unwrap();
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).collect()
}

fn ours(app: &Connection) -> i64 {
    let sql = "SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_cdc\\_%' ESCAPE '\\'";
    app.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn an_install_that_is_killed_leaves_all_or_nothing() {
    const ROWS: u64 = 30_000;
    let mut random = Random::new(7);
    let (mut whole, mut nothing) = (0, 0);
    for round in 0..14 {
        let folder = folder();
        let app = Connection::open(folder.path().join("app.db")).unwrap();
        app.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).unwrap();
        app.execute_batch(&format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {ROWS})
             INSERT INTO t SELECT x, 'value ' || x FROM n; INSERT INTO w VALUES (1, 2)"
        ))
        .unwrap();
        let child = start("install", folder.path());
        std::thread::sleep(Duration::from_micros(random.next() % (1_000 * (round + 1))));
        kill(child);
        match ours(&app) {
            0 => nothing += 1,
            _ => whole += 1,
        }
        let capture = app.query_row("SELECT count(*) FROM _cdc_capture", [], |row| row.get::<_, u32>(0));
        assert!(capture.is_err() || capture == Ok(3), "{capture:?}");
        app.execute("INSERT INTO t VALUES (0, 'later')", []).unwrap();
        let mut attached = attached(folder.path());
        attached.install().unwrap();
        while attached.look().unwrap().drained.more {}
        let mut follower = Follower::default();
        follower.follow(attached.log(), Reconciled::Never);
        assert_eq!(attached.log().tail().sequence.get(), ROWS + 4, "every row once, two schemas");
        assert_agrees(&app, &follower.fold, "t");
    }
    eprintln!("{nothing} killed before the commit, {whole} after it");
    assert!(nothing > 0);
}

#[test]
fn looks_and_trims_that_are_killed_lose_and_double_nothing() {
    let mut random = Random::new(11);
    let folder = folder();
    let app = Connection::open(folder.path().join("app.db")).unwrap();
    app.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).unwrap();
    app.busy_timeout(Duration::from_secs(10)).unwrap();
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); CREATE TABLE loose(x)").unwrap();
    attached(folder.path()).install().unwrap();
    for _ in 0..25 {
        let child = start("look", folder.path());
        for _ in 0..random.below(60) {
            let n = random.below(50);
            app.execute_batch(&format!(
                "BEGIN; INSERT OR REPLACE INTO t VALUES ({n}, {}); DELETE FROM t WHERE id = {}; INSERT INTO loose VALUES ({n}); \
                 UPDATE loose SET x = x + 1 WHERE rowid % 11 = {}; COMMIT",
                random.below(20),
                random.below(50),
                n % 11,
            ))
            .unwrap();
        }
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        kill(child);
    }
    let mut attached = attached(folder.path());
    while attached.look().unwrap().drained.more {}
    let mut follower = Follower::default();
    follower.follow(attached.log(), Reconciled::Never);
    assert_agrees(&app, &follower.fold, "t");
    assert_agrees(&app, &follower.fold, "loose");
    attached.log().verify().unwrap();
    let log = Connection::open(attached.log().path()).unwrap();
    // The last record of a capture row names it.
    let sql = "SELECT count(capture) - count(DISTINCT capture), count(capture) - count(DISTINCT nonce) FROM _cdc_log";
    let doubled: (i64, i64) = log.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(doubled, (0, 0));
    eprintln!("{} records", attached.log().tail().sequence);
    assert!(
        app.query_row("SELECT min(seq) FROM _cdc_capture", [], |row| row.get::<_, i64>(0)).unwrap() > 1,
        "something was trimmed"
    );
}

#[test]
fn writes_that_were_acknowledged_before_a_kill_are_in_the_log() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    log.write(|tx| tx.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")).unwrap();
    log.capture(&Tables::All).unwrap();
    drop(log);
    for round in 0..10 {
        let child = start("write", folder.path());
        std::thread::sleep(Duration::from_millis(20 + 7 * round));
        let printed = kill(child);
        let written =
            printed.iter().filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok()).next_back();
        let log = Log::open(&path, &id(), &clock()).unwrap();
        assert!(log.tail().sequence.get() >= written.unwrap_or_default());
        let (verified, fold) = log.verify().unwrap();
        assert_eq!(verified.broken_chains, 0);
        assert_eq!(log.compare_rows(&fold).unwrap(), None);
        let tagged = log.read(Sequence::ZERO, Limit { records: usize::MAX, bytes: usize::MAX }).unwrap();
        assert!(
            tagged.iter().all(|record| record
                .body
                .change()
                .unwrap()
                .is_none_or(|c| c.tag != Some(Tag::Reconciled)))
        );
    }
}
