use cdc_model::{
    Body, ChangeBody, ChangeEvent, Checkpoint, Cursor, DerivedFrom, Epoch, Error, Filter, Operation, Record,
    Refusal, SchemaChange, SchemaColumn, Sequence, Tag, Timestamp, Transaction, to_cloudevent, to_debezium,
};
use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use crate::{epoch, id, own, record};

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// One record of every shape that has a wire form.
fn shapes() -> Vec<(&'static str, Record)> {
    let row = raw(r#"{"id":42,"name":"Ada","tier":"pro","logo":{"$blob":"AAE="},"spent":12.5}"#);
    let was = raw(r#"{"tier":"free"}"#);
    let document = raw(r#"{"customer":{"tier":null},"tags":["a","b"]}"#);
    let base = |operation| ChangeBody::new(operation, "customers", "42");

    let mut inserted = base(Operation::Insert);
    inserted.after = Some(&row);
    inserted.schema_version = Some(1);
    let mut snapshot = inserted.clone();
    snapshot.tag = Some(Tag::Snapshot);
    let mut updated = base(Operation::Update);
    updated.was = Some(&was);
    updated.after = Some(&row);
    updated.changed_fields = Some(vec!["tier".into()]);
    updated.transaction =
        Some(Box::new(Transaction { id: "1-7".to_owned(), index: 1, count: 2, metadata: None }));
    let mut deleted = base(Operation::Delete);
    deleted.before = Some(&document);
    deleted.correlation_id = Some("trace-1".into());
    let mut aggregate = base(Operation::Insert);
    aggregate.after = Some(&document);
    aggregate.tag = Some(Tag::Aggregate { from: Timestamp::new(0), to: Timestamp::new(3_600_000) });
    aggregate.derived_from =
        Some(DerivedFrom { source: id("https://a.b/c"), epoch: epoch(), sequence: Sequence::new(9) });
    let transaction = Transaction {
        id: Transaction::id_at(epoch(), Sequence::new(7)),
        index: 0,
        count: 1,
        metadata: Some(json!({ "user": "ada", "amount": 1.5 })),
    };
    let described = inserted.to_body().within(Some(&transaction), Some("trace-2"));
    let columns = vec![
        SchemaColumn { name: "id".to_owned(), declared_type: "INTEGER".to_owned(), key: Some(1) },
        SchemaColumn { name: "tier".to_owned(), declared_type: String::new(), key: None },
    ];
    let schema = Body::schema(SchemaChange {
        collection: "customers".to_owned(),
        version: 1,
        columns,
        ..SchemaChange::default()
    });

    let via = own().via(&id("https://crm.headless.ly/acme"));
    let mut forwarded = record(4, &via, deleted.to_body());
    forwarded.sequence = Sequence::new(1000);
    vec![
        ("insert", record(1, &own(), inserted.to_body())),
        ("snapshot", record(2, &own(), snapshot.to_body())),
        ("update", record(3, &own(), updated.to_body())),
        ("delete-forwarded", forwarded),
        ("aggregate", record(5, &own(), aggregate.to_body())),
        ("schema", record(6, &own(), schema)),
        ("described", record(7, &own(), described)),
    ]
}

#[test]
fn every_wire_shape_is_as_recorded() {
    for (name, record) in shapes() {
        let pretty = |text: String| {
            serde_json::to_string_pretty(&serde_json::from_str::<Value>(&text).unwrap()).unwrap()
        };
        insta::assert_snapshot!(format!("{name}.body"), record.body.as_str());
        insta::assert_snapshot!(format!("{name}.json"), pretty(record.to_json().unwrap()));
        insta::assert_snapshot!(format!("{name}.cloudevent"), pretty(to_cloudevent(&record).unwrap()));
        let debezium = to_debezium(&record, Timestamp::new(1_705_276_900_000)).unwrap();
        insta::assert_snapshot!(format!("{name}.debezium"), debezium.map_or("none".to_owned(), pretty));
    }
}

#[test]
fn small_values_have_the_recorded_json() {
    let cursor = Cursor { sequence: Sequence::new(7), timestamp: Timestamp::new(8), epoch: Some(epoch()) };
    let checkpoint = Checkpoint {
        subscriber_id: "my-processor".to_owned(),
        cursor,
        created_at: Timestamp::new(1),
        updated_at: Timestamp::new(2),
        metadata: Some(json!({"host": "a"})),
        revision: 0,
    };
    insta::assert_json_snapshot!("checkpoint", checkpoint);
    insta::assert_json_snapshot!(
        "seed-cursor",
        serde_json::from_str::<Cursor>(r#"{"sequence":1000,"timestamp":5}"#).unwrap()
    );
    let mut filter = Filter::collection("customers");
    filter.operations = vec![Operation::Update];
    insta::assert_json_snapshot!("filter", filter);
    insta::assert_json_snapshot!(
        "refusal",
        [
            Refusal::NotAtMark { after: Sequence::new(3), mark: Sequence::new(2) },
            Refusal::Fenced { epoch: epoch(), current: Epoch { number: 2, nonce: 1 } },
            Refusal::Busy,
        ]
    );
}

#[test]
fn golden_lines_of_earlier_releases_still_decode_to_the_same_bytes() {
    let golden = include_str!("../golden/bodies.ndjson");
    let mut lines = 0;
    for line in golden.lines() {
        assert_eq!(Body::parse(line).unwrap().columns().unwrap().to_body().unwrap().as_str(), line);
        lines += 1;
    }
    assert_eq!(lines, shapes().len());
    let now: String = shapes().iter().map(|(_, r)| format!("{}\n", r.body)).collect();
    assert_eq!(now, golden);
}

#[test]
fn an_event_without_the_states_its_operation_has_is_a_typed_error() {
    let event = |operation: &str, members: &str| {
        format!(
            r#"{{"id":"018d0a7e-f200-8001-8000-00000000abcd","operation":"{operation}","collection":"c","documentId":"d","timestamp":1,"sequence":1{members}}}"#
        )
    };
    for (operation, members, missing) in [
        ("INSERT", "", "lacks `after`"),
        ("INSERT", r#","before":{}"#, "lacks `after`"),
        ("DELETE", "", "lacks `before`"),
        ("UPDATE", r#","after":{}"#, "lacks `before`"),
        ("UPDATE", r#","before":{},"after":{}"#, "lacks `changedFields`"),
    ] {
        let error = serde_json::from_str::<ChangeEvent>(&event(operation, members)).unwrap_err().to_string();
        assert!(error.contains(missing), "{operation} {members}: {error}");
    }
    let null: ChangeEvent = serde_json::from_str(&event("INSERT", r#","after":null"#)).unwrap();
    assert_eq!(null.change.after(), Some(&Value::Null));
    for text in [
        "{}",
        "[]",
        r#"{"operation":"UPSERT"}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"d"}"#,
    ] {
        assert!(matches!(Body::parse(text), Err(Error::Json { .. } | Error::MissingState { .. })), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has finite numbers", |r| r.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_seeds_json_round_trips(
        operation in 0..3, collection in any::<String>(), document_id in any::<String>(), before in any_json(), after in any_json(),
        sequence in 0_u64..=i64::MAX.unsigned_abs(), timestamp in any::<i64>(), correlation in any::<Option<String>>(), sourced in any::<bool>(),
    ) {
        let mut event = json!({
            "id": "018d0a7e-f200-8001-8000-00000000abcd", "collection": collection, "documentId": document_id,
            "timestamp": timestamp, "sequence": sequence,
        });
        let mut put = |name: &str, value: Value| { event[name] = value; };
        match operation {
            0 => { put("operation", json!("INSERT")); put("after", after); }
            1 => {
                put("changedFields", json!(cdc_model::changed_fields(&before, &after)));
                put("operation", json!("UPDATE")); put("before", before); put("after", after);
            }
            _ => { put("operation", json!("DELETE")); put("before", before); }
        }
        if let Some(correlation) = correlation { put("correlationId", json!(correlation)); }
        if sourced { put("source", json!("https://crm.headless.ly/acme")); }
        let decoded: ChangeEvent = serde_json::from_value(event.clone()).unwrap();
        prop_assert_eq!(serde_json::to_value(&decoded).unwrap(), event);
    }

    #[test]
    fn a_records_line_decodes_to_the_event_it_holds(before in any_json(), after in any_json(), n in 1_u64..1000) {
        let (before, after) = (raw(&before.to_string()), raw(&after.to_string()));
        let mut body = ChangeBody::new(Operation::Update, "c.d", "\"[x");
        body.before = Some(&before);
        body.after = Some(&after);
        body.changed_fields = Some(vec!["a".into()]);
        let record = record(n, &own(), body.to_body());
        let line: ChangeEvent = serde_json::from_str(&record.to_json().unwrap()).unwrap();
        prop_assert_eq!(Some(line), record.event().unwrap());
    }
}
