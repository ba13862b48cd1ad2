use crate::record::{push, push_raw};
use crate::{Content, Error, Operation, Record, Tag, Timestamp};

/// A record as a Debezium envelope: `before`, `after`, `op` (c, u, d, or r for a snapshot), `source` and `ts_ms`.
///
/// `source.ts_ms` is when the change happened, the outer `ts_ms` when it is being processed (`now`). `None` for
/// a schema change, which Debezium sends on another topic.
///
/// # Errors
///
/// [`Error::Json`] when the body does not decode.
pub fn to_debezium(record: &Record, now: Timestamp) -> Result<Option<String>, Error> {
    let Content::Change(body) = record.body.content()? else {
        return Ok(None);
    };
    let snapshot = body.tag == Some(Tag::Snapshot);
    let op = match body.operation {
        Operation::Insert if snapshot => "r",
        Operation::Insert => "c",
        Operation::Update => "u",
        Operation::Delete => "d",
    };
    let mut out = String::from("{");
    push_raw(&mut out, "before", body.full_before()?.as_deref().unwrap_or("null"));
    push_raw(&mut out, "after", body.after.map_or("null", |after| after.get()));
    let mut source = String::from("{");
    push(&mut source, "version", &env!("CARGO_PKG_VERSION"));
    push(&mut source, "connector", &"cdc");
    push(&mut source, "name", &record.origin.source());
    push(&mut source, "ts_ms", &record.origin_timestamp);
    push(&mut source, "snapshot", &if snapshot { "true" } else { "false" });
    push(&mut source, "db", &record.origin.source().short());
    push(&mut source, "table", &body.collection);
    push(&mut source, "key", &body.document_id);
    push(&mut source, "epoch", &record.origin.epoch());
    push(&mut source, "sequence", &record.origin_sequence);
    push(&mut source, "event_id", &record.id());
    source.push('}');
    push_raw(&mut out, "source", &source);
    push(&mut out, "op", &op);
    push(&mut out, "ts_ms", &now);
    match &body.transaction {
        None => push_raw(&mut out, "transaction", "null"),
        Some(transaction) => {
            let mut block = String::from("{");
            push(&mut block, "id", &transaction.id);
            push(&mut block, "total_order", &(u64::from(transaction.index) + 1));
            push(&mut block, "data_collection_order", &(u64::from(transaction.index) + 1));
            block.push('}');
            push_raw(&mut out, "transaction", &block);
        }
    }
    out.push('}');
    Ok(Some(out))
}
