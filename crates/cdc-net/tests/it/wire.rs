use std::sync::Arc;

use cdc_model::{
    Answer, Batch, Body, ChangeBody, Digest, Epoch, Mark, ObjectId, Operation, Origin, Position, Record,
    Refusal, SchemaChange, SchemaColumn, Sequence, Timestamp,
};
use cdc_net::Request;
use cdc_net::wire::{self, Failure, Kind, WireError};
use cdc_relay::{GrantRequest, Hello};
use proptest::prelude::*;

use crate::{EPOCH, child, id, log, parent_id, tail};

fn hello() -> Hello {
    Hello {
        sender: child(),
        generation: 3,
        session: 0xfeed_f00d_dead_beef,
        epoch: EPOCH,
        acked: Sequence::new(7),
        tail: Position { sequence: Sequence::new(9), digest: Digest::of(b"nine") },
        floor: Sequence::new(2),
    }
}

fn grant() -> GrantRequest {
    GrantRequest {
        sender: child(),
        ended: EPOCH,
        head: Position { sequence: Sequence::new(9), digest: Digest::of(b"nine") },
        nonce: 0xfeed_f00d_dead_beef,
    }
}

/// An own insert, a schema change and an event that came by way of a grandchild; one position was kept back.
fn mixed() -> Batch {
    let own = Origin::new(child(), EPOCH, vec![]);
    let leaf = id("https://crm.headless.ly/acme/eu");
    let leaf_epoch = Epoch { number: 2, nonce: u64::MAX };
    let forwarded = Origin::new(leaf.clone(), leaf_epoch, vec![leaf]);
    let row = |sequence, origin: &Arc<Origin>, place, body| Record {
        sequence: Sequence::new(sequence),
        timestamp: Timestamp::new(1_705_276_800_120),
        epoch: EPOCH,
        origin: Arc::clone(origin),
        origin_sequence: Sequence::new(place),
        origin_timestamp: Timestamp::new(1_705_276_800_120 - i64::try_from(sequence - place).unwrap()),
        body,
    };
    let mut insert = ChangeBody::new(Operation::Insert, "customers", "42");
    let after = serde_json::value::RawValue::from_string(
        r#"{"id":42,"spent":1.50,"note":"a \"b\" \u00e9 é"}"#.into(),
    );
    let after = after.unwrap();
    insert.after = Some(&after);
    let schema = SchemaChange {
        collection: "customers".to_owned(),
        version: 2,
        columns: vec![SchemaColumn {
            name: "id".to_owned(),
            declared_type: "INTEGER".to_owned(),
            key: Some(1),
        }],
        ..SchemaChange::default()
    };
    let records = vec![
        row(11, &own, 11, insert.to_body()),
        row(12, &own, 12, Body::schema(schema)),
        row(14, &forwarded, 3, insert.to_body()),
    ];
    Batch {
        sender: child(),
        generation: 3,
        epoch: EPOCH,
        after: Position { sequence: Sequence::new(10), digest: Digest::of(b"ten") },
        through: Position { sequence: Sequence::new(14), digest: Digest::of(b"fourteen") },
        records,
        kept_back: 1,
    }
}

fn refusals() -> Vec<Refusal> {
    let (after, mark, at) = (Sequence::new(5), Sequence::new(6), Sequence::new(7));
    let current = Epoch { number: 2, nonce: 1 };
    vec![
        Refusal::NotAtMark { after, mark },
        Refusal::Diverged { at },
        Refusal::Fenced { epoch: EPOCH, current },
        Refusal::NotGranted { epoch: EPOCH, current },
        Refusal::ParentLostState { after },
        Refusal::Superseded { generation: 1, current: 2 },
        Refusal::Cycle { circle: vec![child(), parent_id(), child()] },
        Refusal::TooDeep { depth_max: 32 },
        Refusal::Malformed { reason: "it ends before it begins".to_owned() },
        Refusal::Busy,
        Refusal::UnknownObject { object: child() },
    ]
}

fn answer(refusal: Option<Refusal>) -> Answer {
    Answer {
        mark: Some(Mark { epoch: EPOCH, sequence: Sequence::new(14), digest: Digest::of(b"fourteen") }),
        settled: Sequence::new(9),
        generation: 3,
        ancestors: vec![id("https://headless.ly"), id("https://startups.studio")],
        refusal,
    }
}

fn failures() -> Vec<Failure> {
    let reason = || "more than 10000 records".to_owned();
    vec![
        Failure::UnknownObject { object: child() },
        Failure::Busy,
        Failure::NoAnswer,
        Failure::TooLarge { reason: reason() },
        Failure::BadRequest { reason: "not a batch".to_owned() },
        Failure::TooSlow,
    ]
}

/// A golden file with one document to a line.
#[track_caller]
fn check_golden(name: &str, golden: &str, documents: impl IntoIterator<Item = Vec<u8>>) {
    let mut written = String::new();
    for document in documents {
        written.push_str(std::str::from_utf8(&document).unwrap());
        written.push('\n');
    }
    assert_eq!(written, golden, "tests/golden/{name}");
}

#[test]
fn every_document_is_as_recorded_byte_for_byte() {
    let requests = [Request::Hello(hello()), Request::Batch(mixed()), Request::Grant(grant())];
    let requests = requests.map(|request| wire::encode_request(&parent_id(), &request).unwrap());
    check_golden("requests.ndjson", include_str!("../golden/requests.ndjson"), requests);
    let no_mark =
        Answer { mark: None, generation: 0, settled: Sequence::ZERO, ancestors: vec![], refusal: None };
    let answers = [no_mark, answer(None)].into_iter().chain(refusals().into_iter().map(|r| answer(Some(r))));
    check_golden(
        "answers.ndjson",
        include_str!("../golden/answers.ndjson"),
        answers.map(wire::encode_answer),
    );
    let failures = failures().into_iter().map(wire::encode_failure);
    check_golden("failures.ndjson", include_str!("../golden/failures.ndjson"), failures);
}

#[test]
fn what_was_recorded_is_read_back() {
    let mut requests = include_str!("../golden/requests.ndjson").lines().map(str::as_bytes);
    let mut read = |kind| wire::decode_request(kind, requests.next().unwrap()).unwrap();
    let (to, request) = read(Kind::Hello);
    assert!(to == parent_id() && matches!(request, Request::Hello(read) if read == hello()));
    let (to, request) = read(Kind::Batch);
    assert!(to == parent_id() && matches!(request, Request::Batch(read) if read == mixed()));
    let (to, request) = read(Kind::Grant);
    assert!(to == parent_id() && matches!(request, Request::Grant(read) if read == grant()));
    let answers = include_str!("../golden/answers.ndjson").lines().skip(2);
    assert_eq!(answers.clone().count(), refusals().len());
    for (line, refusal) in answers.zip(refusals()) {
        assert_eq!(wire::decode_answer(line.as_bytes()).unwrap(), answer(Some(refusal)));
    }
    for (line, failure) in include_str!("../golden/failures.ndjson").lines().zip(failures()) {
        assert_eq!(wire::decode_failure(line.as_bytes()).unwrap(), failure);
    }
}

#[test]
fn an_origin_crosses_once_however_many_records_have_it() {
    let text = wire::encode_request(&parent_id(), &Request::Batch(crate::batch(log(100)))).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("\"source\"").count(), 1);
    assert_eq!(text.matches("\"cursor\"").count(), 0, "an own row's place is its origin's");
}

/// Replaces text in the recorded batch, and says what is wrong with it then.
#[track_caller]
fn check_batch(from: &str, to: &str, is_expected: fn(&WireError) -> bool) {
    let recorded = include_str!("../golden/requests.ndjson").lines().nth(1).unwrap();
    assert!(recorded.contains(from), "{from}");
    let error = wire::decode_request(Kind::Batch, recorded.replacen(from, to, 1).as_bytes()).unwrap_err();
    assert!(is_expected(&error), "{from} -> {to}: {error:?}");
}

#[test]
fn a_batch_that_is_not_one_gives_an_error_of_its_kind() {
    let json: fn(&WireError) -> bool = |error| matches!(error, WireError::Json { .. });
    let body: fn(&WireError) -> bool = |error| matches!(error, WireError::Body { .. });
    for (from, to) in [
        ("\"version\":1,", ""),
        ("\"version\":1,", "\"version\":1,\"version\":1,"),
        ("\"keptBack\":1", "\"keptBack\":-1"),
        ("\"keptBack\":1", "\"keptBack\":1,\"more\":0"),
        ("\"sequence\":11", "\"sequence\":9223372036854775808"),
        ("\"sequence\":11", "\"sequence\":11.0"),
        ("1-0000000000c0ffee", "1-C0FFEE"),
        ("https://crm.headless.ly", "http://crm.headless.ly"),
        ("\"origin\":0", "\"origin\":-1"),
        ("\"body\":{\"operation\"", "\"body\":{\"\\uD800\"\"operation\""),
        ("\"route\":[", "\"route\":[7,"),
    ] {
        check_batch(from, to, json);
    }
    for (from, to) in [
        ("\"INSERT\"", "\"DELETE\""),
        ("\"INSERT\"", "\"insert\""),
        ("\"body\":{\"operation\"", "\"body\":{ \"operation\""),
        ("\"documentId\":\"42\"", "\"documentId\":\"\\u0034\\u0032\""),
        ("\"body\":{\"schema\"", "\"body\":{\"schemas\""),
    ] {
        check_batch(from, to, body);
    }
    check_batch("\"origin\":1", "\"origin\":2", |error| matches!(error, WireError::Contradiction { .. }));
    check_batch("\"version\":1", "\"version\":2", |error| matches!(error, WireError::Version { found: 2 }));
    check_batch("\"version\":1", "\"version\":2,\"new\":{}", |error| {
        matches!(error, WireError::Version { found: 2 })
    });
}

#[test]
fn a_document_of_another_kind_or_none_is_an_error() {
    let [hello_text, grant_text] = [Request::Hello(hello()), Request::Grant(grant())]
        .map(|request| wire::encode_request(&parent_id(), &request).unwrap());
    for (kind, text) in [
        (Kind::Batch, hello_text.as_slice()),
        (Kind::Grant, hello_text.as_slice()),
        (Kind::Hello, grant_text.as_slice()),
        (Kind::Hello, b""),
        (Kind::Hello, b"null"),
        (Kind::Batch, b"[]"),
        (Kind::Batch, b"\xff\xfe"),
        (Kind::Batch, b"{\"version\":1"),
    ] {
        let error = wire::decode_request(kind, text).unwrap_err();
        assert!(matches!(error, WireError::Json { .. }), "{error:?}");
    }
    for (kind, text) in [(Kind::Hello, hello_text), (Kind::Grant, grant_text)] {
        let upper = String::from_utf8(text).unwrap().replace("feedf00ddeadbeef", "FEEDF00DDEADBEEF");
        let error = wire::decode_request(kind, upper.as_bytes()).unwrap_err();
        assert!(matches!(error, WireError::Contradiction { .. }), "{error:?}");
    }
}

#[test]
fn more_than_a_limit_is_refused_at_both_ends_and_depth_costs_no_stack() {
    let mut batch = crate::batch(log(1));
    batch.records = vec![batch.records[0].clone(); wire::RECORDS_MAX + 1];
    let error = wire::encode_request(&parent_id(), &Request::Batch(batch)).unwrap_err();
    assert!(matches!(error, WireError::TooMuch { max: wire::RECORDS_MAX, .. }), "{error:?}");

    let recorded = include_str!("../golden/requests.ndjson").lines().nth(1).unwrap();
    let origin = r#"{"source":"https://a.b","epoch":"1-0000000000000001"},"#;
    let origins = format!("\"origins\":[{}", origin.repeat(wire::RECORDS_MAX));
    let route = format!("\"route\":[{}", "\"https://a.b\",".repeat(cdc_relay::DEPTH_MAX));
    let deep = format!("\"body\":{}{{\"operation\"", "[".repeat(100_000));
    for (from, to) in
        [("\"origins\":[", &*origins), ("\"route\":[", &*route), ("\"body\":{\"operation\"", &*deep)]
    {
        let error = wire::decode_request(Kind::Batch, recorded.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(matches!(error, WireError::Json { .. }), "{error:?}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = recorded.replacen("{\"id\":42,", &format!("{{\"id\":{nested},"), 1);
    let (_, request) = wire::decode_request(Kind::Batch, text.as_bytes()).unwrap();
    assert!(matches!(request, Request::Batch(batch) if batch.records[0].body.as_str().len() > 200_000));
}

#[test]
fn a_record_that_could_not_be_read_back_the_same_is_not_sent() {
    let sent = |change: fn(&mut Record)| {
        let mut batch = crate::batch(log(1));
        batch.records.iter_mut().for_each(change);
        wire::encode_request(&parent_id(), &Request::Batch(batch)).unwrap_err()
    };
    let space = sent(|record| record.body = Body::from_stored(format!("{} ", record.body.as_str())));
    assert!(matches!(space, WireError::Body { index: 0, .. }), "{space:?}");
    let broken = sent(|record| record.body = Body::from_stored("{"));
    assert!(matches!(broken, WireError::Body { index: 0, .. }), "{broken:?}");
    let other = sent(|record| record.epoch = Epoch { number: 2, nonce: 0 });
    assert!(matches!(other, WireError::Contradiction { .. }), "{other:?}");
}

#[test]
fn what_is_packed_is_unpacked_within_the_limit_and_not_a_byte_beyond() {
    let text = wire::encode_request(&parent_id(), &Request::Batch(crate::batch(log(50)))).unwrap();
    let packed = wire::pack(&text).unwrap();
    assert!(packed.len() < text.len() / 4);
    assert_eq!(wire::unpacked_size(&packed), Some(text.len()));
    assert_eq!(wire::unpack(&packed, text.len()).unwrap(), text);
    let error = wire::unpack(&packed, text.len() - 1).unwrap_err();
    assert!(matches!(error, WireError::TooMuch { .. }), "{error:?}");
    assert_eq!(wire::pack(b"short"), None);

    let bomb = wire::pack(&vec![b' '; 16 << 20]).unwrap();
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    for (packed, limit) in [(bomb.clone(), 1 << 20), ([packed.clone(), bomb].concat(), text.len())] {
        let error = wire::unpack(&packed, limit).unwrap_err();
        assert!(matches!(error, WireError::TooMuch { .. }), "{error:?}");
    }
    let cut = packed.get(..packed.len() - 1).unwrap().to_vec();
    // Magic number, a window of 128 MiB and no more.
    let window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88];
    for hostile in [cut, window, b"not zstd".to_vec(), vec![0x28, 0xb5, 0x2f, 0xfd]] {
        let error = wire::unpack(&hostile, 1 << 20).unwrap_err();
        assert!(matches!(error, WireError::Packed { .. }), "{error:?}");
    }
}

fn bodies() -> impl Strategy<Value = Body> {
    let value = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        any::<f64>().prop_map(|number| serde_json::to_string(&number).unwrap()),
        any::<u64>().prop_map(|number| format!("{{\"n\":{number}, \"e\" : 1E+2}}")),
        Just("[1.0,1.00,-0,\"\\u00e9\"]".to_owned()),
    ];
    (any::<String>(), any::<String>(), value).prop_map(|(collection, document, after)| {
        let after = serde_json::value::RawValue::from_string(after).unwrap();
        let mut body = ChangeBody::new(Operation::Insert, collection, document);
        body.after = Some(&after);
        body.to_body()
    })
}

fn ids() -> impl Strategy<Value = ObjectId> {
    "https://[a-z]{1,3}(/[a-zA-Z0-9~]{1,3}){0,2}".prop_map(|text| id(&text))
}

fn records() -> impl Strategy<Value = Record> {
    let place = || (0..=Sequence::MAX.get()).prop_map(Sequence::new);
    let origin = (ids(), any::<(u32, u64)>(), proptest::collection::vec(ids(), 0..3));
    let times = any::<(i64, i64)>();
    (place(), place(), times, origin, bodies(), any::<bool>()).prop_map(
        |(sequence, origin_sequence, (time, origin_time), (source, (number, nonce), route), body, same)| {
            Record {
                sequence,
                timestamp: Timestamp::new(time),
                epoch: EPOCH,
                origin: Origin::new(source, Epoch { number, nonce }, route),
                origin_sequence: if same { sequence } else { origin_sequence },
                origin_timestamp: Timestamp::new(if same { time } else { origin_time }),
                body,
            }
        },
    )
}

proptest! {
    #[test]
    fn every_batch_comes_back_the_same(
        records in proptest::collection::vec(records(), 0..20),
        generation: u64,
        kept_back: u64,
        to in ids(),
    ) {
        let batch = Batch { generation, kept_back, ..crate::batch(records) };
        let text = wire::encode_request(&to, &Request::Batch(batch.clone())).unwrap();
        let packed = wire::pack(&text).map_or_else(|| text.clone(), |packed| wire::unpack(&packed, text.len()).unwrap());
        let (named, read) = wire::decode_request(Kind::Batch, &packed).unwrap();
        prop_assert_eq!(named, to);
        match read {
            Request::Batch(read) => {
                prop_assert_eq!(tail(&read.records), tail(&batch.records));
                prop_assert_eq!(read, batch);
            }
            Request::Hello(_) | Request::Grant(_) => prop_assert!(false),
        }
    }

    #[test]
    fn every_hello_grant_and_answer_comes_back_the_same(
        numbers: (u64, u64, u32, u64),
        places: (u32, u32, u32),
        ancestors in proptest::collection::vec(ids(), 0..32),
        refusal in proptest::option::of(proptest::sample::select(refusals())),
    ) {
        let (generation, session, number, nonce) = numbers;
        let (acked, floor, settled) = places;
        let epoch = Epoch { number, nonce };
        let sequence = |number: u32| Sequence::new(u64::from(number));
        let said = Hello { generation, session, epoch, acked: sequence(acked), floor: sequence(floor), ..hello() };
        let text = wire::encode_request(&child(), &Request::Hello(said.clone())).unwrap();
        let (to, read) = wire::decode_request(Kind::Hello, &text).unwrap();
        prop_assert!(to == child() && matches!(&read, Request::Hello(read) if *read == said));
        let head = Position { sequence: sequence(acked), digest: Digest::of(&nonce.to_be_bytes()) };
        let asked = GrantRequest { sender: child(), ended: epoch, head, nonce: session };
        let text = wire::encode_request(&child(), &Request::Grant(asked.clone())).unwrap();
        let (to, read) = wire::decode_request(Kind::Grant, &text).unwrap();
        prop_assert!(to == child() && matches!(&read, Request::Grant(read) if *read == asked));
        let answered = Answer { generation, ancestors, settled: sequence(settled), ..answer(refusal) };
        prop_assert_eq!(wire::decode_answer(&wire::encode_answer(answered.clone())).unwrap(), answered);
    }
}
