//! Random schemas and random SQL: what the log adds up to is what the tables hold, after every transaction.

use std::path::Path;
use std::time::{Duration, Instant};

use cdc_log::{Attached, Error, Log, Tables};
use rusqlite::{Connection, ErrorCode};

use crate::random::Random;
use crate::statements::{statement, transaction};
use crate::tables::{Features, Table, table, trigger};
use crate::witness::{Follower, Reconciled, assert_agrees, clock, folder, id, live_rows};

/// What a run did.
#[derive(Debug, Default)]
struct Counts {
    worlds: u64,
    transactions: u64,
    statements: u64,
    refused: u64,
    records: u64,
}

/// Tables whose first one is referenced by the second, with user triggers.
fn schema(random: &mut Random, wide: bool) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for at in 0..1 + random.below(3) {
        let parent = tables.first().filter(|_| random.one_in(2)).cloned();
        let width = (wide && at == 0).then_some(1200);
        tables.push(table(random, at, parent.as_ref(), width, Features::CURRENT));
    }
    for at in 0..tables.len() {
        for number in 0..random.below(3) {
            // Only towards the first table, so that triggers do not call each other without end.
            let mut audit = tables[random.below(at + 1)].clone();
            if tables[at].sql[0].contains("REFERENCES") {
                // A cascade of a REPLACE whose triggers write the replaced table again is a hole: what they insert
                // may be replaced by the same statement, which no trigger sees.
                audit = tables[at].clone();
            }
            let text = trigger(random, Features::CURRENT, &tables[at], &audit, at * 10 + number);
            tables[at].triggers.push(text);
        }
    }
    tables
}

/// The statements of one transaction.
fn statements(random: &mut Random, tables: &[Table]) -> Vec<String> {
    let next = |random: &mut Random| statement(random, tables, Features::CURRENT).literal(random);
    transaction(random, 6, next, str::to_owned)
}

/// The tables as they are, with the triggers they shall have.
fn read(conn: &Connection, tables: &[Table]) -> Vec<Table> {
    let read = |table: &Table| Table { triggers: table.triggers.clone(), ..Table::read(conn, &table.name) };
    tables.iter().map(read).collect()
}

/// Runs a statement that the tables may refuse; anything but a refusal of theirs is a fault of capture.
fn run(conn: &Connection, sql: &str, counts: &mut Counts) -> Result<(), String> {
    counts.statements += 1;
    conn.execute_batch(sql).map_err(|error| {
        refused(&error, sql, counts);
        error.to_string()
    })
}

fn refused(error: &rusqlite::Error, sql: &str, counts: &mut Counts) {
    let message = error.to_string();
    // A row id of 2^63-1 leaves no larger one.
    let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
    let expected =
        full || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch)
        ) || message.contains("ON CONFLICT clause does not match")
            || message.contains("triggers nested too deep")
            || message.contains("too many levels of trigger recursion")
            || message.contains("integer overflow")
            || message.contains("foreign key mismatch");
    assert!(expected, "{message}\n{sql}");
    counts.refused += 1;
}

/// A database that is written like the captured one and must see the same: what is accepted, how many rows changed,
/// which row id came last, what the tables hold.
///
/// It has triggers that write a table nobody reads, because any trigger changes the order in which SQLite checks types
/// and conflicts and visits rows. Which rows of its statement an ill-typed row takes with it depends on the triggers
/// too (a STRICT table without any keeps those before it): the transaction is given up then.
struct Twin<'c> {
    conn: &'c Connection,
    /// A row id of 2^63-1 makes the next one random: from then on the two go different ways.
    alive: bool,
}

impl Twin<'_> {
    fn create(&self, tables: &[Table]) {
        assert!(create(self.conn, tables));
        self.conn.execute_batch("CREATE TABLE \"nobody's\"(x)").unwrap();
        for (at, table) in tables.iter().enumerate() {
            let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            let all =
                |row: &str| columns.iter().map(|name| format!("{row}.{name}")).collect::<Vec<_>>().join(", ");
            let events =
                [("INSERT", all("NEW")), ("UPDATE", all("OLD") + ", " + &all("NEW")), ("DELETE", all("OLD"))];
            for (event, rows) in events {
                for time in ["BEFORE", "AFTER"] {
                    let rows = if columns.len() > 900 { "1" } else { &rows };
                    let write = "INSERT INTO \"nobody's\" VALUES (1)";
                    let head = format!("CREATE TRIGGER \"nothing {at} {event} {time}\" {time} {event}");
                    self.conn
                        .execute_batch(&format!(
                            "{head} ON {} BEGIN SELECT {rows}; {write}; END",
                            table.quoted()
                        ))
                        .unwrap();
                }
            }
        }
    }
}

/// One transaction of an application.
fn write(conn: &Connection, twin: &mut Twin<'_>, statements: &[String], commit: bool, counts: &mut Counts) {
    counts.transactions += 1;
    let both = [conn, twin.conn];
    let conns = if twin.alive { &both[..] } else { &both[..1] };
    for conn in conns {
        conn.execute_batch("BEGIN").unwrap();
    }
    let end = if commit { "COMMIT" } else { "ROLLBACK" };
    // A statement that fails late may or may not have left its row id.
    let mut same_rowid = conn.last_insert_rowid() == twin.conn.last_insert_rowid();
    for statement in statements.iter().map(String::as_str).chain([end]) {
        if conn.is_autocommit() {
            break;
        }
        let outcomes: Vec<_> = conns.iter().map(|conn| run(conn, statement, counts)).collect();
        let done = outcomes[0].is_ok();
        same_rowid &= done;
        // These leave the counts of the statement before, which may have failed.
        let counts_rows =
            !["SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT"].iter().any(|word| statement.starts_with(word));
        let seen = |at: usize| {
            let conn = conns[at];
            let numbers = (conn.changes(), if same_rowid { conn.last_insert_rowid() } else { 0 });
            (outcomes[at].is_ok(), if done && counts_rows { numbers } else { (0, 0) }, conn.is_autocommit())
        };
        if twin.alive
            && conn.last_insert_rowid() != twin.conn.last_insert_rowid()
            && conn.last_insert_rowid() > 1 << 40
        {
            twin.alive = false;
            continue;
        }
        // Without a row id left, SQLite may end the whole transaction or only the statement. An indexed expression
        // that cannot be computed fails also for a row that an earlier conflict would have had ignored.
        const TYPED: [&str; 3] = ["cannot store", "database or disk is full", "integer overflow"];
        let typed = |outcome: &Result<_, String>| {
            outcome.as_ref().is_err_and(|error| TYPED.iter().any(|known| error.contains(known)))
        };
        if twin.alive && outcomes.iter().any(typed) {
            break;
        }
        if twin.alive {
            assert_eq!(
                seen(0),
                seen(1),
                "capture changed what the application sees: {statement}\n{outcomes:?}"
            );
        }
    }
    for conn in conns.iter().filter(|conn| !conn.is_autocommit()) {
        conn.execute_batch("ROLLBACK").unwrap();
    }
}

fn look_until_quiet(attached: &mut Attached) {
    for _ in 0..100 {
        if !attached.look().unwrap().drained.more {
            return;
        }
    }
    panic!("never quiet");
}

fn create(conn: &Connection, tables: &[Table]) -> bool {
    tables.iter().flat_map(|table| &table.sql).all(|sql| conn.execute_batch(sql).is_ok())
}

fn attached_world(seed: u64, folder: &Path, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let wide = random.one_in(40);
    let tables = schema(&mut random, wide);
    let (path, twin_path) = (folder.join(format!("{seed}.db")), folder.join(format!("{seed}.twin")));
    let conn = Connection::open(&path).unwrap();
    let twin = Connection::open(&twin_path).unwrap();
    let pragmas = format!(
        "PRAGMA foreign_keys={}; PRAGMA recursive_triggers={}; PRAGMA trusted_schema={}; PRAGMA synchronous=off;",
        random.below(2),
        random.below(2),
        random.below(2)
    );
    let journal = random.pick(&["wal", "delete", "truncate"]);
    for conn in [&conn, &twin] {
        conn.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).unwrap();
        conn.execute_batch(&pragmas).unwrap();
        conn.busy_timeout(Duration::from_secs(5)).unwrap();
    }
    if !create(&conn, &tables) {
        return;
    }
    let mut twin = Twin { conn: &twin, alive: true };
    twin.create(&tables);
    let tables = read(&conn, &tables);
    let later = random.below(3);
    for (at, text) in tables.iter().flat_map(|table| &table.triggers).enumerate() {
        if at % 3 != later {
            conn.execute_batch(text).unwrap();
            twin.conn.execute_batch(text).unwrap();
        }
    }
    for _ in 0..random.below(4) {
        let statements = statements(&mut random, &tables);
        write(&conn, &mut twin, &statements, true, counts);
    }
    let log = folder.join(format!("{seed}.log"));
    let mut attached = Attached::open(&path, &log, &id(), Tables::All, &clock()).unwrap();
    attached.install().unwrap();
    let mut follower = Follower::default();
    let transactions = if wide { 10 } else { 40 };
    for number in 0..transactions {
        if number == transactions / 2 {
            for (_, text) in
                tables.iter().flat_map(|table| &table.triggers).enumerate().filter(|(at, _)| at % 3 == later)
            {
                conn.execute_batch(text).unwrap();
                twin.conn.execute_batch(text).unwrap();
            }
            look_until_quiet(&mut attached);
        }
        let statements = statements(&mut random, &tables);
        let commit = !random.one_in(6);
        explain(|| write(&conn, &mut twin, &statements, commit, counts), seed, &tables, &statements);
        if random.one_in(3) && number + 1 < transactions {
            continue;
        }
        look_until_quiet(&mut attached);
        let check = || {
            follower.follow(attached.log(), Reconciled::Never);
            for table in &tables {
                assert_agrees(&conn, &follower.fold, &table.name);
                if twin.alive {
                    let other = live_rows(twin.conn, &table.name);
                    assert_eq!(live_rows(&conn, &table.name), other, "capture changed what was written");
                }
            }
            assert_eq!(attached.compare_rows(&follower.fold).unwrap(), None);
        };
        explain(check, seed, &tables, &statements);
    }
    counts.records += attached.log().tail().sequence.get();
    counts.worlds += 1;
}

/// Says what led to a failed check.
fn explain(check: impl FnOnce(), seed: u64, tables: &[Table], statements: &[String]) {
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
        for table in tables {
            eprintln!(
                "{:#?}\n{:#?}",
                table.sql.iter().map(|sql| sql.chars().take(2000).collect::<String>()).collect::<Vec<_>>(),
                table.triggers
            );
        }
        eprintln!("seed {seed}; the last transaction:\n{statements:#?}");
        std::panic::resume_unwind(panic);
    }
}

fn owned_world(seed: u64, folder: &Path, counts: &mut Counts) {
    let mut random = Random::new(seed);
    let wide = random.one_in(40);
    let tables = schema(&mut random, wide);
    let path = folder.join(format!("{seed}.db"));
    let mut log = Log::open(&path, &id(), &clock()).unwrap();
    let texts: Vec<&String> = tables.iter().flat_map(|table| &table.sql).collect();
    let created = log.write(|tx| {
        for text in &texts {
            tx.execute_batch(text)?;
        }
        Ok(())
    });
    if created.is_err() {
        return;
    }
    log.capture(&Tables::All).unwrap();
    let tables = read(&Connection::open(&path).unwrap(), &tables);
    let later: Vec<&String> = tables.iter().flat_map(|table| &table.triggers).collect();
    let mut follower = Follower::default();
    for number in 0..if wide { 10 } else { 40 } {
        let statements = statements(&mut random, &tables);
        let commit = !random.one_in(6);
        let before = log.tail();
        let triggers = if number == 20 { &later[..] } else { &[] };
        let written = log.write(|tx| {
            for text in triggers {
                tx.execute_batch(text)?;
            }
            for statement in &statements {
                counts.statements += 1;
                match tx.execute_batch(statement) {
                    Err(Error::Sqlite(error)) => refused(&error, statement, counts),
                    Err(Error::TransactionGone) => return Err(Error::TransactionGone),
                    other => other?,
                }
            }
            if commit { Ok(()) } else { Err(Error::GivenUp { reason: "a test".to_owned() }) }
        });
        counts.transactions += 1;
        match written {
            Ok(()) => {}
            Err(Error::Sqlite(error)) => refused(&error, "COMMIT", counts),
            Err(Error::GivenUp { .. } | Error::TransactionGone) => assert_eq!(log.tail(), before),
            Err(other) => panic!("{other:?}"),
        }
        let check = || {
            // A trigger that runs before ours in the transaction that made it leaves events to be reconciled.
            let allowed = if number == 20 { Reconciled::Allowed } else { Reconciled::Never };
            follower.follow(&log, allowed);
            let reader = Connection::open(&path).unwrap();
            for table in &tables {
                assert_agrees(&reader, &follower.fold, &table.name);
            }
            assert_eq!(log.compare_rows(&follower.fold).unwrap(), None);
        };
        explain(check, seed, &tables, &statements);
    }
    let (verified, fold) = log.verify().unwrap();
    assert_eq!((verified.broken_chains, &fold), (0, &follower.fold));
    counts.records += log.tail().sequence.get();
    counts.worlds += 1;
}

fn seconds(name: &str, otherwise: u64) -> Duration {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(otherwise))
}

fn many_worlds(from: u64, worlds: u64, world: fn(u64, &Path, &mut Counts)) {
    let soak = seconds("CDC_SOAK_SECONDS", 0);
    let from = std::env::var("CDC_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(from);
    let (begin, mut counts) = (Instant::now(), Counts::default());
    let mut seed = from;
    while seed < from + worlds || begin.elapsed() < soak {
        let folder = folder();
        world(seed, folder.path(), &mut counts);
        seed += 1;
    }
    eprintln!("{counts:?} in {:?}", begin.elapsed());
    assert!(counts.refused * 2 < counts.statements, "most statements must be accepted: {counts:?}");
}

#[test]
fn the_log_of_an_attached_database_adds_up_to_its_tables_after_every_transaction() {
    many_worlds(1, 60, attached_world);
}

#[test]
fn the_log_of_an_owned_database_adds_up_to_its_tables_after_every_write() {
    many_worlds(1_000_001, 60, owned_world);
}
