//! Bits that rot in a copy of an object's file: the log says so when it is verified, or what is read is what it was.

use std::path::Path;

use cdc_log::Log;
use cdc_model::{Clock, ObjectId};
use rusqlite::Connection;
use rusqlite::types::Value as Sqlite;

use crate::documents::Documents;
use crate::failure::{Broken, chain, ensure};
use crate::rows;
use crate::workload::TABLES;

const PROMISE: &str = "what rots is noticed";

/// What whoever reads an object's file is given: its epoch, the rows of its log and the captured tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    epoch: String,
    rows: Vec<Vec<Sqlite>>,
    tables: Documents,
}

/// Where bits were flipped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rot {
    /// File and bit of each.
    pub(crate) bits: Vec<(&'static str, u64)>,
    /// Whether any is in the WAL, of which SQLite takes what comes after a damaged part for never written.
    pub(crate) is_in_wal: bool,
}

/// What an object's sound file holds, which is not called damaged.
pub(crate) fn check_sound(path: &Path, id: &ObjectId, clock: &Clock) -> Result<Content, Broken> {
    let complaint = complaint(path, id, clock);
    ensure(complaint.is_none(), "what is sound is not called damaged", || {
        format!("{id}: {}", complaint.unwrap_or_default())
    })?;
    read(&rows::open_foreign(path)?)
}

/// Production code notices that the file is damaged, or what it held is still what is read. Says which, as a count.
pub(crate) fn check_rotten(
    path: &Path,
    id: &ObjectId,
    clock: &Clock,
    rot: &Rot,
    sound: &Content,
) -> Result<&'static str, Broken> {
    const EARLIER: &str = "rot that took the end of a WAL";
    if complaint(path, id, clock).is_some() {
        return Ok("rot noticed");
    }
    let file = rows::open_foreign(path)?;
    let saw = match read(&file) {
        Ok(content) if content == *sound => return Ok("rot where nobody reads"),
        Ok(content) if rot.is_in_wal && content.is_beginning_of(sound)? => return Ok(EARLIER),
        Ok(content) => content.difference(sound),
        Err(_) if rot.is_in_wal && is_new(&file)? => return Ok(EARLIER),
        Err(Broken { saw, .. }) => saw,
    };
    let saw = format!("{id}: with the bits {:?} flipped: {saw}", rot.bits);
    Err(Broken { promise: PROMISE, saw })
}

/// What production code says against a file.
fn complaint(path: &Path, id: &ObjectId, clock: &Clock) -> Option<String> {
    let verified = Log::open(path, id, clock).and_then(|log| {
        let (_, fold) = log.verify()?;
        log.compare_rows(&fold)
    });
    match verified {
        Ok(difference) => difference.map(|row| row.to_string()),
        Err(error) => Some(chain(&error)),
    }
}

fn read(file: &Connection) -> Result<Content, Broken> {
    let sql = "SELECT value FROM _cdc_meta WHERE key = 'epoch'";
    let epoch = file.query_row(sql, [], |row| row.get(0))?;
    let sql = "SELECT l.sequence, l.timestamp, o.source, o.epoch, o.route, l.origin_sequence, \
               l.origin_timestamp, l.digest, l.body \
               FROM _cdc_log AS l LEFT JOIN _cdc_origin AS o ON o.id = l.origin ORDER BY l.sequence";
    let mut statement = file.prepare(sql)?;
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect())?;
    Ok(Content { epoch, rows: rows.collect::<Result<_, _>>()?, tables: rows::live(file)? })
}

/// Whether nothing of an object is in the file yet but an empty log.
fn is_new(file: &Connection) -> Result<bool, Broken> {
    let sql = "SELECT NOT EXISTS(SELECT 1 FROM _cdc_log) AND NOT EXISTS( \
               SELECT 1 FROM sqlite_master WHERE name IN ('notes', 'tags'))";
    Ok(file.query_row(sql, [], |row| row.get(0))?)
}

/// The sequence of a row.
fn place(row: &[Sqlite]) -> i64 {
    if let Some(Sqlite::Integer(place)) = row.first() { *place } else { 0 }
}

impl Content {
    /// Whether it is an earlier state of another: fewer rows at the end, and the tables that all of them add up to. Of
    /// tables whose first rows are pruned production code has said that they agree with what was kept.
    fn is_beginning_of(&self, other: &Self) -> Result<bool, Broken> {
        let is_beginning = self.rows.is_empty() || self.epoch == other.epoch;
        // It may have rows that were pruned later.
        let (first, last) =
            (other.rows.first().map_or(0, |row| place(row)), other.rows.last().map_or(0, |row| place(row)));
        let shared = self.rows.iter().skip_while(|row| place(row) < first);
        let is_first = shared.zip(&other.rows).all(|(row, other)| row == other)
            && self.rows.last().map_or(0, |row| place(row)) <= last;
        let is_pruned = self.rows.first().map_or(0, |row| place(row)) > 1;
        Ok(is_beginning && is_first && (is_pruned || self.added_up()? == self.tables))
    }

    /// The captured tables that the log's own rows add up to.
    fn added_up(&self) -> Result<Documents, Broken> {
        let mut documents = Documents::default();
        for row in &self.rows {
            if let [.., Sqlite::Null, _, _, _, _, _, Sqlite::Text(body)] = row.as_slice() {
                documents.apply(&rows::fact(body)?);
            }
        }
        Ok(documents.only(&TABLES))
    }

    /// Where it begins to be another.
    fn difference(&self, other: &Self) -> String {
        if self.epoch != other.epoch {
            return format!("the epoch is {}, it was {}", self.epoch, other.epoch);
        }
        let longest = self.rows.len().max(other.rows.len());
        let differs = (0..longest).find(|at| self.rows.get(*at) != other.rows.get(*at));
        match differs {
            Some(at) => format!("row {} is {:?}, it was {:?}", at + 1, self.rows.get(at), other.rows.get(at)),
            None => self.tables.difference(&other.tables).unwrap_or_default(),
        }
    }
}
