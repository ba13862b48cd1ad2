//! Random logs, tiers in memory that can fail and shrink, and the plain loop that says what a replay must give.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use cdc_model::{
    Body, ChangeBody, Cursor, Epoch, Filter, ObjectId, Operation, Origin, Record, Sequence, Timestamp,
};
use cdc_replay::{Error, Page, Replay, ReplayBatch, Running, Scan, Source, Span};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use serde_json::value::RawValue;

pub(crate) const EPOCH: Epoch = Epoch { number: 1, nonce: 7 };

pub(crate) fn seq(number: u64) -> Sequence {
    Sequence::new(number)
}

pub(crate) fn time(ms: i64) -> Timestamp {
    Timestamp::new(ms)
}

/// Every future here is ready at once, because every tier is.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("tiers in memory are always ready")
}

/// One step of a random history: how much later, which source, collection and document, and whether to delete.
pub(crate) type Step = (i64, u8, u8, u8, bool);

pub(crate) fn steps(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0..3_i64, 0..2_u8, 0..3_u8, 0..3_u8, any::<bool>()), len)
}

pub(crate) fn source(which: u8) -> ObjectId {
    format!("https://crm.headless.ly/{which}").parse().unwrap()
}

/// The log of a random history: every document's states continue each other.
pub(crate) fn log(steps: &[Step]) -> Vec<Record> {
    let mut states = std::collections::BTreeMap::new();
    let mut now = 100;
    let records = steps.iter().zip(1..).map(|(&(later, from, collection, document, delete), n)| {
        now += later;
        let state = states.entry((from, collection, document)).or_insert(None::<String>);
        let after = if state.is_some() && delete { None } else { Some(format!("{{\"n\":{n}}}")) };
        let body = body(collection, document, state.as_deref(), after.as_deref());
        *state = after;
        Record { origin: Origin::new(source(from), EPOCH, vec![]), ..record(n, now, body) }
    });
    records.collect()
}

fn body(collection: u8, document: u8, before: Option<&str>, after: Option<&str>) -> Body {
    let operation = match (before, after) {
        (None, _) => Operation::Insert,
        (Some(_), Some(_)) => Operation::Update,
        (Some(_), None) => Operation::Delete,
    };
    let raw = |state: Option<&str>| state.map(|json| RawValue::from_string(json.to_owned()).unwrap());
    let (before, after) = (raw(before), raw(after));
    let mut change = ChangeBody::new(operation, format!("c{collection}"), document.to_string());
    change.before = before.as_deref();
    change.after = after.as_deref();
    change.changed_fields = (operation == Operation::Update).then(|| vec!["n".into()]);
    change.to_body()
}

pub(crate) fn record(n: u64, ms: i64, body: Body) -> Record {
    Record {
        sequence: seq(n),
        timestamp: time(ms),
        epoch: EPOCH,
        origin: Origin::new(source(0), EPOCH, vec![]),
        origin_sequence: seq(n),
        origin_timestamp: time(ms),
        body,
    }
}

/// Inserts of one collection, a millisecond apart.
pub(crate) fn inserts(numbers: impl IntoIterator<Item = u64>) -> Vec<Record> {
    let insert = |n: u64| record(n, i64::try_from(n).unwrap(), body(0, 0, None, Some("{}")));
    numbers.into_iter().map(insert).collect()
}

pub(crate) fn in_epoch(mut records: Vec<Record>, number: u32) -> Vec<Record> {
    records.iter_mut().for_each(|record| record.epoch = Epoch { number, ..EPOCH });
    records
}

#[derive(Debug)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk is gone")
    }
}

impl std::error::Error for Broken {}

/// A tier in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    records: Mutex<Vec<Record>>,
    /// Leaves out what does not pass, as an archive does.
    pushes_down: bool,
    /// Positions a filtering page looks at.
    looks_at: usize,
    /// The call that fails, counted from 1; 0 never.
    fails_at: AtomicU64,
    calls: AtomicU64,
    /// What it holds from this call on; at 0 nothing else.
    becomes: Mutex<(u64, Vec<Record>)>,
}

impl Memory {
    pub(crate) fn dense(records: &[Record]) -> Self {
        Self { records: Mutex::new(records.to_vec()), ..Self::default() }
    }

    pub(crate) fn pushing_down(records: &[Record], looks_at: usize) -> Self {
        Self { pushes_down: true, looks_at, ..Self::dense(records) }
    }

    pub(crate) fn failing_at(self, call: u64) -> Self {
        self.fails_at.store(call, Relaxed);
        self
    }

    /// Holds other records from this call on.
    pub(crate) fn becoming(mut self, call: u64, records: &[Record]) -> Self {
        self.becomes = Mutex::new((call, records.to_vec()));
        self
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<Record>)) {
        change(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn look<T>(&self, look: impl FnOnce(&[Record]) -> T) -> Result<T, Broken> {
        let call = self.calls.fetch_add(1, Relaxed) + 1;
        if call == self.fails_at.load(Relaxed) {
            return Err(Broken);
        }
        let (at, records) = &mut *self.becomes.lock().unwrap_or_else(PoisonError::into_inner);
        if call == *at {
            self.change(|now| *now = std::mem::take(records));
        }
        Ok(look(&self.records.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn page(&self, records: &[Record], scan: Scan<'_>) -> Page {
        let wanted = records.iter().filter(|record| scan.wants(record.sequence));
        if !self.pushes_down {
            return Page::Dense(wanted.take(scan.limit.records).cloned().collect());
        }
        let seen: Vec<&Record> = wanted.take(self.looks_at).collect();
        let through = seen.last().map_or(scan.through, |last| last.sequence);
        let passing = seen.into_iter().filter(|record| scan.filter.passes(record).unwrap());
        Page::Filtered { records: passing.cloned().collect(), through }
    }
}

impl Source for Memory {
    type Error = Broken;

    async fn span(&self) -> Result<Span, Broken> {
        self.look(Span::of)
    }

    async fn read(&self, scan: Scan<'_>) -> Result<Page, Broken> {
        self.look(|records| self.page(records, scan))
    }

    async fn seek(&self, time: Timestamp) -> Result<Option<Sequence>, Broken> {
        self.look(|records| records.iter().find(|r| r.timestamp >= time).map(|r| r.sequence))
    }
}

/// What a replay gave before it ended or failed.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) batches: Vec<ReplayBatch>,
    pub(crate) error: Option<Error>,
}

impl Run {
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.records().map(|record| record.sequence.get()).collect()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.batches.iter().flat_map(|batch| &batch.records)
    }

    /// The records of a run that ended well.
    pub(crate) fn whole(self) -> Vec<Record> {
        assert!(self.error.is_none(), "{:?}", self.error);
        self.batches.into_iter().flat_map(|batch| batch.records).collect()
    }
}

pub(crate) fn run<C: Source, H: Source>(replay: Replay<C, H>) -> Run {
    match ready(replay.start()) {
        Ok(running) => go_on(&mut { running }),
        Err(error) => Run { batches: vec![], error: Some(error) },
    }
}

pub(crate) fn go_on<C: Source, H: Source>(running: &mut Running<C, H>) -> Run {
    let mut run = Run { batches: vec![], error: None };
    loop {
        match ready(running.try_next()) {
            Ok(Some(batch)) => run.batches.push(batch),
            Ok(None) => return run,
            Err(error) => {
                run.error = Some(error);
                return run;
            }
        }
        assert!(run.batches.len() < 10_000, "the replay does not end");
    }
}

pub(crate) fn failure<C: Source, H: Source>(replay: Replay<C, H>) -> Error {
    run(replay).error.expect("the replay must fail")
}

/// The plain loop: what a replay over the whole log gives.
pub(crate) fn expected(
    log: &[Record],
    after: Cursor,
    until: Option<cdc_replay::Until>,
    filter: &Filter,
) -> Vec<Record> {
    let wanted = log.iter().filter(|record| match (after.sequence, after.timestamp) {
        (Sequence::ZERO, from) if from != Timestamp::ZERO => record.timestamp >= from,
        (sequence, _) => record.sequence > sequence,
    });
    let wanted = wanted.filter(|record| match until {
        None => true,
        Some(cdc_replay::Until::Sequence(last)) => record.sequence <= last,
        Some(cdc_replay::Until::Time(end)) => record.timestamp < end,
    });
    wanted.filter(|record| filter.passes(record).unwrap()).cloned().collect()
}

pub(crate) fn filters() -> impl Strategy<Value = Filter> {
    prop_oneof![
        2 => Just(Filter::ALL),
        2 => (0..4_u8).prop_map(|which| Filter::collection(format!("c{which}"))),
        1 => prop_oneof![Just(Operation::Insert), Just(Operation::Update), Just(Operation::Delete)]
            .prop_map(Filter::operation),
        1 => (0..3_u8).prop_map(|which| Filter::source(source(which))),
    ]
}

/// A log cut in two: cold up to `cold_end`, hot from `hot_start`, with nothing in between missing.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) cold_end: usize,
    pub(crate) hot_start: usize,
    pub(crate) pushes_down: bool,
    pub(crate) looks_at: usize,
}

impl Cut {
    pub(crate) fn tiers(&self, log: &[Record]) -> (Memory, Memory) {
        let (cold, hot) = (&log[..self.cold_end], &log[self.hot_start..]);
        if self.pushes_down {
            return (Memory::pushing_down(cold, self.looks_at), Memory::dense(hot));
        }
        (Memory::dense(cold), Memory::dense(hot))
    }

    /// Every cut of a log, with and without overlap, with an empty cold or hot tier.
    pub(crate) fn all(len: usize) -> impl Iterator<Item = Self> {
        (0..=len).flat_map(move |cold_end| {
            (0..=cold_end).flat_map(move |hot_start| {
                [false, true].map(|pushes_down| Self { cold_end, hot_start, pushes_down, looks_at: 3 })
            })
        })
    }
}

/// A random log with one of its cuts.
pub(crate) fn cut_logs() -> impl Strategy<Value = (Vec<Record>, Cut)> {
    (steps(0..30), any::<[prop::sample::Index; 2]>(), any::<bool>(), 1..7_usize).prop_map(
        |(steps, [cold, hot], pushes_down, looks_at)| {
            let cold_end = cold.index(steps.len() + 1);
            let hot_start = hot.index(cold_end + 1);
            (log(&steps), Cut { cold_end, hot_start, pushes_down, looks_at })
        },
    )
}
