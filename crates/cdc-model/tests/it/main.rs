//! The wire shapes, the canonical body and the admission rule, from outside.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "a test stops at the first surprise"
)]

mod admit;
mod body;
mod wire;

use std::sync::Arc;

use cdc_model::{Body, Epoch, Operation, Origin, Record, Sequence, Timestamp};

pub(crate) fn id(text: &str) -> cdc_model::ObjectId {
    text.parse().unwrap()
}

pub(crate) fn epoch() -> Epoch {
    Epoch { number: 1, nonce: 0xc0ffee }
}

pub(crate) fn own() -> Arc<Origin> {
    Origin::new(id("https://crm.headless.ly/acme"), epoch(), vec![])
}

pub(crate) fn record(sequence: u64, origin: &Arc<Origin>, body: Body) -> Record {
    Record {
        sequence: Sequence::new(sequence),
        timestamp: Timestamp::new(1_705_276_800_000 + i64::try_from(sequence).unwrap()),
        epoch: epoch(),
        origin: Arc::clone(origin),
        origin_sequence: Sequence::new(sequence),
        origin_timestamp: Timestamp::new(1_705_276_800_000 + i64::try_from(sequence).unwrap()),
        body,
    }
}

pub(crate) fn insert(n: u64) -> Body {
    let after = serde_json::value::RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap();
    let mut body = cdc_model::ChangeBody::new(Operation::Insert, "things", n.to_string());
    body.after = Some(&after);
    body.to_body()
}
