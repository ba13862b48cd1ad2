//! Processes killed while they write, drain and trim, again and again: of what they had acknowledged nothing is lost
//! and nothing is doubled. `CDC_KILLS=1000 cargo test -p cdc-log --test it kills_under_load -- --nocapture` is the long run.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cdc_log::{Log, Tables};
use rusqlite::Connection;

use crate::ledger::{self, Ledger, attached};
use crate::random::Random;
use crate::witness::{clock, folder, id};

const WORK: &str = "CDC_LOAD_WORK";
const FOLDER: &str = "CDC_LOAD_FOLDER";

/// Kills of a history; then another begins, so that checking all of it after each kill stays cheap.
const KILLS_PER_HISTORY: usize = 50;

/// A child lives for at most this long once it works.
const LIFE_MAX: Duration = Duration::from_millis(60);

/// After so many rows a child opens its files again.
const ROWS_PER_HANDLE: i64 = 61;

/// SIGKILLs in all.
fn kills() -> usize {
    std::env::var("CDC_KILLS").map_or(16, |kills| kills.parse().unwrap())
}

/// What a child does; nothing when it is run as a test.
#[test]
fn child() {
    let Ok(work) = std::env::var(WORK) else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    match work.as_str() {
        "owned" => write_owned(&folder),
        "application" => write_as_an_application(&folder),
        _ => drain(&folder),
    }
}

fn write_owned(folder: &Path) {
    loop {
        let mut log = Log::open(folder.join("log"), &id(), &clock()).unwrap();
        log.make_durable().unwrap();
        log.drain().unwrap();
        let first = log.query(|conn| Ok(ledger::next(conn))).unwrap();
        println!("ready");
        for n in first..first + ROWS_PER_HANDLE {
            log.write(|tx| tx.execute_batch(&ledger::statements(n))).unwrap();
            println!("written {n}");
        }
    }
}

/// Plain SQLite, which knows nothing of us.
fn write_as_an_application(folder: &Path) {
    let app = Connection::open(folder.join("app.db")).unwrap();
    app.busy_timeout(Duration::from_secs(10)).unwrap();
    println!("ready");
    for n in ledger::next(&app).. {
        app.execute_batch(&format!("BEGIN IMMEDIATE; {}; COMMIT", ledger::statements(n))).unwrap();
        println!("written {n}");
        // Without a moment in between nobody else would come to read.
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn drain(folder: &Path) {
    println!("ready");
    loop {
        let mut attached = match ledger::open_attached(folder) {
            // The application writes on and on; who reads comes late.
            Err(error) if error.is_busy() => continue,
            attached => attached.unwrap(),
        };
        for _ in 0..20 {
            match attached.look() {
                Err(error) if error.is_busy() => {}
                look => drop(look.unwrap()),
            }
            attached.trim().unwrap();
        }
    }
}

fn start(work: &str, folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills_under_load::child", "--nocapture"])
        .env(WORK, work)
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let output = child.stdout.as_mut().unwrap();
    let mut line = String::new();
    // One byte at a time, so that nothing beyond the line is taken.
    while !line.ends_with("ready\n") {
        let mut byte = [0];
        std::io::Read::read_exact(output, &mut byte).unwrap();
        line.push(char::from(byte[0]));
    }
    child
}

/// Kills a child, which must not have ended by itself, and notes what it had acknowledged.
fn kill(mut child: Child, ledger: &mut Ledger) {
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9), "{ended:?}");
    let output = BufReader::new(child.stdout.take().unwrap());
    // A line that was cut short was not told whole.
    for line in output.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8(line).unwrap();
        if let Some(n) = line.strip_prefix("written ") {
            ledger.acknowledge(n.parse().unwrap());
        }
    }
}

fn wait(random: &mut Random) {
    let micros = u64::try_from(LIFE_MAX.as_micros()).unwrap();
    std::thread::sleep(Duration::from_micros(random.next() % micros));
}

/// A folder in memory and one on the disk in turns, where syncs take their time.
fn folder_of(history: usize) -> tempfile::TempDir {
    if history.is_multiple_of(2) { folder() } else { tempfile::tempdir().unwrap() }
}

/// Runs histories until there were so many kills; each round of one kills some processes and gives how many.
fn histories(
    kind: &str,
    kills: usize,
    begin: impl Fn(&Path, usize),
    round: impl Fn(&Path, &mut Random, &mut Ledger) -> usize,
) {
    let mut random = Random::new(29);
    let (mut killed, mut history, mut acknowledged, mut events) = (0, 0, 0, 0);
    while killed < kills {
        let folder = folder_of(history);
        begin(folder.path(), history);
        history += 1;
        let mut ledger = Ledger::default();
        let until = (killed + KILLS_PER_HISTORY).min(kills);
        while killed < until {
            killed += round(folder.path(), &mut random, &mut ledger);
        }
        acknowledged += ledger.acknowledged();
        events += ledger.events();
    }
    eprintln!(
        "{kind}: {killed} SIGKILLs in {history} histories, {acknowledged} acknowledged writes, {events} events, 0 lost, 0 doubled"
    );
    assert!(acknowledged > kills, "the processes hardly wrote: {acknowledged}");
}

#[test]
fn an_owned_object_loses_and_doubles_nothing_it_acknowledged() {
    let begin = |folder: &Path, _| {
        let mut log = Log::open(folder.join("log"), &id(), &clock()).unwrap();
        log.write(|tx| tx.execute_batch(ledger::SCHEMA)).unwrap();
        log.capture(&Tables::All).unwrap();
    };
    histories("owned", kills() / 2, begin, |folder, random, ledger| {
        let child = start("owned", folder);
        wait(random);
        kill(child, ledger);
        let mut log = Log::open(folder.join("log"), &id(), &clock()).unwrap();
        log.drain().unwrap();
        let tables = Connection::open(folder.join("log")).unwrap();
        ledger.check(&log, &tables);
        1
    });
}

#[test]
fn an_attached_database_and_its_log_lose_and_double_nothing_that_was_acknowledged() {
    let begin = |folder: &Path, history: usize| {
        let app = Connection::open(folder.join("app.db")).unwrap();
        let mode = ["wal", "delete", "truncate"][history % 3];
        app.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
        app.execute_batch(ledger::SCHEMA).unwrap();
        attached(folder).install().unwrap();
    };
    histories("attached", kills() / 2, begin, |folder, random, ledger| {
        let mut children = [start("application", folder), start("engine", folder)];
        if random.one_in(2) {
            children.reverse();
        }
        for child in children {
            wait(random);
            kill(child, ledger);
        }
        let mut attached = attached(folder);
        while attached.look().unwrap().drained.more {}
        let app = Connection::open(folder.join("app.db")).unwrap();
        ledger.check(attached.log(), &app);
        2
    });
}
