//! Every record comes back as it was, byte for byte.

use cdc_model::{
    Body, ChangeBody, DerivedFrom, Epoch, ObjectId, Operation, Origin, Sequence, Tag, Timestamp, Transaction,
};
use proptest::prelude::*;
use serde_json::value::RawValue;

use crate::support::{DAY, DAY_MS, EPOCH, Log, Warehouse, acme, read};

#[tokio::test]
async fn json_null_and_absent_stay_apart() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    for body in [
        r#"{"operation":"INSERT","collection":"c","documentId":"1","after":null}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"","after":{"a":null}}"#,
        r#"{"operation":"INSERT","collection":"","documentId":"1","after":0}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"1","after":""}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"1","after":false}"#,
        r#"{"operation":"DELETE","collection":"c","documentId":"1","before":null}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"1","changedFields":[],"before":null,"after":null}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"1","changedFields":[],"before":{"a":1},"after":{"a":1}}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"1","changedFields":["a"],"was":{"a":null},"after":{"a":1,"b":null}}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"1","changedFields":[],"was":{},"after":{"a":1}}"#,
    ] {
        log.own(DAY, Body::parse(body).unwrap());
    }
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.all()).await.unwrap();
    assert_eq!(read(&archive).await, log.records());
}

#[tokio::test]
async fn a_schema_change_comes_back() {
    let (warehouse, mut log) = (Warehouse::new(), Log::new());
    let schema = cdc_model::SchemaChange {
        collection: "customers".to_owned(),
        version: 2,
        columns: vec![cdc_model::SchemaColumn {
            name: "id".to_owned(),
            declared_type: "TEXT".to_owned(),
            key: Some(1),
        }],
        ..cdc_model::SchemaChange::default()
    };
    log.own(DAY, Body::schema(schema));
    let mut archive = warehouse.archive(1).await;
    archive.append(&log.all()).await.unwrap();
    assert_eq!(read(&archive).await, log.records());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z]{1,8}",
        any::<String>(),
        Just("\u{0}\u{1f600}\\\"\n".to_owned()),
        "[a-z]{250,300}",
    ]
}

fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        text().prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    });
    value.prop_map(|value| value.to_string())
}

fn row() -> impl Strategy<Value = (String, String)> {
    prop::collection::btree_map("[a-e]", (document(), prop::option::of(document())), 0..5).prop_map(
        |members| {
            let object = |pairs: Vec<String>| format!("{{{}}}", pairs.join(","));
            let after = members.iter().map(|(name, (after, _))| format!("\"{name}\":{after}")).collect();
            let was = members.iter().filter_map(|(name, (after, was))| {
                let was = was.as_ref().filter(|was| *was != after)?;
                Some(format!("\"{name}\":{was}"))
            });
            (object(was.collect()), object(after))
        },
    )
}

#[derive(Clone, Debug)]
struct Extras {
    version: Option<u32>,
    tag: Option<Tag>,
    transaction: Option<(String, u32, Option<String>)>,
    correlation: Option<String>,
    derived: Option<u64>,
    paths: Vec<String>,
}

fn extras() -> impl Strategy<Value = Extras> {
    let tag = prop_oneof![
        Just(Tag::Snapshot),
        Just(Tag::Mapped),
        any::<(i64, i64)>()
            .prop_map(|(from, to)| Tag::Aggregate { from: Timestamp::new(from), to: Timestamp::new(to) }),
    ];
    (
        prop::option::of(0..i32::MAX.unsigned_abs()),
        prop::option::of(tag),
        prop::option::of((text(), any::<u32>(), prop::option::of(text()))),
        prop::option::of(text()),
        prop::option::of(1..u64::MAX / 2),
        prop::collection::vec(text(), 0..3),
    )
        .prop_map(|(version, tag, transaction, correlation, derived, paths)| Extras {
            version,
            tag,
            transaction,
            correlation,
            derived,
            paths,
        })
}

fn body() -> impl Strategy<Value = Body> {
    let states = prop_oneof![
        document().prop_map(|after| (Operation::Insert, None, None, Some(after))),
        document().prop_map(|before| (Operation::Delete, Some(before), None, None)),
        (document(), document()).prop_map(|(before, after)| (
            Operation::Update,
            Some(before),
            None,
            Some(after)
        )),
        row().prop_map(|(was, after)| (Operation::Update, None, Some(was), Some(after))),
    ];
    (text(), text(), states, extras()).prop_map(
        |(collection, id, (operation, before, was, after), extras)| {
            let raw = |text: &Option<String>| text.clone().map(|text| RawValue::from_string(text).unwrap());
            let (before, was, after) = (raw(&before), raw(&was), raw(&after));
            let mut change = ChangeBody::new(operation, collection, id);
            change.before = before.as_deref();
            change.was = was.as_deref();
            change.after = after.as_deref();
            if operation == Operation::Update {
                change.changed_fields = Some(extras.paths.iter().map(|path| path.as_str().into()).collect());
            }
            change.schema_version = extras.version;
            change.tag = extras.tag.clone();
            change.transaction = extras.transaction.clone().map(|(id, index, said)| {
                let metadata = said.map(|said| serde_json::json!({ "said": [said, 1.5] }));
                Box::new(Transaction { id, index, count: index, metadata })
            });
            change.correlation_id = extras.correlation.as_deref().map(Into::into);
            change.derived_from = extras.derived.map(|sequence| DerivedFrom {
                source: acme(),
                epoch: EPOCH,
                sequence: Sequence::new(sequence),
            });
            Body::parse(change.to_body().as_str()).unwrap()
        },
    )
}

/// An origin's place: which object (0 is the log's own), which epoch, how long its route, when.
type Place = (usize, u32, usize, u64, i64);

fn place() -> impl Strategy<Value = Place> {
    let time = prop_oneof![
        8 => DAY..DAY + 2 * DAY_MS,
        1 => -9_000_000_000_000_000..9_000_000_000_000_000_i64,
    ];
    (0..4_usize, 1..u32::MAX, 0..3_usize, 0..=i64::MAX.unsigned_abs(), time)
}

fn push(log: &mut Log, place: Place, body: Body) {
    let (source, epoch, hops, sequence, ms) = place;
    let ids = ["https://a.b", "https://crm.headless.ly/x/y%20z", "https://c.d:81"]
        .map(|id| id.parse::<ObjectId>().unwrap());
    let Some(source) = source.checked_sub(1).and_then(|index| ids.get(index)) else {
        log.own(ms, body);
        return;
    };
    let mut route = vec![source.clone()];
    route.extend(ids.iter().take(hops).cloned());
    let origin = Origin::new(source.clone(), Epoch { number: epoch, nonce: u64::from(epoch) << 7 }, route);
    let (sequence, ms) = (Sequence::new(sequence), Timestamp::new(ms));
    log.push(origin, sequence, ms, ms, body);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_comes_back(records in prop::collection::vec((place(), body()), 1..40), cut in 0..40_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (warehouse, mut log) = (Warehouse::new(), Log::new());
        let count = records.len();
        for (place, body) in records {
            push(&mut log, place, body);
        }
        let found = runtime.block_on(async {
            let mut archive = warehouse.archive(1).await;
            let cut = cut.min(count);
            archive.append(&log.batch(0..cut)).await.unwrap();
            archive.append(&log.batch(cut..count)).await.unwrap();
            read(&archive).await
        });
        prop_assert_eq!(found, log.records());
    }
}
