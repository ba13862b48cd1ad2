//! What a scan asks for, decided on rows and on the bounds of whole files.

use cdc_model::{Filter, Sequence, Timestamp};
use iceberg::spec::{DataFile, Datum, ManifestFile, PrimitiveLiteral};

use crate::data_file::DAY_MS;
use crate::decode::Place;
use crate::encode::micros;
use crate::manifest::Facts;
use crate::schema;

/// Which records a scan gives out. Sequences are `(after, through]`, times `[from, until)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Select {
    pub(crate) after: Sequence,
    pub(crate) through: Option<Sequence>,
    pub(crate) from_time: Option<Timestamp>,
    pub(crate) until_time: Option<Timestamp>,
    pub(crate) origin_from: Option<Timestamp>,
    pub(crate) origin_until: Option<Timestamp>,
    pub(crate) filter: Filter,
}

impl Select {
    /// Whether this row is asked for.
    pub(crate) fn takes(&self, place: &Place<'_>) -> bool {
        place.cursor_sequence > self.after
            && self.through.is_none_or(|through| place.cursor_sequence <= through)
            && within(place.cursor_timestamp, self.from_time, self.until_time)
            && within(place.timestamp, self.origin_from, self.origin_until)
            && self.filter_takes(place)
    }

    /// The same rule as [`Filter::passes`], on columns. A row without an operation is a schema change, which every
    /// operation filter lets pass.
    fn filter_takes(&self, place: &Place<'_>) -> bool {
        let Filter { collections, operations, sources } = &self.filter;
        (sources.is_empty() || sources.iter().any(|source| source.as_str() == place.source))
            && (collections.is_empty() || collections.iter().any(|name| name == place.collection))
            && (operations.is_empty()
                || place
                    .operation
                    .is_none_or(|name| operations.iter().any(|operation| operation.as_str() == name)))
    }

    /// Whether a manifest may list such a file, by its name and by the days in it, of which the table's spec has one.
    pub(crate) fn may_be_listed_in(&self, manifest: &ManifestFile, spec_id: i32) -> bool {
        let in_log = Facts::parse(&manifest.manifest_path).is_none_or(|facts| {
            facts.last > self.after && self.through.is_none_or(|through| facts.first <= through)
        });
        let days = manifest.partitions.as_deref().filter(|_| manifest.partition_spec_id == spec_id);
        let Some([day]) = days else { return in_log };
        let bound = |bytes: Option<&[u8]>| bytes?.try_into().ok().map(i32::from_le_bytes).map(i64::from);
        let from = bound(day.lower_bound.as_ref().map(|bytes| bytes.as_slice()))
            .map_or(i64::MIN, |first| first.saturating_mul(DAY_MS));
        let until = bound(day.upper_bound.as_ref().map(|bytes| bytes.as_slice()))
            .map_or(i64::MAX, |last| last.saturating_add(1).saturating_mul(DAY_MS));
        in_log
            && self.origin_from.is_none_or(|time| time.get() < until)
            && self.origin_until.is_none_or(|time| time.get() > from)
    }

    /// Whether a file's bounds leave it possible that it holds a row asked for.
    pub(crate) fn may_be_in(&self, file: &DataFile) -> bool {
        let Filter { collections, operations, sources } = &self.filter;
        let (first, last) = sequence_bounds(file);
        let has_schema_changes =
            file.null_value_counts().get(&schema::OPERATION).is_none_or(|nulls| *nulls > 0);
        last > self.after
            && self.through.is_none_or(|through| first <= through)
            && overlaps(file, schema::CURSOR_TIMESTAMP, self.from_time, self.until_time)
            && overlaps(file, schema::TIMESTAMP, self.origin_from, self.origin_until)
            && any_in(file, schema::SOURCE, sources.iter().map(cdc_model::ObjectId::as_str))
            && any_in(file, schema::COLLECTION, collections.iter().map(String::as_str))
            && (has_schema_changes
                || any_in(file, schema::OPERATION, operations.iter().map(|operation| operation.as_str())))
    }
}

/// The first and last log sequence in a file, as wide as can be where the file has no bounds.
pub(crate) fn sequence_bounds(file: &DataFile) -> (Sequence, Sequence) {
    let sequence = |bound: Option<i64>| bound.and_then(Sequence::checked);
    (
        sequence(long(file.lower_bounds().get(&schema::CURSOR_SEQUENCE))).unwrap_or(Sequence::ZERO),
        sequence(long(file.upper_bounds().get(&schema::CURSOR_SEQUENCE))).unwrap_or(Sequence::MAX),
    )
}

/// The oldest and newest event time in a file.
pub(crate) fn time_bounds(file: &DataFile) -> Option<(Timestamp, Timestamp)> {
    let time = |bound| long(bound).map(|micros| Timestamp::new(micros.div_euclid(1000)));
    let (lower, upper) = (file.lower_bounds(), file.upper_bounds());
    Some((time(lower.get(&schema::TIMESTAMP))?, time(upper.get(&schema::TIMESTAMP))?))
}

fn within(time: Timestamp, from: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    from.is_none_or(|from| time >= from) && until.is_none_or(|until| time < until)
}

fn overlaps(file: &DataFile, column: i32, from: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let lower = long(file.lower_bounds().get(&column));
    let upper = long(file.upper_bounds().get(&column));
    // A time beyond what the column can hold is beyond every row.
    let newest_reaches = from.is_none_or(|from| {
        micros(from).map_or(from < Timestamp::ZERO, |from| upper.is_none_or(|upper| upper >= from))
    });
    let oldest_reaches = until.is_none_or(|until| {
        micros(until).map_or(until > Timestamp::ZERO, |until| lower.is_none_or(|lower| lower < until))
    });
    newest_reaches && oldest_reaches
}

fn any_in<'a>(file: &DataFile, column: i32, wanted: impl ExactSizeIterator<Item = &'a str>) -> bool {
    let lower = file.lower_bounds().get(&column).and_then(string);
    let upper = file.upper_bounds().get(&column).and_then(string);
    let mut wanted = wanted;
    wanted.len() == 0
        || wanted
            .any(|name| lower.is_none_or(|lower| lower <= name) && upper.is_none_or(|upper| name <= upper))
}

fn long(datum: Option<&Datum>) -> Option<i64> {
    let PrimitiveLiteral::Long(value) = datum?.literal() else {
        return None;
    };
    Some(*value)
}

fn string(datum: &Datum) -> Option<&str> {
    let PrimitiveLiteral::String(value) = datum.literal() else {
        return None;
    };
    Some(value)
}
