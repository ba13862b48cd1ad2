//! Documents without a table, whose changes are emitted inside a write.

use cdc_model::{Change, changed_fields};
use serde::Serialize;

use crate::{Error, Result};

/// A document's change without a table, to be emitted inside a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    pub(crate) collection: String,
    pub(crate) document_id: String,
    pub(crate) operation: &'static str,
    pub(crate) changed_fields: Option<String>,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

impl Emit {
    /// A document came into being.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`] when the document does not serialise to JSON.
    pub fn insert<T: Serialize>(collection: &str, document_id: &str, after: &T) -> Result<Self> {
        Self::new(collection, document_id, &Change::Insert { after: json(after)? })
    }

    /// A document changed; the changed paths are worked out.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`] when a document does not serialise to JSON.
    pub fn update<T: Serialize>(collection: &str, document_id: &str, before: &T, after: &T) -> Result<Self> {
        let (before, after) = (json(before)?, json(after)?);
        let changed_fields = changed_fields(&before, &after);
        Self::new(collection, document_id, &Change::Update { before, after, changed_fields })
    }

    /// A document went.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`] when the document does not serialise to JSON.
    pub fn delete<T: Serialize>(collection: &str, document_id: &str, before: &T) -> Result<Self> {
        Self::new(collection, document_id, &Change::Delete { before: json(before)? })
    }

    fn new(collection: &str, document_id: &str, change: &Change<serde_json::Value>) -> Result<Self> {
        let operation = change.operation();
        let updated = operation == cdc_model::Operation::Update;
        Ok(Self {
            collection: collection.to_owned(),
            document_id: document_id.to_owned(),
            operation: operation.as_str(),
            changed_fields: updated.then(|| serde_json::Value::from(change.changed_fields()).to_string()),
            before: change.before().map(ToString::to_string),
            after: change.after().map(ToString::to_string),
            correlation_id: None,
        })
    }

    /// Sets the correlation id, for distributed tracing.
    #[must_use]
    pub fn correlate(mut self, correlation_id: impl Into<String>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }
}

pub(crate) fn json(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::GivenUp { reason: format!("a document does not serialise: {error}") })
}
