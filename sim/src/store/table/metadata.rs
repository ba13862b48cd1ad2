//! `vN.metadata.json`, as far as the oracle looks at it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::table::{VersionNumber, Watermark};

type Result<T> = std::result::Result<T, String>;

/// One version of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) version: VersionNumber,
    pub(crate) uuid: String,
    pub(crate) location: String,
    pub(crate) properties: BTreeMap<String, String>,
    /// By id.
    pub(crate) snapshots: BTreeMap<i64, Snapshot>,
    pub(crate) current: Option<i64>,
    /// Field ids by column.
    pub(crate) fields: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) sequence_number: i64,
    pub(crate) parent: Option<i64>,
    pub(crate) list: String,
    pub(crate) summary: BTreeMap<String, String>,
}

impl Metadata {
    pub(crate) fn parse(version: VersionNumber, bytes: &[u8]) -> Result<Self> {
        let json: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
        let list = |name: &str| json.get(name).and_then(Value::as_array).into_iter().flatten();
        let current_schema = number(&json, "current-schema-id")?;
        let schema = list("schemas").find(|schema| number(schema, "schema-id") == Ok(current_schema));
        let columns = schema.and_then(|schema| schema.get("fields")).and_then(Value::as_array);
        let column = |column: &Value| Ok((text(column, "name")?, number(column, "id")?));
        let current = number(&json, "current-snapshot-id").ok().filter(|id| *id >= 0);
        Ok(Self {
            version,
            uuid: text(&json, "table-uuid")?,
            location: text(&json, "location")?,
            properties: texts(&json, "properties"),
            snapshots: list("snapshots").map(snapshot).collect::<Result<_>>()?,
            current,
            fields: columns.into_iter().flatten().map(column).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn current(&self) -> Option<&Snapshot> {
        self.snapshots.get(&self.current?)
    }
}

/// The keys of a mark, in a property or a summary. None of them is none; some of them is an error.
pub(crate) fn watermark(pairs: &BTreeMap<String, String>) -> Result<Option<Watermark>> {
    let get = |key: &str| pairs.get(key).cloned();
    match (get("cdc.epoch"), get("cdc.last-sequence"), get("cdc.digest")) {
        (None, None, None) => Ok(None),
        (Some(epoch), Some(sequence), Some(digest)) => {
            let sequence =
                sequence.parse().map_err(|error| format!("{sequence:?} is no sequence: {error}"))?;
            let valid_through = get("cdc.valid-through-ts").and_then(|time| time.parse().ok());
            Ok(Some(Watermark { epoch, sequence, digest, valid_through }))
        }
        some => Err(format!("half a mark: {some:?}")),
    }
}

fn snapshot(json: &Value) -> Result<(i64, Snapshot)> {
    let snapshot = Snapshot {
        sequence_number: number(json, "sequence-number")?,
        parent: number(json, "parent-snapshot-id").ok(),
        list: text(json, "manifest-list")?,
        summary: texts(json, "summary"),
    };
    Ok((number(json, "snapshot-id")?, snapshot))
}

fn texts(json: &Value, name: &str) -> BTreeMap<String, String> {
    let members = json.get(name).and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn number(json: &Value, name: &str) -> Result<i64> {
    json.get(name).and_then(Value::as_i64).ok_or_else(|| format!("`{name}` is no number"))
}

fn text(json: &Value, name: &str) -> Result<String> {
    json.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("`{name}` is no text"))
}
