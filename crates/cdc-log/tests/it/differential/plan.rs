//! Draws what happens in a world: its tables, its connections, and transaction after transaction.

use super::changes;
use super::world::{Event, Run};
use crate::random::Random;
use crate::statements::{Statement, statement, transaction};
use crate::tables::{Features, Table, quoted, table, trigger};

/// Statements of one schema that are prepared and run again and again with other values.
const POOL: usize = 48;

/// A transaction has at most this many statements, and what its savepoints add.
const STATEMENTS_MAX: usize = 18;

/// Every so many transactions whole tables are compared value by value.
const THOROUGHLY_EVERY: u64 = 100;

/// Every so many transactions drained rows are trimmed.
const TRIM_EVERY: usize = 40;

/// Every so many transactions the schema changes.
const CHANGE_EVERY: usize = 60;

/// The seeded plan of one world.
pub(crate) struct Plan {
    random: Random,
    features: Features,
    conns: usize,
    wal: bool,
    /// Whether somebody renames as SQLite once did: triggers of the application's keep the old names.
    legacy: bool,
    /// User triggers that come after capture.
    later: Vec<String>,
    pool: Vec<Statement>,
    /// The tables that the pool was drawn for.
    pool_of: Vec<String>,
    steps: u64,
    /// Whether somebody goes around capture; then every look is an audit.
    holes: bool,
    /// Objects made by changes of the schema are numbered.
    made: usize,
    pub(crate) transactions: u64,
}

/// Tables whose first one is referenced by the second, with user triggers.
fn schema(random: &mut Random, features: Features, wide: bool) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for at in 0..1 + random.below(3) {
        let parent = tables.first().filter(|_| random.one_in(2)).cloned();
        let width = (wide && at == 0).then_some(1200);
        tables.push(table(random, at, parent.as_ref(), width, features));
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
            let text = trigger(random, features, &tables[at], &audit, at * 10 + number);
            tables[at].triggers.push(text);
        }
    }
    tables
}

fn run(conn: usize, kind: Option<&'static str>, text: impl Into<String>) -> Event {
    Event::Run(Run { conn, kind, text: text.into(), slot: None, values: vec![], bypass: false })
}

pub(crate) fn bypass(conn: usize, kind: &'static str, text: impl Into<String>) -> Event {
    Event::Run(Run { conn, kind: Some(kind), text: text.into(), slot: None, values: vec![], bypass: true })
}

/// An event of a transaction that goes around capture.
fn as_bypass(event: Event) -> Event {
    match event {
        Event::Run(run) => Event::Run(Run { bypass: true, ..run }),
        other => other,
    }
}

/// Ways around capture that no trigger of the main schema can see: a TEMP trigger fires before all of them. Who goes one
/// is found by comparison.
const HOLES: [&str; 4] = [
    "CREATE TEMP TRIGGER hole AFTER INSERT ON {t} BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TRIGGER hole AFTER DELETE ON {t} WHEN OLD.{c} > 2 BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TRIGGER hole AFTER UPDATE ON {t} BEGIN UPDATE OR IGNORE {t} SET {c} = 'hole' WHERE {c} IS NOT 'hole'; END",
    "CREATE TEMP TRIGGER hole AFTER INSERT ON {t} BEGIN UPDATE OR IGNORE {t} SET {c} = 'hole' WHERE {c} IS NULL; END",
];

/// TEMP triggers that capture does not mind.
const TEMPORARY: [&str; 3] = [
    "CREATE TEMP TRIGGER quiet AFTER UPDATE ON {t} BEGIN INSERT INTO temporary VALUES (OLD.{c}); END",
    "CREATE TEMP TRIGGER quiet BEFORE INSERT ON {t} WHEN NEW.{c} IS 5 BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TRIGGER quiet BEFORE DELETE ON {t} WHEN OLD.{c} IS 3 BEGIN SELECT RAISE(ABORT, 'kept'); END",
];

impl Plan {
    /// The plan of a seed, and how its world begins. `versions` are those of the writers there are, `itself` says whether
    /// tables may act on themselves.
    pub(crate) fn begin(seed: u64, versions: &[i32], itself: bool) -> (Self, Vec<Event>) {
        let mut random = Random::new(seed);
        let wide = random.one_in(150);
        let conns = 1 + random.below(3);
        let writers: Vec<usize> = (0..conns).map(|_| random.below(versions.len())).collect();
        let version = writers.iter().map(|writer| versions[*writer]).min().unwrap();
        let mixed = writers.iter().any(|writer| versions[*writer] != rusqlite::version_number());
        let features = Features { version, mixed, itself };
        let tables = schema(&mut random, features, wide);
        let journal = random.pick(&["wal", "wal", "delete", "truncate", "persist"]);
        let (mut events, mut legacy) = (Vec::new(), false);
        for (conn, writer) in writers.into_iter().enumerate() {
            let renames = random.one_in(4);
            legacy |= renames;
            let pragmas = format!(
                "PRAGMA journal_mode={journal}; PRAGMA foreign_keys={}; PRAGMA recursive_triggers={}; \
                 PRAGMA trusted_schema={}; PRAGMA legacy_alter_table={}; PRAGMA synchronous={}; PRAGMA cache_spill=0",
                random.below(2),
                random.below(2),
                random.below(2),
                u8::from(renames),
                random.below(4)
            );
            events.push(Event::Open { conn, writer, pragmas });
        }
        let sql = tables.iter().flat_map(|table| &table.sql);
        events.extend(sql.map(|sql| bypass(0, "CREATE TABLE", sql.as_str())));
        let (mut later, keep) = (vec![], random.below(3));
        for (at, text) in tables.into_iter().flat_map(|table| table.triggers).enumerate() {
            if at % 3 == keep {
                later.push(text);
            } else {
                events.push(bypass(0, "CREATE TRIGGER", text));
            }
        }
        let wal = journal == "wal";
        let (pool, pool_of) = (vec![], vec![]);
        let transactions = if wide { 15 } else { 150 };
        let plan = Self {
            random,
            features,
            conns,
            wal,
            legacy,
            later,
            pool,
            pool_of,
            steps: 0,
            holes: false,
            made: 0,
            transactions,
        };
        (plan, events)
    }

    /// What is written before capture.
    pub(crate) fn before(&mut self, tables: &[Table]) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..self.random.below(4) {
            events.extend(self.transaction(tables));
        }
        events.extend([Event::Attach, Event::Check { thoroughly: true }]);
        events.extend(self.temporary(tables));
        events
    }

    /// TEMP triggers of one connection.
    fn temporary(&mut self, tables: &[Table]) -> Vec<Event> {
        self.holes = self.random.one_in(25);
        let of = if self.holes { &HOLES[..] } else { &TEMPORARY[..] };
        if tables.is_empty() || !self.holes && !self.random.one_in(8) {
            return vec![];
        }
        let table = &tables[self.random.below(tables.len())];
        let writable = table.writable();
        let column = writable[self.random.below(writable.len())];
        let text = self.random.pick(of).replace("{t}", &table.quoted()).replace("{c}", column);
        let conn = self.random.below(self.conns);
        vec![
            run(conn, Some("CREATE TEMP TABLE"), "CREATE TEMP TABLE temporary(x)"),
            run(conn, Some("CREATE TEMP TRIGGER"), text),
        ]
    }

    /// The next transaction, or a few that meet, and the check after it.
    pub(crate) fn step(&mut self, tables: &[Table], ours: &[String], theirs: &[String]) -> Vec<Event> {
        self.steps += 1;
        let mut events = if self.steps * 2 == self.transactions && !self.later.is_empty() {
            let later = std::mem::take(&mut self.later);
            later.into_iter().map(|text| bypass(0, "CREATE TRIGGER", text)).collect()
        } else if self.random.one_in(CHANGE_EVERY) {
            self.change(tables, ours, theirs)
        } else if self.conns > 1 && self.random.one_in(8) {
            self.meeting(tables)
        } else if self.random.one_in(10) {
            let conn = self.random.below(self.conns);
            (0..=self.random.below(4)).map(|_| self.statement(conn, tables)).collect()
        } else {
            self.transaction(tables)
        };
        if self.holes || tables.iter().any(Table::acts_on_itself) {
            let audited = |event| if matches!(event, Event::Check { .. }) { Event::Audit } else { event };
            events = events.into_iter().map(as_bypass).map(audited).collect();
            events.push(Event::Audit);
        }
        if self.random.one_in(TRIM_EVERY) {
            events.push(Event::Trim);
        }
        events.push(Event::Check { thoroughly: self.steps.is_multiple_of(THOROUGHLY_EVERY) });
        events
    }

    /// What an object that we own writes in one transaction.
    pub(crate) fn write(&mut self, tables: &[Table], ours: &[String], theirs: &[String]) -> Vec<Event> {
        self.steps += 1;
        let mut events = self.statements(0, tables, STATEMENTS_MAX);
        if self.steps * 2 == self.transactions {
            events.extend(self.later.drain(..).map(|text| bypass(0, "CREATE TRIGGER", text)));
        } else if self.random.one_in(CHANGE_EVERY) {
            self.made += 1;
            self.later.clear();
            let change = changes::change(&mut self.random, tables, ours, self.features, self.made);
            events.extend(self.broken(0, change.kind, theirs));
            let statements = change.statements.into_iter().filter(|_| !change.alone);
            events.extend(statements.map(|text| bypass(0, change.kind, text)));
            events.extend(self.statements(0, tables, 3).into_iter().map(as_bypass));
        }
        events
    }

    /// The application's triggers go before what they name does.
    fn broken(&self, conn: usize, kind: &str, theirs: &[String]) -> Vec<Event> {
        // SQLite drops a column that a trigger names in quotes, which it takes for a text then.
        let breaks = ["DROP TABLE", "DROP COLUMN", "rebuild"].contains(&kind)
            || self.legacy && kind != "CREATE TRIGGER";
        let broken = theirs.iter().filter(|_| breaks);
        broken.map(|name| bypass(conn, "DROP TRIGGER", format!("DROP TRIGGER {}", quoted(name)))).collect()
    }

    fn transaction(&mut self, tables: &[Table]) -> Vec<Event> {
        let conn = self.random.below(self.conns);
        let begin = self.random.pick(&["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]);
        let mut events = vec![run(conn, None, begin)];
        events.extend(self.statements(conn, tables, STATEMENTS_MAX));
        events.extend(self.end(conn));
        events
    }

    /// A writer that lost its transaction to OR ROLLBACK ends what it does not have, and is told so.
    fn end(&mut self, conn: usize) -> Vec<Event> {
        let end = if self.random.one_in(6) { "ROLLBACK" } else { "COMMIT" };
        // A COMMIT that a deferred key refuses leaves its transaction open.
        vec![run(conn, None, end), run(conn, None, "ROLLBACK")]
    }

    fn statements(&mut self, conn: usize, tables: &[Table], most: usize) -> Vec<Event> {
        // The generator borrows what it draws from: it works with a copy, from which this one goes on.
        let mut random = self.random.clone();
        let events = transaction(
            &mut random,
            most,
            |random| {
                self.random = random.clone();
                let event = self.statement(conn, tables);
                *random = self.random.clone();
                event
            },
            |word| run(conn, Some("SAVEPOINT"), word),
        );
        self.random = random;
        events
    }

    fn statement(&mut self, conn: usize, tables: &[Table]) -> Event {
        self.draw_pool(tables);
        let random = &mut self.random;
        if random.one_in(5) {
            let drawn = statement(random, tables, self.features);
            return run(conn, Some(drawn.kind), drawn.literal(random));
        }
        let at = random.below(self.pool.len());
        let drawn = &self.pool[at];
        match drawn.bound(random) {
            Some((text, values)) => {
                let slot = Some(u8::try_from(at).unwrap());
                Event::Run(Run { conn, kind: Some(drawn.kind), text, slot, values, bypass: false })
            }
            None => run(conn, Some(drawn.kind), drawn.literal(random)),
        }
    }

    fn draw_pool(&mut self, tables: &[Table]) {
        let of = tables.iter().flat_map(|table| std::iter::once(&table.name).chain(&table.sql));
        if !of.clone().eq(&self.pool_of) {
            self.pool_of = of.cloned().collect();
            self.pool = (0..POOL).map(|_| statement(&mut self.random, tables, self.features)).collect();
        }
    }

    /// Two connections whose transactions overlap.
    fn meeting(&mut self, tables: &[Table]) -> Vec<Event> {
        let one = self.random.below(self.conns);
        let other = (one + 1 + self.random.below(self.conns - 1)) % self.conns;
        let check = |random: &mut Random| random.one_in(3).then_some(Event::Check { thoroughly: false });
        let mut events = vec![run(one, None, self.random.pick(&["BEGIN", "BEGIN IMMEDIATE"]))];
        events.extend(self.statements(one, tables, 6));
        events.push(run(other, None, "BEGIN"));
        events.extend(self.statements(other, tables, 3));
        events.extend(check(&mut self.random));
        events.extend(self.statements(one, tables, 4));
        if !self.wal || self.random.one_in(2) {
            events.push(run(other, None, "ROLLBACK"));
        }
        events.extend(self.end(one));
        events.extend(check(&mut self.random));
        events.extend(self.statements(other, tables, 4));
        events.extend(self.end(other));
        events
    }

    fn change(&mut self, tables: &[Table], ours: &[String], theirs: &[String]) -> Vec<Event> {
        let conn = self.random.below(self.conns);
        self.made += 1;
        let change = changes::change(&mut self.random, tables, ours, self.features, self.made);
        // Were they to name what is gone, no statement would run any more.
        self.later.clear();
        let broken = self.broken(conn, change.kind, theirs);
        let changes = change.statements.into_iter().map(|text| bypass(conn, change.kind, text));
        let changes = broken.into_iter().chain(changes);
        if change.alone || self.random.one_in(2) {
            return changes.collect();
        }
        let mut events = vec![run(conn, None, "BEGIN IMMEDIATE")];
        events.extend(self.statements(conn, tables, 3));
        events.extend(changes);
        events.extend(self.statements(conn, tables, 3));
        events.extend(self.end(conn));
        events.into_iter().map(as_bypass).collect()
    }
}
