//! Stages: what they decide, and that what they count is exact through restarts at every step.

use std::collections::BTreeMap;

use cdc_model::{
    Change, ChangeBody, Epoch, Filter, Operation, Origin, Record, Remedy, SchemaChange, Sequence, Tag,
    Timestamp,
};
use cdc_relay::{
    Aggregate, DeadLetter, Error, FilterStage, Forwarded, GroupBy, LookupError, Outcome, Pass, Stage,
    StageError, StageState, Stages, StateKey, Verdict,
};
use serde_json::{Value, json};

use crate::id;

const EPOCH: Epoch = Epoch { number: 1, nonce: 1 };
const HOUR: i64 = 3_600_000;

/// A child's event in the parent's log.
fn event(sequence: u64, collection: &str, operation: Operation, time: i64) -> Record {
    let mut body = ChangeBody::new(operation, collection, "42");
    let empty = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    body.before = (operation != Operation::Insert).then_some(&*empty);
    body.after = (operation != Operation::Delete).then_some(&*empty);
    body.changed_fields = (operation == Operation::Update).then(Vec::new);
    Record {
        sequence: Sequence::new(sequence),
        timestamp: Timestamp::new(9 * HOUR),
        epoch: EPOCH,
        origin: Origin::new(id("child"), EPOCH, vec![id("child")]),
        origin_sequence: Sequence::new(sequence + 100),
        origin_timestamp: Timestamp::new(time),
        body: body.to_body(),
    }
}

fn own(mut record: Record) -> Record {
    record.origin = Origin::new(id("parent"), EPOCH, vec![]);
    record.origin_sequence = record.sequence;
    record
}

fn next_sequence(rows: &[Record]) -> u64 {
    rows.last().map_or(1, |row| row.sequence.get() + 1)
}

fn boxed(stage: impl Stage + 'static) -> Box<dyn Stage> {
    Box::new(stage)
}

fn run(stages: &Stages, state: &BTreeMap<StateKey, String>, rows: &[Record]) -> Pass {
    stages.run(rows, |key| Ok(state.get(key).cloned())).unwrap()
}

fn per_hour() -> Stages {
    let count = Aggregate::count().of("customers").operation(Operation::Update).per_hour();
    Stages::new(vec![Box::new(count.stage("updates-per-hour").unwrap())]).unwrap()
}

#[test]
fn a_count_is_a_document_first_inserted_then_updated() {
    let (stages, state) = (per_hour(), BTreeMap::new());
    let first = run(&stages, &state, &[event(1, "customers", Operation::Update, HOUR + 5)]);
    insta::assert_snapshot!(first.emit[0].to_body(), @r#"{"operation":"INSERT","collection":"updates-per-hour","documentId":"1970-01-01T01:00:00.000Z","tag":{"aggregate":{"from":3600000,"to":7200000}},"derivedFrom":{"source":"https://child.test","epoch":"1-0000000000000001","sequence":101},"after":{"count":1,"first":3600005,"last":3600005}}"#);
    let state = first.writes.into_iter().map(|(key, text)| (key, text.unwrap())).collect();
    let second = run(&stages, &state, &[event(2, "customers", Operation::Update, HOUR + 3)]);
    insta::assert_snapshot!(second.emit[0].to_body(), @r#"{"operation":"UPDATE","collection":"updates-per-hour","documentId":"1970-01-01T01:00:00.000Z","tag":{"aggregate":{"from":3600000,"to":7200000}},"derivedFrom":{"source":"https://child.test","epoch":"1-0000000000000001","sequence":102},"changedFields":["count","first"],"before":{"count":1,"first":3600005,"last":3600005},"after":{"count":2,"first":3600003,"last":3600005}}"#);
    let updates =
        [(3, HOUR + 9), (4, HOUR + 1)].map(|(n, time)| event(n, "customers", Operation::Update, time));
    let state = second.writes.iter().map(|(key, text)| (key.clone(), text.clone().unwrap())).collect();
    let merged = run(&stages, &state, &updates);
    assert_eq!(merged.emit[0].change.changed_fields(), ["count", "first", "last"]);
    assert_eq!(merged.emit[0].change.before(), second.emit[0].change.after());
    for emit in first.emit.iter().chain(&second.emit).chain(&merged.emit) {
        let body = emit.to_body();
        assert_eq!(cdc_model::Body::parse(body.as_str()).unwrap(), body, "the body is canonical");
    }
}

#[test]
fn only_matching_changes_of_children_count_and_all_go_on() {
    let rows = [
        event(1, "customers", Operation::Update, 0),
        event(2, "customers", Operation::Insert, 0),
        event(3, "orders", Operation::Update, 0),
        own(event(4, "customers", Operation::Update, 0)),
        Record {
            body: cdc_model::Body::schema(SchemaChange {
                collection: "customers".to_owned(),
                version: 1,
                columns: vec![],
                ..SchemaChange::default()
            }),
            ..event(5, "customers", Operation::Update, 0)
        },
    ];
    let pass = run(&per_hour(), &BTreeMap::new(), &rows);
    assert_eq!(pass.emit.len(), 1);
    let forward = |n| (Sequence::new(n), Verdict::Forward);
    assert_eq!((pass.verdicts, pass.through), ([1, 2, 3, 5].map(forward).to_vec(), Some(Sequence::new(5))));
}

#[test]
fn windows_follow_event_time_and_updates_of_one_pass_are_merged() {
    let at = |n: u64, time| event(n, "customers", Operation::Update, time);
    let rows =
        [at(1, HOUR), at(2, 2 * HOUR - 1), at(3, 2 * HOUR), at(4, HOUR + 1), at(5, -1), at(6, i64::MAX)];
    let pass = run(&per_hour(), &BTreeMap::new(), &rows);
    let found: Vec<_> = pass
        .emit
        .iter()
        .map(|emit| {
            let Change::Insert { after } = &emit.change else { panic!("an insert per window") };
            let Some(Tag::Aggregate { from, to }) = &emit.tag else { panic!("an aggregate") };
            (emit.document_id.as_str(), after["count"].as_u64().unwrap(), to.get() - from.get())
        })
        .collect();
    let expected = [
        ("1970-01-01T01:00:00.000Z", 3, HOUR),
        ("1970-01-01T02:00:00.000Z", 1, HOUR),
        ("1969-12-31T23:00:00.000Z", 1, HOUR),
        ("@8640000000000000", 1, HOUR),
    ];
    assert_eq!(found, expected);
    assert_eq!(pass.emit[0].derived_from.sequence, Sequence::new(104), "the last event counted");
}

#[test]
fn counts_are_grouped_totalled_and_may_absorb() {
    let of = |aggregate: Aggregate| {
        let stages = Stages::new(vec![Box::new(aggregate.stage("count").unwrap())]).unwrap();
        let rows = [event(1, "a", Operation::Insert, 7), event(2, "b", Operation::Delete, 5)];
        let pass = run(&stages, &BTreeMap::new(), &rows);
        let documents =
            pass.emit.into_iter().map(|emit| (emit.document_id, emit.change.after().unwrap().clone()));
        (documents.collect::<Vec<_>>(), pass.verdicts[0].1)
    };
    let one = |time: i64| json!({"count": 1, "first": time, "last": time});
    let two = json!({"count": 2, "first": 5, "last": 7});
    let documents =
        |list: &[(&str, Value)]| list.iter().map(|(id, v)| ((*id).to_owned(), v.clone())).collect();
    let (count, day) = (Aggregate::count, "1970-01-01T00:00:00.000Z");
    for (aggregate, expected, verdict) in [
        (count(), documents(&[("total", two.clone())]), Verdict::Forward),
        (count().absorbing(), documents(&[("total", two.clone())]), Verdict::Absorbed),
        (count().per_day(), documents(&[(day, two.clone())]), Verdict::Forward),
        (
            count().by(GroupBy::Collection),
            documents(&[("total/a", one(7)), ("total/b", one(5))]),
            Verdict::Forward,
        ),
        (
            count().by(GroupBy::Operation),
            documents(&[("total/INSERT", one(7)), ("total/DELETE", one(5))]),
            Verdict::Forward,
        ),
        (count().by(GroupBy::Source), documents(&[("total/child.test", two)]), Verdict::Forward),
        (count().source(id("elsewhere")), documents(&[]), Verdict::Forward),
    ] {
        assert_eq!(of(aggregate), (expected, verdict));
    }
    let error = count().per_ms(0).stage("count").unwrap_err();
    assert!(matches!(error, Error::Setting { name: "window", .. }));
}

#[test]
fn a_filter_keeps_back_and_later_stages_do_not_see_it() {
    let count = Aggregate::count().stage("count").unwrap();
    let filter = FilterStage::new("only-a", Filter::collection("a"));
    let rows = [event(1, "a", Operation::Insert, 0), event(2, "b", Operation::Insert, 0)];
    for (stages, counted) in
        [(vec![boxed(filter.clone()), boxed(count.clone())], 1), (vec![boxed(count), boxed(filter)], 2)]
    {
        let pass = run(&Stages::new(stages).unwrap(), &BTreeMap::new(), &rows);
        let verdicts: Vec<_> = pass.verdicts.iter().map(|(_, verdict)| *verdict).collect();
        assert_eq!(verdicts, [Verdict::Forward, Verdict::Filtered]);
        assert_eq!(pass.emit[0].change.after().unwrap()["count"], counted);
    }
}

/// Counts in its own way and then rejects every event of collection `bad`.
struct Picky;

impl Stage for Picky {
    fn name(&self) -> &str {
        "picky"
    }

    fn apply(&self, state: &mut StageState<'_>, record: &Record) -> Result<Outcome, StageError> {
        state.put("seen", "1".to_owned());
        if record.body.as_str().contains("bad") {
            return Err(StageError::Rejected { reason: "bad".to_owned() });
        }
        state.remove("seen");
        Ok(Verdict::Forward.into())
    }
}

#[test]
fn a_rejected_event_is_parked_and_leaves_nothing_of_any_stage() {
    let count = Aggregate::count().stage("count").unwrap();
    let stages = Stages::new(vec![Box::new(count), Box::new(Picky)]).unwrap();
    let pass = run(&stages, &BTreeMap::new(), &[event(1, "bad", Operation::Insert, 0)]);
    let parked =
        DeadLetter { sequence: Sequence::new(1), stage: "picky".to_owned(), reason: "bad".to_owned() };
    assert_eq!(pass.dead_letters, [parked]);
    assert_eq!(pass.verdicts, [(Sequence::new(1), Verdict::DeadLettered)]);
    assert!(pass.emit.is_empty() && pass.writes.is_empty(), "{pass:?}");

    let pass = run(&stages, &BTreeMap::new(), &[event(1, "good", Operation::Insert, 0)]);
    let picky = StateKey { stage: "picky".to_owned(), key: "seen".to_owned() };
    assert_eq!(pass.writes.get(&picky), Some(&None), "a removed row is removed");
}

#[test]
fn state_that_cannot_be_read_ends_the_pass_for_a_retry() {
    let rows = [event(1, "customers", Operation::Update, 0)];
    let error = per_hour().run(&rows, |_| Err(LookupError::from("disk"))).unwrap_err();
    assert!(matches!(&error, Error::StageState { stage, .. } if stage == "updates-per-hour"));
    assert_eq!((error.remedy(), error.stop()), (Remedy::Retry, None));
}

#[test]
fn stage_names_are_unique() {
    let stage = |name: &str| boxed(FilterStage::new(name, Filter::ALL));
    for names in [&["a", "a"][..], &[""]] {
        let error = Stages::new(names.iter().map(|name| stage(name)).collect()).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "stage", .. }));
    }
}

/// What a parent with a counting stage has on disk.
#[derive(Clone, Default)]
struct Disk {
    rows: Vec<Record>,
    cursor: usize,
    state: BTreeMap<StateKey, String>,
    counts: Forwarded,
}

/// A driver of stages; `mistake` is what it commits in a second transaction.
struct Driver {
    disk: Disk,
    stages: Stages,
    mistake: Option<Mistake>,
}

#[derive(Clone, Copy, Debug)]
enum Mistake {
    Cursor,
    State,
    Outputs,
}

impl Driver {
    /// One pass over at most `most` rows. With `crash`, power goes right after the first commit, or, when all is
    /// one transaction, before it.
    fn pass(&mut self, most: usize, crash: bool) {
        let disk = &self.disk;
        let rows: Vec<_> = disk.rows.iter().skip(disk.cursor).take(most).cloned().collect();
        let pass = run(&self.stages, &disk.state, &rows);
        let mut next = disk.clone();
        next.cursor += rows.len();
        for (_, verdict) in &pass.verdicts {
            next.counts.decide(*verdict);
        }
        for emit in &pass.emit {
            let row = event(next_sequence(&next.rows), "", Operation::Insert, 0);
            next.rows.push(own(Record { body: emit.to_body(), ..row }));
        }
        for (key, text) in pass.writes {
            next.state.insert(key, text.unwrap());
        }
        let before = std::mem::replace(&mut self.disk, next);
        match (crash, self.mistake) {
            (false, _) => {}
            (true, None) => self.disk = before,
            (true, Some(Mistake::Cursor)) => self.disk.cursor = before.cursor,
            (true, Some(Mistake::State)) => self.disk.state = before.state,
            (true, Some(Mistake::Outputs)) => self.disk.rows = before.rows,
        }
    }

    fn receive(&mut self, events: u64) {
        for _ in 0..events {
            let sequence = next_sequence(&self.disk.rows);
            self.disk.rows.push(event(sequence, "customers", Operation::Update, HOUR));
            self.disk.counts.store(1);
        }
    }

    fn check(&self, events: u64) -> Result<(), String> {
        let mut documents: BTreeMap<String, Value> = BTreeMap::new();
        for row in self.disk.rows.iter().filter(|row| row.is_own()) {
            let emitted = row.event::<Value>().unwrap().unwrap();
            let known = documents.get(&emitted.document_id);
            if known != emitted.change.before() {
                return Err(format!("{} follows {known:?}", row.body));
            }
            let after = emitted.change.after().unwrap().clone();
            documents.insert(emitted.document_id, after);
        }
        let counts: Vec<_> = documents.values().map(|document| document["count"].as_u64()).collect();
        if counts != [Some(events)] {
            return Err(format!("{events} events are counted as {counts:?}"));
        }
        if !self.disk.counts.is_conserved() {
            return Err(format!("{:?}", self.disk.counts));
        }
        Ok(())
    }
}

/// Ten events in two arrivals, passes of two rows, power lost in the `crash`-th pass.
fn counted(crash: usize, mistake: Option<Mistake>) -> Result<(), String> {
    let mut driver = Driver { disk: Disk::default(), stages: per_hour(), mistake };
    driver.receive(7);
    for pass in 0..20 {
        if pass == 3 {
            driver.receive(3);
        }
        driver.pass(2, pass == crash);
    }
    driver.check(10)
}

#[test]
fn a_count_is_exact_through_a_restart_at_every_step() {
    for crash in 0..20 {
        counted(crash, None).unwrap();
    }
}

#[test]
fn state_outputs_and_cursor_committed_apart_are_seen() {
    for mistake in [Mistake::Cursor, Mistake::State, Mistake::Outputs] {
        let seen = (0..20).filter(|crash| counted(*crash, Some(mistake)).is_err()).count();
        assert!(seen > 0, "{mistake:?}");
    }
}
