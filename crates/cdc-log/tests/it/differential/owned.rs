//! An object that we own: SQL on its tables and emitted documents in one transaction, in this process.

use std::collections::BTreeMap;

use cdc_log::{Emit, Error, Log, Tables, Tx};
use serde_json::Value as Json;

use super::follower::{Bypassed, Follower};
use super::live::Live;
use super::plan::Plan;
use super::world::{Counts, Difference, Event, Kind, Run, expected, show};
use super::{Failed, caught};
use crate::random::Random;
use crate::witness::{clock, folder, id};

/// Whole tables and all documents are compared every so many writes.
const THOROUGHLY_EVERY: u64 = 100;

/// What was emitted: collection and document id to the document.
type Documents = BTreeMap<(String, String), Json>;

/// Runs the world of a seed.
pub(crate) fn run_world(seed: u64) -> Result<Counts, Box<Failed>> {
    let (mut counts, mut events) = (Counts::default(), Vec::new());
    let result = caught(|| {
        // Nobody audits it, so that it has no tables that act on themselves.
        let (mut plan, begin) = Plan::begin(seed, &[rusqlite::version_number()], false);
        let Some(mut object) = Object::new(seed, &begin)? else { return Ok(()) };
        events.extend(begin);
        for number in 1..=plan.transactions {
            object.live.read_schema();
            let step = plan.write(&object.live.tables, &object.live.ours, &object.live.theirs);
            events.extend(step.iter().cloned());
            object.write(&step, number.is_multiple_of(THOROUGHLY_EVERY))?;
        }
        counts = object.counts.clone();
        counts.rows_compared = object.live.rows_read;
        object.verify()
    });
    match result {
        Ok(()) => Ok(counts),
        Err(difference) => Err(Box::new(Failed { difference, events })),
    }
}

struct Object {
    log: Log,
    live: Live,
    follower: Follower,
    documents: Documents,
    random: Random,
    counts: Counts,
    _folder: tempfile::TempDir,
}

fn runs(events: &[Event]) -> impl Iterator<Item = &Run> {
    events.iter().filter_map(|event| if let Event::Run(run) = event { Some(run) } else { None })
}

impl Object {
    /// `None` of a schema that SQLite itself refuses.
    fn new(seed: u64, begin: &[Event]) -> Result<Option<Self>, Difference> {
        let folder = folder();
        let path = folder.path().join("object.db");
        let mut log = Log::open(&path, &id(), &clock()).map_err(Difference::look)?;
        let created = log.write(|tx| runs(begin).try_for_each(|run| tx.execute_batch(&run.text)));
        if created.is_err() {
            return Ok(None);
        }
        log.capture(&Tables::All).map_err(Difference::look)?;
        Ok(Some(Self {
            log,
            live: Live::open(&path),
            follower: Follower::default(),
            documents: Documents::new(),
            random: Random::new(!seed),
            counts: Counts::default(),
            _folder: folder,
        }))
    }

    /// One transaction, and what it left.
    fn write(&mut self, step: &[Event], thoroughly: bool) -> Result<(), Difference> {
        let (documents, before) = (self.documents.clone(), self.log.tail());
        let mut savepoints: Vec<Documents> = Vec::new();
        let gives_up = self.random.one_in(6);
        let (random, now, counts) = (&mut self.random, &mut self.documents, &mut self.counts);
        let written = self.log.write(|tx| {
            for run in runs(step) {
                if random.one_in(4) {
                    emit(tx, random, now)?;
                    *counts.kinds.entry("emit").or_default() += 1;
                    counts.emitted += 1;
                }
                if execute(tx, run, counts)? {
                    match run.text.as_str() {
                        "SAVEPOINT s" => savepoints.push(now.clone()),
                        "RELEASE s" => drop(savepoints.pop()),
                        "ROLLBACK TO s" => *now = savepoints.last().cloned().unwrap_or_default(),
                        _ => {}
                    }
                }
            }
            if gives_up { Err(Error::GivenUp { reason: "a test".to_owned() }) } else { Ok(()) }
        });
        self.counts.transactions += 1;
        if let Err(error) = written {
            self.documents = documents;
            let allowed = match &error {
                Error::GivenUp { .. } | Error::TransactionGone => true,
                Error::Sqlite(error) => is_expected(None, error),
                _ => false,
            };
            if !allowed || self.log.tail() != before {
                return Err(Difference::look(error));
            }
        }
        // A change of the schema may have left the rest for later.
        self.log.drain().map_err(Difference::look)?;
        let bypassed = if runs(step).any(|run| run.bypass) { Bypassed::Schema } else { Bypassed::No };
        let records = self.follower.records;
        self.counts.reconciled += self.follower.follow(&self.log, bypassed)?;
        self.counts.records += self.follower.records - records;
        self.compare(thoroughly)
    }

    fn compare(&mut self, thoroughly: bool) -> Result<(), Difference> {
        self.live.read_schema();
        self.counts.comparisons += 1;
        let live = self.live.rows();
        let fold = &self.follower.fold;
        if thoroughly || live != *self.follower.rows() {
            self.counts.whole_comparisons += 1;
            self.live.compare(fold, self.follower.rows())?;
            if let Some(found) = self.log.compare_rows(fold).map_err(Difference::look)? {
                return Err(Difference::new(Kind::Rows, format!("verification alone finds {found:?}")));
            }
        }
        let mut emitted = fold.iter().filter(|(_, collection, ..)| COLLECTIONS.contains(collection));
        let same = |((collection, document), json): (&(String, String), &Json)| {
            let next = emitted.next();
            next.is_some_and(|(_, at, id, found)| {
                (at, id) == (collection.as_str(), document.as_str())
                    && serde_json::from_str::<Json>(&found.json).is_ok_and(|found| found == *json)
            })
        };
        if !self.documents.iter().all(same) || emitted.next().is_some() {
            return Err(Difference::new(Kind::Rows, format!("emitted documents are {:?}", self.documents)));
        }
        Ok(())
    }

    fn verify(&self) -> Result<(), Difference> {
        let (verified, fold) = self.log.verify().map_err(Difference::look)?;
        if verified.broken_chains != 0 || fold != self.follower.fold {
            return Err(Difference::new(Kind::Chain, format!("{verified:?}")));
        }
        Ok(())
    }
}

/// Runs a statement, which the tables may refuse: then it gives false.
fn execute(tx: &Tx<'_>, run: &Run, counts: &mut Counts) -> Result<bool, Error> {
    let kind = run.kind.unwrap_or_default();
    *counts.kinds.entry(kind).or_default() += 1;
    *counts.versions.entry(rusqlite::version_number()).or_default() += 1;
    match tx.execute_batch(&show(run)) {
        Err(Error::Sqlite(error)) if is_expected(Some(run), &error) => {
            counts.refused += 1;
            Ok(false)
        }
        done => done.map(|()| true),
    }
}

fn is_expected(run: Option<&Run>, error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    expected(run, run.is_some_and(|run| run.bypass), code, &error.to_string()).is_some()
}

/// Sorted. No table is called so.
const COLLECTIONS: [&str; 3] = ["emitted [1]", "emitted ünï", "emitted\n\"notes\""];

/// Emits a change of a document that is there, or a new one.
fn emit(tx: &Tx<'_>, random: &mut Random, documents: &mut Documents) -> Result<(), Error> {
    let collection = random.pick(&COLLECTIONS).to_owned();
    let document = random.pick(&["n1", "n2", "[\"n\",3]", "ñ4", "", "n\"6\\"]).to_owned();
    let after = json(random, 2);
    let key = (collection, document);
    let before = documents.get(&key);
    let (emit, after) = match before {
        Some(before) if random.one_in(4) => (Emit::delete(&key.0, &key.1, before)?, None),
        Some(before) => (Emit::update(&key.0, &key.1, before, &after)?, Some(after)),
        None => (Emit::insert(&key.0, &key.1, &after)?, Some(after)),
    };
    tx.emit(&if random.one_in(5) { emit.correlate("corr \"1\"") } else { emit })?;
    match after {
        Some(after) => documents.insert(key, after),
        None => documents.remove(&key),
    };
    Ok(())
}

/// Any JSON, so deep at most.
fn json(random: &mut Random, depth: usize) -> Json {
    match random.below(if depth > 0 { 10 } else { 7 }) {
        0 => Json::Null,
        1 => Json::from(random.one_in(2)),
        2 => Json::from(random.next()),
        3 => Json::from(i64::MIN + i64::from(random.one_in(2))),
        4 => Json::from(random.pick(&["", "ß\"\\\n\u{1}", "{\"$int\":\"1\"}", "plain"])),
        5 => Json::from(f64::from_bits(random.next() >> 2)),
        6 => Json::from(random.below(9)),
        7 => (0..random.below(3)).map(|_| json(random, depth - 1)).collect(),
        _ => {
            let member = |random: &mut Random| {
                let name = random.pick(&["a", "b.c", "$int", "", "ünï"]).to_owned();
                (name, json(random, depth - 1))
            };
            Json::Object((0..random.below(4)).map(|_| member(random)).collect())
        }
    }
}
