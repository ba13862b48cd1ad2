//! The promises of a table, each on what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::ops::RangeInclusive;

use xxhash_rust::xxh3::Xxh3Default;

use crate::store::table::avro::{DataFile, Entry, ManifestRef};
use crate::store::table::metadata::Metadata;
use crate::store::table::{Row, VersionNumber, Violation, Watermark};

pub(crate) const MARKS: &str = "property and snapshot agree";
const MANIFEST: &str = "a list tells what its manifests hold";
const NAMES: &str = "a manifest's name tells what it holds";
const COUNTS: &str = "a manifest tells what its files hold";
const BOUNDS: &str = "bounds contain the rows";
const PARTITION: &str = "a file is of the day of its rows";
const ONCE: &str = "each row once";
const DENSE: &str = "every sequence up to the watermark";
const DAY_MICROS: i64 = 86_400_000_000;

/// Collects what is broken.
#[derive(Debug, Default)]
pub(crate) struct Out(Vec<Violation>);

impl Out {
    pub(crate) fn broken(&mut self, promise: &'static str, saw: String) {
        self.0.push(Violation { promise, saw });
    }

    pub(crate) fn ensure(&mut self, kept: bool, promise: &'static str, saw: impl FnOnce() -> String) {
        if !kept {
            self.broken(promise, saw());
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn into_violations(self) -> Vec<Violation> {
        self.0
    }
}

/// The hint may lag. It names a version that was there.
pub(crate) fn hint(versions: &BTreeSet<VersionNumber>, hint: Option<&[u8]>, out: &mut Out) {
    let Some(hint) = hint else { return };
    let number = std::str::from_utf8(hint).ok().and_then(|text| text.trim().parse::<VersionNumber>().ok());
    let reached = number.is_some_and(|number| Some(&number) <= versions.last());
    out.ensure(reached, "the hint is never ahead", || format!("{number:?} of {:?}", versions.last()));
}

pub(crate) fn marks_agree(property: Option<&Watermark>, summary: Option<&Watermark>, out: &mut Out) {
    out.ensure(property == summary, MARKS, || format!("{property:?}, {summary:?}"));
}

pub(crate) fn moves_on(before: VersionNumber, now: VersionNumber, out: &mut Out) {
    out.ensure(before <= now, "versions go up", || format!("from {before} to {now}"));
}

/// A watermark moves up, and says the same as long as it does not move.
pub(crate) fn mark_moves_on(before: Option<&Watermark>, now: Option<&Watermark>, out: &mut Out) {
    let Some(before) = before else { return };
    let kept = now.is_some_and(|now| {
        now.sequence > before.sequence || (now.sequence == before.sequence && now.digest == before.digest)
    });
    out.ensure(kept, "the watermark never moves back", || format!("from {before:?} to {now:?}"));
}

/// No file is in the current snapshot twice.
pub(crate) fn named_once(files: &[&DataFile], out: &mut Out) {
    let mut seen = BTreeSet::new();
    for file in files {
        out.ensure(seen.insert(&file.path), "no file is named twice", || file.path.clone());
    }
}

/// The summary's totals are those of the current files.
pub(crate) fn totals(metadata: &Metadata, files: &BTreeMap<String, DataFile>, out: &mut Out) {
    let Some(current) = metadata.current() else { return };
    let sum = |of: fn(&DataFile) -> i64| files.values().map(of).sum::<i64>();
    for (key, found) in [
        ("total-data-files", sum(|_| 1)),
        ("total-records", sum(|file| file.rows)),
        ("total-files-size", sum(|file| file.bytes)),
    ] {
        let said = current.summary.get(key).and_then(|text| text.parse::<i64>().ok());
        out.ensure(said == Some(found), "totals are sums", || format!("{key} is {said:?}, found {found}"));
    }
    let parent = current.parent.and_then(|id| metadata.snapshots.get(&id));
    let later = parent.is_none_or(|parent| parent.sequence_number < current.sequence_number);
    out.ensure(later, "a snapshot follows its parent", || format!("{:?}", current.parent));
}

/// What a list says of a manifest, and what its name says, against what is in it.
pub(crate) fn manifest(said: &ManifestRef, bytes: usize, entries: &[Entry], out: &mut Out) {
    let live: Vec<&DataFile> =
        entries.iter().filter(|entry| entry.is_live()).map(|entry| &entry.file).collect();
    let days = live.iter().map(|file| file.day);
    let found = (
        signed(bytes),
        signed(live.len()),
        live.iter().map(|file| file.rows).sum::<i64>(),
        signed(entries.len() - live.len()),
        days.clone().min().zip(days.max()),
    );
    let told = (said.bytes, said.files, said.rows, said.deleted_files, said.days);
    out.ensure(told == found, MANIFEST, || format!("{}: {told:?}, found {found:?}", said.path));
    out.ensure(said.content == 0, "there are no row deletes", || said.path.clone());
    out.ensure(said.sequence_number > 0, MANIFEST, || format!("{} belongs to no snapshot", said.path));
    named_for(&said.path, &live, out);
}

/// `r.{first}.{last}.{oldest}.{newest}.{bytes}.…`: scans leave manifests closed by these.
fn named_for(path: &str, files: &[&DataFile], out: &mut Out) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some(facts) = name.strip_prefix("r.") else { return };
    let told: Vec<i64> = facts.split('.').take(5).filter_map(|fact| fact.parse().ok()).collect();
    let long = |bounds: &BTreeMap<i64, Vec<u8>>, field| Some(decode_long(bounds.get(&field)?));
    let least = |field| files.iter().filter_map(|file| long(&file.lower, field)).min().flatten();
    let most = |field| files.iter().filter_map(|file| long(&file.upper, field)).max().flatten();
    let found: Option<Vec<i64>> = [
        least(CURSOR_SEQUENCE),
        most(CURSOR_SEQUENCE),
        least(TIMESTAMP).map(|micros| micros.div_euclid(1000)),
        most(TIMESTAMP).map(|micros| micros.div_euclid(1000)),
        Some(files.iter().map(|file| file.bytes).sum()),
    ]
    .into_iter()
    .collect();
    out.ensure(found.as_ref() == Some(&told), NAMES, || format!("{path}: found {found:?}"));
}

/// Field ids that manifests' names go by; they are fixed by the format.
const TIMESTAMP: i64 = 6;
const CURSOR_SEQUENCE: i64 = 21;

/// What a manifest says of a file, against the file.
pub(crate) fn file(
    said: &DataFile,
    path: &str,
    bytes: usize,
    rows: &[Row],
    fields: &BTreeMap<String, i64>,
    out: &mut Out,
) {
    let (told, found) = ((said.rows, said.bytes), (signed(rows.len()), signed(bytes)));
    out.ensure(told == found, COUNTS, || format!("{path}: {told:?} rows and bytes, found {found:?}"));
    let sorted = rows.is_sorted_by(|one, next| one.sequence < next.sequence);
    out.ensure(sorted, "rows are sorted by sequence", || path.to_owned());
    for row in rows {
        let day = row.origin_timestamp.div_euclid(DAY_MICROS);
        out.ensure(day == said.day, PARTITION, || format!("{path}: day {}, a row of day {day}", said.day));
    }
    let folder = day_folder(said.day);
    out.ensure(path.contains(&format!("/data/{folder}/")), PARTITION, || format!("{path}: {folder}"));
    for (name, of) in COLUMNS {
        let Some(field) = fields.get(*name) else {
            out.broken(BOUNDS, format!("{path}: the schema has no {name}"));
            continue;
        };
        column(said, path, name, *field, rows.iter().map(of), out);
    }
}

/// A value as bounds compare it.
enum Cell<'a> {
    Null,
    Long(i64),
    Text(&'a str),
}

/// The columns that scans are pruned by, and those that may be null.
type Column = (&'static str, fn(&Row) -> Cell<'_>);
const COLUMNS: &[Column] = &[
    ("timestamp", |row| Cell::Long(row.origin_timestamp)),
    ("sequence", |row| Cell::Long(row.origin_sequence)),
    ("cursorSequence", |row| Cell::Long(row.sequence)),
    ("cursorTimestamp", |row| Cell::Long(row.timestamp)),
    ("id", |row| Cell::Text(&row.id)),
    ("kind", |row| Cell::Text(&row.kind)),
    ("collection", |row| Cell::Text(&row.collection)),
    ("source", |row| Cell::Text(&row.source)),
    ("originEpoch", |row| Cell::Text(&row.origin_epoch)),
    ("cursorEpoch", |row| Cell::Text(&row.epoch)),
    ("operation", |row| row.operation.as_deref().map_or(Cell::Null, Cell::Text)),
    ("documentId", |row| row.document_id.as_deref().map_or(Cell::Null, Cell::Text)),
    ("before", |row| row.before.as_deref().map_or(Cell::Null, Cell::Text)),
    ("after", |row| row.after.as_deref().map_or(Cell::Null, Cell::Text)),
];

fn column<'a>(
    said: &DataFile,
    path: &str,
    name: &str,
    field: i64,
    cells: impl Iterator<Item = Cell<'a>>,
    out: &mut Out,
) {
    let (lower, upper) = (said.lower.get(&field), said.upper.get(&field));
    let (mut nulls, mut values, mut outside) = (0, 0, 0);
    for cell in cells {
        values += 1;
        let (low, high) = match cell {
            Cell::Null => {
                nulls += 1;
                continue;
            }
            Cell::Long(value) => (
                lower.is_none_or(|lower| decode_long(lower).is_some_and(|lower| lower <= value)),
                upper.is_none_or(|upper| decode_long(upper).is_some_and(|upper| upper >= value)),
            ),
            Cell::Text(value) => (
                lower.is_none_or(|lower| lower.as_slice() <= value.as_bytes()),
                upper.is_none_or(|upper| upper.as_slice() >= value.as_bytes()),
            ),
        };
        outside += i64::from(!(low && high));
    }
    out.ensure(outside == 0, BOUNDS, || format!("{path}: {outside} values of {name} lie outside"));
    for (kind, told, found) in [("values", &said.values, values), ("nulls", &said.nulls, nulls)] {
        let told = told.get(&field).copied();
        let right = told.is_none_or(|told| told == found);
        out.ensure(right, COUNTS, || format!("{path}: {told:?} {kind} of {name}, found {found}"));
    }
}

/// The rows of the current snapshot.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The sequences in each live file.
    files: BTreeMap<String, Vec<i64>>,
    live: BTreeSet<i64>,
    /// All rows ever seen, as hashes.
    rows: BTreeMap<i64, u64>,
    /// The last sequence of each origin and epoch.
    origins: BTreeMap<(String, String), i64>,
    newest: Option<i64>,
}

impl Ledger {
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.files.iter().map(|(path, sequences)| (path.as_str(), sequences.as_slice()))
    }

    /// Forgets the files that left the snapshot.
    pub(crate) fn keep(&mut self, is_live: impl Fn(&str) -> bool) {
        let gone = self.files.extract_if(.., |path, _| !is_live(path));
        for sequence in gone.flat_map(|(_, sequences)| sequences) {
            self.live.remove(&sequence);
        }
    }

    /// Takes the rows of a file; those never seen go to `new`.
    pub(crate) fn add(&mut self, path: &str, rows: Vec<Row>, new: &mut BTreeMap<i64, Row>, out: &mut Out) {
        self.files.insert(path.to_owned(), rows.iter().map(|row| row.sequence).collect());
        for row in rows {
            let sequence = row.sequence;
            out.ensure(self.live.insert(sequence), ONCE, || format!("{sequence} again in {path}"));
            let hash = hash(&row);
            match self.rows.insert(sequence, hash) {
                Some(before) => {
                    out.ensure(before == hash, "a row never changes", || format!("{sequence} in {path}"));
                }
                None => drop(new.insert(sequence, row)),
            }
        }
    }

    /// New rows come after the others in the log and in their origin's, and their times never decrease.
    pub(crate) fn follow(&mut self, rows: &[Row], out: &mut Out) {
        for row in rows {
            let time = self.newest.is_none_or(|newest| newest <= row.timestamp);
            out.ensure(time, "log time never decreases", || format!("{row:?}"));
            self.newest = self.newest.max(Some(row.timestamp));
            let origin = (row.source.clone(), row.origin_epoch.clone());
            let last = self.origins.insert(origin, row.origin_sequence);
            let later = last.is_none_or(|last| last < row.origin_sequence);
            out.ensure(later, "every event once, in its origin's order", || {
                format!("after {last:?}: {row:?}")
            });
        }
    }

    /// Every sequence up to the watermark is a row, but for those declared absent, and none beyond.
    pub(crate) fn check(&self, mark: Option<&Watermark>, absent: &[RangeInclusive<i64>], out: &mut Out) {
        let through = mark.map_or(0, |mark| mark.sequence);
        let is_absent = |sequence: &i64| absent.iter().any(|range| range.contains(sequence));
        let clipped: BTreeSet<i64> =
            absent.iter().flat_map(|range| *range.start()..=(*range.end()).min(through)).collect();
        let last = self.live.last().copied().unwrap_or(0);
        out.ensure(last <= through, "no row beyond the watermark", || format!("{last} of {through}"));
        if let Some(sequence) = self.live.iter().find(|sequence| is_absent(sequence)) {
            out.broken(DENSE, format!("{sequence} is there and should not be"));
        }
        if signed(self.live.len()) != through - signed(clipped.len()) {
            let missing = (1..=through).find(|at| !self.live.contains(at) && !is_absent(at));
            out.broken(DENSE, format!("{missing:?} is the first missing of {through}"));
        }
        let newest = self.newest.map(|micros| micros.div_euclid(1000));
        let valid = mark.and_then(|mark| mark.valid_through);
        out.ensure(valid == newest, "valid through the newest row", || format!("{valid:?}, {newest:?}"));
    }
}

fn hash(row: &Row) -> u64 {
    let mut hasher = Xxh3Default::new();
    row.hash(&mut hasher);
    hasher.finish()
}

/// Iceberg's form of a long or a time in a bound.
fn decode_long(bytes: &Vec<u8>) -> Option<i64> {
    <[u8; 8]>::try_from(bytes.as_slice()).ok().map(i64::from_le_bytes)
}

/// `year=YYYY/month=MM/day=DD` of a day since 1970, counted year by year and month by month.
fn day_folder(day: i64) -> String {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut left) = (1970, day);
    while left < 0 {
        year -= 1;
        left += if is_leap(year) { 366 } else { 365 };
    }
    while left >= if is_leap(year) { 366 } else { 365 } {
        left -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    format!("year={year:04}/month={month:02}/day={:02}", left + 1)
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).expect("a simulation counts little")
}
