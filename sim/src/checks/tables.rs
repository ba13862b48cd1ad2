//! Holds every archive against the log it is of.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::documents::Fact;
use crate::failure::{Broken, ensure};
use crate::known::Row as Logged;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::store::{Row, SimStore, TableOracle};
use crate::topology::Place;

const PROMISE: &str = "the archive is the history";

/// What others write into the tables' properties.
const FOREIGN: &str = "sim.foreign";

/// Objects that a commit writes: data file, manifest, list, version.
const CHANGES_PER_COMMIT: u64 = 4;

/// The tables of a world, by the object whose log they archive.
#[derive(Debug)]
pub(crate) struct Tables {
    by_object: BTreeMap<usize, Table>,
    turn: usize,
}

#[derive(Debug)]
struct Table {
    oracle: TableOracle,
    /// Rows that are archived already and whose log has not been looked at since.
    waiting: VecDeque<Row>,
    /// Which history of a rewound log it follows, once that is decided.
    old: Option<bool>,
    /// Commits of others.
    foreign: u64,
    /// How often the table had changed when it was looked at, and how many snapshots it had then.
    looked_at: (u64, usize),
}

impl Tables {
    pub(crate) fn new(places: &[Place]) -> Self {
        let archived = places.iter().enumerate().filter(|(_, place)| place.archives);
        let table = |place: &Place| Table {
            oracle: TableOracle::new(format!("tables/{}", place.id.file_name())),
            waiting: VecDeque::new(),
            old: None,
            foreign: 0,
            looked_at: (0, 0),
        };
        Self { by_object: archived.map(|(at, place)| (at, table(place))).collect(), turn: 0 }
    }

    /// Reads what is new in every table, of logs that have just been looked at. Gives what is not archived so far.
    pub(crate) fn check(&mut self, store: &SimStore, oracle: &Oracle) -> Result<Option<String>, Broken> {
        let mut missing = None;
        for (at, table) in &mut self.by_object {
            let through = table.check(store, oracle, *at, Log::Known)?;
            if let Some(row) = table.waiting.front() {
                return ensure(false, PROMISE, || {
                    format!("object {at}: its archive holds {row:?}, its log does not")
                })
                .map(|()| None);
            }
            let rows = oracle.objects.get(*at).map_or(0, |known| known.rows.len());
            if !oracle.is_rewound(*at) && usize::try_from(through) != Ok(rows) {
                missing = Some(format!("object {at} is archived up to {through} of {rows}"));
            }
        }
        Ok(missing)
    }

    /// Reads what is new in the next table, each in its turn, whatever is known of its log so far. A long history is
    /// looked at less often, because each look goes through all of it.
    pub(crate) fn check_next(&mut self, store: &SimStore, oracle: &Oracle) -> Result<(), Broken> {
        let next = self.by_object.range(self.turn..).next().map(|(at, _)| *at);
        self.turn = next.map_or(0, |at| at + 1);
        match next.and_then(|at| self.by_object.get_mut(&at).map(|table| (at, table))) {
            Some((at, table)) if table.has_grown(store) => {
                table.check(store, oracle, at, Log::MayBeLonger).map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Somebody else commits to a table. Gives whether there was one.
    pub(crate) fn commit_foreign(&mut self, store: &SimStore, random: &mut Random) -> bool {
        if self.by_object.is_empty() {
            return false;
        }
        let at = random.place(self.by_object.len());
        let table = self.by_object.values_mut().nth(at);
        let Some(table) = table else { return false };
        let done = table.oracle.commit_property(store, FOREIGN, &(table.foreign + 1).to_string());
        table.foreign += u64::from(done);
        done
    }

    /// How far an object's log is archived, in a commit; `None` where it is not archived at all.
    pub(crate) fn watermark(&mut self, store: &SimStore, at: usize) -> Option<u64> {
        let table = self.by_object.get_mut(&at)?;
        Some(table.oracle.watermark(store).map_or(0, |mark| mark.sequence.cast_unsigned()))
    }
}

/// What is known of the log that a table is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    Known,
    MayBeLonger,
}

impl Table {
    /// Whether it has changed by a sixteenth since it was last looked at.
    fn has_grown(&self, store: &SimStore) -> bool {
        let (changes, snapshots) = self.looked_at;
        let since = self.oracle.changes(store).saturating_sub(changes);
        since > CHANGES_PER_COMMIT * u64::try_from(snapshots / 16).unwrap_or(u64::MAX)
    }

    /// Reads what is new. Gives how far the table says it is.
    fn check(&mut self, store: &SimStore, oracle: &Oracle, at: usize, log: Log) -> Result<i64, Broken> {
        let violations = store.violations();
        ensure(violations.is_empty(), "a committed file never changes", || violations.join("; "))?;
        let changes = self.oracle.changes(store);
        let found = self.oracle.check(store).map_err(|violations| {
            let first = violations.into_iter().next();
            first.map_or(Broken { promise: "an archive is sound", saw: String::new() }, |violation| Broken {
                promise: violation.promise,
                saw: format!("object {at}: {}", violation.saw),
            })
        })?;
        self.looked_at = (changes, found.snapshots);
        let foreign = self.oracle.property(store, FOREIGN).and_then(|count| count.parse().ok());
        ensure(foreign.unwrap_or(0) == self.foreign, "no commit of another is lost", || {
            format!("object {at}: others have committed {} times, its table says {foreign:?}", self.foreign)
        })?;
        self.waiting.extend(found.rows);
        while let Some(row) = self.waiting.pop_front() {
            if !self.check_row(oracle, at, &row, log)? {
                self.waiting.push_front(row);
                break;
            }
        }
        Ok(found.watermark.map_or(0, |mark| mark.sequence))
    }

    /// A row of the archive is the row of the log at its place: of the log as it is, or of what a rewind took back,
    /// but never of one after the other. Gives whether the log is known so far.
    fn check_row(&mut self, oracle: &Oracle, at: usize, row: &Row, log: Log) -> Result<bool, Broken> {
        let Some((known, place)) = oracle.objects.get(at).zip(usize::try_from(row.sequence - 1).ok()) else {
            return Ok(false);
        };
        let now = known.rows.get(place).filter(|_| self.old != Some(true));
        let before = known.rewound.as_ref().filter(|_| self.old != Some(false));
        let before = before.and_then(|rewound| Some((rewound.rows.get(place)?, place >= rewound.fork)));
        let found = match (now, before) {
            (Some(now), before) if is_of(oracle, row, now) => {
                let forked = known.rewound.as_ref().is_some_and(|rewound| place >= rewound.fork);
                let same = before.is_some_and(|(old, _)| old.hash == now.hash);
                self.old = (forked && !same).then_some(false).or(self.old);
                now
            }
            // What comes after a rewind may still be unseen, and may begin as what it took back did.
            (None, Some((_, true))) if self.old.is_none() && log == Log::MayBeLonger => return Ok(false),
            (_, Some((old, is_gone))) if is_of(oracle, row, old) => {
                self.old = is_gone.then_some(true).or(self.old);
                old
            }
            (None, None) if self.old != Some(true) => return Ok(false),
            (None, Some(_)) if self.old.is_none() => return Ok(false),
            (logged, _) => {
                return ensure(false, PROMISE, || {
                    format!("object {at}: archived is {row:?}, logged is {logged:?}")
                })
                .map(|()| true);
            }
        };
        check_content(oracle, at, row, found).map(|()| true)
    }
}

/// Whether an archived row is of this row of a log, by its origin, its place there and its time.
fn is_of(oracle: &Oracle, row: &Row, logged: &Logged) -> bool {
    let source = oracle.place(logged.origin).id.as_str();
    let time = row.origin_timestamp.div_euclid(1000);
    (row.source.as_str(), row.origin_sequence.cast_unsigned(), time)
        == (source, logged.origin_sequence, logged.timestamp)
}

/// It says what was written. Of an object that was rewound nobody knows any more which of two histories is meant.
fn check_content(oracle: &Oracle, at: usize, row: &Row, logged: &Logged) -> Result<(), Broken> {
    let origin = oracle.objects.get(logged.origin).filter(|_| !oracle.is_rewound(logged.origin));
    let fact = origin.and_then(|origin| origin.fact_of(logged.origin_sequence));
    let Some(Fact::Change { collection, document, after, .. }) = fact else { return Ok(()) };
    let archived: Option<Value> = row.after.as_deref().map(serde_json::from_str).transpose()?;
    let says = (row.collection.as_str(), row.document_id.as_deref(), archived.as_ref());
    ensure(says == (collection, Some(document), after.as_ref()), PROMISE, || {
        format!("object {at}: archived is {row:?}, written was {fact:?}")
    })
}
