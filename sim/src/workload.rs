use cdc_log::{Emit, Tx};
use rusqlite::types::Value as Sqlite;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};

use crate::documents::{Documents, Fact, rendered};
use crate::random::Random;

/// Every object's tables.
pub(crate) const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, title TEXT, amount);
CREATE TABLE IF NOT EXISTS tags(name TEXT PRIMARY KEY, rank INTEGER UNIQUE, color TEXT);
CREATE TABLE IF NOT EXISTS effects(sequence, source, origin_sequence);";

/// The reason with which a transaction gives up that is meant to.
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// Those that are captured.
pub(crate) const TABLES: [&str; 2] = ["notes", "tags"];

/// The collection that a stage which counts writes.
pub(crate) const COUNTS: &str = "counts";

/// The collection of what consumers write of what they took.
pub(crate) const ECHOES: &str = "echoes";

/// The collection of documents that many write at the same time.
pub(crate) const BURSTS: &str = "bursts";

/// The collection of which stages that reject events reject each deletion.
pub(crate) const REJECTED: &str = TABLES[1];

/// The collection of documents without a table.
pub(crate) const EMITTED: &str = "signals";

/// Few keys, so that statements meet rows of earlier ones.
const NOTE_IDS: u64 = 9;
const TAG_NAMES: [&str; 4] = ["red", "x.y", "Ωmega \"q\"", ""];
const RANKS: u64 = 4;

/// Draws SQL transactions and says beforehand what each must leave in the log.
#[derive(Debug)]
pub(crate) struct Workload {
    random: Random,
    /// Whether it writes documents without a table, which only the engine can.
    emits: bool,
    drawn: u32,
}

/// One transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    steps: Vec<Step>,
    rolled_back: bool,
    /// Its place among those of its object, from 1.
    pub(crate) number: u32,
    /// What it adds to the log, in order.
    pub(crate) facts: Vec<Fact>,
}

#[derive(Clone, Debug)]
enum Step {
    InsertNote {
        id: i64,
        title: String,
        amount: Sqlite,
    },
    ReplaceNote {
        id: i64,
        title: String,
        amount: Sqlite,
    },
    RetitleNote {
        id: i64,
        title: String,
    },
    AmendNotes {
        from: i64,
        amount: Sqlite,
    },
    MoveNote {
        id: i64,
        to: i64,
    },
    DeleteNotes {
        from: i64,
        to: i64,
    },
    ReplaceTag {
        name: String,
        rank: i64,
        color: String,
    },
    DeleteTag {
        name: String,
    },
    Emit {
        document: String,
        before: Option<Value>,
        after: Option<Value>,
    },
    Undone(Vec<Self>),
    /// The schema changes around the captured tables.
    Redesign(&'static str),
}

/// Each can be done at any time, and changes the schema that statements and triggers were made for.
const REDESIGNS: [&str; 5] = [
    "CREATE INDEX IF NOT EXISTS notes_by_amount ON notes(amount)",
    "DROP INDEX IF EXISTS notes_by_amount",
    "CREATE TABLE IF NOT EXISTS drafts(text)",
    "DROP TABLE IF EXISTS drafts",
    "CREATE VIEW IF NOT EXISTS titles AS SELECT title FROM notes",
];

impl Workload {
    pub(crate) const fn new(random: Random, emits: bool) -> Self {
        Self { random, emits, drawn: 0 }
    }

    /// The next transaction on tables that hold these documents.
    pub(crate) fn next(&mut self, documents: &Documents) -> Transaction {
        let mut documents = documents.clone();
        let mut facts = Vec::new();
        let mut steps = Vec::new();
        for _ in 0..self.random.between(1, 6) {
            let step = self.step(&documents);
            facts.extend(step.facts(&mut documents));
            steps.push(step);
        }
        let rolled_back = self.random.chance(10);
        if rolled_back {
            facts.clear();
        }
        self.drawn += 1;
        Transaction { steps, rolled_back, number: self.drawn, facts }
    }

    fn step(&mut self, documents: &Documents) -> Step {
        if self.random.chance(8) {
            let mut scratch = documents.clone();
            let undone = (0..self.random.between(1, 3)).map(|_| {
                let step = self.plain_step(&scratch);
                step.facts(&mut scratch);
                step
            });
            return Step::Undone(undone.collect());
        }
        self.plain_step(documents)
    }

    fn plain_step(&mut self, documents: &Documents) -> Step {
        let id = self.note_id();
        if self.random.chance(2) {
            let statement = self.random.pick(&REDESIGNS);
            return Step::Redesign(statement);
        }
        match self.random.between(0, if self.emits { 11 } else { 10 }) {
            0..=2 => Step::InsertNote { id, title: self.title(), amount: self.amount() },
            3 => Step::ReplaceNote { id, title: self.title(), amount: self.amount() },
            4 | 5 => Step::RetitleNote { id, title: self.title() },
            6 => Step::AmendNotes { from: id, amount: self.amount() },
            7 => Step::MoveNote { id, to: self.note_id() },
            8 => Step::DeleteNotes { from: id, to: id + i64::from(self.random.chance(20)) },
            9 => Step::ReplaceTag { name: self.tag(), rank: self.number(RANKS), color: self.title() },
            10 => Step::DeleteTag { name: self.tag() },
            _ => self.emit(documents),
        }
    }

    fn emit(&mut self, documents: &Documents) -> Step {
        let document = format!("s{}", self.random.between(1, 4));
        let before = documents.get(EMITTED, &document).cloned();
        let after = json!({ "level": self.random.between(0, 9), "text": self.title() });
        let goes = before.is_some() && self.random.chance(30);
        Step::Emit { document, before, after: (!goes).then_some(after) }
    }

    fn number(&mut self, most: u64) -> i64 {
        self.random.between(1, most).cast_signed()
    }

    fn note_id(&mut self) -> i64 {
        self.number(NOTE_IDS)
    }

    fn tag(&mut self) -> String {
        (*self.random.pick(&TAG_NAMES)).to_owned()
    }

    fn title(&mut self) -> String {
        let word =
            *self.random.pick(&["", "a", "it's", "tab\t\"quoted\"\n", "日本 🦀", "[1]", "{\"$int\":\"1\"}"]);
        word.repeat(usize::try_from(self.random.between(1, 40)).unwrap_or(1))
    }

    fn amount(&mut self) -> Sqlite {
        let small = self.number(100);
        match self.random.between(0, 5) {
            0 => Sqlite::Null,
            1 => Sqlite::Integer(i64::MIN + small),
            2 => Sqlite::Real(f64::from(u32::try_from(small).unwrap_or_default())),
            3 => Sqlite::Real(0.1 * f64::from(u32::try_from(small).unwrap_or_default())),
            4 => Sqlite::Text(self.title()),
            _ => Sqlite::Integer(small),
        }
    }
}

impl Transaction {
    /// Runs it; gives up at the end if it is meant to.
    pub(crate) fn run(&self, tx: &Tx<'_>) -> cdc_log::Result<()> {
        let (correlation, metadata) = said_by(self.number);
        correlation.map_or(Ok(()), |id| tx.correlate(id))?;
        metadata.map_or(Ok(()), |metadata| tx.metadata(&metadata))?;
        self.steps.iter().try_for_each(|step| step.run(tx))?;
        if self.rolled_back {
            return Err(cdc_log::Error::GivenUp { reason: ON_PURPOSE.to_owned() });
        }
        Ok(())
    }

    /// Runs its statements on a connection of an application, inside a transaction of that one.
    pub(crate) fn run_plain(&self, conn: &Connection) -> rusqlite::Result<()> {
        self.steps.iter().try_for_each(|step| step.run_plain(conn))
    }

    /// Whether it is rolled back on purpose.
    pub(crate) const fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }
}

/// The correlation id and the metadata of an object's transaction, which some have.
pub(crate) fn said_by(number: u32) -> (Option<String>, Option<Value>) {
    let correlation = number.is_multiple_of(3).then(|| format!("correlated \"{number}\""));
    (correlation, number.is_multiple_of(5).then(|| json!({ "number": number })))
}

const UNDONE: &str = "SAVEPOINT undone";
const UNDO: &str = "ROLLBACK TO undone; RELEASE undone";

fn note(id: i64, title: &str, amount: &Sqlite) -> Value {
    json!({ "id": id, "title": title, "amount": rendered(amount) })
}

fn with(document: &Value, member: &str, value: Value) -> Value {
    let mut document = document.clone();
    if let Some(members) = document.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
    document
}

impl Step {
    fn run(&self, tx: &Tx<'_>) -> cdc_log::Result<()> {
        if let Self::Emit { document, before, after } = self {
            return emit(tx, document, before.as_ref(), after.as_ref());
        }
        if let Self::Undone(steps) = self {
            tx.execute_batch(UNDONE)?;
            steps.iter().try_for_each(|step| step.run(tx))?;
            return tx.execute_batch(UNDO);
        }
        let (sql, values) = self.statement();
        tx.execute(sql, params_from_iter(values)).map(drop)
    }

    fn run_plain(&self, conn: &Connection) -> rusqlite::Result<()> {
        if let Self::Undone(steps) = self {
            conn.execute_batch(UNDONE)?;
            steps.iter().try_for_each(|step| step.run_plain(conn))?;
            return conn.execute_batch(UNDO);
        }
        let (sql, values) = self.statement();
        conn.execute(sql, params_from_iter(values)).map(drop)
    }

    /// The SQL of what is one statement.
    fn statement(&self) -> (&'static str, Vec<Sqlite>) {
        let int = |value: &i64| Sqlite::Integer(*value);
        let text = |value: &String| Sqlite::Text(value.clone());
        match self {
            Self::InsertNote { id, title, amount } => (
                "INSERT OR IGNORE INTO notes(id, title, amount) VALUES (?1, ?2, ?3)",
                vec![int(id), text(title), amount.clone()],
            ),
            Self::ReplaceNote { id, title, amount } => (
                "INSERT OR REPLACE INTO notes(id, title, amount) VALUES (?1, ?2, ?3)",
                vec![int(id), text(title), amount.clone()],
            ),
            Self::RetitleNote { id, title } => {
                ("UPDATE notes SET title = ?2 WHERE id = ?1", vec![int(id), text(title)])
            }
            Self::AmendNotes { from, amount } => {
                ("UPDATE notes SET amount = ?2 WHERE id >= ?1", vec![int(from), amount.clone()])
            }
            Self::MoveNote { id, to } => {
                ("UPDATE OR IGNORE notes SET id = ?2 WHERE id = ?1", vec![int(id), int(to)])
            }
            Self::DeleteNotes { from, to } => {
                ("DELETE FROM notes WHERE id BETWEEN ?1 AND ?2", vec![int(from), int(to)])
            }
            Self::ReplaceTag { name, rank, color } => {
                let sql = "INSERT OR REPLACE INTO tags(name, rank, color) VALUES (?1, ?2, ?3)";
                (sql, vec![text(name), int(rank), text(color)])
            }
            Self::DeleteTag { name } => ("DELETE FROM tags WHERE name = ?1", vec![text(name)]),
            Self::Redesign(sql) => (sql, Vec::new()),
            Self::Emit { .. } | Self::Undone(_) => {
                unreachable!("it is no single statement")
            }
        }
    }

    /// What it adds to the log, by the rules of SQL and nothing of the system's.
    fn facts(&self, documents: &mut Documents) -> Vec<Fact> {
        let mut facts = Vec::new();
        let has_note = |documents: &Documents, id: &i64| documents.get("notes", &id.to_string()).is_some();
        match self {
            Self::InsertNote { id, .. } if has_note(documents, id) => {}
            Self::InsertNote { id, title, amount } | Self::ReplaceNote { id, title, amount } => {
                facts.extend(documents.set("notes", &id.to_string(), Some(note(*id, title, amount))));
            }
            Self::RetitleNote { id, title } => {
                if let Some(old) = documents.get("notes", &id.to_string()) {
                    let new = with(old, "title", json!(title));
                    facts.extend(documents.set("notes", &id.to_string(), Some(new)));
                }
            }
            Self::AmendNotes { from, amount } => {
                for id in notes_between(documents, *from, i64::MAX) {
                    let new = documents.get("notes", &id).map(|old| with(old, "amount", rendered(amount)));
                    facts.extend(documents.set("notes", &id, new));
                }
            }
            Self::MoveNote { id, to } => facts.extend(moved(documents, *id, *to)),
            Self::DeleteNotes { from, to } => {
                for id in notes_between(documents, *from, *to) {
                    facts.extend(documents.set("notes", &id, None));
                }
            }
            Self::ReplaceTag { name, rank, color } => {
                let same_rank = |id: &String| {
                    documents.get("tags", id).is_some_and(|tag| tag.get("rank") == Some(&json!(rank)))
                };
                let replaced = documents.ids("tags").into_iter().find(|id| id != name && same_rank(id));
                if let Some(other) = replaced {
                    facts.extend(documents.set("tags", &other, None));
                }
                let tag = json!({ "name": name, "rank": rank, "color": color });
                facts.extend(documents.set("tags", name, Some(tag)));
            }
            Self::DeleteTag { name } => facts.extend(documents.set("tags", name, None)),
            Self::Emit { document, after, .. } => {
                facts.extend(documents.set(EMITTED, document, after.clone()))
            }
            Self::Undone(_) | Self::Redesign(_) => {}
        }
        facts
    }
}

fn notes_between(documents: &Documents, from: i64, to: i64) -> Vec<String> {
    let inside = |id: &String| id.parse().is_ok_and(|id: i64| (from..=to).contains(&id));
    documents.ids("notes").into_iter().filter(inside).collect()
}

/// A changed key is a document that went and one that came.
fn moved(documents: &mut Documents, id: i64, to: i64) -> Vec<Fact> {
    let (from_id, to_id) = (id.to_string(), to.to_string());
    let Some(old) = documents.get("notes", &from_id).cloned() else { return Vec::new() };
    if id == to {
        return documents.set("notes", &from_id, Some(old)).into_iter().collect();
    }
    if documents.get("notes", &to_id).is_some() {
        return Vec::new();
    }
    let went = documents.set("notes", &from_id, None);
    let came = documents.set("notes", &to_id, Some(with(&old, "id", json!(to))));
    went.into_iter().chain(came).collect()
}

fn emit(tx: &Tx<'_>, document: &str, before: Option<&Value>, after: Option<&Value>) -> cdc_log::Result<()> {
    let change = match (before, after) {
        (None, None) => return Ok(()),
        (None, Some(after)) => Emit::insert(EMITTED, document, after)?,
        (Some(before), Some(after)) => Emit::update(EMITTED, document, before, after)?,
        (Some(before), None) => Emit::delete(EMITTED, document, before)?,
    };
    tx.emit(&change)
}
