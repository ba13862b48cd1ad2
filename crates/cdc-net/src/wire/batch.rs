use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_model::{Batch, Body, Epoch, Error, ObjectId, Origin, Position, Record, Sequence, Timestamp};
use cdc_relay::DEPTH_MAX;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{RECORDS_MAX, VERSION, WireError, bounded};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    version: u32,
    to: ObjectId,
    #[serde(borrow)]
    batch: Sent<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sent<'a> {
    sender: ObjectId,
    generation: u64,
    epoch: Epoch,
    after: Position,
    through: Position,
    kept_back: u64,
    /// Every origin and route of the records, once.
    #[serde(deserialize_with = "bounded::list::<_, _, RECORDS_MAX>")]
    origins: Vec<Source>,
    #[serde(borrow, deserialize_with = "bounded::list::<_, _, RECORDS_MAX>")]
    records: Vec<Row<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    source: ObjectId,
    epoch: Epoch,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, _, DEPTH_MAX>"
    )]
    route: Vec<ObjectId>,
}

/// As in an event, `sequence` and `timestamp` are those of the origin.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    /// Index into the origins.
    origin: usize,
    sequence: Sequence,
    timestamp: Timestamp,
    /// The place in the sender's log, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Place>,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    sequence: Sequence,
    timestamp: Timestamp,
}

pub(super) fn encode(to: &ObjectId, batch: &Batch) -> Result<Vec<u8>, WireError> {
    if batch.records.len() > RECORDS_MAX {
        return Err(WireError::TooMuch { what: "records", max: RECORDS_MAX });
    }
    let mut origins = Origins::default();
    let rows = batch.records.iter().enumerate().map(|(index, record)| {
        if record.epoch != batch.epoch {
            return Err(WireError::Contradiction { reason: "a record is of another epoch than its batch" });
        }
        row(index, origins.index(&record.origin), record)
    });
    let records = rows.collect::<Result<_, _>>()?;
    let batch = Sent {
        sender: batch.sender.clone(),
        generation: batch.generation,
        epoch: batch.epoch,
        after: batch.after,
        through: batch.through,
        kept_back: batch.kept_back,
        origins: origins.list,
        records,
    };
    Ok(super::encode(&Document { version: VERSION, to: to.clone(), batch }))
}

fn row(index: usize, origin: usize, record: &Record) -> Result<Row<'_>, WireError> {
    let text = record.body.as_str();
    let json = |source| WireError::Body { index, source: Error::Json { what: "body", source } };
    let body: &RawValue = serde_json::from_str(text).map_err(json)?;
    if body.get().len() != text.len() {
        // White space around a value would not come out again.
        return Err(WireError::Body { index, source: Error::NotCanonical });
    }
    let (sequence, timestamp) = (record.origin_sequence, record.origin_timestamp);
    let elsewhere = (record.sequence, record.timestamp) != (sequence, timestamp);
    let cursor = elsewhere.then_some(Place { sequence: record.sequence, timestamp: record.timestamp });
    Ok(Row { origin, sequence, timestamp, cursor, body })
}

/// The origins of a batch, each once.
#[derive(Default)]
struct Origins<'a> {
    list: Vec<Source>,
    known: BTreeMap<(&'a ObjectId, Epoch, &'a [ObjectId]), usize>,
}

impl<'a> Origins<'a> {
    fn index(&mut self, origin: &'a Origin) -> usize {
        let next = self.list.len();
        *self.known.entry((origin.source(), origin.epoch(), origin.route())).or_insert_with(|| {
            let (source, route) = (origin.source().clone(), origin.route().to_vec());
            self.list.push(Source { source, epoch: origin.epoch(), route });
            next
        })
    }
}

pub(super) fn decode(text: &[u8]) -> Result<(ObjectId, Batch), WireError> {
    let Document { to, batch, .. } =
        super::decode("batch", text, |document: &Document<'_>| document.version)?;
    let origins: Vec<_> = batch
        .origins
        .into_iter()
        .map(|origin| Origin::new(origin.source, origin.epoch, origin.route))
        .collect();
    let records = batch.records.iter().enumerate().map(|(index, row)| {
        let origin = origins.get(row.origin).ok_or(WireError::Contradiction {
            reason: "a record names an origin that is not in the batch",
        })?;
        let body = Body::parse(row.body.get()).map_err(|source| WireError::Body { index, source })?;
        let (sequence, timestamp) =
            row.cursor.as_ref().map_or((row.sequence, row.timestamp), |at| (at.sequence, at.timestamp));
        Ok(Record {
            sequence,
            timestamp,
            epoch: batch.epoch,
            origin: Arc::clone(origin),
            origin_sequence: row.sequence,
            origin_timestamp: row.timestamp,
            body,
        })
    });
    let batch = Batch {
        records: records.collect::<Result<_, WireError>>()?,
        sender: batch.sender,
        generation: batch.generation,
        epoch: batch.epoch,
        after: batch.after,
        through: batch.through,
        kept_back: batch.kept_back,
    };
    Ok((to, batch))
}
