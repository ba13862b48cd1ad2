//! Holds every archive against the log it is of.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::documents::Fact;
use crate::failure::{Broken, ensure};
use crate::oracle::Oracle;
use crate::store::{Row, SimStore, TableOracle};
use crate::topology::Place;

/// The tables of a world, by the object whose log they archive.
#[derive(Debug)]
pub(crate) struct Tables(BTreeMap<usize, TableOracle>);

impl Tables {
    pub(crate) fn new(places: &[Place]) -> Self {
        let archived = places.iter().enumerate().filter(|(_, place)| place.archives);
        let table = |place: &Place| TableOracle::new(format!("tables/{}", place.id.file_name()));
        Self(archived.map(|(at, place)| (at, table(place))).collect())
    }

    /// Reads what is new in every table. Gives what is not archived so far.
    pub(crate) fn check(&mut self, store: &SimStore, oracle: &Oracle) -> Result<Option<String>, Broken> {
        let violations = store.violations();
        ensure(violations.is_empty(), "a committed file never changes", || violations.join("; "))?;
        let mut missing = None;
        for (at, table) in &mut self.0 {
            let checked = table.check(store);
            let found = checked.map_err(|violations| {
                let first = violations.into_iter().next();
                first.map_or(Broken { promise: "an archive is sound", saw: String::new() }, |violation| {
                    Broken { promise: violation.promise, saw: format!("object {at}: {}", violation.saw) }
                })
            })?;
            if oracle.is_rewound(*at) {
                continue;
            }
            found.rows.iter().try_for_each(|row| check_row(oracle, *at, row))?;
            let rows = oracle.objects.get(*at).map_or(0, |known| known.rows.len());
            let through = found.watermark.map_or(0, |mark| mark.sequence);
            if usize::try_from(through) != Ok(rows) {
                missing = Some(format!("object {at} is archived up to {through} of {rows}"));
            }
        }
        Ok(missing)
    }
}

/// A row of the archive is the row of the log at its place.
fn check_row(oracle: &Oracle, at: usize, row: &Row) -> Result<(), Broken> {
    const PROMISE: &str = "the archive is the history";
    let known = oracle.objects.get(at);
    let place = usize::try_from(row.sequence - 1).ok();
    let logged = known.zip(place).and_then(|(known, place)| known.rows.get(place));
    let Some(logged) = logged else {
        return ensure(false, PROMISE, || {
            format!("object {at}: its archive holds {row:?}, its log does not")
        });
    };
    let source = oracle.place(logged.origin).id.as_str();
    let same = (row.source.as_str(), row.origin_sequence.cast_unsigned()) == (source, logged.origin_sequence);
    ensure(same, PROMISE, || format!("object {at}: archived is {row:?}, logged is {logged:?}"))?;
    if oracle.is_rewound(logged.origin) {
        // What it says may be of the history that was taken back.
        return Ok(());
    }
    let origin = oracle.objects.get(logged.origin);
    let fact = origin.and_then(|origin| origin.fact_of(logged.origin_sequence));
    let Some(Fact::Change { collection, document, after, .. }) = fact else { return Ok(()) };
    let archived: Option<Value> = row.after.as_deref().map(serde_json::from_str).transpose()?;
    let says = (row.collection.as_str(), row.document_id.as_deref(), archived.as_ref());
    ensure(says == (collection, Some(document), after.as_ref()), PROMISE, || {
        format!("object {at}: archived is {row:?}, written was {fact:?}")
    })
}
