//! The wire format against its golden files and hostile bytes, and links driven through real sockets.

#[cfg(test)]
mod parent;

#[cfg(test)]
mod cost;
#[cfg(test)]
mod links;
#[cfg(test)]
mod wire;

#[cfg(test)]
use cdc_model::{
    Batch, ChangeBody, Epoch, ObjectId, Operation, Origin, Position, Record, Sequence, Timestamp,
};
#[cfg(test)]
use serde_json::value::RawValue;

#[cfg(test)]
const EPOCH: Epoch = Epoch { number: 1, nonce: 0xc0_ffee };

#[cfg(test)]
fn id(text: &str) -> ObjectId {
    text.parse().expect("an id")
}

#[cfg(test)]
fn child() -> ObjectId {
    id("https://crm.headless.ly/acme")
}

#[cfg(test)]
fn parent_id() -> ObjectId {
    id("https://crm.headless.ly")
}

/// The rows of a child's log: inserts of some 300 bytes.
#[cfg(test)]
fn log(rows: u64) -> Vec<Record> {
    let origin = Origin::new(child(), EPOCH, vec![]);
    let row = |n: u64| {
        let mut body = ChangeBody::new(Operation::Insert, "customers", n.to_string());
        let padding = "lorem ipsum dolor sit amet ".repeat(8);
        let row = format!(r#"{{"id":{n},"name":"Ada {n}","tier":"pro","note":"{padding}{}"}}"#, n * 7919);
        let row = RawValue::from_string(row).expect("JSON");
        body.after = Some(&row);
        Record {
            sequence: Sequence::new(n),
            timestamp: Timestamp::new(1_705_276_800_000),
            epoch: EPOCH,
            origin: std::sync::Arc::clone(&origin),
            origin_sequence: Sequence::new(n),
            origin_timestamp: Timestamp::new(1_705_276_800_000),
            body: body.to_body(),
        }
    };
    (1..=rows).map(row).collect()
}

#[cfg(test)]
fn tail(log: &[Record]) -> Position {
    log.iter().fold(Position::START, |before, row| Position {
        sequence: row.sequence,
        digest: row.digest(before.digest),
    })
}

/// All of a log in one batch.
#[cfg(test)]
fn batch(records: Vec<Record>) -> Batch {
    Batch {
        sender: child(),
        generation: 1,
        epoch: EPOCH,
        after: Position::START,
        through: tail(&records),
        records,
        kept_back: 0,
    }
}
