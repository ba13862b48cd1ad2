//! What events say of the transaction that they were part of.

use serde_json::{Value, json};

use crate::failure::{Broken, ensure};
use crate::oracle::Oracle;
use crate::rows::LogRow;
use crate::workload::said_by;

/// An event of several says of which transaction it is, where in it, and what its writer said of the whole.
pub(super) fn check_transaction(oracle: &mut Oracle, at: usize, row: &LogRow) -> Result<(), Broken> {
    let (is_attached, is_rewound) = (oracle.is_attached(at), oracle.is_rewound(at));
    let known = oracle.known(at);
    let place = known.own_seen;
    let Some((first, (facts, of))) = known.transactions.range(..=place).next_back().filter(|_| !is_attached)
    else {
        return Ok(());
    };
    let (correlation, metadata) = said_by(*of);
    let body: Value = serde_json::from_str(&row.body)?;
    let said = body.get("transaction");
    let id = said.and_then(|said| said.get("id")).and_then(Value::as_str).map(str::to_owned);
    let meant = (*facts > 1 || metadata.is_some()).then(|| {
        let mut meant = json!({ "id": id, "index": place - first, "count": facts });
        if let (Some(metadata), Some(members)) = (metadata, meant.as_object_mut()) {
            members.insert("metadata".to_owned(), metadata);
        }
        meant
    });
    let goes_on = *first < place;
    let is_known = id.is_none() || is_rewound || goes_on == (id == known.transaction_id);
    let is_correlated = body.get("correlationId").and_then(Value::as_str) == correlation.as_deref();
    ensure(
        said == meant.as_ref() && is_known && is_correlated,
        "events say of which transaction they are",
        || format!("object {at}: row {} is {}, meant was {meant:?}, {correlation:?}", row.sequence, row.body),
    )?;
    known.transaction_id = id.or(known.transaction_id.take());
    Ok(())
}
