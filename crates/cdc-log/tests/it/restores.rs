//! A database, or the log's file, put back to an older state at random points of random histories.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cdc_log::{Attached, Error, Tables};
use rusqlite::Connection;

use crate::random::Random;
use crate::witness::{assert_agrees, clock, folder, id};

const TABLES: [&str; 3] = ["kv", "notes", "loose"];

const SCHEMA: &str = "CREATE TABLE kv(id INTEGER PRIMARY KEY, name TEXT, u UNIQUE);
    CREATE TABLE notes(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE loose(a, b);";

/// The bytes of a database's files at one moment.
#[derive(Clone)]
struct Copy {
    main: Vec<u8>,
    wal: Option<Vec<u8>>,
    /// Trims done when a copy of the log was taken.
    trims: u64,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Copy {
    fn take(path: &Path, trims: u64) -> Self {
        Self { main: fs::read(path).unwrap(), wal: fs::read(beside(path, "-wal")).ok(), trims }
    }

    /// Puts the files back while nobody has them open: over the old file as `cp` does, or as a new one as `mv` does.
    fn put(&self, path: &Path, new_file: bool) {
        drop(fs::remove_file(beside(path, "-wal")));
        drop(fs::remove_file(beside(path, "-shm")));
        drop(fs::remove_file(beside(path, "-journal")));
        if new_file {
            let fresh = beside(path, ".new");
            fs::write(&fresh, &self.main).unwrap();
            fs::rename(fresh, path).unwrap();
        } else {
            fs::write(path, &self.main).unwrap();
        }
        if let Some(wal) = &self.wal {
            fs::write(beside(path, "-wal"), wal).unwrap();
        }
    }
}

struct World {
    random: Random,
    database: PathBuf,
    log: PathBuf,
    /// The application's connection; it goes before files are put back.
    app: Option<Connection>,
    attached: Option<Attached>,
    copies: Vec<Copy>,
    log_copies: Vec<Copy>,
    trims: u64,
    wal: bool,
    /// The trims that the oldest copy of the log knew that was put back. Copies of the database that were taken after
    /// later trims are newer than that log, whatever it drained since.
    rewound: Option<u64>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    writes: u64,
    restores: u64,
    rewinds: u64,
    refused: u64,
    trims: u64,
    undone: u64,
    records: u64,
}

impl Counts {
    const fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.restores += other.restores;
        self.rewinds += other.rewinds;
        self.refused += other.refused;
        self.trims += other.trims;
        self.undone += other.undone;
        self.records += other.records;
    }
}

impl World {
    fn new(seed: u64, folder: &Path) -> Self {
        let mut random = Random::new(seed);
        let (database, log) = (folder.join("app.db"), folder.join("log.db"));
        let wal = random.one_in(2);
        let mut world = Self {
            random,
            database,
            log,
            app: None,
            attached: None,
            copies: vec![],
            log_copies: vec![],
            trims: 0,
            wal,
            rewound: None,
            counts: Counts::default(),
        };
        world.app().execute_batch(SCHEMA).unwrap();
        world
    }

    fn app(&mut self) -> &Connection {
        let (database, wal) = (&self.database, self.wal);
        self.app.get_or_insert_with(|| {
            let conn = Connection::open(database).unwrap();
            let mode = if wal { "wal" } else { "delete" };
            conn.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
            conn.execute_batch("PRAGMA synchronous=off; PRAGMA wal_autocheckpoint=100000").unwrap();
            conn
        })
    }

    fn attached(&mut self) -> &mut Attached {
        let (database, log) = (&self.database, &self.log);
        self.attached
            .get_or_insert_with(|| Attached::open(database, log, &id(), Tables::All, &clock()).unwrap())
    }

    fn statement(&mut self) -> String {
        let r = &mut self.random;
        let (n, m) = (r.below(12), r.below(8));
        match r.below(12) {
            0..=2 => format!("INSERT OR REPLACE INTO kv VALUES ({n}, 'n{m}', {m})"),
            3 => format!("INSERT OR IGNORE INTO kv(name, u) VALUES ('x{m}', NULL)"),
            4 => format!("UPDATE OR REPLACE kv SET u = {m}, name = name || '+' WHERE id = {n}"),
            5 => format!("UPDATE OR IGNORE kv SET id = {m} WHERE id = {n}"),
            6 => format!("DELETE FROM kv WHERE id = {n}"),
            7 => format!("INSERT INTO notes VALUES ('k{n}', {m}) ON CONFLICT DO UPDATE SET v = v + 1"),
            8 => format!("DELETE FROM notes WHERE k = 'k{n}'"),
            9 | 10 => format!("INSERT INTO loose(a, b) VALUES ({n}, {m}.5)"),
            _ => format!("DELETE FROM loose WHERE a = {n}"),
        }
    }

    fn write(&mut self) {
        self.counts.writes += 1;
        let mut statements = String::from("BEGIN;");
        for _ in 0..=self.random.below(4) {
            statements += &self.statement();
            statements.push(';');
        }
        statements += if self.random.one_in(8) { "ROLLBACK" } else { "COMMIT" };
        self.app().execute_batch(&statements).unwrap();
    }

    /// Many capture rows, so that there is something to trim.
    fn bulk(&mut self) {
        let app = self.app();
        app.execute_batch("BEGIN; INSERT OR IGNORE INTO notes VALUES ('bulk', 0)").unwrap();
        for _ in 0..260 {
            app.prepare_cached("UPDATE notes SET v = v + 1 WHERE k = 'bulk'").unwrap().execute([]).unwrap();
        }
        app.execute_batch("COMMIT").unwrap();
    }

    fn schema_change(&mut self) {
        let number = self.random.below(1000);
        let sql = match self.random.below(3) {
            0 => format!("ALTER TABLE loose ADD COLUMN c{number} DEFAULT {number}"),
            1 => format!(
                "CREATE TRIGGER IF NOT EXISTS u{number} AFTER INSERT ON kv BEGIN UPDATE kv SET name = 'by trigger' WHERE id = NEW.id; END"
            ),
            _ => format!("CREATE TABLE IF NOT EXISTS extra{}(x)", number % 2),
        };
        // A column that is there already is refused.
        drop(self.app().execute_batch(&sql));
    }

    /// Looks until nothing is left. False when the log is told to be rewound, which ends the history.
    fn look(&mut self) -> bool {
        for _ in 0..50 {
            match self.attached().look() {
                Ok(look) if look.drained.more => {}
                Ok(look) => {
                    self.counts.undone += u64::from(look.restored);
                    return true;
                }
                Err(error) => {
                    self.refused(&error);
                    return false;
                }
            }
        }
        panic!("never quiet");
    }

    /// The log is told to be rewound, which may be only where it was.
    fn refused(&mut self, error: &Error) {
        assert!(matches!(error, Error::LogRewound { .. }), "{error:?}");
        let since = self.rewound.expect("LogRewound although the log was never put back");
        assert!(since < self.trims, "LogRewound although nothing was trimmed since the copy");
        self.counts.refused += 1;
    }

    fn trim(&mut self) {
        if self.attached().trim().unwrap().rows() > 0 {
            self.trims += 1;
            self.counts.trims += 1;
        }
    }

    fn copy(&mut self) {
        if self.random.one_in(2) {
            self.app = None;
        }
        let copy = Copy::take(&self.database, self.trims);
        self.copies.push(copy);
    }

    fn restore(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        self.app = None;
        if self.random.one_in(3) {
            self.attached = None;
        }
        let copy = self.copies[self.random.below(self.copies.len())].clone();
        copy.put(&self.database, self.random.one_in(2));
        self.counts.restores += 1;
    }

    fn copy_log(&mut self) {
        self.attached = None;
        let copy = Copy::take(&self.log, self.trims);
        self.log_copies.push(copy);
    }

    fn rewind_log(&mut self) {
        if self.log_copies.is_empty() {
            return;
        }
        self.attached = None;
        let copy = self.log_copies[self.random.below(self.log_copies.len())].clone();
        copy.put(&self.log, false);
        self.rewound = Some(self.rewound.map_or(copy.trims, |trims| trims.min(copy.trims)));
        self.counts.rewinds += 1;
    }

    /// Takes capture out and puts it back, with writes in between. False when the log is told to be rewound.
    fn detach(&mut self) -> bool {
        if let Err(error) = self.attached().detach() {
            self.refused(&error);
            return false;
        }
        for _ in 0..self.random.below(3) {
            self.write();
        }
        self.attached().install().unwrap();
        true
    }

    fn check(&mut self) {
        let (verified, fold) = self.attached().log().verify().unwrap();
        assert_eq!(verified.first_broken, None);
        self.app();
        for table in TABLES {
            assert_agrees(self.app.as_ref().unwrap(), &fold, table);
        }
        assert_eq!(self.attached().compare_rows(&fold).unwrap(), None);
        self.counts.records += verified.records;
    }
}

fn history(seed: u64) -> Counts {
    let folder = folder();
    let mut world = World::new(seed, folder.path());
    if world.random.one_in(3) {
        world.write();
        world.copy();
    }
    world.attached().install().unwrap();
    for _ in 0..12 + world.random.below(20) {
        match world.random.below(24) {
            0..=9 => world.write(),
            10..=13 => {
                if !world.look() {
                    return world.counts;
                }
            }
            14..=16 => world.copy(),
            17 | 18 => world.restore(),
            19 if world.random.one_in(3) => world.bulk(),
            20 => {
                if world.random.one_in(3) {
                    world.bulk();
                }
                if !world.look() {
                    return world.counts;
                }
                world.trim();
            }
            21 => match world.random.below(3) {
                0 => world.copy_log(),
                1 => world.rewind_log(),
                _ => {
                    if !world.detach() {
                        return world.counts;
                    }
                }
            },
            22 if world.random.one_in(2) => world.schema_change(),
            _ => {
                world.restore();
                world.write();
            }
        }
    }
    if world.look() {
        world.check();
    }
    world.counts
}

#[test]
fn after_any_restore_the_log_adds_up_to_the_tables_again() {
    let histories: u64 =
        std::env::var("CDC_RESTORES").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
    let from: u64 = std::env::var("CDC_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let begin = Instant::now();
    let mut sums = [Counts::default(); 2];
    std::thread::scope(|scope| {
        for (first, sum) in (from..).zip(&mut sums) {
            scope.spawn(move || {
                for seed in (first..from + histories).step_by(2) {
                    let counts = std::panic::catch_unwind(|| history(seed)).unwrap_or_else(|panic| {
                        eprintln!("history {seed}");
                        std::panic::resume_unwind(panic)
                    });
                    sum.add(&counts);
                }
            });
        }
    });
    eprintln!("{histories} histories: {sums:?} in {:?}", begin.elapsed());
}
