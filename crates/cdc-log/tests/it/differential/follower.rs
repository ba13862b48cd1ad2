//! What a log adds up to, kept up as it grows.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use cdc_log::{Limit, Log};
use cdc_model::{Content, Document, Fold, Record, Sequence, Tag, row_from_json};
use serde_json::value::RawValue;

use super::live::{Sums, hash_name, hash_value};
use super::world::{Difference, Kind};
use crate::witness::id;

/// What was done around capture since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypassed {
    /// Nothing: no comparison may find anything.
    No,
    /// The schema was changed.
    Schema,
    /// Something that capture sees in another order, or not at all: also histories may break.
    Hole,
}

/// The fold of a log, and the hash of every row in it.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) fold: Fold,
    pub(crate) records: u64,
    /// Records that did not continue the history of their document.
    pub(crate) broken: u64,
    after: Sequence,
    collections: BTreeMap<String, BTreeMap<String, u64>>,
    sums: Sums,
}

impl Follower {
    /// Takes what is new in the log. Gives how many events were found by comparison.
    pub(crate) fn follow(&mut self, log: &Log, bypassed: Bypassed) -> Result<u64, Difference> {
        let mut reconciled = 0;
        loop {
            let records = log.read(self.after, Limit::default()).map_err(Difference::look)?;
            let Some(last) = records.last() else { return Ok(reconciled) };
            self.after = last.sequence;
            for record in &records {
                self.records += 1;
                reconciled += u64::from(self.take(record, bypassed)?);
            }
        }
    }

    /// What the log adds up to; emitted documents are not rows.
    pub(crate) const fn rows(&self) -> &Sums {
        &self.sums
    }

    fn take(&mut self, record: &Record, bypassed: Bypassed) -> Result<bool, Difference> {
        if let Some(broken) = self.fold.apply(record).map_err(Difference::look)? {
            self.broken += 1;
            if bypassed == Bypassed::Hole {
                return self.took(record, bypassed);
            }
            let what = format!("{broken:?}\nat {} {}", record.sequence, record.body);
            return Err(Difference::new(Kind::Chain, what));
        }
        self.took(record, bypassed)
    }

    fn took(&mut self, record: &Record, bypassed: Bypassed) -> Result<bool, Difference> {
        let change = match record.body.content().map_err(Difference::look)? {
            Content::Change(change) => change,
            Content::Schema(schema) => {
                let renamed = schema.renamed_from.iter().chain([&schema.collection]);
                renamed.for_each(|collection| self.forget(collection));
                return self.hash_all(&schema.collection).map(|()| false);
            }
            other => panic!("nobody writes {other:?}"),
        };
        let reconciled = change.tag == Some(Tag::Reconciled);
        if reconciled && bypassed == Bypassed::No {
            return Err(Difference::new(Kind::Reconciled, &record.body));
        }
        if change.schema_version.is_none() && change.tag.is_none() {
            // Emitted: not a row.
            return Ok(false);
        }
        let (collection, document) = (change.collection.into_owned(), change.document_id.into_owned());
        let now = self.fold.get(&id(), &collection, &document).map(|document| hash_row(&document.json));
        self.put(&collection, document, now.transpose()?);
        Ok(reconciled)
    }

    /// Takes in what a document is now.
    fn put(&mut self, collection: &str, document: String, now: Option<u64>) {
        let documents = self.collections.entry(collection.to_owned()).or_default();
        let (rows, sum) = self.sums.entry(collection.to_owned()).or_default();
        let before = match now {
            Some(now) => {
                (*rows, *sum) = (*rows + 1, sum.wrapping_add(now));
                documents.insert(document, now)
            }
            None => documents.remove(&document),
        };
        if let Some(before) = before {
            (*rows, *sum) = (*rows - 1, sum.wrapping_sub(before));
        }
        if *rows == 0 {
            self.sums.remove(collection);
        }
    }

    fn forget(&mut self, collection: &str) {
        self.collections.remove(collection);
        self.sums.remove(collection);
    }

    fn hash_all(&mut self, collection: &str) -> Result<(), Difference> {
        let of = |(document, found): (&str, &Document)| Ok((document.to_owned(), hash_row(&found.json)?));
        let all: Vec<(String, u64)> =
            self.fold.collection(&id(), collection).map(of).collect::<Result<_, Difference>>()?;
        all.into_iter().for_each(|(document, hash)| self.put(collection, document, Some(hash)));
        Ok(())
    }
}

fn hash_row(json: &str) -> Result<u64, Difference> {
    let raw = RawValue::from_string(json.to_owned()).map_err(Difference::look)?;
    let mut hasher = DefaultHasher::new();
    for (name, value) in row_from_json(&raw).map_err(Difference::look)? {
        let value =
            value.as_ref().ok_or_else(|| Difference::new(Kind::Rows, format!("{name} is omitted")))?;
        hash_value(&mut hasher, hash_name(&name), &value);
    }
    Ok(hasher.finish())
}
