use serde::{Deserialize, Serialize};

use crate::{Error, ObjectId, Operation, Record};

/// Which records pass. An empty list lets everything pass; all lists must agree.
///
/// A filter by collection or operation concerns changes; schema changes pass a collection filter by their table
/// and every operation filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Filter {
    /// Only these tables or collections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<String>,
    /// Only these operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
    /// Only events of these origins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<ObjectId>,
}

impl Filter {
    /// Lets everything pass.
    pub const ALL: Self = Self { collections: Vec::new(), operations: Vec::new(), sources: Vec::new() };

    /// Only one collection.
    pub fn collection(name: impl Into<String>) -> Self {
        Self { collections: vec![name.into()], ..Self::ALL }
    }

    /// Only one operation.
    #[must_use]
    pub fn operation(operation: Operation) -> Self {
        Self { operations: vec![operation], ..Self::ALL }
    }

    /// Only one origin.
    #[must_use]
    pub fn source(source: ObjectId) -> Self {
        Self { sources: vec![source], ..Self::ALL }
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    /// Whether this record passes.
    ///
    /// # Errors
    ///
    /// [`Error::Json`] when the record must be decoded to tell and does not decode.
    pub fn passes(&self, record: &Record) -> Result<bool, Error> {
        if !self.sources.is_empty() && !self.sources.contains(record.origin.source()) {
            return Ok(false);
        }
        if self.collections.is_empty() && self.operations.is_empty() {
            return Ok(true);
        }
        let listed = |collection: &str| {
            self.collections.is_empty() || self.collections.iter().any(|c| c == collection)
        };
        Ok(match record.body.content()? {
            crate::Content::Change(change) => {
                listed(&change.collection)
                    && (self.operations.is_empty() || self.operations.contains(&change.operation))
            }
            crate::Content::Schema(schema) => listed(&schema.collection),
        })
    }
}
