//! Manifest lists and manifests, as far as the oracle looks at them.

use std::collections::BTreeMap;

use apache_avro::Reader;
use apache_avro::types::Value;

type Result<T> = std::result::Result<T, String>;

/// An entry of a manifest list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestRef {
    pub(crate) path: String,
    pub(crate) bytes: i64,
    /// 0 is data files, 1 deletes.
    pub(crate) content: i64,
    pub(crate) sequence_number: i64,
    /// Files added and existing, and rows in both.
    pub(crate) files: i64,
    pub(crate) rows: i64,
    pub(crate) deleted_files: i64,
    /// The first and last day, since 1970.
    pub(crate) days: Option<(i64, i64)>,
}

/// An entry of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// 0 is existing, 1 added, 2 deleted.
    pub(crate) status: i64,
    pub(crate) file: DataFile,
}

impl Entry {
    pub(crate) const fn is_live(&self) -> bool {
        self.status != 2
    }
}

/// What a manifest says of a data file. Counts and bounds are by field id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataFile {
    pub(crate) path: String,
    pub(crate) day: i64,
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    pub(crate) values: BTreeMap<i64, i64>,
    pub(crate) nulls: BTreeMap<i64, i64>,
    pub(crate) lower: BTreeMap<i64, Vec<u8>>,
    pub(crate) upper: BTreeMap<i64, Vec<u8>>,
}

/// The entries of a manifest list.
pub(crate) fn manifests(bytes: &[u8]) -> Result<Vec<ManifestRef>> {
    records(bytes)?.iter().map(manifest).collect()
}

/// The entries of a manifest.
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>> {
    records(bytes)?.iter().map(entry).collect()
}

fn records(bytes: &[u8]) -> Result<Vec<Value>> {
    let reader = Reader::new(bytes).map_err(|error| format!("it is not Avro: {error}"))?;
    reader.collect::<std::result::Result<_, _>>().map_err(|error| format!("it does not decode: {error}"))
}

fn manifest(record: &Value) -> Result<ManifestRef> {
    let days = match member(record, "partitions") {
        Ok(Value::Array(partitions)) => partitions.first().and_then(days),
        _ => None,
    };
    Ok(ManifestRef {
        path: text(record, "manifest_path")?,
        bytes: number(record, "manifest_length")?,
        content: number(record, "content")?,
        sequence_number: number(record, "sequence_number")?,
        files: number(record, "added_files_count")? + number(record, "existing_files_count")?,
        rows: number(record, "added_rows_count")? + number(record, "existing_rows_count")?,
        deleted_files: number(record, "deleted_files_count")?,
        days,
    })
}

fn days(partition: &Value) -> Option<(i64, i64)> {
    let day = |name| {
        let bytes = <[u8; 4]>::try_from(blob(member(partition, name).ok()?)?).ok()?;
        Some(i64::from(i32::from_le_bytes(bytes)))
    };
    Some((day("lower_bound")?, day("upper_bound")?))
}

fn entry(record: &Value) -> Result<Entry> {
    let file = member(record, "data_file")?;
    let Value::Record(partition) = member(file, "partition")? else {
        return Err("`partition` is no record".to_owned());
    };
    let day = match partition.as_slice() {
        [(_, day)] => integer(plain(day)).ok_or("the partition is no day")?,
        _ => return Err(format!("{} partition fields", partition.len())),
    };
    Ok(Entry {
        status: number(record, "status")?,
        file: DataFile {
            path: text(file, "file_path")?,
            day,
            rows: number(file, "record_count")?,
            bytes: number(file, "file_size_in_bytes")?,
            values: map(file, "value_counts", integer),
            nulls: map(file, "null_value_counts", integer),
            lower: map(file, "lower_bounds", |bytes| blob(bytes).map(<[u8]>::to_vec)),
            upper: map(file, "upper_bounds", |bytes| blob(bytes).map(<[u8]>::to_vec)),
        },
    })
}

/// Iceberg writes maps with integer keys as lists of pairs. What is absent is empty.
fn map<T>(record: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> BTreeMap<i64, T> {
    let Ok(Value::Array(pairs)) = member(record, name) else { return BTreeMap::new() };
    let pair = |pair: &Value| {
        let key = integer(member(pair, "key").ok()?)?;
        Some((key, read(member(pair, "value").ok()?)?))
    };
    pairs.iter().filter_map(pair).collect()
}

fn member<'a>(record: &'a Value, name: &str) -> Result<&'a Value> {
    let Value::Record(members) = plain(record) else { return Err(format!("no record around `{name}`")) };
    let found = members.iter().find(|(member, _)| member == name);
    found.map(|(_, value)| plain(value)).ok_or_else(|| format!("`{name}` is missing"))
}

fn plain(value: &Value) -> &Value {
    if let Value::Union(_, value) = value { plain(value) } else { value }
}

fn number(record: &Value, name: &str) -> Result<i64> {
    integer(member(record, name)?).ok_or_else(|| format!("`{name}` is no number"))
}

fn text(record: &Value, name: &str) -> Result<String> {
    let value = member(record, name)?;
    if let Value::String(text) = value { Ok(text.clone()) } else { Err(format!("`{name}` is no text")) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Avro has many types and these are numbers")]
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Long(number) => Some(*number),
        Value::Int(number) | Value::Date(number) => Some(i64::from(*number)),
        _ => None,
    }
}

fn blob(value: &Value) -> Option<&[u8]> {
    if let Value::Bytes(bytes) | Value::Fixed(_, bytes) = value { Some(bytes) } else { None }
}
