//! What the fuzz targets check: nothing that arrives from outside panics, and what decodes comes back the same when
//! it is written and decoded again.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cdc_model::{
    Body, ChangeEvent, Epoch, ObjectId, Origin, Record, Sequence, Timestamp, Value, to_cloudevent,
    to_debezium,
};
use cdc_net::Request;
use cdc_net::wire::{self, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A type with a JSON form.
pub fn json<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) {
    let Ok(decoded) = serde_json::from_str::<T>(text) else {
        return;
    };
    let written = serde_json::to_string(&decoded).expect("what was decoded can be written");
    let again: T = serde_json::from_str(&written).expect("what was written can be decoded");
    assert_eq!(again, decoded, "{written}");
}

/// A type with a form that people type.
pub fn words<T: FromStr + Display + PartialEq + Debug>(text: &str)
where
    T::Err: Debug,
{
    let Ok(parsed) = text.parse::<T>() else { return };
    let written = parsed.to_string();
    let again: T = written.parse().expect("what was written can be parsed");
    assert_eq!(again, parsed);
}

/// A SQLite value, compared to the bit.
pub fn value(text: &str) {
    let Ok(decoded) = Value::from_json(text) else {
        return;
    };
    let Some(borrowed) = decoded.as_ref() else { return };
    let written = borrowed.to_json();
    let again = Value::from_json(&written).expect("what was written can be decoded");
    assert!(again.as_ref().is_some_and(|again| borrowed.same(&again)), "{written}");
}

/// A body from outside, and its columns, which give the same bytes.
pub fn body(text: &str) {
    let Ok(body) = Body::parse(text) else {
        return;
    };
    assert_eq!(body.as_str(), text, "a body keeps its bytes");
    let columns = body.columns().expect("a body that was let in has columns");
    assert_eq!(columns.to_body().expect("columns of a body make a body"), body);
    printed(&record(body));
}

/// A record that was let in: every form in which it is printed is JSON, and its line says the same.
fn printed(record: &Record) {
    let line = record.to_json().expect("a body that was let in can be printed");
    let forms = [
        Some(line.clone()),
        Some(to_cloudevent(record).expect("and as a CloudEvent")),
        to_debezium(record, Timestamp::ZERO).expect("and for Debezium"),
    ];
    for form in forms.iter().flatten() {
        serde_json::from_str::<&RawValue>(form).expect("what is printed is JSON");
    }
    json::<ChangeEvent>(&line);
    // Deeply nested documents are stored but refused by the decoder, one level earlier inside the event.
    if let (Ok(Some(event)), Ok(again)) = (record.event(), serde_json::from_str::<ChangeEvent>(&line)) {
        assert_eq!(again, event, "{line}");
    }
}

fn record(body: Body) -> Record {
    let source: ObjectId = "https://acme.test/app".parse().expect("an id");
    let epoch: Epoch = "1-00c0ffee00c0ffee".parse().expect("an epoch");
    Record {
        sequence: Sequence::new(8),
        timestamp: Timestamp::new(1_705_276_800_009),
        epoch,
        origin: Origin::new(source, epoch, Vec::new()),
        origin_sequence: Sequence::new(7),
        origin_timestamp: Timestamp::new(1_705_276_800_000),
        body,
    }
}

/// A document of another process, of whatever kind.
pub fn document(text: &[u8]) {
    for kind in Kind::ALL {
        if let Ok((to, decoded)) = wire::decode_request(kind, text) {
            let written = wire::encode_request(&to, &decoded).expect("what was decoded can be written");
            let (_, again) = wire::decode_request(kind, &written).expect("what was written can be decoded");
            assert!(same(&decoded, &again), "{}", String::from_utf8_lossy(&written));
        }
    }
    if let Ok(decoded) = wire::decode_answer(text) {
        let written = wire::encode_answer(decoded.clone());
        assert_eq!(wire::decode_answer(&written).expect("what was written can be decoded"), decoded);
    }
    if let Ok(decoded) = wire::decode_failure(text) {
        let written = wire::encode_failure(decoded.clone());
        assert_eq!(wire::decode_failure(&written).expect("what was written can be decoded"), decoded);
    }
}

fn same(one: &Request, other: &Request) -> bool {
    match (one, other) {
        (Request::Hello(one), Request::Hello(other)) => one == other,
        (Request::Batch(one), Request::Batch(other)) => one == other,
        (Request::Grant(one), Request::Grant(other)) => one == other,
        _ => false,
    }
}
