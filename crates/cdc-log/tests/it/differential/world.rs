//! One database, written by foreign processes and looked at after every transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cdc_log::{Attached, Tables};
use cdc_model::Value;

use super::follower::{Bypassed, Follower};
use super::live::Live;
use super::writer::{Answer, Writer};
use crate::statements::literal;
use crate::witness::{clock, folder, id};

/// Looks that a database needs at most until nothing is left to drain.
const LOOKS_MAX: usize = 1000;

/// One thing that happens in a world.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A connection of a writer is opened.
    Open { conn: usize, writer: usize, pragmas: String },
    /// A connection runs a statement.
    Run(Run),
    /// Capture is installed.
    Attach,
    /// A look, and the log is held against the tables.
    Check { thoroughly: bool },
    /// All tables are compared with the log, as somebody went around capture.
    Audit,
    /// What was drained is trimmed.
    Trim,
}

/// A statement of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) conn: usize,
    /// For the statistics; none of what only begins or ends a transaction.
    pub(crate) kind: Option<&'static str>,
    pub(crate) text: String,
    /// Where it stays prepared. Without one the text is run as it is.
    pub(crate) slot: Option<u8>,
    pub(crate) values: Vec<Value>,
    /// Whether it changes the schema, or is one of the ways around capture: what it did may be found by comparison.
    pub(crate) bypass: bool,
}

/// In what the log and the tables, or the application and its expectations, differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A statement was refused that has no reason to be.
    Refused,
    /// A look failed.
    Look,
    /// A record does not continue the history of its document.
    Chain,
    /// A comparison found what capture should have seen.
    Reconciled,
    /// The log adds up to other rows than the table has.
    Rows,
    /// A writer died.
    Writer,
    /// The product panicked.
    Panic,
}

/// A difference, in words.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

impl Difference {
    pub(crate) fn new(kind: Kind, what: impl std::fmt::Display) -> Self {
        Self { kind, what: what.to_string() }
    }

    pub(crate) fn look(error: impl std::fmt::Debug) -> Self {
        Self::new(Kind::Look, format!("{error:?}"))
    }
}

type Result<T> = std::result::Result<T, Difference>;

/// What was done in a world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) transactions: u64,
    pub(crate) refused: u64,
    pub(crate) busy: u64,
    pub(crate) comparisons: u64,
    pub(crate) whole_comparisons: u64,
    pub(crate) rows_compared: u64,
    /// Of emitted documents.
    pub(crate) emitted: u64,
    pub(crate) records: u64,
    pub(crate) reconciled: u64,
    pub(crate) trimmed: u64,
    /// Statements by kind.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    /// Statements by the version of the SQLite that ran them.
    pub(crate) versions: BTreeMap<i32, u64>,
}

impl Counts {
    pub(crate) fn statements(&self) -> u64 {
        self.kinds.values().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.refused += other.refused;
        self.busy += other.busy;
        self.comparisons += other.comparisons;
        self.whole_comparisons += other.whole_comparisons;
        self.rows_compared += other.rows_compared;
        self.emitted += other.emitted;
        self.records += other.records;
        self.reconciled += other.reconciled;
        self.trimmed += other.trimmed;
        other.kinds.iter().for_each(|(kind, n)| *self.kinds.entry(kind).or_default() += n);
        other.versions.iter().for_each(|(version, n)| *self.versions.entry(*version).or_default() += n);
    }
}

struct Conn {
    writer: usize,
    /// Whether it is in no transaction.
    outside: bool,
    /// Whether it went around capture in the transaction that is open.
    bypassed: bool,
    /// Whether it has a TEMP trigger, which no other connection's RENAME COLUMN changes, or knows triggers that name a
    /// column it has dropped the legacy way: it does not read the schema again while they keep it from every statement.
    names_what_is_gone: bool,
}

/// A world while it runs.
pub(crate) struct World<'w> {
    writers: &'w mut [Writer],
    conns: Vec<Conn>,
    legacy: bool,
    attached: Option<Attached>,
    pub(crate) live: Live,
    follower: Follower,
    bypassed: bool,
    /// Whether what is known of the tables may be of before they changed, because somebody's lock kept us out.
    is_stale: bool,
    /// Names that tables had before they were renamed the legacy way, which leaves them in the bodies of triggers.
    renamed: BTreeSet<String>,
    /// Whether a column was dropped the legacy way, which asks no trigger, and no look was since.
    dropped: bool,
    pub(crate) counts: Counts,
    // Dropped last.
    folder: tempfile::TempDir,
}

impl<'w> World<'w> {
    pub(crate) fn new(writers: &'w mut [Writer]) -> Self {
        let folder = folder();
        let live = Live::open(&folder.path().join("app.db"));
        Self {
            writers,
            conns: vec![],
            legacy: false,
            attached: None,
            live,
            follower: Follower::default(),
            bypassed: false,
            is_stale: false,
            renamed: BTreeSet::new(),
            dropped: false,
            counts: Counts::default(),
            folder,
        }
    }

    pub(crate) fn run(&mut self, events: &[Event]) -> Result<()> {
        let mut events = events;
        while let Some(first) = events.first() {
            let here = self.writer_of(first);
            let batch =
                events.iter().take_while(|event| here.is_some() && self.writer_of(event) == here).count();
            let (now, later) = events.split_at(batch.max(1));
            match first {
                Event::Run(_) => self.write(now)?,
                Event::Open { conn, writer, pragmas } => self.open(*conn, *writer, pragmas)?,
                Event::Attach => self.attach()?,
                Event::Check { thoroughly } => self.check(*thoroughly, false)?,
                Event::Audit => self.check(false, true)?,
                Event::Trim => {
                    let trimmed = self.attached.as_mut().map(Attached::trim).transpose();
                    self.counts.trimmed +=
                        trimmed.map_err(Difference::look)?.map_or(0, |trimmed| trimmed.rows());
                }
            }
            events = later;
        }
        Ok(())
    }

    /// The writer that runs an event, if it is a statement.
    fn writer_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Run(run) => Some(self.conns[run.conn].writer),
            _ => None,
        }
    }

    fn open(&mut self, conn: usize, writer: usize, pragmas: &str) -> Result<()> {
        let path = self.folder.path().join("app.db");
        assert_eq!(conn, self.conns.len(), "connections are opened in order");
        self.legacy |= pragmas.contains("legacy_alter_table=1");
        self.conns.push(Conn { writer, outside: true, bypassed: false, names_what_is_gone: false });
        let writer = &mut self.writers[writer];
        let number = u8::try_from(conn).unwrap();
        let opened = (|| {
            writer.open(number, &path)?;
            writer.execute(number, pragmas)?;
            writer.send()?;
            Ok((writer.answer()?, writer.answer()?))
        })();
        let (opened, set) = opened.map_err(died)?;
        if opened.code != 0 || set.code != 0 {
            return Err(Difference::new(
                Kind::Refused,
                format!("{} {}\n{pragmas}", opened.message, set.message),
            ));
        }
        Ok(())
    }

    /// Runs statements that one writer executes, in one turn.
    fn write(&mut self, events: &[Event]) -> Result<()> {
        let runs: Vec<&Run> = events
            .iter()
            .filter_map(|event| if let Event::Run(run) = event { Some(run) } else { None })
            .collect();
        let writer = &mut self.writers[self.conns[runs[0].conn].writer];
        for run in &runs {
            let conn = u8::try_from(run.conn).unwrap();
            match run.slot {
                Some(slot) => writer.prepared(conn, slot, &run.text, &run.values),
                None => writer.execute(conn, &run.text),
            }
            .map_err(died)?;
        }
        writer.send().map_err(died)?;
        let version = writer.version;
        for run in runs {
            let answer = self.writers[self.conns[run.conn].writer].answer().map_err(died)?;
            if let Some(kind) = run.kind {
                *self.counts.kinds.entry(kind).or_default() += 1;
                *self.counts.versions.entry(version).or_default() += 1;
            }
            self.answered(run, &answer)?;
        }
        Ok(())
    }

    fn answered(&mut self, run: &Run, answer: &Answer) -> Result<()> {
        let conn = &mut self.conns[run.conn];
        conn.bypassed |= run.bypass;
        self.bypassed |= conn.bypassed;
        if answer.outside {
            conn.bypassed = false;
        }
        let ended = answer.outside && (!conn.outside || run.kind.is_some() && answer.code == 0);
        self.counts.transactions += u64::from(ended);
        conn.outside = answer.outside;
        if answer.code == 0 {
            conn.names_what_is_gone |= run.kind == Some("CREATE TEMP TRIGGER");
            self.dropped |= run.kind == Some("DROP COLUMN") && self.legacy;
            conn.names_what_is_gone |= self.dropped && run.kind == Some("DROP COLUMN");
            if run.kind == Some("RENAME TABLE") && self.legacy {
                self.renamed.extend(self.live.tables.iter().map(|table| table.name.clone()));
            }
            return Ok(());
        }
        let unreferenced = answer.message.starts_with("no such table: main.")
            && self.live.tables.iter().any(|table| table.sql[0].contains("REFERENCES"))
            && !self
                .live
                .tables
                .iter()
                .any(|table| answer.message.ends_with(&format!("main.{}", table.name)));
        let gone = answer.message.strip_prefix("no such table: main.");
        let column = answer.message.strip_prefix("no such column: ");
        let names_it = (conn.names_what_is_gone || self.dropped)
            && column.is_some_and(|it| ["OLD.", "NEW.", "_cdc_t."].iter().any(|of| it.starts_with(of)));
        if names_it || unreferenced || gone.is_some_and(|gone| self.renamed.contains(gone)) {
            // A TEMP trigger names a column that was renamed, one of ours a column that was dropped the legacy way, or a key or a trigger, also one of ours until the next look, names a table that was renamed the legacy way.
            self.counts.refused += 1;
            return Ok(());
        }
        match expected(Some(run), run.bypass || self.is_stale, answer.code, &answer.message) {
            Some(Expected::Busy) => self.counts.busy += 1,
            Some(Expected::Refused) => self.counts.refused += u64::from(run.kind.is_some()),
            None => {
                let version = self.writers[conn.writer].version;
                let what = format!("{} ({}, SQLite {version})\n{}", answer.message, answer.code, show(run));
                return Err(Difference::new(Kind::Refused, what));
            }
        }
        Ok(())
    }

    fn attach(&mut self) -> Result<()> {
        let (path, log) = (self.folder.path().join("app.db"), self.folder.path().join("log"));
        let mut attached =
            Attached::open(&path, &log, &id(), Tables::All, &clock()).map_err(Difference::look)?;
        let left_out = attached.install().map_err(Difference::look)?.installed.left_out;
        if !left_out.is_empty() {
            return Err(Difference::new(Kind::Look, format!("left out: {left_out:?}")));
        }
        self.attached = Some(attached);
        Ok(())
    }

    fn check(&mut self, thoroughly: bool, audit: bool) -> Result<()> {
        self.is_stale = self.conns.iter().any(|conn| !conn.outside) && self.live.is_kept_out();
        if self.is_stale {
            return Ok(());
        }
        self.live.read_schema();
        let Some(attached) = &mut self.attached else { return Ok(()) };
        let mut looks = 0;
        let mut look = || if audit { attached.audit() } else { attached.look() };
        while look().map_err(Difference::look)?.drained.more {
            looks += 1;
            if looks > LOOKS_MAX {
                return Err(Difference::new(Kind::Look, "never quiet"));
            }
        }
        self.dropped = false;
        let bypassed = match (audit, self.bypassed) {
            (true, _) => Bypassed::Hole,
            (false, true) => Bypassed::Schema,
            (false, false) => Bypassed::No,
        };
        let before = self.follower.records;
        self.counts.reconciled += self.follower.follow(attached.log(), bypassed)?;
        self.counts.records += self.follower.records - before;
        self.bypassed = self.conns.iter().any(|conn| conn.bypassed);
        // A look that heals changes the schema.
        self.live.read_schema();
        self.counts.comparisons += 1;
        let live = self.live.rows();
        if live != *self.follower.rows() || thoroughly {
            self.check_thoroughly()?;
        }
        if live != *self.follower.rows() {
            return Err(Difference::new(Kind::Rows, "rows hash differently but read equal"));
        }
        Ok(())
    }

    /// Value by value, with other eyes and with the product's own.
    fn check_thoroughly(&mut self) -> Result<()> {
        let Some(attached) = &self.attached else { return Ok(()) };
        let fold = &self.follower.fold;
        self.live.compare(fold, self.follower.rows())?;
        if let Some(found) = attached.compare_rows(fold).map_err(Difference::look)? {
            return Err(Difference::new(Kind::Rows, format!("verification alone finds {found:?}")));
        }
        self.counts.whole_comparisons += 1;
        Ok(())
    }

    /// At the end: the whole log, read again.
    pub(crate) fn verify(&mut self) -> Result<()> {
        self.counts.rows_compared = self.live.rows_read;
        let Some(attached) = &self.attached else { return Ok(()) };
        let (verified, fold) = attached.log().verify().map_err(Difference::look)?;
        if verified.broken_chains != self.follower.broken || fold != self.follower.fold {
            return Err(Difference::new(Kind::Chain, format!("{verified:?}")));
        }
        Ok(())
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for (number, conn) in self.conns.iter().enumerate() {
            let writer = &mut self.writers[conn.writer];
            let closed = writer.close(u8::try_from(number).unwrap()).and_then(|()| writer.send());
            drop(closed.and_then(|()| writer.answer()));
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn died(error: std::io::Error) -> Difference {
    Difference::new(Kind::Writer, format!("a writer died: {error}"))
}

pub(crate) enum Expected {
    Busy,
    Refused,
}

/// Whether a statement may be refused with this: by the tables, by another connection, or by SQLite's own rules.
pub(crate) fn expected(run: Option<&Run>, is_stale: bool, code: i32, message: &str) -> Option<Expected> {
    const BUSY: i32 = 5;
    const FULL: i32 = 13;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    /// What statements are told that do not fit what is there.
    const KNOWN: [&str; 20] = [
        "there is already another table or index with this name",
        "ON CONFLICT clause does not match",
        "triggers nested too deep",
        "too many levels of trigger recursion",
        "integer overflow",
        "foreign key mismatch",
        "no transaction is active",
        "no such savepoint",
        "cannot start a transaction within a transaction",
        "cannot VACUUM from within a transaction",
        "Cannot add a",
        "cannot add a",
        "error in ",
        "cannot drop",
        "cannot rename",
        "SQL statements in progress",
        "already exists",
        "no such index",
        "no such trigger",
        "string or blob too big",
    ];
    /// What statements are told that were drawn for the tables before they changed.
    const STALE: [&str; 5] =
        ["no such table", "no such column", "has no column named", "has no column", "generated column"];
    if code & 0xff == BUSY {
        return Some(Expected::Busy);
    }
    const OF_CAPTURE: [&str; 4] = [": _cdc_", "main._cdc_", "trigger _cdc_", "table _cdc_"];
    // Applications' columns may be called so, ours are not.
    let of_capture =
        OF_CAPTURE.iter().any(|ours| message.contains(ours)) && !message.contains("column: _cdc_");
    // A column that our triggers read cannot be dropped.
    let drops = run.is_some_and(|run| run.kind == Some("DROP COLUMN")) && of_capture;
    let stale: &[&str] = if is_stale { &STALE } else { &[] };
    let known = KNOWN.iter().chain(stale).any(|known| message.contains(known));
    // A row id of 2^63-1 leaves no larger one.
    let by_the_tables = [FULL, CONSTRAINT, MISMATCH].contains(&(code & 0xff));
    (drops || ((known || by_the_tables) && !of_capture)).then_some(Expected::Refused)
}

/// A statement as one would type it.
pub(crate) fn show(run: &Run) -> String {
    let mut values = run.values.iter();
    let mut out = String::new();
    for char in run.text.chars() {
        match values.len() {
            left if left > 0 && char == '?' => {
                write!(out, "{}", values.next().map(literal).unwrap()).unwrap()
            }
            _ => out.push(char),
        }
    }
    out
}
