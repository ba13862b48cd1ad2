//! Who reads in a process: consumers with effects, readers with a cursor of their own, and folds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use cdc::{Change, Cursor, Env, FenceToken, Object, Sequence};
use futures_util::TryStreamExt as _;

use super::{Host, lock};
use crate::failure::ensure;
use crate::known::number;
use crate::oracle::Oracle;
use crate::workload::ECHOES;

/// The stream of random numbers of those who read along.
const READERS: usize = usize::MAX / 2;

/// The stream of random numbers of the onlooker.
const ONLOOKERS: usize = usize::MAX / 11;

/// Longest pause between two rounds of a consumer.
const CONSUME_PAUSE_MAX: Duration = Duration::from_millis(300);

/// Those who read logs beside an engine, in connections of their own, until their process closes.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    is_closing: AtomicBool,
}

impl Readers {
    /// To be held while one reads; `None` when it is too late to begin.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Weak<Self>> {
        (!self.is_closing.load(Ordering::Relaxed)).then(|| Arc::downgrade(self))
    }

    /// From now on nobody begins.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Whether somebody who began has not ended.
    pub(super) fn are_reading(self: &Arc<Self>) -> bool {
        Arc::weak_count(self) > 0
    }
}

/// Of a hundred rounds of a consumer, in how many another takes its checkpoint over.
const TAKES_OVER_PERCENT: u64 = 5;

const FENCED: &str = "who was fenced saves nothing";

/// One document of a fold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoldedDocument {
    pub(crate) source: String,
    pub(crate) collection: String,
    pub(crate) document: String,
    pub(crate) after: String,
}

/// The subscriber that stands for the checkers: rows that they have not seen stay.
pub(crate) const ONLOOKER: &str = "onlooker";

/// Longest pause before what the checkers have seen is told to a log.
const ONLOOKER_PAUSE_MAX: Duration = Duration::from_millis(200);

/// The subscriber who read a log before it was rewound.
pub(crate) const RETURNER: &str = "returner";

/// The subscriber whose effects the checkers look at.
pub(crate) const SUBSCRIBER: &str = "watcher";

impl Host {
    pub(super) fn start_consumers<E: Env>(&self, env: &E, objects: &[(usize, Object<E>)]) {
        let consumed: Vec<_> = {
            let oracle = lock(&self.oracle);
            objects.iter().filter(|(at, _)| oracle.is_consumed(*at)).cloned().collect()
        };
        for (at, object) in consumed {
            let (mut random, ours) = (self.random.branch(usize::MAX - at), env.clone());
            let oracle = Arc::clone(&self.oracle);
            env.spawn(async move {
                let mut token = None;
                loop {
                    ours.sleep(random.time(CONSUME_PAUSE_MAX)).await;
                    if token.is_none() || random.chance(TAKES_OVER_PERCENT) {
                        let Ok(newer) = object.checkpoint(SUBSCRIBER).take_over().await else { continue };
                        if let Some(older) = token.replace(newer) {
                            let consumed = consume(&object, older).await;
                            lock(&oracle).note(ensure(consumed.is_err(), FENCED, || {
                                format!("object {at}: with a token that is none any more came {consumed:?}")
                            }));
                        }
                    }
                    let Some(token) = token else { continue };
                    // What fails comes again with the next round.
                    drop(consume(&object, token).await);
                    lock(&oracle).dirty.insert(at);
                }
            });
        }
    }

    /// Tells the logs what the checkers have seen of them, where rows go at all.
    pub(super) fn start_onlooker<E: Env>(&self, env: &E, objects: &[(usize, Object<E>)]) {
        if self.options.retention_events.is_none() {
            return;
        }
        let (mut random, ours) = (self.random.branch(ONLOOKERS), env.clone());
        let (oracle, objects) = (Arc::clone(&self.oracle), objects.to_vec());
        env.spawn(async move {
            let mut told = BTreeMap::new();
            loop {
                ours.sleep(random.time(ONLOOKER_PAUSE_MAX)).await;
                for (at, object) in &objects {
                    let seen = number(lock(&oracle).known(*at).rows.len());
                    let cursor = Cursor::after(Sequence::new(seen));
                    // What fails comes again with the next round.
                    if told.get(at) != Some(&seen) && object.checkpoint(ONLOOKER).save(cursor).await.is_ok() {
                        told.insert(*at, seen);
                    }
                }
            }
        });
    }

    /// Somebody reads along in batches and goes on after the cursor he has kept, whatever becomes of this process.
    pub(super) fn start_readers<E: Env>(&self, env: &E, objects: &[(usize, Object<E>)]) {
        let read: Vec<_> = {
            let oracle = lock(&self.oracle);
            let is_read = |at: usize| {
                let place = oracle.place(at);
                place.consumes || place.normal || place.parent.is_none()
            };
            objects.iter().filter(|(at, _)| is_read(*at)).cloned().collect()
        };
        for (at, object) in read {
            let (mut random, ours) = (self.random.branch(READERS).branch(at), env.clone());
            let (oracle, readers) = (Arc::clone(&self.oracle), Arc::clone(&self.readers));
            // What may not be shown so far lies at the end.
            let reads_all = lock(&oracle).place(at).normal;
            env.spawn(async move {
                loop {
                    let Some(reading) = readers.begin() else { return };
                    // What fails comes again with the next round.
                    let batches = random.between(1, 4);
                    let batches = if reads_all { u64::MAX } else { batches };
                    drop(read_along(&object, at, &oracle, batches).await);
                    drop(come_back(&object, at, &oracle).await);
                    drop(reading);
                    // At the end, so that what a kill has left is read before anything else is committed.
                    ours.sleep(random.time(CONSUME_PAUSE_MAX)).await;
                }
            });
        }
    }
}

/// What a consumer takes has a row in a table that is not captured, and the newest of a batch a document: an event that
/// it caused itself, and does not take.
async fn consume<E: Env>(object: &Object<E>, token: FenceToken) -> cdc::Result<()> {
    let consumer = object.consume(SUBSCRIBER, |tx, records| {
        for record in records {
            let (own, source) = (record.sequence.as_i64(), record.origin.source().as_str());
            let values = cdc::params![own, source, record.origin_sequence.as_i64()];
            tx.execute("INSERT INTO effects VALUES (?1, ?2, ?3)", values)?;
        }
        // One that took its own would not end: what it is given is an echo then, and has none.
        let newest = records.iter().rev().find(|record| !record.body.as_str().contains(ECHOES));
        newest.map_or(Ok(()), |newest| {
            let echo = Change::insert(ECHOES, &newest.sequence.to_string(), &newest.origin_sequence);
            Ok(tx.emit(&echo?)?)
        })
    });
    consumer.token(token).batch_size(7).run().await.map(drop)
}

/// Reads some batches after the cursor that was kept.
async fn read_along<E: Env>(
    object: &Object<E>,
    at: usize,
    oracle: &Mutex<Oracle>,
    batches: u64,
) -> cdc::Result<()> {
    let Some(cursor) = lock(oracle).reads_after(at) else { return Ok(()) };
    let replay = object.reader().await?.replay().after(cursor).batch_size(5).with_schema_changes();
    let mut stream = replay.stream();
    for _ in 0..batches {
        let Some(batch) = stream.try_next().await? else { break };
        lock(oracle).read(at, &batch.records, batch.cursor);
    }
    Ok(())
}

/// Who has read an object's log before that was rewound, or made anew, wants to go on.
async fn come_back<E: Env>(object: &Object<E>, at: usize, oracle: &Mutex<Oracle>) -> cdc::Result<()> {
    let cursor = lock(oracle).reads_from_before(at);
    let Some(cursor) = cursor.filter(|cursor| cursor.epoch.is_some()) else { return Ok(()) };
    let checkpoint = object.checkpoint(RETURNER);
    let saved = checkpoint.save(cursor).await?;
    lock(oracle).note(ensure(saved.cursor.epoch == cursor.epoch, "a cursor is of its log", || {
        format!("object {at}: {cursor:?} was saved as {:?}", saved.cursor)
    }));
    // It would keep the rows from there on.
    checkpoint.remove().await?;
    Ok(())
}

pub(super) async fn fold<E: Env>(object: &Object<E>) -> cdc::Result<Vec<FoldedDocument>> {
    let folded = object.reader().await?.replay().from_start().fold().await?;
    let documents = folded.documents.iter().map(|(source, collection, document, after)| {
        let (source, collection) = (source.to_string(), collection.to_owned());
        FoldedDocument { source, collection, document: document.to_owned(), after: after.json.clone() }
    });
    Ok(documents.collect())
}
