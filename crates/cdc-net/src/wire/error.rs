use std::io;

/// Why bytes of another process were not taken, or a request cannot be said on the wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The text is not JSON of the expected shape.
    #[error("not a {what}")]
    Json {
        /// What was expected.
        what: &'static str,
        /// The decoder's own error, with line and column.
        source: serde_json::Error,
    },
    /// The document is of another version of the format.
    #[error("version {found} of the wire format is not known here; {} is", super::VERSION)]
    Version {
        /// The document's.
        found: u32,
    },
    /// A record's body is not one, or not in canonical form.
    #[error("the body of record {index} is not one")]
    Body {
        /// The record's place in the batch.
        index: usize,
        /// What is wrong with it.
        source: cdc_model::Error,
    },
    /// A limit was hit.
    #[error("more than {max} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The parts of a batch do not fit together.
    #[error("a contradiction: {reason}")]
    Contradiction {
        /// Which parts, and how.
        reason: &'static str,
    },
    /// The bytes are not zstd.
    #[error("not zstd")]
    Packed {
        /// The unpacker's own error.
        source: io::Error,
    },
}
