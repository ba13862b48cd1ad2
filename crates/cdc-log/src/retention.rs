//! How hot rows go: behind what everybody has taken, a chunk per transaction, and the file's space after them.
//!
//! What may go is a pure decision: the smallest position that anybody who needs the rows has come to. The driver says
//! how far the parent, the archive and the stages are; checkpoints lie in the log itself.

use cdc_model::{Digest, ObjectId, Position, Record, Sequence, Timestamp, mutant, reached};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::transaction::LogTransaction;
use crate::{Error, Log, Result, documents, store};

/// One transaction prunes at most this many rows, and about as many bytes of bodies, so that a writer that waits for it
/// waits a few milliseconds.
const CHUNK_ROWS_MAX: i64 = 500;
const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// One step measures at most this many rows.
const MEASURED_ROWS_MAX: i64 = 20_000;

/// One step gives back at most this many pages of the file.
const VACUUM_PAGES_MAX: i64 = 32;

/// So many free pages stay in the file (1 MiB), for the rows that come next.
const FREE_PAGES_KEPT: i64 = 256;

/// Under what `_cdc_meta` keeps the oldest row's sequence, and the digest before it.
const FLOOR: &str = "floor";
const FLOOR_DIGEST: &str = "floor_digest";

/// Counts rows of children that were pruned, so that what was stored can be recounted.
pub(crate) const PRUNED_FORWARDED: &str = "pruned-forwarded";

/// How much of its history a log keeps hot, once everybody has taken it. A row goes when it is over any of the limits;
/// without a limit none goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Retention {
    /// Rows that were appended longer ago than this go, in milliseconds.
    #[serde(rename = "maxAge", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// So many of the newest rows stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u64>,
    /// So many bytes of the newest rows' bodies stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// Keeps everything.
    pub const ALL: Self = Self { max_age_ms: None, max_events: None, max_bytes: None };

    /// Whether nothing ever goes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }
}

/// Who may still need rows of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Holder {
    /// Nothing archives what lies here, and no parent has it: the log is the last copy.
    LastCopy,
    /// The parent, up to what it has acknowledged.
    Parent(ObjectId),
    /// The root, and the archives on the way to it.
    Settled,
    /// The object's own archive.
    Archive,
    /// Stages that have not decided yet.
    Stages,
    /// Whoever saves a checkpoint under this name.
    Subscriber(String),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LastCopy => f.write_str("nobody else, for this log is the last copy"),
            Self::Parent(parent) => write!(f, "the parent {parent}"),
            Self::Settled => f.write_str("the root and the archives on the way"),
            Self::Archive => f.write_str("the archive"),
            Self::Stages => f.write_str("the stages"),
            Self::Subscriber(name) => write!(f, "the subscriber {name}"),
        }
    }
}

/// How far somebody has come who needs rows of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who.
    pub holder: Holder,
    /// The last position that is not needed any more.
    pub through: Sequence,
}

/// Records that somebody still needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Who.
    pub holder: Holder,
    /// The last position taken by then.
    pub at: Sequence,
    /// How many of the records in question lie behind it.
    pub records: u64,
}

/// What [`Log::prune_through`] would drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Losses {
    /// The last position that would go. The newest row stays.
    pub through: Sequence,
    /// How many records would go.
    pub records: u64,
    /// Who would lose some of them. Empty when everybody has taken them.
    pub losses: Vec<Loss>,
}

/// What one step of pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Records that went.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Pages given back to the file system.
    pub pages: u64,
    /// The oldest readable sequence now.
    pub floor: Sequence,
    /// Who holds back records that are over the limits.
    pub held: Vec<Loss>,
    /// Whether there is more to do at once.
    pub more: bool,
}

impl Pruned {
    /// Adds what a later step did.
    pub fn add(&mut self, later: Self) {
        let (records, bytes, pages) =
            (self.records + later.records, self.bytes + later.bytes, self.pages + later.pages);
        *self = Self { records, bytes, pages, ..later };
    }
}

/// The bytes of the bodies of the rows from a floor on, as far as they were measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    floor: Sequence,
    through: Sequence,
    bytes: u64,
}

/// Up to where rows may go: behind everybody, and never the newest.
fn may_go(holds: &[Hold], tail: Sequence) -> Sequence {
    holds.iter().map(|hold| hold.through).chain([before(tail)]).min().unwrap_or_default()
}

/// Who needs some of the rows from `floor` through `through`.
fn losses(holds: Vec<Hold>, floor: Sequence, through: Sequence) -> Vec<Loss> {
    let loss = |Hold { holder, through: at }| {
        let records = through.since(at.max(before(floor)));
        Loss { holder, at, records }
    };
    holds
        .into_iter()
        .filter(|hold| hold.through < through)
        .map(loss)
        .filter(|loss| loss.records > 0)
        .collect()
}

impl Log {
    /// Takes one step in bringing the log back within its limits: prunes a chunk of what everybody has taken, or gives
    /// space back. `holds` says how far the parent, the archive and the stages are; checkpoints are added here. Call it
    /// again while [`Pruned::more`] is set, and let writers in between.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`]; what went before stays gone.
    pub fn prune(&mut self, retention: &Retention, now: Timestamp, holds: &[Hold]) -> Result<Pruned> {
        let measured = self.measure(retention)?;
        let floor = self.floor()?;
        let wanted = self.over_limits(retention, now)?;
        let others = holds;
        let holds = self.holds(others)?;
        let through = wanted.min(may_go(&holds, self.tail().sequence));
        let held = losses(holds, floor, wanted.min(before(self.tail().sequence)));
        if through < floor {
            let pages = self.give_back()?;
            return Ok(Pruned { pages, floor, held, more: pages > 0 || !measured, ..Pruned::default() });
        }
        let pruned = self.prune_chunk(through, Some(others))?;
        Ok(Pruned { held, more: true, ..pruned })
    }

    /// Prunes a chunk of the rows up to `through`, whoever still needs them; never the newest row. This is the explicit
    /// act that drops what may be nowhere else: ask [`Log::losses`] first. Call it again while [`Pruned::more`] is set.
    ///
    /// # Errors
    ///
    /// [`Error::BeyondTail`] or [`Error::Sqlite`]; what went before stays gone.
    pub fn prune_through(&mut self, through: Sequence) -> Result<Pruned> {
        let through = self.check_prunable(through)?;
        let floor = self.floor()?;
        if through < floor {
            let pages = self.give_back()?;
            return Ok(Pruned { pages, floor, more: pages > 0, ..Pruned::default() });
        }
        Ok(Pruned { more: true, ..self.prune_chunk(through, None)? })
    }

    /// What [`Log::prune_through`] would drop, and for whom.
    ///
    /// # Errors
    ///
    /// [`Error::BeyondTail`] or [`Error::Sqlite`].
    pub fn losses(&self, through: Sequence, holds: &[Hold]) -> Result<Losses> {
        let (through, floor) = (self.check_prunable(through)?, self.floor()?);
        let losses = losses(self.holds(holds)?, floor, through);
        Ok(Losses { through, records: through.since(before(floor)), losses })
    }

    fn check_prunable(&self, through: Sequence) -> Result<Sequence> {
        let tail = self.tail().sequence;
        if through > tail {
            return Err(Error::BeyondTail { after: through, tail });
        }
        Ok(through.min(before(tail)))
    }

    /// Everybody who needs rows: whom the driver knows, and every checkpoint.
    fn holds(&self, others: &[Hold]) -> Result<Vec<Hold>> {
        let mut holds = others.to_vec();
        if mutant!("pruned-before-consumed") {
            return Ok(holds);
        }
        for checkpoint in self.checkpoints()? {
            let through = self.taken(&checkpoint);
            holds.push(Hold { holder: Holder::Subscriber(checkpoint.subscriber_id), through });
        }
        Ok(holds)
    }

    /// The last position that is over one of the limits; zero when none is.
    fn over_limits(&self, retention: &Retention, now: Timestamp) -> Result<Sequence> {
        let tail = self.tail().sequence;
        let mut through = Sequence::ZERO;
        if let Some(most) = retention.max_events {
            through = Sequence::new(tail.get().saturating_sub(most));
        }
        if let Some(age) = retention.max_age_ms {
            let oldest = now.get().saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
            let first = self.seek(Timestamp::new(oldest))?;
            through = through.max(first.map_or(tail, before));
        }
        if let Some(most) = retention.max_bytes {
            through = through.max(self.over_bytes(most)?);
        }
        Ok(through)
    }

    /// The last of the oldest rows without which the log has at most so many bytes, as far as one step looks.
    fn over_bytes(&self, most: u64) -> Result<Sequence> {
        let mut excess = self.measured.bytes.saturating_sub(most);
        let mut through = Sequence::ZERO;
        let sql = "SELECT sequence, octet_length(body) FROM _cdc_log ORDER BY sequence LIMIT ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([MEASURED_ROWS_MAX])?;
        while excess > 0
            && let Some(row) = rows.next()?
        {
            through = Sequence::checked(row.get(0)?).unwrap_or_default();
            excess = excess.saturating_sub(row.get::<_, i64>(1)?.unsigned_abs());
        }
        Ok(through)
    }

    /// Measures rows that were appended since the last step, if a limit asks. Gives whether all are measured.
    fn measure(&mut self, retention: &Retention) -> Result<bool> {
        if retention.max_bytes.is_none() {
            return Ok(true);
        }
        let (floor, tail) = (self.floor()?, self.tail().sequence);
        if self.measured.floor != floor {
            // Another connection has pruned.
            self.measured = Measured { floor, through: before(floor), bytes: 0 };
        }
        let after = self.measured.through;
        let through = tail.min(Sequence::new(after.get().saturating_add(MEASURED_ROWS_MAX.unsigned_abs())));
        let sql = "SELECT coalesce(sum(octet_length(body)), 0) FROM _cdc_log WHERE sequence > ?1 AND sequence <= ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let bytes: i64 = statement.query_row([after.as_i64(), through.as_i64()], |row| row.get(0))?;
        drop(statement);
        self.measured.through = through;
        self.measured.bytes += bytes.unsigned_abs();
        Ok(through == tail)
    }

    /// `needed` says who is asked again inside the transaction: another process may have saved a checkpoint meanwhile.
    fn prune_chunk(&mut self, through: Sequence, needed: Option<&[Hold]>) -> Result<Pruned> {
        let pruned = self.transact(|log| {
            let through = match needed {
                Some(others) => through.min(may_go(&log.log().holds(others)?, log.log().tail().sequence)),
                None => through,
            };
            log.prune_chunk(through)
        })?;
        reached!("log.pruned");
        if self.measured.floor < pruned.floor {
            self.measured.floor = pruned.floor;
            self.measured.bytes = self.measured.bytes.saturating_sub(pruned.bytes);
        }
        Ok(pruned)
    }

    /// Gives free pages at the end of the file back to the file system, a few at a time. A file that was made without
    /// `auto_vacuum` keeps them for later rows. Gives how many went.
    fn give_back(&self) -> Result<u64> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let free = self.pragma("PRAGMA freelist_count")?;
        if free <= FREE_PAGES_KEPT || self.pragma("PRAGMA auto_vacuum")? != INCREMENTAL {
            return Ok(0);
        }
        let pages = VACUUM_PAGES_MAX.min(free - FREE_PAGES_KEPT);
        // Each step of the statement frees one page.
        let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({pages}) -- _cdc_"))?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        drop(statement);
        let left = self.pragma("PRAGMA freelist_count")?;
        if left <= FREE_PAGES_KEPT {
            // The file is cut when the write-ahead log is moved into it. Readers may put that off.
            self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE) -- _cdc_", [], |_| Ok(()))?;
        }
        Ok((free - left).max(0).unsigned_abs())
    }

    fn pragma(&self, sql: &str) -> Result<i64> {
        Ok(self.conn.query_row(sql, [], |row| row.get(0))?)
    }

    /// The position just below the oldest row, with the digest that the rows from there on continue.
    pub(crate) fn below_floor(&self) -> Result<Position> {
        let floor = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<[u8; 16]>>(1)?));
        let (floor, digest) = self.conn.prepare_cached(BELOW_FLOOR)?.query_row([], floor)?;
        let sequence = floor.and_then(Sequence::checked).map_or(Sequence::ZERO, before);
        Ok(Position { sequence, digest: digest.map_or(Digest::ZERO, Digest::from_bytes) })
    }
}

/// Both at one moment, for another connection may prune.
const BELOW_FLOOR: &str = "SELECT (SELECT value FROM _cdc_meta WHERE key = 'floor'), \
                           (SELECT value FROM _cdc_meta WHERE key = 'floor_digest')";

/// What `PRAGMA auto_vacuum` says of a file that gives space back when asked.
const INCREMENTAL: i64 = 2;

fn before(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get().saturating_sub(1))
}

impl LogTransaction<'_> {
    /// Prunes the first rows up to `through`, with the floor and the digest below it, and keeps what outlives them.
    fn prune_chunk(&mut self, through: Sequence) -> Result<Pruned> {
        let floor = self.log().floor()?;
        let chunk = self.chunk(through)?;
        let Some(last) = chunk.last else { return Ok(Pruned { floor, ..Pruned::default() }) };
        assert!(last < self.log().tail().sequence, "the newest row is never pruned");
        let below = self.log().position_at(last)?;
        let upto = [last.as_i64()];
        documents::keep_states(self, last)?;
        self.conn().prepare_cached(PARK)?.execute(upto)?;
        self.conn().prepare_cached("DELETE FROM _cdc_log WHERE sequence <= ?1")?.execute(upto)?;
        self.conn().prepare_cached("DELETE FROM _cdc_verdict WHERE sequence <= ?1")?.execute(upto)?;
        let floor = last.next();
        store::put_meta(self.conn(), FLOOR, floor.as_i64())?;
        if !mutant!("floor-digest-not-kept") {
            store::put_meta(self.conn(), FLOOR_DIGEST, below.digest.as_bytes())?;
        }
        if chunk.forwarded > 0 {
            self.count(PRUNED_FORWARDED, chunk.forwarded)?;
        }
        Ok(Pruned { records: chunk.records, bytes: chunk.bytes, floor, ..Pruned::default() })
    }

    fn chunk(&self, through: Sequence) -> Result<Chunk> {
        let mut chunk = Chunk::default();
        let mut statement = self.conn().prepare_cached(CHUNK)?;
        let mut rows = statement.query([through.as_i64(), CHUNK_ROWS_MAX])?;
        while chunk.bytes < CHUNK_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            chunk.last = Sequence::checked(row.get(0)?);
            chunk.records += 1;
            chunk.bytes += row.get::<_, i64>(1)?.unsigned_abs();
            chunk.forwarded += u64::from(row.get::<_, bool>(2)?);
        }
        Ok(chunk)
    }
}

/// The rows that one transaction prunes.
#[derive(Default)]
struct Chunk {
    last: Option<Sequence>,
    records: u64,
    bytes: u64,
    /// Of these, events of children.
    forwarded: u64,
}

const CHUNK: &str = "SELECT sequence, octet_length(body), origin IS NOT NULL FROM _cdc_log \
                     WHERE sequence <= ?1 ORDER BY sequence LIMIT ?2";

/// A dead letter waits for somebody, however long: its row is kept apart.
const PARK: &str = "INSERT INTO _cdc_parked(sequence, timestamp, origin, origin_sequence, origin_timestamp, body) \
                    SELECT sequence, timestamp, origin, origin_sequence, origin_timestamp, body FROM _cdc_log \
                    WHERE sequence IN (SELECT sequence FROM _cdc_dead_letter WHERE sequence <= ?1)";

/// A record that a stage rejected and that waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stage.
    pub stage: String,
    /// Why it was rejected.
    pub reason: String,
    /// The record, as the log holds it or held it.
    pub record: Record,
}

const LETTERS: &str = "SELECT row.sequence, row.timestamp, row.body, row.origin, row.origin_sequence, \
                       row.origin_timestamp, letter.stage, letter.reason FROM _cdc_dead_letter letter JOIN \
                       (SELECT sequence, timestamp, body, origin, origin_sequence, origin_timestamp FROM _cdc_parked \
                       UNION ALL \
                       SELECT sequence, timestamp, body, origin, origin_sequence, origin_timestamp FROM _cdc_log) row \
                       ON row.sequence = letter.sequence WHERE letter.sequence > ?1 ORDER BY letter.sequence LIMIT ?2";

impl Log {
    /// The records after `after` that stages rejected, at most `most`, with their rows whether or not they are still in
    /// the log.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`] or [`Error::Corrupt`].
    pub fn dead_letters(&self, after: Sequence, most: u32) -> Result<Vec<DeadLetter>> {
        let mut statement = self.conn.prepare_cached(LETTERS)?;
        let mut rows = statement.query([after.as_i64(), i64::from(most)])?;
        let mut letters = Vec::new();
        while let Some(row) = rows.next()? {
            let record = self.row_ref(row)?.to_record(self.epoch());
            letters.push(DeadLetter { stage: row.get(6)?, reason: row.get(7)?, record });
        }
        Ok(letters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(holder: Holder, through: u64) -> Hold {
        Hold { holder, through: Sequence::new(through) }
    }

    #[test]
    fn rows_go_behind_whoever_is_last_and_never_the_newest() {
        let archive = |through| hold(Holder::Archive, through);
        let subscriber = |through| hold(Holder::Subscriber("s".to_owned()), through);
        for (holds, tail, expected) in [
            (vec![], 0, 0),
            (vec![], 1, 0),
            (vec![], 9, 8),
            (vec![archive(20)], 9, 8),
            (vec![archive(5), subscriber(7)], 9, 5),
            (vec![archive(5), subscriber(0)], 9, 0),
            (vec![hold(Holder::LastCopy, 0), archive(9)], 9, 0),
        ] {
            assert_eq!(may_go(&holds, Sequence::new(tail)).get(), expected, "{holds:?} {tail}");
        }
    }

    #[test]
    fn a_loss_counts_what_is_still_there_and_was_not_taken() {
        let lost = |at, floor, through| {
            let losses =
                losses(vec![hold(Holder::Archive, at)], Sequence::new(floor), Sequence::new(through));
            losses.first().map(|loss| loss.records)
        };
        assert_eq!(lost(0, 1, 10), Some(10));
        assert_eq!(lost(4, 1, 10), Some(6));
        assert_eq!(lost(4, 8, 10), Some(3));
        assert_eq!(lost(10, 1, 10), None);
        assert_eq!(lost(0, 11, 10), None);
    }
}
