//! Looks into an object's file while the world runs: whatever is new in it must be what the world knows of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::Connection;

use super::transactions::check_transaction;
use crate::documents::Fact;
use crate::failure::{Broken, ensure};
use crate::known::{Burst, Class, Held, KeptBack, Row, Shown, number, row_hash};
use crate::oracle::Oracle;
use crate::rows::{self, LogRow};
use crate::workload::{BURSTS, COUNTS, ECHOES, REJECTED, TABLES};

/// Readers that are kept open at the same time.
const READERS_MAX: usize = 8_192;

/// Rows that are held against what was seen of them before, when a process is back.
const SEEN_AGAIN: usize = 200;

/// The readers of all objects' files.
#[derive(Debug)]
pub(crate) struct Looks {
    paths: Vec<PathBuf>,
    /// Where the tables are.
    tables: Vec<PathBuf>,
    readers: BTreeMap<usize, Reader>,
    readers_max: usize,
    /// The objects by the nonces of their epochs.
    nonces: BTreeMap<String, usize>,
    pub(crate) rows: u64,
    pub(crate) looks: u64,
}

#[derive(Debug)]
struct Reader {
    file: Connection,
    /// By number in the file: the object an event is of, and the child it came by.
    origins: BTreeMap<i64, (usize, usize)>,
}

impl Looks {
    /// Reads objects from these files. Where engines close objects that nobody uses, `keeps_open` is false: a log that a
    /// reader holds open is not closed whole.
    pub(crate) fn new(paths: Vec<PathBuf>, tables: Vec<PathBuf>, keeps_open: bool) -> Self {
        let readers_max = if keeps_open { READERS_MAX } else { 1 };
        Self {
            paths,
            tables,
            readers: BTreeMap::new(),
            readers_max,
            nonces: BTreeMap::new(),
            rows: 0,
            looks: 0,
        }
    }

    /// Closes an object's reader: its process has ended.
    pub(crate) fn close(&mut self, at: usize) {
        self.readers.remove(&at);
    }

    /// Closes what engines are to find closed.
    pub(crate) fn let_go(&mut self) {
        if self.readers_max == 1 {
            self.readers.clear();
        }
    }

    fn reader(&mut self, at: usize) -> Result<&mut Reader, Broken> {
        if !self.readers.contains_key(&at) && self.readers.len() >= self.readers_max {
            self.readers.clear();
        }
        let entry = match self.readers.entry(at) {
            std::collections::btree_map::Entry::Occupied(entry) => return Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => entry,
        };
        let path = self.paths.get(at).expect("an object of this world");
        Ok(entry.insert(Reader { file: rows::open(path)?, origins: BTreeMap::new() }))
    }

    /// Takes in whatever is new in an object's file. What came from a child whose own log is not known so far waits.
    pub(crate) fn look(&mut self, oracle: &mut Oracle, at: usize) -> Result<(), Broken> {
        self.take_in(oracle, at).map(drop)
    }

    /// As [`Looks::look`]. Gives whether nothing had to wait.
    fn take_in(&mut self, oracle: &mut Oracle, at: usize) -> Result<bool, Broken> {
        self.looks += 1;
        let after = number(oracle.known(at).rows.len());
        self.check_epoch(at)?;
        let new = rows::log(&self.reader(at)?.file, after)?;
        let mut came = BTreeMap::new();
        for row in &new {
            let own = number(oracle.known(at).rows.len()) + 1;
            ensure(row.sequence == own, "a log is dense", || {
                format!("object {at}: row {} where {own} is next", row.sequence)
            })?;
            let newest = oracle.known(at).newest;
            ensure(row.appended >= newest, "log time never decreases", || {
                format!("object {at}: row {own} is of {} after {newest}", row.appended)
            })?;
            let seen = match row.origin {
                None => Some(own_row(oracle, at, row)?),
                Some((origin, sequence)) => self.child_row(oracle, at, row, origin, sequence)?,
            };
            // The rest waits until the child is known.
            let Some(seen) = seen else { break };
            if row.origin.is_some() {
                came.insert(seen.origin, seen.origin_sequence);
            }
            oracle.known(at).newest = row.appended;
            oracle.known(at).rows.push(seen);
            self.rows += 1;
        }
        let known = oracle.known(at);
        let is_whole = number(known.rows.len()) == after + number(new.len());
        if is_whole {
            oracle.known(at).known_at = oracle.moment;
            // What an application has written may wait to be drained.
            let waits = oracle.is_attached(at);
            if !waits {
                ensure(!oracle.is_told(at), "captured or not written", || {
                    format!("object {at}: its log does not show a transaction that was committed")
                })?;
                oracle.settle_doubt(at, false);
            }
            let known = oracle.known(at);
            let (seen, written) = (known.own_seen, known.written.len());
            if waits && seen < written && !oracle.is_loose(at) {
                oracle.dirty.insert(at);
            }
            ensure(seen == written || waits, "captured or not written", || {
                format!("object {at}: its log shows {seen} of {written} changes that were committed")
            })?;
            let lost = oracle.known(at).bursts.iter().find(|(_, burst)| **burst == Burst::Written);
            ensure(lost.is_none(), "captured or not written", || {
                format!("object {at}: its log does not show the document {lost:?} that was committed")
            })?;
        } else {
            oracle.dirty.insert(at);
        }
        check_read(oracle, at)?;
        self.check_acked(oracle, at)?;
        let file = &self.reader(at)?.file;
        check_marks(oracle, at, file, is_whole)?;
        if is_whole {
            check_origin_marks(oracle, at, file, &came)?;
        }
        check_conserved(oracle, at, file, is_whole)?;
        Ok(is_whole)
    }

    /// No other log of the world has this log's epoch.
    fn check_epoch(&mut self, at: usize) -> Result<(), Broken> {
        let Some(nonce) = rows::nonce(&self.reader(at)?.file)? else { return Ok(()) };
        let owner = *self.nonces.entry(nonce).or_insert(at);
        ensure(owner == at, "each log has an epoch of its own", || {
            format!("object {at} has the epoch of object {owner}")
        })
    }

    /// No child believes that more is stored above than its parent has said.
    fn check_acked(&mut self, oracle: &mut Oracle, at: usize) -> Result<(), Broken> {
        let Some(parent) = oracle.place(at).parent.filter(|_| oracle.is_sound(at)) else { return Ok(()) };
        let acked = rows::acked(&self.reader(at)?.file)?;
        let said = if oracle.place(parent).host == oracle.place(at).host {
            let child = oracle.place(at).id.as_str().to_owned();
            rows::mark(&self.reader(parent)?.file, &child)?
        } else {
            oracle.known(parent).answered.get(&at).copied().unwrap_or_default()
        };
        ensure(acked <= said, "acknowledged means durable", || {
            format!("object {at} believes {acked} is stored at {parent}, which has said {said}")
        })
    }

    /// An object's process is back: what was seen must be there still.
    pub(crate) fn look_again(&mut self, oracle: &mut Oracle, at: usize) -> Result<(), Broken> {
        const PROMISE: &str = "what is stored stays";
        let seen = oracle.known(at).rows.clone();
        // What is below the floor is gone on purpose.
        let below = usize::try_from(rows::floor(&self.reader(at)?.file)? - 1).unwrap_or(usize::MAX);
        let from = seen.len().saturating_sub(SEEN_AGAIN).max(below.min(seen.len()));
        let stored = rows::log(&self.reader(at)?.file, number(from))?;
        for (row, stored) in seen.iter().skip(from).zip(stored.iter()) {
            ensure(row.hash == hash(stored), PROMISE, || {
                format!("object {at}: row {} is another than it was: {}", stored.sequence, stored.body)
            })?;
        }
        let (had, has) = (seen.len(), from + stored.len());
        ensure(has >= had, PROMISE, || format!("object {at} had {had} rows and is back with {has}"))?;
        // While rows of children wait, own ones behind them are not known so far.
        let is_whole = self.take_in(oracle, at)?;
        if is_whole && !oracle.is_attached(at) { self.check_tables(oracle, at) } else { Ok(()) }
    }

    /// The tables are what the transactions add up to.
    pub(crate) fn check_tables(&mut self, oracle: &mut Oracle, at: usize) -> Result<(), Broken> {
        let difference = self.tables_differ(oracle, at)?;
        ensure(difference.is_none(), "all of a transaction or nothing", || {
            format!("object {at}: live and expected differ: {difference:?}")
        })
    }

    /// How the tables differ from what they are to be.
    pub(crate) fn tables_differ(&mut self, oracle: &mut Oracle, at: usize) -> Result<Option<String>, Broken> {
        let live = match self.tables.get(at) {
            Some(tables) if oracle.is_attached(at) => rows::live(&rows::open_foreign(tables)?)?,
            _ => rows::live(&self.reader(at)?.file)?,
        };
        let known = oracle.known(at);
        Ok(live.difference(&known.loose.as_ref().unwrap_or(&known.documents).only(&TABLES)))
    }

    /// The oldest and the newest row that capture has in an application's database.
    pub(crate) fn captured(&self, at: usize) -> Result<Option<(i64, i64)>, Broken> {
        let tables = self.tables.get(at).expect("an object of this world");
        rows::captured(&rows::open_foreign(tables)?)
    }

    /// The oldest row of an object's log, and how far the last of its subscribers has come.
    pub(crate) fn floor(&mut self, at: usize) -> Result<(u64, Option<u64>), Broken> {
        let file = &self.reader(at)?.file;
        Ok((rows::floor(file)?, rows::last_subscriber(file)?))
    }

    /// Where an object's log ends just now.
    pub(crate) fn tail(&mut self, at: usize) -> Result<u64, Broken> {
        rows::tail(&self.reader(at)?.file)
    }

    /// The file of an object, for checks at the end.
    pub(crate) fn file(&mut self, at: usize) -> Result<&Connection, Broken> {
        Ok(&self.reader(at)?.file)
    }

    fn child_row(
        &mut self,
        oracle: &mut Oracle,
        at: usize,
        row: &LogRow,
        origin: i64,
        sequence: u64,
    ) -> Result<Option<Row>, Broken> {
        let reader = self.reader(at)?;
        let (source, child) = match reader.origins.get(&origin) {
            Some(known) => *known,
            None => {
                let known = origin_of(oracle, &reader.file, at, origin)?;
                reader.origins.insert(origin, known);
                known
            }
        };
        let seen = Row {
            origin: source,
            origin_sequence: sequence,
            hash: hash(row),
            timestamp: row.timestamp,
            class: Class::Captured,
            kept_back: None,
        };
        let class = match oracle.take(at, child, seen, row.sequence)? {
            Held::Taken(class) => class,
            Held::NotKnown => return Ok(None),
        };
        let place = oracle.place(at);
        let kept_back = match class {
            Class::Emitted | Class::Echo if place.filters => Some(KeptBack::Filtered),
            Class::Captured if place.rejects && is_rejected(&rows::fact(&row.body)?) => {
                Some(KeptBack::DeadLettered)
            }
            Class::Schema | Class::Captured | Class::Emitted | Class::Counted | Class::Echo => None,
        };
        Ok(Some(Row { class, kept_back, ..seen }))
    }
}

/// Whether a stage that rejects events rejects this one.
fn is_rejected(fact: &Fact) -> bool {
    matches!(fact, Fact::Change { collection, after: None, .. } if collection == REJECTED)
}

/// What was read along is what the log holds.
fn check_read(oracle: &mut Oracle, at: usize) -> Result<(), Broken> {
    let known = oracle.known(at);
    while let Some((own, read)) = known.read.front().copied() {
        let place = usize::try_from(own - 1).ok();
        let Some(row) = place.and_then(|place| known.rows.get(place)) else { break };
        known.read.pop_front();
        ensure(row.hash == read, "a replay reads what is stored", || {
            format!("object {at}: row {own} was read as another than {row:?}")
        })?;
    }
    Ok(())
}

fn origin_of(oracle: &Oracle, file: &Connection, at: usize, origin: i64) -> Result<(usize, usize), Broken> {
    let (source, route) = rows::origin(file, origin)?;
    let index = |id: &str| id.parse().ok().and_then(|id| oracle.index(&id));
    let child = route.split_whitespace().last().and_then(index);
    let known = index(&source).zip(child).filter(|(_, child)| oracle.place(*child).parent == Some(at));
    ensure(known.is_some(), "events come from below", || {
        format!("object {at} holds events of {source} by {route}")
    })?;
    Ok(known.unwrap_or_default())
}

/// Captured or not written: an object's own row is the next fact.
fn own_row(oracle: &mut Oracle, at: usize, row: &LogRow) -> Result<Row, Broken> {
    const PROMISE: &str = "captured or not written";
    let fact = rows::fact(&row.body)?;
    let mut class = Class::Schema;
    if let Fact::Schema { .. } = &fact {
        let known = oracle.known(at);
        known.loose.iter_mut().for_each(|documents| documents.apply(&fact));
        known.shown.insert(row.sequence, Shown::Found(fact.clone()));
    }
    if let Fact::Change { collection, document, before, .. } = &fact {
        class = match collection.as_str() {
            COUNTS => Class::Counted,
            ECHOES => Class::Echo,
            name if TABLES.contains(&name) => Class::Captured,
            _ => Class::Emitted,
        };
        if class == Class::Counted {
            let known = oracle.known(at).counted.get(collection, document).cloned();
            let is_rewound = oracle.is_rewound(at);
            ensure(*before == known || is_rewound, "before continues after", || {
                format!("object {at}: {fact:?}, known was {known:?}")
            })?;
            let known = oracle.known(at);
            known.counted.apply(&fact);
            known.shown.insert(row.sequence, Shown::Found(fact));
        } else if class == Class::Echo {
            let is_new = oracle.known(at).echoed.insert(document.clone());
            let is_rewound = oracle.is_rewound(at);
            ensure(is_new || is_rewound, "effect and checkpoint commit together", || {
                format!(
                    "object {at}: row {} was caused by what had its effect before: {fact:?}",
                    row.sequence
                )
            })?;
            oracle.known(at).shown.insert(row.sequence, Shown::Found(fact));
        } else if collection == BURSTS {
            let may_be = oracle.burst_shown(at, document);
            ensure(may_be, "all of a transaction or nothing", || {
                format!("object {at}: row {} was given up or is there twice: {fact:?}", row.sequence)
            })?;
            oracle.known(at).shown.insert(row.sequence, Shown::Found(fact));
        } else if let Some(documents) = &mut oracle.known(at).loose {
            let known = documents.get(collection, document).cloned();
            documents.apply(&fact);
            ensure(*before == known || oracle.known(at).is_bypassed, "before continues after", || {
                format!("object {at}: row {} is {fact:?}, known was {known:?}", row.sequence)
            })?;
            oracle.known(at).shown.insert(row.sequence, Shown::Found(fact));
        } else {
            if oracle.known(at).own_seen == oracle.known(at).written.len() {
                // The end of this transaction was not told, or not yet: the log says that it committed.
                let doubtful = oracle.doubtful(at).map(<[Fact]>::len);
                ensure(doubtful.is_some(), PROMISE, || {
                    format!("object {at}: row {} was never written: {fact:?}", row.sequence)
                })?;
                oracle.settle_doubt(at, true);
            }
            let known = oracle.known(at);
            let meant = known.written.get(known.own_seen);
            ensure(Some(&fact) == meant, PROMISE, || {
                format!("object {at}: row {} is {fact:?}, written was {meant:?}", row.sequence)
            })?;
            check_transaction(oracle, at, row)?;
            let known = oracle.known(at);
            known.shown.insert(row.sequence, Shown::Written(known.own_seen));
            known.own_seen += 1;
        }
    }
    let (origin_sequence, timestamp) = (row.sequence, row.timestamp);
    Ok(Row { origin: at, origin_sequence, hash: hash(row), timestamp, class, kept_back: None })
}

fn hash(row: &LogRow) -> u64 {
    row_hash(&row.body, row.timestamp)
}

/// Marks cover what is stored, and everything that was answered is stored.
fn check_marks(oracle: &mut Oracle, at: usize, file: &Connection, is_whole: bool) -> Result<(), Broken> {
    let marks = rows::marks(file)?;
    let mut found = BTreeMap::new();
    for (child, mark) in marks {
        let child = child.parse().ok().and_then(|id| oracle.index(&id));
        if let Some(child) = child {
            found.insert(child, mark);
        }
    }
    let answered = oracle.known(at).answered.clone();
    for (child, answered) in answered {
        let mark = found.get(&child).copied().unwrap_or_default();
        ensure(mark >= answered, "acknowledged means durable", || {
            format!("object {at} has answered {answered} to {child}, its mark is {mark}")
        })?;
    }
    oracle.known(at).marks.clone_from(&found);
    for (child, mark) in found {
        if oracle.is_rewound(child) {
            continue;
        }
        let (through, last) = match oracle.known(at).taken.get(&child) {
            Some(taken) => (taken.through, taken.pairs.last().map_or(0, |(child, _)| *child)),
            None => (0, 0),
        };
        ensure(!is_whole || mark >= last, "a mark covers what is stored", || {
            format!("object {at} holds {child} up to {last}, its mark is {mark}")
        })?;
        let known = oracle.known(child);
        let decided = number(known.decided(through));
        let is_known = number(known.rows.len()) >= mark;
        ensure(!is_whole || !is_known || decided >= mark, "acknowledged means durable", || {
            format!("object {at}: the mark of {child} is {mark}, its log has it up to {decided}")
        })?;
    }
    Ok(())
}

/// Of every origin whose events came in, the mark is at the newest of them.
fn check_origin_marks(
    oracle: &Oracle,
    at: usize,
    file: &Connection,
    came: &BTreeMap<usize, u64>,
) -> Result<(), Broken> {
    for (origin, newest) in came.iter().filter(|(origin, _)| !oracle.is_rewound(**origin)) {
        let mark = rows::origin_mark(file, oracle.place(*origin).id.as_str())?;
        ensure(mark == *newest, "a mark covers what is stored", || {
            format!("object {at} holds the origin {origin} up to {newest}, its mark is {mark}")
        })?;
    }
    Ok(())
}

/// received = stored + duplicate + looped + late + refused, and the rows are what was stored.
fn check_conserved(oracle: &mut Oracle, at: usize, file: &Connection, is_whole: bool) -> Result<(), Broken> {
    const PROMISE: &str = "what is received is accounted for";
    let names = ["stored", "duplicate", "looped", "late", "refused"];
    let counted = names.iter().map(|name| rows::counter(file, name)).collect::<Result<Vec<_>, _>>()?;
    let received = rows::counter(file, "received")?;
    ensure(received == counted.iter().sum::<u64>(), PROMISE, || {
        format!("object {at}: {received} received, {counted:?} of {names:?}")
    })?;
    let rows: u64 = oracle.known(at).taken.values().map(|taken| number(taken.pairs.len())).sum();
    ensure(!is_whole || counted.first() == Some(&rows), PROMISE, || {
        format!("object {at} holds {rows} events of its children, {counted:?} of {names:?}")
    })
}
