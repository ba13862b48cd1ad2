use cdc_model::{Cursor, Filter, Record, Sequence};

/// What a replay keeps of what it scans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Select {
    pub(crate) filter: Filter,
    pub(crate) document: Option<DocumentName>,
}

#[derive(Clone, Debug)]
pub(crate) struct DocumentName {
    pub(crate) collection: String,
    pub(crate) document_id: String,
}

/// What passed of some records.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) records: Vec<Record>,
    /// The last record looked at.
    pub(crate) last: Option<Cursor>,
    /// Why it was the last, if there were more.
    pub(crate) failed: Option<(Sequence, cdc_model::Error)>,
}

impl Select {
    /// The part of it that a tier can push down.
    pub(crate) fn pushed_down(&self) -> Filter {
        let mut filter = self.filter.clone();
        if let Some(document) = &self.document {
            filter.collections = vec![document.collection.clone()];
        }
        filter
    }

    /// Takes the records that pass, up to the first that does not decode.
    pub(crate) fn keep(&self, records: Vec<Record>) -> Kept {
        let mut kept = Kept { records: Vec::with_capacity(records.len()), last: None, failed: None };
        for record in records {
            let cursor = record.cursor();
            match self.passes(&record) {
                Ok(true) => kept.records.push(record),
                Ok(false) => {}
                Err(source) => {
                    kept.failed = Some((record.sequence, source));
                    break;
                }
            }
            kept.last = Some(cursor);
        }
        kept
    }

    fn passes(&self, record: &Record) -> Result<bool, cdc_model::Error> {
        if !self.filter.passes(record)? {
            return Ok(false);
        }
        let Some(document) = &self.document else {
            return Ok(true);
        };
        Ok(record.body.change()?.is_some_and(|change| {
            change.collection == document.collection && change.document_id == document.document_id
        }))
    }
}
