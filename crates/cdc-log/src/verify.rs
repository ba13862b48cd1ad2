//! Recounts what a log promises, from its rows.

use std::collections::{BTreeMap, BTreeSet};

use cdc_model::{Digest, Document, Fold, ObjectId, Record, Sequence, Timestamp, mutant};
use rusqlite::{Connection, OptionalExtension as _};

use crate::live::LiveRows;
use crate::read::{DIGEST_EVERY, Limit};
use crate::{Error, Log, Result, capture, documents};

/// What a verified log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records.
    pub records: u64,
    /// Of these, the object's own.
    pub own: u64,
    /// Events whose `before` is not what the history before them says, with the first of them.
    pub broken_chains: u64,
    /// The first broken chain: where, and which document.
    pub first_broken: Option<(Sequence, String)>,
    /// Documents that the log adds up to.
    pub documents: u64,
}

/// A live row that is not what the history says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowDifference {
    /// The table.
    pub collection: String,
    /// The row.
    pub document_id: String,
    /// Its JSON in the table; `None` when it is not there.
    pub live: Option<String>,
    /// Its JSON in the fold; `None` when it is not there.
    pub folded: Option<String>,
}

impl std::fmt::Display for RowDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { collection, document_id, live, folded } = self;
        let text = |state: &Option<String>| state.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(
            f,
            "{collection}/{document_id} is {} in the table and {} in the history",
            text(live),
            text(folded)
        )
    }
}

/// Compares live tables with a fold of the history: the first difference, or `None`.
pub type CompareRows<'a> = dyn Fn(&Fold) -> Result<Option<RowDifference>> + 'a;

impl Log {
    /// Reads the whole log and checks that sequences are dense, times never decrease, every origin's sequences
    /// strictly increase, stored digests follow from the rows, and each event continues its document's history as far as
    /// that was not pruned; and that the pages of the file are sound and its indexes agree with their tables.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] at the first row that contradicts the log, [`Error::Damaged`] where SQLite finds fault with
    /// the file.
    pub fn verify(&self) -> Result<(Verified, Fold)> {
        self.check_file()?;
        self.check_own_rows()?;
        let below = self.below_floor()?;
        let mut verifier = Verifier::new(self, below.sequence)?;
        let (mut after, mut digest) = (below.sequence, below.digest);
        let mut last = Timestamp::new(i64::MIN);
        while after < self.tail().sequence {
            for record in self.read(after, Limit::default())? {
                if record.timestamp < last {
                    return Err(self.corrupt(record.sequence, "its time is before that of the row before it"));
                }
                last = record.timestamp;
                digest = record.digest(digest);
                self.check_digest(record.sequence, digest)?;
                verifier.take_kept(self, after)?;
                verifier.take(self, &record)?;
                after = record.sequence;
            }
        }
        verifier.take_kept(self, after)?;
        verifier.done.documents = u64::try_from(verifier.fold.len()).unwrap_or(u64::MAX);
        Ok((verifier.done, verifier.fold))
    }

    /// Rows that a damaged page does not show any more leave a log that is shorter and sound.
    fn check_file(&self) -> Result<()> {
        let found: String = self.conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Error::Damaged { path: self.path.clone(), what: found });
        }
        Ok(())
    }

    /// An own event has its place and its time from the log; its digest is over these.
    fn check_own_rows(&self) -> Result<()> {
        let sql = "SELECT sequence FROM _cdc_log WHERE origin IS NULL \
                   AND (origin_sequence IS NOT NULL OR origin_timestamp IS NOT NULL) ORDER BY sequence LIMIT 1";
        let found: Option<i64> = self.conn.query_row(sql, [], |row| row.get(0)).optional()?;
        match found {
            Some(at) => {
                let at = Sequence::checked(at).unwrap_or_default();
                Err(self.corrupt(at, "it is the object's own and has a place in an origin"))
            }
            None => Ok(()),
        }
    }

    fn check_digest(&self, at: Sequence, digest: Digest) -> Result<()> {
        let mut statement = self.conn.prepare_cached("SELECT digest FROM _cdc_log WHERE sequence = ?1")?;
        let stored: Option<[u8; 16]> = statement.query_row([at.as_i64()], |row| row.get(0))?;
        let newest = (at == self.tail().sequence).then_some(self.tail().digest);
        let mut known = stored.map(Digest::from_bytes).into_iter().chain(newest);
        if known.any(|known| known != digest) && !mutant!("row-digest-not-verified") {
            return Err(self.corrupt(at, "its digest does not follow from the rows"));
        }
        if stored.is_none() && at.get().is_multiple_of(DIGEST_EVERY) {
            return Err(self.corrupt(at, "its digest is missing"));
        }
        Ok(())
    }

    /// Compares live tables in the log's own file with a fold of the object's history.
    ///
    /// # Errors
    ///
    /// [`Error::Sqlite`].
    pub fn compare_rows(&self, fold: &Fold) -> Result<Option<RowDifference>> {
        compare_rows(&self.conn, self.id(), fold)
    }
}

struct Verifier {
    done: Verified,
    fold: Fold,
    origins: BTreeMap<String, Sequence>,
    /// The documents met so far, where the log has a floor: nothing tells what the first event of a document goes on
    /// from when what was before it is pruned.
    met: Option<BTreeSet<(ObjectId, String, String)>>,
    /// Where documents come in whose newest event is pruned.
    kept_at: Option<Sequence>,
}

impl Verifier {
    /// Of a log whose rows up to `below` are pruned.
    fn new(log: &Log, below: Sequence) -> Result<Self> {
        let is_pruned = below > Sequence::ZERO;
        Ok(Self {
            done: Verified::default(),
            fold: Fold::new(),
            origins: BTreeMap::new(),
            met: is_pruned.then(BTreeSet::new),
            kept_at: if is_pruned {
                Some(documents::through(&log.conn)?.min(log.tail().sequence))
            } else {
                None
            },
        })
    }

    /// Takes up the documents whose newest event is pruned, where the log's index has them. No event from the floor up to
    /// there is theirs.
    fn take_kept(&mut self, log: &Log, at: Sequence) -> Result<()> {
        if self.kept_at.take_if(|kept_at| at >= *kept_at).is_none() {
            return Ok(());
        }
        documents::kept(log, |collection, document, sequence, json| {
            let kept = Document { json, sequence, timestamp: Timestamp::ZERO };
            self.fold.begin_with(log.id(), collection, document, kept);
            let met = (log.id().clone(), collection.to_owned(), document.to_owned());
            if let Some(known) = &mut self.met {
                known.insert(met);
            }
        })
    }

    fn take(&mut self, log: &Log, record: &Record) -> Result<(), Error> {
        let origin = format!("{} {}", record.origin.source(), record.origin.epoch());
        let newest = self.origins.entry(origin).or_default();
        if record.origin_sequence <= *newest {
            return Err(log.corrupt(record.sequence, "its origin's sequence does not increase"));
        }
        *newest = record.origin_sequence;
        let begins = self.begins(record)?;
        if self.fold.apply(record)?.is_some() && !begins {
            self.done.broken_chains += 1;
            if let (None, Some(change)) = (&self.done.first_broken, record.body.change()?) {
                let document = format!("{}/{}", change.collection, change.document_id);
                self.done.first_broken = Some((record.sequence, document));
            }
        }
        self.done.records += 1;
        self.done.own += u64::from(record.is_own());
        Ok(())
    }

    /// Whether this is the first event of a document whose history may begin below the floor.
    fn begins(&mut self, record: &Record) -> Result<bool, Error> {
        let Some(met) = &mut self.met else { return Ok(false) };
        let Some(change) = record.body.change()? else { return Ok(false) };
        let (collection, document) = (change.collection.into_owned(), change.document_id.into_owned());
        Ok(met.insert((record.origin.source().clone(), collection, document)))
    }
}

pub(crate) fn compare_rows(user: &Connection, id: &ObjectId, fold: &Fold) -> Result<Option<RowDifference>> {
    if !capture::is_prepared(user)? {
        return Ok(None);
    }
    if !user.is_autocommit() {
        return first_difference(user, id, fold);
    }
    user.execute_batch("BEGIN")?;
    let difference = first_difference(user, id, fold);
    user.execute_batch("ROLLBACK")?;
    difference
}

fn first_difference(user: &Connection, id: &ObjectId, fold: &Fold) -> Result<Option<RowDifference>> {
    for table in capture::current(user)?.into_values() {
        let collection = table.shape.table.clone();
        let rows = LiveRows::of(user, &table)?.all()?;
        let live: BTreeMap<String, String> =
            rows.into_iter().map(|row| (row.document_id, row.json)).collect();
        let difference = |document_id: &str, live: Option<&String>, folded: Option<&str>| RowDifference {
            collection: collection.clone(),
            document_id: document_id.to_owned(),
            live: live.cloned(),
            folded: folded.map(str::to_owned),
        };
        for (document_id, json) in &live {
            let folded = fold.get(id, &collection, document_id).map(|document| document.json.as_str());
            if folded != Some(json) {
                return Ok(Some(difference(document_id, Some(json), folded)));
            }
        }
        for (document_id, document) in fold.collection(id, &collection) {
            if !live.contains_key(document_id) {
                return Ok(Some(difference(document_id, None, Some(&document.json))));
            }
        }
    }
    Ok(None)
}
