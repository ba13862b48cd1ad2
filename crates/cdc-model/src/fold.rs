use std::collections::BTreeMap;

use crate::{ChangeBody, Content, Error, ObjectId, Operation, Record, SchemaChange, Sequence, Timestamp};

/// The newest state of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// JSON text of its state.
    pub json: String,
    /// The place, in the log being folded, of the record that made it so.
    pub sequence: Sequence,
    /// When that happened, by the origin's clock.
    pub timestamp: Timestamp,
}

/// Why a record does not continue the history folded so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenChain {
    /// The record's `before`; `None` where it says that the document did not exist.
    pub before: Option<String>,
    /// The state folded so far; `None` where the document does not exist.
    pub folded: Option<String>,
}

/// The documents that a prefix of a log adds up to, keyed by origin, collection and document id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    sources: BTreeMap<ObjectId, Collections>,
}

type Collections = BTreeMap<String, BTreeMap<String, Document>>;

impl Fold {
    /// No documents.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a document in as it is where a history begins: what comes before is not known any more.
    pub fn begin_with(&mut self, source: &ObjectId, collection: &str, document_id: &str, document: Document) {
        let collections = self.sources.entry(source.clone()).or_default();
        collections.entry(collection.to_owned()).or_default().insert(document_id.to_owned(), document);
    }

    /// Takes one more record. A schema change does to the documents of its collection what it did to the rows.
    ///
    /// Returns how the record fails to continue the history, if it does; it is taken all the same, because its
    /// `after` is the newest that is known.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the body does not decode.
    pub fn apply(&mut self, record: &Record) -> Result<Option<BrokenChain>, Error> {
        let change = match record.body.content()? {
            Content::Change(change) => change,
            Content::Schema(schema) => {
                self.reshape(record.origin.source(), &schema)?;
                return Ok(None);
            }
        };
        self.change(record, change)
    }

    fn reshape(&mut self, source: &ObjectId, schema: &SchemaChange) -> Result<(), Error> {
        let Some(collections) = self.sources.get_mut(source) else { return Ok(()) };
        if let Some(moved) = schema.renamed_from.as_ref().and_then(|old| collections.remove(old)) {
            collections.entry(schema.collection.clone()).or_default().extend(moved);
        }
        if !schema.changes.is_empty() {
            let documents =
                collections.get_mut(&schema.collection).into_iter().flat_map(BTreeMap::values_mut);
            // What was emitted under the table's name may be anything.
            for document in documents.filter(|document| document.json.starts_with('{')) {
                document.json = schema.reshape(&document.json)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, record: &Record, change: ChangeBody<'_>) -> Result<Option<BrokenChain>, Error> {
        let before = change.full_before()?;
        let source = self.sources.entry(record.origin.source().clone()).or_default();
        let documents = source.entry(change.collection.into_owned()).or_default();
        let folded = documents.get(change.document_id.as_ref());
        let broken =
            (folded.map(|document| document.json.as_str()) != before.as_deref()).then(|| BrokenChain {
                before: before.as_deref().map(str::to_owned),
                folded: folded.map(|document| document.json.clone()),
            });
        if change.operation == Operation::Delete {
            documents.remove(change.document_id.as_ref());
        } else if let Some(after) = change.after {
            let json = after.get().to_owned();
            let document = Document { json, sequence: record.sequence, timestamp: record.origin_timestamp };
            documents.insert(change.document_id.into_owned(), document);
        }
        Ok(broken)
    }

    /// One document.
    #[must_use]
    pub fn get(&self, source: &ObjectId, collection: &str, document_id: &str) -> Option<&Document> {
        self.sources.get(source)?.get(collection)?.get(document_id)
    }

    /// All documents of one collection of one origin, by document id.
    pub fn collection(&self, source: &ObjectId, collection: &str) -> impl Iterator<Item = (&str, &Document)> {
        let documents = self.sources.get(source).and_then(|collections| collections.get(collection));
        documents.into_iter().flatten().map(|(id, document)| (id.as_str(), document))
    }

    /// All documents: origin, collection, document id, document; in that order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectId, &str, &str, &Document)> {
        self.sources.iter().flat_map(|(source, collections)| {
            collections.iter().flat_map(move |(collection, documents)| {
                documents
                    .iter()
                    .map(move |(id, document)| (source, collection.as_str(), id.as_str(), document))
            })
        })
    }

    /// How many documents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
