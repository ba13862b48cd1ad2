//! The watermark as strings in snapshot summaries and table properties.

use cdc_model::{Mark, Sequence, Timestamp};
use iceberg::spec::{SnapshotRef, TableMetadata};

use crate::catalog::Loaded;
use crate::error::Cause;
use crate::{Error, Result};

/// The object whose log is archived; a property only.
pub(crate) const OBJECT: &str = "cdc.object";
/// The epoch of the archived log.
pub(crate) const EPOCH: &str = "cdc.epoch";
/// The first sequence the snapshot covers; in summaries only.
pub(crate) const FIRST_SEQUENCE: &str = "cdc.first-sequence";
/// The last sequence taken.
pub(crate) const LAST_SEQUENCE: &str = "cdc.last-sequence";
/// The log's running digest at it.
pub(crate) const DIGEST: &str = "cdc.digest";
/// The log time of the newest archived record, ms.
pub(crate) const VALID_THROUGH: &str = "cdc.valid-through-ts";

/// What a commit says about how far the archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) mark: Mark,
    pub(crate) valid_through: Option<Timestamp>,
}

impl Watermark {
    pub(crate) fn to_pairs(self) -> Vec<(String, String)> {
        let mut pairs = vec![
            (EPOCH.to_owned(), self.mark.epoch.to_string()),
            (LAST_SEQUENCE.to_owned(), self.mark.sequence.to_string()),
            (DIGEST.to_owned(), self.mark.digest.to_string()),
        ];
        pairs.extend(self.valid_through.map(|time| (VALID_THROUGH.to_owned(), time.get().to_string())));
        pairs
    }

    /// None when none of the keys is there; an error when some are missing or unreadable.
    fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Cause> {
        let (epoch, sequence, digest) = match (get(EPOCH), get(LAST_SEQUENCE), get(DIGEST)) {
            (Some(epoch), Some(sequence), Some(digest)) => (epoch, sequence, digest),
            (None, None, None) => return Ok(None),
            _ => return Err("cdc.epoch, cdc.last-sequence and cdc.digest must come together".into()),
        };
        let sequence: Sequence = sequence.parse()?;
        let mark = Mark { epoch: epoch.parse()?, sequence, digest: digest.parse()? };
        let valid_through = get(VALID_THROUGH).map(str::parse).transpose()?.map(Timestamp::new);
        Ok(Some(Self { mark, valid_through }))
    }
}

/// The watermark of a table version: its property, which the current snapshot must confirm.
///
/// Expiry may remove old summaries and other engines commit without our keys, so the nearest ancestor of the current
/// snapshot that carries a mark is asked; if none does, the property stands alone.
pub(crate) fn watermark_of(table: &Loaded) -> Result<Option<Watermark>> {
    let properties = table.metadata.properties();
    let corrupt = |source| Error::corrupt(&table.file(), "a watermark")(source);
    let property = Watermark::parse(|key| properties.get(key).map(String::as_str)).map_err(corrupt)?;
    for snapshot in ancestry(&table.metadata) {
        let summary = &snapshot.summary().additional_properties;
        let found = Watermark::parse(|key| summary.get(key).map(String::as_str)).map_err(corrupt)?;
        let Some(found) = found else { continue };
        if property.is_some_and(|property| property.mark == found.mark) {
            return Ok(property);
        }
        let (property, snapshot) = (property.map(|p| p.mark), Some(found.mark));
        return Err(Error::MarkConflict { location: table.file(), property, snapshot });
    }
    Ok(property)
}

/// The current snapshot and those it descends from, newest first.
fn ancestry(metadata: &TableMetadata) -> impl Iterator<Item = &SnapshotRef> {
    std::iter::successors(metadata.current_snapshot(), |snapshot| {
        let parent = metadata.snapshot_by_id(snapshot.parent_snapshot_id()?)?;
        // A parent is older; anything else is a cycle in damaged metadata.
        (parent.sequence_number() < snapshot.sequence_number()).then_some(parent)
    })
}
