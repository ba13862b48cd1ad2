use std::fmt;

/// Why a value from outside was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an object id.
    #[error("{text:?} is not an object id: {reason}")]
    ObjectId {
        /// The refused text.
        text: String,
        /// What is wrong with it and what to write instead.
        reason: &'static str,
    },
    /// The text is not a number, cursor, timestamp, epoch, digest or event id.
    #[error("{text:?} is not {expected}")]
    Parse {
        /// The refused text.
        text: String,
        /// What was expected, with its article.
        expected: &'static str,
    },
    /// The text is not JSON of the expected shape.
    #[error("not a {what}")]
    Json {
        /// The shape that was expected.
        what: &'static str,
        /// The decoder's own error, with line and column.
        source: serde_json::Error,
    },
    /// An event lacks a state its operation must have.
    #[error("{operation} of {collection}/{document_id} lacks `{member}`")]
    MissingState {
        /// The operation, as on the wire.
        operation: &'static str,
        /// The event's collection.
        collection: String,
        /// The event's document.
        document_id: String,
        /// The member that is missing.
        member: &'static str,
    },
    /// The body is valid JSON but not in the one canonical form that digests are computed over.
    #[error("the body is not in canonical form")]
    NotCanonical,
    /// A column set of an archived row contradicts itself.
    #[error("the columns of an archived row contradict each other: {reason}")]
    Columns {
        /// Which columns, and how.
        reason: &'static str,
    },
    /// A name or list is longer than its limit.
    #[error("{what} has {len} bytes, the limit is {max}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}

impl Error {
    pub(crate) fn parse(text: impl fmt::Display, expected: &'static str) -> Self {
        Self::Parse { text: text.to_string(), expected }
    }

    pub(crate) fn json(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { what, source }
    }
}
