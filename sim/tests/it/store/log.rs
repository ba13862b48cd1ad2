//! A log to archive: events of several origins, days and kinds.

use std::ops::Range;

use cdc_model::{Batch, Body, Digest, Epoch, ObjectId, Origin, Position, Record, Sequence, Timestamp};
use sim::store::Row;

/// 2024-01-15T00:00:00Z.
pub(crate) const DAY: i64 = 1_705_276_800_000;
const DAY_MS: i64 = 86_400_000;
const EPOCH: Epoch = Epoch { number: 1, nonce: 7 };

pub(crate) fn acme() -> ObjectId {
    "https://crm.headless.ly/acme".parse().unwrap()
}

pub(crate) struct Log {
    records: Vec<Record>,
    digests: Vec<Digest>,
}

impl Log {
    /// So many records, of which the seed decides whose, of which day and what they say.
    pub(crate) fn of(seed: u64, count: usize) -> Self {
        Self::altered(seed, count, |_| {})
    }

    /// The same, of which some records are altered as no log would.
    pub(crate) fn altered(seed: u64, count: usize, alter: impl Fn(&mut Record)) -> Self {
        let draws = super::entropy(seed, 77);
        let mut log = Self { records: Vec::new(), digests: vec![Digest::ZERO] };
        let mut sequences = [0_u64; 3];
        for n in 1..=count {
            let child = usize::try_from(draws.u64() % 3).unwrap();
            sequences[child] += 1 + draws.u64() % 2;
            if child == 0 {
                sequences[0] = u64::try_from(n).unwrap();
            }
            let (source, route) = match child {
                0 => (acme(), vec![]),
                n => {
                    let id: ObjectId = format!("https://crm.headless.ly/acme/{n}").parse().unwrap();
                    (id.clone(), vec![id])
                }
            };
            let time = DAY + i64::try_from(n).unwrap() * 60_000;
            let late = if child == 2 { i64::try_from(draws.u64() % 4).unwrap() * DAY_MS } else { 0 };
            let sequence = Sequence::new(u64::try_from(n).unwrap());
            let mut record = Record {
                sequence,
                timestamp: Timestamp::new(time),
                epoch: EPOCH,
                origin: Origin::new(source, EPOCH, route),
                origin_sequence: Sequence::new(sequences[child]),
                origin_timestamp: Timestamp::new(time - late),
                body: Body::parse(&body(draws.u64(), n)).unwrap(),
            };
            alter(&mut record);
            log.digests.push(record.digest(*log.digests.last().unwrap()));
            log.records.push(record);
        }
        log
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    fn position(&self, sequence: usize) -> Position {
        Position { sequence: Sequence::new(sequence.try_into().unwrap()), digest: self.digests[sequence] }
    }

    /// The records in `(after, through]`.
    pub(crate) fn batch(&self, range: Range<usize>) -> Batch {
        Batch {
            sender: acme(),
            generation: 1,
            epoch: EPOCH,
            after: self.position(range.start),
            through: self.position(range.end),
            records: self.records[range].to_vec(),
            kept_back: 0,
        }
    }

    /// The same without the records whose sequence is not kept.
    pub(crate) fn filtered(&self, range: Range<usize>, keep: impl Fn(u64) -> bool) -> Batch {
        let mut batch = self.batch(range);
        let all = batch.records.len();
        batch.records.retain(|record| keep(record.sequence.get()));
        batch.kept_back = u64::try_from(all - batch.records.len()).unwrap();
        batch
    }

    /// The records as rows of a table.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.records.iter().map(row).collect()
    }
}

fn body(draw: u64, n: usize) -> String {
    let name = "ü".repeat(usize::try_from(draw % 50).unwrap());
    match draw % 4 {
        0 => format!(
            r#"{{"operation":"INSERT","collection":"customers","documentId":"{n}","after":{{"id":{n},"name":"{name}"}}}}"#
        ),
        1 => format!(
            r#"{{"operation":"UPDATE","collection":"customers","documentId":"{n}","changedFields":["name"],"before":{{"id":{n},"name":"-"}},"after":{{"id":{n},"name":"{name}"}}}}"#
        ),
        2 => format!(
            r#"{{"operation":"DELETE","collection":"orders","documentId":"{n}","correlationId":"c-{n}","before":{{"id":{n}}}}}"#
        ),
        _ => format!(r#"{{"operation":"INSERT","collection":"orders","documentId":"{n}","after":null}}"#),
    }
}

fn row(record: &Record) -> Row {
    let body = record.body.columns().unwrap();
    Row {
        sequence: record.sequence.as_i64(),
        timestamp: record.timestamp.get() * 1000,
        epoch: record.epoch.to_string(),
        id: record.id().to_string(),
        source: record.origin.source().to_string(),
        origin_epoch: record.origin.epoch().to_string(),
        origin_sequence: record.origin_sequence.as_i64(),
        origin_timestamp: record.origin_timestamp.get() * 1000,
        route: record.origin.route().iter().map(ObjectId::to_string).collect(),
        kind: body.kind,
        operation: body.operation,
        collection: body.collection,
        document_id: body.document_id,
        before: body.before,
        after: body.after,
        delta: body.delta,
        changed_fields: body.changed_fields,
        correlation_id: body.correlation_id,
        tag: body.tag,
        transaction: body.transaction,
        schema_version: body.schema_version.map(|version| version.try_into().unwrap()),
        derived_from: body.derived_from,
        schema: body.schema,
    }
}
