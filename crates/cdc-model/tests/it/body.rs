use cdc_model::{
    Body, ChangeBody, Epoch, Error, Operation, Sequence, Tag, Timestamp, Transaction, ValueRef,
    push_json_string,
};
use proptest::prelude::*;
use serde_json::value::RawValue;

fn object(members: &[(String, i64)]) -> Box<RawValue> {
    let mut out = String::from("{");
    for (name, value) in members {
        if out.len() > 1 {
            out.push(',');
        }
        push_json_string(&mut out, name);
        out.push(':');
        ValueRef::Integer(*value).write_json(&mut out, 100);
    }
    out.push('}');
    RawValue::from_string(out).unwrap()
}

proptest! {
    #[test]
    fn columns_put_the_same_bytes_together_and_the_full_before_is_the_row_before(
        names in prop::collection::btree_set(any::<String>(), 1..6), values in prop::collection::vec((0_i64..3, 0_i64..3), 6),
    ) {
        let names: Vec<String> = names.into_iter().rev().collect();
        let row = |pick: fn(&(i64, i64)) -> i64| -> Vec<(String, i64)> {
            names.iter().cloned().zip(values.iter().map(pick)).collect()
        };
        let (before, after) = (row(|v| v.0), row(|v| v.1));
        let was: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).map(|(b, _)| b.clone()).collect();
        let (was, full, after) = (object(&was), object(&before), object(&after));
        let mut change = ChangeBody::new(Operation::Update, "t", "1");
        change.was = Some(&was);
        change.after = Some(&after);
        change.changed_fields = Some(vec![]);
        let body = change.to_body();
        prop_assert_eq!(change.full_before().unwrap().unwrap(), full.get());
        let columns = body.columns().unwrap();
        prop_assert_eq!(columns.before.as_deref(), Some(full.get()));
        prop_assert_eq!(&columns.to_body().unwrap(), &body);
        prop_assert_eq!(Body::parse(body.as_str()).unwrap(), body);
    }

    #[test]
    fn a_change_within_a_transaction_is_what_it_would_have_been_written_as(
        collection in any::<String>(), document_id in any::<String>(), tag in 0..4_usize, version in any::<Option<u32>>(),
        own_correlation in any::<Option<String>>(), correlation in any::<Option<String>>(),
        metadata in any::<Option<String>>(), is_joint in any::<bool>(), after in any::<String>(),
    ) {
        let after = RawValue::from_string(serde_json::to_string(&after).unwrap()).unwrap();
        let mut change = ChangeBody::new(Operation::Insert, collection, document_id);
        change.after = Some(&after);
        change.schema_version = version;
        let window = Tag::Aggregate { from: Timestamp::ZERO, to: Timestamp::new(1) };
        change.tag = [None, Some(Tag::Snapshot), Some(Tag::Mapped), Some(window)][tag].clone();
        change.correlation_id = own_correlation.map(Into::into);
        let alone = change.to_body();
        let metadata = metadata.map(|text| serde_json::json!({ "of": [text, "\"},{"] }));
        let transaction = is_joint.then(|| Transaction {
            id: Transaction::id_at(Epoch { number: 1, nonce: 2 }, Sequence::new(3)), index: 0, count: 2, metadata,
        });
        let joint = alone.within(transaction.as_ref(), correlation.as_deref());
        change.transaction = transaction.map(Box::new);
        change.correlation_id = change.correlation_id.or(correlation.map(Into::into));
        prop_assert_eq!(&joint, &change.to_body());
        prop_assert_eq!(&joint.columns().unwrap().to_body().unwrap(), &joint);
        prop_assert_eq!(Body::parse(joint.as_str()).unwrap(), joint);
    }

    #[test]
    fn hostile_text_never_panics(text in any::<String>()) {
        drop(Body::parse(&text));
        drop(Body::parse(&format!("{{\"operation\":\"UPDATE\",\"collection\":\"c\",\"documentId\":\"d\",{text}}}")));
    }
}

#[test]
fn a_body_that_is_not_in_the_one_form_is_refused() {
    let canonical = r#"{"operation":"INSERT","collection":"c","documentId":"d","after":{}}"#;
    assert_eq!(Body::parse(canonical).unwrap().as_str(), canonical);
    for text in [
        r#"{"collection":"c","operation":"INSERT","documentId":"d","after":{}}"#,
        r#"{"operation":"INSERT", "collection":"c","documentId":"d","after":{}}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"d","after":{}} "#,
        r#"{"operation":"INSERT","collection":"\u0063","documentId":"d","after":{}}"#,
        r#"{"operation":"INSERT","collection":"c","documentId":"d","before":{},"after":{}}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"d","changedFields":[],"was":{"x":1},"after":{}}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"d","changedFields":[],"was":{"x":1},"after":{"x":1}}"#,
    ] {
        assert!(matches!(Body::parse(text), Err(Error::NotCanonical)), "{text}");
    }
    for text in [
        r#"{"operation":"INSERT","collection":"c","documentId":"d","after":{},"x":1}"#,
        r#"{"operation":"UPDATE","collection":"c","documentId":"d","changedFields":[],"was":1,"after":{}}"#,
        r#"{"schema":{"collection":"c","version":1}}"#,
    ] {
        assert!(matches!(Body::parse(text), Err(Error::Json { .. })), "{text}");
    }
}
